//! Talking to a Docker daemon, over its socket or over the network.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stint_model::labels::LabelsBuilder;

use super::super::{DiscoveryError, answer, or_default, sanitised};
use crate::config::{DockerDaemon, DockerHost, Filter};
use crate::http::{Client, ClientError};
use crate::metrics::PROMETHEUS_VERSION;

/// A way to a daemon.
pub(super) struct Daemon {
    client: Client,
    base: String,
    filters: Option<String>,
    timeout: Duration,
}

/// A network that containers are in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Network {
    pub(super) id: String,
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    scope: String,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    ingress: bool,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

impl Network {
    /// Sets the labels that tell of it.
    pub(super) fn label(&self, prefix: &str, labels: &mut LabelsBuilder) {
        for (key, value) in [
            ("id", self.id.as_str()),
            ("name", &self.name),
            ("scope", &self.scope),
            ("internal", truth(self.internal)),
            ("ingress", truth(self.ingress)),
        ] {
            labels.set(&format!("{prefix}network_{key}"), value);
        }
        for (key, value) in &self.labels {
            labels.set(&format!("{prefix}network_label_{}", sanitised(key)), value);
        }
    }
}

pub(super) const fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

impl Daemon {
    pub(super) fn new(config: &DockerDaemon) -> Result<Self, ClientError> {
        let agent = format!("Prometheus/{PROMETHEUS_VERSION}");
        let (client, base) = match &config.host {
            // What stands for the host is not used to find the daemon.
            DockerHost::Unix(path) => {
                (Client::over_socket(&config.http, &agent, path)?, "http://docker".to_owned())
            }
            DockerHost::Http(url) => (Client::new(&config.http, &agent)?, url.clone()),
        };
        Ok(Self {
            client,
            base,
            filters: filters(&config.filters),
            timeout: config.refresh_interval.to_std(),
        })
    }

    /// What is listed at `path` and passes the filters.
    pub(super) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<T, DiscoveryError> {
        self.get(path, self.filters.as_deref()).await
    }

    /// Everything that is listed at `path`.
    pub(super) async fn list_all<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<T, DiscoveryError> {
        self.get(path, None).await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        filters: Option<&str>,
    ) -> Result<T, DiscoveryError> {
        // Without a version in it, the path means the daemon's newest one, which every daemon has.
        let place = format!("{}/{path}", self.base);
        let mut url = Url::parse(&place)
            .map_err(|error| DiscoveryError(format!("{place} is not a URL: {error}")))?;
        if let Some(filters) = filters {
            url.query_pairs_mut().append_pair("filters", filters);
        }
        let request = self.client.request(Method::GET, url.as_str()).await;
        let request = request.map_err(|error| DiscoveryError(error.to_string()))?;
        let answer = answer::get(request, &place, self.timeout).await?;
        answer.json(&place)
    }
}

/// As the daemon reads them: for each property the values, each of which will do.
fn filters(filters: &[Filter]) -> Option<String> {
    let mut by_name: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for filter in filters {
        let values = by_name.entry(&filter.name).or_default();
        values.extend(filter.values.iter().map(|value| (value.as_str(), true)));
    }
    (!by_name.is_empty()).then(|| serde_json::json!(by_name).to_string())
}
