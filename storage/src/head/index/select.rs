//! Which series a selector means: the matchers that say most come first, and where few series are
//! left, their labels are looked at instead of all values of a label.

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use stint_model::{MatchOp, Matcher, Selector};

use super::{Index, Postings, Slot};
use crate::index::literal;
use crate::index::tester::Tester;

/// Below this many values, testing them as they are is faster than building an automaton.
const VALUES_MIN: usize = 256;

/// Where more than one in so many series may be found one by one, all series are looked at in the
/// order in which they lie in memory.
const SCAN_SHARE: usize = 16;

/// Strings by which it is judged how many have a piece of text, and pieces that are judged.
const SAMPLES: usize = 128;
const PIECES_MAX: usize = 4;

/// A set of numbers of symbols.
struct SymbolSet(Vec<u64>);

impl SymbolSet {
    fn new(numbers: &[u32], end: usize) -> Self {
        let mut words = vec![0; end.div_ceil(64)];
        for number in numbers {
            if let Some(word) = words.get_mut(*number as usize / 64) {
                *word |= 1_u64 << (number % 64);
            }
        }
        Self(words)
    }

    fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// Whether all values of the label have to be tried.
fn is_search(matcher: &Matcher) -> bool {
    let named = matches!(matcher.op(), MatchOp::Equal | MatchOp::NotEqual);
    !named && matcher.set_of_values().is_none()
}

impl Index {
    /// The series that match `selector`.
    pub(crate) fn select(&self, selector: &Selector) -> RoaringBitmap {
        let mut found: Option<RoaringBitmap> = None;
        // Conditions that a series without the label fails say which series to start from.
        let (mut first, mut then): (Vec<_>, Vec<_>) =
            selector.matchers.iter().partition(|matcher| !matcher.matches_empty());
        first.sort_by_key(|matcher| is_search(matcher) || matcher.op().is_negative());
        for matcher in first {
            found = Some(match found {
                None => self.having(matcher),
                Some(found) if self.is_cheaper_to_filter(&found, matcher) => {
                    self.filter(&found, matcher)
                }
                Some(found) => found & self.having(matcher),
            });
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                return RoaringBitmap::new();
            }
        }
        let mut found = found.unwrap_or_else(|| self.all.clone());
        then.sort_by_key(|matcher| is_search(matcher));
        for matcher in then {
            if self.is_cheaper_to_filter(&found, matcher) {
                found = self.filter(&found, matcher);
            } else {
                found -= self.lacking(matcher);
            }
        }
        found
    }

    fn is_cheaper_to_filter(&self, found: &RoaringBitmap, matcher: &Matcher) -> bool {
        let all = || self.values_of(matcher.name()).map_or(0, HashMap::len);
        let tried = is_search(matcher) || (matcher.op().is_negative() && !matcher.matches_empty());
        tried && found.len() < all() as u64
    }

    /// Those of `found` that `matcher` accepts.
    fn filter(&self, found: &RoaringBitmap, matcher: &Matcher) -> RoaringBitmap {
        let without = matcher.matches_empty();
        let Some(name) = self.symbols.find(matcher.name()) else {
            return if without { found.clone() } else { RoaringBitmap::new() };
        };
        let values: Vec<Option<u32>> = found.iter().map(|slot| self.value_of(slot, name)).collect();
        let mut distinct: Vec<u32> = values.iter().flatten().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let named = self.named_of(distinct.len(), distinct.iter().copied(), matcher);
        let named = SymbolSet::new(&named, self.symbols.len());
        let negative = matcher.op().is_negative();
        let accepted = found.iter().zip(values).filter(|(_, value)| match value {
            None => without,
            Some(value) => named.has(*value) != negative,
        });
        RoaringBitmap::from_sorted_iter(accepted.map(|(slot, _)| slot)).unwrap_or_default()
    }

    /// The value that a series has for a label.
    pub(super) fn value_of(&self, slot: Slot, name: u32) -> Option<u32> {
        let entity = self.entity(slot)?;
        let shape = self.shapes.get(entity.shape as usize)?;
        shape.pairs(entity.row).find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Series with a value of the label that `matcher` accepts.
    fn having(&self, matcher: &Matcher) -> RoaringBitmap {
        let Some(values) = self.values_of(matcher.name()) else { return RoaringBitmap::new() };
        let mut found = RoaringBitmap::new();
        let mut add = |value: &str| {
            if let Some(postings) = self.symbols.find(value).and_then(|symbol| values.get(&symbol))
            {
                postings.add_to(&mut found);
            }
        };
        match (matcher.op(), matcher.set_of_values()) {
            (MatchOp::Equal, _) => add(matcher.value()),
            (MatchOp::Regex, Some(set)) => set.iter().for_each(|value| add(value)),
            _ => return self.search(values, matcher, false),
        }
        found
    }

    /// Series with a value of the label that `matcher` does not accept.
    fn lacking(&self, matcher: &Matcher) -> RoaringBitmap {
        let Some(values) = self.values_of(matcher.name()) else { return RoaringBitmap::new() };
        let mut found = RoaringBitmap::new();
        let mut add = |value: &str| {
            let symbol = self.symbols.find(value);
            if let Some(postings) = symbol.and_then(|symbol| values.get(&symbol))
                && !matcher.matches(value)
            {
                postings.add_to(&mut found);
            }
        };
        match (matcher.op(), matcher.set_of_values()) {
            (MatchOp::NotEqual, _) => add(matcher.value()),
            (MatchOp::NotRegex, Some(set)) => set.iter().for_each(|value| add(value)),
            _ => return self.search(values, matcher, true),
        }
        found
    }

    /// Series with a value that `matcher` accepts, or refuses where that is asked for.
    fn search(
        &self,
        values: &HashMap<u32, Postings>,
        matcher: &Matcher,
        refused: bool,
    ) -> RoaringBitmap {
        let named = self.named(values, matcher);
        // The others are wanted.
        let others = matcher.op().is_negative() != refused;
        let wanted = if others { values.len().saturating_sub(named.len()) } else { named.len() };
        if wanted > self.len() / SCAN_SHARE {
            let named = SymbolSet::new(&named, self.symbols.len());
            return self.scan(matcher.name(), |value| named.has(value) != others);
        }
        if others {
            let named = SymbolSet::new(&named, self.symbols.len());
            let others = values.iter().filter(|(value, _)| !named.has(**value));
            return union(others.map(|(_, postings)| postings));
        }
        union(named.iter().filter_map(|value| values.get(value)))
    }

    /// Series with a value of the label that `accepts`, in the order in which they lie in memory.
    fn scan(&self, name: &str, accepts: impl Fn(u32) -> bool) -> RoaringBitmap {
        let Some(name) = self.symbols.find(name) else { return RoaringBitmap::new() };
        let place_in = |names: &[u32]| names.iter().position(|other| *other == name);
        let places: Vec<Option<usize>> =
            self.shapes.iter().map(|shape| place_in(&shape.names)).collect();
        let mut found = vec![0_u8; self.entities.len().div_ceil(8)];
        for (slot, entity) in self.entities.iter().enumerate() {
            let shape = entity.shape as usize;
            let place = places.get(shape).copied().flatten();
            let value = self.shapes.get(shape).zip(place).and_then(|(shape, place)| {
                shape.values.get(entity.row as usize * shape.names.len() + place)
            });
            if value.is_some_and(|value| accepts(*value))
                && let Some(byte) = found.get_mut(slot / 8)
            {
                *byte |= 1 << (slot % 8);
            }
        }
        RoaringBitmap::from_lsb0_bytes(0, &found) & &self.all
    }

    /// Symbols that the expression names, in no order; others than those of `values` may be there.
    fn named(&self, values: &HashMap<u32, Postings>, matcher: &Matcher) -> Vec<u32> {
        if values.len() < VALUES_MIN.max(self.symbols.len() / 4) {
            return self.named_of(values.len(), values.keys().copied(), matcher);
        }
        let mut pieces = matcher.expression().map(literal::required).unwrap_or_default();
        if !matcher.literal_prefix().is_empty() {
            pieces.insert(0, matcher.literal_prefix().into());
        }
        if let Some(piece) = self.rarest(pieces) {
            let candidates = self.symbols.containing(&piece);
            return self.named_of(candidates.len(), candidates.into_iter(), matcher);
        }
        // Through memory from front to back.
        Self::named_in(self.symbols.iter(), Tester::new(matcher), matcher)
    }

    /// Those of `count` symbols that the expression names.
    fn named_of(
        &self,
        count: usize,
        symbols: impl Iterator<Item = u32>,
        matcher: &Matcher,
    ) -> Vec<u32> {
        let tester = if count < VALUES_MIN { None } else { Tester::new(matcher) };
        Self::named_in(symbols.map(|symbol| (symbol, self.symbols.get(symbol))), tester, matcher)
    }

    fn named_in<'a>(
        texts: impl Iterator<Item = (u32, &'a str)>,
        tester: Option<Tester>,
        matcher: &Matcher,
    ) -> Vec<u32> {
        let negative = matcher.op().is_negative();
        let prefix = matcher.literal_prefix();
        let is_named = |text: &str| matcher.matches(text) != negative;
        let texts = texts.filter(|(_, text)| text.starts_with(prefix));
        let mut named = Vec::new();
        match tester {
            Some(tester) => tester.matching(texts, is_named, &mut named),
            None => {
                named.extend(texts.filter(|(_, text)| is_named(text)).map(|(symbol, _)| symbol));
            }
        }
        named
    }

    /// Of pieces of text, all of which a string must have, the one that fewest have, where that
    /// seem to be few.
    fn rarest(&self, pieces: Vec<Vec<u8>>) -> Option<Vec<u8>> {
        let step = (self.symbols.len() / SAMPLES).max(1);
        let having = |piece: &[u8]| {
            let finder = memchr::memmem::Finder::new(piece);
            let samples = (0..self.symbols.len()).step_by(step);
            let texts = samples.map(|number| self.symbols.get(number as u32).as_bytes());
            texts.filter(|text| finder.find(text).is_some()).count()
        };
        let counted = pieces.into_iter().take(PIECES_MAX).map(|piece| (having(&piece), piece));
        let rarest = counted.min_by_key(|(count, _)| *count);
        rarest.filter(|(count, _)| *count <= SAMPLES / 8).map(|(_, piece)| piece)
    }

    pub(super) fn values_of(&self, name: &str) -> Option<&HashMap<u32, Postings>> {
        self.postings.get(&self.symbols.find(name)?)
    }
}

/// The series of all of these.
fn union<'a>(all: impl Iterator<Item = &'a Postings>) -> RoaringBitmap {
    let mut single: Vec<Slot> = Vec::new();
    let mut found = RoaringBitmap::new();
    for postings in all {
        match postings {
            Postings::One(slot) => single.push(*slot),
            Postings::Many(slots) => found |= &**slots,
        }
    }
    single.sort_unstable();
    found | RoaringBitmap::from_sorted_iter(single).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stint_model::Labels;

    use super::*;

    fn matcher() -> impl Strategy<Value = Matcher> {
        let op = prop_oneof![
            Just(MatchOp::Equal),
            Just(MatchOp::NotEqual),
            Just(MatchOp::Regex),
            Just(MatchOp::NotRegex),
        ];
        let name = prop_oneof![Just("few"), Just("many"), Just("some"), Just("none")];
        let value = prop_oneof![
            Just(String::new()),
            (0..60_u32).prop_map(|number| number.to_string()),
            (0..9_u32, 0..60_u32).prop_map(|(a, b)| format!("{a}|{b}")),
            (0..9_u32).prop_map(|number| format!("{number}.*")),
            (0..9_u32).prop_map(|number| format!(".*{number}|")),
            (0..9_u32).prop_map(|number| format!(".*{number}")),
            (0..9_u32).prop_map(|number| format!(".*{number}.")),
            (0..99_u32).prop_map(|number| format!(".*{number}.*")),
            (0..9_u32).prop_map(|number| format!(".+{number}?")),
            Just(".*".to_owned()),
            Just(".+".to_owned()),
        ];
        (op, name, value).prop_map(|(op, name, value)| Matcher::new(op, name, &value).unwrap())
    }

    proptest! {
        #[test]
        fn a_selector_means_the_series_that_it_matches(
            matchers in prop::collection::vec(matcher(), 0..4),
        ) {
            let mut index = Index::default();
            let all: Vec<Labels> = (0..300_u32).map(|number| Labels::from_pairs([
                ("few", (number % 3).to_string()),
                ("many", number.to_string()),
                ("some", if number % 4 == 0 { (number / 8).to_string() } else { String::new() }),
            ])).collect();
            for (slot, labels) in (0..).zip(&all) {
                index.insert(slot, labels, labels.stable_hash());
            }
            let selector = Selector::new(matchers);
            let matching = (0..).zip(&all).filter(|(_, labels)| selector.matches(labels));
            let want: Vec<Slot> = matching.map(|(slot, _)| slot).collect();
            prop_assert_eq!(index.select(&selector).iter().collect::<Vec<_>>(), want);
        }
    }
}
