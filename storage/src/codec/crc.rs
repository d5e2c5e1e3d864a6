//! CRC-32C (Castagnoli), the one checksum of all formats.

/// The checksum of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The checksum of what `checksum` is of, and `bytes` behind it.
pub fn continued(checksum: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(checksum, bytes)
}

/// The checksum of `bytes` at place `place`, so that intact bytes read from a wrong place are
/// found out as well as damaged ones.
pub fn checksum_at(place: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&place.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_castagnoli() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(continued(checksum(b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn the_place_counts() {
        assert_ne!(checksum_at(1, b"abc"), checksum_at(2, b"abc"));
    }
}
