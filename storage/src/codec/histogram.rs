//! Columns of native histograms.
//!
//! Histograms of one series nearly always share their layout (schema, spans, bounds) and differ
//! in counts. A column stores each distinct layout once, then runs of histograms of one layout
//! and reset hint, and per run each count and each bucket as a column of its own, across time:
//! integer counts as integer streams, floats as float columns.

use std::sync::Arc;

use stint_model::Histogram;
use stint_model::histogram::{BucketSpan, FloatHistogram, IntegerHistogram, ResetHint};

use super::Corruption;
use super::ints;
use super::values;
use super::varint::{self, Reader};

/// The most buckets of one sign, spans or bounds that a histogram may have to be stored.
pub const PARTS_STORED_MAX: usize = 1 << 16;
/// The most of them that are believed when reading.
const PARTS_MAX: usize = 1 << 20;
/// The most numbers that the columns of one run may hold, so that damage asks for no huge memory.
const CELLS_MAX: usize = if cfg!(test) { 1 << 14 } else { 1 << 24 };

/// What may be stored can be read: by itself, the widest histogram is within the limits of a run.
const _: () = assert!(cfg!(test) || 2 * PARTS_STORED_MAX <= CELLS_MAX);

const FLOAT: u8 = 0x80;

/// Everything of a histogram but its counts.
#[derive(Clone, PartialEq)]
struct Layout {
    float: bool,
    schema: i32,
    zero_threshold_bits: u64,
    positive_spans: Vec<BucketSpan>,
    negative_spans: Vec<BucketSpan>,
    positive_len: usize,
    negative_len: usize,
    bounds_bits: Vec<u64>,
}

impl Layout {
    fn of(histogram: &Histogram) -> Self {
        let bits = |bounds: &[f64]| bounds.iter().map(|bound| bound.to_bits()).collect();
        match histogram {
            Histogram::Integer(h) => Self {
                float: false,
                schema: h.schema,
                zero_threshold_bits: h.zero_threshold.to_bits(),
                positive_spans: h.positive_spans.clone(),
                negative_spans: h.negative_spans.clone(),
                positive_len: h.positive_deltas.len(),
                negative_len: h.negative_deltas.len(),
                bounds_bits: bits(&h.custom_bounds),
            },
            Histogram::Float(h) => Self {
                float: true,
                schema: h.schema,
                zero_threshold_bits: h.zero_threshold.to_bits(),
                positive_spans: h.positive_spans.clone(),
                negative_spans: h.negative_spans.clone(),
                positive_len: h.positive_buckets.len(),
                negative_len: h.negative_buckets.len(),
                bounds_bits: bits(&h.custom_bounds),
            },
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(if self.float { FLOAT } else { 0 });
        varint::put_signed(out, i64::from(self.schema));
        out.extend_from_slice(&self.zero_threshold_bits.to_le_bytes());
        for spans in [&self.positive_spans, &self.negative_spans] {
            varint::put(out, spans.len() as u64);
            for span in spans {
                varint::put_signed(out, i64::from(span.offset));
                varint::put(out, u64::from(span.length));
            }
        }
        varint::put(out, self.positive_len as u64);
        varint::put(out, self.negative_len as u64);
        varint::put(out, self.bounds_bits.len() as u64);
        let bounds: Vec<f64> = self.bounds_bits.iter().map(|bits| f64::from_bits(*bits)).collect();
        values::put(&bounds, out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Corruption> {
        let float = reader.byte()? & FLOAT != 0;
        let schema = take_i32(reader)?;
        let zero_threshold_bits = reader.u64()?;
        let positive_spans = take_spans(reader)?;
        let negative_spans = take_spans(reader)?;
        let positive_len = reader.varint_up_to(PARTS_MAX)?;
        let negative_len = reader.varint_up_to(PARTS_MAX)?;
        let bounds_len = reader.varint_up_to(PARTS_MAX)?;
        let mut bounds = Vec::new();
        values::take(reader, bounds_len, &mut bounds)?;
        let bounds_bits = bounds.iter().map(|bound| bound.to_bits()).collect();
        Ok(Self {
            float,
            schema,
            zero_threshold_bits,
            positive_spans,
            negative_spans,
            positive_len,
            negative_len,
            bounds_bits,
        })
    }

    /// Columns that a run has beside those of the totals.
    fn buckets(&self) -> usize {
        self.positive_len + self.negative_len
    }

    fn bounds(&self) -> Vec<f64> {
        self.bounds_bits.iter().map(|bits| f64::from_bits(*bits)).collect()
    }
}

fn take_i32(reader: &mut Reader<'_>) -> Result<i32, Corruption> {
    i32::try_from(reader.signed()?).map_err(|_| reader.corrupt("a number of more than 32 bits"))
}

fn take_spans(reader: &mut Reader<'_>) -> Result<Vec<BucketSpan>, Corruption> {
    let count = reader.varint_up_to(PARTS_MAX)?;
    // A span takes two bytes at least.
    if count > reader.rest().len() / 2 {
        return Err(reader.corrupt("more spans than bytes"));
    }
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = take_i32(reader)?;
        let length = u32::try_from(reader.varint()?)
            .map_err(|_| reader.corrupt("a number of more than 32 bits"))?;
        spans.push(BucketSpan { offset, length });
    }
    Ok(spans)
}

const fn hint_number(hint: ResetHint) -> u8 {
    match hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    }
}

fn hint_of(number: u8, reader: &Reader<'_>) -> Result<ResetHint, Corruption> {
    match number {
        0 => Ok(ResetHint::Unknown),
        1 => Ok(ResetHint::Reset),
        2 => Ok(ResetHint::NotReset),
        3 => Ok(ResetHint::Gauge),
        _ => Err(reader.corrupt("an unknown reset hint")),
    }
}

/// Appends `histograms`; their number is not stored. What has at most [`PARTS_STORED_MAX`] parts
/// of each kind can be read back.
pub fn put<'a>(histograms: impl IntoIterator<Item = &'a Histogram>, out: &mut Vec<u8>) {
    let mut layouts: Vec<Layout> = Vec::new();
    let mut runs: Vec<(usize, ResetHint, Vec<&Histogram>)> = Vec::new();
    for histogram in histograms {
        let layout = Layout::of(histogram);
        let hint = histogram.reset_hint();
        let number = layouts.iter().position(|known| *known == layout).unwrap_or_else(|| {
            layouts.push(layout);
            layouts.len() - 1
        });
        let buckets = layouts.get(number).map_or(0, Layout::buckets);
        match runs.last_mut() {
            Some((last, last_hint, run))
                if *last == number
                    && *last_hint == hint
                    && (run.len() + 1).saturating_mul(buckets) <= CELLS_MAX =>
            {
                run.push(histogram);
            }
            _ => runs.push((number, hint, vec![histogram])),
        }
    }
    varint::put(out, layouts.len() as u64);
    for layout in &layouts {
        layout.put(out);
    }
    for (number, hint, run) in &runs {
        varint::put(out, *number as u64);
        out.push(hint_number(*hint));
        varint::put(out, run.len() as u64);
        put_run(run, out);
    }
}

fn put_run(run: &[&Histogram], out: &mut Vec<u8>) {
    let integers: Vec<&IntegerHistogram> = run
        .iter()
        .filter_map(|h| if let Histogram::Integer(h) = h { Some(h) } else { None })
        .collect();
    let floats: Vec<&FloatHistogram> = run
        .iter()
        .filter_map(|h| if let Histogram::Float(h) = h { Some(h) } else { None })
        .collect();
    // A run has one layout, so one of the two is empty.
    if floats.is_empty() {
        put_integer_run(&integers, out);
    } else {
        put_float_run(&floats, out);
    }
}

fn put_integer_run(run: &[&IntegerHistogram], out: &mut Vec<u8>) {
    let column = |pick: fn(&IntegerHistogram) -> u64| -> Vec<i64> {
        run.iter().map(|h| pick(h) as i64).collect()
    };
    ints::put(&column(|h| h.count), out);
    ints::put(&column(|h| h.zero_count), out);
    let sums: Vec<f64> = run.iter().map(|h| h.sum).collect();
    values::put(&sums, out);
    for deltas in [
        |h: &IntegerHistogram| h.positive_deltas.clone(),
        |h: &IntegerHistogram| h.negative_deltas.clone(),
    ] {
        let counts: Vec<Vec<i64>> = run.iter().map(|h| running_sums(&deltas(h))).collect();
        let buckets = counts.first().map_or(0, Vec::len);
        for bucket in 0..buckets {
            let column: Vec<i64> =
                counts.iter().map(|counts| counts.get(bucket).copied().unwrap_or(0)).collect();
            ints::put(&column, out);
        }
    }
}

fn put_float_run(run: &[&FloatHistogram], out: &mut Vec<u8>) {
    let column =
        |pick: fn(&FloatHistogram) -> f64| -> Vec<f64> { run.iter().map(|h| pick(h)).collect() };
    values::put(&column(|h| h.count), out);
    values::put(&column(|h| h.zero_count), out);
    values::put(&column(|h| h.sum), out);
    for buckets in [
        |h: &FloatHistogram| h.positive_buckets.clone(),
        |h: &FloatHistogram| h.negative_buckets.clone(),
    ] {
        let rows: Vec<Vec<f64>> = run.iter().map(|h| buckets(h)).collect();
        let count = rows.first().map_or(0, Vec::len);
        for bucket in 0..count {
            let column: Vec<f64> =
                rows.iter().map(|row| row.get(bucket).copied().unwrap_or(0.0)).collect();
            values::put(&column, out);
        }
    }
}

fn running_sums(deltas: &[i64]) -> Vec<i64> {
    let mut sum = 0_i64;
    deltas
        .iter()
        .map(|delta| {
            sum = sum.wrapping_add(*delta);
            sum
        })
        .collect()
}

/// Reads `count` histograms and hands them over in order; the caller bounds `count`.
pub fn take(
    reader: &mut Reader<'_>,
    count: usize,
    mut each: impl FnMut(Arc<Histogram>),
) -> Result<(), Corruption> {
    let layouts_count = reader.varint_up_to(count)?;
    let mut layouts = Vec::new();
    for _ in 0..layouts_count {
        layouts.push(Layout::take(reader)?);
    }
    let mut left = count;
    while left > 0 {
        let number = reader.varint_up_to(usize::MAX)?;
        let Some(layout) = layouts.get(number) else {
            return Err(reader.corrupt("a histogram of an unknown layout"));
        };
        let hint = reader.byte()?;
        let hint = hint_of(hint, reader)?;
        let run = reader.varint_up_to(left)?;
        let buckets = layout.buckets();
        // A column takes two bytes at least.
        if run == 0 || buckets > reader.rest().len() || run.saturating_mul(buckets) > CELLS_MAX {
            return Err(reader.corrupt("a run of histograms beyond its limits"));
        }
        if layout.float {
            take_float_run(reader, layout, hint, run, &mut each)?;
        } else {
            take_integer_run(reader, layout, hint, run, &mut each)?;
        }
        left -= run;
    }
    Ok(())
}

fn take_integer_run(
    reader: &mut Reader<'_>,
    layout: &Layout,
    hint: ResetHint,
    run: usize,
    each: &mut impl FnMut(Arc<Histogram>),
) -> Result<(), Corruption> {
    let counts = ints::take_vec(reader, run)?;
    let zero_counts = ints::take_vec(reader, run)?;
    let mut sums = Vec::new();
    values::take(reader, run, &mut sums)?;
    let positive = take_integer_buckets(reader, layout.positive_len, run)?;
    let negative = take_integer_buckets(reader, layout.negative_len, run)?;
    let rows = positive.into_iter().zip(negative);
    let heads = counts.into_iter().zip(zero_counts).zip(sums);
    for (((count, zero_count), sum), (positive_deltas, negative_deltas)) in heads.zip(rows) {
        each(Arc::new(Histogram::Integer(IntegerHistogram {
            reset_hint: hint,
            schema: layout.schema,
            zero_threshold: f64::from_bits(layout.zero_threshold_bits),
            zero_count: zero_count as u64,
            count: count as u64,
            sum,
            positive_spans: layout.positive_spans.clone(),
            negative_spans: layout.negative_spans.clone(),
            positive_deltas,
            negative_deltas,
            custom_bounds: layout.bounds(),
        })));
    }
    Ok(())
}

/// The deltas of each histogram of a run.
fn take_integer_buckets(
    reader: &mut Reader<'_>,
    buckets: usize,
    run: usize,
) -> Result<Vec<Vec<i64>>, Corruption> {
    let mut rows = vec![Vec::with_capacity(buckets); run];
    let mut before = vec![0_i64; run];
    for _ in 0..buckets {
        let mut slots = rows.iter_mut().zip(&mut before);
        ints::take(reader, run, |block| {
            for (count, (row, before)) in block.iter().zip(&mut slots) {
                row.push(count.wrapping_sub(*before));
                *before = *count;
            }
        })?;
    }
    Ok(rows)
}

fn take_float_run(
    reader: &mut Reader<'_>,
    layout: &Layout,
    hint: ResetHint,
    run: usize,
    each: &mut impl FnMut(Arc<Histogram>),
) -> Result<(), Corruption> {
    let mut heads = [Vec::new(), Vec::new(), Vec::new()];
    for head in &mut heads {
        values::take(reader, run, head)?;
    }
    let [counts, zero_counts, sums] = heads;
    let positive = take_float_buckets(reader, layout.positive_len, run)?;
    let negative = take_float_buckets(reader, layout.negative_len, run)?;
    let rows = positive.into_iter().zip(negative);
    let heads = counts.into_iter().zip(zero_counts).zip(sums);
    for (((count, zero_count), sum), (positive_buckets, negative_buckets)) in heads.zip(rows) {
        each(Arc::new(Histogram::Float(FloatHistogram {
            reset_hint: hint,
            schema: layout.schema,
            zero_threshold: f64::from_bits(layout.zero_threshold_bits),
            zero_count,
            count,
            sum,
            positive_spans: layout.positive_spans.clone(),
            negative_spans: layout.negative_spans.clone(),
            positive_buckets,
            negative_buckets,
            custom_bounds: layout.bounds(),
        })));
    }
    Ok(())
}

fn take_float_buckets(
    reader: &mut Reader<'_>,
    buckets: usize,
    run: usize,
) -> Result<Vec<Vec<f64>>, Corruption> {
    let mut rows = vec![Vec::with_capacity(buckets); run];
    let mut column = Vec::new();
    for _ in 0..buckets {
        column.clear();
        values::take(reader, run, &mut column)?;
        for (row, value) in rows.iter_mut().zip(&column) {
            row.push(*value);
        }
    }
    Ok(rows)
}

#[cfg(test)]
pub(crate) mod tests;
