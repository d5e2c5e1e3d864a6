//! Native histograms: what was received, with integer or float buckets, exponential or custom.
//!
//! Arithmetic happens on [`FloatHistogram`]; integer histograms turn into it without loss of
//! counts below 2^53.

mod arith;
mod bounds;
mod kahan;
mod reduce;
mod reset;
mod same;
mod text;
mod trim;

pub use arith::{Combined, IncompatibleLayout};
pub use bounds::{Bucket, exponential_bound};
pub use kahan::HistogramSum;
pub use text::Short;

/// Schema number of the highest resolution that is stored; finer ones are reduced to it.
pub const FINEST_SCHEMA: i32 = 8;

/// Schema number of the lowest resolution that there is.
pub const COARSEST_SCHEMA: i32 = -4;

/// Schema number of histograms with custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A run of populated buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketSpan {
    /// Empty buckets before this run: from index 0 for the first span, else from the end of the
    /// span before.
    pub offset: i32,
    /// Buckets in this run.
    pub length: u32,
}

/// What the source says about counter resets between this histogram and the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResetHint {
    /// Compare with the one before.
    #[default]
    Unknown,
    /// The counter was reset.
    Reset,
    /// The counter was not reset.
    NotReset,
    /// Not a counter.
    Gauge,
}

/// A native histogram as received and stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Histogram {
    /// Bucket counts are integers.
    Integer(IntegerHistogram),
    /// Bucket counts are floats.
    Float(FloatHistogram),
}

/// A histogram whose counts are integers, with delta-coded buckets as on the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IntegerHistogram {
    /// What is known about resets.
    pub reset_hint: ResetHint,
    /// Resolution, -4 to 8, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Half width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations, NaN ones included.
    pub count: u64,
    /// Sum of all observations.
    pub sum: f64,
    /// Where the populated positive (or custom) buckets lie.
    pub positive_spans: Vec<BucketSpan>,
    /// Where the populated negative buckets lie.
    pub negative_spans: Vec<BucketSpan>,
    /// Counts of positive buckets, each as difference from the one before.
    pub positive_deltas: Vec<i64>,
    /// Counts of negative buckets, each as difference from the one before.
    pub negative_deltas: Vec<i64>,
    /// Upper bounds of custom buckets, rising, without +Inf; empty for exponential schemas.
    pub custom_bounds: Vec<f64>,
}

/// A histogram whose counts are floats; what `PromQL` computes with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatHistogram {
    /// What is known about resets.
    pub reset_hint: ResetHint,
    /// Resolution, -4 to 8, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Half width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations, NaN ones included.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Where the populated positive (or custom) buckets lie.
    pub positive_spans: Vec<BucketSpan>,
    /// Where the populated negative buckets lie.
    pub negative_spans: Vec<BucketSpan>,
    /// Counts of positive buckets.
    pub positive_buckets: Vec<f64>,
    /// Counts of negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, rising, without +Inf; empty for exponential schemas.
    pub custom_bounds: Vec<f64>,
}

impl Histogram {
    /// The same histogram with float counts.
    pub fn to_float(&self) -> FloatHistogram {
        match self {
            Self::Float(histogram) => histogram.clone(),
            Self::Integer(histogram) => histogram.to_float(),
        }
    }

    /// Its schema.
    pub fn schema(&self) -> i32 {
        match self {
            Self::Float(histogram) => histogram.schema,
            Self::Integer(histogram) => histogram.schema,
        }
    }

    /// How many buckets are stored, empty ones included.
    pub fn buckets_len(&self) -> usize {
        match self {
            Self::Float(histogram) => {
                histogram.positive_buckets.len() + histogram.negative_buckets.len()
            }
            Self::Integer(histogram) => {
                histogram.positive_deltas.len() + histogram.negative_deltas.len()
            }
        }
    }

    /// Says what is known about resets.
    pub fn set_reset_hint(&mut self, hint: ResetHint) {
        match self {
            Self::Float(histogram) => histogram.reset_hint = hint,
            Self::Integer(histogram) => histogram.reset_hint = hint,
        }
    }

    /// What is known about resets.
    pub fn reset_hint(&self) -> ResetHint {
        match self {
            Self::Float(histogram) => histogram.reset_hint,
            Self::Integer(histogram) => histogram.reset_hint,
        }
    }
}

impl FloatHistogram {
    /// Custom buckets as those of a classic histogram: upper bounds and how many observations lie at
    /// or below each. What lies above the last bound is in `count` only. `None` for exponential
    /// buckets, which have no such form.
    pub fn classic_buckets(&self) -> Option<impl Iterator<Item = (f64, f64)>> {
        if self.schema != CUSTOM_BUCKETS_SCHEMA {
            return None;
        }
        let mut counts = vec![0.0; self.custom_bounds.len()];
        let mut index = 0_i64;
        let mut buckets = self.positive_buckets.iter();
        for span in &self.positive_spans {
            index += i64::from(span.offset);
            for count in buckets.by_ref().take(span.length as usize) {
                let at = usize::try_from(index).ok();
                if let Some(own) = at.and_then(|at| counts.get_mut(at)) {
                    *own = *count;
                }
                index += 1;
            }
        }
        let mut below = 0.0;
        let bounds = self.custom_bounds.iter().copied();
        Some(bounds.zip(counts).map(move |(bound, count)| {
            below += count;
            (bound, below)
        }))
    }
}

impl IntegerHistogram {
    /// The same histogram with float counts.
    pub fn to_float(&self) -> FloatHistogram {
        let floats = |deltas| from_deltas(deltas).into_iter().map(|count| count as f64).collect();
        FloatHistogram {
            reset_hint: self.reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: floats(&self.positive_deltas),
            negative_buckets: floats(&self.negative_deltas),
            custom_bounds: self.custom_bounds.clone(),
        }
    }
}

/// Counts of buckets from their differences.
fn from_deltas(deltas: &[i64]) -> Vec<i64> {
    let mut sum = 0_i64;
    deltas
        .iter()
        .map(|delta| {
            sum = sum.wrapping_add(*delta);
            sum
        })
        .collect()
}

/// The inverse of [`from_deltas`].
fn to_deltas(counts: &[i64]) -> Vec<i64> {
    let before = std::iter::once(&0).chain(counts);
    counts.iter().zip(before).map(|(count, before)| count.wrapping_sub(*before)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_become_counts() {
        let histogram = IntegerHistogram {
            positive_spans: vec![BucketSpan { offset: 0, length: 3 }],
            positive_deltas: vec![1, 2, -3],
            count: 4,
            ..IntegerHistogram::default()
        };
        assert_eq!(histogram.to_float().positive_buckets, [1.0, 3.0, 0.0]);
    }

    #[test]
    fn custom_buckets_add_up_to_classic_ones() {
        let histogram = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_bounds: vec![-1.0, 0.5, 2.0, 8.0],
            positive_spans: vec![
                BucketSpan { offset: 1, length: 1 },
                BucketSpan { offset: 1, length: 2 },
            ],
            positive_buckets: vec![3.0, 4.0, 5.0],
            count: 12.0,
            ..FloatHistogram::default()
        };
        let buckets: Vec<_> = histogram.classic_buckets().unwrap().collect();
        assert_eq!(buckets, [(-1.0, 0.0), (0.5, 3.0), (2.0, 3.0), (8.0, 7.0)]);
        assert!(FloatHistogram::default().classic_buckets().is_none());
    }
}
