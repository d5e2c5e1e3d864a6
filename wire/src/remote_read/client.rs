//! The reader's side: requests out, both kinds of answers in.

use stint_model::matcher::MatchOp;
use stint_model::time::Timestamp;

use super::Query;
use crate::proto::{self, DecodeError, Reader};
use crate::tsdb::chunk::Encoding;

/// The number of the response type that consists of samples.
pub const SAMPLES: u64 = 0;
/// The number of the response type that consists of chunks, one frame after the other.
pub const STREAMED_CHUNKS: u64 = 1;

/// The longest frame that is taken.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// A request for `queries`, uncompressed; `accepted` are response types, the most wanted first.
pub fn encode(queries: &[Query], accepted: &[u64]) -> Vec<u8> {
    let mut request = Vec::new();
    for query in queries {
        let mut message = Vec::new();
        proto::put_uint(&mut message, 1, query.start.0 as u64);
        proto::put_uint(&mut message, 2, query.end.0 as u64);
        for matcher in &query.matchers {
            let op = match matcher.op() {
                MatchOp::Equal => 0,
                MatchOp::NotEqual => 1,
                MatchOp::Regex => 2,
                MatchOp::NotRegex => 3,
            };
            let mut part = Vec::new();
            proto::put_uint(&mut part, 1, op);
            proto::put_text(&mut part, 2, matcher.name());
            proto::put_text(&mut part, 3, matcher.value());
            proto::put_bytes(&mut message, 3, &part);
        }
        proto::put_bytes(&mut request, 1, &message);
    }
    for kind in accepted {
        proto::put_uint_always(&mut request, 2, *kind);
    }
    request
}

/// Why an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is no message of this kind.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A frame that is longer than any may be.
    #[error("a frame of {0} bytes; {FRAME_BYTES_MAX} are taken")]
    TooLong(u64),
    /// A frame that was changed on its way.
    #[error("the checksum of a frame does not match")]
    Checksum,
    /// The answer ends inside of a frame.
    #[error("the answer ends in the middle of a frame")]
    CutShort,
}

/// The results of an answer made of samples, uncompressed: one for each query, which
/// [`crate::remote_write::v1::decode`] reads.
pub fn results(body: &[u8]) -> impl Iterator<Item = Result<&[u8], AnswerError>> {
    let mut reader = Some(Reader::new(body));
    std::iter::from_fn(move || {
        loop {
            match reader.as_mut()?.next() {
                Ok(Some((1, field))) => {
                    return Some(field.bytes("ReadResponse", 1).map_err(AnswerError::from));
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    reader = None;
                    return Some(Err(error.into()));
                }
            }
        }
    })
}

/// Frames of an answer made of chunks, put together from the pieces in which it comes.
#[derive(Debug, Default)]
pub struct Frames {
    held: Vec<u8>,
    /// What of it was taken.
    taken: usize,
}

impl Frames {
    /// Adds what came next.
    pub fn push(&mut self, piece: &[u8]) {
        self.held.drain(..self.taken);
        self.taken = 0;
        self.held.extend_from_slice(piece);
    }

    /// The next frame, where it is there whole.
    ///
    /// # Errors
    /// It is too long, or was changed on its way. Nothing behind it can be read.
    #[expect(clippy::should_implement_trait, reason = "frames borrow what is held")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, AnswerError> {
        let rest = self.held.get(self.taken..).unwrap_or_default();
        let Some((length, used)) = length(rest)? else { return Ok(None) };
        let Some((checksum, behind)) = rest.get(used..).and_then(|r| r.split_first_chunk::<4>())
        else {
            return Ok(None);
        };
        let Some(frame) = behind.get(..length) else { return Ok(None) };
        if crc32c::crc32c(frame) != u32::from_be_bytes(*checksum) {
            return Err(AnswerError::Checksum);
        }
        self.taken += used + 4 + length;
        Ok(Some(frame))
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// Something is left that is no whole frame.
    pub fn finish(&self) -> Result<(), AnswerError> {
        if self.taken == self.held.len() { Ok(()) } else { Err(AnswerError::CutShort) }
    }
}

/// The length of a frame and the bytes that it takes; `None` where more has to come first.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, AnswerError> {
    let mut length = 0_u64;
    for (place, byte) in bytes.iter().enumerate() {
        if place == 10 {
            return Err(DecodeError::Varint.into());
        }
        length |= u64::from(byte & 0x7f) << (7 * place).min(63);
        if byte & 0x80 == 0 {
            let usable = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
            return usable
                .map(|length| Some((length, place + 1)))
                .ok_or(AnswerError::TooLong(length));
        }
    }
    Ok(None)
}

/// Chunks of one series, as a frame has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChunkedSeries<'a> {
    /// Name and value of each label.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The chunks.
    pub chunks: Vec<Chunk<'a>>,
}

/// A chunk. It may reach beyond what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Time of its first sample.
    pub first: Timestamp,
    /// Time of its last sample.
    pub last: Timestamp,
    /// How it is encoded.
    pub encoding: Encoding,
    /// The chunk.
    pub data: &'a [u8],
}

/// The series of a frame.
///
/// # Errors
/// It is no message of this kind.
pub fn chunked_series(frame: &[u8]) -> Result<Vec<ChunkedSeries<'_>>, AnswerError> {
    const MESSAGE: &str = "ChunkedReadResponse";
    let mut all = Vec::new();
    let mut reader = Reader::new(frame);
    while let Some((number, field)) = reader.next()? {
        if number == 1 {
            all.push(series(field.bytes(MESSAGE, number)?)?);
        }
    }
    Ok(all)
}

fn series(message: &[u8]) -> Result<ChunkedSeries<'_>, DecodeError> {
    const MESSAGE: &str = "ChunkedSeries";
    let mut series = ChunkedSeries::default();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => series.labels.push(label(field.bytes(MESSAGE, number)?)?),
            2 => series.chunks.push(chunk(field.bytes(MESSAGE, number)?)?),
            _ => {}
        }
    }
    Ok(series)
}

fn label(message: &[u8]) -> Result<(&str, &str), DecodeError> {
    const MESSAGE: &str = "Label";
    let mut label = ("", "");
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => label.0 = field.text(MESSAGE, number)?,
            2 => label.1 = field.text(MESSAGE, number)?,
            _ => {}
        }
    }
    Ok(label)
}

fn chunk(message: &[u8]) -> Result<Chunk<'_>, DecodeError> {
    const MESSAGE: &str = "Chunk";
    let (mut first, mut last) = (Timestamp(0), Timestamp(0));
    let (mut encoding, mut data): (u64, &[u8]) = (0, &[]);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => first = Timestamp(field.varint(MESSAGE, number)? as i64),
            2 => last = Timestamp(field.varint(MESSAGE, number)? as i64),
            3 => encoding = field.varint(MESSAGE, number)?,
            4 => data = field.bytes(MESSAGE, number)?,
            _ => {}
        }
    }
    let encoding = Encoding(u8::try_from(encoding).unwrap_or(u8::MAX));
    Ok(Chunk { first, last, encoding, data })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stint_model::matcher::Matcher;

    use super::super::ReadRequest;
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_meant() {
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let matchers = ops.map(|op| Matcher::new(op, "a", "b|c").unwrap());
        let query = Query { start: Timestamp(-5), end: Timestamp(70), matchers: matchers.to_vec() };
        let body = encode(&[query.clone(), Query::default()], &[STREAMED_CHUNKS, SAMPLES]);
        let request = ReadRequest::decode(&body).unwrap();
        assert_eq!(request.queries, [query, Query::default()]);
        assert_eq!(request.accepted, [1, 0]);
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut length = payload.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(&crc32c::crc32c(payload).to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    fn message() -> Vec<u8> {
        let (mut label, mut chunk, mut series, mut frame) = (vec![], vec![], vec![], vec![]);
        proto::put_text(&mut label, 1, "__name__");
        proto::put_text(&mut label, 2, "up");
        proto::put_uint(&mut chunk, 1, 10);
        proto::put_uint(&mut chunk, 2, 20);
        proto::put_uint(&mut chunk, 3, 2);
        proto::put_bytes(&mut chunk, 4, b"data");
        proto::put_bytes(&mut series, 1, &label);
        proto::put_bytes(&mut series, 2, &chunk);
        proto::put_bytes(&mut frame, 1, &series);
        frame
    }

    #[test]
    fn series_of_a_frame_are_read() {
        let message = message();
        let chunk = Chunk {
            first: Timestamp(10),
            last: Timestamp(20),
            encoding: Encoding::HISTOGRAM,
            data: b"data",
        };
        let want = ChunkedSeries { labels: vec![("__name__", "up")], chunks: vec![chunk] };
        assert_eq!(chunked_series(&message), Ok(vec![want]));
        assert!(chunked_series(&message[..message.len() - 1]).is_err());
    }

    #[test]
    fn frames_that_are_damaged_or_too_long_are_refused() {
        let mut frames = Frames::default();
        let mut bytes = framed(&message());
        frames.push(&bytes[..bytes.len() - 1]);
        assert_eq!(frames.next(), Ok(None));
        assert_eq!(frames.finish(), Err(AnswerError::CutShort));
        *bytes.last_mut().unwrap() ^= 1;
        frames.push(&bytes[bytes.len() - 1..]);
        assert_eq!(frames.next(), Err(AnswerError::Checksum));
        let mut frames = Frames::default();
        frames.push(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(frames.next(), Err(AnswerError::TooLong(u64::from(u32::MAX))));
    }

    proptest! {
        #[test]
        fn frames_come_whole_however_they_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..6),
            piece in 1..300_usize,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                frames.push(piece);
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame.to_vec());
                }
            }
            prop_assert_eq!(frames.finish(), Ok(()));
            prop_assert_eq!(found, payloads);
        }

        #[test]
        fn no_bytes_make_reading_panic(body: Vec<u8>) {
            let _ = chunked_series(&body);
            let _ = results(&body).count();
        }
    }
}
