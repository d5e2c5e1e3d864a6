//! One webhook: its groups, and a task that tells of them.

mod fingerprint;
mod groups;
mod message;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use stint_model::{Clock, Labels};
use stint_storage::Disk;
use stint_storage::disk::{read_all, write_atomically};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::metrics::NotifyMetrics;
use super::transport::{Post, Transport};
use crate::config::Webhook;
use crate::rules::Alert;
use groups::{Groups, Message, Outcome, Told};

/// How many messages of one webhook are on their way at a time.
const PARALLEL: usize = 8;
/// How long to wait at least and at most before groups are looked at again.
const SHORTEST: Duration = Duration::from_millis(1);
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How long what was told may be unsaved while there is more to tell.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// The folder of what was told, in the data folder.
const FOLDER: &str = "notify";
/// The largest file of it that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What all webhooks share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: NotifyMetrics,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) external_url: Arc<str>,
}

/// A running webhook.
pub(super) struct Hook {
    pub(super) name: String,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

struct State {
    shared: Shared,
    /// Locked before `way`, so that groups are always those of the configuration.
    groups: Mutex<Groups>,
    way: RwLock<Way>,
    changed: Notify,
}

/// What is told to whom.
#[derive(Clone)]
struct Way {
    config: Arc<Webhook>,
    transport: Arc<dyn Transport>,
}

impl Hook {
    /// Starts telling, with what an earlier run told.
    pub(super) async fn start(
        config: Arc<Webhook>,
        transport: Arc<dyn Transport>,
        shared: Shared,
    ) -> Self {
        shared.metrics.add_webhook(&config.name);
        let told = load(&shared, &config.name).await;
        let groups = Groups::resumed(told, &config, shared.clock.now());
        let name = config.name.clone();
        let state = Arc::new(State {
            shared,
            groups: Mutex::new(groups),
            way: RwLock::new(Way { config, transport }),
            changed: Notify::new(),
        });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(tell(Arc::clone(&state), stopped));
        Self { name, state, stop, task }
    }

    /// Goes on under another configuration of the same name, with the same alerts.
    pub(super) fn change(&self, config: Arc<Webhook>, transport: Arc<dyn Transport>) {
        let mut groups = self.state.groups.lock();
        let mut way = self.state.way.write();
        if *way.config == *config {
            return;
        }
        *groups = std::mem::take(&mut *groups).regrouped(&config, self.state.shared.clock.now());
        *way = Way { config, transport };
        drop((way, groups));
        self.state.changed.notify_one();
    }

    /// Takes in what concerns this webhook.
    pub(super) fn send(&self, alerts: &[Alert]) {
        let now = self.state.shared.clock.now();
        let mut groups = self.state.groups.lock();
        let config = Arc::clone(&self.state.way.read().config);
        let selectors = &config.selectors;
        let wanted = |labels: &Labels| {
            selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
        };
        let mut dropped = 0_u64;
        for alert in alerts.iter().filter(|alert| wanted(&alert.labels)) {
            if !groups.receive(&config, alert.clone(), now) {
                dropped += 1;
            }
        }
        dropped += groups.take_evicted();
        let held = groups.len();
        drop(groups);
        let (name, metrics) = (&*self.name, &self.state.shared.metrics);
        metrics.webhook_alerts.with_label_values(&[name]).set(held as i64);
        if dropped > 0 {
            metrics.webhook_dropped.with_label_values(&[name]).inc_by(dropped);
            tracing::warn!(webhook = name, dropped, "too many alerts at once for the webhook");
        }
        self.state.changed.notify_one();
    }

    /// Ends telling.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(webhook = self.name, %error, "a webhook did not end in good order");
        }
    }
}

/// Tells of groups as they become due, until stopped.
async fn tell(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let clock = &state.shared.clock;
    // When it was first told what is not kept yet.
    let mut unsaved: Option<Duration> = None;
    while !*stopped.borrow() {
        let now = clock.now();
        let (messages, next, way) = {
            let mut groups = state.groups.lock();
            let way = state.way.read().clone();
            (groups.due(&way.config, now, PARALLEL), groups.next_due(), way)
        };
        let is_long_ago = |since: Duration| clock.monotonic().saturating_sub(since) >= SAVE_AFTER;
        if unsaved.is_some_and(|since| messages.is_empty() || is_long_ago(since)) {
            save(&way.config, &state).await;
            unsaved = None;
        }
        if !messages.is_empty() {
            unsaved = unsaved.or_else(|| Some(clock.monotonic()));
            join_all(messages.into_iter().map(|message| deliver(&way, &state, message))).await;
            continue;
        }
        let held = state.groups.lock().len();
        let metrics = &state.shared.metrics;
        metrics.webhook_alerts.with_label_values(&[&way.config.name]).set(held as i64);
        let sleep = async {
            match next {
                Some(due) => {
                    // A clock that is set is noticed.
                    tokio::time::sleep(due.since(now).to_std().clamp(SHORTEST, SLEEP_MAX)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = state.changed.notified() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
    if unsaved.is_some() {
        let config = Arc::clone(&state.way.read().config);
        save(&config, &state).await;
    }
}

async fn deliver(way: &Way, state: &State, message: Message) {
    let config = &way.config;
    let body = message::body(config, &message, &state.shared.external_url);
    let url = config.url.reveal().to_owned();
    let answer = way.transport.post(Post { url, body }).await;
    let (outcome, problem) = match answer {
        Ok(200..=299) => (Outcome::Taken, String::new()),
        // Too early, or too many; anything else that is our mistake stays one.
        Ok(status @ (408 | 425 | 429 | 500..)) => {
            (Outcome::Failed, format!("bad response status {status}"))
        }
        Ok(status) => (Outcome::Refused, format!("refused with status {status}")),
        Err(error) => (Outcome::Failed, error),
    };
    let (name, metrics) = (&*config.name, &state.shared.metrics);
    if outcome == Outcome::Taken {
        metrics.webhook_sent.with_label_values(&[name]).inc();
    } else {
        metrics.webhook_failed.with_label_values(&[name]).inc();
        tracing::error!(webhook = name, problem, "the webhook did not take a message");
    }
    let now = state.shared.clock.now();
    let mut groups = state.groups.lock();
    let config = Arc::clone(&state.way.read().config);
    groups.done(&config, &message, outcome, now);
}

/// Where what was told is kept; a name may hold anything.
fn file(name: &str) -> PathBuf {
    let identity = Labels::from_pairs([("webhook", name)]);
    Path::new(FOLDER).join(format!("{:016x}.json", identity.stable_hash()))
}

/// What an earlier run told. Without it, what fires is told anew.
async fn load(shared: &Shared, name: &str) -> BTreeMap<String, Told> {
    let (disk, path) = (Arc::clone(&shared.disk), file(name));
    let read = tokio::task::spawn_blocking(move || match disk.size(&path) {
        Ok(size) if size > FILE_BYTES_MAX => Err(format!("{size} bytes are too many")),
        Ok(_) => {
            let bytes = read_all(&*disk, &path).map_err(|error| error.to_string())?;
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())
        }
        Err(error) if error.is_not_found() => Ok(BTreeMap::new()),
        Err(error) => Err(error.to_string()),
    });
    match read.await.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(told) => told,
        Err(error) => {
            tracing::warn!(webhook = name, error, "what was told before is not known");
            BTreeMap::new()
        }
    }
}

async fn save(config: &Webhook, state: &State) {
    let now = state.shared.clock.now();
    let bytes = {
        let mut groups = state.groups.lock();
        groups.forget_old(config, now);
        serde_json::to_vec(groups.told())
    };
    let (disk, path) = (Arc::clone(&state.shared.disk), file(&config.name));
    let written = tokio::task::spawn_blocking(move || {
        let bytes = bytes.map_err(|error| error.to_string())?;
        disk.create_dir(Path::new(FOLDER)).map_err(|error| error.to_string())?;
        write_atomically(&*disk, &path, &bytes).map_err(|error| error.to_string())
    });
    if let Err(error) = written.await.unwrap_or_else(|error| Err(error.to_string())) {
        let webhook = &config.name;
        tracing::warn!(
            webhook,
            error,
            "cannot keep what was told: after a restart it is told again"
        );
    }
}
