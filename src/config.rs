//! What the operator wrote: `prometheus.yml`, as Prometheus reads it, and `retention.toml`, for
//! what Prometheus has no words for.
//!
//! [`load`] reads, checks and joins both. Everything in a [`Config`] is complete: defaults are
//! filled in, globals inherited, paths joined, expressions compiled. What is wrong is reported
//! with file, line and column, as much as possible at once; a key that is known to Prometheus and
//! not supported here is an error too, never ignored.

use std::path::{Path, PathBuf};

use stint_model::Labels;
use stint_model::labels::Quoted;

pub mod account;
mod alerting;
mod decode;
pub mod discovery;
pub mod error;
mod expressions;
mod files;
pub mod global;
pub mod http;
pub mod labels;
mod node;
pub mod notify;
pub mod policy;
#[cfg(test)]
mod reference;
mod relabel;
pub mod remote_write;
pub mod retention;
pub mod rules;
pub mod scrape;
pub mod secret;
mod selector;
mod show;
pub mod storage;
pub mod unit_test;
mod usage;
mod variables;
pub mod web;

pub use account::{AccountApi, AccountKind};
pub use alerting::{Alerting, Alertmanager};
pub use discovery::{
    Aws, AwsKeys, ConsulDiscovery, DnsDiscovery, DockerDaemon, DockerDiscovery, DockerHost,
    Ec2Discovery, EcsDiscovery, FileDiscovery, Filter, HttpDiscovery, KubeAccess, KubeAttach,
    KubeRole, KubeSelector, KubeServer, KubernetesDiscovery, RecordKind, SdConfig, StaticGroup,
    SwarmDiscovery, SwarmRole, read_kubeconfig, read_target_answer, read_target_file,
};
pub use error::{ConfigError, ConfigErrors};
pub use expressions::{RuleExpression, rule_expressions};
pub use files::files_matching;
pub use global::Global;
pub use http::{
    Auth, Credential, HttpConfig, HttpHeader, OAuth2, ProxyConfig, TlsConfig, TlsVersion,
};
pub use labels::{LabelRule, RequiredLabels};
pub use notify::Webhook;
pub use policy::{Aggregate, Class, Fold, GaugeRule, HistogramRule, IdentityRule, Level, Quota};
pub use remote_write::{MetadataConfig, ProtobufMessage, QueueConfig, RemoteWrite};
pub use retention::{Budget, Retention, is_grafana_cloud};
pub use scrape::{Limits, ScrapeConfig};
pub use secret::Secret;
pub use storage::{Otlp, Storage, Translation};
pub use usage::Usage;

use decode::{Context, Section};
use global::Environment;
use node::Node;
use retention::RetentionFile;

/// Both files, checked and joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Defaults and external labels.
    pub global: Global,
    /// Scrape jobs in order of the file; names are unique.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Patterns of rule files, in order of the file, seen from its directory.
    pub rule_files: Vec<PathBuf>,
    /// Endpoints in order of the file; names are unique and never empty.
    pub remote_write: Vec<RemoteWrite>,
    /// Alertmanagers and what is changed on the way to them.
    pub alerting: Alerting,
    /// Who is told of alerts directly (from `retention.toml`); names are unique.
    pub webhooks: Vec<Webhook>,
    /// Options of the store and of exemplars.
    pub storage: Storage,
    /// How OTLP metrics become series.
    pub otlp: Otlp,
    /// How long and how much is kept; budgets are joined into [`Config::remote_write`].
    pub retention: Retention,
    /// What tells which metrics and labels are used.
    pub usage: Usage,
    /// Labels that every series must carry.
    pub labels: RequiredLabels,
    /// What is allowed and yet looks wrong; to be logged.
    pub warnings: Vec<ConfigError>,
    /// `prometheus.yml` as it was read, or what holds when there is none; may hold secrets.
    pub text: String,
}

/// The files to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// `prometheus.yml`; without one, the server scrapes itself.
    pub prometheus: Option<&'a Path>,
    /// `retention.toml`; without one, its defaults hold.
    pub retention: Option<&'a Path>,
    /// `host:port` under which the server reaches itself.
    pub own_address: &'a str,
    /// Whether `${NAME}` is a variable of the environment in any value of both.
    pub expand_env: bool,
}

/// Reads, checks and joins both files. Without being asked for, environment variables count in
/// `external_labels`, in required labels and in OTLP's resource attributes.
///
/// # Errors
/// Everything that is wrong in both files.
pub fn load(files: Files<'_>) -> Result<Config, ConfigErrors> {
    let mut unread = Vec::new();
    let mut text_of = |path: Option<&Path>| {
        let path = path?;
        match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) => {
                unread.push(unreadable(path, &error));
                None
            }
        }
    };
    let prometheus = text_of(files.prometheus);
    let retention = text_of(files.retention);
    let texts = Texts { prometheus: prometheus.as_deref(), retention: retention.as_deref() };
    match (parse(files, texts, &|name| std::env::var(name).ok()), unread.is_empty()) {
        (Ok(config), true) => Ok(config),
        (Ok(_), false) => Err(ConfigErrors(unread)),
        (Err(ConfigErrors(errors)), _) => {
            unread.extend(errors);
            Err(ConfigErrors(unread))
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError {
        file: path.display().to_string(),
        line: 0,
        column: 0,
        message: format!("cannot read the file: {error}"),
    }
}

/// The contents of the files.
#[derive(Clone, Copy, Default)]
pub(crate) struct Texts<'a> {
    pub(crate) prometheus: Option<&'a str>,
    pub(crate) retention: Option<&'a str>,
}

/// What holds before anything is read.
fn empty(text: &str) -> Config {
    Config {
        global: Global::default(),
        scrape_configs: Vec::new(),
        rule_files: Vec::new(),
        remote_write: Vec::new(),
        alerting: Alerting::default(),
        webhooks: Vec::new(),
        storage: Storage::default(),
        otlp: Otlp::default(),
        retention: Retention::default(),
        usage: Usage::default(),
        labels: RequiredLabels::default(),
        warnings: Vec::new(),
        text: text.to_owned(),
    }
}

/// What `texts` say, in an environment of `environment`; `files` are their names.
///
/// # Errors
/// Everything that is wrong in both.
pub(crate) fn parse(
    files: Files<'_>,
    texts: Texts<'_>,
    environment: Environment<'_>,
) -> Result<Config, ConfigErrors> {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    let mut config = empty(texts.prometheus.unwrap_or_default());
    let itself;
    let (text, file) = match (texts.prometheus, files.prometheus) {
        (Some(text), path) => (text, path.unwrap_or(Path::new("prometheus.yml"))),
        (None, Some(_)) => ("", Path::new("prometheus.yml")),
        (None, None) => {
            itself = self_scrape(files.own_address);
            config.text.clone_from(&itself);
            (itself.as_str(), Path::new("built-in configuration"))
        }
    };
    let cx = Context::new(file);
    let mut more = Vec::new();
    match node::yaml::parse(text) {
        Ok(mut root) => {
            if files.expand_env {
                variables::expand_all(&cx, &mut root, variables::OWN_OF_PROMETHEUS, environment);
            }
            read_prometheus(&cx, &root, environment, &mut config, &mut more);
        }
        Err(error) => cx.syntax(error),
    }
    let (found, warned) = cx.finish();
    let endpoints_are_known = found.is_empty();
    errors.extend(found);
    warnings.extend(warned);
    for path in more {
        let variables = files.expand_env.then_some(environment);
        errors.extend(read_scrape_file(&path, variables, &mut config));
    }

    let cx = Context::new(files.retention.unwrap_or(Path::new("retention.toml")));
    let retention = match node::toml::parse(texts.retention.unwrap_or_default()) {
        Ok(mut root) => {
            if files.expand_env {
                variables::expand_all(&cx, &mut root, variables::OWN_OF_RETENTION, environment);
            }
            RetentionFile::read(&cx, &root, environment)
        }
        Err(errors) => {
            for error in errors {
                cx.syntax(error);
            }
            RetentionFile::default()
        }
    };
    config.otlp.resource_attributes.clone_from(&retention.resource_attributes);
    if endpoints_are_known {
        retention.join(&cx, &mut config.remote_write);
    }
    config.webhooks = retention.webhooks;
    config.labels.clone_from(&retention.labels);
    config.usage = retention.usage.clone();
    config.usage.rules.extend(config.rule_files.iter().cloned());
    config.retention = config.storage.retention.or(retention.retention).unwrap_or_default();
    let (found, warned) = cx.finish();
    errors.extend(found);
    warnings.extend(warned);
    config.warnings = warnings;
    if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
}

/// The configuration of a server that is given none: it scrapes itself.
fn self_scrape(own_address: &str) -> String {
    format!(
        "global: {{scrape_interval: 15s}}\n\
         scrape_configs:\n\
         - job_name: stint\n\
         \x20 static_configs: [{{targets: [{own_address:?}]}}]\n"
    )
}

fn read_prometheus(
    cx: &Context,
    root: &Node,
    environment: Environment<'_>,
    config: &mut Config,
    more: &mut Vec<PathBuf>,
) {
    let mut root = Section::open(cx, root, "");
    if let Some(section) = root.section("global") {
        config.global = Global::read(section, environment);
    }
    read_scrape_configs(&mut root, config);
    for (at, pattern) in root.texts("scrape_config_files") {
        if !files::is_pattern(pattern) {
            cx.error(at, format!("invalid scrape config file path {}", Quoted(pattern)));
            continue;
        }
        match files_matching(&cx.path(pattern)) {
            Ok(files) => {
                let before = more.len();
                more.extend(files.into_iter().filter(|file| file.exists()));
                if more.len() == before {
                    cx.warn(at, format!("no file matches {pattern}"));
                }
            }
            Err(error) => cx.error(at, format!("cannot list {pattern}: {error}")),
        }
    }
    read_remote_write(&mut root, config);
    if let Some(section) = root.section("storage") {
        config.storage = Storage::read(section);
    }
    if let Some(section) = root.section("otlp") {
        config.otlp = Otlp::read(section, config.global.name_scheme);
    }
    if let Some(mut section) = root.section("runtime") {
        if section.u64("gogc").is_some() {
            let at = section.position("gogc");
            cx.warn(at, "`runtime.gogc` tunes Go's garbage collector, and there is none here");
        }
        section.finish();
    }
    for (at, pattern) in root.texts("rule_files") {
        if files::is_pattern(pattern) {
            config.rule_files.push(cx.path(pattern));
        } else {
            cx.error(at, format!("invalid rule file path {}", Quoted(pattern)));
        }
    }
    if let Some(section) = root.section("alerting") {
        config.alerting = Alerting::read(section, config.global.name_scheme);
    }
    root.unsupported("remote_read", decode::is_off, "remove it");
    root.unsupported("tracing", decode::is_off, "remove it");
    root.finish();
}

fn read_scrape_configs(root: &mut Section<'_>, config: &mut Config) {
    for section in root.sections("scrape_configs") {
        let (cx, at) = (section.cx, section.position("job_name"));
        let job = ScrapeConfig::read(section, &config.global);
        let taken = config.scrape_configs.iter().any(|other| other.job_name == job.job_name);
        if taken && !job.job_name.is_empty() {
            let name = Quoted(&job.job_name);
            cx.error(at, format!("found multiple scrape configs with job name {name}"));
        }
        config.scrape_configs.push(job);
    }
}

/// A file named by `scrape_config_files`: the jobs are added, the mistakes returned.
fn read_scrape_file(
    path: &Path,
    variables: Option<Environment<'_>>,
    config: &mut Config,
) -> Vec<ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return vec![unreadable(path, &error)],
    };
    let cx = Context::new(path);
    match node::yaml::parse(&text) {
        Ok(mut root) => {
            if let Some(environment) = variables {
                variables::expand_all(&cx, &mut root, &[], environment);
            }
            let mut root = Section::open(&cx, &root, "");
            read_scrape_configs(&mut root, config);
            root.finish();
        }
        Err(error) => cx.syntax(error),
    }
    cx.finish().0
}

fn read_remote_write(root: &mut Section<'_>, config: &mut Config) {
    for section in root.sections("remote_write") {
        let (cx, at) = (section.cx, section.at);
        let mut remote = RemoteWrite::read(section, config.global.name_scheme);
        let unnamed = remote.name.is_empty();
        if unnamed {
            let same = |other: &&RemoteWrite| {
                RemoteWrite { name: String::new(), ..(*other).clone() } == remote
            };
            if config.remote_write.iter().any(|other| same(&other)) {
                cx.error(at, "the same remote_write endpoint is configured twice; remove one");
            }
            remote.name = unnamed_endpoint(&remote.url, &config.remote_write);
        } else if config.remote_write.iter().any(|other| other.name == remote.name) {
            let name = Quoted(&remote.name);
            cx.error(at, format!("found multiple remote write configs with job name {name}"));
        }
        config.remote_write.push(remote);
    }
}

/// A name that stays the same as long as the URL does, whatever else is changed, since cursors
/// and ledgers are kept under it.
fn unnamed_endpoint(url: &str, others: &[RemoteWrite]) -> String {
    let ordinal = others.iter().filter(|other| other.url == url).count();
    let identity = Labels::from_pairs([("url", url), ("ordinal", &ordinal.to_string())]);
    format!("{:06x}", identity.stable_hash() & 0x00ff_ffff)
}

#[cfg(test)]
mod tests;

/// What tests of other parts need of this one.
#[cfg(test)]
pub(crate) mod tests_support {
    use super::{Config, Files, Texts};

    /// The configuration in `yaml`.
    pub(crate) fn config(yaml: &str) -> Config {
        let texts = Texts { prometheus: Some(yaml), retention: None };
        super::parse(Files::default(), texts, &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The one `*_sd_configs` entry in `keys` of a scrape job.
    pub(crate) fn sd_config(keys: &str) -> super::SdConfig {
        let keys = keys.replace('\n', "\n  ");
        let job = config(&format!("scrape_configs:\n- job_name: j\n  {keys}\n"));
        job.scrape_configs[0].sd_configs[0].clone()
    }

    /// What `toml` says of an endpoint that is not Grafana Cloud's.
    pub(crate) fn retention(toml: &str) -> super::RemoteWrite {
        let yaml = "remote_write: [{name: a, url: 'http://a/'}]";
        let texts = Texts { prometheus: Some(yaml), retention: Some(toml) };
        let config = super::parse(Files::default(), texts, &|_| None);
        config.unwrap_or_else(|errors| panic!("{errors} in {toml}")).remote_write.remove(0)
    }

    /// What `toml` says, in an environment with `variables`; else what is wrong with it.
    pub(crate) fn policy(toml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let texts = Texts { prometheus: None, retention: Some(toml) };
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        super::parse(Files::default(), texts, &variable).map_err(|errors| errors.to_string())
    }

    /// What is wrong with `yaml`, without the file's name.
    pub(crate) fn mistakes(yaml: &str) -> String {
        let texts = Texts { prometheus: Some(yaml), retention: None };
        let errors = super::parse(Files::default(), texts, &|_| None).unwrap_err();
        errors.to_string().replace("prometheus.yml:", "")
    }

    /// The webhooks in `toml`.
    pub(crate) fn webhooks(toml: &str) -> Vec<super::Webhook> {
        let texts = Texts { prometheus: None, retention: Some(toml) };
        let read = super::parse(Files::default(), texts, &|_| None);
        read.unwrap_or_else(|errors| panic!("{errors}")).webhooks
    }

    /// The scrape job named `j` with these further keys, one per line.
    pub(crate) fn job(keys: &str) -> super::ScrapeConfig {
        let keys = keys.trim().replace('\n', "\n  ");
        let yaml = format!("scrape_configs:\n- job_name: j\n  {keys}\n");
        config(&yaml).scrape_configs.remove(0)
    }
}
