//! Compressed bodies, within bounds.

use std::io::Read;

use crate::receive::in_flight::{Full, Held};

/// How the bytes of a body are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls `deflate`.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// By its name in `Content-Encoding` or `grpc-encoding`.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "" | "identity" => Some(Self::Identity),
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The names that [`Compression::of`] knows.
pub const NAMES: &str = "gzip, deflate, zstd";

/// Why a body cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecompressError {
    #[error(transparent)]
    Full(#[from] Full),
    #[error("the message is longer than {0} bytes; send fewer data points at once")]
    TooLarge(usize),
    #[error("the body is not valid {0:?}: {1}")]
    Damaged(Compression, std::io::Error),
}

/// The largest window of a zstd frame, as a power of two: what a frame may refer back to is held in
/// memory beside what it becomes. No encoder uses more unless it is told to.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Output is gathered in pieces of this, each with room for it.
const PIECE_BYTES: usize = 64 << 10;

/// What a body of at most `bytes_max` holds, in the memory of `buffer` unless it is the body itself; takes
/// room in `held` for what is longer than the body.
pub(super) fn decompress<'b>(
    compression: Compression,
    body: &'b [u8],
    bytes_max: usize,
    buffer: Vec<u8>,
    held: &mut Held,
) -> Result<std::borrow::Cow<'b, [u8]>, DecompressError> {
    let source: Box<dyn Read + 'b> = match compression {
        Compression::Identity if body.len() > bytes_max => {
            return Err(DecompressError::TooLarge(bytes_max));
        }
        Compression::Identity => return Ok(body.into()),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        Compression::Deflate => Box::new(flate2::read::ZlibDecoder::new(body)),
        Compression::Zstd => {
            held.grow(1 << ZSTD_WINDOW_LOG_MAX)?;
            let damaged = |error| DecompressError::Damaged(compression, error);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(damaged)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            Box::new(decoder)
        }
    };
    read(source, bytes_max, buffer, held)
        .map(Into::into)
        .map_err(|error| error.unwrap_or_else(|error| DecompressError::Damaged(compression, error)))
}

/// Reads to the end. The inner error is one of reading.
fn read(
    mut source: impl Read,
    bytes_max: usize,
    mut message: Vec<u8>,
    held: &mut Held,
) -> Result<Vec<u8>, Result<DecompressError, std::io::Error>> {
    message.clear();
    loop {
        held.grow(PIECE_BYTES).map_err(|full| Ok(full.into()))?;
        let piece = source.by_ref().take(PIECE_BYTES as u64);
        let mut piece = piece;
        let bytes = piece.read_to_end(&mut message).map_err(Err)?;
        if message.len() > bytes_max {
            return Err(Ok(DecompressError::TooLarge(bytes_max)));
        }
        if bytes < PIECE_BYTES {
            return Ok(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::metrics::Metrics;
    use crate::receive::in_flight::InFlight;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    /// In memory that another request had.
    fn decompress<'b>(
        compression: Compression,
        body: &'b [u8],
        bytes_max: usize,
        held: &mut Held,
    ) -> Result<std::borrow::Cow<'b, [u8]>, DecompressError> {
        super::decompress(compression, body, bytes_max, b"of another request".to_vec(), held)
    }

    #[test]
    fn every_compression_comes_back_within_bounds() {
        let room = InFlight::new(12 << 20, &Metrics::new());
        let bytes = vec![7; 300_000];
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&bytes).unwrap();
        let bodies = [
            (Compression::Identity, bytes.clone()),
            (Compression::Gzip, gzip(&bytes)),
            (Compression::Deflate, zlib.finish().unwrap()),
            (Compression::Zstd, zstd::encode_all(&*bytes, 1).unwrap()),
        ];
        for (compression, body) in bodies {
            let read =
                |max| decompress(compression, &body, max, &mut room.enter()).map(|m| *m == *bytes);
            assert!(read(bytes.len()).unwrap(), "{compression:?}");
            assert!(matches!(read(bytes.len() - 1), Err(DecompressError::TooLarge(_))));
        }
        let bomb = gzip(&vec![0; 16 << 20]);
        let outcome = decompress(Compression::Gzip, &bomb, 32 << 20, &mut room.enter());
        assert!(matches!(outcome, Err(DecompressError::Full(_))), "bounded by the room there is");
        let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        wide.write_all(&bytes).unwrap();
        let wide = wide.finish().unwrap();
        let outcome = decompress(Compression::Zstd, &wide, 32 << 20, &mut room.enter());
        assert!(matches!(outcome, Err(DecompressError::Damaged(..))), "a window of 128 MiB");
        let mut small = InFlight::new(4 << 20, &Metrics::new()).enter();
        let body = zstd::encode_all(&*bytes, 1).unwrap();
        let outcome = decompress(Compression::Zstd, &body, 32 << 20, &mut small);
        assert!(matches!(outcome, Err(DecompressError::Full(_))), "the window counts");
        for compression in [Compression::Gzip, Compression::Deflate, Compression::Zstd] {
            let outcome = decompress(compression, b"no such thing", 1 << 20, &mut room.enter());
            assert!(matches!(outcome, Err(DecompressError::Damaged(..))), "{compression:?}");
        }
    }
}
