//! Histograms: with explicit bounds, classic or as native ones with custom buckets; exponential
//! ones as native ones.

use std::sync::Arc;

use stint_model::histogram::{
    BucketSpan, COARSEST_SCHEMA, CUSTOM_BUCKETS_SCHEMA, FINEST_SCHEMA, Histogram, IntegerHistogram,
};
use stint_model::{Exemplar, Value};

use super::points::{Member, Rows, fixed64};
use super::{Outcome, Sink, Warning, exemplars};
use crate::layout::layout;
use crate::proto::{DecodeError, Field, Reader, unzigzag};

/// The zero bucket reaches so far, whatever the sender says, as in Prometheus.
const ZERO_THRESHOLD: f64 = 1e-128;
/// The most buckets of one side of a histogram, which can take eight times the bytes that they are
/// sent in.
const BUCKETS_MAX: usize = 64 << 10;
/// Bucket indexes that a bound fits in: beyond, every float lies on one side.
const INDEX_MAX: i64 = 1 << 30;

/// A `HistogramDataPoint` without what the frame reads.
#[derive(Default)]
struct Explicit {
    count: u64,
    sum: Option<f64>,
    counts: Vec<f64>,
    bounds: Vec<f64>,
    exemplars: Vec<Exemplar>,
}

impl Explicit {
    fn read(message: &[u8]) -> Result<Self, DecodeError> {
        const NAME: &str = "HistogramDataPoint";
        let mut point = Self::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                4 => point.count = fixed64(field, NAME, number)?,
                5 => point.sum = Some(field.double(NAME, number)?),
                // Fixed-size integers and doubles differ only in what their bits mean.
                6 => field.doubles(NAME, number, &mut point.counts)?,
                7 => field.doubles(NAME, number, &mut point.bounds)?,
                8 => exemplars::read(field.bytes(NAME, number)?, &mut point.exemplars)?,
                _ => {}
            }
        }
        point.exemplars.sort_by_key(|exemplar| exemplar.at);
        Ok(point)
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().map(|count| count.to_bits())
    }

    /// Why the point makes no sense, if it makes none.
    fn problem(&self) -> Option<String> {
        if !self.bounds.is_sorted_by(|a, b| a < b) {
            return Some("the bounds of a histogram do not rise".into());
        }
        let expected = self.bounds.len() + 1;
        if !self.counts.is_empty() && self.counts.len() != expected {
            let found = self.counts.len();
            return Some(format!("a histogram has {found} bucket counts, not {expected}"));
        }
        None
    }
}

/// Rows of a `HistogramDataPoint`.
pub(super) fn explicit<S: Sink>(
    message: &[u8],
    name: &str,
    as_native: bool,
    rows: &mut Rows<'_, '_, '_, S>,
) -> Outcome<S> {
    let point = Explicit::read(message)?;
    if let Some(problem) = point.problem() {
        rows.sink.refused(1, &format!("metric {name:?}: {problem}"));
        return Ok(());
    }
    warn(point.count, point.sum, rows);
    if as_native {
        return custom(point, rows);
    }
    let at = rows.point;
    let bucket = |upper| Member { suffix: "_bucket", bound: Some(("le", upper)) };
    if let Some(sum) = point.sum {
        rows.push(Member::suffixed("_sum"), at.float(sum), Vec::new())?;
    }
    rows.push(Member::suffixed("_count"), at.float(point.count as f64), Vec::new())?;
    let mut below = 0_u64;
    let mut open = point.exemplars;
    for (upper, count) in point.bounds.iter().zip(&point.counts) {
        below = below.wrapping_add(count.to_bits());
        // One that every float is below stands at the end anyhow.
        if *upper < f64::INFINITY {
            let own = open.extract_if(.., |exemplar| exemplar.value <= *upper).collect();
            rows.push(bucket(*upper), at.float(below as f64), own)?;
        }
    }
    rows.push(bucket(f64::INFINITY), at.float(point.count as f64), open)
}

fn warn<S: Sink>(count: u64, sum: Option<f64>, rows: &mut Rows<'_, '_, '_, S>) {
    if count == 0 && sum.is_some_and(|sum| sum != 0.0) && !rows.point.is_gone {
        rows.sink.warning(Warning::HistogramZeroCountNonZeroSum);
    }
}

/// A histogram with explicit bounds as a native one.
fn custom<S: Sink>(point: Explicit, rows: &mut Rows<'_, '_, '_, S>) -> Outcome<S> {
    let counts = point.counts().enumerate().map(|(index, count)| (index as i64, count));
    let (positive_spans, positive_deltas) = layout(counts);
    let mut custom_bounds = point.bounds;
    // The last one is understood.
    custom_bounds.pop_if(|last| *last == f64::INFINITY);
    let histogram = IntegerHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: point.count,
        sum: point.sum.unwrap_or_default(),
        positive_spans,
        positive_deltas,
        custom_bounds,
        ..IntegerHistogram::default()
    };
    push(histogram, point.exemplars, rows)
}

fn push<S: Sink>(
    histogram: IntegerHistogram,
    exemplars: Vec<Exemplar>,
    rows: &mut Rows<'_, '_, '_, S>,
) -> Outcome<S> {
    let value = Value::Histogram(Arc::new(Histogram::Integer(histogram)));
    let sample = rows.point.sample(value);
    rows.push(Member::ITSELF, sample, exemplars)
}

/// `Buckets`: the index of the first, and the counts.
#[derive(Default)]
struct Buckets {
    offset: i64,
    counts: Vec<u64>,
}

impl Buckets {
    /// `None` where there are too many of them.
    fn read(message: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut buckets = Self::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => buckets.offset = i64::from(unzigzag(field.varint("Buckets", number)?) as i32),
                2 => {
                    let bytes = if let Field::Bytes(packed) = field { packed.len() } else { 1 };
                    if buckets.counts.len() + bytes > 10 * BUCKETS_MAX {
                        return Ok(None);
                    }
                    field.varints("Buckets", number, |count| buckets.counts.push(count))?;
                }
                _ => {}
            }
        }
        Ok((buckets.counts.len() <= BUCKETS_MAX).then_some(buckets))
    }

    /// Spans and deltas at a resolution that is coarser by `halvings` steps; `None` where a bucket
    /// lies beyond all floats.
    fn layout(&self, halvings: u32) -> Option<(Vec<BucketSpan>, Vec<i64>)> {
        let last = self.offset + self.counts.len() as i64;
        if self.offset < -INDEX_MAX || last > INDEX_MAX {
            return None;
        }
        // In OTLP, index 0 is what lies above 1; in Prometheus index 1 is.
        let indexed = self.counts.iter().enumerate();
        Some(layout(
            indexed.map(|(at, count)| (((self.offset + at as i64) >> halvings) + 1, *count)),
        ))
    }
}

/// Rows of an `ExponentialHistogramDataPoint`.
pub(super) fn exponential<S: Sink>(
    message: &[u8],
    name: &str,
    rows: &mut Rows<'_, '_, '_, S>,
) -> Outcome<S> {
    const NAME: &str = "ExponentialHistogramDataPoint";
    let (mut count, mut sum, mut scale, mut zero_count) = (0, None, 0, 0);
    let (mut positive, mut negative) = (Some(Buckets::default()), Some(Buckets::default()));
    let mut found = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            4 => count = fixed64(field, NAME, number)?,
            5 => sum = Some(field.double(NAME, number)?),
            6 => scale = unzigzag(field.varint(NAME, number)?) as i32,
            7 => zero_count = fixed64(field, NAME, number)?,
            8 => positive = Buckets::read(field.bytes(NAME, number)?)?,
            9 => negative = Buckets::read(field.bytes(NAME, number)?)?,
            11 => exemplars::read(field.bytes(NAME, number)?, &mut found)?,
            _ => {}
        }
    }
    if scale < COARSEST_SCHEMA {
        let reason = format!(
            "metric {name:?}: cannot convert exponential to native histogram. Scale must be >= \
             {COARSEST_SCHEMA}, was {scale}"
        );
        rows.sink.refused(1, &reason);
        return Ok(());
    }
    let halvings = u32::try_from(scale - FINEST_SCHEMA).unwrap_or_default().min(31);
    let (Some(positive), Some(negative)) = (positive, negative) else {
        rows.sink.refused(1, &format!("metric {name:?}: more than {BUCKETS_MAX} buckets"));
        return Ok(());
    };
    let (Some((positive_spans, positive_deltas)), Some((negative_spans, negative_deltas))) =
        (positive.layout(halvings), negative.layout(halvings))
    else {
        rows.sink.refused(1, &format!("metric {name:?}: a bucket lies beyond all numbers"));
        return Ok(());
    };
    warn(count, sum, rows);
    found.sort_by_key(|exemplar: &Exemplar| exemplar.at);
    let histogram = IntegerHistogram {
        schema: scale.min(FINEST_SCHEMA),
        zero_threshold: ZERO_THRESHOLD,
        zero_count,
        count,
        sum: sum.unwrap_or_default(),
        positive_spans,
        negative_spans,
        positive_deltas,
        negative_deltas,
        ..IntegerHistogram::default()
    };
    push(histogram, found, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(spans: &[BucketSpan]) -> Vec<(i32, u32)> {
        spans.iter().map(|span| (span.offset, span.length)).collect()
    }

    #[test]
    fn a_finer_scale_is_folded() {
        let buckets = Buckets { offset: -3, counts: vec![1, 2, 3, 4, 5] };
        let (found, deltas) = buckets.layout(0).unwrap();
        assert_eq!((spans(&found), deltas), (vec![(-2, 5)], vec![1, 1, 1, 1, 1]));
        // Indexes -3 | -2, -1 | 0, 1 of OTLP fall together.
        let (found, deltas) = buckets.layout(1).unwrap();
        assert_eq!((spans(&found), deltas), (vec![(-1, 3)], vec![1, 4, 4]));
        let far = Buckets { offset: i64::from(i32::MAX), counts: vec![1] };
        assert_eq!(far.layout(0), None);
    }
}
