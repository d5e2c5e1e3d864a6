use super::*;
use proptest::prelude::*;

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        (0_i32..100).prop_map(f64::from),
        any::<u64>().prop_map(f64::from_bits),
        Just(stint_model::stale_nan()),
    ]
}

fn hint() -> impl Strategy<Value = ResetHint> {
    prop_oneof![
        3 => Just(ResetHint::Unknown),
        1 => Just(ResetHint::Reset),
        1 => Just(ResetHint::NotReset),
        1 => Just(ResetHint::Gauge),
    ]
}

fn spans() -> impl Strategy<Value = Vec<BucketSpan>> {
    let span = (-3_i32..5, 1_u32..4).prop_map(|(offset, length)| BucketSpan { offset, length });
    proptest::collection::vec(span, 0..3)
}

fn total(spans: &[BucketSpan]) -> usize {
    spans.iter().map(|span| span.length as usize).sum()
}

prop_compose! {
    /// Histograms of the same layout, as one series has them between layout changes.
    fn integer_run()(
        reset_hint in hint(),
        schema in prop_oneof![-4..=8, Just(-53)],
        positive_spans in spans(),
        negative_spans in spans(),
        custom_bounds in proptest::collection::vec(float(), 0..4),
        zero_threshold in float(),
        rows in proptest::collection::vec((any::<u64>(), 0_u64..9, float(), any::<i64>()), 1..6),
    ) -> Vec<Histogram> {
        rows.into_iter().map(|(count, zero_count, sum, seed)| {
            let delta = |i: usize| seed.wrapping_mul(i as i64 + 1) % 1000;
            Histogram::Integer(IntegerHistogram {
                reset_hint, schema, zero_threshold, zero_count, count, sum,
                positive_deltas: (0..total(&positive_spans)).map(delta).collect(),
                negative_deltas: (0..total(&negative_spans)).map(delta).collect(),
                positive_spans: positive_spans.clone(),
                negative_spans: negative_spans.clone(),
                custom_bounds: custom_bounds.clone(),
            })
        }).collect()
    }
}

prop_compose! {
    fn float_run()(
        reset_hint in hint(),
        schema in -4..=8,
        positive_spans in spans(),
        zero_threshold in float(),
        rows in proptest::collection::vec((float(), float(), float(), float()), 1..6),
    ) -> Vec<Histogram> {
        rows.into_iter().map(|(count, zero_count, sum, bucket)| Histogram::Float(FloatHistogram {
            reset_hint, schema, zero_threshold, zero_count, count, sum,
            positive_buckets: (0..total(&positive_spans)).map(|i| bucket + i as f64).collect(),
            positive_spans: positive_spans.clone(),
            ..FloatHistogram::default()
        })).collect()
    }
}

/// A column of histograms with changing layouts.
pub(crate) fn column() -> impl Strategy<Value = Vec<Histogram>> {
    proptest::collection::vec(prop_oneof![integer_run(), float_run()], 0..4)
        .prop_map(|runs| runs.into_iter().flatten().collect())
}

/// All of a histogram as text, floats as bits: comparable where `==` is not, for NaN.
pub(crate) fn to_bits(histogram: &Histogram) -> String {
    let bits = |floats: &[f64]| floats.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
    match histogram {
        Histogram::Integer(h) => {
            let floats = bits(&[h.zero_threshold, h.sum]);
            let bounds = bits(&h.custom_bounds);
            let plain = IntegerHistogram {
                zero_threshold: 0.0,
                sum: 0.0,
                custom_bounds: Vec::new(),
                ..h.clone()
            };
            format!("{plain:?} {floats:?} {bounds:?}")
        }
        Histogram::Float(h) => {
            let floats = bits(&[h.zero_threshold, h.sum, h.count, h.zero_count]);
            let (positive, negative) = (bits(&h.positive_buckets), bits(&h.negative_buckets));
            format!(
                "{:?} {} {:?} {:?} {floats:?} {positive:?} {negative:?} {:?}",
                h.reset_hint,
                h.schema,
                h.positive_spans,
                h.negative_spans,
                bits(&h.custom_bounds)
            )
        }
    }
}

fn round_trip(histograms: &[Histogram]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(histograms, &mut bytes);
    let mut back = Vec::new();
    let mut reader = Reader::new(&bytes);
    take(&mut reader, histograms.len(), |h| back.push(to_bits(&h))).unwrap();
    assert!(reader.is_empty());
    assert_eq!(back, histograms.iter().map(to_bits).collect::<Vec<_>>());
    bytes
}

#[test]
fn a_quiet_histogram_is_small() {
    let histogram = Histogram::Integer(IntegerHistogram {
        schema: 3,
        zero_threshold: 1e-128,
        count: 60,
        sum: 12.5,
        positive_spans: vec![BucketSpan { offset: 0, length: 20 }],
        positive_deltas: (0..20).map(|i| i % 2).collect(),
        ..IntegerHistogram::default()
    });
    assert!(round_trip(&vec![histogram; 120]).len() < 90);
}

proptest! {
    #[test]
    fn any_histograms_come_back_to_the_bit(histograms in column()) {
        round_trip(&histograms);
    }

    #[test]
    fn damaged_columns_do_no_harm(histograms in column(), at: prop::sample::Index, flip in 1_u8..) {
        let mut bytes = Vec::new();
        put(&histograms, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let mut count = 0;
        if take(&mut Reader::new(&bytes), histograms.len(), |_| count += 1).is_ok() {
            prop_assert_eq!(count, histograms.len());
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>, expected in 0_usize..100) {
        let mut count = 0;
        if take(&mut Reader::new(&bytes), expected, |_| count += 1).is_ok() {
            prop_assert_eq!(count, expected);
        }
    }
}

/// Rows of as many buckets, some of them wide for the limit that tests have.
fn wide_run() -> impl Strategy<Value = Vec<Histogram>> {
    let buckets =
        prop_oneof![0..9_usize, Just(CELLS_MAX / 3), Just(CELLS_MAX / 2), Just(CELLS_MAX)];
    (buckets, 0..CELLS_MAX, 1..9_u64, any::<bool>()).prop_map(|(buckets, negative, rows, float)| {
        let negative = negative.min(buckets);
        let spans = |length: usize| vec![BucketSpan { offset: 0, length: length as u32 }];
        let of_row = |row| {
            let integer = IntegerHistogram {
                count: row,
                positive_spans: spans(buckets - negative),
                positive_deltas: (0..buckets - negative).map(|i| i as i64 % 3 - 1).collect(),
                negative_spans: spans(negative),
                negative_deltas: vec![0; negative],
                ..IntegerHistogram::default()
            };
            if float { Histogram::Float(integer.to_float()) } else { Histogram::Integer(integer) }
        };
        (0..rows).map(of_row).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_put_can_be_taken(runs in proptest::collection::vec(wide_run(), 1..4)) {
        round_trip(&runs.concat());
    }
}

#[test]
fn wide_histograms_are_cut_into_runs_that_can_be_read() {
    let wide = |buckets: usize, count: u64| {
        Histogram::Integer(IntegerHistogram {
            count,
            positive_spans: vec![BucketSpan { offset: 0, length: buckets as u32 }],
            positive_deltas: (0..buckets).map(|i| i64::from(i == 0)).collect(),
            ..IntegerHistogram::default()
        })
    };
    for buckets in [1, 100, CELLS_MAX / 2, CELLS_MAX] {
        let rows = 3 + 2 * CELLS_MAX / buckets;
        let histograms: Vec<Histogram> =
            (0..rows.min(500)).map(|n| wide(buckets, n as u64)).collect();
        let mut file = Vec::new();
        put(&histograms, &mut file);
        let mut back = Vec::new();
        take(&mut Reader::new(&file), histograms.len(), |h| back.push(h)).unwrap();
        assert!(back.iter().map(|h| &**h).eq(&histograms), "{buckets} buckets");
    }
}
