//! Streams of 64-bit integers: constant, or residuals of order 0, 1 or 2, divided by what all
//! have in common, in bit-packed blocks.
//!
//! The number of integers is not stored; whoever holds the stream knows it. Arithmetic wraps, so
//! that any integers come back.

use std::ops::Range;

use super::Corruption;
use super::bits::{self, BLOCK};
use super::varint::{self, Reader, unzigzag, zigzag};

const CONSTANT: u8 = 0;
const RESIDUALS: u8 = 0x10;
const ZIGZAG: u8 = 2;
const DIVIDED: u8 = 1;

/// What the residuals are taken against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The smallest value.
    Minimum,
    /// The value before.
    Delta,
    /// The difference before.
    DeltaOfDelta,
}

/// Appends `values`.
pub fn put(values: &[i64], out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    if values.iter().all(|value| value == first) {
        out.push(CONSTANT);
        varint::put_signed(out, *first);
        return;
    }
    let (order, falls) = cheapest_order(values);
    let minimum = values.iter().copied().min().unwrap_or(*first);
    let mut residuals = residuals(values, order, falls, minimum);
    let signed = order == Order::DeltaOfDelta || (order == Order::Delta && falls);
    let divisor = divide_by_common(&mut residuals, signed);
    let mut head = RESIDUALS | ((order as u8) << 2);
    if signed {
        head |= ZIGZAG;
    }
    if divisor.is_some() {
        head |= DIVIDED;
    }
    out.push(head);
    match order {
        Order::Minimum => varint::put_signed(out, minimum),
        Order::Delta => varint::put_signed(out, *first),
        Order::DeltaOfDelta => {
            let second = values.get(1).copied().unwrap_or(*first);
            varint::put_signed(out, *first);
            varint::put_signed(out, second.wrapping_sub(*first));
        }
    }
    if let Some(divisor) = divisor {
        varint::put(out, divisor);
    }
    for block in residuals.chunks(BLOCK) {
        bits::put_block(block, out);
    }
}

/// The order whose residuals have the fewest bits, and whether any value is below the one before.
fn cheapest_order(values: &[i64]) -> (Order, bool) {
    let minimum = values.iter().copied().min().unwrap_or(0);
    let (mut bits0, mut bits1, mut bits2, mut changes) = (0_u64, 0_u64, 0_u64, 0_u64);
    let (mut before, mut delta_before) = (None, None);
    let mut falls = false;
    for value in values {
        bits0 += u64::from(bits::width(value.wrapping_sub(minimum) as u64));
        if let Some(before) = before {
            let delta = value.wrapping_sub(before);
            falls |= delta < 0;
            changes += u64::from(delta != 0);
            bits1 += u64::from(bits::width(zigzag(delta)));
            if let Some(delta_before) = delta_before {
                bits2 += u64::from(bits::width(zigzag(delta.wrapping_sub(delta_before))));
            }
            delta_before = Some(delta);
        }
        before = Some(*value);
    }
    if !falls {
        // No sign needed.
        bits1 = bits1.saturating_sub(changes);
    }
    let order = if bits0 <= bits1 && bits0 <= bits2 {
        Order::Minimum
    } else if bits1 <= bits2 || values.len() < 3 {
        Order::Delta
    } else {
        Order::DeltaOfDelta
    };
    (order, falls)
}

fn residuals(values: &[i64], order: Order, falls: bool, minimum: i64) -> Vec<u64> {
    let deltas = values.windows(2).map(|pair| match pair {
        [before, value] => value.wrapping_sub(*before),
        _ => 0,
    });
    match order {
        Order::Minimum => values.iter().map(|value| value.wrapping_sub(minimum) as u64).collect(),
        Order::Delta if falls => deltas.map(zigzag).collect(),
        Order::Delta => deltas.map(|delta| delta as u64).collect(),
        Order::DeltaOfDelta => {
            let mut before = None;
            let mut out = Vec::with_capacity(values.len());
            for delta in deltas {
                if let Some(before) = before {
                    out.push(zigzag(delta.wrapping_sub(before)));
                }
                before = Some(delta);
            }
            out
        }
    }
}

/// Divides all residuals by their greatest common divisor, if that is more than one.
fn divide_by_common(residuals: &mut [u64], signed: bool) -> Option<u64> {
    let mut common = 0;
    for residual in residuals.iter() {
        let magnitude = if signed { unzigzag(*residual).unsigned_abs() } else { *residual };
        if magnitude != 0 {
            common = greatest_common_divisor(common, magnitude);
            if common == 1 {
                return None;
            }
        }
    }
    if common < 2 {
        return None;
    }
    for residual in residuals {
        *residual = if signed {
            zigzag(unzigzag(*residual).wrapping_div(common as i64))
        } else {
            *residual / common
        };
    }
    Some(common)
}

const fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Reads `count` integers and hands them over in order, at most [`BLOCK`] at a time.
#[inline]
pub fn take(
    reader: &mut Reader<'_>,
    count: usize,
    each: impl FnMut(&[i64]),
) -> Result<(), Corruption> {
    take_until(reader, count, count, each)
}

/// Reads the first `until` of `count` integers, or a few more.
#[inline]
fn take_until(
    reader: &mut Reader<'_>,
    count: usize,
    until: usize,
    mut each: impl FnMut(&[i64]),
) -> Result<(), Corruption> {
    if count == 0 {
        return Ok(());
    }
    let head = reader.byte()?;
    if head == CONSTANT {
        let block = [reader.signed()?; BLOCK];
        let mut left = count;
        while left > 0 {
            let now = left.min(BLOCK);
            each(block.get(..now).unwrap_or_default());
            left -= now;
        }
        return Ok(());
    }
    let order = match (head & !0xf, (head >> 2) & 3) {
        (RESIDUALS, 0) => Order::Minimum,
        (RESIDUALS, 1) => Order::Delta,
        (RESIDUALS, 2) => Order::DeltaOfDelta,
        _ => return Err(reader.corrupt("an unknown form of integers")),
    };
    let mut value = reader.signed()?;
    let mut delta = if order == Order::DeltaOfDelta { reader.signed()? } else { 0 };
    let factor = if head & DIVIDED == 0 { 1 } else { reader.varint()? as i64 };
    let mut left = count;
    // What stands before the first residual.
    match order {
        Order::Minimum => {}
        Order::Delta => {
            each(&[value]);
            left -= 1;
        }
        Order::DeltaOfDelta => {
            if count < 2 {
                return Err(reader.corrupt("too few integers for their form"));
            }
            let second = value.wrapping_add(delta);
            each(&[value, second]);
            value = second;
            left -= 2;
        }
    }
    let signed = head & ZIGZAG != 0;
    let (mut raw, mut block) = ([0_u64; BLOCK], [0_i64; BLOCK]);
    while left > 0 && count - left < until {
        let now = left.min(BLOCK);
        let (raw, block) = (&mut raw[..now], &mut block[..now]);
        bits::take_block(reader, raw)?;
        let state = (&mut value, &mut delta);
        match (signed, factor) {
            (true, 1) => fold(raw, order, state, unzigzag, block),
            (true, _) => fold(raw, order, state, |raw| unzigzag(raw).wrapping_mul(factor), block),
            (false, 1) => fold(raw, order, state, |raw| raw as i64, block),
            (false, _) => fold(raw, order, state, |raw| (raw as i64).wrapping_mul(factor), block),
        }
        each(block);
        left -= now;
    }
    Ok(())
}

/// As [`take`], but hands over those at `keep` only, and leaves what is behind them unread.
#[inline]
pub fn take_part(
    reader: &mut Reader<'_>,
    count: usize,
    keep: Range<usize>,
    mut each: impl FnMut(&[i64]),
) -> Result<(), Corruption> {
    let mut at = 0;
    take_until(reader, count, keep.end, |block| {
        let place = |row: usize| row.saturating_sub(at).min(block.len());
        each(block.get(place(keep.start)..place(keep.end)).unwrap_or_default());
        at += block.len();
    })
}

/// Residuals, as stored, to integers. `unfold` undoes zigzag and division.
#[inline]
fn fold(
    raw: &[u64],
    order: Order,
    (value, delta): (&mut i64, &mut i64),
    unfold: impl Fn(u64) -> i64,
    block: &mut [i64],
) {
    let pairs = block.iter_mut().zip(raw);
    match order {
        Order::Minimum => {
            for (slot, raw) in pairs {
                *slot = value.wrapping_add(unfold(*raw));
            }
        }
        Order::Delta => {
            let mut sum = *value;
            for (slot, raw) in pairs {
                sum = sum.wrapping_add(unfold(*raw));
                *slot = sum;
            }
            *value = sum;
        }
        Order::DeltaOfDelta => {
            let (mut sum, mut step) = (*value, *delta);
            for (slot, raw) in pairs {
                step = step.wrapping_add(unfold(*raw));
                sum = sum.wrapping_add(step);
                *slot = sum;
            }
            (*value, *delta) = (sum, step);
        }
    }
}

/// Reads `count` integers into a vector; the caller bounds `count`.
pub fn take_vec(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, Corruption> {
    let mut out = Vec::with_capacity(count);
    take(reader, count, |block| out.extend_from_slice(block))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[i64], bytes_max: usize) {
        let mut bytes = Vec::new();
        put(values, &mut bytes);
        assert!(bytes.len() <= bytes_max, "{} bytes", bytes.len());
        let mut reader = Reader::new(&bytes);
        assert_eq!(take_vec(&mut reader, values.len()).unwrap(), values);
        assert!(reader.is_empty());
    }

    #[test]
    fn common_shapes_are_small() {
        check(&[], 0);
        check(&[5; 480], 2);
        check(&[i64::MIN; 3], 11);
        check(&(0..480).map(|i| 1_000 + i * 4096).collect::<Vec<_>>(), 10);
        check(&(0..480).map(|i| 7 + i % 2 * 1_000_000).collect::<Vec<_>>(), 70);
        check(&(0..480).map(|i| i * i).collect::<Vec<_>>(), 130);
    }

    #[test]
    fn extremes_come_back() {
        check(&[i64::MIN, i64::MAX, 0, i64::MIN, i64::MIN], 70);
        check(&[0, i64::MIN, 0, i64::MIN], 70);
        check(&[i64::MAX, 0, i64::MAX], 70);
    }

    proptest! {
        #[test]
        fn any_integers_come_back(
            start: i64,
            steps in proptest::collection::vec(prop_oneof![-3_i64..3, any::<i64>()], 0..300),
            factor in prop_oneof![Just(1_i64), any::<i64>()],
        ) {
            let mut value = start;
            let mut values = vec![start];
            for step in steps {
                value = value.wrapping_add(step.wrapping_mul(factor));
                values.push(value);
            }
            check(&values, usize::MAX);
        }

        #[test]
        fn a_part_is_a_part_of_the_whole(
            values in proptest::collection::vec(prop_oneof![-3_i64..3, 0_i64..1 << 40], 0..400),
            from in 0_usize..400,
            length in 0_usize..400,
        ) {
            let mut bytes = Vec::new();
            put(&values, &mut bytes);
            let keep = from.min(values.len())..(from + length).min(values.len());
            let mut part = Vec::new();
            let reader = &mut Reader::new(&bytes);
            take_part(reader, values.len(), keep.clone(), |block| part.extend_from_slice(block)).unwrap();
            prop_assert_eq!(&part, &values[keep]);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>, count in 0_usize..300) {
            if let Ok(values) = take_vec(&mut Reader::new(&bytes), count) {
                prop_assert_eq!(values.len(), count);
            }
        }
    }
}
