//! What questions cost when they were asked before.
//!
//! Dashboards and rules ask the same again and again. What was answered in less time than it takes to
//! hand it to another thread and back is answered at once.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Questions that are remembered at most; newer ones take the places of others.
const PLACES: usize = 4096;
/// What took this long at most is cheap.
const CHEAP_MAX: Duration = Duration::from_millis(1);
/// Bits of a place that hold microseconds; the others hold what is left of the question.
const COST_BITS: u32 = 24;
const COST_MAX: u64 = (1 << COST_BITS) - 1;

/// A question, as far as it is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question(u64);

/// The times that questions took last.
#[derive(Debug)]
pub(super) struct Costs {
    places: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Costs {
    pub(super) fn new() -> Self {
        let places = std::iter::repeat_with(AtomicU64::default).take(PLACES).collect();
        Self { places, hasher: RandomState::new() }
    }

    /// The question that `asked` stands for.
    pub(super) fn question(&self, asked: &impl Hash) -> Question {
        Question(self.hasher.hash_one(asked))
    }

    fn place(&self, question: Question) -> Option<&AtomicU64> {
        self.places.get(question.0 as usize % PLACES)
    }

    /// Whether it was asked before and took little time.
    pub(super) fn is_cheap(&self, question: Question) -> bool {
        let known = self.place(question).map_or(0, |place| place.load(Ordering::Relaxed));
        known >> COST_BITS == question.0 >> COST_BITS
            && (1..=CHEAP_MAX.as_micros() as u64).contains(&(known & COST_MAX))
    }

    /// Remembers how long it took.
    pub(super) fn note(&self, question: Question, took: Duration) {
        // Nothing took no time at all: a place of zero knows nothing.
        let cost = (took.as_micros() as u64).clamp(1, COST_MAX);
        if let Some(place) = self.place(question) {
            place.store(question.0 & !COST_MAX | cost, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cheap_is_taken_to_be_cheap() {
        let costs = Costs::new();
        let [a, b] = ["a", "b"].map(|text| costs.question(&text));
        assert_eq!(costs.question(&"a"), a);
        assert!(!costs.is_cheap(a), "nothing is known");
        costs.note(a, Duration::ZERO);
        assert!(costs.is_cheap(a));
        assert!(!costs.is_cheap(b));
        costs.note(a, CHEAP_MAX + Duration::from_micros(1));
        assert!(!costs.is_cheap(a));
        costs.note(a, CHEAP_MAX);
        assert!(costs.is_cheap(a));
        costs.note(a, Duration::from_secs(1000));
        assert!(!costs.is_cheap(a));
    }

    #[test]
    fn another_question_takes_the_place() {
        let costs = Costs::new();
        let (one, other) = (Question(5 << COST_BITS), Question(6 << COST_BITS));
        costs.note(one, Duration::ZERO);
        costs.note(other, Duration::ZERO);
        assert!(costs.is_cheap(other));
        assert!(!costs.is_cheap(one));
    }
}
