//! The samples of one series in the head.

use std::collections::VecDeque;
use std::sync::Arc;

use stint_model::histogram::ResetHint;
use stint_model::{Columns, Sample, TimeRange, Timestamp, Value};

use super::arena::{Arena, Bytes, Mark, Place};
use super::chunk::OpenChunk;
use super::late::{Late, LateSamples};
use crate::codec::Corruption;
use crate::codec::chunk as sealed_chunk;
use crate::codec::times::Known;
use crate::tombstones::remove_ranges;

/// A chunk that does not change any more, in the encoding of blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub(super) place: Place,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) count: u16,
}

/// What a sample finds that was stored for its time.
pub(super) enum Stored {
    Nothing,
    Same,
    Other,
}

/// One series: sealed chunks, the open chunk, and late samples beside them, in order of time.
///
/// In-order samples are numbered from the birth of the series, so that a reader can be told to
/// look at the first so many only; a number stays the same when older chunks are dropped.
#[derive(Debug, Default)]
pub(super) struct MemSeries {
    pub(crate) id: u64,
    /// In-order samples ever stored.
    pub(crate) total: u32,
    /// Last segment of the log that has a sample of this series.
    pub(crate) last_segment: u32,
    pub(super) open: OpenChunk,
    pub(super) sealed: Box<[Sealed]>,
    /// What few series have.
    pub(super) rare: Option<Box<Rare>>,
}

/// What few series have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub(super) late: LateSamples,
    /// Deleted ranges, and the commits that deleted them.
    pub(super) deleted: Vec<(u64, TimeRange)>,
}

/// Where sealed chunks go, and memory to work in.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(crate) arena: Arena,
    scratch: Columns,
    /// Chunks sealed last that have times of their own, oldest first.
    recent: VecDeque<Timed>,
}

/// A chunk that others may have their times from.
#[derive(Debug)]
struct Timed {
    mark: Mark,
    times: Vec<Timestamp>,
    /// What it begins with: how many rows, and their times.
    head: Vec<u8>,
}

/// Targets that are sealed by turns: those of a few requests.
const RECENT_MAX: usize = 8;

impl Sealing {
    pub(crate) fn new(arena: Arena) -> Self {
        Self { arena, scratch: Columns::default(), recent: VecDeque::new() }
    }

    /// Keeps what the scratch columns hold.
    fn put(&mut self) -> Place {
        let Self { arena, scratch, recent } = self;
        let rows = sealed_chunk::Rows::of(scratch);
        // The newest are the likeliest.
        let alike = recent.iter().rev().filter(|timed| timed.times == scratch.times);
        for timed in alike {
            if let Some(distance) = arena.distance(timed.mark) {
                let bytes = sealed_chunk::beside::encode_beside(&rows, distance, &timed.head);
                return arena.put(&bytes);
            }
        }
        let (bytes, head_len) = sealed_chunk::encode_with_head(&rows);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        let head = bytes.get(..head_len).unwrap_or_default().to_vec();
        recent.push_back(Timed { mark: arena.mark(), times: scratch.times.clone(), head });
        arena.put(&bytes)
    }
}

/// Where chunks end.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkRules {
    pub(crate) samples: u16,
    /// Chunks do not reach over multiples of this many milliseconds.
    pub(crate) range: i64,
}

impl MemSeries {
    /// A series without samples.
    pub(crate) fn new(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    /// Something of what the next sample changes, from each place in memory.
    pub(crate) fn touch(&self) -> u64 {
        self.id ^ self.open.touch()
    }

    pub(super) fn late(&self) -> Option<&LateSamples> {
        self.rare.as_ref().map(|rare| &rare.late)
    }

    pub(super) fn deleted(&self) -> &[(u64, TimeRange)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.deleted)
    }

    /// Time and value of the newest in-order sample, as far as the head has it.
    pub(crate) fn last(&self) -> Option<(Timestamp, Value)> {
        Some((self.open.last(), self.open.last_value()?))
    }

    /// Time of the newest in-order sample.
    pub(crate) fn last_time(&self) -> Option<Timestamp> {
        (self.open.count() > 0).then(|| self.open.last())
    }

    /// Whether something was deleted of it.
    pub(crate) fn has_deleted(&self) -> bool {
        !self.deleted().is_empty()
    }

    /// Whether the head has no samples of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.count() == 0 && self.sealed.is_empty() && !self.has_late()
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> usize {
        self.sealed.len() + usize::from(self.open.count() > 0)
    }

    /// Whether there are late samples.
    pub(crate) fn has_late(&self) -> bool {
        self.late().is_some_and(|late| !late.is_empty())
    }

    /// How many late samples there are.
    pub(crate) fn late_count(&self) -> usize {
        self.late().map_or(0, LateSamples::len)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.open.heap_bytes()
            + size_of_val(&*self.sealed)
            + self.rare.as_ref().map_or(0, |rare| rare.late.heap_bytes())
    }

    /// Whether samples lie, or may lie, inside `range`.
    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        // Mostly the open chunk tells, without a look at the others.
        let open = &self.open;
        (open.count() > 0 && open.first() < range.end && open.last() >= range.start)
            || self.bounds().is_some_and(|(first, last)| first < range.end && last >= range.start)
    }

    /// First and last time of in-order samples.
    pub(crate) fn in_order_bounds(&self) -> Option<(Timestamp, Timestamp)> {
        let first = self.sealed.first().map(|chunk| chunk.first);
        (self.open.count() > 0)
            .then(|| (first.unwrap_or(self.open.first()), self.open.last()))
            .or_else(|| first.zip(self.sealed.last().map(|chunk| chunk.last)))
    }

    /// First and last time of any sample.
    pub(crate) fn bounds(&self) -> Option<(Timestamp, Timestamp)> {
        match (self.in_order_bounds(), self.late().and_then(LateSamples::bounds)) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        }
    }

    /// Calls `visit` with a time of each chunk (none reaches over the end of a block range), and of
    /// each late sample.
    pub(crate) fn visit_chunk_starts(&self, mut visit: impl FnMut(Timestamp)) {
        self.sealed.iter().for_each(|chunk| visit(chunk.first));
        if self.open.count() > 0 {
            visit(self.open.first());
        }
        self.late().into_iter().flat_map(LateSamples::iter).for_each(|late| visit(late.at));
    }

    /// Adds a sample later than all in-order ones.
    pub(crate) fn push(&mut self, sample: &Sample, rules: ChunkRules, sealing: &mut Sealing) {
        let count = self.open.count();
        if count > 0 {
            let first = self.open.first().0;
            let other_range = sample.at.0.div_euclid(rules.range) != first.div_euclid(rules.range);
            if count >= rules.samples || other_range {
                self.seal(sealing);
            }
        }
        self.open.push(sample);
        self.total = self.total.wrapping_add(1);
    }

    fn seal(&mut self, sealing: &mut Sealing) {
        let scratch = &mut sealing.scratch;
        scratch.clear();
        self.open.decode(self.open.count(), &mut Known::default(), 0, scratch);
        let mut sealed = std::mem::take(&mut self.sealed).into_vec();
        sealed.reserve_exact(1);
        sealed.push(Sealed {
            place: sealing.put(),
            first: self.open.first(),
            last: self.open.last(),
            count: self.open.count(),
        });
        self.sealed = sealed.into_boxed_slice();
        self.open.clear();
    }

    /// Adds a late sample whose time is not taken.
    pub(crate) fn push_late(&mut self, sample: &Sample, commit: u64) {
        self.rare.get_or_insert_default().late.push(sample, commit);
    }

    /// Hides the samples inside `range`, as far as there are any, from readers of `commit` and
    /// later ones; false where there are none.
    pub(crate) fn delete(&mut self, range: TimeRange, commit: u64) -> bool {
        let Some((first, last)) = self.bounds() else { return false };
        let held = TimeRange::closed(first, last);
        let range = TimeRange::new(range.start.max(held.start), range.end.min(held.end));
        if !range.is_empty() {
            self.rare.get_or_insert_default().deleted.push((commit, range));
        }
        !range.is_empty()
    }

    /// What is stored for the time of `sample`.
    pub(crate) fn stored(&self, sample: &Sample, arena: &Arena) -> Result<Stored, Corruption> {
        let only = TimeRange::closed(sample.at, sample.at);
        if let Some(all) = self.late()
            && let Some(late) = all.inside(only).find(|late| !self.is_deleted(late, u64::MAX))
        {
            let same = same_value(&all.sample(late).value, &sample.value);
            return Ok(if same { Stored::Same } else { Stored::Other });
        }
        let mut columns = Columns::default();
        self.snapshot(self.total, u64::MAX, only, arena).read(only, &mut columns)?;
        if columns.is_empty() {
            return Ok(Stored::Nothing);
        }
        let value = match columns.histograms.first() {
            Some((_, histogram)) => Value::Histogram(Arc::clone(histogram)),
            None => Value::from_wire(columns.values.first().copied().unwrap_or_default()),
        };
        Ok(if same_value(&value, &sample.value) { Stored::Same } else { Stored::Other })
    }

    /// What a reader may see inside `range`: the first `visible` in-order samples and late ones
    /// of commits up to `commit`.
    pub(crate) fn snapshot(
        &self,
        visible: u32,
        commit: u64,
        range: TimeRange,
        arena: &Arena,
    ) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.snapshot_into(visible, commit, range, arena, &mut snapshot);
        snapshot
    }

    /// The same, in the memory of one that is not needed any more.
    pub(crate) fn snapshot_into(
        &self,
        visible: u32,
        commit: u64,
        range: TimeRange,
        arena: &Arena,
        snapshot: &mut Snapshot,
    ) {
        snapshot.clear();
        let held: u32 = self.sealed.iter().map(|chunk| u32::from(chunk.count)).sum::<u32>()
            + u32::from(self.open.count());
        // Samples that were dropped from the front count as seen.
        let mut left = visible.wrapping_sub(self.total.wrapping_sub(held));
        if left > held {
            left = 0;
        }
        for chunk in &self.sealed {
            let count = left.min(u32::from(chunk.count));
            left -= count;
            if count > 0 && chunk.first < range.end && chunk.last >= range.start {
                let is_whole = count == u32::from(chunk.count)
                    && chunk.first >= range.start
                    && chunk.last < range.end;
                let part = if is_whole { None } else { Some(count as usize) };
                snapshot.sealed.push((arena.get(chunk.place), part));
            }
        }
        let open = left.min(u32::from(self.open.count())) as u16;
        if open > 0 && self.open.first() < range.end && self.open.last() >= range.start {
            snapshot.open.copy_from(&self.open);
            snapshot.open_count = open;
        }
        if let Some(all) = self.late() {
            let mut follows_deleted = false;
            for late in all.inside(range).filter(|late| late.commit <= commit) {
                if self.is_deleted(late, commit) {
                    follows_deleted = true;
                    continue;
                }
                let mut sample = all.sample(late);
                if std::mem::take(&mut follows_deleted) {
                    forget_reset(&mut sample);
                }
                snapshot.late.push(sample);
            }
        }
        let deleted = self.deleted().iter();
        let deleted = deleted.filter(|(by, deleted)| *by <= commit && deleted.overlaps(range));
        snapshot.deleted = joined(deleted.map(|(_, range)| *range).collect());
    }

    /// Whether a reader of `commit` must not see `late` because it was there when it was deleted.
    /// One that came after the deletion is new data.
    pub(super) fn is_deleted(&self, late: &Late, commit: u64) -> bool {
        let mut deleted = self.deleted().iter();
        deleted.any(|(by, range)| (late.commit..=commit).contains(by) && range.contains(late.at))
    }

    /// Drops in-order samples before `before`, and late ones that commits up to `commit` brought.
    pub(crate) fn truncate(&mut self, before: Timestamp, commit: u64, arena: &mut Arena) {
        if self.sealed.first().is_some_and(|chunk| chunk.last < before) {
            let mut sealed = std::mem::take(&mut self.sealed).into_vec();
            sealed.retain(|chunk| {
                let kept = chunk.last >= before;
                if !kept {
                    arena.free(chunk.place);
                }
                kept
            });
            self.sealed = sealed.into_boxed_slice();
        }
        if self.open.count() > 0 && self.open.last() < before {
            self.open = OpenChunk::default();
        }
        let Some(rare) = &mut self.rare else { return };
        rare.late.retain(|late| late.at >= before || late.commit > commit);
        rare.deleted.retain(|(by, range)| range.end > before || *by > commit);
        if rare.late.is_empty() && rare.deleted.is_empty() {
            self.rare = None;
        } else {
            rare.deleted.shrink_to_fit();
        }
    }
}

/// Forgets what is known about resets of a sample whose predecessor is gone.
fn forget_reset(sample: &mut Sample) {
    if let Value::Histogram(histogram) = &mut sample.value
        && histogram.reset_hint() == ResetHint::Reset
    {
        Arc::make_mut(histogram).set_reset_hint(ResetHint::Unknown);
    }
}

/// The same ranges in order, without overlaps.
fn joined(mut ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let overlap = next.start <= before.end;
        if overlap {
            before.end = before.end.max(next.end);
        }
        overlap
    });
    ranges
}

/// Whether two values are the same, bit for bit.
pub(super) fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Histogram(a), Value::Histogram(b)) => a.same_data(b),
        (a, b) => a == b,
    }
}

/// Samples of a series that do not change any more, not decoded yet.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Chunks, and how many of the samples count at most; nothing where all of them are wanted.
    sealed: Vec<(Bytes, Option<usize>)>,
    open: OpenChunk,
    /// How many samples of the open chunk count.
    open_count: u16,
    late: Vec<Sample>,
    /// Hidden of the in-order samples; late ones were chosen already.
    deleted: Vec<TimeRange>,
    /// Checksums are compared whatever is known of them.
    pub(super) checks_again: bool,
}

/// Memory for reading one series after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) snapshot: Snapshot,
    pub(super) known: Known,
}

impl Scratch {
    /// As [`Snapshot::read`].
    pub(super) fn read(
        &mut self,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        self.snapshot.read_known(range, &mut self.known, columns)
    }
}

impl Snapshot {
    fn clear(&mut self) {
        self.sealed.clear();
        self.open_count = 0;
        self.late.clear();
        self.deleted.clear();
    }

    /// Appends the samples inside `range` to `columns`, which may hold earlier ones.
    pub(crate) fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), Corruption> {
        self.read_known(range, &mut Known::default(), columns)
    }

    fn read_known(
        &self,
        range: TimeRange,
        known: &mut Known,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        let start = columns.len();
        if self.late.is_empty() {
            self.read_in_order(range, known, columns)?;
            remove_ranges(&self.deleted, start, columns);
            return Ok(());
        }
        let mut in_order = Columns::default();
        self.read_in_order(range, known, &mut in_order)?;
        remove_ranges(&self.deleted, 0, &mut in_order);
        let mut late = Columns::default();
        for sample in self.late.iter().filter(|sample| range.contains(sample.at)) {
            push_sample(&mut late, sample);
        }
        crate::query::columns::merge(&in_order, &late, columns);
        Ok(())
    }

    fn read_in_order(
        &self,
        range: TimeRange,
        known: &mut Known,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        for (place, (chunk, part)) in self.sealed.iter().enumerate() {
            let start = columns.len();
            chunk.decode(self.checks_again, known, place, columns)?;
            if let Some(count) = part {
                crate::query::columns::clip(columns, start, *count, range);
            }
        }
        if self.open_count > 0 {
            let start = columns.len();
            self.open.decode(self.open_count, known, self.sealed.len(), columns);
            crate::query::columns::clip(columns, start, usize::from(self.open_count), range);
        }
        Ok(())
    }
}

/// Adds a sample to columns.
pub(super) fn push_sample(columns: &mut Columns, sample: &Sample) {
    match &sample.value {
        Value::Float(value) => columns.push_float(sample.at, *value),
        Value::Stale => columns.push_float(sample.at, stint_model::stale_nan()),
        Value::Histogram(histogram) => columns.push_histogram(sample.at, Arc::clone(histogram)),
    }
    if let Some(started) = sample.started {
        columns.set_last_start(started);
    }
}

/// The rows of columns as samples.
pub(super) fn samples_of(columns: &Columns) -> impl Iterator<Item = Sample> {
    let mut histograms = columns.histograms.iter().peekable();
    columns.times.iter().zip(&columns.values).enumerate().map(move |(row, (at, value))| {
        let started = columns.starts.get(row).copied().filter(|at| *at != Timestamp::MIN);
        let value = match histograms.next_if(|(at, _)| *at == row) {
            Some((_, histogram)) => Value::Histogram(Arc::clone(histogram)),
            None => Value::from_wire(*value),
        };
        Sample { at: *at, started, value }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::arena::is_whole_chunk;
    use crate::head::state::{Effort, From, State};

    const RULES: ChunkRules = ChunkRules { samples: 120, range: 1 << 40 };

    fn values_of(series: &MemSeries, arena: &Arena) -> Columns {
        let mut columns = Columns::default();
        let all = series.snapshot(series.total, u64::MAX, TimeRange::ALL, arena);
        all.read(TimeRange::ALL, &mut columns).unwrap();
        columns
    }

    #[test]
    fn series_that_are_scraped_together_keep_their_times_once() {
        let mut sealing = Sealing::new(Arena::new(1 << 20));
        let mut series: Vec<MemSeries> = (0..20).map(MemSeries::new).collect();
        let at = |row: i64| Timestamp(row * 15_000 + row * 7919 % 7);
        for row in 0..121 {
            for (number, series) in series.iter_mut().enumerate() {
                let sample = Sample::float(at(row), number as f64);
                series.push(&sample, RULES, &mut sealing);
            }
        }
        let first = sealing.arena.get(series[0].sealed[0].place).get().len();
        assert!((24..60).contains(&first), "{first} bytes, times included");
        for (number, series) in series.iter().enumerate() {
            let chunk = sealing.arena.get(series.sealed[0].place);
            assert!(number == 0 || chunk.get().len() < 16, "{} bytes", chunk.get().len());
            assert!(chunk.is_whole());
            let columns = values_of(series, &sealing.arena);
            assert_eq!(columns.times, (0..121).map(at).collect::<Vec<_>>());
            assert_eq!(columns.values, [number as f64; 121]);
            // A state that has no file to refer to has the times itself.
            let mut bytes = Vec::new();
            series.put_state(&sealing.arena, Effort::Time, &mut bytes);
            let mut arena = Arena::new(1 << 20);
            let mut restored = MemSeries::new(1);
            restored.restore(State::of(&bytes, &mut Columns::default()).unwrap(), 1, |from| {
                match from {
                    From::Here(chunk) if is_whole_chunk(chunk) => Some(arena.put(chunk)),
                    _ => None,
                }
            });
            assert_eq!(values_of(&restored, &arena), columns);
        }
        let place = series[3].sealed[0].place;
        let chunk = sealing.arena.get(place).get().to_vec();
        assert!(!is_whole_chunk(&chunk), "by itself it is none");
    }
}
