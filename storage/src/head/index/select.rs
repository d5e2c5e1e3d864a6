//! Which series a selector means: the matchers that say most come first, and where few series are
//! left, their labels are looked at instead of all values of a label.

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use stint_model::{MatchOp, Matcher, Selector};

use super::{Index, Postings, Slot};
use crate::index::regex::Tester;

/// Below this many values, testing them as they are is faster than building an automaton.
const VALUES_MIN: usize = 256;

/// Whether all values of the label have to be tried.
fn is_search(matcher: &Matcher) -> bool {
    let named = matches!(matcher.op(), MatchOp::Equal | MatchOp::NotEqual);
    !named && matcher.set_of_values().is_none()
}

/// The longest text that every string has that `expression` names, where that is easy to see: the
/// expression is plain text and `.`, `.*` and `.+`.
fn required_text(expression: &str) -> Option<&str> {
    let plain = |part: &&str| !part.contains(|c: char| r"\^$|?*+()[]{}".contains(c));
    let parts = expression.split('.').enumerate().map(|(at, part)| {
        if at == 0 { part } else { part.strip_prefix(['*', '+']).unwrap_or(part) }
    });
    let parts: Vec<&str> = parts.collect();
    let all_plain = parts.iter().all(plain);
    parts.into_iter().max_by_key(|part| part.len()).filter(|part| all_plain && !part.is_empty())
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
        let mut known: HashMap<u32, bool> = HashMap::new();
        let accepted = found.iter().filter(|slot| match self.value_of(*slot, name) {
            None => without,
            Some(value) => {
                *known.entry(value).or_insert_with(|| matcher.matches(self.symbols.get(value)))
            }
        });
        accepted.collect()
    }

    /// The value that a series has for a label.
    fn value_of(&self, slot: Slot, name: u32) -> Option<u32> {
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
            _ => return self.search(values, matcher, true),
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
            _ => return self.search(values, matcher, false),
        }
        found
    }

    /// Series with a value that `matcher` accepts, or refuses where not `accepted`.
    fn search(
        &self,
        values: &HashMap<u32, Postings>,
        matcher: &Matcher,
        accepted: bool,
    ) -> RoaringBitmap {
        let tester = if values.len() < VALUES_MIN { None } else { Tester::new(matcher) };
        let negative = matcher.op().is_negative();
        let prefix = if negative { "" } else { matcher.literal_prefix() };
        let wanted = |value: &str| {
            let matches = value.starts_with(prefix)
                && match tester.as_ref().and_then(|tester| tester.matches(value)) {
                    Some(named) => named != negative,
                    None => matcher.matches(value),
                };
            matches == accepted
        };
        let mut single = Vec::new();
        let mut found = RoaringBitmap::new();
        let mut add = |postings: &Postings| match postings {
            Postings::One(slot) => single.push(*slot),
            Postings::Many(slots) => found |= &**slots,
        };
        let required = required_text(matcher.value()).filter(|_| accepted != negative);
        if let Some(part) = required.filter(|_| values.len() >= self.symbols.len() / 4) {
            for symbol in self.symbols.containing(part) {
                if let Some(postings) = values.get(&symbol)
                    && wanted(self.symbols.get(symbol))
                {
                    add(postings);
                }
            }
        } else if values.len() >= self.symbols.len() / 4 {
            // Through memory from front to back.
            for (symbol, value) in self.symbols.iter() {
                if wanted(value)
                    && let Some(postings) = values.get(&symbol)
                {
                    add(postings);
                }
            }
        } else {
            for (symbol, postings) in values {
                if wanted(self.symbols.get(*symbol)) {
                    add(postings);
                }
            }
        }
        single.sort_unstable();
        found |= single.into_iter().collect::<RoaringBitmap>();
        found
    }

    pub(super) fn values_of(&self, name: &str) -> Option<&HashMap<u32, Postings>> {
        self.postings.get(&self.symbols.find(name)?)
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

    #[test]
    fn required_text_is_plain() {
        assert_eq!(required_text(".*node.+ab."), Some("node"));
        assert_eq!(required_text("a.bcd"), Some("bcd"));
        for expression in
            ["", ".*", "nodes?", "a|b", "(?i)node", r"a\.b", "no*de", "x{2}", "[ab]c", "a+.*"]
        {
            assert_eq!(required_text(expression), None, "{expression}");
        }
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
