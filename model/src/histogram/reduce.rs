//! Lower resolutions: neighbouring exponential buckets become one.

use super::bounds::{flatten, gather};
use super::{FloatHistogram, Histogram, IntegerHistogram, from_deltas, to_deltas};

impl Histogram {
    /// Merges neighbouring exponential buckets until the resolution is `schema`; nothing happens
    /// when it already is that low, or when bounds are custom.
    pub fn reduce_resolution(&mut self, schema: i32) {
        match self {
            Self::Integer(histogram) => histogram.reduce_resolution(schema),
            Self::Float(histogram) => histogram.reduce_resolution(schema),
        }
    }
}

impl IntegerHistogram {
    /// See [`Histogram::reduce_resolution`].
    pub fn reduce_resolution(&mut self, schema: i32) {
        let Some(shift) = shift(self.schema, schema) else { return };
        self.schema = schema;
        for (spans, deltas) in [
            (&mut self.positive_spans, &mut self.positive_deltas),
            (&mut self.negative_spans, &mut self.negative_deltas),
        ] {
            let flat = flatten(spans, &from_deltas(deltas));
            let (reduced_spans, counts) = gather(&reduce(flat, shift, i64::wrapping_add));
            (*spans, *deltas) = (reduced_spans, to_deltas(&counts));
        }
    }
}

impl FloatHistogram {
    /// See [`Histogram::reduce_resolution`].
    pub fn reduce_resolution(&mut self, schema: i32) {
        let Some(shift) = shift(self.schema, schema) else { return };
        self.schema = schema;
        self.set_positive(&reduce(self.positive_indexed(), shift, |a, b| a + b));
        self.set_negative(&reduce(self.negative_indexed(), shift, |a, b| a + b));
    }
}

/// How many times buckets are halved in number on the way from one schema to the other; `None` where
/// there is nothing to do.
fn shift(from: i32, to: i32) -> Option<u32> {
    (to < from && from != super::CUSTOM_BUCKETS_SCHEMA)
        .then(|| from.saturating_sub(to).unsigned_abs().min(31))
}

fn reduce<T: Copy>(flat: Vec<(i32, T)>, shift: u32, add: impl Fn(T, T) -> T) -> Vec<(i32, T)> {
    let mut reduced: Vec<(i32, T)> = Vec::with_capacity(flat.len());
    for (index, count) in flat {
        let index = (index.wrapping_sub(1) >> shift).wrapping_add(1);
        match reduced.last_mut() {
            Some((last, sum)) if *last == index => *sum = add(*sum, count),
            _ => reduced.push((index, count)),
        }
    }
    reduced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA};
    use proptest::prelude::*;

    fn side() -> impl Strategy<Value = (Vec<BucketSpan>, Vec<i64>)> {
        prop::collection::vec((0..9_i32, 0..9_u32), 0..4).prop_flat_map(|spans| {
            let mut spans: Vec<BucketSpan> = spans
                .iter()
                .map(|(offset, length)| BucketSpan { offset: *offset, length: *length })
                .collect();
            if let Some(first) = spans.first_mut() {
                first.offset -= 4;
            }
            let buckets = spans.iter().map(|span| span.length as usize).sum::<usize>();
            (Just(spans), prop::collection::vec(0..50_i64, buckets))
        })
    }

    proptest! {
        #[test]
        fn integers_and_floats_are_reduced_alike(
            positive in side(), negative in side(), schema in -4..53_i32, to in -4..20_i32,
        ) {
            let mut integer = IntegerHistogram {
                schema,
                positive_spans: positive.0,
                positive_deltas: to_deltas(&positive.1),
                negative_spans: negative.0,
                negative_deltas: to_deltas(&negative.1),
                ..IntegerHistogram::default()
            };
            let mut float = integer.to_float();
            integer.reduce_resolution(to);
            float.reduce_resolution(to);
            prop_assert_eq!(integer.schema, schema.min(to));
            prop_assert_eq!(integer.to_float(), float);
        }
    }

    #[test]
    fn buckets_of_a_finer_schema_meet_in_the_next() {
        let mut histogram = IntegerHistogram {
            schema: 9,
            // Buckets 1 to 4 and 7.
            positive_spans: vec![
                BucketSpan { offset: 1, length: 4 },
                BucketSpan { offset: 2, length: 1 },
            ],
            positive_deltas: to_deltas(&[1, 2, 3, 4, 5]),
            ..IntegerHistogram::default()
        };
        histogram.reduce_resolution(8);
        assert_eq!(histogram.schema, 8);
        let spans = [BucketSpan { offset: 1, length: 2 }, BucketSpan { offset: 1, length: 1 }];
        assert_eq!(histogram.positive_spans, spans);
        assert_eq!(from_deltas(&histogram.positive_deltas), [3, 7, 5]);
    }

    #[test]
    fn custom_buckets_have_no_resolution() {
        let custom = IntegerHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
            positive_deltas: vec![1, 1],
            custom_bounds: vec![1.0],
            ..IntegerHistogram::default()
        };
        let mut reduced = Histogram::Integer(custom.clone());
        reduced.reduce_resolution(-60);
        assert_eq!(reduced, Histogram::Integer(custom));
    }
}
