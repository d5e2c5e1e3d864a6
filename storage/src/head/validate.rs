//! Whether a native histogram agrees with itself, and what of it is stored.

use std::sync::Arc;

use crate::codec::histogram::PARTS_STORED_MAX;
use stint_model::Histogram;
use stint_model::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, FINEST_SCHEMA, FloatHistogram, IntegerHistogram, ResetHint,
};

/// The finest schema that is taken, to be reduced.
const FINEST_TAKEN: i32 = 52;

/// What is stored of a histogram.
#[derive(Debug, PartialEq)]
pub(crate) enum Admitted {
    /// All of it.
    AsItIs,
    /// This instead: resolutions beyond [`FINEST_SCHEMA`] are reduced to it, and that there was no
    /// reset is forgotten. Readers find out themselves, and a late sample can make it untrue.
    As(Arc<Histogram>),
    /// Nothing, since it contradicts itself.
    Refused,
}

/// Decides what is stored of a histogram.
pub(crate) fn admit(histogram: &Histogram) -> Admitted {
    if !is_valid(histogram) {
        return Admitted::Refused;
    }
    let fine = histogram.schema() > FINEST_SCHEMA;
    let promised = histogram.reset_hint() == ResetHint::NotReset;
    if !fine && !promised {
        return Admitted::AsItIs;
    }
    let mut stored = histogram.clone();
    stored.reduce_resolution(FINEST_SCHEMA);
    if promised {
        stored.set_reset_hint(ResetHint::Unknown);
    }
    // Buckets that meet in one may be more than can be counted.
    if is_valid(&stored) { Admitted::As(Arc::new(stored)) } else { Admitted::Refused }
}

/// Checks what readers rely on: as many buckets as the spans say and no more than can be stored, no
/// negative counts, a total that covers the buckets, a zero bucket that has a width, custom bounds
/// exactly where the schema has them.
fn is_valid(histogram: &Histogram) -> bool {
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
        && zero_is_valid(h.schema, h.zero_threshold, h.zero_count == 0)
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
        && zero_is_valid(h.schema, h.zero_threshold, h.zero_count == 0.0)
        && layout_is_valid(
            h.schema,
            (&h.positive_spans, h.positive_buckets.len()),
            (&h.negative_spans, h.negative_buckets.len()),
            &h.custom_bounds,
        )
}

fn zero_is_valid(schema: i32, threshold: f64, is_empty: bool) -> bool {
    // Custom buckets have no zero bucket.
    if schema == CUSTOM_BUCKETS_SCHEMA {
        return threshold == 0.0 && is_empty;
    }
    threshold >= 0.0 && threshold.is_finite()
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
    let parts = [positive.0.len(), positive.1, negative.0.len(), negative.1, bounds.len()];
    if parts.iter().any(|parts| *parts > PARTS_STORED_MAX) {
        return false;
    }
    if !spans_fit(positive) || !spans_fit(negative) {
        return false;
    }
    if schema == CUSTOM_BUCKETS_SCHEMA {
        let last: i64 =
            positive.0.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
        // The bucket up to +Inf is there without being named.
        let rising = bounds.windows(2).all(|pair| matches!(pair, [a, b] if a < b))
            && bounds.last().is_none_or(|last| *last < f64::INFINITY);
        return negative.0.is_empty()
            && positive.0.first().is_none_or(|span| span.offset >= 0)
            && last <= bounds.len() as i64 + 1
            && rising;
    }
    (-4..=FINEST_TAKEN).contains(&schema) && bounds.is_empty()
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
        assert!(!check(&|h| h.schema = -5));
        assert!(!check(&|h| h.schema = 53));
        assert!(!check(&|h| h.custom_bounds = vec![1.0]));
        for threshold in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(!check(&|h| h.zero_threshold = threshold), "{threshold}");
        }
        let many = PARTS_STORED_MAX + 1;
        assert!(!check(&|h| {
            h.positive_spans = vec![BucketSpan { offset: 0, length: many as u32 }];
            h.positive_deltas = vec![0; many];
            h.count = 1;
        }));
        assert!(!check(&|h| h.negative_spans = vec![BucketSpan { offset: 0, length: 0 }; many]));
        let float = Histogram::Integer(good).to_float();
        assert!(is_valid(&Histogram::Float(float.clone())));
        assert!(!is_valid(&Histogram::Float(FloatHistogram { count: -1.0, ..float })));
    }

    #[test]
    fn custom_bounds_are_numbers_that_rise_and_have_no_zero_bucket() {
        let custom = |bounds: &[f64], zero_threshold: f64, zero_count: u64| {
            is_valid(&Histogram::Integer(IntegerHistogram {
                schema: CUSTOM_BUCKETS_SCHEMA,
                count: zero_count,
                zero_count,
                zero_threshold,
                custom_bounds: bounds.to_vec(),
                ..IntegerHistogram::default()
            }))
        };
        assert!(custom(&[f64::NEG_INFINITY, 1.0, 2.0], 0.0, 0));
        assert!(custom(&[], 0.0, 0));
        for bounds in [&[f64::NAN][..], &[1.0, f64::NAN], &[1.0, f64::INFINITY], &[2.0, 1.0]] {
            assert!(!custom(bounds, 0.0, 0), "{bounds:?}");
        }
        assert!(!custom(&[1.0], 0.0, 1));
        assert!(!custom(&[1.0], f64::NAN, 0));
    }

    #[test]
    fn what_is_too_fine_is_reduced_and_promises_are_forgotten() {
        let histogram = |schema: i32, reset_hint: ResetHint| {
            Histogram::Integer(IntegerHistogram {
                reset_hint,
                schema,
                count: 7,
                positive_spans: vec![BucketSpan { offset: 1, length: 3 }],
                positive_deltas: vec![1, 1, 2],
                ..IntegerHistogram::default()
            })
        };
        for hint in [ResetHint::Unknown, ResetHint::Reset, ResetHint::Gauge] {
            assert_eq!(admit(&histogram(8, hint)), Admitted::AsItIs);
        }
        let told = admit(&histogram(8, ResetHint::NotReset));
        assert_eq!(told, Admitted::As(Arc::new(histogram(8, ResetHint::Unknown))));
        for (schema, spans, deltas) in
            [(9, (1, 2), vec![3, 1]), (12, (1, 1), vec![7]), (52, (1, 1), vec![7])]
        {
            let Admitted::As(stored) = admit(&histogram(schema, ResetHint::Reset)) else {
                panic!("schema {schema} is reduced");
            };
            let Histogram::Integer(stored) = &*stored else { panic!("still integers") };
            assert_eq!((stored.schema, stored.count), (8, 7));
            assert_eq!(stored.reset_hint, ResetHint::Reset);
            assert_eq!(stored.positive_spans, [BucketSpan { offset: spans.0, length: spans.1 }]);
            assert_eq!(stored.positive_deltas, deltas);
        }
        assert_eq!(admit(&histogram(53, ResetHint::Unknown)), Admitted::Refused);
    }
}
