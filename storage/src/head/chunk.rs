//! The open chunk of a series: a byte code that costs nothing for what repeats.
//!
//! Each token is one byte. With the top bit set it is a run: the lower seven bits count samples
//! that continue the last interval and repeat the last value. Else bit 0 says that a change of
//! the interval follows (zigzag), and bits 1–3 how the value differs from the one before: not at
//! all, by an integer (zigzag), by a number of thousandths (zigzag), in some bytes, by being the
//! stale marker, or by being a histogram (which lies beside). A run in progress is only a counter.

mod packed;

use std::sync::Arc;

use stint_model::{Columns, Histogram, STALE_NAN_BITS, Sample, Timestamp, Value};

use crate::codec::varint::{self, Reader};
use crate::codec::{Corruption, histogram, times};

const RUN: u8 = 0x80;
const RUN_MAX: u8 = 0x7f;
const INTERVAL: u8 = 1;
const SAME: u8 = 0;
const INTEGER: u8 = 1;
const BYTES: u8 = 2;
const STALE: u8 = 3;
const HISTOGRAM: u8 = 4;
const THOUSANDTHS: u8 = 5;

/// What few samples have: histograms and start times, by number of the sample in the chunk.
#[derive(Clone, Debug, Default)]
pub(super) struct Extras {
    histograms: Vec<(u16, Arc<Histogram>)>,
    starts: Vec<(u16, Timestamp)>,
}

/// A chunk that still grows. There is one for each series: every byte counts.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenChunk {
    /// The tokens, and room for more.
    room: Box<[u8]>,
    extras: Option<Box<Extras>>,
    first: i64,
    last: i64,
    bits: u64,
    /// Bytes of `room` that are in use.
    used: u32,
    /// The last interval, as far as it fits: the next one is told by its difference from this.
    interval: i32,
    count: u16,
    run: u8,
    last_is_histogram: bool,
}

/// What room grows to: with its own bookkeeping, an allocation of common allocators is a multiple of
/// 16 bytes, and no smaller than 32. Smaller steps would save few bytes, and growing is the dearest part
/// of adding a sample.
const fn more_room(bytes: usize) -> usize {
    match bytes {
        0 => 24,
        1..120 => bytes + 32,
        _ => (bytes + bytes / 4) / 16 * 16 + 8,
    }
}

/// One token under construction.
#[derive(Default)]
struct Token {
    bytes: [u8; Token::LONGEST],
    length: usize,
}

impl Token {
    /// Tag, interval, and the longer of an integer and a shape with eight bytes.
    const LONGEST: usize = 1 + 10 + 10;

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn int(&mut self, value: i64) {
        let mut value = ((value << 1) ^ (value >> 63)) as u64;
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
}

impl OpenChunk {
    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Time of the first sample; meaningless while empty.
    pub(crate) fn first(&self) -> Timestamp {
        Timestamp(self.first)
    }

    /// Time of the last sample; meaningless while empty.
    pub(crate) fn last(&self) -> Timestamp {
        Timestamp(self.last)
    }

    /// The last value.
    pub(crate) fn last_value(&self) -> Option<Value> {
        if self.count == 0 {
            return None;
        }
        if self.last_is_histogram {
            let histograms = &self.extras.as_ref()?.histograms;
            return histograms.last().map(|(_, histogram)| Value::Histogram(Arc::clone(histogram)));
        }
        Some(Value::from_wire(f64::from_bits(self.bits)))
    }

    /// Something of what the next sample changes, from each place in memory.
    pub(crate) fn touch(&self) -> u64 {
        self.bits ^ self.room.get(self.used as usize).map_or(0, |byte| u64::from(*byte))
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.room.len() + self.extras.as_ref().map_or(0, |_| size_of::<Extras>())
    }

    /// Empties the chunk, keeping its memory.
    pub(crate) fn clear(&mut self) {
        let room = std::mem::take(&mut self.room);
        *self = Self { room, ..Self::default() };
    }

    /// Becomes a copy of `other` in the same memory, if that is enough.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        let mut room = std::mem::take(&mut self.room);
        match room.get_mut(..other.used as usize) {
            Some(place) => place.copy_from_slice(other.bytes()),
            None => room = other.bytes().into(),
        }
        *self = Self { room, extras: other.extras.clone(), ..*other };
    }

    fn bytes(&self) -> &[u8] {
        self.room.get(..self.used as usize).unwrap_or_default()
    }

    fn append(&mut self, bytes: &[u8]) {
        let start = self.used as usize;
        let end = start + bytes.len();
        if end > self.room.len() {
            let mut room = std::mem::take(&mut self.room).into_vec();
            let length = more_room(room.len()).max(end);
            room.reserve_exact(length - room.len());
            room.resize(length, 0);
            self.room = room.into_boxed_slice();
        }
        if let Some(place) = self.room.get_mut(start..end) {
            place.copy_from_slice(bytes);
            self.used = end as u32;
        }
    }

    /// Adds a sample that is later than the last one.
    pub(crate) fn push(&mut self, sample: &Sample) {
        if self.is_packed() {
            self.go_on();
        }
        let at = sample.at.0;
        if self.count == 0 {
            self.first = at;
            self.last = at;
            self.interval = 0;
            self.bits = 0;
        }
        let interval = at.wrapping_sub(self.last);
        let change = interval.wrapping_sub(i64::from(self.interval));
        let bits = match &sample.value {
            Value::Float(value) => value.to_bits(),
            Value::Stale => STALE_NAN_BITS,
            Value::Histogram(_) => self.bits,
        };
        self.last_is_histogram = matches!(sample.value, Value::Histogram(_));
        if change == 0 && bits == self.bits && !self.last_is_histogram {
            self.run += 1;
            if self.run == RUN_MAX {
                self.end_run();
            }
        } else {
            self.end_run();
            self.push_token(change, bits);
        }
        self.interval = interval as i32;
        self.last = at;
        self.bits = bits;
        self.push_extras(sample);
        self.count += 1;
    }

    fn push_token(&mut self, change: i64, bits: u64) {
        let mut token = Token::default();
        token.push(0);
        let mut tag = 0;
        if change != 0 {
            tag = INTERVAL;
            token.int(change);
        }
        let form = if self.last_is_histogram {
            HISTOGRAM
        } else if bits == self.bits {
            SAME
        } else if bits == STALE_NAN_BITS {
            STALE
        } else if let Some((old, new)) = integer(self.bits).zip(integer(bits)) {
            token.int(new - old);
            INTEGER
        } else if let Some((old, new)) = thousandths(self.bits).zip(thousandths(bits)) {
            token.int(new - old);
            THOUSANDTHS
        } else {
            let different = (bits ^ self.bits).swap_bytes();
            // In big-endian order zero bytes lead (same exponent) and trail (short mantissa).
            let skipped = (different.trailing_zeros() / 8) as u8;
            let length = 8 - skipped - (different.leading_zeros() / 8) as u8;
            token.push(skipped << 4 | length);
            let bytes = different.to_le_bytes();
            let range = usize::from(skipped)..usize::from(skipped + length);
            bytes.get(range).unwrap_or_default().iter().for_each(|byte| token.push(*byte));
            BYTES
        };
        let [first, ..] = &mut token.bytes;
        *first = tag | form << 1;
        self.append(token.bytes.get(..token.length).unwrap_or_default());
    }

    fn push_extras(&mut self, sample: &Sample) {
        if let Value::Histogram(histogram) = &sample.value {
            let extras = self.extras.get_or_insert_default();
            extras.histograms.push((self.count, Arc::clone(histogram)));
        }
        if let Some(started) = sample.started {
            self.extras.get_or_insert_default().starts.push((self.count, started));
        }
    }

    fn end_run(&mut self) {
        if self.run > 0 {
            self.append(&[RUN | self.run]);
            self.run = 0;
        }
    }

    /// Appends the first `count` samples to `columns`. Of the chunks of its series, this is number
    /// `place`.
    pub(crate) fn decode(
        &self,
        count: u16,
        known: &mut times::Known,
        place: usize,
        columns: &mut Columns,
    ) {
        if self.is_packed() {
            return self.decode_packed(count, known, place, columns);
        }
        let count = count.min(self.count);
        let start = columns.len();
        let length = start + usize::from(count);
        columns.times.resize(length, Timestamp::MIN);
        columns.values.resize(length, 0.0);
        if !columns.starts.is_empty() {
            columns.starts.resize(length, Timestamp::MIN);
        }
        let times = columns.times.get_mut(start..).unwrap_or_default();
        let values = columns.values.get_mut(start..).unwrap_or_default();
        Tokens::new(self).fill(times, values);
        let Some(extras) = &self.extras else { return };
        for (number, histogram) in extras.histograms.iter().take_while(|(at, _)| *at < count) {
            let row = start + usize::from(*number);
            columns.histograms.push((row, Arc::clone(histogram)));
            if let Some(value) = columns.values.get_mut(row) {
                *value = 0.0;
            }
        }
        for (number, started) in extras.starts.iter().take_while(|(at, _)| *at < count) {
            columns.starts.resize(length, Timestamp::MIN);
            if let Some(place) = columns.starts.get_mut(start + usize::from(*number)) {
                *place = *started;
            }
        }
    }
}

const IS_HISTOGRAM: u8 = 1;
const HAS_EXTRAS: u8 = 2;
const IS_PACKED: u8 = 4;

/// A chunk as bytes, for a checkpoint.
impl OpenChunk {
    /// Appends the chunk to `out`.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(
            flag(self.last_is_histogram, IS_HISTOGRAM)
                | flag(self.extras.is_some(), HAS_EXTRAS)
                | flag(self.is_packed(), IS_PACKED),
        );
        varint::put_signed(out, self.first);
        varint::put_signed(out, self.last.wrapping_sub(self.first));
        varint::put_signed(out, i64::from(self.interval));
        varint::put(out, u64::from(self.count));
        out.push(if self.is_packed() { 0 } else { self.run });
        out.extend_from_slice(&self.bits.to_le_bytes());
        varint::put(out, u64::from(self.used));
        out.extend_from_slice(self.bytes());
        let Some(extras) = &self.extras else { return };
        varint::put(out, extras.histograms.len() as u64);
        for (number, _) in &extras.histograms {
            varint::put(out, u64::from(*number));
        }
        histogram::put(extras.histograms.iter().map(|(_, histogram)| &**histogram), out);
        varint::put(out, extras.starts.len() as u64);
        for (number, started) in &extras.starts {
            varint::put(out, u64::from(*number));
            varint::put_signed(out, started.0);
        }
    }

    /// Reads what [`OpenChunk::put`] wrote; `scratch` is memory to work in.
    pub(crate) fn take(reader: &mut Reader<'_>, scratch: &mut Columns) -> Result<Self, Corruption> {
        let flags = reader.byte()?;
        let first = reader.signed()?;
        let last = first.wrapping_add(reader.signed()?);
        let interval = i32::try_from(reader.signed()?);
        let interval = interval.map_err(|_| reader.corrupt("an interval beyond its limit"))?;
        let count = reader.varint_up_to(usize::from(u16::MAX))? as u16;
        let run = reader.byte()?;
        let is_packed = flags & IS_PACKED != 0;
        if flags & !(IS_HISTOGRAM | HAS_EXTRAS | IS_PACKED) != 0
            || run >= RUN_MAX
            || (is_packed && (flags != IS_PACKED || run != 0))
        {
            return Err(reader.corrupt("an unknown kind of open chunk"));
        }
        let bits = reader.u64()?;
        let used = reader.varint_up_to(u32::MAX as usize)?;
        let mut chunk = Self {
            room: reader.take(used)?.into(),
            extras: None,
            first,
            last,
            bits,
            used: used as u32,
            interval,
            count,
            run: if is_packed { packed::PACKED } else { run },
            last_is_histogram: flags & IS_HISTOGRAM != 0,
        };
        if is_packed {
            chunk.check_packed(reader, scratch)?;
        }
        if flags & HAS_EXTRAS != 0 {
            chunk.extras = Some(Box::new(Extras::take(reader, count)?));
        }
        Ok(chunk)
    }
}

impl Extras {
    fn take(reader: &mut Reader<'_>, count: u16) -> Result<Self, Corruption> {
        let mut extras = Self::default();
        let mut numbers = Vec::new();
        for _ in 0..reader.varint_up_to(usize::from(count))? {
            numbers.push(reader.varint_up_to(usize::from(count))? as u16);
        }
        let mut left = numbers.iter();
        histogram::take(reader, numbers.len(), |histogram| {
            extras.histograms.extend(left.next().map(|number| (*number, histogram)));
        })?;
        for _ in 0..reader.varint_up_to(usize::from(count))? {
            let number = reader.varint_up_to(usize::from(count))? as u16;
            extras.starts.push((number, Timestamp(reader.signed()?)));
        }
        Ok(extras)
    }
}

/// The tokens of a chunk; what lies behind the last byte is the run in progress.
struct Tokens<'a> {
    bytes: &'a [u8],
    at: i64,
    interval: i64,
    bits: u64,
    /// What the last token that tells a number made of it: its form, the value, the number.
    known: (u8, u64, i64),
}

impl<'a> Tokens<'a> {
    fn new(chunk: &'a OpenChunk) -> Self {
        Self { bytes: chunk.bytes(), at: chunk.first, interval: 0, bits: 0, known: (SAME, 0, 0) }
    }

    /// The first samples, as many as there is room for. Values of histograms are any.
    fn fill(&mut self, times: &mut [Timestamp], values: &mut [f64]) {
        let mut row = 0;
        while row < times.len() {
            let tag = self.byte();
            let run = match tag {
                Some(tag) if tag & RUN == 0 => {
                    self.token(tag);
                    1
                }
                Some(tag) => usize::from(tag & RUN_MAX),
                None => times.len() - row,
            };
            let end = (row + run).min(times.len());
            for time in times.get_mut(row..end).unwrap_or_default() {
                self.at = self.at.wrapping_add(self.interval);
                *time = Timestamp(self.at);
            }
            values.get_mut(row..end).unwrap_or_default().fill(f64::from_bits(self.bits));
            row = end;
        }
    }

    /// Reads what follows a tag that is no run.
    fn token(&mut self, tag: u8) {
        if tag & INTERVAL != 0 {
            let interval = self.interval.wrapping_add(self.int());
            // As the next one is told by its difference from what fits.
            self.at = self.at.wrapping_add(interval).wrapping_sub(i64::from(interval as i32));
            self.interval = i64::from(interval as i32);
        }
        let form = tag >> 1;
        match form {
            INTEGER => {
                let number = self.next_number(form, integer);
                self.bits = (number as f64).to_bits();
                self.known = (form, self.bits, number);
            }
            THOUSANDTHS => {
                let number = self.next_number(form, thousandths);
                self.bits = (number as f64 / 1000.0).to_bits();
                self.known = (form, self.bits, number);
            }
            BYTES => {
                let shape = self.byte().unwrap_or_default();
                let (skipped, length) = (u32::from(shape >> 4), usize::from(shape & 0xf));
                let mut different = 0_u64;
                let (bytes, rest) = self.bytes.split_at(length.min(self.bytes.len()));
                for byte in bytes {
                    different = different << 8 | u64::from(*byte);
                }
                self.bytes = rest;
                let behind = 64_u32.saturating_sub(8 * (skipped + bytes.len() as u32));
                self.bits ^= different.checked_shl(behind).unwrap_or_default();
            }
            STALE => self.bits = STALE_NAN_BITS,
            _ => {}
        }
    }

    /// The number that the token's difference leads to from the last value.
    fn next_number(&mut self, form: u8, number_of: impl Fn(u64) -> Option<i64>) -> i64 {
        let (known_form, known_bits, number) = self.known;
        let is_known = known_form == form && known_bits == self.bits;
        let old = if is_known { number } else { number_of(self.bits).unwrap_or_default() };
        old.wrapping_add(self.int())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn int(&mut self) -> i64 {
        let mut value = 0_u64;
        let mut shift = 0;
        while let Some(byte) = self.byte() {
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift = (shift + 7) & 63;
        }
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }
}

/// The integer that a float is, where the way there and back keeps its bits.
fn integer(bits: u64) -> Option<i64> {
    let value = f64::from_bits(bits);
    let integer = value as i64;
    ((integer as f64).to_bits() == bits && integer.unsigned_abs() < 1 << 52).then_some(integer)
}

/// The number of thousandths that a float is, where the way there and back keeps its bits.
fn thousandths(bits: u64) -> Option<i64> {
    let number = (f64::from_bits(bits) * 1000.0).round() as i64;
    ((number as f64 / 1000.0).to_bits() == bits && number.unsigned_abs() < 1 << 52)
        .then_some(number)
}

#[cfg(test)]
mod tests;
