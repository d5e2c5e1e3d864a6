//! The forwarders: one per remote write endpoint, started, replaced and stopped with the
//! configuration.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::{Mutex, RwLock};
use stint_model::{Clock, Labels};
use stint_storage::{Db, Disk};
use stint_wire::remote_write;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::account::{self, Past, Pools};
use super::ask;
use super::cursor::{Cursor, cursor_path};
use super::forwarder::Forwarder;
use super::handle::Handle;
use super::retry::Response;
use super::setup::{Begun, Setup};
use super::status::Status;
use super::stored::{self, Keep};
use super::supervise::Supervisor;
use super::transport::{Request, Transport, TransportError};
use crate::budget::pool::Seat;
use crate::budget::ranking::Ranking;
use crate::config::{Config, RemoteWrite};
use crate::http::{Client, explain};

/// Who asks, in the words of the protocol's reference sender.
pub(super) const USER_AGENT: &str = concat!("stint/", env!("CARGO_PKG_VERSION"));
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
    sources: Arc<Sources>,
    /// Held while a configuration is applied.
    running: tokio::sync::Mutex<BTreeMap<String, Running>>,
    /// Of all endpoints, in order of names.
    seats: RwLock<Vec<Arc<Place>>>,
    pools: Arc<Pools>,
    ranking: Arc<RwLock<Option<Arc<Ranking>>>>,
}

/// What there is of an endpoint whether its forwarder runs or not.
struct Place {
    name: String,
    /// Keeps the log; nothing only where that failed.
    keep: Option<Arc<Mutex<Keep>>>,
    status: Arc<Mutex<Status>>,
    /// The view of the forwarder that began last.
    handle: RwLock<Option<Handle>>,
}

struct Running {
    config: Arc<RemoteWrite>,
    external_labels: Labels,
    seat: Arc<Place>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Asks the account.
    asks: Option<JoinHandle<()>>,
}

/// New and changed endpoints of a configuration, with a way to each.
pub struct Prepared {
    endpoints: Vec<(Arc<RemoteWrite>, Arc<dyn Transport>)>,
    names: Vec<String>,
    /// Names of those that share an account.
    shared: Vec<Vec<String>>,
    external_labels: Labels,
}

impl Manager {
    /// No forwarders yet.
    pub fn new(sources: Sources) -> Self {
        let sources = Arc::new(sources);
        let running = tokio::sync::Mutex::default();
        let (pools, ranking) = (Arc::default(), Arc::default());
        Self { sources, running, seats: RwLock::default(), pools, ranking }
    }

    /// Tells what is used, which decides what matters at endpoints for which nothing is said. A
    /// forwarder that begins later knows it too.
    pub fn rank(&self, ranking: Ranking) {
        let ranking = Arc::new(ranking);
        *self.ranking.write() = Some(Arc::clone(&ranking));
        for handle in self.handles() {
            handle.admission.lock().rank(Arc::clone(&ranking));
        }
    }

    /// Views of the endpoints.
    pub fn handles(&self) -> Vec<Handle> {
        let seats = self.seats.read();
        seats.iter().filter_map(|seat| seat.handle.read().clone()).collect()
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
        for endpoint in &account::shared_out(&config.remote_write) {
            let same = running.get(&endpoint.name).is_some_and(|running| {
                *running.config == *endpoint && running.external_labels == external_labels
            });
            if same {
                continue;
            }
            let endpoint = Arc::new(endpoint.clone());
            let own = Arc::clone(&endpoint);
            let made = tokio::task::spawn_blocking(move || {
                HttpTransport::new(&own).map_err(|error| error.to_string())
            });
            match made.await.map_err(|error| error.to_string()).and_then(|made| made) {
                Ok(transport) => endpoints.push((endpoint, Arc::new(transport) as _)),
                Err(error) => errors.push(format!("remote_write {:?}: {error}", endpoint.name)),
            }
        }
        let names = config.remote_write.iter().map(|endpoint| endpoint.name.clone()).collect();
        for names in account::shared(&config.remote_write) {
            tracing::info!(
                endpoints = names.join(", "),
                "these endpoints send to one account and share its budget, each as it needs it; \
                 budget.series under [endpoint.NAME] in retention.toml gives one of them a part of its own"
            );
        }
        if errors.is_empty() {
            let shared = account::shared(&config.remote_write).into_iter();
            let shared =
                shared.map(|names| names.into_iter().map(str::to_owned).collect()).collect();
            Ok(Prepared { endpoints, names, shared, external_labels })
        } else {
            Err(errors)
        }
    }

    /// Makes the endpoints of a configuration the ones that are forwarded to. Those that are the
    /// same go on undisturbed; those that changed go on where they were. When it returns, the log
    /// is kept for all of them.
    pub async fn apply(&self, prepared: Prepared) {
        let mut running = self.running.lock().await;
        let changed = |name: &String| prepared.endpoints.iter().any(|(new, _)| new.name == *name);
        let ending: Vec<String> = running
            .keys()
            .filter(|name| changed(name) || !prepared.names.contains(name))
            .cloned()
            .collect();
        let ending: Vec<Running> =
            ending.into_iter().filter_map(|name| running.remove(&name)).collect();
        // Seats stay over a change, so that the log is held in between.
        let mut seats: BTreeMap<String, Arc<Place>> =
            ending.iter().map(|old| (old.seat.name.clone(), Arc::clone(&old.seat))).collect();
        let configs: Vec<_> = ending.iter().map(|old| Arc::clone(&old.config)).collect();
        join_all(ending.into_iter().map(|old| old.stop(self.sources.flush_deadline))).await;
        self.leave(configs).await;
        let used = self.used(&prepared).await;
        let mut claimed = Vec::new();
        for (config, transport) in prepared.endpoints {
            let past = match self.claim(&config, &prepared.names).await {
                // A ledger of its own counts more; where there is none, those of others are known.
                _ if used.contains(&config.name) => Past::Known,
                past => past,
            };
            claimed.push((config, transport, past));
        }
        // Only when everything lies where it belongs, it is counted.
        for (config, transport, past) in claimed {
            let name = config.name.clone();
            let seat = match seats.remove(&name) {
                Some(seat) => seat,
                None => self.seat(&name).await,
            };
            let labels = prepared.external_labels.clone();
            running.insert(name, self.start(config, labels, transport, seat, past).await);
        }
        *self.seats.write() = running.values().map(|one| Arc::clone(&one.seat)).collect();
    }

    /// What these endpoints sent still counts, though nobody works for them.
    async fn leave(&self, ended: Vec<Arc<RemoteWrite>>) {
        let (disk, pools) = (Arc::clone(&self.sources.disk), Arc::clone(&self.pools));
        let now = self.sources.clock.monotonic();
        let leave = move || ended.iter().for_each(|config| pools.leave(&disk, config, now));
        if let Err(error) = tokio::task::spawn_blocking(leave).await {
            tracing::error!(%error, "cannot look for state of the account");
        }
    }

    /// New endpoints for accounts that others have been sending to.
    async fn used(&self, prepared: &Prepared) -> Vec<String> {
        let (disk, shared) = (Arc::clone(&self.sources.disk), prepared.shared.clone());
        let look = move || {
            let mut used = Vec::new();
            for names in shared {
                for name in &names {
                    let peers: Vec<String> =
                        names.iter().filter(|it| *it != name).cloned().collect();
                    // What cannot be read may be there.
                    if account::has_ledger(&*disk, &peers).unwrap_or(true) {
                        used.push(name.clone());
                    }
                }
            }
            used
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look for state of the account");
            prepared.shared.concat()
        })
    }

    /// Brings the state of the endpoint's account to where it is looked for.
    async fn claim(&self, config: &Arc<RemoteWrite>, names: &[String]) -> Past {
        let (disk, own) = (Arc::clone(&self.sources.disk), Arc::clone(config));
        let (names, pools) = (names.to_vec(), Arc::clone(&self.pools));
        let now = self.sources.clock.monotonic();
        let claimed = tokio::task::spawn_blocking(move || {
            account::claim(&disk, &own, &names, &pools, now).map_err(|error| error.to_string())
        });
        let claimed = claimed.await.map_err(|error| error.to_string()).and_then(|past| past);
        claimed.unwrap_or_else(|error| {
            tracing::error!(endpoint = %config.name, error, "cannot look for state of the account");
            Past::Own
        })
    }

    /// A new seat, which keeps the log from where an earlier run of the server stopped.
    async fn seat(&self, name: &str) -> Arc<Place> {
        let (sources, own) = (Arc::clone(&self.sources), name.to_owned());
        let keep = tokio::task::spawn_blocking(move || {
            let (_, saved) = Cursor::open(Arc::clone(&sources.disk), &cursor_path(&own));
            Keep::new(&sources.db, &own, &saved).map_err(|error| error.to_string())
        });
        let keep = match keep.await.map_err(|error| error.to_string()).and_then(|kept| kept) {
            Ok(keep) => Some(Arc::new(Mutex::new(keep))),
            Err(error) => {
                tracing::error!(endpoint = name, error, "the log is not kept for the endpoint");
                None
            }
        };
        Arc::new(Place {
            name: name.to_owned(),
            keep,
            status: Arc::default(),
            handle: RwLock::default(),
        })
    }

    async fn start(
        &self,
        config: Arc<RemoteWrite>,
        external_labels: Labels,
        transport: Arc<dyn Transport>,
        seat: Arc<Place>,
        past: Past,
    ) -> Running {
        let seed = RandomState::new().hash_one(&config.name);
        let start = {
            let (sources, seat) = (Arc::clone(&self.sources), Arc::clone(&seat));
            let (config, labels) = (Arc::clone(&config), external_labels.clone());
            let (pools, ranking) = (Arc::clone(&self.pools), Arc::clone(&self.ranking));
            move || {
                let (sources, place) = (Arc::clone(&sources), Arc::clone(&seat));
                let (config, labels) = (Arc::clone(&config), labels.clone());
                let (transport, pools) = (Arc::clone(&transport), Arc::clone(&pools));
                let ranking = ranking.read().clone();
                let setup = move || {
                    let now = sources.clock.monotonic();
                    let account = pools.seat(&sources.disk, &config, now);
                    let account = account.map_err(|error| error.to_string())?;
                    let account = Account { seat: account, past, ranking };
                    begin(&sources, &place, config, labels, transport, seed, account)
                };
                async move {
                    let begun = tokio::task::spawn_blocking(setup).await;
                    begun.map_err(|error| error.to_string()).and_then(|begun| begun)
                }
            }
        };
        let supervisor = Supervisor {
            name: config.name.clone(),
            status: Arc::clone(&seat.status),
            clock: Arc::clone(&self.sources.clock),
            seed,
        };
        let (stop, stopped) = watch::channel(false);
        let first = start().await;
        let task = tokio::spawn(supervisor.run(first, start, stopped));
        let place = Arc::clone(&seat);
        let handle = move || place.handle.read().clone();
        let asks = ask::spawn(&config, &external_labels, handle);
        Running { config, external_labels, seat, stop, task, asks }
    }

    /// Stops all forwarders; what they do not deliver in time stays in the store.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock().await);
        self.seats.write().clear();
        join_all(running.into_values().map(|one| one.stop(self.sources.flush_deadline))).await;
    }
}

/// What a forwarder is told beside its configuration.
struct Account {
    seat: Seat,
    past: Past,
    ranking: Option<Arc<Ranking>>,
}

/// A forwarder that goes on where the last one stopped. It may wait for the disk.
fn begin(
    sources: &Sources,
    seat: &Place,
    config: Arc<RemoteWrite>,
    external_labels: Labels,
    transport: Arc<dyn Transport>,
    seed: u64,
    account: Account,
) -> Result<Forwarder, String> {
    let keep = seat.keep.clone().ok_or("the log is not kept")?;
    let begun = Begun::new(Setup {
        config,
        external_labels,
        transport,
        disk: Arc::clone(&sources.disk),
        clock: Arc::clone(&sources.clock),
        metadata: sources.db.metadata(),
        wake: Arc::clone(&sources.wake),
        poll: POLL,
        seed,
        status: Arc::clone(&seat.status),
        past: account.past,
        seat: account.seat,
        ranking: account.ranking,
    });
    *seat.handle.write() = Some(begun.handle());
    begun
        .open(|saved| {
            let clock = Arc::clone(&sources.clock);
            stored::open(&sources.db, &seat.name, saved, keep, clock)
        })
        .map_err(|error| error.to_string())
}

impl Running {
    async fn stop(mut self, patience: Duration) {
        self.stop.send_replace(true);
        if let Some(asks) = &self.asks {
            asks.abort();
        }
        let endpoint = &self.config.name;
        match tokio::time::timeout(patience, &mut self.task).await {
            Ok(Ok(())) => {}
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
        let mut post = made.map_err(|error| TransportError::NotSent(error.to_string()))?;
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        for (name, value) in headers {
            post = post.header(name, value);
        }
        let failed = |error: reqwest::Error| {
            // A request needs a connection before it goes out.
            let kind = if error.is_connect() || error.is_builder() {
                TransportError::NotSent
            } else {
                TransportError::NoAnswer
            };
            kind(explain(&error.without_url()))
        };
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

#[cfg(test)]
mod tests;
