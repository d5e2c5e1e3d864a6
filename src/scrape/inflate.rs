//! Uncompressing bodies as they usually are: small, and of one member.

use libdeflater::Decompressor;
use parking_lot::Mutex;

/// Bytes that one compressed byte can become.
const EXPANSION_MAX: usize = 1032;
/// What every member begins with.
const MEMBER: &[u8] = &[0x1f, 0x8b, 8];
/// Bytes of a member's check sum and length behind it.
const TRAILER: usize = 8;

/// Uncompresses bodies with memory that it keeps, as much as is used at once.
#[derive(Default)]
pub(super) struct Inflater(Mutex<Vec<Decompressor>>);

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflater")
    }
}

impl Inflater {
    /// States that are kept.
    const KEPT_MAX: usize = 8;

    /// Replaces the contents of `plain` by the whole of what `body` holds, if that is at most `limit`
    /// bytes; false where it is more, or is not of one member, or anything is wrong with it.
    pub(super) fn inflate(&self, body: &[u8], limit: usize, plain: &mut Vec<u8>) -> bool {
        self.at_once(body, limit, plain).is_some()
    }

    /// A body of one member says how long it is.
    fn at_once(&self, body: &[u8], limit: usize, plain: &mut Vec<u8>) -> Option<()> {
        let (rest, trailer) = body.split_at_checked(body.len().checked_sub(TRAILER)?)?;
        let (sum, length) = trailer.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        let is_plausible = length <= limit && length <= body.len().saturating_mul(EXPANSION_MAX);
        // What looks like a second member is left to who can tell.
        let may_go_on = memchr::memmem::find(rest.get(MEMBER.len()..)?, MEMBER).is_some();
        if !is_plausible || may_go_on {
            return None;
        }
        // What it held before is not zeroed again.
        plain.resize(length, 0);
        let spare = self.0.lock().pop();
        let mut decompressor = spare.unwrap_or_default();
        let written = decompressor.gzip_decompress(body, plain);
        let mut kept = self.0.lock();
        if kept.len() < Self::KEPT_MAX {
            kept.push(decompressor);
        }
        drop(kept);
        // It does not look behind the member: only what the end of the body speaks of is all of it.
        let is_whole =
            written.ok()? == length && libdeflater::crc32(plain) == u32::from_le_bytes(*sum);
        is_whole.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use proptest::prelude::*;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(body: &[u8], limit: usize) -> Option<Vec<u8>> {
        let mut plain = b"what was there before".to_vec();
        Inflater::default().inflate(body, limit, &mut plain).then_some(plain)
    }

    #[test]
    fn only_whole_small_bodies_of_one_member_are_taken() {
        let whole = gzip(b"up 1\n");
        assert_eq!(inflate(&whole, 5).unwrap(), b"up 1\n");
        assert_eq!(inflate(&gzip(b""), 1000).unwrap(), b"");
        assert_eq!(inflate(&whole, 4), None);
        // Of two members, as some servers send it; the same twice, too.
        assert_eq!(inflate(&[gzip(b"down 0\n"), whole.clone()].concat(), 100), None);
        assert_eq!(inflate(&[&whole[..], &whole].concat(), 100), None);
        assert_eq!(inflate(&whole[..whole.len() - 5], 100), None);
        assert_eq!(inflate(b"up 1\n", 100), None);
        assert_eq!(inflate(&[&whole[..], b"more"].concat(), 100), None);
    }

    #[test]
    fn what_lies_about_its_length_gets_no_memory() {
        let mut body = gzip(b"up 1\n");
        let end = body.len();
        body[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut plain = Vec::new();
        assert!(!Inflater::default().inflate(&body, usize::MAX, &mut plain));
        assert!(plain.capacity() < 1 << 16);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_the_long_way_gives(
            texts in prop::collection::vec(prop::collection::vec(0..4_u8, 0..300), 1..3),
            hurt in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut body = texts.iter().flat_map(|text| gzip(text)).collect::<Vec<_>>();
            if let Some((at, byte)) = hurt {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let mut expected = Vec::new();
            let long = flate2::bufread::MultiGzDecoder::new(&body[..]).read_to_end(&mut expected);
            match inflate(&body, 1 << 20) {
                Some(plain) => {
                    prop_assert!(long.is_ok());
                    prop_assert_eq!(plain, expected);
                }
                None => prop_assert!(texts.len() > 1 || hurt.is_some()),
            }
        }
    }
}
