//! An embeddable time-series engine: write-ahead log, head, immutable mapped blocks.
//!
//! Synchronous; starts no threads and reads no clock. Time comes in as an argument and work goes
//! out as jobs that the caller runs where it likes.

pub mod block;
pub mod check;
pub mod codec;
pub mod compact;
mod db;
pub mod disk;
mod error;
mod head;
mod import;
pub mod index;
mod inventory;
mod job;
mod options;
mod query;
pub mod retention;
mod stats;
mod sync;
pub mod tombstones;
mod usage;
mod version;
mod wal;

pub use block::{Block, BlockError, BlockId, BlockMeta, BlockWriter};
pub use codec::Corruption;
pub use db::Db;
pub use disk::os::OsDisk;
pub use disk::sim::SimDisk;
pub use disk::{Disk, DiskError, DiskFile, Mapped};
pub use error::{CloseReport, Damage, JobError, OpenError, OpenReport, Quarantined};
pub use import::{BlockImport, Imported, storable};
pub use index::series_order;
pub use inventory::{BlockEntry, Inventory};
pub use job::{Job, JobReport};
pub use options::{Limits, Options, SyncPolicy};
pub use stats::Stats;
pub use wal::{
    CursorBatch, CursorEvent, HoldError, ParseIdError, ParsePositionError, WalHold, WalId,
    WalPosition,
};
