//! The main job against real peers: a real `node_exporter` is scraped, a real Prometheus or VictoriaMetrics receives the
//! remote write, and the process is killed with -9 in between. Afterwards both sides hold the same samples.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Running, free_address};

/// Series → time in milliseconds → value as printed.
type Stored = BTreeMap<String, BTreeMap<i64, String>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_holds_what_was_scraped_across_a_kill() {
    let folder = Folder::new("prometheus");
    let empty = folder.write("receiver.yml", "global: {}\n");
    let start = |command: &mut Command, address: &str| {
        Running::start(
            command
                .arg(format!("--config.file={}", empty.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path.join("receiver").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--web.enable-remote-write-receiver"),
        )
    };
    let same = |here: &str, there: &str| here == there;
    holds_what_was_scraped(&folder, "prometheus", start, same).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_victoria_metrics_holds_what_was_scraped_across_a_kill() {
    let folder = Folder::new("victoria");
    let start = |command: &mut Command, address: &str| {
        Running::start(
            command
                .arg(format!("-storageDataPath={}", folder.path.join("receiver").display()))
                .arg(format!("-httpListenAddr={address}"))
                .arg("-search.latencyOffset=0s"),
        )
    };
    // It keeps some twelve digits.
    let same = |here: &str, there: &str| match (here.parse::<f64>(), there.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.to_bits() == b.to_bits() || (a - b).abs() <= a.abs() * 1e-11,
        _ => false,
    };
    holds_what_was_scraped(&folder, "victoria-metrics", start, same).await;
}

/// Scrapes a real exporter, is killed with -9 in between, and compares what both sides hold.
async fn holds_what_was_scraped(
    folder: &Folder,
    receiver: &str,
    start_receiver: impl Fn(&mut Command, &str) -> Running,
    same: impl Fn(&str, &str) -> bool,
) {
    let (Some(receiver), Some(exporter)) = (program(receiver), program("prometheus-node-exporter"))
    else {
        eprintln!("skipped: {receiver} and prometheus-node-exporter are not both installed");
        return;
    };
    let (exporter_at, receiver_at, stint_at) = (free_address(), free_address(), free_address());
    let _exporter =
        Running::start(Command::new(exporter).arg(format!("--web.listen-address={exporter_at}")));
    let _receiver = start_receiver(&mut Command::new(receiver), &receiver_at);
    let config = folder.write(
        "prometheus.yml",
        &format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  external_labels: {{origin: stint}}\n\
             scrape_configs:\n- job_name: node\n  static_configs:\n  - targets: ['{exporter_at}']\n\
             remote_write:\n- url: http://{receiver_at}/api/v1/write\n  queue_config: {{batch_send_deadline: 500ms}}\n",
        ),
    );
    let start = || {
        Running::start(
            Command::new(env!("CARGO_BIN_EXE_stint"))
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path.join("data").display()))
                .arg(format!("--web.listen-address={stint_at}")),
        )
    };

    let first = start();
    let before = wait_for_scrapes(&receiver_at, 3).await;
    first.kill_9();
    let _second = start();
    wait_for_scrapes(&receiver_at, before + 4).await;

    // A scrape that has just happened may still be on its way, or not be shown yet: compare up to a little before the
    // newest sample that the receiver holds.
    let received = stored(&receiver_at, r#"{origin="stint"}[5m]"#).await;
    let newest = received.values().filter_map(|samples| samples.keys().max()).max().copied();
    let newest = newest.expect("scrapes were awaited above") - 3000;
    let upto = |all: Stored| -> Stored {
        let cut = |samples: BTreeMap<i64, String>| -> BTreeMap<i64, String> {
            samples.into_iter().filter(|(at, _)| *at < newest).collect()
        };
        let kept = all.into_iter().map(|(series, samples)| (series, cut(samples)));
        kept.filter(|(_, samples)| !samples.is_empty()).collect()
    };
    let here = upto(stored(&stint_at, r#"{job="node"}[5m]"#).await);
    let there = upto(received);
    assert!(here.len() > 100, "a node_exporter has hundreds of series, not {}", here.len());
    for (series, samples) in &here {
        let none = BTreeMap::new();
        let other = there.get(series).unwrap_or(&none);
        assert!(samples.keys().eq(other.keys()), "times of {series}: {samples:?} and {other:?}");
        let differ = samples.values().zip(other.values()).find(|(a, b)| !same(a, b));
        assert_eq!(differ, None, "values of {series}");
    }
    assert_eq!(there.len(), here.len(), "the receiver holds series that were never stored here");
}

/// Waits until the receiver holds at least `count` scrapes; says how many it holds.
async fn wait_for_scrapes(receiver: &str, count: usize) -> usize {
    let query = r#"count_over_time(up{origin="stint"}[5m])"#;
    // Foreign processes offer no event to wait for: ask until the answer is there.
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..600 {
        tick.tick().await;
        let Some(answer) = ask(receiver, query).await else { continue };
        let value = answer.pointer("/data/result/0/value/1").and_then(Value::as_str);
        let held = value.and_then(|value| value.parse().ok()).unwrap_or(0);
        if held >= count {
            return held;
        }
    }
    panic!("the receiver did not get {count} scrapes within a minute");
}

/// Every raw sample that a range selector finds now, without the label that tells the sender.
async fn stored(server: &str, selector: &str) -> Stored {
    let answer = ask(server, selector).await.expect("the server answers");
    let mut stored = Stored::new();
    for series in answer.pointer("/data/result").and_then(Value::as_array).expect("a matrix") {
        let mut labels: BTreeMap<String, Value> =
            serde_json::from_value(series["metric"].clone()).expect("labels");
        labels.remove("origin");
        let samples = series["values"].as_array().expect("values").iter();
        let samples = samples.map(|pair| {
            let seconds = pair[0].as_f64().expect("a time");
            ((seconds * 1000.0).round() as i64, pair[1].as_str().expect("a value").to_owned())
        });
        stored.insert(serde_json::to_string(&labels).expect("JSON"), samples.collect());
    }
    stored
}

async fn ask(server: &str, query: &str) -> Option<Value> {
    let url = format!("http://{server}/api/v1/query");
    let answer = reqwest::Client::new().post(url).form(&[("query", query)]).send().await.ok()?;
    serde_json::from_str(&answer.text().await.ok()?).ok()
}

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Prometheus on the path, if it is of version 3: older ones know fewer options, features and answers.
pub(crate) fn prometheus_3() -> Option<PathBuf> {
    let is_new = |program: &PathBuf| {
        let said = Command::new(program).arg("--version").output();
        said.is_ok_and(|said| said.stdout.starts_with(b"prometheus, version 3."))
    };
    program("prometheus").filter(is_new)
}

/// A temporary folder that goes with the test.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("peers-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target folder is writable");
        Self { path }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path.join(name);
        fs::write(&file, text).expect("writable");
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).expect("nobody else uses it");
    }
}
