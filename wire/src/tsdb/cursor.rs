//! Bytes read from the front: Go's fixed and variable integers.

use super::Damage;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// An error at this place.
    pub(super) fn damage(&self, what: &'static str) -> Damage {
        Damage::new(self.at(), what)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| self.damage("ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damage> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| self.damage("ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn be_u16(&mut self) -> Result<u16, Damage> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn be_u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn be_u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn be_f64(&mut self) -> Result<f64, Damage> {
        Ok(f64::from_bits(self.be_u64()?))
    }

    /// LEB128.
    pub(super) fn uvarint(&mut self) -> Result<u64, Damage> {
        let mut value = 0_u64;
        for (place, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                if place == 9 && *byte > 1 {
                    break;
                }
                self.take(place + 1)?;
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

    /// How many items of at least `bytes` bytes each follow.
    pub(super) fn count(&mut self, bytes: usize) -> Result<usize, Damage> {
        let at = *self;
        let count = self.uvarint()?;
        usize::try_from(count)
            .ok()
            .filter(|count| count.saturating_mul(bytes) <= self.remaining())
            .ok_or_else(|| at.damage("a count of more than there is"))
    }

    /// Bytes behind their length.
    pub(super) fn counted(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.count(1)?;
        self.take(length)
    }

    /// Text behind its length.
    pub(super) fn text(&mut self) -> Result<&'a str, Damage> {
        let at = *self;
        std::str::from_utf8(self.counted()?).map_err(|_| at.damage("text that is no UTF-8"))
    }
}

/// What Go's encoders write.
#[cfg(test)]
pub(super) mod put {
    pub(in super::super) fn uvarint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    pub(in super::super) fn varint(out: &mut Vec<u8>, value: i64) {
        uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
    }

    pub(in super::super) fn text(out: &mut Vec<u8>, text: &str) {
        uvarint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_come_back(unsigned: u64, signed: i64, text: String) {
            let mut bytes = Vec::new();
            put::uvarint(&mut bytes, unsigned);
            put::varint(&mut bytes, signed);
            put::text(&mut bytes, &text);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.uvarint(), Ok(unsigned));
            prop_assert_eq!(cursor.varint(), Ok(signed));
            prop_assert_eq!(cursor.text(), Ok(&*text));
            prop_assert!(cursor.is_empty());
        }
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert_eq!(
            Cursor::new(&[0xff; 12]).uvarint(),
            Err(Damage::new(0, "an integer without end"))
        );
        let more = Err(Damage::new(0, "a count of more than there is"));
        assert_eq!(Cursor::new(&[3, 1, 2]).count(1), more);
        assert_eq!(Cursor::new(&[2, 1, 2]).counted(), Ok(&[1, 2][..]));
        assert!(Cursor::new(&[1, 0xff]).text().is_err());
        assert!(Cursor::new(&[1, 2, 3]).be_u32().is_err());
    }
}
