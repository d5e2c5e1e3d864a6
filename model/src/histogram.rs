//! Native histograms: what was received, with integer or float buckets, exponential or custom.
//!
//! Arithmetic happens on [`FloatHistogram`]; integer histograms turn into it without loss of
//! counts below 2^53.

mod arith;
mod bounds;
mod kahan;
mod reset;
mod text;
mod trim;

pub use arith::{Combined, IncompatibleLayout};
pub use bounds::{Bucket, exponential_bound};
pub use kahan::HistogramSum;
pub use text::Short;

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

    /// What is known about resets.
    pub fn reset_hint(&self) -> ResetHint {
        match self {
            Self::Float(histogram) => histogram.reset_hint,
            Self::Integer(histogram) => histogram.reset_hint,
        }
    }
}

impl IntegerHistogram {
    /// The same histogram with float counts.
    pub fn to_float(&self) -> FloatHistogram {
        FloatHistogram {
            reset_hint: self.reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: running_sums(&self.positive_deltas),
            negative_buckets: running_sums(&self.negative_deltas),
            custom_bounds: self.custom_bounds.clone(),
        }
    }
}

fn running_sums(deltas: &[i64]) -> Vec<f64> {
    let mut sum = 0_i64;
    deltas
        .iter()
        .map(|delta| {
            sum = sum.wrapping_add(*delta);
            sum as f64
        })
        .collect()
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
}
