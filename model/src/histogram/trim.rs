//! Cutting a histogram at a value, interpolating inside the bucket that is cut.

use super::{Bucket, FloatHistogram};

/// Which side of the cut remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Below,
    Above,
}

/// How observations spread inside a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    Linear,
    Exponential,
}

impl FloatHistogram {
    /// Keeps the observations up to `limit`. Count and sum are estimated from the buckets when
    /// something was cut.
    pub fn trim_above(&mut self, limit: f64) {
        self.trim(limit, Keep::Below);
    }

    /// Keeps the observations from `limit` on. Count and sum are estimated from the buckets when
    /// something was cut.
    pub fn trim_below(&mut self, limit: f64) {
        self.trim(limit, Keep::Above);
    }

    /// The zero bucket; one-sided when there are only positive or only negative buckets.
    pub fn biased_zero_bucket(&self) -> Bucket {
        let mut bucket = Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        };
        match (self.negative_buckets.is_empty(), self.positive_buckets.is_empty()) {
            (true, false) => bucket.lower = 0.0,
            (false, true) => bucket.upper = 0.0,
            _ => {}
        }
        bucket
    }

    fn trim(&mut self, limit: f64, keep: Keep) {
        let spread = if self.is_custom() { Spread::Linear } else { Spread::Exponential };
        let mut cut = Cut { limit, keep, count: 0.0, sum: 0.0, touched: false };
        let mut negative = self.negative_indexed();
        for (index, count) in negative.iter_mut().rev() {
            let mirrored = self.positive_bucket(*index, *count);
            *count = cut.apply(-mirrored.upper, -mirrored.lower, *count, spread);
        }
        let zero = self.biased_zero_bucket();
        let zero_count = cut.apply(zero.lower, zero.upper, zero.count, Spread::Linear);
        let mut positive = self.positive_indexed();
        for (index, count) in &mut positive {
            let bucket = self.positive_bucket(*index, *count);
            // Without a lower bound, a bucket of positive values is taken to start at zero, unless
            // that would keep what may lie below the limit.
            let may_lie_below = keep == Keep::Above && limit < 0.0;
            let lower = if !may_lie_below
                && bucket.lower == f64::NEG_INFINITY
                && bucket.upper > 0.0
                && bucket.upper.is_finite()
            {
                0.0
            } else {
                bucket.lower
            };
            *count = cut.apply(lower, bucket.upper, *count, spread);
        }
        if cut.touched {
            self.count = cut.count;
            self.sum = cut.sum;
            self.zero_count = zero_count;
            self.set_negative(&negative);
            self.set_positive(&positive);
            self.compact();
        }
    }
}

/// A cut in progress, with the estimates of what remains.
struct Cut {
    limit: f64,
    keep: Keep,
    count: f64,
    sum: f64,
    touched: bool,
}

impl Cut {
    /// How many of the `count` observations between the bounds remain.
    fn apply(&mut self, lower: f64, upper: f64, count: f64, spread: Spread) -> f64 {
        if count == 0.0 {
            return 0.0;
        }
        let limit = self.limit;
        let (share, from, to) = match self.keep {
            Keep::Below if upper <= limit => (1.0, lower, upper),
            Keep::Above if lower >= limit => (1.0, lower, upper),
            Keep::Below if lower < limit && upper.is_finite() => {
                (share_below(lower, upper, limit, spread), lower, limit)
            }
            Keep::Above if upper > limit && lower.is_finite() => {
                (1.0 - share_below(lower, upper, limit, spread), limit, upper)
            }
            _ => (0.0, 0.0, 0.0),
        };
        let kept = count * share;
        if kept != count {
            self.touched = true;
        }
        if kept != 0.0 {
            self.count += kept;
            self.sum += kept * middle(from, to, spread);
        }
        kept
    }
}

/// The share of a bucket's observations up to `limit`, which lies inside. All of those above
/// a lower bound of -Inf, none of those below an upper bound of +Inf.
fn share_below(lower: f64, upper: f64, limit: f64, spread: Spread) -> f64 {
    if lower == f64::NEG_INFINITY {
        return 1.0;
    }
    if upper == f64::INFINITY {
        return 0.0;
    }
    match spread {
        Spread::Linear => (limit - lower) / (upper - lower),
        Spread::Exponential if lower < 0.0 => 1.0 - log_share(-upper, -lower, -limit),
        Spread::Exponential => log_share(lower, upper, limit),
    }
}

fn log_share(lower: f64, upper: f64, value: f64) -> f64 {
    (value.log2() - lower.log2()) / (upper.log2() - lower.log2())
}

/// The value that stands for the observations between two bounds.
fn middle(lower: f64, upper: f64, spread: Spread) -> f64 {
    if lower == f64::NEG_INFINITY {
        return upper;
    }
    if upper == f64::INFINITY {
        return lower;
    }
    match spread {
        Spread::Linear => f64::midpoint(lower, upper),
        Spread::Exponential if lower < 0.0 => -(lower * upper).sqrt(),
        Spread::Exponential => (lower * upper).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA};

    fn custom() -> FloatHistogram {
        FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 15.0,
            sum: 172.5,
            custom_bounds: vec![5.0, 10.0, 15.0, 20.0],
            positive_spans: vec![BucketSpan { offset: 0, length: 5 }],
            positive_buckets: vec![1.0, 6.0, 4.0, 3.0, 1.0],
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn cuts_inside_a_bucket_interpolate() {
        let mut below = custom();
        below.trim_above(13.0);
        assert!((below.count - 9.4).abs() < 1e-9 && (below.sum - 75.1).abs() < 1e-9);
        let mut above = custom();
        above.trim_below(13.0);
        assert!((above.count - 5.6).abs() < 1e-9 && (above.sum - 94.9).abs() < 1e-9);
    }

    #[test]
    fn nothing_cut_leaves_everything() {
        let mut all = custom();
        all.trim_below(0.0);
        all.trim_above(f64::INFINITY);
        assert_eq!(all, custom());
        all.trim_above(0.0);
        assert_eq!((all.count, all.sum), (0.0, 0.0));
    }
}
