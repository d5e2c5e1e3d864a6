//! The store's log as the source of a forwarder.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use stint_model::{Clock, SeriesRef, Span, TimeRange, Timestamp};
use stint_storage::{CursorEvent, Db, HoldError, WalHold, WalId, WalPosition};

use super::catch_up::{self, CatchUp};
use super::cursor::Saved;
use super::source::{Event, Position, Source, SourceError, StoredBatch};

/// A series is there as long as queries show its last sample.
const SHOWN: Span = Span(5 * Span::MINUTE.0);

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
    clock: Arc<dyn Clock>,
) -> Result<Box<dyn Source>, HoldError> {
    let from = start(db, name, saved).unwrap_or_else(|| keep.lock().from());
    let (log, end) = (db.wal_id(), position(db.wal_end()));
    let hold = db.hold(&format!("read:{name}"), Some(from))?;
    let newest = match saved {
        Saved::At(place) if place.log == log => place.newest,
        Saved::At(_) | Saved::Nothing | Saved::Damaged(_) => None,
    };
    let (db, catch_up, catch_ups) = (db.clone(), None, 0);
    Ok(Box::new(Stored { db, hold, keep, log, end, clock, newest, catch_up, catch_ups }))
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
    db: Db,
    hold: WalHold,
    keep: Arc<Mutex<Keep>>,
    log: WalId,
    end: Position,
    clock: Arc<dyn Clock>,
    /// Time of the newest sample read.
    newest: Option<Timestamp>,
    /// The hole in the log that is being filled, and where the log was read up to before it.
    catch_up: Option<(CatchUp, Position)>,
    catch_ups: u64,
}

fn position(position: WalPosition) -> Position {
    Position { segment: position.segment, offset: position.offset }
}

impl Stored {
    /// The next part of what is not in the log; nothing when all of it was read.
    fn caught_up(&mut self) -> Result<Option<StoredBatch>, SourceError> {
        let Some((catch_up, from)) = &mut self.catch_up else { return Ok(None) };
        let batch = catch_up.next().map_err(|error| SourceError(error.to_string()))?;
        if batch.is_none() {
            self.hold.seek(catch_up.end);
            self.catch_up = None;
            tracing::info!("what the log no longer holds was read from the store");
            return Ok(None);
        }
        let from = *from;
        Ok(batch.map(|batch| StoredBatch { position_after: from, ..batch }))
    }

    fn note_newest(&mut self, batch: &StoredBatch) {
        let now = self.clock.now();
        // A clock that is ahead somewhere must not hide what the others say.
        let times = batch.rows.iter().map(|(_, _, sample)| sample.at).filter(|at| *at <= now);
        self.newest = self.newest.max(times.max());
    }
}

impl Source for Stored {
    fn next(&mut self, is_known: &dyn Fn(SeriesRef) -> bool) -> Result<Event, SourceError> {
        loop {
            if let Some(batch) = self.caught_up()? {
                self.note_newest(&batch);
                return Ok(Event::Batch(batch));
            }
            let event = self.hold.next_event_knowing(is_known);
            let event = event.map_err(|error| SourceError(error.to_string()))?;
            match (event, self.newest) {
                (CursorEvent::Batch(batch), _) => {
                    let batch = StoredBatch {
                        rows: batch.rows,
                        exemplars: batch.exemplars,
                        metadata: batch.metadata,
                        orphans: batch.orphans,
                        maybe_sent: false,
                        position_after: position(batch.position_after),
                    };
                    self.note_newest(&batch);
                    return Ok(Event::Batch(batch));
                }
                (CursorEvent::Lost { from, to, reason }, Some(newest)) => {
                    tracing::warn!(
                        "the log cannot be read from {from} to {to} ({reason}); what was stored since is read from the store"
                    );
                    self.catch_ups += 1;
                    match CatchUp::begin(&self.db, newest, self.catch_ups) {
                        Ok(catch_up) => self.catch_up = Some((catch_up, position(from))),
                        Err(error) => {
                            // It is found again at the next attempt.
                            self.hold.seek(from);
                            return Err(SourceError(error.to_string()));
                        }
                    }
                }
                (CursorEvent::Lost { from, to, reason }, None) => {
                    let reason = format!("{from} to {to}: {reason}");
                    return Ok(Event::Lost { to: position(to), reason });
                }
                (CursorEvent::CaughtUp, _) => return Ok(Event::CaughtUp),
            }
        }
    }

    fn position(&self) -> Position {
        match &self.catch_up {
            Some((_, from)) => *from,
            None => position(self.hold.position()),
        }
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

    fn present(&self) -> Result<Option<HashSet<u64>>, SourceError> {
        let now = self.clock.now();
        let since = Timestamp(now.as_ms().saturating_sub(SHOWN.as_ms()));
        let present = catch_up::present(&self.db, TimeRange::new(since, now));
        present.map(Some).map_err(|error| SourceError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use stint_model::clock::SimClock;
    use stint_model::{Appender as _, Batch, Labels, Sample, Timestamp};
    use stint_storage::disk::sim::{Crash, Unsynced};
    use stint_storage::{Options, SimDisk};

    use super::*;
    use crate::forward::cursor::Place;

    fn clock() -> Arc<dyn Clock> {
        Arc::new(SimClock::at(Timestamp(i64::MAX / 2)))
    }

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
        Saved::At(Place { log: db.wal_id(), done: end, reached: end, shards: 1, newest: None })
    }

    fn kept(db: &Db, saved: &Saved) -> Arc<Mutex<Keep>> {
        Arc::new(Mutex::new(Keep::new(db, "a", saved).unwrap()))
    }

    /// Rows that are read until there are no more.
    fn read(mut source: Box<dyn Source>) -> usize {
        std::iter::from_fn(|| match source.next(&|_| false).unwrap() {
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
        let source = open(&db, "a", &saved, kept(&db, &saved), clock()).unwrap();
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
        assert_eq!(read(open(&db, "a", &saved, kept(&db, &saved), clock()).unwrap()), 3);
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
        let mut source = open(&db, "a", &Saved::Nothing, Arc::clone(&keep), clock()).unwrap();
        source.release(Position::default());
        assert_eq!(read(source), 3999);
    }

    /// Times that are read of each series, in order.
    fn times(source: &mut dyn Source) -> Vec<(Labels, i64)> {
        let mut all = Vec::new();
        loop {
            match source.next(&|_| false).unwrap() {
                Event::Batch(batch) => all.extend(
                    batch
                        .rows
                        .iter()
                        .map(|(_, labels, it)| (labels.clone().unwrap(), it.at.as_ms())),
                ),
                Event::Lost { reason, .. } => panic!("{reason}"),
                Event::CaughtUp => return all,
            }
        }
    }

    /// A store whose log is kept for nobody who falls back far.
    fn forgetful() -> Db {
        let options =
            Options { segment_bytes: 1 << 14, hold_bytes_max: 1 << 16, ..Options::default() };
        Db::open(Arc::new(SimDisk::new()), options).unwrap().0
    }

    fn work(db: &Db, now: i64) {
        while let Some(job) = db.next_job(Timestamp(now)) {
            job.run().unwrap();
        }
    }

    fn append_two(db: &Db, at: i64) {
        let mut batch = Batch::default();
        for name in ["a", "b"] {
            let labels = Labels::from_pairs([("__name__", name)]);
            batch.push(labels, Sample::float(Timestamp(at), at as f64));
        }
        db.append(&batch).unwrap();
    }

    #[test]
    fn what_the_log_no_longer_holds_is_read_from_the_store_oldest_first() {
        let db = forgetful();
        let saved = Saved::Nothing;
        let mut source = open(&db, "a", &saved, kept(&db, &saved), clock()).unwrap();
        for n in 0..10 {
            append_two(&db, n * 10_000);
        }
        assert_eq!(times(&mut *source).len(), 20);
        let done = source.position();
        for n in 10..6000 {
            append_two(&db, n * 10_000);
        }
        work(&db, 60_000_000);
        let begun = source.next(&|_| false).unwrap();
        assert!(matches!(&begun, Event::Batch(batch) if batch.position_after == done));
        assert_eq!(source.position(), done, "until all of it was read");
        let Event::Batch(first) = begun else { unreachable!() };
        let mut all: Vec<i64> = first.rows.iter().map(|(_, _, it)| it.at.as_ms()).collect();
        all.extend(times(&mut *source).iter().map(|(_, at)| *at));
        assert!(all.is_sorted());
        // Something is read twice: up to 15 seconds, that is two samples of each.
        let expected: Vec<i64> = (8..6000).flat_map(|n| [n * 10_000; 2]).collect();
        assert_eq!(all, expected);
        assert!(source.position() > done);
        append_two(&db, 60_000_000);
        assert_eq!(times(&mut *source).len(), 2, "then the log goes on");
    }

    #[test]
    fn what_is_there_is_told_by_the_newest_samples() {
        let db = store(&SimDisk::new());
        append_two(&db, 0);
        append(&db, 400_000);
        let clock = Arc::new(SimClock::at(Timestamp(401_000)));
        let saved = Saved::Nothing;
        let source = open(&db, "a", &saved, kept(&db, &saved), clock).unwrap();
        let a = Labels::from_pairs([("__name__", "a")]).stable_hash();
        assert_eq!(source.present().unwrap().unwrap(), HashSet::from([a]));
    }

    #[test]
    fn after_a_restart_in_the_middle_the_rest_is_read() {
        let db = forgetful();
        for n in 0..6000 {
            append_two(&db, n * 10_000);
        }
        work(&db, 60_000_000);
        let newest = Some(Timestamp(30_000_000));
        let saved = Saved::At(Place {
            log: db.wal_id(),
            done: Position { segment: 0, offset: 0 },
            reached: Position { segment: 0, offset: 0 },
            shards: 1,
            newest,
        });
        let mut source = open(&db, "a", &saved, kept(&db, &saved), clock()).unwrap();
        let all = times(&mut *source);
        assert_eq!(all.first().unwrap().1, 29_990_000);
        assert_eq!(all.len(), 2 * 3001);
    }
}
