//! Payloads in compressed form, as checkpoints have them: a tag, the length of what is packed, and a
//! zstd frame up to the end of the payload. What is packed is items, never packed once more.

use super::PACKED;
use crate::wal::bytes::{Reader, put_uint};

/// Longer payloads are not packed, so that what claims to be one cannot ask for more memory.
const UNPACKED_BYTES_MAX: usize = 1 << 26;
/// Higher levels gain little, and cost more than the disk they save.
const LEVEL: i32 = 1;
/// What a frame begins with.
const FRAME: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// Packs payloads. Reused from record to record.
#[derive(Default)]
pub(crate) struct Packer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    record: Vec<u8>,
    frame: Vec<u8>,
}

impl Packer {
    /// The record with its payload, behind `header` bytes, packed; `None` where that is not shorter.
    pub(crate) fn pack(&mut self, record: &[u8], header: usize) -> Option<&mut Vec<u8>> {
        let payload = record.get(header..).filter(|payload| payload.len() <= UNPACKED_BYTES_MAX)?;
        if self.compressor.is_none() {
            self.compressor = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        self.frame.clear();
        self.frame.reserve(zstd::zstd_safe::compress_bound(payload.len()));
        self.compressor.as_mut()?.compress_to_buffer(payload, &mut self.frame).ok()?;
        self.record.clear();
        self.record.resize(header, 0);
        self.record.push(PACKED);
        put_uint(&mut self.record, payload.len() as u64);
        self.record.extend_from_slice(&self.frame);
        (self.record.len() < record.len()).then_some(&mut self.record)
    }
}

/// Length of what is packed, and the frame.
fn parts(payload: &[u8]) -> Option<(usize, &[u8])> {
    let mut reader = Reader(payload);
    if reader.byte()? != PACKED {
        return None;
    }
    let length = usize::try_from(reader.uint()?).ok().filter(|n| *n <= UNPACKED_BYTES_MAX)?;
    reader.0.starts_with(&FRAME).then_some((length, reader.0))
}

/// Whether a payload looks packed.
pub(super) fn is_packed(payload: &[u8]) -> bool {
    parts(payload).is_some()
}

/// What is packed, or why it cannot be told; `None` for a payload that is not packed.
pub(super) fn unpacked(payload: &[u8]) -> Option<Result<Vec<u8>, &'static str>> {
    let (length, frame) = parts(payload)?;
    let unpacked = zstd::bulk::decompress(frame, length);
    Some(match unpacked {
        Ok(unpacked) if unpacked.len() == length => Ok(unpacked),
        _ => Err("malformed packed record"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            mut payload in prop::collection::vec(0..4_u8, 0..2000),
            at: prop::sample::Index,
            byte: u8,
        ) {
            payload.insert(0, 0x80);
            let record = [&[0; 8], &payload[..]].concat();
            let mut packer = Packer::default();
            for _ in 0..2 {
                match packer.pack(&record, 8) {
                    None => prop_assert!(payload.len() < 200, "{} bytes", payload.len()),
                    Some(packed) => {
                        prop_assert!(packed.len() < record.len());
                        prop_assert!(is_packed(&packed[8..]));
                        prop_assert_eq!(unpacked(&packed[8..]).unwrap().unwrap(), &payload[..]);
                        let short = &packed[8..packed.len() - 1];
                        prop_assert!(unpacked(short).unwrap().is_err());
                        // Whatever is wrong with it, it does no harm.
                        let mut hurt = packed[8..].to_vec();
                        let at = at.index(hurt.len());
                        hurt[at] = byte;
                        let _ = unpacked(&hurt);
                    }
                }
            }
            prop_assert!(unpacked(&payload).is_none());
        }
    }

    #[test]
    fn what_claims_to_be_too_long_is_not_unpacked() {
        let mut payload = vec![PACKED];
        put_uint(&mut payload, UNPACKED_BYTES_MAX as u64 + 1);
        payload.extend_from_slice(&FRAME);
        assert!(!is_packed(&payload) && unpacked(&payload).is_none());
        let record = vec![0x80; 8 + UNPACKED_BYTES_MAX + 1];
        assert!(Packer::default().pack(&record, 8).is_none());
    }
}
