//! What became of every sample, and how an endpoint is doing.

use std::collections::BTreeMap;

use stint_model::{Span, Timestamp};

use super::identity::IdentityCounts;
use crate::budget::policy::Reason;

/// Numbers of one endpoint since the start. Every sample that was read is in exactly one of
/// `sent`, `withheld`, `refused`, `too_old`, `failed` and `pending`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Samples read from the store.
    pub read: u64,
    /// Samples that the endpoint took.
    pub sent: u64,
    /// Samples that were kept back, by reason.
    pub withheld: BTreeMap<Reason, u64>,
    /// Samples in requests (or of new series in requests) that the endpoint refused, by error id.
    /// Where the answer does not say which samples it means, all of the request are counted, so
    /// the endpoint may hold more than `sent` says, and never less.
    pub refused: BTreeMap<String, u64>,
    /// Samples that were too old to be taken when their turn came.
    pub too_old: u64,
    /// Samples given up because the endpoint fails on them while it takes others.
    pub failed: u64,
    /// Samples in the store that could not be read: their series is unknown.
    pub lost: u64,
    /// Stretches of the store that could not be read, of unknown content.
    pub gaps: u64,
    /// Samples read and not dealt with yet.
    pub pending: u64,
    /// Samples in requests that were written to a socket, repetitions included.
    pub attempted: u64,
    /// Samples in requests sent that had failed before.
    pub retried: u64,
    /// Requests sent, retries included; none for which there was no connection.
    pub requests: u64,
    /// Compressed bytes of samples sent, retries included.
    pub bytes: u64,
    /// Stale markers sent because a series is not forwarded any more.
    pub markers: u64,
    /// Samples made here, of aggregates and of what tells targets apart; they are not among those
    /// read.
    pub made: u64,
    /// Samples made here that the endpoint took.
    pub made_sent: u64,
    /// Exemplars sent.
    pub exemplars: u64,
    /// Exemplars not sent: their series is not, or the endpoint is not sent any.
    pub exemplars_withheld: u64,
    /// Metadata entries sent.
    pub metadata: u64,
    /// Metadata entries that the endpoint did not take.
    pub metadata_failed: u64,
    /// Compressed bytes of metadata sent.
    pub metadata_bytes: u64,
}

impl Counters {
    /// Samples that are accounted for.
    pub fn settled(&self) -> u64 {
        let withheld: u64 = self.withheld.values().sum();
        let refused: u64 = self.refused.values().sum();
        self.sent + withheld + refused + self.too_old + self.failed
    }

    pub(super) fn withhold(&mut self, reason: Reason, samples: u64) {
        if samples > 0 {
            *self.withheld.entry(reason).or_default() += samples;
        }
    }

    pub(super) fn refuse(&mut self, id: &str, samples: u64) {
        if samples == 0 {
            return;
        }
        // Ids are few; a server that invents new ones must not grow the table for ever.
        let is_room = self.refused.len() < REFUSED_IDS_MAX || self.refused.contains_key(id);
        let id = if is_room { id } else { "other" };
        *self.refused.entry(id.to_owned()).or_default() += samples;
    }
}

const REFUSED_IDS_MAX: usize = 64;

/// How an endpoint is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Numbers since the start.
    pub counters: Counters,
    /// Time of the newest sample read.
    pub newest_read: Option<Timestamp>,
    /// Time of the newest sample that was dealt with.
    pub newest_done: Option<Timestamp>,
    /// How old that sample was then.
    pub lateness: Span,
    /// Whether everything stored was read at the last look.
    pub caught_up: bool,
    /// Bytes of the store that are not read yet.
    pub lag_bytes: u64,
    /// The segment of the log up to which everything was dealt with, once anything was.
    pub segment: Option<u64>,
    /// Requests in flight at once.
    pub shards: usize,
    /// Requests in flight that were found to be needed.
    pub shards_desired: usize,
    /// Whether it is being forwarded at present.
    pub running: bool,
    /// How often forwarding broke down and was started again.
    pub restarts: u64,
    /// The last thing that went wrong.
    pub last_error: Option<Failure>,
    /// Numbers of targets that come and go; nothing where there are no rules for them.
    pub identities: Option<IdentityCounts>,
    /// When the endpoint last took samples.
    pub last_success: Option<Timestamp>,
    /// What the endpoint last said when it refused samples, by error id.
    pub refusals: BTreeMap<String, String>,
    /// How what is chosen is written down.
    pub trail: TrailStatus,
}

/// How writing down what is chosen goes, which is how a restart knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrailStatus {
    /// The disk refused it at the last attempt: what is sent after a crash may be chosen anew.
    pub failing: bool,
    /// Rounds that were sent although they could not be written down.
    pub unwritten: u64,
    /// Stretches of what earlier runs had written that could not be read.
    pub damaged: u64,
}

impl TrailStatus {
    /// A forwarder begins that could not read so many stretches.
    pub(super) fn begin(&mut self, damaged: u64) {
        self.failing = false;
        self.damaged += damaged;
    }
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// What.
    pub message: String,
}

impl Status {
    /// What was read and not dealt with is read again.
    pub(super) fn begin_again(&mut self) {
        self.counters.read -= self.counters.pending;
        self.counters.pending = 0;
        self.caught_up = false;
        self.newest_read = self.newest_done;
    }

    /// Notes what the endpoint says to samples that it refuses.
    pub(super) fn note_refusal(&mut self, id: &str, message: &str) {
        if self.refusals.len() < REFUSED_IDS_MAX || self.refusals.contains_key(id) {
            self.refusals.insert(id.to_owned(), message.to_owned());
        }
    }

    /// How far what was dealt with lies behind: behind `now` while there is more to deal with, which
    /// may not even be read while the endpoint is down, else behind what was read.
    pub fn lag(&self, now: Timestamp) -> Span {
        let is_idle = self.caught_up && self.counters.pending == 0;
        match (self.newest_read, self.newest_done) {
            (Some(read), Some(done)) => {
                let behind = if is_idle { read } else { now.max(read) };
                Span(behind.since(done).as_ms().max(0))
            }
            (Some(_), None) | (None, _) => Span::ZERO,
        }
    }
}
