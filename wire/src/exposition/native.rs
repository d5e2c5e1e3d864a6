//! The `Histogram` and `Exemplar` messages of Protobuf exposition.

use stint_model::exemplar::Exemplar;
use stint_model::histogram::{BucketSpan, FloatHistogram, Histogram, IntegerHistogram, ResetHint};
use stint_model::labels::Labels;
use stint_model::time::Timestamp;

use super::protobuf::decode_label;
use crate::proto::{DecodeError, Reader, bucket_span, unzigzag};

const MESSAGE: &str = "Histogram";

/// What must be known of a histogram before its buckets are walked.
pub(super) struct Outline {
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) started: Option<Timestamp>,
    /// Whether it has native buckets, even if none is populated.
    pub(super) is_native: bool,
    /// Whether it has classic buckets.
    pub(super) has_buckets: bool,
}

impl Outline {
    pub(super) fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let mut outline =
            Self { count: 0.0, sum: 0.0, started: None, is_native: false, has_buckets: false };
        let (mut count, mut count_float) = (0, 0.0);
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => count = field.varint(MESSAGE, number)?,
                2 => outline.sum = field.double(MESSAGE, number)?,
                3 => outline.has_buckets = true,
                4 => count_float = field.double(MESSAGE, number)?,
                6 | 8 => outline.is_native |= field.double(MESSAGE, number)? > 0.0,
                7 => outline.is_native |= field.varint(MESSAGE, number)? > 0,
                9 | 12 => outline.is_native = true,
                15 => outline.started = Some(decode_time(field.bytes(MESSAGE, number)?)?),
                _ => {}
            }
        }
        outline.count = if count_float > 0.0 { count_float } else { count as f64 };
        Ok(outline)
    }
}

/// Decodes the native part of a histogram, and its exemplars in order of time; exemplars without
/// a time are left out.
pub(super) fn decode(
    message: &[u8],
    gauge: bool,
) -> Result<(Histogram, Vec<Exemplar>), DecodeError> {
    let mut into = IntegerHistogram {
        reset_hint: if gauge { ResetHint::Gauge } else { ResetHint::Unknown },
        ..IntegerHistogram::default()
    };
    let (mut count_float, mut zero_float) = (0.0, 0.0);
    let (mut positive_counts, mut negative_counts) = (Vec::new(), Vec::new());
    let (mut own, mut of_buckets) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => into.count = field.varint(MESSAGE, number)?,
            2 => into.sum = field.double(MESSAGE, number)?,
            3 => of_buckets.extend(bucket_exemplar(field.bytes(MESSAGE, number)?)?),
            4 => count_float = field.double(MESSAGE, number)?,
            5 => into.schema = unzigzag(field.varint(MESSAGE, number)?) as i32,
            6 => into.zero_threshold = field.double(MESSAGE, number)?,
            7 => into.zero_count = field.varint(MESSAGE, number)?,
            8 => zero_float = field.double(MESSAGE, number)?,
            9 => into.negative_spans.push(bucket_span(field.bytes(MESSAGE, number)?)?),
            10 => field.varints(MESSAGE, number, |v| into.negative_deltas.push(unzigzag(v)))?,
            11 => field.doubles(MESSAGE, number, &mut negative_counts)?,
            12 => into.positive_spans.push(bucket_span(field.bytes(MESSAGE, number)?)?),
            13 => field.varints(MESSAGE, number, |v| into.positive_deltas.push(unzigzag(v)))?,
            14 => field.doubles(MESSAGE, number, &mut positive_counts)?,
            16 => own.push(field.bytes(MESSAGE, number)?),
            _ => {}
        }
    }
    let is_float = count_float > 0.0 || zero_float > 0.0;
    let (positive, negative) = if is_float {
        (positive_counts.len(), negative_counts.len())
    } else {
        (into.positive_deltas.len(), into.negative_deltas.len())
    };
    let positive_spans = compact("positive", &into.positive_spans, positive)?;
    let negative_spans = compact("negative", &into.negative_spans, negative)?;
    let histogram = if is_float {
        Histogram::Float(FloatHistogram {
            reset_hint: into.reset_hint,
            schema: into.schema,
            zero_threshold: into.zero_threshold,
            zero_count: zero_float,
            count: count_float,
            sum: into.sum,
            positive_spans,
            negative_spans,
            positive_buckets: positive_counts,
            negative_buckets: negative_counts,
            custom_bounds: Vec::new(),
        })
    } else {
        Histogram::Integer(IntegerHistogram { positive_spans, negative_spans, ..into })
    };
    let mut exemplars = Vec::new();
    for message in if own.is_empty() { of_buckets } else { own } {
        let exemplar = WireExemplar::decode(message)?;
        if let Some(at) = exemplar.at {
            let labels = Labels::from_pairs(exemplar.labels);
            exemplars.push(Exemplar { labels, value: exemplar.value, at });
        }
    }
    exemplars.sort_by_key(|exemplar| exemplar.at);
    Ok((histogram, exemplars))
}

/// Joins spans without a gap between them and drops empty ones, after checking that they cover
/// as many buckets as there are.
fn compact(
    side: &'static str,
    spans: &[BucketSpan],
    buckets: usize,
) -> Result<Vec<BucketSpan>, DecodeError> {
    let covered: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if covered != buckets as u64 {
        return Err(DecodeError::Spans { side, covered, buckets });
    }
    let mut out: Vec<BucketSpan> = Vec::new();
    let mut gap = 0_i64;
    for span in spans {
        gap += i64::from(span.offset);
        if span.length == 0 {
            continue;
        }
        match out.last_mut() {
            // No overflow: all lengths together are the number of buckets.
            Some(last) if gap == 0 => last.length = last.length.saturating_add(span.length),
            _ => {
                let offset = i32::try_from(gap).map_err(|_| DecodeError::SpanOffset(gap))?;
                out.push(BucketSpan { offset, length: span.length });
            }
        }
        gap = 0;
    }
    Ok(out)
}

fn bucket_exemplar(bucket: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    let mut exemplar = None;
    let mut reader = Reader::new(bucket);
    while let Some((number, field)) = reader.next()? {
        if number == 3 {
            exemplar = Some(field.bytes("Bucket", number)?);
        }
    }
    Ok(exemplar)
}

/// An exemplar as the message has it.
pub(super) struct WireExemplar<'a> {
    pub(super) labels: Vec<(&'a str, &'a str)>,
    pub(super) value: f64,
    pub(super) at: Option<Timestamp>,
}

impl<'a> WireExemplar<'a> {
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut exemplar = Self { labels: Vec::new(), value: 0.0, at: None };
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => exemplar.labels.push(decode_label(field.bytes("Exemplar", number)?)?),
                2 => exemplar.value = field.double("Exemplar", number)?,
                3 => exemplar.at = Some(decode_time(field.bytes("Exemplar", number)?)?),
                _ => {}
            }
        }
        Ok(exemplar)
    }
}

/// Decodes a `google.protobuf.Timestamp`, cut to milliseconds.
pub(super) fn decode_time(message: &[u8]) -> Result<Timestamp, DecodeError> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => seconds = field.varint("Timestamp", number)? as i64,
            2 => nanos = field.varint("Timestamp", number)? as i64,
            _ => {}
        }
    }
    Ok(Timestamp(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)))
}
