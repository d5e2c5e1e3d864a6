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
/// The most memory that their sums take, of which histograms may have very much.
const BYTES_MAX: usize = 128 << 20;
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
    #[error(
        "the sums of series with delta temporality take more than {BYTES_MAX} bytes; send cumulative \
         ones"
    )]
    TooLarge,
}

/// All series that are summed up.
#[derive(Default)]
pub(super) struct Streams {
    sums: HashMap<LabelKey, Stream>,
    swept: Timestamp,
    /// What all of them take.
    bytes: usize,
}

/// Sums that are not committed yet.
#[derive(Default)]
pub(super) struct Sums {
    new: HashMap<LabelKey, Stream>,
    bytes: usize,
}

impl Stream {
    fn bytes(&self) -> usize {
        let sum = match &self.sum {
            Sum::Float(_) => 0,
            Sum::Histogram(histogram) => histogram_bytes(histogram),
        };
        size_of::<(LabelKey, Self)>() + sum
    }
}

fn histogram_bytes(histogram: &FloatHistogram) -> usize {
    let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    size_of::<FloatHistogram>() + 8 * (buckets + spans + histogram.custom_bounds.len())
}

impl Sums {
    /// Replaces a difference in `row` by the sum so far; leaves other rows alone.
    pub(super) fn add(&mut self, streams: &Streams, row: &mut Pending) -> Result<(), DeltaError> {
        if !row.is_delta {
            return Ok(());
        }
        let at = row.sample.at;
        let before = self.new.get(&row.key).or_else(|| streams.sums.get(&row.key));
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
        if before.is_none() && streams.sums.len() + self.new.len() >= STREAMS_MAX {
            return Err(DeltaError::TooMany);
        }
        let started = before.map(|before| before.started).or(row.sample.started).unwrap_or(at);
        let stream = Stream { started, last: at, sum, touched: at };
        // Those that it replaces are let go only when it is committed.
        let bytes = self.bytes + stream.bytes();
        if streams.bytes + bytes > BYTES_MAX {
            return Err(DeltaError::TooLarge);
        }
        row.sample.started = Some(started);
        row.sample.value = match &stream.sum {
            Sum::Float(sum) => Value::from_wire(*sum),
            Sum::Histogram(sum) => {
                Value::Histogram(Arc::new(Histogram::Float(FloatHistogram::clone(sum))))
            }
        };
        self.bytes = bytes;
        self.new.insert(row.key, stream);
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
        for (key, mut stream) in sums.new {
            stream.touched = now;
            self.bytes += stream.bytes();
            if let Some(old) = self.sums.insert(key, stream) {
                self.bytes = self.bytes.saturating_sub(old.bytes());
            }
        }
        if now.0.saturating_sub(self.swept.0) >= SWEPT_EVERY.0 {
            self.sums
                .retain(|_, stream| now.0.saturating_sub(stream.touched.0) < FORGOTTEN_AFTER.0);
            self.bytes = self.sums.values().map(Stream::bytes).sum();
            self.swept = now;
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::cache::RefCache;
    use stint_model::{Sample, SeriesKey, SeriesRef};

    /// A difference of series `number` whose histogram has so many buckets.
    fn delta(cache: &RefCache, number: u64, at: i64, buckets: usize) -> Pending {
        let histogram =
            FloatHistogram { positive_buckets: vec![1.0; buckets], ..FloatHistogram::default() };
        let value = Value::Histogram(Arc::new(Histogram::Float(histogram)));
        Pending {
            key: cache.key_of_bytes(&number.to_le_bytes()),
            identity: None,
            series: SeriesKey::Known(SeriesRef(number)),
            sample: Sample { at: Timestamp(at), started: None, value },
            exemplars: Vec::new(),
            point: None,
            is_delta: true,
        }
    }

    #[test]
    fn sums_take_a_bounded_amount_of_memory_and_give_it_back() {
        let cache = RefCache::new(16);
        let mut streams = Streams::default();
        let large = BYTES_MAX / 8 / 4;
        let mut send = |number, at, now| {
            let mut sums = Sums::default();
            let outcome = sums.add(&streams, &mut delta(&cache, number, at, large));
            streams.commit(sums, Timestamp(now));
            (outcome, streams.bytes)
        };
        for number in 0..3 {
            assert_eq!(send(number, 1, 1).0, Ok(()));
        }
        let (outcome, bytes) = send(3, 1, 1);
        assert_eq!(outcome, Err(DeltaError::TooLarge));
        assert!(bytes > 24 * large && bytes < BYTES_MAX, "{bytes}");
        // All are forgotten some time.
        assert_eq!(send(9, 2, FORGOTTEN_AFTER.0 + 2).0, Err(DeltaError::TooLarge));
        let (outcome, bytes) = send(3, 2, FORGOTTEN_AFTER.0 + 3);
        assert_eq!(outcome, Ok(()));
        assert!(bytes < 9 * large, "{bytes}");
    }
}
