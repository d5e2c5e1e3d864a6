//! One entry of `alertmanagers`: what it discovers, and a queue and a task for each server found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::Clock;
use stint_model::relabel::{self, Verdict};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::metrics::NotifyMetrics;
use super::payload;
use super::queue::Queue;
use super::target::{self, Targets};
use super::transport::{Post, Transport};
use crate::config::Alertmanager;
use crate::discovery::{DiscoveryMetrics, Sources, TargetGroup};
use crate::rules::Alert;

/// The least time between two changes of what was discovered.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What all senders share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: NotifyMetrics,
    /// Most alerts that wait for one Alertmanager.
    pub(super) capacity: usize,
    /// Most alerts in one request.
    pub(super) batch: usize,
    /// Whether what waits is sent before a stop.
    pub(super) drain: bool,
}

/// What an entry discovers.
pub(super) struct Discovery {
    pub(super) sources: Sources,
    pub(super) metrics: DiscoveryMetrics,
}

/// A running entry.
pub(super) struct Set {
    pub(super) config: Arc<Alertmanager>,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    discovery: JoinHandle<()>,
}

struct State {
    shared: Shared,
    transport: Arc<dyn Transport>,
    /// How many targets were discovered, before relabelling.
    found: AtomicUsize,
    targets: Mutex<Targets>,
    senders: Mutex<BTreeMap<String, Sender>>,
}

struct Sender {
    queue: Arc<Queue>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Set {
    /// Starts discovering. Targets that are written in the configuration are there when this returns.
    pub(super) fn start(
        config: Arc<Alertmanager>,
        transport: Arc<dyn Transport>,
        shared: Shared,
        discovery: Discovery,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let state = Arc::new(State {
            shared,
            transport,
            found: AtomicUsize::new(0),
            targets: Mutex::default(),
            senders: Mutex::default(),
        });
        let mut discovery = discovery;
        state.sync(&config, &discovery.sources.groups());
        let discovery =
            tokio::spawn(discover(Arc::clone(&config), Arc::clone(&state), discovery, stopped));
        Self { config, state, stop, discovery }
    }

    /// Gives each server what it shall be told.
    pub(super) fn send(&self, alerts: &[Alert]) {
        let alerts: Vec<Alert> = alerts
            .iter()
            .filter_map(|alert| relabelled(alert, &self.config.alert_relabel_configs))
            .collect();
        if alerts.is_empty() {
            return;
        }
        let metrics = &self.state.shared.metrics;
        for (url, sender) in &*self.state.senders.lock() {
            let dropped = sender.queue.push(alerts.iter().cloned());
            if dropped > 0 {
                metrics.dropped.with_label_values(&[url]).inc_by(dropped as u64);
                tracing::warn!(
                    url,
                    dropped,
                    "too many alerts wait for the Alertmanager, the oldest are dropped"
                );
            }
            metrics.queue_length.with_label_values(&[url]).set(sender.queue.len() as i64);
        }
    }

    /// How many targets were discovered, before relabelling.
    pub(super) fn found(&self) -> usize {
        self.state.found.load(Ordering::Relaxed)
    }

    /// What was discovered.
    pub(super) fn targets(&self) -> Targets {
        self.state.targets.lock().clone()
    }

    /// Ends discovering, and the senders as the options say. Answers with the URLs that were sent to.
    pub(super) async fn stop(self) -> Vec<String> {
        for sender in self.state.senders.lock().values() {
            sender.stop.send_replace(true);
        }
        self.stop.send_replace(true);
        if let Err(error) = self.discovery.await {
            tracing::error!(%error, "discovery of Alertmanagers did not end in good order");
        }
        let senders = std::mem::take(&mut *self.state.senders.lock());
        for sender in senders.values() {
            sender.stop.send_replace(true);
        }
        let mut urls = Vec::with_capacity(senders.len());
        for (url, sender) in senders {
            if let Err(error) = sender.task.await {
                tracing::error!(url, %error, "a sender of alerts did not end in good order");
            }
            urls.push(url);
        }
        urls
    }
}

/// `alert` after `rules`; `None` when they drop it.
pub(super) fn relabelled(alert: &Alert, rules: &[relabel::Rule]) -> Option<Alert> {
    let mut alert = alert.clone();
    if rules.is_empty() {
        return Some(alert);
    }
    let mut labels = alert.labels.to_builder();
    if relabel::apply(rules, &mut labels) == Verdict::Drop {
        return None;
    }
    alert.labels = labels.build();
    Some(alert)
}

impl State {
    /// Starts and stops senders, so that there is one for each target.
    fn sync(self: &Arc<Self>, config: &Alertmanager, found: &[TargetGroup]) {
        let targets = target::build(config, found);
        let count = found.iter().map(|group| group.targets.len()).sum();
        self.found.store(count, Ordering::Relaxed);
        for problem in &targets.problems {
            tracing::error!(problem, "an Alertmanager cannot be reached");
        }
        let mut senders = self.senders.lock();
        let gone: Vec<String> =
            senders.keys().filter(|url| !targets.active.contains(url)).cloned().collect();
        for url in gone {
            if let Some(sender) = senders.remove(&url) {
                // What waits was meant for a server that is not there any more.
                sender.task.abort();
                let lost = sender.queue.len() as u64;
                if lost > 0 {
                    tracing::warn!(
                        url,
                        lost,
                        "the Alertmanager is gone, and alerts for it are dropped"
                    );
                }
                self.shared.metrics.remove(&url);
            }
        }
        for url in &targets.active {
            if !senders.contains_key(url) {
                self.shared.metrics.add(url);
                senders.insert(url.clone(), self.sender(url));
            }
        }
        *self.targets.lock() = targets;
    }

    fn sender(self: &Arc<Self>, url: &str) -> Sender {
        let queue = Arc::new(Queue::new(self.shared.capacity));
        let (stop, stopped) = watch::channel(false);
        let work = send_all(Arc::clone(self), url.to_owned(), Arc::clone(&queue), stopped);
        Sender { queue, stop, task: tokio::spawn(work) }
    }
}

/// Follows what is discovered until stopped.
async fn discover(
    config: Arc<Alertmanager>,
    state: Arc<State>,
    discovery: Discovery,
    mut stopped: watch::Receiver<bool>,
) {
    let Discovery { mut sources, metrics } = discovery;
    let updates = metrics.updates.with_label_values(&["notify"]);
    loop {
        let groups = sources.groups();
        updates.inc();
        state.sync(&config, &groups);
        let change = async {
            tokio::time::sleep(SYNC_EVERY).await;
            sources.changed().await;
        };
        tokio::select! {
            () = change => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
}

/// Sends what comes into the queue until stopped.
async fn send_all(
    state: Arc<State>,
    url: String,
    queue: Arc<Queue>,
    mut stopped: watch::Receiver<bool>,
) {
    let shared = &state.shared;
    let mut failed = false;
    loop {
        let stops = *stopped.borrow();
        // One that does not answer would hold the stop up once for each batch.
        if stops && (failed || !shared.drain) {
            let left = queue.take(usize::MAX).len();
            shared.metrics.dropped.with_label_values(&[&url]).inc_by(left as u64);
            if left > 0 {
                tracing::warn!(url, left, "alerts are dropped, since the server stops");
            }
            return;
        }
        let batch = queue.take(shared.batch);
        shared.metrics.queue_length.with_label_values(&[&url]).set(queue.len() as i64);
        if batch.is_empty() {
            if stops {
                return;
            }
            tokio::select! {
                () = queue.changed() => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            continue;
        }
        failed = !send(&state, &url, &batch).await;
    }
}

/// One request, and whether it was taken. A failure is counted; what still fires is sent again by the rules.
async fn send(state: &State, url: &str, batch: &[Alert]) -> bool {
    let (shared, count) = (&state.shared, batch.len() as u64);
    let begun = shared.clock.monotonic();
    let post = Post { url: url.to_owned(), body: payload::alerts(batch) };
    let outcome = state.transport.post(post).await;
    let seconds = shared.clock.monotonic().saturating_sub(begun).as_secs_f64();
    let metrics = &shared.metrics;
    metrics.latency.observe(url, seconds);
    metrics.latency_histogram.with_label_values(&[url]).observe(seconds);
    metrics.sent.with_label_values(&[url]).inc_by(count);
    let problem = match outcome {
        Ok(200..=299) => return true,
        Ok(status) => format!("bad response status {status}"),
        Err(error) => error,
    };
    metrics.errors.with_label_values(&[url]).inc_by(count);
    metrics.dropped.with_label_values(&[url]).inc_by(count);
    tracing::error!(alertmanager = url, count, problem, "cannot send alerts");
    false
}
