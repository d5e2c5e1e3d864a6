//! `kubernetes_sd_configs`: lists of objects of the API server, followed as they change.
//!
//! [`watch`] follows one list each, [`store`] holds what is known of all of them, and [`targets`]
//! makes groups of it. Before every list has been had once, nothing is told, so that no target is
//! seen without its labels.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::aws::Environment;
use super::metrics::DiscoveryMetrics;
use super::refresh::Task;
use crate::config::{KubeRole, KubernetesDiscovery};
use access::Access;
use objects::Kind;
use store::Store;
use watch::{News, Resource};

mod access;
mod objects;
mod store;
mod targets;
mod watch;

/// The least time between two changes that are told.
const TOLD_EACH: Duration = Duration::from_secs(1);
/// How many messages of lists wait to be taken; whoever has more waits itself.
const NEWS_MAX: usize = 16;
/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is to be found in a cluster.
pub(super) struct Kubernetes {
    config: KubernetesDiscovery,
    environment: Environment,
    /// Where the service account's files lie.
    account: PathBuf,
    failures: IntCounter,
    events: IntCounterVec,
}

impl Kubernetes {
    pub(super) fn new(
        config: &KubernetesDiscovery,
        environment: Environment,
        metrics: &DiscoveryMetrics,
    ) -> Self {
        let events = metrics.kubernetes_events.clone();
        for role in KubeRole::ALL {
            for event in ["add", "update", "delete"] {
                events.with_label_values(&[role.name(), event]);
            }
        }
        Self {
            config: config.clone(),
            environment,
            account: access::ACCOUNT.into(),
            failures: metrics.kubernetes_failures.clone(),
            events,
        }
    }

    /// Follows the cluster for ever.
    pub(super) async fn run(self, task: Task) {
        let access = self.access(&task).await;
        let resources = self.resources(&access);
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        let follow = |(at, resource): (usize, &Resource)| {
            watch::follow(&access.api, resource.clone(), at, sender.clone())
        };
        // They live and end with this task.
        let mut followers: FuturesUnordered<_> = resources.iter().enumerate().map(follow).collect();
        let mut store = Store::new(resources.clone(), self.events.clone());
        let (mut is_new, mut told) = (true, None::<Instant>);
        loop {
            let due = told.map_or_else(Instant::now, |told| told + TOLD_EACH);
            tokio::select! {
                Some((at, news)) = news.recv() => match news {
                    News::Failed(error) => {
                        self.failures.inc();
                        task.failed(&error);
                    }
                    News::Listed(objects) => is_new |= store.list(at, objects),
                    News::Changed(changes) => is_new |= store.change(at, changes),
                },
                () = tokio::time::sleep_until(due), if is_new && store.is_complete() => {
                    task.publish(targets::groups(&store, &self.config));
                    (is_new, told) = (false, Some(Instant::now()));
                }
                Some(()) = followers.next() => {}
            }
        }
    }

    /// The way to the API server, tried until there is one.
    async fn access(&self, task: &Task) -> Access {
        let mut pause = Pause::default();
        loop {
            match access::find(&self.config, &self.environment, &self.account).await {
                Ok(access) => return access,
                Err(error) => {
                    self.failures.inc();
                    task.failed(&error);
                }
            }
            pause.wait().await;
        }
    }

    /// The lists that targets are made of.
    fn resources(&self, access: &Access) -> Vec<Resource> {
        let config = &self.config;
        let attach = config.attach;
        let mut kinds = match config.role {
            KubeRole::Node => vec![Kind::Node],
            KubeRole::Pod => vec![Kind::Pod],
            KubeRole::Service => vec![Kind::Service],
            KubeRole::Endpoints => vec![Kind::Endpoints, Kind::Service, Kind::Pod],
            KubeRole::EndpointSlice => vec![Kind::EndpointSlice, Kind::Service, Kind::Pod],
            KubeRole::Ingress => vec![Kind::Ingress],
        };
        let has_pods = kinds.contains(&Kind::Pod);
        for (kind, is_wanted) in [
            (Kind::Node, attach.node && has_pods),
            (Kind::ReplicaSet, attach.deployment && has_pods),
            (Kind::Job, attach.cronjob && has_pods),
            (Kind::Namespace, attach.namespace && config.role != KubeRole::Node),
        ] {
            if is_wanted {
                kinds.push(kind);
            }
        }
        let mut namespaces = config.namespaces.clone();
        namespaces.extend(access.own_namespace.clone());
        namespaces.sort();
        namespaces.dedup();
        if namespaces.is_empty() {
            namespaces.push(String::new());
        }
        let mut resources = Vec::new();
        for kind in kinds {
            let selector =
                config.selectors.iter().find(|selector| kind.role() == Some(selector.role));
            let namespaces = if kind.is_namespaced() { &*namespaces } else { &[String::new()] };
            resources.extend(namespaces.iter().map(|namespace| Resource {
                kind,
                namespace: namespace.clone(),
                label: selector.map_or_else(String::new, |selector| selector.label.clone()),
                field: selector.map_or_else(String::new, |selector| selector.field.clone()),
            }));
        }
        resources
    }
}

/// Pauses that double.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    async fn wait(&mut self) {
        let pause = self.0.unwrap_or(PAUSES.0);
        self.0 = Some((pause * 2).min(PAUSES.1));
        tokio::time::sleep(pause).await;
    }

    /// What is tried again goes well.
    fn reset(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests;
