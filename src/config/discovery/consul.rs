//! `consul_sd_configs`.

use std::path::PathBuf;

use reqwest::Url;
use stint_model::Span;

use super::refresh_interval;
use crate::config::decode::Section;
use crate::config::http::{Auth, Credential, HttpConfig, HttpHeader};
use crate::config::secret::Secret;

/// Services that Consul knows.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsulDiscovery {
    /// Scheme, host and port, and below it the prefix of paths; no final slash.
    pub url: String,
    /// The socket file that everything goes through, instead of the host of `url`.
    pub socket: Option<PathBuf>,
    /// The datacenter asked about; empty = the agent's own.
    pub datacenter: String,
    /// Enterprise namespace; may be empty.
    pub namespace: String,
    /// Enterprise partition; may be empty.
    pub partition: String,
    /// What stands between and around tags in the label of tags.
    pub tag_separator: String,
    /// Whether answers may be old.
    pub allow_stale: bool,
    /// Services to follow; all when empty.
    pub services: Vec<String>,
    /// Tags that a service must have, all of them.
    pub tags: Vec<String>,
    /// Metadata that a node must have.
    pub node_meta: Vec<(String, String)>,
    /// Consul's own filter over services in the catalog; may be empty.
    pub filter: String,
    /// Consul's own filter over the instances of a service; may be empty.
    pub health_filter: String,
    /// The least time between two questions after one thing.
    pub refresh_interval: Span,
    /// How requests are made; the token is among its headers.
    pub http: HttpConfig,
}

pub(super) fn read(section: &mut Section<'_>) -> Vec<ConsulDiscovery> {
    let mut found = Vec::new();
    for mut consul in section.sections("consul_sd_configs") {
        let server = consul.string_or("server", "localhost:8500");
        if server.trim().is_empty() {
            consul.error("server", "consul SD configuration requires a server address");
        }
        let scheme = consul.string_or("scheme", "http");
        let prefix = consul.string_or("path_prefix", "");
        let Place { url, socket } = Place::read(&consul, &server, &scheme, &prefix);
        let username = consul.string_or("username", "");
        let password = consul.secret("password");
        let mut http = HttpConfig::read(&mut consul, true);
        let mut token = consul.secret("token").map(Credential::Inline);
        let has_user = !username.is_empty() || password.is_some();
        if has_user {
            if http.auth != Auth::None {
                let message = "at most one of consul SD configuration username and password, and \
                               basic_auth, authorization or oauth2 must be configured";
                consul.error("username", message);
            }
            let username = Credential::Inline(Secret::new(username));
            let password = Credential::Inline(password.unwrap_or_default());
            http.auth = Auth::Basic { username, password };
        }
        if token.as_ref().is_some_and(|token| *token == Credential::default()) {
            token = None;
        }
        if token.is_some() && http.auth != Auth::None && !has_user {
            let message = "at most one of consul SD token, basic_auth, authorization and oauth2 \
                           must be configured";
            consul.error("token", message);
        }
        if let Some(token) = token {
            http.headers
                .push(HttpHeader { name: "X-Consul-Token".to_owned(), values: vec![token] });
        }
        let node_meta = consul.pairs("node_meta");
        let mut node_meta: Vec<_> =
            node_meta.iter().map(|(key, value)| (key.text.clone(), (*value).to_owned())).collect();
        node_meta.sort();
        found.push(ConsulDiscovery {
            url,
            socket,
            datacenter: consul.string_or("datacenter", ""),
            namespace: consul.string_or("namespace", ""),
            partition: consul.string_or("partition", ""),
            tag_separator: consul.string_or("tag_separator", ","),
            allow_stale: consul.bool_or("allow_stale", true),
            services: consul.strings("services"),
            tags: consul.strings("tags"),
            node_meta,
            filter: consul.string_or("filter", ""),
            health_filter: consul.string_or("health_filter", ""),
            refresh_interval: refresh_interval(&mut consul, 30),
            http,
        });
        consul.finish();
    }
    found
}

/// Where an agent is.
#[derive(Default)]
struct Place {
    url: String,
    socket: Option<PathBuf>,
}

impl Place {
    /// `server` is `host:port`, or as Consul's own clients take it: a URL, whose path goes before
    /// `prefix`, or `unix://` and a socket file.
    fn read(section: &Section<'_>, server: &str, scheme: &str, prefix: &str) -> Self {
        if !matches!(scheme, "http" | "https") {
            section.error("scheme", format!("{scheme} is neither http nor https"));
            return Self::default();
        }
        let (scheme, host, socket) = match server.split_once("://") {
            None => (scheme, server, None),
            // What is encrypted by `scheme` stays so.
            Some(("http", rest)) => (scheme, rest, None),
            Some(("https", rest)) => ("https", rest, None),
            Some(("unix", path)) => (scheme, "consul", Some(PathBuf::from(path))),
            Some((other, _)) => {
                let message = format!("{other}:// is not supported; use http, https or unix");
                section.error("server", message);
                return Self::default();
            }
        };
        let (host, own_prefix) = host.split_once('/').unwrap_or((host, ""));
        let prefix = if own_prefix.is_empty() { prefix } else { own_prefix };
        let url = format!("{scheme}://{host}/{}", prefix.trim_matches('/'));
        let url = url.trim_end_matches('/').to_owned();
        let is_path = socket.as_ref().is_none_or(|path| path.is_absolute());
        if !server.trim().is_empty() && (Url::parse(&url).is_err() || !is_path) {
            section.error("server", format!("{server} is not host:port, a URL or unix:///PATH"));
        }
        Self { url, socket }
    }
}
