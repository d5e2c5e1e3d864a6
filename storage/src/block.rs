//! Blocks: immutable directories of samples and their index.
//!
//! ```text
//! blocks/b-0000000007/
//!   meta         what the block holds, as text with a checksum
//!   chunks       columns of times and chunks of values
//!   index        label names and values, postings, series, where their chunks are
//!   tombstones   what was deleted since (only when something was)
//! ```
//!
//! A block is written beside its final place and published by one rename after everything was
//! synced, so it is there whole or not at all. Opening one maps the files and reads neither chunks
//! nor postings; every piece has a checksum that is verified when it is read, that of a chunk when it
//! is read first. See
//! `docs/formats/block.md` and `docs/formats/chunk.md`.

pub mod chunks;
pub mod meta;
pub mod reader;
mod relatives;
pub mod writer;

pub use meta::{BlockId, BlockMeta};
pub use reader::{Block, Identity, Place};
pub use writer::BlockWriter;

use crate::codec::Corruption;
use crate::disk::DiskError;
use crate::index::groups::SectionTooLarge;

/// Why a block could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Bytes are not what was written.
    #[error(transparent)]
    Corruption(#[from] Corruption),
    /// The block was written by a later version of this program.
    #[error(
        "{file} has format version {version}, but none above {known} is known: use a newer version"
    )]
    Version {
        /// The meta file.
        file: String,
        /// Its version.
        version: u32,
        /// The latest version this program reads.
        known: u32,
    },
    /// Series must come in order, each once.
    #[error("series out of order in a block: {labels}")]
    SeriesOrder {
        /// The series that came too late.
        labels: String,
    },
    /// No index holds a series of so many labels.
    #[error(
        "a series of {labels} labels, but a block holds {max} of each at most: drop some before it \
         is stored"
    )]
    Labels {
        /// How many the series has.
        labels: usize,
        /// How many there may be.
        max: usize,
    },
    /// Samples must rise in time and lie in the block's range.
    #[error("samples of {labels} out of order or outside of their block")]
    Samples {
        /// Whose samples.
        labels: String,
    },
    /// More than the format can address.
    #[error(transparent)]
    TooLarge(#[from] SectionTooLarge),
}
