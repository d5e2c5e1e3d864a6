//! The `Histogram` message, which both versions share (2.0 adds the start time).

use std::sync::Arc;

use stint_model::histogram::{BucketSpan, FloatHistogram, Histogram, IntegerHistogram, ResetHint};
use stint_model::sample::{Sample, Value, is_stale};
use stint_model::time::Timestamp;

use crate::proto::{self, DecodeError, Reader, bucket_span, unzigzag};

const MESSAGE: &str = "Histogram";

/// Both kinds of histogram at once; which one it is shows when all fields are read.
#[derive(Default)]
struct Fields {
    integer: IntegerHistogram,
    float: Option<f64>,
    zero_float: Option<f64>,
    positive_counts: Vec<f64>,
    negative_counts: Vec<f64>,
    at: i64,
    started: i64,
}

/// Decodes one histogram sample; one whose sum is the stale marker ends the series.
pub(super) fn decode(message: &[u8]) -> Result<Sample, DecodeError> {
    let mut fields = Fields::default();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        let into = &mut fields.integer;
        match number {
            1 => into.count = field.varint(MESSAGE, number)?,
            2 => fields.float = Some(field.double(MESSAGE, number)?),
            3 => into.sum = field.double(MESSAGE, number)?,
            4 => into.schema = unzigzag(field.varint(MESSAGE, number)?) as i32,
            5 => into.zero_threshold = field.double(MESSAGE, number)?,
            6 => into.zero_count = field.varint(MESSAGE, number)?,
            7 => fields.zero_float = Some(field.double(MESSAGE, number)?),
            8 => into.negative_spans.push(bucket_span(field.bytes(MESSAGE, number)?)?),
            9 => {
                field.varints(MESSAGE, number, |v| into.negative_deltas.push(unzigzag(v)))?;
            }
            10 => field.doubles(MESSAGE, number, &mut fields.negative_counts)?,
            11 => into.positive_spans.push(bucket_span(field.bytes(MESSAGE, number)?)?),
            12 => {
                field.varints(MESSAGE, number, |v| into.positive_deltas.push(unzigzag(v)))?;
            }
            13 => field.doubles(MESSAGE, number, &mut fields.positive_counts)?,
            14 => into.reset_hint = reset_hint(field.varint(MESSAGE, number)?),
            15 => fields.at = field.varint(MESSAGE, number)? as i64,
            16 => field.doubles(MESSAGE, number, &mut into.custom_bounds)?,
            17 => fields.started = field.varint(MESSAGE, number)? as i64,
            _ => {}
        }
    }
    Ok(fields.into_sample())
}

impl Fields {
    fn into_sample(self) -> Sample {
        let at = Timestamp(self.at);
        if is_stale(self.integer.sum) {
            return Sample::stale(at);
        }
        let started = (self.started != 0).then_some(Timestamp(self.started));
        let integer = self.integer;
        let histogram = match self.float {
            None => Histogram::Integer(integer),
            Some(count) => Histogram::Float(FloatHistogram {
                reset_hint: integer.reset_hint,
                schema: integer.schema,
                zero_threshold: integer.zero_threshold,
                zero_count: self.zero_float.unwrap_or(0.0),
                count,
                sum: integer.sum,
                positive_spans: integer.positive_spans,
                negative_spans: integer.negative_spans,
                positive_buckets: self.positive_counts,
                negative_buckets: self.negative_counts,
                custom_bounds: integer.custom_bounds,
            }),
        };
        Sample { at, started, value: Value::Histogram(Arc::new(histogram)) }
    }
}

fn reset_hint(number: u64) -> ResetHint {
    match number {
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

fn put_spans(out: &mut Vec<u8>, field: u32, spans: &[BucketSpan]) {
    let mut message = Vec::with_capacity(12);
    for span in spans {
        message.clear();
        proto::put_sint(&mut message, 1, span.offset.into());
        proto::put_uint(&mut message, 2, span.length.into());
        proto::put_bytes(out, field, &message);
    }
}

/// Appends the message of a histogram at a time.
pub(super) fn encode(
    histogram: &Histogram,
    at: Timestamp,
    started: Option<Timestamp>,
    out: &mut Vec<u8>,
) {
    match histogram {
        Histogram::Integer(h) => {
            proto::put_uint_always(out, 1, h.count);
            proto::put_double(out, 3, h.sum);
            proto::put_sint(out, 4, h.schema.into());
            proto::put_double(out, 5, h.zero_threshold);
            proto::put_uint_always(out, 6, h.zero_count);
            put_spans(out, 8, &h.negative_spans);
            proto::put_packed_sints(out, 9, &h.negative_deltas);
            put_spans(out, 11, &h.positive_spans);
            proto::put_packed_sints(out, 12, &h.positive_deltas);
        }
        Histogram::Float(h) => {
            proto::put_double_always(out, 2, h.count);
            proto::put_double(out, 3, h.sum);
            proto::put_sint(out, 4, h.schema.into());
            proto::put_double(out, 5, h.zero_threshold);
            proto::put_double_always(out, 7, h.zero_count);
            put_spans(out, 8, &h.negative_spans);
            proto::put_packed_doubles(out, 10, &h.negative_buckets);
            put_spans(out, 11, &h.positive_spans);
            proto::put_packed_doubles(out, 13, &h.positive_buckets);
        }
    }
    let hint = match histogram.reset_hint() {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    proto::put_uint(out, 14, hint);
    proto::put_uint(out, 15, at.as_ms() as u64);
    let custom = match histogram {
        Histogram::Integer(h) => &h.custom_bounds,
        Histogram::Float(h) => &h.custom_bounds,
    };
    proto::put_packed_doubles(out, 16, custom);
    proto::put_uint(out, 17, started.map_or(0, |started| started.as_ms() as u64));
}
