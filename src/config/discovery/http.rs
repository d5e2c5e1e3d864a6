//! `http_sd_configs`.

use reqwest::Url;
use stint_model::Span;

use super::refresh_interval;
use crate::config::decode::Section;
use crate::config::http::HttpConfig;

/// Targets that a server lists.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpDiscovery {
    /// Where the list is.
    pub url: String,
    /// How often it is asked for; also when a request is given up.
    pub refresh_interval: Span,
    /// How to reach the server.
    pub http: HttpConfig,
}

pub(super) fn read(section: &mut Section<'_>) -> Vec<HttpDiscovery> {
    let mut found = Vec::new();
    for mut http in section.sections("http_sd_configs") {
        if http.text("url").unwrap_or_default().is_empty() {
            http.error("url", "URL is missing");
        }
        found.push(HttpDiscovery {
            url: http.parsed("url", read_url).unwrap_or_default(),
            refresh_interval: refresh_interval(&mut http, 60),
            http: HttpConfig::read(&mut http, true),
        });
        http.finish();
    }
    found
}

/// Checks that `text` is an `http` or `https` URL with a host.
pub(super) fn read_url(text: &str) -> Result<String, String> {
    if text.is_empty() {
        // Told elsewhere.
        return Ok(String::new());
    }
    let url = Url::parse(text).map_err(|error| format!("{text} is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("URL scheme must be 'http' or 'https'".to_owned());
    }
    // A parser for browsers makes a host of the path.
    let after = text.split_once("://").map_or("", |(_, rest)| rest);
    if url.host_str().is_none_or(str::is_empty) || after.starts_with(['/', '?', '#']) {
        return Err("host is missing in URL".to_owned());
    }
    Ok(text.to_owned())
}
