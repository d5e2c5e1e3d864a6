//! The table of series, and what makes a reader see whole batches only.
//!
//! Every committed batch has a number. A reader is pinned to the last one: while a pin is out,
//! each commit notes how many samples its series had before, so that the reader can tell how
//! many of them it may see. Late samples carry the number of their commit. Nothing that a pin may
//! still want is dropped or reused before the pin is gone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::sync::Mutex;
use hashbrown::HashMap;
use stint_model::{Sample, SeriesRef, TimeRange, Timestamp};

use super::arena::{Arena, is_whole_chunk};
use super::index::Slot;
use super::series::{ChunkRules, MemSeries, Sealing};
use super::state::{self, State};
use crate::wal::WalPosition;

const PAGE: usize = 1024;
const NO_SLOT: Slot = Slot::MAX;

/// Handles up to here lie in pages: more than four billion. Whatever a log says, the list of pages takes no
/// more than 32 MiB.
const PAGES_MAX: u64 = 1 << 22;

/// Every handle is below this.
pub(super) const ID_END: u64 = 1 << 62;

/// Slots of series by handle. Handles are given in rising order and never again, so that old ones
/// lie in pages that can be dropped whole.
#[derive(Debug, Default)]
struct IdMap {
    pages: Vec<Option<Box<[Slot; PAGE]>>>,
    /// Those behind the last page that there may be.
    far: HashMap<u64, Slot>,
}

/// Page and place in it of a handle, if it lies in a page.
fn page_of(id: u64) -> Option<(usize, usize)> {
    let page = id / PAGE as u64;
    (page < PAGES_MAX).then_some((page as usize, (id % PAGE as u64) as usize))
}

impl IdMap {
    fn get(&self, id: u64) -> Option<Slot> {
        let Some((page, at)) = page_of(id) else { return self.far.get(&id).copied() };
        let slot = *self.pages.get(page)?.as_ref()?.get(at)?;
        (slot != NO_SLOT).then_some(slot)
    }

    fn insert(&mut self, id: u64, slot: Slot) {
        let Some((page, at)) = page_of(id) else {
            self.far.insert(id, slot);
            return;
        };
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        if let Some(page) = self.pages.get_mut(page) {
            let page = page.get_or_insert_with(|| Box::new([NO_SLOT; PAGE]));
            if let Some(place) = page.get_mut(at) {
                *place = slot;
            }
        }
    }

    fn remove(&mut self, id: u64) {
        let Some((page, at)) = page_of(id) else {
            self.far.remove(&id);
            return;
        };
        let Some(place) = self.pages.get_mut(page) else { return };
        if let Some(page) = place {
            if let Some(slot) = page.get_mut(at) {
                *slot = NO_SLOT;
            }
            if page.iter().all(|slot| *slot == NO_SLOT) {
                *place = None;
            }
        }
    }
}

/// How many samples a series had before a commit.
#[derive(Clone, Copy, Debug)]
struct Undo {
    commit: u64,
    slot: Slot,
    total_before: u32,
}

/// The series of the head.
#[derive(Debug)]
pub(super) struct Store {
    pub(crate) series: Vec<Option<MemSeries>>,
    ids: IdMap,
    /// Further handles of a series, where the log gave it some under the same labels.
    aliases: HashMap<Slot, Vec<u64>>,
    free: Vec<Slot>,
    /// Slots whose series are gone, and the pin that must be gone before they are used again.
    limbo: Vec<(u64, Slot)>,
    /// The handle that the next new series gets.
    pub(crate) next_id: u64,
    /// Number of the last commit.
    pub(crate) commit: u64,
    /// First and last time of in-order samples.
    pub(crate) bounds: Option<(Timestamp, Timestamp)>,
    /// While the head is truncated: the first time of what remains of the series that were looked at,
    /// and of what came since.
    pub(crate) remaining: Option<Timestamp>,
    /// Whether late samples ever came.
    late_came: bool,
    /// Earlier samples are in blocks, or on the way there, and no longer taken in order.
    pub(crate) flushed: Timestamp,
    /// Behind the last record of the log that was applied to series.
    pub(crate) position: WalPosition,
    undo: Vec<Undo>,
    rules: ChunkRules,
    sealing: Sealing,
}

impl Store {
    pub(crate) fn new(rules: ChunkRules, arena: Arena) -> Self {
        Self {
            series: Vec::new(),
            ids: IdMap::default(),
            aliases: HashMap::new(),
            free: Vec::new(),
            limbo: Vec::new(),
            next_id: 1,
            commit: 0,
            bounds: None,
            remaining: None,
            late_came: false,
            flushed: Timestamp::MIN,
            position: WalPosition::default(),
            undo: Vec::new(),
            rules,
            sealing: Sealing::new(arena),
        }
    }

    pub(crate) fn slot_of(&self, id: SeriesRef) -> Option<Slot> {
        self.ids.get(id.0)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&MemSeries> {
        self.series.get(slot as usize)?.as_ref()
    }

    /// Where the sealed chunks are.
    pub(crate) fn arena(&self) -> &Arena {
        &self.sealing.arena
    }

    pub(crate) fn arena_mut(&mut self) -> &mut Arena {
        &mut self.sealing.arena
    }

    /// Drops what [`MemSeries::truncate`] drops; the slots of series, alive, that have nothing
    /// left.
    pub(crate) fn truncate(
        &mut self,
        slots: Range<usize>,
        before: Timestamp,
        commit: u64,
    ) -> Vec<Slot> {
        let mut empty = Vec::new();
        let series = self.series.iter_mut().enumerate().take(slots.end).skip(slots.start);
        for (slot, series) in series {
            let Some(series) = series else { continue };
            series.truncate(before, commit, &mut self.sealing.arena);
            if let Some((remaining, (first, _))) = self.remaining.as_mut().zip(series.bounds()) {
                *remaining = first.min(*remaining);
            }
            if series.is_empty() {
                empty.push(slot as Slot);
            }
        }
        empty
    }

    /// Makes room for a series; `None` when all slots are taken.
    pub(crate) fn create(&mut self, id: u64) -> Option<Slot> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => Slot::try_from(self.series.len()).ok().filter(|slot| *slot != NO_SLOT)?,
        };
        let at = slot as usize;
        if at >= self.series.len() {
            if at >= self.series.capacity() {
                // There are many of them: an eighth more, not as much again.
                let more = (self.series.len() / 8).max(64);
                self.series.reserve_exact(more.max(at + 1 - self.series.len()));
            }
            self.series.resize_with(at + 1, || None);
        }
        if let Some(place) = self.series.get_mut(at) {
            *place = Some(MemSeries::new(id));
        }
        self.ids.insert(id, slot);
        self.next_id = self.next_id.max(id + 1);
        Some(slot)
    }

    /// Lets `id` mean the series at `slot` too.
    pub(crate) fn alias(&mut self, id: u64, slot: Slot) {
        self.ids.insert(id, slot);
        self.next_id = self.next_id.max(id + 1);
        self.aliases.entry(slot).or_default().push(id);
    }

    /// The further handles of a series.
    pub(crate) fn aliases(&self, slot: Slot) -> &[u64] {
        self.aliases.get(&slot).map(Vec::as_slice).unwrap_or_default()
    }

    /// Begins the next commit. `pinned` is the oldest commit that a reader is pinned to.
    pub(crate) fn begin_commit(&mut self, pinned: Option<u64>) {
        self.commit += 1;
        match pinned {
            None => self.undo.clear(),
            Some(pinned) => {
                let old = self.undo.partition_point(|undo| undo.commit <= pinned);
                self.undo.drain(..old);
            }
        }
    }

    /// Adds a sample in the commit that was begun.
    pub(crate) fn push(
        &mut self,
        slot: Slot,
        sample: &Sample,
        late: bool,
        segment: u64,
        pinned: bool,
    ) {
        let Some(Some(series)) = self.series.get_mut(slot as usize) else { return };
        series.last_segment = segment as u32;
        if late {
            series.push_late(sample, self.commit);
            self.late_came = true;
            return;
        }
        if pinned {
            let undo = Undo { commit: self.commit, slot, total_before: series.total };
            self.undo.push(undo);
        }
        series.push(sample, self.rules, &mut self.sealing);
        if let Some(remaining) = &mut self.remaining {
            *remaining = sample.at.min(*remaining);
        }
        self.bounds = Some(match self.bounds {
            None => (sample.at, sample.at),
            Some((first, last)) => (first.min(sample.at), last.max(sample.at)),
        });
    }

    /// Adds samples, in their order, to a series whose samples nobody reads yet. What is not newer
    /// than those before, or lies in blocks, is late.
    pub(crate) fn replay(
        &mut self,
        slot: Slot,
        samples: impl Iterator<Item = Sample>,
        segment: u64,
    ) {
        let Some(Some(series)) = self.series.get_mut(slot as usize) else { return };
        series.last_segment = segment as u32;
        let (mut first, mut last) = self.bounds.unwrap_or((Timestamp::MAX, Timestamp::MIN));
        for sample in samples {
            let newer = series.last_time().is_none_or(|last| sample.at > last);
            if newer && sample.at >= self.flushed {
                series.push(&sample, self.rules, &mut self.sealing);
                first = first.min(sample.at);
                last = last.max(sample.at);
            } else {
                series.push_late(&sample, self.commit);
                self.late_came = true;
            }
        }
        self.bounds = (first <= last).then_some((first, last));
    }

    /// Makes a new series what a checkpoint says. Chunks are left out whose bytes are not what was
    /// sealed, which can be only where their file is not `whole`; returns how many there were.
    pub(crate) fn restore(
        &mut self,
        slot: Slot,
        state: State<'_>,
        whole: impl Fn(u32) -> bool,
    ) -> u64 {
        let Some(Some(series)) = self.series.get_mut(slot as usize) else { return 0 };
        let arena = &mut self.sealing.arena;
        let mut lost = 0;
        series.restore(state, self.commit, |from| {
            let place = match from {
                state::From::File(place) => {
                    let readable = whole(place.piece) || arena.get(place).is_whole();
                    (readable && arena.claim(place)).then_some(place)
                }
                state::From::Here(bytes) => is_whole_chunk(bytes).then(|| arena.put(bytes)),
            };
            lost += u64::from(place.is_none());
            place
        });
        self.late_came |= series.has_late();
        if let Some((first, last)) = series.in_order_bounds() {
            self.bounds = Some(match self.bounds {
                None => (first, last),
                Some((a, b)) => (a.min(first), b.max(last)),
            });
        }
        lost
    }

    /// Whether no series can have samples, as after a start with everything in blocks.
    pub(crate) fn is_bare(&self) -> bool {
        self.bounds.is_none() && !self.late_came
    }

    /// Hides samples of a series.
    pub(crate) fn delete(&mut self, id: SeriesRef, range: TimeRange, commit: u64) {
        let series = self.slot_of(id).and_then(|slot| self.series.get_mut(slot as usize));
        if let Some(Some(series)) = series {
            series.delete(range, commit);
        }
    }

    /// Notes that `segment` of the log names a series.
    pub(crate) fn touch(&mut self, id: SeriesRef, segment: u64) {
        let series = self.slot_of(id).and_then(|slot| self.series.get_mut(slot as usize));
        if let Some(Some(series)) = series {
            series.last_segment = series.last_segment.max(segment as u32);
        }
    }

    /// Adds to `changed` the series that got samples after commit `after`, and how many they had by then,
    /// unless they are there already; the last commit.
    pub(crate) fn add_changed(&self, after: u64, changed: &mut HashMap<Slot, u32>) -> u64 {
        let first = self.undo.partition_point(|undo| undo.commit <= after);
        for undo in self.undo.get(first..).unwrap_or_default() {
            changed.entry(undo.slot).or_insert(undo.total_before);
        }
        self.commit
    }

    /// Takes a series out; its slot is reused once no pin up to `pin` is out.
    pub(crate) fn remove(&mut self, slot: Slot, pin: u64) {
        if let Some(series) = self.series.get_mut(slot as usize).and_then(Option::take) {
            self.ids.remove(series.id);
            for id in self.aliases.remove(&slot).unwrap_or_default() {
                self.ids.remove(id);
            }
            self.limbo.push((pin, slot));
        }
    }

    /// Gives back slots that no pin looks at any more, up to `most`; returns them.
    pub(crate) fn reclaim(&mut self, oldest_pin: Option<u64>, most: usize) -> Vec<Slot> {
        let mut reclaimed = Vec::new();
        self.limbo.retain(|(pin, slot)| {
            let wanted = oldest_pin.is_some_and(|oldest| oldest <= *pin);
            let wanted = wanted || reclaimed.len() == most;
            if !wanted {
                reclaimed.push(*slot);
            }
            wanted
        });
        self.free.extend_from_slice(&reclaimed);
        reclaimed
    }
}

#[derive(Debug, Default)]
struct PinTable {
    next: u64,
    /// Commit that each pin looks at, by number of the pin.
    active: BTreeMap<u64, u64>,
}

/// The pins that are out.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<PinTable>);

impl Pins {
    /// A pin on `commit`. Must be called while no commit can begin.
    pub(crate) fn pin(self: &Arc<Self>, commit: u64) -> Pin {
        let mut table = self.0.lock();
        let number = table.next;
        table.next += 1;
        table.active.insert(number, commit);
        Pin { pins: Arc::clone(self), number, commit }
    }

    /// The oldest commit that a reader looks at.
    pub(crate) fn oldest_commit(&self) -> Option<u64> {
        self.0.lock().active.values().next().copied()
    }

    /// Number of the oldest pin.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.0.lock().active.keys().next().copied()
    }

    /// Number that the next pin will have.
    pub(crate) fn next(&self) -> u64 {
        self.0.lock().next
    }
}

/// Keeps what was visible at a commit readable, until dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    number: u64,
    /// The last visible commit.
    pub(crate) commit: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.0.lock().active.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_any_size_have_their_slots() {
        let mut ids = IdMap::default();
        let all = [0, 1023, 1024, 70_000, PAGES_MAX * 1024 - 1, PAGES_MAX * 1024, ID_END - 1];
        for (slot, id) in (0..).zip(all) {
            assert_eq!(ids.get(id), None);
            ids.insert(id, slot);
        }
        for (slot, id) in (0..).zip(all) {
            assert_eq!(ids.get(id), Some(slot), "{id}");
            ids.remove(id);
            assert_eq!(ids.get(id), None, "{id}");
        }
        assert!(ids.pages.len() as u64 <= PAGES_MAX && ids.far.is_empty());
    }
}
