//! Samples and their values.

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::time::Timestamp;

/// The bits of the NaN by which Prometheus marks a series as stale (`model/value`, `StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a float, as it appears on the wire and in columns.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the stale marker, bit for bit; other NaNs are ordinary values.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number. Never the stale marker, which is [`Value::Stale`].
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
    /// The series ended here.
    Stale,
}

impl Value {
    /// A float as it came off the wire, where the stale marker is a special NaN.
    pub fn from_wire(value: f64) -> Self {
        if is_stale(value) { Self::Stale } else { Self::Float(value) }
    }
}

/// A value at a point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was measured.
    pub at: Timestamp,
    /// When the counter or histogram started at zero, where the source says so.
    pub started: Option<Timestamp>,
    /// What was measured.
    pub value: Value,
}

impl Sample {
    /// A number at a time.
    pub fn float(at: Timestamp, value: f64) -> Self {
        Self { at, started: None, value: Value::from_wire(value) }
    }

    /// The end of a series.
    pub fn stale(at: Timestamp) -> Self {
        Self { at, started: None, value: Value::Stale }
    }
}
