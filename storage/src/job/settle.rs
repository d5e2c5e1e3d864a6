//! Writing down everything that the log has before the database is closed, so that the next start has
//! nothing to replay.
//!
//! Nothing of it has to succeed: until the checkpoint has its name the log is replayed as ever.

use super::pace::Pace;
use super::{JobReport, Jobs, checkpoint, truncate};
use crate::db::Inner;
use crate::error::JobError;
use crate::head::Effort;

/// Finishes a flush whose data are still in the head too, so that they are not written twice.
pub(crate) fn finish_flush(db: &Inner, jobs: &mut Jobs) -> Result<(), JobError> {
    let oldest = db.head.pins().oldest();
    if let Some(flushed) = jobs.flushed.filter(|f| oldest.is_none_or(|pin| pin >= f.pin)) {
        let mut go_on = || true;
        let mut pace = Pace::of_closing(db, &mut go_on);
        truncate::run(db, flushed, &mut pace, &mut JobReport::default())?;
        jobs.flushed = None;
    }
    Ok(())
}

/// Writes a checkpoint that stands for the whole log. Nothing may be appended meanwhile or
/// afterwards.
pub(crate) fn settle(db: &Inner) -> Result<(), JobError> {
    checkpoint::run(db, Effort::Bytes, &mut Pace::of_closing(db, &mut || true))
}
