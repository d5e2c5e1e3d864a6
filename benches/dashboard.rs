//! What dashboards and alerts ask: questions of all shapes over two hours of a small fleet, each from
//! its text to the bytes that are sent.

#![expect(clippy::unwrap_used, reason = "without its input there is nothing to measure")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use stint::api::helpers::Helpers;
use stint::api::result::push_open_data;
use stint_model::clock::SystemClock;
use stint_model::{
    Appender, Batch, Hints, Labels, Queryable as _, Sample, Selector, SeriesRef, Span, TimeRange,
    Timestamp,
};
use stint_promql::parse::parse_selector;
use stint_promql::{Answer, Cancel, Engine, EngineOptions, InstantQuery, RangeQuery};
use stint_storage::{Db, Options, OsDisk};

/// Hosts, and instances of a service.
const TARGETS: usize = 24;
const INTERVAL: Span = Span(15_000);
const LENGTH: Span = Span(2 * Span::HOUR.0);
const START: Timestamp = Timestamp(1_699_999_200_000);
const END: Timestamp = Timestamp(START.0 + LENGTH.0);
/// The steps of a graph, and of one that is looked at closely.
const STEP: Span = Span(45_000);
const FINE_STEP: Span = INTERVAL;

/// When an expression is asked for.
#[derive(Clone, Copy)]
enum At {
    Once,
    Steps(Span),
}

const QUESTIONS: [(&str, At, &str); 25] = [
    ("load_all", At::Once, "node_load1"),
    ("load_one", At::Steps(STEP), "node_load1{instance=\"host-01:9100\"}"),
    ("cpu_by_mode", At::Steps(STEP), "sum by (mode) (rate(node_cpu_seconds_total[5m]))"),
    (
        "cpu_busy",
        At::Steps(STEP),
        "100 - 100 * avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m]))",
    ),
    (
        "cpu_fine_step",
        At::Steps(FINE_STEP),
        "sum by (instance) (rate(node_cpu_seconds_total{mode=\"user\"}[1m]))",
    ),
    (
        "memory_ratio",
        At::Steps(STEP),
        "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
    ),
    ("http_rate", At::Steps(STEP), "sum by (service, code) (rate(http_requests_total[1m]))"),
    (
        "http_errors",
        At::Steps(STEP),
        "sum by (service) (rate(http_requests_total{code=~\"5..\"}[5m])) / \
         sum by (service) (rate(http_requests_total[5m]))",
    ),
    (
        "p99",
        At::Steps(STEP),
        "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    (
        "p95_by_endpoint",
        At::Steps(STEP),
        "histogram_quantile(0.95, sum by (le, service, endpoint) \
         (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    (
        "p90_once",
        At::Once,
        "histogram_quantile(0.9, sum by (le, instance) \
         (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    (
        "mean_size",
        At::Steps(STEP),
        "sum(rate(http_response_size_bytes_sum[5m])) / \
         sum(rate(http_response_size_bytes_count[5m]))",
    ),
    ("topk_once", At::Once, "topk(10, sum by (instance) (rate(http_requests_total[5m])))"),
    (
        "topk_steps",
        At::Steps(STEP),
        "topk(5, rate(node_network_receive_bytes_total{device!~\"lo|docker.*\"}[5m]))",
    ),
    (
        "filesystems",
        At::Once,
        "node_filesystem_avail_bytes{mountpoint=~\"/|/var/.*\",fstype!~\"tmpfs|overlay\"}",
    ),
    ("count_names", At::Once, "count by (job) ({__name__=~\"node_.+\"})"),
    ("avg_hour", At::Once, "avg_over_time(node_load1[1h])"),
    ("max_steps", At::Steps(STEP), "max_over_time(go_goroutines[10m])"),
    ("stddev", At::Steps(STEP), "sum by (queue) (stddev_over_time(queue_depth[15m]))"),
    ("increase_hour", At::Once, "increase(queue_processed_total[1h])"),
    (
        "subquery",
        At::Once,
        "max_over_time(sum by (service) (rate(http_requests_total[5m]))[30m:1m])",
    ),
    (
        "join",
        At::Steps(STEP),
        "sum by (nodename) (rate(node_cpu_seconds_total{mode!=\"idle\"}[5m]) \
         * on (instance) group_left (nodename) node_uname_info)",
    ),
    (
        "predict",
        At::Once,
        "predict_linear(node_filesystem_avail_bytes{mountpoint=\"/\"}[1h], 4 * 3600)",
    ),
    ("quantile", At::Steps(STEP), "quantile by (job) (0.9, node_load1)"),
    ("restarts", At::Once, "sum by (job) (changes(process_start_time_seconds[1h]))"),
];

/// A folder that goes when the bench ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What a series is like.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Constant,
}

/// The series of the fleet.
fn fleet() -> Vec<(Labels, Kind)> {
    let mut all = Vec::new();
    for target in 0..TARGETS {
        if target % 2 == 0 {
            host(target / 2, &mut all);
        } else {
            service(target / 2, &mut all);
        }
    }
    all
}

fn host(number: usize, all: &mut Vec<(Labels, Kind)>) {
    let instance = format!("host-{number:02}:9100");
    let mut add = |kind, name: &str, more: &[(&str, &str)]| {
        let own = [("__name__", name), ("instance", &instance), ("job", "node")];
        all.push((Labels::from_pairs(own.iter().chain(more).copied()), kind));
    };
    for cpu in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        for mode in ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"] {
            add(Kind::Counter, "node_cpu_seconds_total", &[("cpu", cpu), ("mode", mode)]);
        }
    }
    add(Kind::Gauge, "node_load1", &[]);
    add(Kind::Gauge, "node_memory_MemAvailable_bytes", &[]);
    add(Kind::Constant, "node_memory_MemTotal_bytes", &[]);
    add(Kind::Constant, "node_uname_info", &[("nodename", &instance)]);
    for device in ["lo", "eth0", "eth1", "docker0"] {
        add(Kind::Counter, "node_network_receive_bytes_total", &[("device", device)]);
    }
    for (mountpoint, fstype) in
        [("/", "ext4"), ("/var/lib", "ext4"), ("/var/log", "xfs"), ("/tmp", "tmpfs")]
    {
        let more = [("fstype", fstype), ("mountpoint", mountpoint)];
        add(Kind::Gauge, "node_filesystem_avail_bytes", &more);
    }
    add(Kind::Constant, "process_start_time_seconds", &[]);
}

fn service(number: usize, all: &mut Vec<(Labels, Kind)>) {
    let instance = format!("app-{number:02}:8080");
    let service = ["checkout", "search", "login", "cart"][number % 4];
    let mut add = |kind, name: &str, more: &[(&str, &str)]| {
        let own = [
            ("__name__", name),
            ("instance", &instance),
            ("job", "http-app"),
            ("service", service),
        ];
        all.push((Labels::from_pairs(own.iter().chain(more).copied()), kind));
    };
    for endpoint in ["/", "/api/a", "/api/b", "/api/c", "/api/d", "/health"] {
        for code in ["200", "201", "302", "400", "404", "500", "503"] {
            let more = [("code", code), ("endpoint", endpoint)];
            add(Kind::Counter, "http_requests_total", &more);
        }
        for le in ["0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf"] {
            let more = [("endpoint", endpoint), ("le", le)];
            add(Kind::Counter, "http_request_duration_seconds_bucket", &more);
        }
        let more = [("endpoint", endpoint)];
        add(Kind::Counter, "http_response_size_bytes_sum", &more);
        add(Kind::Counter, "http_response_size_bytes_count", &more);
    }
    for queue in ["a", "b", "c", "d"] {
        add(Kind::Gauge, "queue_depth", &[("queue", queue)]);
        add(Kind::Counter, "queue_processed_total", &[("queue", queue)]);
    }
    add(Kind::Gauge, "go_goroutines", &[]);
    add(Kind::Constant, "process_start_time_seconds", &[]);
}

fn fill(db: &Db) {
    let fleet = fleet();
    let mut refs: Vec<SeriesRef> = Vec::new();
    let mut batch = Batch::default();
    for round in 0..=LENGTH.0 / INTERVAL.0 {
        batch.clear();
        let at = Timestamp(START.0 + round * INTERVAL.0);
        for (number, (labels, kind)) in fleet.iter().enumerate() {
            let pace = (number as i64 * 7919) % 97;
            let value = match kind {
                Kind::Counter => (round * pace) as f64 / 4.0,
                Kind::Gauge => (pace * 1000 + (round * (pace + 13)) % 977) as f64 / 100.0,
                Kind::Constant => pace as f64,
            };
            match refs.get(number) {
                Some(series) => batch.push_known(*series, Sample::float(at, value)),
                None => batch.push(labels.clone(), Sample::float(at, value)),
            }
        }
        let appended = db.append(&batch).unwrap();
        assert!(appended.rejected.is_empty());
        if refs.is_empty() {
            refs = appended.refs.into_iter().map(Option::unwrap).collect();
        }
    }
}

fn ask(engine: &Engine, db: &Db, cancel: &Cancel, at: At, expr: &str) -> Answer {
    match at {
        At::Once => {
            let query = InstantQuery { expr, at: END, lookback: None };
            engine.instant(db, &query, cancel).unwrap()
        }
        At::Steps(step) => {
            let query = RangeQuery { expr, start: START, end: END, step, lookback: None };
            engine.range(db, &query, cancel).unwrap()
        }
    }
}

fn questions(c: &mut Criterion) {
    let folder =
        Folder(std::env::temp_dir().join(format!("stint-dashboard-{}", std::process::id())));
    let disk = OsDisk::new(&folder.0).unwrap();
    let db = Db::open(Arc::new(disk), Options::default()).unwrap().0;
    fill(&db);
    let engine = Engine::new(EngineOptions::default()).with_workers(Helpers::of_machine());
    let cancel = Cancel::new(Arc::new(SystemClock::new()));
    let mut group = c.benchmark_group("dashboard");
    group.sample_size(20);
    let mut body = Vec::new();
    for (name, at, expr) in QUESTIONS {
        group.bench_function(name, |b| {
            b.iter(|| {
                let answer = ask(&engine, &db, &cancel, at, expr);
                body.clear();
                push_open_data(&mut body, &answer.value);
                black_box(body.len())
            });
        });
        assert!(body.windows(5).any(|bytes| bytes == b"value"), "{name} finds nothing");
    }
    let all = TimeRange::closed(START, END);
    let selector = |text: &str| Selector::new(parse_selector(text).unwrap());
    group.bench_function("label_names", |b| {
        b.iter(|| db.querier(all).unwrap().label_names(&[], 0).unwrap());
    });
    group.bench_function("label_values", |b| {
        b.iter(|| db.querier(all).unwrap().label_values("instance", &[], 0).unwrap());
    });
    let of_job = [selector("{job=\"http-app\"}")];
    group.bench_function("label_values_of_some", |b| {
        b.iter(|| db.querier(all).unwrap().label_values("__name__", &of_job, 0).unwrap());
    });
    let one_service = selector("http_requests_total{service=\"checkout\"}");
    group.bench_function("series", |b| {
        b.iter(|| {
            let set = db.querier(all).unwrap().select(&one_service, &Hints::default()).unwrap();
            (0..set.len()).map(|index| set.labels(index)).collect::<Vec<_>>()
        });
    });
    group.finish();
}

criterion_group!(benches, questions);
criterion_main!(benches);
