//! One endpoint's forwarder: reads, routes, delivers, and moves the cursor on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use stint_model::Span;
use stint_wire::remote_write::Version;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::handle::Handle;
use super::reading::{Before, Core, Filled};
use super::retry::Jitter;
use super::round::Round;
use super::send::{Delivered, Sender, is_stopping};
use super::shards::{Sent, Shards};
use crate::config::{MetadataConfig, QueueConfig};

/// After reading failed.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// Scrapes of many targets come one after the other: what is stored within so short a time is read
/// at once.
const GATHER: Duration = Duration::from_millis(250);
/// The cursor is written at most this often, unless everything was dealt with.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Forwards to one endpoint.
pub struct Forwarder {
    /// Out while it works.
    pub(super) core: Mutex<Option<Core>>,
    pub(super) sender: Sender,
    pub(super) handle: Handle,
    pub(super) queue: QueueConfig,
    pub(super) metadata: MetadataConfig,
    pub(super) wake: Arc<Notify>,
    pub(super) poll: Duration,
    pub(super) jitter: Jitter,
    pub(super) before: Before,
}

/// Why a forwarder ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// A bug: reading or routing panicked. The cursor stays where it was.
    #[error("reading broke down: {0}")]
    Panicked(String),
}

impl Forwarder {
    /// The view for reports.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Forwards until `stop` becomes true; then sends what is at hand once, saves, and ends.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), ForwardError> {
        let mut shards = Shards::new(&self.queue, self.before.shards, self.jitter.clone());
        let mut round = Round::new(shards.count, 0);
        let mut since: Option<Instant> = None;
        let mut was_full = false;
        let mut saved_at = Instant::now();
        let mut metadata_at = Instant::now();
        let mut began = Instant::now();
        // What is stored from now on is not missed, even if nothing can be sent before a restart.
        self.save(&shards).await?;
        loop {
            let stopping = is_stopping(&stop);
            let full = shards.count * self.queue.max_samples_per_send.max(1);
            let filled;
            if round.items == 0 {
                began = Instant::now();
            }
            (round, filled) = self.fill(round, full).await?;
            if round.items > 0 && since.is_none() {
                since = Some(Instant::now());
            }
            let deadline = since.map(|since| since + self.queue.batch_send_deadline.to_std());
            let is_full = round.items >= full - full / 8 || filled.held;
            if is_full
                || round.items > 0 && (stopping || deadline.is_some_and(|at| at <= Instant::now()))
            {
                let (items, started) = (round.items, Instant::now());
                self.reach(&shards).await?;
                round = self.note(round).await?;
                let delivered = self.deliver(round, &mut shards, &stop).await;
                if delivered == Delivered::Stopped {
                    break;
                }
                // A little that is held for the next round is no backlog yet.
                let more = !filled.caught_up && (!filled.held || was_full);
                let behind = is_full && (more || items >= 2 * full);
                was_full = is_full;
                let sent = Sent { items, took: began.elapsed(), sending: started.elapsed() };
                if !self.was_maybe_sent() {
                    let deadline = self.queue.batch_send_deadline.to_std();
                    shards.adapt(behind, &sent, deadline);
                }
                self.note_done(&shards);
                self.note_lateness();
                round = Round::new(shards.count, items);
                since = None;
                if saved_at.elapsed() >= SAVE_EVERY || stopping {
                    saved_at = Instant::now();
                    self.save(&shards).await?;
                }
                if !stopping {
                    continue;
                }
            }
            was_full &= !filled.caught_up;
            if round.items == 0 && saved_at.elapsed() >= SAVE_EVERY {
                saved_at = Instant::now();
                self.note_done(&shards);
                self.save(&shards).await?;
            }
            if stopping {
                break;
            }
            if metadata_at <= Instant::now() && self.sends_metadata() {
                metadata_at = Instant::now() + self.metadata.send_interval.to_std();
                self.sender.send_metadata(self.metadata.max_samples_per_send).await;
            }
            let pause = if filled.failed { READ_AGAIN } else { self.poll };
            self.pause(pause, deadline, stop.clone()).await;
        }
        self.close().await
    }

    async fn pause(
        &self,
        pause: Duration,
        until: Option<Instant>,
        mut stop: watch::Receiver<bool>,
    ) {
        let end = Instant::now() + pause;
        let end = until.map_or(end, |until| until.min(end));
        let gathered = (Instant::now() + GATHER).min(end);
        let woken = async {
            self.wake.notified().await;
            tokio::time::sleep_until(gathered).await;
        };
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            () = woken => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Runs `work` where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T, ForwardError> {
        let gone = || ForwardError::Panicked("the store is not open any more".to_owned());
        let mut core = self.core.lock().take().ok_or_else(gone)?;
        let task = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut core);
            (core, outcome)
        });
        let broken = |error: tokio::task::JoinError| match error.try_into_panic() {
            Ok(panic) => ForwardError::Panicked(panic_text(&*panic)),
            Err(error) => ForwardError::Panicked(error.to_string()),
        };
        let (core, outcome) = task.await.map_err(broken)?;
        *self.core.lock() = Some(core);
        Ok(outcome)
    }

    async fn fill(&self, round: Round, full: usize) -> Result<(Round, Filled), ForwardError> {
        let mut round = round;
        self.blocking(move |core| {
            let filled = core.fill(&mut round, full);
            (round, filled)
        })
        .await
    }

    /// Writes down what is about to be sent, where it was chosen among what is stored.
    async fn note(&self, round: Round) -> Result<Round, ForwardError> {
        if !self.core.lock().as_ref().is_some_and(|core| core.router.notes()) {
            return Ok(round);
        }
        self.blocking(move |core| {
            core.note(&round);
            round
        })
        .await
    }

    async fn save(&self, shards: &Shards) -> Result<(), ForwardError> {
        let shards = shards.count;
        let (now, wall) = (self.sender.clock.monotonic(), self.sender.clock.now());
        let is_believed = self.sender.steady.lock().wait(now, wall).is_none();
        self.blocking(move |core| core.save(shards, is_believed)).await
    }

    /// Makes durable how far what is sent now reaches, unless that is known.
    async fn reach(&self, shards: &Shards) -> Result<(), ForwardError> {
        let count = shards.count;
        let is_known = self.core.lock().as_ref().is_some_and(|core| core.is_reached(count));
        if is_known { Ok(()) } else { self.save(shards).await }
    }

    /// Whether an earlier run may have sent some of the round just delivered.
    fn was_maybe_sent(&self) -> bool {
        let core = self.core.lock();
        core.as_ref().is_some_and(|core| core.done < self.before.maybe_sent_until)
    }

    async fn deliver(
        &self,
        round: Round,
        shards: &mut Shards,
        stop: &watch::Receiver<bool>,
    ) -> Delivered {
        self.sender.ended.store(round.ended.unwrap_or(0), Ordering::Relaxed);
        let busy = round.shards.into_iter().zip(&mut shards.backoffs);
        let deliveries = busy.map(|(queue, backoff)| self.sender.deliver(queue, backoff, stop));
        let outcomes = join_all(deliveries).await;
        let stopped = outcomes.contains(&Delivered::Stopped);
        if stopped { Delivered::Stopped } else { Delivered::All }
    }

    fn note_done(&self, shards: &Shards) {
        if let Some(core) = &mut *self.core.lock() {
            core.done = core.read;
        }
        let mut status = self.handle.status.lock();
        status.newest_done = status.newest_read;
        status.shards = shards.count;
        status.shards_desired = shards.desired;
    }

    fn note_lateness(&self) {
        let now = self.sender.clock.now();
        let mut status = self.handle.status.lock();
        status.lateness = status.newest_done.map_or(Span::ZERO, |done| now.since(done));
    }

    fn sends_metadata(&self) -> bool {
        // The 2.0 message has it beside the samples.
        self.metadata.send && self.sender.settings.version == Version::V1
    }

    async fn close(self) -> Result<(), ForwardError> {
        let admission = Arc::clone(&self.handle.admission);
        self.blocking(move |core| {
            let (now, wall) = (core.clock.monotonic(), core.clock.now());
            let work = admission.lock().close(now);
            let done = work.write();
            let mut admission = admission.lock();
            admission.settle(done, now, wall);
            if let Some(error) = admission.ledger_error() {
                tracing::warn!("{error}");
            }
            let beside = admission.beside(now);
            drop(admission);
            beside.write();
        })
        .await
    }
}

/// What a panic says.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}

#[cfg(test)]
mod tests;
