//! Walks over a database that nobody has open and verifies what must hold.
//!
//! **The log.** Its identity can be read. Segments follow each other without gaps, and the first
//! that is replayed is the one that the checkpoint names. Every record has its checksum and can be
//! decoded, and says only what belongs into such a file; samples, exemplars and deletions name series
//! that an earlier record or the checkpoint defined; no handle has two label sets; what is said to be
//! flushed was begun.
//!
//! **Checkpoints**, an older one too that a start would fall back to. They begin and end with
//! the same statement, have one state of a series at most, and each state tells a place in the log
//! where a record ends. Every chunk of a state has its checksum and can be decoded, has as many samples
//! as the state says, between the times that it says, later than those of the chunk before.
//!
//! **Files of the head.** Their checksums hold, they have what the checkpoints say, and no two chunks
//! share bytes.
//!
//! **Blocks.** Each opens, is the one that its directory is named for, and has the files of a block
//! and no others; its meta makes sense and tells the counts that are found. In the
//! index sections follow each other without gaps, names and values rise, label sets are
//! distinct and in use, series are in order, and the list of each value has those series that have
//! it. Chunks and columns of times have their checksums, fill their file, and can be decoded; times
//! rise and lie inside the block's range. Tombstones name series that exist, by ranges that rise.
//!
//! Nothing unknown lies in the directories.

mod blocks;
mod head;
mod log;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskError, DiskResult};
use crate::wal::record;

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong, and where in it.
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Segments of the log read.
    pub segments: u64,
    /// Samples in those that a start replays.
    pub wal_samples: u64,
    /// Series known to the log and the newest checkpoint.
    pub wal_series: u64,
    /// Checkpoints read.
    pub checkpoints: u64,
    /// Samples of the head that the newest of them stands for, each of which was decoded.
    pub checkpoint_samples: u64,
    /// Files with sealed chunks of the head read.
    pub head_files: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Samples in them, each of which was decoded.
    pub block_samples: u64,
    /// What does not hold; empty when all is well.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    fn found(&mut self, path: &Path, what: impl Into<String>) {
        self.findings.push(Finding { path: path.to_path_buf(), what: what.into() });
    }
}

/// Verifies the database on `disk`, reading all of it and changing nothing.
///
/// # Errors
/// The disk fails. What does not hold is no error but a finding.
pub fn check(disk: &Arc<dyn Disk>) -> Result<CheckReport, DiskError> {
    let mut report = CheckReport::default();
    let mut files = head::Files::list(&**disk, &mut report)?;
    log::check(disk, &mut files, &mut report)?;
    files.check_shared(&mut report);
    blocks::check(&**disk, &mut report)?;
    Ok(report)
}

/// How many items the payload of a record of the log has.
///
/// # Errors
/// Why it makes no sense.
pub fn record_items(payload: &[u8]) -> Result<usize, &'static str> {
    let mut count = 0;
    record::decode(payload, |_| count += 1)?;
    Ok(count)
}

/// What is there, or nothing where there is no such directory: a snapshot that was never opened has
/// neither log nor head.
fn or_nothing<T: Default>(found: DiskResult<T>) -> DiskResult<T> {
    match found {
        Err(error) if error.is_not_found() => Ok(T::default()),
        found => found,
    }
}

#[cfg(test)]
mod tests;
