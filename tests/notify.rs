//! Alerts go to a real Alertmanager and to a webhook at once: what the Alertmanager posts on and what is posted
//! directly is the same.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path as Route;
use axum::routing::post;
use serde_json::Value as Json;
use stint::config;
use stint::discovery::{DiscoveryMetrics, Hub};
use stint::metrics::Metrics;
use stint::notify::{Notifier, NotifyMetrics, Options, Parts};
use stint::rules::{Alert, AlertSink as _};
use stint_model::clock::SystemClock;
use stint_model::{Clock, Labels, Span, Timestamp};
use stint_storage::SimDisk;
use tokio::sync::mpsc;

use crate::peers::program;
use crate::process::{Running, free_address};
use crate::support::TestDir;

/// Collects what is posted below `/`, with the path.
async fn receiver() -> (SocketAddr, mpsc::UnboundedReceiver<(String, Json)>) {
    let (sender, received) = mpsc::unbounded_channel();
    let take = move |Route(name): Route<String>, axum::Json(body): axum::Json<Json>| async move {
        sender.send((name, body)).unwrap();
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/{name}", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, received)
}

fn notifier(clock: &Arc<dyn Clock>) -> Notifier {
    let metrics = Metrics::new();
    let parts = Parts {
        clock: Arc::clone(clock),
        metrics: NotifyMetrics::new(&metrics, clock),
        discovery: Arc::new(Hub::new(Arc::clone(clock), DiscoveryMetrics::new(&metrics, clock))),
        disk: Arc::new(SimDisk::new()),
        external_url: "http://here:9093".to_owned(),
    };
    Notifier::new(Options { capacity: 100, batch: 64, drain: true }, parts)
}

fn configuration(folder: &Path, yaml: &str, toml: &str) -> config::Config {
    let (prometheus, retention) = (folder.join("prometheus.yml"), folder.join("retention.toml"));
    std::fs::write(&prometheus, yaml).unwrap();
    std::fs::write(&retention, toml).unwrap();
    let files = config::Files {
        prometheus: Some(&prometheus),
        retention: Some(&retention),
        own_address: "localhost:9090",
        expand_env: false,
    };
    config::load(files).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Two alerts that began at `now`; the first one may have ended.
fn alerts(now: Timestamp, ended: Option<Timestamp>) -> Vec<Alert> {
    let lasts = now + Span(240_000);
    let alert = |n: &str| Alert {
        labels: Labels::from_pairs([("alertname", "Down"), ("job", "é \"q\""), ("n", n)]),
        annotations: [
            ("text".to_owned(), format!("{n} is <down>\n")),
            ("url".to_owned(), "u".into()),
        ]
        .into(),
        starts_at: now,
        ends_at: ended.filter(|_| n == "1").unwrap_or(lasts),
        generator_url: Arc::from("http://stint:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1"),
    };
    ["1", "2"].map(alert).to_vec()
}

/// The next post to each of both paths, without what differs by design.
async fn both(received: &mut mpsc::UnboundedReceiver<(String, Json)>) -> (Json, Json) {
    let (mut theirs, mut ours) = (Json::Null, Json::Null);
    while theirs.is_null() || ours.is_null() {
        let next = tokio::time::timeout(Duration::from_mins(1), received.recv()).await;
        let (name, mut body) = next.expect("a post within a minute").unwrap();
        body["externalURL"] = Json::Null;
        // Newer Alertmanagers tell why they post.
        body.as_object_mut().unwrap().remove("notification_reason");
        if name == "theirs" { theirs = body } else { ours = body }
    }
    (theirs, ours)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_alertmanager_receives_groups_and_resolves() {
    let Some(alertmanager) = program("prometheus-alertmanager") else {
        eprintln!("skipped: prometheus-alertmanager is not installed");
        return;
    };
    let (receiver, mut received) = receiver().await;
    let (folder, at) = (TestDir::new(), free_address());
    let file = folder.path().join("alertmanager.yml");
    let text = format!(
        "route: {{receiver: hook, group_by: [alertname, cluster], group_wait: 1s, group_interval: 2s}}\n\
         receivers: [{{name: hook, webhook_configs: [{{url: 'http://{receiver}/theirs'}}]}}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let log = folder.path().join("alertmanager.log");
    let mut running = Running::telling(
        Command::new(alertmanager)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", folder.path().join("am").display()))
            .arg(format!("--web.listen-address={at}"))
            .arg("--cluster.listen-address="),
        &log,
    );
    let ready = format!("http://{at}/-/ready");
    // Foreign processes offer no event to wait for: ask until the answer is there.
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for attempt in 0.. {
        if reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        if running.has_ended() {
            let said = std::fs::read_to_string(&log).unwrap();
            // Debian's looks for its templates where the package has them when it is installed.
            assert!(said.contains("default.tmpl: no such file"), "the Alertmanager ended: {said}");
            eprintln!("skipped: the templates of prometheus-alertmanager are not installed");
            return;
        }
        assert!(attempt < 600, "the Alertmanager is not ready within a minute");
        tick.tick().await;
    }
    let config = configuration(
        folder.path(),
        &format!(
            "global: {{external_labels: {{cluster: c1}}}}\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{at}']}}]}}]}}\n"
        ),
        &format!(
            "[[notify.webhook]]\nname = 'hook'\nurl = 'http://{receiver}/ours'\n\
             group_by = ['alertname', 'cluster']\ngroup_wait = '1s'\ngroup_interval = '2s'\n"
        ),
    );
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let notifier = notifier(&clock);
    notifier.apply(notifier.prepare(&config).unwrap()).await;
    assert_eq!(notifier.status().active, [format!("http://{at}/api/v2/alerts")]);
    let now = clock.now();

    notifier.send(alerts(now, None));
    let (theirs, ours) = both(&mut received).await;
    assert_eq!(theirs["alerts"].as_array().unwrap().len(), 2);
    assert_eq!(theirs["commonLabels"]["cluster"], "c1");
    match program("amtool") {
        Some(amtool) => {
            let url = format!("--alertmanager.url=http://{at}");
            let said =
                Command::new(amtool).args(["alert", "query", "--output=json", &url]).output();
            let alerts: Json = serde_json::from_slice(&said.unwrap().stdout).unwrap();
            let clusters: Vec<&Json> = alerts
                .as_array()
                .unwrap()
                .iter()
                .map(|alert| &alert["labels"]["cluster"])
                .collect();
            assert_eq!(clusters, ["c1", "c1"], "{alerts}");
        }
        None => eprintln!("skipped: amtool is not installed"),
    }
    assert_eq!(times_as_instants(theirs), times_as_instants(ours));

    notifier.send(alerts(now, Some(clock.now())));
    let (theirs, ours) = both(&mut received).await;
    let status: Vec<&Json> =
        theirs["alerts"].as_array().unwrap().iter().map(|alert| &alert["status"]).collect();
    assert_eq!(status, ["resolved", "firing"]);
    assert_eq!(times_as_instants(theirs), times_as_instants(ours));
    notifier.stop().await;
}

/// Go leaves zeros at the end of a fraction out.
fn times_as_instants(mut body: Json) -> Json {
    for alert in body["alerts"].as_array_mut().unwrap() {
        for key in ["startsAt", "endsAt"] {
            let text = alert[key].as_str().unwrap().trim_end_matches('Z').to_owned();
            let text = match text.split_once('.') {
                Some((whole, fraction)) => format!("{whole}.{}", fraction.trim_end_matches('0')),
                None => format!("{text}."),
            };
            alert[key] = Json::from(text);
        }
    }
    body
}
