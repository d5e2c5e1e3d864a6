//! How a forwarder begins: from configuration and what an earlier run left to its parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Clock, Labels, Metadata, Span};
use stint_storage::Disk;
use stint_wire::remote_write::Version;
use tokio::sync::Notify;

use super::account::{Past, ledger_in};
use super::cursor::{Cursor, Saved, directory};
use super::encode::Families;
use super::forwarder::Forwarder;
use super::handle::Handle;
use super::identity::Identities;
use super::names::{Names, renamed};
use super::reading::{Before, Core, Troubles};
use super::retry::Jitter;
use super::route::Router;
use super::rules::Rules;
use super::send::{Sender, Settings};
use super::source::{Position, Source};
use super::status::Status;
use super::trail::{self, Trail};
use super::transport::Transport;
use crate::budget::admission::{Admission, Opening};
use crate::budget::ledger::Found;
use crate::budget::limits::{GRAFANA_CLOUD_AGE_MAX, Limits, MissingLedger, Origin};
use crate::budget::points::BURST_MINUTES;
use crate::budget::policy::Policy;
use crate::budget::pool::Seat;
use crate::budget::ranking::Ranking;
use crate::config::{Budget, ProtobufMessage, QueueConfig, RemoteWrite, is_grafana_cloud};

/// A request may arrive this long after it was given up.
pub(super) const LINGER: Duration = Duration::from_secs(30);

/// What a forwarder is made of.
pub struct Setup {
    /// The endpoint.
    pub config: Arc<RemoteWrite>,
    /// `global.external_labels`.
    pub external_labels: Labels,
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
    /// What became of the samples, over all starts of the process.
    pub status: Arc<Mutex<Status>>,
    /// Whether an earlier run, if there was one, was for the same account.
    pub past: Past,
    /// Its place among the endpoints of its account.
    pub seat: Seat,
    /// What is used, where that decides what matters.
    pub ranking: Option<Arc<Ranking>>,
}

/// A forwarder that knows what an earlier run left, and has not opened the store.
pub struct Begun {
    setup: Setup,
    cursor: Cursor,
    saved: Saved,
    handle: Handle,
    rules: Rules,
}

impl Begun {
    /// Reads cursor and ledger; it may wait for the disk.
    pub fn new(setup: Setup) -> Self {
        let config = &*setup.config;
        let directory = directory(&config.name);
        let (cursor, saved) = Cursor::open(Arc::clone(&setup.disk), &directory.join("cursor"));
        if let Saved::Damaged(why) = &saved {
            tracing::warn!(endpoint = %config.name, "the cursor cannot be read ({why}); everything that is still in the log is sent again");
        }
        let is_known = setup.past == Past::Known && saved == Saved::Nothing;
        let mut limits = Limits::resolve(&config.url, &config.budget);
        if let Some(limits) = limits.as_mut().filter(|_| is_known) {
            limits.missing_ledger = MissingLedger::Nothing;
        }
        let admission = Admission::open(Opening {
            limits,
            policy: Policy::of(&config.budget),
            disk: Arc::clone(&setup.disk),
            path: &ledger_in(&directory),
            ran_before: setup.past != Past::New && saved != Saved::Nothing,
            seat: setup.seat.clone(),
            ranking: setup.ranking.clone(),
            now: setup.clock.monotonic(),
        });
        announce(config, &admission);
        let names = Names::of(config, &setup.external_labels);
        match names.note(&*setup.disk, &directory) {
            Ok(true) if admission.limits().is_some() && admission.live() > 0 => {
                let free = admission.room(setup.clock.monotonic());
                let text = renamed(admission.live(), free);
                tracing::warn!(endpoint = %config.name, "{text}");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(endpoint = %config.name, "{error}"),
        }
        let rules = rules(config, &setup.external_labels, admission.limits().is_some());
        let points = admission.limits().and_then(|limits| limits.points_per_minute);
        // No request is larger than what may be sent at once.
        let burst = points.map_or(usize::MAX, |points| (points * BURST_MINUTES) as usize);
        let samples_per_send_max = config.queue.max_samples_per_send.min(burst).max(1);
        let handle = Handle {
            name: config.name.as_str().into(),
            url: public_url(&config.url).into(),
            interval: rules.interval,
            sends_metadata: config.metadata.send || rules.version == Version::V2,
            shards: (config.queue.min_shards, config.queue.max_shards),
            samples_per_send_max,
            status: Arc::clone(&setup.status),
            admission: Arc::new(Mutex::new(admission)),
            clock: Arc::clone(&setup.clock),
        };
        Self { setup, cursor, saved, handle, rules }
    }

    /// The view for reports.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// A forwarder that goes on where the last one stopped. `open` opens the stored stream there;
    /// given nothing, it starts at what is stored from now on.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open<E>(
        self,
        open: impl FnOnce(&Saved) -> Result<Box<dyn Source>, E>,
    ) -> Result<Forwarder, E> {
        let Self { setup, cursor, saved, handle, rules } = self;
        let Setup { config, transport, clock, metadata, .. } = setup;
        let source = open(&saved)?;
        let before = Before::of(&saved, &*source);
        let rules = Rules { maybe_sent_until: before.maybe_sent_until, ..rules };
        let families = Arc::new(Mutex::new(metadata.into_iter().collect::<Families>()));
        handle.status.lock().begin_again();
        let sender = Sender {
            name: config.name.clone(),
            settings: Settings {
                samples_max: handle.samples_per_send_max,
                age_max: age_max(&config.queue, is_grafana_cloud(&config.url)),
                version: rules.version,
                in_flight_max: config.remote_timeout.to_std() + LINGER,
                is_budgeted: handle.admission.lock().limits().is_some(),
            },
            transport,
            admission: Arc::clone(&handle.admission),
            status: Arc::clone(&handle.status),
            families: Arc::clone(&families),
            encoders: Arc::default(),
            clock: Arc::clone(&clock),
            steady: Mutex::default(),
            success_ms: AtomicU64::new(0),
            refused_in_row: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            looked_minute: AtomicU64::new(0),
            looked: AtomicU32::new(0),
        };
        let identities = Identities::open(
            config.budget.identities.clone(),
            Arc::clone(&setup.disk),
            &directory(&config.name).join("identities"),
        );
        let read = source.position();
        let path = directory(&config.name).join("trail");
        let names = rules.names(&config.budget.identities);
        let trail = if chooses(&config, handle.admission.lock().limits().is_some()) {
            let origin = trail::Origin { log: source.log(), names };
            Trail::open(Arc::clone(&setup.disk), &path, origin, read)
        } else {
            Trail::default()
        };
        handle.status.lock().trail.begin(trail.damaged());
        let core = Core {
            source,
            router: Router::new(
                rules,
                identities,
                Arc::clone(&families),
                Arc::clone(&handle.admission),
                trail,
            ),
            cursor,
            clock,
            status: Arc::clone(&handle.status),
            families,
            read,
            done: read,
            held: None,
            look_at: Duration::ZERO,
            troubles: Troubles::default(),
        };
        Ok(Forwarder {
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

/// Whether an endpoint is sent less than what is stored, so that it must be known what was chosen.
fn chooses(config: &RemoteWrite, budgeted: bool) -> bool {
    let Budget { interval, aggregates, identities, reset_guard, gauges, classes, .. } =
        &config.budget;
    let thins = |interval: &Option<Span>| interval.is_some_and(|it| it > Span::ZERO);
    let makes = !(aggregates.is_empty() && identities.is_empty() && gauges.is_empty());
    let of_class = || classes.iter().any(|class| thins(&class.interval));
    budgeted || makes || *reset_guard || thins(interval) || of_class()
}

/// The labels that every series has which is sent to an endpoint.
pub fn own_labels(config: &RemoteWrite, external_labels: &Labels) -> Labels {
    let mut labels = external_labels.to_builder();
    for (name, value) in &config.labels {
        labels.set(name, value);
    }
    labels.build()
}

pub(super) fn rules(config: &RemoteWrite, external_labels: &Labels, budgeted: bool) -> Rules {
    let version = match config.protobuf_message {
        ProtobufMessage::V1 => Version::V1,
        ProtobufMessage::V2 => Version::V2,
    };
    Rules {
        external_labels: own_labels(config, external_labels),
        relabel: config.write_relabel_configs.clone(),
        interval: config.budget.interval.unwrap_or(Span::ZERO),
        version,
        histograms: config.send_native_histograms || version == Version::V2,
        exemplars: config.send_exemplars,
        shorten: budgeted,
        aggregates: config.budget.aggregates.clone(),
        reset_guard: config.budget.reset_guard,
        gauges: config.budget.gauges.clone(),
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
