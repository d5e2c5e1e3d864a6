//! `retention.toml`: what is kept here, and what may be spent elsewhere.

use stint_model::labels::NameScheme;
use stint_model::{Labels, Selector, Span};

use super::account::AccountApi;
use super::decode::{Context, Section};
use super::global::Environment;
use super::labels::RequiredLabels;
use super::node::{Node, Position};
use super::notify::{self, Webhook};
use super::policy::{
    Aggregate, Class, GaugeRule, HistogramRule, IdentityRule, Quota, interval, read_aggregates,
    read_classes, read_gauges, read_histograms, read_identities, read_quotas,
};
use super::remote_write::RemoteWrite;
use super::storage::resource_attributes;
use super::usage::Usage;

/// What is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long; zero = without end.
    pub time: Span,
    /// How many bytes of blocks and log at most; 0 = no limit.
    pub size_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { time: Span(7 * Span::DAY.0), size_bytes: 0 }
    }
}

/// What one endpoint may be sent. Without limits (the default) everything is sent as it comes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budget {
    /// Most active series that the endpoint may see; `None` = no limit.
    pub series: Option<u64>,
    /// Most samples a minute; `None` = no limit.
    pub points_per_minute: Option<u64>,
    /// One scrape of each target is forwarded per this interval; `None` = every scrape.
    pub interval: Option<Span>,
    /// Whether the limits are written for this endpoint alone. Others that send to the same account
    /// share what is written for all.
    pub is_own: bool,
    /// Part of `series`, from 0 to 1, that only the first class may use.
    pub reserve: f64,
    /// In order of importance; a series belongs to the first class that selects it, and to an
    /// unnamed last one when none does.
    pub classes: Vec<Class>,
    /// How many slots some series may use together; all that select a series hold for it.
    pub quotas: Vec<Quota>,
    /// How much of histograms is sent; the first that selects one holds.
    pub histograms: Vec<HistogramRule>,
    /// Labels that are not sent; the first that selects a series holds.
    pub aggregates: Vec<Aggregate>,
    /// Selects series that lack a label that they must carry, and are not sent for that.
    pub unlabelled: Vec<Selector>,
    /// Where the account tells its limits and its use.
    pub account: Option<AccountApi>,
    /// Targets that are known by a number; the first that selects a series holds.
    pub identities: Vec<IdentityRule>,
    /// Whether the last sample before a counter's reset is sent whatever the interval.
    pub reset_guard: bool,
    /// What is sent of gauges at each interval; the first that selects a series holds.
    pub gauges: Vec<GaugeRule>,
}

impl Budget {
    /// Grafana Cloud's free tier: 10 000 series, one sample a minute each.
    pub fn free_tier() -> Self {
        Self {
            series: Some(10_000),
            points_per_minute: Some(10_000),
            interval: Some(Span::MINUTE),
            reserve: 0.05,
            ..Self::default()
        }
    }

    /// Whether anything is limited.
    pub fn is_limited(&self) -> bool {
        self.series.is_some() || self.points_per_minute.is_some()
    }
}

/// `retention.toml` as it is written, before it meets the endpoints.
#[derive(Debug, Default)]
pub(super) struct RetentionFile {
    pub(super) retention: Option<Retention>,
    pub(super) usage: Usage,
    pub(super) labels: RequiredLabels,
    /// Set on what every OTLP resource tells of itself.
    pub(super) resource_attributes: Vec<(String, String)>,
    pub(super) webhooks: Vec<Webhook>,
    budget: BudgetKeys,
    endpoints: Vec<Endpoint>,
}

/// The keys of a budget; those that are absent come from a wider one.
#[derive(Clone, Debug, Default)]
struct BudgetKeys {
    enabled: Option<bool>,
    series: Option<Limit>,
    points_per_minute: Option<Limit>,
    interval: Option<Span>,
    reserve: Option<f64>,
    classes: Option<Vec<Class>>,
    quotas: Option<Vec<Quota>>,
    histograms: Option<Vec<HistogramRule>>,
    aggregates: Option<Vec<Aggregate>>,
    account: Option<AccountApi>,
    identities: Option<Vec<IdentityRule>>,
    reset_guard: Option<bool>,
    gauges: Option<Vec<GaugeRule>>,
}

/// A number, or the word `unlimited`.
type Limit = Option<u64>;

#[derive(Debug)]
struct Endpoint {
    name: String,
    at: Position,
    labels: Labels,
    budget: BudgetKeys,
}

impl RetentionFile {
    pub(super) fn read(cx: &Context, root: &Node, environment: Environment<'_>) -> Self {
        let mut root = Section::open(cx, root, "");
        let resource_attributes = root
            .section("otlp")
            .map(|section| resource_attributes(section, environment))
            .unwrap_or_default();
        let retention = root.section("retention").map(|mut section| {
            let default = Retention::default();
            let retention = Retention {
                time: section.span("time").unwrap_or(default.time),
                size_bytes: section.bytes("size").unwrap_or(default.size_bytes),
            };
            section.finish();
            retention
        });
        let labels = root
            .section("labels")
            .map(|section| RequiredLabels::read(section, environment))
            .unwrap_or_default();
        let usage = root.section("usage").map(Usage::read).unwrap_or_default();
        let webhooks = root.section("notify").map(notify::read).unwrap_or_default();
        let budget = root.section("budget").map(BudgetKeys::read).unwrap_or_default();
        let mut endpoints = Vec::new();
        for (key, mut section) in root.map_of_sections("endpoint") {
            endpoints.push(Endpoint {
                name: key.text.clone(),
                at: key.at,
                labels: section.labels("labels", NameScheme::Utf8),
                budget: section.section("budget").map(BudgetKeys::read).unwrap_or_default(),
            });
            section.finish();
        }
        root.finish();
        Self { retention, usage, labels, resource_attributes, webhooks, budget, endpoints }
    }

    /// Gives each endpoint its labels and its budget; an endpoint named here must exist.
    pub(super) fn join(&self, cx: &Context, remote_write: &mut [RemoteWrite]) {
        for endpoint in &self.endpoints {
            if !remote_write.iter().any(|remote| remote.name == endpoint.name) {
                let names: Vec<_> = remote_write.iter().map(|remote| &*remote.name).collect();
                let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let message = format!(
                    "no remote_write endpoint is named `{}`; there is: {there}",
                    endpoint.name
                );
                cx.error(endpoint.at, message);
            }
        }
        for remote in remote_write {
            let own = self.endpoints.iter().find(|endpoint| endpoint.name == remote.name);
            remote.labels = own.map(|own| own.labels.clone()).unwrap_or_default();
            let keys = match own {
                Some(own) => own.budget.clone().or(&self.budget),
                None => self.budget.clone(),
            };
            remote.budget = keys.resolve(is_grafana_cloud(&remote.url));
            let is_own = |own: &Endpoint| {
                own.budget.series.is_some() || own.budget.points_per_minute.is_some()
            };
            remote.budget.unlabelled = self.labels.withheld();
            remote.budget.is_own = remote.budget.is_limited() && own.is_some_and(is_own);
        }
    }
}

/// Whether `url` leads to Grafana Cloud.
pub fn is_grafana_cloud(url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok();
    // A name may end in the dot of the root.
    let host = url.as_ref().and_then(reqwest::Url::host_str).map(|host| host.trim_end_matches('.'));
    host.is_some_and(|host| host == "grafana.net" || host.ends_with(".grafana.net"))
}

impl BudgetKeys {
    fn read(mut section: Section<'_>) -> Self {
        let limit = |text: &str| match text {
            "unlimited" => Ok(None),
            _ => match text.replace('_', "").parse::<u64>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(format!(
                    "{text} is neither a number above 0 nor \"unlimited\"; `enabled = false` lifts \
                     all limits"
                )),
            },
        };
        let keys = Self {
            enabled: section.has("enabled").then(|| section.bool_or("enabled", true)),
            series: section.parsed("series", limit),
            points_per_minute: section.parsed("points_per_minute", limit),
            interval: interval(&mut section),
            reserve: section.f64("reserve"),
            classes: section.has("class").then(|| read_classes(&mut section)),
            quotas: section.has("quota").then(|| read_quotas(&mut section)),
            histograms: section.has("histogram").then(|| read_histograms(&mut section)),
            aggregates: section.has("aggregate").then(|| read_aggregates(&mut section)),
            account: section.section("account").map(AccountApi::read),
            identities: section.has("identity").then(|| read_identities(&mut section)),
            reset_guard: section.has("reset_guard").then(|| section.bool_or("reset_guard", false)),
            gauges: section.has("gauge").then(|| read_gauges(&mut section)),
        };
        if keys.account.is_some() && keys.enabled == Some(false) {
            section
                .error("account", "without a budget nobody needs to know the use of the account");
        }
        if keys.reserve.is_some_and(|reserve| !(0.0..1.0).contains(&reserve)) {
            section.error("reserve", "`reserve` is a part of `series`, from 0 to below 1");
        }
        if let (Some(Some(series)), Some(quotas)) = (keys.series, &keys.quotas) {
            let kept = quotas.iter().fold(0u64, |sum, quota| sum.saturating_add(quota.guaranteed));
            if kept > series {
                section
                    .error("quota", format!("{kept} slots are guaranteed, and there are {series}"));
            }
        }
        section.finish();
        keys
    }

    /// These keys, and those of `wider` where there are none.
    fn or(self, wider: &Self) -> Self {
        Self {
            enabled: self.enabled.or(wider.enabled),
            series: self.series.or(wider.series),
            points_per_minute: self.points_per_minute.or(wider.points_per_minute),
            interval: self.interval.or(wider.interval),
            reserve: self.reserve.or(wider.reserve),
            classes: self.classes.or_else(|| wider.classes.clone()),
            quotas: self.quotas.or_else(|| wider.quotas.clone()),
            histograms: self.histograms.or_else(|| wider.histograms.clone()),
            aggregates: self.aggregates.or_else(|| wider.aggregates.clone()),
            account: self.account.or_else(|| wider.account.clone()),
            identities: self.identities.or_else(|| wider.identities.clone()),
            reset_guard: self.reset_guard.or(wider.reset_guard),
            gauges: self.gauges.or_else(|| wider.gauges.clone()),
        }
    }

    /// The budget these keys make. An endpoint of Grafana Cloud for which nothing is said gets
    /// the free tier; any other one is only limited by what is said.
    fn resolve(self, grafana_cloud: bool) -> Budget {
        let free = Budget::free_tier();
        if self.enabled == Some(false) {
            return Budget::default();
        }
        let series = self.series.unwrap_or(if grafana_cloud { free.series } else { None });
        // The tier includes one point a minute for each of its series.
        let points = self.points_per_minute.unwrap_or(if grafana_cloud { series } else { None });
        let limited = series.is_some() || points.is_some();
        let interval = self.interval.or(if limited { free.interval } else { None });
        Budget {
            series,
            points_per_minute: points,
            interval: interval.filter(|interval| *interval > Span::ZERO),
            is_own: false,
            reserve: self.reserve.unwrap_or(free.reserve),
            classes: self.classes.unwrap_or_default(),
            quotas: self.quotas.unwrap_or_default(),
            histograms: self.histograms.unwrap_or_default(),
            aggregates: self.aggregates.unwrap_or_default(),
            unlabelled: Vec::new(),
            account: self.account.filter(|_| limited),
            identities: self.identities.unwrap_or_default(),
            reset_guard: self.reset_guard.unwrap_or(false),
            gauges: self.gauges.unwrap_or_default(),
        }
    }
}
