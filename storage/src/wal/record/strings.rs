//! The strings of a record, each of which is written once and then told by its number.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::wal::bytes::put_uint;

/// Which strings a record has so far.
#[derive(Debug, Default)]
pub(super) struct Strings {
    count: u32,
    /// Where those that were given as texts begin and end in the record.
    places: Vec<Place>,
    by_text: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Those that were given as symbols of the head.
    by_symbol: HashMap<u32, u32>,
    /// Which symbols those are: a rebuilt index has others.
    generation: u64,
    /// Symbol and number of each string of the series before: most come again.
    row: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    number: u32,
    start: u32,
    end: u32,
}

impl Place {
    fn text(self, out: &[u8]) -> &[u8] {
        out.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl Strings {
    /// Forgets them: another record begins.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.places.clear();
        self.by_text.clear();
        self.by_symbol.clear();
        self.row.clear();
    }

    /// Writes a string to the record.
    pub(crate) fn put(&mut self, text: &str, out: &mut Vec<u8>) {
        let hash = self.hasher.hash_one(text.as_bytes());
        let Self { count, places, by_text, hasher, .. } = self;
        let place = |at: u32| places.get(at as usize).copied();
        let is_same = |at: &u32| place(*at).is_some_and(|place| place.text(out) == text.as_bytes());
        if let Some(place) = by_text.find(hash, is_same).and_then(|at| place(*at)) {
            put_uint(out, u64::from(place.number) + 1);
            return;
        }
        put_text(text, out);
        let end = out.len() as u32;
        let at = places.len() as u32;
        places.push(Place { number: *count, start: end - text.len() as u32, end });
        *count += 1;
        by_text.insert_unique(hash, at, |at| {
            let text = places.get(*at as usize).map(|place| place.text(out));
            hasher.hash_one(text.unwrap_or_default())
        });
    }

    /// Says which index the symbols are of that follow.
    pub(crate) fn set_generation(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.by_symbol.clear();
            self.row.clear();
        }
    }

    /// Writes the string of a symbol, at place `at` of its series, to the record.
    pub(crate) fn put_symbol<'a>(
        &mut self,
        symbol: u32,
        at: usize,
        text: impl Fn(u32) -> &'a str,
        out: &mut Vec<u8>,
    ) {
        if let Some((_, number)) = self.row.get(at).filter(|(before, _)| *before == symbol) {
            put_uint(out, u64::from(*number) + 1);
            return;
        }
        let number = if let Some(number) = self.by_symbol.get(&symbol) {
            put_uint(out, u64::from(*number) + 1);
            *number
        } else {
            put_text(text(symbol), out);
            let number = self.count;
            self.by_symbol.insert(symbol, number);
            self.count += 1;
            number
        };
        match self.row.get_mut(at) {
            Some(place) => *place = (symbol, number),
            None => self.row.push((symbol, number)),
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(0);
    put_uint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
