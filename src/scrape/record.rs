//! From a body to a batch: labels, limits, staleness, and the report on the scrape itself.

mod labels;
mod read;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Appended, Appender, Batch, Clock, RejectReason, Row, Sample, Span, Timestamp};
use stint_wire::exposition::{ClassicHistograms, ExemplarRef};
use xxhash_rust::xxh3::xxh3_64;

use super::cache::{Cache, Ended};
use super::failure_log::FailureLog;
use super::families::{Descriptions, Families};
use super::fetch::{FetchError, Fetched};
use super::metrics::ScrapeMetrics;
use super::target::Target;
use crate::config::{Limits, ScrapeConfig};
use read::{Counts, Pass};
use report::{Report, Reported};

/// Turns the scrapes of one target into batches. Synchronous; one scrape at a time.
pub(super) struct Recorder {
    task: Task,
    appender: Arc<dyn Appender>,
    clock: Arc<dyn Clock>,
    metrics: ScrapeMetrics,
    shared: Arc<Shared>,
    families: Arc<Families>,
    cache: Cache,
    report: Report,
    batch: Batch,
    /// What puts classic histograms together, where that is wanted.
    classic: Option<ClassicHistograms>,
    /// Staleness markers that go by themselves: they are never late.
    markers: Batch,
    timeless: Timeless,
    /// Whether the last scrape failed.
    failed: bool,
}

/// What the recorders of all targets share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    rows: SpareRows,
    descriptions: Arc<Descriptions>,
}

/// Memory for the rows of batches, of as many as are made at once: targets that wait for their next
/// scrape hold none.
#[derive(Debug, Default)]
struct SpareRows(Mutex<Vec<Vec<Row>>>);

impl SpareRows {
    /// Buffers that are kept.
    const KEPT_MAX: usize = 16;
    /// Rows of the largest buffer that is kept.
    const ROWS_MAX: usize = 1 << 16;

    fn take(&self) -> Vec<Row> {
        self.0.lock().pop().unwrap_or_default()
    }

    fn keep(&self, mut rows: Vec<Row>) {
        rows.clear();
        let mut kept = self.0.lock();
        if kept.len() < Self::KEPT_MAX && rows.capacity() <= Self::ROWS_MAX {
            kept.push(rows);
        }
    }
}

/// What is scraped, and how.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) job: Arc<ScrapeConfig>,
    pub(super) target: Arc<Target>,
    pub(super) out_of_order_window: Span,
    pub(super) failure_log: Option<Arc<FailureLog>>,
}

/// One scrape, fetched.
pub(super) struct Scrape {
    /// The time its samples get.
    pub(super) at: Timestamp,
    /// The monotonic time at which it began.
    pub(super) began: Duration,
    pub(super) outcome: Result<Fetched, FetchError>,
}

/// How a scrape went.
#[derive(Debug, PartialEq)]
pub(super) struct Recorded {
    /// Why it failed.
    pub(super) error: Option<String>,
    pub(super) duration: Duration,
}

/// Exemplars without a time of their own. A target shows the same one until it has another; it is
/// one exemplar all the while, and not one per scrape.
#[derive(Default)]
struct Timeless {
    /// What was shown by the last scrape that was taken: hashes by those of their series.
    before: HashMap<u64, u64>,
    now: HashMap<u64, u64>,
}

impl Timeless {
    /// Whether the series `raw` shows this exemplar for the first time.
    fn is_new(&mut self, raw: &str, exemplar: &ExemplarRef<'_>) -> bool {
        if exemplar.timestamp.is_some() {
            return true;
        }
        let series = xxh3_64(raw.as_bytes());
        let shown = xxh3_64(exemplar.raw.as_bytes()) ^ exemplar.value.to_bits();
        self.now.insert(series, shown);
        self.before.get(&series) != Some(&shown)
    }

    /// The present scrape was taken.
    fn taken(&mut self) {
        std::mem::swap(&mut self.before, &mut self.now);
    }
}

impl Recorder {
    /// A recorder that has not seen anything of its target yet.
    pub(super) fn new(
        task: Task,
        appender: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        metrics: ScrapeMetrics,
        shared: Arc<Shared>,
    ) -> Self {
        let out_of_order_window = task.out_of_order_window;
        let classic = task.target.convert_classic.then(ClassicHistograms::default);
        Self {
            task,
            classic,
            appender,
            clock,
            metrics,
            families: Arc::new(Families::new(Arc::clone(&shared.descriptions))),
            shared,
            cache: Cache::default(),
            report: Report::default(),
            batch: Batch { out_of_order_window, ..Batch::default() },
            markers: Batch::default(),
            timeless: Timeless::default(),
            failed: false,
        }
    }

    /// The metadata seen, shared with whoever shows it.
    pub(super) fn families(&self) -> Arc<Families> {
        Arc::clone(&self.families)
    }

    /// The same recorder under a new configuration; keeps what it knows as far as that holds.
    pub(super) fn adopt(&mut self, task: Task) {
        let (old, new) = (&self.task.target, &task.target);
        let same_series = old.labels == new.labels
            && old.native_histograms == new.native_histograms
            && old.classic_too == new.classic_too
            && old.convert_classic == new.convert_classic;
        let (old, new) = (&self.task.job, &task.job);
        // The other limits are looked at with each scrape, and change nothing of what texts mean.
        let of_labels =
            |limits: &Limits| (limits.labels, limits.label_name_length, limits.label_value_length);
        let same_labels = old.honor_labels == new.honor_labels
            && old.metric_relabel_configs == new.metric_relabel_configs
            && of_labels(&old.limits) == of_labels(&new.limits)
            && old.name_scheme == new.name_scheme;
        if !same_series || !same_labels {
            self.cache.orphan_all();
            self.classic = task.target.convert_classic.then(ClassicHistograms::default);
        }
        self.batch.out_of_order_window = task.out_of_order_window;
        self.task = task;
    }

    /// Begins anew after a panic: series that do not come again are ended with the next scrape.
    pub(super) fn reset(&mut self) {
        self.batch.clear();
        self.markers.clear();
        self.cache.orphan_all();
    }

    /// Stores one scrape: its samples, the markers of what has ended, and the report.
    pub(super) fn record(&mut self, scrape: &Scrape) -> Recorded {
        self.batch.clear();
        self.batch.rows = self.shared.rows.take();
        self.cache.begin();
        self.timeless.now.clear();
        let (counts, read) = match &scrape.outcome {
            // No bytes are no series, whatever their type is said to be.
            Ok(fetched) if fetched.body.is_empty() => (Counts::default(), Ok(())),
            Ok(fetched) => self.read(fetched, scrape.at, Pass::All),
            Err(error) => {
                match error {
                    FetchError::BodyTooLarge => self.metrics.over_body_limit.inc(),
                    FetchError::NoRoom => self.metrics.over_body_room.inc(),
                    _ => {}
                }
                (Counts::default(), Err(error.to_string()))
            }
        };
        let has_body = matches!(&scrape.outcome, Ok(fetched) if !fetched.body.is_empty());
        let ended = if read.is_ok() && has_body {
            Ended::Whole
        } else {
            self.batch.clear();
            Ended::Failed
        };
        let mut ending = self.cache.ending(ended);
        // A marker behind a newer sample would make a gap: where late samples are taken, markers go
        // in a batch that takes none.
        if self.batch.out_of_order_window > Span::ZERO {
            self.append_stale(std::mem::take(&mut ending), scrape.at);
        }
        for series in ending {
            self.batch.push_known(series, Sample::stale(scrape.at));
        }
        let duration = self.clock.monotonic().saturating_sub(scrape.began);
        let failed_before = std::mem::replace(&mut self.failed, read.is_err());
        let reported = Reported {
            up: read.is_ok(),
            duration,
            scraped: counts.scraped,
            kept: counts.kept,
            // What fails time and again adds nothing time and again.
            added: if read.is_err() && failed_before { 0 } else { counts.added },
            timeout: self.task.target.timeout,
            sample_limit: self.task.job.limits.samples,
            body_bytes: match &scrape.outcome {
                Ok(fetched) => fetched.body.len() as f64,
                Err(FetchError::BodyTooLarge) => -1.0,
                Err(_) => 0.0,
            },
            extra: self.task.job.extra_scrape_metrics,
        };
        let report_start =
            self.report.push(&mut self.batch, &self.task.target, scrape.at, &reported);
        let error = match self.appender.append(&self.batch) {
            Ok(appended) => {
                self.stored(scrape, ended, &appended, report_start, &reported);
                if ended == Ended::Whole {
                    self.timeless.taken();
                }
                read.err()
            }
            Err(error) => {
                self.cache.abandon();
                self.families.lock().untold(&self.batch.metadata);
                Some(format!("cannot store the scrape: {error}"))
            }
        };
        if let (Some(error), Some(log)) = (&error, &self.task.failure_log) {
            let (job, target) = (&self.task.job, &self.task.target);
            log.write(scrape.at, &job.job_name, &target.url, error);
        }
        self.shared.rows.keep(std::mem::take(&mut self.batch.rows));
        Recorded { error, duration }
    }

    /// Learns from the store's answer, and sends again what it had forgotten.
    fn stored(
        &mut self,
        scrape: &Scrape,
        ended: Ended,
        appended: &Appended,
        report_start: usize,
        reported: &Reported,
    ) {
        self.cache.finish(ended, &appended.refs);
        self.metrics.refused(appended);
        self.report.learn(report_start, appended);
        let mut unknown = HashSet::new();
        let mut report_again = false;
        let mut of_report = Vec::new();
        for rejected in &appended.rejected {
            if rejected.reason != RejectReason::UnknownSeries {
                continue;
            }
            report_again |= rejected.row >= report_start;
            if let Some(row) = self.batch.rows.get(rejected.row)
                && let stint_model::SeriesKey::Known(series) = row.series
            {
                unknown.insert(series);
                if rejected.row >= report_start {
                    of_report.push(series);
                }
            }
        }
        let mut texts = HashSet::new();
        if !unknown.is_empty() {
            texts = self.cache.forget(&unknown);
        }
        // Of a body that was not taken, nothing is stored in the second attempt either.
        if ended == Ended::Failed {
            texts.clear();
        }
        self.batch.clear();
        if let (Ok(fetched), false) = (&scrape.outcome, texts.is_empty()) {
            // The body was read to its end before, so it is read without fault again.
            let _ = self.read(fetched, scrape.at, Pass::Only(&texts));
        }
        let again = report_again
            .then(|| self.report.push(&mut self.batch, &self.task.target, scrape.at, reported));
        if !self.batch.rows.is_empty() {
            match self.appender.append(&self.batch) {
                Ok(appended) => {
                    self.cache.finish(ended, &appended.refs);
                    if let Some(start) = again {
                        self.report.learn(start, &appended);
                    }
                }
                Err(error) => {
                    self.cache.abandon();
                    tracing::warn!(target = self.task.target.url, %error, "cannot store again");
                }
            }
        }
        let mut orphans = self.cache.take_orphans();
        orphans.extend(self.report.without(of_report));
        self.append_stale(orphans, scrape.at);
    }

    fn append_stale(&mut self, series: Vec<stint_model::SeriesRef>, at: Timestamp) {
        if series.is_empty() {
            return;
        }
        self.markers.clear();
        for series in series {
            self.markers.push_known(series, Sample::stale(at));
        }
        // A marker that is refused is older than what came after it, and so not needed.
        if let Err(error) = self.appender.append(&self.markers) {
            tracing::warn!(target = self.task.target.url, %error, "cannot store staleness markers");
        }
    }

    /// The target is gone: all its series end at `at`, those of the report too.
    pub(super) fn end(&mut self, at: Timestamp) {
        self.cache.begin();
        let mut series = self.cache.ending(Ended::Failed);
        self.cache.finish(Ended::Failed, &[]);
        series.extend(self.report.take());
        self.append_stale(series, at);
    }
}

#[cfg(test)]
mod tests;
