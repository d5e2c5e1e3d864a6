//! Reading the head through a pin.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use stint_model::{
    Columns, Hints, Labels, Querier, QueryError, Selector, SeriesRef, SeriesSet, TimeRange,
};

use super::Head;
use super::index::texts::{self, Groups};
use super::index::{Index, Slot, select};
use super::series::{Scratch, Snapshot};
use super::store::Pin;
use crate::index::order::sorted;
use crate::query::querier::{Part, Stored};
use crate::sync::{Mutex, RwLock};

/// Series by which it is mostly found that a label name is in use.
const PROBES: usize = 8;

/// Series that are held at once to be looked at.
const UNSURE_AT_ONCE: usize = 1024;
/// Series that are passed under one lock, so that appends wait a millisecond at most.
const SLOTS_AT_ONCE: usize = if cfg!(test) { 8 } else { 1 << 16 };

/// A series that may have nothing a reader sees.
struct Unsure {
    slot: Slot,
    total: u32,
    snapshot: Snapshot,
}

/// What came after the commit that a reader looks at, as far as it was noticed.
struct Later {
    until: u64,
    /// Series that got samples, and how many they had before.
    changed: HashMap<Slot, u32>,
}

/// A reader of the head.
pub(crate) struct HeadQuerier {
    head: Arc<Head>,
    pin: Arc<Pin>,
    range: TimeRange,
    checks_again: bool,
}

impl HeadQuerier {
    pub(crate) fn new(head: Arc<Head>, pin: Arc<Pin>, range: TimeRange) -> Self {
        Self { head, pin, range, checks_again: false }
    }

    /// For what is written down and stands for the head from then on: every chunk is compared with its
    /// checksum, whoever has done so before.
    pub(crate) fn checking_again(self) -> Self {
        Self { checks_again: true, ..self }
    }

    /// The series of `slots` that have visible samples inside the range, in any order, and how many
    /// in-order samples of each are visible.
    fn visible(&self, slots: &RoaringBitmap) -> Vec<(Slot, u32)> {
        let mut visible = Vec::new();
        let mut slots = slots.iter();
        let mut later = Later { until: self.pin.commit, changed: HashMap::new() };
        loop {
            let (unsure, more) = self.look(&mut slots, &mut later, &mut visible);
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
        later: &mut Later,
        visible: &mut Vec<(Slot, u32)>,
    ) -> (Vec<Unsure>, bool) {
        let store = self.head.store.read();
        later.until = store.add_changed(later.until, &mut later.changed);
        let changed = &later.changed;
        let mut unsure = Vec::new();
        let mut passed = 0;
        for slot in slots.by_ref().take(SLOTS_AT_ONCE) {
            passed += 1;
            let Some(series) = store.get(slot) else { continue };
            if !series.overlaps(self.range) {
                continue;
            }
            let before = if changed.is_empty() { None } else { changed.get(&slot).copied() };
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
        (unsure, passed == SLOTS_AT_ONCE)
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

    fn is_bare(&self) -> bool {
        self.head.store.read().is_bare()
    }

    fn select_slots(&self, selectors: &[Selector]) -> Vec<(Slot, u32)> {
        if self.is_bare() {
            return Vec::new();
        }
        let slots = matching(&self.head.index, selectors);
        self.visible(&slots)
    }

    /// Those of the things that a visible series has. A few of the series of a thing mostly decide;
    /// only where none of them is visible, `whole` is asked for all.
    fn seen<T>(
        &self,
        groups: Groups<T>,
        whole: impl Fn(&T, &[Slot]) -> RoaringBitmap,
    ) -> impl Iterator<Item = T> {
        let mut is_seen = vec![false; groups.slots().count()];
        // Mostly the first series of a thing is visible.
        for probes in [0..1, 1..PROBES] {
            let unseen = || {
                let unseen = groups.slots().zip(&is_seen).filter(|(_, is_seen)| !**is_seen);
                unseen.flat_map(|(slots, _)| slots.iter().take(probes.end).skip(probes.start))
            };
            let visible = self.visible(&bitmap(unseen().copied())).into_iter();
            let visible = bitmap(visible.map(|(slot, _)| slot));
            if visible.is_empty() {
                continue;
            }
            for (slots, is_seen) in groups.slots().zip(&mut is_seen) {
                let mut few = slots.iter().take(probes.end).skip(probes.start);
                *is_seen = *is_seen || few.any(|slot| visible.contains(*slot));
            }
        }
        for ((thing, slots), is_seen) in groups.iter().zip(&mut is_seen) {
            *is_seen = *is_seen || !self.visible(&whole(thing, slots)).is_empty();
        }
        let things = groups.into_things().into_iter().zip(is_seen);
        things.filter_map(|(thing, is_seen)| is_seen.then_some(thing))
    }
}

/// The series that any of `selectors` selects; all where there are none.
fn matching(index: &RwLock<Index>, selectors: &[Selector]) -> RoaringBitmap {
    match selectors {
        [] => select::select(index, &Selector::new(Vec::new())),
        [only] => select::select(index, only),
        several => {
            let each = several.iter().map(|one| select::select(index, one));
            each.fold(RoaringBitmap::new(), |all, one| all | one)
        }
    }
}

fn bitmap(slots: impl IntoIterator<Item = Slot>) -> RoaringBitmap {
    let mut slots: Vec<Slot> = slots.into_iter().collect();
    slots.sort_unstable();
    slots.dedup();
    RoaringBitmap::from_sorted_iter(slots).unwrap_or_default()
}

fn limited(mut texts: Vec<String>, limit: usize) -> Vec<String> {
    if limit > 0 {
        texts.truncate(limit);
    }
    texts
}

impl Part for HeadQuerier {
    fn stored(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn Stored>, QueryError> {
        let mut series = self.select_slots(std::slice::from_ref(selector));
        let sorted = !hints.unordered || hints.limit > 0;
        if sorted {
            texts::sort(&self.head.index, &mut series);
        }
        if hints.limit > 0 {
            series.truncate(hints.limit);
        }
        let (head, pin) = (Arc::clone(&self.head), Arc::clone(&self.pin));
        let spare = Mutex::new(Vec::new());
        let (range, checks_again) = (self.range, self.checks_again);
        Ok(Box::new(HeadSet { head, pin, range, checks_again, series, sorted, spare }))
    }
}

impl Querier for HeadQuerier {
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
        Ok(self.stored(selector, hints)?)
    }

    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError> {
        if self.is_bare() {
            return Ok(Vec::new());
        }
        let index = &self.head.index;
        let names = if selectors.is_empty() {
            let names = texts::names(index, PROBES);
            self.seen(names, |name, _| texts::with_name(index, name)).collect()
        } else {
            let sets = texts::name_sets_among(index, &matching(index, selectors));
            let seen = self.seen(sets, |_, slots| bitmap(slots.iter().copied()));
            let names: BTreeSet<String> = seen.flatten().collect();
            names.into_iter().collect()
        };
        Ok(limited(sorted(names), limit))
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        if self.is_bare() {
            return Ok(Vec::new());
        }
        let index = &self.head.index;
        let values: Vec<String> = if selectors.is_empty() {
            let values = texts::values(index, name);
            self.seen(values, |value, _| texts::with_label(index, name, value)).collect()
        } else {
            let values = texts::values_among(index, name, &matching(index, selectors));
            self.seen(values, |_, slots| bitmap(slots.iter().copied())).collect()
        };
        Ok(limited(sorted(values), limit))
    }
}

/// Series of the head that a selector found.
struct HeadSet {
    head: Arc<Head>,
    pin: Arc<Pin>,
    range: TimeRange,
    checks_again: bool,
    series: Vec<(Slot, u32)>,
    sorted: bool,
    /// As many as threads read at the same time.
    spare: Mutex<Vec<Scratch>>,
}

impl Stored for HeadSet {
    fn is_sorted(&self) -> bool {
        self.sorted
    }
}

impl SeriesSet for HeadSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        // The pin keeps them readable.
        let labels =
            self.series.get(index).and_then(|(slot, _)| self.head.index.read().labels(*slot));
        labels.unwrap_or_default()
    }

    fn encode_labels(&self, index: usize, keep: &dyn Fn(&str) -> bool, text: &mut String) {
        if let Some((slot, _)) = self.series.get(index) {
            self.head.index.read().encode_labels(*slot, keep, text);
        }
    }

    fn read(
        &self,
        index: usize,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), QueryError> {
        let range =
            TimeRange::new(range.start.max(self.range.start), range.end.min(self.range.end));
        let Some((slot, visible)) = self.series.get(index).filter(|_| !range.is_empty()) else {
            return Ok(());
        };
        let mut scratch = self.spare.lock().pop().unwrap_or_default();
        scratch.snapshot.checks_again = self.checks_again;
        {
            let store = self.head.store.read();
            let Some(series) = store.get(*slot) else { return Ok(()) };
            let (commit, arena) = (self.pin.commit, store.arena());
            series.snapshot_into(*visible, commit, range, arena, &mut scratch.snapshot);
        }
        let read = scratch.read(range, columns);
        self.spare.lock().push(scratch);
        read.map_err(|error| {
            QueryError::Storage(format!("head, series {}: {error}", self.labels(index)))
        })
    }
}
