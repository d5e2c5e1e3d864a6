//! Real programs as sources: Prometheus and vmagent send by remote write, a program with the Python client library is
//! scraped. Each is skipped where it is not installed.

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
        let dir = TestDir::new();
        let address = free_address();
        let file = dir.path().join("stint.yml");
        std::fs::write(&file, config).unwrap();
        let running = Running::start(
            Command::new(env!("CARGO_BIN_EXE_stint"))
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--web.enable-remote-write-receiver"),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_python_client_exposes_is_stored() {
    let python = program("python3").filter(|python| {
        let found = Command::new(python).args(["-c", "import prometheus_client"]).output();
        found.is_ok_and(|output| output.status.success())
    });
    let Some(python) = python else {
        eprintln!("skipped: python3 has no prometheus_client");
        return;
    };
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
