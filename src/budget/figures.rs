//! The state of a budget in numbers, for metrics and the report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stint_model::Span;

use super::admission::{Admission, State};
use super::ledger::LeaseCounts;
use super::month::MonthFigures;
use super::policy::Reason;

/// A lease that was not used this long keeps its slot for nothing but the server's memory.
pub(super) const UNUSED: Duration = Duration::from_mins(5);

/// One look at a budget.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Slots in use.
    pub live: u64,
    /// Of these, such whose series was not sent for five minutes.
    pub cooling: u64,
    /// Slots in use by what the server is known to make of their series.
    pub leases: LeaseCounts,
    /// Slots granted since forwarding began.
    pub granted: u64,
    /// Series that are not sent, by job and reason.
    pub withheld_jobs: BTreeMap<(Arc<str>, Reason), u64>,
    /// The budget of series; nothing where there is none.
    pub series: Option<SeriesFigures>,
    /// Points included per minute; nothing for no limit.
    pub points_per_minute: Option<u64>,
    /// Points sent in the last whole minute.
    pub points_last_minute: u64,
    /// 95th percentile over the last day of the larger of series and points.
    pub billable_p95: u64,
    /// What the month comes to, once a minute of it is over.
    pub month: Option<MonthFigures>,
    /// By class, in order of importance.
    pub classes: Vec<ClassFigures>,
}

/// The budget of series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesFigures {
    /// What the account includes.
    pub contract: u64,
    /// What is used at most.
    pub target: u64,
    /// What may be in use right now.
    pub allowed: u64,
    /// Part of the target for the first class alone.
    pub reserve: u64,
    /// `normal`, `full` or `probing`.
    pub server: &'static str,
    /// Requests that the server answered with a lack of room.
    pub refusals: u64,
    /// Whether the server may be counting series that the ledger does not list.
    pub in_doubt: bool,
    /// Whether the ledger cannot be written.
    pub ledger_failed: bool,
    /// Slots that other endpoints for the same account hold.
    pub shared: u64,
    /// What the account says; nothing where it is not asked.
    pub account: Option<AccountFigures>,
}

/// What an account says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountFigures {
    /// Active series, where it has told them.
    pub active: Option<u64>,
    /// The most of them that others had in the last half an hour.
    pub foreign: u64,
    /// How long ago that was.
    pub age: Duration,
}

/// A class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassFigures {
    /// Its name.
    pub name: String,
    /// Slots in use.
    pub live: u64,
    /// Series that are not sent, by reason.
    pub withheld: BTreeMap<Reason, u64>,
    /// Distance between forwarded samples at present; zero for all.
    pub interval: Span,
    /// Whether that is longer than configured.
    pub thinned: bool,
}

impl Figures {
    /// Looks at a budget at `now`; `interval` is the configured distance between samples.
    pub fn of(admission: &Admission, now: Duration, interval: Span) -> Self {
        let mut classes: Vec<ClassFigures> = Vec::new();
        for (number, class) in admission.policy.classes().iter().enumerate() {
            let configured = class.interval.unwrap_or(interval);
            let interval = admission.interval(number as u16, configured);
            classes.push(ClassFigures {
                name: class.name.clone(),
                live: admission.ledger.live_by_class().get(number).copied().unwrap_or(0),
                withheld: BTreeMap::new(),
                interval,
                thinned: interval > configured,
            });
        }
        let mut withheld_jobs: BTreeMap<(Arc<str>, Reason), u64> = BTreeMap::new();
        for group in admission.groups() {
            if let State::Waiting { reason, .. } | State::Evicted { reason, .. } = group.state
                && let Some(class) = classes.get_mut(usize::from(group.class))
            {
                let series = group.members.len() as u64;
                *class.withheld.entry(reason).or_default() += series;
                let job = admission.job_of(group);
                *withheld_jobs.entry((job, reason)).or_default() += series;
            }
        }
        let series = admission.limits.as_ref().map(|limits| SeriesFigures {
            contract: limits.contract,
            target: limits.target,
            allowed: admission.slots(now),
            reserve: limits.reserve,
            server: admission.full.name(),
            refusals: admission.full.refusals(),
            in_doubt: admission.is_in_doubt(now),
            ledger_failed: admission.ledger_error.is_some(),
            shared: admission.seat.others(),
            account: admission.feedback.as_ref().map(|feedback| AccountFigures {
                active: feedback.said().active,
                foreign: feedback.foreign(),
                age: feedback.age(now),
            }),
        });
        Self {
            live: admission.ledger.live(),
            cooling: admission.ledger.untouched_since(now.saturating_sub(UNUSED)),
            leases: admission.ledger.counts(),
            granted: admission.ledger.granted(),
            withheld_jobs,
            series,
            points_per_minute: admission.limits.as_ref().and_then(|it| it.points_per_minute),
            points_last_minute: admission.history.points_last_minute(),
            billable_p95: admission.history.billable_p95(),
            month: admission.history.month(),
            classes,
        }
    }
}
