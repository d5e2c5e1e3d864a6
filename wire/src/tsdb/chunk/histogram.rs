//! Native histograms, with integer and with float counts. All of a chunk have the same buckets,
//! which stand before them.

use std::sync::Arc;

use stint_model::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, IntegerHistogram, ResetHint,
};
use stint_model::{Columns, Timestamp, is_stale};

use super::counted;
use crate::tsdb::Damage;
use crate::tsdb::bits::{Bits, Xor};

/// The most spans and bounds of all histograms of a chunk together: they stand there once, but
/// each histogram gets its own.
const PARTS_MAX: usize = 1 << 22;

/// The two highest bits of the flags of a chunk whose histograms are gauges.
const GAUGE: u8 = 0b11;

/// What all histograms of a chunk share.
struct Layout {
    reset_hint: ResetHint,
    schema: i32,
    zero_threshold: f64,
    positive: Vec<BucketSpan>,
    negative: Vec<BucketSpan>,
    positive_len: usize,
    negative_len: usize,
    bounds: Vec<f64>,
}

impl Layout {
    fn take(flags: u8, samples: usize, bits: &mut Bits<'_>) -> Result<Self, Damage> {
        let reset_hint = if flags >> 6 == GAUGE { ResetHint::Gauge } else { ResetHint::Unknown };
        let zero_threshold = match bits.take(8) {
            0 => 0.0,
            255 => bits.float(),
            power => 2_f64.powi(power as i32 - 244),
        };
        let schema =
            i32::try_from(bits.varbit()).map_err(|_| bits.damage("a schema that there is not"))?;
        let positive = spans(bits)?;
        let negative = spans(bits)?;
        let bounds =
            if schema == CUSTOM_BUCKETS_SCHEMA { custom_bounds(bits)? } else { Vec::new() };
        bits.check()?;
        let parts = positive.len() + negative.len() + bounds.len();
        if parts.saturating_mul(samples) > PARTS_MAX {
            return Err(bits.damage("more spans than a chunk can have"));
        }
        let positive_len = buckets(&positive, bits)?;
        let negative_len = buckets(&negative, bits)?;
        Ok(Self {
            reset_hint,
            schema,
            zero_threshold,
            positive,
            negative,
            positive_len,
            negative_len,
            bounds,
        })
    }
}

fn spans(bits: &mut Bits<'_>) -> Result<Vec<BucketSpan>, Damage> {
    let count = bits.varbit_unsigned();
    // Each takes two bits at least.
    let count = usize::try_from(count)
        .ok()
        .filter(|count| count.saturating_mul(2) <= bits.remaining())
        .ok_or_else(|| bits.damage("more spans than there is room for"))?;
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let length = bits.varbit_unsigned();
        let offset = bits.varbit();
        match (u32::try_from(length), i32::try_from(offset)) {
            (Ok(length), Ok(offset)) => spans.push(BucketSpan { offset, length }),
            _ => return Err(bits.damage("a span beyond all buckets")),
        }
    }
    Ok(spans)
}

/// How many buckets `spans` have: each takes a bit at least in the first histogram.
fn buckets(spans: &[BucketSpan], bits: &Bits<'_>) -> Result<usize, Damage> {
    let count: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= bits.remaining())
        .ok_or_else(|| bits.damage("more buckets than there is room for"))
}

fn custom_bounds(bits: &mut Bits<'_>) -> Result<Vec<f64>, Damage> {
    let count = bits.varbit_unsigned();
    let count = usize::try_from(count)
        .ok()
        .filter(|count| *count <= bits.remaining())
        .ok_or_else(|| bits.damage("more bounds than there is room for"))?;
    let mut bounds = Vec::with_capacity(count);
    for _ in 0..count {
        bounds.push(match bits.varbit_unsigned() {
            0 => bits.float(),
            thousandths => (thousandths - 1) as f64 / 1000.0,
        });
    }
    Ok(bounds)
}

/// A number as differences of its differences.
#[derive(Clone, Copy, Default)]
struct Steps {
    value: i64,
    step: i64,
}

impl Steps {
    fn next(&mut self, bits: &mut Bits<'_>) {
        self.step = self.step.wrapping_add(bits.varbit());
        self.value = self.value.wrapping_add(self.step);
    }
}

/// The number of samples, the layout, and the bits behind it.
fn opened(data: &[u8]) -> Result<Option<(usize, Layout, Bits<'_>)>, Damage> {
    let (count, rest) = counted(data)?;
    if count == 0 {
        return Ok(None);
    }
    let (flags, rest) =
        rest.split_first().ok_or_else(|| Damage::new(2, "too short for a chunk"))?;
    let mut bits = Bits::new(rest);
    let layout = Layout::take(*flags, count, &mut bits)?;
    Ok(Some((count, layout, bits)))
}

pub(super) fn decode_integers(data: &[u8], out: &mut Columns) -> Result<(), Damage> {
    let Some((count, layout, mut bits)) = opened(data)? else { return Ok(()) };
    let (mut at, mut total, mut zero) = (Steps::default(), Steps::default(), Steps::default());
    let mut sum = Xor::default();
    let mut buckets = vec![Steps::default(); layout.positive_len + layout.negative_len];
    for number in 0..count {
        if number == 0 {
            at.value = bits.varbit();
            total.value = bits.varbit_unsigned() as i64;
            zero.value = bits.varbit_unsigned() as i64;
            sum = Xor::behind(bits.float());
        } else {
            at.next(&mut bits);
            total.next(&mut bits);
            zero.next(&mut bits);
            sum.next(&mut bits)?;
        }
        let is_end = is_stale(sum.value());
        if number == 0 {
            for bucket in &mut buckets {
                bucket.value = bits.varbit();
            }
        } else if !is_end {
            for bucket in &mut buckets {
                bucket.next(&mut bits);
            }
        }
        bits.check().map_err(|damage| damage.behind(3))?;
        if is_end {
            push_end(Timestamp(at.value), sum.value(), out);
            continue;
        }
        let deltas: Vec<i64> = buckets.iter().map(|bucket| bucket.value).collect();
        let (positive, negative) = deltas.split_at(layout.positive_len);
        let histogram = IntegerHistogram {
            reset_hint: layout.reset_hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: zero.value as u64,
            count: total.value as u64,
            sum: sum.value(),
            positive_spans: layout.positive.clone(),
            negative_spans: layout.negative.clone(),
            positive_deltas: positive.to_vec(),
            negative_deltas: negative.to_vec(),
            custom_bounds: layout.bounds.clone(),
        };
        push(Timestamp(at.value), Histogram::Integer(histogram), out);
    }
    Ok(())
}

pub(super) fn decode_floats(data: &[u8], out: &mut Columns) -> Result<(), Damage> {
    let Some((count, layout, mut bits)) = opened(data)? else { return Ok(()) };
    let mut at = Steps::default();
    let (mut total, mut zero, mut sum) = (Xor::default(), Xor::default(), Xor::default());
    let mut buckets = vec![Xor::default(); layout.positive_len + layout.negative_len];
    for number in 0..count {
        if number == 0 {
            at.value = bits.varbit();
            for field in [&mut total, &mut zero, &mut sum] {
                *field = Xor::behind(bits.float());
            }
        } else {
            at.next(&mut bits);
            for field in [&mut total, &mut zero, &mut sum] {
                field.next(&mut bits)?;
            }
        }
        let is_end = is_stale(sum.value());
        if number == 0 {
            for bucket in &mut buckets {
                *bucket = Xor::behind(bits.float());
            }
        } else if !is_end {
            for bucket in &mut buckets {
                bucket.next(&mut bits)?;
            }
        }
        bits.check().map_err(|damage| damage.behind(3))?;
        if is_end {
            push_end(Timestamp(at.value), sum.value(), out);
            continue;
        }
        let counts: Vec<f64> = buckets.iter().map(|bucket| bucket.value()).collect();
        let (positive, negative) = counts.split_at(layout.positive_len);
        let histogram = FloatHistogram {
            reset_hint: layout.reset_hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: zero.value(),
            count: total.value(),
            sum: sum.value(),
            positive_spans: layout.positive.clone(),
            negative_spans: layout.negative.clone(),
            positive_buckets: positive.to_vec(),
            negative_buckets: negative.to_vec(),
            custom_bounds: layout.bounds.clone(),
        };
        push(Timestamp(at.value), Histogram::Float(histogram), out);
    }
    Ok(())
}

fn push(at: Timestamp, histogram: Histogram, out: &mut Columns) {
    out.histograms.push((out.times.len(), Arc::new(histogram)));
    out.times.push(at);
    out.values.push(0.0);
}

/// The end of a series is the same whatever it held.
fn push_end(at: Timestamp, marker: f64, out: &mut Columns) {
    out.times.push(at);
    out.values.push(marker);
}

#[cfg(test)]
mod tests;
