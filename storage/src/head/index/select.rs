//! Which series a selector means: the matchers that say most come first, and where few series are
//! left, their labels are looked at instead of all values of a label.
//!
//! A search takes the lock of the index for a limited number of things at a time, so that an append
//! with new series never waits for long; strings are searched without any lock. What comes or goes
//! meanwhile may be found or not: readers look at what was there before they began, and is there as
//! long as they are. Numbers of strings hold as long as the index is not rebuilt: then a search begins
//! anew.

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use stint_model::{MatchOp, Matcher, Selector};

use super::{Index, Postings, Slot, Values};
use crate::head::symbols::Texts;
use crate::index::literal;
use crate::index::tester::Tester;
use crate::sync::RwLock;

/// Series, values or strings that are looked at under one lock: less than a millisecond.
pub(super) const AT_ONCE: usize = if cfg!(test) { 8 } else { 1 << 13 };

/// Below this many values, testing them as they are is faster than building an automaton.
const VALUES_MIN: usize = 256;

/// Where more than one in so many series may be found one by one, all series are looked at in the
/// order in which they lie in memory.
const SCAN_SHARE: usize = 16;

/// The index was rebuilt: numbers of strings mean others now.
#[derive(Debug)]
pub(super) struct Rebuilt;

/// A search in the index behind a lock, while it is the same.
pub(super) struct Search<'a> {
    lock: &'a RwLock<Index>,
    generation: u64,
}

/// Does `work`, anew where the index was rebuilt meanwhile.
pub(super) fn search<T>(
    lock: &RwLock<Index>,
    mut work: impl FnMut(&Search<'_>) -> Result<T, Rebuilt>,
) -> T {
    loop {
        let generation = lock.read().generation;
        if let Ok(done) = work(&Search { lock, generation }) {
            return done;
        }
    }
}

/// The series that match `selector`.
pub(crate) fn select(lock: &RwLock<Index>, selector: &Selector) -> RoaringBitmap {
    search(lock, |search| search.select(selector))
}

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

impl Search<'_> {
    /// Does `work` under the lock; it must not take long.
    pub(super) fn step<T>(&self, work: impl FnOnce(&Index) -> T) -> Result<T, Rebuilt> {
        let index = self.lock.read();
        if index.generation == self.generation { Ok(work(&index)) } else { Err(Rebuilt) }
    }

    /// All strings, to be looked at without the lock.
    pub(super) fn texts(&self) -> Result<Texts, Rebuilt> {
        self.step(|index| index.symbols.view())
    }

    fn select(&self, selector: &Selector) -> Result<RoaringBitmap, Rebuilt> {
        let mut found: Option<RoaringBitmap> = None;
        // Conditions that a series without the label fails say which series to start from.
        let (mut first, mut then): (Vec<_>, Vec<_>) =
            selector.matchers.iter().partition(|matcher| !matcher.matches_empty());
        first.sort_by_key(|matcher| is_search(matcher) || matcher.op().is_negative());
        for matcher in first {
            found = Some(match found {
                None => self.having(matcher)?,
                Some(found) if self.is_cheaper_to_filter(&found, matcher)? => {
                    self.filter(&found, matcher)?
                }
                Some(found) => found & self.having(matcher)?,
            });
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                return Ok(RoaringBitmap::new());
            }
        }
        let mut found = match found {
            Some(found) => found,
            None => self.step(|index| index.all.clone())?,
        };
        then.sort_by_key(|matcher| is_search(matcher));
        for matcher in then {
            if self.is_cheaper_to_filter(&found, matcher)? {
                found = self.filter(&found, matcher)?;
            } else {
                found -= self.lacking(matcher)?;
            }
        }
        Ok(found)
    }

    fn is_cheaper_to_filter(
        &self,
        found: &RoaringBitmap,
        matcher: &Matcher,
    ) -> Result<bool, Rebuilt> {
        let tried = is_search(matcher) || (matcher.op().is_negative() && !matcher.matches_empty());
        Ok(tried && found.len() < self.values_len(matcher.name())? as u64)
    }

    fn values_len(&self, name: &str) -> Result<usize, Rebuilt> {
        self.step(|index| index.values_of(name).map_or(0, Values::len))
    }

    /// Those of `found` that `matcher` accepts.
    fn filter(&self, found: &RoaringBitmap, matcher: &Matcher) -> Result<RoaringBitmap, Rebuilt> {
        let without = matcher.matches_empty();
        let name = self.step(|index| index.symbols.find(matcher.name()))?;
        let Some(name) = name else {
            return Ok(if without { found.clone() } else { RoaringBitmap::new() });
        };
        let values = self.values_of_slots(found, name)?;
        let mut distinct: Vec<u32> = values.iter().filter_map(|(_, value)| *value).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let texts = self.texts()?;
        let named = SymbolSet::new(&named_of(&texts, &distinct, matcher), texts.len());
        let negative = matcher.op().is_negative();
        let accepted = values.into_iter().filter(|(_, value)| match value {
            None => without,
            Some(value) => named.has(*value) != negative,
        });
        Ok(RoaringBitmap::from_sorted_iter(accepted.map(|(slot, _)| slot)).unwrap_or_default())
    }

    /// The value that each of `slots` has for a label.
    pub(super) fn values_of_slots(
        &self,
        slots: &RoaringBitmap,
        name: u32,
    ) -> Result<Vec<(Slot, Option<u32>)>, Rebuilt> {
        let mut values = Vec::with_capacity(slots.len() as usize);
        let mut slots = slots.iter();
        loop {
            let before = values.len();
            self.step(|index| {
                let part = slots.by_ref().take(AT_ONCE);
                values.extend(part.map(|slot| (slot, index.value_of(slot, name))));
            })?;
            if values.len() < before + AT_ONCE {
                return Ok(values);
            }
        }
    }

    /// Series with a value of the label that `matcher` accepts.
    fn having(&self, matcher: &Matcher) -> Result<RoaringBitmap, Rebuilt> {
        match (matcher.op(), matcher.set_of_values()) {
            (MatchOp::Equal, _) => self.with_values(matcher.name(), &[matcher.value()]),
            (MatchOp::Regex, Some(set)) => self.with_values(matcher.name(), set),
            _ => self.find(matcher, false),
        }
    }

    /// Series with a value of the label that `matcher` does not accept.
    fn lacking(&self, matcher: &Matcher) -> Result<RoaringBitmap, Rebuilt> {
        let refused = |value: &&str| !matcher.matches(value);
        match (matcher.op(), matcher.set_of_values()) {
            (MatchOp::NotEqual, _) => {
                let only = [matcher.value()];
                let refused: Vec<&str> = only.into_iter().filter(refused).collect();
                self.with_values(matcher.name(), &refused)
            }
            (MatchOp::NotRegex, Some(set)) => {
                let refused: Vec<&str> = set.iter().map(AsRef::as_ref).filter(refused).collect();
                self.with_values(matcher.name(), &refused)
            }
            _ => self.find(matcher, true),
        }
    }

    /// Series that have one of the values for a label.
    fn with_values<T: AsRef<str>>(
        &self,
        name: &str,
        values: &[T],
    ) -> Result<RoaringBitmap, Rebuilt> {
        let mut union = Union::default();
        for part in values.chunks(AT_ONCE) {
            self.step(|index| {
                let Some(all) = index.values_of(name) else { return };
                for value in part {
                    let symbol = index.symbols.find(value.as_ref());
                    if let Some(postings) = symbol.and_then(|symbol| all.get(symbol)) {
                        union.add(postings);
                    }
                }
            })?;
        }
        Ok(union.finish())
    }

    /// Series with a value that `matcher` accepts, or refuses where that is asked for.
    fn find(&self, matcher: &Matcher, refused: bool) -> Result<RoaringBitmap, Rebuilt> {
        let values = self.values_len(matcher.name())?;
        if values == 0 {
            return Ok(RoaringBitmap::new());
        }
        if matcher.op() == MatchOp::Regex && matcher.value() == ".+" && !refused {
            return self.with_name(matcher.name(), values);
        }
        let texts = self.texts()?;
        let named = self.named(&texts, values, matcher)?;
        // The others are wanted.
        let others = matcher.op().is_negative() != refused;
        let series = self.step(Index::len)?;
        if others || named.len() > series / SCAN_SHARE {
            let named = SymbolSet::new(&named, texts.len());
            // A string that came later is of a series that came later.
            return self.scan(matcher.name(), |value| named.has(value) != others);
        }
        let mut union = Union::default();
        for part in named.chunks(AT_ONCE) {
            self.step(|index| {
                let Some(all) = index.values_of(matcher.name()) else { return };
                part.iter().filter_map(|value| all.get(*value)).for_each(|one| union.add(one));
            })?;
        }
        Ok(union.finish())
    }

    /// Series that have a label, which has so many values.
    fn with_name(&self, name: &str, values: usize) -> Result<RoaringBitmap, Rebuilt> {
        if values > self.step(Index::len)? / SCAN_SHARE {
            return self.scan(name, |_| true);
        }
        let mut union = Union::default();
        self.each_shard(name, |shard| shard.values().for_each(|postings| union.add(postings)))?;
        Ok(union.finish())
    }

    /// Series with a value of the label that `accepts`, in the order in which they lie in memory.
    fn scan(&self, name: &str, accepts: impl Fn(u32) -> bool) -> Result<RoaringBitmap, Rebuilt> {
        let (name, end) = self.step(|index| (index.symbols.find(name), index.entities.len()))?;
        let Some(name) = name else { return Ok(RoaringBitmap::new()) };
        let mut found = vec![0_u8; end.div_ceil(8)];
        let mut places: Vec<Option<usize>> = Vec::new();
        for from in (0..end).step_by(AT_ONCE) {
            self.step(|index| {
                let of_new = index.shapes.get(places.len()..).unwrap_or_default().iter();
                let place_in = |names: &[u32]| names.iter().position(|other| *other == name);
                places.extend(of_new.map(|shape| place_in(&shape.names)));
                let entities = index.entities.get(from..end.min(from + AT_ONCE));
                for (slot, entity) in (from..).zip(entities.unwrap_or_default()) {
                    let shape = entity.shape as usize;
                    let place = places.get(shape).copied().flatten();
                    let value = index.shapes.get(shape).zip(place).and_then(|(shape, place)| {
                        shape.values.get(entity.row as usize * shape.names.len() + place)
                    });
                    if value.is_some_and(|value| accepts(*value))
                        && let Some(byte) = found.get_mut(slot / 8)
                    {
                        *byte |= 1 << (slot % 8);
                    }
                }
            })?;
        }
        let found = RoaringBitmap::from_lsb0_bytes(0, &found);
        self.step(|index| found & &index.all)
    }

    /// Symbols that the expression names, in no order; others than those of values of the label may
    /// be there.
    fn named(&self, texts: &Texts, values: usize, matcher: &Matcher) -> Result<Vec<u32>, Rebuilt> {
        if !is_search(matcher) {
            let set = matcher.set_of_values().unwrap_or_default();
            let only = [matcher.value()];
            let equal = matches!(matcher.op(), MatchOp::Equal | MatchOp::NotEqual);
            return self.step(|index| {
                let find = |value: &str| index.symbols.find(value);
                if equal {
                    only.into_iter().filter_map(find).collect()
                } else {
                    set.iter().filter_map(|value| find(value)).collect()
                }
            });
        }
        if values < VALUES_MIN.max(texts.len() / 4) {
            return Ok(named_of(texts, &self.values(matcher.name())?, matcher));
        }
        let mut pieces = matcher.expression().map(literal::required).unwrap_or_default();
        if !matcher.literal_prefix().is_empty() {
            pieces.insert(0, matcher.literal_prefix().into());
        }
        let step = (texts.len() / literal::SAMPLES).max(1);
        let samples = (0..texts.len()).step_by(step).map(|number| texts.get(number as u32));
        let samples: Vec<&str> = samples.collect();
        if let Some(piece) = literal::rarest(pieces, &samples) {
            return Ok(named_of(texts, &texts.containing(&piece), matcher));
        }
        Ok(named_in_pages(texts, matcher))
    }

    /// The values that a label has.
    pub(super) fn values(&self, name: &str) -> Result<Vec<u32>, Rebuilt> {
        let mut values = Vec::new();
        self.each_shard(name, |shard| values.extend(shard.keys()))?;
        Ok(values)
    }

    /// The values of a label with their series, in parts.
    pub(super) fn each_shard(
        &self,
        name: &str,
        mut each: impl FnMut(&HashMap<u32, Postings>),
    ) -> Result<(), Rebuilt> {
        for number in 0.. {
            let more = self.step(|index| {
                index.values_of(name).and_then(|all| all.shard(number)).map(&mut each)
            })?;
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// Those of `symbols` that the expression names.
fn named_of(texts: &Texts, symbols: &[u32], matcher: &Matcher) -> Vec<u32> {
    let tester = if symbols.len() < VALUES_MIN { None } else { Tester::new(matcher) };
    let mut named = Vec::new();
    let symbols = symbols.iter().map(|symbol| (*symbol, texts.get(*symbol)));
    named_in(symbols, tester.as_ref(), matcher, &mut named);
    named
}

fn named_in<'a>(
    texts: impl Iterator<Item = (u32, &'a str)>,
    tester: Option<&Tester>,
    matcher: &Matcher,
    named: &mut Vec<u32>,
) {
    let negative = matcher.op().is_negative();
    let prefix = matcher.literal_prefix();
    let is_named = |text: &str| matcher.matches(text) != negative;
    let texts = texts.filter(|(_, text)| text.starts_with(prefix));
    match tester {
        Some(tester) => tester.matching(texts, is_named, named),
        None => {
            named.extend(texts.filter(|(_, text)| is_named(text)).map(|(symbol, _)| symbol));
        }
    }
}

/// All strings that the expression names, page by page in order of the strings: what a string shares
/// with the one before is not read again.
fn named_in_pages(texts: &Texts, matcher: &Matcher) -> Vec<u32> {
    let tester = Tester::new(matcher);
    let mut named = Vec::new();
    let mut rest = Vec::new();
    for (first, page) in texts.full_pages() {
        let walked = tester.as_ref().is_some_and(|tester| {
            let sorted =
                page.in_order().map(|(at, shared)| (first + at as u32, page.get(at), shared));
            tester.matching_sorted(sorted, &mut named)
        });
        if !walked {
            rest.push((first, page));
        }
    }
    let rest = rest.into_iter().flat_map(|(first, page)| (first..).zip(page.iter()));
    named_in(rest.chain(texts.last()), tester.as_ref(), matcher, &mut named);
    named
}

/// Series that have one of several labels.
#[derive(Default)]
pub(super) struct Union {
    single: Vec<Slot>,
    found: RoaringBitmap,
}

impl Union {
    pub(super) fn add(&mut self, postings: &Postings) {
        match postings {
            Postings::One(slot) => self.single.push(*slot),
            Postings::Many(slots) => self.found |= &**slots,
        }
    }

    pub(super) fn finish(mut self) -> RoaringBitmap {
        self.single.sort_unstable();
        // Slots whose series went while it was searched may be there twice.
        self.single.dedup();
        self.found | RoaringBitmap::from_sorted_iter(self.single).unwrap_or_default()
    }
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
            let lock = RwLock::new(index);
            let selector = Selector::new(matchers);
            let matching = (0..).zip(&all).filter(|(_, labels)| selector.matches(labels));
            let want: Vec<Slot> = matching.map(|(slot, _)| slot).collect();
            prop_assert_eq!(select(&lock, &selector).iter().collect::<Vec<_>>(), want);
        }
    }
}
