//! What was deleted of a block: ranges of time by series.

use std::collections::BTreeMap;

use stint_model::{TimeRange, Timestamp};

use super::cursor::Cursor;
use super::{Damage, checksum_holds};

const MAGIC: u32 = 0x0130_BA30;

/// Reads the file `tombstones`: ranges that were deleted, by the number that the index gives a series.
///
/// # Errors
/// It is damaged; then nothing is known about what was deleted.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<u64, Vec<TimeRange>>, Damage> {
    let mut cursor = Cursor::new(bytes);
    if cursor.be_u32()? != MAGIC {
        return Err(Damage::new(0, "not a file of tombstones"));
    }
    if cursor.byte()? != 1 {
        return Err(Damage::new(4, "tombstones of a later version of Prometheus"));
    }
    let entries = cursor
        .remaining()
        .checked_sub(4)
        .ok_or_else(|| cursor.damage("ends too early"))
        .and_then(|length| cursor.take(length))?;
    if !checksum_holds(entries, cursor.be_u32()?) {
        return Err(Damage::new(5, "the checksum of the tombstones does not match"));
    }
    let mut deleted: BTreeMap<u64, Vec<TimeRange>> = BTreeMap::new();
    let mut cursor = Cursor::new(entries);
    while !cursor.is_empty() {
        let series = cursor.uvarint()?;
        let (first, last) = (Timestamp(cursor.varint()?), Timestamp(cursor.varint()?));
        deleted.entry(series).or_default().push(TimeRange::closed(first, last));
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::cursor::put;

    fn file(entries: &[(u64, i64, i64)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (series, first, last) in entries {
            put::uvarint(&mut body, *series);
            put::varint(&mut body, *first);
            put::varint(&mut body, *last);
        }
        let mut bytes = [&MAGIC.to_be_bytes()[..], &[1], &body].concat();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        bytes
    }

    #[test]
    fn ranges_come_by_series() {
        let deleted = read(&file(&[(16, 1, 5), (32, -7, 0), (16, 9, 9)])).unwrap();
        let closed = |first, last| TimeRange::closed(Timestamp(first), Timestamp(last));
        assert_eq!(deleted[&16], [closed(1, 5), closed(9, 9)]);
        assert_eq!(deleted[&32], [closed(-7, 0)]);
        assert!(read(&file(&[])).unwrap().is_empty());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let whole = file(&[(16, 1, 5)]);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "byte {at}");
            assert!(read(&whole[..at]).is_err(), "cut at {at}");
        }
    }
}
