//! A server in this process, with a clock that tests move and a directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value as Json;
use stint::cli::flags::Flags;
use stint::server::Server;
use stint_model::clock::SimClock;
use stint_model::{Sample, Timestamp};
use stint_wire::remote_write::v1;
use stint_wire::snappy::compress_into;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Where the clocks of test servers stand at first: 2026-01-01T00:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp(1_767_225_600_000);

/// A directory that is removed with its owner.
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("stint-e2e-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // What is left behind lies in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Labels of a series, and its samples by seconds from [`NOW`].
pub(crate) type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

/// Labels of a series in order, and its samples by milliseconds since 1970.
pub(crate) type Written = (Vec<(String, String)>, Vec<(i64, f64)>);

/// Sends samples to any server by remote write 1.0.
pub(crate) async fn remote_write(url: &str, series: &[Written]) {
    let mut encoder = v1::Encoder::new();
    for (labels, samples) in series {
        let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut encoded = encoder.series(labels);
        for (at, value) in samples {
            encoded.sample(&Sample::float(Timestamp(*at), *value));
        }
    }
    let mut body = Vec::new();
    compress_into(encoder.body(), &mut body).unwrap();
    let request = reqwest::Client::new()
        .post(format!("{url}/api/v1/write"))
        .header("Content-Encoding", "snappy")
        .header("Content-Type", "application/x-protobuf")
        .header("X-Prometheus-Remote-Write-Version", "0.1.0")
        .body(body);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) url: String,
    /// Where OTLP is received over gRPC and over HTTP, where it is.
    pub(crate) otlp: [Option<String>; 2],
    pub(crate) clock: Arc<SimClock>,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
    _hangups: mpsc::Sender<()>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `data` of a successful answer.
    pub(crate) fn data(&self) -> Json {
        let mut json = self.json();
        assert_eq!((self.status, &json["status"]), (200, &Json::from("success")), "{self:?}");
        json["data"].take()
    }
}

impl TestServer {
    /// Starts a server on `dir` that reads `config` as its `prometheus.yml`.
    pub(crate) async fn start(dir: &TestDir, config: &str, flags: &[&str]) -> Self {
        let data = format!("--storage.tsdb.path={}", dir.path().join("data").display());
        Self::start_with(dir, config, flags, &data).await
    }

    /// The same with another data directory.
    pub(crate) async fn start_with(
        dir: &TestDir,
        config: &str,
        flags: &[&str],
        data: &str,
    ) -> Self {
        let all = [flags, &[data, "--web.listen-address=127.0.0.1:0"]].concat();
        Self::start_plain(dir, config, &all).await
    }

    /// Without jobs, where the flag `listen` says.
    pub(crate) async fn start_at(dir: &TestDir, flags: &[&str], listen: &str) -> Self {
        let data = format!("--storage.tsdb.path={}", dir.path().join("data").display());
        Self::start_plain(dir, "", &[flags, &[&data, listen]].concat()).await
    }

    async fn start_plain(dir: &TestDir, config: &str, flags: &[&str]) -> Self {
        let config_file = dir.path().join("prometheus.yml");
        std::fs::write(&config_file, config).unwrap();
        let mut arguments = vec![format!("--config.file={}", config_file.display())];
        arguments.extend(flags.iter().map(ToString::to_string));
        let flags = Flags::from_arguments(&arguments).unwrap();
        let clock = Arc::new(SimClock::at(NOW));
        let server = Server::start(&flags, clock.clone()).await.unwrap();
        let url = format!("http://{}", server.addresses()[0]);
        let url_of = |address: &SocketAddr| format!("http://{address}");
        let otlp = server.otlp_addresses().map(|addresses| addresses.first().map(url_of));
        let (stop, stopped) = oneshot::channel();
        let (hangups, on_hangup) = mpsc::channel(1);
        let running = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            server.run(stop, on_hangup).await.unwrap();
        });
        let client = reqwest::Client::builder().no_proxy().no_gzip().build().unwrap();
        Self { url, otlp, clock, client, stop, running, _hangups: hangups }
    }

    /// Stops it and waits until its directory is free.
    pub(crate) async fn stop(self) {
        drop(self.client);
        self.stop.send(()).unwrap();
        self.running.await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Self::answer(self.client.get(format!("{}{path}", self.url))).await
    }

    /// Asks until the answer's `data` is what is waited for.
    pub(crate) async fn wait_for(&self, path: &str, is_it: impl Fn(&Json) -> bool) -> Json {
        for _ in 0..10_000 {
            let data = self.get(path).await.data();
            if is_it(&data) {
                return data;
            }
        }
        panic!("{path} never became what was waited for");
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        Self::answer(self.client.post(format!("{}{path}", self.url)).form(form)).await
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        Answer { status, text: response.text().await.unwrap() }
    }

    /// Sends samples by remote write 1.0. Times are seconds from [`NOW`].
    pub(crate) async fn write(&self, series: &[Series<'_>]) -> Answer {
        let mut encoder = v1::Encoder::new();
        for (labels, samples) in series {
            let mut encoded = encoder.series(labels.iter().copied());
            for (seconds, value) in *samples {
                encoded.sample(&Sample::float(Timestamp(NOW.0 + seconds * 1000), *value));
            }
        }
        let mut body = Vec::new();
        compress_into(encoder.body(), &mut body).unwrap();
        let request = self
            .request(reqwest::Method::POST, "/api/v1/write")
            .header("Content-Encoding", "snappy")
            .header("Content-Type", "application/x-protobuf")
            .body(body);
        Self::answer(request).await
    }
}
