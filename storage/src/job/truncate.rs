//! Dropping from head and log what is in blocks.

use super::pace::Pace;
use super::{Flushed, JobReport, checkpoint};
use crate::db::Inner;
use crate::error::JobError;
use crate::head::{Cut, Effort};
use crate::usage;

/// Of size retention, one part in so many is always left to holds.
const HELD_SHARE: u64 = 10;

/// Truncates the head, writes a checkpoint, removes old segments.
pub(super) fn run(
    db: &Inner,
    flushed: Flushed,
    pace: &mut Pace<'_>,
    report: &mut JobReport,
) -> Result<(), JobError> {
    // Nothing before this is read again but by holds, once the checkpoint is written.
    let next = {
        let _writer = db.writer();
        db.log.rotate()?
    };
    let first_segment = first_kept(db, next);
    let cut = Cut { before: flushed.before, commit: flushed.commit, first_segment };
    let mut from = Some(0);
    while let Some(slot) = from {
        pace.step()?;
        let _writer = db.writer();
        from = db.head.truncate(cut, slot);
    }
    {
        let _writer = db.writer();
        db.head.cut_metadata();
    }
    db.head.rebuild_worn_index();
    checkpoint::run(db, Effort::Time, pace)?;
    trim_log(db, report)
}

/// The first segment that is kept, for replay from `replay_from` or for a hold.
fn first_kept(db: &Inner, replay_from: u64) -> u64 {
    let held = db.holds.oldest().map_or(u64::MAX, |position| position.segment);
    let segments = db.log.segments();
    if held >= replay_from || segments.range(..replay_from).next().is_none() {
        return replay_from;
    }
    let needed: u64 = segments.range(replay_from..).map(|(_, info)| info.bytes).sum();
    let bytes_max = held_bytes_max(db, needed);
    let mut first = replay_from;
    let mut bytes = 0;
    for (number, info) in segments.range(..replay_from).rev() {
        bytes += info.bytes;
        if *number < held || bytes > bytes_max {
            break;
        }
        first = *number;
    }
    first
}

/// How many bytes of log may be kept for holds alone, beside `needed` for replay: what size
/// retention leaves beside everything else, but always a share of it, so that full blocks do not
/// cost every short outage.
fn held_bytes_max(db: &Inner, needed: u64) -> u64 {
    let Some(limit) = db.limits().retention_bytes else { return db.options.hold_bytes_max };
    let usage = usage::measure(db);
    let beside = usage.log + usage.blocks + db.head.file_bytes();
    let other = needed + beside + db.blocks.current().bytes();
    let room = limit.saturating_sub(other).max(limit / HELD_SHARE);
    room.min(db.options.hold_bytes_max)
}

/// Whether there are segments that nobody needs.
pub(super) fn log_can_be_trimmed(db: &Inner) -> bool {
    let first = first_kept(db, *db.replay_from.lock());
    let oldest = db.log.segments().first_key_value().map(|(number, _)| *number);
    oldest.is_some_and(|oldest| oldest < first)
}

/// Removes segments that nobody needs.
pub(super) fn trim_log(db: &Inner, report: &mut JobReport) -> Result<(), JobError> {
    let before = db.log.segments().len();
    db.log.remove_before(first_kept(db, *db.replay_from.lock()))?;
    report.segments_removed += before.saturating_sub(db.log.segments().len()) as u64;
    Ok(())
}
