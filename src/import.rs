//! Import: what another server stored becomes blocks of a database that no server has open.
//!
//! - [`folder`]: a Prometheus data folder, blocks and what was not yet in blocks;
//! - [`text`]: files in the text formats, with timestamps;
//! - [`remote`]: a running server, by remote read.
//!
//! Each works through its source in units ([`state`]): one that was finished is not done again, and
//! one that was interrupted is begun anew. What is stored twice on the way is one sample for
//! readers, and gone after compaction. Nothing that is imported passes the log, so that none of it
//! is forwarded.

pub mod folder;
pub mod remote;
pub mod rows;
pub mod spool;
pub mod state;
pub mod text;

use stint_model::{Labels, Selector, TimeRange, Timestamp};
use stint_storage::{Db, JobError};

/// Why an import ended early. What was finished before stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read; the text says what and why.
    #[error("{0}")]
    Source(String),
    /// The store cannot be written.
    #[error("cannot write to the store: {0}")]
    Store(#[from] JobError),
    /// Where the import is cannot be written down.
    #[error("cannot note how far the import is: {0}")]
    State(String),
    /// Somebody asked for it.
    #[error("stopped; the same command goes on from here")]
    Stopped,
}

/// What is taken, and where it goes.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The store.
    pub db: &'a Db,
    /// Samples outside are left out.
    pub range: TimeRange,
    /// Series that none of these selects are left out; empty for all.
    pub selectors: Vec<Selector>,
    /// Labels that every series gets, in the place of its own of that name.
    pub labels: Vec<(String, String)>,
}

impl Target<'_> {
    /// The labels under which a series is stored; `None` for one that is left out.
    pub fn stored(&self, labels: &Labels) -> Option<Labels> {
        if !self.selectors.is_empty()
            && !self.selectors.iter().any(|selector| selector.matches(labels))
        {
            return None;
        }
        if self.labels.is_empty() {
            return Some(labels.clone());
        }
        let mut builder = labels.to_builder();
        for (name, value) in &self.labels {
            builder.set(name, value);
        }
        Some(builder.build())
    }

    /// The windows of blocks that `range` reaches into, as far as they are taken.
    pub fn windows(&self, range: TimeRange) -> Vec<TimeRange> {
        let length = self.db.import_windows().0.max(1);
        let start = range.start.max(self.range.start).0;
        let end = range.end.min(self.range.end).0;
        let mut windows = Vec::new();
        let mut at = start.div_euclid(length).saturating_mul(length);
        while at < end {
            let next = at.saturating_add(length);
            windows.push(TimeRange::new(Timestamp(at), Timestamp(next)));
            if next == at {
                break;
            }
            at = next;
        }
        windows
    }
}

/// What became of the samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples in the blocks that were written.
    pub samples: u64,
    /// Native histograms that contradict themselves and were left out.
    pub refused: u64,
    /// Blocks written.
    pub blocks: u64,
    /// Units that an earlier run had finished.
    pub done_before: u64,
    /// What could not be read and was left out; the first ones in words.
    pub damage: Vec<String>,
    /// How many there were of those.
    pub damaged: u64,
}

/// The most damages that are told in words.
const DAMAGE_TOLD_MAX: usize = 20;

impl Counts {
    /// Notes what could not be read.
    pub fn damaged(&mut self, what: impl FnOnce() -> String) {
        self.damaged += 1;
        if self.damage.len() < DAMAGE_TOLD_MAX {
            self.damage.push(what());
        }
    }

    fn add(&mut self, imported: &stint_storage::Imported) {
        self.refused += imported.refused;
        if let Some(block) = &imported.block {
            self.samples += block.samples;
            self.blocks += 1;
        }
    }
}

/// Is told how far an import is.
pub trait Watcher {
    /// `done` of `total` is behind, whatever they count; so many samples were taken so far. False to
    /// stop.
    fn at(&mut self, done: u64, total: u64, samples: u64) -> bool;
}

/// Merges the blocks that lie beside or over each other, as the server would in time, and will where
/// there is no room for it now. Nothing is removed for its age.
///
/// # Errors
/// The store cannot be written.
pub fn compact(db: &Db) -> Result<(), JobError> {
    // Nothing is old at the beginning of time.
    while let Some(job) = db.next_job(Timestamp(0)) {
        match job.run() {
            Ok(_) => {}
            Err(JobError::NoRoom { .. } | JobError::GaveWay) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
