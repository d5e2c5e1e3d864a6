//! What an embedder may choose.

use stint_model::Span;

/// When appended data is made to survive the machine. Whatever is chosen, it survives the end of
/// the process as soon as an append returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before each append returns: nothing acknowledged is ever lost.
    EveryCommit,
    /// The embedder calls [`crate::Db::sync`] at this interval: a power cut loses at most that
    /// much.
    Every(Span),
    /// Only when a segment of the log is full, a block is cut, or the database is closed: a power
    /// cut loses at most one segment.
    Never,
}

/// Options of a database. The defaults are those of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Length of the blocks that the head is cut into; they start at multiples of it.
    pub block_range: Span,
    /// Blocks that end longer than this before the newest data are removed; `None` keeps all.
    pub retention: Option<Span>,
    /// The most bytes that log, blocks and what lies beside them may occupy together. Log that is
    /// kept only for a [`crate::WalHold`] goes first, down to a tenth of this; then the oldest
    /// blocks, the newest never.
    pub retention_bytes: Option<u64>,
    /// Samples further ahead than this of the time that [`crate::Db::next_job`] was told last are
    /// refused: one of them would make all that follow too old. `None`, and before the first call,
    /// refuses only what no calendar has, from the year 10000 on.
    pub future_max: Option<Span>,
    /// A segment of the log is closed when it has reached this many bytes.
    pub segment_bytes: u64,
    /// What was logged is summed up in a checkpoint when it has so many bytes, or as many as the
    /// last checkpoint where that is more: a start reads the checkpoint and the log behind it.
    pub checkpoint_bytes: u64,
    /// When appended data is made to survive the machine.
    pub sync: SyncPolicy,
    /// Samples per chunk of the head.
    pub chunk_samples: u16,
    /// Sealed chunks of the head leave memory for files of about so many bytes; at most 1 GiB.
    pub head_file_bytes: usize,
    /// The most exemplars kept in memory, oldest dropped first; 0 keeps none.
    pub exemplars_max: usize,
    /// The most bytes of log kept only because a [`crate::WalHold`] still wants them, less where
    /// [`Options::retention_bytes`] leaves no room. What lies beyond is removed and reported to
    /// the holder as lost.
    pub hold_bytes_max: u64,
}

/// Those of the [`Options`] that may change while the database is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`Options::retention`].
    pub retention: Option<Span>,
    /// See [`Options::retention_bytes`].
    pub retention_bytes: Option<u64>,
    /// See [`Options::exemplars_max`].
    pub exemplars_max: usize,
}

impl Options {
    /// Those that may change while the database is open.
    pub fn limits(&self) -> Limits {
        Limits {
            retention: self.retention,
            retention_bytes: self.retention_bytes,
            exemplars_max: self.exemplars_max,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_range: Span(2 * Span::HOUR.0),
            retention: Some(Span(7 * Span::DAY.0)),
            retention_bytes: None,
            future_max: Some(Span::DAY),
            segment_bytes: 64 << 20,
            checkpoint_bytes: 8 << 20,
            sync: SyncPolicy::Every(Span::SECOND),
            chunk_samples: 120,
            head_file_bytes: 4 << 20,
            exemplars_max: 100_000,
            hold_bytes_max: 8 << 30,
        }
    }
}
