//! The Protobuf wire format: fields read in place, fields appended to a buffer.
//!
//! Hand-written, because the messages of remote write are walked without building them.

use stint_model::histogram::BucketSpan;

/// Why a message cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field ends behind the end of its message.
    #[error("protobuf message ends in the middle of a field")]
    Truncated,
    /// A variable-length integer of more than 64 bits.
    #[error("protobuf varint is longer than 64 bits")]
    Varint,
    /// A wire type that these messages do not have, or a field numbered 0.
    #[error("invalid protobuf tag {0}")]
    Tag(u64),
    /// A field of another type than its message gives it.
    #[error("protobuf field {field} of {message} has the wrong wire type")]
    WrongType {
        /// The message it stands in.
        message: &'static str,
        /// Its number.
        field: u32,
    },
    /// Text that is not UTF-8; concerns this one series only.
    #[error("{0} is not valid UTF-8")]
    Utf8(&'static str),
    /// A reference behind the end of the symbol table; concerns this
    /// one series only.
    #[error("symbol reference {reference} is outside the table of {symbols} symbols")]
    Symbol {
        /// The reference.
        reference: u32,
        /// How many symbols the request has.
        symbols: usize,
    },
    /// Spans of a histogram that cover another number of buckets than there are.
    #[error("native histogram has {buckets} {side} buckets, but its spans cover {covered}")]
    Spans {
        /// Which buckets.
        side: &'static str,
        /// Buckets that the spans cover.
        covered: u64,
        /// Buckets that there are.
        buckets: usize,
    },
    /// Spans of a histogram that lie further apart than bucket indexes go.
    #[error("span offset {0} of a native histogram is out of range")]
    SpanOffset(i64),
    /// An odd number of label references; concerns this one series only.
    #[error("label references come in pairs, got {0} of them")]
    OddReferences(usize),
}

impl DecodeError {
    /// Whether only the element it was found in is unusable; otherwise the whole message is.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Utf8(_) | Self::Symbol { .. } | Self::OddReferences(_))
    }
}

/// The contents of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Field<'a> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// Doubles and fixed 64-bit integers.
    Fixed64(u64),
    /// Strings, bytes, messages, packed numbers.
    Bytes(&'a [u8]),
    /// Floats and fixed 32-bit integers.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    pub(crate) fn varint(self, message: &'static str, field: u32) -> Result<u64, DecodeError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(DecodeError::WrongType { message, field }),
        }
    }

    pub(crate) fn double(self, message: &'static str, field: u32) -> Result<f64, DecodeError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(DecodeError::WrongType { message, field }),
        }
    }

    pub(crate) fn bytes(self, message: &'static str, field: u32) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(DecodeError::WrongType { message, field }),
        }
    }

    pub(crate) fn text(self, message: &'static str, field: u32) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(message, field)?).map_err(|_| DecodeError::Utf8(message))
    }

    /// Hands every number of a repeated field to `push`, packed or not.
    pub(crate) fn varints(
        self,
        message: &'static str,
        field: u32,
        mut push: impl FnMut(u64),
    ) -> Result<(), DecodeError> {
        match self {
            Self::Varint(value) => push(value),
            Self::Bytes(packed) => {
                let mut reader = Reader::new(packed);
                while !reader.rest.is_empty() {
                    push(reader.varint()?);
                }
            }
            _ => return Err(DecodeError::WrongType { message, field }),
        }
        Ok(())
    }

    /// Appends every double of a repeated field to `out`, packed or not.
    pub(crate) fn doubles(
        self,
        message: &'static str,
        field: u32,
        out: &mut Vec<f64>,
    ) -> Result<(), DecodeError> {
        match self {
            Self::Fixed64(bits) => out.push(f64::from_bits(bits)),
            Self::Bytes(packed) => {
                let (chunks, rest) = packed.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(DecodeError::Truncated);
                }
                out.extend(chunks.iter().map(|bytes| f64::from_le_bytes(*bytes)));
            }
            _ => return Err(DecodeError::WrongType { message, field }),
        }
        Ok(())
    }
}

/// Walks the fields of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Bytes not yet read.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.rest {
            // Tags and most lengths.
            [byte @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            // The tenth byte has room for one bit.
            if at == 9 && *byte > 1 {
                return Err(DecodeError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.rest = self.rest.get(at + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { DecodeError::Truncated } else { DecodeError::Varint })
    }

    /// The bytes of a length-prefixed message.
    #[inline]
    pub(crate) fn delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        self.take(length)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Number and contents of the next field; `None` at the end of the message, and after an
    /// error.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        field.map(Some)
    }

    #[inline]
    fn field(&mut self) -> Result<(u32, Field<'a>), DecodeError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::Tag(tag))?;
        if number == 0 {
            return Err(DecodeError::Tag(tag));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => Field::Bytes(self.delimited()?),
            5 => Field::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => return Err(DecodeError::Tag(tag)),
        };
        Ok((number, field))
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

/// The number behind a zigzag-coded one.
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Appends `value` with seven bits to a byte.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_varint`] appends.
pub(crate) const fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[inline]
fn put_tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

/// Appends an integer field; zero is the default and takes no bytes.
#[inline]
pub(crate) fn put_uint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_tag(out, field, 0);
        put_varint(out, value);
    }
}

/// Appends an integer field even where it is zero, as members of a `oneof` need it.
pub(crate) fn put_uint_always(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, 0);
    put_varint(out, value);
}

/// Appends a `sint32` or `sint64` field; zero takes no bytes.
pub(crate) fn put_sint(out: &mut Vec<u8>, field: u32, value: i64) {
    put_uint(out, field, zigzag(value));
}

/// Appends a `sint32` or `sint64` field even where it is zero.
pub(crate) fn put_sint_always(out: &mut Vec<u8>, field: u32, value: i64) {
    put_uint_always(out, field, zigzag(value));
}

/// Appends a double field; positive zero takes no bytes.
#[inline]
pub(crate) fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    if value.to_bits() != 0 {
        put_double_always(out, field, value);
    }
}

/// Appends a double field even where it is zero.
pub(crate) fn put_double_always(out: &mut Vec<u8>, field: u32, value: f64) {
    put_tag(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a string, bytes or message field, also an empty one.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_tag(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a string field; the empty string takes no bytes.
#[inline]
pub(crate) fn put_text(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, field, text.as_bytes());
    }
}

/// Appends a packed field of zigzag-coded numbers; none take no bytes.
pub(crate) fn put_packed_sints(out: &mut Vec<u8>, field: u32, values: &[i64]) {
    if values.is_empty() {
        return;
    }
    put_tag(out, field, 2);
    put_varint(out, values.iter().map(|value| varint_len(zigzag(*value)) as u64).sum());
    for value in values {
        put_varint(out, zigzag(*value));
    }
}

/// Appends a packed field of doubles; none take no bytes.
pub(crate) fn put_packed_doubles(out: &mut Vec<u8>, field: u32, values: &[f64]) {
    if values.is_empty() {
        return;
    }
    put_tag(out, field, 2);
    put_varint(out, values.len() as u64 * 8);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Decodes a `BucketSpan`, which exposition and remote write share.
pub(crate) fn bucket_span(message: &[u8]) -> Result<BucketSpan, DecodeError> {
    let mut span = BucketSpan { offset: 0, length: 0 };
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => span.offset = unzigzag(field.varint("BucketSpan", number)?) as i32,
            2 => span.length = field.varint("BucketSpan", number)? as u32,
            _ => {}
        }
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlong_and_truncated_varints_are_refused() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(DecodeError::Varint));
        assert_eq!(Reader::new(&[0x80; 3]).varint(), Err(DecodeError::Truncated));
        let mut largest = [0xff; 10];
        largest[9] = 1;
        assert_eq!(Reader::new(&largest).varint(), Ok(u64::MAX));
    }

    #[test]
    fn a_length_beyond_the_message_is_refused() {
        assert_eq!(Reader::new(&[0x0a, 5, 1]).next(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0x09, 0]).next(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0x0b]).next(), Err(DecodeError::Tag(0x0b)));
        assert_eq!(Reader::new(&[0x02, 0]).next(), Err(DecodeError::Tag(2)));
    }

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<u64>(), signed in any::<i64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(Reader::new(&out).varint(), Ok(value));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }
}
