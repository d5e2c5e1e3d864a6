//! The head: the newest samples of all series, in memory, readable while it grows.
//!
//! One writer at a time plans a batch ([`append`]), logs it, and commits it; readers are pinned to
//! a commit ([`store`]) and copy what they need under a short read lock. Locks, in the order in
//! which they are taken: store, index, pins; the index is never held while taking the store.

pub(crate) mod append;
pub(crate) mod arena;
mod chunk;
mod exemplars;
pub(crate) mod index;
mod late;
mod metadata;
pub(crate) mod read;
mod series;
mod store;
mod symbols;
mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use stint_model::{Exemplar, Labels, Metadata, Sample, SeriesRef, TimeRange, Timestamp, labels};

use self::arena::Arena;
use self::exemplars::ExemplarRing;
use self::index::Index;
use self::metadata::Families;
use self::series::{ChunkRules, MemSeries};
use self::store::{Pin, Pins, Store};
use crate::disk::{Disk, DiskResult};
use crate::options::Options;
use crate::version::window;
use crate::wal::record::Item;

/// Slots that are worked on under one lock, so that nobody waits long.
const SLOTS_AT_ONCE: usize = 1024;

/// See the module's documentation.
pub(crate) struct Head {
    store: RwLock<Store>,
    index: RwLock<Index>,
    pins: Arc<Pins>,
    exemplars: Mutex<ExemplarRing>,
    metadata: RwLock<Families>,
    range: i64,
}

/// Figures of the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadStats {
    pub(crate) series: u64,
    pub(crate) chunks: u64,
    pub(crate) late: u64,
    pub(crate) bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) exemplars: u64,
    pub(crate) bounds: Option<(Timestamp, Timestamp)>,
}

/// What leaves the head after a flush.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) before: Timestamp,
    pub(crate) commit: u64,
    pub(crate) first_segment: u64,
}

impl Head {
    pub(crate) fn new(options: &Options) -> Self {
        let rules = ChunkRules {
            samples: options.chunk_samples.max(1),
            range: options.block_range.0.max(1),
        };
        Self {
            store: RwLock::new(Store::new(rules, Arena::new(options.head_file_bytes))),
            index: RwLock::default(),
            pins: Arc::default(),
            exemplars: Mutex::new(ExemplarRing::new(options.exemplars_max)),
            metadata: RwLock::default(),
            range: options.block_range.0.max(1),
        }
    }

    /// Changes how many exemplars are kept.
    pub(crate) fn set_exemplars_max(&self, count: usize) {
        self.exemplars.lock().set_capacity(count);
    }

    /// A pin on what is visible now.
    pub(crate) fn pin(&self) -> Pin {
        let store = self.store.read();
        self.pins.pin(store.commit)
    }

    /// The pins that are out.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The labels of a series.
    pub(crate) fn labels_of(&self, id: SeriesRef) -> Option<Labels> {
        // Held across both: a slot that is freed in between may belong to another series.
        let store = self.store.read();
        let slot = store.slot_of(id)?;
        self.index.read().labels(slot)
    }

    /// First and last time of in-order samples.
    pub(crate) fn bounds(&self) -> Option<(Timestamp, Timestamp)> {
        self.store.read().bounds
    }

    /// Everything before this is in blocks.
    pub(crate) fn flushed(&self) -> Timestamp {
        self.store.read().flushed
    }

    /// The handle that the next new series gets.
    pub(crate) fn next_id(&self) -> u64 {
        self.store.read().next_id
    }

    /// The end of the oldest block range with in-order samples, once the head reaches so far
    /// beyond it that it can be cut off.
    pub(crate) fn due_cut(&self) -> Option<Timestamp> {
        let (first, last) = self.bounds()?;
        let span = last.0.saturating_sub(first.0);
        if span <= self.range.saturating_add(self.range / 2) {
            return None;
        }
        Some(Timestamp((first.0.div_euclid(self.range) + 1).saturating_mul(self.range)))
    }

    /// The block ranges in which there are samples before `before`.
    pub(crate) fn windows(&self, before: Timestamp) -> Vec<TimeRange> {
        let mut starts = BTreeSet::new();
        let mut from = 0;
        loop {
            let store = self.store.read();
            let end = store.series.len().min(from + SLOTS_AT_ONCE);
            let Some(part) = store.series.get(from..end).filter(|part| !part.is_empty()) else {
                break;
            };
            for series in part.iter().flatten() {
                series.visit_chunk_starts(|at| {
                    if at < before {
                        starts.insert(window(at, self.range).start);
                    }
                });
            }
            from = end;
        }
        starts.into_iter().map(|start| window(start, self.range)).collect()
    }

    /// Metadata by family.
    pub(crate) fn metadata(&self) -> Vec<(String, Metadata)> {
        self.metadata.read().list()
    }

    /// Forgets the metadata of families that have had no series for long. No batch may be between
    /// plan and commit.
    pub(crate) fn cut_metadata(&self) {
        let index = self.index.read();
        self.metadata.write().cut(|name| index.has(labels::METRIC_NAME, name));
    }

    /// Exemplars inside `range`, in order of arrival.
    pub(crate) fn exemplars(&self, range: TimeRange) -> Vec<(SeriesRef, Exemplar)> {
        let ring = self.exemplars.lock();
        ring.inside(range).map(|(id, exemplar)| (SeriesRef(id), exemplar.clone())).collect()
    }

    /// Handle, labels and last log segment of the series in a limited number of slots from `from`
    /// on, a series with several handles once for each; and where to go on.
    pub(crate) fn some_series(&self, from: usize) -> (Vec<(u64, Labels, u64)>, Option<usize>) {
        let store = self.store.read();
        let index = self.index.read();
        let end = store.series.len().min(from + SLOTS_AT_ONCE);
        let mut some = Vec::new();
        for (slot, series) in store.series.iter().enumerate().take(end).skip(from) {
            let Some(series) = series else { continue };
            let slot = slot as u32;
            let Some(labels) = index.labels(slot) else { continue };
            let last_segment = u64::from(series.last_segment);
            for alias in store.aliases(slot) {
                some.push((*alias, labels.clone(), last_segment));
            }
            some.push((series.id, labels, last_segment));
        }
        (some, (end < store.series.len()).then_some(end))
    }

    /// The newest in-order samples of the slots that [`Head::some_series`] gives from `from` on, as
    /// far as a later sample may still be compared with them; and whether it was deleted.
    pub(crate) fn newest_samples(&self, from: usize) -> Vec<(u64, Sample, bool)> {
        let store = self.store.read();
        let Some((_, last)) = store.bounds else { return Vec::new() };
        let oldest = Timestamp(last.0.saturating_sub(self.range)).max(store.flushed);
        let slots = store.series.iter().skip(from).take(SLOTS_AT_ONCE).flatten();
        slots
            .filter_map(|series| {
                let (at, value) = series.last().filter(|(at, _)| *at >= oldest)?;
                let sample = Sample { at, started: None, value };
                let deleted = series.has_deleted()
                    && matches!(series.stored(&sample, store.arena()), Ok(series::Stored::Nothing));
                Some((series.id, sample, deleted))
            })
            .collect()
    }

    /// Hides samples of `series` inside `range` from readers that come later. `segment` of the log
    /// says so.
    pub(crate) fn delete(&self, series: &[SeriesRef], range: TimeRange, segment: u64) {
        let mut store = self.store.write();
        store.begin_commit(self.pins.oldest_commit());
        let commit = store.commit;
        for id in series {
            store.touch(*id, segment);
            store.delete(*id, range, commit);
        }
    }

    /// Notes that everything before `before` is being written to blocks; returns the last commit
    /// that has to be in them.
    pub(crate) fn begin_flush(&self, before: Timestamp) -> u64 {
        let mut store = self.store.write();
        store.flushed = store.flushed.max(before);
        store.commit
    }

    /// Drops what is in blocks, for the slots from `from` on, a limited number at a time: samples
    /// before `cut.before`, late ones only as far as commits up to `cut.commit` brought them.
    /// Series that have nothing left, and whose last sample is in no segment of the log from
    /// `cut.first_segment` on, are forgotten. Returns where to go on. No batch may be between plan
    /// and commit.
    pub(crate) fn truncate(&self, cut: Cut, from: usize) -> Option<usize> {
        let mut store = self.store.write();
        let end = store.series.len().min(from + SLOTS_AT_ONCE);
        if from >= end {
            let free = store.reclaim(self.pins.oldest());
            let mut index = self.index.write();
            for slot in free {
                index.release(slot);
            }
            drop(index);
            store.bounds = store.bounds.filter(|(_, last)| *last >= cut.before);
            // What remains may begin much later than the cut: stepping there block by block would
            // take a job for each.
            let remaining = store.series.iter().flatten().filter_map(MemSeries::bounds);
            let begin = remaining.map(|(first, _)| first).min();
            if let Some((first, last)) = &mut store.bounds {
                *first = begin.map_or(cut.before, |begin| begin.max(cut.before)).min(*last);
            }
            return None;
        }
        let pin = self.pins.next();
        let mut gone = store.truncate(from..end, cut.before, cut.commit);
        let first = cut.first_segment;
        gone.retain(|slot| store.get(*slot).is_some_and(|s| u64::from(s.last_segment) < first));
        for slot in &gone {
            store.remove(*slot, pin);
        }
        let mut index = self.index.write();
        for slot in gone {
            index.remove(slot);
        }
        Some(end)
    }

    /// Frees what removed series left in the index, where that is much. No batch may be between
    /// plan and commit.
    pub(crate) fn rebuild_worn_index(&self) {
        let rebuilt = {
            let index = self.index.read();
            index.is_worn().then(|| index.rebuilt())
        };
        if let Some(rebuilt) = rebuilt {
            *self.index.write() = rebuilt;
        }
    }

    /// Bytes of files with sealed chunks.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.store.read().arena().file_bytes() as u64
    }

    /// Whether there are sealed chunks to be written to a file.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.store.read().arena().unwritten().is_some()
    }

    /// Writes sealed chunks to one file, in place of memory; false when there were too few for
    /// that. Only one thread may do so at a time.
    pub(crate) fn write_chunks(&self, disk: &dyn Disk) -> DiskResult<bool> {
        let unwritten = self.store.read().arena().unwritten();
        let Some(unwritten) = unwritten else { return Ok(false) };
        let mapped = unwritten.write(disk)?;
        self.store.write().arena_mut().written(unwritten, mapped);
        Ok(true)
    }

    /// Removes the files of chunks that are gone.
    pub(crate) fn remove_files(&self, disk: &dyn Disk) -> DiskResult<()> {
        let gone = self.store.write().arena_mut().take_gone();
        for (at, number) in gone.iter().enumerate() {
            if let Err(error) = arena::remove_file(disk, &arena::path(*number)) {
                let left = gone.get(at..).unwrap_or_default();
                self.store.write().arena_mut().still_there(left);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Figures; walks over all series.
    pub(crate) fn stats(&self) -> HeadStats {
        let mut stats = HeadStats::default();
        let mut from = 0;
        loop {
            let store = self.store.read();
            stats.bounds = store.bounds;
            let end = store.series.len().min(from + SLOTS_AT_ONCE);
            let Some(part) = store.series.get(from..end).filter(|part| !part.is_empty()) else {
                break;
            };
            for series in part.iter().flatten() {
                stats.series += 1;
                stats.chunks += series.chunks() as u64;
                stats.late += series.late_count() as u64;
                stats.bytes += (series.heap_bytes() + size_of_val(series)) as u64;
            }
            from = end;
        }
        {
            let store = self.store.read();
            stats.bytes += store.arena().heap_bytes() as u64;
            stats.file_bytes = store.arena().file_bytes() as u64;
        }
        stats.bytes += self.index.read().symbol_bytes() as u64;
        stats.exemplars = self.exemplars.lock().len() as u64;
        stats
    }
}

/// Applies a log to an empty head. Late is what the running head took as late: whatever is not
/// newer than its series, or lies before a flush that had begun.
pub(crate) struct Replay<'a> {
    head: &'a Head,
    flush_begun_at: u64,
    /// Samples whose series is not known.
    pub(crate) orphans: u64,
    /// Samples applied.
    pub(crate) samples: u64,
    /// Newest time in the segment at hand.
    pub(crate) newest: Timestamp,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(head: &'a Head) -> Self {
        Self { head, flush_begun_at: 0, orphans: 0, samples: 0, newest: Timestamp::MIN }
    }

    /// Applies the items of one record.
    pub(crate) fn apply(&mut self, items: &mut Vec<Item>, segment: u64) {
        let mut store = self.head.store.write();
        store.begin_commit(None);
        for item in items.drain(..) {
            match item {
                Item::Series { id, last_segment, labels } => {
                    self.series(&mut store, id, &labels, last_segment);
                }
                Item::Sample { id, sample } => self.sample(&mut store, id, &sample, segment),
                Item::Metadata { family, metadata } => {
                    self.head.metadata.write().insert(family, metadata);
                }
                Item::Exemplar { id, exemplar } => {
                    store.touch(SeriesRef(id), segment);
                    self.head.exemplars.lock().push(id, exemplar);
                }
                Item::FlushBegin { before } => {
                    store.flushed = store.flushed.max(before);
                    self.flush_begun_at = store.commit;
                }
                Item::FlushDone { before } => {
                    drop(store);
                    let cut = Cut { before, commit: self.flush_begun_at, first_segment: 0 };
                    let mut from = Some(0);
                    while let Some(slot) = from {
                        from = self.head.truncate(cut, slot);
                    }
                    store = self.head.store.write();
                    store.flushed = store.flushed.max(before);
                }
                Item::Deleted { id, range } => {
                    let commit = store.commit;
                    store.touch(SeriesRef(id), segment);
                    store.delete(SeriesRef(id), range, commit);
                }
                Item::Checkpoint { next_id, flushed } => {
                    store.next_id = store.next_id.max(next_id);
                    store.flushed = store.flushed.max(flushed);
                }
            }
        }
    }

    fn series(&self, store: &mut Store, id: u64, labels: &Labels, last_segment: u64) {
        if store.slot_of(SeriesRef(id)).is_some() {
            return;
        }
        let hash = labels.stable_hash();
        let mut index = self.head.index.write();
        if let Some(slot) = index.find(labels, hash) {
            store.alias(id, slot);
        } else if let Some(slot) = store.create(id) {
            index.insert(slot, labels, hash);
            if let Some(Some(series)) = store.series.get_mut(slot as usize) {
                series.last_segment = last_segment as u32;
            }
        }
    }

    fn sample(&mut self, store: &mut Store, id: u64, sample: &Sample, segment: u64) {
        let Some(slot) = store.slot_of(SeriesRef(id)) else {
            self.orphans += 1;
            // Whoever had it, nobody else may get it.
            store.next_id = store.next_id.max(id.saturating_add(1));
            return;
        };
        let last = store.get(slot).and_then(series::MemSeries::last_time);
        let late = sample.at < store.flushed || last.is_some_and(|last| sample.at <= last);
        store.push(slot, sample, late, segment, false);
        self.samples += 1;
        self.newest = self.newest.max(sample.at);
    }
}
