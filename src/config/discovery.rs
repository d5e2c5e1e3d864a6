//! Where a scrape job's targets come from.

use std::path::{Path, PathBuf};

use stint_model::labels::{NameScheme, Quoted};
use stint_model::{Labels, Span};

use super::decode::{Context, Section, is_off};
use super::error::ConfigErrors;
use super::files::is_pattern;
use super::node::{self, Kind, Node};

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

/// Discovery mechanisms of Prometheus that are not here yet.
const OTHERS: [&str; 33] = [
    "aws_sd_configs",
    "azure_sd_configs",
    "consul_sd_configs",
    "digitalocean_sd_configs",
    "dns_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "eureka_sd_configs",
    "gce_sd_configs",
    "hetzner_sd_configs",
    "http_sd_configs",
    "ionos_sd_configs",
    "kubernetes_sd_configs",
    "kuma_sd_configs",
    "lightsail_sd_configs",
    "linode_sd_configs",
    "marathon_sd_configs",
    "nerve_sd_configs",
    "nomad_sd_configs",
    "oci_sd_configs",
    "openstack_sd_configs",
    "outscale_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "scaleway_sd_configs",
    "serverset_sd_configs",
    "stackit_sd_configs",
    "triton_sd_configs",
    "uyuni_sd_configs",
    "vultr_sd_configs",
    "elasticache_sd_configs",
    "rds_sd_configs",
];

pub(super) fn refuse_others(section: &mut Section<'_>) {
    for key in OTHERS {
        section.unsupported(key, is_off, "use static_configs, or file_sd_configs with a generator");
    }
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
pub(super) fn read_file(section: &mut Section<'_>) -> Vec<FileDiscovery> {
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
            refresh_interval: file
                .span("refresh_interval")
                .filter(|span| *span > Span::ZERO)
                .unwrap_or(Span(5 * Span::MINUTE.0)),
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
    let cx = Context::new(path);
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let parsed = if json { node::json::parse(text) } else { node::yaml::parse(text) };
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
        let mut group = Section::open(cx, item, format!("[{at}]"));
        groups.push(StaticGroup {
            targets: group.strings("targets"),
            labels: group.labels("labels", NameScheme::Utf8),
        });
        group.finish();
    }
}
