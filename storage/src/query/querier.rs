//! Several readers as one: series with equal labels are merged, and of two samples of one time
//! the one of the earlier reader is taken.

use std::hash::BuildHasher as _;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};
use stint_model::{Columns, Hints, Labels, Querier, QueryError, Selector, SeriesSet, TimeRange};

use super::columns;
use crate::codec::chunk::Mark;

/// One of the readers.
pub(crate) trait Part: Querier {
    /// As [`Querier::select`].
    fn stored(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn Stored>, QueryError>;
}

/// Series of one of the readers.
pub(crate) trait Stored: SeriesSet {
    /// Whether the series are in order of labels.
    fn is_sorted(&self) -> bool;
}

/// Readers in order of preference.
pub(crate) struct MergedQuerier {
    parts: Vec<Box<dyn Part>>,
}

impl MergedQuerier {
    pub(crate) fn new(parts: Vec<Box<dyn Part>>) -> Self {
        Self { parts }
    }

    fn union(
        &self,
        limit: usize,
        ask: impl Fn(&dyn Part) -> Result<Vec<String>, QueryError>,
    ) -> Result<Vec<String>, QueryError> {
        let mut all = Vec::new();
        for part in &self.parts {
            all = union(all, ask(part.as_ref())?);
        }
        if limit > 0 {
            all.truncate(limit);
        }
        Ok(all)
    }
}

/// What either of two sorted lists has.
fn union(a: Vec<String>, b: Vec<String>) -> Vec<String> {
    if a.is_empty() || a == b {
        return b;
    }
    if b.is_empty() {
        return a;
    }
    let mut all = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    while let (Some(first), Some(second)) = (a.peek(), b.peek()) {
        let order = first.cmp(second);
        if order.is_le() {
            all.extend(a.next());
        }
        if order.is_ge() {
            let same = b.next();
            all.extend(same.filter(|_| order.is_gt()));
        }
    }
    all.extend(a);
    all.extend(b);
    all
}

impl Querier for MergedQuerier {
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
        let mut sets = Vec::new();
        for part in &self.parts {
            let set = part.stored(selector, hints)?;
            if !set.is_empty() {
                sets.push(set);
            }
        }
        if sets.len() == 1
            && let Some(only) = sets.pop()
        {
            return Ok(only);
        }
        Ok(Box::new(MergedSet::new(sets, hints.limit)))
    }

    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError> {
        self.union(limit, |part| part.label_names(selectors, limit))
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        self.union(limit, |part| part.label_values(name, selectors, limit))
    }
}

/// Number of a set, and of a series in it.
type Source = (u32, u32);

struct MergedSet {
    sets: Vec<Box<dyn Stored>>,
    /// Grouped by series, in order of preference.
    sources: Vec<Source>,
    /// The labels of each series, and where its sources end.
    series: Vec<(Labels, u32)>,
}

impl MergedSet {
    /// The series are in order of labels if those of all sets are.
    fn new(sets: Vec<Box<dyn Stored>>, limit: usize) -> Self {
        let mut merged = Self { sets, sources: Vec::new(), series: Vec::new() };
        let limit = if limit == 0 { usize::MAX } else { limit };
        if merged.sets.iter().all(|set| set.is_sorted()) {
            merged.merge_sorted(limit);
        } else {
            merged.merge_by_hash();
        }
        merged
    }

    fn merge_sorted(&mut self, limit: usize) {
        let head = |set: &dyn Stored, at: usize| (at < set.len()).then(|| set.labels(at));
        let mut heads: Vec<(usize, Option<Labels>)> =
            self.sets.iter().map(|set| (0, head(&**set, 0))).collect();
        while self.series.len() < limit {
            let least = heads.iter().filter_map(|(_, head)| head.as_ref());
            let Some(least) = least.reduce(|a, b| if precedes(b, a) { b } else { a }).cloned()
            else {
                return;
            };
            for ((number, set), (at, next)) in (0..).zip(&self.sets).zip(&mut heads) {
                if next.as_ref() == Some(&least) {
                    self.sources.push((number, *at as u32));
                    *at += 1;
                    *next = head(&**set, *at);
                }
            }
            self.series.push((least, self.sources.len() as u32));
        }
    }

    fn merge_by_hash(&mut self) {
        let hasher = DefaultHashBuilder::default();
        // The sources of each series as a list: each with the number of the one before it.
        let mut all: Vec<(Source, usize)> = Vec::new();
        let mut series: Vec<(Labels, usize)> = Vec::new();
        let mut known: HashTable<usize> = HashTable::new();
        for (number, set) in (0_u32..).zip(&self.sets) {
            for index in 0..set.len() {
                let labels = set.labels(index);
                let of = |at: usize| series.get(at).map(|(labels, _)| labels);
                let entry = known.entry(
                    hasher.hash_one(Some(&labels)),
                    |at| of(*at) == Some(&labels),
                    |at| hasher.hash_one(of(*at)),
                );
                let place = *entry.or_insert(series.len()).get();
                if place == series.len() {
                    series.push((labels, usize::MAX));
                }
                if let Some((_, last)) = series.get_mut(place) {
                    all.push(((number, index as u32), *last));
                    *last = all.len() - 1;
                }
            }
        }
        for (labels, mut next) in series {
            let start = self.sources.len();
            while let Some((source, before)) = all.get(next) {
                self.sources.push(*source);
                next = *before;
            }
            if let Some(own) = self.sources.get_mut(start..) {
                own.reverse();
            }
            self.series.push((labels, self.sources.len() as u32));
        }
    }

    fn places(&self, index: usize) -> &[Source] {
        let Some((_, end)) = self.series.get(index) else { return &[] };
        let start = index.checked_sub(1).and_then(|before| self.series.get(before));
        let range: Range<usize> = start.map_or(0, |(_, end)| *end) as usize..*end as usize;
        self.sources.get(range).unwrap_or_default()
    }

    fn read_source(
        &self,
        (set, index): Source,
        range: TimeRange,
        out: &mut Columns,
    ) -> Result<(), QueryError> {
        match self.sets.get(set as usize) {
            Some(set) => set.read(index as usize, range, out),
            None => Ok(()),
        }
    }

    /// Reads sources whose times do not follow each other.
    fn read_interleaved(
        &self,
        places: &[Source],
        range: TimeRange,
        out: &mut Columns,
    ) -> Result<(), QueryError> {
        let mut merged = Columns::default();
        for place in places {
            if merged.is_empty() {
                self.read_source(*place, range, &mut merged)?;
                continue;
            }
            let mut part = Columns::default();
            self.read_source(*place, range, &mut part)?;
            let mut both = Columns::default();
            columns::merge(&merged, &part, &mut both);
            merged = both;
        }
        columns::merge(&merged, &Columns::default(), out);
        Ok(())
    }
}

/// Whether `a` comes before `b`. Equal ones are common, and seen at once.
fn precedes(a: &Labels, b: &Labels) -> bool {
    a != b && a < b
}

impl SeriesSet for MergedSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.series.get(index).map(|(labels, _)| labels.clone()).unwrap_or_default()
    }

    fn read(&self, index: usize, range: TimeRange, out: &mut Columns) -> Result<(), QueryError> {
        let places = self.places(index);
        let start = Mark::of(out);
        for place in places {
            let before = Mark::of(out);
            self.read_source(*place, range, out)?;
            if out.len() == before.rows() || before.rows() == start.rows() {
                continue;
            }
            let last = before.rows().checked_sub(1).and_then(|last| out.times.get(last));
            if last >= out.times.get(before.rows()) {
                start.restore(out);
                return self.read_interleaved(places, range, out);
            }
            columns::forget_reset(out, before.histograms());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use stint_model::Timestamp;

    use super::*;

    /// Series by their label, each with values by time.
    type Content = BTreeMap<u8, BTreeMap<i64, i32>>;

    struct Memory {
        series: Vec<(Labels, BTreeMap<i64, i32>)>,
        sorted: bool,
    }

    impl Stored for Memory {
        fn is_sorted(&self) -> bool {
            self.sorted
        }
    }

    impl SeriesSet for Memory {
        fn len(&self) -> usize {
            self.series.len()
        }

        fn labels(&self, index: usize) -> Labels {
            self.series[index].0.clone()
        }

        fn read(&self, index: usize, _: TimeRange, out: &mut Columns) -> Result<(), QueryError> {
            for (at, value) in &self.series[index].1 {
                out.push_float(Timestamp(*at), f64::from(*value));
            }
            Ok(())
        }
    }

    fn labels(number: u8) -> Labels {
        Labels::from_pairs([("a", format!("{number:02}")), ("z", "1".to_owned())])
    }

    fn content() -> impl Strategy<Value = Content> {
        let samples = prop::collection::btree_map(0_i64..8, 0_i32..9, 1..4);
        // Mostly behind each other, as blocks are.
        let samples = (samples, prop_oneof![4 => 0_i64..4, 1 => Just(-1)])
            .prop_map(|(s, era)| s.into_iter().map(|(at, value)| (at + era * 8, value)).collect());
        prop::collection::btree_map(0_u8..12, samples, 0..9)
    }

    proptest! {
        #[test]
        fn series_of_several_readers_are_unions_that_prefer_the_first(
            contents in prop::collection::vec((content(), any::<bool>()), 0..4),
            limit in 0_usize..6,
        ) {
            let mut want = Content::new();
            let mut sets: Vec<Box<dyn Stored>> = Vec::new();
            for (content, sorted) in contents {
                let mut series: Vec<_> =
                    content.iter().map(|(number, samples)| (labels(*number), samples.clone())).collect();
                if !sorted {
                    series.reverse();
                }
                sets.push(Box::new(Memory { series, sorted }));
                for (number, samples) in content {
                    let all = want.entry(number).or_default();
                    for (at, value) in samples {
                        all.entry(at).or_insert(value);
                    }
                }
            }
            let sorted = sets.iter().all(|set| set.is_sorted());
            let limit = if sorted { limit } else { 0 };
            let merged = MergedSet::new(sets, limit);
            let mut got = Vec::new();
            for index in 0..merged.len() {
                let mut columns = Columns::default();
                columns.push_float(Timestamp(-99), 0.5);
                merged.read(index, TimeRange::ALL, &mut columns).unwrap();
                let times = columns.times.iter().skip(1).map(|at| at.0);
                let samples: Vec<_> = times.zip(columns.values.into_iter().skip(1)).collect();
                got.push((merged.labels(index), samples));
            }
            if !sorted {
                got.sort_by(|a, b| a.0.cmp(&b.0));
            }
            let limit = if limit == 0 { usize::MAX } else { limit };
            let want: Vec<_> = want.into_iter().take(limit).map(|(number, samples)| {
                let samples = samples.into_iter().map(|(at, value)| (at, f64::from(value)));
                (labels(number), samples.collect::<Vec<_>>())
            }).collect();
            prop_assert_eq!(got, want);
        }
    }
}
