//! The store's background work, run on threads of its own: syncing, and whatever is due.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use prometheus::{IntCounter, IntCounterVec};
use stint_model::Clock;
use stint_storage::{Db, Job, JobError};
use tokio::task::JoinHandle;

use crate::metrics::{Metrics, counter, counter_vec};

/// How often the log is made to survive the machine. A power cut loses at most this much.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often to look for work.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait after a failure before trying again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The running background work of a store.
pub struct Jobs {
    db: Db,
    /// Dropping them stops the threads.
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

struct Counters {
    done: IntCounterVec,
    failed: IntCounterVec,
    /// Names of dashboards and alerts: how often each kind of work was done, and how often it
    /// failed.
    known: Vec<Known>,
    sync_failed: IntCounter,
}

/// A kind of work under the name that Prometheus gives it.
struct Known {
    /// The jobs that do such work.
    jobs: &'static [&'static str],
    done: IntCounter,
    failed: IntCounter,
}

/// Name of the counter, of that of failures, what is counted, and the jobs.
type Name = (&'static str, &'static str, &'static str, &'static [&'static str]);

const KNOWN: [Name; 4] = [
    (
        "prometheus_tsdb_compactions_total",
        "prometheus_tsdb_compactions_failed_total",
        "Blocks cut from the head or merged.",
        &["flush", "compact"],
    ),
    (
        "prometheus_tsdb_checkpoint_creations_total",
        "prometheus_tsdb_checkpoint_creations_failed_total",
        "Checkpoints of the log.",
        &["checkpoint"],
    ),
    (
        "prometheus_tsdb_wal_truncations_total",
        "prometheus_tsdb_wal_truncations_failed_total",
        "Times that the log was cut short.",
        &["trim_log"],
    ),
    (
        "prometheus_tsdb_head_truncations_total",
        "prometheus_tsdb_head_truncations_failed_total",
        "Times that the head was freed of what is in blocks.",
        &["truncate"],
    ),
];

impl Counters {
    fn new(metrics: &Metrics) -> Self {
        let registry = metrics.registry();
        let known = KNOWN.map(|(done, failed, what, jobs)| Known {
            jobs,
            done: counter(registry, done, what),
            failed: counter(registry, failed, &format!("{what} These attempts failed.")),
        });
        Self {
            done: counter_vec(
                registry,
                "stint_storage_jobs_total",
                "Finished background jobs of the store by kind.",
                &["job"],
            ),
            failed: counter_vec(
                registry,
                "stint_storage_jobs_failed_total",
                "Failed background jobs of the store by kind.",
                &["job"],
            ),
            known: known.into(),
            sync_failed: counter(
                registry,
                "stint_storage_sync_failures_total",
                "Failed attempts to make the log survive a power cut.",
            ),
        }
    }

    fn count(&self, job: &str, is_done: bool) {
        let all = if is_done { &self.done } else { &self.failed };
        all.with_label_values(&[job]).inc();
        for known in self.known.iter().filter(|known| known.jobs.contains(&job)) {
            if is_done { known.done.inc() } else { known.failed.inc() }
        }
    }
}

impl Jobs {
    /// Starts the work of `db`.
    pub fn start(db: &Db, clock: &Arc<dyn Clock>, metrics: &Metrics) -> Self {
        let counters = Counters::new(metrics);
        let sync_failed = counters.sync_failed.clone();
        let (stop_sync, sync_stopped) = channel();
        let (stop_work, work_stopped) = channel();
        let threads = vec![
            tokio::task::spawn_blocking({
                let db = db.clone();
                move || sync_regularly(&db, &sync_stopped, &sync_failed)
            }),
            tokio::task::spawn_blocking({
                let (db, clock) = (db.clone(), Arc::clone(clock));
                move || work_regularly(&db, clock.as_ref(), &work_stopped, &counters)
            }),
        ];
        Self { db: db.clone(), stop: vec![stop_sync, stop_work], threads }
    }

    /// Stops, and closes the store. A job that does not end `within` that time is left behind as a kill
    /// would leave it: the log, which has everything, is made to survive the machine.
    ///
    /// # Errors
    /// What was stored last may not survive the machine.
    pub async fn stop_and_close(self, within: Duration) -> anyhow::Result<()> {
        let db = self.db.clone();
        let has_ended = tokio::time::timeout(within, self.stop()).await.is_ok();
        let closing = tokio::task::spawn_blocking(move || {
            if has_ended {
                db.close().map(|report| report.replays)
            } else {
                db.sync().map(|()| Some("a job of the store did not end in time".to_owned()))
            }
        });
        let closed = closing.await.context("closing the store ended unexpectedly")?;
        if let Some(reason) = closed.context("cannot close the store")? {
            tracing::warn!(reason, "the next start has to replay the log");
        }
        Ok(())
    }

    /// Stops; the job that is running ends at its next step.
    async fn stop(self) {
        self.db.stop_jobs();
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

fn work_regularly(db: &Db, clock: &dyn Clock, stopped: &Receiver<()>, counters: &Counters) {
    let mut pause = LOOK_EVERY;
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        pause = LOOK_EVERY;
        while let Some(job) = db.next_job(clock.now()) {
            if !run(job, clock, counters) {
                pause = RETRY_AFTER;
                break;
            }
            // Between two jobs, so that stopping does not wait for all of them.
            if stopped.recv_timeout(Duration::ZERO) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

/// Whether there may be more to do right now.
fn run(job: Job, clock: &dyn Clock, counters: &Counters) -> bool {
    let kind = job.name();
    let started = clock.monotonic();
    let outcome = job.run();
    let took = clock.monotonic().saturating_sub(started);
    match outcome {
        Ok(report) => {
            counters.count(kind, true);
            tracing::info!(
                job = kind,
                ?took,
                blocks_written = report.blocks_written,
                samples_written = report.samples_written,
                blocks_removed = report.blocks_removed,
                segments_removed = report.segments_removed,
                "storage job finished"
            );
            return true;
        }
        // The server stops.
        Err(JobError::Interrupted) => {
            tracing::info!(job = kind, ?took, "storage job stopped; the next start does it anew");
        }
        Err(error @ (JobError::GaveWay | JobError::NoRoom { .. })) => {
            counters.count(kind, false);
            tracing::warn!(job = kind, %error, "storage job waits for room on the disk");
        }
        Err(error) => {
            counters.count(kind, false);
            tracing::error!(job = kind, %error, "storage job failed; it will be tried again");
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use stint_model::clock::SystemClock;
    use stint_model::{Appender as _, Batch, Labels, Sample, Span, Timestamp};
    use stint_storage::disk::sim::{Crash, Unsynced};
    use stint_storage::{Options, SimDisk};

    use super::*;

    /// A store from which a block is to be cut.
    fn store(disk: &SimDisk) -> Db {
        let options = Options { block_range: Span(1000), ..Options::default() };
        let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
        for at in 0..30 {
            let mut batch = Batch::default();
            let labels = Labels::from_pairs([("__name__", "m")]);
            batch.push(labels, Sample::float(Timestamp(at * 100), 1.0));
            db.append(&batch).unwrap();
        }
        db
    }

    #[test]
    fn a_job_that_a_stop_cuts_short_has_not_failed() {
        let (metrics, clock) = (Metrics::new(), SystemClock::default());
        let counters = Counters::new(&metrics);
        let disk = SimDisk::new();
        let db = store(&disk);
        let stopping = db.clone();
        disk.watch(move |_| stopping.stop_jobs());
        assert!(!run(db.next_job(Timestamp(3000)).unwrap(), &clock, &counters));
        disk.unwatch();
        let text = metrics.render();
        assert!(!text.contains("stint_storage_jobs_failed_total{"), "{text}");
        assert!(!text.contains("stint_storage_jobs_total{"), "{text}");
        // One that fails is told.
        let disk = SimDisk::new();
        let db = store(&disk);
        disk.set_capacity(10);
        assert!(!run(db.next_job(Timestamp(3000)).unwrap(), &clock, &counters));
        let text = metrics.render();
        assert!(text.contains("stint_storage_jobs_failed_total{job=\"flush\"} 1\n"), "{text}");
        disk.set_capacity(u64::MAX);
        assert!(run(db.next_job(Timestamp(3000)).unwrap(), &clock, &counters));
    }

    #[tokio::test]
    async fn nothing_begins_behind_a_stop() {
        let db = store(&SimDisk::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        assert!(db.next_job(Timestamp(3000)).is_some());
        let jobs = Jobs::start(&db, &clock, &Metrics::new());
        jobs.stop().await;
        assert!(db.next_job(Timestamp(3000)).is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_hangs_does_not_keep_the_server_from_stopping() {
        let disk = SimDisk::new();
        let db = store(&disk);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let (reached, has_reached) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let may_go_on = std::sync::Mutex::new(may_go_on);
        let job = db.next_job(Timestamp(3000)).unwrap();
        let (ended, has_ended) = channel();
        let hanging = tokio::task::spawn_blocking(move || {
            let outcome = job.run_while(&mut || {
                let _ = reached.send(());
                may_go_on.lock().unwrap().recv().is_ok()
            });
            ended.send(outcome).unwrap();
        });
        tokio::task::spawn_blocking(move || has_reached.recv().unwrap()).await.unwrap();
        let mut jobs = Jobs::start(&db, &clock, &Metrics::new());
        jobs.threads.push(hanging);
        jobs.stop_and_close(Duration::ZERO).await.unwrap();
        // As the machine would leave it, with the job still at its step.
        let left = disk.after_crash(Crash { data: Unsynced::Dropped, names_kept: false });
        let (again, report) = Db::open(Arc::new(left), Options::default()).unwrap();
        assert_eq!((again.stats().series, report.samples), (1, 30));
        drop(go_on);
        // One that ends is waited for.
        let jobs = Jobs::start(&db, &clock, &Metrics::new());
        jobs.stop_and_close(Duration::from_mins(1)).await.unwrap();
        let outcome = has_ended.recv().unwrap();
        assert!(matches!(outcome, Err(JobError::Interrupted)), "{outcome:?}");
        let (_, report) = Db::open(Arc::new(disk), Options::default()).unwrap();
        assert_eq!((report.series, report.segments), (1, 0), "nothing is replayed");
    }

    #[test]
    fn work_is_counted_under_the_names_that_alerts_know() {
        let metrics = Metrics::new();
        let counters = Counters::new(&metrics);
        counters.count("flush", true);
        counters.count("compact", true);
        counters.count("checkpoint", false);
        counters.count("sweep", false);
        let text = metrics.render();
        for line in [
            "prometheus_tsdb_compactions_total 2\n",
            "prometheus_tsdb_compactions_failed_total 0\n",
            "prometheus_tsdb_checkpoint_creations_failed_total 1\n",
            "prometheus_tsdb_wal_truncations_failed_total 0\n",
            "prometheus_tsdb_head_truncations_failed_total 0\n",
            "stint_storage_jobs_total{job=\"compact\"} 1\n",
            "stint_storage_jobs_failed_total{job=\"sweep\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
