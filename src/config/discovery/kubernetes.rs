//! `kubernetes_sd_configs`.

use std::path::PathBuf;

use super::http::read_url;
use crate::config::decode::Section;
use crate::config::http::HttpConfig;

mod kubeconfig;
mod selector;

pub use kubeconfig::{KubeAccess, read_kubeconfig};

/// Objects of a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesDiscovery {
    /// How the API server is found.
    pub server: KubeServer,
    /// What targets are.
    pub role: KubeRole,
    /// Namespaces that are looked at; all when empty and `own_namespace` is not set.
    pub namespaces: Vec<String>,
    /// Whether the namespace of the pod that this runs in is looked at, too.
    pub own_namespace: bool,
    /// What lists are narrowed to, by the kind of object.
    pub selectors: Vec<KubeSelector>,
    /// What is said about targets beyond their own objects.
    pub attach: KubeAttach,
    /// How requests are made, when `server` is an address.
    pub http: HttpConfig,
}

/// How the API server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeServer {
    /// By the environment and the service account of the pod that this runs in.
    InCluster,
    /// Its address, without a final slash.
    Url(String),
    /// By the current context of this file.
    File(PathBuf),
}

/// The kinds of objects that targets are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KubeRole {
    /// A target for each node.
    Node,
    /// A target for each port of each container.
    Pod,
    /// A target for each port of each service.
    Service,
    /// A target for each address of endpoints.
    Endpoints,
    /// A target for each address of endpoint slices.
    EndpointSlice,
    /// A target for each path of each ingress.
    Ingress,
}

impl KubeRole {
    /// All of them, in order of the messages.
    pub const ALL: [Self; 6] =
        [Self::Pod, Self::Service, Self::Endpoints, Self::EndpointSlice, Self::Node, Self::Ingress];

    /// As it is written in the configuration and in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Endpoints => "endpoints",
            Self::EndpointSlice => "endpointslice",
            Self::Ingress => "ingress",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("unknown Kubernetes SD role {text:?}"))
    }

    /// The kinds of objects whose lists may be narrowed.
    const fn selectable(self) -> &'static [Self] {
        match self {
            Self::Pod => &[Self::Pod, Self::Node],
            Self::Service => &[Self::Service],
            Self::Endpoints => &[Self::Pod, Self::Service, Self::Endpoints, Self::Node],
            Self::EndpointSlice => &[Self::Pod, Self::Service, Self::EndpointSlice, Self::Node],
            Self::Node => &[Self::Node],
            Self::Ingress => &[Self::Ingress],
        }
    }
}

/// What the list of one kind of objects is narrowed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeSelector {
    /// The kind of objects.
    pub role: KubeRole,
    /// A selector over labels; may be empty.
    pub label: String,
    /// A selector over fields; may be empty.
    pub field: String,
}

/// What is said about targets beyond their own objects (`attach_metadata`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KubeAttach {
    /// Labels and annotations of the node.
    pub node: bool,
    /// Labels and annotations of the namespace.
    pub namespace: bool,
    /// The name of the deployment that a pod belongs to.
    pub deployment: bool,
    /// The name of the job that a pod belongs to.
    pub job: bool,
    /// The name of the cron job that a pod belongs to.
    pub cronjob: bool,
}

pub(super) fn read(section: &mut Section<'_>) -> Vec<KubernetesDiscovery> {
    let mut found = Vec::new();
    for mut kubernetes in section.sections("kubernetes_sd_configs") {
        found.extend(read_one(&mut kubernetes));
        kubernetes.finish();
    }
    found
}

fn read_one(section: &mut Section<'_>) -> Option<KubernetesDiscovery> {
    if section.text("role").unwrap_or_default().is_empty() {
        let roles = KubeRole::ALL.map(KubeRole::name).join(", ");
        section.error("role", format!("role missing (one of: {roles})"));
    }
    let role = section.parsed("role", |text| {
        if text.is_empty() { Ok(None) } else { KubeRole::parse(text).map(Some) }
    });
    let http = HttpConfig::read(section, true);
    let url = section.parsed("api_server", read_url).filter(|url| !url.is_empty());
    let file = section.path("kubeconfig_file");
    let (mut namespaces, mut own_namespace) = (Vec::new(), false);
    if let Some(mut section) = section.section("namespaces") {
        namespaces = section.strings("names");
        own_namespace = section.bool_or("own_namespace", false);
        section.finish();
    }
    let custom = http != HttpConfig::default();
    for (is_wrong, key, message) in [
        (
            url.is_some() && file.is_some(),
            "kubeconfig_file",
            "cannot use 'kubeconfig_file' and 'api_server' simultaneously",
        ),
        (
            file.is_some() && custom,
            "kubeconfig_file",
            "cannot use a custom HTTP client configuration together with 'kubeconfig_file'",
        ),
        (
            url.is_none() && file.is_none() && custom,
            "role",
            "to use custom HTTP client configuration please provide the 'api_server' URL explicitly",
        ),
        (
            url.is_some() && own_namespace,
            "namespaces",
            "cannot use 'api_server' and 'namespaces.own_namespace' simultaneously",
        ),
        (
            file.is_some() && own_namespace,
            "namespaces",
            "cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously",
        ),
    ] {
        if is_wrong {
            section.error(key, message);
        }
    }
    let attach = read_attach(section);
    let role = role.flatten();
    let selectors = read_selectors(section, role);
    let server = match (url, file) {
        (Some(url), _) => KubeServer::Url(url.trim_end_matches('/').to_owned()),
        (None, Some(file)) => KubeServer::File(file),
        (None, None) => KubeServer::InCluster,
    };
    let role = role?;
    Some(KubernetesDiscovery { server, role, namespaces, own_namespace, selectors, attach, http })
}

fn read_attach(section: &mut Section<'_>) -> KubeAttach {
    let Some(mut section) = section.section("attach_metadata") else {
        return KubeAttach::default();
    };
    let attach = KubeAttach {
        node: section.bool_or("node", false),
        namespace: section.bool_or("namespace", false),
        deployment: section.bool_or("deployment", false),
        job: section.bool_or("job", false),
        cronjob: section.bool_or("cronjob", false),
    };
    section.finish();
    attach
}

fn read_selectors(section: &mut Section<'_>, role: Option<KubeRole>) -> Vec<KubeSelector> {
    let mut found: Vec<KubeSelector> = Vec::new();
    for mut selector in section.sections("selectors") {
        let of = selector.parsed("role", KubeRole::parse);
        let label = selector.parsed("label", selector::check_labels);
        let field = selector.parsed("field", selector::check_fields);
        let named = selector.has("role");
        if let (Some(role), Some(of)) = (role, of) {
            let may = role.selectable();
            if found.iter().any(|other| other.role == of) {
                selector.error("role", format!("duplicated selector role: {}", of.name()));
            } else if !may.contains(&of) {
                let may: Vec<_> = may.iter().map(|role| role.name()).collect();
                let (role, may) = (role.name(), may.join(", "));
                selector.error("role", format!("{role} role supports only {may} selectors"));
            }
        } else if !named {
            selector.cx.error(selector.at, "a selector needs a role");
        }
        if let Some(role) = of {
            let (label, field) = (label.unwrap_or_default(), field.unwrap_or_default());
            found.push(KubeSelector { role, label, field });
        }
        selector.finish();
    }
    found
}
