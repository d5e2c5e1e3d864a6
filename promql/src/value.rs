//! What a query answers: the four value types and what came along with them.

use std::sync::Arc;

use stint_model::histogram::FloatHistogram;
use stint_model::{Labels, Timestamp};

use crate::annotations::Annotations;

/// A finished query.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The result.
    pub value: QueryValue,
    /// Remarks on the way to the result.
    pub annotations: Annotations,
    /// What it cost.
    pub stats: Stats,
}

/// How much a query looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Samples that took part, counted once per step that looked at them.
    pub samples_total: usize,
    /// Samples that took part, counted once per selector.
    pub samples_read: usize,
    /// The most points held in memory at the same time.
    pub samples_peak: usize,
    /// The same by step of the query, where the engine's options ask for it; else empty. What a
    /// subquery looks at counts for the step of the query that its own step lies in.
    pub steps: Vec<StepStats>,
}

/// How much one step looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepStats {
    /// The time of the step.
    pub at: Timestamp,
    /// Samples that it looked at.
    pub samples_total: usize,
    /// Those of them that no step before looked at.
    pub samples_read: usize,
}

/// The result of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    /// One number.
    Scalar {
        /// The time of evaluation.
        at: Timestamp,
        /// The number.
        value: f64,
    },
    /// One string; only from instant queries of a string literal.
    String {
        /// The time of evaluation.
        at: Timestamp,
        /// The text.
        value: String,
    },
    /// One sample per series, in the order that the query asked for; unordered otherwise.
    Vector(Vec<InstantSample>),
    /// Several samples per series, series in order of labels.
    Matrix(Vec<RangeSeries>),
}

impl QueryValue {
    /// The `resultType` of the HTTP API.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Scalar { .. } => "scalar",
            Self::String { .. } => "string",
            Self::Vector(_) => "vector",
            Self::Matrix(_) => "matrix",
        }
    }
}

/// A float or a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One sample of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct InstantSample {
    /// The series' labels.
    pub labels: Labels,
    /// The time of evaluation, not of the sample.
    pub at: Timestamp,
    /// The value at that time.
    pub value: SampleValue,
}

/// One series of a range vector. Floats and histograms never share a time.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSeries {
    /// The series' labels.
    pub labels: Labels,
    /// The floats, in order of time.
    pub floats: Vec<(Timestamp, f64)>,
    /// The histograms, in order of time.
    pub histograms: Vec<(Timestamp, Arc<FloatHistogram>)>,
}
