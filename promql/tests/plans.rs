//! Plans as text.

use std::sync::Arc;

use stint_promql::{Engine, EngineOptions, Rewrites, Workers};

const QUERIES: [&str; 17] = [
    "up",
    "sum by (job) (a{job=\"1\"}) / on (job) group by (job) (b)",
    "a{x=\"1\"} * on (x) b{y=\"2\",x=\"1\"}",
    "a * on (x) group_left (y) b{x=\"1\",y=\"2\"}",
    "a and on (x) b{x=\"1\"} unless c",
    "sum by (mode) (rate(node_cpu_seconds_total[5m]))",
    "100 - 100 * avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m]))",
    "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
    "histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))",
    "topk(3, sum by (instance) (irate(x_total[1m])))",
    "max_over_time(sum by (service) (rate(http_requests_total[5m]))[30m:1m])",
    "sum by (nodename) (rate(x_total[5m]) * on (instance) group_left (nodename) node_uname_info)",
    "rate({__name__=~\"x.*\"}[5m])",
    "up == 0 unless on (job) (maintenance @ end() > bool 1)",
    "sum by (__name__) (-up)",
    "100 * (1 - free / (free + used))",
    "label_replace(quantile(0.5, avg_over_time(x[1h])), \"a\", \"b\", \"c\", \"d\")",
];

#[test]
fn plans_tell_how_a_query_is_evaluated() {
    let engine = Engine::new(EngineOptions::default());
    let plans = QUERIES.map(|query| format!("{query}\n\n{}", engine.explain(query, true).unwrap()));
    insta::assert_snapshot!(plans.join("\n\n"));
}

#[test]
fn plans_without_shortcuts_have_none() {
    let options = EngineOptions { rewrites: Rewrites::NONE, ..EngineOptions::default() };
    let plan = Engine::new(options).explain("sum(rate(x_total[5m] @ 7))", true).unwrap();
    assert_eq!(
        plan,
        "sum  [folded while reading]\n  rate  [window by window]\n    read x_total[5m] @ 7.000  \
         [windows]\n"
    );
}

#[derive(Debug)]
struct Lent;

impl Workers for Lent {
    fn beside(&self, _help: &(dyn Fn() + Sync), own: &mut dyn FnMut()) {
        own();
    }
}

#[test]
fn plans_tell_what_workers_help_with() {
    let engine = Engine::new(EngineOptions::default()).with_workers(Arc::new(Lent));
    let plan = engine.explain("max(up) + sum by (a) (rate(x_total[5m]))", true).unwrap();
    assert_eq!(plan.matches("with workers if many").count(), 2, "{plan}");
    let rewrites = Rewrites { workers: false, ..Rewrites::ALL };
    let options = EngineOptions { rewrites, ..EngineOptions::default() };
    let plan = Engine::new(options).with_workers(Arc::new(Lent)).explain("max(up)", true).unwrap();
    assert!(!plan.contains("workers"), "{plan}");
}
