//! An embeddable time-series engine: write-ahead log, head, immutable mapped blocks.
//!
//! Synchronous; starts no threads and reads no clock. Time comes in as an argument and work goes
//! out as jobs that the caller runs where it likes.

pub mod block;
pub mod codec;
pub mod disk;
pub mod index;
pub mod tombstones;

pub use block::{Block, BlockError, BlockId, BlockMeta, BlockWriter};
pub use codec::Corruption;
pub use disk::os::OsDisk;
pub use disk::sim::SimDisk;
pub use disk::{Disk, DiskError, DiskFile, Mapped};
pub use index::series_order;
