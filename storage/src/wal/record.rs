//! What a record says: a sequence of items, applied together.
//!
//! Each item starts with a tag. Tags below 128 are samples, the commonest item, and their bits
//! say how the rest is written: bits 0–2 the form of the value, bit 3 that the series follows the
//! one before, bit 4 that the time is the one before, bit 5 that a start time is given. So a
//! sample of a scrape takes one byte and its value, which is short where it is a small integer or
//! has few decimals. Strings are written once per record and referred to by number after that.

use std::sync::Arc;

use stint_model::{
    Exemplar, Labels, Metadata, MetricType, STALE_NAN_BITS, Sample, TimeRange, Timestamp, Value,
};

pub(crate) use self::pack::Packer;
use self::strings::Strings;
use super::bytes::{Reader, put_f64, put_int, put_uint};
use super::histogram;
use super::position::WalPosition;

mod pack;
mod strings;

/// One statement of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// A series begins to exist. In a checkpoint `last_segment` is the last segment that has a
    /// sample of it; else it is 0.
    Series { id: u64, last_segment: u64, labels: Labels },
    /// A sample was accepted.
    Sample { id: u64, sample: Sample },
    /// What a metric family is.
    Metadata { family: String, metadata: Metadata },
    /// An exemplar of a series.
    Exemplar { id: u64, exemplar: Exemplar },
    /// Writing everything before this time, as logged so far, to blocks begins.
    FlushBegin { before: Timestamp },
    /// The blocks of the last `FlushBegin` are published.
    FlushDone { before: Timestamp },
    /// Samples of a series were deleted.
    Deleted { id: u64, range: TimeRange },
    /// First and last item of a checkpoint: ids below `next_id` are taken, and everything before `flushed`
    /// that older segments held is in blocks.
    Checkpoint { next_id: u64, flushed: Timestamp },
    /// The states that follow hold what the log says up to here. Only in checkpoints.
    StatesAt { position: WalPosition },
    /// A series as it was, samples and all, as the head writes it. Only in checkpoints.
    State { id: u64, state: Vec<u8> },
}

/// Room for labels that is made before any was read: what claims to have more may be damaged.
const LABELS_AT_ONCE: usize = 64;

const FOLLOWS: u8 = 1 << 3;
const SAME_TIME: u8 = 1 << 4;
const STARTED: u8 = 1 << 5;

const INTEGER: u8 = 0;
const RAW: u8 = 1;
const STALE: u8 = 2;
const HISTOGRAM: u8 = 3;
const THOUSANDTHS: u8 = 4;
const ZERO: u8 = 5;
const UPPER_HALF: u8 = 6;
const MILLIONTHS: u8 = 7;

const SERIES: u8 = 0x80;
const METADATA: u8 = 0x81;
const EXEMPLAR: u8 = 0x82;
const FLUSH_BEGIN: u8 = 0x83;
const FLUSH_DONE: u8 = 0x84;
const DELETED: u8 = 0x85;
const CHECKPOINT: u8 = 0x86;
const STATES_AT: u8 = 0x87;
const STATE: u8 = 0x88;
const PACKED: u8 = 0x89;

/// Builds the payload of one record. Reused from record to record.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    out: Vec<u8>,
    strings: Strings,
    id: u64,
    at: i64,
    /// Memory to write a state to before its length is known.
    state: Vec<u8>,
}

impl Encoder {
    /// Starts a new record, with `header` bytes kept free before the payload.
    pub(crate) fn reset(&mut self, header: usize) {
        self.out.clear();
        self.out.resize(header, 0);
        self.strings.clear();
        self.id = 0;
        self.at = 0;
    }

    /// Header and payload so far.
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(crate) fn series(&mut self, id: u64, last_segment: u64, labels: &Labels) {
        self.begin_series(id, last_segment);
        self.labels(labels);
    }

    /// A series whose names and values are told by symbols of the head. Until the next record, or until
    /// [`Encoder::symbols_of`] says otherwise, a symbol always stands for the same string.
    pub(crate) fn series_of<'a>(
        &mut self,
        id: u64,
        last_segment: u64,
        labels: impl ExactSizeIterator<Item = (u32, u32)>,
        text: impl Fn(u32) -> &'a str,
    ) {
        self.begin_series(id, last_segment);
        put_uint(&mut self.out, labels.len() as u64);
        for (at, (name, value)) in labels.enumerate() {
            self.strings.put_symbol(name, 2 * at, &text, &mut self.out);
            self.strings.put_symbol(value, 2 * at + 1, &text, &mut self.out);
        }
    }

    /// Symbols that follow are those of this generation of the head's index.
    pub(crate) fn symbols_of(&mut self, generation: u64) {
        self.strings.set_generation(generation);
    }

    fn begin_series(&mut self, id: u64, last_segment: u64) {
        self.out.push(SERIES);
        put_int(&mut self.out, id.wrapping_sub(self.id) as i64);
        self.id = id;
        put_uint(&mut self.out, last_segment);
    }

    fn labels(&mut self, labels: &Labels) {
        put_uint(&mut self.out, labels.len() as u64);
        for (name, value) in labels {
            self.string(name);
            self.string(value);
        }
    }

    fn string(&mut self, text: &str) {
        self.strings.put(text, &mut self.out);
    }

    pub(crate) fn sample(&mut self, id: u64, sample: &Sample) {
        let mut tag = 0;
        let tag_at = self.out.len();
        self.out.push(0);
        if id == self.id.wrapping_add(1) {
            tag |= FOLLOWS;
        } else {
            put_int(&mut self.out, id.wrapping_sub(self.id) as i64);
        }
        self.id = id;
        if sample.at.0 == self.at {
            tag |= SAME_TIME;
        } else {
            put_int(&mut self.out, sample.at.0.wrapping_sub(self.at));
        }
        self.at = sample.at.0;
        if let Some(started) = sample.started {
            tag |= STARTED;
            put_int(&mut self.out, sample.at.0.wrapping_sub(started.0));
        }
        tag |= match &sample.value {
            Value::Float(value) => self.float(*value),
            Value::Stale => STALE,
            Value::Histogram(value) => {
                histogram::encode(&mut self.out, value);
                HISTOGRAM
            }
        };
        if let Some(byte) = self.out.get_mut(tag_at) {
            *byte = tag;
        }
    }

    fn float(&mut self, value: f64) -> u8 {
        let bits = value.to_bits();
        if bits == 0 {
            return ZERO;
        }
        let integer = value as i64;
        if (integer as f64).to_bits() == bits && integer.unsigned_abs() < 1 << 47 {
            put_int(&mut self.out, integer);
            return INTEGER;
        }
        if bits.trailing_zeros() >= 32 {
            self.out.extend_from_slice(&((bits >> 32) as u32).to_le_bytes());
            return UPPER_HALF;
        }
        for (scale, form, max) in [(1e3, THOUSANDTHS, 1 << 33), (1e6, MILLIONTHS, 1 << 40)] {
            let scaled = (value * scale).round() as i64;
            if scaled.unsigned_abs() < max && (scaled as f64 / scale).to_bits() == bits {
                put_int(&mut self.out, scaled);
                return form;
            }
        }
        put_f64(&mut self.out, value);
        RAW
    }

    pub(crate) fn metadata(&mut self, family: &str, metadata: &Metadata) {
        self.out.push(METADATA);
        self.string(family);
        self.out.push(metadata.kind as u8);
        self.string(&metadata.help);
        self.string(&metadata.unit);
    }

    pub(crate) fn exemplar(&mut self, id: u64, exemplar: &Exemplar) {
        self.out.push(EXEMPLAR);
        put_int(&mut self.out, id.wrapping_sub(self.id) as i64);
        self.id = id;
        put_int(&mut self.out, exemplar.at.0);
        put_f64(&mut self.out, exemplar.value);
        self.labels(&exemplar.labels);
    }

    pub(crate) fn flush_begin(&mut self, before: Timestamp) {
        self.out.push(FLUSH_BEGIN);
        put_int(&mut self.out, before.0);
    }

    pub(crate) fn flush_done(&mut self, before: Timestamp) {
        self.out.push(FLUSH_DONE);
        put_int(&mut self.out, before.0);
    }

    pub(crate) fn deleted(&mut self, id: u64, range: TimeRange) {
        self.out.push(DELETED);
        put_uint(&mut self.out, id);
        put_int(&mut self.out, range.start.0);
        put_int(&mut self.out, range.end.0);
    }

    pub(crate) fn checkpoint(&mut self, next_id: u64, flushed: Timestamp) {
        self.out.push(CHECKPOINT);
        put_uint(&mut self.out, next_id);
        put_int(&mut self.out, flushed.0);
    }

    pub(crate) fn states_at(&mut self, position: WalPosition) {
        self.out.push(STATES_AT);
        put_uint(&mut self.out, position.segment);
        put_uint(&mut self.out, position.offset);
    }

    /// The state that `put` appends to what it is given.
    pub(crate) fn state(&mut self, id: u64, put: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(STATE);
        put_int(&mut self.out, id.wrapping_sub(self.id) as i64);
        self.id = id;
        self.state.clear();
        put(&mut self.state);
        put_uint(&mut self.out, self.state.len() as u64);
        self.out.extend_from_slice(&self.state);
    }
}

/// Reads the items of a payload, handing each to `sink`.
///
/// # Errors
/// Why the payload makes no sense; items before that place have been handed over.
pub(crate) fn decode(payload: &[u8], sink: impl FnMut(Item)) -> Result<(), &'static str> {
    let sink = std::cell::RefCell::new(sink);
    decode_apart(
        payload,
        |id, sample| sink.borrow_mut()(Item::Sample { id, sample }),
        |item| sink.borrow_mut()(item),
    )
}

/// Like [`decode`], with the samples, which are by far the most, handed over on a way of their own:
/// an item has room for the longest there is.
///
/// # Errors
/// Like [`decode`].
pub(crate) fn decode_apart(
    payload: &[u8],
    samples: impl FnMut(u64, Sample),
    others: impl FnMut(Item),
) -> Result<(), &'static str> {
    match pack::unpacked(payload) {
        None => decode_items(payload, samples, others),
        Some(unpacked) => decode_items(&unpacked?, samples, others),
    }
}

fn decode_items(
    payload: &[u8],
    mut samples: impl FnMut(u64, Sample),
    mut others: impl FnMut(Item),
) -> Result<(), &'static str> {
    const MALFORMED: &str = "malformed record";
    let mut decoder = Decoder { reader: Reader(payload), strings: Vec::new(), id: 0, at: 0 };
    while let Some((tag, rest)) = decoder.reader.0.split_first() {
        if *tag < 0x80 {
            decoder.reader.0 = rest;
            let sample = decoder.sample(*tag).ok_or(MALFORMED)?;
            samples(decoder.id, sample);
        } else {
            others(decoder.item().ok_or(MALFORMED)?);
        }
    }
    Ok(())
}

/// How much of a payload is items, from the front.
pub(crate) fn readable_bytes(payload: &[u8]) -> usize {
    if pack::is_packed(payload) {
        return payload.len();
    }
    let mut decoder = Decoder { reader: Reader(payload), strings: Vec::new(), id: 0, at: 0 };
    let mut left = payload.len();
    while !decoder.reader.is_empty() && decoder.item().is_some() {
        left = decoder.reader.0.len();
    }
    payload.len() - left
}

struct Decoder<'a> {
    reader: Reader<'a>,
    strings: Vec<&'a str>,
    id: u64,
    at: i64,
}

impl<'a> Decoder<'a> {
    fn item(&mut self) -> Option<Item> {
        let tag = self.reader.byte()?;
        match tag {
            0..0x80 => self.sample(tag).map(|sample| Item::Sample { id: self.id, sample }),
            SERIES => {
                let id = self.relative_id()?;
                let last_segment = self.reader.uint()?;
                Some(Item::Series { id, last_segment, labels: self.labels()? })
            }
            METADATA => {
                let family = self.string()?.to_owned();
                let kind = metric_type(self.reader.byte()?)?;
                let help = self.string()?.to_owned();
                let unit = self.string()?.to_owned();
                Some(Item::Metadata { family, metadata: Metadata { kind, help, unit } })
            }
            EXEMPLAR => {
                let id = self.relative_id()?;
                let at = Timestamp(self.reader.int()?);
                let value = self.reader.f64()?;
                Some(Item::Exemplar {
                    id,
                    exemplar: Exemplar { labels: self.labels()?, value, at },
                })
            }
            FLUSH_BEGIN => Some(Item::FlushBegin { before: Timestamp(self.reader.int()?) }),
            FLUSH_DONE => Some(Item::FlushDone { before: Timestamp(self.reader.int()?) }),
            DELETED => {
                let id = self.reader.uint()?;
                let start = Timestamp(self.reader.int()?);
                let end = Timestamp(self.reader.int()?);
                Some(Item::Deleted { id, range: TimeRange::new(start, end) })
            }
            CHECKPOINT => {
                let next_id = self.reader.uint()?;
                Some(Item::Checkpoint { next_id, flushed: Timestamp(self.reader.int()?) })
            }
            STATES_AT => {
                let segment = self.reader.uint()?;
                let position = WalPosition { segment, offset: self.reader.uint()? };
                Some(Item::StatesAt { position })
            }
            STATE => {
                let id = self.relative_id()?;
                let length = self.reader.count()?;
                Some(Item::State { id, state: self.reader.take(length)?.to_vec() })
            }
            _ => None,
        }
    }

    fn relative_id(&mut self) -> Option<u64> {
        self.id = self.id.wrapping_add(self.reader.int()? as u64);
        Some(self.id)
    }

    fn labels(&mut self) -> Option<Labels> {
        let count = self.reader.count()?;
        let mut pairs = Vec::with_capacity(count.min(LABELS_AT_ONCE));
        for _ in 0..count {
            pairs.push((self.string()?, self.string()?));
        }
        Labels::from_sorted(pairs)
    }

    fn string(&mut self) -> Option<&'a str> {
        let number = self.reader.uint()?;
        if number > 0 {
            return self.strings.get(usize::try_from(number - 1).ok()?).copied();
        }
        let length = usize::try_from(self.reader.uint()?).ok()?;
        let text = std::str::from_utf8(self.reader.take(length)?).ok()?;
        self.strings.push(text);
        Some(text)
    }

    /// The sample of series `self.id` behind its tag.
    #[inline]
    fn sample(&mut self, tag: u8) -> Option<Sample> {
        if tag & 0x40 != 0 {
            return None;
        }
        self.id = if tag & FOLLOWS != 0 {
            self.id.wrapping_add(1)
        } else {
            self.id.wrapping_add(self.reader.int()? as u64)
        };
        if tag & SAME_TIME == 0 {
            self.at = self.at.wrapping_add(self.reader.int()?);
        }
        let started = if tag & STARTED == 0 {
            None
        } else {
            Some(Timestamp(self.at.wrapping_sub(self.reader.int()?)))
        };
        let float = |value: f64| {
            if value.to_bits() == STALE_NAN_BITS { Value::Stale } else { Value::Float(value) }
        };
        let value = match tag & 7 {
            INTEGER => float(self.reader.int()? as f64),
            RAW => float(self.reader.f64()?),
            STALE => Value::Stale,
            HISTOGRAM => Value::Histogram(Arc::new(histogram::decode(&mut self.reader)?)),
            THOUSANDTHS => float(self.reader.int()? as f64 / 1e3),
            ZERO => Value::Float(0.0),
            UPPER_HALF => {
                let upper = u32::from_le_bytes(self.reader.take(4)?.try_into().ok()?);
                float(f64::from_bits(u64::from(upper) << 32))
            }
            _ => float(self.reader.int()? as f64 / 1e6),
        };
        Some(Sample { at: Timestamp(self.at), started, value })
    }
}

fn metric_type(byte: u8) -> Option<MetricType> {
    use MetricType::{Counter, Gauge, GaugeHistogram, Histogram, Info, StateSet, Summary, Unknown};
    [Unknown, Counter, Gauge, Histogram, GaugeHistogram, Summary, Info, StateSet]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
}

#[cfg(test)]
mod tests;
