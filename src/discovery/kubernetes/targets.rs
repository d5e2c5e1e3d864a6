//! Groups of targets out of what is known of a cluster, with the labels that Prometheus gives them.

use stint_model::Labels;
use stint_model::labels::{INSTANCE, LabelsBuilder};

use super::super::{ADDRESS, TargetGroup, host_port, sanitised};
use super::objects::{Ingress, Kind, Meta, Node, Service};
use super::store::Store;
use crate::config::{KubeAttach, KubeRole, KubernetesDiscovery};

mod endpoints;
mod pod;

const PREFIX: &str = "__meta_kubernetes_";

/// Where a node may be reached, the best first.
const NODE_ADDRESSES: [&str; 6] =
    ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];

/// The groups of all objects that have targets.
pub(super) fn groups(store: &Store, config: &KubernetesDiscovery) -> Vec<TargetGroup> {
    let make = Make { store, attach: config.attach };
    let groups: Vec<TargetGroup> = match config.role {
        KubeRole::Node => store.nodes().filter_map(node).collect(),
        KubeRole::Pod => store.pods().map(|pod| make.pod(pod)).collect(),
        KubeRole::Service => store.services().map(|service| make.service(service)).collect(),
        KubeRole::Endpoints => store.endpoints().map(|object| make.endpoints(object)).collect(),
        KubeRole::EndpointSlice => store.slices().map(|slice| make.slice(slice)).collect(),
        KubeRole::Ingress => store.ingresses().map(|ingress| make.ingress(ingress)).collect(),
    };
    groups.into_iter().filter(|group| !group.targets.is_empty()).collect()
}

/// Makes groups of single objects.
struct Make<'a> {
    store: &'a Store,
    attach: KubeAttach,
}

fn set(labels: &mut LabelsBuilder, name: &str, value: &str) {
    labels.set(&format!("{PREFIX}{name}"), value);
}

/// Labels of the name of an object, its labels and its annotations.
fn set_meta(labels: &mut LabelsBuilder, role: &str, meta: &Meta) {
    set(labels, &format!("{role}_name"), &meta.name);
    set_pairs(labels, role, meta);
}

fn set_pairs(labels: &mut LabelsBuilder, role: &str, meta: &Meta) {
    for (what, pairs) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
        for (key, value) in pairs {
            let key = sanitised(key);
            set(labels, &format!("{role}_{what}_{key}"), value);
            set(labels, &format!("{role}_{what}present_{key}"), "true");
        }
    }
}

fn group(kind: &str, meta: &Meta, labels: &LabelsBuilder, targets: Vec<Labels>) -> TargetGroup {
    let source = if meta.namespace.is_empty() {
        format!("{kind}/{}", meta.name)
    } else {
        format!("{kind}/{}/{}", meta.namespace, meta.name)
    };
    TargetGroup { source, targets, labels: labels.build() }
}

fn node(node: &Node) -> Option<TargetGroup> {
    let mut labels = LabelsBuilder::default();
    set(&mut labels, "node_provider_id", &node.spec.provider);
    for condition in &node.status.conditions {
        let name = format!("node_condition_{}", sanitised(&condition.kind));
        set(&mut labels, &name, &condition.status.to_lowercase());
    }
    set_meta(&mut labels, "node", &node.metadata);
    let addresses = &node.status.addresses;
    let first = |kind: &str| addresses.iter().find(|address| address.kind == kind);
    let Some(best) = NODE_ADDRESSES.into_iter().find_map(first) else {
        let node = &node.metadata.name;
        tracing::warn!(node, "a node of Kubernetes has no address and is no target");
        return None;
    };
    let port = node.status.daemon_endpoints.kubelet_endpoint.port;
    let mut target = LabelsBuilder::default();
    target.set(ADDRESS, &host_port(&best.address, port));
    target.set(INSTANCE, &node.metadata.name);
    for address in addresses.iter().rev() {
        set(&mut target, &format!("node_address_{}", sanitised(&address.kind)), &address.address);
    }
    Some(group("node", &node.metadata, &labels, vec![target.build()]))
}

fn service_labels(service: &Service) -> LabelsBuilder {
    let mut labels = LabelsBuilder::default();
    set(&mut labels, "namespace", &service.metadata.namespace);
    set_meta(&mut labels, "service", &service.metadata);
    labels
}

impl Make<'_> {
    /// Labels of the namespace, when they are wanted.
    fn set_namespace(&self, labels: &mut LabelsBuilder, namespace: &str) {
        if self.attach.namespace
            && let Some(meta) = self.store.meta(Kind::Namespace, "", namespace)
        {
            set_pairs(labels, "namespace", meta);
        }
    }

    /// Labels of a node, when they are wanted.
    fn set_node(&self, labels: &mut LabelsBuilder, node: &str) {
        if self.attach.node
            && let Some(meta) = self.store.meta(Kind::Node, "", node)
        {
            set_meta(labels, "node", meta);
        }
    }

    fn service(&self, service: &Service) -> TargetGroup {
        let mut labels = service_labels(service);
        let meta = &service.metadata;
        self.set_namespace(&mut labels, &meta.namespace);
        let spec = &service.spec;
        let target = |port: &super::objects::NamedPort| {
            let number = port.port.unwrap_or_default();
            let mut target = LabelsBuilder::default();
            let host = format!("{}.{}.svc", meta.name, meta.namespace);
            target.set(ADDRESS, &host_port(&host, number));
            set(&mut target, "service_port_name", &port.name);
            set(&mut target, "service_port_number", &number.to_string());
            set(&mut target, "service_port_protocol", &port.protocol);
            set(&mut target, "service_type", &spec.kind);
            if spec.kind == "ExternalName" {
                set(&mut target, "service_external_name", &spec.external_name);
            } else {
                set(&mut target, "service_cluster_ip", &spec.cluster_ip);
            }
            if spec.kind == "LoadBalancer" {
                set(&mut target, "service_loadbalancer_ip", &spec.load_balancer_ip);
            }
            target.build()
        };
        group("svc", meta, &labels, spec.ports.iter().map(target).collect())
    }

    fn ingress(&self, ingress: &Ingress) -> TargetGroup {
        let (meta, spec) = (&ingress.metadata, &ingress.spec);
        let mut labels = LabelsBuilder::default();
        set(&mut labels, "namespace", &meta.namespace);
        set(&mut labels, "ingress_class_name", &spec.ingress_class_name);
        set_meta(&mut labels, "ingress", meta);
        self.set_namespace(&mut labels, &meta.namespace);
        let mut targets = Vec::new();
        for rule in &spec.rules {
            let mut hosts = spec.tls.iter().flat_map(|tls| &tls.hosts);
            let scheme = if hosts.any(|host| covers(host, &rule.host)) { "https" } else { "http" };
            let paths = match &rule.http {
                None => vec!["/"],
                Some(http) => http.paths.iter().map(|path| path.path.as_str()).collect(),
            };
            for path in paths {
                let mut target = LabelsBuilder::default();
                target.set(ADDRESS, &rule.host);
                set(&mut target, "ingress_scheme", scheme);
                set(&mut target, "ingress_host", &rule.host);
                set(&mut target, "ingress_path", if path.is_empty() { "/" } else { path });
                targets.push(target.build());
            }
        }
        group("ingress", meta, &labels, targets)
    }
}

/// Whether a certificate for `pattern` is one for `host`; a `*` stands for the first part of a name.
fn covers(pattern: &str, host: &str) -> bool {
    let below = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_owned());
    pattern == host
        || (pattern.starts_with("*.")
            && below(pattern).is_some_and(|rest| below(host) == Some(rest)))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_star_stands_for_one_part() {
        for (pattern, host, expected) in [
            ("a.b", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "x.a.b", false),
            ("*.b", "b", false),
            ("a.*", "a.b", false),
            ("", "", true),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
    }
}
