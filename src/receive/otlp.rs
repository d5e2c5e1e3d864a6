//! The receiver of OTLP metrics.
//!
//! Data points that cannot be stored never take the others with them: the sender is told how many
//! were rejected and why, as the protocol has it, and does not send them again. Only what may
//! succeed later is answered so that it is sent again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::{Mutex, RwLock};
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use stint_model::{
    AppendError, Appender, Batch, Clock, Exemplars, RejectReason, Row, SeriesKey, Span,
};
use stint_wire::otlp::answer::{Code, Encoding, Partial};
use stint_wire::otlp::{self, Options, TranslateError, Warning};

use self::compression::{Compression, DecompressError};
use self::delta::Streams;
use self::gather::{Caches, Gather, Pending};
use crate::metrics::{Metrics, counter, counter_vec, int_gauge};
use crate::receive::cache::LabelKey;
use crate::receive::in_flight::{Held, InFlight, RETRY_AFTER_SECONDS};
use crate::receive::meter::{Meter, MeterError};
use crate::receive::spare::{self, Spare};

pub mod compression;
mod delta;
mod gather;

#[cfg(test)]
mod tests;

/// Largest message, before and after decompression.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Largest message in JSON, which takes many times its size while it is read.
const JSON_BYTES_MAX: usize = 6 << 20;
/// Series of one generation of each handle cache, about 8 MB of memory.
const CACHED_SERIES_MAX: usize = 1 << 18;
/// Reasons that an answer names.
const NAMED_MAX: usize = 5;

/// How the body of a request is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Of the message.
    pub encoding: Encoding,
    /// Of the bytes.
    pub compression: Compression,
}

/// What a sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything is stored, but for what is told.
    Stored(Option<Partial>),
    /// Nothing is stored, nor would it be next time.
    Refused {
        /// Why, in a word.
        code: Code,
        /// Why.
        message: String,
    },
    /// Nothing is stored; it may be sent again after so many seconds.
    Later {
        /// Why.
        message: String,
        /// When.
        seconds: u64,
    },
}

impl Answer {
    fn refused(code: Code, message: &dyn std::fmt::Display) -> Self {
        Self::Refused { code, message: message.to_string() }
    }

    /// Nothing was stored, which may be otherwise soon.
    pub fn later(message: &dyn std::fmt::Display) -> Self {
        Self::Later { message: message.to_string(), seconds: RETRY_AFTER_SECONDS }
    }

    /// For counters.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Stored(None) => "stored",
            Self::Stored(Some(_)) => "partial",
            Self::Refused { .. } => "refused",
            Self::Later { .. } => "later",
        }
    }
}

/// What one request needs of memory.
#[derive(Default)]
struct Buffers {
    message: Vec<u8>,
    pending: Vec<Pending>,
    origins: Vec<Origin>,
    rows: Vec<Row>,
}

/// What a row was made of: the keys of its series, and its data point.
type Origin = (LabelKey, Option<LabelKey>, Option<u32>);

impl spare::Buffers for Buffers {
    fn message_bytes(&self) -> usize {
        self.message.capacity()
    }

    fn rows(&self) -> usize {
        self.pending.capacity().max(self.origins.capacity()).max(self.rows.capacity())
    }
}

/// The receiver.
pub struct OtlpReceiver {
    appender: Arc<dyn Appender>,
    clock: Arc<dyn Clock>,
    /// And how often they were replaced: what tells series apart under one is not that of another.
    options: RwLock<(Arc<Options>, u64)>,
    /// In milliseconds; replaced by a reload.
    out_of_order_window: AtomicI64,
    in_flight: Arc<InFlight>,
    /// Handles by labels, and by what else tells series apart. Each in the order in which its keys come,
    /// so that those of the next request are found beside one another.
    caches: Caches,
    streams: Mutex<Streams>,
    spare: Spare<Buffers>,
    requests: IntCounterVec,
    warnings: IntCounterVec,
    rejected: IntCounter,
    shown_streams: IntGauge,
}

impl OtlpReceiver {
    /// A receiver that stores through `appender`, samples late by at most `out_of_order_window`
    /// among them, and takes its memory from `in_flight`.
    pub fn new(
        appender: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        options: Options,
        out_of_order_window: Span,
        in_flight: Arc<InFlight>,
        metrics: &Metrics,
    ) -> Self {
        let registry = metrics.registry();
        Self {
            appender,
            clock,
            options: RwLock::new((Arc::new(options), 0)),
            out_of_order_window: AtomicI64::new(out_of_order_window.0),
            in_flight,
            caches: Caches::new(CACHED_SERIES_MAX),
            streams: Mutex::default(),
            spare: Spare::default(),
            requests: counter_vec(
                registry,
                "stint_receive_otlp_requests_total",
                "Received OTLP requests by what became of them.",
                &["outcome"],
            ),
            warnings: counter_vec(
                registry,
                "prometheus_api_otlp_translation_warnings_total",
                "Oddities in received OTLP metrics that cost nothing.",
                &["category"],
            ),
            rejected: counter(
                registry,
                "stint_receive_otlp_rejected_points_total",
                "Received OTLP data points that were not stored.",
            ),
            shown_streams: int_gauge(
                registry,
                "stint_receive_otlp_delta_streams",
                "Series whose differences are summed up.",
            ),
        }
    }

    /// Takes what a reload changed.
    pub fn set_options(&self, options: Options, out_of_order_window: Span) {
        {
            let mut now = self.options.write();
            *now = (Arc::new(options), now.1.wrapping_add(1));
        }
        self.out_of_order_window.store(out_of_order_window.0, Ordering::Relaxed);
    }

    /// A place for one more request, to be grown by the bytes of its body as they come.
    pub fn enter(&self) -> Held {
        self.in_flight.enter()
    }

    /// Counts an answer that was found without the body.
    pub fn count(&self, answer: Answer) -> Answer {
        self.requests.with_label_values(&[answer.outcome()]).inc();
        answer
    }

    /// Stores what a request holds, whose body is accounted for in `held`. Blocks while it is
    /// written.
    pub fn receive(&self, content: Content, body: &[u8], mut held: Held) -> Answer {
        let answer = self.message(content, body, &mut held).unwrap_or_else(|answer| answer);
        if let Answer::Stored(Some(partial)) = &answer {
            self.rejected.inc_by(partial.rejected_points);
            tracing::debug!(
                points = partial.rejected_points,
                reason = partial.message,
                "some data points were not stored"
            );
        }
        self.count(answer)
    }

    fn message(&self, content: Content, body: &[u8], held: &mut Held) -> Result<Answer, Answer> {
        let largest = match content.encoding {
            Encoding::Protobuf => MESSAGE_BYTES_MAX,
            Encoding::Json => JSON_BYTES_MAX,
        };
        let mut buffers = self.spare.take();
        let buffer = std::mem::take(&mut buffers.message);
        let message = compression::decompress(content.compression, body, largest, buffer, held);
        let message = message.map_err(|error| match error {
            DecompressError::Full(full) => Answer::later(&full),
            DecompressError::TooLarge(_) => Answer::refused(Code::ResourceExhausted, &error),
            DecompressError::Damaged(..) => Answer::refused(Code::InvalidArgument, &error),
        })?;
        let answer = match content.encoding {
            Encoding::Protobuf => self.store(&message, held, &mut buffers),
            Encoding::Json => {
                let room = message.len().saturating_mul(otlp::json::EXPANSION);
                held.grow(room).map_err(|full| Answer::later(&full))?;
                let message = otlp::json::to_protobuf(&message)
                    .map_err(|error| Answer::refused(Code::InvalidArgument, &error))?;
                self.store(&message, held, &mut buffers)
            }
        };
        if let Cow::Owned(message) = message {
            buffers.message = message;
        }
        self.spare.keep(buffers);
        answer
    }

    fn store(
        &self,
        message: &[u8],
        held: &mut Held,
        buffers: &mut Buffers,
    ) -> Result<Answer, Answer> {
        let options = self.options.read().clone();
        let mut meter = Meter::new(held);
        let rows = std::mem::take(&mut buffers.pending);
        let mut gathered = self.gather(message, &options, &mut meter, None, rows)?;
        for (warning, count) in &gathered.warnings {
            self.warnings.with_label_values(&[warning.as_str()]).inc_by(*count);
        }
        let mut tally = Tally::new(&mut gathered);
        // Held until the sums are stored, so that two requests cannot both add to the same ones.
        let mut streams = gathered.has_deltas().then(|| self.streams.lock());
        let mut sums = delta::Sums::default();
        let forgotten =
            self.append(gathered, buffers, streams.as_deref(), &mut sums, &mut tally)?;
        if !forgotten.is_empty() {
            // Handles may become unknown at any time: the same series again, with labels.
            let rows = std::mem::take(&mut buffers.pending);
            let again = self.gather(message, &options, &mut meter, Some(forgotten), rows)?;
            let mut same = delta::Sums::default();
            let left = self.append(again, buffers, streams.as_deref(), &mut same, &mut tally)?;
            if !left.is_empty() {
                return Err(Answer::refused(Code::Internal, &"a series vanished twice"));
            }
        }
        if let Some(streams) = &mut streams {
            streams.commit(sums, self.clock.now());
            self.shown_streams.set(streams.len() as i64);
        }
        Ok(tally.answer())
    }

    /// Translates a message; series other than those `wanted`, where it is given, are left out. `rows`
    /// are memory for what becomes of it.
    fn gather<'g>(
        &'g self,
        message: &[u8],
        (options, epoch): &(Arc<Options>, u64),
        meter: &'g mut Meter<'_>,
        wanted: Option<HashSet<LabelKey>>,
        rows: Vec<Pending>,
    ) -> Result<Gathered, Answer> {
        let mut gather = Gather::new(&self.caches, *epoch, meter, wanted, rows);
        match otlp::translate(message, options, &mut gather) {
            Ok(()) => Ok(Gathered::new(gather)),
            Err(TranslateError::Sink(MeterError::Full(full))) => Err(Answer::later(&full)),
            Err(TranslateError::Sink(MeterError::TooLarge(error))) => {
                Err(Answer::refused(Code::ResourceExhausted, &error))
            }
            Err(TranslateError::Decode(_)) if message.is_empty() => Ok(Gathered::new(gather)),
            Err(error @ TranslateError::Decode(_)) => {
                Err(Answer::refused(Code::InvalidArgument, &error))
            }
        }
    }

    /// Appends what was gathered. Returns the series whose handles mean nothing any more.
    fn append(
        &self,
        mut gathered: Gathered,
        buffers: &mut Buffers,
        streams: Option<&Streams>,
        sums: &mut delta::Sums,
        tally: &mut Tally,
    ) -> Result<HashSet<LabelKey>, Answer> {
        if let Some(streams) = streams {
            gathered.rows.retain_mut(|row| match sums.add(streams, row) {
                Ok(()) => true,
                Err(reason) => {
                    tally.refused(row.point, || reason.to_string());
                    false
                }
            });
        }
        let mut batch = Batch {
            rows: std::mem::take(&mut buffers.rows),
            exemplars: Vec::new(),
            metadata: gathered.metadata,
            out_of_order_window: Span(self.out_of_order_window.load(Ordering::Relaxed)),
        };
        let mut origins = std::mem::take(&mut buffers.origins);
        origins.clear();
        for (at, row) in gathered.rows.drain(..).enumerate() {
            if !row.exemplars.is_empty() {
                batch.exemplars.push(Exemplars { row: at, exemplars: row.exemplars });
            }
            origins.push((row.key, row.identity, row.point));
            batch.rows.push(Row { series: row.series, sample: row.sample });
        }
        buffers.pending = gathered.rows;
        if batch.rows.is_empty() && batch.metadata.is_empty() {
            return Ok(HashSet::new());
        }
        let outcome = self.appender.append(&batch).map_err(|error| failed(&error))?;
        let mut forgotten = HashSet::new();
        for rejected in &outcome.rejected {
            let Some((key, _, point)) = origins.get(rejected.row) else { continue };
            if rejected.reason == RejectReason::UnknownSeries {
                forgotten.insert(*key);
                continue;
            }
            tally.refused(*point, || {
                let row = batch.rows.get(rejected.row);
                let at = row.map(|row| row.sample.at).unwrap_or_default();
                match row.map(|row| &row.series) {
                    Some(SeriesKey::Labels(labels)) => {
                        format!("{}: series {labels} at {at}", rejected.reason)
                    }
                    Some(SeriesKey::Known(_)) | None => format!("{} at {at}", rejected.reason),
                }
            });
        }
        let rows = origins.iter().zip(&batch.rows).zip(&outcome.refs);
        for (((key, identity, _), row), reference) in rows {
            // What came with its handle is in the cache.
            if let (SeriesKey::Labels(_), Some(reference)) = (&row.series, reference)
                && !forgotten.contains(key)
            {
                self.caches.labels.put(*key, *reference);
                if let Some(identity) = identity {
                    self.caches.identities.put(*identity, *reference);
                }
            }
        }
        batch.rows.clear();
        (buffers.rows, buffers.origins) = (batch.rows, origins);
        Ok(forgotten)
    }
}

/// The batch as a whole was not stored; all of it may be sent again.
fn failed(error: &AppendError) -> Answer {
    Answer::later(error)
}

/// What a message becomes, in order of time.
struct Gathered {
    rows: Vec<Pending>,
    metadata: Vec<(String, stint_model::Metadata)>,
    warnings: Vec<(Warning, u64)>,
    refused_points: u64,
    reasons: Vec<String>,
}

impl Gathered {
    fn new(gather: Gather<'_, '_>) -> Self {
        let Gather { mut rows, metadata, warnings, refused_points, reasons, .. } = gather;
        // Points of one series may stand in any order.
        if !rows.is_sorted_by_key(|row| row.sample.at) {
            rows.sort_by_key(|row| row.sample.at);
        }
        Self { rows, metadata, warnings, refused_points, reasons }
    }

    fn has_deltas(&self) -> bool {
        self.rows.iter().any(|row| row.is_delta)
    }
}

/// What became of a message's data points.
struct Tally {
    /// Points that were refused as a whole while they were translated.
    untranslated: u64,
    /// Points of which a row was refused later.
    points: HashSet<u32>,
    reasons: Vec<String>,
}

impl Tally {
    fn new(gathered: &mut Gathered) -> Self {
        Self {
            untranslated: gathered.refused_points,
            points: HashSet::new(),
            reasons: std::mem::take(&mut gathered.reasons),
        }
    }

    /// A row of `point` was refused; `None` is no data point, and nobody misses it.
    fn refused(&mut self, point: Option<u32>, reason: impl FnOnce() -> String) {
        let Some(point) = point else { return };
        if self.points.insert(point) && self.reasons.len() < NAMED_MAX {
            self.reasons.push(reason());
        }
    }

    fn answer(self) -> Answer {
        let rejected_points = self.untranslated + self.points.len() as u64;
        if rejected_points == 0 {
            return Answer::Stored(None);
        }
        Answer::Stored(Some(Partial { rejected_points, message: self.reasons.join("; ") }))
    }
}
