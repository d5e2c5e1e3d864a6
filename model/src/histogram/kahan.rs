//! Sums of many histograms with Kahan–Neumaier compensation in every number.

use super::FloatHistogram;
use super::arith::{Combined, IncompatibleLayout, merge};

/// A running sum of histograms, each number of it compensated.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSum {
    sum: FloatHistogram,
    /// Same layout as `sum`; each number is what rounding lost.
    lost: FloatHistogram,
}

impl HistogramSum {
    /// A sum that starts with `first`.
    pub fn new(first: FloatHistogram) -> Self {
        let lost = FloatHistogram {
            schema: first.schema,
            zero_threshold: first.zero_threshold,
            custom_bounds: first.custom_bounds.clone(),
            positive_spans: first.positive_spans.clone(),
            negative_spans: first.negative_spans.clone(),
            positive_buckets: vec![0.0; first.positive_buckets.len()],
            negative_buckets: vec![0.0; first.negative_buckets.len()],
            ..FloatHistogram::default()
        };
        Self { sum: first, lost }
    }

    /// Adds one more.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Combined, IncompatibleLayout> {
        if self.sum.is_custom() != other.is_custom() {
            return Err(IncompatibleLayout);
        }
        let hints_conflict = self.sum.merge_hint(other.reset_hint);
        let (other, bounds_reconciled) = self.sum.align(other);
        // The lost parts follow the layout; aligning a clone of the sum tells nothing new to it.
        self.lost.align(&self.sum);
        kahan(&mut self.sum.count, &mut self.lost.count, other.count);
        kahan(&mut self.sum.sum, &mut self.lost.sum, other.sum);
        kahan(&mut self.sum.zero_count, &mut self.lost.zero_count, other.zero_count);
        let (positive, lost) = add_flat(
            &self.sum.positive_indexed(),
            &self.lost.positive_indexed(),
            &other.positive_indexed(),
        );
        self.sum.set_positive(&positive);
        self.lost.set_positive(&lost);
        let (negative, lost) = add_flat(
            &self.sum.negative_indexed(),
            &self.lost.negative_indexed(),
            &other.negative_indexed(),
        );
        self.sum.set_negative(&negative);
        self.lost.set_negative(&lost);
        Ok(Combined { hints_conflict, bounds_reconciled })
    }

    /// Multiplies the sum so far.
    pub fn scale(&mut self, factor: f64) {
        self.sum.scale(factor);
        self.lost.scale(factor);
    }

    /// Divides the sum so far.
    pub fn divide(&mut self, divisor: f64) {
        self.sum.divide(divisor);
        self.lost.divide(divisor);
    }

    /// The sum without its lost parts.
    pub fn rough(&self) -> &FloatHistogram {
        &self.sum
    }

    /// The sum.
    pub fn finish(mut self) -> FloatHistogram {
        let hint = self.sum.reset_hint;
        self.lost.reset_hint = hint;
        // Both have one layout, so this cannot fail.
        let _: Result<Combined, IncompatibleLayout> = self.sum.add(&self.lost);
        self.sum.reset_hint = hint;
        self.sum
    }
}

fn kahan(sum: &mut f64, lost: &mut f64, add: f64) {
    let total = *sum + add;
    if total.is_infinite() {
        *lost = 0.0;
    } else if sum.abs() >= add.abs() {
        *lost += (*sum - total) + add;
    } else {
        *lost += (add - total) + *sum;
    }
    *sum = total;
}

type Flat = Vec<(i32, f64)>;

fn add_flat(sum: &[(i32, f64)], lost: &[(i32, f64)], add: &[(i32, f64)]) -> (Flat, Flat) {
    // Everything is spread over the union of the indexes first.
    let keep = |a: f64, _: f64| a;
    let mut sum = merge(sum, add, &keep);
    let mut lost = merge(lost, &sum, &keep);
    let add = merge(add, &sum, &keep);
    for (((_, sum), (_, lost)), (_, add)) in sum.iter_mut().zip(&mut lost).zip(&add) {
        kahan(sum, lost, *add);
    }
    (sum, lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::BucketSpan;

    #[test]
    fn what_rounding_loses_comes_back() {
        let one = |count: f64, offset: i32| FloatHistogram {
            count,
            sum: count,
            positive_spans: vec![BucketSpan { offset, length: 1 }],
            positive_buckets: vec![count],
            ..FloatHistogram::default()
        };
        let mut sum = HistogramSum::new(one(1e100, 3));
        sum.add(&one(1.0, 3)).unwrap();
        sum.add(&one(2.0, 5)).unwrap();
        sum.add(&one(-1e100, 3)).unwrap();
        let sum = sum.finish();
        assert_eq!((sum.count, sum.sum), (3.0, 3.0));
        assert_eq!(sum.positive_indexed(), [(3, 1.0), (5, 2.0)]);
    }
}
