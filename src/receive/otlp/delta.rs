//! Differences become sums: a sender that tells only what came since its last report is summed up
//! here, since queries expect counters that grow.
//!
//! Sums live in memory. A restart begins them anew, which is a counter reset like that of the
//! sender's own restart, and nothing of a rate is lost but what fell between. Sums are committed
//! only once they are stored, so that a request that failed may be sent again.

use std::collections::HashMap;
use std::sync::Arc;

use stint_model::histogram::{FloatHistogram, Histogram, ResetHint};
use stint_model::{Span, Timestamp, Value};

use super::gather::Pending;
use crate::receive::cache::LabelKey;

/// The most series that are summed up.
const STREAMS_MAX: usize = 200_000;
/// One that got nothing for so long is forgotten.
const FORGOTTEN_AFTER: Span = Span(15 * 60_000);
/// How often such are looked for.
const SWEPT_EVERY: Span = Span(60_000);

/// What became of a series so far.
#[derive(Clone, Debug)]
struct Stream {
    started: Timestamp,
    last: Timestamp,
    sum: Sum,
    /// By the clock of this machine.
    touched: Timestamp,
}

#[derive(Clone, Debug)]
enum Sum {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// Why a difference cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeltaError {
    #[error("a delta at {at} is not after the one before at {last}")]
    OutOfOrder { at: Timestamp, last: Timestamp },
    #[error("more than {STREAMS_MAX} series with delta temporality; send cumulative ones")]
    TooMany,
}

/// All series that are summed up.
#[derive(Default)]
pub(super) struct Streams {
    streams: HashMap<LabelKey, Stream>,
    swept: Timestamp,
}

/// Sums that are not committed yet.
#[derive(Default)]
pub(super) struct Sums(HashMap<LabelKey, Stream>);

impl Sums {
    /// Replaces a difference in `row` by the sum so far; leaves other rows alone.
    pub(super) fn add(&mut self, streams: &Streams, row: &mut Pending) -> Result<(), DeltaError> {
        if !row.is_delta {
            return Ok(());
        }
        let at = row.sample.at;
        let before = self.0.get(&row.key).or_else(|| streams.streams.get(&row.key));
        if let Some(before) = before.filter(|before| before.last >= at) {
            return Err(DeltaError::OutOfOrder { at, last: before.last });
        }
        let sum = match (&row.sample.value, before.map(|before| &before.sum)) {
            // The end of a series has no amount; what follows goes on from there.
            (Value::Stale, _) => return Ok(()),
            (Value::Float(amount), Some(Sum::Float(so_far))) => Sum::Float(so_far + amount),
            (Value::Float(amount), _) => Sum::Float(*amount),
            (Value::Histogram(amount), so_far) => Sum::Histogram(grown(amount, so_far)),
        };
        if before.is_none() && streams.streams.len() + self.0.len() >= STREAMS_MAX {
            return Err(DeltaError::TooMany);
        }
        let started = before.map(|before| before.started).or(row.sample.started).unwrap_or(at);
        row.sample.started = Some(started);
        row.sample.value = match &sum {
            Sum::Float(sum) => Value::from_wire(*sum),
            Sum::Histogram(sum) => {
                Value::Histogram(Arc::new(Histogram::Float(FloatHistogram::clone(sum))))
            }
        };
        self.0.insert(row.key, Stream { started, last: at, sum, touched: at });
        Ok(())
    }
}

/// The sum with an amount more; anew where the two cannot be added.
fn grown(amount: &Histogram, so_far: Option<&Sum>) -> Arc<FloatHistogram> {
    let mut amount = amount.to_float();
    amount.reset_hint = ResetHint::Unknown;
    if let Some(Sum::Histogram(so_far)) = so_far {
        let mut sum = FloatHistogram::clone(so_far);
        if sum.add(&amount).is_ok() {
            sum.reset_hint = ResetHint::Unknown;
            return Arc::new(sum);
        }
    }
    Arc::new(amount)
}

impl Streams {
    /// Takes sums that are stored, and forgets what got nothing for long.
    pub(super) fn commit(&mut self, sums: Sums, now: Timestamp) {
        for (key, mut stream) in sums.0 {
            stream.touched = now;
            self.streams.insert(key, stream);
        }
        if now.0.saturating_sub(self.swept.0) >= SWEPT_EVERY.0 {
            self.streams
                .retain(|_, stream| now.0.saturating_sub(stream.touched.0) < FORGOTTEN_AFTER.0);
            self.swept = now;
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}
