//! The forwarders: one per remote write endpoint, started, replaced and stopped with the
//! configuration.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::RwLock;
use stint_model::{Clock, Labels};
use stint_storage::{Db, Disk, WalPosition};
use stint_wire::remote_write;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::cursor::Saved;
use super::forwarder::{ForwardError, Forwarder, Handle, Setup};
use super::retry::Response;
use super::stored;
use super::transport::{Request, Transport, TransportError};
use crate::config::{Config, RemoteWrite};
use crate::http::{Client, explain};

/// Who asks, in the words of the protocol's reference sender.
const USER_AGENT: &str = concat!("stint/", env!("CARGO_PKG_VERSION"));
/// How much of an answer's body is read: enough for an error id and a message.
const ANSWER_BYTES_MAX: usize = 4096;

/// How often a forwarder looks for new samples when nobody wakes it.
const POLL: Duration = Duration::from_millis(500);

/// What all forwarders share.
pub struct Sources {
    /// The store.
    pub db: Db,
    /// The disk of the store, where cursors and ledgers are kept too.
    pub disk: Arc<dyn Disk>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// Notified after each append.
    pub wake: Arc<Notify>,
    /// How long a forwarder may take to deliver what is at hand when it stops.
    pub flush_deadline: Duration,
}

/// All forwarders.
pub struct Manager {
    sources: Sources,
    /// Held while a configuration is applied.
    running: tokio::sync::Mutex<BTreeMap<String, Running>>,
    /// Views of those that run, in order of names.
    handles: RwLock<Vec<Handle>>,
}

struct Running {
    config: RemoteWrite,
    external_labels: Labels,
    handle: Handle,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), ForwardError>>,
}

/// New and changed endpoints of a configuration, with a way to each.
pub struct Prepared {
    endpoints: Vec<(RemoteWrite, Arc<dyn Transport>)>,
    names: Vec<String>,
    external_labels: Labels,
}

impl Manager {
    /// No forwarders yet.
    pub fn new(sources: Sources) -> Self {
        Self { sources, running: tokio::sync::Mutex::default(), handles: RwLock::default() }
    }

    /// Views of the forwarders that run.
    pub fn handles(&self) -> Vec<Handle> {
        self.handles.read().clone()
    }

    /// Makes what a configuration needs and changes nothing.
    ///
    /// # Errors
    /// What keeps an endpoint's client from being made, each with the endpoint's name.
    pub async fn prepare(&self, config: &Config) -> Result<Prepared, Vec<String>> {
        let running = self.running.lock().await;
        let external_labels = config.global.external_labels.clone();
        let mut endpoints = Vec::new();
        let mut errors = Vec::new();
        for endpoint in &config.remote_write {
            let same = running.get(&endpoint.name).is_some_and(|running| {
                running.config == *endpoint && running.external_labels == external_labels
            });
            if same {
                continue;
            }
            match HttpTransport::new(endpoint) {
                Ok(transport) => {
                    endpoints.push((endpoint.clone(), Arc::new(transport) as Arc<dyn Transport>));
                }
                Err(error) => errors.push(format!("remote_write {:?}: {error}", endpoint.name)),
            }
        }
        let names = config.remote_write.iter().map(|endpoint| endpoint.name.clone()).collect();
        if errors.is_empty() {
            Ok(Prepared { endpoints, names, external_labels })
        } else {
            Err(errors)
        }
    }

    /// Makes the endpoints of a configuration the ones that are forwarded to. Those that are the
    /// same go on undisturbed; those that changed go on where they were.
    pub async fn apply(&self, prepared: Prepared) {
        let mut running = self.running.lock().await;
        let changed = |name: &String| prepared.endpoints.iter().any(|(new, _)| new.name == *name);
        let ending: Vec<String> = running
            .keys()
            .filter(|name| changed(name) || !prepared.names.contains(name))
            .cloned()
            .collect();
        // Between the end of an old forwarder and the start of the new one nobody else holds the
        // log that neither has sent. Endpoints always have a name, so this one is free.
        let kept = self.sources.db.hold("", Some(WalPosition { segment: 0, offset: 0 }));
        if let Err(error) = &kept {
            tracing::error!(%error, "the log is not held while endpoints change");
        }
        let ending = ending.into_iter().filter_map(|name| running.remove(&name));
        join_all(ending.map(|old| old.stop(self.sources.flush_deadline))).await;
        for (config, transport) in prepared.endpoints {
            let name = config.name.clone();
            match self.start(config, prepared.external_labels.clone(), transport) {
                Ok(started) => {
                    running.insert(name, started);
                }
                Err(error) => tracing::error!(
                    endpoint = name, %error,
                    "cannot forward; samples are kept in the store until a reload or restart"
                ),
            }
        }
        *self.handles.write() = running.values().map(|running| running.handle.clone()).collect();
    }

    fn start(
        &self,
        config: RemoteWrite,
        external_labels: Labels,
        transport: Arc<dyn Transport>,
    ) -> Result<Running, stint_storage::HoldError> {
        let sources = &self.sources;
        let setup = Setup {
            config: &config,
            external_labels: &external_labels,
            transport,
            disk: Arc::clone(&sources.disk),
            clock: Arc::clone(&sources.clock),
            metadata: sources.db.metadata(),
            wake: Arc::clone(&sources.wake),
            poll: POLL,
            seed: RandomState::new().hash_one(&config.name),
        };
        let open = |saved: &Saved| stored::open(&sources.db, &config.name, saved);
        let forwarder = Forwarder::open(setup, open)?;
        let handle = forwarder.handle();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(forwarder.run(stopped));
        Ok(Running { config, external_labels, handle, stop, task })
    }

    /// Stops all forwarders; what they do not deliver in time stays in the store.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock().await);
        self.handles.write().clear();
        join_all(running.into_values().map(|one| one.stop(self.sources.flush_deadline))).await;
    }
}

impl Running {
    async fn stop(mut self, patience: Duration) {
        self.stop.send_replace(true);
        let endpoint = &self.config.name;
        match tokio::time::timeout(patience, &mut self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(endpoint, %error, "forwarding had ended"),
            Ok(Err(error)) => tracing::error!(endpoint, %error, "forwarding ended unexpectedly"),
            Err(_) => {
                tracing::warn!(
                    endpoint,
                    "forwarding did not finish in time; it goes on from the store later"
                );
                self.task.abort();
                // The store stays held until the task is gone.
                let _ = self.task.await;
            }
        }
    }
}

/// Posts over HTTP.
struct HttpTransport {
    client: Client,
    url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
}

impl HttpTransport {
    fn new(endpoint: &RemoteWrite) -> Result<Self, crate::http::ClientError> {
        Ok(Self {
            client: Client::posting(&endpoint.http, USER_AGENT)?,
            url: endpoint.url.clone(),
            headers: endpoint.headers.clone(),
            timeout: endpoint.remote_timeout.to_std(),
        })
    }

    async fn post(&self, request: Request) -> Result<Response, TransportError> {
        let headers = request.headers();
        let made = self.client.request(reqwest::Method::POST, &self.url).await;
        let mut post = made.map_err(|error| TransportError(error.to_string()))?;
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        for (name, value) in headers {
            post = post.header(name, value);
        }
        let failed = |error: reqwest::Error| TransportError(explain(&error.without_url()));
        let mut answer =
            post.timeout(self.timeout).body(request.body).send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let written = written(answer.headers());
        let mut body = Vec::new();
        // The status is known: what cannot be read of the body changes nothing.
        while body.len() < ANSWER_BYTES_MAX
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(ANSWER_BYTES_MAX);
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Response { status, retry_after, body, written })
    }
}

/// What the answer says of samples that were stored.
fn written(headers: &reqwest::header::HeaderMap) -> Option<u64> {
    let number = |name| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let samples = number(remote_write::SAMPLES_WRITTEN_HEADER);
    let histograms = number(remote_write::HISTOGRAMS_WRITTEN_HEADER);
    Some(samples?.saturating_add(histograms.unwrap_or(0)))
}

impl Transport for HttpTransport {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        self.post(request).boxed()
    }
}
