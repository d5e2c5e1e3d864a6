//! Columns of floats, lossless to the bit, each in the smallest of six forms.
//!
//! Monitoring values are mostly constants, integers and short decimals, so the forms are tried
//! in that order:
//! 1. constant: one number;
//! 2. decimal: `v = m / 10^e` with one `e` for the column, the integers `m` as a stream;
//!    few values that do not fit (NaN with any payload, the stale marker, -0, infinities) are
//!    listed beside. Division is correctly rounded, so the check at encoding time is exact;
//! 3. decimal and drift: sums of decimals are off their decimal by a few units in the last
//!    place; both are integer streams;
//! 4. ordered bits: the bit pattern as an integer that sorts as the float does;
//! 5. differing bits (`codec::xor`).

pub mod relative;

use std::ops::Range;

use super::Corruption;
use super::ints;
use super::varint::{self, Reader};
use super::xor;

const CONSTANT_BITS: u8 = 0;
const CONSTANT_INTEGER: u8 = 1;
const DECIMAL: u8 = 2;
const DECIMAL_WITH_DRIFT: u8 = 3;
const ORDERED_BITS: u8 = 4;
const DIFFERING_BITS: u8 = 5;

/// Set in the exponent's byte when exceptions follow.
const HAS_EXCEPTIONS: u8 = 0x80;

/// Powers of ten that are exact as floats and useful as scale.
const POWERS: [f64; 14] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13];

/// Integers below this are exact as floats.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Floats of this and above have no halves.
const HALVES_MAX: f64 = EXACT_MAX / 2.0;

/// Integers of smaller magnitude are converted the short way.
const SHORT_MAX: i64 = 1 << 51;

/// In the middle of the floats that are an integer each, and none between.
const SHORT_BASE: f64 = 6_755_399_441_055_744.0;

/// Its bits.
const SHORT_BITS: u64 = SHORT_BASE.to_bits();

/// Exponents tried for sums: of nanoseconds in seconds, of microseconds.
const DRIFT_EXPONENTS: [u8; 2] = [9, 6];

/// More drift than this is no drift.
const DRIFT_MAX: u64 = 1 << 23;

/// Appends `values`; their number is not stored.
pub fn put(values: &[f64], out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        match scaled(*first, 1.0) {
            Some(integer) if integer.unsigned_abs() < 1 << 48 => {
                out.push(CONSTANT_INTEGER);
                varint::put_signed(out, integer);
            }
            _ => {
                out.push(CONSTANT_BITS);
                out.extend_from_slice(&first.to_bits().to_le_bytes());
            }
        }
        return;
    }
    if let Some(decimals) = Decimals::of(values) {
        decimals.put(values, out);
    } else {
        put_irregular(values, out);
    }
}

/// The integer `m` with `m / power` equal to `value` bit for bit.
#[inline]
fn scaled(value: f64, power: f64) -> Option<i64> {
    let product = value * power;
    let size = product.abs();
    // Not a number and infinite fail the comparison.
    if size.is_nan() || size >= EXACT_MAX {
        return None;
    }
    let integer = scaled_candidate(product);
    let same = (integer as f64 / power).to_bits() == value.to_bits();
    // Minus zero fails too: it would come back as zero.
    same.then_some(integer)
}

/// The integer next to `product`. Any near it would do where the way back is checked; this one needs
/// no library call.
#[inline]
fn scaled_candidate(product: f64) -> i64 {
    let half = if product.abs() < HALVES_MAX { 0.5_f64.copysign(product) } else { 0.0 };
    (product + half) as i64
}

/// A column as integers over a power of ten.
struct Decimals {
    exponent: u8,
    integers: Vec<i64>,
    exceptions: Vec<usize>,
}

impl Decimals {
    /// The smallest exponent at which all but a few values are integers.
    fn of(values: &[f64]) -> Option<Self> {
        let exceptions_max = values.len() / 16 + 1;
        let exponent = smallest_exponent(values, exceptions_max)?;
        let power = *POWERS.get(usize::from(exponent))?;
        let mut integers = Vec::with_capacity(values.len());
        let mut exceptions = Vec::new();
        let mut before = None;
        for (row, value) in values.iter().enumerate() {
            if let Some(integer) = scaled(*value, power) {
                if before.is_none() {
                    // Exceptions in front cost least when they look like the first integer.
                    integers.fill(integer);
                }
                before = Some(integer);
                integers.push(integer);
            } else {
                exceptions.push(row);
                integers.push(before.unwrap_or(0));
                if exceptions.len() > exceptions_max {
                    return None;
                }
            }
        }
        Some(Self { exponent, integers, exceptions })
    }

    fn put(&self, values: &[f64], out: &mut Vec<u8>) {
        out.push(DECIMAL);
        if self.exceptions.is_empty() {
            out.push(self.exponent);
        } else {
            out.push(self.exponent | HAS_EXCEPTIONS);
            varint::put(out, self.exceptions.len() as u64);
            let mut before = 0;
            for row in &self.exceptions {
                varint::put(out, (row - before) as u64);
                before = *row;
                let bits = values.get(*row).map_or(0, |value| value.to_bits());
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
        ints::put(&self.integers, out);
    }
}

fn smallest_exponent(values: &[f64], exceptions_max: usize) -> Option<u8> {
    let mut exponent = 0;
    let mut exceptions = 0;
    let mut before = None;
    for value in values {
        if before == Some(value.to_bits()) {
            continue;
        }
        before = Some(value.to_bits());
        let fitting = POWERS
            .iter()
            .enumerate()
            .skip(exponent)
            .find(|(_, power)| scaled(*value, **power).is_some());
        if let Some((fitting, _)) = fitting {
            exponent = fitting;
        } else {
            exceptions += 1;
            if exceptions > exceptions_max {
                return None;
            }
        }
    }
    Some(exponent as u8)
}

/// The smallest of the forms for values that are no decimals.
fn put_irregular(values: &[f64], out: &mut Vec<u8>) {
    let start = out.len();
    out.push(ORDERED_BITS);
    let ordered: Vec<i64> = values.iter().map(|value| to_ordered(*value)).collect();
    ints::put(&ordered, out);
    let mut other = Vec::new();
    for exponent in DRIFT_EXPONENTS {
        if put_drifting(values, exponent, &mut other) {
            replace_if_smaller(out, start, &other);
            break;
        }
    }
    // Differing bits rarely win over anything that is already this small.
    if (out.len() - start) * 8 > values.len() * 14 {
        other.clear();
        other.push(DIFFERING_BITS);
        xor::put(values, &mut other);
        replace_if_smaller(out, start, &other);
    }
}

fn replace_if_smaller(out: &mut Vec<u8>, start: usize, other: &[u8]) {
    if other.len() < out.len() - start {
        out.truncate(start);
        out.extend_from_slice(other);
    }
}

/// Writes decimals and their drift to `out` (emptied first); false when a value is too far off.
fn put_drifting(values: &[f64], exponent: u8, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some(power) = POWERS.get(usize::from(exponent)) else { return false };
    let mut integers = Vec::with_capacity(values.len());
    let mut drifts = Vec::with_capacity(values.len());
    for value in values {
        let integer = (value * power).round_ties_even();
        if integer.is_nan() || integer.abs() >= EXACT_MAX {
            return false;
        }
        let near = (integer as i64) as f64 / power;
        let drift = (value.to_bits() as i64).wrapping_sub(near.to_bits() as i64);
        if drift.unsigned_abs() > DRIFT_MAX {
            return false;
        }
        integers.push(integer as i64);
        drifts.push(drift);
    }
    out.push(DECIMAL_WITH_DRIFT);
    out.push(exponent);
    ints::put(&integers, out);
    ints::put(&drifts, out);
    true
}

/// The bit pattern as an integer that rises as the float does.
const fn to_ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// Undoes [`to_ordered`].
const fn from_ordered(ordered: i64) -> f64 {
    f64::from_bits((ordered ^ ((ordered >> 63) as u64 >> 1) as i64) as u64)
}

/// Appends `count` values to `out`; the caller bounds `count`.
pub fn take(reader: &mut Reader<'_>, count: usize, out: &mut Vec<f64>) -> Result<(), Corruption> {
    if count == 0 {
        return Ok(());
    }
    let start = out.len();
    match reader.byte()? {
        CONSTANT_BITS => out.resize(start + count, f64::from_bits(reader.u64()?)),
        CONSTANT_INTEGER => out.resize(start + count, reader.signed()? as f64),
        DECIMAL => take_decimals(reader, count, out)?,
        DECIMAL_WITH_DRIFT => {
            let power = take_power(reader)?.0;
            take_scaled(reader, count, power, out)?;
            let mut rows = out.iter_mut().skip(start);
            ints::take(reader, count, |block| {
                for drift in block {
                    if let Some(row) = rows.next() {
                        *row = f64::from_bits((row.to_bits() as i64).wrapping_add(*drift) as u64);
                    }
                }
            })?;
        }
        ORDERED_BITS => {
            out.reserve(count);
            ints::take(reader, count, |block| out.extend(block.iter().map(|v| from_ordered(*v))))?;
        }
        DIFFERING_BITS => {
            out.reserve(count);
            xor::take(reader, count, out)?;
        }
        _ => return Err(reader.corrupt("an unknown form of values")),
    }
    Ok(())
}

/// Appends the values at `keep` of `count` to `out`, and leaves what is behind them unread.
pub fn take_part(
    reader: &mut Reader<'_>,
    count: usize,
    keep: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Corruption> {
    if keep.is_empty() {
        return Ok(());
    }
    let mut ahead = *reader;
    match ahead.byte()? {
        CONSTANT_BITS | CONSTANT_INTEGER => take(reader, keep.len(), out),
        DECIMAL => {
            let (power, has_exceptions) = take_power(&mut ahead)?;
            if has_exceptions {
                return take_cut(reader, count, keep, out);
            }
            out.reserve(keep.len());
            ints::take_part(&mut ahead, count, keep, |block| push_scaled(block, power, out))
        }
        ORDERED_BITS => {
            out.reserve(keep.len());
            ints::take_part(&mut ahead, count, keep, |block| {
                out.extend(block.iter().map(|v| from_ordered(*v)));
            })
        }
        _ => take_cut(reader, count, keep, out),
    }
}

/// As [`take_part`], by way of all values up to the last that is wanted.
fn take_cut(
    reader: &mut Reader<'_>,
    count: usize,
    keep: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Corruption> {
    let start = out.len();
    take(reader, count, out)?;
    out.truncate(start + keep.end);
    out.drain(start..start + keep.start);
    Ok(())
}

/// Reads an exponent: the power of ten, and whether exceptions follow.
fn take_power(reader: &mut Reader<'_>) -> Result<(f64, bool), Corruption> {
    let byte = reader.byte()?;
    match POWERS.get(usize::from(byte & !HAS_EXCEPTIONS)) {
        Some(power) => Ok((*power, byte & HAS_EXCEPTIONS != 0)),
        None => Err(reader.corrupt("an unknown power of ten")),
    }
}

fn take_decimals(
    reader: &mut Reader<'_>,
    count: usize,
    out: &mut Vec<f64>,
) -> Result<(), Corruption> {
    let start = out.len();
    let (power, has_exceptions) = take_power(reader)?;
    let mut exceptions = *reader;
    let exceptions_count = if has_exceptions { reader.varint_up_to(count)? } else { 0 };
    for _ in 0..exceptions_count {
        reader.varint()?;
        reader.u64()?;
    }
    take_scaled(reader, count, power, out)?;
    if exceptions_count == 0 {
        return Ok(());
    }
    exceptions.varint()?;
    let mut row = 0_usize;
    for _ in 0..exceptions_count {
        row = row.saturating_add(exceptions.varint_up_to(count)?);
        let value = f64::from_bits(exceptions.u64()?);
        match out.get_mut(start + row) {
            Some(slot) => *slot = value,
            None => return Err(exceptions.corrupt("an exception beyond the column")),
        }
    }
    Ok(())
}

#[inline]
fn take_scaled(
    reader: &mut Reader<'_>,
    count: usize,
    power: f64,
    out: &mut Vec<f64>,
) -> Result<(), Corruption> {
    out.reserve(count);
    ints::take(reader, count, |block| push_scaled(block, power, out))
}

/// Appends `integers`, each divided by `power`.
#[inline]
fn push_scaled(integers: &[i64], power: f64, out: &mut Vec<f64>) {
    let wide = integers.iter().fold(0, |wide, v| wide | v.wrapping_add(SHORT_MAX));
    if (wide as u64) >= 2 * SHORT_MAX as u64 {
        out.extend(integers.iter().map(|v| *v as f64 / power));
        return;
    }
    // As the lowest bits of a float whose last digit counts ones: machines do this, unlike a
    // conversion, to several at a time.
    let short = |v: &i64| f64::from_bits(SHORT_BITS.wrapping_add_signed(*v)) - SHORT_BASE;
    if power == 1.0 {
        out.extend(integers.iter().map(short));
    } else {
        out.extend(integers.iter().map(|v| short(v) / power));
    }
}

#[cfg(test)]
mod tests;
