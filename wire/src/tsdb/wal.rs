//! The log: segments of pages, in which records may be cut in parts.

mod record;

use std::borrow::Cow;

use super::cursor::Cursor;
use super::{Damage, checksum_holds};
use crate::snappy;

pub use record::{Item, decode, is_about_series, is_known};

/// Bytes of a page. No part of a record goes beyond one.
const PAGE: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
/// The longest record, decompressed.
const RECORD_MAX: usize = 256 << 20;

const SNAPPY: u8 = 1 << 3;
const ZSTD: u8 = 1 << 4;

/// What the part of a record is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Middle,
    Last,
}

/// A stretch of a segment that cannot be read, and what is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What does not fit, and where.
    pub damage: Damage,
    /// Whether nothing follows but what was never written: the server was stopped by force.
    pub is_end: bool,
}

/// The records of a segment, in order. Behind damage it goes on with the next page.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Parts of the record at hand.
    parts: Vec<u8>,
    compression: u8,
    is_inside: bool,
}

impl<'a> Records<'a> {
    /// The records of the segment that consists of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, parts: Vec::new(), compression: 0, is_inside: false }
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next record, decompressed; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "records borrow what is read anew each time")]
    pub fn next(&mut self) -> Option<Result<Cow<'_, [u8]>, Gap>> {
        match self.next_parts()? {
            Ok((start, None)) => Some(self.decompressed(start, &[])),
            Ok((start, Some(whole))) => Some(self.decompressed(start, whole)),
            Err(damage) => {
                let is_end = self.skip_page();
                Some(Err(Gap { damage, is_end }))
            }
        }
    }

    /// Where a record begins, and its bytes where they lie in one piece; else they are in `parts`.
    #[expect(clippy::type_complexity, reason = "used only here")]
    fn next_parts(&mut self) -> Option<Result<(usize, Option<&'a [u8]>), Damage>> {
        let mut start = self.at;
        loop {
            let in_page = PAGE - self.at % PAGE;
            let page = self.bytes.get(self.at..).unwrap_or_default();
            let page = page.get(..in_page).unwrap_or(page);
            let rest_is_zero = || page.iter().all(|byte| *byte == 0);
            if page.first().is_none_or(|kind| kind.trailing_zeros() >= 3) {
                // Nothing more in this page.
                if !rest_is_zero() {
                    return Some(Err(Damage::new(self.at, "a page that does not end in zeros")));
                }
                self.at = (self.at + in_page).min(self.bytes.len());
                if self.at < self.bytes.len() {
                    continue;
                }
                let cut_off = std::mem::take(&mut self.is_inside);
                return cut_off.then(|| Err(Damage::new(start, "ends inside of a record")));
            }
            let (part, compression, data) = match read_part(page) {
                Ok(read) => read,
                Err(damage) => return Some(Err(damage.behind(self.at))),
            };
            let expected = if self.is_inside {
                matches!(part, Part::Middle | Part::Last)
            } else {
                matches!(part, Part::Whole | Part::First)
            };
            if !expected {
                return Some(Err(Damage::new(self.at, "a part of another record")));
            }
            if !self.is_inside {
                start = self.at;
            }
            self.at += HEADER_BYTES + data.len();
            match part {
                Part::Whole => {
                    self.compression = compression;
                    return Some(Ok((start, Some(data))));
                }
                Part::First => {
                    (self.compression, self.is_inside) = (compression, true);
                    self.parts.clear();
                    self.parts.extend_from_slice(data);
                }
                Part::Middle | Part::Last if self.parts.len() + data.len() > RECORD_MAX => {
                    return Some(Err(Damage::new(start, "a record that is too long")));
                }
                Part::Middle => self.parts.extend_from_slice(data),
                Part::Last => {
                    self.parts.extend_from_slice(data);
                    self.is_inside = false;
                    return Some(Ok((start, None)));
                }
            }
        }
    }

    /// The record that was read: `whole`, or what is in `parts`.
    fn decompressed<'r>(&'r self, start: usize, whole: &'r [u8]) -> Result<Cow<'r, [u8]>, Gap> {
        let bytes = if whole.is_empty() { &self.parts[..] } else { whole };
        let gap = |what| Gap { damage: Damage::new(start, what), is_end: false };
        match self.compression {
            SNAPPY => {
                let mut out = Vec::new();
                let done = snappy::decompress_limited(bytes, RECORD_MAX, &mut out);
                done.map_err(|_| gap("a record that Snappy cannot decompress"))?;
                Ok(Cow::Owned(out))
            }
            ZSTD => zstd::bulk::decompress(bytes, zstd_bound(bytes))
                .map(Cow::Owned)
                .map_err(|_| gap("a record that zstd cannot decompress")),
            0 => Ok(Cow::Borrowed(bytes)),
            _ => Err(gap("a record of unknown compression")),
        }
    }

    /// Goes on at the next page; whether there is nothing but zeros from here on.
    fn skip_page(&mut self) -> bool {
        (self.is_inside, self.at) = (false, (self.at + 1).next_multiple_of(PAGE));
        self.at = self.at.min(self.bytes.len());
        self.bytes.get(self.at..).unwrap_or_default().iter().all(|byte| *byte == 0)
    }
}

/// What a record can come to: what it says itself, within bounds.
fn zstd_bound(bytes: &[u8]) -> usize {
    let told = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten();
    told.and_then(|told| usize::try_from(told).ok()).unwrap_or(RECORD_MAX).min(RECORD_MAX)
}

/// What a part is, how its record is compressed, and its bytes. Its checksum was verified.
fn read_part(page: &[u8]) -> Result<(Part, u8, &[u8]), Damage> {
    let mut cursor = Cursor::new(page);
    let kind = cursor.byte()?;
    let length = usize::from(cursor.be_u16()?);
    let checksum = cursor.be_u32()?;
    let data = cursor.take(length)?;
    let part = match kind & 7 {
        1 => Part::Whole,
        2 => Part::First,
        3 => Part::Middle,
        4 => Part::Last,
        _ => return Err(Damage::new(0, "a part of a record of an unknown kind")),
    };
    if !checksum_holds(data, checksum) {
        return Err(Damage::new(0, "the checksum of a part of a record does not match"));
    }
    Ok((part, kind & !7, data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a Prometheus server writes.
    fn written(records: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        for (compression, record) in records {
            let mut rest: &[u8] = record;
            let mut is_first = true;
            loop {
                let left = PAGE - out.len() % PAGE;
                if left <= HEADER_BYTES {
                    out.resize(out.len() + left, 0);
                    continue;
                }
                let (part, later) = rest.split_at(rest.len().min(left - HEADER_BYTES));
                let kind = match (is_first, later.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                out.push(kind | compression);
                out.extend_from_slice(&(part.len() as u16).to_be_bytes());
                out.extend_from_slice(&crc32c::crc32c(part).to_be_bytes());
                out.extend_from_slice(part);
                (rest, is_first) = (later, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        out.resize(out.len().next_multiple_of(PAGE), 0);
        out
    }

    fn compressed(compression: u8, record: &[u8]) -> Vec<u8> {
        match compression {
            SNAPPY => {
                let mut out = Vec::new();
                snappy::compress_into(record, &mut out).unwrap();
                out
            }
            ZSTD => zstd::bulk::compress(record, 1).unwrap(),
            _ => record.to_vec(),
        }
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Gap>) {
        let (mut records, mut found, mut gaps) = (Records::new(bytes), Vec::new(), Vec::new());
        while let Some(next) = records.next() {
            match next {
                Ok(record) => found.push(record.into_owned()),
                Err(gap) => gaps.push(gap),
            }
        }
        (found, gaps)
    }

    fn records() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let length = prop_oneof![1..200_usize, 1..100_000_usize];
        let record = (length, any::<u64>()).prop_map(|(length, seed)| {
            (0..length as u64).map(|n| (n.wrapping_mul(seed | 1) >> 13) as u8).collect::<Vec<u8>>()
        });
        prop::collection::vec((prop_oneof![Just(0), Just(SNAPPY), Just(ZSTD)], record), 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn records_come_back(records in records()) {
            let stored: Vec<(u8, Vec<u8>)> =
                records.iter().map(|(how, record)| (*how, compressed(*how, record))).collect();
            let bytes = written(&stored);
            let want: Vec<&Vec<u8>> = records.iter().map(|(_, record)| record).collect();
            let (found, gaps) = read(&bytes);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), want);
            prop_assert_eq!(gaps, vec![]);
            // A file that is longer than what was written to it.
            let longer = [bytes, vec![0; 3 * PAGE]].concat();
            prop_assert_eq!(read(&longer).0, found);
        }

        #[test]
        fn what_lies_behind_damage_is_found_again(
            records in records(), at: prop::sample::Index, bit in 0_u32..8,
        ) {
            let stored: Vec<(u8, Vec<u8>)> =
                records.iter().map(|(how, record)| (*how, compressed(*how, record))).collect();
            let mut bytes = written(&stored);
            let whole = read(&bytes).0;
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (found, gaps) = read(&bytes);
            prop_assert!(!gaps.is_empty() || found == whole, "only compression is not covered");
            prop_assert!(found.iter().all(|record| whole.contains(record)));
            // Records that begin in other pages are still there.
            let page = at / PAGE;
            let mut seen = Records::new(&bytes);
            prop_assert!(std::iter::from_fn(|| seen.next().map(|_| ())).count() <= whole.len() + 2 * (bytes.len() / PAGE) + page);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes: Vec<u8>) {
            let (records, _) = read(&bytes);
            for record in records {
                let _ = decode(&record, |_| {});
            }
        }
    }

    #[test]
    fn a_record_cut_off_by_force_ends_the_log() {
        let bytes = written(&[(0, vec![7; 100]), (0, vec![8; 50_000])]);
        let (found, gaps) = read(&bytes[..40_000]);
        assert_eq!(found, [vec![7; 100]]);
        let [gap] = &gaps[..] else { panic!("{gaps:?}") };
        assert!(gap.is_end);
        let (found, gaps) = read(&bytes[..PAGE]);
        assert_eq!((found.len(), gaps.len()), (1, 1));
        assert_eq!(gaps[0].damage.what, "ends inside of a record");
    }
}
