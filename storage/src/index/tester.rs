//! Tests many texts against one expression.
//!
//! The automaton is stepped through several texts at once: each step waits for the one before it,
//! but not for those of other texts.

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use stint_model::Matcher;

use super::regex::build;
use super::walk::Walk;

/// Texts at once.
const LANES: usize = 4;
/// Bytes of each text between looks at whether a match is still possible.
const STRIDE: usize = 8;

/// Texts after which it is judged what their order saves.
const SORTED_PROBES: usize = if cfg!(test) { 4 } else { 64 };

/// An expression as an automaton, for texts as a whole.
pub(crate) struct Tester {
    automaton: dense::DFA<Vec<u32>>,
    first: StateID,
}

/// A text on its way through the automaton.
#[derive(Clone, Copy)]
struct Lane<'a> {
    number: u32,
    text: &'a str,
    rest: &'a [u8],
    state: StateID,
}

impl<'a> Lane<'a> {
    /// The next bytes; no more than there are.
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (part, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        part
    }
}

impl Tester {
    /// `None` where there is no expression, or its automaton is too large.
    pub(crate) fn new(matcher: &Matcher) -> Option<Self> {
        let automaton = matcher.expression().and_then(build)?;
        let config = start::Config::new().anchored(Anchored::Yes);
        let first = automaton.start_state(&config).ok()?;
        Some(Self { automaton, first })
    }

    /// Whether a text that ended in `state` matches.
    fn is_match(&self, state: StateID) -> Option<bool> {
        if self.automaton.is_quit_state(state) {
            return None;
        }
        Some(self.automaton.is_match_state(self.automaton.next_eoi_state(state)))
    }

    /// Appends the numbers of the texts that match, in no order. Where the automaton gives up,
    /// `otherwise` decides.
    pub(crate) fn matching<'a>(
        &self,
        texts: impl IntoIterator<Item = (u32, &'a str)>,
        otherwise: impl Fn(&str) -> bool,
        found: &mut Vec<u32>,
    ) {
        let mut texts = texts.into_iter().map(|(number, text)| Lane {
            number,
            text,
            rest: text.as_bytes(),
            state: self.first,
        });
        let mut end = |lane: &Lane<'a>| {
            if self.is_match(lane.state).unwrap_or_else(|| otherwise(lane.text)) {
                found.push(lane.number);
            }
        };
        let mut lanes: Vec<Lane<'a>> = texts.by_ref().take(LANES).collect();
        while let Ok(all) = <&mut [Lane<'a>; LANES]>::try_from(lanes.as_mut_slice()) {
            self.stride(all);
            lanes.retain_mut(|lane| {
                // Both dead and spent ones make room for the next text.
                while lane.rest.is_empty() || self.automaton.is_dead_state(lane.state) {
                    if lane.rest.is_empty() {
                        end(lane);
                    }
                    match texts.next() {
                        Some(next) => *lane = next,
                        None => return false,
                    }
                }
                true
            });
        }
        for lane in &mut lanes {
            for byte in lane.rest {
                lane.state = self.automaton.next_state(lane.state, *byte);
            }
            end(lane);
        }
    }

    /// Appends the numbers of the texts that match. They come in order, each with how many bytes it
    /// shares with the one before: those are not read again. False, and nothing appended, where that
    /// seems to save little or the automaton gives up.
    pub(crate) fn matching_sorted<'a>(
        &self,
        texts: impl IntoIterator<Item = (u32, &'a str, usize)>,
        found: &mut Vec<u32>,
    ) -> bool {
        let begun = found.len();
        let Some(mut along) = Walk::new(&self.automaton) else { return false };
        let mut whole = 0;
        for (count, (number, text, shared)) in texts.into_iter().enumerate() {
            whole += text.len();
            let is_match = along.step(shared, text.as_bytes().get(shared..).unwrap_or_default());
            let saves_little = count + 1 == SORTED_PROBES && along.read_bytes() * 2 > whole;
            if saves_little || is_match.is_err() {
                found.truncate(begun);
                return false;
            }
            if is_match.is_ok_and(|is_match| is_match) {
                found.push(number);
            }
        }
        true
    }

    /// Steps all lanes through as many bytes as each of them has.
    fn stride(&self, lanes: &mut [Lane<'_>; LANES]) {
        let [a, b, c, d] = lanes;
        let bytes = STRIDE.min(a.rest.len()).min(b.rest.len()).min(c.rest.len()).min(d.rest.len());
        let parts = (a.take(bytes), b.take(bytes), c.take(bytes), d.take(bytes));
        let mut states = (a.state, b.state, c.state, d.state);
        for (((a, b), c), d) in parts.0.iter().zip(parts.1).zip(parts.2).zip(parts.3) {
            states = (
                self.automaton.next_state(states.0, *a),
                self.automaton.next_state(states.1, *b),
                self.automaton.next_state(states.2, *c),
                self.automaton.next_state(states.3, *d),
            );
        }
        (a.state, b.state, c.state, d.state) = states;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stint_model::MatchOp;

    proptest! {
        #[test]
        fn all_at_once_as_one_by_one(
            texts in prop::collection::vec("[abé]{0,20}", 0..40),
            pattern in r"[ab.|*+?()1]{1,8}|a+\\b.*",
        ) {
            if let Ok(matcher) = Matcher::new(MatchOp::Regex, "l", &pattern)
                && let Some(tester) = Tester::new(&matcher)
            {
                let mut found = Vec::new();
                let numbered = (0..).zip(texts.iter().map(String::as_str));
                tester.matching(numbered, |text| matcher.matches(text), &mut found);
                found.sort_unstable();
                let want = (0..).zip(&texts).filter(|(_, text)| matcher.matches(text));
                let want: Vec<u32> = want.map(|(number, _)| number).collect();
                prop_assert_eq!(&found, &want, "{}", pattern);
                let mut sorted: Vec<(u32, &str)> = (0..).zip(texts.iter().map(String::as_str)).collect();
                sorted.sort_by_key(|(_, text)| *text);
                let mut before = "";
                let sorted = sorted.into_iter().map(|(number, text)| {
                    let same = before.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
                    before = text;
                    (number, text, same)
                });
                found.clear();
                if tester.matching_sorted(sorted, &mut found) {
                    found.sort_unstable();
                    prop_assert_eq!(found, want, "sorted: {}", pattern);
                } else {
                    prop_assert!(found.is_empty());
                }
            }
        }
    }

    #[test]
    fn where_the_automaton_gives_up_the_matcher_decides() {
        let matcher = Matcher::new(MatchOp::Regex, "l", r".*\bé.*").unwrap();
        let Some(tester) = Tester::new(&matcher) else { return };
        let mut found = Vec::new();
        let texts = ["a é", "é b", "aéb", "x", "é", "- é -"];
        tester.matching((0..).zip(texts), |text| matcher.matches(text), &mut found);
        found.sort_unstable();
        let want = (0..).zip(texts).filter(|(_, text)| matcher.matches(text));
        assert_eq!(found, want.map(|(number, _)| number).collect::<Vec<u32>>());
    }
}
