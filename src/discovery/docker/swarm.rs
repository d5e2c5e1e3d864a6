//! `dockerswarm_sd_configs`: the services, tasks or nodes of a swarm.

use std::collections::BTreeMap;

use serde::Deserialize;
use stint_model::Labels;
use stint_model::labels::LabelsBuilder;

use super::super::refresh::{Discoverer, Found};
use super::super::{
    ADDRESS, DiscoveryError, TargetGroup, address_of_network, host_port, or_default, sanitised,
};
use super::daemon::{Daemon, Network, truth};
use crate::config::{SwarmDiscovery, SwarmRole};
use crate::http::ClientError;

const PREFIX: &str = "__meta_dockerswarm_";

/// A swarm.
pub(in super::super) struct Swarm {
    daemon: Daemon,
    config: SwarmDiscovery,
}

impl Swarm {
    pub(in super::super) fn new(config: &SwarmDiscovery) -> Result<Self, ClientError> {
        Ok(Self { daemon: Daemon::new(&config.daemon)?, config: config.clone() })
    }

    async fn networks(&self) -> Result<Networks, DiscoveryError> {
        let networks: Vec<Network> = self.daemon.list_all("networks").await?;
        Ok(Networks(networks.into_iter().map(|network| (network.id.clone(), network)).collect()))
    }
}

impl Discoverer for Swarm {
    async fn refresh(&mut self) -> Result<Found, DiscoveryError> {
        let (daemon, port) = (&self.daemon, self.config.port);
        let targets = match self.config.role {
            SwarmRole::Services => {
                let services: Vec<Service> = daemon.list("services").await?;
                services_of(&services, &self.networks().await?, port)?
            }
            SwarmRole::Nodes => {
                let nodes: Vec<SwarmNode> = daemon.list("nodes").await?;
                nodes.iter().map(|node| node.target(port)).collect()
            }
            SwarmRole::Tasks => {
                let tasks: Vec<Task> = daemon.list("tasks").await?;
                let services: Vec<Service> = daemon.list_all("services").await?;
                let nodes: Vec<SwarmNode> = daemon.list_all("nodes").await?;
                let around = Around {
                    services: services.iter().map(|service| (&*service.id, service)).collect(),
                    nodes: nodes.iter().map(|node| (&*node.id, node)).collect(),
                    networks: self.networks().await?,
                    port,
                };
                let mut targets = Vec::new();
                for task in &tasks {
                    around.task(task, &mut targets)?;
                }
                targets
            }
        };
        let source = "DockerSwarm".to_owned();
        Ok(vec![TargetGroup { source, targets, labels: Labels::default() }].into())
    }
}

struct Networks(BTreeMap<String, Network>);

impl Networks {
    fn label(&self, id: &str, labels: &mut LabelsBuilder) {
        if let Some(network) = self.0.get(id) {
            network.label(PREFIX, labels);
        }
    }
}

fn set(labels: &mut LabelsBuilder, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        labels.set(&format!("{PREFIX}{key}"), value);
    }
}

fn set_all(labels: &mut LabelsBuilder, prefix: &str, pairs: &BTreeMap<String, String>) {
    for (key, value) in pairs {
        labels.set(&format!("{PREFIX}{prefix}{}", sanitised(key)), value);
    }
}

fn at(mut labels: LabelsBuilder, host: &str, port: u16) -> Labels {
    labels.set(ADDRESS, &host_port(host, port));
    labels.build()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    spec: ServiceSpec,
    #[serde(default, deserialize_with = "or_default")]
    endpoint: ServiceEndpoint,
    #[serde(default)]
    update_status: Option<UpdateStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ServiceSpec {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    task_template: TaskSpec,
    /// The only key names it.
    #[serde(deserialize_with = "or_default")]
    mode: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TaskSpec {
    #[serde(deserialize_with = "or_default")]
    container_spec: ContainerSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerSpec {
    #[serde(deserialize_with = "or_default")]
    image: String,
    #[serde(deserialize_with = "or_default")]
    hostname: String,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct UpdateStatus {
    #[serde(rename = "State", default, deserialize_with = "or_default")]
    state: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceEndpoint {
    #[serde(rename = "Ports", deserialize_with = "or_default")]
    ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", deserialize_with = "or_default")]
    addresses: Vec<VirtualAddress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VirtualAddress {
    #[serde(rename = "NetworkID", deserialize_with = "or_default")]
    network: String,
    #[serde(rename = "Addr", deserialize_with = "or_default")]
    address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PortConfig {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    protocol: String,
    published_port: u16,
    #[serde(deserialize_with = "or_default")]
    publish_mode: String,
}

fn tcp(ports: &[PortConfig]) -> impl Iterator<Item = &PortConfig> {
    ports.iter().filter(|port| port.protocol == "tcp")
}

impl Service {
    /// What its tasks get, too.
    fn label(&self, labels: &mut LabelsBuilder) {
        let mode = if self.spec.mode.contains_key("Global") {
            "global"
        } else if self.spec.mode.contains_key("Replicated") {
            "replicated"
        } else {
            ""
        };
        let pairs =
            [("service_id", &*self.id), ("service_name", &self.spec.name), ("service_mode", mode)];
        set(labels, &pairs);
        set_all(labels, "service_label_", &self.spec.labels);
    }
}

fn services_of(
    services: &[Service],
    networks: &Networks,
    port: u16,
) -> Result<Vec<Labels>, DiscoveryError> {
    let mut found = Vec::new();
    for service in services {
        let mut common = LabelsBuilder::default();
        service.label(&mut common);
        let container = &service.spec.task_template.container_spec;
        let state = service.update_status.as_ref().map_or("", |status| &status.state);
        set(
            &mut common,
            &[
                ("service_task_container_hostname", &container.hostname),
                ("service_task_container_image", &container.image),
                ("service_updating_status", state),
            ],
        );
        for address in &service.endpoint.addresses {
            let host = address_of_network(&address.address)?;
            let mut labels = common.clone();
            networks.label(&address.network, &mut labels);
            let before = found.len();
            for published in tcp(&service.endpoint.ports) {
                let mut labels = labels.clone();
                set(
                    &mut labels,
                    &[
                        ("service_endpoint_port_name", &published.name),
                        ("service_endpoint_port_publish_mode", &published.publish_mode),
                    ],
                );
                found.push(at(labels, &host, published.published_port));
            }
            if found.len() == before {
                found.push(at(labels, &host, port));
            }
        }
    }
    Ok(found)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SwarmNode {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    spec: NodeSpec,
    #[serde(default, deserialize_with = "or_default")]
    description: NodeDescription,
    #[serde(default, deserialize_with = "or_default")]
    status: NodeStatus,
    #[serde(default)]
    manager_status: Option<ManagerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NodeSpec {
    #[serde(deserialize_with = "or_default")]
    availability: String,
    #[serde(deserialize_with = "or_default")]
    role: String,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NodeDescription {
    #[serde(deserialize_with = "or_default")]
    hostname: String,
    #[serde(deserialize_with = "or_default")]
    platform: Platform,
    #[serde(deserialize_with = "or_default")]
    engine: NodeEngine,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    #[serde(rename = "Architecture", deserialize_with = "or_default")]
    architecture: String,
    #[serde(rename = "OS", deserialize_with = "or_default")]
    os: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeEngine {
    #[serde(rename = "EngineVersion", deserialize_with = "or_default")]
    version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NodeStatus {
    #[serde(deserialize_with = "or_default")]
    state: String,
    #[serde(rename = "Addr", deserialize_with = "or_default")]
    address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ManagerStatus {
    leader: bool,
    #[serde(deserialize_with = "or_default")]
    reachability: String,
    #[serde(rename = "Addr", deserialize_with = "or_default")]
    address: String,
}

impl SwarmNode {
    /// What its tasks get, too.
    fn label(&self, labels: &mut LabelsBuilder) {
        set(
            labels,
            &[
                ("node_id", &self.id),
                ("node_address", &self.status.address),
                ("node_availability", &self.spec.availability),
                ("node_hostname", &self.description.hostname),
                ("node_platform_architecture", &self.description.platform.architecture),
                ("node_platform_os", &self.description.platform.os),
                ("node_role", &self.spec.role),
                ("node_status", &self.status.state),
            ],
        );
        set_all(labels, "node_label_", &self.spec.labels);
    }

    fn target(&self, port: u16) -> Labels {
        let mut labels = LabelsBuilder::default();
        self.label(&mut labels);
        set(&mut labels, &[("node_engine_version", &self.description.engine.version)]);
        if let Some(manager) = &self.manager_status {
            set(
                &mut labels,
                &[
                    ("node_manager_leader", truth(manager.leader)),
                    ("node_manager_reachability", &manager.reachability),
                    ("node_manager_address", &manager.address),
                ],
            );
        }
        at(labels, &self.status.address, port)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "ServiceID", default, deserialize_with = "or_default")]
    service: String,
    #[serde(rename = "NodeID", default, deserialize_with = "or_default")]
    node: String,
    #[serde(default)]
    slot: i64,
    #[serde(default, deserialize_with = "or_default")]
    desired_state: String,
    #[serde(default, deserialize_with = "or_default")]
    spec: TaskSpec,
    #[serde(default, deserialize_with = "or_default")]
    status: TaskStatus,
    #[serde(default, deserialize_with = "or_default")]
    networks_attachments: Vec<Attachment>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TaskStatus {
    #[serde(deserialize_with = "or_default")]
    state: String,
    #[serde(deserialize_with = "or_default")]
    container_status: ContainerStatus,
    #[serde(deserialize_with = "or_default")]
    port_status: PortStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    #[serde(rename = "ContainerID", deserialize_with = "or_default")]
    container: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PortStatus {
    #[serde(rename = "Ports", deserialize_with = "or_default")]
    ports: Vec<PortConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Attachment {
    #[serde(deserialize_with = "or_default")]
    network: AttachedNetwork,
    /// In the form `address/bits`.
    #[serde(deserialize_with = "or_default")]
    addresses: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AttachedNetwork {
    #[serde(rename = "ID", deserialize_with = "or_default")]
    id: String,
}

/// What tasks belong to.
struct Around<'a> {
    services: BTreeMap<&'a str, &'a Service>,
    nodes: BTreeMap<&'a str, &'a SwarmNode>,
    networks: Networks,
    port: u16,
}

impl Around<'_> {
    fn task(&self, task: &Task, found: &mut Vec<Labels>) -> Result<(), DiscoveryError> {
        let mut common = LabelsBuilder::default();
        set(
            &mut common,
            &[
                ("task_id", &task.id),
                ("task_desired_state", &task.desired_state),
                ("task_state", &task.status.state),
                ("task_slot", &task.slot.to_string()),
                ("task_container_id", &task.status.container_status.container),
            ],
        );
        set_all(&mut common, "container_label_", &task.spec.container_spec.labels);
        let service = self.services.get(task.service.as_str());
        let node = self.nodes.get(task.node.as_str());
        if let Some(service) = service {
            service.label(&mut common);
        }
        if let Some(node) = node {
            node.label(&mut common);
        }
        let on_port = |port: &PortConfig, mut labels: LabelsBuilder, host: &str| {
            set(&mut labels, &[("task_port_publish_mode", &port.publish_mode)]);
            at(labels, host, port.published_port)
        };
        let host = node.map_or("", |node| &node.status.address);
        let own = tcp(&task.status.port_status.ports);
        found.extend(own.map(|port| on_port(port, common.clone(), host)));
        for attachment in &task.networks_attachments {
            for address in &attachment.addresses {
                let host = address_of_network(address)?;
                let mut labels = common.clone();
                self.networks.label(&attachment.network.id, &mut labels);
                let before = found.len();
                let ports = service.map_or(&[][..], |service| &service.endpoint.ports);
                found.extend(tcp(ports).map(|port| on_port(port, labels.clone(), &host)));
                if found.len() == before {
                    found.push(at(labels, &host, self.port));
                }
            }
        }
        Ok(())
    }
}
