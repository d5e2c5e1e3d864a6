//! Work that keeps a database small: handed out one step at a time by [`crate::Db::next_job`], run
//! where the caller likes.
//!
//! Cutting a block from the head takes two jobs. *Flush* logs that it begins, writes the blocks,
//! publishes them, and logs that it is done. From then on queries find the data twice, which merging hides.
//! *Truncate* drops them from the head, as soon as no reader is left that does not know the new
//! blocks, then writes a checkpoint and removes the segments that are not needed any more. After a
//! crash in between, replaying the two marks of the log does the same.
//!
//! *Checkpoint* writes down what the head has beside its sealed chunks, whenever the log has grown by so
//! much that a start would take long.

pub(crate) mod checkpoint;
mod compaction;
mod flush;
mod pace;
mod settle;
mod snapshot;
mod truncate;

use std::fmt;
use std::sync::Arc;

use stint_model::{Span, Timestamp};

use crate::block::BlockId;
use crate::compact::Plan;
use crate::db::Inner;
use crate::error::JobError;
use crate::head::Effort;
use crate::job::pace::{Pace, Room};
use crate::retention::{self, RetentionOptions, Stored};
use crate::usage;

/// A flush whose data are still in the head too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flushed {
    pub(crate) before: Timestamp,
    /// The last commit that is in the blocks.
    pub(crate) commit: u64,
    /// Readers from this pin on know the blocks.
    pub(crate) pin: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Flush {
        before: Timestamp,
    },
    Truncate(Flushed),
    WriteChunks,
    Checkpoint,
    TrimLog,
    Remove {
        blocks: Vec<BlockId>,
    },
    Compact(Plan),
    /// Removes what an error kept from being removed.
    Sweep,
}

/// A step of work.
#[must_use = "a job does nothing until it is run"]
pub struct Job {
    db: Arc<Inner>,
    kind: Kind,
}

/// What a job did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobReport {
    /// Name of the job, as [`Job::name`] gives it.
    pub job: &'static str,
    /// Blocks written.
    pub blocks_written: u64,
    /// Samples in them.
    pub samples_written: u64,
    /// Blocks removed.
    pub blocks_removed: u64,
    /// Segments of the log removed.
    pub segments_removed: u64,
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Flush { .. } => "flush",
            Self::Truncate(_) => "truncate",
            Self::WriteChunks => "write_chunks",
            Self::Checkpoint => "checkpoint",
            Self::TrimLog => "trim_log",
            Self::Remove { .. } => "retain",
            Self::Compact(_) => "compact",
            Self::Sweep => "sweep",
        }
    }
}

impl Job {
    /// A short name for logs and metrics.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Does the work. Appends and queries go on meanwhile. After an error, or when the job is
    /// never run, [`crate::Db::next_job`] hands the work out again: after an error behind other
    /// work, which may be what makes room on the disk.
    pub fn run(self) -> Result<JobReport, JobError> {
        self.run_while(&mut || true)
    }

    /// As [`Job::run`], and asks `go_on` before every step, which is a series or a file made durable.
    ///
    /// # Errors
    /// [`JobError::Interrupted`] as soon as `go_on` says no: nothing is lost and no unfinished file
    /// is left behind.
    pub fn run_while(self, go_on: &mut dyn FnMut() -> bool) -> Result<JobReport, JobError> {
        let mut jobs = self.db.jobs.lock();
        self.db.check_open()?;
        let room = if matches!(self.kind, Kind::Compact(_)) { Room::Spare } else { Room::Needed };
        let mut pace = Pace::new(&self.db, room, go_on);
        pace.step()?;
        jobs.failed = Some(self.name());
        let report = self.work(&mut jobs, &mut pace);
        if matches!(report, Ok(_) | Err(JobError::Interrupted)) {
            jobs.failed = None;
        }
        report
    }

    fn work(&self, jobs: &mut Jobs, pace: &mut Pace<'_>) -> Result<JobReport, JobError> {
        let mut report = JobReport { job: self.name(), ..JobReport::default() };
        match &self.kind {
            Kind::Flush { before } => {
                if jobs.flushed.is_none() {
                    jobs.flushed = Some(flush::run(&self.db, *before, pace, &mut report)?);
                }
            }
            Kind::Truncate(flushed) => {
                if jobs.flushed.is_some() {
                    truncate::run(&self.db, *flushed, pace, &mut report)?;
                    jobs.flushed = None;
                    jobs.chunks_stay = false;
                }
            }
            Kind::WriteChunks => {
                if let Err(error) = self.db.head.write_chunks(&*self.db.disk) {
                    // They are as good in memory; other work may be what makes room on the disk.
                    jobs.chunks_stay = true;
                    return Err(error.into());
                }
            }
            Kind::Checkpoint => checkpoint::run(&self.db, Effort::Time, pace)?,
            Kind::TrimLog => truncate::trim_log(&self.db, &mut report)?,
            Kind::Remove { blocks } => {
                self.db.blocks.change(blocks, Vec::new());
                report.blocks_removed += self.db.blocks.sweep(&*self.db.disk)?;
            }
            Kind::Sweep => report.blocks_removed += self.db.blocks.sweep(&*self.db.disk)?,
            Kind::Compact(plan) => {
                if let Err(error) = compaction::run(&self.db, plan, pace, &mut report) {
                    // Blocks that cannot be merged stay as they are until the database is
                    // reopened; a full disk or a passing fault is no reason to give up on them.
                    if matches!(error, JobError::Block(_)) {
                        jobs.unmergeable.extend(&plan.blocks);
                    }
                    return Err(error);
                }
            }
        }
        Ok(report)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({:?})", self.kind)
    }
}

/// What the jobs of a database remember from one to the next. Locked while a job runs.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    pub(crate) flushed: Option<Flushed>,
    pub(crate) unmergeable: Vec<BlockId>,
    /// Whether sealed chunks stay in memory until the next truncation, because the disk refused.
    pub(crate) chunks_stay: bool,
    /// Name of the last job, if it failed.
    failed: Option<&'static str>,
}

pub(crate) use compaction::clean_tombstones;
pub(crate) use flush::swept;
pub(crate) use settle::{finish_flush, settle};
pub(crate) use snapshot::snapshot;

/// The next thing to do, if anything is.
pub(crate) fn next(db: &Arc<Inner>, now: Timestamp) -> Option<Job> {
    if db.is_stopping() {
        return None;
    }
    // A job that runs decides what comes next.
    let jobs = db.jobs.try_lock()?;
    let write_chunks =
        || (!jobs.chunks_stay && db.head.has_unwritten()).then_some(Kind::WriteChunks);
    let due: [&dyn Fn() -> Option<Kind>; 7] = [
        &|| next_for_head(db, jobs.flushed),
        &write_chunks,
        &|| truncate::log_can_be_trimmed(db).then_some(Kind::TrimLog),
        &|| expired(db, now),
        // Behind what makes room, which it may lack.
        &|| checkpoint_is_due(db, jobs.flushed).then_some(Kind::Checkpoint),
        &|| compaction::next(db, &jobs.unmergeable).map(Kind::Compact),
        &|| db.blocks.needs_sweep().then_some(Kind::Sweep),
    ];
    let mut again = None;
    let mut due = due.iter().filter_map(|due| due());
    let kind = due.find_map(|kind| {
        let failed = jobs.failed == Some(kind.name());
        if failed {
            again = Some(kind);
            return None;
        }
        Some(kind)
    });
    let kind = kind.or(again)?;
    Some(Job { db: Arc::clone(db), kind })
}

fn next_for_head(db: &Inner, flushed: Option<Flushed>) -> Option<Kind> {
    if db.log.read_only_reason().is_some() {
        return None;
    }
    if let Some(flushed) = flushed {
        let oldest = db.head.pins().oldest();
        return oldest.is_none_or(|pin| pin >= flushed.pin).then_some(Kind::Truncate(flushed));
    }
    db.head.due_cut().map(|before| Kind::Flush { before })
}

/// A flush that is not finished ends with a checkpoint of its own.
fn checkpoint_is_due(db: &Inner, flushed: Option<Flushed>) -> bool {
    flushed.is_none() && db.log.read_only_reason().is_none() && checkpoint::is_due(db)
}

/// Blocks that are older than the retention, or too many bytes.
fn expired(db: &Inner, now: Timestamp) -> Option<Kind> {
    let version = db.blocks.current();
    let stored: Vec<Stored<'_>> = version
        .blocks
        .iter()
        .map(|block| Stored { meta: block.meta(), size_bytes: block.size_bytes() })
        .collect();
    let limits = db.limits();
    let other_bytes = limits.retention_bytes.map_or(0, |_| {
        let usage = usage::measure(db);
        let log: u64 = db.log.segments().values().map(|info| info.bytes).sum();
        log + usage.log + usage.blocks + db.head.file_bytes()
    });
    let limits = RetentionOptions {
        time: limits.retention.unwrap_or(Span::ZERO),
        size_bytes: limits.retention_bytes.unwrap_or(0),
    };
    let gone = retention::expired(&stored, other_bytes, now, &limits);
    let blocks: Vec<BlockId> = gone.into_iter().map(|(id, _)| id).collect();
    (!blocks.is_empty()).then_some(Kind::Remove { blocks })
}
