//! Real programs as readers: Prometheus federates and reads remotely, vmalert evaluates rules, a Python program asks
//! through the client library of its kind. Each is skipped where it is not installed.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use stint_model::clock::{Clock as _, SystemClock};
use stint_model::histogram::{BucketSpan, FloatHistogram, Histogram, IntegerHistogram, ResetHint};
use stint_model::{Sample, Timestamp, Value as ModelValue};
use stint_wire::remote_write::v1;
use stint_wire::snappy::compress_into;

use crate::peers::{program, prometheus_3};
use crate::process::{Running, free_address};
use crate::senders::Receiver;

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

fn now() -> i64 {
    SystemClock::new().now().0
}

/// Numbers, and native histograms of every kind that all versions know.
fn written(now: i64) -> Vec<u8> {
    let span = |offset, length| BucketSpan { offset, length };
    let counter = IntegerHistogram {
        schema: 3,
        zero_threshold: 0.001,
        zero_count: 2,
        count: 12,
        sum: 18.4,
        positive_spans: vec![span(0, 2), span(3, 1)],
        positive_deltas: vec![1, 1, 3],
        negative_spans: vec![span(-4, 1)],
        negative_deltas: vec![2],
        ..IntegerHistogram::default()
    };
    let gauge = FloatHistogram {
        reset_hint: ResetHint::Gauge,
        schema: -1,
        zero_threshold: 1e-128,
        zero_count: 0.5,
        count: 4.25,
        sum: -3.5,
        positive_spans: vec![span(1, 1)],
        positive_buckets: vec![1.25],
        negative_spans: vec![span(0, 2)],
        negative_buckets: vec![1.5, 1.0],
        ..FloatHistogram::default()
    };
    let mut encoder = v1::Encoder::new();
    let mut series = |labels: &[(&str, &str)], samples: &[(i64, Option<Histogram>)]| {
        let mut encoded = encoder.series(labels.iter().copied());
        for (back, histogram) in samples {
            let at = Timestamp(now - back);
            encoded.sample(&match histogram {
                None => Sample::float(at, 1.0 / 3.0),
                Some(histogram) => Sample {
                    value: ModelValue::Histogram(Arc::new(histogram.clone())),
                    ..Sample::float(at, 0.0)
                },
            });
        }
    };
    let (counter, gauge) = (Histogram::Integer(counter), Histogram::Float(gauge));
    series(&[("__name__", "a.dotted"), ("b.c", "é\"\\\n")], &[(3000, None)]);
    series(&[("__name__", "both"), ("kind", "1 number")], &[(2000, None), (1000, None)]);
    series(&[("__name__", "both"), ("kind", "2 histogram")], &[(1000, Some(counter.clone()))]);
    series(&[("__name__", "both"), ("kind", "3 gauge")], &[(1000, Some(gauge))]);
    series(&[("__name__", "both"), ("kind", "4 number")], &[(1000, None)]);
    series(&[("__name__", "h"), ("instance", "i")], &[(2000, Some(counter.clone()))]);
    series(&[("__name__", "h"), ("zone", "own")], &[(1500, Some(counter))]);
    let mut body = Vec::new();
    compress_into(encoder.body(), &mut body).unwrap();
    body
}

async fn send(address: &str, body: Vec<u8>) {
    let request = reqwest::Client::new()
        .post(format!("http://{address}/api/v1/write"))
        .header("Content-Encoding", "snappy")
        .header("Content-Type", "application/x-protobuf")
        .header("X-Prometheus-Remote-Write-Version", "0.1.0")
        .body(body);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

async fn until_ready(address: &str) {
    // Foreign processes offer no event to wait for: ask until the answer is there.
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..600 {
        tick.tick().await;
        let answer = reqwest::get(format!("http://{address}/-/ready")).await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
    }
    panic!("{address} is not ready within a minute");
}

async fn query(address: &str, query: &str) -> Json {
    let url = format!("http://{address}/api/v1/query");
    let answer = reqwest::Client::new().post(url).form(&[("query", query)]).send().await.unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// Result of a query, by the text of its labels, once it is not empty.
async fn some(address: &str, text: &str) -> Vec<Json> {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..600 {
        tick.tick().await;
        let answer = query(address, text).await;
        let found = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        if !found.is_empty() {
            return found;
        }
    }
    panic!("{text} has no result at {address}");
}

struct Prometheus {
    address: String,
    _running: Running,
}

impl Prometheus {
    fn start(program: &std::path::Path, beside: &Receiver, config: &str) -> Self {
        let address = free_address();
        let file = beside.file("peer.yml", config);
        let running = Running::start(
            Command::new(program)
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", beside.dir.path().join("peer").display()))
                .arg(format!("--web.listen-address={address}"))
                .args(["--web.enable-remote-write-receiver", "--enable-feature=native-histograms"]),
        );
        Self { address, _running: running }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn federation_is_that_of_a_real_prometheus_byte_by_byte() {
    let Some(prometheus) = prometheus_3() else {
        eprintln!("skipped: prometheus 3 is not installed");
        return;
    };
    let config = "global: {external_labels: {zone: z, Abc: d}}\n";
    let stint = Receiver::start(config);
    let peer = Prometheus::start(&prometheus, &stint, config);
    let body = written(now());
    for address in [&stint.address, &peer.address] {
        until_ready(address).await;
        send(address, body.clone()).await;
    }
    let mut sizes = Vec::new();
    for accept in [
        PROTOBUF.to_owned(),
        format!("{PROTOBUF};escaping=allow-utf-8"),
        format!("{PROTOBUF};escaping=dots"),
        format!("{PROTOBUF};escaping=values"),
        format!("{PROTOBUF};q=0.1, text/plain;version=0.0.4;q=0.2"),
        format!("text/plain;q=0.2,{PROTOBUF};q=0.3"),
        format!("application/openmetrics-text;version=1.0.0,{PROTOBUF};q=0.3"),
        PROTOBUF.replace("io.prometheus.client.MetricFamily", "other"),
        "text/plain;version=0.0.4;escaping=allow-utf-8".to_owned(),
        "*/*".to_owned(),
    ] {
        let mut answers = Vec::new();
        for address in [&peer.address, &stint.address] {
            let url = format!("http://{address}/federate?match[]={{__name__=~\"a.*|both|h\"}}");
            let answer = reqwest::Client::new().get(url).header("Accept", &accept).send().await;
            let answer = answer.unwrap();
            let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
            let status = answer.status().as_u16();
            answers.push((status, kind, answer.bytes().await.unwrap()));
        }
        assert_eq!(answers[1], answers[0], "{accept}");
        sizes.push(answers[0].2.len());
    }
    // The formats differ, and none is empty.
    assert!(sizes[0] > sizes[9] && sizes[9] > 100, "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_federates_and_reads_remotely() {
    let Some(prometheus) = prometheus_3() else {
        eprintln!("skipped: prometheus 3 is not installed");
        return;
    };
    let stint = Receiver::start("");
    until_ready(&stint.address).await;
    let at = now();
    send(&stint.address, written(at)).await;
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: federate\n  honor_labels: true\n  \
         metrics_path: /federate\n  scrape_protocols: [PrometheusProto]\n  \
         params: {{'match[]': ['{{__name__=~\"both|h\"}}']}}\n  static_configs: [{{targets: ['{0}']}}]\n",
        stint.address
    );
    let federating = Prometheus::start(&prometheus, &stint, &config);
    let reads = Receiver::start("");
    let reading = Prometheus::start(
        &prometheus,
        &reads,
        &format!(
            "remote_read:\n- {{url: 'http://{}/api/v1/read', read_recent: true}}\n",
            stint.address
        ),
    );
    until_ready(&reading.address).await;
    let seconds = at as f64 / 1000.0;
    let same = |one: &Json, other: &Json| {
        assert_eq!(one["value"][1], other["value"][1]);
        assert_eq!(one["histogram"][1], other["histogram"][1]);
    };
    for text in [
        "both{kind=\"1 number\"}",
        "both{kind=\"2 histogram\"}",
        "both{kind=\"3 gauge\"}",
        "h{instance=\"i\"}",
    ] {
        let text = format!("{text} @ {seconds}");
        let ours = some(&stint.address, &text).await;
        for other in [&federating, &reading] {
            let theirs = some(&other.address, &text).await;
            assert_eq!((ours.len(), theirs.len()), (1, 1), "{text} {theirs:?}");
            same(&ours[0], &theirs[0]);
        }
    }
    let mut all = some(&reading.address, &format!("count({{__name__!=\"\"}} @ {seconds})")).await;
    assert_eq!(all.remove(0)["value"][1], "7");
    let up = some(&federating.address, "up{job=\"federate\"} == 1").await;
    assert_eq!(up.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_vmalert_evaluates_rules_and_writes_their_results() {
    let Some(vmalert) = program("vmalert") else {
        eprintln!("skipped: vmalert is not installed");
        return;
    };
    let stint = Receiver::start("");
    until_ready(&stint.address).await;
    send(&stint.address, written(now())).await;
    let rules = stint.file(
        "rules.yml",
        "groups:\n- name: g\n  interval: 1s\n  rules:\n\
         \x20 - {record: 'kind:both:count', expr: 'count by (kind) (both)', labels: {by: vmalert}}\n\
         \x20 - {alert: Both, expr: 'absent(nothing) > 0', labels: {severity: page}}\n\
         \x20 - {record: 'parts', expr: 'sum(last_over_time(both{kind=\"1 number\"}[1h])) / 2'}\n",
    );
    let to = format!("http://{}", stint.address);
    let _vmalert = Running::start(
        Command::new(vmalert)
            .arg(format!("-rule={}", rules.display()))
            .arg(format!("-datasource.url={to}"))
            .arg(format!("-remoteWrite.url={to}"))
            .arg(format!("-remoteRead.url={to}"))
            .arg(format!("-httpListenAddr={}", free_address()))
            .args(["-remoteWrite.flushInterval=500ms", "-notifier.blackhole"]),
    );
    some(&stint.address, "count(kind:both:count{by=\"vmalert\"} == 1) == 4").await;
    let firing = some(&stint.address, "ALERTS{alertname=\"Both\",alertstate=\"firing\"}").await;
    assert_eq!(firing[0]["metric"]["severity"], "page");
    let parts = some(&stint.address, "parts").await;
    assert_eq!(parts[0]["value"][1], (1.0 / 6.0_f64).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_library_finds_what_it_asks_for() {
    let python = program("python3").filter(|python| {
        let found = Command::new(python).args(["-c", "import prometheus_api_client"]).output();
        found.is_ok_and(|found| found.status.success())
    });
    let Some(python) = python else {
        eprintln!("skipped: python3 with prometheus-api-client is not installed");
        return;
    };
    let stint = Receiver::start("");
    until_ready(&stint.address).await;
    let at = now();
    send(&stint.address, written(at)).await;
    let script = r#"
import json, sys
from datetime import datetime, timedelta
from prometheus_api_client import PrometheusConnect
to = PrometheusConnect(url=sys.argv[1], disable_ssl=True)
assert to.check_prometheus_connection()
names = to.all_metrics()
assert set(names) == {"a.dotted", "both", "h"}, names
assert "kind" in to.get_label_names()
assert to.get_label_values("kind")[0] == "1 number"
now = to.get_current_metric_value("both", label_config={"kind": "1 number"})
assert len(now) == 1 and float(now[0]["value"][1]) == 1 / 3, now
end = datetime.fromtimestamp(int(sys.argv[2]) / 1000 + 1)
past = to.get_metric_range_data("both{kind='1 number'}", start_time=end - timedelta(minutes=5),
                                end_time=end, chunk_size=timedelta(minutes=1))
assert sum(len(one["values"]) for one in past) == 2, past
points = to.custom_query_range("count(both)", start_time=end - timedelta(minutes=2), end_time=end, step="1s")
assert points and points[0]["values"], points
try:
    to.custom_query("sum(")
except Exception as error:
    assert "400" in str(error), error
else:
    raise SystemExit("a broken query was answered")
print("done")
"#;
    let url = format!("http://{}", stint.address);
    let said = tokio::task::spawn_blocking(move || {
        Command::new(python).args(["-c", script, &url, &at.to_string()]).output().unwrap()
    });
    let said = said.await.unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "done\n", "{text}");
}
