//! A series as a checkpoint has it, and back: what the log said of it so far, in one piece.
//!
//! Sealed chunks that are in a file of the head are told by their place there; others come along,
//! and so do late samples, as chunks of their own.

use stint_model::{Columns, TimeRange, Timestamp};

use super::arena::{Arena, Bytes, Place};
use super::chunk::OpenChunk;
use super::late::LateSamples;
use super::series::{MemSeries, Rare, Sealed, push_sample, samples_of};
use crate::codec::chunk as sealed_chunk;
use crate::codec::varint::{self, Reader};
use crate::codec::{Corruption, times};

const OPEN: u8 = 1;
const SEALED: u8 = 2;
const LATE: u8 = 4;
const DELETED: u8 = 8;

/// Late samples of one chunk.
const LATE_ROWS: usize = sealed_chunk::ROWS_MAX / 2;

/// What a checkpoint saves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Time: more is logged soon, and another one written.
    Time,
    /// Bytes: it stays.
    Bytes,
}

/// Where the bytes of a sealed chunk are.
#[derive(Debug)]
pub(super) enum From<'a> {
    File(Place),
    Here(&'a [u8]),
}

/// A sealed chunk of a state.
#[derive(Debug)]
pub(super) struct SealedState<'a> {
    from: From<'a>,
    first: Timestamp,
    last: Timestamp,
    count: u16,
}

/// What a state says.
#[derive(Debug, Default)]
pub(super) struct State<'a> {
    open: OpenChunk,
    sealed: Vec<SealedState<'a>>,
    late: Columns,
    deleted: Vec<TimeRange>,
}

impl MemSeries {
    /// Appends the state of the series to `out`: in few bytes, or in little time.
    pub(super) fn put_state(&self, arena: &Arena, effort: Effort, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let deleted = self.deleted();
        out.push(
            flag(self.open.count() > 0, OPEN)
                | flag(!self.sealed.is_empty(), SEALED)
                | flag(self.has_late(), LATE)
                | flag(!deleted.is_empty(), DELETED),
        );
        if self.open.count() > 0 {
            let packed = if effort == Effort::Bytes { self.open.packed() } else { None };
            packed.as_ref().unwrap_or(&self.open).put(out);
        }
        if !self.sealed.is_empty() {
            self.put_sealed(arena, out);
        }
        if let Some(late) = self.late().filter(|late| !late.is_empty()) {
            self.put_late(late, out);
        }
        if !deleted.is_empty() {
            varint::put(out, deleted.len() as u64);
            for (_, range) in deleted {
                varint::put_signed(out, range.start.0);
                varint::put_signed(out, range.end.0);
            }
        }
    }

    fn put_sealed(&self, arena: &Arena, out: &mut Vec<u8>) {
        varint::put(out, self.sealed.len() as u64);
        let mut before = 0;
        for chunk in &self.sealed {
            varint::put_signed(out, chunk.first.0.wrapping_sub(before));
            varint::put_signed(out, chunk.last.0.wrapping_sub(chunk.first.0));
            before = chunk.last.0;
            varint::put(out, u64::from(chunk.count));
            if arena.is_on_disk(chunk.place) {
                varint::put(out, u64::from(chunk.place.piece) + 1);
                varint::put(out, u64::from(chunk.place.start));
                varint::put(out, u64::from(chunk.place.length));
            } else {
                let bytes = arena.get(chunk.place).alone();
                varint::put(out, 0);
                varint::put(out, bytes.len() as u64);
                out.extend_from_slice(&bytes);
            }
        }
    }

    /// Late samples that were not deleted since; a time is there once.
    fn put_late(&self, late: &LateSamples, out: &mut Vec<u8>) {
        let mut columns = Columns::default();
        for one in late.iter().filter(|one| !self.is_deleted(one, u64::MAX)) {
            push_sample(&mut columns, &late.sample(one));
        }
        let rows = sealed_chunk::Rows::of(&columns);
        varint::put(out, columns.len().div_ceil(LATE_ROWS) as u64);
        for start in (0..columns.len()).step_by(LATE_ROWS) {
            let end = columns.len().min(start + LATE_ROWS);
            let bytes = sealed_chunk::encode(&rows.slice(start..end));
            varint::put(out, bytes.len() as u64);
            out.extend_from_slice(&bytes);
        }
    }

    /// Becomes what `state` says; `commit` is the commit that brings it. `claim` keeps the bytes of
    /// a sealed chunk, where it can.
    pub(super) fn restore(
        &mut self,
        state: State<'_>,
        commit: u64,
        mut claim: impl FnMut(From<'_>) -> Option<Place>,
    ) {
        self.open = state.open;
        let sealed = state.sealed.into_iter().filter_map(|chunk| {
            let SealedState { from, first, last, count } = chunk;
            claim(from).map(|place| Sealed { place, first, last, count })
        });
        self.sealed = sealed.collect();
        let held = self.sealed.iter().map(|chunk| u32::from(chunk.count)).sum::<u32>();
        self.total = held + u32::from(self.open.count());
        if state.late.is_empty() && state.deleted.is_empty() {
            return;
        }
        let deleted = state.deleted.into_iter().map(|range| (commit, range)).collect();
        let rare = self.rare.insert(Box::new(Rare { deleted, ..Rare::default() }));
        // Behind the deletions, which do not hide what is here.
        for sample in samples_of(&state.late) {
            rare.late.push(&sample, commit + 1);
        }
    }
}

impl<'a> State<'a> {
    /// Reads what [`MemSeries::put_state`] wrote; `scratch` is memory to work in.
    pub(super) fn of(bytes: &'a [u8], scratch: &mut Columns) -> Result<Self, Corruption> {
        let mut reader = Reader::new(bytes);
        let mut state = Self::default();
        let flags = reader.byte()?;
        if flags & OPEN != 0 {
            state.open = OpenChunk::take(&mut reader, scratch)?;
        }
        if flags & SEALED != 0 {
            state.take_sealed(&mut reader)?;
        }
        if flags & LATE != 0 {
            let chunks = reader.varint_up_to(reader.rest().len())?;
            for _ in 0..chunks {
                let length = reader.varint_up_to(reader.rest().len())?;
                sealed_chunk::decode(reader.take(length)?, &mut state.late)?;
            }
        }
        if flags & DELETED != 0 {
            let count = reader.varint_up_to(reader.rest().len())?;
            for _ in 0..count {
                let start = Timestamp(reader.signed()?);
                state.deleted.push(TimeRange::new(start, Timestamp(reader.signed()?)));
            }
        }
        let known = flags & !(OPEN | SEALED | LATE | DELETED) == 0;
        if !known || !reader.is_empty() {
            return Err(reader.corrupt("more than the state of a series"));
        }
        if state.is_in_order() { Ok(state) } else { Err(reader.corrupt("chunks out of order")) }
    }

    /// Whether each chunk is later than the one before, as far as it can be told without reading them.
    fn is_in_order(&self) -> bool {
        let sealed = self.sealed.iter().map(|chunk| (chunk.first, chunk.last));
        let open = (self.open.count() > 0).then(|| (self.open.first(), self.open.last()));
        let mut before = None;
        sealed.chain(open).all(|(first, last)| {
            first <= last && before.replace(last).is_none_or(|before| before < first)
        })
    }

    fn take_sealed(&mut self, reader: &mut Reader<'a>) -> Result<(), Corruption> {
        let count = reader.varint_up_to(reader.rest().len())?;
        let mut before = 0_i64;
        for _ in 0..count {
            let first = before.wrapping_add(reader.signed()?);
            let last = first.wrapping_add(reader.signed()?);
            before = last;
            let rows = reader.varint_up_to(usize::from(u16::MAX))?;
            let from = match reader.varint_up_to(u32::MAX as usize)? {
                0 => {
                    let length = reader.varint_up_to(reader.rest().len())?;
                    From::Here(reader.take(length)?)
                }
                piece => From::File(Place {
                    piece: piece as u32 - 1,
                    start: reader.varint_up_to(u32::MAX as usize)? as u32,
                    length: reader.varint_up_to(u32::MAX as usize)? as u32,
                }),
            };
            self.sealed.push(SealedState {
                from,
                first: Timestamp(first),
                last: Timestamp(last),
                count: rows as u16,
            });
        }
        Ok(())
    }

    /// Where the files have its sealed chunks.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.sealed.iter().filter_map(|chunk| match chunk.from {
            From::File(place) => Some(place),
            From::Here(_) => None,
        })
    }
}

/// Verifies a state and every chunk of it; how many samples it stands for. `bytes_of` has the bytes
/// of chunks that lie in files.
///
/// # Errors
/// What does not hold.
pub(crate) fn verify(
    state: &[u8],
    mut bytes_of: impl FnMut(Place) -> Result<Bytes, String>,
) -> Result<u64, String> {
    let mut columns = Columns::default();
    let State { open, sealed, late, deleted } =
        State::of(state, &mut columns).map_err(|corruption| corruption.to_string())?;
    let mut samples = late.len() as u64;
    let mut before = None;
    let mut follow = |columns: &Columns, said: (Timestamp, Timestamp, u16), what: &str| {
        let (first, last, count) = said;
        if columns.len() != usize::from(count) {
            return Err(format!("{what} of {} samples, not {count}", columns.len()));
        }
        let ends = columns.times.first().zip(columns.times.last());
        if !rises(columns) || ends != Some((&first, &last)) {
            return Err(format!("{what} whose samples are not those between {first} and {last}"));
        }
        if before.replace(last).is_some_and(|before| before >= first) {
            return Err(format!("{what} that is not later than the one before"));
        }
        samples += u64::from(count);
        Ok(())
    };
    for chunk in sealed {
        columns.clear();
        let decoded = match chunk.from {
            From::File(place) => {
                bytes_of(place)?.decode(true, &mut times::Known::default(), 0, &mut columns)
            }
            From::Here(bytes) => sealed_chunk::decode(bytes, &mut columns),
        };
        decoded.map_err(|corruption| corruption.to_string())?;
        follow(&columns, (chunk.first, chunk.last, chunk.count), "a sealed chunk")?;
    }
    if open.count() > 0 {
        columns.clear();
        open.decode(open.count(), &mut times::Known::default(), 0, &mut columns);
        follow(&columns, (open.first(), open.last(), open.count()), "an open chunk")?;
    }
    if !rises(&late) {
        return Err("late samples out of order".to_owned());
    }
    if deleted.iter().any(|range| range.is_empty()) {
        return Err("a deletion of nothing".to_owned());
    }
    Ok(samples)
}

fn rises(columns: &Columns) -> bool {
    columns.times.windows(2).all(|pair| pair.first() < pair.get(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::arena;
    use crate::head::series::{ChunkRules, Sealing};
    use proptest::prelude::*;
    use stint_model::Sample;

    fn state(samples: i64) -> Vec<u8> {
        let mut sealing = Sealing::new(Arena::new(1 << 20));
        let mut series = MemSeries::new(1);
        let rules = ChunkRules { samples: 10, range: 1 << 40 };
        for at in 0..samples {
            series.push(&Sample::float(Timestamp(at * 10), at as f64), rules, &mut sealing);
        }
        series.push_late(&Sample::float(Timestamp(5), 0.5), 1);
        series.delete(TimeRange::new(Timestamp(20), Timestamp(30)), 2);
        let mut bytes = Vec::new();
        series.put_state(&sealing.arena, Effort::Bytes, &mut bytes);
        bytes
    }

    #[test]
    fn chunks_that_do_not_follow_each_other_are_refused() {
        let (early, late) = (state(25), state(45));
        assert!(State::of(&early, &mut Columns::default()).is_ok());
        // The open chunk of the one and the sealed chunks of the other.
        let mut sealed = Reader::new(&late);
        sealed.byte().unwrap();
        OpenChunk::take(&mut sealed, &mut Columns::default()).unwrap();
        let mut open = Reader::new(&early);
        open.byte().unwrap();
        OpenChunk::take(&mut open, &mut Columns::default()).unwrap();
        let mixed = [&early[..open.position()], sealed.rest()].concat();
        assert!(State::of(&mixed, &mut Columns::default()).is_err());
    }

    proptest! {
        #[test]
        fn damaged_states_do_no_harm(at in 0..400_usize, byte: u8, cut in 0..400_usize) {
            let mut bytes = state(25);
            prop_assert!(State::of(&bytes, &mut Columns::default()).is_ok());
            let short = &bytes[..cut.min(bytes.len() - 1)];
            prop_assert!(State::of(short, &mut Columns::default()).is_err());
            let length = bytes.len();
            bytes[at % length] = byte;
            if let Ok(state) = State::of(&bytes, &mut Columns::default()) {
                let mut series = MemSeries::new(1);
                let mut arena = Arena::new(1 << 20);
                series.restore(state, 1, |from| match from {
                    From::Here(chunk) if arena::is_whole_chunk(chunk) => Some(arena.put(chunk)),
                    _ => None,
                });
                let mut columns = Columns::default();
                let all = series.snapshot(series.total, u64::MAX, TimeRange::ALL, &arena);
                let _ = all.read(TimeRange::ALL, &mut columns);
            }
        }
    }
}
