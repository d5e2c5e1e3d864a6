//! Adding, subtracting and scaling histograms whose layouts may differ.

use super::bounds::{exponential_bound, flatten, gather};
use super::{FloatHistogram, ResetHint};

/// The layouts of two histograms cannot be brought together: one is exponential, one custom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot combine histograms with exponential and custom buckets")]
pub struct IncompatibleLayout;

/// What happened on the way to a sum or difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One side was reset, the other was not.
    pub hints_conflict: bool,
    /// The custom bounds differed; only the common ones are left.
    pub bounds_reconciled: bool,
}

impl FloatHistogram {
    /// Adds `other`, bucket by bucket, at the lower resolution of the two.
    pub fn add(&mut self, other: &Self) -> Result<Combined, IncompatibleLayout> {
        self.combine(other, |a, b| a + b)
    }

    /// Subtracts `other`, bucket by bucket, at the lower resolution of the two.
    pub fn sub(&mut self, other: &Self) -> Result<Combined, IncompatibleLayout> {
        self.combine(other, |a, b| a - b)
    }

    fn combine(
        &mut self,
        other: &Self,
        op: impl Fn(f64, f64) -> f64,
    ) -> Result<Combined, IncompatibleLayout> {
        if self.is_custom() != other.is_custom() {
            return Err(IncompatibleLayout);
        }
        let hints_conflict = self.merge_hint(other.reset_hint);
        self.count = op(self.count, other.count);
        self.sum = op(self.sum, other.sum);
        if self.same_layout(other) {
            self.zero_count = op(self.zero_count, other.zero_count);
            for (count, add) in self.positive_buckets.iter_mut().zip(&other.positive_buckets) {
                *count = op(*count, *add);
            }
            for (count, add) in self.negative_buckets.iter_mut().zip(&other.negative_buckets) {
                *count = op(*count, *add);
            }
            return Ok(Combined { hints_conflict, bounds_reconciled: false });
        }
        let (other, bounds_reconciled) = self.align(other);
        self.zero_count = op(self.zero_count, other.zero_count);
        self.set_positive(&merge(&self.positive_indexed(), &other.positive_indexed(), &op));
        self.set_negative(&merge(&self.negative_indexed(), &other.negative_indexed(), &op));
        Ok(Combined { hints_conflict, bounds_reconciled })
    }

    /// Whether buckets of the same position mean the same interval in both.
    fn same_layout(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.zero_threshold == other.zero_threshold
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && self.custom_bounds == other.custom_bounds
    }

    /// Brings both to one schema, zero threshold and set of custom bounds; returns the other one,
    /// and whether custom bounds had to give way.
    pub(super) fn align(&mut self, other: &Self) -> (Self, bool) {
        let mut other = other.clone();
        if self.is_custom() {
            if self.custom_bounds == other.custom_bounds {
                return (other, false);
            }
            let common = common_bounds(&self.custom_bounds, &other.custom_bounds);
            self.rebucket(&common);
            other.rebucket(&common);
            return (other, true);
        }
        while self.zero_threshold != other.zero_threshold {
            if self.zero_threshold > other.zero_threshold {
                other.widen_zero(self.zero_threshold);
            } else {
                self.widen_zero(other.zero_threshold);
            }
            if self.zero_threshold.is_nan() || other.zero_threshold.is_nan() {
                break;
            }
        }
        let schema = self.schema.min(other.schema);
        self.reduce_resolution(schema);
        other.reduce_resolution(schema);
        (other, false)
    }

    /// Takes over what both hints agree on; true when they contradict each other.
    pub(super) fn merge_hint(&mut self, other: ResetHint) -> bool {
        let (hint, conflict) = match (self.reset_hint, other) {
            (a, b) if a == b => (a, false),
            (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => (ResetHint::Gauge, false),
            (ResetHint::Unknown, _) | (_, ResetHint::Unknown) => (ResetHint::Unknown, false),
            _ => (ResetHint::Unknown, true),
        };
        self.reset_hint = hint;
        conflict
    }

    pub(super) fn set_positive(&mut self, flat: &[(i32, f64)]) {
        (self.positive_spans, self.positive_buckets) = gather(flat);
    }

    pub(super) fn set_negative(&mut self, flat: &[(i32, f64)]) {
        (self.negative_spans, self.negative_buckets) = gather(flat);
    }

    /// Multiplies all counts and the sum; a negative factor makes it a gauge.
    pub fn scale(&mut self, factor: f64) {
        self.map(|count| count * factor);
        if factor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum; division by zero leaves no buckets.
    pub fn divide(&mut self, divisor: f64) {
        self.map(|count| count / divisor);
        if divisor == 0.0 {
            self.set_positive(&[]);
            self.set_negative(&[]);
        }
        if divisor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    fn map(&mut self, op: impl Fn(f64) -> f64) {
        self.count = op(self.count);
        self.sum = op(self.sum);
        self.zero_count = op(self.zero_count);
        for count in self.positive_buckets.iter_mut().chain(&mut self.negative_buckets) {
            *count = op(*count);
        }
    }

    /// Drops empty buckets.
    pub fn compact(&mut self) {
        if self.positive_buckets.contains(&0.0) || !is_tidy(&self.positive_spans) {
            let kept: Vec<_> =
                self.positive_indexed().into_iter().filter(|(_, count)| *count != 0.0).collect();
            self.set_positive(&kept);
        }
        if self.negative_buckets.contains(&0.0) || !is_tidy(&self.negative_spans) {
            let kept: Vec<_> =
                self.negative_indexed().into_iter().filter(|(_, count)| *count != 0.0).collect();
            self.set_negative(&kept);
        }
    }

    /// The zero count if the zero bucket were widened to `threshold`, and the threshold that is
    /// then really needed so that no populated bucket is cut.
    pub(super) fn zero_count_at(&self, threshold: f64) -> (f64, f64) {
        if threshold == self.zero_threshold {
            return (self.zero_count, threshold);
        }
        let positive = self.positive_indexed();
        let negative = self.negative_indexed();
        let mut threshold = threshold;
        loop {
            let mut zero_count = self.zero_count;
            let mut grown = threshold;
            for (index, count) in &positive {
                let lower = exponential_bound(index.wrapping_sub(1), self.schema);
                let upper = exponential_bound(*index, self.schema);
                if lower >= threshold {
                    break;
                }
                zero_count += count;
                if upper > threshold && *count > 0.0 {
                    grown = grown.max(upper);
                }
            }
            for (index, count) in &negative {
                let lower = exponential_bound(index.wrapping_sub(1), self.schema);
                let upper = exponential_bound(*index, self.schema);
                if lower >= threshold {
                    break;
                }
                zero_count += count;
                if upper > threshold && *count > 0.0 {
                    grown = grown.max(upper);
                }
            }
            // Not `==`: a threshold that is no number would never be equal to anything.
            if grown > threshold {
                threshold = grown;
            } else {
                return (zero_count, threshold);
            }
        }
    }

    /// Widens the zero bucket at least to `threshold`, folding buckets into it.
    fn widen_zero(&mut self, threshold: f64) {
        let (zero_count, threshold) = self.zero_count_at(threshold);
        self.zero_count = zero_count;
        self.zero_threshold = threshold;
        let schema = self.schema;
        let outside =
            |(index, _): &(i32, f64)| exponential_bound(index.wrapping_sub(1), schema) >= threshold;
        let positive: Vec<_> = self.positive_indexed().into_iter().filter(outside).collect();
        let negative: Vec<_> = self.negative_indexed().into_iter().filter(outside).collect();
        self.set_positive(&positive);
        self.set_negative(&negative);
    }

    /// Folds custom buckets into those bounded by `bounds`, a subset of the present bounds.
    pub(super) fn rebucket(&mut self, bounds: &[f64]) {
        let mut folded: Vec<(i32, f64)> = Vec::new();
        for (index, count) in flatten(&self.positive_spans, &self.positive_buckets) {
            let upper = self.upper_bound(index);
            let index = bounds.partition_point(|bound| *bound < upper) as i32;
            match folded.last_mut() {
                Some((last, sum)) if *last == index => *sum += count,
                _ => folded.push((index, count)),
            }
        }
        self.custom_bounds = bounds.to_vec();
        self.set_positive(&folded);
    }

    /// Whether both hold the same numbers, bit by bit, in the same buckets; empty buckets and the
    /// reset hint do not count.
    pub fn same_values(&self, other: &Self) -> bool {
        let bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let all = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        if self.schema != other.schema
            || !bits(self.count, other.count)
            || !bits(self.sum, other.sum)
            || !bits(self.zero_count, other.zero_count)
            || self.zero_threshold != other.zero_threshold
            || !all(&self.custom_bounds, &other.custom_bounds)
        {
            return false;
        }
        let (mut a, mut b) = (self.clone(), other.clone());
        a.compact();
        b.compact();
        a.positive_spans == b.positive_spans
            && a.negative_spans == b.negative_spans
            && all(&a.positive_buckets, &b.positive_buckets)
            && all(&a.negative_buckets, &b.negative_buckets)
    }

    /// Bytes held, roughly; by this the limits of a query count a histogram.
    pub fn size_bytes(&self) -> usize {
        let spans = self.positive_spans.len() + self.negative_spans.len();
        let floats =
            self.positive_buckets.len() + self.negative_buckets.len() + self.custom_bounds.len();
        168 + 8 * (spans + floats)
    }
}

/// No empty spans, and no span that continues the one before.
fn is_tidy(spans: &[super::BucketSpan]) -> bool {
    spans.iter().enumerate().all(|(at, span)| span.length > 0 && (at == 0 || span.offset > 0))
}

/// Bounds that both have; both rise.
pub(super) fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut others = b.iter().copied().peekable();
    let mut is_common = |bound: &f64| {
        while others.next_if(|other| other < bound).is_some() {}
        others.peek() == Some(bound)
    };
    a.iter().copied().filter(|bound| is_common(bound)).collect()
}

/// Combines two rising lists by index; what one side lacks counts as zero.
pub(super) fn merge(
    a: &[(i32, f64)],
    b: &[(i32, f64)],
    op: &impl Fn(f64, f64) -> f64,
) -> Vec<(i32, f64)> {
    let mut merged = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        match (a.peek(), b.peek()) {
            (Some((i, x)), Some((j, y))) if i == j => {
                merged.push((*i, op(*x, *y)));
                a.next();
                b.next();
            }
            (Some((i, x)), other) if other.is_none_or(|(j, _)| i < j) => {
                merged.push((*i, op(*x, 0.0)));
                a.next();
            }
            (_, Some((j, y))) => {
                merged.push((*j, op(0.0, *y)));
                b.next();
            }
            _ => return merged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA};
    use proptest::prelude::*;

    fn exponential(schema: i32, offset: i32, counts: &[f64]) -> FloatHistogram {
        FloatHistogram {
            schema,
            count: counts.iter().sum(),
            positive_spans: vec![BucketSpan { offset, length: counts.len() as u32 }],
            positive_buckets: counts.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn a_zero_threshold_that_is_no_number_ends_every_sum() {
        let wide = |zero_threshold| FloatHistogram {
            zero_threshold,
            zero_count: 1.0,
            count: 3.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 1 }],
            positive_buckets: vec![2.0],
            ..FloatHistogram::default()
        };
        let thresholds = [0.0, 0.001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0];
        for (a, b) in thresholds.iter().flat_map(|a| thresholds.map(|b| (wide(*a), wide(b)))) {
            assert!(a.zero_count_at(b.zero_threshold).0 >= 1.0);
            let mut sum = a.clone();
            sum.add(&b).unwrap();
            assert_eq!(sum.count, 6.0);
            let mut sum = crate::histogram::HistogramSum::new(a.clone());
            sum.add(&b).unwrap();
            assert_eq!(sum.finish().count, 6.0);
            let _ends = a.is_reset_after(&b);
        }
    }

    #[test]
    fn common_bounds_are_those_of_both() {
        assert_eq!(common_bounds(&[1.0, 2.0, 4.0, 8.0], &[0.5, 2.0, 3.0, 8.0, 9.0]), [2.0, 8.0]);
        assert_eq!(common_bounds(&[], &[1.0]), [0.0; 0]);
        let many: Vec<f64> = (0..200_000).map(f64::from).collect();
        let odd: Vec<f64> = (0..200_000).map(|n| f64::from(n) * 2.0 + 1.0).collect();
        assert_eq!(common_bounds(&many, &odd).len(), 100_000, "in time that grows with the lists");
    }

    #[test]
    fn sums_have_the_lower_resolution() {
        let mut sum = exponential(1, 1, &[1.0, 2.0, 3.0]);
        sum.add(&exponential(0, 1, &[10.0])).unwrap();
        assert_eq!(sum.schema, 0);
        assert_eq!(sum.positive_indexed(), [(1, 13.0), (2, 3.0)]);
        assert_eq!(sum.count, 16.0);
    }

    #[test]
    fn a_wider_zero_bucket_swallows_buckets() {
        let mut sum = exponential(0, 0, &[1.0, 2.0, 3.0]);
        let other = FloatHistogram {
            zero_threshold: 1.5,
            zero_count: 7.0,
            count: 7.0,
            ..FloatHistogram::default()
        };
        sum.add(&other).unwrap();
        assert_eq!((sum.zero_threshold, sum.zero_count), (2.0, 10.0));
        assert_eq!(sum.positive_indexed(), [(2, 3.0)]);
    }

    #[test]
    fn custom_bounds_meet_at_the_common_ones() {
        let custom = |bounds: &[f64], counts: &[f64]| FloatHistogram {
            custom_bounds: bounds.to_vec(),
            ..exponential(CUSTOM_BUCKETS_SCHEMA, 0, counts)
        };
        let mut sum = custom(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]);
        let combined = sum.add(&custom(&[1.0, 5.0], &[10.0, 20.0, 30.0])).unwrap();
        assert!(combined.bounds_reconciled);
        assert_eq!(sum.custom_bounds, [1.0, 5.0]);
        assert_eq!(sum.positive_buckets, [11.0, 25.0, 34.0]);
        assert_eq!(sum.add(&exponential(0, 0, &[1.0])), Err(IncompatibleLayout));
    }

    /// Any histogram with whole counts, so that sums are exact in every order.
    fn any_histogram() -> impl Strategy<Value = FloatHistogram> {
        let counts = || proptest::collection::vec(0_u32..50, 0..8);
        let thresholds = prop_oneof![Just(0.0), Just(0.001), Just(0.7), Just(3.0)];
        (counts(), counts(), -6_i32..6, -6_i32..6, -2_i32..5, thresholds, 0_u32..9).prop_map(
            |(positive, negative, at, negative_at, schema, zero_threshold, zero)| {
                let floats = |v: &[u32]| v.iter().map(|n| f64::from(*n)).collect::<Vec<_>>();
                let span = |offset, counts: &[u32]| {
                    let length = counts.len() as u32;
                    if length == 0 { vec![] } else { vec![BucketSpan { offset, length }] }
                };
                let total: u32 = positive.iter().chain(&negative).sum();
                let mut histogram = FloatHistogram {
                    schema,
                    zero_threshold,
                    zero_count: f64::from(zero),
                    count: f64::from(total + zero),
                    sum: f64::from(total),
                    positive_spans: span(at, &positive),
                    positive_buckets: floats(&positive),
                    negative_spans: span(negative_at, &negative),
                    negative_buckets: floats(&negative),
                    ..FloatHistogram::default()
                };
                // No buckets inside the zero bucket.
                histogram.zero_threshold = 0.0;
                histogram.widen_zero(zero_threshold);
                histogram
            },
        )
    }

    fn in_buckets(histogram: &FloatHistogram) -> f64 {
        histogram.zero_count
            + histogram.positive_buckets.iter().sum::<f64>()
            + histogram.negative_buckets.iter().sum::<f64>()
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_the_order(a in any_histogram(), b in any_histogram()) {
            let (mut ab, mut ba) = (a.clone(), b.clone());
            ab.add(&b).unwrap();
            ba.add(&a).unwrap();
            prop_assert!(ab.same_values(&ba), "{} {}", ab, ba);
            prop_assert_eq!(in_buckets(&ab), ab.count);
        }

        #[test]
        fn compensated_sums_of_whole_numbers_are_plain_sums(
            all in proptest::collection::vec(any_histogram(), 1..6)
        ) {
            let mut plain = all[0].clone();
            let mut compensated = crate::histogram::HistogramSum::new(all[0].clone());
            for histogram in &all[1..] {
                plain.add(histogram).unwrap();
                compensated.add(histogram).unwrap();
            }
            let compensated = compensated.finish();
            prop_assert!(compensated.same_values(&plain), "{} {}", compensated, plain);
        }

        #[test]
        fn a_lower_resolution_loses_no_observation(mut a in any_histogram(), by in 0_i32..4) {
            a.reduce_resolution(a.schema - by);
            prop_assert_eq!(in_buckets(&a), a.count);
        }

        #[test]
        fn growing_is_no_reset(a in any_histogram(), b in any_histogram()) {
            let b = FloatHistogram { schema: a.schema, zero_threshold: a.zero_threshold, ..b };
            let mut sum = a.clone();
            sum.add(&b).unwrap();
            prop_assert!(!sum.is_reset_after(&a), "{} after {}", sum, a);
            prop_assert_eq!(a.is_reset_after(&sum), b.count > 0.0, "{} after {}", a, sum);
        }

        #[test]
        fn what_is_cut_off_and_what_remains_are_everything(a in any_histogram(), at in -9.0..9.0_f64) {
            let (mut below, mut above) = (a.clone(), a.clone());
            below.trim_above(at);
            above.trim_below(at);
            prop_assert!((below.count + above.count - a.count).abs() < 1e-9);
        }

        #[test]
        fn adding_and_subtracting_comes_back(
            a in proptest::collection::vec(0_u32..99, 1..9), at_a in -9_i32..9,
            b in proptest::collection::vec(0_u32..99, 1..9), at_b in -9_i32..9,
        ) {
            let floats = |v: &[u32]| v.iter().map(|n| f64::from(*n)).collect::<Vec<_>>();
            let (a, b) = (exponential(2, at_a, &floats(&a)), exponential(2, at_b, &floats(&b)));
            let mut sum = a.clone();
            sum.add(&b).unwrap();
            sum.sub(&b).unwrap();
            prop_assert!(sum.same_values(&a));
        }
    }
}
