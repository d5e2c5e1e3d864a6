//! The real program with tasks that are replaced all the time and known by a number at the endpoint: it is
//! killed with -9 in between, and no series of the endpoint ever mixes two tasks unnoticed.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Path;
use axum::routing::get;
use serde_json::Value as Json;

use crate::judge::Judge;
use crate::process::{Running, free_address};
use crate::support::TestDir;

const TASKS: u32 = 3;
const ROUNDS: u32 = 9;
/// Gauges of each task beside the two that tell which one it is.
const MORE: usize = 5;

/// How often is looked whether something has come about, and how many times.
const TICK: Duration = Duration::from_millis(50);
const TICKS: usize = 1200;

/// What a task shows: its own number in everything.
async fn show(Path(task): Path<u32>) -> String {
    use std::fmt::Write as _;
    // The later a task begins, the further it is: so that nothing ever falls.
    let mut text = format!(
        "# TYPE jobs_total counter\njobs_total {}.{task:03}\n# TYPE temp gauge\ntemp {task}\n",
        1000 * task
    );
    for n in 0..MORE {
        writeln!(text, "more{{n=\"{n}\"}} {task}").unwrap();
    }
    text
}

struct World {
    dir: TestDir,
    address: String,
    tasks: String,
    judge: Arc<Judge>,
    http: reqwest::Client,
}

impl World {
    async fn new(limit: u64) -> Self {
        let dir = TestDir::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tasks = listener.local_addr().unwrap().to_string();
        let router = axum::Router::new().route("/task/{task}", get(show));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let judge = Judge::new(limit);
        let endpoint = judge.serve().await;
        let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        file(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
                 scrape_configs:\n- job_name: web\n\
                 \x20 file_sd_configs: [{{files: [tasks.json], refresh_interval: 1s}}]\n\
                 remote_write:\n- name: judge\n  url: http://{endpoint}/api/v1/write\n\
                 \x20 queue_config: {{batch_send_deadline: 50ms}}\n"
            ),
        );
        file(
            "retention.toml",
            &format!(
                "[budget]\nseries = {limit}\nreserve = 0\ninterval = \"0s\"\n\
                 [[budget.identity]]\nmatch = ['{{job=\"web\"}}']\n"
            ),
        );
        let ledger = [b"STLEDGR2LREC".as_slice(), &[0; 8]].concat();
        std::fs::create_dir_all(dir.path().join("data/forward/judge")).unwrap();
        std::fs::write(dir.path().join("data/forward/judge/ledger"), ledger).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { dir, address: free_address(), tasks, judge, http }
    }

    /// These tasks run.
    fn run(&self, tasks: &BTreeSet<u32>) {
        let groups: Vec<Json> = tasks
            .iter()
            .map(|task| {
                serde_json::json!({"targets": [self.tasks], "labels": {
                    "__metrics_path__": format!("/task/{task}"),
                    "instance": format!("task-{task}"),
                }})
            })
            .collect();
        let text = serde_json::to_string(&groups).unwrap();
        let (new, file) = (self.dir.path().join("new"), self.dir.path().join("tasks.json"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    fn start(&self) -> Running {
        self.judge.begin_run();
        Running::start(
            Command::new(env!("CARGO_BIN_EXE_stint"))
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .arg(format!("--web.listen-address={}", self.address))
                .current_dir(self.dir.path()),
        )
    }

    /// Waits until all tasks were scraped since the program began.
    async fn scrapes(&self, tasks: &BTreeSet<u32>) {
        let mut tick = tokio::time::interval(TICK);
        for _ in 0..TICKS {
            tick.tick().await;
            // It may not listen yet.
            let Some(data) = self.ask("targets").await else { continue };
            let targets = data["activeTargets"].as_array().unwrap();
            if targets.len() == tasks.len() && targets.iter().all(|it| it["health"] == "up") {
                return;
            }
        }
        panic!("{tasks:?} were not scraped");
    }

    /// Waits until these tasks have series, and the series of all others have ended.
    async fn shows(&self, tasks: &BTreeSet<u32>) {
        let names: BTreeSet<String> = tasks.iter().map(|task| format!("task-{task}")).collect();
        let mut tick = tokio::time::interval(TICK);
        for _ in 0..TICKS {
            tick.tick().await;
            let Some(data) = self.ask("query?query=temp").await else { continue };
            let series = data["result"].as_array().unwrap().iter();
            let shown = series.map(|it| it["metric"]["instance"].as_str().unwrap().to_owned());
            if shown.collect::<BTreeSet<_>>() == names {
                return;
            }
        }
        panic!("{tasks:?} were not what is shown");
    }

    /// Waits until the endpoint was sent a sample of this task. A foreign process offers no event.
    async fn sees(&self, task: u32) {
        let mut tick = tokio::time::interval(TICK);
        for _ in 0..TICKS {
            tick.tick().await;
            let seen = self.judge.seen();
            let of = |(name, seen): (&String, &crate::judge::Seen)| {
                name.starts_with("temp") && seen.values().any(|(_, it)| *it == task.to_string())
            };
            if seen.iter().any(of) {
                return;
            }
        }
        panic!("task {task} never arrived: {:?}", self.judge.verdict());
    }

    async fn identities(&self) -> Json {
        self.ask("status/budget").await.unwrap()["endpoints"][0]["identities"].take()
    }

    /// The data that the API answers with, if it answers.
    async fn ask(&self, path: &str) -> Option<Json> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let text = self.http.get(url).send().await.ok()?.text().await.ok()?;
        let mut answer: Json = serde_json::from_str(&text).ok()?;
        (answer["status"] == "success").then(|| answer["data"].take())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_are_replaced_go_on_with_the_series_of_those_before() {
    // Of each number: two series, five more, and five of the scrape; of each task, the one that tells
    // which it is. Without numbers, the tasks would be more.
    let all = TASKS + ROUNDS;
    let limit = u64::from((TASKS + 2) * 12 + all);
    assert!(limit < u64::from(all * 12));
    let world = World::new(limit).await;
    let mut tasks: BTreeSet<u32> = (1..=TASKS).collect();
    world.run(&tasks);
    let mut server = world.start();
    for task in 1..=TASKS {
        world.sees(task).await;
    }
    for round in 0..ROUNDS {
        let (old, new) = (round + 1, TASKS + round + 1);
        tasks.insert(new);
        world.run(&tasks);
        world.sees(new).await;
        if round % 3 == 2 {
            server.kill_9();
            world.judge.end_run();
            server = world.start();
            world.scrapes(&tasks).await;
        }
        tasks.remove(&old);
        world.run(&tasks);
        world.shows(&tasks).await;
    }
    let identities = world.identities().await;
    server.terminate();
    let verdict = world.judge.verdict();
    assert_eq!(verdict.refused, 0, "the limit was passed: {verdict:?}");
    let (mut seen, mut numbers, mut changes) = (BTreeSet::new(), 0, 0);
    for (name, samples) in world.judge.seen() {
        let own_name = ["{instance=task-", ",instance=task-"];
        assert!(!own_name.iter().any(|it| name.contains(it)), "{name}");
        let is_counter = name.starts_with("jobs_total");
        if !is_counter && !name.starts_with("temp") {
            continue;
        }
        let (mut owners, mut zero) = (Vec::new(), false);
        for (_, value) in samples.values() {
            if is_counter && value == "0" {
                zero = true;
                continue;
            }
            let value: f64 = value.parse().unwrap();
            let owner = if is_counter { (value / 1000.0) as u32 } else { value as u32 };
            if owners.last() == Some(&owner) {
                assert!(!zero, "{name}: a zero among the samples of {owner}");
            } else {
                assert!(!owners.contains(&owner), "{name}: {owners:?} → {owner}");
                let is_parted = zero || owners.is_empty() || !is_counter;
                assert!(is_parted, "{name}: {owners:?} → {owner} without a zero");
                owners.push(owner);
            }
            zero = false;
        }
        if !is_counter {
            (numbers, changes) = (numbers + 1, changes + owners.len() - 1);
            seen.extend(owners);
        }
    }
    assert_eq!(seen, (1..=all).collect(), "every task was seen");
    assert!(numbers <= TASKS as usize + 2, "{numbers} numbers");
    assert!(changes >= ROUNDS as usize - 2, "{changes} changes of {ROUNDS} tasks");
    let number = |name: &str| identities[name].as_u64().unwrap();
    // They are counted now and then: the one that was replaced last may be among them.
    let held = number("held");
    assert!((u64::from(TASKS)..=u64::from(TASKS) + 1).contains(&held), "{identities}");
    assert_eq!(number("unnumbered"), 0, "{identities}");
    assert!(number("numbers") as usize == numbers, "{identities}");
}
