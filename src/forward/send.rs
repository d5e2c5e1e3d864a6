//! Delivering the items of one shard: one request at a time, each until it is dealt with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Clock, Span};
use stint_wire::remote_write::Version;
use tokio::sync::watch;

use super::encode::{Encoded, Encoders, Families};
use super::piece::{Piece, Refused};
use super::retry::{Backoff, Response, Verdict, classify, retry_after};
use super::round::{Item, Payload};
use super::status::{Counters, Failure, Status};
use super::steady::Steady;
use super::transport::{Request, Transport, TransportError};
use crate::budget::admission::{Admission, GroupIndex};
use crate::budget::group::Key;
use crate::budget::policy::Reason;

/// How requests are made and repeated.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Items per request.
    pub samples_max: usize,
    /// Samples older than this are not sent; zero for no limit.
    pub age_max: Span,
    /// Which message is sent.
    pub version: Version,
    /// How long after its start a request may still arrive.
    pub in_flight_max: Duration,
    /// Whether there is a budget of series.
    pub is_budgeted: bool,
}

/// The sending half of a forwarder, shared by its shards.
pub struct Sender {
    /// The endpoint's name, for the log.
    pub name: String,
    /// How requests are made.
    pub settings: Settings,
    /// The way to the endpoint.
    pub transport: Arc<dyn Transport>,
    /// The budget. Locked for moments, never across a wait.
    pub admission: Arc<Mutex<Admission>>,
    /// What became of the samples. Locked for moments, never across a wait.
    pub status: Arc<Mutex<Status>>,
    /// Metadata for the 2.0 message.
    pub families: Arc<Mutex<Families>>,
    /// What requests are encoded with.
    pub encoders: Arc<Encoders>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Whether the wall clock can be believed.
    pub(super) steady: Mutex<Steady>,
    /// Monotonic milliseconds of the last accepted request.
    pub success_ms: AtomicU64,
    /// Requests refused as a whole since the last accepted one.
    pub refused_in_row: AtomicU32,
    /// How many leases had ended when what is sent now was found to hold its leases.
    pub ended: AtomicU64,
    /// The minute in which requests were last taken apart because the server was full, and how many.
    pub looked_minute: AtomicU64,
    /// See `looked_minute`.
    pub looked: AtomicU32,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Everything was dealt with.
    All,
    /// The server stops; the rest is read again at the next start.
    Stopped,
}

/// Failed attempts after which a request that gets nothing but 500 is taken apart.
const SUSPECT_AFTER: u32 = 8;
/// The same for a request that gets no answer, or one that speaks of the server's own trouble.
const TROUBLE_AFTER: u32 = 16;
/// Samples of which every request met with such trouble for so long, while others succeeded, are
/// given up.
const TROUBLE_MAX: Duration = Duration::from_mins(10);
/// Requests per minute that are taken apart because the server is full.
const LOOKS_PER_MINUTE: u32 = 256;
/// How often it is taken apart while no other request succeeds either.
const SPLITS_UNPROVEN_MAX: u32 = 2;

/// As many items are encoded between two looks at other connections: it takes some ten microseconds.
const ENCODED_AT_ONCE: usize = 500;
/// What was chosen longer ago is noted as sent whatever was noted when it was chosen.
const LATE_AFTER: Duration = Duration::from_mins(1);

/// The state of one delivery.
struct Way<'a> {
    backoff: &'a mut Backoff,
    /// Requests that the endpoint took.
    accepted: u64,
    /// When it began.
    since: Duration,
}

/// What to do after an attempt.
enum Next {
    Done,
    Wait(Piece, Duration),
    Send(Vec<Piece>),
}

impl Sender {
    /// Sends `queue` in order; a series is never in two requests at once.
    pub async fn deliver(
        &self,
        queue: Vec<Item>,
        backoff: &mut Backoff,
        stop: &watch::Receiver<bool>,
    ) -> Delivered {
        let mut stop = stop.clone();
        let mut queue = VecDeque::from(queue);
        let mut pieces: VecDeque<Piece> = VecDeque::new();
        let mut way = Way { backoff, accepted: 0, since: self.clock.monotonic() };
        loop {
            let piece = match pieces.pop_front() {
                Some(piece) => piece,
                None if queue.is_empty() => return Delivered::All,
                None => {
                    // Parts of the same size, rather than a last one of which the head is most.
                    let requests = queue.len().div_ceil(self.settings.samples_max.max(1));
                    let count = queue.len().div_ceil(requests.max(1));
                    let items = if requests <= 1 {
                        Vec::from(std::mem::take(&mut queue))
                    } else {
                        queue.drain(..count).collect()
                    };
                    Piece::new(items)
                }
            };
            match self.attempt(piece, &mut way).await {
                Next::Done => {}
                Next::Send(parts) => parts.into_iter().rev().for_each(|p| pieces.push_front(p)),
                Next::Wait(piece, wait) => {
                    if is_stopping(&stop) {
                        return Delivered::Stopped;
                    }
                    // Other parts may go ahead of one that fails, unless they hold its series.
                    if piece.failures >= SUSPECT_AFTER && !piece.pinned {
                        pieces.push_back(piece);
                    } else {
                        pieces.push_front(piece);
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = stop.wait_for(|stop| *stop) => return Delivered::Stopped,
                    }
                }
            }
        }
    }

    async fn attempt(&self, mut piece: Piece, way: &mut Way<'_>) -> Next {
        let unsettled = self.steady.lock().wait(self.clock.monotonic(), self.clock.now());
        if let Some(wait) = unsettled {
            return Next::Wait(piece, wait);
        }
        self.drop_unsendable(&mut piece);
        if piece.items().is_empty() {
            return Next::Done;
        }
        if let Some(refused) = piece.refused.as_ref().filter(|it| it.accepted == way.accepted) {
            let samples = piece.samples();
            self.settle(&piece, |counters| counters.refuse(&refused.id, samples));
            return Next::Done;
        }
        let body = if let Some(body) = &piece.body {
            body.clone()
        } else {
            let encoded;
            (piece, encoded) = self.encode(piece).await;
            let Some(encoded) = encoded else { return self.split(piece, "too_large") };
            piece.exemplars = encoded.exemplars;
            piece.body.insert(encoded.body).clone()
        };
        let now = self.clock.monotonic();
        let keys = if self.settings.is_budgeted {
            piece.keys()
        } else {
            piece.keys_to_note(now > way.since + LATE_AFTER)
        };
        let points = piece.counts().points();
        {
            let mut admission = self.admission.lock();
            if let Err(wait) = admission.take_points(points, now) {
                return Next::Wait(piece, wait);
            }
            admission.hand_over(&keys, points, now + self.settings.in_flight_max);
        }
        let bytes = body.len() as u64;
        let request = Request { body, version: self.settings.version, attempt: piece.failures };
        match self.transport.send(request).await {
            Ok(response) => {
                self.has_left(&piece, bytes);
                self.answered(piece, &keys, &response, way)
            }
            Err(error @ TransportError::NotSent(_)) => {
                // What waits for the endpoint keeps its slots all the same.
                self.admission.lock().not_sent(points);
                self.unanswered(piece, &error, way.backoff)
            }
            Err(error @ TransportError::NoAnswer(_)) => {
                self.has_left(&piece, bytes);
                self.admission.lock().unanswered(&keys);
                self.unanswered(piece, &error, way.backoff)
            }
        }
    }

    /// Counts a request that was written to a socket, as far as is known.
    fn has_left(&self, piece: &Piece, bytes: u64) {
        let counters = &mut self.status.lock().counters;
        counters.requests += 1;
        counters.bytes += bytes;
        counters.attempted += piece.samples();
        if piece.failures > 0 {
            counters.retried += piece.samples();
        }
    }

    /// The body of a piece; long ones are made where nobody waits for the thread.
    async fn encode(&self, piece: Piece) -> (Piece, Option<Encoded>) {
        let (encoders, families) = (Arc::clone(&self.encoders), Arc::clone(&self.families));
        let (version, is_short) = (self.settings.version, piece.items().len() <= ENCODED_AT_ONCE);
        let encode = move || {
            let encoded = encoders.samples(piece.items(), version, &families.lock());
            (piece, encoded)
        };
        if is_short {
            return encode();
        }
        match tokio::task::spawn_blocking(encode).await {
            Ok(encoded) => encoded,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Nothing but the end of the runtime takes work away: there is nobody to go on.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Takes out what is too old by now, and what lost its lease while it waited.
    fn drop_unsendable(&self, piece: &mut Piece) {
        let wall = self.clock.now();
        let limit = self.settings.age_max;
        let admission = self.admission.lock();
        // Most of the time no lease has ended since.
        let all_live = self.ended.load(Ordering::Relaxed) == admission.ended();
        if all_live && limit == Span::ZERO {
            return;
        }
        let (mut too_old, mut unleased) = (0, 0);
        let before = piece.items().len();
        piece.retain(|item| {
            let is_old = limit > Span::ZERO && wall.since(item.at()) > limit;
            let is_live = all_live || admission.is_live(item.series.key);
            if is_old {
                too_old += u64::from(item.is_sample());
            } else if !is_live {
                unleased += u64::from(item.is_sample());
            }
            !is_old && is_live
        });
        drop(admission);
        if piece.items().len() == before {
            return;
        }
        let counters = &mut self.status.lock().counters;
        counters.too_old += too_old;
        counters.withhold(Reason::Budget, unleased);
        counters.pending -= too_old + unleased;
    }

    fn answered(
        &self,
        mut piece: Piece,
        keys: &[Key],
        response: &Response,
        way: &mut Way<'_>,
    ) -> Next {
        let backoff = &mut *way.backoff;
        let now = self.clock.monotonic();
        let wall = self.clock.now();
        let verdict = classify(response);
        let asked = response.retry_after.as_deref().and_then(|header| retry_after(header, wall));
        let samples = piece.samples();
        match verdict {
            Verdict::Deduplicated if piece.is_of_replica() => {
                self.admission.lock().uncounted(keys);
            }
            // Without a replica's name there is nothing that it could have been the same as.
            Verdict::Stored | Verdict::Deduplicated | Verdict::StoredBare { .. } => {
                self.admission.lock().accepted(keys, now);
            }
            Verdict::ServerFull { .. } => {}
            _ => self.admission.lock().answered(keys, now),
        }
        if !matches!(verdict, Verdict::Stored | Verdict::Deduplicated) {
            self.note(&format!("http {}: {}", response.status, first_line(&response.body)));
        }
        match verdict {
            Verdict::Stored | Verdict::Deduplicated | Verdict::StoredBare { .. } => {
                if let Verdict::StoredBare { id } = &verdict {
                    tracing::warn!(endpoint = %self.name, id, "the endpoint took samples without what stood beside them: {}", first_line(&response.body));
                    piece.exemplars = 0;
                }
                backoff.reset();
                self.success_ms.store(now.as_millis() as u64, Ordering::Relaxed);
                self.refused_in_row.store(0, Ordering::Relaxed);
                way.accepted += 1;
                let made = piece.counts().made;
                self.settle(&piece, |counters| {
                    counters.sent += samples;
                    counters.made_sent += made;
                });
                Next::Done
            }
            Verdict::Refused { id } => {
                backoff.reset();
                self.status.lock().note_refusal(&id, first_line(&response.body));
                tracing::warn!(endpoint = %self.name, id, samples, "the endpoint refused samples for good: {}", first_line(&response.body));
                self.settle(&piece, |counters| counters.refuse(&id, samples));
                Next::Done
            }
            Verdict::RefusedWhole { id } => {
                backoff.reset();
                self.refused_whole(piece, &id, response, way.accepted)
            }
            Verdict::ServerFull { .. } if self.may_look_closer(&piece, now) => {
                backoff.reset();
                self.admission.lock().answered(keys, now);
                Next::Send(piece.halves())
            }
            Verdict::ServerFull { id } => {
                backoff.reset();
                self.server_full(&piece, &id, response);
                Next::Done
            }
            Verdict::Split { id } => self.split(piece, &id),
            Verdict::Misconfigured { id } => {
                let wait = backoff.after_misconfigured(asked);
                tracing::error!(endpoint = %self.name, id, wait_secs = wait.as_secs(), "the endpoint does not take anything; check url and credentials: {}", first_line(&response.body));
                Next::Wait(piece.failed(now), wait)
            }
            Verdict::Retry { id } => {
                let wait = backoff.after(asked);
                self.warn_sparsely(backoff.attempts(), &id, &response.body);
                self.suspect(piece.failed(now), response.status, wait)
            }
        }
    }

    fn unanswered(&self, piece: Piece, error: &TransportError, backoff: &mut Backoff) -> Next {
        let now = self.clock.monotonic();
        let wait = backoff.after(None);
        let message = error.to_string();
        self.note(&message);
        self.warn_sparsely(backoff.attempts(), "no_answer", &message);
        // The request may have arrived: its leases stay touched until it cannot any more.
        self.suspect(piece.failed(now), 0, wait)
    }

    /// Whether a request of which a full server took an unknown part is sent again in halves, so that
    /// what it refused is found: after a restart no series is known to be there. What arrived before
    /// is the same sample once more.
    fn may_look_closer(&self, piece: &Piece, now: Duration) -> bool {
        if piece.is_one_series() || self.admission.lock().doubtful(&piece.keys()) < 2 {
            return false;
        }
        let minute = now.as_secs() / 60;
        if self.looked_minute.swap(minute, Ordering::Relaxed) != minute {
            self.looked.store(0, Ordering::Relaxed);
        }
        self.looked.fetch_add(1, Ordering::Relaxed) < LOOKS_PER_MINUTE
    }

    /// Counts what a full server refused, and stops sending it.
    fn server_full(&self, piece: &Piece, id: &str, response: &Response) {
        let sent: Vec<(Key, GroupIndex)> =
            piece.items().iter().map(|item| (item.series.key, item.series.group)).collect();
        let message = first_line(&response.body);
        let (now, wall) = (self.clock.monotonic(), self.clock.now());
        let refused = self.admission.lock().server_full(&sent, message, now, wall);
        let lost =
            piece.items().iter().filter(|i| i.is_sample() && refused.contains(&i.series.key));
        let lost = lost.count() as u64;
        let taken = |item: &&Item| !refused.contains(&item.series.key);
        let made = piece.items().iter().filter(|i| matches!(i.payload, Payload::Made(_)));
        let made = made.filter(taken).count() as u64;
        tracing::warn!(endpoint = %self.name, id, series = refused.len(), "the account has no room for new series; they are withheld: {message}");
        let samples = piece.samples();
        self.settle(piece, |counters| {
            counters.refuse(id, lost);
            counters.sent += samples - lost;
            counters.made_sent += made;
        });
    }

    /// One sample may have made the endpoint refuse the whole request. It is taken apart, by time
    /// first, so that what is later than the cause is not lost with it; then by series, but only
    /// where an earlier run may have delivered samples of one time for some series and not for
    /// others. What is refused alone is refused.
    fn refused_whole(&self, piece: Piece, id: &str, response: &Response, accepted: u64) -> Next {
        let samples = piece.samples();
        if let Some(written) = response.written.filter(|written| *written > 0) {
            let written = written.min(samples);
            self.refusal(id, samples - written, 1, &response.body);
            self.settle(&piece, |counters| {
                counters.sent += written;
                counters.refuse(id, samples - written);
            });
            return Next::Done;
        }
        self.status.lock().note_refusal(id, first_line(&response.body));
        let in_row = self.refused_in_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut parts = piece.apart(in_row, Refused { id: id.to_owned(), accepted });
        let Some(piece) = parts.pop() else { return Next::Done };
        if !parts.is_empty() {
            parts.push(piece);
            return Next::Send(parts);
        }
        self.refusal(id, samples, in_row, &response.body);
        self.settle(&piece, |counters| counters.refuse(id, samples));
        Next::Done
    }

    /// Says that samples were refused at the first, second, fourth, eighth … time in a row.
    fn refusal(&self, id: &str, samples: u64, in_row: u32, body: &str) {
        if in_row.is_power_of_two() {
            tracing::warn!(endpoint = %self.name, id, samples, in_row, "the endpoint refused samples for good: {}", first_line(body));
        }
    }

    /// A request that fails again and again although others succeed holds something that the
    /// endpoint, or something in front of it, cannot digest: it is taken apart until that is alone, and
    /// then given up. A status of 0 means that there was no answer.
    fn suspect(&self, piece: Piece, status: u16, wait: Duration) -> Next {
        let (after, patience) = match status {
            500 => (SUSPECT_AFTER, Duration::ZERO),
            0 | 502..=504 => (TROUBLE_AFTER, TROUBLE_MAX),
            _ => return Next::Wait(piece, wait),
        };
        if piece.failures < after {
            return Next::Wait(piece, wait);
        }
        let success = self.success_ms.load(Ordering::Relaxed);
        let others_succeed = piece.failed_at.is_some_and(|failed| success > failed);
        if piece.is_one_series() {
            let now = self.clock.monotonic().as_millis() as u64;
            let failing = piece.failed_at.map_or(0, |failed| now.saturating_sub(failed));
            if others_succeed && Duration::from_millis(failing) >= patience {
                let samples = piece.samples();
                let series =
                    piece.items().first().map(|item| item.series.labels.labels().to_string());
                tracing::error!(endpoint = %self.name, series, samples, status, "gave up samples on which the endpoint fails");
                self.settle(&piece, |counters| counters.failed += samples);
                return Next::Done;
            }
            return Next::Wait(piece, wait);
        }
        if !others_succeed && piece.splits >= SPLITS_UNPROVEN_MAX {
            return Next::Wait(piece, wait);
        }
        Next::Send(piece.halves())
    }

    fn split(&self, piece: Piece, id: &str) -> Next {
        if piece.items().len() > 1 {
            return Next::Send(piece.halves());
        }
        let samples = piece.samples();
        self.settle(&piece, |counters| counters.refuse(id, samples));
        Next::Done
    }

    fn settle(&self, piece: &Piece, count: impl FnOnce(&mut Counters)) {
        let before_exemplars = piece.exemplars;
        let markers = piece.counts().markers;
        let mut status = self.status.lock();
        let sent = status.counters.sent;
        count(&mut status.counters);
        status.counters.pending -= piece.samples();
        if status.counters.sent > sent || piece.samples() == 0 {
            status.counters.exemplars += before_exemplars;
            status.counters.markers += markers;
            status.last_success = Some(self.clock.now());
        }
    }

    fn note(&self, message: &str) {
        let failure = Failure { at: self.clock.now(), message: message.to_owned() };
        self.status.lock().last_error = Some(failure);
    }

    /// Says that an endpoint fails at the first, second, fourth, eighth … attempt.
    fn warn_sparsely(&self, attempts: u32, id: &str, body: &str) {
        if attempts.is_power_of_two() {
            tracing::warn!(endpoint = %self.name, attempts, id, "sending failed and is tried again: {}", first_line(body));
        }
    }
}

/// Whether the end is asked for, or nobody is left to ask for it.
pub(super) fn is_stopping(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

/// Enough of an answer for a log line.
pub(super) fn first_line(body: &str) -> &str {
    let line = body.trim().lines().next().unwrap_or_default();
    line.get(..line.floor_char_boundary(512)).unwrap_or(line)
}
