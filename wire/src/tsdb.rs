//! The files of a Prometheus data folder: blocks, head chunks, write-ahead log. For reading only.
//!
//! Every decoder works on the bytes of a whole file (mapped, as a rule) and trusts none of them:
//! checksums are verified, counts are bounded by what is there to be counted.
//!
//! - [`meta`]: what a block holds, and which blocks it replaces;
//! - [`index`]: series of a block, their labels, and where their chunks lie;
//! - [`segment`]: files of chunks, in a block and of the head;
//! - [`chunk`]: samples of one series;
//! - [`tombstones`]: what was deleted of a block;
//! - [`wal`]: records of the log, of its checkpoint and of the log of late samples.

pub mod chunk;
pub mod index;
pub mod meta;
pub mod segment;
pub mod tombstones;
pub mod wal;

mod bits;
mod cursor;

/// Bytes that are not what a Prometheus server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {what}")]
pub struct Damage {
    /// Where in the bytes that were handed over.
    pub offset: usize,
    /// What does not fit.
    pub what: &'static str,
}

impl Damage {
    pub(crate) const fn new(offset: usize, what: &'static str) -> Self {
        Self { offset, what }
    }

    /// The same, of bytes that begin at `start` of others.
    #[must_use]
    pub const fn behind(self, start: usize) -> Self {
        Self { offset: start.saturating_add(self.offset), what: self.what }
    }
}

/// Whether `checksum`, as it stands in a file, is that of `bytes`.
fn checksum_holds(bytes: &[u8], checksum: u32) -> bool {
    crc32c::crc32c(bytes) == checksum
}
