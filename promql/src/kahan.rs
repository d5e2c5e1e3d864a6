//! Sums and means with Kahan–Neumaier compensation.

use stint_model::histogram::{Combined, FloatHistogram, HistogramSum, IncompatibleLayout};

/// Adds `value` to `sum`, keeping in `lost` what rounding loses.
#[inline]
pub(crate) fn add(value: f64, sum: &mut f64, lost: &mut f64) {
    let total = *sum + value;
    // What rounding loses is known exactly, without a look at which of the two is larger; so there is
    // no branch, and many sums can be added to at once.
    let added = total - *sum;
    let exact = *lost + ((*sum - (total - added)) + (value - added));
    *lost = if total.abs() == f64::INFINITY { 0.0 } else { exact };
    *sum = total;
}

/// A mean that sums up as long as the sum does not overflow, and is updated bit by bit from there
/// on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean {
    /// Values so far, the one being added included.
    pub(crate) count: f64,
    /// The sum, or the mean once `incremental`.
    pub(crate) value: f64,
    /// What rounding lost.
    pub(crate) lost: f64,
    /// Whether the sum had overflown.
    pub(crate) incremental: bool,
}

impl Mean {
    /// Adds a value that `count` already includes, and that is not the first.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        if !self.incremental {
            let (mut sum, mut lost) = (self.value, self.lost);
            add(value, &mut sum, &mut lost);
            if !sum.is_infinite() {
                (self.value, self.lost) = (sum, lost);
                return;
            }
            self.incremental = true;
            self.value /= self.count - 1.0;
            self.lost /= self.count - 1.0;
        }
        if self.value.is_infinite() {
            let same_sign = value.is_infinite() && (self.value > 0.0) == (value > 0.0);
            if same_sign || value.is_finite() {
                return;
            }
        }
        let share = (self.count - 1.0) / self.count;
        let (mut mean, mut lost) = (share * self.value, share * self.lost);
        add(value / self.count, &mut mean, &mut lost);
        (self.value, self.lost) = (mean, lost);
    }

    /// The mean.
    pub(crate) fn finish(self) -> f64 {
        if self.incremental {
            self.value + self.lost
        } else {
            self.value / self.count + self.lost / self.count
        }
    }
}

/// A sum or a mean of histograms. A mean sums up as long as no sum overflows.
#[derive(Clone, Debug)]
pub(crate) struct HistogramMean {
    sum: HistogramSum,
    count: f64,
    incremental: bool,
    is_mean: bool,
}

impl HistogramMean {
    /// The sum, or the mean, that starts with `first`.
    pub(crate) fn new(first: &FloatHistogram, is_mean: bool) -> Self {
        let sum = HistogramSum::new(first.clone());
        Self { sum, count: 1.0, incremental: false, is_mean }
    }

    /// Adds one more.
    pub(crate) fn add(
        &mut self,
        histogram: &FloatHistogram,
    ) -> Result<Combined, IncompatibleLayout> {
        self.count += 1.0;
        if !self.is_mean {
            return self.sum.add(histogram);
        }
        if !self.incremental {
            let mut tried = self.sum.clone();
            let combined = tried.add(histogram)?;
            if !has_overflown(tried.rough()) {
                self.sum = tried;
                return Ok(combined);
            }
            self.incremental = true;
            self.sum.divide(self.count - 1.0);
        }
        let mut part = histogram.clone();
        part.divide(self.count);
        self.sum.scale((self.count - 1.0) / self.count);
        self.sum.add(&part)
    }

    /// The result.
    pub(crate) fn finish(&self) -> FloatHistogram {
        let mut result = self.sum.clone().finish();
        if self.is_mean && !self.incremental {
            result.divide(self.count);
        }
        result.compact();
        result
    }
}

fn has_overflown(histogram: &FloatHistogram) -> bool {
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    [histogram.zero_count, histogram.count, histogram.sum]
        .iter()
        .chain(buckets)
        .any(|number| number.is_infinite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_survive_large_ones() {
        let (mut sum, mut lost) = (1.0, 0.0);
        for value in [1e100, 1.0, -1e100] {
            add(value, &mut sum, &mut lost);
        }
        assert_eq!(sum + lost, 2.0);
    }

    proptest::proptest! {
        #[test]
        fn losses_are_those_of_neumaiers_sum(values in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::num::f64::ANY,
                -1e3_f64..1e3,
                proptest::prelude::Just(f64::MAX),
                proptest::prelude::Just(-0.0),
            ],
            0..8,
        )) {
            let (mut sum, mut lost) = (0.0, 0.0);
            let (mut expected_sum, mut expected_lost) = (0.0_f64, 0.0);
            for value in values {
                add(value, &mut sum, &mut lost);
                let total = expected_sum + value;
                expected_lost = if total.is_infinite() {
                    0.0
                } else if expected_sum.abs() >= value.abs() {
                    expected_lost + ((expected_sum - total) + value)
                } else {
                    expected_lost + ((value - total) + expected_sum)
                };
                expected_sum = total;
                let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                proptest::prop_assert!(same(sum, expected_sum) && same(lost, expected_lost));
            }
        }
    }

    #[test]
    fn a_mean_of_huge_values_does_not_overflow() {
        let mut mean = Mean { count: 1.0, value: f64::MAX, lost: 0.0, incremental: false };
        mean.count = 2.0;
        mean.add(f64::MAX);
        assert!(mean.incremental);
        assert_eq!(mean.finish(), f64::MAX);
    }
}
