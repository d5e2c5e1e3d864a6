//! Writing everything that the log has to blocks before the database is closed, so that the next
//! start has nothing to replay.
//!
//! Nothing of it has to succeed: until the checkpoint has its name the log is replayed as ever,
//! and what is in log and blocks counts once.

use std::path::Path;
use std::sync::Arc;

use stint_model::{TimeRange, Timestamp};

use super::flush::{swept, write};
use super::{JobReport, Jobs, truncate};
use crate::db::Inner;
use crate::error::JobError;
use crate::head::read::HeadQuerier;
use crate::version;

/// Finishes a flush whose data are still in the head too, so that they are not written twice.
pub(crate) fn finish_flush(db: &Inner, jobs: &mut Jobs) -> Result<(), JobError> {
    let oldest = db.head.pins().oldest();
    if let Some(flushed) = jobs.flushed.filter(|f| oldest.is_none_or(|pin| pin >= f.pin)) {
        truncate::run(db, flushed, &mut JobReport::default())?;
        jobs.flushed = None;
    }
    Ok(())
}

/// Writes the head to blocks and a checkpoint that stands for the whole log. Nothing may be
/// appended meanwhile or afterwards.
pub(crate) fn settle(db: &Inner) -> Result<JobReport, JobError> {
    let mut report = JobReport { job: "close", ..JobReport::default() };
    let next = db.log.rotate()?;
    let old = *db.replay_from.lock();
    if db.log.segments().range(old..).next().is_none() {
        return Ok(report);
    }
    db.blocks.sweep(&*db.disk)?;
    let pin = Arc::new(db.head.pin());
    let querier = HeadQuerier::new(Arc::clone(&db.head), pin, TimeRange::ALL);
    let mut added = Vec::new();
    for window in db.head.windows(Timestamp::MAX) {
        let id = db.blocks.new_id();
        match write(db, Path::new(version::DIR), id, &querier, window) {
            Ok(block) => added.extend(block),
            Err(error) => {
                db.blocks.give_up(id);
                for block in added {
                    db.blocks.give_up(block.meta().id);
                }
                return Err(swept(db, error));
            }
        }
    }
    report.blocks_written = added.len() as u64;
    report.samples_written = added.iter().map(|block| block.meta().samples).sum();
    db.blocks.change(&[], added);
    truncate::replace_checkpoint(db, next, true)?;
    Ok(report)
}
