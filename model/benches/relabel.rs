//! What relabelling costs: a target's labels through each action and through a set of rules as jobs for
//! Kubernetes have them, scraped series through rules that change them, keep them or drop them.
//!
//! `cargo bench -p stint-model --bench relabel [-- WHAT]`, where WHAT is a part of the names to measure. Prints
//! nanoseconds and allocations for one target or series; making the labels to start from and the
//! finished set is part of it, as it is where rules are applied.

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use stint_model::Labels;
use stint_model::labels::NameScheme;
use stint_model::relabel::{Action, Rule, RuleSpec, Verdict, apply};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often the inputs are gone through. The fastest round counts, which nothing else disturbed.
const ROUNDS: usize = 200;

/// A pod as discovery finds it, with the defaults of its job.
fn pod(number: usize) -> Labels {
    Labels::from_pairs([
        ("__address__", format!("10.2.{}.{}:8080", number / 250, number % 250)),
        ("__meta_kubernetes_namespace", "shop".to_owned()),
        ("__meta_kubernetes_pod_annotation_prometheus_io_path", "/internal/metrics".to_owned()),
        ("__meta_kubernetes_pod_annotation_prometheus_io_port", "9102".to_owned()),
        ("__meta_kubernetes_pod_annotation_prometheus_io_scrape", "true".to_owned()),
        ("__meta_kubernetes_pod_container_name", "checkout".to_owned()),
        ("__meta_kubernetes_pod_container_port_name", "http".to_owned()),
        ("__meta_kubernetes_pod_container_port_number", "8080".to_owned()),
        ("__meta_kubernetes_pod_controller_kind", "ReplicaSet".to_owned()),
        ("__meta_kubernetes_pod_ip", format!("10.2.{}.{}", number / 250, number % 250)),
        ("__meta_kubernetes_pod_label_app", "checkout".to_owned()),
        ("__meta_kubernetes_pod_label_pod_template_hash", "6d4cf56db6".to_owned()),
        ("__meta_kubernetes_pod_label_tier", "backend".to_owned()),
        ("__meta_kubernetes_pod_name", format!("checkout-6d4cf56db6-{number:05}")),
        ("__meta_kubernetes_pod_node_name", format!("node-{:02}", number % 20)),
        ("__meta_kubernetes_pod_phase", "Running".to_owned()),
        ("__meta_kubernetes_pod_ready", "true".to_owned()),
        ("__metrics_path__", "/metrics".to_owned()),
        ("__scheme__", "http".to_owned()),
        ("job", "kubernetes-pods".to_owned()),
    ])
}

/// A series as it is scraped, its target's labels attached.
fn series(number: usize) -> Labels {
    let names =
        ["http_requests_total", "http_request_duration_seconds_bucket", "go_gc_duration_seconds"];
    Labels::from_pairs([
        ("__name__", names[number % names.len()].to_owned()),
        ("code", (200 + number % 5).to_string()),
        ("handler", format!("/api/v1/items/{}", number % 40)),
        ("instance", format!("10.2.0.{}:8080", number % 250)),
        ("job", "shop".to_owned()),
        ("le", "0.25".to_owned()),
        ("method", ["GET", "POST"][number % 2].to_owned()),
        ("pod", format!("checkout-6d4cf56db6-{number:05}")),
    ])
}

fn rule(spec: RuleSpec) -> Rule {
    Rule::new(spec, NameScheme::Utf8).expect("a valid rule")
}

fn of(action: Action, source: &[&str], regex: &str) -> RuleSpec {
    let source_labels = source.iter().map(|name| (*name).to_owned()).collect();
    RuleSpec { action, source_labels, regex: regex.to_owned(), ..RuleSpec::default() }
}

fn keep(source: &[&str], regex: &str) -> Rule {
    rule(of(Action::Keep, source, regex))
}

fn discard(source: &[&str], regex: &str) -> Rule {
    rule(of(Action::Drop, source, regex))
}

fn replace(source: &[&str], regex: &str, target: &str, replacement: &str) -> Rule {
    let (target_label, replacement) = (target.to_owned(), replacement.to_owned());
    rule(RuleSpec { target_label, replacement, ..of(Action::Replace, source, regex) })
}

fn copy(source: &str, target: &str) -> Rule {
    replace(&[source], "(.*)", target, "$1")
}

fn hashmod(source: &str, modulus: u64, target: &str) -> Rule {
    let target_label = target.to_owned();
    rule(RuleSpec { modulus, target_label, ..of(Action::HashMod, &[source], "(.*)") })
}

fn names(action: Action, regex: &str) -> Rule {
    rule(of(action, &[], regex))
}

/// What the usual example for pods has, with sharding.
fn kubernetes() -> Vec<Rule> {
    const POD: &str = "__meta_kubernetes_pod_";
    let pod = |name: &str| format!("{POD}{name}");
    vec![
        keep(&[&pod("annotation_prometheus_io_scrape")], "true"),
        discard(&[&pod("phase")], "Pending|Succeeded|Failed|Completed"),
        replace(&[&pod("annotation_prometheus_io_path")], "(.+)", "__metrics_path__", "$1"),
        replace(
            &["__address__", &pod("annotation_prometheus_io_port")],
            r"([^:]+)(?::\d+)?;(\d+)",
            "__address__",
            "$1:$2",
        ),
        names(Action::LabelMap, &pod("label_(.+)")),
        copy("__meta_kubernetes_namespace", "namespace"),
        copy(&pod("name"), "pod"),
        copy(&pod("node_name"), "node"),
        hashmod("__address__", 2, "__tmp_hash"),
        keep(&["__tmp_hash"], "0|1"),
        names(Action::LabelDrop, "pod_template_hash|__tmp_.*"),
    ]
}

fn on_targets() -> Vec<(&'static str, Vec<Rule>)> {
    vec![
        ("no rule", vec![]),
        ("keep, one label", vec![keep(&["__meta_kubernetes_pod_phase"], "Running|Pending")]),
        (
            "drop, three labels",
            vec![discard(
                &["__meta_kubernetes_namespace", "job", "__scheme__"],
                "kube-.*;.*;https?",
            )],
        ),
        ("replace, copy of a label", vec![copy("__meta_kubernetes_pod_name", "pod")]),
        (
            "replace, groups of two labels",
            vec![replace(
                &["__address__", "__meta_kubernetes_pod_annotation_prometheus_io_port"],
                r"([^:]+)(?::\d+)?;(\d+)",
                "__address__",
                "$1:$2",
            )],
        ),
        ("replace, no match", vec![replace(&["__address__"], r"\[(.+)\]:(\d+)", "host", "$1")]),
        ("labelmap, 3 of 20", vec![names(Action::LabelMap, "__meta_kubernetes_pod_label_(.+)")]),
        ("hashmod", vec![hashmod("__address__", 16, "__tmp_hash")]),
        ("labeldrop, 14 of 20", vec![names(Action::LabelDrop, "__meta_kubernetes_pod_.+")]),
        ("kubernetes, 11 rules", kubernetes()),
    ]
}

fn on_series() -> Vec<(&'static str, Vec<Rule>)> {
    vec![
        ("no rule", vec![]),
        (
            "four rules without effect",
            vec![
                discard(&["__name__"], "kube_.+_labels|container_tasks_state|apiserver_.*"),
                discard(
                    &["__name__", "le"],
                    r"etcd_request_duration_seconds_bucket;(0\.15|0\.3|1)",
                ),
                names(Action::LabelDrop, "uid|container_id|image_id"),
                replace(&["env"], "(.+)", "environment", "$1"),
            ],
        ),
        (
            "four rules that change three labels",
            vec![
                discard(&["__name__"], "kube_.+_labels|container_tasks_state|apiserver_.*"),
                names(Action::LabelDrop, "pod"),
                replace(&["handler"], r"/api/v1/(\w+)(/.*)?", "handler", "/api/v1/$1"),
                replace(&[], "(.*)", "environment", "production"),
            ],
        ),
        ("dropped by the first", vec![keep(&["__name__"], "up|node_.*|process_.*")]),
    ]
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

fn relabelled(labels: &Labels, rules: &[Rule]) -> Option<Labels> {
    let mut builder = labels.to_builder();
    (apply(rules, &mut builder) == Verdict::Keep).then(|| builder.build())
}

#[expect(clippy::print_stdout, reason = "the figures are the outcome")]
fn measure(what: &str, inputs: &[Labels], rules: &[Rule]) {
    // Expressions make their tables when they are first tried.
    for labels in inputs {
        black_box(relabelled(labels, rules));
    }
    let region = Region::new(ALLOCATOR);
    let kept = inputs.iter().filter(|labels| relabelled(labels, rules).is_some()).count();
    let allocations = region.change().allocations as f64 / inputs.len() as f64;
    let mut fastest = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = now();
        for labels in inputs {
            black_box(relabelled(black_box(labels), rules));
        }
        fastest = fastest.min(start.elapsed());
    }
    let nanos = fastest.as_nanos() as f64 / inputs.len() as f64;
    let share = 100 * kept / inputs.len();
    println!("{what:<46} {nanos:>8.0} ns {allocations:>7.1} allocations {share:>4} % kept");
}

fn main() {
    let wanted =
        std::env::args().nth(1).filter(|argument| argument != "--bench").unwrap_or_default();
    let (pods, series): (Vec<_>, Vec<_>) =
        (0..500).map(|number| (pod(number), series(number))).unzip();
    for (kind, inputs, sets) in [("target", &pods, on_targets()), ("series", &series, on_series())]
    {
        for (name, rules) in sets {
            let what = format!("{kind}: {name}");
            if what.contains(&wanted) {
                measure(&what, inputs, &rules);
            }
        }
    }
}
