use super::*;
use crate::block::{BlockId, BlockWriter};
use crate::codec::chunk::tests::{assert_same, columns};
use crate::disk::sim::SimDisk;
use crate::index::{LABELS_MAX, series_order};
use proptest::prelude::*;
use stint_model::histogram::ResetHint;
use stint_model::{MatchOp, Matcher};

/// The times that [`columns`] makes lie in here.
const RANGE: TimeRange = TimeRange::new(Timestamp(1_700_000_000_000), Timestamp(1_700_100_000_000));

fn write(disk: &SimDisk, series: &[(Labels, Columns)]) -> Result<PathBuf, BlockError> {
    let meta = BlockMeta::new(BlockId(1), RANGE);
    let mut writer = BlockWriter::new(disk, Path::new("blocks"), meta)?;
    for (labels, columns) in series {
        writer.add_series(labels, columns)?;
    }
    Ok(writer.finish()?.dir(Path::new("blocks")))
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = prop::sample::select(vec!["", "a", "b", "ab"]);
    proptest::collection::vec(value, 3)
        .prop_map(|values| Labels::from_pairs(["__name__", "job", "x"].into_iter().zip(values)))
}

fn series() -> impl Strategy<Value = Vec<(Labels, Columns)>> {
    proptest::collection::vec((labels(), columns()), 0..8).prop_map(|mut series| {
        series.sort_by(|a, b| series_order(&a.0, &b.0));
        series.dedup_by(|a, b| a.0 == b.0);
        series.retain(|(_, columns)| !columns.is_empty());
        series
    })
}

/// As [`filtered`], where nothing is known about resets of what follows a row that is gone.
fn undeleted(columns: &Columns, keep: impl Fn(Timestamp) -> bool) -> Columns {
    let mut known = columns.clone();
    for (row, histogram) in &mut known.histograms {
        let follows_gone = *row > 0 && !keep(columns.times[*row - 1]);
        if follows_gone && histogram.reset_hint() != ResetHint::Gauge {
            Arc::make_mut(histogram).set_reset_hint(ResetHint::Unknown);
        }
    }
    filtered(&known, keep)
}

/// The rows of `columns` for which `keep` holds, one by one.
fn filtered(columns: &Columns, keep: impl Fn(Timestamp) -> bool) -> Columns {
    let mut out = Columns::default();
    for (row, time) in columns.times.iter().enumerate() {
        if !keep(*time) {
            continue;
        }
        match columns.histograms.iter().find(|(at, _)| *at == row) {
            Some((_, histogram)) => out.push_histogram(*time, histogram.clone()),
            None => out.push_float(*time, columns.values[row]),
        }
        if let Some(start) = columns.starts.get(row).filter(|start| **start != Timestamp::MIN) {
            out.set_last_start(*start);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(
        series in series(),
        start in 0_i64..2_000_000,
        length in 0_i64..2_000_000,
        op in prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]),
        pattern in prop::sample::select(vec!["", "a", "a|b", "a.*", ".+"]),
    ) {
        let disk = SimDisk::new();
        let dir = write(&disk, &series).unwrap();
        let block = Block::open(&disk, &dir).unwrap();
        block.verify().unwrap();
        prop_assert_eq!(u64::from(block.series_len()), series.len() as u64);
        let range = TimeRange::new(
            Timestamp(RANGE.start.0 + start),
            Timestamp(RANGE.start.0 + start + length),
        );
        let selector = Selector::new(vec![Matcher::new(op, "x", pattern).unwrap()]);
        let deleted = block.delete(&disk, &selector, range).unwrap();
        let reopened = Block::open(&disk, &dir).unwrap();
        for (number, (labels, columns)) in series.iter().enumerate() {
            let number = number as u32;
            prop_assert_eq!(&block.labels(number).unwrap(), labels);
            let selected = selector.matches(labels);
            prop_assert_eq!(block.select(&selector).unwrap().contains(number), selected);
            let mut all = Columns::default();
            block.read(number, TimeRange::ALL, &mut all).unwrap();
            assert_same(&all, columns);
            let mut part = Columns::default();
            block.read(number, range, &mut part).unwrap();
            assert_same(&part, &filtered(columns, |time| range.contains(time)));
            for block in [&deleted, &reopened] {
                // Behind rows that are already there.
                let mut rest = columns.clone();
                block.read(number, TimeRange::ALL, &mut rest).unwrap();
                let mark = columns.len();
                let expected = undeleted(columns, |time| !(selected && range.contains(time)));
                chunk::Mark::of(&Columns::default()).keep_rows(mark..rest.len(), &mut rest);
                assert_same(&rest, &expected);
            }
        }
    }
}

fn scraped(first: i64, rows: i64) -> Columns {
    let mut columns = Columns::default();
    for row in first..first + rows {
        columns.push_float(Timestamp(RANGE.start.0 + row * 15_000 + row % 3), row as f64);
    }
    columns
}

fn named(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", "j")])
}

#[test]
fn series_scraped_together_share_their_times() {
    let disk = SimDisk::new();
    let series: Vec<(Labels, Columns)> = (0..50)
        .map(|i| {
            (named(&format!("m{i:02}")), if i == 7 { scraped(3, 90) } else { scraped(0, 100) })
        })
        .collect();
    let block = Block::open(&disk, &write(&disk, &series).unwrap()).unwrap();
    assert_eq!(block.meta().columns, 1);
    for (number, (_, columns)) in series.iter().enumerate() {
        let mut back = Columns::default();
        block.read(number as u32, TimeRange::ALL, &mut back).unwrap();
        assert_same(&back, columns);
    }
}

/// A series that moves as `row * row % 1009` does, and a little by itself.
fn related(by_itself: f64, power: f64, rows: i64) -> Columns {
    let mut columns = scraped(0, rows);
    for (row, value) in columns.values.iter_mut().enumerate() {
        let (row, together) = (row as f64, (row * row % 1009) as f64 + row as f64 * 40.0);
        *value = (together + (row * by_itself).floor()) / power;
    }
    columns
}

fn list_of(block: &Block, series: u32) -> Vec<ChunkRef> {
    let (_, mut list) = block.inner.index.chunks(series).unwrap();
    let count = list.varint().unwrap();
    (0..count).map(|_| ChunkRef::take(&mut list).unwrap()).collect()
}

#[test]
fn what_moves_together_is_taken_against_one_of_its_like() {
    let disk = SimDisk::new();
    let mut series = Vec::new();
    for (number, power) in [1.0, 100.0].into_iter().enumerate() {
        series.push((named(&format!("{number}a")), related(0.0, power, 480)));
        series.push((named(&format!("{number}b")), related(0.5, power, 480)));
        series.push((named(&format!("{number}c")), related(0.25, power, 480)));
        // Like one that is taken against another.
        series.push((named(&format!("{number}d")), related(0.25, power, 480)));
        // Its times are others.
        series.push((named(&format!("{number}e")), related(0.25, power, 30)));
    }
    let irregular = |name: &str| {
        let mut columns = scraped(0, 480);
        columns.values.iter_mut().for_each(|value| *value = (*value + 0.1).sqrt());
        columns.values[7] = stint_model::stale_nan();
        (named(name), columns)
    };
    series.extend([irregular("8x"), irregular("9y")]);
    let block = Block::open(&disk, &write(&disk, &series).unwrap()).unwrap();
    block.verify().unwrap();
    let bases: Vec<Option<u32>> =
        (0..block.series_len()).map(|number| list_of(&block, number)[0].base).collect();
    let none = None;
    let expected = [
        none,
        Some(1),
        Some(2),
        Some(1),
        none,
        none,
        Some(1),
        Some(2),
        Some(1),
        none,
        none,
        Some(1),
    ];
    assert_eq!(bases, expected);
    for (number, (_, columns)) in series.iter().enumerate() {
        for rows in [0..480, 0..1, 100..101, 130..400, 470..480] {
            let rows = rows.start..rows.end.min(columns.len()).max(rows.start);
            let time = |row: usize| columns.times.get(row).copied().unwrap_or(RANGE.end);
            let range = TimeRange::new(time(rows.start), time(rows.end));
            let mut back = Columns::default();
            block.read(number as u32, range, &mut back).unwrap();
            assert_same(&back, &filtered(columns, |time| range.contains(time)));
        }
    }
}

#[test]
fn chunks_that_are_taken_against_what_is_not_there_are_refused() {
    let times = TimesOf { column: 0, part: None };
    let disk = SimDisk::new();
    let series = [(named("a"), scraped(0, 30)), (named("b"), scraped(0, 30))];
    let block = Block::open(&disk, &write(&disk, &series).unwrap()).unwrap();
    let base = |series, distance, times, rows| {
        block.inner.base_of(Relative { series, distance, times, rows }).map(|floats| floats.len())
    };
    assert_eq!(base(1, 1, times, 30).unwrap(), 30);
    for (series, distance) in [(1, 0), (1, 2), (0, 1), (u32::MAX, 1)] {
        assert!(base(series, distance, times, 30).is_err(), "{series} {distance}");
    }
    assert!(base(1, 1, TimesOf { column: 1, part: None }, 30).is_err());
    assert!(base(1, 1, TimesOf { column: 0, part: Some((0, 29)) }, 29).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_moves_together_is_read(
        together in proptest::collection::vec(-500_i64..500, 20..300),
        apart in proptest::collection::vec((-3_i64..4, 0..3_u8, 0_usize..300), 2..12),
        from in 0_usize..300,
        length in 0_usize..300,
    ) {
        let disk = SimDisk::new();
        let mut series = Vec::new();
        for (number, (factor, power, odd)) in apart.into_iter().enumerate() {
            let mut columns = scraped(0, together.len() as i64);
            let mut sum = 0;
            for (row, step) in together.iter().enumerate() {
                sum += step + row as i64 * factor % 3;
                columns.values[row] = sum as f64 / 10_f64.powi(i32::from(power));
            }
            if let Some(value) = columns.values.get_mut(odd) {
                *value = f64::from_bits(odd as u64);
            }
            series.push((named(&format!("m{number:02}")), columns));
        }
        let block = Block::open(&disk, &write(&disk, &series).unwrap()).unwrap();
        block.verify().unwrap();
        for (number, (_, columns)) in series.iter().enumerate() {
            let mut back = Columns::default();
            block.read(number as u32, TimeRange::ALL, &mut back).unwrap();
            assert_same(&back, columns);
            let time = |row: usize| columns.times.get(row).copied().unwrap_or(RANGE.end);
            let range = TimeRange::new(time(from), time(from + length));
            let mut back = Columns::default();
            block.read(number as u32, range, &mut back).unwrap();
            assert_same(&back, &filtered(columns, |time| range.contains(time)));
        }
    }
}

#[test]
fn what_does_not_belong_into_the_block_is_refused() {
    let disk = SimDisk::new();
    let outside = Columns { times: vec![Timestamp(5)], values: vec![1.0], ..Columns::default() };
    let backwards = Columns {
        times: vec![RANGE.start, RANGE.start],
        values: vec![1.0, 2.0],
        ..Columns::default()
    };
    for columns in [outside, backwards] {
        assert!(matches!(write(&disk, &[(named("a"), columns)]), Err(BlockError::Samples { .. })));
    }
    let unsorted = [(named("b"), scraped(0, 1)), (named("a"), scraped(0, 1))];
    assert!(matches!(write(&disk, &unsorted), Err(BlockError::SeriesOrder { .. })));
    // The leftovers of those do not hinder.
    write(&disk, &[(named("a"), scraped(0, 1))]).unwrap();
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let disk = SimDisk::new();
    let mut odd = scraped(0, 30);
    odd.values[3] = stint_model::stale_nan();
    odd.times[7] = Timestamp(odd.times[7].0 + 1);
    let series = [
        (named("a"), scraped(0, 30)),
        (named("b"), odd),
        (named("c"), scraped(4, 20)),
        (named("d"), related(0.0, 1.0, 40)),
        (named("e"), related(0.5, 1.0, 40)),
    ];
    let dir = write(&disk, &series).unwrap();
    for file in [META_FILE, INDEX_FILE, CHUNKS_FILE] {
        let path = dir.join(file);
        for at in 0..disk.size(&path).unwrap() as usize {
            for bit in 0..8 {
                disk.damage(&path, at, 1 << bit).unwrap();
                let found = check_damaged(&disk, &dir, &series);
                disk.damage(&path, at, 1 << bit).unwrap();
                assert!(found, "{file} byte {at} bit {bit}");
            }
        }
    }
    Block::open(&disk, &dir).unwrap().verify().unwrap();
}

/// Whether opening or verifying finds the damage; what is read meanwhile must be right.
fn check_damaged(disk: &SimDisk, dir: &Path, series: &[(Labels, Columns)]) -> bool {
    let Ok(block) = Block::open(disk, dir) else { return true };
    for (number, (labels, columns)) in series.iter().enumerate() {
        if let Ok(read) = block.labels(number as u32) {
            assert_eq!(read, *labels);
        }
        let mut back = Columns::default();
        match block.read(number as u32, TimeRange::ALL, &mut back) {
            Ok(()) => assert_same(&back, columns),
            Err(corruption) => {
                assert!(back.is_empty());
                assert!(!corruption.file.is_empty());
            }
        }
    }
    block.verify().is_err()
}

#[test]
fn a_truncated_block_does_not_open() {
    let disk = SimDisk::new();
    let dir = write(&disk, &[(named("a"), scraped(0, 30))]).unwrap();
    for file in [META_FILE, INDEX_FILE, CHUNKS_FILE] {
        let path = dir.join(file);
        let bytes = disk::read_all(&disk, &path).unwrap();
        let handle = disk.open(&path).unwrap();
        for length in [0, 7, bytes.len() / 2, bytes.len() - 1] {
            handle.truncate(length as u64).unwrap();
            assert!(Block::open(&disk, &dir).is_err(), "{file} cut to {length}");
            handle.append(&bytes[length..]).unwrap();
        }
    }
    Block::open(&disk, &dir).unwrap();
}

/// Version 2 of the format is a promise: these bytes must stay readable, and the same samples
/// become the same bytes.
#[test]
fn the_bytes_of_a_block_do_not_change() {
    let disk = SimDisk::new();
    let series = [
        (named("a"), scraped(0, 30)),
        (named("b"), scraped(5, 20)),
        (named("c"), related(0.0, 1.0, 100)),
        (named("d"), related(0.5, 1.0, 100)),
        (named("e"), related(0.5, 1.0, 100)),
    ];
    let dir = write(&disk, &series).unwrap();
    let checksum = |file| crc::checksum(&disk::read_all(&disk, &dir.join(file)).unwrap());
    let found = [META_FILE, INDEX_FILE, CHUNKS_FILE].map(checksum);
    assert_eq!(found, [92_426_924, 2_974_631_767, 1_310_683_573]);
}

#[test]
fn what_no_index_can_hold_is_refused_and_what_it_can_is_read() {
    let of = |count: usize| Labels::from_pairs((0..count).map(|n| (format!("l{n:05}"), "x")));
    let mut columns = Columns::default();
    columns.push_float(RANGE.start, 1.0);
    let disk = SimDisk::new();
    let dir = write(&disk, &[(of(LABELS_MAX), columns.clone())]).unwrap();
    assert_eq!(Block::open(&disk, &dir).unwrap().labels(0).unwrap(), of(LABELS_MAX));
    let error = write(&SimDisk::new(), &[(of(LABELS_MAX + 1), columns)]).unwrap_err();
    assert!(matches!(error, BlockError::Labels { labels, .. } if labels == LABELS_MAX + 1));
}
