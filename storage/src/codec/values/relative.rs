//! Columns of floats as what sets them apart from another column with the same times.
//!
//! Series that count the same events in other ways move together: the buckets of one histogram,
//! its total, counters that are exported twice. The difference of two such columns is small, or
//! nothing at all, where each by itself is neither.
//!
//! `exponent u8 | integers` for decimals of one exponent, `255 | integers` for bit patterns in
//! their order; the integers are the differences.

use std::ops::Range;

use super::{
    DECIMAL, EXACT_MAX, HAS_EXCEPTIONS, POWERS, from_ordered, scaled, scaled_candidate, to_ordered,
};
use crate::codec::varint::Reader;
use crate::codec::{Corruption, bits, ints, varint};

/// In place of an exponent: differences of bit patterns.
const BITS: u8 = u8::MAX;

/// Integers and their differences stay below this, so that sums of them as floats are exact.
const MAGNITUDE_MAX: u64 = EXACT_MAX as u64 / 2;

/// About so many rows tell whether two columns move together.
const PROBES: usize = 64;

/// A column that others may be taken against.
#[derive(Debug)]
pub struct Base {
    form: u8,
    integers: Vec<i64>,
}

impl Base {
    /// The column of `values`, of which `encoded` is what [`super::put`] made; `None` where others
    /// would gain nothing from it.
    pub fn of(values: &[f64], encoded: &[u8]) -> Option<Self> {
        let form = match encoded {
            [DECIMAL, exponent, ..] if exponent & HAS_EXCEPTIONS == 0 => *exponent,
            _ => return None,
        };
        let power = *POWERS.get(usize::from(form))?;
        let integer = |value: &f64| {
            scaled(*value, power).filter(|integer| integer.unsigned_abs() < MAGNITUDE_MAX)
        };
        let integers = values.iter().map(integer).collect::<Option<Vec<i64>>>()?;
        Some(Self { form, integers })
    }

    /// Bits that some differences take without a base, and with `base`: `None` where the two
    /// columns cannot be compared.
    pub fn compare(&self, base: &Self) -> Option<(u64, u64)> {
        if self.form != base.form || self.integers.len() != base.integers.len() {
            return None;
        }
        let step = (self.integers.len() / PROBES).max(1);
        let width = |value: i64| u64::from(bits::width(varint::zigzag(value)));
        let (mut alone, mut beside) = (0, 0);
        let pairs = self.integers.windows(2).zip(base.integers.windows(2));
        for pair in pairs.step_by(step) {
            if let ([a0, a1], [b0, b1]) = pair {
                alone += width(a1 - a0);
                beside += width((a1 - a0) - (b1 - b0));
            }
        }
        Some((alone, beside))
    }

    /// Appends what sets `self` apart from `base`; false, and nothing, where that cannot be told.
    pub fn put(&self, base: &Self, out: &mut Vec<u8>) -> bool {
        if self.form != base.form || self.integers.len() != base.integers.len() {
            return false;
        }
        let pairs = self.integers.iter().zip(&base.integers);
        let differences: Vec<i64> = pairs.map(|(own, base)| own - base).collect();
        if differences.iter().any(|difference| difference.unsigned_abs() >= MAGNITUDE_MAX) {
            return false;
        }
        out.push(self.form);
        ints::put(&differences, out);
        true
    }
}

/// Appends what makes a column of its like: nothing sets them apart.
pub fn put_same(count: usize, out: &mut Vec<u8>) {
    if count > 0 {
        out.push(BITS);
        ints::put(&[0], out);
    }
}

/// Appends the values at `keep`; `base` is all of the other column.
pub fn take(
    reader: &mut Reader<'_>,
    base: &[f64],
    keep: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), Corruption> {
    if keep.is_empty() {
        return Ok(());
    }
    let form = reader.byte()?;
    if form == BITS {
        let value = |base, difference| from_ordered(to_ordered(base).wrapping_add(difference));
        return combine(reader, base, keep, out, value);
    }
    let Some(power) = POWERS.get(usize::from(form)) else {
        return Err(reader.corrupt("an unknown power of ten"));
    };
    if form == 0 {
        return combine(reader, base, keep, out, |base, difference| base + difference as f64);
    }
    combine(reader, base, keep, out, |base, difference| {
        scaled_candidate(base * power).wrapping_add(difference) as f64 / power
    })
}

/// Appends what `value` makes of the base's values at `keep` and the differences that are read.
#[inline]
fn combine(
    reader: &mut Reader<'_>,
    base: &[f64],
    keep: Range<usize>,
    out: &mut Vec<f64>,
    value: impl Fn(f64, i64) -> f64,
) -> Result<(), Corruption> {
    let mut kept = base.get(keep.clone()).unwrap_or_default();
    out.reserve(kept.len());
    ints::take_part(reader, base.len(), keep, |block| {
        let (now, later) = kept.split_at(block.len().min(kept.len()));
        out.extend(now.iter().zip(block).map(|(base, difference)| value(*base, *difference)));
        kept = later;
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(values: &[f64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        super::super::put(values, &mut bytes);
        bytes
    }

    fn bits_of(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn column() -> impl Strategy<Value = (u8, Vec<i64>)> {
        let integer = prop_oneof![8 => -1000_i64..1000, 1 => -(1_i64 << 52)..1 << 52];
        (0..4_u8, proptest::collection::vec(integer, 2..400))
    }

    proptest! {
        #[test]
        fn what_is_taken_against_another_comes_back(
            (exponent, base) in column(),
            (_, steps) in column(),
            from in 0_usize..400,
            length in 0_usize..400,
        ) {
            let power = POWERS[usize::from(exponent)];
            let float = |integer: i64| integer as f64 / power;
            let own: Vec<f64> =
                base.iter().zip(&steps).map(|(base, step)| float(base + step)).collect();
            let base: Vec<f64> = base.iter().take(own.len()).map(|m| float(*m)).collect();
            let both = (Base::of(&own, &encoded(&own)), Base::of(&base, &encoded(&base)));
            let mut bytes = Vec::new();
            if let (Some(a), Some(b)) = &both
                && a.put(b, &mut bytes)
            {
                let keep = from.min(own.len())..(from + length).min(own.len());
                let mut back = vec![0.5];
                take(&mut Reader::new(&bytes), &base, keep.clone(), &mut back).unwrap();
                prop_assert_eq!(bits_of(&back[1..]), bits_of(&own[keep]));
            } else {
                prop_assert!(bytes.is_empty());
            }
        }

        #[test]
        fn any_bits_are_like_themselves(values: Vec<u64>, from in 0_usize..100, length in 0_usize..100) {
            let values: Vec<f64> = values.into_iter().map(f64::from_bits).collect();
            let mut bytes = Vec::new();
            put_same(values.len(), &mut bytes);
            let keep = from.min(values.len())..(from + length).min(values.len());
            let mut back = Vec::new();
            take(&mut Reader::new(&bytes), &values, keep.clone(), &mut back).unwrap();
            prop_assert_eq!(bits_of(&back), bits_of(&values[keep]));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(
            bytes: Vec<u8>,
            base in proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..300),
        ) {
            let mut out = Vec::new();
            if take(&mut Reader::new(&bytes), &base, 0..base.len(), &mut out).is_ok() {
                prop_assert_eq!(out.len(), base.len());
            }
        }
    }

    #[test]
    fn what_moves_with_another_takes_next_to_nothing() {
        let base: Vec<f64> = (0..480).map(|row| f64::from(row * row % 1009 + row * 50)).collect();
        let own: Vec<f64> = base.iter().map(|value| value + 7.0).collect();
        let (a, b) = (Base::of(&own, &encoded(&own)), Base::of(&base, &encoded(&base)));
        let (a, b) = (a.unwrap(), b.unwrap());
        let (alone, beside) = a.compare(&b).unwrap();
        assert!(alone > 500 && beside == 0, "{alone} {beside}");
        let mut bytes = Vec::new();
        assert!(a.put(&b, &mut bytes));
        assert!(bytes.len() < 5 && encoded(&own).len() > 400);
    }
}
