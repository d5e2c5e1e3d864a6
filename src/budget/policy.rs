//! What matters at an endpoint: classes, quotas, how much of histograms is sent; and why a series
//! is not sent.

use std::fmt;

use stint_model::labels::{BUCKET_BOUND, METRIC_NAME, QUANTILE};
use stint_model::{Labels, MatchOp, Matcher, Selector};

use super::ranking::Weight;
use crate::config::{Budget, Class, HistogramRule, Quota};

/// The policy of one endpoint. Its classes are in order of importance; what no class picks belongs
/// to the last one, which every policy has.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    classes: Vec<Class>,
    quotas: Vec<Quota>,
    histograms: Vec<HistogramRule>,
    /// The class of series that are not sent for want of a label, whatever else selects them.
    unlabelled: Option<u16>,
    /// No classes are configured: what is used tells what matters.
    by_use: bool,
}

/// Name of the class of series that lack a label that they must carry.
pub const LABELS: &str = "labels";
/// Names of the classes of what rules read and of what is looked at, where none are configured.
const BY_USE: [&str; 2] = ["rules", "used"];
/// Name of the class of what no selector picks.
pub const REST: &str = "rest";
/// Name of the class that comes first when the configuration names none.
pub const VITAL: &str = "vital";

impl Policy {
    /// The policy of configured classes: before them the vital series (`up`, `scrape_*`, firing alerts
    /// and who has which number) unless a class of that name says otherwise, after them the rest.
    pub fn new(mut classes: Vec<Class>) -> Self {
        if !classes.iter().any(|class| class.name == VITAL) {
            classes.insert(0, class(VITAL, vital_selectors()));
        }
        classes.push(class(REST, vec![Selector::default()]));
        let (quotas, histograms) = (Vec::new(), Vec::new());
        Self { classes, quotas, histograms, unlabelled: None, by_use: false }
    }

    /// The policy of an endpoint. Where it has no classes, what is used makes them.
    pub fn of(budget: &Budget) -> Self {
        let mut policy = Self {
            quotas: budget.quotas.clone(),
            histograms: budget.histograms.clone(),
            by_use: budget.classes.is_empty(),
            ..Self::new(budget.classes.clone())
        };
        if !budget.unlabelled.is_empty() {
            let withheld = Class { send: false, ..class(LABELS, budget.unlabelled.clone()) };
            let rest = policy.classes.len().saturating_sub(1);
            policy.classes.insert(rest, withheld);
            policy.unlabelled = Some(rest as u16);
        }
        if policy.by_use {
            // Before the rest; which series are theirs, no selector says.
            let last = policy.classes.len() - 1;
            policy.classes.splice(last..last, BY_USE.map(|name| class(name, Vec::new())));
        }
        policy
    }

    /// The number of the class of a metric that matters so much, where that depends on its use.
    pub fn class_by_use(&self, weight: Weight) -> Option<u16> {
        let rest = self.classes.len().saturating_sub(1) as u16;
        let before = match weight {
            Weight::Rules => 2,
            Weight::Used => 1,
            Weight::Rest => 0,
        };
        self.by_use.then(|| rest.saturating_sub(before))
    }

    /// The quotas.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// The rule for the histogram `family` that a series with these labels is a part of, by number.
    pub fn histogram_rule(&self, labels: &Labels, family: &str) -> Option<u16> {
        if self.histograms.is_empty() {
            return None;
        }
        let whole = labels.retain(|label| !matches!(label, BUCKET_BOUND | QUANTILE));
        let named = |name: &str| whole.to_builder().set(METRIC_NAME, name).build();
        // By the name of the metric, or by what its buckets are called.
        let names = [named(family), named(&format!("{family}_bucket"))];
        let selects = |rule: &HistogramRule| {
            rule.selectors.iter().any(|selector| names.iter().any(|it| selector.matches(it)))
        };
        self.histograms.iter().position(selects).map(|number| number as u16)
    }

    /// A rule for histograms by its number.
    pub fn histogram(&self, number: u16) -> Option<&HistogramRule> {
        self.histograms.get(usize::from(number))
    }

    /// The classes in order of importance.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The number of the class that `labels` belong to.
    pub fn class_of(&self, labels: &Labels) -> u16 {
        let picked = |class: &Class| class.selectors.iter().any(|s| s.matches(labels));
        if let Some(number) = self.unlabelled
            && self.class(number).is_some_and(picked)
        {
            return number;
        }
        let last = self.classes.len().saturating_sub(1);
        self.classes.iter().position(picked).unwrap_or(last) as u16
    }

    /// A class by its number.
    pub fn class(&self, number: u16) -> Option<&Class> {
        self.classes.get(usize::from(number))
    }
}

fn class(name: &str, selectors: Vec<Selector>) -> Class {
    Class {
        name: name.to_owned(),
        selectors,
        send: true,
        series: None,
        interval: None,
        targets: None,
    }
}

fn vital_selectors() -> Vec<Selector> {
    let pattern = "up|scrape_.+|ALERTS|ALERTS_FOR_STATE|target_identity";
    let matcher = Matcher::new(MatchOp::Regex, stint_model::labels::METRIC_NAME, pattern);
    matcher.into_iter().map(|matcher| Selector::new(vec![matcher])).collect()
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// Why a series is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No slot is free.
    Budget,
    /// The class has used its own maximum.
    ClassQuota,
    /// A quota is used up.
    Quota,
    /// The policy does not forward this class.
    Policy,
    /// A bucket that the policy leaves out of its histogram.
    Buckets,
    /// Part of an aggregate that is sent in its place.
    Aggregated,
    /// Enough other targets of the job are sent.
    Targets,
    /// The metric gains more series in a minute than any may.
    Growth,
    /// After a first start, until it is known what there is to choose from.
    FirstStart,
    /// Between two samples of the interval.
    Interval,
    /// Between two samples of an interval made longer, since points per minute are scarce.
    Points,
    /// The server refuses new series at present.
    ServerFull,
    /// The ledger cannot be written, so that no slot may be granted.
    LedgerFailed,
    /// A stale marker of a series that the server does not show any more.
    StaleUnsent,
    /// `write_relabel_configs` dropped the series.
    Relabel,
    /// The endpoint's settings exclude native histograms.
    Histogram,
}

impl Reason {
    /// Every reason, for counters.
    pub const ALL: [Self; 16] = [
        Self::Budget,
        Self::ClassQuota,
        Self::Quota,
        Self::Policy,
        Self::Buckets,
        Self::Aggregated,
        Self::Targets,
        Self::Growth,
        Self::FirstStart,
        Self::Interval,
        Self::Points,
        Self::ServerFull,
        Self::LedgerFailed,
        Self::StaleUnsent,
        Self::Relabel,
        Self::Histogram,
    ];

    /// A short name for metrics and the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::ClassQuota => "class_quota",
            Self::Quota => "quota",
            Self::Policy => "policy",
            Self::Buckets => "buckets",
            Self::Aggregated => "aggregated",
            Self::Targets => "targets",
            Self::Growth => "growth",
            Self::FirstStart => "first_start",
            Self::Interval => "interval",
            Self::Points => "points",
            Self::ServerFull => "server_full",
            Self::LedgerFailed => "ledger_failed",
            Self::StaleUnsent => "stale_unsent",
            Self::Relabel => "relabel",
            Self::Histogram => "histogram",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Level;

    #[test]
    fn the_first_matching_class_counts() {
        let policy = Policy::default();
        let class = |name: &str| policy.class_of(&Labels::from_pairs([("__name__", name)]));
        assert_eq!(class("up"), 0);
        assert_eq!(class("scrape_duration_seconds"), 0);
        assert_eq!(class("target_identity"), 0);
        assert_eq!(class("ups"), 1);
        assert_eq!(policy.class(1).unwrap().name, REST);
    }

    #[test]
    fn a_configured_vital_class_replaces_the_built_in_one() {
        let own = class(VITAL, vec![Selector::metric("heartbeat")]);
        let policy = Policy::new(vec![class("first", vec![Selector::metric("a")]), own]);
        let names: Vec<&str> = policy.classes().iter().map(|class| &*class.name).collect();
        assert_eq!(names, ["first", VITAL, REST]);
        assert_eq!(policy.class_of(&Labels::from_pairs([("__name__", "up")])), 2);
    }

    #[test]
    fn what_lacks_a_label_is_withheld_and_takes_nobodys_place() {
        let unlabelled = vec![Selector::new(vec![Matcher::equal("environment", "")])];
        let budget = Budget { unlabelled, ..Budget::default() };
        let policy = Policy::of(&budget);
        let names: Vec<&str> = policy.classes().iter().map(|class| &*class.name).collect();
        assert_eq!(names, [VITAL, LABELS, BY_USE[0], BY_USE[1], REST]);
        let class =
            |pairs: &[(&str, &str)]| policy.class_of(&Labels::from_pairs(pairs.iter().copied()));
        assert_eq!(class(&[("__name__", "up")]), 1);
        assert_eq!(class(&[("__name__", "x")]), 1);
        assert_eq!(class(&[("__name__", "up"), ("environment", "dev")]), 0);
        assert_eq!(class(&[("__name__", "x"), ("environment", "dev")]), 4);
        assert!(!policy.class(1).unwrap().send);
    }

    #[test]
    fn a_histogram_is_selected_as_a_whole_by_either_name() {
        let rule = |name: &str| HistogramRule {
            selectors: vec![Selector::metric(name)],
            level: Level::Thin,
            at_least: Level::Thin,
            bounds: Vec::new(),
            resolution: None,
        };
        let histograms = vec![rule("a_seconds"), rule("b_seconds_bucket")];
        let policy = Policy::of(&Budget { histograms, ..Budget::default() });
        let rule = |name: &str, family: &str| {
            policy.histogram_rule(&Labels::from_pairs([("__name__", name), ("le", "1")]), family)
        };
        assert_eq!(rule("a_seconds_sum", "a_seconds"), Some(0));
        assert_eq!(rule("a_seconds_bucket", "a_seconds"), Some(0));
        assert_eq!(rule("b_seconds_count", "b_seconds"), Some(1));
        assert_eq!(rule("c_seconds_count", "c_seconds"), None);
    }
}
