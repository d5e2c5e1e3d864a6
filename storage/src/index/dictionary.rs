//! Sorted strings that are looked up by text, by number and by prefix, in place.

use std::cmp::Ordering;
use std::ops::Range;

use super::groups::{GROUP, Groups, GroupsWriter, Section, SectionTooLarge};
use crate::codec::Corruption;
use crate::codec::strings::{self, Next};
use crate::codec::varint::Reader;

/// The bytes of a dictionary that will start at byte `base` of its file. `sorted` must rise.
pub fn write<'a>(
    base: u64,
    sorted: impl IntoIterator<Item = &'a str>,
) -> Result<(Vec<u8>, Section), SectionTooLarge> {
    let mut writer = GroupsWriter::new(base);
    let mut group = Vec::new();
    let mut before = "";
    for (number, text) in sorted.into_iter().enumerate() {
        if number % GROUP == 0 {
            if number > 0 {
                writer.push(&group);
            }
            group.clear();
            before = "";
        }
        strings::put_next(before, text, &mut group);
        before = text;
    }
    if !group.is_empty() {
        writer.push(&group);
    }
    writer.finish()
}

/// A dictionary read in place.
#[derive(Clone, Copy, Debug)]
pub struct Dictionary<'a> {
    groups: Groups<'a>,
    len: u32,
}

impl<'a> Dictionary<'a> {
    /// The `len` strings at `section` of `file`.
    pub const fn new(file: &'a [u8], section: Section, len: u32) -> Self {
        Self { groups: Groups::new(file, section), len }
    }

    /// How many strings there are.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The groups, for verification.
    pub const fn groups(&self) -> &Groups<'a> {
        &self.groups
    }

    /// String number `number`.
    pub fn get(&self, number: u32) -> Result<String, Corruption> {
        let mut text = Vec::new();
        let mut reader = Reader::new(self.groups.get(number / GROUP as u32)?);
        for _ in 0..=number % GROUP as u32 {
            strings::take_next(&mut reader)?.apply(&mut text);
        }
        String::from_utf8(text).map_err(|_| reader.corrupt("a string that is not UTF-8"))
    }

    /// The number of `text`, if it is there.
    pub fn find(&self, text: &str) -> Result<Option<u32>, Corruption> {
        let (number, equal) = self.lower_bound(text.as_bytes())?;
        Ok(equal.then_some(number))
    }

    /// The numbers of the strings that start with `prefix`.
    pub fn prefix_range(&self, prefix: &str) -> Result<Range<u32>, Corruption> {
        if prefix.is_empty() {
            return Ok(0..self.len);
        }
        let start = self.lower_bound(prefix.as_bytes())?.0;
        // The first text that is behind all that start so: the last byte that can rise, risen.
        let mut after = prefix.as_bytes().to_vec();
        while let Some(last) = after.pop() {
            if last < u8::MAX {
                after.push(last + 1);
                return Ok(start..self.lower_bound(&after)?.0);
            }
        }
        Ok(start..self.len)
    }

    /// The number of the first string not below `text`, and whether it equals it.
    fn lower_bound(&self, text: &[u8]) -> Result<(u32, bool), Corruption> {
        // The first group that starts above `text`.
        let (mut low, mut high) = (0, self.groups.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let first = strings::take_next(&mut Reader::new(self.groups.get(middle)?))?;
            match first.rest.cmp(text) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok((middle * GROUP as u32, true)),
                Ordering::Greater => high = middle,
            }
        }
        let Some(group) = low.checked_sub(1) else { return Ok((0, false)) };
        let mut reader = Reader::new(self.groups.get(group)?);
        let mut candidate = Vec::new();
        let mut number = group * GROUP as u32;
        while !reader.is_empty() {
            strings::take_next(&mut reader)?.apply(&mut candidate);
            match candidate.as_slice().cmp(text) {
                Ordering::Less => number += 1,
                order => return Ok((number, order.is_eq())),
            }
        }
        Ok((number.min(self.len), false))
    }

    /// Hands over the strings of `range` and those before them in the first group, which are
    /// needed to make sense of what is shared.
    pub fn walk(
        &self,
        range: Range<u32>,
        mut each: impl FnMut(u32, Next<'a>),
    ) -> Result<(), Corruption> {
        if range.is_empty() {
            return Ok(());
        }
        let size = GROUP as u32;
        for group in range.start / size..range.end.div_ceil(size) {
            let mut reader = Reader::new(self.groups.get(group)?);
            let mut number = group * size;
            while !reader.is_empty() && number < range.end {
                each(number, strings::take_next(&mut reader)?);
                number += 1;
            }
        }
        Ok(())
    }

    /// All strings of `range` in order.
    pub fn collect(&self, range: Range<u32>) -> Result<Vec<String>, Corruption> {
        let mut texts = Vec::new();
        let mut text = Vec::new();
        let start = range.start;
        let mut valid = true;
        self.walk(range, |number, next| {
            next.apply(&mut text);
            if number >= start {
                match std::str::from_utf8(&text) {
                    Ok(text) => texts.push(text.to_owned()),
                    Err(_) => valid = false,
                }
            }
        })?;
        if valid { Ok(texts) } else { Err(Corruption::new(0, "a string that is not UTF-8")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_answers_as_a_sorted_set(
            texts in proptest::collection::btree_set("[abü\u{10ffff}]{0,4}", 0..100),
            probe in "[abü\u{10ffff}]{0,4}",
        ) {
            let sorted: Vec<&str> = texts.iter().map(String::as_str).collect();
            let (file, section) = write(0, sorted.iter().copied()).unwrap();
            let dictionary = Dictionary::new(&file, section, sorted.len() as u32);
            let position = |text: &str| sorted.binary_search(&text).ok().map(|at| at as u32);
            prop_assert_eq!(dictionary.find(&probe).unwrap(), position(&probe));
            for (number, text) in sorted.iter().enumerate() {
                prop_assert_eq!(&dictionary.get(number as u32).unwrap(), text);
            }
            let range = dictionary.prefix_range(&probe).unwrap();
            let expected: Vec<&str> =
                sorted.iter().copied().filter(|text| text.starts_with(&probe)).collect();
            prop_assert_eq!(dictionary.collect(range).unwrap(), expected);
        }
    }
}
