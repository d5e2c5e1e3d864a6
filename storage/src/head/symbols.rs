//! Each distinct string once, addressed by number.
//!
//! Strings lie in pages that do not change once they are full, so that whoever searches all of them
//! takes a view of the pages and needs no lock while it does.

use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use hashbrown::{DefaultHashBuilder, HashTable};
use memchr::memmem::Finder;

use crate::index::literal;
use crate::index::order::order_of_texts;

/// Strings of a page.
pub(super) const PAGE: usize = if cfg!(test) { 16 } else { 1024 };

/// Parts of the table, each of which grows by itself: nobody waits for all of it to grow at once.
const SHARDS: usize = 64;

/// Strings one behind the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    text: String,
    ends: Vec<u32>,
    order: OnceLock<Order>,
}

/// The strings of a page in order, and how many bytes each shares with the one before.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    places: Box<[u16]>,
    shared: Box<[u8]>,
}

impl Page {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
    }

    /// How many strings there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A string by its place.
    pub(crate) fn get(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        let range = start.zip(self.ends.get(at));
        let text = range.and_then(|(start, end)| self.text.get(start as usize..*end as usize));
        text.unwrap_or_default()
    }

    /// All strings, which is faster than asking for each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let text = self.text.get(start..*end as usize).unwrap_or_default();
            start = *end as usize;
            text
        })
    }

    /// The strings in order: place of each, and bytes that it shares with the one before, or a few
    /// less. Found out when first wanted; for pages that are full.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (usize, usize)> {
        let order = self.order.get_or_init(|| {
            let text = |at: u32| self.get(at as usize);
            let places = order_of_texts(self.len() as u32, text);
            let mut before = "";
            let shared = |at: &u32| {
                let (a, b) = (std::mem::replace(&mut before, text(*at)), text(*at));
                let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
                same.min(usize::from(u8::MAX)) as u8
            };
            let shared = places.iter().map(shared).collect();
            Order { places: places.iter().map(|at| *at as u16).collect(), shared }
        });
        let places = order.places.iter().map(|at| usize::from(*at));
        places.zip(order.shared.iter().map(|bytes| usize::from(*bytes)))
    }

    fn bytes(&self) -> usize {
        let order = self.order.get().map_or(0, |order| order.places.len() * 3);
        self.text.capacity() + self.ends.capacity() * 4 + order
    }
}

/// A set of strings. Numbers are given in order of arrival and never change.
#[derive(Debug)]
pub(super) struct Symbols {
    full: Vec<Arc<Page>>,
    last: Page,
    tables: Vec<HashTable<u32>>,
    hasher: DefaultHashBuilder,
}

impl Default for Symbols {
    fn default() -> Self {
        Self {
            full: Vec::new(),
            last: Page::default(),
            tables: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

/// Which part of the table: by bits that the part itself does not go by.
fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

fn get<'a>(full: &'a [Arc<Page>], last: &'a Page, number: u32) -> &'a str {
    let (page, at) = (number as usize / PAGE, number as usize % PAGE);
    match full.get(page) {
        Some(page) => page.get(at),
        None if page == full.len() => last.get(at),
        None => "",
    }
}

impl Symbols {
    /// The number of `text`, given now if it has none.
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        let hash = self.hasher.hash_one(text);
        if let Some(number) = self.find_hashed(text, hash) {
            return number;
        }
        let number = self.len() as u32;
        self.last.push(text);
        let (full, last, hasher) = (&self.full, &self.last, &self.hasher);
        if let Some(table) = self.tables.get_mut(shard(hash)) {
            table.insert_unique(hash, number, |other| hasher.hash_one(get(full, last, *other)));
        }
        if self.last.len() == PAGE {
            let mut page = std::mem::take(&mut self.last);
            page.text.shrink_to_fit();
            page.ends.shrink_to_fit();
            self.full.push(Arc::new(page));
        }
        number
    }

    /// The number of `text`, if it has one.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.find_hashed(text, self.hasher.hash_one(text))
    }

    fn find_hashed(&self, text: &str, hash: u64) -> Option<u32> {
        let table = self.tables.get(shard(hash))?;
        table.find(hash, |number| self.get(*number) == text).copied()
    }

    /// The string with this number; empty for a number that was never given.
    pub(crate) fn get(&self, number: u32) -> &str {
        get(&self.full, &self.last, number)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.full.len() * PAGE + self.last.len()
    }

    /// All strings so far.
    pub(crate) fn view(&self) -> Texts {
        Texts { full: self.full.clone(), last: self.last.clone() }
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        let pages = self.full.iter().map(|page| page.bytes()).sum::<usize>() + self.last.bytes();
        pages + self.tables.iter().map(|table| table.capacity() * 5).sum::<usize>()
    }
}

/// Strings as they were at a time, readable without the set that they are of.
#[derive(Debug)]
pub(super) struct Texts {
    full: Vec<Arc<Page>>,
    last: Page,
}

impl Texts {
    /// See [`Symbols::get`].
    pub(crate) fn get(&self, number: u32) -> &str {
        get(&self.full, &self.last, number)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.full.len() * PAGE + self.last.len()
    }

    /// The pages that are full, each with the number of its first string.
    pub(crate) fn full_pages(&self) -> impl Iterator<Item = (u32, &Page)> {
        self.full.iter().enumerate().map(|(page, texts)| ((page * PAGE) as u32, &**texts))
    }

    /// The strings behind those pages, with their numbers.
    pub(crate) fn last(&self) -> impl Iterator<Item = (u32, &str)> {
        ((self.full.len() * PAGE) as u32..).zip(self.last.iter())
    }

    /// The numbers, rising, of the strings that contain `part`, which is not empty.
    pub(crate) fn containing(&self, part: &[u8]) -> Vec<u32> {
        let finder = Finder::new(part);
        let mut numbers = Vec::new();
        let all: Range<usize> = 0..self.full.len() + 1;
        let pages = self.full.iter().map(|page| &**page).chain([&self.last]);
        for (page, texts) in all.zip(pages) {
            literal::containing(texts.text.as_bytes(), &texts.ends, &finder, |at| {
                numbers.push((page * PAGE + at) as u32);
            });
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_a_number() {
        let mut symbols = Symbols::default();
        let a = symbols.intern("a");
        let empty = symbols.intern("");
        let before = symbols.view();
        for number in 0..1000 {
            symbols.intern(&number.to_string());
        }
        assert_eq!((symbols.intern("a"), symbols.intern("")), (a, empty));
        assert_eq!((symbols.get(a), symbols.get(empty)), ("a", ""));
        assert_eq!(symbols.find("999").map(|n| symbols.get(n)), Some("999"));
        assert_eq!(symbols.find("1000"), None);
        assert_eq!(symbols.get(u32::MAX), "");
        let view = symbols.view();
        assert_eq!((view.len(), before.len(), before.get(a)), (1002, 2, "a"));
        let all: Vec<&str> = (0..view.len() as u32).map(|number| view.get(number)).collect();
        assert!((0..).zip(&all).all(|(number, text)| symbols.get(number) == *text));
        for part in ["99", "a", "00", "0", "1000", "998999", "x"] {
            let with = (0..).zip(&all).filter(|(_, text)| text.contains(part));
            let with: Vec<u32> = with.map(|(number, _)| number).collect();
            assert_eq!(view.containing(part.as_bytes()), with, "{part}");
        }
        let mut pages: Vec<&str> = view.full_pages().flat_map(|(_, page)| page.iter()).collect();
        pages.extend(view.last().map(|(_, text)| text));
        assert_eq!(pages, all);
    }

    #[test]
    fn pages_are_put_in_order() {
        let mut symbols = Symbols::default();
        for number in 0..(PAGE as u32 * 3) {
            let long = if number % 5 == 0 { "x".repeat(300) } else { String::new() };
            symbols.intern(&format!("{long}{}", number.wrapping_mul(2_654_435_761) % 1000));
        }
        let view = symbols.view();
        for (_, page) in view.full_pages() {
            let mut want: Vec<&str> = page.iter().collect();
            want.sort_unstable();
            let order: Vec<(usize, usize)> = page.in_order().collect();
            assert_eq!(order.iter().map(|(at, _)| page.get(*at)).collect::<Vec<_>>(), want);
            for (texts, (_, shared)) in want.windows(2).zip(&order[1..]) {
                assert_eq!(texts[0].as_bytes()[..*shared], texts[1].as_bytes()[..*shared]);
            }
        }
    }
}
