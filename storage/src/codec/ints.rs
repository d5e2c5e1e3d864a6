//! Streams of 64-bit integers: constant, or residuals of order 0, 1 or 2, divided by what all
//! have in common, in bit-packed blocks. Values are taken against the smallest or the middle one,
//! differences as they are or against the middle one.
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

/// An estimate is off by no more than one part in so many.
const ESTIMATE_OFF: u64 = 12;

/// So many values tell what is in their middle.
const MIDDLE_OF: usize = 31;

/// What the residuals are taken against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The smallest value, or a middle one.
    Value,
    /// The value before.
    Delta,
    /// The difference before.
    DeltaOfDelta,
    /// The value before and a middle difference.
    Drift,
}

/// Appends `values`.
pub fn put(values: &[i64], out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    if values.iter().all(|value| value == first) {
        out.push(CONSTANT);
        varint::put_signed(out, *first);
        return;
    }
    let (best, second) = Plan::cheapest(values);
    let best = Stream::of(values, &best);
    // What was estimated is not quite what it takes.
    let stream = match second.map(|second| Stream::of(values, &second)) {
        Some(second) if second.length() < best.length() => second,
        _ => best,
    };
    stream.put(*first, out);
}

/// How to take residuals.
#[derive(Clone, Copy)]
struct Plan {
    order: Order,
    signed: bool,
    /// What is taken off: the smallest or a middle value, or a middle difference.
    base: i64,
}

/// A middle one of some of `values`.
fn middle(values: impl ExactSizeIterator<Item = i64>) -> i64 {
    let mut some = [0; MIDDLE_OF];
    let step = values.len().div_ceil(MIDDLE_OF).max(1);
    let mut count = 0;
    for (slot, value) in some.iter_mut().zip(values.step_by(step)) {
        *slot = value;
        count += 1;
    }
    let some = some.get_mut(..count).unwrap_or_default();
    if some.is_empty() { 0 } else { *some.select_nth_unstable(count / 2).1 }
}

impl Plan {
    /// Those two whose residuals have the fewest bits.
    fn cheapest(values: &[i64]) -> (Self, Option<Self>) {
        let minimum = values.iter().copied().min().unwrap_or(0);
        let center = middle(values.iter().copied());
        let drift = middle(differences(values));
        let falls = values.windows(2).any(|pair| pair.get(1) < pair.first());
        let width = |value: i64| u64::from(bits::width(zigzag(value)));
        let mut estimates = [0; 5];
        let [by_minimum, by_center, by_delta, by_drift, by_step] = &mut estimates;
        for value in values {
            *by_minimum += u64::from(bits::width(value.wrapping_sub(minimum) as u64));
            *by_center += width(value.wrapping_sub(center));
        }
        let mut before = None;
        for delta in differences(values) {
            // Without sign where none is needed.
            *by_delta += if falls { width(delta) } else { u64::from(bits::width(delta as u64)) };
            *by_drift += width(delta.wrapping_sub(drift));
            if let Some(before) = before {
                *by_step += width(delta.wrapping_sub(before));
            }
            before = Some(delta);
        }
        let plan = |order, signed, base| Self { order, signed, base };
        let plans = [
            plan(Order::Value, false, minimum),
            plan(Order::Value, true, center),
            plan(Order::Delta, falls, 0),
            plan(Order::Drift, true, drift),
            plan(Order::DeltaOfDelta, true, 0),
        ];
        let mut ranked: Vec<(u64, Self)> = estimates.into_iter().zip(plans).collect();
        if values.len() < 3 {
            ranked.truncate(3);
        }
        ranked.sort_by_key(|(estimate, _)| *estimate);
        let mut ranked = ranked.into_iter();
        let (least, best) = ranked.next().unwrap_or((0, plan(Order::Value, false, minimum)));
        let close = |(estimate, _): &(u64, Self)| estimate - least <= least / ESTIMATE_OFF;
        (best, ranked.next().filter(close).map(|(_, plan)| plan))
    }
}

fn differences(values: &[i64]) -> impl ExactSizeIterator<Item = i64> {
    values.windows(2).map(|pair| match pair {
        [before, value] => value.wrapping_sub(*before),
        _ => 0,
    })
}

/// Residuals as they are written.
struct Stream {
    plan: Plan,
    /// The first difference, where differences of differences follow.
    step: i64,
    residuals: Vec<u64>,
    divisor: Option<u64>,
}

impl Stream {
    fn of(values: &[i64], plan: &Plan) -> Self {
        let Plan { order, signed, base } = *plan;
        let fold = |value: i64| if signed { zigzag(value) } else { value as u64 };
        let mut step = 0;
        let mut residuals: Vec<u64> = match order {
            Order::Value => values.iter().map(|value| fold(value.wrapping_sub(base))).collect(),
            Order::Delta | Order::Drift => {
                differences(values).map(|delta| fold(delta.wrapping_sub(base))).collect()
            }
            Order::DeltaOfDelta => {
                let mut deltas = differences(values);
                step = deltas.next().unwrap_or(0);
                let mut before = step;
                let mut residual = |delta: i64| {
                    let residual = fold(delta.wrapping_sub(before));
                    before = delta;
                    residual
                };
                deltas.map(&mut residual).collect()
            }
        };
        let divisor = divide_by_common(&mut residuals, signed);
        Self { plan: *plan, step, residuals, divisor }
    }

    /// Bytes of the residuals.
    fn length(&self) -> usize {
        self.residuals.chunks(BLOCK).map(bits::block_len).sum()
    }

    fn put(&self, first: i64, out: &mut Vec<u8>) {
        let Plan { order, signed, base } = self.plan;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let divided = flag(self.divisor.is_some(), DIVIDED);
        out.push(RESIDUALS | ((order as u8) << 2) | flag(signed, ZIGZAG) | divided);
        varint::put_signed(out, if order == Order::Value { base } else { first });
        match order {
            Order::DeltaOfDelta => varint::put_signed(out, self.step),
            Order::Drift => varint::put_signed(out, base),
            Order::Value | Order::Delta => {}
        }
        if let Some(divisor) = self.divisor {
            varint::put(out, divisor);
        }
        for block in self.residuals.chunks(BLOCK) {
            bits::put_block(block, out);
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
        (RESIDUALS, 0) => Order::Value,
        (RESIDUALS, 1) => Order::Delta,
        (RESIDUALS, 2) => Order::DeltaOfDelta,
        (RESIDUALS, 3) => Order::Drift,
        _ => return Err(reader.corrupt("an unknown form of integers")),
    };
    let mut value = reader.signed()?;
    let mut delta = match order {
        Order::DeltaOfDelta | Order::Drift => reader.signed()?,
        Order::Value | Order::Delta => 0,
    };
    let factor = if head & DIVIDED == 0 { 1 } else { reader.varint()? as i64 };
    let mut left = count;
    // What stands before the first residual.
    match order {
        Order::Value => {}
        Order::Delta | Order::Drift => {
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
        Order::Value => {
            for (slot, raw) in pairs {
                *slot = value.wrapping_add(unfold(*raw));
            }
        }
        Order::Delta | Order::Drift => {
            // By itself the first step is done for several at a time.
            let (drift, mut sum) = (if order == Order::Drift { *delta } else { 0 }, *value);
            for (slot, raw) in pairs {
                *slot = unfold(*raw).wrapping_add(drift);
            }
            for slot in block {
                sum = sum.wrapping_add(*slot);
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
        // What varies around a middle: about as many bits as chance needs, and not as the widest.
        let random = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        let noise = |row: u64| (row * 8..row * 8 + 8).map(random).sum::<u64>() as i64;
        check(&(0..480).map(|i| 50 * i + noise(i as u64)).collect::<Vec<_>>(), 480);
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
