//! Against servers of few lines, which answer as they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::fetch::{Clients, FetchError, Fetcher as _, HttpFetcher};
use super::super::target::{Built, Target};
use super::Line;
use crate::discovery::{ADDRESS, TargetGroup};

/// A server that gives each request on each connection the next of `answers`, and closes the connection
/// behind one that is empty or says so. Tells its address, how many connections there were, and the
/// requests.
async fn server(
    answers: &[&'static str],
) -> (String, Arc<AtomicUsize>, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let (asked, requests) = tokio::sync::mpsc::unbounded_channel();
    let (counted, answers) = (Arc::clone(&connections), answers.to_vec());
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            loop {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or(0);
                let Some(answer) = (length > 0).then(|| answers.next()).flatten() else { break };
                head.truncate(length);
                // Not every test looks at them.
                let _ = asked.send(String::from_utf8(head).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.is_empty() || answer.contains("connection: close") {
                    break;
                }
            }
        }
    });
    (address, connections, requests)
}

fn fetcher(job: &str, address: &str) -> (HttpFetcher, Target) {
    let keys = format!("{job}\nstatic_configs: [{{targets: [a]}}]");
    let job = crate::config::tests_support::job(&keys);
    let client = Clients::default().get(&job.http).unwrap();
    let group = TargetGroup {
        source: String::new(),
        targets: Vec::new(),
        labels: stint_model::Labels::default(),
    };
    let labels = stint_model::Labels::from_pairs([(ADDRESS, address)]);
    match Target::build(&job, &group, &labels) {
        Built::Active(target) => (HttpFetcher::new(&job, client, Arc::default()), *target),
        other => panic!("{other:?}"),
    }
}

async fn ask(
    fetcher: &HttpFetcher,
    target: &Target,
    line: &mut Line,
) -> Result<String, FetchError> {
    let fetched = fetcher.fetch(target, line, 0).await?;
    Ok(String::from_utf8(fetched.body).unwrap())
}

const ONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nup 1\n";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nup \r\n2\r\n2\n\r\n0\r\n\r\n";
const CLOSING: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nup 3\n";
const UNTIL_END: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nup 4\n";
const REFUSING: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn one_connection_serves_scrape_after_scrape() {
    let (address, connections, mut requests) = server(&[ONE, CHUNKED, ONE]).await;
    let job = "params: {module: [a b]}\nbasic_auth: {username: u, password: p}";
    let (fetcher, target) = fetcher(job, &address);
    let mut line = Line::default();
    for body in ["up 1\n", "up 2\n", "up 1\n"] {
        assert_eq!(ask(&fetcher, &target, &mut line).await.unwrap(), body);
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with("GET /metrics?module=a+b HTTP/1.1\r\n"), "{request}");
        for header in [
            format!("\r\nhost: {address}\r\n"),
            "\r\nauthorization: Basic dTpw\r\n".to_owned(),
            "\r\naccept-encoding: gzip\r\n".to_owned(),
            "\r\nuser-agent: Prometheus/".to_owned(),
            "\r\nx-prometheus-scrape-timeout-seconds: 10\r\n".to_owned(),
        ] {
            assert_eq!(request.matches(&header).count(), 1, "{header} in {request}");
        }
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_is_replaced() {
    // The second connection breaks off instead of answering, once it was used.
    let (address, connections, _requests) = server(&[CLOSING, UNTIL_END, ONE, "", ONE]).await;
    let (fetcher, target) = fetcher("", &address);
    let mut line = Line::default();
    for body in ["up 3\n", "up 4\n", "up 1\n", "up 1\n"] {
        assert_eq!(ask(&fetcher, &target, &mut line).await.unwrap(), body);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_new_connection_that_breaks_off_is_a_failure() {
    let (address, connections, _requests) = server(&["", ONE]).await;
    let (fetcher, target) = fetcher("", &address);
    let error = ask(&fetcher, &target, &mut Line::default()).await.unwrap_err();
    let FetchError::Failed(error) = error else { panic!("{error}") };
    assert!(error.starts_with(&format!("Get \"http://{address}/metrics\": ")), "{error}");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_a_failure_and_its_connection_is_not_used_again() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 50\r\nconnection: close\r\n\r\nup 1\n";
    let (address, connections, _requests) = server(&[ONE, cut, ONE]).await;
    let (fetcher, target) = fetcher("", &address);
    let mut line = Line::default();
    assert_eq!(ask(&fetcher, &target, &mut line).await.unwrap(), "up 1\n");
    assert!(matches!(ask(&fetcher, &target, &mut line).await, Err(FetchError::Failed(_))));
    assert_eq!(ask(&fetcher, &target, &mut line).await.unwrap(), "up 1\n");
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn nobody_listening_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (fetcher, target) = fetcher("", &address);
    let error = ask(&fetcher, &target, &mut Line::default()).await.unwrap_err().to_string();
    assert!(error.contains("onnection refused"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_where_they_may_be() {
    const MOVED: &str =
        "HTTP/1.1 302 Found\r\nlocation: /new\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (address, _, mut requests) = server(&[MOVED, MOVED, CLOSING, MOVED, CLOSING]).await;
    let (following, target) = fetcher("", &address);
    let mut line = Line::default();
    for _ in 0..2 {
        assert_eq!(ask(&following, &target, &mut line).await.unwrap(), "up 3\n");
    }
    let mut paths = Vec::new();
    while let Ok(request) = requests.try_recv() {
        paths.push(request.split(' ').nth(1).unwrap().to_owned());
    }
    // From the second scrape on by a client that follows at once.
    assert_eq!(paths, ["/metrics", "/metrics", "/new", "/metrics", "/new"]);
    let (address, ..) = server(&[MOVED]).await;
    let (staying, target) = fetcher("follow_redirects: false", &address);
    let error = ask(&staying, &target, &mut Line::default()).await.unwrap_err();
    assert_eq!(error, FetchError::Status("302 Found".into()));
}

#[tokio::test]
async fn what_is_not_asked_for_often_keeps_no_connection() {
    let (address, connections, _requests) = server(&[ONE, REFUSING, ONE]).await;
    let (fetcher, target) = fetcher("scrape_interval: 2m", &address);
    let mut line = Line::default();
    for is_up in [true, false, true] {
        assert_eq!(ask(&fetcher, &target, &mut line).await.is_ok(), is_up);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}
