//! One endpoint's forwarder: reads, routes, delivers, and moves the cursor on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use stint_model::{Clock, Labels, Metadata, Span};
use stint_storage::Disk;
use stint_wire::remote_write::Version;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::cursor::{Cursor, Place, Saved, directory};
use super::encode::{self, Families};
use super::retry::{Jitter, Verdict, classify};
use super::route::{Round, Router, Rules};
use super::send::{Delivered, Sender, Settings, is_stopping};
use super::shards::Shards;
use super::source::{Event, Position, Source, SourceError, StoredBatch};
use super::status::{Failure, Status};
use super::transport::{Request, Transport};
use crate::budget::admission::{Admission, Opening};
use crate::budget::ledger::Found;
use crate::budget::limits::{GRAFANA_CLOUD_AGE_MAX, Limits, Origin, host_of, is_grafana_cloud};
use crate::budget::policy::Policy;
use crate::config::{ProtobufMessage, QueueConfig, RemoteWrite};

/// How often the store is looked at where [`Setup::wake`] is not notified of every append.
pub const POLL: Duration = Duration::from_millis(500);
/// After reading failed.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// The cursor is written at most this often, unless everything was dealt with.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Bytes of the log by which the cursor says in advance what will be sent.
const AHEAD: u64 = 1 << 20;
/// Most rows that are read before they are routed: the bound of what reading keeps in memory.
const BURST_ROWS: usize = 10_000;
/// Families whose metadata is kept.
const FAMILIES_MAX: usize = 50_000;
/// A request may arrive this long after it was given up.
const LINGER: Duration = Duration::from_secs(30);

/// What a forwarder is made of.
pub struct Setup<'a> {
    /// The endpoint.
    pub config: &'a RemoteWrite,
    /// `global.external_labels`.
    pub external_labels: &'a Labels,
    /// The way to the endpoint.
    pub transport: Arc<dyn Transport>,
    /// Where cursor and ledger are kept.
    pub disk: Arc<dyn Disk>,
    /// Time; it goes with tokio's.
    pub clock: Arc<dyn Clock>,
    /// Metadata known at the start; later ones come with the samples.
    pub metadata: Vec<(String, Metadata)>,
    /// Notified when something was stored.
    pub wake: Arc<Notify>,
    /// The store is looked at this often even when nobody says that there is something new.
    pub poll: Duration,
    /// Seed of the jitter between attempts.
    pub seed: u64,
}

/// A view of a forwarder for reports, cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// The endpoint's name.
    pub name: Arc<str>,
    /// Where it is, without credentials.
    pub url: Arc<str>,
    /// Distance between forwarded samples; zero for all.
    pub interval: Span,
    /// The fewest and the most requests in flight at once.
    pub shards: (usize, usize),
    /// The most items in one request.
    pub samples_per_send_max: usize,
    status: Arc<Mutex<Status>>,
    admission: Arc<Mutex<Admission>>,
}

impl Handle {
    /// How the endpoint is doing.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Looks at the budget, which stands still meanwhile.
    pub fn with_budget<T>(&self, look: impl FnOnce(&Admission) -> T) -> T {
        look(&self.admission.lock())
    }
}

/// The reading half, which works on threads that may wait for the disk.
struct Core {
    source: Box<dyn Source>,
    router: Router,
    cursor: Cursor,
    clock: Arc<dyn Clock>,
    status: Arc<Mutex<Status>>,
    families: Arc<Mutex<Families>>,
    read: Position,
    /// Everything before it was dealt with.
    done: Position,
}

/// Forwards to one endpoint.
pub struct Forwarder {
    /// Out while it works.
    core: Mutex<Option<Core>>,
    sender: Sender,
    handle: Handle,
    queue: QueueConfig,
    metadata: crate::config::MetadataConfig,
    wake: Arc<Notify>,
    poll: Duration,
    jitter: Jitter,
    before: Before,
}

/// What an earlier run left.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// What is stored before it may have been sent.
    maybe_sent_until: Position,
    /// How many requests were in flight at once.
    shards: Option<usize>,
}

impl Before {
    fn of(saved: &Saved, source: &dyn Source) -> Self {
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

/// Why a forwarder ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// A bug: reading or routing panicked. The cursor stays where it was.
    #[error("forwarding to {0} broke down; it starts again with the server")]
    Panicked(String),
}

impl Forwarder {
    /// A forwarder that goes on where the last one stopped. `open` opens the stored stream there;
    /// given nothing, it starts at what is stored from now on.
    pub fn open<E>(
        setup: Setup<'_>,
        open: impl FnOnce(&Saved) -> Result<Box<dyn Source>, E>,
    ) -> Result<Self, E> {
        let Setup { config, external_labels, clock, disk, .. } = setup;
        let directory = directory(&config.name);
        let (cursor, saved) = Cursor::open(Arc::clone(&disk), &directory.join("cursor"));
        if let Saved::Damaged(why) = &saved {
            tracing::warn!(endpoint = %config.name, "the cursor cannot be read ({why}); everything that is still in the log is sent again");
        }
        let ran_before = saved != Saved::Nothing;
        let source = open(&saved)?;
        let before = Before::of(&saved, &*source);
        let read = source.position();
        let limits = Limits::resolve(&config.url, &config.budget);
        let cloud = is_grafana_cloud(host_of(&config.url));
        let admission = Admission::open(Opening {
            limits,
            policy: Policy::new(config.budget.classes.clone()),
            disk,
            path: &directory.join("ledger"),
            ran_before,
            now: clock.monotonic(),
        });
        announce(config, &admission);
        let rules = Rules {
            maybe_sent_until: before.maybe_sent_until,
            ..rules(config, external_labels, admission.limits().is_some())
        };
        let handle = Handle {
            name: config.name.as_str().into(),
            url: public_url(&config.url).into(),
            interval: rules.interval,
            shards: (config.queue.min_shards, config.queue.max_shards),
            samples_per_send_max: config.queue.max_samples_per_send,
            status: Arc::default(),
            admission: Arc::new(Mutex::new(admission)),
        };
        let families = Arc::new(Mutex::new(setup.metadata.into_iter().collect::<Families>()));
        let sender = Sender {
            name: config.name.clone(),
            settings: Settings {
                samples_max: config.queue.max_samples_per_send,
                age_max: age_max(&config.queue, cloud),
                version: rules.version,
                in_flight_max: config.remote_timeout.to_std() + LINGER,
            },
            transport: setup.transport,
            admission: Arc::clone(&handle.admission),
            status: Arc::clone(&handle.status),
            families: Arc::clone(&families),
            clock: Arc::clone(&clock),
            success_ms: AtomicU64::new(0),
            refused_in_row: AtomicU32::new(0),
        };
        let core = Core {
            source,
            router: Router::new(rules, Arc::clone(&handle.admission)),
            cursor,
            clock,
            status: Arc::clone(&handle.status),
            families,
            read,
            done: read,
        };
        Ok(Self {
            core: Mutex::new(Some(core)),
            sender,
            handle,
            queue: config.queue,
            metadata: config.metadata,
            wake: setup.wake,
            poll: setup.poll,
            jitter: Jitter::seeded(setup.seed),
            before,
        })
    }

    /// The view for reports.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Forwards until `stop` becomes true; then sends what is at hand once, saves, and ends.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), ForwardError> {
        let mut shards = Shards::new(&self.queue, self.before.shards, self.jitter.clone());
        let mut round = Round::new(shards.count);
        let mut since: Option<Instant> = None;
        let mut saved_at = Instant::now();
        let mut metadata_at = Instant::now();
        // What is stored from now on is not missed, even if nothing can be sent before a restart.
        self.save(&shards).await?;
        loop {
            let stopping = is_stopping(&stop);
            let full = shards.count * self.queue.max_samples_per_send.max(1);
            let filled;
            (round, filled) = self.fill(round, full).await?;
            if round.items > 0 && since.is_none() {
                since = Some(Instant::now());
            }
            let deadline = since.map(|since| since + self.queue.batch_send_deadline.to_std());
            let is_full = round.items >= full;
            if is_full
                || round.items > 0 && (stopping || deadline.is_some_and(|at| at <= Instant::now()))
            {
                let started = Instant::now();
                let items = round.items;
                self.reach(&shards).await?;
                let delivered = self.deliver(round, &mut shards, &stop).await;
                if delivered == Delivered::Stopped {
                    break;
                }
                let behind = is_full && (!filled.caught_up || items >= 2 * full);
                let took = started.elapsed();
                if !self.was_maybe_sent() {
                    shards.adapt(behind, took, self.queue.batch_send_deadline.to_std());
                }
                self.note_done(&shards);
                round = Round::new(shards.count);
                since = None;
                if saved_at.elapsed() >= SAVE_EVERY || stopping {
                    saved_at = Instant::now();
                    self.save(&shards).await?;
                }
                if !stopping {
                    continue;
                }
            }
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
                self.send_metadata().await;
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
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            () = self.wake.notified() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Runs `work` where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T, ForwardError> {
        let broken = || ForwardError::Panicked(self.sender.name.clone());
        let mut core = self.core.lock().take().ok_or_else(broken)?;
        let task = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut core);
            (core, outcome)
        });
        let (core, outcome) = task.await.map_err(|_| broken())?;
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

    async fn save(&self, shards: &Shards) -> Result<(), ForwardError> {
        let shards = shards.count;
        self.blocking(move |core| core.save(shards)).await
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

    fn sends_metadata(&self) -> bool {
        // The 2.0 message has it beside the samples.
        self.metadata.send && self.sender.settings.version == Version::V1
    }

    /// Sends the metadata of what is forwarded. One attempt: the next one comes anyway.
    async fn send_metadata(&self) {
        let wanted: Vec<(String, Metadata)> = {
            let families = self.sender.families.lock();
            let admission = self.handle.admission.lock();
            let sent = admission.families();
            let is_sent = |family: &str| {
                sent.contains(family)
                    || ["_total", "_info"]
                        .iter()
                        .any(|end| sent.contains(format!("{family}{end}").as_str()))
                    || ["_count", "_sum"].iter().any(|end| {
                        family.strip_suffix(end).is_some_and(|family| sent.contains(family))
                    })
            };
            families
                .iter()
                .filter(|(family, _)| is_sent(family))
                .map(|(family, metadata)| (family.clone(), metadata.clone()))
                .collect()
        };
        for part in wanted.chunks(self.metadata.max_samples_per_send.max(1)) {
            let pairs = part.iter().map(|(family, metadata)| (family.as_str(), metadata));
            let Some(body) = encode::metadata(pairs) else { continue };
            let bytes = body.len() as u64;
            let request = Request { body, version: Version::V1, attempt: 0 };
            let outcome = self.sender.transport.send(request).await;
            let problem = match outcome {
                Ok(response) => match classify(&response) {
                    Verdict::Stored | Verdict::Deduplicated => None,
                    _ => Some(format!("http {}: {}", response.status, response.body)),
                },
                Err(error) => Some(error.0),
            };
            let mut status = self.handle.status.lock();
            status.counters.metadata_bytes += bytes;
            match problem {
                None => status.counters.metadata += part.len() as u64,
                Some(message) => {
                    tracing::warn!(endpoint = %self.sender.name, "sending metadata failed: {message}");
                    status.counters.metadata_failed += part.len() as u64;
                    status.last_error = Some(Failure { at: self.sender.clock.now(), message });
                }
            }
        }
    }

    async fn close(self) -> Result<(), ForwardError> {
        let admission = Arc::clone(&self.handle.admission);
        self.blocking(move |_| {
            if let Err(error) = admission.lock().close() {
                tracing::warn!("{error}");
            }
        })
        .await
    }
}

/// How a look at the store ended.
#[derive(Clone, Copy, Debug, Default)]
struct Filled {
    caught_up: bool,
    failed: bool,
}

impl Core {
    /// Reads until `round` has `full` items or everything stored was read.
    fn fill(&mut self, round: &mut Round, full: usize) -> Filled {
        let mut filled = Filled::default();
        while round.items < full && !filled.caught_up && !filled.failed {
            let mut batches = Vec::new();
            match self.read(&mut batches, full) {
                Ok(caught_up) => filled.caught_up = caught_up,
                Err(error) => {
                    tracing::warn!("{error}");
                    let message = error.to_string();
                    let failure = Failure { at: self.clock.now(), message };
                    self.status.lock().last_error = Some(failure);
                    filled.failed = true;
                }
            }
            let (now, wall) = (self.clock.monotonic(), self.clock.now());
            let mut status = self.status.lock();
            self.router.route(batches, now, wall, round, &mut status);
            status.caught_up = filled.caught_up;
            status.lag_bytes = self.source.lag_bytes();
        }
        filled
    }

    /// Reads a burst; says whether that was all.
    fn read(&mut self, batches: &mut Vec<StoredBatch>, full: usize) -> Result<bool, SourceError> {
        let burst = full.clamp(BURST_ROWS / 10, BURST_ROWS);
        let mut rows = 0;
        while rows < burst {
            match self.source.next()? {
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

    /// Makes durable what was dealt with, and lets go of it.
    fn save(&mut self, shards: usize) {
        let ahead = Position { offset: self.read.offset.saturating_add(AHEAD), ..self.read };
        let place = Place { log: self.source.log(), done: self.done, reached: ahead, shards };
        match self.cursor.save(place) {
            Ok(()) => self.source.release(self.done),
            Err(error) => {
                tracing::warn!(
                    "cannot save the forwarding cursor: {error}; after a crash, samples are sent again"
                );
            }
        }
    }

    /// Whether everything read so far is known to be sent by so many shards.
    fn is_reached(&self, shards: usize) -> bool {
        let saved = self.cursor.saved();
        saved.is_some_and(|saved| saved.reached >= self.read && saved.shards == shards)
    }
}

/// A url without user and password, for reports and logs.
fn public_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn rules(config: &RemoteWrite, external_labels: &Labels, budgeted: bool) -> Rules {
    let mut labels = external_labels.to_builder();
    for (name, value) in &config.labels {
        labels.set(name, value);
    }
    let version = match config.protobuf_message {
        ProtobufMessage::V1 => Version::V1,
        ProtobufMessage::V2 => Version::V2,
    };
    Rules {
        external_labels: labels.build(),
        relabel: config.write_relabel_configs.clone(),
        interval: config.budget.interval.unwrap_or(Span::ZERO),
        version,
        histograms: config.send_native_histograms || version == Version::V2,
        exemplars: config.send_exemplars,
        shorten: budgeted,
        maybe_sent_until: Position::default(),
    }
}

/// Grafana Cloud refuses what is more than two hours old: sending it would only keep slots in use.
fn age_max(queue: &QueueConfig, cloud: bool) -> Span {
    match (queue.sample_age_limit, cloud) {
        (Span::ZERO, true) => GRAFANA_CLOUD_AGE_MAX,
        (limit, true) => limit.min(GRAFANA_CLOUD_AGE_MAX),
        (limit, false) => limit,
    }
}

/// Says at start what the endpoint may be sent.
fn announce(config: &RemoteWrite, admission: &Admission) {
    let endpoint = config.name.as_str();
    let Some(limits) = admission.limits() else {
        tracing::info!(
            endpoint,
            "forwarding without a series budget; set budget.series in retention.toml to have one"
        );
        return;
    };
    let interval = config.budget.interval.unwrap_or(Span::ZERO);
    let origin = match limits.origin {
        Origin::Configured => "as configured",
        Origin::FreeTier => {
            "the free tier of Grafana Cloud; set budget.series in retention.toml to change it"
        }
    };
    tracing::info!(endpoint, series = limits.contract, target = limits.target, %interval, "forwarding within a series budget: {origin}");
    match admission.found() {
        Found::Leases(series) => {
            tracing::info!(endpoint, series, "series of the last run hold their slots");
        }
        Found::Missing => tracing::info!(
            endpoint,
            slots = admission.slots_at_start(),
            "no ledger of an earlier run; slots are granted step by step"
        ),
        Found::Damaged(why) => tracing::warn!(
            endpoint,
            slots = admission.slots_at_start(),
            "the ledger of the last run is damaged ({why}); most new series wait for 22 minutes"
        ),
    }
}

#[cfg(test)]
mod tests;
