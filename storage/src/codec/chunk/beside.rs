//! Chunks whose times are those of another chunk, which lies before them in the same bytes.
//!
//! `count varint | 3 | bytes between the starts of the two varint | rows | crc32c u32`. The
//! checksum covers what is before it, then the count and the times of the other chunk, which must
//! have times of its own: so a chunk is whole only together with its times.

use stint_model::Columns;

use super::{Check, Mark, ROWS_MAX, Rows, put_rows, take_rows};
use crate::codec::times::{self, ELSEWHERE};
use crate::codec::varint::{self, Reader};
use crate::codec::{Corruption, crc};

/// The rows as a chunk with the times of the one that begins `distance` bytes before it, with
/// `head`: its count and times.
pub fn encode_beside(rows: &Rows<'_>, distance: usize, head: &[u8]) -> Vec<u8> {
    debug_assert!(rows.times.len() <= ROWS_MAX);
    let mut out = Vec::with_capacity(16 + rows.times.len());
    varint::put(&mut out, rows.times.len() as u64);
    out.push(ELSEWHERE);
    varint::put(&mut out, distance as u64);
    put_rows(rows, &mut out);
    let checksum = crc::continued(crc::checksum(&out), head);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// How many bytes before `chunk` the chunk begins that has its times; `None` where it has its own.
pub fn distance(chunk: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(chunk);
    reader.varint_up_to(ROWS_MAX).ok()?;
    if reader.byte().ok()? != ELSEWHERE {
        return None;
    }
    reader.varint_up_to(u32::MAX as usize).ok()
}

/// How many bytes the count and the times of `chunk` take, if it has times of its own.
pub fn head_len(chunk: &[u8]) -> Result<usize, Corruption> {
    let mut reader = Reader::new(chunk);
    let count = reader.varint_up_to(ROWS_MAX)?;
    times::take(&mut reader, count, &mut Vec::new())?;
    Ok(reader.position())
}

/// As [`super::decode_known`], for a chunk with the times of the one that begins where `other` does.
///
/// # Errors
/// The bytes are not those that [`encode_beside`] made. `columns` is then as it was before.
pub fn decode_beside(
    chunk: &[u8],
    other: &[u8],
    check: Check,
    known: &mut times::Known,
    place: usize,
    columns: &mut Columns,
) -> Result<(), Corruption> {
    let mark = Mark::of(columns);
    let decoded = decode_into(chunk, other, check, known, place, columns);
    if decoded.is_err() {
        mark.restore(columns);
    }
    decoded
}

fn decode_into(
    chunk: &[u8],
    other: &[u8],
    check: Check,
    known: &mut times::Known,
    place: usize,
    columns: &mut Columns,
) -> Result<(), Corruption> {
    let mut head = Reader::new(other);
    let count = head.varint_up_to(ROWS_MAX)?;
    known.take(place, &mut head, count, &mut columns.times)?;
    let head = other.get(..head.position()).unwrap_or_default();
    let mut rows = rows_of(chunk, count, head, check)?;
    take_rows(&mut rows, count, columns)?;
    if rows.is_empty() { Ok(()) } else { Err(rows.corrupt("bytes after the last row")) }
}

/// A reader of the rows of a chunk that is whole together with `head`.
fn rows_of<'c>(
    chunk: &'c [u8],
    count: usize,
    head: &[u8],
    check: Check,
) -> Result<Reader<'c>, Corruption> {
    let Some((body, checksum)) = chunk.split_last_chunk::<4>() else {
        return Err(Corruption::new(chunk.len(), "too short for a chunk"));
    };
    let is_whole = || crc::continued(crc::checksum(body), head) == u32::from_le_bytes(*checksum);
    if check == Check::Now && !is_whole() {
        return Err(Corruption::new(0, "a chunk's checksum does not match"));
    }
    let mut rows = Reader::new(body);
    let own = rows.varint_up_to(ROWS_MAX)?;
    if own != count || rows.byte()? != ELSEWHERE {
        return Err(rows.corrupt("a chunk beside one of other times"));
    }
    rows.varint()?;
    Ok(rows)
}

/// The same chunk with times of its own.
pub fn alone(chunk: &[u8], other: &[u8]) -> Result<Vec<u8>, Corruption> {
    let head = other.get(..head_len(other)?).unwrap_or_default();
    let count = Reader::new(head).varint_up_to(ROWS_MAX)?;
    let rows = rows_of(chunk, count, head, Check::Now)?;
    let mut out = [head, rows.rest()].concat();
    let checksum = crc::checksum(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::chunk::tests::{assert_same, columns};
    use crate::codec::chunk::{decode, encode};
    use crate::codec::times::Known;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_beside_others_come_back(columns in columns(), gap in 0_usize..300) {
            let other = encode(&Rows::floats(&columns.times, &vec![1.5; columns.len()]));
            let head = &other[..head_len(&other).unwrap()];
            let bytes = encode_beside(&Rows::of(&columns), other.len() + gap, head);
            prop_assert_eq!(distance(&bytes), Some(other.len() + gap));
            prop_assert_eq!(distance(&other), None);
            let mut back = Columns::default();
            decode_beside(&bytes, &other, Check::Now, &mut Known::default(), 0, &mut back).unwrap();
            assert_same(&back, &columns);
            let mut back = Columns::default();
            decode(&alone(&bytes, &other).unwrap(), &mut back).unwrap();
            assert_same(&back, &columns);
            // By itself it has no times.
            prop_assert!(decode(&bytes, &mut back).is_err());
        }

        #[test]
        fn every_flipped_bit_is_found(columns in columns(), at: prop::sample::Index, bit in 0..8_u8) {
            let other = encode(&Rows::floats(&columns.times, &vec![1.5; columns.len()]));
            let head = head_len(&other).unwrap();
            let bytes = encode_beside(&Rows::of(&columns), other.len(), &other[..head]);
            let at = at.index(head + bytes.len());
            let (mut other, mut hurt) = (other, bytes);
            if at < head { other[at] ^= 1 << bit } else { hurt[at - head] ^= 1 << bit }
            let mut back = Columns::default();
            prop_assert!(decode_beside(&hurt, &other, Check::Now, &mut Known::default(), 0, &mut back).is_err());
            prop_assert!(back.is_empty() && back.values.is_empty());
            prop_assert!(alone(&hurt, &other).is_err());
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(mut chunk: Vec<u8>, other: Vec<u8>) {
            let head = head_len(&other).map_or(&[][..], |length| &other[..length]);
            let checksum = crc::continued(crc::checksum(&chunk), head);
            chunk.extend_from_slice(&checksum.to_le_bytes());
            let mut back = Columns::default();
            match decode_beside(&chunk, &other, Check::Now, &mut Known::default(), 0, &mut back) {
                Ok(()) => prop_assert_eq!(back.times.len(), back.values.len()),
                Err(_) => prop_assert!(back.is_empty() && back.values.is_empty()),
            }
        }
    }
}
