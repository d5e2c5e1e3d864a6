//! Remote read: `prometheus.ReadRequest`, and answers made of samples or of chunks.
//!
//! ```
//! use stint_model::sample::Sample;
//! use stint_model::time::Timestamp;
//! use stint_wire::remote_read::{ReadRequest, ResponseEncoder, ResponseType};
//! use stint_wire::remote_write::v1;
//!
//! let request = ReadRequest::decode(&[])?;
//! assert_eq!(request.response_type(), Some(ResponseType::Samples));
//!
//! // The result of a query has the shape of a remote write request.
//! let mut result = v1::Encoder::new();
//! result.series([("__name__", "up")]).sample(&Sample::float(Timestamp(1), 1.0));
//! let mut response = ResponseEncoder::default();
//! response.push(&result);
//! assert!(response.body().len() > result.body().len());
//! # Ok::<(), stint_wire::remote_read::ReadError>(())
//! ```

mod bits;
pub mod chunks;
pub mod client;

use stint_model::labels::Labels;
use stint_model::matcher::{MatchOp, Matcher, RegexError};
use stint_model::time::Timestamp;

use crate::proto::{self, DecodeError, Reader};
use crate::remote_write::v1;

/// The most queries of one request.
pub const QUERIES_MAX: usize = 1000;
/// The number of the response type that consists of samples.
const SAMPLES: u64 = 0;
/// The number of the response type that consists of chunks, in frames.
const STREAMED_CHUNKS: u64 = 1;

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    /// One message with all samples.
    Samples,
    /// Frames of encoded chunks, one series each.
    StreamedChunks,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadRequest {
    /// Each is answered by a result of its own.
    pub queries: Vec<Query>,
    /// Numbers of the response types that the reader takes, the most wanted first; empty for
    /// samples.
    pub accepted: Vec<u64>,
}

/// One query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// First time that is wanted.
    pub start: Timestamp,
    /// Last time that is wanted.
    pub end: Timestamp,
    /// The conditions that a series has to meet.
    pub matchers: Vec<Matcher>,
}

/// Why a request cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is no message of this kind.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A matcher's expression cannot be read.
    #[error(transparent)]
    Regex(#[from] RegexError),
    /// A matcher of a type that there is not.
    #[error("invalid matcher type {0}")]
    MatcherType(u64),
    /// More queries than are answered at once.
    #[error("more than {QUERIES_MAX} queries in a request")]
    TooManyQueries,
}

impl ReadRequest {
    /// Reads an uncompressed request.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn decode(body: &[u8]) -> Result<Self, ReadError> {
        const MESSAGE: &str = "ReadRequest";
        let mut request = Self::default();
        let mut reader = Reader::new(body);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 if request.queries.len() >= QUERIES_MAX => return Err(ReadError::TooManyQueries),
                1 => request.queries.push(Query::decode(field.bytes(MESSAGE, number)?)?),
                2 => field.varints(MESSAGE, number, |kind| {
                    // There are only a few, and a reader may not fill the memory with others.
                    if request.accepted.len() < 16 {
                        request.accepted.push(kind);
                    }
                })?,
                _ => {}
            }
        }
        Ok(request)
    }

    /// What to answer with: the first type of those the reader takes that there is. `None` when it
    /// takes none.
    pub fn response_type(&self) -> Option<ResponseType> {
        if self.accepted.is_empty() {
            return Some(ResponseType::Samples);
        }
        self.accepted.iter().find_map(|kind| match *kind {
            SAMPLES => Some(ResponseType::Samples),
            STREAMED_CHUNKS => Some(ResponseType::StreamedChunks),
            _ => None,
        })
    }
}

impl Query {
    fn decode(message: &[u8]) -> Result<Self, ReadError> {
        const MESSAGE: &str = "Query";
        let mut query = Self::default();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => query.start = Timestamp(field.varint(MESSAGE, number)? as i64),
                2 => query.end = Timestamp(field.varint(MESSAGE, number)? as i64),
                3 => query.matchers.push(matcher(field.bytes(MESSAGE, number)?)?),
                // 4 are hints, which only say what could be left out.
                _ => {}
            }
        }
        Ok(query)
    }
}

fn matcher(message: &[u8]) -> Result<Matcher, ReadError> {
    const MESSAGE: &str = "LabelMatcher";
    let (mut op, mut name, mut value) = (MatchOp::Equal, "", "");
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => {
                op = match field.varint(MESSAGE, number)? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    other => return Err(ReadError::MatcherType(other)),
                }
            }
            2 => name = field.text(MESSAGE, number)?,
            3 => value = field.text(MESSAGE, number)?,
            _ => {}
        }
    }
    Ok(Matcher::new(op, name, value)?)
}

/// Builds a `prometheus.ReadResponse`.
#[derive(Clone, Debug, Default)]
pub struct ResponseEncoder {
    body: Vec<u8>,
}

impl ResponseEncoder {
    /// Adds the result of the next query: the series of `result`, in order of their labels.
    pub fn push(&mut self, result: &v1::Encoder) {
        proto::put_bytes(&mut self.body, 1, result.body());
    }

    /// The response so far, uncompressed.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Builds the frames of one series: `prometheus.ChunkedReadResponse` with length and checksum.
#[derive(Clone, Debug)]
pub struct FrameEncoder {
    query: u64,
    labels: Vec<u8>,
    message: Vec<u8>,
    chunk: Vec<u8>,
    bytes_max: usize,
}

impl FrameEncoder {
    /// For the series with these `labels`, found by query number `query`. A frame is closed once
    /// its message has `bytes_max` bytes.
    pub fn new(query: usize, labels: &Labels, bytes_max: usize) -> Self {
        let mut encoded = Vec::new();
        for (name, value) in labels {
            let mut label = Vec::new();
            proto::put_text(&mut label, 1, name);
            proto::put_text(&mut label, 2, value);
            proto::put_bytes(&mut encoded, 1, &label);
        }
        let (message, chunk) = (encoded.clone(), Vec::new());
        Self { query: query as u64, labels: encoded, message, chunk, bytes_max }
    }

    /// Adds a chunk; a frame when it is full by that.
    pub fn push(&mut self, chunk: &chunks::Chunk) -> Option<Vec<u8>> {
        self.chunk.clear();
        proto::put_uint(&mut self.chunk, 1, chunk.first.0 as u64);
        proto::put_uint(&mut self.chunk, 2, chunk.last.0 as u64);
        proto::put_uint(&mut self.chunk, 3, chunk.encoding as u64);
        proto::put_bytes(&mut self.chunk, 4, &chunk.data);
        proto::put_bytes(&mut self.message, 2, &self.chunk);
        if self.message.len() >= self.bytes_max { self.finish() } else { None }
    }

    /// The last frame, if there is anything in it.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if self.message.len() == self.labels.len() {
            return None;
        }
        let mut message = Vec::with_capacity(self.message.len() + 16);
        proto::put_bytes(&mut message, 1, &self.message);
        proto::put_uint(&mut message, 2, self.query);
        self.message.truncate(self.labels.len());
        let mut frame = Vec::with_capacity(message.len() + 16);
        let mut length = message.len() as u64;
        while length >= 0x80 {
            frame.push(length as u8 | 0x80);
            length >>= 7;
        }
        frame.push(length as u8);
        frame.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
        frame.extend_from_slice(&message);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use stint_model::sample::Sample;

    use super::*;

    fn encoded(matchers: &[(u64, &str, &str)], accepted: &[u64]) -> Vec<u8> {
        let mut query = Vec::new();
        proto::put_uint(&mut query, 1, 1000);
        proto::put_uint(&mut query, 2, 2000);
        for (op, name, value) in matchers {
            let mut matcher = Vec::new();
            proto::put_uint(&mut matcher, 1, *op);
            proto::put_text(&mut matcher, 2, name);
            proto::put_text(&mut matcher, 3, value);
            proto::put_bytes(&mut query, 3, &matcher);
        }
        let mut request = Vec::new();
        proto::put_bytes(&mut request, 1, &query);
        for kind in accepted {
            proto::put_uint_always(&mut request, 2, *kind);
        }
        request
    }

    #[test]
    fn requests_are_read() {
        let all = [(0, "a", "1"), (1, "b", "2"), (2, "c", "3|4"), (3, "d", "")];
        let request = ReadRequest::decode(&encoded(&all, &[1, 0])).unwrap();
        let [query] = &request.queries[..] else { panic!("one query") };
        assert_eq!((query.start, query.end), (Timestamp(1000), Timestamp(2000)));
        let shown: Vec<String> = query.matchers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a=\"1\"", "b!=\"2\"", "c=~\"3|4\"", "d!~\"\""]);
        assert_eq!(request.accepted, [1, 0]);
        let kind = |accepted: &[u64]| {
            ReadRequest::decode(&encoded(&[], accepted)).unwrap().response_type()
        };
        assert_eq!(kind(&[]), Some(ResponseType::Samples));
        assert_eq!(kind(&[1, 0]), Some(ResponseType::StreamedChunks));
        assert_eq!(kind(&[7, 0, 1]), Some(ResponseType::Samples));
        assert_eq!(kind(&[7]), None);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refuse = |body: &[u8]| ReadRequest::decode(body).unwrap_err().to_string();
        assert!(refuse(&encoded(&[(2, "a", "(")], &[])).starts_with("error parsing regexp"));
        assert_eq!(refuse(&encoded(&[(4, "a", "")], &[])), "invalid matcher type 4");
        assert_eq!(refuse(b"\x0a\x7f"), "protobuf message ends in the middle of a field");
        let many = [10, 0].repeat(QUERIES_MAX + 1);
        assert_eq!(refuse(&many), "more than 1000 queries in a request");
    }

    #[test]
    fn results_stand_one_after_the_other() {
        let mut response = ResponseEncoder::default();
        let mut result = v1::Encoder::new();
        response.push(&result);
        result.series([("__name__", "x")]).sample(&Sample::float(Timestamp(5), 2.0));
        response.push(&result);
        let mut reader = Reader::new(response.body());
        let mut next = || reader.next().unwrap().unwrap().1.bytes("ReadResponse", 1).unwrap();
        assert_eq!(next(), b"");
        assert_eq!(v1::decode(next()).count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_panic(body: Vec<u8>) {
            // What it comes to is no matter.
            let _ = ReadRequest::decode(&body);
        }
    }
}
