//! From the log to the head: the states of a checkpoint, then record after record.
//!
//! Samples are collected over many records and put in order of their series, so that each series is
//! looked at once for several samples. Late is what the running head took as late: whatever is not
//! newer than its series, or lies before a flush that had begun.
//!
//! A checkpoint is written while appends go on. Each state in it says up to where the log is in it:
//! of what follows the checkpoint, the part up to there is passed over for that series.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use stint_model::{Columns, Labels, STALE_NAN_BITS, Sample, SeriesRef, Timestamp, Value};

use super::index::Slot;
use super::state::State;
use super::store::{ID_END, Store};
use super::{Cut, GoneFiles, Head, arena};
use crate::disk::{Disk, DiskResult};
use crate::error::Damage;
use crate::wal::WalPosition;
use crate::wal::record::{self, Item};

/// Samples that are collected before they go to their series, at least and at most: a megabyte or two.
/// In between it is one for each series, so that it stays small beside what those take.
const WINDOW: std::ops::RangeInclusive<usize> =
    if cfg!(test) { 16..=64 } else { 1 << 12..=1 << 16 };

/// Why a record is damaged that has one.
const NO_HANDLE: &str = "a handle that no series gets";

/// Bytes of a file that are looked at at once.
const READ_BYTES: usize = 1 << 18;

/// Applies a log to an empty head.
pub(crate) struct Replay<'a> {
    head: &'a Head,
    disk: &'a dyn Disk,
    flush_begun_at: u64,
    covered: Covered,
    window: Window,
    /// Samples that are collected.
    window_rows: usize,
    scratch: Scratch,
    items: Vec<Item>,
    columns: Columns,
    /// Files of sealed chunks that were looked at, and whether they are whole.
    files: HashMap<u32, bool>,
    /// Samples whose series is not known.
    pub(crate) orphans: u64,
    /// Samples applied.
    pub(crate) samples: u64,
    /// Damage to files of sealed chunks.
    damage: Vec<Damage>,
    lost_chunks: u64,
}

/// Up to where the log is in the state that a series had.
#[derive(Default)]
struct Covered {
    /// Few, as one look at the head tells it for many series.
    places: Vec<WalPosition>,
    /// By slot: number of its place and one; 0 for a series without state.
    by_slot: Vec<u32>,
    /// The largest of the places.
    to: WalPosition,
}

impl Covered {
    /// Notes the place of a slot; false where it had one.
    fn insert(&mut self, slot: usize, at: WalPosition) -> bool {
        if self.places.last() != Some(&at) {
            self.places.push(at);
            self.to = self.to.max(at);
        }
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, 0);
        }
        let Some(place @ 0) = self.by_slot.get_mut(slot) else { return false };
        *place = self.places.len() as u32;
        true
    }

    /// Whether the state that a series had holds what the log says at `position`.
    fn holds(&self, slot: usize, position: WalPosition) -> bool {
        let number = self.by_slot.get(slot).and_then(|number| number.checked_sub(1));
        let place = number.and_then(|number| self.places.get(number as usize));
        place.is_some_and(|covered| *covered >= position)
    }
}

/// A sample that is collected: what most are, in few bytes.
#[derive(Clone, Copy)]
struct Row {
    /// Handle, then slot of the series; [`RARE`] where `bits` is a number in [`Window::rare`].
    series: u64,
    at: i64,
    bits: u64,
}

const RARE: u64 = 1 << 63;

impl Row {
    fn series(&self) -> u64 {
        self.series & !RARE
    }

    fn set_slot(&mut self, slot: Slot) {
        self.series = self.series & RARE | u64::from(slot);
    }
}

/// Samples of whole records, in order of the log.
#[derive(Default)]
struct Window {
    rows: Vec<Row>,
    /// Those with a histogram or a start time.
    rare: Vec<Sample>,
}

impl Window {
    fn push(&mut self, id: u64, sample: Sample) {
        let at = sample.at.0;
        let series = id & !RARE;
        let row = match sample {
            Sample { started: None, value: Value::Float(value), .. } => {
                Row { series, at, bits: value.to_bits() }
            }
            Sample { started: None, value: Value::Stale, .. } => {
                Row { series, at, bits: STALE_NAN_BITS }
            }
            sample => {
                self.rare.push(sample);
                Row { series: series | RARE, at, bits: self.rare.len() as u64 - 1 }
            }
        };
        self.rows.push(row);
    }

    /// The sample of a row.
    fn sample(&self, row: usize) -> Option<Sample> {
        let row = self.rows.get(row)?;
        if row.series & RARE == 0 {
            let value = Value::from_wire(f64::from_bits(row.bits));
            return Some(Sample { at: Timestamp(row.at), started: None, value });
        }
        self.rare.get(row.bits as usize).cloned()
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.rare.clear();
    }
}

/// Memory to put a window in order of slots.
#[derive(Default)]
struct Scratch {
    /// Where the samples of each slot end in `order`.
    ends: Vec<u32>,
    order: Vec<u32>,
}

impl<'a> Replay<'a> {
    /// Begins at number `next_file` with files of sealed chunks.
    pub(crate) fn new(head: &'a Head, disk: &'a dyn Disk, next_file: u32) -> Self {
        head.store.write().arena_mut().begin_at(next_file);
        Self {
            head,
            disk,
            flush_begun_at: 0,
            covered: Covered::default(),
            window: Window::default(),
            window_rows: 0,
            scratch: Scratch::default(),
            items: Vec::new(),
            files: HashMap::new(),
            orphans: 0,
            samples: 0,
            damage: Vec::new(),
            columns: Columns::default(),
            lost_chunks: 0,
        }
    }

    /// Applies a record of a checkpoint; why not, where it makes no sense.
    pub(crate) fn checkpoint(&mut self, payload: &[u8]) -> DiskResult<Result<(), &'static str>> {
        self.one_by_one(payload, WalPosition { segment: 0, offset: u64::MAX })
    }

    /// Applies the record of the log that ends at `position`; why not, where it makes no sense.
    pub(crate) fn record(
        &mut self,
        payload: &[u8],
        position: WalPosition,
    ) -> DiskResult<Result<(), &'static str>> {
        if self.window.rows.is_empty() {
            self.size_window();
        }
        let begun = self.window.rows.len();
        let (window, items) = (&mut self.window, &mut self.items);
        let (mut in_turn, mut is_known) = (false, true);
        let decoded = record::decode_apart(
            payload,
            |id, sample| window.push(id, sample),
            |item| match item {
                Item::Series { id, .. } if id >= ID_END => is_known = false,
                Item::Series { .. } | Item::Metadata { .. } | Item::Exemplar { .. } => {
                    items.push(item);
                }
                _ => in_turn = true,
            },
        );
        let decoded = if is_known { decoded } else { Err(NO_HANDLE) };
        if in_turn || decoded.is_err() {
            self.window.rows.truncate(begun);
            self.items.clear();
            return match decoded {
                Ok(()) => self.one_by_one(payload, position),
                Err(reason) => Ok(Err(reason)),
            };
        }
        let mut store = self.head.store.write();
        for item in self.items.drain(..) {
            match item {
                Item::Series { id, labels, last_segment } => {
                    add_series(self.head, &mut store, id, &labels, last_segment);
                }
                Item::Metadata { family, metadata } => {
                    self.head.metadata.write().insert(family, metadata);
                }
                Item::Exemplar { id, exemplar } => {
                    store.touch(SeriesRef(id), position.segment);
                    self.head.exemplars.lock().push(id, exemplar);
                }
                _ => {}
            }
        }
        store.position = position;
        self.resolve(&mut store, begun, position);
        drop(store);
        if self.window.rows.len() >= self.window_rows {
            self.flush(position.segment);
        }
        Ok(Ok(()))
    }

    /// Makes room in the window, which is empty, for what is collected of so many series.
    fn size_window(&mut self) {
        let series = self.head.store.read().series.len();
        self.window_rows = series.clamp(*WINDOW.start(), *WINDOW.end());
        let room = self.window_rows + self.window_rows / 4;
        if self.window.rows.capacity() < room {
            // What is not used takes no memory, and growing step by step would take it twice.
            self.window.rows = Vec::new();
            self.window.rows.reserve_exact(room);
        }
    }

    /// Puts slots in place of handles, from row `begun` of the window on. Drops what is not wanted.
    fn resolve(&mut self, store: &mut Store, begun: usize, position: WalPosition) {
        let known = position > self.covered.to;
        let rows = &mut self.window.rows;
        let mut kept = begun;
        for row in begun..rows.len() {
            let Some(sample) = rows.get_mut(row) else { break };
            let id = sample.series();
            let Some(slot) = store.slot_of(SeriesRef(id)) else {
                self.orphans += 1;
                // Whoever had it, nobody else may get it.
                if id < ID_END {
                    store.next_id = store.next_id.max(id + 1);
                }
                continue;
            };
            sample.set_slot(slot);
            if known || !self.covered.holds(slot as usize, position) {
                if kept < row {
                    rows.swap(kept, row);
                }
                kept += 1;
            }
        }
        rows.truncate(kept);
        self.samples += (kept - begun) as u64;
    }

    /// Gives the samples that were collected, all of `segment`, to their series.
    pub(crate) fn flush(&mut self, segment: u64) {
        let rows = &self.window.rows;
        if rows.is_empty() {
            return;
        }
        let mut store = self.head.store.write();
        store.begin_commit(None);
        let Scratch { ends, order } = &mut self.scratch;
        ends.clear();
        ends.resize(store.series.len(), 0);
        for row in rows {
            if let Some(count) = ends.get_mut(row.series() as usize) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for end in ends.iter_mut() {
            sum += *end;
            *end = sum - *end;
        }
        order.clear();
        order.resize(rows.len(), 0);
        for (number, row) in (0..).zip(rows) {
            if let Some(end) = ends.get_mut(row.series() as usize) {
                if let Some(place) = order.get_mut(*end as usize) {
                    *place = number;
                }
                *end += 1;
            }
        }
        let mut begin = 0;
        for (slot, end) in (0..).zip(ends.iter()) {
            let rows = order.get(begin..*end as usize).unwrap_or_default();
            begin = *end as usize;
            if !rows.is_empty() {
                let samples = rows.iter().filter_map(|row| self.window.sample(*row as usize));
                store.replay(slot, samples, segment);
            }
        }
        drop(store);
        self.window.clear();
        // What the disk refuses stays in memory; a job tries again and tells.
        while self.head.write_chunks(self.disk).is_ok_and(|more| more) {}
    }

    /// Applies the items of a record in their order.
    fn one_by_one(
        &mut self,
        payload: &[u8],
        position: WalPosition,
    ) -> DiskResult<Result<(), &'static str>> {
        self.flush(position.segment);
        let mut items = std::mem::take(&mut self.items);
        if let Err(reason) = record::decode(payload, |item| items.push(item)) {
            return Ok(Err(reason));
        }
        let mut at = WalPosition::default();
        for item in items.drain(..) {
            if let Item::StatesAt { position } = item {
                at = position;
            } else if let Err(reason) = self.item(item, position, at)? {
                return Ok(Err(reason));
            }
        }
        self.items = items;
        Ok(Ok(()))
    }

    fn item(
        &mut self,
        item: Item,
        position: WalPosition,
        at: WalPosition,
    ) -> DiskResult<Result<(), &'static str>> {
        let mut store = self.head.store.write();
        store.begin_commit(None);
        store.position = position;
        match item {
            Item::Series { id, .. } if id >= ID_END => return Ok(Err(NO_HANDLE)),
            Item::Checkpoint { next_id, .. } if next_id > ID_END => return Ok(Err(NO_HANDLE)),
            Item::Series { id, last_segment, labels } => {
                add_series(self.head, &mut store, id, &labels, last_segment);
            }
            Item::Sample { id, sample } => {
                self.window.push(id, sample);
                self.resolve(&mut store, 0, position);
                if let Some((row, sample)) = self.window.rows.first().zip(self.window.sample(0)) {
                    let only = std::iter::once(sample);
                    store.replay(row.series() as u32, only, position.segment);
                }
                self.window.clear();
            }
            Item::Metadata { family, metadata } => {
                self.head.metadata.write().insert(family, metadata);
            }
            Item::Exemplar { id, exemplar } => {
                store.touch(SeriesRef(id), position.segment);
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
                let mut store = self.head.store.write();
                store.flushed = store.flushed.max(before);
            }
            Item::Deleted { id, range } => {
                let slot = store.slot_of(SeriesRef(id));
                if !slot.is_some_and(|slot| self.covered.holds(slot as usize, position)) {
                    let commit = store.commit;
                    store.touch(SeriesRef(id), position.segment);
                    store.delete(SeriesRef(id), range, commit);
                }
            }
            Item::Checkpoint { next_id, flushed } => {
                store.next_id = store.next_id.max(next_id);
                store.flushed = store.flushed.max(flushed);
            }
            Item::State { id, state } => {
                drop(store);
                return self.state(id, &state, at);
            }
            Item::StatesAt { .. } => {}
        }
        Ok(Ok(()))
    }

    /// Makes series `id` what a checkpoint says, unless a newer one said it already.
    fn state(
        &mut self,
        id: u64,
        state: &[u8],
        at: WalPosition,
    ) -> DiskResult<Result<(), &'static str>> {
        let Ok(state) = State::of(state, &mut self.columns) else {
            return Ok(Err("malformed state of a series"));
        };
        for place in state.places() {
            self.open_file(place.piece)?;
        }
        let mut store = self.head.store.write();
        let slot = store.slot_of(SeriesRef(id)).map(|slot| slot as usize);
        let Some(slot) = slot else { return Ok(Err("state of a series that is not defined")) };
        if self.covered.insert(slot, at) {
            let whole = |file| self.files.get(&file) == Some(&true);
            self.lost_chunks += store.restore(slot as u32, state, whole);
        }
        Ok(Ok(()))
    }

    /// Maps a file of sealed chunks, once.
    fn open_file(&mut self, number: u32) -> DiskResult<()> {
        let Entry::Vacant(entry) = self.files.entry(number) else { return Ok(()) };
        let path = arena::path(number);
        let (bytes, reason) = match self.disk.map(&path) {
            Err(error) if error.is_not_found() => {
                entry.insert(false);
                (0, "the file is missing")
            }
            mapped => {
                let file = mapped?;
                let (whole, bytes) =
                    (arena::is_whole(self.disk, &path, READ_BYTES)?, file.len() as u64);
                self.head.store.write().arena_mut().adopt(number, file);
                entry.insert(whole);
                if whole {
                    return Ok(());
                }
                (bytes, "checksum mismatch: chunks that are damaged are left out")
            }
        };
        self.damage.push(Damage { path, offset: 0, bytes, reason: reason.to_owned() });
        Ok(())
    }

    /// Of `files`, those that no checkpoint refers to; and what is damaged.
    pub(crate) fn finish(mut self, mut files: Vec<u32>) -> (GoneFiles, Vec<Damage>) {
        if self.lost_chunks > 0 {
            self.damage.push(Damage {
                path: arena::DIR.into(),
                offset: 0,
                bytes: 0,
                reason: format!("{} sealed chunks of the head are lost", self.lost_chunks),
            });
        }
        self.head.store.write().arena_mut().drop_unclaimed();
        files.retain(|number| !self.files.contains_key(number));
        (GoneFiles(files), self.damage)
    }
}

fn add_series(head: &Head, store: &mut Store, id: u64, labels: &Labels, last_segment: u64) {
    if store.slot_of(SeriesRef(id)).is_some() {
        return;
    }
    let hash = labels.stable_hash();
    let mut index = head.index.write();
    if let Some(slot) = index.find(labels, hash) {
        store.alias(id, slot);
    } else if let Some(slot) = store.create(id) {
        index.insert(slot, labels, hash);
        if let Some(Some(series)) = store.series.get_mut(slot as usize) {
            series.last_segment = last_segment as u32;
        }
    }
}
