//! `prometheus_remote_storage_*`, `stint_forward_*` and `stint_budget_*`: how each endpoint is
//! doing, read at each exposition. Endpoints come and go, so families are made anew each time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts};
use stint_model::{Clock, Span, Timestamp};

use crate::budget::figures::{AccountFigures, Figures};
use crate::budget::ledger::LeaseCounts;
use crate::budget::limits::HOLD;
use crate::budget::policy::Reason;
use crate::forward;
use crate::forward::handle::Handle;
use crate::forward::status::Status;
use crate::metrics::Metrics;

/// Registers all families. They end with the forwarders.
///
/// # Panics
/// When one of the families is registered already: a mistake of the program, found at start.
pub fn register(metrics: &Metrics, forwarding: &Arc<forward::Manager>, clock: Arc<dyn Clock>) {
    let descs = FAMILIES.iter().map(Family::desc).collect();
    let collector = Endpoints { descs, forwarding: Arc::downgrade(forwarding), clock };
    let registered = metrics.registry().register(Box::new(collector));
    registered.expect("metric families have unique names");
}

fn of_account(view: &View) -> Option<&AccountFigures> {
    view.figures.series.as_ref()?.account.as_ref()
}

/// The families of an endpoint and their labels, whether they have a value at present or not.
pub fn families() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    FAMILIES.iter().map(|family| (family.name, family.labels()))
}

struct Endpoints {
    descs: Vec<Desc>,
    forwarding: Weak<forward::Manager>,
    clock: Arc<dyn Clock>,
}

impl Collector for Endpoints {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let handles = self.forwarding.upgrade().map(|all| all.handles()).unwrap_or_default();
        let views: Vec<View> =
            handles.iter().map(|handle| View::of(handle, self.clock.monotonic())).collect();
        FAMILIES.iter().flat_map(|family| family.collect(&views)).collect()
    }
}

/// One endpoint at one moment.
struct View {
    name: String,
    url: String,
    status: Status,
    figures: Figures,
    shards: (usize, usize),
    samples_per_send_max: usize,
}

impl View {
    fn of(handle: &Handle, now: Duration) -> Self {
        Self {
            name: handle.name.to_string(),
            url: handle.url.to_string(),
            status: handle.status(),
            figures: handle.with_budget(|budget| Figures::of(budget, now, handle.interval)),
            shards: handle.shards,
            samples_per_send_max: handle.samples_per_send_max,
        }
    }
}

/// Takes a value with those of the family's own labels.
type Put<'a> = &'a mut dyn FnMut(&[&str], f64);

struct Family {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    /// Beside `remote_name` and `url`.
    label: Option<&'static [&'static str]>,
    values: fn(&View, Put<'_>),
}

const COMMON: [&str; 2] = ["remote_name", "url"];

impl Family {
    const fn counter(name: &'static str, help: &'static str, values: fn(&View, Put<'_>)) -> Self {
        Self { name, help, is_counter: true, label: None, values }
    }

    const fn gauge(name: &'static str, help: &'static str, values: fn(&View, Put<'_>)) -> Self {
        Self { name, help, is_counter: false, label: None, values }
    }

    const fn by(self, label: &'static [&'static str]) -> Self {
        Self { label: Some(label), ..self }
    }

    fn labels(&self) -> Vec<&'static str> {
        COMMON.iter().chain(self.label.unwrap_or_default()).copied().collect()
    }

    fn desc(&self) -> Desc {
        let labels = self.labels().into_iter().map(str::to_owned).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
            .expect("metric names are valid")
    }

    fn collect(&self, views: &[View]) -> Vec<MetricFamily> {
        let (options, labels) = (Opts::new(self.name, self.help), self.labels());
        if self.is_counter {
            let family = CounterVec::new(options, &labels).expect("metric names are valid");
            self.fill(views, |labels, value| family.with_label_values(labels).inc_by(value));
            family.collect()
        } else {
            let family = GaugeVec::new(options, &labels).expect("metric names are valid");
            self.fill(views, |labels, value| family.with_label_values(labels).set(value));
            family.collect()
        }
    }

    fn fill(&self, views: &[View], put: impl Fn(&[&str], f64)) {
        for view in views {
            (self.values)(view, &mut |own, value| {
                let labels: Vec<&str> =
                    [&*view.name, &*view.url].into_iter().chain(own.iter().copied()).collect();
                put(&labels, value);
            });
        }
    }
}

fn secs(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, Timestamp::as_secs_f64)
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Samples that the protocol's reference sender counts as dropped before sending, by its reasons.
fn dropped(view: &View, put: Put<'_>) {
    let counters = &view.status.counters;
    put(&["too_old"], counters.too_old as f64);
    let relabelled = counters.withheld.get(&Reason::Relabel).copied().unwrap_or(0);
    put(&["dropped_series"], relabelled as f64);
    put(&["unintentional_dropped_series"], counters.lost as f64);
}

fn withheld_samples(view: &View, put: Put<'_>) {
    // All reasons are there from the start, so that rates are.
    for reason in Reason::ALL {
        let samples = view.status.counters.withheld.get(&reason).copied().unwrap_or(0);
        put(&[reason.as_str()], samples as f64);
    }
}

fn withheld_series(view: &View, put: Put<'_>) {
    for class in &view.figures.classes {
        for (reason, series) in &class.withheld {
            put(&[&class.name, reason.as_str()], *series as f64);
        }
    }
}

fn withheld_jobs(view: &View, put: Put<'_>) {
    for ((job, reason), series) in &view.figures.withheld_jobs {
        put(&[job, reason.as_str()], *series as f64);
    }
}

fn leases(view: &View, put: Put<'_>) {
    let LeaseCounts { confirmed, unconfirmed, recovered, refused } = view.figures.leases;
    put(&["confirmed"], confirmed as f64);
    put(&["unconfirmed"], unconfirmed as f64);
    put(&["recovered"], recovered as f64);
    put(&["refused"], refused as f64);
}

fn refused(view: &View, put: Put<'_>) {
    for (id, samples) in &view.status.counters.refused {
        put(&[id], *samples as f64);
    }
}

fn failed(view: &View, put: Put<'_>) {
    let counters = &view.status.counters;
    put(&[], (counters.refused.values().sum::<u64>() + counters.failed) as f64);
}

fn server(view: &View, put: Put<'_>) {
    if let Some(series) = &view.figures.series {
        for state in ["normal", "full", "probing"] {
            put(&[state], flag(series.server == state));
        }
    }
}

/// Puts a value where there is a budget of series.
macro_rules! of_series {
    ($series:ident => $value:expr) => {
        |view, put| {
            if let Some($series) = &view.figures.series {
                put(&[], $value);
            }
        }
    };
}

const FAMILIES: &[Family] = &[
    Family::counter(
        "prometheus_remote_storage_samples_total",
        "Samples in requests sent, native histograms and repetitions included.",
        |view, put| put(&[], view.status.counters.attempted as f64),
    ),
    Family::counter(
        "prometheus_remote_storage_samples_failed_total",
        "Samples that the endpoint refused for good, or that were given up.",
        failed,
    ),
    Family::counter(
        "prometheus_remote_storage_samples_retried_total",
        "Samples in requests that were sent again.",
        |view, put| put(&[], view.status.counters.retried as f64),
    ),
    Family::counter(
        "prometheus_remote_storage_samples_dropped_total",
        "Samples not sent: too old, dropped by relabelling, or of an unknown series.",
        dropped,
    )
    .by(&["reason"]),
    Family::gauge(
        "prometheus_remote_storage_samples_pending",
        "Samples read and not dealt with yet.",
        |view, put| put(&[], view.status.counters.pending as f64),
    ),
    Family::counter("prometheus_remote_storage_exemplars_total", "Exemplars sent.", |view, put| {
        put(&[], view.status.counters.exemplars as f64);
    }),
    Family::counter(
        "prometheus_remote_storage_metadata_total",
        "Metadata entries that the endpoint took.",
        |view, put| put(&[], view.status.counters.metadata as f64),
    ),
    Family::counter(
        "prometheus_remote_storage_metadata_failed_total",
        "Metadata entries that the endpoint did not take.",
        |view, put| put(&[], view.status.counters.metadata_failed as f64),
    ),
    Family::counter(
        "prometheus_remote_storage_bytes_total",
        "Compressed bytes of samples sent, repetitions included.",
        |view, put| put(&[], view.status.counters.bytes as f64),
    ),
    Family::counter(
        "prometheus_remote_storage_metadata_bytes_total",
        "Compressed bytes of metadata sent.",
        |view, put| put(&[], view.status.counters.metadata_bytes as f64),
    ),
    Family::gauge(
        "prometheus_remote_storage_queue_highest_timestamp_seconds",
        "Time of the newest sample read for the endpoint.",
        |view, put| put(&[], secs(view.status.newest_read)),
    ),
    Family::gauge(
        "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
        "Time of the newest sample that was dealt with.",
        |view, put| put(&[], secs(view.status.newest_done)),
    ),
    Family::gauge(
        "prometheus_remote_storage_shards",
        "Requests in flight at once.",
        |view, put| put(&[], view.status.shards as f64),
    ),
    Family::gauge(
        "prometheus_remote_storage_shards_desired",
        "Requests in flight at once that were found to be needed.",
        |view, put| put(&[], view.status.shards_desired as f64),
    ),
    Family::gauge(
        "prometheus_remote_storage_shards_min",
        "The fewest requests in flight at once.",
        |view, put| put(&[], view.shards.0 as f64),
    ),
    Family::gauge(
        "prometheus_remote_storage_shards_max",
        "The most requests in flight at once.",
        |view, put| put(&[], view.shards.1 as f64),
    ),
    Family::gauge(
        "prometheus_remote_storage_shard_capacity",
        "Samples taken out of the store at once for each request in flight.",
        |view, put| put(&[], view.samples_per_send_max as f64),
    ),
    Family::gauge(
        "prometheus_remote_storage_max_samples_per_send",
        "The most samples in a request.",
        |view, put| put(&[], view.samples_per_send_max as f64),
    ),
    Family::gauge(
        "stint_forward_running",
        "1 while the endpoint is forwarded to, 0 while that broke down or cannot start.",
        |view, put| put(&[], flag(view.status.running)),
    ),
    Family::counter(
        "stint_forward_restarts_total",
        "How often forwarding broke down or could not start.",
        |view, put| put(&[], view.status.restarts as f64),
    ),
    Family::counter("stint_forward_requests_total", "Requests with samples.", |view, put| {
        put(&[], view.status.counters.requests as f64);
    }),
    Family::counter("stint_forward_samples_read_total", "Samples read.", |view, put| {
        put(&[], view.status.counters.read as f64);
    }),
    Family::counter(
        "stint_forward_samples_sent_total",
        "Samples that the endpoint took.",
        |view, put| put(&[], view.status.counters.sent as f64),
    ),
    Family::counter(
        "stint_forward_samples_refused_total",
        "Samples that the endpoint refused for good, by its error id.",
        refused,
    )
    .by(&["id"]),
    Family::counter(
        "stint_forward_gaps_total",
        "Stretches of the store that could not be read any more.",
        |view, put| put(&[], view.status.counters.gaps as f64),
    ),
    Family::gauge(
        "stint_forward_trail_failing",
        "1 while what is chosen to be sent cannot be written down, so that a crash would forget it.",
        |view, put| put(&[], flag(view.status.trail.failing)),
    ),
    Family::counter(
        "stint_forward_trail_unwritten_total",
        "Rounds that were sent although they could not be written down.",
        |view, put| put(&[], view.status.trail.unwritten as f64),
    ),
    Family::counter(
        "stint_forward_trail_damaged_total",
        "Stretches of what was written down that could not be read at a start.",
        |view, put| put(&[], view.status.trail.damaged as f64),
    ),
    Family::gauge(
        "stint_forward_targets_numbered",
        "Targets that are there and known by a number at the endpoint.",
        |view, put| {
            if let Some(identities) = &view.status.identities {
                put(&[], identities.held as f64);
            }
        },
    ),
    Family::counter(
        "stint_forward_target_takeovers_total",
        "How often a target went on with the number of another one.",
        |view, put| {
            if let Some(identities) = &view.status.identities {
                put(&[], identities.takeovers as f64);
            }
        },
    ),
    Family::gauge(
        "stint_forward_unread_bytes",
        "Bytes of the store that are not read yet.",
        |view, put| put(&[], view.status.lag_bytes as f64),
    ),
    Family::gauge(
        "prometheus_wal_watcher_current_segment",
        "Segment of the log up to which everything was dealt with.",
        |view, put| {
            if let Some(segment) = view.status.segment {
                put(&[&view.name], segment as f64);
            }
        },
    )
    .by(&["consumer"]),
    Family::gauge(
        "stint_budget_series",
        "Series that the endpoint may be counting as active: slots in use.",
        |view, put| put(&[], view.figures.live as f64),
    ),
    Family::gauge(
        "stint_budget_series_cooling",
        "Slots in use by series that were not sent for five minutes.",
        |view, put| put(&[], view.figures.cooling as f64),
    ),
    Family::gauge(
        "stint_budget_leases",
        "Slots in use, by what the endpoint is known to have made of their series.",
        leases,
    )
    .by(&["state"]),
    Family::counter(
        "stint_budget_grants_total",
        "Slots granted since forwarding to the endpoint began.",
        |view, put| put(&[], view.figures.granted as f64),
    ),
    Family::gauge(
        "stint_budget_hold_seconds",
        "How long a slot is held after the last sample of its series.",
        |_, put| put(&[], HOLD.as_secs_f64()),
    ),
    Family::gauge(
        "stint_budget_series_contract",
        "Active series that the account includes.",
        of_series!(series => series.contract as f64),
    ),
    Family::gauge(
        "stint_budget_series_target",
        "Slots that are used at most.",
        of_series!(series => series.target as f64),
    ),
    Family::gauge(
        "stint_budget_series_limit",
        "Slots that may be in use right now.",
        of_series!(series => series.allowed as f64),
    ),
    Family::gauge(
        "stint_budget_series_reserve",
        "Slots of the target that only the first class may use.",
        of_series!(series => series.reserve as f64),
    ),
    Family::gauge(
        "stint_budget_in_doubt",
        "1 while the endpoint may be counting series of which nothing is known here.",
        of_series!(series => flag(series.in_doubt)),
    ),
    Family::gauge(
        "stint_budget_ledger_failed",
        "1 while the ledger cannot be written, so that no slots are granted.",
        of_series!(series => flag(series.ledger_failed)),
    ),
    Family::gauge(
        "stint_budget_series_shared",
        "Slots that other endpoints for the same account hold.",
        of_series!(series => series.shared as f64),
    ),
    Family::gauge(
        "stint_budget_account_series",
        "Active series of all senders, as the account says.",
        |view, put| {
            if let Some(active) = of_account(view).and_then(|account| account.active) {
                put(&[], active as f64);
            }
        },
    ),
    Family::gauge(
        "stint_budget_account_foreign_series",
        "The most active series of others in the last half an hour, as the account says.",
        |view, put| {
            if let Some(account) = of_account(view) {
                put(&[], account.foreign as f64);
            }
        },
    ),
    Family::gauge(
        "stint_budget_account_age_seconds",
        "How long ago the account told its use.",
        |view, put| {
            if let Some(account) = of_account(view) {
                put(&[], account.age.as_secs_f64());
            }
        },
    ),
    Family::counter(
        "stint_budget_refusals_total",
        "Requests answered with a lack of room for new series.",
        of_series!(series => series.refusals as f64),
    ),
    Family::gauge("stint_budget_server", "1 for what holds of the endpoint.", server)
        .by(&["state"]),
    Family::gauge("stint_budget_class_series", "Slots in use by class.", |view, put| {
        for class in &view.figures.classes {
            put(&[&class.name], class.live as f64);
        }
    })
    .by(&["class"]),
    Family::gauge(
        "stint_budget_class_interval_seconds",
        "Distance between the forwarded samples of a class; 0 where all are.",
        |view, put| {
            for class in &view.figures.classes {
                put(&[&class.name], Span::as_secs_f64(class.interval));
            }
        },
    )
    .by(&["class"]),
    Family::gauge(
        "stint_budget_withheld_series",
        "Series that are not sent, by class and reason.",
        withheld_series,
    )
    .by(&["class", "reason"]),
    Family::gauge(
        "stint_budget_withheld_job_series",
        "Series that are not sent, by job and reason.",
        withheld_jobs,
    )
    .by(&["job", "reason"]),
    Family::counter(
        "stint_budget_withheld_samples_total",
        "Samples that were not sent, by reason.",
        withheld_samples,
    )
    .by(&["reason"]),
    Family::gauge(
        "stint_budget_points_per_minute_limit",
        "Samples per minute that the account includes.",
        |view, put| {
            if let Some(points) = view.figures.points_per_minute {
                put(&[], points as f64);
            }
        },
    ),
    Family::gauge(
        "stint_budget_points_per_minute",
        "Samples sent in the last whole minute, repetitions included.",
        |view, put| put(&[], view.figures.points_last_minute as f64),
    ),
    Family::gauge(
        "stint_budget_billable_series",
        "The larger of series and points per minute, 95th percentile of the last day.",
        |view, put| put(&[], view.figures.billable_p95 as f64),
    ),
    Family::gauge(
        "stint_budget_month_billable_series",
        "The larger of series and points per minute, 95th percentile of this month (UTC): so far, and projected as if the rest were as the last day.",
        |view, put| {
            if let Some(month) = &view.figures.month {
                put(&["so_far"], month.so_far as f64);
                put(&["projected"], month.projected as f64);
            }
        },
    )
    .by(&["of"]),
];

#[cfg(test)]
mod tests;
