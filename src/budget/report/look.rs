//! Looking at a budget while it is at work: the numbers at once, the series in parts, so that
//! forwarding never waits long; everything else happens afterwards.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use stint_model::{Labels, Span, Timestamp};

use super::super::admission::{Admission, State};
use super::super::figures::{Figures, UNUSED};
use super::super::limits::Origin;
use super::super::policy::Reason;
use super::tables::Tables;
use super::{
    AccountUse, ClassUse, EndpointReport, Forecast, IdentityUse, MonthUse, Points, ROWS_MAX,
    Samples, SeriesBudget, advice, churn, hints, kept_out, labels, quotas,
};
use crate::usage::Overview;

/// Series that are looked at before others may go on.
const SERIES_AT_ONCE: usize = 10_000;

/// What a report says of an endpoint beside its budget.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Its address, without credentials.
    pub url: String,
    /// Distance between forwarded samples; zero for all.
    pub interval: Span,
    /// Whether the endpoint is told the types of metrics.
    pub sends_metadata: bool,
    /// What became of the samples.
    pub samples: Samples,
    /// Numbers of targets that come and go.
    pub identities: Option<IdentityUse>,
}

/// The first half of an endpoint's report.
#[derive(Debug)]
pub struct Look {
    report: EndpointReport,
    /// A series not sent since then holds its slot for nothing but the server's memory.
    recent: Duration,
    /// Samples per minute and series, by class.
    rates: Vec<f64>,
    next: usize,
    /// Rows of each table.
    pub(super) rows: usize,
    pub(super) groups: Vec<GroupRow>,
    quotas: quotas::Found,
    pub(super) series: Vec<SeriesRow>,
    /// Some of the series for which there is no room.
    kept_out: Vec<Labels>,
}

/// Series that are sent together.
#[derive(Debug)]
pub(super) struct GroupRow {
    pub(super) family: Arc<str>,
    pub(super) job: Arc<str>,
    pub(super) class: u16,
    pub(super) state: State,
    pub(super) members: u64,
    /// Number of the set of quotas that it counts towards.
    pub(super) quotas: u32,
    /// Its series that hold a slot.
    pub(super) series: Range<usize>,
}

/// A series that holds a slot.
#[derive(Debug)]
pub(super) struct SeriesRow {
    pub(super) labels: Labels,
    pub(super) is_cooling: bool,
}

impl Look {
    /// Looks at the numbers of a budget at `now`; `interval` is the distance between forwarded samples.
    pub fn begin(admission: &Admission, now: Duration, interval: Span) -> Self {
        let figures = Figures::of(admission, now, interval);
        // Where every sample is sent, what was sent tells how many that is.
        let measured = figures.points_last_minute as f64 / figures.live.max(1) as f64;
        let rate = |interval: Span| match interval.as_secs_f64() {
            secs if secs > 0.0 => 60.0 / secs,
            _ => measured,
        };
        let rates = figures.classes.iter().map(|class| rate(class.interval)).collect();
        Self {
            report: numbers(admission, &figures),
            recent: now.saturating_sub(UNUSED),
            rates,
            next: 0,
            rows: ROWS_MAX,
            groups: Vec::new(),
            quotas: quotas::Found::of(admission),
            series: Vec::new(),
            kept_out: Vec::new(),
        }
    }

    /// For a plan: tables have all rows, and no series has more points than it is `scraped`.
    #[must_use]
    pub fn for_plan(mut self, scraped: Span) -> Self {
        let most = 60.0 / scraped.as_secs_f64();
        for rate in &mut self.rates {
            *rate = if *rate > 0.0 { rate.min(most) } else { most };
        }
        self.rows = usize::MAX;
        self
    }

    /// Looks at everything at once.
    #[cfg(test)]
    pub(crate) fn at(admission: &Admission, now: Duration, interval: Span) -> Self {
        let mut look = Self::begin(admission, now, interval);
        while look.go_on(admission) {}
        look
    }

    /// Looks at some more series; whether there may be others.
    pub fn go_on(&mut self, admission: &Admission) -> bool {
        let end = self.series.len() + SERIES_AT_ONCE;
        let mut looked = 0;
        for (number, group) in admission.groups_from(self.next) {
            self.next = number + 1;
            looked += group.members.len();
            let first = self.series.len();
            for member in &group.members {
                if let Some(is_cooling) =
                    admission.ledger.is_unused_since(member.key(), self.recent)
                {
                    self.series
                        .push(SeriesRow { labels: member.series.labels.labels(), is_cooling });
                }
            }
            if lacks_room(&group.state) {
                let left = kept_out::SERIES_MAX.saturating_sub(self.kept_out.len());
                let members = group.members.iter().take(left);
                self.kept_out.extend(members.map(|member| member.series.labels.labels()));
            }
            self.groups.push(GroupRow {
                family: admission.family_of(group),
                job: admission.job_of(group),
                class: group.class,
                state: group.state,
                members: group.members.len() as u64,
                quotas: group.quotas,
                series: first..self.series.len(),
            });
            if self.series.len() >= end || looked >= SERIES_AT_ONCE {
                return true;
            }
        }
        false
    }

    /// The whole report, with what is known to be used.
    pub fn finish(&self, about: About, usage: &Overview, wall: Timestamp) -> EndpointReport {
        let mut report = self.report.clone();
        report.name = about.name;
        report.url = about.url;
        report.points.interval_secs = about.interval.as_secs_f64();
        (report.samples, report.identities) = (about.samples, about.identities);
        let conclusive = super::is_conclusive(usage, wall);
        let known = conclusive.then_some(&usage.catalogue);
        let names: Vec<String> = report.classes.iter().map(|class| class.name.clone()).collect();
        let tables = Tables::of(self, &self.rates);
        tables.fill(&mut report, &names, known);
        report.quotas = self.quotas.uses(&self.groups, self.rows);
        let sent: Vec<&Labels> = self.series.iter().map(|row| &row.labels).collect();
        (report.labels, report.metric_labels) = labels::savings(&sent, ROWS_MAX);
        for row in &mut report.metric_labels {
            row.used = known.map(|catalogue| catalogue.users(&row.metric).needs(&row.label));
        }
        report.advice = advice::advice(
            &report,
            tables.families(),
            known,
            &churn::churn(&self.series),
            &self.kept_out,
        );
        report.hints = hints::hints(&report, about.interval, &usage.catalogue);
        report.hints.extend(hints::answers(&report, about.sends_metadata));
        report
    }
}

/// Whether a group would be sent if there were more slots.
fn lacks_room(state: &State) -> bool {
    let (State::Waiting { reason, .. } | State::Evicted { reason, .. }) = state else {
        return false;
    };
    matches!(reason, Reason::Budget | Reason::ClassQuota | Reason::Quota | Reason::Growth)
}

/// What does not need a look at each series.
fn numbers(admission: &Admission, figures: &Figures) -> EndpointReport {
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
        shared: series.shared,
        account: series.account.map(|account| AccountUse {
            active: account.active,
            foreign: account.foreign,
            age_secs: account.age.as_secs_f64(),
            problem: admission.feedback.as_ref().and_then(|it| it.problem()).map(str::to_owned),
        }),
    });
    let trend = limits.and_then(|it| admission.history.trend(it.target, it.points_per_minute));
    let secs = |span: Option<Span>| span.map(Span::as_secs_f64);
    EndpointReport {
        series,
        live: figures.live,
        points: Points {
            per_minute: figures.points_per_minute,
            last_minute: figures.points_last_minute,
            billable_p95: figures.billable_p95,
            month: figures.month.as_ref().map(|month| MonthUse {
                name: month.name.clone(),
                minutes: month.minutes,
                so_far: month.so_far,
                projected: month.projected,
            }),
            interval_secs: 0.0,
        },
        classes: classes.collect(),
        forecast: trend.map(|trend| Forecast {
            slots_per_hour: trend.slots_per_hour,
            exhausted_in_secs: secs(trend.exhausted_in),
            points_per_hour: trend.points_per_hour,
            points_exhausted_in_secs: secs(trend.points_exhausted_in),
        }),
        ..EndpointReport::default()
    }
}
