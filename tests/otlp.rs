//! OTLP over each of its ways in, as a client sees it. The request is the one of the codec's tests.

use serde_json::{Value as Json, json};

use crate::support::{NOW, TestDir, TestServer};

const PORTS: [&str; 2] =
    ["--otlp.grpc-listen-address=127.0.0.1:0", "--otlp.http-listen-address=127.0.0.1:0"];

fn metric(name: &str, value: f64) -> Json {
    let at = (NOW.0 * 1_000_000).to_string();
    json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "api"}}]},
        "scopeMetrics": [{"metrics": [{
            "name": name, "unit": "By",
            "gauge": {"dataPoints": [{"timeUnixNano": at, "asDouble": value}]},
        }]}],
    }]})
}

/// The binary encoding of the same.
fn message(name: &str, value: f64) -> Vec<u8> {
    stint_wire::otlp::json::to_protobuf(metric(name, value).to_string().as_bytes()).unwrap()
}

/// A message as a gRPC call has it.
fn call(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

async fn value(server: &TestServer, query: &str) -> Json {
    let answer = server.get(&format!("/api/v1/query?query={query}")).await;
    answer.data()["result"][0]["value"][1].clone()
}

fn export(client: &reqwest::Client, url: &str, body: Vec<u8>) -> reqwest::RequestBuilder {
    client
        .post(format!("{url}/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
}

#[tokio::test]
async fn metrics_arrive_over_http_and_grpc() {
    let dir = TestDir::new();
    let flags = [&PORTS[..], &["--web.enable-otlp-receiver"]].concat();
    let server = TestServer::start(&dir, "", &flags).await;
    let [Some(grpc), Some(http)] = &server.otlp else { panic!("no ports") };

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let beside = format!("{}/api/v1/otlp", server.url);
    for (name, url) in [("a", http), ("b", &beside)] {
        let request = client.post(format!("{url}/v1/metrics"));
        let answer = request
            .header("content-type", "application/json")
            .body(metric(name, 1.5).to_string())
            .send()
            .await
            .unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (200, "{}".into()));
        assert_eq!(value(&server, &format!("{name}_bytes{{job=\"api\"}}")).await, "1.5");
    }

    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let answer = export(&h2, grpc, call(&message("c", 2.5))).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    assert_eq!(&answer.bytes().await.unwrap()[..], [0; 5], "an empty message");
    assert_eq!(value(&server, "c_bytes").await, "2.5");

    // What is no message is said to be none, in the status.
    let answer = export(&h2, grpc, call(b"\xff")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["grpc-status"]),
        (200, &"3".parse().unwrap())
    );
    let answer = h2.post(format!("{grpc}/x/Y")).body(call(b"")).send().await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_received_unless_asked_for() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &[]).await;
    assert_eq!(server.otlp, [None, None]);
    let answer = server.post("/api/v1/otlp/v1/metrics", &[]).await;
    assert_eq!(answer.status, 404);
    assert!(answer.text.contains("--web.enable-otlp-receiver"), "{}", answer.text);
    server.stop().await;
}

#[tokio::test]
async fn configured_attributes_and_promotion_make_labels() {
    let dir = TestDir::new();
    std::fs::write(
        dir.path().join("retention.toml"),
        "[otlp.resource_attributes]\n\"deployment.environment\" = \"prod\"\n",
    )
    .unwrap();
    let config = "otlp: {promote_resource_attributes: [deployment.environment]}";
    let server = TestServer::start(&dir, config, &PORTS).await;
    let [_, Some(http)] = &server.otlp else { panic!("no ports") };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{http}/v1/metrics"));
    let request = request.header("content-type", "application/x-protobuf");
    let answer = request.body(message("a", 1.0)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(value(&server, "a_bytes{deployment_environment=\"prod\"}").await, "1");
    assert_eq!(value(&server, "target_info{job=\"api\"}").await, "1");
    server.stop().await;
}
