//! An automaton along sorted texts, of which each is told by what it shares with the one before and by its
//! rest.
//!
//! What is shared is not read again. Nor is, mostly, the end of a text, where many have the same one
//! (`-3.example.net:9100`): how it goes on from a state through that end is remembered.

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;

/// The shortest end that is worth remembering.
const TAIL_MIN: usize = 4;

/// States from which it is remembered how they go on through the end.
const STATES_MAX: usize = 16;

/// An anchored automaton on its way from text to text.
pub(super) struct Walk<'a, 't> {
    automaton: &'a dense::DFA<Vec<u32>>,
    /// The state after each byte of the text at hand, as far as it was read and a match was possible.
    states: Vec<StateID>,
    /// Whether reading ended because no match was possible any more.
    is_dead: bool,
    /// The text at hand: bytes shared with the one before, and what follows those.
    shared: usize,
    rest: &'t [u8],
    /// An end that texts have in common.
    tail: &'t [u8],
    /// States before that end, and behind it.
    through: Vec<(StateID, StateID)>,
    /// Bytes read.
    read: usize,
}

/// The automaton cannot decide.
#[derive(Debug)]
pub(super) struct GaveUp;

impl<'a, 't> Walk<'a, 't> {
    /// Begins with the empty text; `None` where the automaton cannot begin.
    pub(super) fn new(automaton: &'a dense::DFA<Vec<u32>>) -> Option<Self> {
        let config = start::Config::new().anchored(Anchored::Yes);
        let first = automaton.start_state(&config).ok()?;
        Some(Self {
            automaton,
            states: vec![first],
            is_dead: false,
            shared: 0,
            rest: &[],
            tail: &[],
            through: Vec::new(),
            read: 0,
        })
    }

    /// How many bytes were read so far.
    pub(super) fn read_bytes(&self) -> usize {
        self.read
    }

    /// Whether the next text matches: the first `shared` bytes of the one before, and `rest`.
    pub(super) fn step(&mut self, shared: usize, rest: &'t [u8]) -> Result<bool, GaveUp> {
        if self.states.len() <= shared && (self.is_dead || !self.catch_up(shared)?) {
            return Ok(false);
        }
        self.states.truncate(shared + 1);
        let before = std::mem::replace(&mut self.rest, rest);
        (self.shared, self.is_dead) = (shared, false);
        let end = match rest.strip_suffix(self.tail) {
            Some(head) if !self.tail.is_empty() => {
                if !self.read(head)? {
                    return Ok(false);
                }
                self.through_tail()?
            }
            _ => {
                let same = before.iter().rev().zip(rest.iter().rev()).take_while(|(a, b)| a == b);
                let same = same.count();
                if same >= TAIL_MIN {
                    self.tail = rest.get(rest.len() - same..).unwrap_or_default();
                    self.through.clear();
                }
                if !self.read(rest)? {
                    return Ok(false);
                }
                self.states.last().copied().ok_or(GaveUp)?
            }
        };
        Ok(self.automaton.is_match_state(self.automaton.next_eoi_state(end)))
    }

    /// Reads of the text at hand as much as the next one shares with it; whether a match is still
    /// possible.
    fn catch_up(&mut self, shared: usize) -> Result<bool, GaveUp> {
        // States are there at least for what the text shares with the one before.
        let from = (self.states.len() - 1).checked_sub(self.shared);
        let range = from.zip(shared.checked_sub(self.shared));
        let missing = range.and_then(|(from, to)| self.rest.get(from..to));
        // More than the whole text cannot be shared.
        missing.map_or(Ok(false), |missing| self.read(missing))
    }

    /// Goes on through `bytes`; whether a match is still possible.
    fn read(&mut self, bytes: &[u8]) -> Result<bool, GaveUp> {
        let Some(mut state) = self.states.last().copied() else { return Err(GaveUp) };
        self.read += bytes.len();
        for byte in bytes {
            state = self.automaton.next_state(state, *byte);
            if self.automaton.is_special_state(state) {
                if self.automaton.is_dead_state(state) {
                    self.is_dead = true;
                    return Ok(false);
                }
                if self.automaton.is_quit_state(state) {
                    return Err(GaveUp);
                }
            }
            self.states.push(state);
        }
        Ok(true)
    }

    /// The state behind the end that texts have in common, from the present one.
    fn through_tail(&mut self) -> Result<StateID, GaveUp> {
        let Some(state) = self.states.last().copied() else { return Err(GaveUp) };
        if let Some((_, end)) = self.through.iter().find(|(from, _)| *from == state) {
            return Ok(*end);
        }
        self.read += self.tail.len();
        let mut end = state;
        for byte in self.tail {
            end = self.automaton.next_state(end, *byte);
        }
        // Neither dead nor given up is ever left again.
        if self.automaton.is_quit_state(end) {
            return Err(GaveUp);
        }
        if self.through.len() == STATES_MAX {
            self.through.clear();
        }
        self.through.push((state, end));
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stint_model::{MatchOp, Matcher};

    use super::super::regex::build;
    use super::*;

    fn shared(a: &str, b: &str) -> usize {
        a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
    }

    proptest! {
        #[test]
        fn sorted_texts_are_matched_as_one_by_one(
            heads in proptest::collection::btree_set("[ab]{0,5}", 1..60),
            tails in proptest::collection::vec(prop::sample::select(vec!["", ".aabb", ".abab", "b.abab"]), 60),
            pattern in r"[ab.|*+?()]{1,9}",
            less in 0_usize..3,
        ) {
            let mut texts: Vec<String> =
                heads.iter().zip(&tails).map(|(head, tail)| format!("{head}{tail}")).collect();
            texts.sort();
            let matcher = Matcher::new(MatchOp::Regex, "l", &pattern);
            if let Some(matcher) = matcher.ok()
                && let Some(automaton) = matcher.expression().and_then(build)
            {
                let mut walk = Walk::new(&automaton).unwrap();
                let mut before = "";
                for text in &texts {
                    // It may be told to be less.
                    let shared = shared(before, text).saturating_sub(less);
                    let found = walk.step(shared, &text.as_bytes()[shared..]).unwrap();
                    prop_assert_eq!(found, matcher.matches(text), "{} of {}", text, pattern);
                    before = text;
                }
            }
        }
    }

    #[test]
    fn what_texts_have_in_common_is_read_once() {
        let texts: Vec<String> =
            (1000..2000).map(|n| format!("host-{n}.example.net:9100")).collect();
        let automaton = build("(?:host-.*[02468].+0|x)").unwrap();
        let mut walk = Walk::new(&automaton).unwrap();
        let mut before = "";
        for text in &texts {
            let shared = shared(before, text);
            walk.step(shared, &text.as_bytes()[shared..]).unwrap();
            before = text;
        }
        let whole: usize = texts.iter().map(String::len).sum();
        assert!(walk.read_bytes() * 8 < whole, "{} of {whole} bytes", walk.read_bytes());
    }

    #[test]
    fn nonsense_is_no_match() {
        let automaton = build("(?:a*)").unwrap();
        let mut walk = Walk::new(&automaton).unwrap();
        assert!(walk.step(0, b"aa").unwrap());
        assert!(!walk.step(9, b"a").unwrap(), "more is shared than there was");
        assert!(walk.step(1, b"a").unwrap());
        let Some(unicode) = build(r"(?:.*\bx)") else { return };
        let mut walk = Walk::new(&unicode).unwrap();
        assert!(walk.step(0, "é x".as_bytes()).is_err());
    }
}
