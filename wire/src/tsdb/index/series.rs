//! Entries of series.

use stint_model::{Labels, Timestamp};

use super::{Index, SERIES_ALIGN};
use crate::tsdb::cursor::Cursor;
use crate::tsdb::{Damage, checksum_holds};

/// Where a chunk lies, and from when to when it has samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Time of its first sample.
    pub first: Timestamp,
    /// Time of its last sample.
    pub last: Timestamp,
    /// Number of its file, from 1.
    pub file: u32,
    /// Where in the file.
    pub offset: u32,
}

/// A series of a block. Kept by callers, to be filled again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesEntry {
    /// Its labels as numbers of symbols: name and value of each.
    pub labels: Vec<(u32, u32)>,
    /// Its chunks, in order of time.
    pub chunks: Vec<ChunkRef>,
}

impl Index<'_> {
    /// Fills `entry` with series number `number`, of which the checksum is verified.
    pub fn series(&self, number: u32, entry: &mut SeriesEntry) -> Result<(), Damage> {
        entry.labels.clear();
        entry.chunks.clear();
        let at = usize::try_from(u64::from(number) * SERIES_ALIGN).unwrap_or(usize::MAX);
        let rest = self.bytes.get(at..).unwrap_or_default();
        fill(rest, entry).map_err(|damage| damage.behind(at))
    }

    /// The labels of `entry`.
    pub fn labels(&self, entry: &SeriesEntry) -> Result<Labels, Damage> {
        let mut pairs = Vec::with_capacity(entry.labels.len());
        for (name, value) in &entry.labels {
            pairs.push((self.symbol(*name)?, self.symbol(*value)?));
        }
        let sorted = Labels::from_sorted(pairs.iter().copied());
        Ok(sorted.unwrap_or_else(|| Labels::from_pairs(pairs)))
    }
}

fn fill(rest: &[u8], entry: &mut SeriesEntry) -> Result<(), Damage> {
    let mut cursor = Cursor::new(rest);
    let body = cursor.counted()?;
    if !checksum_holds(body, cursor.be_u32()?) {
        return Err(Damage::new(0, "the checksum of a series does not match"));
    }
    let mut cursor = Cursor::new(body);
    let labels = cursor.count(2)?;
    for _ in 0..labels {
        entry.labels.push((symbol(&mut cursor)?, symbol(&mut cursor)?));
    }
    let chunks = cursor.count(3)?;
    let (mut last, mut place) = (0_i64, 0_u64);
    for number in 0..chunks {
        let first = if number == 0 {
            cursor.varint()?
        } else {
            last.wrapping_add(cursor.uvarint()? as i64)
        };
        last = first.wrapping_add(cursor.uvarint()? as i64);
        place = if number == 0 {
            cursor.uvarint()?
        } else {
            place.wrapping_add(cursor.varint()? as u64)
        };
        entry.chunks.push(ChunkRef {
            first: Timestamp(first),
            last: Timestamp(last),
            file: ((place >> 32) as u32).saturating_add(1),
            offset: place as u32,
        });
    }
    Ok(())
}

fn symbol(cursor: &mut Cursor<'_>) -> Result<u32, Damage> {
    let at = *cursor;
    u32::try_from(cursor.uvarint()?).map_err(|_| at.damage("a symbol that there is not"))
}
