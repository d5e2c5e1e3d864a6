//! What the budget of each endpoint is spent on, what is withheld, and what to do about it.
//!
//! The same numbers as JSON (`GET /api/v1/status/budget`, described in `docs/budget.md`) and as
//! text (`stint budget`).

mod text;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stint_model::labels::METRIC_NAME;
use stint_model::{Labels, Span, Timestamp};

use super::admission::{Admission, State};
use super::figures::Figures;
use super::limits::Origin;
use super::policy::Reason;

/// Rows of each table in a report.
const ROWS_MAX: usize = 50;

/// The budgets of all endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// In order of the configuration.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Its name.
    pub name: String,
    /// Its address, without credentials.
    pub url: String,
    /// Active series; nothing when the endpoint has no budget.
    pub series: Option<SeriesBudget>,
    /// Slots in use, budget or not.
    pub live: u64,
    /// Data points.
    pub points: Points,
    /// Slots by class, in order of importance.
    pub classes: Vec<ClassUse>,
    /// Slots by job, largest first.
    pub jobs: Vec<Use>,
    /// Slots by metric family, largest first.
    pub metrics: Vec<Use>,
    /// What each label costs, dearest first.
    pub labels: Vec<LabelUse>,
    /// What is not sent at present, by metric and job.
    pub withheld: Vec<Withheld>,
    /// What became of the samples since the start.
    pub samples: Samples,
    /// Where the use of slots leads.
    pub forecast: Option<Forecast>,
    /// What is worth knowing or doing.
    pub hints: Vec<String>,
}

/// The budget of series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesBudget {
    /// What the account includes.
    pub contract: u64,
    /// Above which the server refuses.
    pub enforced: u64,
    /// What is used at most.
    pub target: u64,
    /// What may be in use right now: the target, or less after a start without ledger or after
    /// refusals of the server.
    pub allowed: u64,
    /// Part of the target for the first class alone.
    pub reserve: u64,
    /// Slots held by series that were not sent for five minutes, until the server has forgotten
    /// them.
    pub cooling: u64,
    /// `normal`, `full` or `probing`: whether the server refuses new series.
    pub server: String,
    /// Requests that the server answered with a lack of room.
    pub refusals: u64,
    /// Some of its messages.
    pub refused_examples: Vec<String>,
    /// `configured` or `free_tier`.
    pub origin: String,
    /// Whether the server may be counting series that the ledger does not list.
    pub in_doubt: bool,
    /// Why no slots can be granted, when the ledger cannot be written.
    pub ledger_error: Option<String>,
}

/// The budget of data points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Points {
    /// Included per minute; nothing without a budget.
    pub per_minute: Option<u64>,
    /// Sent in the last whole minute.
    pub last_minute: u64,
    /// 95th percentile over the last day of the larger of series and points: what is billed.
    pub billable_p95: u64,
    /// Distance between forwarded samples in seconds; 0 for all.
    pub interval_secs: f64,
}

/// Slots of a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassUse {
    /// The class.
    pub name: String,
    /// Slots in use.
    pub slots: u64,
    /// Its own maximum.
    pub max: Option<u64>,
    /// Whether it is sent at all.
    pub sent: bool,
    /// Distance between its forwarded samples in seconds, longer than configured while points are
    /// scarce; 0 for all.
    pub interval_secs: f64,
    /// Whether that is longer than configured.
    pub thinned: bool,
}

/// Slots of a job or metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// The job or metric.
    pub name: String,
    /// Slots in use.
    pub slots: u64,
    /// Series that are not sent.
    pub withheld: u64,
}

/// What a label costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelUse {
    /// The label.
    pub name: String,
    /// Series in use that have it.
    pub series: u64,
    /// Its different values among them.
    pub values: u64,
    /// Slots that would be free without it.
    pub saving: u64,
}

/// A metric of a job that is not sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Withheld {
    /// The metric family.
    pub metric: String,
    /// The job.
    pub job: String,
    /// The class.
    pub class: String,
    /// Series that are not sent.
    pub series: u64,
    /// Why.
    pub reason: String,
    /// Since when, in seconds since 1970; nothing when it was never considered.
    pub since: Option<f64>,
}

/// What became of the samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Read from the store.
    pub read: u64,
    /// Taken by the endpoint.
    pub sent: u64,
    /// Kept back, by reason.
    pub withheld: BTreeMap<String, u64>,
    /// Refused by the endpoint, by error id.
    pub refused: BTreeMap<String, u64>,
    /// Too old when their turn came.
    pub too_old: u64,
    /// Given up.
    pub failed: u64,
    /// Unreadable in the store.
    pub lost: u64,
    /// Not dealt with yet.
    pub pending: u64,
    /// How far behind, in seconds.
    pub lag_secs: f64,
    /// Whether it is being forwarded at present.
    pub running: bool,
    /// How often forwarding broke down, or could not start.
    pub restarts: u64,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// Where the use of slots leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Growth.
    pub slots_per_hour: f64,
    /// When the target is reached at that rate, in seconds; nothing when it is not.
    pub exhausted_in_secs: Option<f64>,
}

/// What a report says of an endpoint beside its budget.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Its address, without credentials.
    pub url: String,
    /// Distance between forwarded samples; zero for all.
    pub interval: Span,
    /// What became of the samples.
    pub samples: Samples,
}

/// The first half of an endpoint's report, made while the budget stands still.
#[derive(Debug)]
pub struct Look {
    report: EndpointReport,
    live: Vec<Labels>,
}

impl Look {
    /// Looks at a budget at `now`; `interval` is the distance between forwarded samples.
    pub fn at(admission: &Admission, now: Duration, interval: Span) -> Self {
        let (report, live) = fill(admission, now, interval);
        Self { report, live }
    }

    /// The whole report.
    pub fn finish(self, about: About) -> EndpointReport {
        let Self { mut report, live } = self;
        report.name = about.name;
        report.url = about.url;
        report.points.interval_secs = about.interval.as_secs_f64();
        report.samples = about.samples;
        report.labels = labels(&live);
        report.hints = hints(&report, about.interval);
        report
    }
}

fn fill(admission: &Admission, now: Duration, interval: Span) -> (EndpointReport, Vec<Labels>) {
    let mut tables = Tables::default();
    for group in admission.groups() {
        tables.add(admission, group);
    }
    let figures = Figures::of(admission, now, interval);
    let classes =
        figures.classes.iter().zip(admission.policy.classes()).map(|(class, policy)| ClassUse {
            name: class.name.clone(),
            slots: class.live,
            max: policy.series,
            sent: policy.send,
            interval_secs: class.interval.as_secs_f64(),
            thinned: class.thinned,
        });
    let limits = admission.limits.as_ref();
    let series = figures.series.as_ref().zip(limits).map(|(series, limits)| SeriesBudget {
        contract: series.contract,
        enforced: limits.enforced,
        target: series.target,
        allowed: series.allowed,
        reserve: series.reserve,
        cooling: figures.cooling,
        server: series.server.to_owned(),
        refusals: series.refusals,
        refused_examples: admission.full.examples().map(str::to_owned).collect(),
        origin: match limits.origin {
            Origin::Configured => "configured".to_owned(),
            Origin::FreeTier => "free_tier".to_owned(),
        },
        in_doubt: series.in_doubt,
        ledger_error: admission.ledger_error.clone(),
    });
    let trend = limits.and_then(|limits| admission.history.trend(limits.target));
    let withheld = tables.withheld(admission);
    let report = EndpointReport {
        series,
        live: figures.live,
        points: Points {
            per_minute: figures.points_per_minute,
            last_minute: figures.points_last_minute,
            billable_p95: figures.billable_p95,
            interval_secs: 0.0,
        },
        classes: classes.collect(),
        jobs: top(tables.jobs),
        metrics: top(tables.metrics),
        withheld,
        forecast: trend.map(|trend| Forecast {
            slots_per_hour: trend.slots_per_hour,
            exhausted_in_secs: trend.exhausted_in.map(Span::as_secs_f64),
        }),
        ..EndpointReport::default()
    };
    (report, tables.live)
}

/// A metric, its job, its class and the reason.
type WithheldKey = (String, String, u16, Reason);

#[derive(Default)]
struct Tables {
    jobs: BTreeMap<String, (u64, u64)>,
    metrics: BTreeMap<String, (u64, u64)>,
    withheld: BTreeMap<WithheldKey, (u64, Timestamp)>,
    /// Labels of the series that are sent.
    live: Vec<Labels>,
}

impl Tables {
    fn add(&mut self, admission: &Admission, group: &super::admission::Group) {
        let members = group.members.len() as u64;
        let (job, family) = (group.rank.job.to_string(), group.rank.family.to_string());
        let (slots, withheld) = match group.state {
            State::Admitted => {
                let live = group.members.iter().filter(|m| admission.is_live(m.key));
                let before = self.live.len();
                self.live.extend(live.map(|member| member.labels.clone()));
                ((self.live.len() - before) as u64, 0)
            }
            State::Waiting { since, reason } | State::Evicted { since, reason, .. } => {
                let key = (family.clone(), job.clone(), group.rank.class, reason);
                let entry = self.withheld.entry(key).or_insert((0, since));
                entry.0 += members;
                entry.1 = entry.1.min(since);
                (0, members)
            }
        };
        for (table, name) in [(&mut self.jobs, job), (&mut self.metrics, family)] {
            let entry = table.entry(name).or_default();
            entry.0 += slots;
            entry.1 += withheld;
        }
    }

    fn withheld(&self, admission: &Admission) -> Vec<Withheld> {
        let row = |(key, (series, since)): (&WithheldKey, &(u64, Timestamp))| {
            let (metric, job, class, reason) = key;
            let class = admission.policy.class(*class);
            Withheld {
                metric: metric.clone(),
                job: job.clone(),
                class: class.map(|class| class.name.clone()).unwrap_or_default(),
                series: *series,
                reason: reason.to_string(),
                since: (*since > Timestamp::MIN).then(|| since.as_secs_f64()),
            }
        };
        let mut rows: Vec<Withheld> = self.withheld.iter().map(row).collect();
        rows.sort_by(|a, b| b.series.cmp(&a.series).then_with(|| a.metric.cmp(&b.metric)));
        rows.truncate(ROWS_MAX);
        rows
    }
}

fn top(table: BTreeMap<String, (u64, u64)>) -> Vec<Use> {
    let row = |(name, (slots, withheld))| Use { name, slots, withheld };
    let mut rows: Vec<Use> = table.into_iter().map(row).collect();
    rows.sort_by(|a, b| {
        let by_size = (b.slots + b.withheld).cmp(&(a.slots + a.withheld));
        by_size.then_with(|| a.name.cmp(&b.name))
    });
    rows.truncate(ROWS_MAX);
    rows
}

/// What each label of the sent series costs: how many sets fall together without it.
fn labels(live: &[Labels]) -> Vec<LabelUse> {
    let mut values: HashMap<&str, (u64, HashSet<&str>)> = HashMap::new();
    for labels in live {
        for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
            let entry = values.entry(name).or_default();
            entry.0 += 1;
            entry.1.insert(value);
        }
    }
    let mut rows = Vec::new();
    for (name, (series, values)) in values {
        // A label with one value separates only series that lack it.
        let sets: HashSet<u128> =
            live.iter().map(|labels| labels.retain(|n| n != name).stable_hash_128()).collect();
        let saving = (live.len() - sets.len()) as u64;
        rows.push(LabelUse { name: name.to_owned(), series, values: values.len() as u64, saving });
    }
    rows.sort_by(|a, b| b.saving.cmp(&a.saving).then_with(|| a.name.cmp(&b.name)));
    rows.truncate(ROWS_MAX);
    rows
}

fn hints(report: &EndpointReport, interval: Span) -> Vec<String> {
    let mut hints = Vec::new();
    if interval > Span::ZERO {
        hints.push(format!(
            "samples arrive every {interval}: set the scrape interval of the Grafana data source to \
             {interval}, so that $__rate_interval covers enough of them, and use windows of at \
             least {} in rate()",
            Span(interval.as_ms().saturating_mul(4))
        ));
    }
    let Some(series) = &report.series else {
        hints.push("no series budget: set budget.series in retention.toml to have one".to_owned());
        return hints;
    };
    if series.origin == "free_tier" {
        hints.push(format!(
            "the limits of Grafana Cloud's free tier are assumed ({} series); set budget.series in \
             retention.toml for another plan",
            series.contract
        ));
    }
    if series.in_doubt {
        hints.push(format!(
            "the server may be counting series that the ledger does not list, since there was none \
             at a start, or it was damaged: {} of {} slots may be in use until stint has run \
             for 22 minutes",
            series.allowed, series.target
        ));
    } else if series.server == "normal" && series.allowed < series.target {
        hints.push(format!(
            "the server refused new series a while ago: {} of {} slots may be in use, and more again \
             every ten minutes",
            series.allowed, series.target
        ));
    }
    if series.server != "normal" {
        hints.push(
            "the server refuses new series below the target: others send to this account too, or \
             its limit is lower than configured"
                .to_owned(),
        );
    }
    if let Some(dearest) = report.labels.iter().find(|label| label.saving > series.target / 20) {
        hints.push(format!(
            "without the label {} {} slots would be free",
            dearest.name, dearest.saving
        ));
    }
    if let Some(most) = report.points.per_minute {
        for class in report.classes.iter().filter(|class| class.thinned) {
            hints.push(format!(
                "the class {} is sent every {} s only: more would be more than {most} points per minute",
                class.name, class.interval_secs
            ));
        }
    }
    hints
}

#[cfg(test)]
mod tests;
