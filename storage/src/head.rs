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
pub(crate) mod replay;
mod series;
pub(crate) mod state;
mod store;
mod symbols;
pub(crate) mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::sync::{Mutex, RwLock};
use stint_model::{Exemplar, Labels, Metadata, SeriesRef, TimeRange, Timestamp, labels};

use self::arena::Arena;
use self::exemplars::ExemplarRing;
use self::index::Index;
use self::metadata::Families;
use self::series::ChunkRules;
pub(crate) use self::state::Effort;
use self::store::{Pin, Pins, Store};
use crate::disk::{Disk, DiskResult};
use crate::options::Options;
use crate::version::window;
use crate::wal::WalPosition;
use crate::wal::record::Encoder;

/// Slots that are worked on under one lock, so that nobody waits long.
const SLOTS_AT_ONCE: usize = 1024;
/// Slots that are given back under one lock.
const FREED_AT_ONCE: usize = if cfg!(test) { 2 } else { 4096 };
/// Slots that a checkpoint looks at under one lock.
const SAVED_AT_ONCE: usize = if cfg!(test) { 2 } else { 256 };
/// Bytes after which no further series is looked at under the same lock.
const SAVED_BYTES: usize = 1 << 18;
/// Series of which something is read before the first of them is saved, as in [`append`].
const TOUCHED_AT_ONCE: usize = 32;

/// See the module's documentation.
pub(crate) struct Head {
    store: RwLock<Store>,
    index: RwLock<Index>,
    pins: Arc<Pins>,
    exemplars: Mutex<ExemplarRing>,
    metadata: RwLock<Families>,
    range: i64,
    file_bytes: usize,
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

/// Files with sealed chunks that nobody has any more, except a checkpoint that is not the newest.
#[must_use = "they stay on the disk until they are removed"]
pub(crate) struct GoneFiles(Vec<u32>);

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
            file_bytes: options.head_file_bytes,
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

    /// Writes the series in a limited number of slots from `from` on, as they are at one place of the
    /// log. Returns where to go on.
    pub(crate) fn save(&self, from: usize, effort: Effort, encoder: &mut Encoder) -> Option<usize> {
        let store = self.store.read();
        let index = self.index.read();
        encoder.states_at(store.position);
        encoder.symbols_of(index.generation());
        let bytes_max = encoder.bytes_mut().len() + SAVED_BYTES;
        let all = store.series.get(from..).unwrap_or_default();
        let all = all.get(..SAVED_AT_ONCE).unwrap_or(all);
        let mut slot = from;
        for part in all.chunks(TOUCHED_AT_ONCE) {
            std::hint::black_box(part.iter().flatten().fold(0, |sum, s| sum ^ s.touch()));
            for series in part {
                if encoder.bytes_mut().len() >= bytes_max {
                    return Some(slot);
                }
                let number = slot as u32;
                slot += 1;
                let Some((series, labels)) = series.as_ref().zip(index.symbols(number)) else {
                    continue;
                };
                let last_segment = u64::from(series.last_segment);
                let text = |symbol| index.text(symbol);
                encoder.series_of(series.id, last_segment, labels.clone(), text);
                encoder.state(series.id, |out| series.put_state(store.arena(), effort, out));
                for alias in store.aliases(number) {
                    encoder.series_of(*alias, last_segment, labels.clone(), text);
                }
            }
        }
        (slot < store.series.len()).then_some(slot)
    }

    /// Hides samples of `series` inside `range` from readers that come later. The log says so up to
    /// `position`.
    pub(crate) fn delete(&self, series: &[SeriesRef], range: TimeRange, position: WalPosition) {
        let mut store = self.store.write();
        store.begin_commit(self.pins.oldest_commit());
        store.position = position;
        let commit = store.commit;
        for id in series {
            store.touch(*id, position.segment);
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
            let free = store.reclaim(self.pins.oldest(), FREED_AT_ONCE);
            let more = free.len() == FREED_AT_ONCE;
            let mut index = self.index.write();
            for slot in free {
                index.release(slot);
            }
            drop(index);
            if more {
                return Some(from);
            }
            store.bounds = store.bounds.filter(|(_, last)| *last >= cut.before);
            // What remains may begin much later than the cut: stepping there block by block would
            // take a job for each.
            let begin = store.remaining.take().filter(|begin| *begin < Timestamp::MAX);
            if let Some((first, last)) = &mut store.bounds {
                *first = begin.map_or(cut.before, |begin| begin.max(cut.before)).min(*last);
            }
            return None;
        }
        if from == 0 {
            store.remaining = Some(Timestamp::MAX);
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

    /// Frees what removed series left in the index, where that is much. Batches may come meanwhile; no
    /// series may be removed.
    pub(crate) fn rebuild_worn_index(&self) {
        let is_worn = self.index.read().is_worn();
        if is_worn {
            index::rebuild(&self.index);
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

    /// Lets the chunks that were sealed since go to a file of their own, where they are many.
    pub(crate) fn turn_chunks(&self) {
        let bytes = self.file_bytes / 4;
        self.store.write().arena_mut().turn_at(bytes);
    }

    /// The files of chunks that are gone.
    pub(crate) fn take_gone_files(&self) -> GoneFiles {
        GoneFiles(self.store.write().arena_mut().take_gone())
    }

    /// Removes files; those that are left after an error are gone as before.
    pub(crate) fn remove_files(&self, disk: &dyn Disk, gone: GoneFiles) -> DiskResult<()> {
        let mut left = gone.0;
        while let Some(number) = left.last() {
            if let Err(error) = arena::remove_file(disk, &arena::path(*number)) {
                self.store.write().arena_mut().still_there(left);
                return Err(error);
            }
            left.pop();
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
