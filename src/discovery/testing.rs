//! What the tests of mechanisms share: servers that answer from a script, and a task to look at.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Clock, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use super::hub::Known;
use super::metrics::DiscoveryMetrics;
use super::refresh::{Found, Task};
use super::{Hub, TargetGroup};
use crate::metrics::Metrics;

/// The time of the runtime, which tests stop.
pub(super) struct RuntimeClock(tokio::time::Instant);

impl RuntimeClock {
    pub(super) fn started() -> Arc<dyn Clock> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + self.0.elapsed().as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

pub(super) fn metrics() -> (Metrics, DiscoveryMetrics) {
    let registry = Metrics::new();
    let metrics = DiscoveryMetrics::new(&registry, &RuntimeClock::started());
    (registry, metrics)
}

pub(super) fn hub() -> (Hub, Metrics) {
    let (registry, metrics) = metrics();
    (Hub::new(RuntimeClock::started(), metrics), registry)
}

/// A task whose findings are received.
pub(super) fn task(metrics: &DiscoveryMetrics) -> (Task, watch::Receiver<Known>) {
    let (sender, known) = watch::channel(Known::default());
    let (clock, metrics) = (RuntimeClock::started(), metrics.clone());
    (Task { clock, metrics, mechanism: "test", name: "job".to_owned(), sender }, known)
}

/// A request as a server saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// By lower-case name.
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

/// What a server says.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, headers and body.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The beginning of a longer body, and then the end of the connection.
    Half(String),
    /// The beginning of a body that has no end.
    Open(String),
    /// Nothing, for ever.
    Silence,
}

impl Reply {
    pub(crate) fn json(body: impl Into<String>) -> Self {
        Self::typed("application/json", body)
    }

    pub(super) fn typed(kind: &str, body: impl Into<String>) -> Self {
        Self::Whole(200, vec![("content-type", kind.to_owned())], body.into().into_bytes())
    }

    pub(super) fn status(status: u16) -> Self {
        Self::Whole(status, Vec::new(), Vec::new())
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A server on the loopback that notes what it was asked.
#[derive(Clone)]
pub(crate) struct Server {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(super) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (noted, handler): (_, Handler) = (Arc::clone(&requests), Arc::new(handler));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&noted), Arc::clone(&handler)));
            }
        });
        Self { address, requests }
    }

    /// One that answers by path and query; what is not listed is not found.
    pub(crate) async fn of(answers: &[(&str, Reply)]) -> Self {
        let answers: HashMap<String, Reply> =
            answers.iter().map(|(path, reply)| ((*path).to_owned(), reply.clone())).collect();
        Self::start(move |request| {
            answers.get(&request.target).cloned().unwrap_or_else(|| Reply::status(404))
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn targets(&self) -> Vec<String> {
        self.requests.lock().iter().map(|request| request.target.clone()).collect()
    }
}

/// Answers one request of `stream`.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    noted: Arc<Mutex<Vec<Request>>>,
    handler: Handler,
) {
    let Some(request) = read_request(&mut stream).await else { return };
    noted.lock().push(request.clone());
    let text = match handler(&request) {
        Reply::Silence => return std::future::pending().await,
        Reply::Half(body) => {
            let length = body.len() + 100;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
            format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
        }
        Reply::Open(body) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
            stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
            return std::future::pending().await;
        }
        Reply::Whole(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} Said\r\nconnection: close\r\n");
            for (name, value) in headers {
                write!(head, "{name}: {value}\r\n").unwrap();
            }
            write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
            [head.into_bytes(), body].concat()
        }
    };
    // A client that has read enough closes early.
    let _ = stream.write_all(&text).await;
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut text = Vec::new();
    let head_end = loop {
        if let Some(at) = text.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(text[..head_end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while text.len() < head_end + length {
        stream.read_buf(&mut text).await.ok()?;
    }
    let body = String::from_utf8(text[head_end..].to_vec()).unwrap();
    Some(Request { method, target, headers, body })
}

/// The labels of all targets, those of their group among them, one target a line, each line sorted.
pub(super) fn shown(groups: &[TargetGroup]) -> String {
    let mut lines = Vec::new();
    for group in groups {
        for target in &group.targets {
            let mut labels = group.labels.to_builder();
            for (name, value) in target {
                labels.set(name, value);
            }
            let labels = labels.build();
            let pairs: Vec<_> =
                labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            lines.push(pairs.join("\n  "));
        }
    }
    lines.join("\n")
}

/// The same of what was found.
pub(super) fn shown_found(found: &Found) -> String {
    shown(&found.groups)
}
