//! Quantiles, fractions and moments of histograms, classic and native.

use stint_model::histogram::{Bucket, FloatHistogram};

use crate::kahan;

/// Differences between buckets below this share of their sum are rounding errors.
const SMALL_DELTA: f64 = 1e-12;

/// A classic bucket: observations up to a bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cumulative {
    pub(crate) bound: f64,
    pub(crate) count: f64,
}

/// How buckets had to be changed to be cumulative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forced {
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) difference: f64,
}

/// There is no bucket for all observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoInfinity;

/// Sorts buckets, merges those of equal bounds and makes the counts rise, if by force, then how.
pub(crate) fn tidy(buckets: &mut Vec<Cumulative>) -> Result<Option<Forced>, NoInfinity> {
    sort(buckets)?;
    make_rise(buckets)
}

/// Sorts buckets and merges those of equal bounds.
pub(crate) fn sort(buckets: &mut Vec<Cumulative>) -> Result<(), NoInfinity> {
    buckets.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return Err(NoInfinity);
    }
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
    Ok(())
}

fn make_rise(buckets: &mut [Cumulative]) -> Result<Option<Forced>, NoInfinity> {
    let mut forced: Option<Forced> = None;
    let mut before = buckets.first().ok_or(NoInfinity)?.count;
    for bucket in buckets.iter_mut().skip(1) {
        if bucket.count == before {
            continue;
        }
        if almost_equal(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            let difference = before - bucket.count;
            let note = forced.get_or_insert(Forced {
                lowest: bucket.bound,
                highest: bucket.bound,
                difference,
            });
            note.highest = bucket.bound;
            note.difference = note.difference.max(difference);
            bucket.count = before;
        } else {
            before = bucket.count;
        }
    }
    Ok(forced)
}

fn almost_equal(a: f64, b: f64) -> bool {
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DELTA * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DELTA
}

/// The φ-quantile of tidy classic buckets.
pub(crate) fn classic_quantile(quantile: f64, buckets: &[Cumulative]) -> f64 {
    if let Some(value) = outside(quantile) {
        return value;
    }
    let [.., second_last, last] = buckets else { return f64::NAN };
    if last.count == 0.0 || last.count.is_nan() {
        return f64::NAN;
    }
    let mut rank = quantile * last.count;
    let lower = buckets.get(..buckets.len() - 1).unwrap_or_default();
    let at = lower.iter().position(|bucket| bucket.count >= rank);
    let Some(at) = at else { return second_last.bound };
    let Some(bucket) = buckets.get(at) else { return f64::NAN };
    let Some(before) = at.checked_sub(1).and_then(|before| buckets.get(before)) else {
        if bucket.bound <= 0.0 {
            return bucket.bound;
        }
        return bucket.bound * (rank / bucket.count);
    };
    rank -= before.count;
    before.bound + (bucket.bound - before.bound) * (rank / (bucket.count - before.count))
}

/// The quantile of values of φ that need no histogram.
fn outside(quantile: f64) -> Option<f64> {
    if quantile.is_nan() {
        Some(f64::NAN)
    } else if quantile < 0.0 {
        Some(f64::NEG_INFINITY)
    } else if quantile > 1.0 {
        Some(f64::INFINITY)
    } else {
        None
    }
}

/// The share of observations between two values in sorted classic buckets, whose counts need not
/// rise.
pub(crate) fn classic_fraction(lower: f64, upper: f64, buckets: &[Cumulative]) -> f64 {
    let total = buckets.last().map_or(0.0, |last| last.count);
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let share = cumulative_rank(upper, total, buckets) - cumulative_rank(lower, total, buckets);
    share / total
}

/// How many observations lie below `value`; never more than `total`.
fn cumulative_rank(value: f64, total: f64, buckets: &[Cumulative]) -> f64 {
    let is_positive = buckets.first().is_some_and(|first| first.bound > 0.0);
    let mut from = if is_positive { 0.0 } else { f64::NEG_INFINITY };
    let mut before = 0.0;
    for bucket in buckets {
        if from >= value {
            return cap(before, total);
        }
        if bucket.bound > value {
            if from == f64::NEG_INFINITY {
                return cap(bucket.count, total);
            }
            let inside = (bucket.count - before) * (value - from) / (bucket.bound - from);
            return cap(before + inside, total);
        }
        (from, before) = (bucket.bound, bucket.count);
    }
    total
}

fn cap(rank: f64, total: f64) -> f64 {
    if rank > total { total } else { rank }
}

/// The share of observations between two values in a native histogram.
pub(crate) fn native_fraction(lower: f64, upper: f64, histogram: &FloatHistogram) -> f64 {
    fraction(lower, upper, &biased(histogram), histogram.count, histogram.is_custom())
}

/// The buckets, the zero bucket one-sided where nothing lies on the other side, and a custom
/// bucket without a lower bound starting at zero where its values are positive.
fn biased(histogram: &FloatHistogram) -> Vec<Bucket> {
    let zero = histogram.biased_zero_bucket();
    let mut buckets = histogram.buckets();
    for bucket in &mut buckets {
        if histogram.is_custom() {
            if bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0 {
                bucket.lower = 0.0;
            }
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            (bucket.lower, bucket.upper) = (zero.lower, zero.upper);
        }
    }
    buckets
}

fn fraction(lower: f64, upper: f64, buckets: &[Bucket], total: f64, linear: bool) -> f64 {
    if total == 0.0 || total.is_nan() || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank = |value| cap(rank(value, buckets, linear), total);
    (rank(upper) - rank(lower)) / total
}

/// How many observations lie below `value`. The caller caps it by the total, which matters where
/// counts are negative, as in differences.
fn rank(value: f64, buckets: &[Bucket], linear: bool) -> f64 {
    let mut rank = 0.0;
    for bucket in buckets {
        if bucket.lower >= value {
            return rank;
        }
        if bucket.upper > value {
            let linear = linear || (bucket.lower <= 0.0 && bucket.upper >= 0.0);
            return rank + bucket.count * share_below(value, bucket, linear);
        }
        rank += bucket.count;
    }
    rank
}

fn share_below(value: f64, bucket: &Bucket, linear: bool) -> f64 {
    if bucket.upper == f64::INFINITY {
        return 0.0;
    }
    if bucket.lower == f64::NEG_INFINITY {
        return 1.0;
    }
    if linear {
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let value_log = value.abs().log2();
    if value > 0.0 {
        (value_log - lower) / (upper - lower)
    } else {
        1.0 - (value_log - upper) / (lower - upper)
    }
}

/// What NaN observations did to a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanEffect {
    /// Nothing.
    None,
    /// There is no result.
    NoResult,
    /// They count as largest, which makes the result higher.
    Skewed,
}

/// The φ-quantile of a native histogram.
pub(crate) fn native_quantile(quantile: f64, histogram: &FloatHistogram) -> (f64, NanEffect) {
    if let Some(value) = outside(quantile) {
        return (value, NanEffect::None);
    }
    if histogram.count == 0.0 || histogram.count.is_nan() {
        return (f64::NAN, NanEffect::None);
    }
    let buckets = biased(histogram);
    // NaN observations are in no bucket, so with them only the way up is possible.
    let forward = histogram.sum.is_nan() || quantile < 0.5;
    let mut rank = if forward { quantile } else { 1.0 - quantile } * histogram.count;
    let mut count = 0.0;
    let mut reached = None;
    let mut visit = |bucket: &Bucket| {
        if bucket.count == 0.0 {
            return false;
        }
        count += bucket.count;
        reached = Some(*bucket);
        count >= rank
    };
    if forward {
        let _: bool = buckets.iter().any(&mut visit);
    } else {
        let _: bool = buckets.iter().rev().any(&mut visit);
    }
    let Some(bucket) = reached else {
        let only_nan = histogram.sum.is_nan();
        return (f64::NAN, if only_nan { NanEffect::NoResult } else { NanEffect::None });
    };
    let in_buckets: f64 = buckets.iter().map(|bucket| bucket.count).sum();
    let has_nan = histogram.sum.is_nan() && in_buckets < histogram.count;
    let effect = if has_nan { NanEffect::Skewed } else { NanEffect::None };
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            return (bucket.upper, effect);
        }
        if bucket.upper == f64::INFINITY && count >= rank {
            return (bucket.lower, effect);
        }
    }
    count = count.min(histogram.count);
    if count < rank {
        if histogram.sum.is_nan() {
            return (f64::NAN, NanEffect::NoResult);
        }
        // The buckets hold less than the count says.
        return (bucket.upper, NanEffect::None);
    }
    if forward {
        rank -= count - bucket.count;
    } else {
        rank = count - rank;
    }
    let share = rank / bucket.count;
    let is_linear = histogram.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0);
    if is_linear {
        return (bucket.lower + (bucket.upper - bucket.lower) * share, effect);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        return ((lower + (upper - lower) * share).exp2(), effect);
    }
    (-(upper + (lower - upper) * (1.0 - share)).exp2(), effect)
}

/// The variance, each bucket's observations taken to lie in its middle.
pub(crate) fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let (mut sum, mut lost) = (0.0, 0.0);
    for bucket in histogram.buckets() {
        if bucket.count == 0.0 {
            continue;
        }
        let middle = if histogram.is_custom() {
            f64::midpoint(bucket.lower, bucket.upper)
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let middle = (bucket.lower * bucket.upper).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        let delta = middle - mean;
        kahan::add(bucket.count * delta * delta, &mut sum, &mut lost);
    }
    (sum + lost) / histogram.count
}

#[cfg(test)]
mod tests {
    use stint_model::histogram::BucketSpan;

    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Cumulative> {
        pairs.iter().map(|(bound, count)| Cumulative { bound: *bound, count: *count }).collect()
    }

    #[test]
    fn classic_quantiles_interpolate() {
        let mut list = buckets(&[(f64::INFINITY, 10.0), (1.0, 5.0), (2.0, 10.0)]);
        assert_eq!(tidy(&mut list), Ok(None));
        assert_eq!(classic_quantile(0.75, &list), 1.5);
        assert_eq!(classic_quantile(0.25, &list), 0.5);
        assert_eq!(classic_fraction(1.0, 2.0, &list), 0.5);
    }

    #[test]
    fn buckets_that_hold_less_than_the_count_end_at_the_last_one() {
        let histogram = FloatHistogram {
            count: 10.0,
            sum: 1.0,
            positive_spans: vec![BucketSpan { offset: 1, length: 1 }],
            positive_buckets: vec![4.0],
            ..FloatHistogram::default()
        };
        assert_eq!(native_quantile(0.45, &histogram), (2.0, NanEffect::None));
    }

    #[test]
    fn falling_buckets_are_forced_up() {
        let mut list = buckets(&[(1.0, 5.0), (2.0, 4.0), (f64::INFINITY, 9.0)]);
        let forced = Forced { lowest: 2.0, highest: 2.0, difference: 1.0 };
        assert_eq!(tidy(&mut list), Ok(Some(forced)));
        assert_eq!(list[1].count, 5.0);
        assert_eq!(tidy(&mut buckets(&[(1.0, 5.0)])), Err(NoInfinity));
    }
}
