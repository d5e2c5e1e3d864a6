//! From the rules to the request, on a simulated network in virtual time.

use std::time::Duration;

use stint_storage::SimDisk;

use super::*;
use crate::config::tests_support::{config, webhooks};
use crate::discovery::DiscoveryMetrics;
use crate::metrics::Metrics;
use crate::notify::testing::{Network, RuntimeClock, alert};

struct Bench {
    notifier: Notifier,
    network: Arc<Network>,
    metrics: Metrics,
}

fn bench(capacity: usize, drain: bool) -> Bench {
    bench_on(&SimDisk::new(), capacity, drain)
}

fn bench_on(disk: &SimDisk, capacity: usize, drain: bool) -> Bench {
    let (clock, network) = (RuntimeClock::started(), Arc::new(Network::default()));
    let metrics = Metrics::new();
    let parts = Parts {
        metrics: NotifyMetrics::new(&metrics, &clock),
        discovery: Arc::new(Hub::new(Arc::clone(&clock), DiscoveryMetrics::new(&metrics, &clock))),
        clock,
        disk: Arc::new(disk.clone()),
        external_url: "http://stint:9090".to_owned(),
    };
    let options = Options { capacity, batch: 64, drain };
    let notifier = Notifier::with(options, parts, network.make());
    Bench { notifier, network, metrics }
}

impl Bench {
    async fn apply(&self, yaml: &str) {
        let prepared = self.notifier.prepare(&config(yaml)).unwrap_or_else(|e| panic!("{e:?}"));
        self.notifier.apply(prepared).await;
    }

    /// Puts this webhook in force, to be told over and over.
    async fn hook(&self, keys: &str) {
        let mut config = config("");
        let head = "[[notify.webhook]]\nname = 'hook'\nurl = 'http://h/x'\ngroup_wait = '10s'";
        config.webhooks = webhooks(&format!("{head}\n{keys}\n"));
        let prepared = self.notifier.prepare(&config).unwrap_or_else(|e| panic!("{e:?}"));
        self.notifier.apply(prepared).await;
    }

    /// Status and number of alerts of each message.
    fn messages(&self) -> Vec<(String, usize)> {
        let posts = self.network.posts.lock();
        let message = |body: &serde_json::Value| {
            let count = body["alerts"].as_array().unwrap().len();
            (body["status"].as_str().unwrap().to_owned(), count)
        };
        posts.iter().map(|(_, body)| message(body)).collect()
    }

    /// The value of a metric as it is scraped.
    fn value(&self, series: &str) -> Option<f64> {
        self.notifier.refresh_metrics();
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const ONE: &str = "alerting: {alertmanagers: [{static_configs: [{targets: ['a:9093']}]}]}";
const URL: &str = "http://a:9093/api/v2/alerts";

#[tokio::test(start_paused = true)]
async fn labels_are_attached_and_changed_on_the_way() {
    let bench = bench(100, true);
    bench
        .apply(
            "global: {external_labels: {cluster: c1, job: outer}}
alerting:
  alert_relabel_configs: [{source_labels: [severity], regex: debug, action: drop}]
  alertmanagers:
  - static_configs: [{targets: ['a:9093']}]
  - static_configs: [{targets: ['b:9093']}]
    alert_relabel_configs: [{regex: cluster, action: labeldrop}]
",
        )
        .await;
    bench
        .notifier
        .send(vec![alert("Down", &[("job", "node")]), alert("Chatter", &[("severity", "debug")])]);
    pass(Duration::from_secs(1)).await;
    let mut posts = bench.network.posts.lock().clone();
    posts.sort_by(|a, b| a.0.cmp(&b.0));
    let [(first, to_a), (second, to_b)] = &posts[..] else { panic!("{posts:?}") };
    assert_eq!((&**first, &**second), (URL, "http://b:9093/api/v2/alerts"));
    assert_eq!(to_a.as_array().unwrap().len(), 1);
    let labels = |body: &serde_json::Value| body[0]["labels"].to_string();
    assert_eq!(labels(to_a), r#"{"alertname":"Down","cluster":"c1","job":"node"}"#);
    assert_eq!(labels(to_b), r#"{"alertname":"Down","job":"node"}"#);
    let all = [URL.to_owned(), "http://b:9093/api/v2/alerts".to_owned()];
    assert_eq!(bench.notifier.status(), Status { active: all.to_vec(), dropped: vec![] });
    assert_eq!(bench.value("prometheus_notifications_alertmanagers_discovered"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn requests_are_bounded_and_so_is_what_waits() {
    let bench = bench(100, true);
    bench.apply(ONE).await;
    *bench.network.delay.lock() = Duration::from_secs(5);
    let many = |from: usize, count: usize| {
        (from..from + count).map(|at| alert("A", &[("n", &at.to_string())])).collect::<Vec<_>>()
    };
    bench.notifier.send(many(0, 70));
    pass(Duration::from_secs(1)).await;
    // 64 are on their way and 6 wait.
    bench.notifier.send(many(70, 100));
    assert_eq!(bench.value("prometheus_notifications_queue_length{"), Some(100.0));
    assert_eq!(bench.value("prometheus_notifications_dropped_total{"), Some(6.0));
    pass(Duration::from_mins(1)).await;
    assert_eq!(bench.network.sizes(), [64, 64, 36]);
    let posts = bench.network.posts.lock();
    assert_eq!(posts[1].1[0]["labels"]["n"], "70");
    assert_eq!(bench.value("prometheus_notifications_sent_total{"), Some(164.0));
    assert_eq!(bench.value("prometheus_notifications_errors_total{"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_and_not_repeated() {
    let bench = bench(100, true);
    bench.apply(ONE).await;
    *bench.network.answers.lock() = vec![Ok(500), Err("refused".into())];
    for _ in 0..3 {
        bench.notifier.send(vec![alert("A", &[])]);
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(bench.network.sizes(), [1, 1, 1]);
    assert_eq!(bench.value("prometheus_notifications_errors_total{"), Some(2.0));
    assert_eq!(bench.value("prometheus_notifications_dropped_total{"), Some(2.0));
    assert_eq!(bench.value("prometheus_notifications_sent_total{"), Some(3.0));
    assert_eq!(bench.value("prometheus_notifications_latency_seconds_count{"), Some(3.0));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_sent_before_a_stop_or_dropped() {
    for (drain, sizes) in [(true, vec![64, 6]), (false, vec![])] {
        let bench = bench(100, drain);
        bench.apply(ONE).await;
        bench.notifier.send((0..70).map(|at| alert("A", &[("n", &at.to_string())])).collect());
        bench.notifier.stop().await;
        assert_eq!(bench.network.sizes(), sizes);
        bench.notifier.send(vec![alert("Late", &[])]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_stays_the_same_keeps_its_queue() {
    let bench = bench(100, true);
    bench.apply(ONE).await;
    *bench.network.delay.lock() = Duration::from_secs(5);
    bench.notifier.send((0..70).map(|at| alert("A", &[("n", &at.to_string())])).collect());
    pass(Duration::from_secs(1)).await;
    bench.apply(&format!("global: {{external_labels: {{x: y}}}}\n{ONE}")).await;
    assert_eq!(bench.value("prometheus_notifications_queue_length{"), Some(6.0));
    pass(Duration::from_secs(20)).await;
    assert_eq!(bench.network.sizes(), [64, 6]);
    bench.apply("").await;
    assert_eq!(bench.notifier.status(), Status::default());
    assert_eq!(bench.value("prometheus_notifications_sent_total{"), None);
}

#[tokio::test]
async fn alertmanagers_are_found_in_files() {
    let folder = std::env::temp_dir().join(format!("stint-notify-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("am.json");
    std::fs::write(&file, r#"[{"targets": ["f:9093"]}]"#).unwrap();
    let bench = bench(100, true);
    let yaml = format!(
        "alerting: {{alertmanagers: [{{file_sd_configs: [{{files: ['{}']}}]}}]}}",
        file.display()
    );
    bench.apply(&yaml).await;
    while bench.notifier.status().active.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.notifier.status().active, ["http://f:9093/api/v2/alerts"]);
    bench.notifier.stop().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

fn told(status: &str, count: usize) -> (String, usize) {
    (status.to_owned(), count)
}

#[tokio::test(start_paused = true)]
async fn webhooks_are_told_of_groups_and_their_ends() {
    let bench = bench(100, true);
    bench.hook("match = ['{job=\"node\"}']\ngroup_interval = '1m'").await;
    bench.notifier.send(vec![alert("Down", &[("job", "node")]), alert("Down", &[("job", "x")])]);
    pass(Duration::from_secs(9)).await;
    assert_eq!(bench.messages(), []);
    pass(Duration::from_secs(2)).await;
    assert_eq!(bench.messages(), [told("firing", 1)]);
    assert_eq!(bench.network.posts.lock()[0].0, "http://h/x");
    // Nobody says that it still fires.
    pass(Duration::from_secs(400)).await;
    assert_eq!(bench.messages(), [told("firing", 1), told("resolved", 1)]);
    assert_eq!(bench.value("stint_webhook_notifications_total{"), Some(2.0));
    assert_eq!(bench.value("stint_webhook_alerts{"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_fails_is_tried_until_it_takes_the_message() {
    let bench = bench(100, true);
    bench.hook("").await;
    let answers = vec![Err("refused".into()), Ok(503), Ok(429)];
    *bench.network.answers.lock() = answers;
    bench.notifier.send(vec![alert("Down", &[])]);
    pass(Duration::from_mins(1)).await;
    assert_eq!(bench.messages().len(), 4);
    assert_eq!(bench.value("stint_webhook_notifications_failed_total{"), Some(3.0));
    assert_eq!(bench.value("stint_webhook_notifications_total{"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn neither_reload_nor_restart_tells_twice() {
    let disk = SimDisk::new();
    let bench = bench_on(&disk, 100, true);
    bench.hook("").await;
    bench.notifier.send(vec![alert("Down", &[])]);
    pass(Duration::from_secs(20)).await;
    bench.hook("max_alerts = 5").await;
    bench.notifier.send(vec![alert("Down", &[])]);
    pass(Duration::from_mins(1)).await;
    assert_eq!(bench.messages(), [told("firing", 1)]);
    bench.notifier.stop().await;

    let again = bench_on(&disk, 100, true);
    again.hook("").await;
    again.notifier.send(vec![alert("Down", &[])]);
    pass(Duration::from_mins(1)).await;
    assert_eq!(again.messages(), []);
    again.hook("group_by = ['other']").await;
    pass(Duration::from_mins(1)).await;
    assert_eq!(again.messages(), [told("firing", 1)]);
    again.notifier.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_during_a_reload_reaches_somebody() {
    let bench = Arc::new(bench(100, true));
    let with_hook = |keys: &str| {
        let mut config = config(ONE);
        let head = "[[notify.webhook]]\nname = 'hook'\nurl = 'http://h/x'\ngroup_wait = '0s'";
        config.webhooks = webhooks(&format!("{head}\n{keys}\n"));
        bench.notifier.prepare(&config).unwrap_or_else(|e| panic!("{e:?}"))
    };
    bench.notifier.apply(with_hook("")).await;
    // Both are busy with a receiver that takes its time.
    *bench.network.delay.lock() = Duration::from_secs(8);
    bench.notifier.send(vec![alert("Before", &[])]);
    pass(Duration::from_secs(1)).await;
    let changed = with_hook("max_alerts = 3");
    let other = ONE.replace("a:9093", "b:9093");
    let mut other = config(&other);
    other.webhooks =
        webhooks("[[notify.webhook]]\nname = 'hook'\nurl = 'http://h/y'\ngroup_wait = '0s'\n");
    let other = bench.notifier.prepare(&other).unwrap();
    for prepared in [changed, other] {
        let applying = {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.notifier.apply(prepared).await })
        };
        pass(Duration::from_millis(10)).await;
        assert_eq!(bench.notifier.status().active.len(), 1);
        bench.notifier.send(vec![alert("During", &[])]);
        applying.await.unwrap();
    }
    pass(Duration::from_mins(1)).await;
    let posts = bench.network.posts.lock();
    let during = |url: &str| {
        posts.iter().filter(|(to, body)| to == url && body.to_string().contains("During")).count()
    };
    assert_eq!((during(URL), during("http://b:9093/api/v2/alerts")), (1, 1), "{posts:?}");
    assert!(during("http://h/x") + during("http://h/y") >= 1, "{posts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_changes_keeps_its_figures() {
    let bench = bench(100, true);
    bench.apply(ONE).await;
    bench.notifier.send(vec![alert("A", &[])]);
    pass(Duration::from_secs(1)).await;
    bench.apply(&ONE.replace("static_configs", "timeout: 3s, static_configs")).await;
    assert_eq!(bench.value("prometheus_notifications_sent_total{"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn what_entries_discover_is_told_by_their_place_whoever_was_there_before() {
    let bench = bench(100, true);
    let found = |at: usize| {
        bench.value(&format!(
            "prometheus_sd_discovered_targets{{config=\"config-{at}\",name=\"notify\"}}"
        ))
    };
    bench.apply(ONE).await;
    assert_eq!((found(0), found(1)), (Some(1.0), None));
    let entries = |entries: &[&str]| {
        let entry = |targets: &&str| format!("{{static_configs: [{{targets: [{targets}]}}]}}");
        let entries: Vec<String> = entries.iter().map(entry).collect();
        format!("alerting: {{alertmanagers: [{}]}}", entries.join(", "))
    };
    bench.apply(&entries(&["'a:9093', 'b:9093'"])).await;
    assert_eq!((found(0), found(1)), (Some(2.0), None));
    bench.apply(&entries(&["'a:9093', 'b:9093'", "'c:9093'"])).await;
    pass(Duration::from_secs(2)).await;
    assert_eq!((found(0), found(1)), (Some(2.0), Some(1.0)));
    // The second becomes the first.
    bench.apply(&entries(&["'c:9093'"])).await;
    pass(Duration::from_secs(2)).await;
    assert_eq!((found(0), found(1)), (Some(1.0), None));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_each_batch_of_one_that_does_not_answer() {
    let bench = bench(10_000, true);
    bench.apply(ONE).await;
    *bench.network.delay.lock() = Duration::from_secs(10);
    *bench.network.answers.lock() = vec![Err("timed out".into()); 100];
    bench.notifier.send((0..6400).map(|at| alert("A", &[("n", &at.to_string())])).collect());
    pass(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    bench.notifier.stop().await;
    assert!(begun.elapsed() <= Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(bench.value("prometheus_notifications_dropped_total{"), Some(6400.0));
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_ends_while_the_server_is_down_is_told_to_have_ended() {
    let disk = SimDisk::new();
    let bench = bench_on(&disk, 100, true);
    bench.hook("").await;
    let others = [alert("Down", &[("n", "1")]), alert("Other", &[])];
    bench.notifier.send(others.to_vec());
    pass(Duration::from_secs(20)).await;
    assert_eq!(bench.messages(), [told("firing", 1), told("firing", 1)]);
    // As after kill -9: nothing is stopped in order.
    let again = bench_on(&disk, 100, true);
    again.hook("").await;
    // One of them still fires, and its rule says so for ten minutes.
    for minute in 0..10 {
        let mut fires = others[1].clone();
        fires.ends_at = crate::notify::testing::START + stint_model::Span((minute + 4) * 60_000);
        again.notifier.send(vec![fires]);
        pass(Duration::from_mins(1)).await;
    }
    assert_eq!(again.messages(), [told("resolved", 1)]);
    assert_eq!(again.network.posts.lock()[0].1["commonLabels"]["n"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_kept_once_a_second_and_at_its_end() {
    let disk = SimDisk::new();
    let bench = bench_on(&disk, 100, true);
    bench.hook("group_by = ['...']").await;
    bench.notifier.send((0..400).map(|at| alert("A", &[("n", &at.to_string())])).collect());
    pass(Duration::from_secs(15)).await;
    assert_eq!(bench.messages().len(), 400);
    let again = bench_on(&disk, 100, true);
    again.hook("group_by = ['...']").await;
    again.notifier.send((0..400).map(|at| alert("A", &[("n", &at.to_string())])).collect());
    pass(Duration::from_mins(1)).await;
    assert_eq!(again.messages(), [], "all that was told is known");
}
