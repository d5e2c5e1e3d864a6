//! The reading half of a forwarder: from the store to rounds, and the cursor behind them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Clock, Metadata, Span, Timestamp};

use super::cursor::{Cursor, Place, Saved};
use super::encode::Families;
use super::round::Round;
use super::route::Router;
use super::source::{Event, Position, Source, SourceError, StoredBatch};
use super::sparse::Sparse;
use super::status::{Failure, Status};

/// Bytes of the log by which the cursor says in advance what will be sent.
const AHEAD: u64 = 1 << 20;
/// Most rows that are read before they are routed: the bound of what reading keeps in memory.
const BURST_ROWS: usize = 10_000;
/// What is so old says little of what is there now.
const BEHIND: Span = Span(5 * Span::MINUTE.0);
/// How often that is found out.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// Families whose metadata is kept.
const FAMILIES_MAX: usize = 50_000;

/// What an earlier run left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// What is stored before it may have been sent.
    pub(super) maybe_sent_until: Position,
    /// How many requests were in flight at once.
    pub(super) shards: Option<usize>,
}

impl Before {
    pub(super) fn of(saved: &Saved, source: &dyn Source) -> Self {
        match saved {
            Saved::At(place) if place.log == source.log() => Self {
                maybe_sent_until: place.reached.min(source.end()),
                shards: Some(place.shards),
            },
            Saved::Damaged(_) => Self { maybe_sent_until: source.end(), shards: None },
            Saved::At(_) | Saved::Nothing => {
                Self { maybe_sent_until: Position::default(), shards: None }
            }
        }
    }
}

/// Works on threads that may wait for the disk.
pub(super) struct Core {
    pub(super) source: Box<dyn Source>,
    pub(super) router: Router,
    pub(super) cursor: Cursor,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) status: Arc<Mutex<Status>>,
    pub(super) families: Arc<Mutex<Families>>,
    pub(super) read: Position,
    /// Everything before it was dealt with.
    pub(super) done: Position,
    /// Read, and too much for the round that was filled.
    pub(super) held: Option<StoredBatch>,
    /// When to find out next what is there.
    pub(super) look_at: Duration,
    pub(super) troubles: Troubles,
}

/// What the disk refuses of what a restart would need.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Troubles {
    note: Sparse,
    save: Sparse,
    shorten: Sparse,
}

/// What a round has room for.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Items in it.
    items: usize,
    /// With so many it is full.
    full: usize,
    /// The most that one request takes.
    request: usize,
}

impl Room {
    /// Whether `more` rows are taken when `rows` were read already: not where a request for the few that
    /// are too many would come beside the others.
    fn takes(self, rows: usize, more: usize) -> bool {
        let size = |items: usize| items / items.div_ceil(self.request.max(1)).max(1);
        let items = self.items + rows;
        items + more <= self.full || size(items + more) >= size(items)
    }
}

/// How a look at the store ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    pub(super) caught_up: bool,
    pub(super) failed: bool,
    /// Something was read that the round had no room for.
    pub(super) held: bool,
}

impl Core {
    /// Reads until `round` has `full` items or everything stored was read.
    pub(super) fn fill(&mut self, round: &mut Round, full: usize) -> Filled {
        let mut filled = Filled::default();
        let enough = full - full / 8;
        while round.items < enough && !filled.caught_up && !filled.failed {
            let mut batches = Vec::new();
            let room = Room { items: round.items, full, request: full / round.shards.len().max(1) };
            match self.read(&mut batches, room) {
                Ok(caught_up) => filled.caught_up = caught_up,
                Err(error) => {
                    tracing::warn!("{error}");
                    let message = error.to_string();
                    let failure = Failure { at: self.clock.now(), message };
                    self.status.lock().last_error = Some(failure);
                    filled.failed = true;
                }
            }
            filled.held = self.held.is_some();
            if filled.held && batches.is_empty() {
                break;
            }
            let (now, wall) = (self.clock.monotonic(), self.clock.now());
            self.look_ahead(&batches, now, wall);
            self.router.route(batches, now, wall, round, &self.status);
            if self.held.is_none() {
                self.router.forget(now);
            }
            let mut status = self.status.lock();
            status.caught_up = filled.caught_up;
            status.lag_bytes = self.source.lag_bytes();
            status.segment = self.cursor.saved().map(|place| place.done.segment);
        }
        filled
    }

    /// Where what is read lies far behind, finds out what is there by now: that comes first.
    fn look_ahead(&mut self, batches: &[StoredBatch], now: Duration, wall: Timestamp) {
        let times = batches.iter().flat_map(|batch| &batch.rows).map(|(_, _, sample)| sample.at);
        let is_behind = times.min().is_some_and(|oldest| wall.since(oldest) > BEHIND);
        if !is_behind {
            self.router.set_present(None);
        } else if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            match self.source.present() {
                Ok(present) => self.router.set_present(present),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// Reads a burst; says whether that was all. What would make requests smaller is held for the
    /// next round.
    fn read(&mut self, batches: &mut Vec<StoredBatch>, room: Room) -> Result<bool, SourceError> {
        let burst = room.full.saturating_sub(room.items).clamp(BURST_ROWS / 10, BURST_ROWS);
        let mut rows = 0;
        while rows < burst {
            let event = match self.held.take() {
                Some(batch) => Event::Batch(batch),
                None => self.source.next(&|series| self.router.knows(series))?,
            };
            match event {
                Event::Batch(batch)
                    if rows > 0 && rows + batch.rows.len() > burst
                        || !room.takes(rows, batch.rows.len()) =>
                {
                    self.held = Some(batch);
                    return Ok(false);
                }
                Event::Batch(mut batch) => {
                    self.read = batch.position_after;
                    rows += batch.rows.len().max(1);
                    self.keep_metadata(std::mem::take(&mut batch.metadata));
                    batches.push(batch);
                }
                Event::Lost { to, reason } => {
                    tracing::error!("a stretch of the log cannot be forwarded: {reason}");
                    self.read = to;
                    self.status.lock().counters.gaps += 1;
                }
                Event::CaughtUp => return Ok(true),
            }
        }
        Ok(false)
    }

    fn keep_metadata(&self, metadata: Vec<(String, Metadata)>) {
        if metadata.is_empty() {
            return;
        }
        let mut families = self.families.lock();
        for (family, metadata) in metadata {
            if families.len() < FAMILIES_MAX || families.contains_key(&family) {
                families.insert(family, metadata);
            }
        }
    }

    /// Makes durable what was dealt with, and lets go of it. Where the wall clock is not believed, nothing
    /// is forgotten of what was sent.
    pub(super) fn save(&mut self, shards: usize, is_believed: bool) {
        let ahead = Position { offset: self.read.offset.saturating_add(AHEAD), ..self.read };
        let now = self.clock.now();
        let newest = self.status.lock().newest_done.map(|newest| newest.min(now));
        let newest = newest.max(self.cursor.saved().and_then(|saved| saved.newest));
        let (log, done) = (self.source.log(), self.done);
        let place = Place { log, done, reached: ahead, shards, newest };
        match self.cursor.save(place) {
            Ok(()) => {
                self.troubles.save.worked();
                self.source.release(self.done);
                if !is_believed {
                    return;
                }
                match self.router.done(self.done, now) {
                    Ok(()) => drop(self.troubles.shorten.worked()),
                    Err(error) => {
                        if let Some(attempts) = self.troubles.shorten.failed() {
                            tracing::warn!(attempts, "{error}; what was sent is not forgotten");
                        }
                    }
                }
            }
            Err(error) => {
                if let Some(attempts) = self.troubles.save.failed() {
                    tracing::warn!(
                        attempts,
                        "cannot save the forwarding cursor: {error}; after a crash, samples are sent again"
                    );
                }
            }
        }
    }

    /// Writes down what is in `round` before it is sent.
    pub(super) fn note(&mut self, round: &Round) {
        let Err(error) = self.router.note(round, self.read, self.clock.now()) else {
            if let Some(rounds) = self.troubles.note.worked() {
                tracing::info!(rounds, "what is chosen to be sent is written down again");
                self.status.lock().trail.failing = false;
            }
            return;
        };
        let message = format!("{error}; after a crash, other samples may be chosen than were sent");
        if let Some(rounds) = self.troubles.note.failed() {
            tracing::warn!(rounds, "{message}");
        }
        let mut status = self.status.lock();
        status.trail.failing = true;
        status.trail.unwritten += 1;
        status.last_error = Some(Failure { at: self.clock.now(), message });
    }

    /// Whether everything read so far is known to be sent by so many shards.
    pub(super) fn is_reached(&self, shards: usize) -> bool {
        let saved = self.cursor.saved();
        saved.is_some_and(|saved| saved.reached >= self.read && saved.shards == shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_takes_what_does_not_make_its_requests_smaller() {
        let room = |items| Room { items, full: 2000, request: 2000 };
        assert!(room(0).takes(0, 505) && room(0).takes(0, 10_000));
        assert!(room(1000).takes(495, 505));
        assert!(!room(1515).takes(0, 505), "1010 each instead of 1515");
        assert!(room(1005).takes(0, 1005), "1005 either way");
        assert!(!room(1800).takes(0, 1000));
        assert!(room(0).takes(1000, 3000), "2000 each instead of 1000");
        let two = Room { items: 3515, full: 4000, request: 2000 };
        assert!(!two.takes(0, 505));
    }
}
