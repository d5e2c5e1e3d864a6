//! Native histograms as bytes of a record.

use stint_model::Histogram;
use stint_model::histogram::{BucketSpan, FloatHistogram, IntegerHistogram, ResetHint};

use super::bytes::{Reader, put_f64, put_int, put_uint};

const FLOAT: u8 = 0x10;

pub(super) fn encode(out: &mut Vec<u8>, histogram: &Histogram) {
    let hint = match histogram.reset_hint() {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    match histogram {
        Histogram::Integer(h) => {
            out.push(hint);
            put_int(out, i64::from(h.schema));
            put_f64(out, h.zero_threshold);
            put_uint(out, h.zero_count);
            put_uint(out, h.count);
            put_f64(out, h.sum);
            put_spans(out, &h.positive_spans);
            put_spans(out, &h.negative_spans);
            for deltas in [&h.positive_deltas, &h.negative_deltas] {
                put_uint(out, deltas.len() as u64);
                for delta in deltas {
                    put_int(out, *delta);
                }
            }
            put_floats(out, &h.custom_bounds);
        }
        Histogram::Float(h) => {
            out.push(hint | FLOAT);
            put_int(out, i64::from(h.schema));
            for value in [h.zero_threshold, h.zero_count, h.count, h.sum] {
                put_f64(out, value);
            }
            put_spans(out, &h.positive_spans);
            put_spans(out, &h.negative_spans);
            put_floats(out, &h.positive_buckets);
            put_floats(out, &h.negative_buckets);
            put_floats(out, &h.custom_bounds);
        }
    }
}

pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Histogram> {
    let tag = reader.byte()?;
    let reset_hint = match tag & 0x0f {
        0 => ResetHint::Unknown,
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ => return None,
    };
    let schema = i32::try_from(reader.int()?).ok()?;
    match tag & 0xf0 {
        0 => Some(Histogram::Integer(IntegerHistogram {
            reset_hint,
            schema,
            zero_threshold: reader.f64()?,
            zero_count: reader.uint()?,
            count: reader.uint()?,
            sum: reader.f64()?,
            positive_spans: spans(reader)?,
            negative_spans: spans(reader)?,
            positive_deltas: ints(reader)?,
            negative_deltas: ints(reader)?,
            custom_bounds: floats(reader)?,
        })),
        FLOAT => Some(Histogram::Float(FloatHistogram {
            reset_hint,
            schema,
            zero_threshold: reader.f64()?,
            zero_count: reader.f64()?,
            count: reader.f64()?,
            sum: reader.f64()?,
            positive_spans: spans(reader)?,
            negative_spans: spans(reader)?,
            positive_buckets: floats(reader)?,
            negative_buckets: floats(reader)?,
            custom_bounds: floats(reader)?,
        })),
        _ => None,
    }
}

fn put_spans(out: &mut Vec<u8>, spans: &[BucketSpan]) {
    put_uint(out, spans.len() as u64);
    for span in spans {
        put_int(out, i64::from(span.offset));
        put_uint(out, u64::from(span.length));
    }
}

fn put_floats(out: &mut Vec<u8>, values: &[f64]) {
    put_uint(out, values.len() as u64);
    for value in values {
        put_f64(out, *value);
    }
}

fn spans(reader: &mut Reader<'_>) -> Option<Vec<BucketSpan>> {
    let count = reader.count()?;
    (0..count)
        .map(|_| {
            Some(BucketSpan {
                offset: i32::try_from(reader.int()?).ok()?,
                length: u32::try_from(reader.uint()?).ok()?,
            })
        })
        .collect()
}

fn ints(reader: &mut Reader<'_>) -> Option<Vec<i64>> {
    let count = reader.count()?;
    (0..count).map(|_| reader.int()).collect()
}

fn floats(reader: &mut Reader<'_>) -> Option<Vec<f64>> {
    let count = reader.count()?;
    (0..count).map(|_| reader.f64()).collect()
}
