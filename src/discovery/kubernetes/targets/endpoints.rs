//! Endpoints and endpoint slices: a target for each address and port, and one for each port of a pod
//! behind them that is not among those.

use std::collections::BTreeMap;

use stint_model::Labels;
use stint_model::labels::LabelsBuilder;

use super::super::super::{ADDRESS, TargetGroup, host_port, sanitised};
use super::super::objects::{
    Endpoint, EndpointAddress, EndpointSlice, Endpoints, NamedPort, Pod, Reference, Service,
};
use super::{Make, group, service_labels, set, set_meta};

/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The targets of one object.
#[derive(Default)]
struct Targets<'a> {
    found: Vec<Labels>,
    /// Pods behind them by namespace and name, and the ports that have a target.
    pods: BTreeMap<(&'a str, &'a str), (&'a Pod, Vec<u16>)>,
}

impl<'a> Make<'a> {
    pub(super) fn endpoints(&self, endpoints: &Endpoints) -> TargetGroup {
        let meta = &endpoints.metadata;
        let mut labels = match self.store.service(&meta.namespace, &meta.name) {
            Some(service) => service_labels(service),
            None => LabelsBuilder::default(),
        };
        set(&mut labels, "namespace", &meta.namespace);
        set_meta(&mut labels, "endpoints", meta);
        self.set_namespace(&mut labels, &meta.namespace);
        let mut targets = Targets::default();
        for subset in &endpoints.subsets {
            for port in &subset.ports {
                for address in &subset.addresses {
                    self.address(&mut targets, address, port, true);
                }
                for address in &subset.not_ready_addresses {
                    self.address(&mut targets, address, port, false);
                }
            }
        }
        self.other_ports(&mut targets);
        group("endpoints", meta, &labels, targets.found)
    }

    fn address(
        &self,
        targets: &mut Targets<'a>,
        address: &EndpointAddress,
        port: &NamedPort,
        is_ready: bool,
    ) {
        let number = port.port.unwrap_or_default();
        let mut target = LabelsBuilder::default();
        target.set(ADDRESS, &host_port(&address.ip, number));
        let reference = address.target_ref.as_ref();
        for (name, value) in [
            ("endpoint_port_name", &*port.name),
            ("endpoint_port_protocol", &port.protocol),
            ("endpoint_ready", if is_ready { "true" } else { "false" }),
            ("endpoint_node_name", &address.node_name),
            ("endpoint_hostname", &address.hostname),
            ("endpoint_address_target_kind", reference.map_or("", |reference| &reference.kind)),
            ("endpoint_address_target_name", reference.map_or("", |reference| &reference.name)),
        ] {
            set(&mut target, name, value);
        }
        if !address.node_name.is_empty() {
            self.set_node(&mut target, &address.node_name);
        } else if let Some(reference) = reference.filter(|reference| reference.kind == "Node") {
            self.set_node(&mut target, &reference.name);
        }
        let protocol = Some(port.protocol.as_str());
        self.behind(targets, target, reference, Some(number), protocol);
    }

    pub(super) fn slice(&self, slice: &EndpointSlice) -> TargetGroup {
        let meta = &slice.metadata;
        let service = meta.labels.get(SERVICE_NAME);
        let service = service.and_then(|name| self.store.service(&meta.namespace, name));
        let mut labels = LabelsBuilder::default();
        if service.is_some_and(|service| is_second_family(service, &slice.address_type)) {
            return group("endpointslice", meta, &labels, Vec::new());
        }
        set(&mut labels, "namespace", &meta.namespace);
        set(&mut labels, "endpointslice_address_type", &slice.address_type);
        set_meta(&mut labels, "endpointslice", meta);
        if let Some(service) = service {
            for (name, value) in &service_labels(service).build() {
                labels.set(name, value);
            }
        }
        self.set_namespace(&mut labels, &meta.namespace);
        let mut targets = Targets::default();
        for endpoint in &slice.endpoints {
            for port in &slice.ports {
                for address in &endpoint.addresses {
                    self.endpoint(&mut targets, address, endpoint, port);
                }
            }
        }
        self.other_ports(&mut targets);
        group("endpointslice", meta, &labels, targets.found)
    }

    fn endpoint(
        &self,
        targets: &mut Targets<'a>,
        address: &str,
        endpoint: &Endpoint,
        port: &NamedPort,
    ) {
        let mut target = LabelsBuilder::default();
        match port.port {
            Some(number) => target.set(ADDRESS, &host_port(address, number)),
            None => target.set(ADDRESS, address),
        };
        let told =
            |condition: Option<bool>| condition.map_or_else(String::new, |is| is.to_string());
        let (reference, conditions) = (endpoint.target_ref.as_ref(), &endpoint.conditions);
        let number = port.port.map_or_else(String::new, |number| number.to_string());
        for (name, value) in [
            ("port_name", &*port.name),
            ("port_protocol", &port.protocol),
            ("port", &number),
            ("port_app_protocol", &port.app_protocol),
            ("endpoint_conditions_ready", &told(conditions.ready)),
            ("endpoint_conditions_serving", &told(conditions.serving)),
            ("endpoint_conditions_terminating", &told(conditions.terminating)),
            ("endpoint_hostname", &endpoint.hostname),
            ("endpoint_node_name", &endpoint.node_name),
            ("endpoint_zone", &endpoint.zone),
            ("address_target_kind", reference.map_or("", |reference| &reference.kind)),
            ("address_target_name", reference.map_or("", |reference| &reference.name)),
        ] {
            set(&mut target, &format!("endpointslice_{name}"), value);
        }
        for (key, value) in &endpoint.deprecated_topology {
            let key = sanitised(key);
            set(&mut target, &format!("endpointslice_endpoint_topology_{key}"), value);
            set(&mut target, &format!("endpointslice_endpoint_topology_present_{key}"), "true");
        }
        match reference.filter(|reference| reference.kind == "Node") {
            Some(reference) => self.set_node(&mut target, &reference.name),
            None => self.set_node(&mut target, &endpoint.node_name),
        }
        self.behind(targets, target, reference, port.port, None);
    }

    /// Adds `target`, with what is said of the pod behind it. `protocol` is that of the port, when it is
    /// told instead of the container's.
    fn behind(
        &self,
        targets: &mut Targets<'a>,
        mut target: LabelsBuilder,
        reference: Option<&Reference>,
        port: Option<u16>,
        protocol: Option<&str>,
    ) {
        if let Some(pod) = self.store.pod(reference) {
            self.set_pod(&mut target, pod);
            for container in pod.spec.all_containers() {
                let same = container.1.ports.iter().find(|own| Some(own.number) == port);
                if let Some(own) = same {
                    let protocol = protocol.unwrap_or(&own.protocol);
                    Self::set_container(&mut target, container, own, protocol);
                }
            }
            let key = (&*pod.metadata.namespace, &*pod.metadata.name);
            let (_, ports) = targets.pods.entry(key).or_insert((pod, Vec::new()));
            ports.extend(port);
        }
        targets.found.push(target.build());
    }

    /// Adds the ports of pods that no address has.
    fn other_ports(&self, targets: &mut Targets<'a>) {
        for (pod, ports) in targets.pods.values() {
            if pod.status.pod_ip.is_empty() {
                continue;
            }
            for container in pod.spec.all_containers() {
                for port in &container.1.ports {
                    if ports.contains(&port.number) {
                        continue;
                    }
                    let mut target = LabelsBuilder::default();
                    target.set(ADDRESS, &host_port(&pod.status.pod_ip, port.number));
                    Self::set_container(&mut target, container, port, &port.protocol);
                    self.set_pod(&mut target, pod);
                    targets.found.push(target.build());
                }
            }
        }
    }
}

/// Whether a service with both families of addresses has the targets of this one from its other slice.
fn is_second_family(service: &Service, address_type: &str) -> bool {
    let spec = &service.spec;
    spec.ip_family_policy.ends_with("DualStack")
        && spec.ip_families.first().is_some_and(|first| first != address_type)
}
