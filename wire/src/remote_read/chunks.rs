//! Chunks of samples in the encodings of Prometheus: floats, integer histograms, float histograms.

use std::sync::Arc;

use stint_model::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, IntegerHistogram, ResetHint,
};
use stint_model::query::Columns;
use stint_model::time::Timestamp;

use super::bits::{Bits, Differences, Xor, millis, put_time};

/// The most samples of a chunk, as Prometheus cuts them.
pub const SAMPLES_MAX: usize = 120;
/// A chunk of histograms ends where it is this large, or it would not fit into a frame.
const BYTES_MAX: usize = 64 << 10;

/// How samples are encoded; the numbers of `prometheus.Chunk.Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Floats.
    Xor = 1,
    /// Histograms whose counts are integers.
    Histogram = 2,
    /// Histograms whose counts are floats.
    FloatHistogram = 3,
}

/// Samples of a series that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// How they are encoded.
    pub encoding: Encoding,
    /// Time of the first.
    pub first: Timestamp,
    /// Time of the last.
    pub last: Timestamp,
    /// The encoded samples.
    pub data: Vec<u8>,
}

/// Encodes all samples of `columns`, in order of time.
pub fn encode(columns: &Columns, mut each: impl FnMut(Chunk)) {
    let mut histograms = columns.histograms.iter().peekable();
    let mut open: Option<Open> = None;
    for (row, (at, value)) in columns.times.iter().zip(&columns.values).enumerate() {
        let histogram = histograms.next_if(|(of, _)| *of == row).map(|(_, histogram)| histogram);
        let taken = open.as_mut().is_some_and(|open| open.take(*at, *value, histogram));
        if !taken {
            let started = Open::start(*at, *value, histogram, open.as_ref());
            if let Some(full) = open.replace(started) {
                each(full.finish());
            }
        }
    }
    if let Some(last) = open {
        each(last.finish());
    }
}

/// A chunk that may take more samples.
#[derive(Debug)]
struct Open {
    first: Timestamp,
    last: Timestamp,
    samples: usize,
    bits: Bits,
    times: Differences,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Floats(Xor),
    Integers(Box<Integers>),
    HistogramFloats(Box<HistogramFloats>),
}

/// The number of samples, which stands first and is known last.
const COUNT_BYTES: usize = 2;

impl Open {
    fn start(
        at: Timestamp,
        value: f64,
        histogram: Option<&Arc<Histogram>>,
        before: Option<&Self>,
    ) -> Self {
        let (bits, content) = match histogram.map(AsRef::as_ref) {
            None => {
                let mut bits = Bits::after(&[0; COUNT_BYTES]);
                bits.put_varint(millis(at));
                let values = Xor::first(&mut bits, value);
                (bits, Content::Floats(values))
            }
            Some(Histogram::Integer(histogram)) => {
                let follows_reset = before.is_some_and(|open| match &open.content {
                    Content::Integers(known) => is_reset(
                        histogram.reset_hint,
                        || histogram.to_float(),
                        &known.last.to_float(),
                    ),
                    _ => false,
                });
                let mut bits = Bits::after(&header(histogram.reset_hint, follows_reset));
                let started = Integers::start(&mut bits, at, histogram);
                (bits, Content::Integers(Box::new(started)))
            }
            Some(Histogram::Float(histogram)) => {
                let follows_reset = before.is_some_and(|open| match &open.content {
                    Content::HistogramFloats(known) => {
                        is_reset(histogram.reset_hint, || histogram.clone(), &known.last)
                    }
                    _ => false,
                });
                let mut bits = Bits::after(&header(histogram.reset_hint, follows_reset));
                let started = HistogramFloats::start(&mut bits, at, histogram);
                (bits, Content::HistogramFloats(Box::new(started)))
            }
        };
        let times = Differences::after(millis(at));
        Self { first: at, last: at, samples: 1, bits, times, content }
    }

    /// Adds a sample; `false` when it needs a chunk of its own.
    fn take(&mut self, at: Timestamp, value: f64, histogram: Option<&Arc<Histogram>>) -> bool {
        if self.samples >= SAMPLES_MAX || self.bits.len() > BYTES_MAX {
            return false;
        }
        match (&mut self.content, histogram.map(AsRef::as_ref)) {
            (Content::Floats(values), None) => {
                let second = self.times.next(millis(at));
                match self.samples {
                    1 => self.bits.put_uvarint(second as u64),
                    _ => put_time(&mut self.bits, second),
                }
                values.put(&mut self.bits, value);
            }
            (Content::Integers(known), Some(Histogram::Integer(histogram)))
                if known.fits(histogram) =>
            {
                let second = self.times.next(millis(at));
                put_histogram_time(&mut self.bits, self.samples, second);
                known.put(&mut self.bits, histogram);
            }
            (Content::HistogramFloats(known), Some(Histogram::Float(histogram)))
                if known.fits(histogram) =>
            {
                let second = self.times.next(millis(at));
                put_histogram_time(&mut self.bits, self.samples, second);
                known.put(&mut self.bits, histogram);
            }
            _ => return false,
        }
        self.samples += 1;
        self.last = at;
        true
    }

    fn finish(self) -> Chunk {
        let encoding = match self.content {
            Content::Floats(_) => Encoding::Xor,
            Content::Integers(_) => Encoding::Histogram,
            Content::HistogramFloats(_) => Encoding::FloatHistogram,
        };
        let mut data = self.bits.finish();
        for (to, from) in data.iter_mut().zip((self.samples as u16).to_be_bytes()) {
            *to = from;
        }
        Chunk { encoding, first: self.first, last: self.last, data }
    }
}

fn put_histogram_time(bits: &mut Bits, samples: usize, second: i64) {
    match samples {
        1 => bits.put_uint(second as u64),
        _ => bits.put_int(second),
    }
}

/// Count of samples, and what is known about the counter before the first one.
const fn header(hint: ResetHint, follows_reset: bool) -> [u8; COUNT_BYTES + 1] {
    let flags = match hint {
        ResetHint::Gauge => 0b1100_0000,
        ResetHint::Reset => 0b1000_0000,
        _ if follows_reset => 0b1000_0000,
        ResetHint::NotReset => 0b0100_0000,
        ResetHint::Unknown => 0,
    };
    [0, 0, flags]
}

/// Readers take the samples of a chunk for one that goes on counting.
fn is_reset(
    hint: ResetHint,
    histogram: impl FnOnce() -> FloatHistogram,
    before: &FloatHistogram,
) -> bool {
    match hint {
        ResetHint::Reset => true,
        ResetHint::Gauge | ResetHint::NotReset => false,
        ResetHint::Unknown => histogram().is_reset_after(before),
    }
}

fn is_gauge(hint: ResetHint) -> bool {
    hint == ResetHint::Gauge
}

/// What all histograms of a chunk have in common.
fn put_layout(
    bits: &mut Bits,
    schema: i32,
    zero_threshold: f64,
    spans: [&[BucketSpan]; 2],
    custom_bounds: &[f64],
) {
    put_zero_threshold(bits, zero_threshold);
    bits.put_int(i64::from(schema));
    for spans in spans {
        bits.put_uint(spans.len() as u64);
        for span in spans {
            bits.put_uint(u64::from(span.length));
            bits.put_int(i64::from(span.offset));
        }
    }
    if schema == CUSTOM_BUCKETS_SCHEMA {
        bits.put_uint(custom_bounds.len() as u64);
        for bound in custom_bounds {
            put_custom_bound(bits, *bound);
        }
    }
}

/// One byte for 0 and for the powers of two that are in use.
fn put_zero_threshold(bits: &mut Bits, threshold: f64) {
    if threshold == 0.0 {
        return bits.put(0, 8);
    }
    // Of a power of two, as a fraction of one half: 2^e is 0.5 × 2^(e + 1).
    let is_power_of_two =
        threshold.is_normal() && threshold > 0.0 && threshold.to_bits() << 12 == 0;
    let exponent = (threshold.to_bits() >> 52 & 0x7ff) as i64 - 1022;
    if is_power_of_two && (-242..=11).contains(&exponent) {
        bits.put((exponent + 243) as u64, 8);
    } else {
        bits.put(255, 8);
        bits.put_f64(threshold);
    }
}

/// The highest bound that is written as a number of thousandths.
const SHORT_BOUND_MAX: f64 = 33_554_430.0;

fn put_custom_bound(bits: &mut Bits, bound: f64) {
    let thousandths = (bound * 1000.0).round();
    let is_short = (0.0..=SHORT_BOUND_MAX).contains(&thousandths) && thousandths / 1000.0 == bound;
    if is_short {
        bits.put_uint(thousandths as u64 + 1);
    } else {
        bits.put(0, 1);
        bits.put_f64(bound);
    }
}

/// State of a chunk of histograms whose counts are integers.
#[derive(Debug)]
struct Integers {
    last: IntegerHistogram,
    count: Differences,
    zero_count: Differences,
    sum: Xor,
    buckets: Vec<Differences>,
}

impl Integers {
    fn start(bits: &mut Bits, at: Timestamp, histogram: &IntegerHistogram) -> Self {
        put_layout(
            bits,
            histogram.schema,
            histogram.zero_threshold,
            [&histogram.positive_spans, &histogram.negative_spans],
            &histogram.custom_bounds,
        );
        bits.put_int(millis(at));
        bits.put_uint(histogram.count);
        bits.put_uint(histogram.zero_count);
        let sum = Xor::first(bits, histogram.sum);
        let buckets = deltas(histogram).map(|delta| {
            bits.put_int(delta);
            Differences::after(delta)
        });
        Self {
            buckets: buckets.collect(),
            count: Differences::after(histogram.count as i64),
            zero_count: Differences::after(histogram.zero_count as i64),
            sum,
            last: histogram.clone(),
        }
    }

    fn fits(&self, next: &IntegerHistogram) -> bool {
        let last = &self.last;
        last.schema == next.schema
            && last.zero_threshold == next.zero_threshold
            && last.positive_spans == next.positive_spans
            && last.negative_spans == next.negative_spans
            && last.custom_bounds == next.custom_bounds
            && is_gauge(last.reset_hint) == is_gauge(next.reset_hint)
            && !is_reset(next.reset_hint, || next.to_float(), &last.to_float())
    }

    fn put(&mut self, bits: &mut Bits, histogram: &IntegerHistogram) {
        bits.put_int(self.count.next(histogram.count as i64));
        bits.put_int(self.zero_count.next(histogram.zero_count as i64));
        self.sum.put(bits, histogram.sum);
        for (state, delta) in self.buckets.iter_mut().zip(deltas(histogram)) {
            bits.put_int(state.next(delta));
        }
        self.last.clone_from(histogram);
    }
}

fn deltas(histogram: &IntegerHistogram) -> impl Iterator<Item = i64> {
    histogram.positive_deltas.iter().chain(&histogram.negative_deltas).copied()
}

/// State of a chunk of histograms whose counts are floats.
#[derive(Debug)]
struct HistogramFloats {
    last: FloatHistogram,
    count: Xor,
    zero_count: Xor,
    sum: Xor,
    buckets: Vec<Xor>,
}

impl HistogramFloats {
    fn start(bits: &mut Bits, at: Timestamp, histogram: &FloatHistogram) -> Self {
        put_layout(
            bits,
            histogram.schema,
            histogram.zero_threshold,
            [&histogram.positive_spans, &histogram.negative_spans],
            &histogram.custom_bounds,
        );
        bits.put_int(millis(at));
        let count = Xor::first(bits, histogram.count);
        let zero_count = Xor::first(bits, histogram.zero_count);
        let sum = Xor::first(bits, histogram.sum);
        let buckets = counts(histogram).map(|count| Xor::first(bits, count)).collect();
        Self { last: histogram.clone(), count, zero_count, sum, buckets }
    }

    fn fits(&self, next: &FloatHistogram) -> bool {
        let last = &self.last;
        last.schema == next.schema
            && last.zero_threshold == next.zero_threshold
            && last.positive_spans == next.positive_spans
            && last.negative_spans == next.negative_spans
            && last.custom_bounds == next.custom_bounds
            && is_gauge(last.reset_hint) == is_gauge(next.reset_hint)
            && !is_reset(next.reset_hint, || next.clone(), last)
    }

    fn put(&mut self, bits: &mut Bits, histogram: &FloatHistogram) {
        self.count.put(bits, histogram.count);
        self.zero_count.put(bits, histogram.zero_count);
        self.sum.put(bits, histogram.sum);
        for (state, count) in self.buckets.iter_mut().zip(counts(histogram)) {
            state.put(bits, count);
        }
        self.last.clone_from(histogram);
    }
}

fn counts(histogram: &FloatHistogram) -> impl Iterator<Item = f64> {
    histogram.positive_buckets.iter().chain(&histogram.negative_buckets).copied()
}

#[cfg(test)]
mod tests;
