//! Remote write 2.0: `io.prometheus.write.v2.Request`.
//!
//! Strings stand once in the request's symbol table and are referred to by number.

use std::num::NonZeroU32;
use std::ops::Range;

use stint_model::exemplar::Exemplar;
use stint_model::labels::Labels;
use stint_model::metadata::{Metadata, MetricType};
use stint_model::sample::{Sample, Value, stale_nan};
use stint_model::time::Timestamp;

use super::histogram;
use crate::proto::{self, DecodeError, Field, Reader};

/// An uncompressed request with its symbol table.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    body: &'a [u8],
    /// `None` where a symbol is not UTF-8.
    symbols: Vec<Option<&'a str>>,
}

/// Reads the symbol table of a request. The series follow from [`Request::series`].
pub fn decode(body: &[u8]) -> Result<Request<'_>, DecodeError> {
    let mut symbols = Vec::new();
    let mut reader = Reader::new(body);
    while let Some((number, field)) = reader.next()? {
        match number {
            4 => symbols.push(std::str::from_utf8(field.bytes("Request", number)?).ok()),
            5 => {
                field.bytes("Request", number)?;
            }
            _ => {}
        }
    }
    Ok(Request { body, symbols })
}

impl<'a> Request<'a> {
    /// The series in the order of the message. An error that is not [`DecodeError::is_local`]
    /// condemns the request as a whole.
    pub fn series<'r>(
        &'r self,
    ) -> impl Iterator<Item = Result<TimeSeries<'a, 'r>, DecodeError>> + use<'a, 'r> {
        messages(self.body, 5)
            .map(|message| TimeSeries::new(message?, Symbols { table: &self.symbols }))
    }

    /// How many symbols the table has.
    pub fn symbols(&self) -> usize {
        self.symbols.len()
    }
}

/// The contents of one field of a message whose wire types were checked.
fn messages(
    message: &[u8],
    wanted: u32,
) -> impl Iterator<Item = Result<&[u8], DecodeError>> + use<'_> {
    let mut reader = Reader::new(message);
    std::iter::from_fn(move || {
        loop {
            match reader.next().transpose()? {
                Ok((number, Field::Bytes(bytes))) if number == wanted => return Some(Ok(bytes)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

#[derive(Clone, Copy, Debug)]
struct Symbols<'a, 'r> {
    table: &'r [Option<&'a str>],
}

impl<'a> Symbols<'a, '_> {
    fn get(self, reference: u32) -> Result<&'a str, DecodeError> {
        match self.table.get(reference as usize) {
            Some(Some(symbol)) => Ok(symbol),
            Some(None) => Err(DecodeError::Utf8("symbol")),
            // Without any symbols, 0 still means "none".
            None if reference == 0 => Ok(""),
            None => Err(DecodeError::Symbol { reference, symbols: self.table.len() }),
        }
    }

    /// Replaces the contents of `out` by the labels behind pairs of references.
    fn labels(
        self,
        references: &[u32],
        out: &mut Vec<(&'a str, &'a str)>,
    ) -> Result<(), DecodeError> {
        out.clear();
        let (pairs, rest) = references.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(DecodeError::OddReferences(references.len()));
        }
        for [name, value] in pairs {
            out.push((self.get(*name)?, self.get(*value)?));
        }
        Ok(())
    }
}

/// One series of a request.
#[derive(Clone, Debug)]
pub struct TimeSeries<'a, 'r> {
    symbols: Symbols<'a, 'r>,
    message: &'a [u8],
    references: Vec<u32>,
    metadata: MetadataReferences,
}

/// The metadata of a series as the message has it.
#[derive(Clone, Copy, Debug, Default)]
struct MetadataReferences {
    kind: u64,
    help: u32,
    unit: u32,
}

impl<'a, 'r> TimeSeries<'a, 'r> {
    fn new(message: &'a [u8], symbols: Symbols<'a, 'r>) -> Result<Self, DecodeError> {
        let mut references = Vec::new();
        let mut metadata = MetadataReferences::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => field.varints("TimeSeries", number, |v| references.push(v as u32))?,
                2..=4 => {
                    field.bytes("TimeSeries", number)?;
                }
                5 => metadata.read(field.bytes("TimeSeries", number)?)?,
                _ => {}
            }
        }
        Ok(Self { symbols, message, references, metadata })
    }

    /// Replaces the contents of `out` by the labels in the order of the message.
    pub fn labels_into(&self, out: &mut Vec<(&'a str, &'a str)>) -> Result<(), DecodeError> {
        self.symbols.labels(&self.references, out)
    }

    /// The metadata of the series' family; all of it unknown and empty when there is none.
    pub fn metadata(&self) -> Result<Metadata, DecodeError> {
        Ok(Metadata {
            kind: super::metric_type(self.metadata.kind),
            help: self.symbols.get(self.metadata.help)?.to_owned(),
            unit: self.symbols.get(self.metadata.unit)?.to_owned(),
        })
    }

    /// The float samples with their start times, stale markers among them.
    pub fn samples(&self) -> impl Iterator<Item = Result<Sample, DecodeError>> + use<'a> {
        messages(self.message, 2).map(|message| decode_sample(message?))
    }

    /// The native histogram samples with their start times.
    pub fn histograms(&self) -> impl Iterator<Item = Result<Sample, DecodeError>> + use<'a> {
        messages(self.message, 3).map(|message| histogram::decode(message?))
    }

    /// The exemplars.
    pub fn exemplars(&self) -> impl Iterator<Item = Result<Exemplar, DecodeError>> + use<'a, 'r> {
        let symbols = self.symbols;
        messages(self.message, 4).map(move |message| decode_exemplar(message?, symbols))
    }
}

impl MetadataReferences {
    fn read(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => self.kind = field.varint("Metadata", number)?,
                3 => self.help = field.varint("Metadata", number)? as u32,
                4 => self.unit = field.varint("Metadata", number)? as u32,
                _ => {}
            }
        }
        Ok(())
    }
}

fn decode_sample(message: &[u8]) -> Result<Sample, DecodeError> {
    let (mut value, mut at, mut started) = (0.0, 0, 0);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => value = field.double("Sample", number)?,
            2 => at = field.varint("Sample", number)? as i64,
            3 => started = field.varint("Sample", number)? as i64,
            _ => {}
        }
    }
    let started = (started != 0).then_some(Timestamp(started));
    Ok(Sample { at: Timestamp(at), started, value: Value::from_wire(value) })
}

fn decode_exemplar(message: &[u8], symbols: Symbols<'_, '_>) -> Result<Exemplar, DecodeError> {
    let (mut references, mut value, mut at) = (Vec::new(), 0.0, 0);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => field.varints("Exemplar", number, |v| references.push(v as u32))?,
            2 => value = field.double("Exemplar", number)?,
            3 => at = field.varint("Exemplar", number)? as i64,
            _ => {}
        }
    }
    let mut labels = Vec::new();
    symbols.labels(&references, &mut labels)?;
    Ok(Exemplar { labels: Labels::from_pairs(labels), value, at: Timestamp(at) })
}

/// The symbols of a request, each once, found by their texts.
#[derive(Clone, Debug)]
struct SymbolTable {
    /// The fields of the message, one after the other.
    bytes: Vec<u8>,
    /// Where each text lies in them, and its hash.
    places: Vec<(Range<usize>, u32)>,
    /// Numbers of symbols by hash, with open addressing; at most half of it is used.
    slots: Vec<Option<NonZeroU32>>,
}

/// Slots of a table at first, a power of two.
const SLOTS_MIN: usize = 256;

impl Default for SymbolTable {
    fn default() -> Self {
        Self { bytes: Vec::new(), places: Vec::new(), slots: vec![None; SLOTS_MIN] }
    }
}

impl SymbolTable {
    fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.slots.fill(None);
        // Reference 0 is the empty string.
        self.number("");
    }

    fn is(&self, number: u32, text: &str) -> bool {
        let place = self.places.get(number as usize).map(|(place, _)| place.clone());
        place.and_then(|place| self.bytes.get(place)).is_some_and(|held| held == text.as_bytes())
    }

    /// The number of a text, which is added where it is new.
    fn number(&mut self, text: &str) -> u32 {
        let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32;
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        // There is always a free slot.
        while let Some(Some(next)) = self.slots.get(at).copied() {
            let number = next.get() - 1;
            let same_hash = self.places.get(number as usize).is_some_and(|(_, its)| *its == hash);
            if same_hash && self.is(number, text) {
                return number;
            }
            at = (at + 1) & mask;
        }
        let number = self.places.len() as u32;
        proto::put_bytes(&mut self.bytes, 4, text.as_bytes());
        let end = self.bytes.len();
        self.places.push((end - text.len()..end, hash));
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = NonZeroU32::new(number + 1);
        }
        if self.places.len() * 2 > self.slots.len() {
            self.grow();
        }
        number
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        self.slots.clear();
        self.slots.resize(mask + 1, None);
        for (number, (_, hash)) in (1..).zip(&self.places) {
            let mut at = *hash as usize & mask;
            while matches!(self.slots.get(at), Some(Some(_))) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = NonZeroU32::new(number);
            }
        }
    }
}

/// Builds requests in buffers that it keeps.
#[derive(Clone, Debug)]
pub struct Encoder {
    symbols: SymbolTable,
    /// The series, the last of which may not be complete.
    body: Vec<u8>,
    nested: Vec<u8>,
    references: Vec<u8>,
    /// Symbols of the last labels: those of one target have many in common.
    last: Vec<u32>,
    /// One more than the symbol of each text that the caller has numbers for; 0 where it has none
    /// yet.
    numbered: Vec<u32>,
    /// The caller's numbers that have a symbol.
    taken: Vec<u32>,
    /// Metadata of the series that follow, as the message has it; empty where there is none.
    described: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder with an empty request.
    pub fn new() -> Self {
        let mut encoder = Self {
            symbols: SymbolTable::default(),
            body: Vec::new(),
            nested: Vec::new(),
            references: Vec::new(),
            last: Vec::new(),
            numbered: Vec::new(),
            taken: Vec::new(),
            described: Vec::new(),
        };
        encoder.clear();
        encoder
    }

    /// Starts a new request.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.last.clear();
        self.body.clear();
        self.described.clear();
        for number in self.taken.drain(..) {
            if let Some(symbol) = self.numbered.get_mut(number as usize) {
                *symbol = 0;
            }
        }
    }

    /// Whether no series was added yet.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Bytes of the request so far, uncompressed.
    pub fn size_bytes(&self) -> usize {
        self.symbols.bytes.len() + self.body.len()
    }

    /// Replaces the contents of `out` by the finished request, uncompressed.
    pub fn finish_into(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.symbols.bytes);
        out.extend_from_slice(&self.body);
    }

    /// The finished request, uncompressed; the next one begins with [`Encoder::clear`].
    pub fn finish(&mut self) -> &[u8] {
        // The table comes first, so that receivers can read the message in one go.
        let Self { symbols: SymbolTable { bytes, .. }, body, .. } = self;
        let length = body.len();
        body.resize(length + bytes.len(), 0);
        body.copy_within(..length, bytes.len());
        if let Some(front) = body.get_mut(..bytes.len()) {
            front.copy_from_slice(bytes);
        }
        bytes.clear();
        body
    }

    /// Encodes label references as a packed field into the buffer of references.
    fn label_references<'l>(&mut self, labels: impl IntoIterator<Item = (&'l str, &'l str)>) {
        self.references.clear();
        let texts = labels.into_iter().flat_map(|(name, value)| [name, value]);
        for (at, text) in texts.enumerate() {
            let number = match self.last.get(at).copied() {
                Some(last) if self.symbols.is(last, text) => last,
                _ => self.symbols.number(text),
            };
            match self.last.get_mut(at) {
                Some(last) => *last = number,
                None => self.last.push(number),
            }
            proto::put_varint(&mut self.references, number.into());
        }
    }

    /// Begins a series with labels sorted by name; it ends when the returned value is dropped.
    /// `metadata` is that of its family.
    pub fn series<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        metadata: Option<&Metadata>,
    ) -> SeriesEncoder<'_> {
        self.describe(metadata);
        self.label_references(labels);
        let start = open(&mut self.body, 5);
        proto::put_bytes(&mut self.body, 1, &self.references);
        self.begin(start)
    }

    /// Sets the metadata of the series that [`Encoder::numbered_series`] begins from now on.
    pub fn describe(&mut self, metadata: Option<&Metadata>) {
        self.described.clear();
        if let Some(Metadata { kind, help, unit }) = metadata
            && (*kind != MetricType::Unknown || !help.is_empty() || !unit.is_empty())
        {
            let (help, unit) = (self.symbols.number(help), self.symbols.number(unit));
            proto::put_uint(&mut self.described, 1, super::metric_type_number(*kind));
            proto::put_uint(&mut self.described, 3, help.into());
            proto::put_uint(&mut self.described, 4, unit.into());
        }
    }

    /// As [`Encoder::series`], with labels as the caller's own numbers of names and values in turns:
    /// in one request a number always has the same `text`, which is asked for once. Numbers are
    /// places in a table: they should not be sparse. Its metadata is what was told last.
    pub fn numbered_series<'l>(
        &mut self,
        labels: impl IntoIterator<Item = u32>,
        text: impl Fn(u32) -> &'l str,
    ) -> SeriesEncoder<'_> {
        let start = open(&mut self.body, 5);
        let references = open(&mut self.body, 1);
        for number in labels {
            let at = number as usize;
            let symbol = match self.numbered.get(at).and_then(|symbol| symbol.checked_sub(1)) {
                Some(symbol) => symbol,
                None => self.take_number(number, text(number)),
            };
            proto::put_varint(&mut self.body, symbol.into());
        }
        close(&mut self.body, references);
        self.begin(start)
    }

    fn take_number(&mut self, number: u32, text: &str) -> u32 {
        let (at, symbol) = (number as usize, self.symbols.number(text));
        if at >= self.numbered.len() {
            self.numbered.resize(at + 1, 0);
        }
        if let Some(place) = self.numbered.get_mut(at) {
            *place = symbol + 1;
            self.taken.push(number);
        }
        symbol
    }

    /// Goes on with the series that was opened at `start` and has its labels.
    fn begin(&mut self, start: usize) -> SeriesEncoder<'_> {
        if !self.described.is_empty() {
            proto::put_bytes(&mut self.body, 5, &self.described);
        }
        SeriesEncoder { encoder: self, start }
    }
}

/// Begins a field of bytes whose length is not known yet; returns where its content starts.
fn open(out: &mut Vec<u8>, field: u32) -> usize {
    proto::put_bytes(out, field, &[]);
    out.len()
}

/// Completes the field whose content starts at `start`. Most are so short that the length takes the one
/// byte that was left for it.
fn close(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    let more = proto::varint_len(length as u64) - 1;
    if more > 0 {
        out.resize(out.len() + more, 0);
        out.copy_within(start..start + length, start + more);
    }
    let mut left = length;
    for byte in out.iter_mut().skip(start - 1).take(more + 1) {
        *byte = left as u8 | 0x80;
        left >>= 7;
    }
    if let Some(last) = out.get_mut(start - 1 + more) {
        *last &= 0x7f;
    }
}

/// A series under construction.
#[derive(Debug)]
#[must_use = "a series without samples is refused by receivers"]
pub struct SeriesEncoder<'e> {
    encoder: &'e mut Encoder,
    /// Where it starts in the body.
    start: usize,
}

impl SeriesEncoder<'_> {
    /// Adds a sample of any kind, after the ones before it in time. One series must not mix
    /// floats and histograms in one request.
    pub fn sample(&mut self, sample: &Sample) -> &mut Self {
        let Encoder { body, nested, .. } = &mut *self.encoder;
        let value = match &sample.value {
            Value::Float(value) => *value,
            Value::Stale => stale_nan(),
            Value::Histogram(histogram) => {
                nested.clear();
                histogram::encode(histogram, sample.at, sample.started, nested);
                proto::put_bytes(body, 3, nested);
                return self;
            }
        };
        let start = open(body, 2);
        proto::put_double(body, 1, value);
        proto::put_uint(body, 2, sample.at.as_ms() as u64);
        proto::put_uint(body, 3, sample.started.map_or(0, |started| started.as_ms() as u64));
        close(body, start);
        self
    }

    /// Adds an exemplar.
    pub fn exemplar(&mut self, exemplar: &Exemplar) -> &mut Self {
        self.encoder.label_references(&exemplar.labels);
        let Encoder { body, references, .. } = &mut *self.encoder;
        let start = open(body, 4);
        proto::put_bytes(body, 1, references);
        proto::put_double(body, 2, exemplar.value);
        proto::put_uint(body, 3, exemplar.at.as_ms() as u64);
        close(body, start);
        self
    }
}

impl Drop for SeriesEncoder<'_> {
    fn drop(&mut self) {
        close(&mut self.encoder.body, self.start);
    }
}

#[cfg(test)]
mod tests;
