//! Snappy blocks, the compression of remote write (not the framed stream format).

/// The most bytes that a received block may have when decompressed, as Prometheus has it.
pub const DECOMPRESSED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// No Snappy element expands more: three bytes copy up to 64.
const EXPANSION_MAX: usize = 22;

/// Why a block cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnappyError {
    /// The block says that it is longer than allowed.
    #[error("snappy: decoded size exceeds the {limit} bytes limit")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not a Snappy block.
    #[error("snappy: corrupt input: {0}")]
    Corrupt(String),
}

/// Replaces the contents of `out` by the compressed form of `data`, which must be shorter than
/// 4 GiB.
pub fn compress_into(data: &[u8], out: &mut Vec<u8>) -> Result<(), SnappyError> {
    let length = compress_within(data, out)?.len();
    out.truncate(length);
    Ok(())
}

/// The compressed form of `data`, which must be shorter than 4 GiB, in `room`. That grows and is not made
/// smaller, so that it need not be zeroed when it is used again.
pub fn compress_within<'r>(data: &[u8], room: &'r mut Vec<u8>) -> Result<&'r [u8], SnappyError> {
    let most = snap::raw::max_compress_len(data.len());
    if room.len() < most {
        room.resize(most, 0);
    }
    let length = snap::raw::Encoder::new().compress(data, room).map_err(corrupt)?;
    Ok(room.get(..length).unwrap_or_default())
}

/// How many bytes `block` decompresses to, as it says itself and as is possible: at most `limit`.
pub fn decompressed_bytes(block: &[u8], limit: usize) -> Result<usize, SnappyError> {
    let length = snap::raw::decompress_len(block).map_err(corrupt)?;
    if length > limit {
        return Err(SnappyError::TooLarge { limit });
    }
    if length > block.len().saturating_mul(EXPANSION_MAX) {
        let told = format!("{} bytes cannot hold {length}", block.len());
        return Err(SnappyError::Corrupt(told));
    }
    Ok(length)
}

/// Replaces the contents of `out` by what `block` decompresses to, at most `limit` bytes. Nothing
/// is allocated for a block that lies about its size. Faster where `out` is not empty: what it
/// holds need not be zeroed.
pub fn decompress_limited(
    block: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), SnappyError> {
    let length = decompressed_bytes(block, limit).inspect_err(|_| out.clear())?;
    out.resize(length, 0);
    let decompressed = snap::raw::Decoder::new().decompress(block, out);
    if let Err(error) = decompressed {
        out.clear();
        return Err(corrupt(error));
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn corrupt(error: snap::Error) -> SnappyError {
    SnappyError::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_limit_is_on_decompressed_bytes() {
        let (mut block, mut back) = (Vec::new(), Vec::new());
        compress_into(&[7; 1000], &mut block).unwrap();
        assert!(block.len() < 100);
        assert_eq!(decompress_limited(&block, 1000, &mut back), Ok(()));
        assert_eq!(back, [7; 1000]);
        assert_eq!(decompressed_bytes(&block, 1000), Ok(1000));
        let error = decompress_limited(&block, 999, &mut back).unwrap_err();
        assert_eq!(error.to_string(), "snappy: decoded size exceeds the 999 bytes limit");
        assert!(back.is_empty());
    }

    #[test]
    fn a_block_that_lies_about_its_size_allocates_nothing() {
        // 16 MiB announced, three bytes given.
        let mut back = Vec::new();
        let error = decompress_limited(&[0x80, 0x80, 0x80, 0x08, 0, 0, 0], usize::MAX, &mut back);
        assert!(matches!(error, Err(SnappyError::Corrupt(_))));
        assert_eq!(back.capacity(), 0);
    }

    proptest! {
        #[test]
        fn data_comes_back(data in proptest::collection::vec(0_u8..4, 0..5000)) {
            let (mut block, mut back) = (Vec::new(), Vec::new());
            compress_into(&data, &mut block).unwrap();
            decompress_limited(&block, data.len(), &mut back).unwrap();
            prop_assert_eq!(&back, &data);
            // In memory that holds something already.
            let mut room = vec![7; 3000];
            prop_assert_eq!(compress_within(&data, &mut room).unwrap(), block);
        }

        #[test]
        fn garbage_is_refused_without_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut back = Vec::new();
            if decompress_limited(&data, 1 << 20, &mut back).is_err() {
                prop_assert!(back.is_empty());
            }
        }
    }
}
