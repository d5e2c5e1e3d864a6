//! Sorted strings, front-coded: each stores how much it shares with the one before, and the rest.

use super::Corruption;
use super::varint::{self, Reader};

/// Appends `text` behind its length.
pub fn put(text: &str, out: &mut Vec<u8>) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads a string that stands behind its length.
pub fn take<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Corruption> {
    let length = reader.varint_up_to(usize::MAX)?;
    let bytes = reader.take(length)?;
    std::str::from_utf8(bytes).map_err(|_| reader.corrupt("a string that is not UTF-8"))
}

/// Appends `next`, which follows `before` in a front-coded list (empty before the first).
pub fn put_next(before: &str, next: &str, out: &mut Vec<u8>) {
    let shared = before.bytes().zip(next.bytes()).take_while(|(a, b)| a == b).count();
    varint::put(out, shared as u64);
    let rest = next.as_bytes().get(shared..).unwrap_or_default();
    varint::put(out, rest.len() as u64);
    out.extend_from_slice(rest);
}

/// One string of a front-coded list: the bytes it shares with the one before, and the others.
#[derive(Clone, Copy, Debug)]
pub struct Next<'a> {
    /// Bytes shared with the string before.
    pub shared: usize,
    /// The bytes behind those.
    pub rest: &'a [u8],
}

/// Reads the next string of a front-coded list.
#[inline]
pub fn take_next<'a>(reader: &mut Reader<'a>) -> Result<Next<'a>, Corruption> {
    // Both numbers are mostly short.
    if let Some(([shared, length], behind)) = reader.rest().split_first_chunk::<2>()
        && (shared | length) & 0x80 == 0
        && let Some(rest) = behind.get(..usize::from(*length))
    {
        reader.skip(2 + rest.len());
        return Ok(Next { shared: usize::from(*shared), rest });
    }
    let shared = reader.varint_up_to(usize::MAX)?;
    let length = reader.varint_up_to(usize::MAX)?;
    Ok(Next { shared, rest: reader.take(length)? })
}

impl Next<'_> {
    /// Turns `text`, the string before, into this one.
    #[inline]
    pub fn apply(&self, text: &mut Vec<u8>) {
        text.truncate(self.shared);
        text.extend_from_slice(self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_come_back(list in proptest::collection::btree_set(".{0,20}", 0..30)) {
            let mut bytes = Vec::new();
            let mut before = "";
            for text in &list {
                put_next(before, text, &mut bytes);
                before = text;
            }
            let mut reader = Reader::new(&bytes);
            let mut text = Vec::new();
            for expected in &list {
                take_next(&mut reader).unwrap().apply(&mut text);
                prop_assert_eq!(&text, expected.as_bytes());
            }
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn strings_come_back(text in ".{0,200}") {
            let mut bytes = Vec::new();
            put(&text, &mut bytes);
            prop_assert_eq!(take(&mut Reader::new(&bytes)).unwrap(), text);
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert!(take(&mut Reader::new(&[200, 1, b'a'])).is_err());
        assert!(take(&mut Reader::new(&[1, 0xff])).is_err());
        assert!(take_next(&mut Reader::new(&[0, 9, b'a'])).is_err());
    }
}
