//! The receiver of remote write 1.0 and 2.0.
//!
//! Rows that cannot be stored never take the others with them: what is good is stored, and the
//! answer is 400, after which no sender tries again. Only what may succeed later is a 5xx.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use stint_model::{
    AppendError, Appender, Batch, Exemplar, Exemplars, RejectReason, Row, SeriesKey, SeriesRef,
    Span, Timestamp, Value,
};
use stint_wire::remote_write::{Version, check_encoding};
use stint_wire::snappy::{DECOMPRESSED_BYTES_MAX, decompress_limited, decompressed_bytes};

use self::buffers::Buffers;
use self::request::{LabelError, ReadError, Request};
use crate::metrics::{Metrics, counter, counter_vec, int_gauge};
use crate::receive::cache::{LabelKey, RefCache, Trail};
use crate::receive::in_flight::{Full, Held, InFlight};
use crate::receive::spare::Spare;

mod buffers;
mod request;

/// Largest compressed body; no block that is longer can be valid.
pub const BODY_BYTES_MAX: usize = DECOMPRESSED_BYTES_MAX;
/// Series of one generation of the handle cache, about 30 MB of memory.
const CACHED_SERIES_MAX: usize = 1 << 20;
/// Refusals of one kind that an answer names; the others are counted.
const NAMED_MAX: usize = 5;

/// What a sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The body; empty on success.
    pub text: String,
    /// What was stored; told to senders of 2.0 in headers, and `None` for those of 1.0.
    pub written: Option<Written>,
}

/// What was stored of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Float samples.
    pub samples: usize,
    /// Native histograms.
    pub histograms: usize,
    /// Exemplars.
    pub exemplars: usize,
}

/// The receiver.
pub struct RemoteWrite {
    appender: Arc<dyn Appender>,
    /// In milliseconds; replaced by a reload.
    out_of_order_window: AtomicI64,
    in_flight: Arc<InFlight>,
    cache: RefCache,
    spare: Spare<Buffers>,
    requests: IntCounterVec,
    invalid_labels: IntCounter,
    cached: IntGauge,
}

impl RemoteWrite {
    /// A receiver that stores through `appender`, samples late by at most `out_of_order_window`
    /// among them, and takes its memory from `in_flight`.
    pub fn new(
        appender: Arc<dyn Appender>,
        out_of_order_window: Span,
        in_flight: Arc<InFlight>,
        metrics: &Metrics,
    ) -> Self {
        let registry = metrics.registry();
        Self {
            appender,
            out_of_order_window: AtomicI64::new(out_of_order_window.0),
            in_flight,
            cache: RefCache::new(CACHED_SERIES_MAX),
            spare: Spare::default(),
            requests: counter_vec(
                registry,
                "stint_receive_remote_write_requests_total",
                "Received remote write requests by status code of the answer.",
                &["code"],
            ),
            invalid_labels: counter(
                registry,
                "prometheus_api_remote_write_invalid_labels_samples_total",
                "Samples of series with invalid labels, which were not stored.",
            ),
            cached: int_gauge(
                registry,
                "stint_receive_remote_write_cached_series",
                "Series whose labels need not be read again.",
            ),
        }
    }

    /// Takes a new window from the configuration.
    pub fn set_out_of_order_window(&self, window: Span) {
        self.out_of_order_window.store(window.0, Ordering::Relaxed);
    }

    /// A place for one more request, to be grown by the bytes of its body as they come.
    pub fn enter(&self) -> Held {
        self.in_flight.enter()
    }

    /// The answer to a request for which there is no room.
    pub fn refuse(&self, full: Full) -> Answer {
        self.count(Answer::refused(503, full.to_string()))
    }

    /// Stores what a request holds, whose body is accounted for in `held`. Blocks while it is
    /// written.
    pub fn receive(
        &self,
        content_type: &str,
        content_encoding: &str,
        body: &[u8],
        mut held: Held,
    ) -> Answer {
        self.count(self.store(content_type, content_encoding, body, &mut held))
    }

    fn count(&self, answer: Answer) -> Answer {
        self.requests.with_label_values(&[answer.status.to_string().as_str()]).inc();
        answer
    }

    fn store(
        &self,
        content_type: &str,
        content_encoding: &str,
        body: &[u8],
        held: &mut Held,
    ) -> Answer {
        let version = match Version::from_content_type(content_type)
            .and_then(|version| check_encoding(content_encoding).map(|()| version))
        {
            Ok(version) => version,
            Err(error) => return Answer::refused(415, error.to_string()),
        };
        let bytes = match decompressed_bytes(body, DECOMPRESSED_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => return Answer::refused(400, error.to_string()),
        };
        if let Err(full) = held.grow(bytes) {
            return Answer::refused(503, full.to_string());
        }
        let mut buffers = self.spare.take();
        let mut answer = self.store_message(version, body, &mut buffers, held);
        self.spare.keep(buffers);
        match version {
            Version::V1 => answer.written = None,
            Version::V2 => {
                answer.written.get_or_insert_default();
            }
        }
        answer
    }

    fn store_message(
        &self,
        version: Version,
        body: &[u8],
        buffers: &mut Buffers,
        held: &mut Held,
    ) -> Answer {
        let mut message = std::mem::take(&mut buffers.message);
        if let Err(error) = decompress_limited(body, DECOMPRESSED_BYTES_MAX, &mut message) {
            return Answer::refused(400, error.to_string());
        }
        let request = match version {
            Version::V1 => Request::read_v1(&message, &self.cache, buffers, held),
            Version::V2 => Request::read_v2(&message, &self.cache, buffers, held),
        };
        let answer = match request {
            Ok(request) => {
                let answer = self.append(&request, &mut buffers.rows);
                buffers.give_back(request.series, request.samples);
                answer
            }
            Err(ReadError::Full(full)) => Answer::refused(503, full.to_string()),
            Err(error) => Answer::refused(400, error.to_string()),
        };
        buffers.message = message;
        answer
    }

    /// Stores what was read: known series by their handles, the others with their labels.
    fn append(&self, request: &Request<'_>, rows: &mut Vec<Row>) -> Answer {
        let mut tally = Tally::default();
        let mut trail = Trail::default();
        let known = request.series.iter().map(|series| self.cache.get(&series.key, &mut trail));
        let known: Vec<_> = known.collect();
        let all: Vec<usize> = (0..request.series.len()).collect();
        let forgotten = match self.attempt(request, &all, &known, rows, &mut tally) {
            Ok(forgotten) => forgotten,
            Err(error) => return Answer::failed(&error),
        };
        if !forgotten.is_empty() {
            // Handles may become unknown at any time: the same series again, with labels.
            let unknown = vec![None; request.series.len()];
            match self.attempt(request, &forgotten, &unknown, rows, &mut tally) {
                Ok(forgotten) if forgotten.is_empty() => {}
                Ok(_) => return Answer::refused(500, "a series vanished twice".into()),
                Err(error) => return Answer::failed(&error),
            }
        }
        self.cached.set(self.cache.len() as i64);
        self.invalid_labels.inc_by(request.invalid as u64 + tally.invalid as u64);
        tally.answer(request)
    }

    /// Appends the samples of the series in `wanted`. Returns those whose handles mean nothing to
    /// the store any more.
    fn attempt(
        &self,
        request: &Request<'_>,
        wanted: &[usize],
        known: &[Option<SeriesRef>],
        rows: &mut Vec<Row>,
        tally: &mut Tally,
    ) -> Result<Vec<usize>, AppendError> {
        let mut built = Built::new(request, wanted, known, std::mem::take(rows), tally);
        built.batch.out_of_order_window = Span(self.out_of_order_window.load(Ordering::Relaxed));
        if built.batch.rows.is_empty() && built.batch.metadata.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.appender.append(&built.batch)?;
        let mut forgotten = Vec::new();
        let mut rejected = outcome.rejected.iter().peekable();
        for (row, at) in built.series_of_row.iter().enumerate() {
            let Some(sample) = built.batch.rows.get(row).map(|row| &row.sample) else { continue };
            match rejected.next_if(|rejected| rejected.row == row).map(|rejected| rejected.reason) {
                None => tally.stored(&sample.value),
                Some(RejectReason::UnknownSeries) => forgotten.push(*at),
                Some(reason) => tally.refused(reason, *at, sample.at),
            }
        }
        forgotten.dedup();
        tally.written.exemplars += built.exemplars;
        for (at, reference) in built.series_of_row.iter().zip(&outcome.refs) {
            let news = *reference != known.get(*at).copied().flatten();
            if let (Some(reference), true) = (reference, news)
                && forgotten.binary_search(at).is_err()
                && let Some(series) = request.series.get(*at)
            {
                self.cache.put(series.key, *reference);
            }
        }
        *rows = built.batch.rows;
        rows.clear();
        Ok(forgotten)
    }
}

/// A batch with the way back to the request.
struct Built {
    batch: Batch,
    /// For each row, the position of its series in the request.
    series_of_row: Vec<usize>,
    /// Exemplars in the batch.
    exemplars: usize,
}

impl Built {
    fn new(
        request: &Request<'_>,
        wanted: &[usize],
        known: &[Option<SeriesRef>],
        mut rows: Vec<Row>,
        tally: &mut Tally,
    ) -> Self {
        rows.clear();
        rows.reserve(request.samples.len());
        let mut batch = Batch { rows, ..Batch::default() };
        let mut series_of_row = Vec::with_capacity(request.samples.len());
        let mut exemplars: BTreeMap<usize, Vec<Exemplar>> = BTreeMap::new();
        let mut row_of_key: HashMap<LabelKey, usize> = HashMap::new();
        for at in wanted {
            let Some(series) = request.series.get(*at) else { continue };
            let samples = request.samples_of(series);
            let first_row = batch.rows.len();
            if !samples.is_empty() {
                let key = match known.get(*at).copied().flatten() {
                    Some(reference) => SeriesKey::Known(reference),
                    None => match series.labels() {
                        Ok(labels) => SeriesKey::Labels(labels),
                        Err(error) => {
                            tally.invalid(samples.len(), &error);
                            continue;
                        }
                    },
                };
                if !request.exemplars.is_empty() {
                    row_of_key.entry(series.key).or_insert(first_row);
                }
                for sample in samples {
                    series_of_row.push(*at);
                    batch.rows.push(Row { series: key.clone(), sample: sample.clone() });
                }
            }
        }
        // Senders of 1.0 give exemplars as a series of their own, without samples, before or after
        // the one that has them.
        for (at, exemplar) in &request.exemplars {
            let Some(series) = request.series.get(*at) else { continue };
            if let (Some(row), Ok(_)) = (row_of_key.get(&series.key), wanted.binary_search(at)) {
                exemplars.entry(*row).or_default().push(exemplar.clone());
            }
        }
        batch.metadata.clone_from(&request.metadata);
        let count = exemplars.values().map(Vec::len).sum();
        batch.exemplars =
            exemplars.into_iter().map(|(row, exemplars)| Exemplars { row, exemplars }).collect();
        Self { batch, series_of_row, exemplars: count }
    }
}

/// What became of a request's samples.
#[derive(Default)]
struct Tally {
    written: Written,
    refused: usize,
    /// Samples of series whose labels make no sense.
    invalid: usize,
    /// The first few refusals, by reason, series and time.
    named: Vec<(RejectReason, usize, Timestamp)>,
    /// The first few labels that make no sense.
    named_invalid: Vec<String>,
}

impl Tally {
    fn stored(&mut self, value: &Value) {
        match value {
            Value::Histogram(_) => self.written.histograms += 1,
            Value::Float(_) | Value::Stale => self.written.samples += 1,
        }
    }

    fn refused(&mut self, reason: RejectReason, series: usize, at: Timestamp) {
        self.refused += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push((reason, series, at));
        }
    }

    fn invalid(&mut self, samples: usize, error: &LabelError) {
        self.invalid += samples;
        if self.named_invalid.len() < NAMED_MAX {
            self.named_invalid.push(error.to_string());
        }
    }

    fn answer(self, request: &Request<'_>) -> Answer {
        // Writing to a string cannot fail.
        let mut text = String::new();
        for (reason, series, at) in &self.named {
            let labels = request.series.get(*series).and_then(|series| series.labels().ok());
            let labels = labels.unwrap_or_default();
            let _ = writeln!(text, "{reason}: series {labels} at {at}");
        }
        let unnamed = self.refused - self.named.len();
        if unnamed > 0 {
            let _ = writeln!(text, "and {unnamed} more samples that were not stored");
        }
        for problem in self.named_invalid.iter().chain(&request.problems) {
            // Prometheus skips these without a word in 1.0, and senders rely on the 2xx.
            if request.version == Version::V2 {
                text.push_str(problem);
                text.push('\n');
            } else {
                tracing::debug!(problem, "a series of a remote write request was skipped");
            }
        }
        let status = if text.is_empty() { 204 } else { 400 };
        Answer { status, text, written: Some(self.written) }
    }
}

impl Answer {
    fn refused(status: u16, text: String) -> Self {
        Self { status, text, written: None }
    }

    /// The batch as a whole was not stored; all of it may be sent again.
    fn failed(error: &AppendError) -> Self {
        let status = match error {
            AppendError::Busy(_) | AppendError::Closed => 503,
            AppendError::Io(_) | AppendError::DiskFull(_) | AppendError::ReadOnly(_) => 500,
        };
        Self::refused(status, error.to_string())
    }
}

#[cfg(test)]
mod tests;
