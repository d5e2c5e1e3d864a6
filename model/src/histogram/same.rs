//! Whether two histograms hold the same data.

use super::bounds::flatten;
use super::{BucketSpan, FloatHistogram, Histogram, IntegerHistogram};

impl Histogram {
    /// Whether both hold the same numbers, bit by bit, in the same buckets; how the buckets are cut
    /// into spans and the reset hint do not count. Integers are never the same as floats.
    pub fn same_data(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => integers_are_same(a, b),
            (Self::Float(a), Self::Float(b)) => floats_are_same(a, b),
            _ => false,
        }
    }
}

fn integers_are_same(a: &IntegerHistogram, b: &IntegerHistogram) -> bool {
    let head = |h: &IntegerHistogram| {
        (h.schema, h.zero_threshold.to_bits(), h.zero_count, h.count, h.sum.to_bits())
    };
    let equal = |a: i64, b: i64| a == b;
    head(a) == head(b)
        && all_bits(&a.custom_bounds, &b.custom_bounds)
        && buckets_are_same(
            (&a.positive_spans, &a.positive_deltas),
            (&b.positive_spans, &b.positive_deltas),
            equal,
        )
        && buckets_are_same(
            (&a.negative_spans, &a.negative_deltas),
            (&b.negative_spans, &b.negative_deltas),
            equal,
        )
}

fn floats_are_same(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let head = |h: &FloatHistogram| {
        let numbers = [h.zero_threshold, h.zero_count, h.count, h.sum];
        (h.schema, numbers.map(f64::to_bits))
    };
    head(a) == head(b)
        && all_bits(&a.custom_bounds, &b.custom_bounds)
        && buckets_are_same(
            (&a.positive_spans, &a.positive_buckets),
            (&b.positive_spans, &b.positive_buckets),
            same_bits,
        )
        && buckets_are_same(
            (&a.negative_spans, &a.negative_buckets),
            (&b.negative_spans, &b.negative_buckets),
            same_bits,
        )
}

fn same_bits(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

fn all_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_bits(*a, *b))
}

fn buckets_are_same<T: Copy>(
    a: (&[BucketSpan], &[T]),
    b: (&[BucketSpan], &[T]),
    same: impl Fn(T, T) -> bool,
) -> bool {
    let counts = a.1.len() == b.1.len() && a.1.iter().zip(b.1).all(|(a, b)| same(*a, *b));
    let places = |(spans, counts): (&[BucketSpan], &[T])| {
        flatten(spans, counts).into_iter().map(|(index, _)| index).collect::<Vec<_>>()
    };
    counts && (a.0 == b.0 || places(a) == places(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::ResetHint;

    #[test]
    fn numbers_count_by_their_bits_and_buckets_by_their_place() {
        let span = |offset, length| BucketSpan { offset, length };
        let integer = IntegerHistogram {
            sum: f64::NAN,
            positive_spans: vec![span(1, 2)],
            positive_deltas: vec![1, 1],
            ..IntegerHistogram::default()
        };
        let check = |change: &dyn Fn(&mut IntegerHistogram)| {
            let mut other = integer.clone();
            change(&mut other);
            let (a, b) = (Histogram::Integer(integer.clone()), Histogram::Integer(other.clone()));
            let floats = (Histogram::Float(integer.to_float()), Histogram::Float(other.to_float()));
            assert_eq!(a.same_data(&b), floats.0.same_data(&floats.1));
            assert!(!a.same_data(&floats.1), "integers are no floats");
            a.same_data(&b)
        };
        assert!(check(&|_| {}), "NaN is itself");
        assert!(check(&|h| h.reset_hint = ResetHint::Gauge));
        assert!(check(&|h| h.positive_spans = vec![span(0, 0), span(1, 1), span(0, 1)]));
        assert!(!check(&|h| h.positive_spans = vec![span(1, 1), span(1, 1)]));
        assert!(!check(&|h| h.positive_deltas = vec![1, 0]));
        assert!(!check(&|h| h.sum = 0.0));
        assert!(!check(&|h| h.schema = 1));
        assert!(!check(&|h| h.zero_threshold = -0.0));
        assert!(!check(&|h| h.custom_bounds = vec![1.0]));
        let float = |sum| Histogram::Float(FloatHistogram { sum, ..FloatHistogram::default() });
        assert!(!float(0.0).same_data(&float(-0.0)));
    }
}
