//! What each label costs, counted exactly: how many label sets fall together without it.
//!
//! A set is the sum of the hashes of its pairs, so that the set without a label is that sum less one
//! hash, and no set is built anew. Hashes have 128 bits: sets that are different never fall together
//! in practice.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use stint_model::Labels;
use stint_model::labels::METRIC_NAME;

use super::super::group::KeyHasher;

/// What a label costs over all metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelUse {
    /// The label.
    pub name: String,
    /// Series in use that have it.
    pub series: u64,
    /// Its different values among them, by the metric that has the most.
    pub values: u64,
    /// Slots that would be free without it.
    pub saving: u64,
}

/// What a label of a metric costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricLabel {
    /// The metric, by the name that is sent.
    pub metric: String,
    /// The label.
    pub label: String,
    /// Series in use that have it.
    pub series: u64,
    /// Its different values among them.
    pub values: u64,
    /// Slots that would be free without it.
    pub saving: u64,
    /// Whether anybody needs it; nothing while too little is known.
    pub used: Option<bool>,
    /// The values with the most series, and how many they have.
    pub top: Vec<(String, u64)>,
}

/// Values that are shown of a label.
const TOP_VALUES: usize = 3;

/// What each label costs, over all metrics and by metric; both dearest first. The second has the
/// labels alone that cost anything.
pub fn savings<'a>(live: &[&'a Labels], rows_max: usize) -> (Vec<LabelUse>, Vec<MetricLabel>) {
    let mut metrics: HashMap<&str, Vec<&'a Labels>> = HashMap::new();
    for labels in live {
        metrics.entry(labels.metric_name().unwrap_or_default()).or_default().push(labels);
    }
    let mut by_label: HashMap<&str, LabelUse> = HashMap::new();
    let mut rows = Vec::new();
    let mut work = Work::default();
    for (metric, series) in &metrics {
        for found in work.labels_of(series) {
            let total = by_label.entry(found.name).or_default();
            total.series += found.series;
            total.values = total.values.max(found.values);
            total.saving += found.saving;
            if found.saving > 0 {
                rows.push((*metric, found));
            }
        }
    }
    let mut all: Vec<LabelUse> = by_label
        .into_iter()
        .map(|(name, total)| LabelUse { name: name.to_owned(), ..total })
        .collect();
    all.sort_by(|a, b| b.saving.cmp(&a.saving).then_with(|| a.name.cmp(&b.name)));
    all.truncate(rows_max);
    rows.sort_by(|(a_metric, a), (b_metric, b)| {
        b.saving.cmp(&a.saving).then_with(|| (a_metric, a.name).cmp(&(b_metric, b.name)))
    });
    rows.truncate(rows_max);
    let row = |(metric, found): (&str, Found<'_>)| MetricLabel {
        metric: metric.to_owned(),
        label: found.name.to_owned(),
        series: found.series,
        values: found.values,
        saving: found.saving,
        used: None,
        top: top_values(&metrics[metric], found.name),
    };
    (all, rows.into_iter().map(row).collect())
}

fn top_values(series: &[&Labels], label: &str) -> Vec<(String, u64)> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for value in series.iter().filter_map(|labels| labels.get(label)) {
        *counts.entry(value).or_default() += 1;
    }
    let mut counts: Vec<(&str, u64)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    counts.iter().take(TOP_VALUES).map(|(value, count)| ((*value).to_owned(), *count)).collect()
}

struct Found<'a> {
    name: &'a str,
    series: u64,
    values: u64,
    saving: u64,
}

/// Buffers that are used again for each metric.
#[derive(Default)]
struct Work {
    sets: Vec<u128>,
    distinct: HashSet<u128, KeyHasher>,
    pair: Vec<u8>,
}

impl Work {
    /// The labels of a metric's series but for its name, in order of first occurrence.
    fn labels_of<'a>(&mut self, series: &[&'a Labels]) -> Vec<Found<'a>> {
        let mut names: Vec<&'a str> = Vec::new();
        // Of each label, the series that have it and the hash of the pair.
        let mut pairs: Vec<Vec<(u32, u128)>> = Vec::new();
        self.sets.clear();
        for (number, labels) in series.iter().enumerate() {
            let (mut set, mut guess) = (0u128, 0);
            for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
                let hash = self.hash(name, value);
                set = set.wrapping_add(hash);
                // The series of a metric mostly have the same labels in the same order.
                let at = match names.get(guess) {
                    Some(known) if *known == name => guess,
                    _ => names.iter().position(|known| *known == name).unwrap_or(names.len()),
                };
                guess = at + 1;
                if at == names.len() {
                    names.push(name);
                    pairs.push(Vec::new());
                }
                if let Some(pairs) = pairs.get_mut(at) {
                    pairs.push((number as u32, hash));
                }
            }
            self.sets.push(set);
        }
        let all = self.count(|sets, distinct| distinct.extend(sets));
        names.iter().zip(&pairs).map(|(name, pairs)| self.found(name, pairs, all)).collect()
    }

    fn found<'a>(&mut self, name: &'a str, pairs: &[(u32, u128)], all: u64) -> Found<'a> {
        let values = self.count(|_, distinct| distinct.extend(pairs.iter().map(|(_, hash)| *hash)));
        // A value that all have tells none from another.
        let saving = if values == 1 && pairs.len() == self.sets.len() {
            0
        } else {
            let left = self.count(|sets, distinct| {
                let mut having = pairs.iter().peekable();
                for (number, set) in sets.iter().enumerate() {
                    let own = having.next_if(|(at, _)| *at as usize == number);
                    distinct.insert(own.map_or(*set, |(_, hash)| set.wrapping_sub(*hash)));
                }
            });
            all - left
        };
        Found { name, series: pairs.len() as u64, values, saving }
    }

    fn count(&mut self, fill: impl FnOnce(&[u128], &mut HashSet<u128, KeyHasher>)) -> u64 {
        self.distinct.clear();
        fill(&self.sets, &mut self.distinct);
        self.distinct.len() as u64
    }

    fn hash(&mut self, name: &str, value: &str) -> u128 {
        self.pair.clear();
        self.pair.extend_from_slice(name.as_bytes());
        // No label's name has this byte, so that no two pairs are written alike.
        self.pair.push(0xff);
        self.pair.extend_from_slice(value.as_bytes());
        xxhash_rust::xxh3::xxh3_128(&self.pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn a_label_saves_the_sets_that_fall_together_without_it() {
        let live = [
            labels(&[("__name__", "a"), ("pod", "1"), ("job", "j")]),
            labels(&[("__name__", "a"), ("pod", "2"), ("job", "j")]),
            labels(&[("__name__", "b"), ("pod", "1"), ("job", "j")]),
        ];
        let (all, by_metric) = savings(&live.each_ref(), 50);
        let rows: Vec<_> = all.iter().map(|l| (&*l.name, l.saving, l.values, l.series)).collect();
        assert_eq!(rows, [("pod", 1, 2, 3), ("job", 0, 1, 3)]);
        assert_eq!(by_metric.len(), 1);
        assert_eq!((&*by_metric[0].metric, &*by_metric[0].label), ("a", "pod"));
        assert_eq!(by_metric[0].top, [("1".to_owned(), 1), ("2".to_owned(), 1)]);
    }

    #[test]
    fn a_label_with_one_value_separates_those_that_lack_it() {
        let live = [labels(&[("__name__", "a"), ("x", "1")]), labels(&[("__name__", "a")])];
        assert_eq!(savings(&live.each_ref(), 50).1[0].saving, 1);
    }

    proptest! {
        #[test]
        fn savings_are_those_of_counting_the_sets_without_the_label(
            series in proptest::collection::vec(("[mn]", proptest::collection::btree_map("[a-c]", "[xy]", 0..4)), 0..40),
        ) {
            let distinct: HashSet<Labels> = series.iter().map(|(metric, more)| {
                let name = [("__name__", metric.as_str())].into_iter();
                Labels::from_pairs(name.chain(more.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
            }).collect();
            let live: Vec<Labels> = distinct.into_iter().collect();
            let (all, by_metric) = savings(&live.iter().collect::<Vec<_>>(), 50);
            for row in &all {
                let left: HashSet<Labels> =
                    live.iter().map(|labels| labels.retain(|name| name != row.name)).collect();
                prop_assert_eq!(row.saving, (live.len() - left.len()) as u64, "{}", row.name);
                let of_metrics: u64 =
                    by_metric.iter().filter(|l| l.label == row.name).map(|l| l.saving).sum();
                prop_assert_eq!(row.saving, of_metrics);
            }
        }
    }
}
