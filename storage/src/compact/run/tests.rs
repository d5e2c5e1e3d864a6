use super::*;
use crate::block::meta::without_superseded;
use crate::compact::{Candidate, CompactOptions, plan, plan_clean};
use crate::disk::sim::{Crash, Fault, SimDisk};
use crate::index::series_order;
use std::collections::BTreeMap;
use stint_model::{Labels, Selector, Span, TimeRange, Timestamp};

const DIR: &str = "blocks";
const HOUR: i64 = Span::HOUR.0;

/// Samples by series and time.
type Content = BTreeMap<(String, i64), u64>;

/// Writes a block of `hours` in which each of `names` has `value` every ten minutes.
fn write(disk: &dyn Disk, id: u64, hours: (i64, i64), names: &[&str], value: f64) {
    let range = TimeRange::new(Timestamp(hours.0 * HOUR), Timestamp(hours.1 * HOUR));
    let meta = BlockMeta::new(BlockId(id), range);
    let mut writer = BlockWriter::new(disk, Path::new(DIR), meta).unwrap();
    let mut series: Vec<Labels> =
        names.iter().map(|name| Labels::from_pairs([("__name__", name)])).collect();
    series.sort_by(series_order);
    for labels in &series {
        let mut columns = Columns::default();
        for at in (range.start.0..range.end.0).step_by(600_000) {
            columns.push_float(Timestamp(at), value + at as f64 / 1e9);
        }
        writer.add_series(labels, &columns).unwrap();
    }
    writer.finish().unwrap();
}

fn open_all(disk: &dyn Disk) -> Vec<Block> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    let names = entries.iter().filter(|entry| BlockId::from_dir_name(&entry.name).is_some());
    names.map(|entry| Block::open(disk, &Path::new(DIR).join(&entry.name)).unwrap()).collect()
}

/// Everything that blocks which count hold; a sample held twice is an error unless `overlap`.
fn content(disk: &dyn Disk, overlap: bool) -> Content {
    let blocks = open_all(disk);
    let metas: Vec<BlockMeta> = blocks.iter().map(|block| block.meta().clone()).collect();
    let (live, _) = without_superseded(&metas);
    let mut content = Content::new();
    for block in blocks.iter().filter(|block| live.contains(&block.meta())) {
        block.verify().unwrap();
        for series in 0..block.series_len() {
            let labels = block.labels(series).unwrap().to_string();
            let mut columns = Columns::default();
            block.read(series, TimeRange::ALL, &mut columns).unwrap();
            for (time, value) in columns.times.iter().zip(&columns.values) {
                let key = (labels.clone(), time.0);
                assert!(overlap || !content.contains_key(&key), "{key:?} is there twice");
                content.entry(key).or_insert(value.to_bits());
            }
        }
    }
    content
}

fn three_blocks(disk: &dyn Disk) {
    write(disk, 1, (0, 2), &["a", "b"], 1.0);
    write(disk, 2, (2, 4), &["b", "c"], 2.0);
    write(disk, 3, (4, 6), &["a", "d"], 3.0);
}

fn next_plan(blocks: &[Block]) -> Option<Plan> {
    let candidates: Vec<Candidate<'_>> = blocks
        .iter()
        .map(|block| Candidate {
            meta: block.meta(),
            deleted_series: block.tombstones().series_len() as u64,
        })
        .collect();
    plan(&candidates, &CompactOptions::for_retention(Span(7 * Span::DAY.0)))
}

fn compact(disk: &dyn Disk) -> Result<Outcome, BlockError> {
    let blocks = open_all(disk);
    let plan = next_plan(&blocks).unwrap();
    run(disk, Path::new(DIR), blocks, &plan, BlockId(9), &mut || true)
}

#[test]
fn blocks_side_by_side_become_one() {
    let disk = SimDisk::new();
    three_blocks(&disk);
    let before = content(&disk, false);
    let Outcome::Merged(meta) = compact(&disk).unwrap() else { panic!("not merged") };
    assert_eq!((meta.series, meta.samples, meta.level), (4, 72, 2));
    assert_eq!(content(&disk, false), before);
    for id in [1, 2, 3] {
        disk.remove_dir(&Path::new(DIR).join(BlockId(id).dir_name())).unwrap();
    }
    assert_eq!(content(&disk, false), before);
}

#[test]
fn of_overlapping_blocks_the_older_wins() {
    let disk = SimDisk::new();
    write(&disk, 1, (0, 4), &["a", "b"], 1.0);
    write(&disk, 2, (2, 6), &["b", "c"], 2.0);
    let before = content(&disk, true);
    compact(&disk).unwrap();
    assert_eq!(content(&disk, false), before);
}

#[test]
fn deleted_samples_are_left_out() {
    let disk = SimDisk::new();
    three_blocks(&disk);
    for block in open_all(&disk) {
        let range = TimeRange::new(Timestamp(HOUR), Timestamp(3 * HOUR));
        block.delete(&disk, &Selector::metric("b"), range).unwrap();
    }
    let before = content(&disk, false);
    assert_eq!(before.len(), 72 - 12);
    let Outcome::Merged(meta) = compact(&disk).unwrap() else { panic!("not merged") };
    assert_eq!(meta.samples, 60);
    assert_eq!(content(&disk, false), before);
}

#[test]
fn a_block_all_of_which_was_deleted_leaves_nothing() {
    let disk = SimDisk::new();
    write(&disk, 1, (0, 2), &["a"], 1.0);
    let block = open_all(&disk).remove(0);
    let block = block.delete(&disk, &Selector::metric("a"), TimeRange::ALL).unwrap();
    let candidate = Candidate { meta: block.meta(), deleted_series: 1 };
    let plan = plan_clean(&[candidate]).unwrap();
    let outcome =
        run(&disk, Path::new(DIR), vec![block.clone()], &plan, BlockId(2), &mut || true).unwrap();
    assert_eq!(outcome, Outcome::Empty);
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 1);
}

#[test]
fn it_stops_between_series() {
    let disk = SimDisk::new();
    three_blocks(&disk);
    let blocks = open_all(&disk);
    let plan = next_plan(&blocks).unwrap();
    let mut series = 0;
    let mut go_on = || {
        series += 1;
        series < 3
    };
    let outcome = run(&disk, Path::new(DIR), blocks, &plan, BlockId(9), &mut go_on).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 3);
}

#[test]
fn a_crash_at_any_call_loses_and_doubles_nothing() {
    let disk = SimDisk::new();
    three_blocks(&disk);
    disk.sync_dir(Path::new("")).unwrap();
    let before = content(&disk, false);
    let fresh = || disk.after_crash(Crash::KILL);
    for fault in [Fault::Io, Fault::Full, Fault::Crash] {
        for call in 0.. {
            let disk = fresh();
            disk.set_plan(Some(crate::disk::sim::Plan { call, fault, repeated: false }));
            let failed = compact_opened(&disk).is_err();
            let calls = disk.calls();
            for crash in Crash::ALL {
                let after = disk.after_crash(crash);
                assert_eq!(content(&after, false), before, "{fault:?} at call {call}, {crash:?}");
            }
            if !failed && calls <= call {
                break;
            }
        }
    }
}

/// As [`compact`], but an error while opening is an error.
fn compact_opened(disk: &SimDisk) -> Result<Outcome, BlockError> {
    let mut blocks = Vec::new();
    for id in [1, 2, 3] {
        blocks.push(Block::open(disk, &Path::new(DIR).join(BlockId(id).dir_name()))?);
    }
    let plan = next_plan(&blocks).unwrap();
    run(disk, Path::new(DIR), blocks, &plan, BlockId(9), &mut || true)
}
