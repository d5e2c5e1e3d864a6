//! Each distinct string once, addressed by number.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

/// A set of strings. Numbers are given in order of arrival and never change.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    text: String,
    ends: Vec<usize>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Symbols {
    /// The number of `text`, given now if it has none.
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        if let Some(number) = self.find(text) {
            return number;
        }
        let number = self.ends.len() as u32;
        self.text.push_str(text);
        self.ends.push(self.text.len());
        let (ends, all, hasher) = (&self.ends, &self.text, &self.hasher);
        self.table.insert_unique(hasher.hash_one(text), number, |other| {
            hasher.hash_one(slice(all, ends, *other))
        });
        number
    }

    /// The number of `text`, if it has one.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.table.find(hash, |number| self.get(*number) == text).copied()
    }

    /// The string with this number; empty for a number that was never given.
    pub(crate) fn get(&self, number: u32) -> &str {
        slice(&self.text, &self.ends, number)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All strings with their numbers, which is faster than asking for each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        let mut start = 0;
        (0..).zip(&self.ends).map(move |(number, end)| {
            let text = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            (number, text)
        })
    }

    /// The numbers, rising, of the strings that contain `part`, which is not empty.
    pub(crate) fn containing(&self, part: &[u8]) -> Vec<u32> {
        let finder = memchr::memmem::Finder::new(part);
        let mut numbers = Vec::new();
        let (mut from, mut next) = (0, 0);
        while let Some(at) = self.text.as_bytes().get(from..).and_then(|text| finder.find(text)) {
            let at = from + at;
            next = self.number_at(at, next);
            let end = self.ends.get(next).copied().unwrap_or(self.text.len());
            if at + part.len() <= end {
                numbers.push(next as u32);
                from = end;
            } else {
                // From one string into the next.
                from = at + 1;
            }
        }
        numbers
    }

    /// The number of the string in which byte `at` lies, which is `from` or a later one.
    fn number_at(&self, at: usize, from: usize) -> usize {
        let is_before = |number: usize| self.ends.get(number).is_some_and(|end| *end <= at);
        // Mostly not far: in steps that double, then back.
        let mut step = 1;
        while is_before(from + step) {
            step *= 2;
        }
        let low = from + step / 2;
        let ends = self.ends.get(low..self.ends.len().min(from + step + 1)).unwrap_or_default();
        low + ends.partition_point(|end| *end <= at)
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * 8 + self.table.capacity() * 5
    }
}

fn slice<'a>(text: &'a str, ends: &[usize], number: u32) -> &'a str {
    let number = number as usize;
    let start = number.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied());
    let end = ends.get(number).copied();
    start.zip(end).and_then(|(start, end)| text.get(start..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_a_number() {
        let mut symbols = Symbols::default();
        let a = symbols.intern("a");
        let empty = symbols.intern("");
        for number in 0..1000 {
            symbols.intern(&number.to_string());
        }
        assert_eq!((symbols.intern("a"), symbols.intern("")), (a, empty));
        assert_eq!((symbols.get(a), symbols.get(empty)), ("a", ""));
        assert_eq!(symbols.find("999").map(|n| symbols.get(n)), Some("999"));
        assert_eq!(symbols.find("1000"), None);
        assert_eq!(symbols.get(u32::MAX), "");
        for part in ["99", "a", "00", "0", "1000", "998999", "x"] {
            let with = symbols.iter().filter(|(_, text)| text.contains(part));
            let with: Vec<u32> = with.map(|(number, _)| number).collect();
            assert_eq!(symbols.containing(part.as_bytes()), with, "{part}");
        }
        assert_eq!(symbols.iter().count(), symbols.len());
        assert!(symbols.iter().all(|(number, text)| symbols.get(number) == text));
    }
}
