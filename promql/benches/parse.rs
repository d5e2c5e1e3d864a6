//! How long it takes to read a query.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use stint_promql::parse::{Options, parse};

/// From the shortest to the longest that dashboards and rules usually ask.
const EXPRESSIONS: [(&str, &str); 7] = [
    ("metric", "up"),
    ("selector", "node_load1{instance=\"host-00001.example.net:9100\",job=\"node\"}"),
    ("sum_rate", "sum by (mode) (rate(node_cpu_seconds_total[5m]))"),
    ("ratio", "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"),
    (
        "quantile",
        "histogram_quantile(0.95, sum by (le, service, endpoint) \
         (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    (
        "errors",
        "sum by (service) (rate(http_requests_total{status_code=~\"5..\"}[5m])) / \
         sum by (service) (rate(http_requests_total[5m])) > 0.05",
    ),
    (
        "join",
        "sum by (nodename) (rate(node_cpu_seconds_total{mode!=\"idle\"}[5m]) * on (instance) \
         group_left (nodename) node_uname_info)",
    ),
];

fn parsing(c: &mut Criterion) {
    let options = Options::default();
    let mut group = c.benchmark_group("parse");
    for (name, text) in EXPRESSIONS {
        group.bench_function(name, |b| b.iter(|| black_box(parse(black_box(text), &options))));
    }
    group.finish();
}

criterion_group!(benches, parsing);
criterion_main!(benches);
