//! `docker_sd_configs` and `dockerswarm_sd_configs`.

use std::path::PathBuf;

use reqwest::Url;
use stint_model::Span;

use super::{Filter, filters, port, refresh_interval};
use crate::config::decode::Section;
use crate::config::http::HttpConfig;

/// Containers of a Docker daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct DockerDiscovery {
    /// How to reach the daemon.
    pub daemon: DockerDaemon,
    /// The port of containers that expose none.
    pub port: u16,
    /// The address of containers in the host's network.
    pub host_networking_host: String,
    /// Whether a container in several networks is a target in the first one only.
    pub match_first_network: bool,
}

/// Services, tasks or nodes of a swarm.
#[derive(Clone, Debug, PartialEq)]
pub struct SwarmDiscovery {
    /// How to reach a manager.
    pub daemon: DockerDaemon,
    /// What targets are.
    pub role: SwarmRole,
    /// The port of targets that publish none.
    pub port: u16,
}

/// What is listed of a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwarmRole {
    /// Virtual addresses and published ports.
    Services,
    /// Running containers.
    Tasks,
    /// Machines.
    Nodes,
}

/// How to reach a Docker daemon and what to ask it for.
#[derive(Clone, Debug, PartialEq)]
pub struct DockerDaemon {
    /// Where it listens.
    pub host: DockerHost,
    /// What the list is narrowed to.
    pub filters: Vec<Filter>,
    /// How often it is asked; also when a request is given up.
    pub refresh_interval: Span,
    /// How requests are made.
    pub http: HttpConfig,
}

/// Where a Docker daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerHost {
    /// A socket file.
    Unix(PathBuf),
    /// An URL without a final slash.
    Http(String),
}

pub(super) fn read(section: &mut Section<'_>) -> Vec<DockerDiscovery> {
    let mut found = Vec::new();
    for mut docker in section.sections("docker_sd_configs") {
        found.push(DockerDiscovery {
            daemon: DockerDaemon::read(&mut docker),
            port: port(&mut docker, 80),
            host_networking_host: docker.string_or("host_networking_host", "localhost"),
            match_first_network: docker.bool_or("match_first_network", true),
        });
        docker.finish();
    }
    found
}

pub(super) fn read_swarm(section: &mut Section<'_>) -> Vec<SwarmDiscovery> {
    let mut found = Vec::new();
    for mut swarm in section.sections("dockerswarm_sd_configs") {
        if swarm.text("role").unwrap_or_default().is_empty() {
            swarm.error("role", "role missing (one of: tasks, services, nodes)");
        }
        let role = swarm.parsed("role", |text| match text {
            "services" | "" => Ok(SwarmRole::Services),
            "tasks" => Ok(SwarmRole::Tasks),
            "nodes" => Ok(SwarmRole::Nodes),
            _ => Err(format!("invalid role {text}, expected tasks, services, or nodes")),
        });
        found.push(SwarmDiscovery {
            daemon: DockerDaemon::read(&mut swarm),
            role: role.unwrap_or(SwarmRole::Services),
            port: port(&mut swarm, 80),
        });
        swarm.finish();
    }
    found
}

impl DockerDaemon {
    fn read(section: &mut Section<'_>) -> Self {
        if section.text("host").unwrap_or_default().is_empty() {
            section.error("host", "host missing");
        }
        let host = section.parsed("host", read_host);
        let tls = section.has("tls_config");
        Self {
            host: match host {
                Some(DockerHost::Http(url)) if tls => {
                    DockerHost::Http(url.replacen("http://", "https://", 1))
                }
                Some(host) => host,
                None => DockerHost::Http(String::new()),
            },
            filters: filters(section),
            refresh_interval: refresh_interval(section, 60),
            http: HttpConfig::read(section, true),
        }
    }
}

fn read_host(text: &str) -> Result<DockerHost, String> {
    if text.is_empty() {
        // Told elsewhere.
        return Ok(DockerHost::Http(String::new()));
    }
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(DockerHost::Unix(path.into()));
    }
    let url = match text.strip_prefix("tcp://") {
        Some(rest) => format!("http://{rest}"),
        None => text.to_owned(),
    };
    match Url::parse(&url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => {
            Ok(DockerHost::Http(url.trim_end_matches('/').to_owned()))
        }
        _ => Err(format!(
            "unable to parse docker host {text}; write unix:///path, tcp://host:port or http(s)://host"
        )),
    }
}
