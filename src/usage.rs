//! Which metrics and labels anybody looks at: the queries that this server was asked, the rules
//! that are evaluated, and the dashboards that were imported.
//!
//! [`expression`] says what one expression touches, [`dashboards`] and [`rules`] find expressions
//! in files, [`queries`] remembers those that were asked, and [`catalogue`] answers for a metric
//! and a label who uses them.

pub mod catalogue;
pub mod dashboards;
pub mod expression;
pub mod imports;
pub mod needs;
pub mod queries;
pub mod rules;
mod variables;

pub use catalogue::{Catalogue, Known, Source};
pub use imports::Imports;
pub use queries::Queries;

use crate::config::Usage;

/// Everything that tells what is used.
#[derive(Debug)]
pub struct Observer {
    /// What was asked here.
    pub queries: Queries,
    imports: Imports,
}

/// What is used, and how that is known.
#[derive(Debug, Default)]
pub struct Overview {
    /// Who uses what.
    pub catalogue: Catalogue,
    /// Files of dashboards and rules that were read.
    pub files: u64,
    /// What could not be read, with the reason.
    pub problems: Vec<String>,
}

impl Observer {
    /// An observer that goes on with these queries.
    pub fn new(queries: Queries) -> Self {
        Self { queries, imports: Imports::default() }
    }

    /// What is used as far as `usage` wants it known. Reads files that changed.
    pub fn overview(&self, usage: &Usage) -> Overview {
        self.overview_with(usage, Vec::new())
    }

    /// The same, and beside it `more`.
    pub fn overview_with(&self, usage: &Usage, more: Vec<Known>) -> Overview {
        let mut found = self.imports.read(usage);
        found.known.extend(more);
        let since = usage.queries.then(|| {
            let (since, known) = self.queries.known();
            found.known.extend(known);
            since
        });
        for known in &found.known {
            if let Some(reason) = &known.unread {
                found.problems.push(format!("{}: {reason}", known.what));
            }
        }
        let catalogue = Catalogue::new(found.known, since);
        Overview { catalogue, files: found.files, problems: found.problems }
    }
}
