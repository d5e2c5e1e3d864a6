//! `consul_sd_configs`: services of a catalog that is followed by questions which wait for news.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::FuturesUnordered;
use prometheus::IntCounter;
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stint_model::Labels;
use stint_model::labels::LabelsBuilder;
use tokio::time::Instant;

use super::metrics::DiscoveryMetrics;
use super::refresh::Task;
use super::{ADDRESS, DiscoveryError, TargetGroup, answer, host_port, or_default, sanitised};
use crate::config::ConsulDiscovery;
use crate::http::{Client, ClientError};
use crate::metrics::PROMETHEUS_VERSION;

const PREFIX: &str = "__meta_consul_";
/// How long a question waits for news at the server.
const WAIT: Duration = Duration::from_mins(2);
/// How much longer an answer may take; the server itself adds a sixteenth to the wait.
const GRACE: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(15);
/// The most services that are followed, each by a question of its own.
const SERVICES_MAX: usize = 10_000;

/// A way to an agent.
pub(super) struct Consul {
    client: Client,
    config: ConsulDiscovery,
    failures: IntCounter,
}

/// What is followed, by name; of the catalog the name is empty.
type Followed = (String, Result<(u64, News), DiscoveryError>);
type Question<'a> = Pin<Box<dyn Future<Output = Option<Followed>> + Send + 'a>>;

enum News {
    /// Names and tags of all services.
    Catalog(BTreeMap<String, Vec<String>>),
    /// The targets of one service.
    Service(TargetGroup),
}

/// A service that is followed.
#[derive(Default)]
struct Service {
    /// Ends the question that waits.
    stop: Option<AbortHandle>,
    /// Whether there was an answer, good or bad.
    has_answered: bool,
    group: Option<TargetGroup>,
}

/// What is known of a catalog, and the questions under way.
struct Watch<'a> {
    consul: &'a Consul,
    datacenter: String,
    services: BTreeMap<String, Service>,
    questions: FuturesUnordered<Question<'a>>,
    catalog_answered: bool,
}

impl Consul {
    pub(super) fn new(
        config: &ConsulDiscovery,
        metrics: &DiscoveryMetrics,
    ) -> Result<Self, ClientError> {
        let agent = format!("Prometheus/{PROMETHEUS_VERSION}");
        Ok(Self {
            client: match &config.socket {
                Some(path) => Client::over_socket(&config.http, &agent, path)?,
                None => Client::new(&config.http, &agent)?,
            },
            config: config.clone(),
            failures: metrics.consul_failures.clone(),
        })
    }

    /// Follows the catalog for ever.
    pub(super) async fn run(self, task: Task) {
        let datacenter = self.datacenter(&task).await;
        let mut watch = Watch {
            consul: &self,
            datacenter,
            services: BTreeMap::new(),
            questions: FuturesUnordered::new(),
            catalog_answered: false,
        };
        watch.begin();
        loop {
            if watch.is_complete() {
                let groups = watch.services.values().filter_map(|service| service.group.clone());
                task.publish(groups.collect());
            }
            // The catalog, or each service that is named, has a question under way at any time.
            let Some(followed) = watch.questions.next().await else {
                return std::future::pending().await;
            };
            if let Some((name, news)) = followed {
                watch.take(&name, news, &task);
            }
        }
    }

    /// The agent's own datacenter, unless another one is configured.
    async fn datacenter(&self, task: &Task) -> String {
        #[derive(Deserialize)]
        struct Agent {
            #[serde(rename = "Config")]
            config: AgentConfig,
        }
        #[derive(Deserialize)]
        struct AgentConfig {
            #[serde(rename = "Datacenter")]
            datacenter: String,
        }
        if !self.config.datacenter.is_empty() {
            return self.config.datacenter.clone();
        }
        loop {
            match self.get::<Agent>(&["v1", "agent", "self"], &[], GRACE).await {
                Ok((agent, _)) => return agent.config.datacenter,
                Err(error) => task.failed(&error),
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// The answer to a question, and its place in the order of changes.
    async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        timeout: Duration,
    ) -> Result<(T, u64), DiscoveryError> {
        let asked = async {
            let base = &self.config.url;
            let wrong = |error: &str| DiscoveryError(format!("{base} is not usable: {error}"));
            let mut url = Url::parse(base).map_err(|error| wrong(&error.to_string()))?;
            let segments = url.path_segments_mut();
            // A name may hold what a path may not.
            segments.map_err(|()| wrong("it has no path"))?.pop_if_empty().extend(path);
            let place = url.to_string();
            if !query.is_empty() {
                url.query_pairs_mut().extend_pairs(query);
            }
            let request = self.client.request(Method::GET, url.as_str()).await;
            let request = request.map_err(|error| DiscoveryError(error.to_string()))?;
            let answer = answer::get(request, &place, timeout).await?;
            let index = answer.headers.get("x-consul-index");
            let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
            Ok((answer.json(&place)?, index.unwrap_or(0)))
        };
        asked.await.inspect_err(|_| self.failures.inc())
    }

    /// What every question about the catalog says.
    fn query(&self, index: u64) -> Vec<(&'static str, String)> {
        let config = &self.config;
        let mut query = Vec::new();
        for (key, value) in [
            ("dc", &config.datacenter),
            ("ns", &config.namespace),
            ("partition", &config.partition),
        ] {
            if !value.is_empty() {
                query.push((key, value.clone()));
            }
        }
        if config.allow_stale {
            query.push(("stale", String::new()));
        }
        for (key, value) in &config.node_meta {
            query.push(("node-meta", format!("{key}:{value}")));
        }
        if index > 0 {
            query.push(("index", index.to_string()));
            query.push(("wait", format!("{}s", WAIT.as_secs())));
        }
        query
    }

    /// Asks for the catalog once it has changed since `index`.
    async fn ask_catalog(&self, index: u64) -> Result<(u64, News), DiscoveryError> {
        let mut query = self.query(index);
        if !self.config.filter.is_empty() {
            query.push(("filter", self.config.filter.clone()));
        }
        let asked = self.get(&["v1", "catalog", "services"], &query, patience(index)).await;
        let (services, at): (BTreeMap<String, Option<Vec<String>>>, _) = asked?;
        let all = services.into_iter();
        let services = all.map(|(name, tags)| (name, tags.unwrap_or_default()));
        Ok((at, News::Catalog(services.collect())))
    }

    /// Asks for the instances of the service `name` once they have changed since `index`.
    async fn ask_service(
        &self,
        name: &str,
        datacenter: &str,
        index: u64,
    ) -> Result<(u64, News), DiscoveryError> {
        let mut query = self.query(index);
        query.extend(self.config.tags.iter().map(|tag| ("tag", tag.clone())));
        if !self.config.health_filter.is_empty() {
            query.push(("filter", self.config.health_filter.clone()));
        }
        let (instances, at): (Vec<Instance>, _) =
            self.get(&["v1", "health", "service", name], &query, patience(index)).await?;
        let common = [
            (format!("{PREFIX}service"), name.to_owned()),
            (format!("{PREFIX}dc"), datacenter.to_owned()),
        ];
        let target = |instance: &Instance| instance.target(&self.config.tag_separator);
        let group = TargetGroup {
            source: name.to_owned(),
            targets: instances.iter().map(target).collect(),
            labels: Labels::from_pairs(common),
        };
        Ok((at, News::Service(group)))
    }

    fn wants(&self, name: &str, tags: &[String]) -> bool {
        let config = &self.config;
        (config.services.is_empty() || config.services.iter().any(|wanted| wanted == name))
            && config.tags.iter().all(|wanted| tags.contains(wanted))
    }
}

const fn patience(index: u64) -> Duration {
    if index == 0 {
        GRACE
    } else {
        Duration::from_secs(WAIT.as_secs() + WAIT.as_secs() / 16 + GRACE.as_secs())
    }
}

impl Watch<'_> {
    /// Asks for the first time: for the catalog, or for the services that are named.
    fn begin(&mut self) {
        let config = &self.consul.config;
        // Tags, nodes and filters can only be told from the catalog.
        if config.services.is_empty() || !config.tags.is_empty() || !config.filter.is_empty() {
            self.follow_catalog(0, Instant::now());
        } else {
            self.catalog_answered = true;
            for name in config.services.clone() {
                self.follow(name);
            }
        }
    }

    /// Whether everything that is known of has been asked for at least once.
    fn is_complete(&self) -> bool {
        self.catalog_answered && self.services.values().all(|service| service.has_answered)
    }

    fn follow_catalog(&mut self, index: u64, at: Instant) {
        let consul = self.consul;
        self.questions.push(Box::pin(async move {
            tokio::time::sleep_until(at).await;
            Some((String::new(), consul.ask_catalog(index).await))
        }));
    }

    /// Follows the service `name`, unless it is followed already.
    fn follow(&mut self, name: String) {
        if !self.services.contains_key(&name) {
            self.services.insert(name.clone(), Service::default());
            self.ask(name, 0, Instant::now());
        }
    }

    fn ask(&mut self, name: String, index: u64, at: Instant) {
        let (consul, datacenter) = (self.consul, self.datacenter.clone());
        let (question, stop) = abortable({
            let name = name.clone();
            async move {
                tokio::time::sleep_until(at).await;
                consul.ask_service(&name, &datacenter, index).await
            }
        });
        if let Some(service) = self.services.get_mut(&name) {
            service.stop = Some(stop);
        }
        self.questions.push(Box::pin(async move { Some((name, question.await.ok()?)) }));
    }

    /// Takes what was answered, and asks again.
    fn take(&mut self, name: &str, answer: Result<(u64, News), DiscoveryError>, task: &Task) {
        let interval = self.consul.config.refresh_interval.to_std();
        let (index, at) = match &answer {
            Ok((index, _)) => (*index, Instant::now() + interval),
            Err(error) => {
                task.failed(error);
                // Nothing is known of the order of changes any more.
                (0, Instant::now() + RETRY_AFTER)
            }
        };
        if name.is_empty() {
            if let Ok((_, News::Catalog(services))) = answer {
                self.catalog_answered = true;
                self.take_catalog(services, task);
            }
            self.follow_catalog(index, at);
        } else if let Some(service) = self.services.get_mut(name) {
            service.has_answered = true;
            if let Ok((_, News::Service(group))) = answer {
                service.group = Some(group);
            }
            self.ask(name.to_owned(), index, at);
        }
    }

    /// Follows what is wanted of the catalog, and lets go of the rest.
    fn take_catalog(&mut self, all: BTreeMap<String, Vec<String>>, task: &Task) {
        let wanted = all.into_iter().filter(|(name, tags)| self.consul.wants(name, tags));
        let mut wanted: BTreeSet<String> = wanted.map(|(name, _)| name).collect();
        if wanted.len() > SERVICES_MAX {
            let number = wanted.len();
            let text =
                format!("{number} services are more than the {SERVICES_MAX} that are followed");
            task.failed(&DiscoveryError(text));
            wanted = wanted.into_iter().take(SERVICES_MAX).collect();
        }
        self.services.retain(|name, service| {
            let stays = wanted.contains(name);
            if !stays && let Some(stop) = &service.stop {
                stop.abort();
            }
            stays
        });
        for name in wanted {
            self.follow(name);
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: InstanceService,
    #[serde(default, deserialize_with = "or_default")]
    checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    #[serde(rename = "Node", deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    address: String,
    #[serde(deserialize_with = "or_default")]
    meta: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    tagged_addresses: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InstanceService {
    #[serde(rename = "ID", deserialize_with = "or_default")]
    id: String,
    #[serde(rename = "Address", deserialize_with = "or_default")]
    address: String,
    #[serde(rename = "Port", deserialize_with = "or_default")]
    port: u16,
    #[serde(rename = "Tags", deserialize_with = "or_default")]
    tags: Vec<String>,
    #[serde(rename = "Meta", deserialize_with = "or_default")]
    meta: BTreeMap<String, String>,
    #[serde(rename = "Namespace", deserialize_with = "or_default")]
    namespace: String,
    #[serde(rename = "Partition", deserialize_with = "or_default")]
    partition: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Check {
    #[serde(rename = "CheckID", deserialize_with = "or_default")]
    id: String,
    #[serde(rename = "Status", deserialize_with = "or_default")]
    status: String,
}

impl Instance {
    fn target(&self, separator: &str) -> Labels {
        let (node, service) = (&self.node, &self.service);
        let own = &service.address;
        let host = if own.is_empty() { &node.address } else { own };
        // Around the list, too, so that an expression can look for a tag wherever it stands.
        let tags = format!("{separator}{}{separator}", service.tags.join(separator));
        let mut labels = LabelsBuilder::default();
        labels.set(ADDRESS, &host_port(host, service.port));
        for (name, value) in [
            ("address", &*node.address),
            ("node", &node.name),
            ("namespace", &service.namespace),
            ("partition", &service.partition),
            ("tags", &tags),
            ("service_address", own),
            ("service_port", &service.port.to_string()),
            ("service_id", &service.id),
            ("health", health(&self.checks)),
        ] {
            labels.set(&format!("{PREFIX}{name}"), value);
        }
        for (prefix, pairs) in [
            ("metadata", &node.meta),
            ("service_metadata", &service.meta),
            ("tagged_address", &node.tagged_addresses),
        ] {
            for (key, value) in pairs {
                labels.set(&format!("{PREFIX}{prefix}_{}", sanitised(key)), value);
            }
        }
        labels.build()
    }
}

/// The worst of what checks say; maintenance is worse than anything.
fn health(checks: &[Check]) -> &'static str {
    let maintained = |check: &Check| {
        check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance:")
    };
    let any = |status: &str| checks.iter().any(|check| check.status == status);
    if checks.iter().any(maintained) {
        "maintenance"
    } else if any("critical") {
        "critical"
    } else if any("warning") {
        "warning"
    } else if checks.iter().all(|check| check.status == "passing") {
        "passing"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests;
