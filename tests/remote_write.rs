//! Remote write: from the wire to the value in a query.

use serde_json::json;
use stint_model::Span;

use crate::support::{NOW, TestDir, TestServer};

const RECEIVER: &[&str] = &["--web.enable-remote-write-receiver"];
const UP: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];

#[tokio::test]
async fn a_written_sample_is_the_value_of_a_query() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVER).await;
    let written = server.write(&[(UP, &[(0, 1.5)])]).await;
    assert_eq!((written.status, written.text.as_str()), (204, ""));
    let at = NOW.0 / 1000;
    let answer = server.get("/api/v1/query?query=up").await;
    let expected = json!([{"metric": {"__name__": "up", "job": "a"}, "value": [at, "1.5"]}]);
    assert_eq!(answer.data()["result"], expected);
    server.stop().await;
}

#[tokio::test]
async fn late_samples_are_stored_within_two_hours() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVER).await;
    server.write(&[(UP, &[(0, 1.0)])]).await;
    assert_eq!(server.write(&[(UP, &[(-3600, 2.0)])]).await.status, 204);
    let too_late = server.write(&[(UP, &[(-3 * 3600, 3.0)])]).await;
    assert_eq!(too_late.status, 400);
    assert!(too_late.text.starts_with("too old sample: series {__name__=\"up\""), "{too_late:?}");
    let answer = server.get("/api/v1/query?query=count_over_time(up[4h])").await;
    assert_eq!(answer.data()["result"][0]["value"][1], "2");
    server.stop().await;
}

#[tokio::test]
async fn a_window_of_zero_refuses_late_samples() {
    let dir = TestDir::new();
    let config = "storage: {tsdb: {out_of_order_time_window: 0s}}";
    let server = TestServer::start(&dir, config, RECEIVER).await;
    server.write(&[(UP, &[(0, 1.0)])]).await;
    let late = server.write(&[(UP, &[(-1, 2.0)])]).await;
    assert_eq!(late.status, 400);
    assert!(late.text.starts_with("out of order sample"), "{late:?}");
    server.stop().await;
}

#[tokio::test]
async fn another_value_for_a_time_is_refused_and_the_same_is_not() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVER).await;
    server.write(&[(UP, &[(0, 1.0)])]).await;
    assert_eq!(server.write(&[(UP, &[(0, 1.0)])]).await.status, 204);
    let other = server.write(&[(UP, &[(0, 2.0)]), (&[("__name__", "good")], &[(0, 7.0)])]).await;
    assert_eq!(other.status, 400);
    assert!(other.text.contains("duplicate sample for timestamp"), "{other:?}");
    let good = server.get("/api/v1/query?query=good").await;
    assert_eq!(good.data()["result"][0]["value"][1], "7", "good rows are stored nevertheless");
    server.stop().await;
}

#[tokio::test]
async fn samples_from_the_future_are_refused() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVER).await;
    assert_eq!(server.write(&[(UP, &[(599, 1.0)])]).await.status, 204);
    assert_eq!(server.write(&[(UP, &[(601, 1.0)])]).await.status, 400);
    server.clock.advance(Span::MINUTE);
    assert_eq!(server.write(&[(UP, &[(601, 1.0)])]).await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn without_the_flag_nothing_is_received() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &[]).await;
    let refused = server.write(&[(UP, &[(0, 1.0)])]).await;
    assert_eq!(refused.status, 404);
    assert!(refused.text.contains("--web.enable-remote-write-receiver"), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVER).await;
    server.write(&[(UP, &[(-15, 1.0), (0, 2.0)])]).await;
    server.stop().await;
    let server = TestServer::start(&dir, "", RECEIVER).await;
    let answer = server.get("/api/v1/query?query=sum_over_time(up[1m])").await;
    assert_eq!(answer.data()["result"][0]["value"][1], "3");
    assert_eq!(server.write(&[(UP, &[(15, 4.0)])]).await.status, 204);
    server.stop().await;
}
