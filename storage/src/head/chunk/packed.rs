//! Open chunks in the encoding of sealed ones, as the checkpoint of a clean stop has them: it takes
//! half the bytes of the tokens. One that was read stays so until the series goes on.

use stint_model::{Columns, Sample, Value};

use super::OpenChunk;
use crate::codec::chunk::{Mark, Rows, put_rows, take_rows};
use crate::codec::varint::Reader;
use crate::codec::{Corruption, times};

/// In place of a count of repetitions: what follows is no tokens.
pub(super) const PACKED: u8 = u8::MAX;

/// Fewer samples are not worth it.
const SAMPLES_MIN: u16 = 8;

/// Bytes that it saves at least: a start reads all of what is packed.
const SAVES_MIN: u32 = 24;

impl OpenChunk {
    pub(super) fn is_packed(&self) -> bool {
        self.run == PACKED
    }

    /// The chunk in other words, where these are fewer.
    pub(in crate::head) fn packed(&self) -> Option<Self> {
        if self.is_packed() || self.extras.is_some() || self.count < SAMPLES_MIN {
            return None;
        }
        let mut columns = Columns::default();
        self.decode(self.count, &mut times::Known::default(), 0, &mut columns);
        let mut bytes = Vec::with_capacity(self.used as usize);
        times::put(&columns.times, &mut bytes);
        put_rows(&Rows::of(&columns), &mut bytes);
        let used = bytes.len() as u32;
        let packed = Self { room: bytes.into(), extras: None, used, run: PACKED, ..*self };
        (used + SAVES_MIN <= self.used).then_some(packed)
    }

    /// Appends all samples of a packed chunk.
    pub(super) fn unpack(
        &self,
        known: &mut times::Known,
        place: usize,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        let mut reader = Reader::new(self.bytes());
        let count = usize::from(self.count);
        let before = Mark::of(columns);
        known.take(place, &mut reader, count, &mut columns.times)?;
        take_rows(&mut reader, count, columns)?;
        let is_whole = reader.is_empty()
            && columns.values.len() == before.rows() + count
            && columns.histograms.len() == before.histograms();
        if is_whole { Ok(()) } else { Err(reader.corrupt("a packed chunk of other samples")) }
    }

    /// Whether a packed chunk holds what the rest of it says.
    pub(super) fn check_packed(
        &self,
        reader: &Reader<'_>,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        columns.clear();
        self.unpack(&mut times::Known::default(), 0, columns)?;
        let ends = (columns.times.first().copied(), columns.times.last().copied());
        let last = columns.values.last().map(|value| value.to_bits());
        let fits = ends == (Some(self.first()), Some(self.last()))
            && last == Some(self.bits)
            && columns.starts.is_empty()
            && columns.times.windows(2).all(|pair| pair.first() < pair.get(1));
        if fits { Ok(()) } else { Err(reader.corrupt("a packed chunk of other samples")) }
    }

    /// Goes back to tokens, which can be added to.
    pub(super) fn go_on(&mut self) {
        let mut columns = Columns::default();
        // It was checked when it was read.
        if self.unpack(&mut times::Known::default(), 0, &mut columns).is_err() {
            columns.clear();
        }
        *self = Self::default();
        for (at, value) in columns.times.iter().zip(&columns.values) {
            self.push(&Sample { at: *at, started: None, value: Value::from_wire(*value) });
        }
    }

    /// Appends the first `count` samples of a packed chunk.
    pub(super) fn decode_packed(
        &self,
        count: u16,
        known: &mut times::Known,
        place: usize,
        columns: &mut Columns,
    ) {
        let before = Mark::of(columns);
        // It was checked when it was read.
        if self.unpack(known, place, columns).is_err() {
            before.restore(columns);
            return;
        }
        let rows = before.rows() + usize::from(count.min(self.count));
        columns.times.truncate(rows);
        columns.values.truncate(rows);
        columns.starts.truncate(rows);
    }
}
