//! The same rule files and the same samples in a real Prometheus and in Stint: what is recorded, what fires, what
//! Alertmanagers are told, and what the API answers is equal. Samples are written before their time comes, so that both
//! find the same whenever they evaluate.

mod restart;
mod scenario;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as Route, State};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use stint_model::clock::SystemClock;
use stint_model::{Clock as _, Span, Timestamp};

use crate::peers::prometheus_3;
use crate::process::{Running, free_address};
use crate::support::{TestDir, remote_write};

/// How often a run is repeated in which one of the two missed an evaluation, or was late.
const ATTEMPTS: usize = 4;
const SECOND: i64 = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_do_what_they_do_in_a_real_prometheus() {
    let Some(prometheus) = prometheus_3() else {
        eprintln!("skipped: prometheus 3 is not installed");
        return;
    };
    let mut only_ours = 0;
    for _ in 0..ATTEMPTS {
        let run = Run::start(&prometheus).await;
        let outcome = run.compare().await;
        if outcome.late.is_empty() {
            assert!(outcome.differences.is_empty(), "{}", outcome.differences.join("\n"));
            return;
        }
        eprintln!("not compared: {}", outcome.late.join(", "));
        only_ours += usize::from(outcome.late == [OURS_MISSED]);
    }
    assert!(only_ours < ATTEMPTS, "Prometheus is in time, and Stint never");
    eprintln!("skipped: the machine is too busy for evaluations to be in time");
}

/// Why a run says nothing.
const OURS_MISSED: &str = "Stint missed evaluations";

/// What a run showed.
struct Outcome {
    differences: Vec<String>,
    /// Why the two did not evaluate the same at the same times.
    late: Vec<&'static str>,
}

/// Two servers with the same rules.
struct Run {
    theirs: Server,
    ours: Server,
    dir: TestDir,
    sink: Sink,
    /// When the story of the samples begins.
    start: Timestamp,
}

struct Server {
    name: &'static str,
    address: String,
    _process: Running,
}

/// What Alertmanagers were told, by server and labels of the alert, in order.
type Posts = Arc<Mutex<BTreeMap<(String, String), Vec<Json>>>>;

struct Sink {
    posts: Posts,
}

impl Sink {
    async fn start() -> (Self, String) {
        let posts = Posts::default();
        let take = |State(posts): State<Posts>,
                    Route(name): Route<String>,
                    body: axum::Json<Json>| async move {
            let mut posts = posts.lock();
            for mut alert in body.0.as_array().unwrap().clone() {
                let labels = alert["labels"].take().to_string();
                posts.entry((name.clone(), labels)).or_default().push(alert);
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router =
            Router::new().route("/{name}/api/v2/alerts", post(take)).with_state(posts.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (Self { posts }, address.to_string())
    }
}

impl Run {
    async fn start(prometheus: &Path) -> Self {
        let dir = TestDir::new();
        let (sink, sink_at) = Sink::start().await;
        let (first, second) = scenario::files(1);
        std::fs::write(dir.path().join("first.yml"), first).unwrap();
        std::fs::write(dir.path().join("second.yml"), second).unwrap();
        let own = env!("CARGO_BIN_EXE_stint");
        let (theirs, ours) = (
            Server::start("theirs", prometheus, &dir, &sink_at),
            Server::start("ours", Path::new(own), &dir, &sink_at),
        );
        for server in [&theirs, &ours] {
            server.wait("/-/ready", |_| true).await;
            // Discovery takes some seconds.
            let is_known = |answer: &str| answer.contains(sink_at.as_str());
            server.wait("/api/v1/alertmanagers", is_known).await;
        }
        // Time enough to write everything before it is looked at.
        let start = Timestamp((SystemClock::default().now().0 / SECOND + 4) * SECOND);
        for server in [&theirs, &ours] {
            let series = scenario::samples(start);
            remote_write(&format!("http://{}", server.address), &series).await;
        }
        Self { theirs, ours, dir, sink, start }
    }

    async fn compare(&self) -> Outcome {
        let mut differences = Vec::new();
        let written = SystemClock::default().now() < self.start;
        self.wait_until(scenario::CALM).await;
        self.series(0, scenario::CALM, &mut differences).await;
        for path in scenario::questions() {
            let (theirs, ours) = (self.theirs.answer(&path).await, self.ours.answer(&path).await);
            difference(&path, &theirs, &ours, &mut differences);
        }
        self.pages(&mut differences).await;
        self.broken_files_change_nothing(&mut differences).await;
        let in_time = self.reload().await;
        self.wait_until(scenario::END).await;
        self.series(scenario::RELOADED + 1, scenario::END, &mut differences).await;
        for path in ["/api/v1/rules", "/api/v1/alerts"] {
            let (theirs, ours) = (self.theirs.answer(path).await, self.ours.answer(path).await);
            difference(&format!("{path} after the reload"), &theirs, &ours, &mut differences);
        }
        self.posts(&mut differences);
        let late = [
            (!written, "samples were not written before their time"),
            (!in_time, "reloads took too long"),
            (self.theirs.missed().await, "Prometheus missed evaluations"),
            (self.ours.missed().await, OURS_MISSED),
        ];
        let late = late.into_iter().filter_map(|(is_so, what)| is_so.then_some(what)).collect();
        Outcome { differences, late }
    }

    /// Waits until both have evaluated everything up to `seconds` after the start.
    async fn wait_until(&self, seconds: i64) {
        let at = self.start.0 + seconds * SECOND;
        // The last rule of each group tells when it was evaluated. The third one looks two seconds back, every two
        // seconds.
        for server in [&self.theirs, &self.ours] {
            for (beat, at) in [("beat_a", at), ("beat_b", at), ("beat_c", at - 4 * SECOND)] {
                let path = format!("/api/v1/query?query=timestamp({beat})*1000");
                let reached = |answer: &str| {
                    let answer: Json = serde_json::from_str(answer).unwrap_or_default();
                    let value = answer.pointer("/data/result/0/value/1").and_then(Json::as_str);
                    value
                        .and_then(|text| text.parse::<f64>().ok())
                        .is_some_and(|ms| ms >= at as f64)
                };
                server.wait(&path, reached).await;
            }
        }
    }

    /// Compares every sample and every end of what was recorded.
    async fn series(&self, from: i64, to: i64, differences: &mut Vec<String>) {
        let (from, to) = (self.start.0 / SECOND + from, self.start.0 / SECOND + to);
        let selector = "{__name__=~\".%2B\",__name__!~\"flap|req_total|lat_bucket\"}";
        let (raw, seen) = (
            format!("/api/v1/query?time={to}&query={selector}[{}s]", to - from),
            // Between two evaluations: what has ended is not there.
            format!("/api/v1/query_range?start={from}&end={to}&step=0.5&query={selector}"),
        );
        for path in [raw, seen] {
            let path = path.replace('{', "%7B").replace('}', "%7D").replace('|', "%7C");
            let mut both = [&self.theirs, &self.ours].map(|_| BTreeMap::new());
            for (server, series) in [&self.theirs, &self.ours].into_iter().zip(&mut both) {
                let answer: Json = serde_json::from_str(&server.get(&path).await.1).unwrap();
                for one in answer["data"]["result"].as_array().expect("a matrix") {
                    series.insert(one["metric"].to_string(), one["values"].clone());
                }
            }
            let [theirs, ours] = both;
            assert!(theirs.len() > 5, "there is little to compare: {theirs:?}");
            for labels in theirs.keys().chain(ours.keys().filter(|key| !theirs.contains_key(*key)))
            {
                let (theirs, ours) = (theirs.get(labels), ours.get(labels));
                if theirs != ours {
                    differences.push(format!("{labels}:\n theirs {theirs:?}\n ours   {ours:?}"));
                }
            }
        }
    }

    /// All groups, two by two: tokens have forms of their own.
    async fn pages(&self, differences: &mut Vec<String>) {
        let mut both = [Vec::new(), Vec::new()];
        for (server, pages) in [&self.theirs, &self.ours].into_iter().zip(&mut both) {
            let mut next = String::new();
            for _ in 0..10 {
                let path = format!("/api/v1/rules?group_limit=2{next}");
                let answer: Json = serde_json::from_str(&server.get(&path).await.1).unwrap();
                let groups = answer["data"]["groups"].as_array().expect("groups");
                let names: Vec<_> = groups.iter().map(|group| group["name"].clone()).collect();
                pages.push(json!(names));
                let Some(token) = answer["data"]["groupNextToken"].as_str() else { break };
                next = format!("&group_next_token={token}");
            }
        }
        if both[0] != both[1] {
            differences.push(format!("pages: theirs {:?}, ours {:?}", both[0], both[1]));
        }
    }

    /// A mistake in one file: the reload is refused, and everything goes on as before.
    async fn broken_files_change_nothing(&self, differences: &mut Vec<String>) {
        let file = self.dir.path().join("second.yml");
        std::fs::write(&file, "groups: [{name: a, rules: [{record: r, expr: 'sum('}]}]").unwrap();
        for server in [&self.theirs, &self.ours] {
            let status = server.reload().await;
            if status != 500 {
                differences.push(format!("{}: a broken file answers {status}", server.name));
            }
        }
    }

    /// Puts the other rules in force, between two evaluations; whether that was in time.
    async fn reload(&self) -> bool {
        self.wait_until(scenario::RELOADED).await;
        let (first, second) = scenario::files(2);
        std::fs::write(self.dir.path().join("first.yml"), first).unwrap();
        std::fs::write(self.dir.path().join("second.yml"), second).unwrap();
        let clock = SystemClock::default();
        let groups = scenario::groups(self.dir.path());
        let next = |now| groups.iter().map(|group| group.next(group.last_before(now)).due()).min();
        // In the longest time without an evaluation, which is a quarter of a second at least.
        let gap = |now: Timestamp| next(now).unwrap().since(now);
        let longest = (0..200).map(|at| gap(clock.now() + Span(at * 10))).max().unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while gap(clock.now()).0 + 30 < longest.0 {
            tick.tick().await;
        }
        let until = next(clock.now()).unwrap();
        let statuses = tokio::join!(self.theirs.reload(), self.ours.reload());
        assert_eq!(statuses, (200, 200));
        // The last evaluations that are compared come after it.
        clock.now() < until && clock.now() < self.start + Span((scenario::RELOADED + 2) * SECOND)
    }

    /// Compares what Alertmanagers were told of each alert. The last may still be on its way.
    fn posts(&self, differences: &mut Vec<String>) {
        let posts = self.sink.posts.lock();
        let of = |name: &str| -> BTreeMap<&str, &[Json]> {
            let own = posts.iter().filter(|((server, _), _)| server == name);
            own.map(|((_, labels), posts)| (&**labels, &**posts)).collect()
        };
        let (theirs, ours) = (of("theirs"), of("ours"));
        assert!(!theirs.is_empty(), "nothing was posted");
        if !theirs.keys().eq(ours.keys()) {
            let (theirs, ours) = (theirs.keys(), ours.keys());
            differences.push(format!("posted alerts: theirs {theirs:?}, ours {ours:?}"));
            return;
        }
        for (labels, theirs) in theirs {
            let ours = ours[labels];
            let common = theirs.len().min(ours.len());
            if theirs.len().abs_diff(ours.len()) > 1 || theirs[..common] != ours[..common] {
                differences
                    .push(format!("posts of {labels}:\n theirs {theirs:?}\n ours   {ours:?}"));
            }
        }
    }
}

/// Notes a difference of two answers, without what cannot be equal.
fn difference(path: &str, theirs: &Json, ours: &Json, differences: &mut Vec<String>) {
    if theirs != ours {
        let shown = |json: &Json| serde_json::to_string_pretty(json).unwrap();
        let (theirs, ours) = (shown(theirs), shown(ours));
        let lines = theirs.lines().zip(ours.lines()).filter(|(theirs, ours)| theirs != ours);
        let lines: Vec<_> =
            lines.map(|(a, b)| format!(" theirs {a}\n ours   {b}")).take(8).collect();
        let count = (theirs.lines().count(), ours.lines().count());
        differences.push(format!("{path}: {count:?} lines\n{}", lines.join("\n")));
    }
}

impl Server {
    fn start(name: &'static str, program: &Path, dir: &TestDir, sink: &str) -> Self {
        let address = free_address();
        let config = dir.path().join(format!("{name}.yml"));
        std::fs::write(&config, scenario::configuration(dir.path(), name, sink)).unwrap();
        let process = Running::start(
            Command::new(program)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", dir.path().join(name).display()))
                .arg(format!("--web.listen-address={address}"))
                .args(["--web.enable-remote-write-receiver", "--web.enable-lifecycle"])
                .args(["--web.external-url=http://rules.example/", "--web.route-prefix=/"])
                .arg("--rules.alert.resend-delay=3s"),
        );
        Self { name, address, _process: process }
    }

    /// Status and body; 0 and nothing without an answer.
    async fn get(&self, path: &str) -> (u16, String) {
        match reqwest::get(format!("http://{}{path}", self.address)).await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }

    async fn wait(&self, path: &str, is_it: impl Fn(&str) -> bool) {
        // Foreign processes offer no event to wait for: ask until the answer is there.
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..1200 {
            tick.tick().await;
            let (status, body) = self.get(path).await;
            if status == 200 && is_it(&body) {
                return;
            }
        }
        panic!(
            "{}: {path} never became what was waited for: {:?}",
            self.name,
            self.get(path).await
        );
    }

    /// An answer without what differs between two servers by design.
    async fn answer(&self, path: &str) -> Json {
        let (status, text) = self.get(path).await;
        let mut body = serde_json::from_str(&text).unwrap_or(Json::from(text));
        mask(&mut body);
        json!({ "status": status, "body": body })
    }

    async fn reload(&self) -> u16 {
        let request = reqwest::Client::new().post(format!("http://{}/-/reload", self.address));
        request.send().await.unwrap().status().as_u16()
    }

    /// Whether points in time were left out.
    async fn missed(&self) -> bool {
        let (_, text) = self.get("/metrics").await;
        let name = "prometheus_rule_group_iterations_missed_total{";
        let mut lines = text.lines().filter(|line| line.starts_with(name)).peekable();
        assert!(lines.peek().is_some(), "{} does not count what it missed", self.name);
        lines.any(|line| !line.ends_with(" 0"))
    }
}

/// Times of the wall are taken out, times of alerts cut to milliseconds, lists without order sorted.
fn mask(json: &mut Json) {
    match json {
        Json::Array(all) => {
            all.iter_mut().for_each(mask);
            if all.iter().any(|one| one.get("activeAt").is_some()) {
                all.sort_by_key(|one| one["labels"].to_string());
            }
        }
        Json::Object(all) => {
            for (key, value) in all {
                match key.as_str() {
                    "evaluationTime" | "lastEvaluation" | "groupNextToken" => {
                        *value = Json::from("masked");
                    }
                    "activeAt" | "keepFiringSince" => {
                        let moment: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
                        *value = Json::from(moment.as_millisecond());
                    }
                    _ => mask(value),
                }
            }
        }
        _ => {}
    }
}
