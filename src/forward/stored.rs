//! The store's log as the source of a forwarder.

use std::sync::Arc;

use parking_lot::Mutex;
use stint_storage::{CursorEvent, Db, HoldError, WalHold, WalId, WalPosition};

use super::cursor::Saved;
use super::source::{Event, Position, Source, SourceError, StoredBatch};

/// Keeps the log for an endpoint from where the last run stopped, whether its forwarder runs or
/// not.
pub struct Keep {
    hold: WalHold,
}

impl Keep {
    /// Holds `db`'s log under an endpoint's name.
    ///
    /// # Errors
    /// Somebody keeps it under that name already.
    pub fn new(db: &Db, name: &str, saved: &Saved) -> Result<Self, HoldError> {
        Ok(Self { hold: db.hold(&format!("keep:{name}"), start(db, name, saved))? })
    }

    /// Where it began.
    fn from(&self) -> WalPosition {
        self.hold.position()
    }
}

/// Reads `db`'s log from where the last run stopped, or else from where `keep` began. What the
/// reader lets go, `keep` does not keep either.
///
/// # Errors
/// Somebody reads under that name already.
pub fn open(
    db: &Db,
    name: &str,
    saved: &Saved,
    keep: Arc<Mutex<Keep>>,
) -> Result<Box<dyn Source>, HoldError> {
    let from = start(db, name, saved).unwrap_or_else(|| keep.lock().from());
    let (log, end) = (db.wal_id(), position(db.wal_end()));
    let hold = db.hold(&format!("read:{name}"), Some(from))?;
    Ok(Box::new(Stored { hold, keep, log, end }))
}

/// Where reading goes on: at the start of what is there where that cannot be told, because the
/// cursor is damaged or belongs to a store that was replaced.
fn start(db: &Db, name: &str, saved: &Saved) -> Option<WalPosition> {
    match saved {
        Saved::Nothing => None,
        Saved::Damaged(_) => Some(WalPosition::default()),
        Saved::At(place) if place.log != db.wal_id() => {
            tracing::warn!(
                endpoint = name,
                "the store is another one than the cursor was saved for; everything in its log is sent"
            );
            Some(WalPosition::default())
        }
        // A power cut may have made the log shorter than what was sent of it; then this is its end.
        Saved::At(place) => {
            Some(WalPosition { segment: place.done.segment, offset: place.done.offset })
        }
    }
}

struct Stored {
    hold: WalHold,
    keep: Arc<Mutex<Keep>>,
    log: WalId,
    end: Position,
}

fn position(position: WalPosition) -> Position {
    Position { segment: position.segment, offset: position.offset }
}

impl Source for Stored {
    fn next(&mut self) -> Result<Event, SourceError> {
        let event = self.hold.next_event().map_err(|error| SourceError(error.to_string()))?;
        Ok(match event {
            CursorEvent::Batch(batch) => Event::Batch(StoredBatch {
                rows: batch.rows,
                exemplars: batch.exemplars,
                metadata: batch.metadata,
                orphans: batch.orphans,
                position_after: position(batch.position_after),
            }),
            CursorEvent::Lost { from, to, reason } => {
                Event::Lost { to: position(to), reason: format!("{from} to {to}: {reason}") }
            }
            CursorEvent::CaughtUp => Event::CaughtUp,
        })
    }

    fn position(&self) -> Position {
        position(self.hold.position())
    }

    fn log(&self) -> WalId {
        self.log
    }

    fn end(&self) -> Position {
        self.end
    }

    fn release(&mut self, until: Position) {
        let until = WalPosition { segment: until.segment, offset: until.offset };
        self.hold.release_until(until);
        self.keep.lock().hold.release_until(until);
    }

    fn lag_bytes(&self) -> u64 {
        self.hold.lag_bytes()
    }
}

#[cfg(test)]
mod tests {
    use stint_model::{Appender as _, Batch, Labels, Sample, Timestamp};
    use stint_storage::disk::sim::{Crash, Unsynced};
    use stint_storage::{Options, SimDisk};

    use super::*;
    use crate::forward::cursor::Place;

    fn store(disk: &SimDisk) -> Db {
        Db::open(Arc::new(disk.clone()), Options::default()).unwrap().0
    }

    fn append(db: &Db, at: i64) {
        let mut batch = Batch::default();
        let labels = Labels::from_pairs([("__name__", "a")]);
        batch.push(labels, Sample::float(Timestamp(at), at as f64));
        db.append(&batch).unwrap();
    }

    fn place(db: &Db) -> Saved {
        let end = position(db.wal_end());
        Saved::At(Place { log: db.wal_id(), done: end, reached: end, shards: 1 })
    }

    fn kept(db: &Db, saved: &Saved) -> Arc<Mutex<Keep>> {
        Arc::new(Mutex::new(Keep::new(db, "a", saved).unwrap()))
    }

    /// Rows that are read until there are no more.
    fn read(mut source: Box<dyn Source>) -> usize {
        std::iter::from_fn(|| match source.next().unwrap() {
            Event::Batch(batch) => Some(batch.rows.len()),
            Event::Lost { reason, .. } => panic!("{reason}"),
            Event::CaughtUp => None,
        })
        .sum()
    }

    #[test]
    fn a_log_cut_short_by_a_power_cut_is_not_sent_again() {
        let disk = SimDisk::new();
        let db = store(&disk);
        append(&db, 1_000);
        db.sync().unwrap();
        for at in 2..10 {
            append(&db, at * 1_000);
        }
        let saved = place(&db);
        let left = disk.after_crash(Crash { data: Unsynced::Dropped, names_kept: false });
        let db = store(&left);
        let source = open(&db, "a", &saved, kept(&db, &saved)).unwrap();
        append(&db, 20_000);
        assert_eq!(read(source), 1, "only what came afterwards");
    }

    #[test]
    fn a_replaced_store_is_sent_from_its_start() {
        let saved = place(&{
            let db = store(&SimDisk::new());
            append(&db, 1_000);
            db
        });
        let db = store(&SimDisk::new());
        for at in 1..4 {
            append(&db, at * 1_000);
        }
        assert_eq!(read(open(&db, "a", &saved, kept(&db, &saved)).unwrap()), 3);
    }

    #[test]
    fn what_is_stored_while_no_forwarder_runs_is_kept_and_sent() {
        let options = Options { segment_bytes: 1 << 14, ..Options::default() };
        let db = Db::open(Arc::new(SimDisk::new()), options).unwrap().0;
        let keep = kept(&db, &Saved::Nothing);
        for at in 1..4000 {
            append(&db, at * 10_000);
        }
        // All of it is in blocks or covered by a checkpoint, so that nobody else needs the log.
        let mut jobs = 0;
        while let Some(job) = db.next_job(Timestamp(40_000_000)) {
            job.run().unwrap();
            jobs += 1;
        }
        assert!(jobs > 0);
        let mut source = open(&db, "a", &Saved::Nothing, Arc::clone(&keep)).unwrap();
        source.release(Position::default());
        assert_eq!(read(source), 3999);
    }
}
