//! Dropping from head and log what is in blocks.

use std::sync::Arc;

use stint_model::{TimeRange, Timestamp};

use super::{Flushed, JobReport};
use crate::db::Inner;
use crate::disk::DiskResult;
use crate::error::JobError;
use crate::head::Cut;
use crate::usage;
use crate::wal::checkpoint;

/// Of size retention, one part in so many is always left to holds.
const HELD_SHARE: u64 = 10;

/// Truncates the head, writes a checkpoint, removes old segments.
pub(super) fn run(db: &Inner, flushed: Flushed, report: &mut JobReport) -> Result<(), JobError> {
    let next = {
        let _writer = db.writer();
        db.log.rotate()?
    };
    let replay_from = replay_from(db, flushed, next);
    let first_segment = first_kept(db, replay_from);
    let cut = Cut { before: flushed.before, commit: flushed.commit, first_segment };
    let mut from = Some(0);
    while let Some(slot) = from {
        let _writer = db.writer();
        from = db.head.truncate(cut, slot);
    }
    {
        let _writer = db.writer();
        db.head.cut_metadata();
        db.head.rebuild_worn_index();
    }
    replace_checkpoint(db, replay_from, false)?;
    db.head.remove_files(&*db.disk)?;
    remove_before(db, first_segment, report)
}

/// Replaces the checkpoint by one that stands for the segments before `number`, unless there is
/// one. With `newest`, it holds the newest sample of each series too: what follows is judged by it.
pub(super) fn replace_checkpoint(db: &Inner, number: u64, newest: bool) -> Result<(), JobError> {
    let old = *db.replay_from.lock();
    if number <= old {
        return Ok(());
    }
    write_checkpoint(db, number, newest)?;
    *db.replay_from.lock() = number;
    match db.disk.remove(&checkpoint::path(old)) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The first segment that has something the blocks do not: a newer sample, or a late one that
/// came after the flush had begun.
fn replay_from(db: &Inner, flushed: Flushed, next: u64) -> u64 {
    let old = *db.replay_from.lock();
    let segments = db.log.segments();
    let newer = segments.range(old..).find(|(_, info)| info.newest >= flushed.before);
    newer.map_or(next, |(number, _)| *number).min(flushed.begun.segment).max(old)
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

fn write_checkpoint(db: &Inner, number: u64, newest: bool) -> DiskResult<()> {
    let mut writer = checkpoint::Writer::new(Arc::clone(&db.disk), number)?;
    // Handles given from now on are in segments that are kept.
    let (next_id, flushed) = (db.head.next_id(), db.head.flushed());
    writer.add(|encoder| encoder.checkpoint(next_id, flushed))?;
    writer.flush()?;
    let mut from = Some(0);
    while let Some(slot) = from {
        let (series, next) = db.head.some_series(slot);
        for (id, labels, last_segment) in series {
            writer.add(|encoder| encoder.series(id, last_segment, &labels))?;
        }
        if newest {
            for (id, sample, deleted) in db.head.newest_samples(slot) {
                writer.add(|encoder| {
                    encoder.sample(id, &sample);
                    if deleted {
                        encoder.deleted(id, TimeRange::closed(sample.at, sample.at));
                    }
                })?;
            }
        }
        from = next;
    }
    for (family, metadata) in db.head.metadata() {
        writer.add(|encoder| encoder.metadata(&family, &metadata))?;
    }
    for (id, exemplar) in db.head.exemplars(TimeRange::new(Timestamp::MIN, Timestamp::MAX)) {
        writer.add(|encoder| encoder.exemplar(id.0, &exemplar))?;
    }
    // Once more: without it a handle could be given twice.
    writer.flush()?;
    writer.add(|encoder| encoder.checkpoint(next_id, flushed))?;
    writer.publish()
}

/// Whether there are segments that nobody needs.
pub(super) fn log_can_be_trimmed(db: &Inner) -> bool {
    let first = first_kept(db, *db.replay_from.lock());
    let oldest = db.log.segments().first_key_value().map(|(number, _)| *number);
    oldest.is_some_and(|oldest| oldest < first)
}

/// Removes segments that nobody needs.
pub(super) fn trim_log(db: &Inner, report: &mut JobReport) -> Result<(), JobError> {
    remove_before(db, first_kept(db, *db.replay_from.lock()), report)
}

fn remove_before(db: &Inner, first: u64, report: &mut JobReport) -> Result<(), JobError> {
    let before = db.log.segments().len();
    db.log.remove_before(first)?;
    report.segments_removed += before.saturating_sub(db.log.segments().len()) as u64;
    Ok(())
}
