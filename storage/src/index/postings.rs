//! Lists of series numbers: one run, bit-packed gaps, or a roaring bitmap.
//!
//! A list starts with `count << 2 | form`. Series are ordered by metric, job and instance, so the
//! list of a metric is one run; most other lists are short. Long ones that are not much larger as
//! a roaring bitmap are stored as that, since it needs no decoding.

use roaring::RoaringBitmap;

use super::groups::{GROUP, Groups, GroupsWriter, Section, SectionTooLarge};
use crate::codec::Corruption;
use crate::codec::bits::{self, BLOCK};
use crate::codec::varint::{self, Reader};

const RUN: u64 = 0;
const GAPS: u64 = 1;
const ROARING: u64 = 2;

/// Shorter lists are decoded faster than a bitmap is loaded.
const ROARING_LEN_MIN: usize = 4096;

/// Appends the list `sorted`, which rises.
pub fn put(sorted: &[u32], out: &mut Vec<u8>) {
    let count = sorted.len() as u64;
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
        varint::put(out, RUN);
        return;
    };
    if u64::from(last - first) + 1 == count {
        varint::put(out, count << 2 | RUN);
        varint::put(out, u64::from(*first));
        return;
    }
    let start = out.len();
    varint::put(out, count << 2 | GAPS);
    varint::put(out, u64::from(*first));
    let gaps: Vec<u64> = sorted
        .windows(2)
        .map(|pair| match pair {
            [before, number] => u64::from(number - before - 1),
            _ => 0,
        })
        .collect();
    for block in gaps.chunks(BLOCK) {
        bits::put_block(block, out);
    }
    if sorted.len() >= ROARING_LEN_MIN {
        let bitmap: RoaringBitmap = sorted.iter().copied().collect();
        if bitmap.serialized_size() <= (out.len() - start) * 2 {
            out.truncate(start);
            varint::put(out, count << 2 | ROARING);
            // Writing to memory cannot fail.
            let written = bitmap.serialize_into(&mut *out);
            debug_assert!(written.is_ok());
        }
    }
}

/// A union of lists.
#[derive(Debug)]
pub struct Union {
    /// Numbers of this and above belong to no series.
    end: u32,
    bitmap: RoaringBitmap,
    /// Numbers of short lists, in no order.
    loose: Vec<u32>,
}

impl Union {
    /// The empty union, of series below `end`.
    pub fn new(end: u32) -> Self {
        Self { end, bitmap: RoaringBitmap::new(), loose: Vec::new() }
    }

    /// Adds the list that `reader` stands at.
    pub fn add(&mut self, reader: &mut Reader<'_>) -> Result<(), Corruption> {
        let head = reader.varint()?;
        let count = match u32::try_from(head >> 2) {
            Ok(count) if count <= self.end => count,
            _ => return Err(reader.corrupt("a list longer than there are series")),
        };
        match head & 3 {
            RUN => self.add_run(reader, count),
            GAPS => self.add_gaps(reader, count),
            ROARING => {
                let bitmap = RoaringBitmap::deserialize_from(reader.rest())
                    .map_err(|_| reader.corrupt("a bitmap that cannot be read"))?;
                if bitmap.len() != u64::from(count) || bitmap.max() >= Some(self.end) {
                    return Err(reader.corrupt("a bitmap of other series than announced"));
                }
                if self.bitmap.is_empty() {
                    self.bitmap = bitmap;
                } else {
                    self.bitmap |= bitmap;
                }
                Ok(())
            }
            _ => Err(reader.corrupt("an unknown form of list")),
        }
    }

    fn add_run(&mut self, reader: &mut Reader<'_>, count: u32) -> Result<(), Corruption> {
        if count == 0 {
            return Ok(());
        }
        let first = self.number(reader.varint()?, reader)?;
        let last = self.number(u64::from(first) + u64::from(count) - 1, reader)?;
        if count < 4 {
            self.loose.extend(first..=last);
        } else {
            self.bitmap.insert_range(first..=last);
        }
        Ok(())
    }

    fn add_gaps(&mut self, reader: &mut Reader<'_>, count: u32) -> Result<(), Corruption> {
        if count == 0 {
            return Ok(());
        }
        let mut number = reader.varint()?;
        self.loose.push(self.number(number, reader)?);
        let mut block = [0_u64; BLOCK];
        let mut left = count as usize - 1;
        while left > 0 {
            let gaps = &mut block[..left.min(BLOCK)];
            bits::take_block(reader, gaps)?;
            for gap in gaps.iter() {
                number = number.saturating_add(*gap).saturating_add(1);
                self.loose.push(self.number(number, reader)?);
            }
            left -= gaps.len();
        }
        Ok(())
    }

    fn number(&self, number: u64, reader: &Reader<'_>) -> Result<u32, Corruption> {
        match u32::try_from(number) {
            Ok(number) if number < self.end => Ok(number),
            _ => Err(reader.corrupt("a list of series that do not exist")),
        }
    }

    /// The union of all lists added.
    pub fn finish(self) -> RoaringBitmap {
        let Self { end, mut bitmap, mut loose } = self;
        if loose.is_empty() {
            return bitmap;
        }
        let sorted = loose.windows(2).all(|pair| pair.first() < pair.get(1));
        // Many numbers: setting bits in a plain map of all series beats sorting.
        let flat = !sorted && loose.len() as u64 * 64 > u64::from(end);
        let loose = if flat {
            let mut map = vec![0_u8; (end as usize).div_ceil(8)];
            for number in &loose {
                if let Some(byte) = map.get_mut(*number as usize >> 3) {
                    *byte |= 1 << (number & 7);
                }
            }
            RoaringBitmap::from_lsb0_bytes(0, &map)
        } else {
            if !sorted {
                loose.sort_unstable();
                loose.dedup();
            }
            RoaringBitmap::from_sorted_iter(loose).unwrap_or_default()
        };
        if bitmap.is_empty() {
            return loose;
        }
        bitmap |= loose;
        bitmap
    }
}

/// The bytes of lists in groups, in a section that will start at byte `base` of its file.
pub fn write<'a>(
    base: u64,
    lists: impl IntoIterator<Item = &'a [u32]>,
) -> Result<(Vec<u8>, Section), SectionTooLarge> {
    let mut writer = GroupsWriter::new(base);
    let mut lengths = Vec::new();
    let mut bodies = Vec::new();
    let mut in_group = 0;
    for list in lists {
        let start = bodies.len();
        put(list, &mut bodies);
        varint::put(&mut lengths, (bodies.len() - start) as u64);
        in_group += 1;
        if in_group == GROUP {
            lengths.append(&mut bodies);
            writer.push(&lengths);
            lengths.clear();
            in_group = 0;
        }
    }
    if in_group > 0 {
        lengths.append(&mut bodies);
        writer.push(&lengths);
    }
    writer.finish()
}

/// Lists read in place.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    groups: Groups<'a>,
    len: u32,
}

impl<'a> Lists<'a> {
    /// The `len` lists at `section` of `file`.
    pub const fn new(file: &'a [u8], section: Section, len: u32) -> Self {
        Self { groups: Groups::new(file, section), len }
    }

    /// The groups, for verification.
    pub const fn groups(&self) -> &Groups<'a> {
        &self.groups
    }

    /// How many series list `number` has.
    pub fn count(&self, number: u32) -> Result<u64, Corruption> {
        let lists = self.group(number / GROUP as u32)?;
        match lists.get(number as usize % GROUP).copied().flatten() {
            Some(body) => Reader::new(body).varint().map(|head| head >> 2),
            None => Err(Corruption::new(0, "a list beyond its group")),
        }
    }

    /// Adds the lists of `numbers`, which rise, to `union`.
    pub fn add_to(&self, union: &mut Union, numbers: &[u32]) -> Result<(), Corruption> {
        let mut numbers = numbers.iter().peekable();
        while let Some(first) = numbers.peek() {
            let group = **first / GROUP as u32;
            let lists = self.group(group)?;
            while let Some(number) = numbers.next_if(|number| **number / GROUP as u32 == group) {
                let slot = *number as usize % GROUP;
                let body = lists.get(slot).copied().flatten();
                let Some(body) = body else {
                    return Err(Corruption::new(0, "a list beyond its group"));
                };
                union.add(&mut Reader::new(body))?;
            }
        }
        Ok(())
    }

    /// The bytes of each list of a group.
    fn group(&self, group: u32) -> Result<[Option<&'a [u8]>; GROUP], Corruption> {
        let mut reader = Reader::new(self.groups.get(group)?);
        let first = group.saturating_mul(GROUP as u32);
        let count = (self.len.saturating_sub(first) as usize).min(GROUP);
        let mut lengths = [0; GROUP];
        for length in lengths.iter_mut().take(count) {
            *length = reader.varint_up_to(usize::MAX)?;
        }
        let mut lists = [None; GROUP];
        for (list, length) in lists.iter_mut().zip(lengths).take(count) {
            *list = Some(reader.take(length)?);
        }
        Ok(lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn lists() -> impl Strategy<Value = Vec<BTreeSet<u32>>> {
        let list = prop_oneof![
            proptest::collection::btree_set(0_u32..20_000, 0..50),
            (0_u32..10_000, 0_u32..10_000).prop_map(|(first, len)| (first..first + len).collect()),
            (1_u32..4, 0_u32..9_000).prop_map(|(step, len)| (0..len)
                .map(|i| i * step)
                .filter(|i| *i < 20_000)
                .collect()),
        ];
        proptest::collection::vec(list, 0..40)
    }

    proptest! {
        #[test]
        fn unions_come_back(lists in lists(), picks in proptest::collection::btree_set(0_u32..40, 0..40)) {
            let sorted: Vec<Vec<u32>> = lists.iter().map(|l| l.iter().copied().collect()).collect();
            let (file, section) = write(0, sorted.iter().map(Vec::as_slice)).unwrap();
            let read = Lists::new(&file, section, sorted.len() as u32);
            let picks: Vec<u32> = picks.into_iter().filter(|p| *p < sorted.len() as u32).collect();
            let mut union = Union::new(20_000);
            read.add_to(&mut union, &picks).unwrap();
            let expected: BTreeSet<u32> =
                picks.iter().flat_map(|pick| lists[*pick as usize].iter().copied()).collect();
            prop_assert_eq!(union.finish().iter().collect::<BTreeSet<_>>(), expected);
            for (number, list) in lists.iter().enumerate() {
                prop_assert_eq!(read.count(number as u32).unwrap(), list.len() as u64);
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
            let mut union = Union::new(1000);
            if union.add(&mut Reader::new(&bytes)).is_ok() {
                prop_assert!(union.finish().max() < Some(1000));
            }
        }
    }

    #[test]
    fn a_run_takes_a_few_bytes() {
        let mut bytes = Vec::new();
        put(&(1000..900_000).collect::<Vec<_>>(), &mut bytes);
        assert!(bytes.len() <= 6);
    }

    #[test]
    fn long_scattered_lists_are_bitmaps() {
        let mut bytes = Vec::new();
        put(&(0..100_000).map(|i| i * 3 + i % 2).collect::<Vec<_>>(), &mut bytes);
        assert_eq!(Reader::new(&bytes).varint().unwrap() & 3, ROARING);
    }
}
