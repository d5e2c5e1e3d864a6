//! Where buckets lie: bounds by index, and the buckets of a histogram in order of value.

use super::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram};

/// One bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether an observation equal to the lower bound is in the bucket.
    pub lower_inclusive: bool,
    /// Whether an observation equal to the upper bound is in the bucket.
    pub upper_inclusive: bool,
    /// Observations in the bucket.
    pub count: f64,
}

/// Index and count of every stored bucket, empty ones included, in order of index.
pub(super) fn flatten<T: Copy>(spans: &[BucketSpan], counts: &[T]) -> Vec<(i32, T)> {
    let mut index = 0_i32;
    let mut counts = counts.iter();
    let mut flat = Vec::with_capacity(counts.len());
    for span in spans {
        index = index.wrapping_add(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return flat };
            flat.push((index, *count));
            index = index.wrapping_add(1);
        }
    }
    flat
}

/// Spans and counts of buckets in order of index; the inverse of [`flatten`].
pub(super) fn gather<T: Copy>(flat: &[(i32, T)]) -> (Vec<BucketSpan>, Vec<T>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut counts = Vec::with_capacity(flat.len());
    let mut next = 0_i32;
    for (index, count) in flat {
        let offset = index.wrapping_sub(next);
        match spans.last_mut() {
            Some(span) if offset == 0 => span.length += 1,
            _ => spans.push(BucketSpan { offset, length: 1 }),
        }
        next = index.wrapping_add(1);
        counts.push(*count);
    }
    (spans, counts)
}

/// Upper bound of the exponential bucket `index` at `schema`. The bucket that reaches the largest
/// finite float ends there, and the one after it at infinity.
pub fn exponential_bound(index: i32, schema: i32) -> f64 {
    let index = i64::from(index);
    if schema <= 0 {
        let exponent = index << schema.unsigned_abs().min(32);
        return if exponent == 1024 { f64::MAX } else { ldexp(1.0, exponent) };
    }
    let per_power = 1_i64 << schema.min(52);
    let fraction = fraction(index & (per_power - 1), schema);
    let exponent = (index >> schema.min(52)) + 1;
    if fraction == 0.5 && exponent == 1025 { f64::MAX } else { ldexp(fraction, exponent) }
}

/// The distance between neighbouring bounds of schemas 1 to 8. Prometheus' bounds go back to these,
/// of which the first is not the float nearest to the root of two.
const GROWTH: [f64; 8] = [
    std::f64::consts::SQRT_2.next_down(),
    1.189_207_115_002_721,
    1.090_507_732_665_257_7,
    1.044_273_782_427_413_8,
    1.021_897_148_654_116_6,
    1.010_889_286_051_700_5,
    1.005_429_901_112_802_7,
    1.002_711_275_050_202_5,
];

/// Bound number `index` of those from 0.5 on up to 1. As in Prometheus, every second bound is one of
/// the schema before, and the others are reached by one multiplication.
fn fraction(index: i64, schema: i32) -> f64 {
    if index == 0 {
        return 0.5;
    }
    let halvings = index.trailing_zeros().min(schema.unsigned_abs());
    let (index, schema) = (index >> halvings, schema - halvings as i32);
    match usize::try_from(schema - 1).ok().and_then(|at| GROWTH.get(at)) {
        Some(growth) => fraction(index - 1, schema) * growth,
        None => (index as f64 / (1_i64 << schema.min(52)) as f64 - 1.0).exp2(),
    }
}

/// `fraction · 2^exponent` without intermediate overflow.
fn ldexp(fraction: f64, exponent: i64) -> f64 {
    let mut value = fraction;
    let mut left = exponent.clamp(-2200, 2200) as i32;
    while left > 1000 {
        value *= 2_f64.powi(1000);
        left -= 1000;
    }
    while left < -1000 {
        value *= 2_f64.powi(-1000);
        left += 1000;
    }
    value * 2_f64.powi(left)
}

impl FloatHistogram {
    /// Whether the buckets have custom bounds.
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Index and count of every stored positive (or custom) bucket.
    pub fn positive_indexed(&self) -> Vec<(i32, f64)> {
        flatten(&self.positive_spans, &self.positive_buckets)
    }

    /// Index and count of every stored negative bucket.
    pub fn negative_indexed(&self) -> Vec<(i32, f64)> {
        flatten(&self.negative_spans, &self.negative_buckets)
    }

    /// Upper bound of the positive (or custom) bucket `index`.
    pub fn upper_bound(&self, index: i32) -> f64 {
        if !self.is_custom() {
            return exponential_bound(index, self.schema);
        }
        if index < 0 {
            return f64::NEG_INFINITY;
        }
        self.custom_bounds.get(index as usize).copied().unwrap_or(f64::INFINITY)
    }

    /// All stored buckets from the lowest to the highest, the zero bucket among them where it is
    /// populated. A bucket into which the zero bucket reaches begins where that one ends.
    pub fn buckets(&self) -> Vec<Bucket> {
        let mut buckets = self.whole_buckets();
        if self.is_custom() {
            return buckets;
        }
        let zero = self.zero_threshold;
        buckets.retain_mut(|bucket| match (bucket.lower_inclusive, bucket.upper_inclusive) {
            // Below zero there are counts of differences, which Prometheus does not list.
            (true, true) => bucket.count > 0.0,
            (true, false) => {
                bucket.upper = if bucket.upper > -zero { -zero } else { bucket.upper };
                true
            }
            _ => {
                bucket.lower = if bucket.lower < zero { zero } else { bucket.lower };
                true
            }
        });
        buckets
    }

    /// All stored buckets and the zero bucket, each with its own bounds.
    pub(super) fn whole_buckets(&self) -> Vec<Bucket> {
        let mut buckets =
            Vec::with_capacity(self.positive_buckets.len() + self.negative_buckets.len() + 1);
        for (index, count) in self.negative_indexed().into_iter().rev() {
            buckets.push(Bucket {
                lower: -exponential_bound(index, self.schema),
                upper: -exponential_bound(index.wrapping_sub(1), self.schema),
                lower_inclusive: true,
                upper_inclusive: false,
                count,
            });
        }
        if self.zero_count != 0.0 && !self.is_custom() {
            buckets.push(Bucket {
                lower: -self.zero_threshold,
                upper: self.zero_threshold,
                lower_inclusive: true,
                upper_inclusive: true,
                count: self.zero_count,
            });
        }
        let positive = self.positive_indexed().into_iter();
        buckets.extend(positive.map(|(index, count)| self.positive_bucket(index, count)));
        buckets
    }

    /// The positive (or custom) bucket `index` with `count` observations.
    pub(super) fn positive_bucket(&self, index: i32, count: f64) -> Bucket {
        let lower = self.upper_bound(index.wrapping_sub(1));
        Bucket {
            lower,
            upper: self.upper_bound(index),
            lower_inclusive: self.is_custom() && index == 0,
            upper_inclusive: true,
            count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_grow_by_the_schema() {
        assert_eq!(exponential_bound(0, 0), 1.0);
        assert_eq!(exponential_bound(3, 0), 8.0);
        assert_eq!(exponential_bound(-1, 0), 0.5);
        assert_eq!(exponential_bound(2, 1), 2.0);
        assert_eq!(exponential_bound(1, -2), 16.0);
        assert_eq!(exponential_bound(1024, 0), f64::MAX);
        assert_eq!(exponential_bound(1025, 0), f64::INFINITY);
        assert_eq!(exponential_bound(8192, 3), f64::MAX);
        assert_eq!(exponential_bound(-1074, 0), f64::from_bits(1));
    }

    /// As Prometheus prints them.
    #[test]
    fn bounds_are_those_of_prometheus_to_the_last_bit() {
        let shown = |index, schema| exponential_bound(index, schema).to_string();
        assert_eq!(shown(1, 1), "1.414213562373095");
        assert_eq!(shown(-1, 1), "0.7071067811865475");
        assert_eq!(shown(-1, 2), "0.8408964152537144");
        assert_eq!(shown(-1, 3), "0.9170040432046711");
        assert_eq!(shown(-5, 5), "0.8973545375015533");
        assert_eq!(shown(-1, 6), "0.9892280131939752");
        assert_eq!(shown(-127, 7), "0.5027149505564014");
        assert_eq!(shown(-1, 8), "0.9972960560854698");
        assert_eq!(shown(-93, 8), "0.7773944698885442");
    }

    proptest! {
        #[test]
        fn spans_hold_what_was_gathered(
            flat in proptest::collection::btree_map(-500_i32..500, -9.0..9.0_f64, 0..40)
        ) {
            let flat: Vec<(i32, f64)> = flat.into_iter().collect();
            let (spans, counts) = gather(&flat);
            prop_assert_eq!(flatten(&spans, &counts), flat);
        }
    }
}
