//! The real program with rules: killed and started again while alerts wait and fire, and computing history with a kill
//! in between.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::Value as Json;
use stint_model::Clock as _;
use stint_model::clock::SystemClock;

use crate::process::{Running, free_address};
use crate::support::{TestDir, Written, remote_write};

/// What a webhook was told: status and name of each alert.
type Told = Arc<Mutex<Vec<(String, String)>>>;

async fn webhook() -> (Told, String) {
    let told = Told::default();
    let take = |State(told): State<Told>, body: axum::Json<Json>| async move {
        let text = |json: &Json| json.as_str().unwrap().to_owned();
        let alerts = body.0["alerts"].as_array().unwrap().iter();
        let alerts = alerts.map(|one| (text(&one["status"]), text(&one["labels"]["alertname"])));
        told.lock().extend(alerts);
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/hook", post(take)).with_state(told.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (told, format!("http://{address}/hook"))
}

/// Waits for what another process does, which offers no event.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..1200 {
        tick.tick().await;
        if let Some(found) = look().await {
            return found;
        }
    }
    panic!("never within a minute: {what}");
}

async fn ask(address: &str, path: &str) -> Option<Json> {
    let answer = reqwest::get(format!("http://{address}{path}")).await.ok()?;
    serde_json::from_str(&answer.text().await.ok()?).ok()
}

/// When the alert `name` became active, in milliseconds, once its state is `state`.
async fn active_at(address: &str, name: &str, state: &str) -> i64 {
    eventually(&format!("{name} is {state}"), async || {
        let answer = ask(address, "/api/v1/alerts").await?;
        let alerts = answer["data"]["alerts"].as_array()?;
        let is_it = |one: &&Json| one["labels"]["alertname"] == name && one["state"] == state;
        let moment: jiff::Timestamp =
            alerts.iter().find(is_it)?["activeAt"].as_str()?.parse().ok()?;
        Some(moment.as_millisecond())
    })
    .await
}

/// How many evaluations there were since the start.
async fn evaluations(address: &str, at_least: f64) {
    eventually("it is evaluated", async || {
        let text =
            reqwest::get(format!("http://{address}/metrics")).await.ok()?.text().await.ok()?;
        let name = "prometheus_rule_group_iterations_total{";
        let line = text.lines().find(|line| line.starts_with(name))?;
        let count: f64 = line.rsplit(' ').next()?.parse().ok()?;
        (count >= at_least).then_some(())
    })
    .await;
}

const RULES: &str = "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {alert: Fires, expr: 'vector(1) > 0', annotations: {text: t}}\n  \
                     - {alert: Waits, expr: 'vector(1) > 0', for: 1h}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_go_on_after_a_kill_and_broken_files_change_nothing() {
    let (told, hook) = webhook().await;
    let (dir, address) = (TestDir::new(), free_address());
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("rules.yml", RULES);
    write("prometheus.yml", "rule_files: [rules.yml]\n");
    write(
        "retention.toml",
        &format!(
            "[[notify.webhook]]\nname = 'h'\nurl = '{hook}'\ngroup_wait = '0s'\ngroup_interval = '1s'\n"
        ),
    );
    let start = || {
        Running::start(
            Command::new(env!("CARGO_BIN_EXE_stint"))
                .args(["--config.file=prometheus.yml", "--retention.file=retention.toml"])
                .args(["--web.enable-lifecycle", "--rules.alert.for-grace-period=1s"])
                .args(["--rules.alert.resend-delay=1s"])
                .arg(format!("--web.listen-address={address}"))
                .current_dir(dir.path()),
        )
    };
    let reload = async || {
        let request = reqwest::Client::new().post(format!("http://{address}/-/reload"));
        request.send().await.unwrap().status().as_u16()
    };
    let server = start();
    let firing = ("firing".to_owned(), "Fires".to_owned());
    eventually("the webhook is told", async || (!told.lock().is_empty()).then_some(())).await;
    evaluations(&address, 4.0).await;
    let before = active_at(&address, "Waits", "pending").await;
    server.kill_9();
    let killed = SystemClock::default().now().0;
    let server = start();
    // Restored after the second evaluation, and told to the receiver in the ones after it.
    evaluations(&address, 5.0).await;
    let outage = SystemClock::default().now().0 - killed;
    let after = active_at(&address, "Waits", "pending").await;
    // The outage does not count; times are kept in whole seconds.
    assert!((-1000..outage + 2000).contains(&(after - before)), "{before} {after} {outage}");
    assert_eq!(*told.lock(), std::slice::from_ref(&firing), "nobody is told twice");

    write("rules.yml", "groups: [{name: g, rules: [{alert: Fires, expr: 'sum('}]}]");
    assert_eq!(reload().await, 500);
    active_at(&address, "Fires", "firing").await;
    write(
        "rules.yml",
        &RULES
            .replace("alert: Fires, expr: 'vector(1) > 0'", "alert: Fires, expr: 'vector(1) > 1'"),
    );
    assert_eq!(reload().await, 200);
    eventually("the end is told", async || (told.lock().len() > 1).then_some(())).await;
    assert_eq!(*told.lock(), [firing, ("resolved".to_owned(), "Fires".to_owned())]);
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_computed_across_a_kill() {
    const HOURS: i64 = 7;
    let (dir, address) = (TestDir::new(), free_address());
    std::fs::write(dir.path().join("prometheus.yml"), "global: {}\n").unwrap();
    let rules = "groups:\n- name: g\n  interval: 1m\n  rules:\n  - {record: 'job:x:sum', expr: 'sum by (job) (x)', labels: {made: later}}\n  \
                 - {record: 'job:x:double', expr: 'job:x:sum * 2'}\n  - {alert: Left, expr: x}\n";
    std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
    let stint = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stint"));
        command.current_dir(dir.path());
        command
    };
    let serve = || {
        Running::start(
            stint()
                .arg("--config.file=prometheus.yml")
                .arg("--web.enable-remote-write-receiver")
                .arg(format!("--web.listen-address={address}")),
        )
    };
    let end = SystemClock::default().now().0 / 60_000 * 60_000;
    let begin = end - HOURS * 3_600_000;
    let server = serve();
    let ready = async || ask(&address, "/api/v1/status/buildinfo").await;
    eventually("it is ready", ready).await;
    let series: Vec<Written> = (0..20)
        .map(|n| {
            let labels = [("__name__", "x"), ("job", if n % 2 == 0 { "a" } else { "b" })];
            let mut labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            labels.push(("n".to_owned(), n.to_string()));
            let samples = (0..HOURS * 120).map(|at| (begin + at * 30_000, (at * (n + 1)) as f64));
            (labels, samples.collect())
        })
        .collect();
    remote_write(&format!("http://{address}"), &series).await;
    server.terminate();

    let backfill = || {
        let mut command = stint();
        command.args(["rules", "backfill", "--storage.tsdb.path=data", "rules.yml"]);
        command.arg(format!("--start={}", begin / 1000)).arg(format!("--end={}", end / 1000));
        command
    };
    let mut first = backfill().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines();
    let line = lines.next().expect("a line for each part").unwrap();
    assert!(line.ends_with(" samples"), "{line}");
    first.kill().unwrap();
    assert!(!first.wait().unwrap().success(), "it was killed before its end");
    for _ in 0..2 {
        let output = backfill().output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(out.contains("samples written, 0 were there already or refused"), "{out}");
    }

    let server = serve();
    eventually("it is ready", ready).await;
    let values = async |query: &str| {
        let path = format!("/api/v1/query?time={}&query={query}", end / 1000);
        let answer = ask(&address, &path).await.unwrap();
        let result = answer["data"]["result"].as_array().unwrap().clone();
        result.iter().map(|one| one["value"][1].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let minutes = (HOURS * 60).to_string();
    assert_eq!(
        values(&format!("count_over_time(job:x:sum%7Bmade=\"later\"%7D[{HOURS}h])")).await,
        [&*minutes; 2]
    );
    assert_eq!(values(&format!("count_over_time(job:x:double[{HOURS}h])")).await, [&*minutes; 2]);
    // Each is what the expression shows at its time, which lies between two scrapes.
    let same = "(sum+by(job)(x)-on(job)job:x:sum)%3E=0%3C1000";
    assert_eq!(values(same).await.len(), 2);
    assert_eq!(values("job:x:double/2==on(job)job:x:sum").await.len(), 2);
    assert_eq!(values("ALERTS").await.len(), 0);
    server.terminate();
}
