//! Who gets the slots when there are not enough: classes, and a plan over them.
//!
//! The plan is a pure function of what is wanted, of the policy and of what is free. It knows no
//! order of arrival, so a restart or a second replica comes to the same choice. It decides by whole
//! metrics of a job, never by single series: a metric of which a random part is missing is worse
//! than one that is missing and says so.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use stint_model::{Labels, MatchOp, Matcher, Selector};

use super::group::GroupId;
use crate::config::Class;

/// The classes of one endpoint in order of importance. What no class picks belongs to the last one,
/// which every policy has.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    classes: Vec<Class>,
}

/// Name of the class of what no selector picks.
pub const REST: &str = "rest";
/// Name of the class that comes first when the configuration names none.
pub const VITAL: &str = "vital";

impl Policy {
    /// The policy of configured classes: before them the vital series (`up`, `scrape_*` and firing
    /// alerts) unless a class of that name says otherwise, after them the rest.
    pub fn new(mut classes: Vec<Class>) -> Self {
        if !classes.iter().any(|class| class.name == VITAL) {
            classes.insert(0, class(VITAL, vital_selectors()));
        }
        classes.push(class(REST, vec![Selector::default()]));
        Self { classes }
    }

    /// The classes in order of importance.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The number of the class that `labels` belong to.
    pub fn class_of(&self, labels: &Labels) -> u16 {
        let picked = |class: &Class| class.selectors.iter().any(|s| s.matches(labels));
        let last = self.classes.len().saturating_sub(1);
        self.classes.iter().position(picked).unwrap_or(last) as u16
    }

    /// A class by its number.
    pub fn class(&self, number: u16) -> Option<&Class> {
        self.classes.get(usize::from(number))
    }
}

fn class(name: &str, selectors: Vec<Selector>) -> Class {
    Class { name: name.to_owned(), selectors, send: true, series: None, interval: None }
}

fn vital_selectors() -> Vec<Selector> {
    let pattern = "up|scrape_.+|ALERTS|ALERTS_FOR_STATE";
    let matcher = Matcher::new(MatchOp::Regex, stint_model::labels::METRIC_NAME, pattern);
    matcher.into_iter().map(|matcher| Selector::new(vec![matcher])).collect()
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// The order in which groups are served: class, metric, job, then a hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Number of the class.
    pub class: u16,
    /// The metric family.
    pub family: Arc<str>,
    /// The job.
    pub job: Arc<str>,
    /// The group, last because its order means nothing.
    pub group: GroupId,
}

impl Rank {
    /// Whether both belong to the same metric of the same job and class.
    pub fn same_metric(&self, other: &Self) -> bool {
        self.class == other.class && self.family == other.family && self.job == other.job
    }
}

/// A group that asks for slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its place in the order.
    pub rank: Rank,
    /// Slots it needs.
    pub slots: u64,
    /// Whether its metric already holds slots, so that the group is growth of something admitted.
    pub grows: bool,
}

/// What there is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Slots that any class may take.
    pub slots: u64,
    /// Further slots that only the first class may take.
    pub reserve: u64,
}

/// Why a series is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No slot is free.
    Budget,
    /// The class has used its own maximum.
    ClassQuota,
    /// The policy does not forward this class.
    Policy,
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
    pub const ALL: [Self; 10] = [
        Self::Budget,
        Self::ClassQuota,
        Self::Policy,
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
            Self::Policy => "policy",
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

/// The outcome for each demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Groups that get their slots, in order of rank.
    pub admit: Vec<Demand>,
    /// Groups that do not, with the reason, in order of rank.
    pub withhold: Vec<(Demand, Reason)>,
}

/// Distributes what is free. `used` are the slots that each class already holds.
///
/// New metrics are admitted whole per job or not at all; a smaller one of lower rank may take the
/// slots that a larger one could not use. The growth of an admitted metric is admitted by group.
pub fn plan(policy: &Policy, mut demand: Vec<Demand>, free: Free, used: &[u64]) -> Plan {
    demand.sort_by(|a, b| by_unit(a, b).then_with(|| a.rank.cmp(&b.rank)));
    let mut state = State { policy, free, used: used.to_vec() };
    let mut plan = Plan::default();
    let mut rest = demand.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut unit = vec![first];
        if !unit.iter().any(|member| member.grows) {
            while let Some(next) = rest.next_if(|next| {
                !next.grows && unit.last().is_some_and(|last| last.rank.same_metric(&next.rank))
            }) {
                unit.push(next);
            }
        }
        let slots = unit.iter().fold(0u64, |sum, member| sum.saturating_add(member.slots));
        let class = unit.first().map_or(0, |member| member.rank.class);
        match state.take(class, slots) {
            Ok(()) => plan.admit.extend(unit),
            Err(reason) => plan.withhold.extend(unit.into_iter().map(|member| (member, reason))),
        }
    }
    plan
}

/// Classes first; inside a class, growth of what is admitted before anything new.
fn by_unit(a: &Demand, b: &Demand) -> Ordering {
    a.rank.class.cmp(&b.rank.class).then_with(|| b.grows.cmp(&a.grows))
}

struct State<'a> {
    policy: &'a Policy,
    free: Free,
    used: Vec<u64>,
}

impl State<'_> {
    fn take(&mut self, class: u16, slots: u64) -> Result<(), Reason> {
        let settings = self.policy.class(class);
        if settings.is_some_and(|class| !class.send) {
            return Err(Reason::Policy);
        }
        let used = self.used.get(usize::from(class)).copied().unwrap_or(0).saturating_add(slots);
        if settings.and_then(|class| class.series).is_some_and(|max| used > max) {
            return Err(Reason::ClassQuota);
        }
        let reserve = if class == 0 { self.free.reserve } else { 0 };
        if slots > self.free.slots.saturating_add(reserve) {
            return Err(Reason::Budget);
        }
        // The common slots go first, so that the reserve stays for the next vital series.
        let common = slots.min(self.free.slots);
        self.free.slots -= common;
        self.free.reserve -= slots - common;
        if let Some(entry) = self.used.get_mut(usize::from(class)) {
            *entry = used;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn demand(class: u16, family: &str, group: u64, slots: u64) -> Demand {
        let rank = Rank { class, family: family.into(), job: "j".into(), group: GroupId(group) };
        Demand { rank, slots, grows: false }
    }

    fn admitted(plan: &Plan) -> Vec<&str> {
        plan.admit.iter().map(|demand| &*demand.rank.family).collect()
    }

    const NONE: Free = Free { slots: 0, reserve: 0 };

    #[test]
    fn the_first_matching_class_counts() {
        let policy = Policy::default();
        let class = |name: &str| policy.class_of(&Labels::from_pairs([("__name__", name)]));
        assert_eq!(class("up"), 0);
        assert_eq!(class("scrape_duration_seconds"), 0);
        assert_eq!(class("ups"), 1);
        assert_eq!(policy.class(1).unwrap().name, REST);
    }

    #[test]
    fn the_more_important_class_is_served_first() {
        let wanted = vec![demand(1, "a", 1, 3), demand(0, "z", 2, 3)];
        let plan = plan(&Policy::default(), wanted, Free { slots: 3, reserve: 0 }, &[0, 0]);
        assert_eq!(admitted(&plan), ["z"]);
        assert_eq!(plan.withhold[0].1, Reason::Budget);
    }

    #[test]
    fn a_metric_is_admitted_whole_or_not_at_all() {
        let wanted = vec![demand(1, "a", 1, 3), demand(1, "a", 2, 3), demand(1, "b", 3, 2)];
        let plan = plan(&Policy::default(), wanted, Free { slots: 5, reserve: 0 }, &[0, 0]);
        assert_eq!(admitted(&plan), ["b"]);
        assert_eq!(plan.withhold.len(), 2);
    }

    #[test]
    fn growth_of_an_admitted_metric_comes_before_new_metrics_and_by_group() {
        let grown = |group| Demand { grows: true, ..demand(1, "b", group, 2) };
        let wanted = vec![demand(1, "a", 1, 2), grown(2), grown(3)];
        let plan = plan(&Policy::default(), wanted, Free { slots: 3, reserve: 0 }, &[0, 0]);
        assert_eq!(admitted(&plan), ["b"]);
        assert_eq!(plan.withhold.len(), 2);
    }

    #[test]
    fn the_reserve_is_for_the_first_class() {
        let wanted = vec![demand(0, "up", 1, 1), demand(1, "a", 2, 1)];
        let plan = plan(&Policy::default(), wanted, Free { reserve: 5, ..NONE }, &[0, 0]);
        assert_eq!(admitted(&plan), ["up"]);
    }

    #[test]
    fn quotas_and_dropped_classes_hold_even_with_free_slots() {
        let class = |name: &str, series, send| Class {
            name: name.into(),
            selectors: vec![Selector::metric(name)],
            series,
            interval: None,
            send,
        };
        let policy = Policy::new(vec![class("a", Some(4), true), class("b", None, false)]);
        let wanted = vec![demand(1, "a", 1, 2), demand(2, "b", 2, 1)];
        let plan = plan(&policy, wanted, Free { slots: 100, reserve: 0 }, &[0, 3, 0, 0]);
        let reasons: Vec<Reason> = plan.withhold.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, [Reason::ClassQuota, Reason::Policy]);
    }

    #[test]
    fn a_configured_vital_class_replaces_the_built_in_one() {
        let own = class(VITAL, vec![Selector::metric("heartbeat")]);
        let policy = Policy::new(vec![class("first", vec![Selector::metric("a")]), own]);
        let names: Vec<&str> = policy.classes().iter().map(|class| &*class.name).collect();
        assert_eq!(names, ["first", VITAL, REST]);
        assert_eq!(policy.class_of(&Labels::from_pairs([("__name__", "up")])), 2);
    }

    proptest! {
        #[test]
        fn never_more_than_free_and_independent_of_order(
            wanted in proptest::collection::vec((0u16..3, 0u8..6, 1u64..9, any::<bool>()), 0..40),
            slots in 0u64..60, reserve in 0u64..10, turn in 0usize..40,
        ) {
            let mut all: Vec<Demand> = wanted.iter().enumerate().map(|(n, (class, family, slots, grows))| {
                Demand { grows: *grows, ..demand(*class, &format!("m{family}"), n as u64, *slots) }
            }).collect();
            let free = Free { slots, reserve };
            let policy = Policy::default();
            let first = plan(&policy, all.clone(), free, &[0, 0]);
            if !all.is_empty() {
                let turn = turn % all.len();
                all.rotate_left(turn);
            }
            let second = plan(&policy, all.clone(), free, &[0, 0]);
            prop_assert_eq!(&first, &second);
            let total: u64 = first.admit.iter().map(|d| d.slots).sum();
            let common: u64 = first.admit.iter().filter(|d| d.rank.class > 0).map(|d| d.slots).sum();
            prop_assert!(total <= slots + reserve && common <= slots);
            prop_assert_eq!(first.admit.len() + first.withhold.len(), all.len());
            for (held, _) in first.withhold.iter().filter(|(d, _)| !d.grows) {
                prop_assert!(!first.admit.iter().any(|d| !d.grows && d.rank.same_metric(&held.rank)));
            }
        }
    }
}
