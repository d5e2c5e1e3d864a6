use std::collections::BTreeMap;

use prometheus::TextEncoder;

use super::*;
use crate::budget::figures::{ClassFigures, SeriesFigures};
use crate::forward::status::Counters;

fn view() -> View {
    let counters = Counters {
        read: 100,
        attempted: 70,
        sent: 50,
        too_old: 3,
        failed: 2,
        pending: 5,
        withheld: BTreeMap::from([(Reason::Budget, 30), (Reason::Relabel, 4)]),
        refused: BTreeMap::from([("http_400".to_owned(), 6)]),
        ..Counters::default()
    };
    let class = ClassFigures {
        name: "rest".into(),
        live: 40,
        withheld: BTreeMap::from([(Reason::Budget, 9)]),
        interval: Span::MINUTE,
        thinned: false,
    };
    let series =
        SeriesFigures { contract: 100, target: 90, server: "full", ..SeriesFigures::default() };
    View {
        name: "cloud".into(),
        url: "http://a/".into(),
        status: Status {
            counters,
            newest_done: Some(Timestamp(1_500)),
            running: true,
            ..Status::default()
        },
        figures: Figures {
            live: 40,
            leases: LeaseCounts { confirmed: 30, unconfirmed: 7, refused: 3, recovered: 0 },
            granted: 55,
            withheld_jobs: BTreeMap::from([(("api".into(), Reason::Budget), 9)]),
            series: Some(series),
            classes: vec![class],
            ..Figures::default()
        },
        shards: (1, 50),
        samples_per_send_max: 2000,
    }
}

fn text(views: &[View]) -> String {
    let families: Vec<MetricFamily> = FAMILIES
        .iter()
        .flat_map(|family| family.collect(views))
        .filter(|family| !family.get_metric().is_empty())
        .collect();
    TextEncoder::new().encode_to_string(&families).unwrap()
}

#[test]
fn every_endpoint_has_its_numbers_under_the_known_names() {
    let text = text(&[view(), View { name: "other".into(), ..view() }]);
    let labels = r#"remote_name="cloud",url="http://a/""#;
    for line in [
        format!("prometheus_remote_storage_samples_total{{{labels}}} 70\n"),
        format!("prometheus_remote_storage_samples_failed_total{{{labels}}} 8\n"),
        format!("prometheus_remote_storage_samples_pending{{{labels}}} 5\n"),
        format!("prometheus_remote_storage_shards_max{{{labels}}} 50\n"),
        format!("prometheus_remote_storage_queue_highest_sent_timestamp_seconds{{{labels}}} 1.5\n"),
        format!(
            "prometheus_remote_storage_samples_dropped_total{{reason=\"too_old\",{labels}}} 3\n"
        ),
        format!(
            "prometheus_remote_storage_samples_dropped_total{{reason=\"dropped_series\",{labels}}} 4\n"
        ),
        format!("stint_budget_series{{{labels}}} 40\n"),
        format!("stint_budget_series_contract{{{labels}}} 100\n"),
        format!("stint_budget_leases{{state=\"unconfirmed\",{labels}}} 7\n"),
        format!("stint_budget_grants_total{{{labels}}} 55\n"),
        format!("stint_budget_hold_seconds{{{labels}}} 1320\n"),
        format!("stint_budget_withheld_job_series{{job=\"api\",reason=\"budget\",{labels}}} 9\n"),
        format!("stint_budget_server{{state=\"full\",{labels}}} 1\n"),
        format!("stint_budget_withheld_series{{class=\"rest\",reason=\"budget\",{labels}}} 9\n"),
        format!("stint_budget_withheld_samples_total{{reason=\"budget\",{labels}}} 30\n"),
        format!("stint_budget_withheld_samples_total{{reason=\"points\",{labels}}} 0\n"),
        format!("stint_forward_samples_refused_total{{id=\"http_400\",{labels}}} 6\n"),
        "# TYPE prometheus_remote_storage_samples_total counter\n".to_owned(),
    ] {
        let sorted = sort_labels(&line);
        assert!(
            text.lines().any(|have| sort_labels(have) == sorted.trim_end()),
            "{line} in {text}"
        );
    }
    assert!(text.contains(r#"remote_name="other""#));
}

/// The order of labels means nothing.
fn sort_labels(line: &str) -> String {
    let Some((name, rest)) = line.split_once('{') else { return line.trim_end().to_owned() };
    let (labels, value) = rest.rsplit_once('}').unwrap();
    let mut labels: Vec<&str> = labels.split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}{}", labels.join(","), value.trim_end())
}

#[test]
fn without_a_budget_there_are_no_families_about_one() {
    let figures = Figures { series: None, ..view().figures };
    let text = text(&[View { figures, ..view() }]);
    assert!(!text.contains("stint_budget_series_contract"));
    assert!(text.contains("stint_budget_series{"));
}

#[test]
fn every_family_is_documented_as_it_is() {
    let documented = include_str!("../../../docs/metrics.md");
    for family in FAMILIES {
        let kind = if family.is_counter { "counter" } else { "gauge" };
        let labels: Vec<String> =
            family.label.unwrap_or_default().iter().map(|l| format!("`{l}`")).collect();
        let row =
            format!("| `{}` | {kind} | {} | {} |", family.name, labels.join(", "), family.help);
        assert!(documented.contains(&row), "{row}");
    }
}
