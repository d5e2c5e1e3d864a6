//! The real program, killed with -9 again and again while it forwards within a series budget: instances
//! are replaced one by one at the limit, and the endpoint counts series as Mimir does, fails, limits the
//! rate, and keeps answers back. What it saw is compared with what is stored here.
//!
//! A few rounds by default; `STINT_LONG=1 cargo test --release --test e2e budget_crash` runs 60 rounds
//! with 10 000 series.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use parking_lot::Mutex;
use serde_json::Value as Json;

use crate::judge::{self, Judge, Mood};
use crate::process::{Running, free_address};
use crate::support::TestDir;

/// Metrics of each instance.
const METRICS: usize = 10;
const INSTANCES: usize = 10;

/// How large the test is.
#[derive(Clone, Copy)]
struct Size {
    rounds: u64,
    /// Series of each metric of an instance.
    per_metric: usize,
    limit: u64,
}

/// The replicas of a service, as one target shows them all.
struct Service {
    size: Size,
    versions: Mutex<[u64; INSTANCES]>,
}

impl Service {
    fn new(size: Size) -> Arc<Self> {
        Arc::new(Self { size, versions: Mutex::new([0; INSTANCES]) })
    }

    /// Replaces an instance by a new one.
    fn deploy(&self, instance: usize) {
        self.versions.lock()[instance % INSTANCES] += 1;
    }

    /// The text of a scrape.
    fn text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (instance, version) in self.versions.lock().iter().enumerate() {
            for metric in 0..METRICS {
                for n in 0..self.size.per_metric {
                    writeln!(
                        text,
                        "web_{metric}{{instance=\"{instance}.{version}\",n=\"{n}\"}} {n}.{instance}"
                    )
                    .unwrap();
                }
            }
        }
        text
    }

    async fn serve(self: &Arc<Self>) -> String {
        let own = Arc::clone(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = axum::Router::new().route("/metrics", get(move || async move { own.text() }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

/// The program under test, and those around it.
struct World {
    dir: TestDir,
    address: String,
    service: Arc<Service>,
    judge: Arc<Judge>,
    http: reqwest::Client,
}

impl World {
    async fn new(size: Size) -> Self {
        let dir = TestDir::new();
        let service = Service::new(size);
        let target = service.serve().await;
        let judge = Judge::new(size.limit);
        let endpoint = judge.serve().await;
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
                 scrape_configs:\n- job_name: web\n  honor_labels: true\n\
                 \x20 static_configs: [{{targets: ['{target}']}}]\n\
                 remote_write:\n- name: judge\n  url: http://{endpoint}/api/v1/write\n\
                 \x20 remote_timeout: 2s\n\
                 \x20 queue_config: {{batch_send_deadline: 100ms, max_samples_per_send: {}}}\n",
                size.limit / 4
            ),
        );
        let limit = size.limit;
        file("retention.toml", &format!("[budget]\nseries = {limit}\ninterval = \"0s\"\n"));
        // An empty ledger: an earlier run sent nothing, so that all slots may be used at once.
        let mut ledger = b"STLEDGR2LREC".to_vec();
        ledger.extend([0; 8]);
        std::fs::create_dir_all(dir.path().join("data/forward/judge")).unwrap();
        std::fs::write(dir.path().join("data/forward/judge/ledger"), ledger).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { dir, address: free_address(), service, judge, http }
    }

    fn start(&self) -> Running {
        Running::start(
            Command::new(env!("CARGO_BIN_EXE_stint"))
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .arg(format!("--web.listen-address={}", self.address))
                .current_dir(self.dir.path()),
        )
    }

    async fn get(&self, path: &str) -> Option<Json> {
        let answer = self.http.get(format!("http://{}{path}", self.address)).send().await.ok()?;
        let text = answer.text().await.ok()?;
        Some(serde_json::from_str::<Json>(&text).ok()?["data"].take())
    }

    /// The budget's report, once there is one. A foreign process offers no event to wait for.
    async fn report(&self, is_it: impl Fn(&Json) -> bool) -> Json {
        let mut last = Json::Null;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..3000 {
            tick.tick().await;
            let Some(mut data) = self.get("/api/v1/status/budget").await else { continue };
            last = data["endpoints"][0].take();
            if !last.is_null() && is_it(&last) {
                return last;
            }
        }
        panic!("the report never became what was waited for: {last}");
    }

    /// Looks at the report from outside: each sample is in exactly one counter, and every series that
    /// the endpoint counts has its slot.
    async fn look(&self) {
        let counted = self.judge.active();
        let report = self.report(|_| true).await;
        let live = report["live"].as_u64().unwrap();
        assert!(counted <= live && live <= self.judge.limit, "{counted} counted, {live} held");
        let samples = &report["samples"];
        let number = |name: &str| samples[name].as_u64().unwrap();
        let sum = |name: &str| -> u64 {
            samples[name].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
        };
        let settled = number("sent") + sum("withheld") + sum("refused") + number("too_old");
        let all = settled + number("failed") + number("pending");
        assert_eq!(number("read"), all, "{samples}");
    }

    /// One life of the program, from its start to its violent end.
    async fn round(&self, round: u64) {
        let server = self.start();
        self.judge.begin_run();
        // Unlike numbers, so that the kill meets different moments.
        let requests = 2 + round * 7 % 23;
        self.service.deploy(round as usize);
        match round % 5 {
            1 => self.judge.set_mood(Mood::Away),
            2 => self.judge.set_mood(Mood::Busy),
            _ => {}
        }
        self.judge.wait_for_requests(requests / 2).await;
        self.look().await;
        self.judge.set_mood(Mood::Well);
        self.service.deploy(round as usize + 1);
        if round % 5 == 3 {
            // The next request is delivered, and its answer never comes.
            self.judge.set_mood(Mood::Mute);
            self.judge.wait_for_requests(1).await;
        } else {
            self.judge.wait_for_requests(requests).await;
        }
        server.kill_9();
        self.judge.end_run();
        self.judge.set_mood(Mood::Well);
    }

    /// What is stored here: series → time → value.
    async fn stored(&self) -> BTreeMap<String, BTreeMap<i64, String>> {
        let mut all = BTreeMap::new();
        for metric in 0..METRICS {
            let query = format!("/api/v1/query?query=web_{metric}[1h]");
            let data = self.get(&query).await.unwrap();
            for series in data["result"].as_array().unwrap() {
                let values = series["values"].as_array().unwrap().iter().map(|pair| {
                    let at = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
                    (at, pair[1].as_str().unwrap().to_owned())
                });
                all.insert(judge::name_of_json(&series["metric"]), values.collect());
            }
        }
        all
    }

    /// Compares what arrived with what is stored, up to `until`.
    async fn compare(&self, until: i64) {
        // In this order: what arrives meanwhile is stored already.
        let seen = self.judge.seen();
        let stored = self.stored().await;
        let mut arrived_at_all = 0;
        for (name, seen) in seen.iter().filter(|(name, _)| name.starts_with("web_")) {
            let held = stored.get(name).unwrap_or_else(|| panic!("{name} was never stored"));
            for (at, value) in seen.values() {
                assert_eq!(held.get(at), Some(value), "{name} at {at} is not what is stored");
            }
            let first = seen.first();
            let arrived = seen.values().filter(|(at, _)| **at <= until).count();
            let expected = held.range(first..=until).count();
            assert_eq!(arrived, expected, "{name}: once it is sent nothing of it is left out");
            seen.assert_in_order(name);
            arrived_at_all += arrived;
        }
        assert!(arrived_at_all > 0, "something was forwarded");
        assert!(stored.len() > seen.len(), "something was withheld, or the limit was not met");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarder_killed_again_and_again_never_passes_the_limit_and_loses_nothing() {
    let size = if std::env::var_os("STINT_LONG").is_some() {
        Size { rounds: 60, per_metric: 85, limit: 10_000 }
    } else {
        Size { rounds: 5, per_metric: 3, limit: 400 }
    };
    let world = World::new(size).await;
    for round in 0..size.rounds {
        world.round(round).await;
    }
    let server = world.start();
    world.judge.begin_run();
    world.judge.wait_for_requests(20).await;
    let caught_up = |report: &Json| {
        let samples = &report["samples"];
        samples["running"] == true && samples["lag_secs"].as_f64().is_some_and(|lag| lag < 2.0)
    };
    world.report(caught_up).await;
    let until = world.judge.newest() - 3000;
    world.judge.wait_for_time(until + 5000).await;
    world.look().await;
    world.compare(until).await;
    let verdict = world.judge.verdict();
    assert_eq!(verdict.refused, 0, "the limit was passed: {verdict:?}");
    assert!(verdict.active_most <= size.limit, "{verdict:?}");
    assert!(verdict.active_most > size.limit * 4 / 5, "the limit was met: {verdict:?}");
    server.terminate();
    eprintln!("{} rounds: {verdict:?}", size.rounds);
}
