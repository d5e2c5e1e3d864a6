//! Whether a native histogram agrees with itself.

use stint_model::Histogram;
use stint_model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, IntegerHistogram};

/// Checks what readers rely on: as many buckets as the spans say, no negative counts, a total
/// that covers the buckets, custom bounds exactly where the schema has them.
pub(super) fn is_valid(histogram: &Histogram) -> bool {
    match histogram {
        Histogram::Integer(histogram) => integer_is_valid(histogram),
        Histogram::Float(histogram) => float_is_valid(histogram),
    }
}

fn integer_is_valid(h: &IntegerHistogram) -> bool {
    let sum = |deltas: &[i64]| -> Option<u64> {
        let (mut count, mut total) = (0_i64, 0_u64);
        for delta in deltas {
            count = count.checked_add(*delta)?;
            total = total.checked_add(u64::try_from(count).ok()?)?;
        }
        Some(total)
    };
    let total = sum(&h.positive_deltas)
        .zip(sum(&h.negative_deltas))
        .and_then(|(a, b)| a.checked_add(b)?.checked_add(h.zero_count));
    // NaN observations are counted and lie in no bucket.
    let covered = total.is_some_and(|t| if h.sum.is_nan() { t <= h.count } else { t == h.count });
    covered
        && layout_is_valid(
            h.schema,
            (&h.positive_spans, h.positive_deltas.len()),
            (&h.negative_spans, h.negative_deltas.len()),
            &h.custom_bounds,
        )
}

fn float_is_valid(h: &FloatHistogram) -> bool {
    let buckets = h.positive_buckets.iter().chain(&h.negative_buckets);
    let counts = [h.zero_count, h.count];
    buckets.chain(&counts).all(|count| *count >= 0.0 || count.is_nan())
        && layout_is_valid(
            h.schema,
            (&h.positive_spans, h.positive_buckets.len()),
            (&h.negative_spans, h.negative_buckets.len()),
            &h.custom_bounds,
        )
}

fn layout_is_valid(
    schema: i32,
    positive: (&[BucketSpan], usize),
    negative: (&[BucketSpan], usize),
    bounds: &[f64],
) -> bool {
    let spans_fit = |(spans, buckets): (&[BucketSpan], usize)| {
        let length: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
        length == buckets as u64 && spans.iter().skip(1).all(|span| span.offset >= 0)
    };
    if !spans_fit(positive) || !spans_fit(negative) {
        return false;
    }
    if schema == CUSTOM_BUCKETS_SCHEMA {
        let last: i64 =
            positive.0.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
        let rising = bounds.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        return negative.0.is_empty()
            && positive.0.first().is_none_or(|span| span.offset >= 0)
            && last <= bounds.len() as i64 + 1
            && rising;
    }
    (-4..=8).contains(&schema) && bounds.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_found() {
        let good = IntegerHistogram {
            count: 3,
            zero_count: 1,
            positive_spans: vec![BucketSpan { offset: -2, length: 2 }],
            positive_deltas: vec![1, 0],
            ..IntegerHistogram::default()
        };
        let check = |change: &dyn Fn(&mut IntegerHistogram)| {
            let mut histogram = good.clone();
            change(&mut histogram);
            is_valid(&Histogram::Integer(histogram))
        };
        assert!(check(&|_| {}));
        assert!(check(&|h| (h.sum, h.count) = (f64::NAN, 9)));
        assert!(!check(&|h| h.count = 4));
        assert!(!check(&|h| h.positive_deltas = vec![1, -2]));
        assert!(!check(&|h| h.positive_deltas = vec![i64::MAX, 1]));
        assert!(!check(&|h| h.positive_spans.clear()));
        assert!(!check(&|h| h.schema = 9));
        assert!(!check(&|h| h.custom_bounds = vec![1.0]));
        let float = Histogram::Integer(good).to_float();
        assert!(is_valid(&Histogram::Float(float.clone())));
        assert!(!is_valid(&Histogram::Float(FloatHistogram { count: -1.0, ..float })));
    }
}
