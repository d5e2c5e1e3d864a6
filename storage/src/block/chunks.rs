//! The chunk file and the two lists that lead into it: columns of times, and chunks per series.
//!
//! Series scraped together share their times, so times are stored once per distinct column and
//! chunks refer to them by number, or to a part of them. Column records and chunks follow each
//! other in the order of writing, each behind it its CRC-32C. A chunk may be taken against that of
//! an earlier series with the same times (`block::relatives` chooses).

use std::ops::Range;

use stint_model::{Span, Timestamp};

use crate::codec::Corruption;
use crate::codec::varint::{self, Reader};
use crate::index::groups::GROUP;

/// Name of the chunk file inside a block's directory.
pub const CHUNKS_FILE: &str = "chunks";

/// First bytes of every chunk file; the last is the format's version.
pub const MAGIC: [u8; 8] = *b"STNTCHK\x02";

/// Those of files that an earlier version wrote: it had fewer forms.
pub const MAGIC_V1: [u8; 8] = *b"STNTCHK\x01";

/// The most rows of one chunk.
pub const ROWS_MAX: usize = 2048;

/// Chunks of different series end at the same times: multiples of this, or of halves of it where
/// there are more than [`ROWS_MAX`] rows. At 15 s these are 1,920 rows.
const WINDOW: Span = Span(8 * 3_600_000);

/// Windows are not halved below this.
const WINDOW_MIN: i64 = 1000;

/// Splits rising `times` into the rows of chunks.
pub fn split(times: &[Timestamp]) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut at = 0;
    while let Some(first) = times.get(at) {
        let start = first.0.div_euclid(WINDOW.0).saturating_mul(WINDOW.0);
        let end = start.saturating_add(WINDOW.0);
        let rest = times.get(at..).unwrap_or_default();
        let rows = rest.partition_point(|time| time.0 < end).max(1);
        split_window(times, at..at + rows, start, WINDOW.0, &mut chunks);
        at += rows;
    }
    chunks
}

fn split_window(
    times: &[Timestamp],
    rows: Range<usize>,
    start: i64,
    window: i64,
    chunks: &mut Vec<Range<usize>>,
) {
    if rows.len() <= ROWS_MAX {
        if !rows.is_empty() {
            chunks.push(rows);
        }
        return;
    }
    if window / 2 < WINDOW_MIN {
        let starts = rows.clone().step_by(ROWS_MAX);
        chunks.extend(starts.map(|at| at..(at + ROWS_MAX).min(rows.end)));
        return;
    }
    let middle = start.saturating_add(window / 2);
    let in_rows = times.get(rows.clone()).unwrap_or_default();
    let at = rows.start + in_rows.partition_point(|time| time.0 < middle);
    split_window(times, rows.start..at, start, window / 2, chunks);
    split_window(times, at..rows.end, middle, window / 2, chunks);
}

/// Where a column of times lies, and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// First byte in the chunk file.
    pub offset: u64,
    /// Bytes, checksum included.
    pub length: u32,
    /// How many times.
    pub rows: u32,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
}

/// The columns of a block in groups, as the index stores them.
pub fn column_groups(columns: &[ColumnInfo]) -> Vec<Vec<u8>> {
    let group = |columns: &[ColumnInfo]| {
        let mut group = Vec::new();
        let (mut end, mut first) = (0, 0);
        for column in columns {
            varint::put(&mut group, column.offset - end);
            varint::put(&mut group, u64::from(column.length));
            varint::put(&mut group, u64::from(column.rows));
            varint::put_signed(&mut group, column.first.0.wrapping_sub(first));
            varint::put(&mut group, column.last.0.wrapping_sub(column.first.0) as u64);
            end = column.offset + u64::from(column.length);
            first = column.first.0;
        }
        group
    };
    columns.chunks(GROUP).map(group).collect()
}

/// Column number `number` in the bytes of its group.
pub fn column_in_group(group: &[u8], number: u32) -> Result<ColumnInfo, Corruption> {
    let mut reader = Reader::new(group);
    let (mut end, mut first) = (0_u64, 0_i64);
    let mut take = || -> Result<ColumnInfo, Corruption> {
        let offset = end.saturating_add(reader.varint()?);
        let length = reader.varint_up_to(u32::MAX as usize)? as u32;
        let rows = reader.varint_up_to(ROWS_MAX)? as u32;
        first = first.wrapping_add(reader.signed()?);
        let last = first.wrapping_add(reader.varint()? as i64);
        end = offset.saturating_add(u64::from(length));
        Ok(ColumnInfo { offset, length, rows, first: Timestamp(first), last: Timestamp(last) })
    };
    for _ in 0..number % GROUP as u32 {
        take()?;
    }
    take()
}

const HAS_GAP: u8 = 1;
const IS_PART: u8 = 2;
const HAS_BASE: u8 = 4;

/// Where a chunk lies and when its samples were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Bytes of other things between the end of the series' chunk before and this one.
    pub gap: u64,
    /// Bytes, checksum included.
    pub length: u32,
    /// Number of the column of times.
    pub column: u32,
    /// First row and number of rows, where the chunk has not all times of its column.
    pub part: Option<(u32, u32)>,
    /// How many series before this one the series is whose chunk of the same times this one is
    /// taken against, where it does not stand by itself; not 0.
    pub base: Option<u32>,
}

impl ChunkRef {
    /// Appends the reference.
    pub fn put(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(
            flag(self.gap > 0, HAS_GAP)
                | flag(self.part.is_some(), IS_PART)
                | flag(self.base.is_some(), HAS_BASE),
        );
        if self.gap > 0 {
            varint::put(out, self.gap);
        }
        varint::put(out, u64::from(self.column));
        if let Some((first, rows)) = self.part {
            varint::put(out, u64::from(first));
            varint::put(out, u64::from(rows));
        }
        if let Some(base) = self.base {
            varint::put(out, u64::from(base));
        }
        varint::put(out, u64::from(self.length));
    }

    /// Reads a reference.
    pub fn take(reader: &mut Reader<'_>) -> Result<Self, Corruption> {
        let flags = reader.byte()?;
        if flags & !(HAS_GAP | IS_PART | HAS_BASE) != 0 {
            return Err(reader.corrupt("an unknown kind of chunk"));
        }
        let gap = if flags & HAS_GAP == 0 { 0 } else { reader.varint()? };
        let column = reader.varint_up_to(u32::MAX as usize)? as u32;
        let part = if flags & IS_PART == 0 {
            None
        } else {
            Some((reader.varint_up_to(ROWS_MAX)? as u32, reader.varint_up_to(ROWS_MAX)? as u32))
        };
        let base = if flags & HAS_BASE == 0 {
            None
        } else {
            Some(reader.varint_up_to(u32::MAX as usize)? as u32)
        };
        let length = reader.varint_up_to(u32::MAX as usize)? as u32;
        Ok(Self { gap, length, column, part, base })
    }
}

/// What the checksum of chunk `number` of a series covers beside its bytes.
pub fn chunk_place(series: u32, number: usize) -> u64 {
    (u64::from(series) << 24) | (number as u64 & 0xff_ffff)
}

/// What the checksum of a column covers beside its bytes.
pub fn column_place(column: u32) -> u64 {
    u64::MAX - u64::from(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_cover_all_rows(
            start in prop_oneof![any::<i64>(), -100_000_000_i64..100_000_000],
            step in 1_i64..100_000,
            count in 0_i64..10_000,
        ) {
            let times: Vec<Timestamp> =
                (0..count).map_while(|i| start.checked_add(i * step)).map(Timestamp).collect();
            let chunks = split(&times);
            let mut end = 0;
            for chunk in &chunks {
                prop_assert_eq!(chunk.start, end);
                prop_assert!(!chunk.is_empty() && chunk.len() <= ROWS_MAX);
                end = chunk.end;
            }
            prop_assert_eq!(end, times.len());
        }

        #[test]
        fn references_come_back(
            gap: u64, length: u32, column: u32, part in proptest::option::of((0_u32..2048, 0_u32..2048)),
            base: Option<u32>,
        ) {
            let chunk = ChunkRef { gap, length, column, part, base };
            let mut bytes = Vec::new();
            chunk.put(&mut bytes);
            prop_assert_eq!(ChunkRef::take(&mut Reader::new(&bytes)).unwrap(), chunk);
        }
    }

    #[test]
    fn two_hours_of_scrapes_are_one_chunk() {
        let times: Vec<Timestamp> = (0..480).map(|i| Timestamp(7_200_000 + i * 15_000)).collect();
        assert_eq!(split(&times), std::slice::from_ref(&(0..480)));
    }

    #[test]
    fn chunks_of_a_day_end_where_those_of_others_do() {
        let day = |offset: i64| -> Vec<i64> {
            let times: Vec<Timestamp> = (0..5760).map(|i| Timestamp(offset + i * 15_000)).collect();
            split(&times).iter().map(|rows| times[rows.start].0 / WINDOW.0).collect()
        };
        assert_eq!(day(0), [0, 1, 2]);
        assert_eq!(day(9_000), [0, 1, 2]);
    }

    #[test]
    fn columns_come_back() {
        let columns: Vec<ColumnInfo> = (0..40)
            .map(|i| ColumnInfo {
                offset: 8 + i * 100,
                length: 90,
                rows: 480,
                first: Timestamp(i as i64 * -7),
                last: Timestamp(i as i64 * 3),
            })
            .collect();
        let groups = column_groups(&columns);
        for (number, column) in columns.iter().enumerate() {
            assert_eq!(column_in_group(&groups[number / GROUP], number as u32).unwrap(), *column);
        }
    }
}
