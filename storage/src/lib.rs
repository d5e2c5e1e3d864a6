//! An embeddable time-series engine: write-ahead log, head, immutable mapped blocks.
//!
//! Synchronous; starts no threads and reads no clock. Time comes in as an argument and work goes
//! out as jobs that the caller runs where it likes.
//!
//! # How it is used
//! - [`Db::open`] takes a [`Disk`] and [`Options`]. Damage never stops it; the [`OpenReport`] tells what
//!   was set aside. A directory is open once at a time.
//! - [`Appender::append`](stint_model::Appender::append) takes a batch, from any thread. When it returns,
//!   the batch is visible as a whole and survives a kill of the process. It survives the machine after the
//!   next [`Db::sync`], which the caller calls as often as it can bear to lose what came since, or at
//!   once with [`SyncPolicy::EveryCommit`]. Rows that are refused have a reason each and harm no others.
//! - [`Queryable::querier`](stint_model::Queryable::querier) gives a reader of what is visible now; it
//!   answers the same as long as it lives, and keeps nobody from anything but the memory it looks at.
//! - [`Db::next_job`] is to be asked every second or so, from one thread, and each [`Job`] to be run:
//!   blocks are cut and merged, the log is shortened, what is too old leaves. Without it everything
//!   works, and log and memory grow.
//! - [`Db::hold`] reads what was appended, in order and across restarts, as far as it was released.
//! - [`Db::close`] waits for the job that runs and leaves nothing to replay. A database that is dropped
//!   instead, or whose process is killed, loses nothing but the time to read its log again.
//!
//! A full disk refuses appends with [`AppendError::DiskFull`](stint_model::AppendError::DiskFull) until there
//! is room again; everything else goes on. After a failed sync nothing is appended until the database was
//! opened anew. `examples/embed.rs` is a program with all of it.

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
