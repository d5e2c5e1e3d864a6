//! Real programs as sources: Prometheus and vmagent send by remote write, programs with the client libraries for Python
//! and Node are scraped, one with the OpenTelemetry SDK exports over HTTP and gRPC. Each is skipped where it is not
//! installed: servers are looked for on the path, libraries in the folder that `STINT_CLIENTS` names, where `.ci/clients` puts
//! them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::peers::{program, prometheus_3};
use crate::process::{Running, free_address};
use crate::support::TestDir;

/// What each test starts first: a server that receives.
pub(crate) struct Receiver {
    pub(crate) dir: TestDir,
    pub(crate) address: String,
    _running: Running,
}

impl Receiver {
    pub(crate) fn start(config: &str) -> Self {
        Self::with(config, &[])
    }

    fn with(config: &str, flags: &[String]) -> Self {
        let dir = TestDir::new();
        let address = free_address();
        let file = dir.path().join("stint.yml");
        std::fs::write(&file, config).unwrap();
        let running = Running::start(
            Command::new(env!("CARGO_BIN_EXE_stint"))
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--web.enable-remote-write-receiver")
                .args(flags),
        );
        Self { dir, address, _running: running }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    /// The value of a query, once it is at least `least`.
    pub(crate) async fn at_least(&self, query: &str, least: f64) -> f64 {
        // Foreign processes offer no event to wait for: ask until the answer is there.
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..600 {
            tick.tick().await;
            let found = value(&self.address, query).await;
            if let Some(found) = found.filter(|found| *found >= least) {
                return found;
            }
        }
        panic!("{query} never became {least}");
    }

    async fn text(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.address);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }
}

async fn value(server: &str, query: &str) -> Option<f64> {
    let url = format!("http://{server}/api/v1/query");
    let answer = reqwest::Client::new().post(url).form(&[("query", query)]).send().await.ok()?;
    let answer: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
}

/// No request was answered with anything but success.
async fn assert_all_were_stored(receiver: &Receiver) {
    let text = receiver.text("/metrics").await;
    let requests = "stint_receive_remote_write_requests_total{code=";
    let codes: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(requests)).collect();
    let good = codes.iter().all(|line| line.starts_with("\"204\""));
    assert!(!codes.is_empty() && good, "{codes:?}");
}

async fn prometheus_sends(message: &str) {
    let Some(prometheus) = prometheus_3() else {
        eprintln!("skipped: prometheus 3 is not installed");
        return;
    };
    let receiver = Receiver::start("");
    let (at, to) = (free_address(), &receiver.address);
    let config = receiver.file(
        "sender.yml",
        &format!(
            "global: {{scrape_interval: 1s, external_labels: {{sender: prometheus}}}}\n\
             scrape_configs: [{{job_name: itself, static_configs: [{{targets: ['{at}']}}]}}]\n\
             remote_write:\n- url: http://{to}/api/v1/write\n  protobuf_message: {message}\n  \
             send_native_histograms: true\n  queue_config: {{batch_send_deadline: 100ms}}\n",
        ),
    );
    let _sender = Running::start(
        Command::new(prometheus)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", receiver.dir.path().join("sender").display()))
            .arg(format!("--web.listen-address={at}"))
            .arg("--enable-feature=native-histograms,exemplar-storage"),
    );
    receiver.at_least("count_over_time(up{sender=\"prometheus\"}[1m])", 3.0).await;
    // Its histograms are native ones.
    let native = "histogram_count(prometheus_http_request_duration_seconds{handler=\"/metrics\"})";
    receiver.at_least(native, 1.0).await;
    let here = receiver.at_least("count({sender=\"prometheus\",job=\"itself\"})", 100.0).await;
    let there = value(&at, "count({job=\"itself\"})").await.unwrap();
    assert!((here - there).abs() <= 0.1 * there, "{here} series here, {there} there");
    assert_all_were_stored(&receiver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_sends_version_1() {
    prometheus_sends("prometheus.WriteRequest").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_sends_version_2() {
    prometheus_sends("io.prometheus.write.v2.Request").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_vmagent_sends() {
    let Some(vmagent) = program("vmagent") else {
        eprintln!("skipped: vmagent is not installed");
        return;
    };
    let receiver = Receiver::start("");
    let (at, to) = (free_address(), &receiver.address);
    let config = receiver.file(
        "scrape.yml",
        &format!("global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: agent, static_configs: [{{targets: ['{at}']}}]}}]\n"),
    );
    let _sender = Running::start(
        Command::new(vmagent)
            .arg(format!("-promscrape.config={}", config.display()))
            .arg(format!("-remoteWrite.url=http://{to}/api/v1/write"))
            .arg(format!(
                "-remoteWrite.tmpDataPath={}",
                receiver.dir.path().join("agent").display()
            ))
            .arg("-remoteWrite.flushInterval=200ms")
            .arg("-remoteWrite.forcePromProto=true")
            .arg(format!("-httpListenAddr={at}")),
    );
    receiver.at_least("count_over_time(up{job=\"agent\"}[1m])", 3.0).await;
    receiver.at_least("count({job=\"agent\"})", 100.0).await;
    assert_all_were_stored(&receiver).await;
}

/// Exposes one metric of each kind until it is killed.
const PYTHON: &str = r#"
import sys, time
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary, start_http_server
Counter("work_done", "Work.", ["kind"]).labels('a"b\\c').inc(3, exemplar={"trace_id": "abc"})
Gauge("room", "Room.", unit="bytes").set(2.5)
histogram = Histogram("took", "Time.", buckets=[0.1, 1])
for value in 0.05, 0.5, 5: histogram.observe(value)
Summary("size", "Size.").observe(7)
Info("build", "Build.").info({"version": "1"})
Enum("state", "State.", states=["on", "off"]).state("off")
start_http_server(int(sys.argv[1]), addr="127.0.0.1")
time.sleep(600)
"#;

/// Where `.ci/clients` put what it installed.
fn clients() -> Option<PathBuf> {
    std::env::var_os("STINT_CLIENTS").map(PathBuf::from)
}

/// A Python that has `module`.
fn python_with(module: &str) -> Option<PathBuf> {
    let installed = clients().map(|folder| folder.join("venv/bin/python3"));
    let found = installed.into_iter().chain(program("python3")).find(|python| {
        let found = Command::new(python).args(["-c", &format!("import {module}")]).output();
        found.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("skipped: python3 has no {module}");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_python_client_exposes_is_stored() {
    let Some(python) = python_with("prometheus_client") else { return };
    let target = free_address();
    let port = target.rsplit_once(':').unwrap().1.to_owned();
    let _target = Running::start(Command::new(python).args(["-c", PYTHON, &port]));
    let receiver = Receiver::start(&format!(
        "global: {{scrape_interval: 1s, convert_classic_histograms_to_nhcb: true, always_scrape_classic_histograms: true}}\n\
         scrape_configs: [{{job_name: py, static_configs: [{{targets: ['{target}']}}]}}]\n",
    ));
    receiver.at_least("up{job=\"py\"}", 1.0).await;
    for (query, expected) in [
        (r#"work_done_total{kind="a\"b\\c"}"#, 3.0),
        ("room_bytes", 2.5),
        (r#"took_bucket{le="0.1"}"#, 1.0),
        (r#"took_bucket{le="+Inf"}"#, 3.0),
        ("histogram_count(took)", 3.0),
        ("histogram_sum(took)", 5.55),
        ("size_sum", 7.0),
        (r#"build_info{version="1"}"#, 1.0),
        (r#"state{state="off"}"#, 1.0),
    ] {
        assert_eq!(value(&receiver.address, query).await, Some(expected), "{query}");
    }
    let metadata = receiver.text("/api/v1/metadata?metric=room_bytes").await;
    assert!(metadata.contains(r#""type":"gauge","#) && metadata.contains("bytes"), "{metadata}");
    let exemplars = receiver
        .text("/api/v1/query_exemplars?query=work_done_total&start=0&end=99999999999")
        .await;
    assert!(exemplars.contains("trace_id"), "{exemplars}");
}

/// Exposes one metric of each kind until it is killed; OpenMetrics, which has exemplars, where the second argument says so.
const NODE: &str = r#"
const http = require("http"), client = require("prom-client");
const registry = new client.Registry();
const isOpenMetrics = process.argv[2] === "openmetrics";
if (isOpenMetrics) registry.setContentType(client.Registry.OPENMETRICS_CONTENT_TYPE);
const registers = [registry], labels = {kind: 'a"b\\c\n'};
const counter = {name: "work_done", help: "Work.", labelNames: ["kind"], registers, enableExemplars: isOpenMetrics};
if (isOpenMetrics) new client.Counter(counter).inc({labels, value: 3, exemplarLabels: {trace_id: "abc"}});
else new client.Counter(counter).inc(labels, 3);
new client.Gauge({name: "room", help: "Room.", registers}).set(2.5);
const histogram = new client.Histogram({name: "took", help: "Time.", buckets: [0.1, 1], registers});
for (const value of [0.05, 0.5, 5]) histogram.observe(value);
new client.Summary({name: "size", help: "Size.", percentiles: [0.5], registers}).observe(7);
client.collectDefaultMetrics({register: registry});
http.createServer(async (request, response) => {
  response.setHeader("Content-Type", registry.contentType);
  response.end(await registry.metrics());
}).listen(Number(process.argv[1]), "127.0.0.1");
"#;

async fn node_is_scraped(format: &str, counter: &str) {
    let modules = clients().map(|folder| folder.join("node_modules"));
    let modules = modules.filter(|folder| folder.join("prom-client").is_dir());
    let installed = clients().map(|folder| folder.join("venv/bin/node"));
    let node = program("node").or(installed.filter(|node| node.is_file()));
    let (Some(node), Some(modules)) = (node, modules) else {
        eprintln!("skipped: node has no prom-client");
        return;
    };
    let target = free_address();
    let port = target.rsplit_once(':').unwrap().1.to_owned();
    let _target = Running::start(
        Command::new(node).env("NODE_PATH", modules).args(["-e", NODE, &port, format]),
    );
    let receiver = Receiver::start(&format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: js, static_configs: [{{targets: ['{target}']}}]}}]\n",
    ));
    receiver.at_least("up{job=\"js\"}", 1.0).await;
    for (query, expected) in [
        (&*format!(r#"{counter}{{kind="a\"b\\c\n"}}"#), 3.0),
        ("room", 2.5),
        (r#"took_bucket{le="0.1"}"#, 1.0),
        (r#"took_bucket{le="+Inf"}"#, 3.0),
        ("took_sum", 5.55),
        (r#"size{quantile="0.5"}"#, 7.0),
        ("nodejs_version_info > bool 0", 1.0),
    ] {
        assert_eq!(value(&receiver.address, query).await, Some(expected), "{query}");
    }
    let path = format!("/api/v1/query_exemplars?query={counter}&start=0&end=99999999999");
    let exemplars = receiver.text(&path).await;
    assert_eq!(exemplars.contains("trace_id"), format == "openmetrics", "{exemplars}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_node_client_exposes_is_stored() {
    node_is_scraped("text", "work_done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_node_client_exposes_as_openmetrics_is_stored() {
    node_is_scraped("openmetrics", "work_done_total").await;
}

/// Exports one metric of each kind twice, and fails when an export did. The second time more was counted.
const OPENTELEMETRY: &str = r#"
import sys
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
way, endpoint, temporality = sys.argv[1:]
delta = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA} if temporality == "delta" else None
if way == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    exporter = OTLPMetricExporter(endpoint=endpoint, insecure=True, preferred_temporality=delta)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    exporter = OTLPMetricExporter(endpoint=endpoint, compression=Compression.Gzip, preferred_temporality=delta)
results = []
export = exporter.export
def noted(*arguments, **more):
    results.append(export(*arguments, **more))
    return results[-1]
exporter.export = noted
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
provider = MeterProvider(
    [reader],
    resource=Resource.create({"service.name": "shop", "service.namespace": "eu", "service.instance.id": "7", "host.name": "h"}),
    views=[View(instrument_name="waited", aggregation=ExponentialBucketHistogramAggregation())],
)
meter = provider.get_meter("m", "1")
orders, open_ = meter.create_counter("orders"), meter.create_up_down_counter("open")
took, waited = meter.create_histogram("took", unit="s"), meter.create_histogram("waited", unit="s")
meter.create_observable_gauge("room", callbacks=[lambda _: [Observation(2.5, {"where": "ü"})]], unit="By")
for count in 3, 4:
    orders.add(count, {"kind.of": "a"})
    open_.add(-count)
    took.record(0.3), waited.record(count)
    provider.force_flush()
provider.shutdown()
good = len(results) >= 2 and all(result is MetricExportResult.SUCCESS for result in results)
sys.exit(0 if good else f"exports: {results}")
"#;

async fn opentelemetry_exports(way: &str, temporality: &str) {
    let module = format!("opentelemetry.exporter.otlp.proto.{way}.metric_exporter");
    let Some(python) = python_with(&module) else { return };
    let (grpc, http) = (free_address(), free_address());
    let flags = [
        format!("--otlp.grpc-listen-address={grpc}"),
        format!("--otlp.http-listen-address={http}"),
    ];
    let receiver = Receiver::with("", &flags);
    // It answers once it listens everywhere.
    receiver.at_least("vector(1)", 1.0).await;
    let endpoint = if way == "grpc" { grpc } else { format!("http://{http}/v1/metrics") };
    let exported = tokio::task::spawn_blocking({
        let (way, temporality) = (way.to_owned(), temporality.to_owned());
        move || {
            let mut command = Command::new(python);
            command.args(["-c", OPENTELEMETRY, &way, &endpoint, &temporality]);
            command.env("no_proxy", "*").output().unwrap()
        }
    });
    let exported = exported.await.unwrap();
    let said = String::from_utf8_lossy(&exported.stderr);
    assert!(exported.status.success(), "{said}");
    let identity = r#"job="eu/shop",instance="7""#;
    for (query, expected) in [
        (&*format!("orders_total{{kind_of=\"a\",{identity}}}"), 7.0),
        (&format!("open{{{identity}}}"), -7.0),
        (&format!("room_bytes{{where=\"ü\",{identity}}}"), 2.5),
        (&format!("took_seconds_count{{{identity}}}"), 2.0),
        (&format!("took_seconds_bucket{{le=\"5\",{identity}}}"), 2.0),
        (&format!("histogram_count(waited_seconds{{{identity}}})"), 2.0),
        (&format!("histogram_sum(waited_seconds{{{identity}}})"), 7.0),
        (&format!("target_info{{host_name=\"h\",{identity}}}"), 1.0),
    ] {
        assert_eq!(value(&receiver.address, query).await, Some(expected), "{query}\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_opentelemetry_exports_over_grpc_is_stored() {
    opentelemetry_exports("grpc", "cumulative").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_opentelemetry_exports_over_http_is_stored() {
    opentelemetry_exports("http", "cumulative").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_opentelemetry_exports_as_differences_is_summed_up() {
    opentelemetry_exports("http", "delta").await;
}
