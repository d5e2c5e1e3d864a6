//! The newest exemplars of all series, in memory; the log brings them back after a restart.

use std::collections::VecDeque;

use hashbrown::HashMap;
use stint_model::exemplar::LABELS_CHARS_MAX;
use stint_model::{Exemplar, TimeRange};

/// A ring of exemplars.
#[derive(Debug)]
pub(super) struct ExemplarRing {
    capacity: usize,
    ring: VecDeque<(u64, Exemplar)>,
    /// Newest exemplar of each series that has some in the ring, and how many.
    newest: HashMap<u64, (Exemplar, usize)>,
}

impl ExemplarRing {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, ring: VecDeque::new(), newest: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether [`ExemplarRing::push`] would take it: newer than what its series has, labels not
    /// too long, and not kept already.
    pub(crate) fn accepts(&self, id: u64, exemplar: &Exemplar) -> bool {
        let characters = |text: &str| text.chars().count();
        let length: usize =
            exemplar.labels.iter().map(|(name, value)| characters(name) + characters(value)).sum();
        self.capacity > 0
            && length <= LABELS_CHARS_MAX
            && self.newest.get(&id).is_none_or(|(newest, _)| newest.at < exemplar.at)
    }

    /// Adds an exemplar, dropping the oldest where there is no room.
    pub(crate) fn push(&mut self, id: u64, exemplar: Exemplar) {
        if !self.accepts(id, &exemplar) {
            return;
        }
        if self.ring.len() >= self.capacity {
            self.drop_oldest();
        }
        let entry = self.newest.entry(id).or_insert_with(|| (exemplar.clone(), 0));
        entry.0 = exemplar.clone();
        entry.1 += 1;
        self.ring.push_back((id, exemplar));
    }

    /// Changes how many are kept; the oldest beyond that are dropped.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        while self.ring.len() > capacity {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((old, _)) = self.ring.pop_front() else { return };
        let left = self.newest.get_mut(&old).map_or(0, |(_, count)| {
            *count -= 1;
            *count
        });
        if left == 0 {
            self.newest.remove(&old);
        }
    }

    /// All exemplars inside `range`, in order of arrival.
    pub(crate) fn inside(&self, range: TimeRange) -> impl Iterator<Item = (u64, &Exemplar)> {
        self.ring.iter().filter(move |(_, e)| range.contains(e.at)).map(|(id, e)| (*id, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stint_model::{Labels, Timestamp};

    #[test]
    fn the_ring_keeps_the_newest() {
        let mut ring = ExemplarRing::new(3);
        let exemplar = |at| Exemplar { labels: Labels::default(), value: 1.0, at: Timestamp(at) };
        for at in [1, 2, 2, 1, 3, 4] {
            ring.push(1, exemplar(at));
        }
        ring.push(2, exemplar(1));
        let kept: Vec<_> = ring.inside(TimeRange::ALL).map(|(id, e)| (id, e.at.0)).collect();
        assert_eq!(kept, [(1, 3), (1, 4), (2, 1)]);
        let long = Labels::from_pairs([("trace_id", "x".repeat(LABELS_CHARS_MAX))]);
        assert!(!ring.accepts(3, &Exemplar { labels: long, ..exemplar(9) }));
        assert!(!ExemplarRing::new(0).accepts(1, &exemplar(1)));
        ring.set_capacity(1);
        let kept: Vec<_> = ring.inside(TimeRange::ALL).map(|(id, e)| (id, e.at.0)).collect();
        assert_eq!(kept, [(2, 1)]);
        assert!(ring.accepts(1, &exemplar(1)), "nothing of its series is left");
    }
}
