//! Where a scrape job's targets come from.

use std::path::{Path, PathBuf};

use stint_model::labels::{NameScheme, Quoted};
use stint_model::{Labels, Span};

use super::decode::{Context, Section, is_off};
use super::error::ConfigErrors;
use super::files::is_pattern;
use super::http::HttpConfig;
use super::node::{self, Kind, Node, SyntaxError};

mod aws;
mod consul;
mod dns;
mod docker;
mod http;
mod kubernetes;

pub use aws::{Aws, AwsKeys, Ec2Discovery, EcsDiscovery};
pub use consul::ConsulDiscovery;
pub use dns::{DnsDiscovery, RecordKind};
pub use docker::{DockerDaemon, DockerDiscovery, DockerHost, SwarmDiscovery, SwarmRole};
pub use http::HttpDiscovery;
pub use kubernetes::{
    KubeAccess, KubeAttach, KubeRole, KubeSelector, KubeServer, KubernetesDiscovery,
    read_kubeconfig,
};

/// Targets written in the configuration, or in a discovery file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticGroup {
    /// `host:port` each.
    pub targets: Vec<String>,
    /// Labels of all of them.
    pub labels: Labels,
}

/// Targets read from files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiscovery {
    /// JSON or YAML files; the last element of a path may be a pattern.
    pub files: Vec<PathBuf>,
    /// How often they are read again, changed or not.
    pub refresh_interval: Span,
}

/// A mechanism that finds targets while the server runs.
#[derive(Clone, Debug, PartialEq)]
pub enum SdConfig {
    /// `file_sd_configs`
    File(FileDiscovery),
    /// `http_sd_configs`
    Http(HttpDiscovery),
    /// `dns_sd_configs`
    Dns(DnsDiscovery),
    /// `docker_sd_configs`
    Docker(DockerDiscovery),
    /// `dockerswarm_sd_configs`
    Swarm(SwarmDiscovery),
    /// `consul_sd_configs`
    Consul(ConsulDiscovery),
    /// `kubernetes_sd_configs`
    Kubernetes(Box<KubernetesDiscovery>),
    /// `ec2_sd_configs`, and `aws_sd_configs` with the role `ec2`
    Ec2(Ec2Discovery),
    /// `aws_sd_configs` with the role `ecs`
    Ecs(EcsDiscovery),
}

impl SdConfig {
    /// The names of all mechanisms.
    pub const MECHANISMS: &[&str] =
        &["file", "http", "dns", "docker", "dockerswarm", "consul", "kubernetes", "ec2", "ecs"];

    /// The mechanism's name, as it stands in metrics.
    pub const fn mechanism(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Http(_) => "http",
            Self::Dns(_) => "dns",
            Self::Docker(_) => "docker",
            Self::Swarm(_) => "dockerswarm",
            Self::Consul(_) => "consul",
            Self::Kubernetes(_) => "kubernetes",
            Self::Ec2(_) => "ec2",
            Self::Ecs(_) => "ecs",
        }
    }

    /// How its requests are made, when it makes any over HTTP.
    pub const fn http(&self) -> Option<&HttpConfig> {
        match self {
            Self::File(_) | Self::Dns(_) => None,
            Self::Http(config) => Some(&config.http),
            Self::Docker(config) => Some(&config.daemon.http),
            Self::Swarm(config) => Some(&config.daemon.http),
            Self::Consul(config) => Some(&config.http),
            Self::Kubernetes(config) => Some(&config.http),
            Self::Ec2(config) => Some(&config.aws.http),
            Self::Ecs(config) => Some(&config.aws.http),
        }
    }
}

/// Mechanisms of Prometheus that are not here, and what they look for.
const OTHERS: &[(&str, &str)] = &[
    ("azure_sd_configs", "Azure"),
    ("digitalocean_sd_configs", "DigitalOcean"),
    ("elasticache_sd_configs", "AWS ElastiCache"),
    ("eureka_sd_configs", "Eureka"),
    ("gce_sd_configs", "Google Compute Engine"),
    ("hetzner_sd_configs", "Hetzner"),
    ("ionos_sd_configs", "IONOS"),
    ("kuma_sd_configs", "Kuma"),
    ("lightsail_sd_configs", "AWS Lightsail"),
    ("linode_sd_configs", "Linode"),
    ("marathon_sd_configs", "Marathon"),
    ("nerve_sd_configs", "Nerve"),
    ("nomad_sd_configs", "Nomad"),
    ("oci_sd_configs", "Oracle Cloud"),
    ("openstack_sd_configs", "OpenStack"),
    ("outscale_sd_configs", "Outscale"),
    ("ovhcloud_sd_configs", "OVHcloud"),
    ("puppetdb_sd_configs", "PuppetDB"),
    ("rds_sd_configs", "AWS RDS"),
    ("scaleway_sd_configs", "Scaleway"),
    ("serverset_sd_configs", "Serverset"),
    ("stackit_sd_configs", "STACKIT"),
    ("triton_sd_configs", "Triton"),
    ("uyuni_sd_configs", "Uyuni"),
    ("vultr_sd_configs", "Vultr"),
    ("msk_sd_configs", "AWS MSK"),
];

/// Reads all `*_sd_configs` of a section that take the place of each other.
pub(super) fn read(section: &mut Section<'_>) -> Vec<SdConfig> {
    let mut found = Vec::new();
    found.extend(read_file(section).into_iter().map(SdConfig::File));
    found.extend(http::read(section).into_iter().map(SdConfig::Http));
    found.extend(dns::read(section).into_iter().map(SdConfig::Dns));
    found.extend(docker::read(section).into_iter().map(SdConfig::Docker));
    found.extend(docker::read_swarm(section).into_iter().map(SdConfig::Swarm));
    found.extend(consul::read(section).into_iter().map(SdConfig::Consul));
    let kubernetes = kubernetes::read(section).into_iter();
    found.extend(kubernetes.map(|config| SdConfig::Kubernetes(Box::new(config))));
    found.extend(aws::read_ec2(section).into_iter().map(SdConfig::Ec2));
    found.extend(aws::read_aws(section).into_iter().map(|config| match config {
        aws::AwsRole::Ec2(config) => SdConfig::Ec2(config),
        aws::AwsRole::Ecs(config) => SdConfig::Ecs(config),
    }));
    refuse_others(section);
    found
}

fn refuse_others(section: &mut Section<'_>) {
    for &(key, what) in OTHERS {
        section.unsupported(
            key,
            is_off,
            &format!(
                "list the targets of {what} with file_sd_configs or http_sd_configs, for which a \
                 generator writes or serves them"
            ),
        );
    }
}

/// `refresh_interval`, or `default` in seconds.
fn refresh_interval(section: &mut Section<'_>, default: i64) -> Span {
    let given = section.span("refresh_interval").filter(|span| *span > Span::ZERO);
    given.unwrap_or(Span::from_secs(default))
}

/// `port`, or `default`.
fn port(section: &mut Section<'_>, default: u16) -> u16 {
    let port = section.parsed("port", |text| {
        text.parse().map_err(|_| format!("{text} is not a port, a number up to 65535"))
    });
    port.unwrap_or(default)
}

/// What a list is narrowed to: things of which the property `name` has one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The property, by the name that the server gives it.
    pub name: String,
    /// Any of them will do.
    pub values: Vec<String>,
}

/// `filters`.
fn filters(section: &mut Section<'_>) -> Vec<Filter> {
    let mut filters = Vec::new();
    for mut filter in section.sections("filters") {
        filters
            .push(Filter { name: filter.string_or("name", ""), values: filter.strings("values") });
        filter.finish();
    }
    filters
}

/// `static_configs`.
pub(super) fn read_static(section: &mut Section<'_>, scheme: NameScheme) -> Vec<StaticGroup> {
    // Relabelling may still make an address out of what looks like a URL.
    let relabelled = section.has("relabel_configs");
    let mut groups = Vec::new();
    for mut group in section.sections("static_configs") {
        let targets = group.texts("targets");
        for (at, target) in &targets {
            if target.contains('/') && !relabelled {
                let target = Quoted(target);
                group.cx.error(*at, format!("{target} is not a valid hostname"));
            }
        }
        groups.push(StaticGroup {
            targets: targets.into_iter().map(|(_, target)| target.to_owned()).collect(),
            labels: group.labels("labels", scheme),
        });
        group.finish();
    }
    groups
}

/// `file_sd_configs`.
fn read_file(section: &mut Section<'_>) -> Vec<FileDiscovery> {
    let mut found = Vec::new();
    for mut file in section.sections("file_sd_configs") {
        let paths = file.texts("files");
        if paths.is_empty() {
            let message = "file service discovery config must contain at least one path name";
            file.cx.error(file.at, message);
        }
        for (at, path) in &paths {
            let ends = [".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML"];
            let ends = ends.iter().any(|end| path.ends_with(end));
            if !ends || !is_pattern(path) {
                let path = Quoted(path);
                let message = format!("path name {path} is not valid for file discovery");
                file.cx.error(*at, message);
            }
        }
        found.push(FileDiscovery {
            files: paths.into_iter().map(|(_, path)| file.cx.path(path)).collect(),
            refresh_interval: refresh_interval(&mut file, 300),
        });
        file.finish();
    }
    found
}

/// The groups listed in a discovery file, in JSON when it is named so and in YAML otherwise.
///
/// # Errors
/// Everything that is wrong in it, with lines.
pub fn read_target_file(path: &Path, text: &str) -> Result<Vec<StaticGroup>, ConfigErrors> {
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let parsed = if json { node::json::parse(text) } else { node::yaml::parse(text) };
    groups_of(path, parsed)
}

/// The groups of a JSON answer of `name`.
///
/// # Errors
/// Everything that is wrong in it.
pub fn read_target_answer(name: &str, text: &str) -> Result<Vec<StaticGroup>, ConfigErrors> {
    groups_of(Path::new(name), node::json::parse(text))
}

fn groups_of(
    path: &Path,
    parsed: Result<Node, SyntaxError>,
) -> Result<Vec<StaticGroup>, ConfigErrors> {
    let cx = Context::new(path);
    let mut groups = Vec::new();
    match parsed {
        Ok(root) => read_groups(&cx, &root, &mut groups),
        Err(error) => cx.syntax(error),
    }
    let (errors, _) = cx.finish();
    if errors.is_empty() { Ok(groups) } else { Err(ConfigErrors(errors)) }
}

fn read_groups(cx: &Context, root: &Node, groups: &mut Vec<StaticGroup>) {
    let items = match &root.kind {
        Kind::List(items) => items.as_slice(),
        Kind::Null => &[],
        Kind::Scalar(_) | Kind::Map(_) => {
            let message = format!("a list of target groups is expected, not {}", root.describe());
            cx.error(root.at, message);
            &[]
        }
    };
    for (at, item) in items.iter().enumerate() {
        if item.is_null() {
            cx.error(item.at, format!("nil target group item found: [{at}] is empty"));
        }
        let mut group = Section::open(cx, item, format!("[{at}]"));
        groups.push(StaticGroup {
            targets: group.strings("targets"),
            labels: group.labels("labels", NameScheme::Utf8),
        });
        group.finish();
    }
}

#[cfg(test)]
mod tests;
