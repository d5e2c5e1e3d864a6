use super::*;
use proptest::prelude::*;
use stint_model::stale_nan;

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check(values: &[f64], form: u8, bytes_max: usize) {
    let mut bytes = Vec::new();
    put(values, &mut bytes);
    let mut reader = Reader::new(&bytes);
    let mut back = vec![0.5];
    take(&mut reader, values.len(), &mut back).unwrap();
    assert_eq!(bits(&back[1..]), bits(values));
    assert!(reader.is_empty());
    assert_eq!(bytes.first(), Some(&form));
    assert!(bytes.len() <= bytes_max, "{} bytes", bytes.len());
}

#[test]
fn a_constant_takes_a_few_bytes() {
    check(&[0.0; 480], CONSTANT_INTEGER, 2);
    check(&[0.25; 480], CONSTANT_BITS, 9);
    check(&[stale_nan(); 480], CONSTANT_BITS, 9);
    check(&[-0.0; 2], CONSTANT_BITS, 9);
    check(&[f64::NEG_INFINITY; 2], CONSTANT_BITS, 9);
}

#[test]
fn a_steady_counter_takes_its_increments() {
    let values: Vec<f64> = (0..480).map(|i| f64::from(1_000_000 + i * 17 + i % 3)).collect();
    check(&values, DECIMAL, 150);
}

#[test]
fn decimals_are_integers_in_disguise() {
    let values: Vec<f64> = (0..480).map(|i| f64::from(i % 7) / 100.0).collect();
    check(&values, DECIMAL, 200);
}

#[test]
fn a_few_odd_values_stand_beside() {
    let mut values: Vec<f64> = (0..480).map(f64::from).collect();
    values[0] = f64::NAN;
    values[7] = -0.0;
    values[8] = f64::from_bits(0x7ff8_dead_beef_0001);
    values[479] = stale_nan();
    check(&values, DECIMAL, 160);
}

#[test]
fn sums_of_durations_are_decimals_with_drift() {
    let mut sum = 0.0;
    let values: Vec<f64> = (0..480_u32)
        .map(|i| {
            sum += f64::from(i * 7919 % 1000) * 1e-6 + 1e-9;
            sum
        })
        .collect();
    check(&values, DECIMAL_WITH_DRIFT, 1600);
}

#[test]
fn noise_costs_little_more_than_its_bits() {
    let mut state = 1_u64;
    let values: Vec<f64> = (0..480)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f64::from_bits(state)
        })
        .collect();
    check(&values, ORDERED_BITS, 3900);
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (-1000_i32..1000).prop_map(f64::from),
        8 => (-1000_i32..1000, 0_i32..9).prop_map(|(m, e)| f64::from(m) / 10_f64.powi(e)),
        1 => Just(stale_nan()),
        1 => Just(-0.0),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(9_007_199_254_740_993.0),
    ]
}

fn column() -> impl Strategy<Value = Vec<f64>> {
    let sums = proptest::collection::vec(0.0_f64..0.01, 1..300).prop_map(|steps| {
        let mut sum = 1000.0;
        steps
            .into_iter()
            .map(|step| {
                sum += (step * 1e9).round() / 1e9;
                sum
            })
            .collect()
    });
    let odd =
        (proptest::collection::vec(-50_i32..50, 1..300), value(), any::<prop::sample::Index>())
            .prop_map(|(values, odd, at)| {
                let mut values: Vec<f64> = values.into_iter().map(f64::from).collect();
                let at = at.index(values.len());
                values[at] = odd;
                values
            });
    prop_oneof![
        proptest::collection::vec(value(), 0..300),
        proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..200),
        sums,
        odd,
        (value(), 0_usize..400).prop_map(|(value, count)| vec![value; count]),
    ]
}

proptest! {
    #[test]
    fn a_part_is_a_part_of_the_whole(
        values in prop_oneof![
            proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..300),
            proptest::collection::vec((0_i32..9).prop_map(|n| f64::from(n) / 10.0), 1..300),
            proptest::collection::vec((0_i32..9).prop_map(|n| f64::from(n) + f64::EPSILON), 1..300),
            proptest::collection::vec(prop_oneof![40 => (0_i32..9).prop_map(f64::from), 1 => Just(-0.0)], 1..300),
            proptest::collection::vec(Just(0.25), 1..300),
        ],
        from: prop::sample::Index,
        to: prop::sample::Index,
    ) {
        let (from, to) = (from.index(values.len() + 1), to.index(values.len() + 1));
        let keep = from.min(to)..from.max(to);
        let mut bytes = Vec::new();
        put(&values, &mut bytes);
        let mut part = vec![0.5];
        take_part(&mut Reader::new(&bytes), values.len(), keep.clone(), &mut part).unwrap();
        prop_assert_eq!(bits(&part[1..]), bits(&values[keep]));
    }

    #[test]
    fn any_values_come_back_to_the_bit(values in column()) {
        let mut bytes = Vec::new();
        put(&values, &mut bytes);
        let mut reader = Reader::new(&bytes);
        let mut back = Vec::new();
        take(&mut reader, values.len(), &mut back).unwrap();
        prop_assert_eq!(bits(&back), bits(&values));
        prop_assert!(reader.is_empty());
        // Never much larger than the raw floats.
        prop_assert!(bytes.len() <= values.len() * 8 + values.len() / 64 + 14);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>, count in 0_usize..300) {
        let mut out = Vec::new();
        if take(&mut Reader::new(&bytes), count, &mut out).is_ok() {
            prop_assert_eq!(out.len(), count);
        }
    }

    #[test]
    fn damaged_columns_do_no_harm(values in column(), at: prop::sample::Index, flip in 1_u8..) {
        let mut bytes = Vec::new();
        put(&values, &mut bytes);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut out = Vec::new();
            if take(&mut Reader::new(&bytes), values.len(), &mut out).is_ok() {
                prop_assert_eq!(out.len(), values.len());
            }
        }
    }
}
