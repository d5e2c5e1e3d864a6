//! Forwarding: from one server's store into another's.

use stint_model::Span;

use crate::support::{NOW, TestDir, TestServer};

const RECEIVER: &[&str] = &["--web.enable-remote-write-receiver"];
const UP: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];

fn forwarding_to(url: &str) -> String {
    format!(
        "global: {{external_labels: {{site: home}}}}\n\
         remote_write:\n\
         - url: {url}/api/v1/write\n\
         \x20 queue_config: {{batch_send_deadline: 10ms}}\n"
    )
}

#[tokio::test]
async fn what_is_stored_arrives_at_the_endpoint() {
    let (near, far) = (TestDir::new(), TestDir::new());
    let receiver = TestServer::start(&far, "", RECEIVER).await;
    let config = forwarding_to(&receiver.url);
    let sender = TestServer::start(&near, &config, RECEIVER).await;
    assert_eq!(sender.write(&[(UP, &[(0, 1.5)])]).await.status, 204);
    let arrived = |data: &serde_json::Value| !data["result"][0].is_null();
    let data = receiver.wait_for("/api/v1/query?query=up", arrived).await;
    assert_eq!(data["result"][0]["metric"]["site"], "home");
    assert_eq!(data["result"][0]["value"][0], NOW.0 / 1000);
    assert_eq!(data["result"][0]["value"][1], "1.5");
    let metrics = sender.get("/metrics").await;
    let url = format!("{}/api/v1/write", receiver.url);
    for part in [
        "prometheus_remote_storage_samples_total{remote_name=",
        "stint_forward_running{remote_name=",
        &format!("url=\"{url}\"}} 1\n"),
    ] {
        assert!(metrics.text.contains(part), "{part} in {}", metrics.text);
    }
    sender.stop().await;
    receiver.stop().await;
}

#[tokio::test]
async fn what_was_stored_while_the_endpoint_was_away_arrives_after_a_restart() {
    let (near, far) = (TestDir::new(), TestDir::new());
    let receiver = TestServer::start(&far, "", RECEIVER).await;
    let config = forwarding_to(&receiver.url);
    let address = receiver.url.trim_start_matches("http://").to_owned();
    receiver.stop().await;
    let flags = &[RECEIVER[0], "--storage.remote.flush-deadline=10ms"];
    let sender = TestServer::start(&near, &config, flags).await;
    assert_eq!(sender.write(&[(UP, &[(0, 1.0), (15, 2.0)])]).await.status, 204);
    sender.stop().await;

    let listen = format!("--web.listen-address={address}");
    let receiver = TestServer::start_at(&far, RECEIVER, &listen).await;
    receiver.clock.advance(Span::MINUTE);
    let sender = TestServer::start(&near, &config, flags).await;
    let both = |data: &serde_json::Value| data["result"][0]["value"][1] == "3";
    receiver.wait_for("/api/v1/query?query=sum_over_time(up[2m])", both).await;
    sender.stop().await;
    receiver.stop().await;
}
