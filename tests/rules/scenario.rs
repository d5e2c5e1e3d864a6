//! What the two servers are given: rules, samples, and questions. Times are seconds after the start.

use std::path::Path;

use stint::rules::lattice::Lattice;
use stint_model::{Span, Timestamp};

use super::SECOND;
use crate::support::Written;

/// When nothing changes any more under the first rules.
pub(super) const CALM: i64 = 13;
/// When the second rules come.
pub(super) const RELOADED: i64 = 15;
/// When everything is over.
pub(super) const END: i64 = 20;
/// When the groups that have rules are evaluated.
pub(super) fn groups(dir: &Path) -> [Lattice; 4] {
    let of = |file: &str, name: &str, interval| {
        Lattice::new(&dir.join(file).display().to_string(), name, Span(interval))
    };
    [
        of("first.yml", "recording", 1000),
        of("first.yml", "limited", 1000),
        of("second.yml", "alerts", 1000),
        of("second.yml", "offset", 2000),
    ]
}

/// `prometheus.yml` of the server `name`, whose Alertmanager is `sink`.
pub(super) fn configuration(dir: &Path, name: &str, sink: &str) -> String {
    let dir = dir.display();
    format!(
        "global: {{evaluation_interval: 1s, external_labels: {{region: 'r1', job: 'external'}}}}\n\
         rule_files: ['{dir}/first.yml', '{dir}/sec*.yml']\n\
         alerting:\n  alert_relabel_configs:\n  - {{regex: dropped, action: labeldrop}}\n  \
         - {{source_labels: [secret], regex: 'yes', action: drop}}\n  \
         alertmanagers: [{{path_prefix: /{name}, static_configs: [{{targets: ['{sink}']}}]}}]\n"
    )
}

/// The two rule files, in their first or second form.
pub(super) fn files(form: u8) -> (String, String) {
    if form == 1 {
        return (FIRST.to_owned(), SECOND_FILE.to_owned());
    }
    let first = FIRST.replace(
        "- record: vanishing\n    expr: flap > 0\n",
        "- record: new\n    expr: flap + 1\n",
    );
    let second = SECOND_FILE
        .replace("for: 3s", "for: 2s")
        .replace("text: kept", "text: kept for longer")
        .replace("name: offset", "name: moved")
        .replace("- alert: Quiet", "- alert: Loud");
    (first, second)
}

const FIRST: &str = r#"
groups:
- name: recording
  labels: {team: a, level: group}
  rules:
  - record: job:req:rate5s
    expr: sum by (job) (rate(req_total[5s]))
    labels: {level: job}
  - record: job:req:ratio
    expr: job:req:rate5s / on () group_left sum(job:req:rate5s)
  - record: vanishing
    expr: flap > 0
  - record: scalar
    expr: scalar(sum(flap)) * 2
  - record: lat:p90
    expr: histogram_quantile(0.9, sum by (le) (rate(lat_bucket[5s])))
  - record: same
    expr: flap
    labels: {i: ''}
  - record: nothing
    expr: absent(flap{i="9"})
  - record: text
    expr: vector(time()) - timestamp(flap{i="1"})
  - record: keeps_none
    expr: flap == bool 1
    labels: {job: '', i: x}
- name: empty
  rules: []
- name: limited
  limit: 1
  rules:
  - record: over
    expr: flap
  - record: within
    expr: sum(flap)
  - alert: TooMany
    expr: flap >= 0
  - record: beat_a
    expr: vector(1)
"#;

const SECOND_FILE: &str = r#"
groups:
- name: alerts
  labels: {team: b, dropped: 'x'}
  rules:
  - alert: AtOnce
    expr: flap == 1
    labels: {severity: page, made: '{{ $labels.i }}-{{ $value }}', empty: ''}
    annotations:
      a: '{{ $labels.i }} of {{ .Labels.job }} is {{ $value | humanize }}, {{ printf "%.3f" .Value }}'
      b: '{{ range query "sort(sum by (job) (flap))" }}{{ .Labels.job }}={{ .Value }};{{ end }}'
      c: '{{ with query "sum(" }}{{ end }}'
      d: '{{ query "nothing_at_all" | first | value }}'
      e: '{{ $externalLabels.region }} {{ $externalURL }} {{ externalURL }} {{ pathPrefix }} {{ graphLink "up == 1" }} {{ tableLink "a b" }}'
      f: '{{ $value | humanizePercentage }} {{ 1234567.0 | humanize1024 }} {{ 3661 | humanizeDuration }} {{ 1e9 | humanizeTimestamp }}'
      g: '{{ if gt $value 0.5 }}high{{ else }}low{{ end }} {{ $labels }} {{ $labels.missing }}'
      h: '{{ template "nowhere" }}'
      i: '{{ "a:80" | stripPort }} {{ reReplaceAll "(.)b" "$1c" "abab" }} {{ title "some words" }} {{ args 1 2 }}'
  - alert: Waits
    expr: flap == 1
    for: 3s
    annotations: {text: 'since {{ $value }}'}
  - alert: Short
    expr: flap == 1
    for: 500ms
  - alert: Kept
    expr: flap == 1
    for: 1s
    keep_firing_for: 3s
    annotations: {text: kept}
  - alert: KeptForever
    expr: flap == 1
    keep_firing_for: 1h
    annotations: {text: '{{ $value }}'}
  - alert: PendingForever
    expr: flap{i="3"} == 1
    for: 1h
    annotations: {text: '{{ $value }}'}
  - alert: OnAlerts
    expr: ALERTS{alertname="AtOnce", alertstate="firing"} * 2
    labels: {severity: warn}
  - alert: Same
    expr: flap
    labels: {i: same}
  - alert: Secret
    expr: flap == 1
    labels: {secret: 'yes'}
  - alert: Quiet
    expr: flap{i="3"} == 1
    annotations: {text: '{{ $labels.i }}'}
  - alert: Steady
    expr: sum by (job) (req_total) > 104
    labels: {region: own, job: ''}
  - record: beat_b
    expr: vector(1)
- name: offset
  query_offset: 2s
  interval: 2s
  rules:
  - record: delayed
    expr: timestamp(flap)
  - alert: Delayed
    expr: flap == 1
    for: 2s
  - record: beat_c
    expr: vector(1)
"#;

/// A sample for every second, from well before the start to well after the end.
pub(super) fn samples(start: Timestamp) -> Vec<Written> {
    let series = |labels: &[(&str, &str)], value: &dyn Fn(i64) -> Option<f64>| -> Written {
        let mut all: Vec<_> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.sort();
        let samples =
            (-10..END + 30).filter_map(|at| Some((start.0 + at * SECOND, value(at)?))).collect();
        (all, samples)
    };
    let mut all = Vec::new();
    for (job, slope) in [("api", 3.0), ("web", 0.7)] {
        let labels = [("__name__", "req_total"), ("job", job)];
        all.push(series(&labels, &|at| Some(100.0 + at as f64 * slope)));
    }
    for (bound, share) in [("0.1", 0.5), ("1", 0.8), ("+Inf", 1.0)] {
        let labels = [("__name__", "lat_bucket"), ("le", bound)];
        all.push(series(&labels, &|at| Some(((at + 20) as f64 * 10.0 * share).floor())));
    }
    // One for each way that an alert can go; given with both jobs so that results are several.
    type Spans = &'static [(i64, i64)];
    let at_times = |spans: Spans| {
        let within = move |at: i64| spans.iter().any(|(from, to)| (*from..*to).contains(&at));
        move |at: i64| Some(f64::from(u8::from(within(at))))
    };
    let flaps: [(&str, &str, Spans); 5] = [
        ("1", "api", &[(2, 9)]),
        ("2", "api", &[(3, 5), (7, 8)]),
        ("3", "web", &[(4, 100)]),
        ("4", "web", &[(1, 2), (3, 4), (5, 6)]),
        ("5", "web", &[]),
    ];
    for (i, job, ranges) in flaps {
        let labels = [("__name__", "flap"), ("i", i), ("job", job)];
        all.push(series(&labels, &at_times(ranges)));
    }
    all
}

/// What the API is asked when it is calm.
pub(super) fn questions() -> Vec<String> {
    let rules = [
        "",
        "?type=alert",
        "?type=record",
        "?type=ALERT",
        "?type=",
        "?type=nonsense",
        "?rule_name[]=Kept",
        "?rule_name[]=Kept&rule_name[]=same",
        "?rule_name[]=none",
        "?rule_group[]=offset",
        "?rule_group[]=offset&type=alert",
        "?file[]=none",
        "?exclude_alerts=true",
        "?exclude_alerts=T&type=alert",
        "?exclude_alerts=yes",
        "?exclude_alerts=",
        "?match[]={team=\"a\"}",
        "?match[]={team=\"a\"}&match[]={severity=~\"w.*\"}",
        "?match[]={team!=\"a\"}",
        "?match[]={made=~\".*labels.*\"}",
        "?match[]={",
        "?match[]={}",
        "?match[]=up",
        "?group_limit=1",
        "?group_limit=3&type=record",
        "?group_limit=0",
        "?group_limit=-1",
        "?group_limit=x",
        "?group_limit=",
        "?group_next_token=x",
        "?group_limit=1&group_next_token=x",
        "?group_limit=1&group_next_token=",
    ];
    let encoded = |query: &str| {
        let query = query.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        format!("/api/v1/rules{query}")
    };
    let mut all: Vec<String> = rules.iter().map(|query| encoded(query)).collect();
    all.push("/api/v1/alerts".to_owned());
    all
}
