//! Tables of what holds the slots: by job, environment and metric, histograms, what is withheld.

use std::collections::{BTreeMap, BTreeSet};

use stint_model::labels::BUCKET_BOUND;
use stint_model::{Labels, Timestamp};

use super::super::admission::State;
use super::super::policy::Reason;
use super::look::{GroupRow, Look};
use super::{EndpointReport, HistogramUse, MetricUse, Unused, Use, Withheld};
use crate::usage::Catalogue;

/// Users of a metric that are named.
const USERS_MAX: usize = 5;
/// Labels that tell the environment, the first that there is.
const ENVIRONMENTS: [&str; 4] =
    ["environment", "env", "deployment_environment", "deployment_environment_name"];

#[derive(Clone, Debug, Default)]
struct Sum {
    slots: u64,
    cooling: u64,
    points: f64,
    withheld: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.slots += other.slots;
        self.cooling += other.cooling;
        self.points += other.points;
        self.withheld += other.withheld;
    }

    fn row(&self, name: &str) -> Use {
        let Self { slots, cooling, points, withheld } = *self;
        Use { name: name.to_owned(), slots, cooling, points, withheld }
    }
}

/// What a metric family consists of.
#[derive(Clone, Debug, Default)]
pub(super) struct Family<'a> {
    sum: Sum,
    /// The names that are sent, of which there are several for a histogram.
    pub(super) names: BTreeSet<&'a str>,
    buckets: u64,
    buckets_thinned: u64,
    histograms: u64,
}

impl Family<'_> {
    pub(super) fn slots(&self) -> u64 {
        self.sum.slots
    }

    pub(super) fn points(&self) -> f64 {
        self.sum.points
    }

    /// Whether anybody uses one of its names.
    pub(super) fn is_used(&self, known: &Catalogue) -> bool {
        self.names.iter().any(|name| known.users(name).is_used())
    }

    fn users(&self, known: &Catalogue) -> Vec<String> {
        let all = self.names.iter().flat_map(|name| known.users(name).names());
        let all: BTreeSet<_> = all.map(|(source, name)| super::named(source, name)).collect();
        all.into_iter().take(USERS_MAX).collect()
    }
}

/// A metric, its job, its class and the reason.
type WithheldKey<'a> = (&'a str, &'a str, u16, Reason);

/// All tables, before they are cut to their rows.
#[derive(Debug, Default)]
pub(super) struct Tables<'a> {
    jobs: BTreeMap<&'a str, Sum>,
    environments: BTreeMap<&'a str, Sum>,
    families: BTreeMap<&'a str, Family<'a>>,
    withheld: BTreeMap<WithheldKey<'a>, (u64, Timestamp)>,
    total: u64,
    /// Rows of each table.
    rows: usize,
}

impl<'a> Tables<'a> {
    pub(super) fn of(look: &'a Look, rates: &[f64]) -> Self {
        let mut tables = Self { rows: look.rows, ..Self::default() };
        for group in &look.groups {
            tables.add(look, group, rates);
        }
        tables
    }

    pub(super) fn families(&self) -> &BTreeMap<&'a str, Family<'a>> {
        &self.families
    }

    fn add(&mut self, look: &'a Look, group: &'a GroupRow, rates: &[f64]) {
        let mut sum = Sum::default();
        let is_sent = match group.state {
            State::Admitted => true,
            State::Waiting { since, reason } | State::Evicted { since, reason, .. } => {
                sum.withheld = group.members;
                let key = (&*group.family, &*group.job, group.class, reason);
                let entry = self.withheld.entry(key).or_insert((0, since));
                entry.0 += group.members;
                entry.1 = entry.1.min(since);
                false
            }
        };
        let rate = rates.get(usize::from(group.class)).copied().unwrap_or(0.0);
        let family = self.families.entry(&group.family).or_default();
        let mut buckets = 0;
        for row in look.series.get(group.series.clone()).into_iter().flatten() {
            let one = Sum {
                slots: 1,
                cooling: u64::from(row.is_cooling || !is_sent),
                points: if row.is_cooling || !is_sent { 0.0 } else { rate },
                withheld: 0,
            };
            let name = row.labels.metric_name().unwrap_or_default();
            if !family.names.contains(name) {
                family.names.insert(name);
            }
            let is_bucket = name.ends_with("_bucket") && row.labels.get(BUCKET_BOUND).is_some();
            buckets += u64::from(is_bucket);
            if let Some(environment) = environment(&row.labels) {
                self.environments.entry(environment).or_default().add(&one);
            }
            sum.add(&one);
        }
        if buckets > 0 {
            family.buckets += buckets;
            family.histograms += 1;
            // The last bucket stays, and every second of the others, or the only one.
            family.buckets_thinned += if buckets == 2 { 2 } else { 1 + (buckets - 1) / 2 };
        }
        family.sum.add(&sum);
        self.jobs.entry(&group.job).or_default().add(&sum);
        self.total += sum.slots;
    }

    /// Puts the largest rows of each table into a report.
    pub(super) fn fill(
        &self,
        report: &mut EndpointReport,
        classes: &[String],
        known: Option<&Catalogue>,
    ) {
        report.jobs = top(&self.jobs, self.rows);
        report.environments = top(&self.environments, self.rows);
        report.metrics = self.metrics(known);
        report.histograms = self.histograms(known);
        report.withheld = self.withheld(classes);
        report.unused = known.map(|known| self.unused(known));
        report.unlisted = report.live.saturating_sub(self.total);
    }

    fn metrics(&self, known: Option<&Catalogue>) -> Vec<MetricUse> {
        let mut rows: Vec<_> = self.families.iter().collect();
        rows.sort_by(|(a_name, a), (b_name, b)| order(&a.sum, a_name, &b.sum, b_name));
        rows.truncate(self.rows);
        let row = |(name, family): (&&str, &Family<'_>)| {
            let last = |known: &Catalogue| {
                family.names.iter().filter_map(|name| known.users(name).last()).max()
            };
            let Use { name, slots, cooling, points, withheld } = family.sum.row(name);
            MetricUse {
                name,
                slots,
                cooling,
                points,
                withheld,
                // Of what is not sent, the names are not known.
                used: known.filter(|_| slots > 0).map(|known| family.is_used(known)),
                last_used: known.and_then(last).map(Timestamp::as_secs_f64),
                users: known.map(|known| family.users(known)).unwrap_or_default(),
            }
        };
        rows.into_iter().map(row).collect()
    }

    fn histograms(&self, known: Option<&Catalogue>) -> Vec<HistogramUse> {
        let mut rows: Vec<_> = self.families.iter().filter(|(_, it)| it.buckets > 0).collect();
        rows.sort_by(|(a_name, a), (b_name, b)| {
            b.buckets.cmp(&a.buckets).then_with(|| a_name.cmp(b_name))
        });
        rows.truncate(self.rows);
        let row = |(name, family): (&&str, &Family<'_>)| HistogramUse {
            name: (*name).to_owned(),
            slots: family.sum.slots,
            buckets: family.buckets,
            saving_thin: family.buckets - family.buckets_thinned,
            saving_totals: family.buckets,
            saving_native: family.sum.slots.saturating_sub(family.histograms),
            buckets_used: known.map(|known| known.users(&format!("{name}_bucket")).is_used()),
        };
        rows.into_iter().map(row).collect()
    }

    fn unused(&self, known: &Catalogue) -> Unused {
        let mut sum = Unused::default();
        for family in self.families.values().filter(|it| it.slots() > 0 && !it.is_used(known)) {
            sum.metrics += 1;
            sum.slots += family.slots();
            sum.points += family.points();
        }
        sum
    }

    fn withheld(&self, classes: &[String]) -> Vec<Withheld> {
        let row = |(key, (series, since)): (&WithheldKey<'_>, &(u64, Timestamp))| {
            let (metric, job, class, reason) = *key;
            Withheld {
                metric: metric.to_owned(),
                job: job.to_owned(),
                class: classes.get(usize::from(class)).cloned().unwrap_or_default(),
                series: *series,
                reason: reason.to_string(),
                since: (*since > Timestamp::MIN).then(|| since.as_secs_f64()),
            }
        };
        let mut rows: Vec<Withheld> = self.withheld.iter().map(row).collect();
        rows.sort_by(|a, b| b.series.cmp(&a.series).then_with(|| a.metric.cmp(&b.metric)));
        rows.truncate(self.rows);
        rows
    }
}

fn environment(labels: &Labels) -> Option<&str> {
    ENVIRONMENTS.iter().find_map(|name| labels.get(name))
}

fn order(a: &Sum, a_name: &str, b: &Sum, b_name: &str) -> std::cmp::Ordering {
    (b.slots + b.withheld).cmp(&(a.slots + a.withheld)).then_with(|| a_name.cmp(b_name))
}

fn top(table: &BTreeMap<&str, Sum>, rows_max: usize) -> Vec<Use> {
    let mut rows: Vec<_> = table.iter().collect();
    rows.sort_by(|(a_name, a), (b_name, b)| order(a, a_name, b, b_name));
    rows.truncate(rows_max);
    rows.into_iter().map(|(name, sum)| sum.row(name)).collect()
}
