//! What a real Prometheus stored is imported, and both answer the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use stint_model::clock::SystemClock;
use stint_model::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, Histogram, IntegerHistogram, ResetHint,
};
use stint_model::{Clock as _, Sample, Timestamp, Value};
use stint_wire::remote_write::v1;
use stint_wire::snappy::compress_into;

use crate::peers::prometheus_3;
use crate::process::{Running, free_address};
use crate::support::TestDir;

const MINUTE: i64 = 60_000;
/// How far back samples reach: far enough that some are in blocks and some are not.
const MINUTES: i64 = 9 * 60;

fn stint(dir: &TestDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stint"))
        .args(arguments)
        .current_dir(dir.path())
        .output()
        .unwrap()
}

/// Exit code, standard output, standard error.
fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A native histogram of the minute `n`.
fn histogram(kind: usize, n: i64) -> Value {
    let n = n as u64;
    let custom = kind == 2;
    let integer = IntegerHistogram {
        reset_hint: if kind == 3 { ResetHint::Gauge } else { ResetHint::Unknown },
        schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { 2 },
        zero_threshold: if custom { 0.0 } else { 0.001 },
        zero_count: if custom { 0 } else { n % 7 },
        count: 3 * n + 3 + if custom { 0 } else { n % 7 },
        sum: n as f64 * 1.25,
        positive_spans: vec![
            BucketSpan { offset: 0, length: 2 },
            // A bucket that was never there before shows up.
            BucketSpan { offset: i32::from(n > 100), length: 1 },
        ],
        positive_deltas: vec![n as i64, 1, 1],
        custom_bounds: if custom { vec![0.5, 1.0, 2.5, 1e-9 + 3.0] } else { Vec::new() },
        ..IntegerHistogram::default()
    };
    let histogram = Histogram::Integer(integer);
    Value::Histogram(Arc::new(if kind == 1 {
        Histogram::Float(histogram.to_float())
    } else {
        histogram
    }))
}

struct Peer {
    address: String,
    client: reqwest::Client,
}

impl Peer {
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, String) {
        let request = self.client.post(format!("http://{}{path}", self.address)).form(form);
        let Ok(answer) = request.send().await else { return (0, String::new()) };
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    async fn write(&self, encoder: &v1::Encoder) {
        let mut body = Vec::new();
        compress_into(encoder.body(), &mut body).unwrap();
        let request = self.client.post(format!("http://{}/api/v1/write", self.address)).body(body);
        let request = request.header("Content-Encoding", "snappy");
        let answer = request.header("Content-Type", "application/x-protobuf").send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap());
    }

    async fn ready(&self) {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..600 {
            tick.tick().await;
            let url = format!("http://{}/-/ready", self.address);
            if self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
        }
        panic!("{} never became ready", self.address);
    }

    /// What it says about all of it: every raw sample, evaluations in which series end, and labels.
    async fn answers(&self, end: i64) -> BTreeMap<String, Json> {
        let (start, end) = ((end - MINUTES * MINUTE) / 1000, end / 1000);
        let (start, end) = (start.to_string(), end.to_string());
        let mut answers = BTreeMap::new();
        let range = |query: &'static str| {
            vec![("query", query), ("start", &*start), ("end", &*end), ("step", "60")]
        };
        let asked: Vec<(&str, Vec<(&str, &str)>)> = vec![
            ("query", vec![("query", "{job=~\".+\"}[10h]"), ("time", &end)]),
            ("query_range", range("{job=~\".+\"}")),
            ("query_range", range("sum by (job) (rate(c[5m]))")),
            ("series", vec![("match[]", "{job=~\".+\"}"), ("start", &start), ("end", &end)]),
        ];
        for (path, form) in asked {
            let (status, text) = self.post(&format!("/api/v1/{path}"), &form).await;
            assert_eq!(status, 200, "{text}");
            let answer: Json = serde_json::from_str(&text).unwrap();
            let mut data = answer["data"].clone();
            // Series come in any order.
            let list = if path == "series" { &mut data } else { &mut data["result"] };
            list.as_array_mut().unwrap().sort_by_key(ToString::to_string);
            assert!(!list.as_array().unwrap().is_empty(), "{path} {form:?} finds something");
            answers.insert(format!("{path} {form:?}"), data);
        }
        answers
    }
}

/// Counters, gauges that end and come back, native histograms of each kind, late samples, and
/// something that is deleted.
async fn fill(peer: &Peer, end: i64) {
    let start = end - MINUTES * MINUTE;
    let mut encoder = v1::Encoder::new();
    for minute in 0..MINUTES {
        let at = Timestamp(start + minute * MINUTE);
        for target in ["a", "b"] {
            let labels = |name| [("__name__", name), ("instance", target), ("job", "t")];
            encoder.series(labels("c")).float(at, (minute * 3 % 1000) as f64);
            encoder
                .series([("A", "1"), ("__name__", "g"), ("instance", target), ("job", "t")])
                .float(at, if minute % 50 == 7 { f64::NAN } else { (minute as f64).sin() });
            if minute % 100 < 60 {
                encoder.series(labels("ends")).float(at, minute as f64);
            } else if minute % 100 == 60 {
                encoder.series(labels("ends")).sample(&Sample::stale(at));
            }
            for (kind, name) in ["h", "h_float", "h_custom", "h_gauge"].into_iter().enumerate() {
                let value =
                    if minute == 300 { Value::Stale } else { histogram(kind, minute % 250) };
                // A stale marker of a histogram is a float where there is none before.
                encoder.series(labels(name)).sample(&Sample { at, started: None, value });
            }
        }
        if minute % 20 == 19 {
            peer.write(&encoder).await;
            encoder.clear();
        }
    }
    let late = Timestamp(end - 20 * MINUTE - 30_000);
    encoder.series([("__name__", "c"), ("instance", "a"), ("job", "t")]).float(late, 77.0);
    encoder.series([("__name__", "only_late"), ("job", "t")]).float(late, 1.0);
    peer.write(&encoder).await;
    let deleted = ((end - 30 * MINUTE) / 1000).to_string();
    let form = [("match[]", "g{instance=\"b\"}"), ("end", &*deleted)];
    assert_eq!(peer.post("/api/v1/admin/tsdb/delete_series", &form).await.0, 204);
}

/// Waits until there are blocks.
async fn compacted(folder: &Path) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..1200 {
        tick.tick().await;
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let blocks = entries.filter(|entry| entry.path().join("meta.json").is_file()).count();
        if blocks >= 2 {
            return;
        }
    }
    panic!("no blocks within two minutes");
}

async fn serve(dir: &TestDir, data: &str) -> (Running, Peer) {
    std::fs::write(dir.path().join("none.yml"), "").unwrap();
    let address = free_address();
    let server = Running::start(
        Command::new(env!("CARGO_BIN_EXE_stint"))
            .arg("--config.file=none.yml")
            .arg(format!("--storage.tsdb.path={data}"))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(dir.path()),
    );
    let peer = Peer { address, client: reqwest::Client::new() };
    peer.ready().await;
    (server, peer)
}

fn assert_same(here: &BTreeMap<String, Json>, there: &BTreeMap<String, Json>) {
    for (question, expected) in there {
        let found = &here[question];
        let lists = |json: &Json| -> Vec<String> {
            let list = json.get("result").unwrap_or(json).as_array().unwrap();
            list.iter().map(ToString::to_string).collect()
        };
        for (found, expected) in lists(found).iter().zip(&lists(expected)) {
            assert_eq!(found, expected, "{question}");
        }
        assert_eq!(lists(found).len(), lists(expected).len(), "{question}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_prometheus_server_stored_is_answered_alike() {
    let Some(prometheus) = prometheus_3() else {
        eprintln!("skipped: prometheus 3 is not installed");
        return;
    };
    let dir = TestDir::new();
    let config = dir.path().join("peer.yml");
    std::fs::write(&config, "storage: {tsdb: {out_of_order_time_window: 1h}}\n").unwrap();
    let folder = dir.path().join("prometheus");
    let address = free_address();
    let running = Running::start(
        Command::new(&prometheus)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.enable-remote-write-receiver", "--web.enable-admin-api"])
            .arg("--enable-feature=native-histograms"),
    );
    let peer = Peer { address, client: reqwest::Client::new() };
    peer.ready().await;
    let now = SystemClock::default().now().0;
    let end = now / MINUTE * MINUTE;
    fill(&peer, end).await;
    compacted(&folder).await;
    let there = peer.answers(end).await;

    let (code, _, errors) = told(stint(&dir, &["import", "prometheus"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("a Prometheus server has prometheus open"), "{errors}");
    // The running server is asked instead.
    let url = format!("http://{}", peer.address);
    let start = ((end - MINUTES * MINUTE) / 1000).to_string();
    let remote = ["import", &url, "--storage.tsdb.path=remote", "--start", &start];
    let (code, _, errors) = told(stint(&dir, &remote));
    assert_eq!(code, Some(0), "{errors}");
    running.terminate();

    let (code, report, errors) = told(stint(&dir, &["import", "prometheus", "--format=json"]));
    assert_eq!(code, Some(0), "{report}{errors}");
    let report: Json = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["damaged"], &report["refused_histograms"]), (&0.into(), &0.into()));
    for data in ["data", "remote"] {
        let (server, here) = serve(&dir, data).await;
        assert_same(&here.answers(end).await, &there);
        let (code, _, errors) =
            told(stint(&dir, &["import", "prometheus", &format!("--storage.tsdb.path={data}")]));
        assert_eq!(code, Some(1));
        assert!(errors.contains(&format!("a server has {data} open")), "{errors}");
        server.terminate();
    }

    // What was imported is not imported again; where nobody knows that, it is still there once.
    let samples = |dir: &TestDir| {
        let (code, report, _) = told(stint(dir, &["inspect", "--verify", "--format=json"]));
        assert_eq!(code, Some(0), "{report}");
        let report: Json = serde_json::from_str(&report).unwrap();
        report["verified"]["block_samples"].as_u64().unwrap()
    };
    let before = samples(&dir);
    let (code, report, _) = told(stint(&dir, &["import", "prometheus"]));
    assert_eq!(code, Some(0));
    assert!(report.ends_with("\n0 samples imported\n"), "{report}");
    std::fs::remove_file(dir.path().join("data/import.json")).unwrap();
    let (code, report, _) = told(stint(&dir, &["import", "prometheus"]));
    assert_eq!(code, Some(0));
    assert!(!report.contains("\n0 samples"), "{report}");
    assert_eq!(samples(&dir), before);
}

#[test]
fn what_nobody_would_keep_is_told_and_left_out() {
    let dir = TestDir::new();
    std::fs::write(dir.path().join("old.om"), "# TYPE a gauge\na 1 1000\na 2 2000\n# EOF\n")
        .unwrap();
    let (code, report, errors) = told(stint(&dir, &["import", "old.om"]));
    assert_eq!((code, &*report), (Some(0), "0 samples imported\n"));
    assert!(errors.contains("data is kept for 1w: samples before"), "{errors}");
    let keep = ["import", "old.om", "--storage.tsdb.retention.time=100y", "--again"];
    let (code, report, errors) = told(stint(&dir, &keep));
    assert_eq!((code, &*report), (Some(0), "2 samples imported\n"), "{errors}");
    let (code, _, errors) = told(stint(&dir, &["import", "elsewhere"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("cannot read elsewhere"), "{errors}");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let (code, _, errors) = told(stint(&dir, &["import", "empty"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("empty is no Prometheus data folder"), "{errors}");
    let (code, _, errors) = told(stint(&dir, &["import", "data"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("data is a data folder of Stint"), "{errors}");
}
