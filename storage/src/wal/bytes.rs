//! Variable-length integers, and a reader that never runs over the end.

pub(super) fn put_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_int(out: &mut Vec<u8>, value: i64) {
    put_uint(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub(super) fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Takes values off the front of a payload; `None` where it ends too early.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    pub(crate) fn uint(&mut self) -> Option<u64> {
        if let Some((first, rest)) = self.0.split_first()
            && *first < 0x80
        {
            self.0 = rest;
            return Some(u64::from(*first));
        }
        self.long_uint()
    }

    fn long_uint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return (shift < 63 || byte <= 1).then_some(value);
            }
        }
        None
    }

    #[inline]
    pub(crate) fn int(&mut self) -> Option<i64> {
        let value = self.uint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn f64(&mut self) -> Option<f64> {
        let bytes = self.take(8)?.try_into().ok()?;
        Some(f64::from_bits(u64::from_le_bytes(bytes)))
    }

    /// A count of things that take at least one byte each, so that a damaged count cannot ask
    /// for more memory than there is payload.
    pub(crate) fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.uint()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_come_back(a: u64, b: i64) {
            let mut out = Vec::new();
            put_uint(&mut out, a);
            put_int(&mut out, b);
            let mut reader = Reader(&out);
            prop_assert_eq!(reader.uint(), Some(a));
            prop_assert_eq!(reader.int(), Some(b));
            prop_assert!(reader.is_empty());
            let mut short = Reader(&out[..out.len() - 1]);
            prop_assert!(short.uint().and_then(|_| short.int()).is_none());
        }
    }

    #[test]
    fn overlong_integers_are_refused() {
        assert_eq!(Reader(&[0xff; 11]).uint(), None);
        assert_eq!(Reader(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]).uint(), None);
    }
}
