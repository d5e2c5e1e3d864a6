//! Variable-length integers (LEB128, zigzag) and the checked reader that all decoders use.

use super::Corruption;

/// Appends `value`, seven bits per byte, least first.
#[inline]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed value in zigzag form.
#[inline]
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

/// Small magnitudes of either sign become small numbers.
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Reads bytes in order; everything past the end is [`Corruption`].
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// The bytes not read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Damage found at the present place.
    #[cold]
    pub fn corrupt(&self, what: &'static str) -> Corruption {
        Corruption::new(self.at, what)
    }

    /// The next `length` bytes.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Corruption> {
        match self.rest().get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.corrupt("ends too early")),
        }
    }

    /// Passes over bytes that were seen in [`Reader::rest`].
    #[inline]
    pub(super) fn skip(&mut self, length: usize) {
        self.at += length;
    }

    /// The next `N` bytes as an array.
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corruption> {
        match self.rest().first_chunk::<N>() {
            Some(taken) => {
                self.at += N;
                Ok(*taken)
            }
            None => Err(self.corrupt("ends too early")),
        }
    }

    /// One byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Corruption> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Four bytes, little endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Corruption> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Corruption> {
        self.array().map(u64::from_le_bytes)
    }

    /// A variable-length number.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Corruption> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a number of more than 64 bits"))
    }

    /// A signed variable-length number.
    #[inline]
    pub fn signed(&mut self) -> Result<i64, Corruption> {
        self.varint().map(unzigzag)
    }

    /// A variable-length number that must not exceed `max`.
    #[inline]
    pub fn varint_up_to(&mut self, max: usize) -> Result<usize, Corruption> {
        match usize::try_from(self.varint()?) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(self.corrupt("a count beyond its limit")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            put_signed(&mut bytes, signed);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert_eq!(reader.signed().unwrap(), signed);
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        let mut bytes = [0xff; 10];
        assert!(Reader::new(&bytes).varint().is_err());
        bytes[9] = 1;
        assert_eq!(Reader::new(&bytes).varint().unwrap(), u64::MAX);
        assert!(Reader::new(&bytes[..9]).varint().is_err());
    }
}
