//! Figures about a database, for metrics and for the curious.

use stint_model::{RejectReason, Timestamp};

/// Figures of an open database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Series in the head.
    pub series: u64,
    /// Chunks in the head.
    pub chunks: u64,
    /// Late samples in the head.
    pub late_samples: u64,
    /// Bytes of samples and strings in the head, about.
    pub head_bytes: u64,
    /// Bytes of files with sealed chunks of the head.
    pub head_file_bytes: u64,
    /// Exemplars in memory.
    pub exemplars: u64,
    /// Samples appended since opening.
    pub samples_appended: u64,
    /// Of these, those that came late.
    pub samples_late: u64,
    /// Batches appended since opening.
    pub batches: u64,
    /// Series created since opening.
    pub series_created: u64,
    /// Rows rejected since opening, in order of [`RejectReason::ALL`].
    pub rejected: [u64; RejectReason::ALL.len()],
    /// Batches that failed as a whole since opening.
    pub failed_batches: u64,
    /// Segments of the log.
    pub wal_segments: u64,
    /// Bytes of the log, its checkpoint included.
    pub wal_bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of all blocks, with what marks samples in them as deleted.
    pub block_bytes: u64,
    /// Bytes beside the blocks: damaged ones that were set aside, blocks being written or left by
    /// a step that failed.
    pub leftover_bytes: u64,
    /// First and last time in the head.
    pub head_bounds: Option<(Timestamp, Timestamp)>,
    /// First time in head and blocks, and last.
    pub bounds: Option<(Timestamp, Timestamp)>,
    /// Damaged places found in the log, and damaged blocks, since opening.
    pub corruptions: u64,
    /// Names of the blocks that are damaged: those that were set aside when they were opened, and those of
    /// which a reader met a damaged part.
    pub damaged_blocks: Vec<String>,
    /// Why nothing can be appended until the database is reopened, if so.
    pub read_only: Option<String>,
}

impl Stats {
    /// Bytes on disk. Snapshots are not counted.
    pub fn disk_bytes(&self) -> u64 {
        self.wal_bytes + self.block_bytes + self.head_file_bytes + self.leftover_bytes
    }

    /// Rows rejected for `reason`.
    pub fn rejected_for(&self, reason: RejectReason) -> u64 {
        let place = RejectReason::ALL.iter().position(|other| *other == reason);
        place.and_then(|place| self.rejected.get(place)).copied().unwrap_or_default()
    }
}
