//! Scraping: from the exposition of a target to the answer of the API.

use serde_json::json;

use crate::support::{TestDir, TestServer};

/// A target that exposes `BODY` once per connection, in this process.
const BODY: &str = concat!(
    "# HELP jobs_total Jobs done.\n",
    "# TYPE jobs_total counter\n",
    "jobs_total{queue=\"a\"} 3\n",
);

async fn target() -> String {
    let app = axum::Router::new().route("/metrics", axum::routing::get(|| async { BODY }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

#[tokio::test]
async fn a_target_is_listed_with_its_labels() {
    let dir = TestDir::new();
    let address = target().await;
    let config = format!(
        "scrape_configs: [{{job_name: work, static_configs: [{{targets: ['{address}']}}]}}]"
    );
    let server = TestServer::start(&dir, &config, &[]).await;
    let data = server.wait_for("/api/v1/targets", |data| !data["activeTargets"][0].is_null()).await;
    let target = &data["activeTargets"][0];
    assert_eq!(target["scrapeUrl"], format!("http://{address}/metrics"));
    assert_eq!(target["labels"], json!({"instance": address, "job": "work"}));
    assert_eq!(target["discoveredLabels"]["__address__"], address);
    assert_eq!(
        (&target["scrapeInterval"], &target["scrapeTimeout"]),
        (&json!("1m"), &json!("10s"))
    );
    assert_eq!(data["droppedTargetCounts"], json!({"work": 0}));
    let pools = server.get("/api/v1/scrape_pools").await.data();
    assert_eq!(pools, json!({"scrapePools": ["work"]}));
    let dropped = server.get("/api/v1/targets?state=dropped").await.data();
    assert_eq!(dropped["activeTargets"], json!([]));
    server.stop().await;
}
