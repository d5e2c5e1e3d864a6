//! What is used where a plan is carried out: rules, dashboards, and queries that were asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Deserialize;
use stint_model::clock::SystemClock;
use stint_model::{Clock as _, Timestamp};
use stint_storage::OsDisk;

use super::{PlanArgs, series};
use crate::budget::ranking::Ranking;
use crate::config::{Config, Usage};
use crate::usage::expression::uses;
use crate::usage::queries::FILE;
use crate::usage::{Known, Observer, Queries, Source, dashboards, rules};

/// What is known of the use of metrics beside the configuration.
pub(super) struct Used {
    observer: Observer,
    /// What a server was asked.
    asked: Vec<Known>,
    /// What the planned files use.
    new: Vec<Known>,
    now: Timestamp,
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Asked>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    /// The time there.
    now: f64,
    queries: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    query: String,
    last: f64,
    count: u64,
}

impl Used {
    /// Reads the planned files, and what the series' source remembers of queries.
    pub(super) fn read(args: &PlanArgs, source: &series::Source) -> anyhow::Result<Self> {
        let now = SystemClock::new().now();
        let mut new = Vec::new();
        for (files, read) in [
            (&args.rule_file, rules::read as fn(&str) -> Result<Vec<Known>, String>),
            (&args.dashboard_file, dashboards::read),
        ] {
            for file in files {
                let named = || file.display().to_string();
                let known = read(&series::read(file)?).map_err(anyhow::Error::msg);
                new.extend(known.with_context(named)?);
            }
        }
        let (queries, asked, now) = match source {
            series::Source::Nowhere => (Queries::in_memory(now), Vec::new(), now),
            series::Source::Server(server) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let (asked, there) = runtime.block_on(ask(server))?;
                (Queries::in_memory(there), asked, there)
            }
            series::Source::Folder(folder) => {
                // As of when its server was stopped.
                let now = folder.newest();
                (remembered(args.storage_path.as_deref(), now)?, Vec::new(), now)
            }
        };
        Ok(Self { observer: Observer::new(queries), asked, new, now })
    }

    /// What matters as things are.
    pub(super) fn before(&self, config: &Config) -> anyhow::Result<Arc<Ranking>> {
        self.ranking(&config.usage, Vec::new())
    }

    /// What matters when the planned files are there.
    pub(super) fn after(&self, config: &Config) -> anyhow::Result<Arc<Ranking>> {
        self.ranking(&config.usage, self.new.clone())
    }

    fn ranking(&self, usage: &Usage, mut more: Vec<Known>) -> anyhow::Result<Arc<Ranking>> {
        if usage.queries {
            more.extend(self.asked.iter().cloned());
        }
        let found = self.observer.overview_with(usage, more);
        // A running server says so in its report; here nobody would see it.
        for problem in &found.problems {
            super::super::warn(problem)?;
        }
        Ok(Arc::new(Ranking::new(found.catalogue, self.now)))
    }
}

/// The record of queries in a data folder.
fn remembered(folder: Option<&Path>, now: Timestamp) -> anyhow::Result<Queries> {
    let Some(folder) = folder else { return Ok(Queries::in_memory(now)) };
    let (queries, problem) =
        Queries::open(Arc::new(OsDisk::new(folder)?), PathBuf::from(FILE), now);
    match problem {
        Some(problem) => anyhow::bail!("{}: {problem}", folder.display()),
        None => Ok(queries),
    }
}

/// The queries that a server was asked, and the time there.
async fn ask(server: &str) -> anyhow::Result<(Vec<Known>, Timestamp)> {
    let url = format!("{server}/api/v1/status/usage");
    let (status, body) = series::fetch(reqwest::Method::GET, &url, &[]).await?;
    let answer: Answer = serde_json::from_slice(&body).with_context(|| {
        format!("{url} answered {status} and no queries; is it an older server?")
    })?;
    let asked = match (answer.data, answer.error) {
        (Some(asked), _) => asked,
        (None, Some(error)) => anyhow::bail!("{url} answered {status}: {error}"),
        (None, None) => anyhow::bail!("{url} answered {status} and no queries"),
    };
    let known = |asked: Question| {
        let touched = uses(&asked.query);
        Known {
            last: Some(at(asked.last)),
            count: asked.count,
            ..Known::new(Source::Query, asked.query.clone(), &asked.query, touched)
        }
    };
    Ok((asked.queries.into_iter().map(known).collect(), at(asked.now)))
}

fn at(secs: f64) -> Timestamp {
    Timestamp((secs * 1000.0) as i64)
}
