//! Several readers as one: series with equal labels are merged, and of two samples of one time
//! the one of the earlier reader is taken.

use std::ops::Range;

use stint_model::{Columns, Hints, Labels, Querier, QueryError, Selector, SeriesSet, TimeRange};

use super::columns;

/// Readers in order of preference.
pub(crate) struct MergedQuerier {
    parts: Vec<Box<dyn Querier>>,
}

impl MergedQuerier {
    pub(crate) fn new(parts: Vec<Box<dyn Querier>>) -> Self {
        Self { parts }
    }

    fn union(
        &self,
        limit: usize,
        ask: impl Fn(&dyn Querier) -> Result<Vec<String>, QueryError>,
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
            let set = part.select(selector, hints)?;
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

struct MergedSet {
    sets: Vec<Box<dyn SeriesSet>>,
    /// Set and index in it, grouped by series.
    sources: Vec<(usize, usize)>,
    /// Labels of each series, and where its sources lie.
    series: Vec<(Labels, Range<usize>)>,
}

impl MergedSet {
    fn new(sets: Vec<Box<dyn SeriesSet>>, limit: usize) -> Self {
        let mut all: Vec<(Labels, usize, usize)> = Vec::new();
        for (number, set) in sets.iter().enumerate() {
            all.extend((0..set.len()).map(|index| (set.labels(index), number, index)));
        }
        // Each set is sorted, which a stable sort makes use of.
        all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut sources = Vec::with_capacity(all.len());
        let mut series: Vec<(Labels, Range<usize>)> = Vec::new();
        for (labels, set, index) in all {
            let at = sources.len();
            match series.last_mut() {
                Some((last, places)) if *last == labels => places.end = at + 1,
                _ => series.push((labels, at..at + 1)),
            }
            sources.push((set, index));
        }
        if limit > 0 {
            series.truncate(limit);
        }
        Self { sets, sources, series }
    }
}

impl SeriesSet for MergedSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.series.get(index).map(|(labels, _)| labels.clone()).unwrap_or_default()
    }

    fn read(&self, index: usize, range: TimeRange, out: &mut Columns) -> Result<(), QueryError> {
        let Some((_, places)) = self.series.get(index) else { return Ok(()) };
        let mut merged = Columns::default();
        for (set, index) in self.sources.get(places.clone()).unwrap_or_default() {
            let Some(set) = self.sets.get(*set) else { continue };
            if merged.is_empty() {
                set.read(*index, range, &mut merged)?;
                continue;
            }
            let mut part = Columns::default();
            set.read(*index, range, &mut part)?;
            let mut both = Columns::default();
            columns::merge(&merged, &part, &mut both);
            merged = both;
        }
        columns::merge(&merged, &Columns::default(), out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_union_is_sorted_and_has_each_text_once(
            a in prop::collection::btree_set("[ab]{0,3}", 0..12),
            b in prop::collection::btree_set("[ab]{0,3}", 0..12),
        ) {
            let want: BTreeSet<String> = a.union(&b).cloned().collect();
            let got = union(a.into_iter().collect(), b.into_iter().collect());
            prop_assert_eq!(got, want.into_iter().collect::<Vec<_>>());
        }
    }
}
