//! Each test damages one thing so that all checksums hold.

use std::path::Path;

use stint_model::{Labels, TimeRange};

use super::*;
use crate::block::chunks::CHUNKS_FILE;
use crate::block::{BlockError, BlockId, BlockMeta, BlockWriter};
use crate::codec::{crc, varint};
use crate::disk::{Disk as _, read_all, sim::SimDisk};
use crate::tombstones::TOMBSTONES_FILE;

const DIR: &str = "blocks/b-0000000007";

fn range() -> TimeRange {
    TimeRange::new(Timestamp(1000), Timestamp(9000))
}

/// A block of two series with the same times and one with others.
fn write(meta: BlockMeta, look: impl FnOnce(&mut BlockWriter<'_>)) -> SimDisk {
    let disk = SimDisk::new();
    let mut writer = BlockWriter::new(&disk, Path::new("blocks"), meta).unwrap();
    for (name, step) in [("a", 100), ("b", 100), ("c", 130)] {
        let mut columns = Columns::default();
        for row in 0..40 {
            columns.push_float(Timestamp(1000 + row * step), row as f64 / 7.0);
        }
        writer.add_series(&Labels::from_pairs([("__name__", name)]), &columns).unwrap();
    }
    look(&mut writer);
    writer.finish().unwrap();
    disk
}

fn meta() -> BlockMeta {
    BlockMeta::new(BlockId(7), range())
}

fn replace(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let path = Path::new(DIR).join(name);
    if disk.size(&path).is_ok() {
        disk.remove(&path).unwrap();
    }
    disk.create(&path).unwrap().append(bytes).unwrap();
}

fn finding(disk: &SimDisk) -> String {
    match Block::open(disk, Path::new(DIR)).map(|block| block.verify()) {
        Ok(Ok(())) => "nothing".to_owned(),
        Ok(Err(corruption)) => corruption.what.to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What is found where the meta says something else.
fn finding_with(edit: impl FnOnce(&mut BlockMeta)) -> String {
    let disk = write(meta(), |_| {});
    let mut meta = Block::open(&disk, Path::new(DIR)).unwrap().meta().clone();
    edit(&mut meta);
    replace(&disk, META_FILE, meta.to_text().as_bytes());
    finding(&disk)
}

#[test]
fn the_meta_makes_sense_and_counts_what_is_there() {
    assert_eq!(finding_with(|_| {}), "nothing");
    assert_eq!(finding_with(|meta| meta.range.end = meta.range.start), "an empty range of time");
    assert_eq!(finding_with(|meta| meta.level = 0), "no level");
    assert_eq!(finding_with(|meta| meta.level = 2), "a merged block without parents");
    let what = "it is older than what it comes from";
    assert_eq!(finding_with(|meta| meta.parents = vec![BlockId(7)]), what);
    let what = "not as many samples as the meta says";
    assert_eq!(finding_with(|meta| meta.samples += 1), what);
    assert_eq!(finding_with(|meta| meta.chunks += 1), "not as many chunks as the meta says");
    let what = "not as many columns of times as the meta says";
    assert_eq!(finding_with(|meta| meta.columns += 1), what);
    let what = "samples out of order or out of range";
    assert_eq!(finding_with(|meta| meta.range.end = Timestamp(5000)), what);
    assert_eq!(finding_with(|meta| meta.range.start = Timestamp(1001)), what);
    assert!(finding_with(|meta| meta.series += 1).contains("has not the series"));
    assert!(finding_with(|meta| meta.index_bytes += 1).contains("not as long"));
}

#[test]
fn chunks_fill_their_file() {
    let disk = write(meta(), |_| {});
    let path = Path::new(DIR).join(CHUNKS_FILE);
    disk.open(&path).unwrap().append(b"more").unwrap();
    let mut meta =
        Block::open(&write(self::meta(), |_| {}), Path::new(DIR)).unwrap().meta().clone();
    meta.chunks_bytes += 4;
    replace(&disk, META_FILE, meta.to_text().as_bytes());
    assert_eq!(finding(&disk), "bytes behind the last chunk");

    let disk = write(self::meta(), |writer| {
        writer.leave_gap();
        let mut columns = Columns::default();
        columns.push_float(Timestamp(1000), 1.0);
        writer.add_series(&Labels::from_pairs([("__name__", "d")]), &columns).unwrap();
    });
    assert_eq!(finding(&disk), "chunks that overlap or leave a gap");
}

/// What is found where the columns of times are told to be others.
fn finding_with_columns(edit: impl FnOnce(&mut Vec<ColumnInfo>)) -> String {
    finding(&write(meta(), |writer| writer.edit_columns(edit)))
}

#[test]
fn columns_of_times_are_as_told_and_in_use() {
    assert_eq!(finding_with_columns(|_| {}), "nothing");
    let what = "a column of other times than are told";
    assert_eq!(finding_with_columns(|columns| columns[0].last.0 += 1), what);
    assert_eq!(finding_with_columns(|columns| columns[1].first.0 -= 1), what);
    assert_ne!(finding_with_columns(|columns| columns[1].rows -= 1), "nothing");
    assert_ne!(finding_with_columns(|columns| columns[1].offset += 1), "nothing");
    assert_ne!(finding_with_columns(|columns| columns.truncate(1)), "nothing");
    let disk = write(meta(), |writer| {
        let times: Vec<Timestamp> = (0..40).map(|row| Timestamp(1000 + row * 170)).collect();
        writer.add_column(&times);
    });
    assert_eq!(finding(&disk), "a column of times that no chunk refers to");
    let disk = write(meta(), |writer| {
        let times: Vec<Timestamp> = [1000, 3000, 2000].map(Timestamp).into();
        writer.add_column(&times);
    });
    assert_eq!(finding(&disk), "a column whose times do not rise");
}

fn tombstones(body: &[u64]) -> Vec<u8> {
    let mut bytes = b"STNTTMB\x01".to_vec();
    for number in body {
        varint::put(&mut bytes, *number);
    }
    let checksum = crc::checksum(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn tombstones_are_of_series_that_exist_by_ranges_that_rise() {
    let disk = write(meta(), |_| {});
    // Series, ranges, then start (zigzag) and length of each.
    replace(&disk, TOMBSTONES_FILE, &tombstones(&[2, 1, 4000, 10]));
    assert_eq!(finding(&disk), "nothing");
    replace(&disk, TOMBSTONES_FILE, &tombstones(&[3, 1, 4000, 10]));
    assert_eq!(finding(&disk), "a deletion from a series that does not exist");
    for odd in
        [&[2, 1, 4000, 0][..], &[2, 2, 4000, 10, 2000, 10], &[2, 2, 4000, 10, 4010, 10], &[2, 0]]
    {
        replace(&disk, TOMBSTONES_FILE, &tombstones(odd));
        let what = "ranges that are empty, overlap or do not rise";
        assert_eq!(finding(&disk), what, "{odd:?}");
    }
    let path = Path::new(DIR).join(TOMBSTONES_FILE);
    let end = read_all(&disk, &path).unwrap().len() - 1;
    disk.damage(&path, end, 1).unwrap();
    assert!(finding(&disk).contains("checksum"));
    assert!(matches!(Block::open(&disk, Path::new(DIR)), Err(BlockError::Corruption(_))));
}
