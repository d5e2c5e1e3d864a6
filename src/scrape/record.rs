//! From a body to a batch: labels, limits, staleness, and the report on the scrape itself.

mod labels;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use stint_model::exemplar::LABELS_CHARS_MAX;
use stint_model::{
    Appended, Appender, Batch, Clock, Exemplar, Exemplars, MetricType, RejectReason, Sample, Span,
    Timestamp, Value,
};
use stint_wire::exposition::{
    Entry, ExemplarRef, Format, HistogramEntry, Label, Options, ParseError, Parser, Protocol,
    SeriesEntry,
};
use xxhash_rust::xxh3::xxh3_64;

use super::cache::{Cache, Ended, Handle};
use super::fetch::{FetchError, Fetched};
use super::metrics::ScrapeMetrics;
use super::status::{Families, FamilyMap};
use super::target::Target;
use crate::config::ScrapeConfig;
use labels::Attach;
use report::{Report, Reported};

/// The longest text of one series, name and labels, that is looked at: more is never stored.
const SERIES_BYTES_MAX: usize = 128 << 10;
/// All texts of series that one body may show for the first time: a small body of buckets can stand
/// for very much text.
const TEXT_BYTES_MAX: usize = 256 << 20;

/// Turns the scrapes of one target into batches. Synchronous; one scrape at a time.
pub(super) struct Recorder {
    job: Arc<ScrapeConfig>,
    target: Arc<Target>,
    appender: Arc<dyn Appender>,
    clock: Arc<dyn Clock>,
    metrics: ScrapeMetrics,
    families: Arc<Families>,
    cache: Cache,
    report: Report,
    batch: Batch,
    /// Staleness markers that go by themselves: they are never late.
    markers: Batch,
    timeless: Timeless,
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

/// What a body held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    /// Samples in the body.
    scraped: u64,
    /// Those that relabelling left.
    kept: u64,
    /// Those of them that are stored: not the same sample once more.
    taken: u64,
    /// Series seen for the first time.
    added: u64,
    /// Bytes of the texts of series that the cache does not know.
    text_bytes: usize,
}

/// Which samples of a body are taken.
#[derive(Clone, Copy)]
enum Pass<'a> {
    All,
    /// Those whose handles the store has forgotten.
    Only(&'a HashSet<Box<str>>),
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

/// A sample as it stands in the body.
struct Exposed<'a> {
    raw: &'a str,
    labels: LabelSource<'a>,
    timestamp: Option<Timestamp>,
    started: Option<Timestamp>,
    value: Value,
    exemplars: Vec<Exemplar>,
}

enum LabelSource<'a> {
    Series(&'a SeriesEntry<'a>),
    Histogram(&'a HistogramEntry<'a>),
}

impl<'a> LabelSource<'a> {
    fn decode(&self, out: &mut Vec<Label<'a>>) {
        match self {
            Self::Series(entry) => entry.labels(out),
            Self::Histogram(entry) => entry.labels(out),
        }
    }

    /// The type by which bounds are normalised on decoding, if any.
    fn bounds(&self) -> Option<MetricType> {
        use MetricType::{GaugeHistogram, Histogram, Summary};
        match self {
            Self::Series(entry) => {
                Some(entry.kind()).filter(|k| matches!(k, Histogram | GaugeHistogram | Summary))
            }
            Self::Histogram(_) => Some(Histogram),
        }
    }
}

impl Recorder {
    /// A recorder that has not seen anything of `target` yet.
    pub(super) fn new(
        job: Arc<ScrapeConfig>,
        target: Arc<Target>,
        appender: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        metrics: ScrapeMetrics,
        out_of_order_window: Span,
    ) -> Self {
        Self {
            job,
            target,
            appender,
            clock,
            metrics,
            families: Arc::default(),
            cache: Cache::default(),
            report: Report::default(),
            batch: Batch { out_of_order_window, ..Batch::default() },
            markers: Batch::default(),
            timeless: Timeless::default(),
        }
    }

    /// The metadata seen, shared with whoever shows it.
    pub(super) fn families(&self) -> Arc<Families> {
        Arc::clone(&self.families)
    }

    /// The same recorder under a new configuration; keeps what it knows as far as that holds.
    pub(super) fn adopt(
        &mut self,
        job: Arc<ScrapeConfig>,
        target: Arc<Target>,
        out_of_order_window: Span,
    ) {
        let same = self.target.labels == target.labels
            && self.target.native_histograms == target.native_histograms
            && self.target.classic_too == target.classic_too
            && self.job.honor_labels == job.honor_labels
            && self.job.metric_relabel_configs == job.metric_relabel_configs
            && self.job.limits == job.limits
            && self.job.name_scheme == job.name_scheme;
        if !same {
            self.cache.orphan_all();
        }
        (self.job, self.target) = (job, target);
        self.batch.out_of_order_window = out_of_order_window;
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
        self.cache.begin();
        self.timeless.now.clear();
        let (counts, read) = match &scrape.outcome {
            // No bytes are no series, whatever their type is said to be.
            Ok(fetched) if fetched.body.is_empty() => (Counts::default(), Ok(())),
            Ok(fetched) => self.read(fetched, scrape.at, Pass::All),
            Err(error) => {
                if *error == FetchError::BodyTooLarge {
                    self.metrics.over_body_limit.inc();
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
        let reported = Reported {
            up: read.is_ok(),
            duration,
            scraped: counts.scraped,
            kept: counts.kept,
            added: counts.added,
            timeout: self.target.timeout,
            sample_limit: self.job.limits.samples,
            body_bytes: match &scrape.outcome {
                Ok(fetched) => fetched.body.len() as f64,
                Err(FetchError::BodyTooLarge) => -1.0,
                Err(_) => 0.0,
            },
            extra: self.job.extra_scrape_metrics,
        };
        let report_start = self.report.push(&mut self.batch, &self.target, scrape.at, &reported);
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
        for rejected in &appended.rejected {
            if rejected.reason != RejectReason::UnknownSeries {
                continue;
            }
            report_again |= rejected.row >= report_start;
            if let Some(row) = self.batch.rows.get(rejected.row)
                && let stint_model::SeriesKey::Known(series) = row.series
            {
                unknown.insert(series);
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
            .then(|| self.report.push(&mut self.batch, &self.target, scrape.at, reported));
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
                    tracing::warn!(target = self.target.url, %error, "cannot store again");
                }
            }
        }
        let orphans = self.cache.take_orphans();
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
            tracing::warn!(target = self.target.url, %error, "cannot store staleness markers");
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

    /// Adds the samples of a body to the batch. The counts are right even where reading fails.
    fn read(
        &mut self,
        fetched: &Fetched,
        at: Timestamp,
        pass: Pass<'_>,
    ) -> (Counts, Result<(), String>) {
        let mut counts = Counts::default();
        let families = Arc::clone(&self.families);
        let mut families = families.lock();
        let read = self.read_entries(fetched, at, pass, &mut families, &mut counts);
        let limit = self.job.limits.samples;
        let read = match read {
            Ok(()) if limit > 0 && counts.taken > limit => {
                self.metrics.over_sample_limit.inc();
                Err("sample limit exceeded".to_owned())
            }
            read => read,
        };
        match (pass, &read) {
            (Pass::All, Ok(())) => self.batch.metadata.extend(families.finish()),
            (Pass::All, Err(_)) => families.fail(),
            (Pass::Only(_), _) => {}
        }
        (counts, read)
    }

    fn read_entries(
        &mut self,
        fetched: &Fetched,
        at: Timestamp,
        pass: Pass<'_>,
        families: &mut FamilyMap,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let fallback = self.job.fallback_scrape_protocol.map(Protocol::format);
        let format = Format::from_content_type(&fetched.content_type, fallback)
            .map_err(|error| error.to_string())?;
        let options = Options {
            native_histograms: self.target.native_histograms,
            classic_too: self.target.classic_too,
            ..Options::default()
        };
        match pass {
            Pass::All => self.cache.begin_body(format),
            Pass::Only(_) => self.cache.begin_again(),
        }
        let mut parser = Parser::with_options(format, &fetched.body, options);
        let failed = |error: ParseError| error.to_string();
        while let Some(entry) = parser.next_expecting(self.cache.expected()).map_err(failed)? {
            match entry {
                Entry::Type { name, kind } => families.set_kind(&name, kind),
                Entry::Help { name, text } => families.set_help(&name, &text),
                Entry::Unit { name, unit } => families.set_unit(&name, &unit),
                Entry::Series(entry) => {
                    let exposed = Exposed {
                        raw: entry.raw,
                        timestamp: entry.timestamp,
                        started: entry.started,
                        value: Value::Float(entry.value),
                        exemplars: entry
                            .exemplar
                            .iter()
                            .filter(|found| self.timeless.is_new(entry.raw, found))
                            .map(|found| found.decode(at))
                            .collect(),
                        labels: LabelSource::Series(&entry),
                    };
                    self.sample(exposed, at, pass, counts)?;
                }
                Entry::Histogram(mut entry) => {
                    let exemplars = std::mem::take(&mut entry.exemplars);
                    let exposed = Exposed {
                        raw: entry.raw,
                        timestamp: entry.timestamp,
                        started: entry.started,
                        value: Value::Histogram(Arc::new(entry.histogram.clone())),
                        exemplars,
                        labels: LabelSource::Histogram(&entry),
                    };
                    self.sample(exposed, at, pass, counts)?;
                }
            }
        }
        Ok(())
    }

    /// Adds one sample to the batch.
    fn sample(
        &mut self,
        exposed: Exposed<'_>,
        at: Timestamp,
        pass: Pass<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        counts.scraped += 1;
        if let Pass::Only(texts) = pass
            && !texts.contains(exposed.raw)
        {
            return Ok(());
        }
        let explicit = exposed.timestamp.filter(|_| self.job.honor_timestamps);
        let tracked = explicit.is_none() || self.job.track_timestamps_staleness;
        let sample =
            Sample { at: explicit.unwrap_or(at), started: exposed.started, value: exposed.value };
        let bounds = exposed.labels.bounds();
        let scrape = self.cache.scrape();
        let row = self.batch.rows.len();
        if let Some(entry) = self.cache.find(exposed.raw, bounds) {
            let again = entry.seen == scrape;
            entry.seen = scrape;
            let handle = entry.handle;
            if handle == Handle::Dropped {
                return Ok(());
            }
            counts.kept += 1;
            // Without a time of its own, the same series twice is the same sample twice.
            if again && explicit.is_none() {
                return Ok(());
            }
            entry.tracked = tracked || (again && entry.tracked);
            counts.taken += 1;
            if self.is_over_limit(counts) {
                return Ok(());
            }
            match entry_handle(handle) {
                Ok(series) => self.batch.push_known(series, sample),
                Err(first) => {
                    let Some(first) = self.batch.rows.get(first) else { return Ok(()) };
                    let key = first.series.clone();
                    self.batch.rows.push(stint_model::Row { series: key, sample });
                }
            }
        } else {
            counts.text_bytes = counts.text_bytes.saturating_add(exposed.raw.len());
            if exposed.raw.len() > SERIES_BYTES_MAX || counts.text_bytes > TEXT_BYTES_MAX {
                return Err(format!(
                    "the names of its series are too long: one of {} bytes (at most {SERIES_BYTES_MAX}), \
                     {} bytes of new ones together (at most {TEXT_BYTES_MAX})",
                    exposed.raw.len(),
                    counts.text_bytes
                ));
            }
            let attach = Attach { job: &self.job, target: &self.target, metrics: &self.metrics };
            let mut decoded = Vec::with_capacity(16);
            exposed.labels.decode(&mut decoded);
            let Some(labels) = attach.run(&decoded)? else {
                self.cache.insert(exposed.raw, Handle::Dropped, bounds, false);
                return Ok(());
            };
            counts.kept += 1;
            counts.taken += 1;
            if self.is_over_limit(counts) {
                return Ok(());
            }
            counts.added += 1;
            self.batch.push(labels, sample);
            self.cache.insert(exposed.raw, Handle::Pending(row), bounds, tracked);
        }
        self.exemplars(row, exposed.exemplars);
        Ok(())
    }

    fn is_over_limit(&self, counts: &Counts) -> bool {
        self.job.limits.samples > 0 && counts.taken > self.job.limits.samples
    }

    fn exemplars(&mut self, row: usize, mut exemplars: Vec<Exemplar>) {
        let chars = |exemplar: &Exemplar| {
            let labels = exemplar.labels.iter();
            labels.map(|(name, value)| name.chars().count() + value.chars().count()).sum::<usize>()
        };
        exemplars.retain(|exemplar| chars(exemplar) <= LABELS_CHARS_MAX);
        if !exemplars.is_empty() {
            self.batch.exemplars.push(Exemplars { row, exemplars });
        }
    }
}

/// The store's handle, or the row that holds the labels.
fn entry_handle(handle: Handle) -> Result<stint_model::SeriesRef, usize> {
    match handle {
        Handle::Known(series) => Ok(series),
        Handle::Pending(row) => Err(row),
        Handle::Dropped | Handle::Forgotten => Err(usize::MAX),
    }
}

#[cfg(test)]
mod tests;
