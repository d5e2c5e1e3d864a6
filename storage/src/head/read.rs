//! Reading the head through a pin.

use std::collections::BTreeSet;
use std::sync::Arc;

use roaring::RoaringBitmap;
use stint_model::{
    Columns, Hints, Labels, Querier, QueryError, Selector, SeriesRef, SeriesSet, TimeRange,
};

use super::Head;
use super::index::Slot;
use super::series::Snapshot;
use super::store::Pin;

/// Series by which it is mostly found that a label name is in use.
const PROBES: usize = 8;

/// Series that are held at once to be looked at.
const UNSURE_AT_ONCE: usize = 1024;

/// A series that may have nothing a reader sees.
struct Unsure {
    slot: Slot,
    total: u32,
    snapshot: Snapshot,
}

/// A reader of the head.
pub(crate) struct HeadQuerier {
    head: Arc<Head>,
    pin: Arc<Pin>,
    range: TimeRange,
}

impl HeadQuerier {
    pub(crate) fn new(head: Arc<Head>, pin: Arc<Pin>, range: TimeRange) -> Self {
        Self { head, pin, range }
    }

    /// The series of `slots` that have visible samples inside the range, in any order, and how many
    /// in-order samples of each are visible.
    fn visible(&self, slots: &RoaringBitmap) -> Vec<(Slot, u32)> {
        let mut visible = Vec::new();
        let mut slots = slots.iter();
        loop {
            let (unsure, more) = self.look(&mut slots, &mut visible);
            let found = unsure.iter().filter(|unsure| self.has_samples(unsure));
            visible.extend(found.map(|unsure| (unsure.slot, unsure.total)));
            if !more {
                return visible;
            }
        }
    }

    /// Adds to `visible` the series that certainly are; returns those whose samples have to be
    /// looked at, which takes too long under the lock, and whether slots are left.
    fn look(
        &self,
        slots: &mut roaring::bitmap::Iter<'_>,
        visible: &mut Vec<(Slot, u32)>,
    ) -> (Vec<Unsure>, bool) {
        let store = self.head.store.read();
        let changed = store.changed_since(self.pin.commit);
        let mut unsure = Vec::new();
        for slot in slots {
            let Some(series) = store.get(slot) else { continue };
            let overlaps = series
                .bounds()
                .is_some_and(|(first, last)| first < self.range.end && last >= self.range.start);
            if !overlaps {
                continue;
            }
            let before = changed.get(&slot).copied();
            let total = before.unwrap_or(series.total);
            // What came later may be all that lies inside: look closely.
            if before.is_none() && !series.has_late() && !series.has_deleted() {
                visible.push((slot, total));
                continue;
            }
            let snapshot = series.snapshot(total, self.pin.commit, self.range, store.arena());
            unsure.push(Unsure { slot, total, snapshot });
            if unsure.len() == UNSURE_AT_ONCE {
                return (unsure, true);
            }
        }
        (unsure, false)
    }

    fn has_samples(&self, unsure: &Unsure) -> bool {
        let mut columns = Columns::default();
        let read = unsure.snapshot.read(self.range, &mut columns);
        // Damage is reported by whoever reads the series.
        read.is_err() || !columns.is_empty()
    }

    /// Handles of the series that any of `selectors` selects and that have visible samples.
    pub(crate) fn series_of(&self, selectors: &[Selector]) -> Vec<SeriesRef> {
        let slots = self.select_slots(selectors);
        let store = self.head.store.read();
        slots.iter().filter_map(|(slot, _)| Some(SeriesRef(store.get(*slot)?.id))).collect()
    }

    fn select_slots(&self, selectors: &[Selector]) -> Vec<(Slot, u32)> {
        let slots = {
            let index = self.head.index.read();
            let mut slots = RoaringBitmap::new();
            for selector in selectors {
                slots |= index.select(selector);
            }
            if selectors.is_empty() {
                slots = index.select(&Selector::new(Vec::new()));
            }
            slots
        };
        self.visible(&slots)
    }

    /// Those texts that a visible series has, sorted. Each comes with a few series that have it, which
    /// mostly decide; only where none of them is visible, `whole` is asked for all.
    fn seen(
        &self,
        texts: Vec<(String, RoaringBitmap)>,
        mut whole: impl FnMut(&str) -> RoaringBitmap,
    ) -> Vec<String> {
        let probes = texts.iter().fold(RoaringBitmap::new(), |all, (_, few)| all | few);
        let visible: RoaringBitmap =
            self.visible(&probes).into_iter().map(|(slot, _)| slot).collect();
        let mut seen = Vec::new();
        for (text, few) in texts {
            if !visible.is_disjoint(&few) || !self.visible(&whole(&text)).is_empty() {
                seen.push(text);
            }
        }
        seen.sort_unstable();
        seen
    }

    fn collect(
        &self,
        selectors: &[Selector],
        limit: usize,
        mut pick: impl FnMut(&str, &str, &mut BTreeSet<String>),
    ) -> Vec<String> {
        let slots = self.select_slots(selectors);
        let index = self.head.index.read();
        let mut found = BTreeSet::new();
        for (slot, _) in slots {
            index.visit_labels(slot, |name, value| pick(name, value, &mut found));
        }
        let limit = if limit == 0 { usize::MAX } else { limit };
        found.into_iter().take(limit).collect()
    }
}

fn limited(mut texts: Vec<String>, limit: usize) -> Vec<String> {
    if limit > 0 {
        texts.truncate(limit);
    }
    texts
}

fn add(text: &str, found: &mut BTreeSet<String>) {
    if !found.contains(text) {
        found.insert(text.to_owned());
    }
}

impl Querier for HeadQuerier {
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
        let slots = self.select_slots(std::slice::from_ref(selector));
        let index = self.head.index.read();
        let mut series: Vec<(Labels, Slot, u32)> = slots
            .into_iter()
            .filter_map(|(slot, visible)| Some((index.labels(slot)?, slot, visible)))
            .collect();
        drop(index);
        if !hints.unordered || hints.limit > 0 {
            series.sort_by(|a, b| a.0.cmp(&b.0));
        }
        if hints.limit > 0 {
            series.truncate(hints.limit);
        }
        let (head, pin) = (Arc::clone(&self.head), Arc::clone(&self.pin));
        Ok(Box::new(HeadSet { head, pin, range: self.range, series }))
    }

    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError> {
        if !selectors.is_empty() {
            return Ok(self.collect(selectors, limit, |name, _, found| add(name, found)));
        }
        let names = self.head.index.read().names(PROBES);
        Ok(limited(self.seen(names, |name| self.head.index.read().with_name(name)), limit))
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        let values = {
            let index = self.head.index.read();
            let within = (!selectors.is_empty()).then(|| {
                selectors.iter().fold(RoaringBitmap::new(), |all, one| all | index.select(one))
            });
            index.values(name, within.as_ref())
        };
        let firsts = values.iter().map(|(value, slots)| (value.clone(), slots.min()));
        let firsts = firsts.map(|(value, first)| (value, first.into_iter().collect()));
        let mut all = values.iter();
        // Asked in the same order, for some of them.
        let whole = |value: &str| {
            let found = all.find(|(known, _)| known == value);
            found.map(|(_, slots)| slots.clone()).unwrap_or_default()
        };
        Ok(limited(self.seen(firsts.collect(), whole), limit))
    }
}

/// Series of the head that a selector found.
struct HeadSet {
    head: Arc<Head>,
    pin: Arc<Pin>,
    range: TimeRange,
    series: Vec<(Labels, Slot, u32)>,
}

impl SeriesSet for HeadSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.series.get(index).map(|(labels, ..)| labels.clone()).unwrap_or_default()
    }

    fn read(
        &self,
        index: usize,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), QueryError> {
        let range =
            TimeRange::new(range.start.max(self.range.start), range.end.min(self.range.end));
        let Some((labels, slot, visible)) = self.series.get(index).filter(|_| !range.is_empty())
        else {
            return Ok(());
        };
        let snapshot = {
            let store = self.head.store.read();
            let Some(series) = store.get(*slot) else { return Ok(()) };
            series.snapshot(*visible, self.pin.commit, range, store.arena())
        };
        snapshot
            .read(range, columns)
            .map_err(|error| QueryError::Storage(format!("head, series {labels}: {error}")))
    }
}
