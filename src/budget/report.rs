//! What the budget of each endpoint is spent on, what is withheld, and what to do about it.
//!
//! The same numbers as JSON (`GET /api/v1/status/budget`, described in `docs/budget.md`) and as
//! text (`stint budget`).

pub mod advice;
mod churn;
mod hints;
mod kept_out;
pub mod labels;
pub mod look;
mod quotas;
mod tables;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use stint_model::{Span, Timestamp};

pub use advice::Advice;
pub use labels::{LabelUse, MetricLabel};
pub use look::{About, Look};

pub use crate::usage::Overview;
use crate::usage::Source;

/// Rows of each table in a report.
const ROWS_MAX: usize = 50;

/// The budgets of all endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// In order of the configuration.
    pub endpoints: Vec<EndpointReport>,
    /// How it is known what is used.
    #[serde(default)]
    pub usage: UsageReport,
}

/// How it is known which metrics and labels are used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageReport {
    /// Since when queries are remembered, in seconds since 1970; nothing when they are not.
    pub queries_since: Option<f64>,
    /// Queries that are remembered; those that touch the same are one.
    pub queries: u64,
    /// Expressions of rules.
    pub rules: u64,
    /// Expressions of dashboards.
    pub dashboards: u64,
    /// Files of dashboards and rules that were read.
    pub files: u64,
    /// What could not be read, with the reason.
    pub problems: Vec<String>,
    /// Whether enough is known to call something unused: queries of at least a day, or dashboards.
    pub conclusive: bool,
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
    /// Slots by environment (the label `environment`, `env` or `deployment_environment`), largest
    /// first; empty when no series has one.
    #[serde(default)]
    pub environments: Vec<Use>,
    /// What there is for what quotas select, fullest first.
    #[serde(default)]
    pub quotas: Vec<QuotaUse>,
    /// Slots by metric family, largest first.
    pub metrics: Vec<MetricUse>,
    /// Slots of series that are not known any more, by job or metric: they ended.
    #[serde(default)]
    pub unlisted: u64,
    /// What each label costs over all metrics, dearest first.
    pub labels: Vec<LabelUse>,
    /// What each label of each metric costs, dearest first.
    #[serde(default)]
    pub metric_labels: Vec<MetricLabel>,
    /// Classic histograms, those with most buckets first.
    #[serde(default)]
    pub histograms: Vec<HistogramUse>,
    /// What is sent and not used by anybody, all metrics together; nothing while too little is known.
    #[serde(default)]
    pub unused: Option<Unused>,
    /// What is not sent at present, by metric and job.
    pub withheld: Vec<Withheld>,
    /// What became of the samples since the start.
    pub samples: Samples,
    /// Numbers of targets that come and go; nothing where there are no rules for them.
    #[serde(default)]
    pub identities: Option<IdentityUse>,
    /// Where the use of slots leads.
    pub forecast: Option<Forecast>,
    /// What would save slots, most first.
    #[serde(default)]
    pub advice: Vec<Advice>,
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
    /// Slots that other endpoints for the same account hold.
    #[serde(default)]
    pub shared: u64,
    /// What the account says; nothing where it is not asked.
    #[serde(default)]
    pub account: Option<AccountUse>,
}

/// What an account says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccountUse {
    /// Active series of all senders.
    pub active: Option<u64>,
    /// The most of them in the last half an hour that were not sent from here.
    pub foreign: u64,
    /// How long ago that was said, in seconds.
    pub age_secs: f64,
    /// Why the last question was not answered.
    pub problem: Option<String>,
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
    /// What the month comes to; nothing before a minute of it is over.
    #[serde(default)]
    pub month: Option<MonthUse>,
    /// Distance between forwarded samples in seconds; 0 for all.
    pub interval_secs: f64,
}

/// What a month comes to: accounts are billed by the 95th percentile of its minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthUse {
    /// Year and month in UTC, as `2026-11`.
    pub name: String,
    /// Minutes of it that are known.
    pub minutes: u64,
    /// The 95th percentile of these of the larger of series and points.
    pub so_far: u64,
    /// The same for the whole month, if the rest of it is as the last day was.
    pub projected: u64,
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

/// Slots of a job or environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Use {
    /// The job or environment.
    pub name: String,
    /// Slots in use.
    pub slots: u64,
    /// Of these, slots of series that were not sent for five minutes: what changing labels cost.
    pub cooling: u64,
    /// Samples sent per minute, by the interval of each class.
    pub points: f64,
    /// Series that are not sent.
    pub withheld: u64,
}

/// A quota, for one value of its label where it is per label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaUse {
    /// The quota.
    pub name: String,
    /// The value of its label; nothing where it is for all.
    pub value: Option<String>,
    /// Slots in use.
    pub slots: u64,
    /// Most slots.
    pub max: Option<u64>,
    /// Slots that nobody else gets.
    pub guaranteed: u64,
    /// Series that are not sent because of quotas, this one or another that they count towards.
    pub withheld: u64,
}

/// Slots of a metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricUse {
    /// The metric family.
    pub name: String,
    /// Slots in use.
    pub slots: u64,
    /// Of these, slots of series that were not sent for five minutes.
    pub cooling: u64,
    /// Samples sent per minute, by the interval of each class.
    pub points: f64,
    /// Series that are not sent.
    pub withheld: u64,
    /// Whether a query, rule or dashboard names it; nothing while too little is known.
    pub used: Option<bool>,
    /// When it was last asked for here, in seconds since 1970.
    pub last_used: Option<f64>,
    /// Some of what uses it.
    pub users: Vec<String>,
}

/// A classic histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistogramUse {
    /// The metric family.
    pub name: String,
    /// Slots in use.
    pub slots: u64,
    /// Of these, slots of buckets.
    pub buckets: u64,
    /// Slots that would be free with every second bucket (`+Inf` stays).
    pub saving_thin: u64,
    /// Slots that would be free with sum and count alone.
    pub saving_totals: u64,
    /// Slots that would be free with one native histogram for each classic one.
    pub saving_native: u64,
    /// Whether anybody looks at buckets; nothing while too little is known.
    pub buckets_used: Option<bool>,
}

/// What is sent for nobody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unused {
    /// Metric families.
    pub metrics: u64,
    /// Their slots.
    pub slots: u64,
    /// Their samples per minute.
    pub points: f64,
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
    /// What the endpoint last said about that, by error id.
    #[serde(default)]
    pub refusals: BTreeMap<String, String>,
    /// Too old when their turn came.
    pub too_old: u64,
    /// Given up.
    pub failed: u64,
    /// Unreadable in the store.
    pub lost: u64,
    /// Stretches of the store that could not be read, of unknown content.
    #[serde(default)]
    pub gaps: u64,
    /// Not dealt with yet.
    pub pending: u64,
    /// Samples of aggregates that were made; they are not among those read.
    #[serde(default)]
    pub made: u64,
    /// Those that the endpoint took.
    #[serde(default)]
    pub made_sent: u64,
    /// Stale markers sent for series that are not sent any more; not among those read either.
    #[serde(default)]
    pub markers: u64,
    /// How far behind, in seconds.
    pub lag_secs: f64,
    /// Whether it is being forwarded at present.
    pub running: bool,
    /// How often forwarding broke down, or could not start.
    pub restarts: u64,
    /// Whether what is chosen to be sent cannot be written down, so that a crash would forget it.
    #[serde(default)]
    pub trail_failing: bool,
    /// Rounds that were sent although they could not be written down.
    #[serde(default)]
    pub trail_unwritten: u64,
    /// Stretches of what was written down that could not be read at a start.
    #[serde(default)]
    pub trail_damaged: u64,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// Targets that are known by a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityUse {
    /// Numbers that somebody had within a day.
    pub numbers: u64,
    /// Of these, those of targets that are there.
    pub held: u64,
    /// How often a target went on with the number of another one, since the start.
    pub takeovers: u64,
    /// Targets that found no number, since there are too many.
    pub unnumbered: u64,
}

/// Where the use of slots leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Growth.
    pub slots_per_hour: f64,
    /// When the target is reached at that rate, in seconds; nothing when it is not.
    pub exhausted_in_secs: Option<f64>,
    /// Growth of the points per minute, per hour.
    #[serde(default)]
    pub points_per_hour: f64,
    /// When the included points per minute are reached at that rate, in seconds.
    #[serde(default)]
    pub points_exhausted_in_secs: Option<f64>,
}

/// How long queries must have been remembered before what was not asked is called unused.
const OBSERVED_MIN: Span = Span::DAY;

/// Whether enough is known to call something unused.
fn is_conclusive(usage: &Overview, wall: Timestamp) -> bool {
    let since = usage.catalogue.queries_since();
    let is_observed = since.is_some_and(|since| wall.since(since) >= OBSERVED_MIN);
    is_observed || usage.catalogue.count(Source::Dashboard) > 0
}

/// Who uses something, in a word and a name.
fn named(source: Source, name: &str) -> String {
    match source {
        Source::Query => format!("query {name}"),
        Source::Rule => format!("rule {name}"),
        Source::Dashboard => format!("dashboard {name}"),
    }
}

impl UsageReport {
    /// How it is known at `wall` what is used.
    pub fn of(usage: &Overview, wall: Timestamp) -> Self {
        let catalogue = &usage.catalogue;
        Self {
            queries_since: catalogue.queries_since().map(Timestamp::as_secs_f64),
            queries: catalogue.count(Source::Query),
            rules: catalogue.count(Source::Rule),
            dashboards: catalogue.count(Source::Dashboard),
            files: usage.files,
            problems: usage.problems.iter().take(ROWS_MAX).cloned().collect(),
            conclusive: is_conclusive(usage, wall),
        }
    }
}

#[cfg(test)]
mod tests;
