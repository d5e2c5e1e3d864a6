//! Reading a body: its samples, within the limits, become the rows of a batch.

use std::collections::HashSet;
use std::sync::Arc;

use stint_model::exemplar::LABELS_CHARS_MAX;
use stint_model::histogram::{
    COARSEST_SCHEMA, CUSTOM_BUCKETS_SCHEMA, FINEST_SCHEMA, Histogram, IntegerHistogram,
};
use stint_model::{Exemplar, Exemplars, MetricType, Sample, Timestamp, Value};
use stint_wire::exposition::{
    ClassicHistograms, Entry, Finished, Format, HistogramEntry, Label, Options, ParseError, Parser,
    Protocol, SeriesEntry,
};

use super::super::cache::Handle;
use super::super::families::FamilyMap;
use super::super::fetch::Fetched;
use super::Recorder;
use super::labels::Attach;

/// The longest text of one series, name and labels, that is looked at: more is never stored.
pub(super) const SERIES_BYTES_MAX: usize = 128 << 10;
/// All texts of series that one body may show for the first time: a small body of buckets can stand
/// for very much text.
const TEXT_BYTES_MAX: usize = 256 << 20;

/// What a body held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Samples in the body.
    pub(super) scraped: u64,
    /// Those that relabelling left.
    pub(super) kept: u64,
    /// Those of them that are stored: not the same sample once more.
    taken: u64,
    /// Series seen for the first time.
    pub(super) added: u64,
    /// Bytes of the texts of series that the cache does not know.
    text_bytes: usize,
    /// Native histograms with more buckets than the limit.
    over_buckets: u64,
}

impl Counts {
    /// Counts the text of a series that is not known yet.
    fn new_text(&mut self, bytes: usize) -> Result<(), String> {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
        if bytes <= SERIES_BYTES_MAX && self.text_bytes <= TEXT_BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "the names of its series are too long: one of {bytes} bytes (at most \
             {SERIES_BYTES_MAX}), {} bytes of new ones together (at most {TEXT_BYTES_MAX})",
            self.text_bytes
        ))
    }
}

/// Which samples of a body are taken.
#[derive(Clone, Copy)]
pub(super) enum Pass<'a> {
    All,
    /// Those whose handles the store has forgotten.
    Only(&'a HashSet<Box<str>>),
}

/// A sample as it stands in the body.
struct Exposed<'a> {
    raw: &'a str,
    /// Whether it is what the cache expects next.
    is_expected: bool,
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
    /// Adds the samples of a body to the batch. The counts are right even where reading fails.
    pub(super) fn read(
        &mut self,
        fetched: &Fetched,
        at: Timestamp,
        pass: Pass<'_>,
    ) -> (Counts, Result<(), String>) {
        let mut counts = Counts::default();
        let families = Arc::clone(&self.families);
        let mut families = families.lock();
        let read = self.read_entries(fetched, at, pass, &mut families, &mut counts);
        let limit = self.task.job.limits.samples;
        let read = match read {
            Ok(()) if limit > 0 && counts.taken > limit => {
                self.metrics.over_sample_limit.inc();
                Err("sample limit exceeded".to_owned())
            }
            Ok(()) if counts.over_buckets > 0 => {
                self.metrics.over_bucket_limit.inc();
                Err("histogram bucket limit exceeded".to_owned())
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
        let fallback = self.task.job.fallback_scrape_protocol.map(Protocol::format);
        let format = Format::from_content_type(&fetched.content_type, fallback)
            .map_err(|error| error.to_string())?;
        let options = Options {
            native_histograms: self.task.target.native_histograms,
            classic_too: self.task.target.classic_too,
            ..Options::default()
        };
        match pass {
            Pass::All => {
                self.cache.begin_body(format);
                families.begin(format);
            }
            Pass::Only(_) => self.cache.begin_again(),
        }
        // What puts histograms together wants to hear of every family.
        let may_pass_over = matches!(pass, Pass::All) && self.classic.is_none();
        let mut parser = Parser::with_options(format, &fetched.body, options);
        if let Some(classic) = &mut self.classic {
            classic.begin();
        }
        let failed = |error: ParseError| error.to_string();
        loop {
            if may_pass_over {
                parser.pass_over(|line| families.known(line));
            }
            let entry = parser.next_expecting(self.cache.expected()).map_err(failed)?;
            let Some(entry) = entry else { break };
            match entry {
                Entry::Type { name, kind } => {
                    families.set_kind(&name, kind);
                    if let Some(classic) = &mut self.classic {
                        let finished = classic.family(&name, kind);
                        self.converted(finished, at, pass, counts)?;
                    }
                }
                Entry::Help { name, text } => families.set_help(&name, &text),
                Entry::Unit { name, unit } => families.set_unit(&name, &unit),
                Entry::Series(entry) => {
                    if let Some(classic) = &mut self.classic {
                        let taken = classic.series(&entry);
                        counts.new_text(taken.new_bytes)?;
                        self.converted(taken.finished, at, pass, counts)?;
                        if taken.is_part && !self.task.target.classic_too {
                            continue;
                        }
                    }
                    let honored = entry.timestamp.filter(|_| self.task.job.honor_timestamps);
                    let shown_at = honored.unwrap_or(at);
                    let exposed = Exposed {
                        raw: entry.raw,
                        // What was expected may have changed with a converted histogram.
                        is_expected: entry.is_expected() && self.classic.is_none(),
                        timestamp: entry.timestamp,
                        started: entry.started,
                        value: Value::Float(entry.value),
                        exemplars: entry
                            .exemplar
                            .iter()
                            .filter(|found| self.timeless.is_new(entry.raw, found))
                            .map(|found| found.decode(shown_at))
                            .collect(),
                        labels: LabelSource::Series(&entry),
                    };
                    self.sample(exposed, at, pass, counts)?;
                }
                Entry::Histogram(entry) => {
                    if let Some(classic) = &mut self.classic {
                        let finished = classic.native(&entry);
                        self.converted(finished, at, pass, counts)?;
                    }
                    self.histogram(*entry, at, pass, counts)?;
                }
            }
        }
        let finished = self.classic.as_mut().and_then(ClassicHistograms::end);
        self.converted(finished, at, pass, counts)
    }

    /// Adds a native histogram to the batch.
    fn histogram(
        &mut self,
        mut entry: HistogramEntry<'_>,
        at: Timestamp,
        pass: Pass<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let nothing = Histogram::Integer(IntegerHistogram::default());
        let histogram = std::mem::replace(&mut entry.histogram, nothing);
        let exposed = Exposed {
            raw: entry.raw,
            is_expected: false,
            timestamp: entry.timestamp,
            started: entry.started,
            value: Value::Histogram(Arc::new(histogram)),
            exemplars: std::mem::take(&mut entry.exemplars),
            labels: LabelSource::Histogram(&entry),
        };
        self.sample(exposed, at, pass, counts)
    }

    /// Adds what classic series have become to the batch.
    fn converted(
        &mut self,
        finished: Option<Finished>,
        at: Timestamp,
        pass: Pass<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        match finished {
            Some(Finished::Whole(converted)) => {
                let mut text = String::new();
                self.histogram(converted.into_entry(&mut text), at, pass, counts)
            }
            Some(Finished::Broken) => {
                self.metrics.not_converted.inc();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Brings a native histogram within the limits; false where that is not possible.
    fn fit(&self, value: &mut Value) -> bool {
        let Value::Histogram(histogram) = value else { return true };
        let job = &self.task.job;
        if histogram.schema() > job.finest_schema {
            Arc::make_mut(histogram).reduce_resolution(job.finest_schema);
        }
        let limit = job.native_histogram_bucket_limit;
        while limit > 0 && histogram.buckets_len() as u64 > limit {
            let schema = histogram.schema();
            if schema == CUSTOM_BUCKETS_SCHEMA || schema <= COARSEST_SCHEMA {
                return false;
            }
            Arc::make_mut(histogram).reduce_resolution(schema.min(FINEST_SCHEMA + 1) - 1);
        }
        true
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
        let explicit = exposed.timestamp.filter(|_| self.task.job.honor_timestamps);
        let tracked = explicit.is_none() || self.task.job.track_timestamps_staleness;
        let mut sample =
            Sample { at: explicit.unwrap_or(at), started: exposed.started, value: exposed.value };
        let bounds = exposed.labels.bounds();
        let scrape = self.cache.scrape();
        let row = self.batch.rows.len();
        if let Some(entry) = self.cache.find(exposed.raw, bounds, exposed.is_expected) {
            let again = entry.seen == scrape;
            entry.seen = scrape;
            let handle = entry.handle();
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
            if self.is_over_limit(counts) || !self.fit(&mut sample.value) {
                counts.over_buckets += u64::from(!self.is_over_limit(counts));
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
            counts.new_text(exposed.raw.len())?;
            let attach =
                Attach { job: &self.task.job, target: &self.task.target, metrics: &self.metrics };
            let mut decoded = Vec::with_capacity(16);
            exposed.labels.decode(&mut decoded);
            let Some(labels) = attach.run(&decoded)? else {
                self.cache.insert(exposed.raw, Handle::Dropped, bounds, false);
                return Ok(());
            };
            counts.kept += 1;
            counts.taken += 1;
            if self.is_over_limit(counts) || !self.fit(&mut sample.value) {
                counts.over_buckets += u64::from(!self.is_over_limit(counts));
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
        self.task.job.limits.samples > 0 && counts.taken > self.task.job.limits.samples
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
