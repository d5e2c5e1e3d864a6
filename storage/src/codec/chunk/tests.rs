use super::*;
use crate::codec::histogram::tests as histograms;
use proptest::prelude::*;

/// Columns of any kind of sample.
pub(crate) fn columns() -> impl Strategy<Value = Columns> {
    let float = prop_oneof![
        8 => (0_i32..50).prop_map(f64::from),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(stint_model::stale_nan()),
    ];
    let row = (1_i64..100_000, float, proptest::option::weighted(0.2, -5_i64..5), 0..10);
    let rows = proptest::collection::vec(row, 0..200);
    (rows, histograms::column(), 0..11, any::<bool>()).prop_map(
        |(rows, histograms, histogram_share, with_starts)| {
            let mut columns = Columns::default();
            let mut at = 1_700_000_000_000;
            let mut histograms = histograms.into_iter().map(Arc::new).cycle();
            for (step, value, start, kind) in rows {
                at += step;
                match histograms.next() {
                    Some(histogram) if kind < histogram_share => {
                        columns.push_histogram(Timestamp(at), histogram);
                    }
                    _ => columns.push_float(Timestamp(at), value),
                }
                if with_starts && let Some(start) = start {
                    columns.set_last_start(Timestamp(start));
                }
            }
            columns
        },
    )
}

/// Asserts that all samples are the same to the bit.
#[track_caller]
pub(crate) fn assert_same(a: &Columns, b: &Columns) {
    let bits = |columns: &Columns| columns.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let histograms = |columns: &Columns| {
        let texts = columns.histograms.iter().map(|(row, h)| (*row, histograms::to_bits(h)));
        texts.collect::<Vec<_>>()
    };
    let starts = |columns: &Columns| {
        let mut starts = columns.starts.clone();
        starts.resize(columns.len(), Timestamp::MIN);
        starts
    };
    assert_eq!(a.times, b.times);
    assert_eq!(bits(a), bits(b));
    assert_eq!(histograms(a), histograms(b));
    assert_eq!(starts(a), starts(b));
}

#[test]
fn empty_chunks_are_allowed() {
    let mut back = Columns::default();
    decode(&encode(&Rows::of(&Columns::default())), &mut back).unwrap();
    assert!(back.is_empty());
}

#[test]
fn a_chunk_without_starts_after_one_with() {
    let mut with = Columns::default();
    with.push_float(Timestamp(1), 1.0);
    with.set_last_start(Timestamp(0));
    let without = Columns { starts: Vec::new(), ..with.clone() };
    let mut back = Columns::default();
    for columns in [&without, &with, &without] {
        decode(&encode(&Rows::of(columns)), &mut back).unwrap();
    }
    assert_eq!(back.starts, [Timestamp::MIN, Timestamp(0), Timestamp::MIN]);
}

proptest! {
    #[test]
    fn any_columns_come_back(columns in columns()) {
        let mut back = Columns::default();
        decode(&encode(&Rows::of(&columns)), &mut back).unwrap();
        assert_same(&back, &columns);
    }

    #[test]
    fn parts_add_up(columns in columns(), at: prop::sample::Index) {
        let middle = at.index(columns.len() + 1);
        let rows = Rows::of(&columns);
        let mut back = Columns::default();
        decode(&encode(&rows.slice(0..middle)), &mut back).unwrap();
        decode(&encode(&rows.slice(middle..columns.len())), &mut back).unwrap();
        assert_same(&back, &columns);
    }

    #[test]
    fn a_part_of_the_rows_is_read_alone(
        before in columns(),
        columns in columns(),
        from: prop::sample::Index,
        to: prop::sample::Index,
    ) {
        let (from, to) = (from.index(columns.len() + 1), to.index(columns.len() + 1));
        let keep = from.min(to)..from.max(to);
        let mut bytes = Vec::new();
        put_rows(&Rows::of(&columns), &mut bytes);
        let mut all = before.clone();
        let mark = Mark::of(&all);
        all.times.extend_from_slice(&columns.times);
        take_rows(&mut Reader::new(&bytes), columns.len(), &mut all).unwrap();
        mark.keep_rows(keep.clone(), &mut all);
        let mut part = before;
        part.times.extend_from_slice(&columns.times[keep.clone()]);
        take_rows_part(&mut Reader::new(&bytes), columns.len(), keep, &mut part).unwrap();
        assert_same(&part, &all);
    }

    #[test]
    fn a_changed_chunk_is_found_out(columns in columns(), at: prop::sample::Index, flip in 1_u8..) {
        let mut bytes = encode(&Rows::of(&columns));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let mut back = columns.clone();
        prop_assert!(decode(&bytes, &mut back).is_err());
        assert_same(&back, &columns);
    }

    #[test]
    fn damage_behind_the_checksum_does_no_harm(
        columns in columns(),
        at: prop::sample::Index,
        flip in 1_u8..,
    ) {
        let mut bytes = encode(&Rows::of(&columns));
        let body = bytes.len() - 4;
        let at = at.index(body);
        bytes[at] ^= flip;
        let checksum = crc::checksum(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.to_le_bytes());
        let mut back = Columns::default();
        if decode(&bytes, &mut back).is_ok() {
            prop_assert_eq!(back.values.len(), back.times.len());
        }
    }
}
