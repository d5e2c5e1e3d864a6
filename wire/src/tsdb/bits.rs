//! Streams of bits, most significant first, as chunks have them.

use super::Damage;

/// Reads bits. Beyond the end there are zeros: [`Bits::check`] tells whether any of them was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

/// Widths of the numbers that follow prefixes of one to eight ones.
const WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bits are left.
    pub(super) fn remaining(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    /// Fails when more was taken than there is.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Damage> {
        if self.at <= self.bytes.len() * 8 { Ok(()) } else { Err(self.damage("ends too early")) }
    }

    pub(super) fn damage(&self, what: &'static str) -> Damage {
        Damage::new((self.at / 8).min(self.bytes.len()), what)
    }

    /// The next bits at the top of a word: at least 57 of them.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at >> 3..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_be_bytes(*word),
            None => rest.iter().zip(0_u32..).fold(0, |w, (b, i)| w | u64::from(*b) << (56 - 8 * i)),
        };
        word << (self.at & 7)
    }

    #[inline]
    pub(super) fn skip(&mut self, count: u32) {
        self.at = self.at.saturating_add(count as usize);
    }

    /// A number of at most 64 bits.
    #[inline]
    pub(super) fn take(&mut self, width: u32) -> u64 {
        if width == 0 {
            return 0;
        }
        if width > 56 {
            let high = self.take(width - 32);
            return high << 32 | self.take(32);
        }
        let value = self.peek() >> (64 - width);
        self.skip(width);
        value
    }

    pub(super) fn float(&mut self) -> f64 {
        f64::from_bits(self.take(64))
    }

    /// LEB128, a byte at a time.
    pub(super) fn uvarint(&mut self) -> Result<u64, Damage> {
        let mut value = 0_u64;
        for place in 0..10 {
            let byte = self.take(8);
            value |= (byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.check()?;
                return Ok(value);
            }
        }
        Err(self.damage("an integer without end"))
    }

    /// LEB128 of a number whose lowest bit is the sign.
    pub(super) fn varint(&mut self) -> Result<i64, Damage> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// The width that the next bits announce, behind them.
    #[inline]
    fn width(&mut self) -> u32 {
        let ones = self.peek().leading_ones().min(8);
        self.skip((ones + 1).min(8));
        WIDTHS.get(ones as usize).copied().unwrap_or_default()
    }

    /// A number of a width that stands before it.
    pub(super) fn varbit_unsigned(&mut self) -> u64 {
        let width = self.width();
        self.take(width)
    }

    /// The same with a sign.
    pub(super) fn varbit(&mut self) -> i64 {
        let width = self.width();
        signed(self.take(width), width)
    }
}

/// A number of `width` bits whose upper half, without its first, is that of the negative numbers.
#[inline]
pub(super) fn signed(bits: u64, width: u32) -> i64 {
    if width == 0 || width == 64 {
        return bits as i64;
    }
    if bits > 1 << (width - 1) { bits as i64 - (1 << width) } else { bits as i64 }
}

/// Floats as the bits in which each differs from the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Xor {
    bits: u64,
    trailing: u32,
    /// Of the window that was used last.
    width: u32,
}

impl Xor {
    /// Continues behind `value`.
    pub(super) fn behind(value: f64) -> Self {
        Self { bits: value.to_bits(), trailing: 0, width: 64 }
    }

    pub(super) fn value(self) -> f64 {
        f64::from_bits(self.bits)
    }

    #[inline]
    pub(super) fn next(&mut self, bits: &mut Bits<'_>) -> Result<f64, Damage> {
        let word = bits.peek();
        if word >> 63 == 0 {
            bits.skip(1);
            return Ok(self.value());
        }
        bits.skip(2);
        if word >> 62 == 0b11 {
            self.window(bits)?;
        }
        Ok(self.differ(bits))
    }

    /// Takes a new window.
    #[inline]
    pub(super) fn window(&mut self, bits: &mut Bits<'_>) -> Result<(), Damage> {
        let window = bits.take(11) as u32;
        let leading = window >> 6;
        let width = match window & 0x3f {
            0 => 64,
            width => width,
        };
        self.trailing = 64_u32
            .checked_sub(leading + width)
            .ok_or_else(|| bits.damage("a window of more than 64 bits"))?;
        self.width = width;
        Ok(())
    }

    /// The next value, whose bits differ within the window.
    #[inline]
    pub(super) fn differ(&mut self, bits: &mut Bits<'_>) -> f64 {
        self.bits ^= bits.take(self.width) << self.trailing;
        self.value()
    }
}

/// What a Prometheus server writes.
#[cfg(test)]
pub(super) mod put {
    use super::WIDTHS;

    #[derive(Default)]
    pub(in super::super) struct BitWriter {
        pub(in super::super) bytes: Vec<u8>,
        used: u32,
    }

    impl BitWriter {
        pub(in super::super) fn put(&mut self, value: u64, width: u32) {
            for shift in (0..width).rev() {
                if self.used.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                let bit = (value >> shift & 1) as u8;
                *self.bytes.last_mut().unwrap() |= bit << (7 - self.used % 8);
                self.used += 1;
            }
        }

        pub(in super::super) fn put_bytes(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.put(u64::from(*byte), 8);
            }
        }

        fn prefix(&mut self, ones: u32) {
            if ones == 8 { self.put(0xff, 8) } else { self.put((1 << (ones + 1)) - 2, ones + 1) }
        }

        pub(in super::super) fn varbit(&mut self, value: i64) {
            let fits = |width: u32| {
                let half = 1_i64 << (width - 1);
                (1 - half..=half).contains(&value)
            };
            let ones = match value {
                0 => 0,
                _ => (1..8).find(|ones| fits(WIDTHS[*ones])).unwrap_or(8),
            };
            self.prefix(ones as u32);
            self.put(value as u64, WIDTHS[ones]);
        }

        pub(in super::super) fn varbit_unsigned(&mut self, value: u64) {
            let fits = |width: u32| value < 1 << width;
            let ones = match value {
                0 => 0,
                _ => (1..8).find(|ones| fits(WIDTHS[*ones])).unwrap_or(8),
            };
            self.prefix(ones as u32);
            self.put(value, WIDTHS[ones]);
        }
    }

    /// The window is `None` until one was written.
    #[derive(Default)]
    pub(in super::super) struct XorWriter {
        pub(in super::super) before: u64,
        window: Option<(u32, u32)>,
    }

    impl XorWriter {
        pub(in super::super) fn put(&mut self, value: f64, out: &mut BitWriter) {
            let differing = value.to_bits() ^ self.before;
            self.before = value.to_bits();
            if differing == 0 {
                return out.put(0, 1);
            }
            let (leading, trailing) =
                (differing.leading_zeros().min(31), differing.trailing_zeros());
            if let Some((left, right)) = self.window
                && leading >= left
                && trailing >= right
            {
                out.put(0b10, 2);
                return out.put(differing >> right, 64 - left - right);
            }
            self.window = Some((leading, trailing));
            let width = 64 - leading - trailing;
            out.put(0b11, 2);
            out.put(u64::from(leading), 5);
            out.put(u64::from(width % 64), 6);
            out.put(differing >> trailing, width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![
            any::<i64>(),
            (0_u32..64, -2_i64..3).prop_map(|(shift, by)| (1_i64 << shift).wrapping_add(by)),
            (0_u32..63, -2_i64..3).prop_map(|(shift, by)| by - (1_i64 << shift)),
        ]
    }

    proptest! {
        #[test]
        fn numbers_and_floats_come_back(
            numbers in proptest::collection::vec(number(), 0..40),
            floats in proptest::collection::vec(
                prop_oneof![any::<u64>(), (0_u32..64).prop_map(|s| 1_u64 << s), Just(0)], 0..40),
        ) {
            let mut out = put::BitWriter::default();
            for number in &numbers {
                out.varbit(*number);
                out.varbit_unsigned(*number as u64);
            }
            let mut writer = put::XorWriter::default();
            for bits in &floats {
                writer.put(f64::from_bits(*bits), &mut out);
            }
            let mut bits = Bits::new(&out.bytes);
            for number in &numbers {
                prop_assert_eq!(bits.varbit(), *number);
                prop_assert_eq!(bits.varbit_unsigned(), *number as u64);
            }
            let mut xor = Xor::default();
            for float in &floats {
                prop_assert_eq!(xor.next(&mut bits).unwrap().to_bits(), *float);
            }
            prop_assert_eq!(bits.check(), Ok(()));
            prop_assert!(bits.remaining() < 8);
        }
    }

    #[test]
    fn what_is_taken_beyond_the_end_is_noticed() {
        let mut bits = Bits::new(&[0xff]);
        assert_eq!(bits.take(8), 0xff);
        assert_eq!(bits.check(), Ok(()));
        assert_eq!(bits.take(1), 0);
        assert_eq!(bits.check(), Err(Damage::new(1, "ends too early")));
    }

    #[test]
    fn a_window_holds_64_bits_at_most() {
        // 31 zeros before 40 bits.
        let mut out = put::BitWriter::default();
        out.put(0b11, 2);
        out.put(31, 5);
        out.put(40, 6);
        let mut xor = Xor::behind(1.0);
        let refused = xor.next(&mut Bits::new(&out.bytes)).unwrap_err();
        assert_eq!(refused.what, "a window of more than 64 bits");
    }
}
