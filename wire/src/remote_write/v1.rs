//! Remote write 1.0: `prometheus.WriteRequest`.
//!
//! Decoding walks the message in place: a series whose label bytes the receiver has seen before
//! needs no label work. Encoding appends to buffers that are kept from request to request.
//!
//! ```
//! use stint_model::sample::Sample;
//! use stint_model::time::Timestamp;
//! use stint_wire::remote_write::v1::{self, Item};
//!
//! let sample = Sample::float(Timestamp(1000), 1.0);
//! let mut encoder = v1::Encoder::new();
//! encoder.series([("__name__", "up"), ("job", "node")]).sample(&sample);
//!
//! for item in v1::decode(encoder.body()) {
//!     let Item::Series(series) = item? else { continue };
//!     let mut labels = Vec::new();
//!     series.labels_into(&mut labels)?;
//!     assert_eq!(labels, [("__name__", "up"), ("job", "node")]);
//!     assert_eq!(series.samples().next(), Some(Ok(sample.clone())));
//! }
//! # Ok::<(), stint_wire::remote_write::DecodeError>(())
//! ```

use std::borrow::Cow;

use stint_model::exemplar::Exemplar;
use stint_model::labels::Labels;
use stint_model::metadata::{Metadata, MetricType};
use stint_model::sample::{Sample, Value, stale_nan};
use stint_model::time::Timestamp;

use super::histogram;
use crate::proto::{self, DecodeError, Field, Reader};

/// Tag of a label in its series: field 1, length-prefixed.
const LABEL_TAG: u8 = 1 << 3 | 2;

/// Walks an uncompressed request. The first error that is not [`DecodeError::is_local`] condemns
/// the request as a whole.
pub fn decode(body: &[u8]) -> Items<'_> {
    Items { reader: Reader::new(body), failed: false }
}

/// What a request consists of.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// Samples of one series.
    Series(TimeSeries<'a>),
    /// Metadata of one metric family.
    Metadata(FamilyMetadata<'a>),
}

/// The parts of a request in their order.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    reader: Reader<'a>,
    failed: bool,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = next_item(&mut self.reader).transpose();
        self.failed = matches!(&item, Some(Err(error)) if !error.is_local());
        item
    }
}

fn next_item<'a>(reader: &mut Reader<'a>) -> Result<Option<Item<'a>>, DecodeError> {
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => {
                let message = field.bytes("WriteRequest", number)?;
                return TimeSeries::new(message).map(|series| Some(Item::Series(series)));
            }
            3 => {
                let message = field.bytes("WriteRequest", number)?;
                return FamilyMetadata::decode(message).map(|family| Some(Item::Metadata(family)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// One series of a request.
#[derive(Clone, Debug)]
pub struct TimeSeries<'a> {
    /// The encoded labels as the sender wrote them: equal bytes mean equal labels, so this is the
    /// key of a receiver's cache.
    pub label_bytes: Cow<'a, [u8]>,
    message: &'a [u8],
    /// What follows the labels that the message begins with.
    behind_labels: &'a [u8],
    /// Bit `n`: the message has a field numbered `n` of the kinds that are known.
    present: u8,
}

impl<'a> TimeSeries<'a> {
    fn new(message: &'a [u8]) -> Result<Self, DecodeError> {
        let leading = leading_labels(message);
        let (labels, behind_labels) = message.split_at_checked(leading).unwrap_or((message, &[]));
        let mut label_bytes = Cow::Borrowed(labels);
        let mut present = u8::from(leading > 0) << 1;
        // Where the run of labels that is borrowed began and ended.
        let mut run = (leading > 0).then_some((0, leading));
        let mut reader = Reader::new(behind_labels);
        loop {
            let start = message.len() - reader.left();
            let Some((number, field)) = reader.next()? else { break };
            if !(1..=4).contains(&number) {
                continue;
            }
            field.bytes("TimeSeries", number)?;
            present |= 1 << number;
            if number != 1 {
                continue;
            }
            let end = message.len() - reader.left();
            let label = message.get(start..end).unwrap_or_default();
            match (&mut label_bytes, run) {
                (_, None) => {
                    run = Some((start, end));
                    label_bytes = Cow::Borrowed(label);
                }
                (Cow::Borrowed(bytes), Some((first, last))) if last == start => {
                    run = Some((first, end));
                    *bytes = message.get(first..end).unwrap_or_default();
                }
                // Labels with something in between, which no known sender does.
                (bytes, Some(_)) => bytes.to_mut().extend_from_slice(label),
            }
        }
        Ok(Self { label_bytes, message, behind_labels, present })
    }

    /// Name and value of each label in the order of the message.
    pub fn labels(
        &self,
    ) -> impl Iterator<Item = Result<(&'a str, &'a str), DecodeError>> + use<'a> {
        fields(self.message, 1).map(|field| decode_label(field?))
    }

    /// Replaces the contents of `out` by the labels in the order of the message.
    pub fn labels_into(&self, out: &mut Vec<(&'a str, &'a str)>) -> Result<(), DecodeError> {
        out.clear();
        for label in self.labels() {
            out.push(label?);
        }
        Ok(())
    }

    /// The float samples, stale markers among them.
    pub fn samples(&self) -> impl Iterator<Item = Result<Sample, DecodeError>> + use<'a> {
        fields(self.having(2), 2).map(|field| decode_sample(field?))
    }

    /// The native histogram samples.
    pub fn histograms(&self) -> impl Iterator<Item = Result<Sample, DecodeError>> + use<'a> {
        fields(self.having(4), 4).map(|field| histogram::decode(field?))
    }

    /// The exemplars.
    pub fn exemplars(&self) -> impl Iterator<Item = Result<Exemplar, DecodeError>> + use<'a> {
        fields(self.having(3), 3).map(|field| decode_exemplar(field?))
    }

    /// The part of the message where fields of this number, other than labels, are.
    fn having(&self, number: u32) -> &'a [u8] {
        if self.present & 1 << number == 0 { &[] } else { self.behind_labels }
    }
}

/// How many bytes at the front of a series are labels below 128 bytes, which most are; what
/// follows, or makes no sense, is for the careful reader.
#[inline]
fn leading_labels(message: &[u8]) -> usize {
    let mut at = 0;
    while let Some([LABEL_TAG, length @ ..0x80]) = message.get(at..at + 2) {
        let end = at + 2 + usize::from(*length);
        if end > message.len() {
            break;
        }
        at = end;
    }
    at
}

/// The fields of one number, whose wire type was checked before.
fn fields(message: &[u8], wanted: u32) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    let mut reader = Reader::new(message);
    std::iter::from_fn(move || {
        loop {
            match reader.next().transpose()? {
                Ok((number, Field::Bytes(bytes))) if number == wanted => {
                    return Some(Ok(bytes));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

fn decode_label(message: &[u8]) -> Result<(&str, &str), DecodeError> {
    let (mut name, mut value) = ("", "");
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => name = field.text("Label", number)?,
            2 => value = field.text("Label", number)?,
            _ => {}
        }
    }
    Ok((name, value))
}

#[inline]
fn decode_sample(message: &[u8]) -> Result<Sample, DecodeError> {
    let (mut value, mut at) = (0.0, 0);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => value = field.double("Sample", number)?,
            2 => at = field.varint("Sample", number)? as i64,
            _ => {}
        }
    }
    Ok(Sample::float(Timestamp(at), value))
}

fn decode_exemplar(message: &[u8]) -> Result<Exemplar, DecodeError> {
    let (mut labels, mut value, mut at) = (Vec::new(), 0.0, 0);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => labels.push(decode_label(field.bytes("Exemplar", number)?)?),
            2 => value = field.double("Exemplar", number)?,
            3 => at = field.varint("Exemplar", number)? as i64,
            _ => {}
        }
    }
    Ok(Exemplar { labels: Labels::from_pairs(labels), value, at: Timestamp(at) })
}

/// Metadata of one metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyMetadata<'a> {
    /// The family.
    pub family: &'a str,
    /// Its kind.
    pub kind: MetricType,
    /// Its help text.
    pub help: &'a str,
    /// Its unit.
    pub unit: &'a str,
}

impl<'a> FamilyMetadata<'a> {
    fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut into = Self { family: "", kind: MetricType::Unknown, help: "", unit: "" };
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => into.kind = super::metric_type(field.varint("MetricMetadata", number)?),
                2 => into.family = field.text("MetricMetadata", number)?,
                4 => into.help = field.text("MetricMetadata", number)?,
                5 => into.unit = field.text("MetricMetadata", number)?,
                _ => {}
            }
        }
        Ok(into)
    }

    /// The owned form that a batch carries.
    pub fn to_model(&self) -> (String, Metadata) {
        let (help, unit) = (self.help.to_owned(), self.unit.to_owned());
        (self.family.to_owned(), Metadata { kind: self.kind, help, unit })
    }
}

/// Builds requests in buffers that it keeps.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    body: Vec<u8>,
    series: Vec<u8>,
    nested: Vec<u8>,
}

impl Encoder {
    /// An encoder with an empty request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a new request.
    pub fn clear(&mut self) {
        self.body.clear();
    }

    /// The finished request, uncompressed.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Begins a series with labels sorted by name; it ends when the returned value is dropped.
    pub fn series<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
    ) -> SeriesEncoder<'_> {
        self.series.clear();
        put_labels(&mut self.series, labels);
        SeriesEncoder { encoder: self }
    }

    /// Begins a series whose labels were encoded before by [`encode_labels`].
    pub fn encoded_series(&mut self, label_bytes: &[u8]) -> SeriesEncoder<'_> {
        self.series.clear();
        self.series.extend_from_slice(label_bytes);
        SeriesEncoder { encoder: self }
    }

    /// Adds metadata of a metric family.
    pub fn metadata(&mut self, family: &str, metadata: &Metadata) {
        self.nested.clear();
        proto::put_uint(&mut self.nested, 1, super::metric_type_number(metadata.kind));
        proto::put_text(&mut self.nested, 2, family);
        proto::put_text(&mut self.nested, 4, &metadata.help);
        proto::put_text(&mut self.nested, 5, &metadata.unit);
        proto::put_bytes(&mut self.body, 3, &self.nested);
    }
}

/// The bytes of labels for [`Encoder::encoded_series`], worth keeping per series.
pub fn encode_labels<'l>(labels: impl IntoIterator<Item = (&'l str, &'l str)>) -> Vec<u8> {
    let mut out = Vec::new();
    put_labels(&mut out, labels);
    out
}

fn put_labels<'l>(out: &mut Vec<u8>, labels: impl IntoIterator<Item = (&'l str, &'l str)>) {
    for (name, value) in labels {
        let length = text_len(name) + text_len(value);
        out.push(LABEL_TAG);
        proto::put_varint(out, length as u64);
        proto::put_text(out, 1, name);
        proto::put_text(out, 2, value);
    }
}

/// Bytes of a string field whose number is below 16.
fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { 1 + proto::varint_len(text.len() as u64) + text.len() }
}

/// A series under construction.
#[derive(Debug)]
#[must_use = "a series without samples is refused by receivers"]
pub struct SeriesEncoder<'e> {
    encoder: &'e mut Encoder,
}

impl SeriesEncoder<'_> {
    /// Adds a sample of any kind, after the ones before it in time. A start time is left out: 1.0
    /// has no field for it.
    pub fn sample(&mut self, sample: &Sample) -> &mut Self {
        match &sample.value {
            Value::Float(value) => self.float(sample.at, *value),
            Value::Stale => self.float(sample.at, stale_nan()),
            Value::Histogram(histogram) => {
                let Encoder { series, nested, .. } = &mut *self.encoder;
                nested.clear();
                histogram::encode(histogram, sample.at, None, nested);
                proto::put_bytes(series, 4, nested);
                self
            }
        }
    }

    /// Adds a float sample, bit for bit.
    #[inline]
    pub fn float(&mut self, at: Timestamp, value: f64) -> &mut Self {
        let out = &mut self.encoder.series;
        let at = at.as_ms() as u64;
        let value_len = if value.to_bits() == 0 { 0 } else { 9 };
        let at_len = if at == 0 { 0 } else { 1 + proto::varint_len(at) };
        out.push(2 << 3 | 2);
        // Two short fields: the length is below 128.
        out.push((value_len + at_len) as u8);
        proto::put_double(out, 1, value);
        proto::put_uint(out, 2, at);
        self
    }

    /// Adds an exemplar.
    pub fn exemplar(&mut self, exemplar: &Exemplar) -> &mut Self {
        let Encoder { series, nested, .. } = &mut *self.encoder;
        nested.clear();
        put_labels(nested, &exemplar.labels);
        proto::put_double(nested, 2, exemplar.value);
        proto::put_uint(nested, 3, exemplar.at.as_ms() as u64);
        proto::put_bytes(series, 3, nested);
        self
    }
}

impl Drop for SeriesEncoder<'_> {
    fn drop(&mut self) {
        let Encoder { body, series, .. } = &mut *self.encoder;
        proto::put_bytes(body, 1, series);
    }
}

#[cfg(test)]
mod tests;
