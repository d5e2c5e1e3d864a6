//! Where samples come from: stored batches in the order in which they were appended.

use std::collections::HashSet;

use stint_model::{Exemplar, Labels, Metadata, Sample, SeriesRef};
use stint_storage::WalId;

/// A place in the stored stream. Later places are greater, across restarts too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the log's segment.
    pub segment: u64,
    /// Bytes from the segment's start.
    pub offset: u64,
}

/// What one append stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredBatch {
    /// Samples, with the labels of their series unless the reader knows it.
    pub rows: Vec<(SeriesRef, Option<Labels>, Sample)>,
    /// Exemplars and their series.
    pub exemplars: Vec<(SeriesRef, Exemplar)>,
    /// Metadata by family, as far as it was new.
    pub metadata: Vec<(String, Metadata)>,
    /// Samples whose series is not known any more; only after damage to the log.
    pub orphans: u64,
    /// It may have been read, and sent, before.
    pub maybe_sent: bool,
    /// Where reading goes on.
    pub position_after: Position,
}

/// What reading brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A batch.
    Batch(StoredBatch),
    /// A stretch that cannot be read any more; reading goes on behind it.
    Lost {
        /// Where reading goes on.
        to: Position,
        /// Which stretch, and why.
        reason: String,
    },
    /// Nothing more for now.
    CaughtUp,
}

/// Why reading failed; trying again later may succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read stored samples: {0}")]
pub struct SourceError(pub String);

/// The stored stream, read from a position on.
pub trait Source: Send {
    /// The next piece. `is_known` tells of which series the labels need not be told.
    fn next(&mut self, is_known: &dyn Fn(SeriesRef) -> bool) -> Result<Event, SourceError>;

    /// Where reading goes on.
    fn position(&self) -> Position;

    /// Which log it is: positions of another one mean nothing here.
    fn log(&self) -> WalId;

    /// Where the stream ended when it was opened.
    fn end(&self) -> Position;

    /// Says that nothing before `position` is needed any more.
    fn release(&mut self, position: Position);

    /// Bytes that are stored and not read yet.
    fn lag_bytes(&self) -> u64;

    /// Which series there are now, by [`Labels::stable_hash`], whatever was read so far; nothing where that cannot
    /// be told.
    ///
    /// # Errors
    /// The store cannot be read.
    fn present(&self) -> Result<Option<HashSet<u64>>, SourceError> {
        Ok(None)
    }
}
