//! One task for each different `*_sd_configs` entry, shared by all who have it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use stint_model::Clock;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::TargetGroup;
use super::aws::{Ec2, Ecs, Environment};
use super::consul::Consul;
use super::dns::DnsNames;
use super::docker::{Docker, Swarm};
use super::http::HttpList;
use super::kubernetes::Kubernetes;
use super::metrics::DiscoveryMetrics;
use super::refresh::{self, Task};
use crate::config::SdConfig;
use crate::discovery::file;
use crate::http::ClientError;

/// Starts mechanisms, and hands out those that run already.
pub struct Hub {
    clock: Arc<dyn Clock>,
    metrics: DiscoveryMetrics,
    running: Mutex<Vec<Weak<Provider>>>,
}

/// What a mechanism has found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) groups: Arc<[TargetGroup]>,
    /// Whether it has looked at least once, with or without success.
    pub(super) has_looked: bool,
}

/// A running mechanism. It ends when nobody holds it any more.
pub(super) struct Provider {
    config: SdConfig,
    known: watch::Receiver<Known>,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    pub(super) fn watch(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }

    /// Whether it finds what is there without asking anybody over the network.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.config, SdConfig::File(_))
    }
}

impl Hub {
    /// A hub that runs nothing yet.
    pub fn new(clock: Arc<dyn Clock>, metrics: DiscoveryMetrics) -> Self {
        Self { clock, metrics, running: Mutex::default() }
    }

    /// Where it is counted how it goes.
    pub const fn metrics(&self) -> &DiscoveryMetrics {
        &self.metrics
    }

    /// The mechanism of `config`, started if it does not run yet. `name` is that of who asks.
    ///
    /// # Errors
    /// Its client cannot be made.
    pub(super) fn provider(
        &self,
        config: &SdConfig,
        name: &str,
    ) -> Result<Arc<Provider>, ClientError> {
        let mut running = self.running.lock();
        running.retain(|provider| provider.strong_count() > 0);
        let same = |provider: Arc<Provider>| {
            (provider.config == *config && !provider.task.is_finished()).then_some(provider)
        };
        if let Some(provider) = running.iter().filter_map(Weak::upgrade).find_map(same) {
            return Ok(provider);
        }
        let (sender, known) = watch::channel(Known::default());
        let task = Task {
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
            mechanism: config.mechanism(),
            name: name.to_owned(),
            sender,
        };
        let task = match config {
            SdConfig::File(config) => tokio::spawn(file::run(config.clone(), task)),
            SdConfig::Http(config) => {
                let list = HttpList::new(config, &self.metrics)?;
                refresh::spawn(list, config.refresh_interval, task)
            }
            SdConfig::Dns(config) => {
                let names = DnsNames::new(config, &self.metrics);
                refresh::spawn(names, config.refresh_interval, task)
            }
            SdConfig::Docker(config) => {
                refresh::spawn(Docker::new(config)?, config.daemon.refresh_interval, task)
            }
            SdConfig::Swarm(config) => {
                refresh::spawn(Swarm::new(config)?, config.daemon.refresh_interval, task)
            }
            SdConfig::Consul(config) => tokio::spawn(Consul::new(config, &self.metrics)?.run(task)),
            SdConfig::Kubernetes(config) => {
                let kubernetes = Kubernetes::new(config, process_environment(), &self.metrics);
                tokio::spawn(kubernetes.run(task))
            }
            SdConfig::Ec2(config) => {
                let ec2 = Ec2::new(config, Arc::clone(&self.clock), process_environment())?;
                refresh::spawn(ec2, config.aws.refresh_interval, task)
            }
            SdConfig::Ecs(config) => {
                let ecs = Ecs::new(config, Arc::clone(&self.clock), process_environment())?;
                refresh::spawn(ecs, config.aws.refresh_interval, task)
            }
        };
        let provider = Arc::new(Provider { config: config.clone(), known, task });
        running.push(Arc::downgrade(&provider));
        Ok(provider)
    }
}

/// The variables of this process, which the tools of clouds read, too.
fn process_environment() -> Environment {
    Arc::new(|name| std::env::var(name).ok())
}
