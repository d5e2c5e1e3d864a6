//! A bound over what one request becomes when it is decoded.

use stint_model::{Histogram, Row, Sample, Value};

use super::in_flight::{Full, Held};

/// The most memory that one request may take when it is decoded: a small message can stand for very
/// much, since it names each text once.
const DECODED_BYTES_MAX: usize = 128 << 20;
/// The longest labels of one series, which is more than is ever stored.
pub(super) const LABEL_BYTES_MAX: usize = 128 << 10;
/// Room is taken in steps of this, so that the counter that all requests share is left alone.
const STEP_BYTES: usize = 64 << 10;

/// Sending it again would not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request takes more than {DECODED_BYTES_MAX} bytes when it is decoded; send fewer series at \
     once"
)]
pub(super) struct TooLarge;

/// Why a request gets no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MeterError {
    /// It may be sent again.
    #[error(transparent)]
    Full(#[from] Full),
    /// It may not.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Takes room for what is decoded, as it is decoded.
pub(super) struct Meter<'h> {
    held: &'h mut Held,
    /// Counted so far, and for how much of it room was taken.
    counted: usize,
    taken: usize,
}

impl<'h> Meter<'h> {
    pub(super) fn new(held: &'h mut Held) -> Self {
        Self { held, counted: 0, taken: 0 }
    }

    pub(super) fn count(&mut self, bytes: usize) -> Result<(), MeterError> {
        self.counted = self.counted.saturating_add(bytes);
        if self.counted > DECODED_BYTES_MAX {
            return Err(MeterError::TooLarge(TooLarge));
        }
        if self.counted > self.taken {
            let more = (self.counted - self.taken).next_multiple_of(STEP_BYTES);
            self.held.grow(more)?;
            self.taken += more;
        }
        Ok(())
    }

    /// A sample stands in the request and, with its series, in the batch; a histogram in one place.
    pub(super) fn sample(&mut self, sample: &Sample) -> Result<(), MeterError> {
        let histogram = match &sample.value {
            Value::Histogram(histogram) => histogram_bytes(histogram),
            Value::Float(_) | Value::Stale => 0,
        };
        self.count(size_of::<Sample>() + size_of::<Row>() + size_of::<usize>() + histogram)
    }
}

/// The bytes of names and values.
pub(super) fn text_bytes(pairs: &[(&str, &str)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn histogram_bytes(histogram: &Histogram) -> usize {
    let numbers = match histogram {
        Histogram::Integer(h) => {
            h.positive_spans.len()
                + h.negative_spans.len()
                + h.positive_deltas.len()
                + h.negative_deltas.len()
                + h.custom_bounds.len()
        }
        Histogram::Float(h) => {
            h.positive_spans.len()
                + h.negative_spans.len()
                + h.positive_buckets.len()
                + h.negative_buckets.len()
                + h.custom_bounds.len()
        }
    };
    size_of::<Histogram>() + 8 * numbers
}
