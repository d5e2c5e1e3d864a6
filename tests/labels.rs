//! Labels that every series must carry, from the configuration to the store and the endpoint.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::process::{Running, free_address};
use crate::support::{TestDir, TestServer};

const RECEIVER: &[&str] = &["--web.enable-remote-write-receiver", "--web.enable-lifecycle"];
const RULES: &str = "[labels]\nwithhold = true\n\
    [labels.required.environment]\nvalue = \"dev\"\nallowed = [\"dev\", \"prod\"]\n\
    [labels.required.service]\npattern = \"[a-z]+\"\n";

fn metrics(data: &serde_json::Value) -> Vec<serde_json::Value> {
    let series = data["result"].as_array().unwrap();
    series.iter().map(|series| series["metric"].clone()).collect()
}

#[tokio::test]
async fn series_get_what_they_lack_and_wrong_ones_stay_at_home() {
    let (near, far) = (TestDir::new(), TestDir::new());
    let receiver = TestServer::start(&far, "", RECEIVER).await;
    std::fs::write(near.path().join("retention.toml"), RULES).unwrap();
    let config = format!(
        "remote_write:\n- url: {}/api/v1/write\n  queue_config: {{batch_send_deadline: 10ms}}\n",
        receiver.url
    );
    let sender = TestServer::start(&near, &config, RECEIVER).await;
    let good: &[(&str, &str)] = &[("__name__", "good"), ("job", "a"), ("service", "api")];
    let bad: &[(&str, &str)] = &[("__name__", "bad"), ("environment", "test"), ("job", "a")];
    assert_eq!(sender.write(&[(bad, &[(0, 1.0)]), (good, &[(0, 2.0)])]).await.status, 204);

    let query = "/api/v1/query?query={__name__=~\"good|bad\"}";
    let two = |data: &serde_json::Value| data["result"].as_array().is_some_and(|r| r.len() == 2);
    let mut stored = metrics(&sender.wait_for(query, two).await);
    stored.sort_by_key(|metric| metric["__name__"].to_string());
    let complete = json!({
        "__name__": "good", "environment": "dev", "job": "a", "service": "api",
    });
    assert_eq!(stored[0], json!({"__name__": "bad", "environment": "test", "job": "a"}));
    assert_eq!(stored[1], complete);

    let report = sender.get("/api/v1/status/labels").await.data();
    assert_eq!(report["withhold"], true);
    assert_eq!(
        report["rules"][0],
        json!({"label": "environment", "value": "dev", "allowed": "dev, prod"})
    );
    let rows = report["violations"].as_array().unwrap();
    let wrong = rows.iter().find(|row| row["label"] == "environment").unwrap();
    assert_eq!(
        (&wrong["found"], &wrong["job"], &wrong["series"]),
        (&json!("test"), &json!("a"), &json!(1))
    );
    let text = sender.get("/metrics").await.text;
    let counted =
        "stint_ingest_label_violations_total{label=\"environment\",problem=\"not_allowed\"} 1\n";
    assert!(text.contains(counted), "{text}");
    assert!(sender.get("/labels").await.text.contains("and not forwarded"));

    // Both were in one request, of which the good one has arrived.
    let one = |data: &serde_json::Value| !data["result"][0].is_null();
    receiver.wait_for("/api/v1/query?query=good", one).await;
    let arrived = metrics(&receiver.get(query).await.data());
    assert_eq!(arrived, [complete]);
    sender.stop().await;
    receiver.stop().await;
}

#[tokio::test]
async fn a_reload_reaches_series_that_are_known() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVER).await;
    let series: &[(&str, &str)] = &[("__name__", "x"), ("service", "api")];
    assert_eq!(server.write(&[(series, &[(0, 1.0)])]).await.status, 204);
    std::fs::write(dir.path().join("retention.toml"), RULES).unwrap();
    assert_eq!(server.post("/-/reload", &[]).await.status, 200);
    assert_eq!(server.write(&[(series, &[(1, 2.0)])]).await.status, 204);
    let path = "/api/v1/query?time=1767225601&query=x{environment=\"dev\"}";
    let found = server.get(path).await.data();
    assert_eq!(found["result"][0]["value"][1], "2", "{found}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rules_record_gets_what_it_lacks() {
    let dir = TestDir::new();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("retention.toml", RULES);
    file("prometheus.yml", "rule_files: [rules.yml]\n");
    let groups = "{name: g, interval: 200ms, rules: [{record: seven, expr: vector(7)}]}";
    file("rules.yml", &format!("groups: [{groups}]\n"));
    let address = free_address();
    let _running = Running::start(
        Command::new(env!("CARGO_BIN_EXE_stint"))
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}")),
    );
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{address}{path}")).await.ok()?;
        serde_json::from_str::<Json>(&answer.text().await.ok()?).ok()
    };
    // The evaluation is another process' affair: ask until it was.
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut found = Vec::new();
    for _ in 0..600 {
        tick.tick().await;
        if let Some(answer) = get("/api/v1/query?query=seven").await {
            found = metrics(&answer["data"]);
        }
        if !found.is_empty() {
            break;
        }
    }
    assert_eq!(found, [json!({"__name__": "seven", "environment": "dev"})]);
    let report = get("/api/v1/status/labels").await.unwrap();
    let rows = report["data"]["violations"].as_array().unwrap();
    let missing = |row: &&Json| row["label"] == "service" && row["found"] == "";
    assert!(rows.iter().any(|row| missing(&row)), "{rows:?}");
}
