//! Writing down what the log said so far, so that a start reads one file and a short rest of the log.
//!
//! Appends go on meanwhile: the series are taken a few at a time, each with the place in the log up
//! to which it was changed, and a start passes over that part of the log for it. Sealed chunks are
//! not written again but told by their place in the files of the head, which are on the disk before.

use std::path::Path;
use std::sync::Arc;

use stint_model::{TimeRange, Timestamp};

use crate::db::Inner;
use crate::error::JobError;
use crate::head::{Effort, arena};
use crate::job::pace::Pace;
use crate::wal::checkpoint::{self, Writer};

/// Whether so much was logged since the last checkpoint that another is worth its cost: no more than
/// twice the log is written.
pub(super) fn is_due(db: &Inner) -> bool {
    let from = *db.replay_from.lock();
    let logged: u64 = db.log.segments().range(from..).map(|(_, info)| info.bytes).sum();
    logged >= db.options.checkpoint_bytes.max(*db.checkpoint_size.lock())
}

/// Replaces the checkpoint by one that stands for the log so far, unless nothing was logged since and
/// it was written with no less effort.
pub(super) fn run(db: &Inner, effort: Effort, pace: &mut Pace<'_>) -> Result<(), JobError> {
    let Some(mut begun) = Begun::new(db, effort)? else { return Ok(()) };
    pace.step()?;
    while begun.step(db)? {
        pace.step()?;
    }
    pace.step()?;
    begun.finish(db)
}

/// A checkpoint in the making.
pub(crate) struct Begun {
    writer: Writer,
    number: u64,
    next_id: u64,
    flushed: Timestamp,
    effort: Effort,
    /// The series that come next.
    from: usize,
}

impl Begun {
    /// Begins one for everything logged so far; `None` where it would be as the one before.
    pub(crate) fn new(db: &Inner, effort: Effort) -> Result<Option<Self>, JobError> {
        // What the disk refuses comes along in the checkpoint.
        db.head.turn_chunks();
        while db.head.write_chunks(&*db.disk).is_ok_and(|more| more) {}
        db.disk.sync_dir(Path::new(arena::DIR))?;
        // So that appends do not wait for much of it when the segment is closed.
        db.log.sync()?;
        let (number, next_id, flushed) = {
            // Between two batches: each is in a segment before, or not at all in a state so far.
            let _writer = db.writer();
            let number = db.log.rotate()?;
            (number, db.head.next_id(), db.head.flushed())
        };
        let old = *db.replay_from.lock();
        let is_new = db.log.segments().range(old..).next().is_some();
        let is_smaller = effort == Effort::Bytes && *db.checkpoint_effort.lock() == Effort::Time;
        if !is_new && !is_smaller {
            return Ok(None);
        }
        let mut writer = Writer::new(Arc::clone(&db.disk), number)?;
        // Handles given from now on are in segments that are kept.
        writer.add(|encoder| encoder.checkpoint(next_id, flushed))?;
        writer.flush()?;
        Ok(Some(Self { writer, number, next_id, flushed, effort, from: 0 }))
    }

    /// Adds some series; whether there are more.
    pub(crate) fn step(&mut self, db: &Inner) -> Result<bool, JobError> {
        let mut next = None;
        self.writer.add(|encoder| next = db.head.save(self.from, self.effort, encoder))?;
        self.from = next.unwrap_or(self.from);
        Ok(next.is_some())
    }

    /// Publishes it, and removes what only the one before needed.
    pub(crate) fn finish(self, db: &Inner) -> Result<(), JobError> {
        let Self { mut writer, number, next_id, flushed, effort, .. } = self;
        for (family, metadata) in db.head.metadata() {
            writer.add(|encoder| encoder.metadata(&family, &metadata))?;
        }
        for (id, exemplar) in db.head.exemplars(TimeRange::new(Timestamp::MIN, Timestamp::MAX)) {
            writer.add(|encoder| encoder.exemplar(id.0, &exemplar))?;
        }
        // Once more: without it a handle could be given twice.
        writer.flush()?;
        writer.add(|encoder| encoder.checkpoint(next_id, flushed))?;
        writer.publish()?;
        let old = std::mem::replace(&mut *db.replay_from.lock(), number);
        *db.checkpoint_effort.lock() = effort;
        *db.checkpoint_size.lock() = db.disk.size(&checkpoint::path(number))?;
        // A start that finds both may need the older one, with the files that it refers to. Where
        // nothing was logged since, the new one has taken its place.
        let remove = || if old == number { Ok(()) } else { db.disk.remove(&checkpoint::path(old)) };
        match remove() {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        let gone = db.head.take_gone_files();
        db.head.remove_files(&*db.disk, gone)?;
        Ok(())
    }
}
