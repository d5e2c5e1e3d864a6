//! Numbers for sets of labels that are parts of others: groups of aggregations, signatures of joins.

use std::hash::{Hash, Hasher};

use hashbrown::{Equivalent, HashMap};
use stint_model::labels::METRIC_NAME;
use stint_model::{Labels, SeriesSet};

use crate::exec::aggregate::is_kept;
use crate::parse::ast::Aggregate;

/// Gives each set of labels a number, from 0 on, in order of first sight.
#[derive(Debug, Default)]
pub(crate) struct GroupIndex {
    known: HashMap<Labels, usize, foldhash::fast::FixedState>,
    /// By the address of labels, which are held so that nothing else gets it.
    by_address: HashMap<usize, (Labels, usize), foldhash::fast::FixedState>,
    text: String,
}

/// What a set of labels is found by without making it.
struct Encoded<'a>(&'a str);

impl Hash for Encoded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<Labels> for Encoded<'_> {
    fn equivalent(&self, labels: &Labels) -> bool {
        self.0 == labels.encoded()
    }
}

impl GroupIndex {
    /// The number of the set of those of `labels` for which `keep` holds, and the set itself when it
    /// was not seen before.
    pub(crate) fn number(
        &mut self,
        labels: &Labels,
        keep: impl Fn(&str) -> bool,
    ) -> (usize, Option<Labels>) {
        self.text.clear();
        labels.encode_retained(&keep, &mut self.text);
        if let Some(number) = self.known.get(&Encoded(&self.text)) {
            return (*number, None);
        }
        let set = labels.retain(keep);
        let number = self.known.len();
        self.known.insert(set.clone(), number);
        (number, Some(set))
    }

    /// As [`Self::number`], of labels that many series share as one allocation: see [`SeenLabels`].
    /// `keep` must be the same each time.
    pub(crate) fn number_of_shared(
        &mut self,
        labels: &Labels,
        keep: impl Fn(&str) -> bool,
    ) -> (usize, Option<Labels>) {
        let address = labels.encoded().as_ptr().addr();
        if let Some((_, number)) = self.by_address.get(&address) {
            return (*number, None);
        }
        let (number, new) = self.number(labels, keep);
        // One for each set, should the labels not be shared after all.
        if new.is_some() {
            self.by_address.insert(address, (labels.clone(), number));
        }
        (number, new)
    }

    /// The number of a set seen before.
    pub(crate) fn find(&mut self, labels: &Labels, keep: impl Fn(&str) -> bool) -> Option<usize> {
        self.text.clear();
        labels.encode_retained(keep, &mut self.text);
        self.known.get(&Encoded(&self.text)).copied()
    }
}

/// The labels of selected series, as far as anybody looks at them.
#[derive(Debug, Default)]
pub(crate) struct SeenLabels<'a> {
    grouping: Option<&'a Aggregate>,
    known: hashbrown::HashSet<Labels, foldhash::fast::FixedState>,
    text: String,
}

impl<'a> SeenLabels<'a> {
    /// Those by which an aggregation groups, and the metric name, which remarks tell; without an
    /// aggregation all.
    pub(crate) fn new(grouping: Option<&'a Aggregate>) -> Self {
        Self { grouping, ..Self::default() }
    }

    /// Of series `index`.
    pub(crate) fn of(&mut self, set: &dyn SeriesSet, index: usize) -> Labels {
        let Some(aggregate) = self.grouping else { return set.labels(index) };
        let keep = |name: &str| name == METRIC_NAME || is_kept(aggregate, name);
        self.text.clear();
        set.encode_labels(index, &keep, &mut self.text);
        if let Some(labels) = self.known.get(&Encoded(&self.text)) {
            return labels.clone();
        }
        let labels = set.labels(index).retain(keep);
        self.known.insert(labels.clone());
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_have_equal_numbers() {
        let labels = |a: &str, b: &str| Labels::from_pairs([("a", a), ("b", b)]);
        let mut index = GroupIndex::default();
        let keep = |name: &str| name == "a";
        let (number, made) = index.number(&labels("1", "x"), keep);
        assert_eq!((number, made), (0, Some(Labels::from_pairs([("a", "1")]))));
        assert_eq!(index.number(&labels("1", "y"), keep), (0, None));
        assert_eq!(index.number(&labels("2", "x"), keep).0, 1);
        assert_eq!(index.find(&labels("2", "z"), keep), Some(1));
        assert_eq!(index.find(&labels("3", "z"), keep), None);
    }

    #[test]
    fn shared_labels_are_known_by_their_address_as_long_as_they_are_held() {
        let labels =
            |a: usize| Labels::from_pairs([("a", (a % 3).to_string()), ("b", a.to_string())]);
        let keep = |name: &str| name == "a";
        let (mut index, mut shared) = (GroupIndex::default(), GroupIndex::default());
        for a in 0..100 {
            // Each is dropped by its owner before the next one is made.
            let labels = labels(a);
            let number = index.number(&labels, keep);
            assert_eq!(shared.number_of_shared(&labels, keep), number);
            assert_eq!(shared.number_of_shared(&labels.clone(), keep), (number.0, None));
        }
    }
}
