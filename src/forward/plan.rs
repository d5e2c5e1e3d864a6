//! What an endpoint would be sent: the way of label sets through relabelling, aggregation and the
//! budget, by the same code as forwarding takes, in a time that passes at once.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stint_model::{Labels, Span, Timestamp};
use stint_storage::SimDisk;

use super::aggregate::Aggregator;
use super::identity::Identities;
use super::setup::rules;
use crate::budget::admission::{Admission, GroupIndex, Opening, Provenance};
use crate::budget::group::Key;
use crate::budget::limits::{Limits, MissingLedger};
use crate::budget::policy::Policy;
use crate::budget::pool::Seat;
use crate::budget::ranking::Ranking;
use crate::budget::report::{About, EndpointReport, Look, Overview, Samples};
use crate::config::RemoteWrite;

/// The longest that the outcome is waited for: metrics grow step by step.
const MINUTES_MAX: u32 = 180;
/// What did not change for so long does not change any more: histograms shrink, and what was put
/// back for a minute has had its turn.
const SETTLED_AFTER: u32 = 8;

/// The report that an endpoint would have if these were all series that are stored, scraped every
/// `scraped`, for long enough that everything is decided. Its tables have all rows. Where no classes
/// are configured, `ranking` tells what matters.
pub fn plan(
    stored: &[Labels],
    endpoint: &RemoteWrite,
    external_labels: &Labels,
    scraped: Span,
    ranking: Option<Arc<Ranking>>,
) -> EndpointReport {
    let limits = Limits::resolve(&endpoint.url, &endpoint.budget);
    let limits = limits.map(|limits| Limits { missing_ledger: MissingLedger::Nothing, ..limits });
    let mut now = Duration::ZERO;
    let mut admission = Admission::open(Opening {
        limits,
        policy: Policy::of(&endpoint.budget),
        disk: Arc::new(SimDisk::new()),
        path: Path::new("ledger"),
        ran_before: false,
        seat: Seat::alone(),
        ranking,
        now,
    });
    let sent = outgoing(stored, endpoint, external_labels, admission.limits().is_some());
    let series: Vec<(GroupIndex, Key)> = sent
        .iter()
        .map(|labels| {
            let key = Key::of(labels);
            (admission.register(labels, key, Provenance::default()).series.group, key)
        })
        .collect();
    let (mut live, mut same) = (0, 0);
    for minute in 0..MINUTES_MAX {
        now = Duration::from_mins(u64::from(minute));
        let wall = Timestamp(i64::from(minute) * Span::MINUTE.0);
        admission.advance(now, wall);
        for (group, _) in &series {
            admission.want(*group, now);
        }
        admission.plan(now, wall);
        let granted = series.iter().filter(|(group, key)| admission.check(*group, *key).is_ok());
        let keys: Vec<Key> = granted.map(|(_, key)| *key).collect();
        admission.hand_over(&keys, 0, now);
        same = if live == keys.len() && minute > 0 { same + 1 } else { 0 };
        live = keys.len();
        if same == SETTLED_AFTER {
            break;
        }
    }
    let interval = endpoint.budget.interval.unwrap_or(Span::ZERO);
    let mut look = Look::begin(&admission, now, interval).for_plan(scraped);
    while look.go_on(&admission) {}
    let about = About {
        name: endpoint.name.clone(),
        url: endpoint.url.clone(),
        interval,
        sends_metadata: true,
        samples: Samples { running: true, ..Samples::default() },
        identities: None,
    };
    look.finish(about, &Overview::default(), Timestamp(0))
}

/// The label sets that are sent for those that are stored, each once.
fn outgoing(
    stored: &[Labels],
    endpoint: &RemoteWrite,
    external_labels: &Labels,
    budgeted: bool,
) -> Vec<Labels> {
    let rules = rules(endpoint, external_labels, budgeted);
    let mut aggregator = Aggregator::new(rules.aggregates.clone(), rules.interval);
    let mut identities = Identities::in_memory(endpoint.budget.identities.clone());
    let mut seen = HashSet::new();
    let mut sent = Vec::new();
    for labels in stored.iter().filter_map(|labels| rules.apply(labels)) {
        // All targets there are run at once, as far as anybody knows.
        let placed = identities.place(&labels, Timestamp(0));
        let (labels, info) = placed.map_or((labels, None), |placed| (placed.labels, placed.info));
        let labels = match aggregator.join(&labels) {
            Some((output, _)) => aggregator.labels(output),
            None => labels,
        };
        for labels in std::iter::once(labels).chain(info) {
            if seen.insert(Key::of(&labels)) {
                sent.push(labels);
            }
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests_support::retention;

    fn stored(metric: &str, count: usize) -> Vec<Labels> {
        let one = |n: usize| {
            let pod = format!("pod-{n}");
            Labels::from_pairs([("__name__", metric), ("job", "j"), ("pod", &pod)])
        };
        (0..count).map(one).collect()
    }

    fn planned(toml: &str, stored: &[Labels]) -> EndpointReport {
        plan(stored, &retention(toml), &Labels::default(), Span(15_000), None)
    }

    #[test]
    fn what_fits_is_sent_and_its_points_are_those_of_the_interval() {
        let report = planned("[budget]\nseries = 1000\ninterval = '30s'", &stored("m_total", 300));
        assert_eq!((report.live, report.withheld.len()), (300, 0));
        assert_eq!(report.metrics[0].points, 600.0);
        let all = planned("", &stored("m_total", 300));
        assert_eq!((all.live, all.metrics[0].points), (300, 1200.0));
        let often = planned("[budget]\nseries = 1000\ninterval = '1s'", &stored("m_total", 300));
        assert_eq!(often.metrics[0].points, 1200.0);
    }

    #[test]
    fn what_does_not_fit_is_withheld_by_metric() {
        let all = [stored("a_total", 600), stored("b_total", 600)].concat();
        let report = planned("[budget]\nseries = 1000", &all);
        let rows: Vec<_> = report.metrics.iter().map(|m| (&*m.name, m.slots, m.withheld)).collect();
        assert_eq!(rows, [("a_total", 600, 0), ("b_total", 0, 600)]);
        assert_eq!(report.withheld[0].reason, "budget");
    }

    #[test]
    fn aggregation_is_part_of_the_plan() {
        let toml = "[budget]\nseries = 1000\n[[budget.aggregate]]\nmatch = ['m_total']\n\
                    without = ['pod']\nfunction = 'counter'";
        assert_eq!(planned(toml, &stored("m_total", 5000)).live, 1);
    }

    #[test]
    fn targets_that_are_known_by_a_number_are_planned_so() {
        let of = |instance: &str, name: &str| {
            Labels::from_pairs([("__name__", name), ("job", "web"), ("instance", instance)])
        };
        let all: Vec<Labels> = ["10.0.0.1:80", "10.0.0.2:80"]
            .iter()
            .flat_map(|instance| [of(instance, "up"), of(instance, "m")])
            .collect();
        let toml = "[budget]\nseries = 1000\n[[budget.identity]]\nmatch = ['{job=\"web\"}']";
        // Two of each target, and one that tells its name.
        let report = planned(toml, &all);
        assert_eq!(report.live, 6);
        assert!(report.metrics.iter().any(|metric| metric.name == "target_identity"));
    }
}
