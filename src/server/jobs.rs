//! The store's background work, run on threads of its own.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use prometheus::IntCounter;
use stint_storage::Db;
use tokio::task::JoinHandle;

use crate::metrics::{Metrics, counter};

/// How often the log is made to survive the machine. A power cut loses at most this much.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The running background work of a store.
pub struct Jobs {
    /// Dropping them stops the threads.
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Jobs {
    /// Starts the work of `db`.
    pub fn start(db: &Db, metrics: &Metrics) -> Self {
        let registry = metrics.registry();
        let sync_failed = counter(
            registry,
            "stint_storage_sync_failures_total",
            "Failed attempts to make the log survive a power cut.",
        );
        let (stop, stopped) = channel();
        let db = db.clone();
        let threads = vec![tokio::task::spawn_blocking(move || {
            sync_regularly(&db, &stopped, &sync_failed);
        })];
        Self { stop: vec![stop], threads }
    }

    /// Stops after the job that is running.
    pub async fn stop(self) {
        drop(self.stop);
        for thread in self.threads {
            if let Err(error) = thread.await {
                tracing::error!(%error, "a storage thread ended unexpectedly");
            }
        }
    }
}

fn sync_regularly(db: &Db, stopped: &Receiver<()>, failed: &IntCounter) {
    while stopped.recv_timeout(SYNC_EVERY) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = db.sync() {
            failed.inc();
            tracing::error!(%error, "cannot sync the log; a power cut may lose data");
        }
    }
}
