//! Bits as Prometheus' chunks have them: the highest of a byte first, numbers in classes of width.

use stint_model::time::Timestamp;

/// A stream of bits that is being written.
#[derive(Debug, Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// How many bits of the last byte are not written yet.
    free: u32,
}

/// Prefix, its width, and the width of the number behind it.
const CLASSES: [(u64, u32, u32); 7] = [
    (0b10, 2, 3),
    (0b110, 3, 6),
    (0b1110, 4, 9),
    (0b1_1110, 5, 12),
    (0b11_1110, 6, 18),
    (0b111_1110, 7, 25),
    (0b1111_1110, 8, 56),
];

/// Whether `value` fits into `width` bits, where one more than half of the numbers is positive.
const fn fits(value: i64, width: u32) -> bool {
    let half = 1_i64 << (width - 1);
    -(half - 1) <= value && value <= half
}

impl Bits {
    /// After whole bytes.
    pub(super) fn after(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), free: 0 }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Room so far, in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The lowest `width` bits of `value`, 64 at most.
    pub(super) fn put(&mut self, value: u64, width: u32) {
        let mut left = width;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let now = left.min(self.free);
            let part = (value >> (left - now)) & ((1 << now) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (part << (self.free - now)) as u8;
            }
            self.free -= now;
            left -= now;
        }
    }

    pub(super) fn put_f64(&mut self, value: f64) {
        self.put(value.to_bits(), 64);
    }

    /// Seven bits to a byte, the lowest first.
    pub(super) fn put_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }

    /// The same with the sign in the lowest bit.
    pub(super) fn put_varint(&mut self, value: i64) {
        self.put_uvarint(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(super) fn put_int(&mut self, value: i64) {
        if value == 0 {
            return self.put(0, 1);
        }
        let class = CLASSES.iter().find(|(_, _, width)| fits(value, *width));
        self.put_class(value as u64, class);
    }

    pub(super) fn put_uint(&mut self, value: u64) {
        if value == 0 {
            return self.put(0, 1);
        }
        let class = CLASSES.iter().find(|(_, _, width)| value >> width == 0);
        self.put_class(value, class);
    }

    /// A number of a class, or one that is in none and written whole.
    fn put_class(&mut self, value: u64, class: Option<&(u64, u32, u32)>) {
        let (prefix, bits, width) = class.copied().unwrap_or((0xff, 8, 64));
        self.put(prefix, bits);
        self.put(value, width);
    }
}

/// Floats, each as what differs from the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Xor {
    last: u64,
    /// Zero bits before and behind the last difference; none before the first.
    window: Option<(u32, u32)>,
}

impl Xor {
    pub(super) fn first(bits: &mut Bits, value: f64) -> Self {
        bits.put_f64(value);
        Self { last: value.to_bits(), window: None }
    }

    pub(super) fn put(&mut self, bits: &mut Bits, value: f64) {
        let difference = value.to_bits() ^ self.last;
        self.last = value.to_bits();
        if difference == 0 {
            return bits.put(0, 1);
        }
        // The count of leading zeros has five bits.
        let (leading, trailing) = (difference.leading_zeros().min(31), difference.trailing_zeros());
        let kept = self.window.filter(|(l, t)| leading >= *l && trailing >= *t);
        if let Some((leading, trailing)) = kept {
            bits.put(0b10, 2);
            bits.put(difference >> trailing, 64 - leading - trailing);
            return;
        }
        self.window = Some((leading, trailing));
        let width = 64 - leading - trailing;
        bits.put(0b11, 2);
        bits.put(u64::from(leading), 5);
        // 64 is written as 0, which is no width.
        bits.put(u64::from(width), 6);
        bits.put(difference >> trailing, width);
    }
}

/// Numbers, each as how the difference to the one before differs from the difference before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Differences {
    last: i64,
    difference: i64,
}

impl Differences {
    pub(super) const fn after(first: i64) -> Self {
        Self { last: first, difference: 0 }
    }

    /// The difference of differences of the next number.
    pub(super) const fn next(&mut self, value: i64) -> i64 {
        let difference = value.wrapping_sub(self.last);
        let second = difference.wrapping_sub(self.difference);
        (self.last, self.difference) = (value, difference);
        second
    }
}

/// Times of float chunks, which have classes of their own.
pub(super) fn put_time(bits: &mut Bits, second_difference: i64) {
    match second_difference {
        0 => bits.put(0, 1),
        value if fits(value, 14) => {
            bits.put(0b10, 2);
            bits.put(value as u64, 14);
        }
        value if fits(value, 17) => {
            bits.put(0b110, 3);
            bits.put(value as u64, 17);
        }
        value if fits(value, 20) => {
            bits.put(0b1110, 4);
            bits.put(value as u64, 20);
        }
        value => {
            bits.put(0b1111, 4);
            bits.put(value as u64, 64);
        }
    }
}

/// The number of a time, as chunks have it.
pub(super) const fn millis(at: Timestamp) -> i64 {
    at.0
}
