//! `docker_sd_configs`: the running containers of a daemon, a target for each network and port.

use std::collections::BTreeMap;

use serde::Deserialize;
use stint_model::Labels;
use stint_model::labels::LabelsBuilder;

use super::refresh::{Discoverer, Found};
use super::{ADDRESS, DiscoveryError, TargetGroup, host_port, or_default, sanitised};
use crate::config::DockerDiscovery;
use crate::http::ClientError;
use daemon::{Daemon, Network};

mod daemon;
mod swarm;

pub(super) use swarm::Swarm;

const PREFIX: &str = "__meta_docker_";
/// How many containers may lend each other their network in a row.
const BORROWED_MAX: usize = 16;

/// The containers of a daemon.
pub(super) struct Docker {
    daemon: Daemon,
    config: DockerDiscovery,
}

impl Docker {
    pub(super) fn new(config: &DockerDiscovery) -> Result<Self, ClientError> {
        Ok(Self { daemon: Daemon::new(&config.daemon)?, config: config.clone() })
    }
}

impl Discoverer for Docker {
    async fn refresh(&mut self) -> Result<Found, DiscoveryError> {
        let containers: Vec<Container> = self.daemon.list("containers/json").await?;
        let networks: Vec<Network> = self.daemon.list_all("networks").await?;
        let targets = targets(&self.config, &containers, &networks);
        let source = "Docker".to_owned();
        Ok(vec![TargetGroup { source, targets, labels: Labels::default() }].into())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    names: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    image: String,
    #[serde(rename = "ImageID", default, deserialize_with = "or_default")]
    image_id: String,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    host_config: HostConfig,
    #[serde(default, deserialize_with = "or_default")]
    network_settings: NetworkSettings,
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    #[serde(deserialize_with = "or_default")]
    network_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    /// By name.
    #[serde(deserialize_with = "or_default")]
    networks: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "NetworkID", deserialize_with = "or_default")]
    network: String,
    #[serde(rename = "IPAddress", deserialize_with = "or_default")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "or_default")]
    v6: String,
}

impl Endpoint {
    fn address(&self) -> &str {
        if self.v4.is_empty() { &self.v6 } else { &self.v4 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    #[serde(rename = "IP", deserialize_with = "or_default")]
    public_address: String,
    #[serde(rename = "PrivatePort")]
    private: u16,
    #[serde(rename = "PublicPort")]
    public: u16,
    #[serde(rename = "Type", deserialize_with = "or_default")]
    protocol: String,
}

fn targets(
    config: &DockerDiscovery,
    containers: &[Container],
    networks: &[Network],
) -> Vec<Labels> {
    let by_id: BTreeMap<&str, &Container> =
        containers.iter().map(|container| (container.id.as_str(), container)).collect();
    let networks: BTreeMap<&str, &Network> =
        networks.iter().map(|network| (network.id.as_str(), network)).collect();
    let mut found = Vec::new();
    for container in containers {
        let Some(name) = container.names.first() else { continue };
        let common = common_labels(container, name);
        let endpoints = endpoints(container, &by_id);
        let count = if config.match_first_network { 1 } else { usize::MAX };
        for endpoint in endpoints.values().take(count) {
            let mut labels = common.clone();
            labels.set(&format!("{PREFIX}network_ip"), endpoint.address());
            if let Some(network) = networks.get(endpoint.network.as_str()) {
                network.label(PREFIX, &mut labels);
            }
            let before = found.len();
            let ports = container.ports.iter().filter(|port| port.protocol == "tcp");
            found.extend(ports.map(|port| with_port(labels.clone(), endpoint, port)));
            if found.len() == before {
                let address = if container.host_config.network_mode == "host" {
                    config.host_networking_host.clone()
                } else {
                    host_port(endpoint.address(), config.port)
                };
                labels.set(ADDRESS, &address);
                found.push(labels.build());
            }
        }
    }
    found
}

fn common_labels(container: &Container, name: &str) -> LabelsBuilder {
    let mut labels = LabelsBuilder::default();
    for (key, value) in [
        ("id", container.id.as_str()),
        ("name", name),
        ("image", &container.image),
        ("image_id", &container.image_id),
        ("network_mode", &container.host_config.network_mode),
    ] {
        labels.set(&format!("{PREFIX}container_{key}"), value);
    }
    for (key, value) in &container.labels {
        labels.set(&format!("{PREFIX}container_label_{}", sanitised(key)), value);
    }
    labels
}

/// The networks of `container`, or of the one whose network it uses, by name.
fn endpoints<'c>(
    container: &'c Container,
    by_id: &BTreeMap<&str, &'c Container>,
) -> &'c BTreeMap<String, Endpoint> {
    let mut owner = container;
    for _ in 0..BORROWED_MAX {
        if !owner.network_settings.networks.is_empty() {
            break;
        }
        let lender = owner.host_config.network_mode.strip_prefix("container:");
        let Some(lender) = lender.and_then(|id| by_id.get(id)) else { break };
        owner = lender;
    }
    &owner.network_settings.networks
}

fn with_port(mut labels: LabelsBuilder, endpoint: &Endpoint, port: &Port) -> Labels {
    labels.set(&format!("{PREFIX}port_private"), &port.private.to_string());
    if port.public > 0 {
        labels.set(&format!("{PREFIX}port_public"), &port.public.to_string());
        labels.set(&format!("{PREFIX}port_public_ip"), &port.public_address);
    }
    labels.set(ADDRESS, &host_port(endpoint.address(), port.private));
    labels.build()
}

#[cfg(test)]
mod tests;
