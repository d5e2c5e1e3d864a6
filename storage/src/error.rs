//! What can go wrong, and what an opened database reports about its past.

use std::path::PathBuf;

use stint_model::AppendError;

use crate::disk::DiskError;

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Somebody else has it open.
    #[error("it is in use by another process")]
    InUse,
    /// Written by a newer version.
    #[error("{} has format version {found}, this program reads up to {known}: use a newer one", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known version.
        known: u32,
    },
    /// An option has a value that cannot work.
    #[error("option {0}")]
    Option(&'static str),
}

/// Why a job, a sync or another step outside of appends and queries failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A block could not be written or read; the text names it.
    #[error("{0}")]
    Block(String),
    /// Head data could not be read back.
    #[error("{0}")]
    Head(String),
    /// The log could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It was told to stop, or the database is being closed. Nothing is lost and nothing is left
    /// behind: the next run does the work anew.
    #[error("stopped before its end; the next run does it anew")]
    Interrupted,
    /// An append was refused for want of room while the job was writing files of its own: it
    /// removed them, and is to be tried again later.
    #[error("gave up the files it was writing: the storage is full, and appends need the room")]
    GaveWay,
    /// The disk may not hold what the job would write before it can remove what it replaces.
    #[error("no storage to merge blocks: up to {needed} bytes are needed, {free} are free")]
    NoRoom {
        /// Bytes it may take.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
}

/// A stretch of the log or of its checkpoint that could not be read when the database was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// First byte that could not be read.
    pub offset: u64,
    /// How many bytes were given up.
    pub bytes: u64,
    /// What does not fit.
    pub reason: String,
}

/// A block that could not be opened and was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its directory, under its new name.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What opening a database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Series brought back from the log.
    pub series: u64,
    /// Samples read from the log.
    pub samples: u64,
    /// Segments read.
    pub segments: u64,
    /// Bytes read from the log.
    pub bytes: u64,
    /// A record cut short at the very end of the log, as a crash leaves it: never acknowledged as
    /// synced, and cut off now.
    pub torn_tail: Option<Damage>,
    /// Damage elsewhere in the log.
    pub damage: Vec<Damage>,
    /// Samples whose series was lost in such damage.
    pub orphaned_samples: u64,
    /// Blocks that were set aside.
    pub quarantined: Vec<Quarantined>,
}

/// What closing a database did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Why the next start has to replay the log, if it has to.
    pub replays: Option<String>,
}

pub(crate) fn append_error(error: &DiskError) -> AppendError {
    if error.is_full() {
        AppendError::DiskFull(error.to_string())
    } else {
        AppendError::Io(error.to_string())
    }
}
