//! The write-ahead log: what was appended, in order, before it becomes visible.
//!
//! Segments `wal/00000000`, `wal/00000001`, … each start with a header of 16 bytes and hold
//! records: length (4 bytes), CRC-32C of the payload (4), payload; integers little-endian. One
//! append is one record, so a batch is in the log whole or not at all. `wal/checkpoint.00000007`
//! has the same form and holds what segments before number 7 said and is not in blocks.
//!
//! `wal/identity` tells this log from every other.
//!
//! Opening never appends to an old segment: a torn tail is cut off and a new segment begun.

mod bytes;
pub(crate) mod checkpoint;
mod histogram;
pub(crate) mod hold;
pub(crate) mod identity;
pub(crate) mod log;
mod position;
pub(crate) mod record;
pub(crate) mod segment;

pub use hold::{CursorBatch, CursorEvent, HoldError, WalHold};
pub use identity::{ParseIdError, WalId};
pub use position::{ParsePositionError, WalPosition};

/// Directory of the log.
pub(crate) const DIR: &str = "wal";
