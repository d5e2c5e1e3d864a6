//! Whether a block fits together.

use roaring::RoaringBitmap;
use stint_model::{Columns, Timestamp};

use super::{Block, ChunkRef, ColumnInfo, MAGIC, META_FILE, Relative, TimesOf, chunks};
use crate::block::chunks::ROWS_MAX;
use crate::codec::chunk;
use crate::codec::varint::Reader;
use crate::codec::{Corruption, times};

/// What reading all of a block's chunks comes to.
#[derive(Default)]
struct Walk {
    /// First byte and length of everything in the chunk file.
    parts: Vec<(u64, u64)>,
    columns: Vec<Vec<Timestamp>>,
    used: RoaringBitmap,
    chunks: u64,
    samples: u64,
}

impl Block {
    /// Reads everything once and checks that it fits together.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn verify(&self) -> Result<(), Corruption> {
        self.verify_meta()?;
        self.in_index(self.inner.index.verify())?;
        let mut walk = Walk::default();
        self.walk_columns(&mut walk)?;
        let mut columns = Columns::default();
        for series in 0..self.series_len() {
            self.walk_series(series, &mut columns, &mut walk)?;
        }
        let corrupt = |what| Err(self.inner.corrupt(0, what));
        if walk.used.len() < walk.columns.len() as u64 {
            return corrupt("a column of times that no chunk refers to");
        }
        walk.parts.sort_unstable();
        let mut end = MAGIC.len() as u64;
        for (start, length) in walk.parts {
            if start != end {
                return Err(self.inner.corrupt(end, "chunks that overlap or leave a gap"));
            }
            end = start + length;
        }
        let meta = self.meta();
        if end != meta.chunks_bytes {
            return Err(self.inner.corrupt(end, "bytes behind the last chunk"));
        }
        if walk.samples != meta.samples {
            return corrupt("not as many samples as the meta says");
        }
        if walk.chunks != meta.chunks {
            return corrupt("not as many chunks as the meta says");
        }
        if walk.columns.len() as u64 != meta.columns {
            return corrupt("not as many columns of times as the meta says");
        }
        self.verify_tombstones()
    }

    fn verify_meta(&self) -> Result<(), Corruption> {
        let meta = self.meta();
        let file = self.dir().join(META_FILE).display().to_string();
        let wrong = if meta.range.is_empty() {
            "an empty range of time"
        } else if meta.level == 0 {
            "no level"
        } else if meta.level > 1 && meta.parents.is_empty() {
            "a merged block without parents"
        } else if meta.age > meta.id || meta.parents.iter().any(|parent| *parent >= meta.id) {
            "it is older than what it comes from"
        } else {
            return Ok(());
        };
        Err(Corruption { file, offset: 0, what: wrong })
    }

    fn walk_columns(&self, walk: &mut Walk) -> Result<(), Corruption> {
        let inner = &self.inner;
        for number in 0..inner.index.columns_len() {
            let ColumnInfo { offset, length, rows, first, last } = inner.column_info(number)?;
            walk.parts.push((offset, u64::from(length)));
            let bytes = inner.record(offset, length, chunks::column_place(number))?;
            let mut reader = Reader::new(bytes);
            let mut decoded = Vec::new();
            times::take(&mut reader, rows as usize, &mut decoded)
                .map_err(|corruption| corruption.in_file(&inner.chunks_file, offset))?;
            if !reader.is_empty() || rows as usize > ROWS_MAX {
                return Err(inner.corrupt(offset, "a column of more times than are told"));
            }
            if decoded.first().zip(decoded.last()) != Some((&first, &last)) {
                return Err(inner.corrupt(offset, "a column of other times than are told"));
            }
            if !decoded.windows(2).all(|pair| pair.first() < pair.get(1)) {
                return Err(inner.corrupt(offset, "a column whose times do not rise"));
            }
            walk.columns.push(decoded);
        }
        Ok(())
    }

    fn walk_series(
        &self,
        series: u32,
        columns: &mut Columns,
        walk: &mut Walk,
    ) -> Result<(), Corruption> {
        let inner = &self.inner;
        let place = self.place(series)?;
        let mut list = Reader::new(inner.index.at_place(place.list));
        let mut offset = place.first;
        columns.clear();
        let count = self.in_index(list.varint_up_to(list.rest().len()))?;
        for number in 0..count {
            let chunk = self.in_index(ChunkRef::take(&mut list))?;
            offset = offset.saturating_add(chunk.gap);
            walk.parts.push((offset, u64::from(chunk.length)));
            let bytes = inner.record(offset, chunk.length, chunks::chunk_place(series, number))?;
            let times = walk.columns.get(chunk.column as usize);
            let times = times.map(Vec::as_slice).and_then(|times| match chunk.part {
                None => Some(times),
                Some((first, rows)) => {
                    times.get(first as usize..(first as usize).checked_add(rows as usize)?)
                }
            });
            let Some(times) = times.filter(|times| !times.is_empty()) else {
                return Err(inner.corrupt(offset, "a chunk of times that do not exist"));
            };
            walk.used.insert(chunk.column);
            let mut reader = Reader::new(bytes);
            columns.times.extend_from_slice(times);
            let taken = match chunk.base {
                None => chunk::take_rows(&mut reader, times.len(), columns),
                Some(distance) => {
                    let of = TimesOf { column: chunk.column, part: chunk.part };
                    let relative = Relative { series, distance, times: of, rows: times.len() };
                    let base = inner.base_of(relative)?;
                    chunk::take_relative(&mut reader, &base, 0..times.len(), columns)
                }
            };
            taken.map_err(|corruption| corruption.in_file(&inner.chunks_file, offset))?;
            if !reader.is_empty() {
                return Err(inner.corrupt(offset, "a chunk of more rows than it has times"));
            }
            offset = offset.saturating_add(u64::from(chunk.length));
            walk.chunks += 1;
        }
        if !list.is_empty() {
            return Err(self.inner.corrupt(offset, "a list of more chunks than are told"));
        }
        walk.samples += columns.len() as u64;
        let rising = columns.times.windows(2).all(|pair| pair.first() < pair.get(1));
        let inside =
            |time: Option<&Timestamp>| time.is_some_and(|time| self.meta().range.contains(*time));
        if rising && inside(columns.times.first()) && inside(columns.times.last()) {
            Ok(())
        } else {
            Err(inner.corrupt(place.first, "samples out of order or out of range"))
        }
    }

    fn verify_tombstones(&self) -> Result<(), Corruption> {
        let tombstones = self.tombstones();
        let wrong = if tombstones.last_series().is_some_and(|last| last >= self.series_len()) {
            "a deletion from a series that does not exist"
        } else if !tombstones.is_canonical() {
            "ranges that are empty, overlap or do not rise"
        } else {
            return Ok(());
        };
        let file = self.dir().join(crate::tombstones::TOMBSTONES_FILE).display().to_string();
        Err(Corruption { file, offset: 0, what: wrong })
    }
}

#[cfg(test)]
mod tests;
