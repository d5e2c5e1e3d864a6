//! Which series the server may be counting: one lease per series, durable before the first send.
//!
//! A lease is live from its grant until the hold time has passed since the last moment at which a
//! sample of the series may have arrived at the server. Time here is monotonic: setting the wall
//! clock changes nothing. While leases are never more than the target, the server cannot count
//! more, since it counts only what was sent, and nothing is sent without a lease.
//!
//! On disk the ledger is a checkpoint followed by the grants made since. The end of a lease in use is
//! not written: after a restart it is held for the whole hold time again, which is safe whatever
//! happened to the clock in between. But a lease found at a start is *dormant* until its series is
//! sent again, which is written before it happens. So the time that this process runs is time in
//! which a dormant lease is surely not used; it is written with the checkpoints, and adds up over
//! restarts. Otherwise series that vanished would hold their slots for as long as restarts come
//! more often than the hold time. See `docs/formats/ledger.md` for the bytes.

mod file;
pub(super) mod unlisted;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stint_model::Span;
use stint_storage::{Disk, DiskError};

use super::group::{Key, KeyHasher};
use super::limits::ON_ITS_WAY;
use file::{Entry, LedgerFile};
use write::Paper;

pub use write::{Write, Written};

/// What a lease has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Granted: the server may not know the series.
    Unconfirmed,
    /// Found after a restart: most likely the server knows the series.
    Recovered,
    /// The server accepted a request with this series.
    Confirmed,
    /// The server had no room for it, as far as is known.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// The hold time after the latest moment at which a sample of the series may have arrived.
    ends: Duration,
    /// The same without the request that is on its way.
    ended_before: Duration,
    /// Found at start, and not used since.
    is_dormant: bool,
    /// It becomes fit for use with what is being written.
    is_promised: bool,
    /// Whether the file says for how long the series was not sent.
    is_unused_written: bool,
    class: u16,
    state: State,
    /// Not before this: a request that got no answer may still arrive.
    ends_not_before: Duration,
}

impl Lease {
    /// Of a series that an earlier run used, of which nothing more is known.
    const fn recovered(ends: Duration, class: u16) -> Self {
        Self {
            ends,
            ended_before: ends,
            is_dormant: true,
            is_promised: false,
            is_unused_written: false,
            class,
            state: State::Recovered,
            ends_not_before: Duration::ZERO,
        }
    }

    /// Of a series that is new.
    const fn granted(ends: Duration, class: u16) -> Self {
        Self { is_dormant: false, state: State::Unconfirmed, ..Self::recovered(ends, class) }
    }
}

/// Why slots were not granted. Nothing was granted then.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// More series than slots.
    #[error("{wanted} series want a slot and {free} are free")]
    NoRoom {
        /// New series in the request.
        wanted: u64,
        /// Slots that were free.
        free: u64,
    },
    /// The grant could not be made durable.
    #[error("cannot write the ledger: {0}; no new series are forwarded until it can be written")]
    Disk(#[from] DiskError),
    /// Another grant is being made durable.
    #[error("the ledger is being written")]
    Busy,
}

/// What was found when the ledger was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Leases of an earlier run.
    Leases(u64),
    /// No ledger.
    Missing,
    /// A ledger that cannot be trusted to be complete; the text says what is wrong with it.
    Damaged(String),
}

/// The leases of one endpoint.
#[derive(Debug)]
pub struct Ledger {
    leases: HashMap<Key, Lease, KeyHasher>,
    by_class: Vec<u64>,
    hold: Duration,
    paper: Paper,
    /// Whether grants are durable before they hold.
    is_durable: bool,
    /// All leases are written next time.
    is_checkpoint_due: bool,
    purge_at: Duration,
    checkpoint_at: Duration,
    changes: u64,
    granted: u64,
    ended: u64,
}

/// How many leases there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// The server accepted a request with the series.
    pub confirmed: u64,
    /// The server may not know the series.
    pub unconfirmed: u64,
    /// An earlier run left it, and the server has not confirmed it since.
    pub recovered: u64,
    /// The server had no room for the series.
    pub refused: u64,
}

/// Expired leases are looked for this often; until then they merely keep their slots.
const PURGE_EVERY: Duration = Duration::from_secs(5);
/// A checkpoint is written at most this often.
const CHECKPOINT_EVERY: Duration = Duration::from_mins(1);

impl Ledger {
    /// A ledger that is kept in memory only.
    pub fn in_memory(hold: Span) -> Self {
        Self {
            leases: HashMap::default(),
            by_class: Vec::new(),
            hold: hold.to_std(),
            paper: Paper::Nowhere,
            is_durable: true,
            is_checkpoint_due: false,
            purge_at: Duration::ZERO,
            checkpoint_at: Duration::ZERO,
            changes: 0,
            granted: 0,
            ended: 0,
        }
    }

    /// Opens the ledger at `path`. What it holds is dormant, for as long as is known. It never fails: what
    /// cannot be read is reported as [`Found::Damaged`], what cannot be written fails grants.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, hold: Span, now: Duration) -> (Self, Found) {
        let mut ledger = Self::in_memory(hold);
        let (file, entries, found) = LedgerFile::open(disk, path);
        ledger.paper = Paper::Here(file);
        ledger.checkpoint_at = now;
        for Entry { key, class, unused } in entries {
            // Of what was used to the end, the last request may arrive later yet.
            let late = if unused.is_zero() { ON_ITS_WAY } else { Duration::ZERO };
            let ends = now + ledger.hold.saturating_sub(unused) + late;
            let is_unused_written = !unused.is_zero();
            // What comes later in the file holds.
            ledger.remove(key);
            ledger.insert(key, Lease { is_unused_written, ..Lease::recovered(ends, class) });
        }
        (ledger, found)
    }

    /// From now on nothing is written but by [`Ledger::checkpoint`]: for an endpoint without a budget,
    /// which need not wait for the disk. See `unlisted`.
    pub fn write_at_end(&mut self) {
        self.is_durable = false;
    }

    /// Takes in series of which the server says that it counts them: they are as those of an earlier run
    /// of which nothing more is known.
    pub fn recover(&mut self, keys: &[Key], class: u16, now: Duration) {
        let ends = now + self.hold;
        for key in keys {
            match self.leases.get_mut(key) {
                None => self.insert(*key, Lease::recovered(ends, class)),
                Some(lease) if lease.is_promised => lease.state = State::Recovered,
                Some(_) => {}
            }
        }
    }

    /// Grows with every change to what a series may do: leases granted, renewed, ended, refused. That
    /// one is used, or counts for another class, is none.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many leases were granted.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// How many leases there are of each kind.
    pub fn counts(&self) -> LeaseCounts {
        let mut counts = LeaseCounts::default();
        for lease in self.leases.values() {
            let count = match lease.state {
                State::Confirmed => &mut counts.confirmed,
                State::Unconfirmed => &mut counts.unconfirmed,
                State::Recovered => &mut counts.recovered,
                State::Refused => &mut counts.refused,
            };
            *count += 1;
        }
        counts
    }

    /// How many leases have ended.
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// How many slots are in use.
    pub fn live(&self) -> u64 {
        self.leases.len() as u64
    }

    /// Slots in use by number of class; classes at the end that use none may be missing.
    pub fn live_by_class(&self) -> &[u64] {
        &self.by_class
    }

    /// Whether a lease must be [promised](Ledger::promise) anew before its series is sent.
    pub fn is_dormant(&self, key: Key) -> bool {
        self.leases.get(&key).is_some_and(|lease| lease.is_dormant)
    }

    /// Whether a series holds a lease under which it may be sent.
    pub fn is_fit(&self, key: Key) -> bool {
        self.leases.get(&key).is_some_and(|lease| !lease.is_dormant && !lease.is_promised)
    }

    /// Whether the file says that the series was unused for a while, so that it has to say otherwise
    /// before even the end of it is sent.
    pub fn needs_writing(&self, key: Key) -> bool {
        self.leases.get(&key).is_some_and(|lease| lease.is_unused_written || lease.is_promised)
    }

    /// Whether a series holds a lease.
    pub fn is_live(&self, key: Key) -> bool {
        self.leases.contains_key(&key)
    }

    /// How many leases of series there are that were not sent since a moment.
    pub fn untouched_since(&self, moment: Duration) -> u64 {
        self.leases.values().filter(|lease| lease.ends < moment + self.hold).count() as u64
    }

    /// Whether the lease of a series was not used since a moment; nothing when it has none.
    pub fn is_unused_since(&self, key: Key, moment: Duration) -> Option<bool> {
        self.leases.get(&key).map(|lease| lease.ends < moment + self.hold)
    }

    /// How many leases the server has confirmed.
    pub fn confirmed(&self) -> u64 {
        self.leases.values().filter(|lease| lease.state == State::Confirmed).count() as u64
    }

    /// The series that hold leases, in no order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.leases.keys().copied()
    }

    /// Notes that bytes of these series are about to be handed to the network and may arrive until
    /// `until`.
    pub fn hand_over(&mut self, keys: impl IntoIterator<Item = Key>, until: Duration) {
        for key in keys {
            if let Some(lease) = self.leases.get_mut(&key) {
                let ends = until + self.hold;
                // A series may be in a request twice.
                if lease.ends != ends {
                    lease.ended_before = lease.ends;
                }
                lease.ends = lease.ends.max(ends);
            }
        }
    }

    /// Notes an answer that says that nothing of the request counts: it is as if it had not been sent.
    pub fn uncounted(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.ends = lease.ended_before.max(lease.ends_not_before);
            }
        }
    }

    /// Notes that there was no answer: the request may arrive until the time for which it was handed
    /// over, whatever becomes of a later one.
    pub fn unanswered(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.ends_not_before = lease.ends;
            }
        }
    }

    /// Notes a definite answer: nothing of the request arrives later than `now`. With `accepted`,
    /// the server has taken the series in.
    pub fn answered(&mut self, keys: impl IntoIterator<Item = Key>, now: Duration, accepted: bool) {
        for key in keys {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.ends = (now + self.hold).max(lease.ends_not_before);
                if accepted {
                    self.changes += u64::from(lease.state == State::Refused);
                    lease.state = State::Confirmed;
                }
            }
        }
    }

    /// Notes that the server may not have taken these series in.
    pub fn refused(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.changes += 1;
        for key in keys {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.state = State::Refused;
            }
        }
    }

    /// Whether the series was refused when it was sent last.
    pub fn is_refused(&self, key: Key) -> bool {
        self.leases.get(&key).is_some_and(|lease| lease.state == State::Refused)
    }

    /// Counts a lease under `class` from now on: the classes may have changed since it was granted.
    pub fn reclass(&mut self, key: Key, class: u16) {
        if self.leases.get(&key).is_some_and(|lease| lease.class != class)
            && let Some(lease) = self.remove(key)
        {
            self.insert(key, Lease { class, ..lease });
        }
    }

    /// How many leases are dormant.
    pub fn dormant(&self) -> u64 {
        self.leases.values().filter(|lease| lease.is_dormant).count() as u64
    }

    /// Those of `keys` that were granted in this run and that the server has not confirmed.
    pub fn unconfirmed_of(&self, keys: impl IntoIterator<Item = Key>) -> Vec<Key> {
        self.in_state(keys, |state| matches!(state, State::Unconfirmed | State::Refused))
    }

    /// Those of `keys` that an earlier run left and that the server has not confirmed since.
    pub fn recovered_of(&self, keys: impl IntoIterator<Item = Key>) -> Vec<Key> {
        self.in_state(keys, |state| state == State::Recovered)
    }

    fn in_state(
        &self,
        keys: impl IntoIterator<Item = Key>,
        holds: impl Fn(State) -> bool,
    ) -> Vec<Key> {
        let holds = |key: &Key| self.leases.get(key).is_some_and(|lease| holds(lease.state));
        keys.into_iter().filter(holds).collect()
    }

    /// Ends leases whose hold time is over and, now and then, wants a checkpoint.
    pub fn advance(&mut self, now: Duration) {
        if now >= self.purge_at {
            self.purge_at = now + PURGE_EVERY;
            let expired: Vec<Key> = self
                .leases
                .iter()
                .filter(|(_, lease)| lease.ends <= now)
                .map(|(key, _)| *key)
                .collect();
            self.ended += expired.len() as u64;
            for key in expired {
                self.remove(key);
            }
        }
        if !self.is_durable || now < self.checkpoint_at + CHECKPOINT_EVERY {
            return;
        }
        self.checkpoint_at = now;
        let live = self.live();
        let is_some_dormant = || self.leases.values().any(|lease| lease.is_dormant);
        if let Paper::Here(file) = &self.paper {
            self.is_checkpoint_due |= file.wants_checkpoint(live) || is_some_dormant();
        }
    }

    fn insert(&mut self, key: Key, lease: Lease) {
        self.changes += 1;
        let class = usize::from(lease.class);
        if self.leases.insert(key, lease).is_none() {
            if self.by_class.len() <= class {
                self.by_class.resize(class + 1, 0);
            }
            if let Some(count) = self.by_class.get_mut(class) {
                *count += 1;
            }
        }
    }

    fn remove(&mut self, key: Key) -> Option<Lease> {
        let lease = self.leases.remove(&key)?;
        self.changes += 1;
        if let Some(count) = self.by_class.get_mut(usize::from(lease.class)) {
            *count = count.saturating_sub(1);
        }
        Some(lease)
    }
}

#[cfg(test)]
mod tests;
