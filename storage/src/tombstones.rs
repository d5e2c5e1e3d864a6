//! What was deleted from a block since it was written: ranges of time per series.
//!
//! Queries leave them out; the next compaction drops the samples for good. The file is replaced
//! whole: `magic | series… | crc32c u32`, a series being its number (as difference), the number
//! of its ranges, and start and length of each.

use std::collections::BTreeMap;
use std::path::Path;

use stint_model::{Columns, TimeRange, Timestamp};

use crate::block::BlockError;
use crate::codec::varint::{self, Reader};
use crate::codec::{Corruption, crc};
use crate::disk::{self, Disk, DiskResult};
use crate::query::columns::forget_reset;

/// Name of the file inside a block's directory.
pub const TOMBSTONES_FILE: &str = "tombstones";

/// First bytes of the file; the last is the format's version.
const MAGIC: [u8; 8] = *b"STNTTMB\x01";

/// Deleted ranges by series number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    /// Per series: ranges that neither overlap nor touch, in order.
    ranges: BTreeMap<u32, Vec<TimeRange>>,
    size_bytes: u64,
    /// Whether what was read was not as it is written.
    odd: bool,
}

impl Tombstones {
    /// Marks `range` of a series as deleted.
    pub fn add(&mut self, series: u32, range: TimeRange) {
        if range.is_empty() {
            return;
        }
        let ranges = self.ranges.entry(series).or_default();
        let mut merged = range;
        ranges.retain(|other| {
            let touches = other.start <= merged.end && merged.start <= other.end;
            if touches {
                merged.start = merged.start.min(other.start);
                merged.end = merged.end.max(other.end);
            }
            !touches
        });
        let at = ranges.partition_point(|other| other.start < merged.start);
        ranges.insert(at, merged);
    }

    /// Whether nothing was deleted.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many series something was deleted of.
    pub fn series_len(&self) -> usize {
        self.ranges.len()
    }

    /// Bytes of the file; 0 when there is none.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The highest number of a series that something was deleted of.
    pub(crate) fn last_series(&self) -> Option<u32> {
        self.ranges.last_key_value().map(|(series, _)| *series)
    }

    /// Whether they were read as they are written: ranges in order, apart, and not empty.
    pub(crate) fn is_canonical(&self) -> bool {
        !self.odd
    }

    /// The deleted ranges of a series, in order.
    pub fn of(&self, series: u32) -> &[TimeRange] {
        self.ranges.get(&series).map(Vec::as_slice).unwrap_or_default()
    }

    /// Removes the deleted samples of `series` from `columns`, from row `first` on.
    pub fn mask(&self, series: u32, first: usize, columns: &mut Columns) {
        remove_ranges(self.of(series), first, columns);
    }

    /// The file's bytes.
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut before = 0;
        for (series, ranges) in &self.ranges {
            varint::put(&mut out, u64::from(series - before));
            before = *series;
            varint::put(&mut out, ranges.len() as u64);
            for range in ranges {
                varint::put_signed(&mut out, range.start.0);
                varint::put(&mut out, range.end.0.wrapping_sub(range.start.0) as u64);
            }
        }
        let checksum = crc::checksum(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let body = match bytes.split_last_chunk::<4>() {
            Some((body, checksum)) if crc::checksum(body) == u32::from_le_bytes(*checksum) => body,
            _ => return Err(Corruption::new(0, "the checksum of tombstones does not match")),
        };
        let Some(body) = body.strip_prefix(&MAGIC) else {
            return Err(Corruption::new(0, "not tombstones of a known version"));
        };
        let mut reader = Reader::new(body);
        let mut tombstones = Self { size_bytes: bytes.len() as u64, ..Self::default() };
        let mut series = 0_u32;
        while !reader.is_empty() {
            let step = reader.varint_up_to(u32::MAX as usize)? as u32;
            series = series
                .checked_add(step)
                .ok_or_else(|| reader.corrupt("a series of more than 32 bits"))?;
            for _ in 0..reader.varint()? {
                let start = reader.signed()?;
                let end = start.wrapping_add(reader.varint()? as i64);
                tombstones.add(series, TimeRange::new(Timestamp(start), Timestamp(end)));
            }
        }
        tombstones.odd = tombstones.encode() != bytes;
        Ok(tombstones)
    }

    /// Reads the tombstones of the block in `dir`; none, when there is no file.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, BlockError> {
        let path = dir.join(TOMBSTONES_FILE);
        match disk::read_all(disk, &path) {
            Ok(bytes) => Self::decode(&bytes)
                .map_err(|corruption| corruption.in_file(&path.display().to_string(), 0).into()),
            Err(error) if error.is_not_found() => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the tombstones of the block in `dir`.
    pub fn write(&mut self, disk: &dyn Disk, dir: &Path) -> DiskResult<()> {
        let bytes = self.encode();
        disk::write_atomically(disk, &dir.join(TOMBSTONES_FILE), &bytes)?;
        self.size_bytes = bytes.len() as u64;
        self.odd = false;
        Ok(())
    }
}

/// Removes the samples inside `ranges`, which are in order, from row `first` on. Nothing is known
/// about resets of what follows a removed sample.
pub fn remove_ranges(ranges: &[TimeRange], first: usize, columns: &mut Columns) {
    let deleted = |time: Timestamp| {
        let next = ranges.partition_point(|range| range.end <= time);
        ranges.get(next).is_some_and(|range| range.contains(time))
    };
    let tail = columns.times.get(first..).unwrap_or_default();
    if ranges.is_empty() || !tail.iter().any(|time| deleted(*time)) {
        return;
    }
    let mut kept = first;
    let mut follows_removed = false;
    let mut histograms = std::mem::take(&mut columns.histograms).into_iter().peekable();
    for row in 0..columns.times.len() {
        let histogram = histograms.next_if(|(at, _)| *at == row);
        let Some(time) = columns.times.get(row).copied() else { break };
        if row >= first && deleted(time) {
            follows_removed = true;
            continue;
        }
        let target = if row < first { row } else { kept };
        let joint = columns.histograms.len();
        columns.histograms.extend(histogram.map(|(_, histogram)| (target, histogram)));
        if std::mem::take(&mut follows_removed) {
            forget_reset(columns, joint);
        }
        if row >= first {
            columns.times.swap(kept, row);
            columns.values.swap(kept, row);
            if !columns.starts.is_empty() {
                columns.starts.swap(kept, row);
            }
            kept += 1;
        }
    }
    columns.times.truncate(kept);
    columns.values.truncate(kept);
    columns.starts.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::chunk::tests::{assert_same, columns};
    use crate::disk::sim::SimDisk;
    use proptest::prelude::*;
    use std::sync::Arc;
    use stint_model::histogram::ResetHint;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp(start), Timestamp(end))
    }

    #[test]
    fn touching_ranges_become_one() {
        let mut tombstones = Tombstones::default();
        for (start, end) in [(10, 20), (40, 50), (20, 30), (5, 5), (29, 41)] {
            tombstones.add(3, range(start, end));
        }
        assert_eq!(tombstones.of(3), [range(10, 50)]);
        assert_eq!(tombstones.of(4), []);
    }

    #[test]
    fn they_come_back_from_disk() {
        let disk = SimDisk::new();
        let dir = Path::new("b");
        disk.create_dir(dir).unwrap();
        assert!(Tombstones::read(&disk, dir).unwrap().is_empty());
        let mut tombstones = Tombstones::default();
        tombstones.add(0, TimeRange::ALL);
        tombstones.add(7, range(-5, 5));
        tombstones.add(7, range(50, 55));
        tombstones.write(&disk, dir).unwrap();
        assert_eq!(Tombstones::read(&disk, dir).unwrap(), tombstones);
        for at in 0..tombstones.size_bytes() as usize {
            disk.damage(&dir.join(TOMBSTONES_FILE), at, 4).unwrap();
            assert!(Tombstones::read(&disk, dir).is_err());
            disk.damage(&dir.join(TOMBSTONES_FILE), at, 4).unwrap();
        }
    }

    proptest! {
        #[test]
        fn deleted_rows_are_gone_and_others_stay(
            columns in columns(),
            first: prop::sample::Index,
            ranges in proptest::collection::vec((0_i64..3_000_000, 0_i64..500_000), 0..4),
        ) {
            let first = first.index(columns.len() + 1);
            let mut tombstones = Tombstones::default();
            for (start, length) in ranges {
                let start = 1_700_000_000_000 + start;
                tombstones.add(1, range(start, start + length));
            }
            let mut expected = Columns::default();
            let mut histograms = columns.histograms.iter();
            let mut follows_removed = false;
            for (row, time) in columns.times.iter().enumerate() {
                let histogram =
                    histograms.as_slice().first().filter(|(at, _)| *at == row).cloned();
                if histogram.is_some() {
                    histograms.next();
                }
                if row >= first && tombstones.of(1).iter().any(|range| range.contains(*time)) {
                    follows_removed = true;
                    continue;
                }
                let is_known = !std::mem::take(&mut follows_removed);
                match histogram {
                    Some((_, mut histogram)) => {
                        if !is_known && histogram.reset_hint() != ResetHint::Gauge {
                            Arc::make_mut(&mut histogram).set_reset_hint(ResetHint::Unknown);
                        }
                        expected.push_histogram(*time, histogram);
                    }
                    None => expected.push_float(*time, columns.values[row]),
                }
                if let Some(start) = columns.starts.get(row) {
                    expected.set_last_start(*start);
                }
            }
            let mut masked = columns.clone();
            tombstones.mask(1, first, &mut masked);
            assert_same(&masked, &expected);
        }
    }
}
