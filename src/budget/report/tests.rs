use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stint_model::Labels;
use stint_storage::SimDisk;

use super::*;
use crate::budget::admission::{Admission, Opening, Provenance};
use crate::budget::group::Key;
use crate::budget::limits::{Limits, MissingLedger, Origin};
use crate::budget::policy::Policy;
use crate::budget::pool::Seat;
use crate::usage::expression::uses;
use crate::usage::{Catalogue, Known};

#[test]
fn the_text_names_what_matters() {
    let report = Report {
        endpoints: vec![EndpointReport {
            name: "cloud".into(),
            url: "https://x.grafana.net/api/prom/push".into(),
            series: Some(SeriesBudget {
                contract: 10_000,
                target: 9_000,
                server: "normal".into(),
                ..SeriesBudget::default()
            }),
            live: 4_500,
            samples: Samples { running: false, restarts: 3, ..Samples::default() },
            jobs: vec![Use { name: "node".into(), slots: 4_500, withheld: 3, ..Use::default() }],
            withheld: vec![Withheld {
                metric: "big".into(),
                job: "node".into(),
                series: 3,
                reason: "budget".into(),
                since: Some(1_700_000_000.0),
                ..Withheld::default()
            }],
            forecast: Some(Forecast {
                slots_per_hour: 90.0,
                exhausted_in_secs: Some(180_000.0),
                ..Forecast::default()
            }),
            ..EndpointReport::default()
        }],
        ..Report::default()
    };
    let text = report.to_string();
    for part in [
        "4500 of 9000 (50 %), contract 10000",
        "+90 series per hour, the target is reached in 2d2h",
        "forwarding broke down 3 times and starts again",
        "big (node)",
        "2023-11-14T22:13:20Z  budget",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(Report::default().to_string().contains("nothing is forwarded"));
}

#[test]
fn the_json_can_be_read_back() {
    let report = Report { endpoints: vec![EndpointReport::default()], ..Report::default() };
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

/// A budget of a hundred slots in which these series are sent.
fn sent(series: &[Labels]) -> Admission {
    let limits = Limits {
        contract: 2000,
        enforced: 1000,
        target: 1000,
        reserve: 0,
        points_per_minute: Some(1000),
        missing_ledger: MissingLedger::Nothing,
        origin: Origin::Configured,
    };
    let mut admission = Admission::open(Opening {
        limits: Some(limits),
        policy: Policy::default(),
        disk: Arc::new(SimDisk::new()),
        path: Path::new("ledger"),
        ran_before: true,
        seat: Seat::alone(),
        ranking: None,
        now: START,
    });
    for labels in series {
        let registered = admission.register(labels, Key::of(labels), Provenance::default());
        admission.want(registered.series.group, START);
    }
    admission.plan(START, Timestamp(0));
    assert_eq!(admission.live(), series.len() as u64);
    admission
}

const START: Duration = Duration::from_secs(1000);

fn report_of(series: &[Labels], known: Vec<Known>, at: Duration) -> EndpointReport {
    let about = About {
        name: "cloud".into(),
        url: String::new(),
        interval: Span::MINUTE,
        sends_metadata: true,
        samples: Samples::default(),
        identities: None,
    };
    let overview = Overview { catalogue: Catalogue::new(known, None), ..Overview::default() };
    Look::at(&sent(series), at, Span::MINUTE).finish(about, &overview, Timestamp(0))
}

fn known(expr: &str) -> Known {
    Known::new(Source::Dashboard, "d / p".into(), expr, uses(expr))
}

/// A histogram of two endpoints with five buckets each, a counter by pod, a gauge.
fn usual() -> Vec<Labels> {
    let mut series = Vec::new();
    for endpoint in ["/a", "/b"] {
        for le in ["1", "2", "3", "4", "+Inf"] {
            series.push(vec![("__name__", "h_bucket"), ("endpoint", endpoint), ("le", le)]);
        }
        series.push(vec![("__name__", "h_sum"), ("endpoint", endpoint)]);
        series.push(vec![("__name__", "h_count"), ("endpoint", endpoint)]);
    }
    for pod in ["1", "2", "3", "4", "5", "6", "7"] {
        series.push(vec![("__name__", "c_total"), ("pod", pod), ("env", "dev")]);
    }
    for n in ["1", "2", "3", "4", "5"] {
        series.push(vec![("__name__", "g"), ("n", n)]);
    }
    series.iter().map(|pairs| Labels::from_pairs(pairs.iter().copied())).collect()
}

#[test]
fn slots_and_points_are_told_by_metric_and_environment() {
    let report = report_of(&usual(), Vec::new(), START);
    let rows: Vec<_> = report.metrics.iter().map(|m| (&*m.name, m.slots, m.points)).collect();
    assert_eq!(rows, [("h", 14, 14.0), ("c_total", 7, 7.0), ("g", 5, 5.0)]);
    assert_eq!((&*report.environments[0].name, report.environments[0].slots), ("dev", 7));
    assert_eq!((report.unlisted, report.metrics[0].used), (0, None));
    let histogram = &report.histograms[0];
    let savings = (histogram.saving_thin, histogram.saving_totals, histogram.saving_native);
    assert_eq!((histogram.buckets, savings), (10, (4, 10, 12)));
    assert!(report.unused.is_none());
    let kinds: Vec<_> = report.advice.iter().map(|advice| &*advice.kind).collect();
    assert_eq!(kinds, ["dear_label", "dear_label"]);
}

#[test]
fn what_was_not_sent_for_long_cools_and_costs_no_points() {
    let report = report_of(&usual(), Vec::new(), START + Duration::from_mins(6));
    assert_eq!((report.jobs[0].cooling, report.jobs[0].points), (26, 0.0));
}

#[test]
fn advice_names_what_nobody_uses_and_its_snippets_are_valid() {
    let all = vec![known("sum(rate(h_sum[5m]))"), known("sum by (env) (rate(c_total[5m]))")];
    let report = report_of(&usual(), all, START);
    assert_eq!(report.unused, Some(Unused { metrics: 1, slots: 5, points: 5.0 }));
    let used: Vec<_> = report.metrics.iter().map(|metric| metric.used).collect();
    assert_eq!(used, [Some(true), Some(true), Some(false)]);
    assert_eq!(report.metrics[1].users, ["dashboard d / p"]);
    let advice: Vec<_> = report.advice.iter().map(|a| (&*a.kind, a.slots)).collect();
    let unused = [("unused_buckets", 10), ("unused_label", 7), ("unused_label", 6)];
    assert_eq!(advice, [&unused[..], &[("unused_metrics", 5)]].concat());
    for one in &report.advice {
        crate::config::tests_support::retention(&one.snippet);
        assert_eq!(one.breaks_count, 0);
    }
    let rule =
        &crate::config::tests_support::retention(&report.advice[2].snippet).budget.aggregates;
    assert_eq!(rule[0].without, ["pod"]);
}

#[test]
fn a_dear_label_tells_who_would_miss_it() {
    let report = report_of(&usual(), vec![known("topk(5, c_total)")], START);
    let dear = report.advice.iter().find(|advice| advice.kind == "dear_label").unwrap();
    assert_eq!((dear.slots, &dear.breaks[..]), (6, &["dashboard d / p".to_owned()][..]));
    assert!(dear.snippet.contains("function = \"counter\""));
}

#[test]
fn names_in_snippets_are_escaped() {
    let report = report_of(
        &["1", "2", "3", "4", "5"].map(|n| Labels::from_pairs([("__name__", "a\"b'c"), ("n", n)])),
        vec![known("sum(x)")],
        START,
    );
    crate::config::tests_support::retention(&report.advice[0].snippet);
}

#[test]
fn the_whole_text() {
    let all = vec![known("sum(rate(h_sum[5m]))"), known("sum by (env) (rate(c_total[5m]))")];
    let endpoints = vec![report_of(&usual(), all, START)];
    let usage = UsageReport { dashboards: 2, conclusive: true, ..UsageReport::default() };
    insta::assert_snapshot!(Report { endpoints, usage });
}

/// On-CPU time of this thread.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// `cargo test --release -p stint --lib -- --ignored --nocapture a_report_over_200_000_series`
#[test]
#[ignore = "a measurement"]
fn a_report_over_200_000_series() {
    let series: Vec<Labels> = (0..200_000u32)
        .map(|n| {
            let pairs = [
                ("__name__", format!("app_metric_{}_total", n / 500)),
                ("job", format!("job-{}", n % 10)),
                ("instance", format!("10.0.{}.{}:8080", n % 100 / 10, n % 10)),
                ("environment", "prod".to_owned()),
                ("project", "shop".to_owned()),
                ("service", format!("service-{}", n % 10)),
                ("method", ["GET", "PUT", "POST", "DELETE"][n as usize % 4].to_owned()),
                ("endpoint", format!("/api/v1/things/{}", n % 500)),
                ("status", format!("{}", 200 + n % 5 * 100)),
                ("pod", format!("service-{}-{:x}", n % 10, n / 7)),
            ];
            Labels::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())))
        })
        .collect();
    let mut admission = Admission::open(Opening {
        limits: None,
        policy: Policy::default(),
        disk: Arc::new(SimDisk::new()),
        path: Path::new("ledger"),
        ran_before: true,
        seat: Seat::alone(),
        ranking: None,
        now: START,
    });
    for labels in &series {
        let registered = admission.register(labels, Key::of(labels), Provenance::default());
        admission.want(registered.series.group, START);
    }
    admission.plan(START, Timestamp(0));
    let known = (0..400).map(|n| known(&format!("sum by (job) (app_metric_{}_total)", n * 2)));
    let catalogue = Catalogue::new(known.collect(), None);
    let overview = Overview { catalogue, ..Overview::default() };
    for _ in 0..3 {
        let begun = cpu();
        let mut look = Look::begin(&admission, START, Span::MINUTE);
        let (mut parts, mut longest, mut last) = (0, Duration::ZERO, cpu());
        let first = last.saturating_sub(begun);
        while look.go_on(&admission) {
            let now = cpu();
            (parts, longest, last) = (parts + 1, longest.max(now.saturating_sub(last)), now);
        }
        let looked = cpu();
        let about = About {
            name: "cloud".into(),
            url: String::new(),
            interval: Span::MINUTE,
            sends_metadata: true,
            samples: Samples::default(),
            identities: None,
        };
        let report = look.finish(about, &overview, Timestamp(0));
        let json = serde_json::to_string(&report).unwrap().len();
        println!(
            "{} series: numbers {first:?}, {parts} looks of at most {longest:?}, all {:?}, of CPU; {json} bytes",
            report.live,
            cpu().saturating_sub(begun),
        );
        println!("  of which the looks {:?}", looked.saturating_sub(begun));
    }
}
