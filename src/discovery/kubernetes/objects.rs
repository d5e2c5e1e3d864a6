//! The objects of the API, as far as targets are made of them. What else changes in an object makes
//! no difference.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::or_default;
use crate::config::KubeRole;

/// The kinds of objects that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Node,
    Pod,
    Service,
    Endpoints,
    EndpointSlice,
    Ingress,
    Namespace,
    ReplicaSet,
    Job,
}

impl Kind {
    /// The role whose targets are such objects.
    pub(super) const fn role(self) -> Option<KubeRole> {
        match self {
            Self::Node => Some(KubeRole::Node),
            Self::Pod => Some(KubeRole::Pod),
            Self::Service => Some(KubeRole::Service),
            Self::Endpoints => Some(KubeRole::Endpoints),
            Self::EndpointSlice => Some(KubeRole::EndpointSlice),
            Self::Ingress => Some(KubeRole::Ingress),
            Self::Namespace | Self::ReplicaSet | Self::Job => None,
        }
    }

    /// The group and the name of its lists in paths.
    pub(super) const fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Node => ("api/v1", "nodes"),
            Self::Pod => ("api/v1", "pods"),
            Self::Service => ("api/v1", "services"),
            Self::Endpoints => ("api/v1", "endpoints"),
            Self::EndpointSlice => ("apis/discovery.k8s.io/v1", "endpointslices"),
            Self::Ingress => ("apis/networking.k8s.io/v1", "ingresses"),
            Self::Namespace => ("api/v1", "namespaces"),
            Self::ReplicaSet => ("apis/apps/v1", "replicasets"),
            Self::Job => ("apis/batch/v1", "jobs"),
        }
    }

    pub(super) const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::Namespace)
    }

    /// Whether only the metadata is wanted.
    pub(super) const fn is_bare(self) -> bool {
        matches!(self, Self::Namespace | Self::ReplicaSet | Self::Job)
    }

    /// One page of a list.
    pub(super) fn read_page(self, body: &[u8]) -> Result<Page, serde_json::Error> {
        match self {
            Self::Node => page(body, Object::Node),
            Self::Pod => page(body, Object::Pod),
            Self::Service => page(body, Object::Service),
            Self::Endpoints => page(body, Object::Endpoints),
            Self::EndpointSlice => page(body, Object::EndpointSlice),
            Self::Ingress => page(body, Object::Ingress),
            Self::Namespace | Self::ReplicaSet | Self::Job => page(body, Object::Bare),
        }
    }

    /// The object of a change.
    pub(super) fn read_change(self, line: &[u8]) -> Result<Object, serde_json::Error> {
        match self {
            Self::Node => changed(line, Object::Node),
            Self::Pod => changed(line, Object::Pod),
            Self::Service => changed(line, Object::Service),
            Self::Endpoints => changed(line, Object::Endpoints),
            Self::EndpointSlice => changed(line, Object::EndpointSlice),
            Self::Ingress => changed(line, Object::Ingress),
            Self::Namespace | Self::ReplicaSet | Self::Job => changed(line, Object::Bare),
        }
    }
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Node(Node),
    Pod(Pod),
    Service(Service),
    Endpoints(Endpoints),
    EndpointSlice(EndpointSlice),
    Ingress(Ingress),
    Bare(Bare),
}

impl Object {
    pub(super) fn meta(&self) -> &Meta {
        match self {
            Self::Node(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::Endpoints(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Ingress(object) => &object.metadata,
            Self::Bare(object) => &object.metadata,
        }
    }
}

/// A page of a list, and how it goes on.
pub(super) struct Page {
    pub(super) objects: Vec<Object>,
    /// Asks for the next page; empty after the last one.
    pub(super) next: String,
    /// The state of the cluster that the list shows.
    pub(super) version: String,
}

fn page<T: DeserializeOwned>(
    body: &[u8],
    object: fn(T) -> Object,
) -> Result<Page, serde_json::Error> {
    #[derive(Deserialize)]
    struct List<T> {
        metadata: ListMeta,
        items: Option<Vec<T>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ListMeta {
        #[serde(default, deserialize_with = "or_default")]
        resource_version: String,
        #[serde(rename = "continue", default, deserialize_with = "or_default")]
        next: String,
    }
    let List { metadata, items } = serde_json::from_slice(body)?;
    let objects = items.unwrap_or_default().into_iter().map(object).collect();
    Ok(Page { objects, next: metadata.next, version: metadata.resource_version })
}

fn changed<T: DeserializeOwned>(
    line: &[u8],
    object: fn(T) -> Object,
) -> Result<Object, serde_json::Error> {
    #[derive(Deserialize)]
    struct Change<T> {
        object: T,
    }
    let change: Change<T> = serde_json::from_slice(line)?;
    Ok(object(change.object))
}

/// What all objects have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) uid: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<Owner>,
}

impl Meta {
    /// What manages the object.
    pub(super) fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    #[serde(deserialize_with = "or_default")]
    pub(super) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    controller: bool,
}

/// An object of which only the metadata is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Bare {
    pub(super) metadata: Meta,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub(super) spec: NodeSpec,
    #[serde(deserialize_with = "or_default")]
    pub(super) status: NodeStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NodeSpec {
    #[serde(rename = "providerID", deserialize_with = "or_default")]
    pub(super) provider: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeStatus {
    #[serde(deserialize_with = "or_default")]
    pub(super) addresses: Vec<NodeAddress>,
    #[serde(deserialize_with = "or_default")]
    pub(super) conditions: Vec<Condition>,
    #[serde(deserialize_with = "or_default")]
    pub(super) daemon_endpoints: DaemonEndpoints,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NodeAddress {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(super) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(super) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DaemonEndpoints {
    #[serde(deserialize_with = "or_default")]
    pub(super) kubelet_endpoint: DaemonEndpoint,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct DaemonEndpoint {
    /// The API's own name for it.
    #[serde(rename = "Port", deserialize_with = "or_default")]
    pub(super) port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub(super) spec: PodSpec,
    #[serde(deserialize_with = "or_default")]
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    pub(super) node_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub(super) init_containers: Vec<Container>,
}

impl PodSpec {
    /// All containers, and whether they are init containers.
    pub(super) fn all_containers(&self) -> impl Iterator<Item = (bool, &Container)> {
        let own = self.containers.iter().map(|container| (false, container));
        own.chain(self.init_containers.iter().map(|container| (true, container)))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Container {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) image: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ContainerPort {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(rename = "containerPort", deserialize_with = "or_default")]
    pub(super) number: u16,
    #[serde(deserialize_with = "or_default")]
    pub(super) protocol: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    #[serde(rename = "podIP", deserialize_with = "or_default")]
    pub(super) pod_ip: String,
    #[serde(rename = "hostIP", deserialize_with = "or_default")]
    pub(super) host_ip: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) phase: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) conditions: Vec<Condition>,
    #[serde(deserialize_with = "or_default")]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ContainerStatus {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    pub(super) id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub(super) spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(super) kind: String,
    #[serde(rename = "clusterIP", deserialize_with = "or_default")]
    pub(super) cluster_ip: String,
    #[serde(rename = "loadBalancerIP", deserialize_with = "or_default")]
    pub(super) load_balancer_ip: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) external_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) ip_family_policy: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) ip_families: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Vec<NamedPort>,
}

/// A port of a service, of endpoints or of a slice; in slices everything may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NamedPort {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    pub(super) port: Option<u16>,
    #[serde(deserialize_with = "or_default")]
    pub(super) protocol: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) app_protocol: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Endpoints {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub(super) subsets: Vec<Subset>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Subset {
    #[serde(deserialize_with = "or_default")]
    pub(super) addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "or_default")]
    pub(super) not_ready_addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Vec<NamedPort>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EndpointAddress {
    #[serde(deserialize_with = "or_default")]
    pub(super) ip: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) hostname: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) node_name: String,
    pub(super) target_ref: Option<Reference>,
}

/// Names another object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Reference {
    #[serde(deserialize_with = "or_default")]
    pub(super) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EndpointSlice {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub(super) address_type: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Vec<NamedPort>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Endpoint {
    #[serde(deserialize_with = "or_default")]
    pub(super) addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) conditions: EndpointConditions,
    #[serde(deserialize_with = "or_default")]
    pub(super) hostname: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) node_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) zone: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) deprecated_topology: BTreeMap<String, String>,
    pub(super) target_ref: Option<Reference>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct EndpointConditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Ingress {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub(super) spec: IngressSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct IngressSpec {
    #[serde(deserialize_with = "or_default")]
    pub(super) ingress_class_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) tls: Vec<IngressTls>,
    #[serde(deserialize_with = "or_default")]
    pub(super) rules: Vec<IngressRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct IngressTls {
    #[serde(deserialize_with = "or_default")]
    pub(super) hosts: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct IngressRule {
    #[serde(deserialize_with = "or_default")]
    pub(super) host: String,
    pub(super) http: Option<IngressHttp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct IngressHttp {
    #[serde(deserialize_with = "or_default")]
    pub(super) paths: Vec<IngressPath>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct IngressPath {
    #[serde(deserialize_with = "or_default")]
    pub(super) path: String,
}
