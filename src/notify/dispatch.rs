//! The one place that alerts come to: labels are attached, and everybody is told.

use std::sync::Arc;

use parking_lot::RwLock;
use stint_model::relabel::Rule;
use stint_model::{Clock, Labels};
use stint_storage::Disk;

use super::alertmanager::{Discovery, Set, Shared, relabelled};
use super::metrics::NotifyMetrics;
use super::transport::{HttpTransport, Transport};
use super::webhook::{self, Hook};
use crate::config::{Alertmanager, Config, HttpConfig, Webhook};
use crate::discovery::{Hub, Sources};
use crate::http::ClientError;
use crate::rules::{Alert, AlertSink};

/// As which notifications stand in the metrics of discovery.
const CONSUMER: &str = "notify";

/// As what an entry of `alertmanagers` stands in metrics.
fn name_of(at: usize) -> String {
    format!("config-{at}")
}

/// What the flags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most alerts that wait for one Alertmanager.
    pub capacity: usize,
    /// Most alerts in one request.
    pub batch: usize,
    /// Whether what waits is sent before a stop.
    pub drain: bool,
}

/// What a notifier is made of.
pub struct Parts {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where it is counted how it goes.
    pub metrics: NotifyMetrics,
    /// What finds Alertmanagers.
    pub discovery: Arc<Hub>,
    /// The data folder, where it is kept what webhooks were told.
    pub disk: Arc<dyn Disk>,
    /// The URL under which others reach this server.
    pub external_url: String,
}

/// Makes the way to a receiver.
pub type MakeTransport = Box<
    dyn Fn(&HttpConfig, stint_model::Span) -> Result<Arc<dyn Transport>, ClientError> + Send + Sync,
>;

/// Takes alerts to everybody that the configuration names.
pub struct Notifier {
    shared: Shared,
    hooks: webhook::Shared,
    make_transport: MakeTransport,
    discovery: Arc<Hub>,
    /// Held while a configuration is applied.
    applying: tokio::sync::Mutex<()>,
    current: RwLock<Current>,
}

#[derive(Default)]
struct Current {
    external_labels: Labels,
    relabel_configs: Vec<Rule>,
    sets: Vec<Set>,
    hooks: Vec<Hook>,
}

/// A webhook of the next configuration.
enum NextHook {
    /// There is one of this name.
    Known(Arc<Webhook>, Arc<dyn Transport>),
    New(Hook),
}

/// A configuration whose clients are made.
pub struct Prepared {
    external_labels: Labels,
    relabel_configs: Vec<Rule>,
    sets: Vec<(Arc<Alertmanager>, Arc<dyn Transport>, Sources)>,
    hooks: Vec<(Arc<Webhook>, Arc<dyn Transport>)>,
}

/// The Alertmanagers as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// URLs that alerts are posted to.
    pub active: Vec<String>,
    /// URLs that relabelling dropped.
    pub dropped: Vec<String>,
}

impl Notifier {
    /// A notifier that knows nobody yet and posts over HTTP.
    pub fn new(options: Options, parts: Parts) -> Self {
        let make: MakeTransport = Box::new(|config, timeout| {
            let made = HttpTransport::new(config, timeout)?;
            Ok(Arc::new(made) as Arc<dyn Transport>)
        });
        Self::with(options, parts, make)
    }

    /// The same with another way to receivers.
    pub fn with(options: Options, parts: Parts, make_transport: MakeTransport) -> Self {
        let Options { capacity, batch, drain } = options;
        let Parts { clock, metrics, discovery, disk, external_url } = parts;
        metrics.queue_capacity.set(i64::try_from(capacity).unwrap_or(i64::MAX));
        let hooks = webhook::Shared {
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
            disk,
            external_url: Arc::from(external_url),
        };
        let shared = Shared { clock, metrics, capacity, batch: batch.max(1), drain };
        let (applying, current) = (tokio::sync::Mutex::default(), RwLock::default());
        Self { shared, hooks, make_transport, discovery, applying, current }
    }

    /// Makes what can fail, but changes nothing.
    ///
    /// # Errors
    /// Every client that cannot be made, and why.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, Vec<String>> {
        let mut sets = Vec::new();
        let mut errors = Vec::new();
        for (at, set) in config.alerting.alertmanagers.iter().enumerate() {
            let (name, fixed) = (name_of(at), &set.static_configs);
            let sources = || Sources::new(&self.discovery, &name, fixed, &set.sd_configs);
            let made = (self.make_transport)(&set.http, set.timeout)
                .and_then(|transport| sources().map(|sources| (transport, sources)));
            match made {
                Ok((transport, sources)) => sets.push((Arc::new(set.clone()), transport, sources)),
                Err(error) => errors.push(format!("alertmanagers[{at}]: {error}")),
            }
        }
        let mut hooks = Vec::new();
        for hook in &config.webhooks {
            match (self.make_transport)(&hook.http, hook.timeout) {
                Ok(transport) => hooks.push((Arc::new(hook.clone()), transport)),
                Err(error) => errors.push(format!("webhook {:?}: {error}", hook.name)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Prepared {
            external_labels: config.global.external_labels.clone(),
            relabel_configs: config.alerting.relabel_configs.clone(),
            sets,
            hooks,
        })
    }

    /// Puts what was prepared in force. Entries that are the same keep what they found and what waits, webhooks of the
    /// same name keep their groups. What is sent meanwhile reaches those before or those after, never nobody.
    pub async fn apply(&self, prepared: Prepared) {
        let _applying = self.applying.lock().await;
        let mut hooks = Vec::with_capacity(prepared.hooks.len());
        for (config, transport) in prepared.hooks {
            let is_known = self.current.read().hooks.iter().any(|hook| hook.name == config.name);
            hooks.push(if is_known {
                NextHook::Known(config, transport)
            } else {
                NextHook::New(Hook::start(config, transport, self.hooks.clone()).await)
            });
        }
        let (sets, hooks, counts) = {
            let mut current = self.current.write();
            let before = current.sets.len();
            current.external_labels = prepared.external_labels;
            current.relabel_configs = prepared.relabel_configs;
            let sets = self.replace_sets(&mut current.sets, prepared.sets);
            let counts = current.sets.len()..before;
            (sets, replace_hooks(&mut current.hooks, hooks), counts)
        };
        for set in sets {
            let urls = set.stop().await;
            let active = self.status().active;
            urls.iter().filter(|url| !active.contains(url)).for_each(|url| {
                self.shared.metrics.remove(url);
            });
        }
        // Others have the names of those that were replaced.
        counts.for_each(|at| self.discovery.metrics().forget(CONSUMER, &name_of(at)));
        for hook in hooks {
            let name = hook.name.clone();
            hook.stop().await;
            self.shared.metrics.remove_webhook(&name);
        }
    }

    /// Makes `current` what is wanted, and answers with the sets that are not any more.
    fn replace_sets(
        &self,
        current: &mut Vec<Set>,
        wanted: Vec<(Arc<Alertmanager>, Arc<dyn Transport>, Sources)>,
    ) -> Vec<Set> {
        let mut before = std::mem::take(current);
        for (config, transport, sources) in wanted {
            let same = before.iter().position(|set| *set.config == *config);
            current.push(if let Some(same) = same {
                before.swap_remove(same)
            } else {
                let discovery = Discovery { sources, metrics: self.discovery.metrics().clone() };
                Set::start(config, transport, self.shared.clone(), discovery)
            });
        }
        before
    }

    fn take(&self) -> (Vec<Set>, Vec<Hook>) {
        let mut current = self.current.write();
        (std::mem::take(&mut current.sets), std::mem::take(&mut current.hooks))
    }

    /// Stops everything; call it after the rules have stopped.
    pub async fn stop(&self) {
        let _applying = self.applying.lock().await;
        let (sets, hooks) = self.take();
        futures_util::future::join_all(sets.into_iter().map(Set::stop)).await;
        futures_util::future::join_all(hooks.into_iter().map(Hook::stop)).await;
    }

    /// Whom alerts are sent to.
    pub fn status(&self) -> Status {
        let mut status = Status::default();
        for set in &self.current.read().sets {
            let targets = set.targets();
            status.active.extend(targets.active);
            status.dropped.extend(targets.dropped);
        }
        status
    }

    /// Brings the gauges up to date that are counted only when they are asked for.
    pub fn refresh_metrics(&self) {
        self.shared.metrics.discovered.set(self.status().active.len() as i64);
        let discovered = &self.discovery.metrics().discovered;
        for (at, set) in self.current.read().sets.iter().enumerate() {
            discovered.with_label_values(&[CONSUMER, &name_of(at)]).set(set.found() as i64);
        }
    }
}

/// Makes `current` what is wanted, and answers with the webhooks that are not any more.
fn replace_hooks(current: &mut Vec<Hook>, wanted: Vec<NextHook>) -> Vec<Hook> {
    let mut before = std::mem::take(current);
    for next in wanted {
        match next {
            NextHook::New(hook) => current.push(hook),
            NextHook::Known(config, transport) => {
                let known = before.iter().position(|hook| hook.name == config.name);
                if let Some(at) = known {
                    let hook = before.swap_remove(at);
                    hook.change(config, transport);
                    current.push(hook);
                }
            }
        }
    }
    before
}

impl AlertSink for Notifier {
    fn send(&self, alerts: Vec<Alert>) {
        let current = self.current.read();
        let alerts: Vec<Alert> = alerts
            .into_iter()
            .filter_map(|mut alert| {
                let mut labels = alert.labels.to_builder();
                for (name, value) in &current.external_labels {
                    if labels.get(name).is_none_or(str::is_empty) {
                        labels.set(name, value);
                    }
                }
                alert.labels = labels.build();
                relabelled(&alert, &current.relabel_configs)
            })
            .collect();
        if alerts.is_empty() {
            return;
        }
        for set in &current.sets {
            set.send(&alerts);
        }
        for hook in &current.hooks {
            hook.send(&alerts);
        }
    }
}

#[cfg(test)]
mod tests;
