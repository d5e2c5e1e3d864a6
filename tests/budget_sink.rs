//! `loadgen sink` of the benchmarks as an independent judge: it knows nothing of this program's code, counts
//! active series, repeated and backward times and gaps in scrapes, refuses series beyond its limit, limits
//! the rate, and fails for a while. `STINT_LOADGEN` names the program; without it the test says that it is
//! skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value as Json;

use crate::process::{Running, free_address};
use crate::support::TestDir;

/// Targets, and series of each beside those of the scrape itself.
const TARGETS: usize = 20;
const SERIES: usize = 60;

struct World {
    dir: TestDir,
    stint: String,
    targets: String,
    sink: String,
    http: reqwest::Client,
    _targets: Running,
    _sink: Running,
}

fn loadgen() -> Option<PathBuf> {
    let found = std::env::var_os("STINT_LOADGEN").map(PathBuf::from).filter(|it| it.is_file());
    if found.is_none() {
        eprintln!("skipped: STINT_LOADGEN does not name a loadgen");
    }
    found
}

impl World {
    /// Targets and a sink with these options.
    fn new(loadgen: &Path, sink_options: &[&str]) -> Self {
        let (stint, targets, sink) = (free_address(), free_address(), free_address());
        let (count, series) = (TARGETS.to_string(), SERIES.to_string());
        let of_targets = [
            "serve",
            "--listen",
            &targets,
            "--targets",
            &count,
            "--series",
            &series,
            "--interval",
            "1s",
        ];
        let serves = Running::start(Command::new(loadgen).args(of_targets));
        let options = [&["sink", "--listen", &sink], sink_options].concat();
        let sinks = Running::start(Command::new(loadgen).args(options));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let dir = TestDir::new();
        Self { dir, stint, targets, sink, http, _targets: serves, _sink: sinks }
    }

    /// Writes both configurations; each target is scraped once a second.
    fn configure(&self, budget: &str) {
        let targets: Vec<String> = (0..TARGETS)
            .map(|n| {
                format!("{{targets: ['{}'], labels: {{__metrics_path__: /target/{n}/metrics, instance: 't{n}'}}}}", self.targets)
            })
            .collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n- job_name: load\n  static_configs: [{}]\n\
             remote_write:\n- name: sink\n  url: http://{}/api/v1/write\n\
             \x20 queue_config: {{batch_send_deadline: 100ms, max_samples_per_send: 500}}\n",
            targets.join(", "),
            self.sink
        );
        std::fs::write(self.dir.path().join("prometheus.yml"), config).unwrap();
        std::fs::write(self.dir.path().join("retention.toml"), budget).unwrap();
        // An empty ledger: an earlier run sent nothing, so that all slots may be used at once.
        let ledger = [b"STLEDGR2LREC".as_slice(), &[0; 8]].concat();
        let folder = self.dir.path().join("data/forward/sink");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ledger"), ledger).unwrap();
    }

    fn start(&self) -> Running {
        Running::start(
            Command::new(env!("CARGO_BIN_EXE_stint"))
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .arg(format!("--web.listen-address={}", self.stint))
                .current_dir(self.dir.path()),
        )
    }

    async fn json(&self, address: &str, path: &str) -> Option<Json> {
        let answer = self.http.get(format!("http://{address}{path}")).send().await.ok()?;
        serde_json::from_str(&answer.text().await.ok()?).ok()
    }

    async fn control(&self, what: &str) {
        let url = format!("http://{}/control?{what}", self.sink);
        assert!(self.http.post(url).send().await.unwrap().status().is_success());
    }

    /// The sink's counts once they are what is waited for. Foreign processes offer no event.
    async fn stats(&self, is_it: impl Fn(&Json) -> bool) -> Json {
        let mut last = Json::Null;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..1800 {
            tick.tick().await;
            let Some(stats) = self.json(&self.sink, "/stats").await else { continue };
            last = stats;
            if is_it(&last) {
                return last;
            }
        }
        panic!("the sink never saw what was waited for: {last}");
    }

    /// The endpoint's part of the report once it is what is waited for.
    async fn report(&self, is_it: impl Fn(&Json) -> bool) -> Json {
        let mut last = Json::Null;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..1800 {
            tick.tick().await;
            let answer = self.json(&self.stint, "/api/v1/status/budget").await;
            let Some(mut report) = answer else { continue };
            last = report["data"]["endpoints"][0].take();
            if !last.is_null() && is_it(&last) {
                return last;
            }
        }
        panic!("the report never said what was waited for: {last}");
    }
}

/// A number of a JSON object.
fn number(of: &Json, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("{name} in {of}"))
}

/// Nothing came twice, back in time, or with a gap, and the labels of all series were sorted.
fn assert_clean(stats: &Json) {
    for name in [
        "same_timestamp",
        "older_than_previous",
        "scrape_seq_gaps",
        "scrape_seq_missing",
        "scrape_seq_backwards",
        "series_with_unsorted_labels",
    ] {
        assert_eq!(number(stats, name), 0, "{name}: {stats}");
    }
}

/// Each sample is in exactly one counter.
fn assert_accounted(report: &Json) {
    let samples = &report["samples"];
    let sum = |name: &str| -> u64 {
        samples[name].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    };
    let settled = number(samples, "sent") + sum("withheld") + sum("refused");
    let rest = number(samples, "too_old") + number(samples, "failed") + number(samples, "pending");
    assert_eq!(number(samples, "read"), settled + rest, "{samples}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_judge_sees_no_series_beyond_the_budget() {
    let Some(loadgen) = loadgen() else { return };
    let world = World::new(&loadgen, &["--max-active", "700"]);
    world.configure("[budget]\nseries = 700\ninterval = '0s'\n");
    let server = world.start();
    let stats = world.stats(|stats| number(stats, "samples_accepted") > 6_000).await;
    assert_eq!(number(&stats, "samples_over_series_limit"), 0, "{stats}");
    let active = number(&stats, "series_active");
    assert!((560..=700).contains(&active), "what there is is used: {stats}");
    let report = world.report(|report| report["samples"]["running"] == true).await;
    assert!(number(&report, "live") >= active && number(&report, "live") <= 700, "{report}");
    assert!(number(&report["samples"]["withheld"], "budget") > 0, "{report}");
    assert_clean(&stats);
    assert_accounted(&report);
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_foreign_judge_takes_less_than_believed_what_it_has_goes_on() {
    let Some(loadgen) = loadgen() else { return };
    let world = World::new(&loadgen, &["--max-active", "300"]);
    world.configure("[budget]\nseries = 700\ninterval = '0s'\n");
    let server = world.start();
    let full = |report: &Json| report["series"]["server"] != "normal";
    world.report(full).await;
    // What it refused was refused once, and is not sent again for an hour.
    // Until it is found which series it has no room for, parts of a request are sent again.
    let accepted = |stats: &Json| number(stats, "samples_accepted");
    let found = accepted(&world.stats(|_| true).await) + 1_500;
    let stats = world.stats(|stats| accepted(stats) > found).await;
    let refused = number(&stats, "samples_over_series_limit");
    let stats = world.stats(|stats| accepted(stats) > found + 2_000).await;
    let again = number(&stats, "samples_over_series_limit");
    assert!(refused > 0 && again == refused, "{refused} refused, then {again}");
    assert!(number(&stats, "series_active") <= 300, "{stats}");
    let report = world.report(full).await;
    assert!(!report["series"]["refused_examples"].as_array().unwrap().is_empty(), "{report}");
    assert_accounted(&report);
    assert_eq!(number(&stats, "older_than_previous"), 0, "{stats}");
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_judge_that_was_away_and_slow_misses_nothing() {
    let Some(loadgen) = loadgen() else { return };
    let world = World::new(&loadgen, &[]);
    world.configure("[budget]\nenabled = false\n");
    let server = world.start();
    world.stats(|stats| number(stats, "samples_accepted") > 3_000).await;
    world.control("outage=6s").await;
    let failing = |stats: &Json| !stats["status"]["503"].is_null();
    world.stats(failing).await;
    // When it is back, it takes little more than comes.
    world.control("rate=2500").await;
    let limited = |stats: &Json| !stats["status"]["429"].is_null();
    world.stats(limited).await;
    world.control("rate=0").await;
    let done = |report: &Json| {
        let samples = &report["samples"];
        samples["lag_secs"].as_f64().is_some_and(|lag| lag < 2.0)
            && number(samples, "read") > 20_000
    };
    let before = world.report(done).await;
    let stats = world.stats(|_| true).await;
    let after = world.report(|_| true).await;
    assert_clean(&stats);
    for report in [&before, &after] {
        assert_accounted(report);
        let samples = &report["samples"];
        assert_eq!(number(samples, "too_old") + number(samples, "failed"), 0, "{report}");
        assert_eq!(samples["refused"], serde_json::json!({}), "{report}");
    }
    // What is counted as sent had arrived, and what arrived is counted.
    let accepted = number(&stats, "samples_accepted");
    assert!(number(&before["samples"], "sent") <= accepted, "{stats} {before}");
    let samples = &after["samples"];
    assert!(accepted <= number(samples, "sent") + number(samples, "pending"), "{stats} {after}");
    server.terminate();
}
