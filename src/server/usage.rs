//! Keeps the record of queries on disk, and tells the forwarders what is used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use stint_model::Clock;
use stint_storage::Disk;
use tokio::task::JoinHandle;

use crate::budget::ranking::Ranking;
use crate::config::{Config, Usage};
use crate::forward;
use crate::usage::queries::FILE;
use crate::usage::{Observer, Queries};

/// How often what changed is written. A crash loses at most this much.
const SAVE_EVERY: Duration = Duration::from_mins(1);
/// How often the forwarders are told what is used: what is sent should not change all the time.
const RANK_EVERY: Duration = Duration::from_mins(10);

/// The record of queries, and what writes it.
pub(super) struct Keeper {
    observer: Arc<Observer>,
    clock: Arc<dyn Clock>,
    task: JoinHandle<()>,
    ranks: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Reads what an earlier run remembered, and writes from now on.
    pub(super) async fn start(disk: Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Self {
        let now = clock.now();
        let opened =
            tokio::task::spawn_blocking(move || Queries::open(disk, PathBuf::from(FILE), now));
        let queries = match opened.await {
            Ok((queries, problem)) => {
                if let Some(problem) = problem {
                    tracing::warn!(problem, "the record of queries begins anew");
                }
                queries
            }
            Err(error) => {
                tracing::warn!(%error, "the record of queries is kept in memory alone");
                Queries::in_memory(now)
            }
        };
        let observer = Arc::new(Observer::new(queries));
        let task = tokio::spawn({
            let (observer, clock) = (Arc::clone(&observer), Arc::clone(clock));
            async move {
                loop {
                    tokio::time::sleep(SAVE_EVERY).await;
                    save(&observer, &clock).await;
                }
            }
        });
        Self { observer, clock: Arc::clone(clock), task, ranks: None }
    }

    /// Tells the forwarders now and then what is used.
    pub(super) fn rank_regularly(
        &mut self,
        forwarding: &Arc<forward::Manager>,
        config: &Arc<RwLock<Arc<Config>>>,
    ) {
        let (observer, clock) = (Arc::clone(&self.observer), Arc::clone(&self.clock));
        let (forwarding, config) = (Arc::clone(forwarding), Arc::clone(config));
        self.ranks = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(RANK_EVERY).await;
                let usage = config.read().usage.clone();
                rank(&observer, &clock, &forwarding, usage).await;
            }
        }));
    }

    /// The record.
    pub(super) fn observer(&self) -> Arc<Observer> {
        Arc::clone(&self.observer)
    }

    /// Writes what is left.
    pub(super) async fn stop(self) {
        self.task.abort();
        if let Some(ranks) = self.ranks {
            ranks.abort();
        }
        save(&self.observer, &self.clock).await;
    }
}

/// Tells the forwarders what is used.
pub(super) async fn rank(
    observer: &Arc<Observer>,
    clock: &Arc<dyn Clock>,
    forwarding: &Arc<forward::Manager>,
    usage: Usage,
) {
    let (observer, now) = (Arc::clone(observer), clock.now());
    let forwarding = Arc::clone(forwarding);
    let ranked = tokio::task::spawn_blocking(move || {
        forwarding.rank(Ranking::new(observer.overview(&usage).catalogue, now));
    });
    if let Err(error) = ranked.await {
        tracing::error!(%error, "what is used cannot be told");
    }
}

async fn save(observer: &Arc<Observer>, clock: &Arc<dyn Clock>) {
    let (observer, now) = (Arc::clone(observer), clock.now());
    let saved = tokio::task::spawn_blocking(move || observer.queries.save(now)).await;
    match saved {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the record of queries cannot be written"),
        Err(error) => tracing::warn!(%error, "writing the record of queries broke down"),
    }
}
