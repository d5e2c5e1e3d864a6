//! `http_sd_configs`: a server lists targets as discovery files do.

use std::time::Duration;

use prometheus::IntCounter;
use reqwest::header::ACCEPT;
use reqwest::{Method, Url};

use super::metrics::DiscoveryMetrics;
use super::refresh::{Discoverer, Found};
use super::{DiscoveryError, TargetGroup, answer};
use crate::config::{HttpDiscovery, read_target_answer};
use crate::http::{Client, ClientError};
use crate::metrics::PROMETHEUS_VERSION;

/// The label that names the list a target came from.
const URL: &str = "__meta_url";

/// A list of targets on a server.
pub(super) struct HttpList {
    client: Client,
    url: String,
    /// The URL without its password, for messages.
    place: String,
    interval: Duration,
    failures: IntCounter,
}

impl HttpList {
    pub(super) fn new(
        config: &HttpDiscovery,
        metrics: &DiscoveryMetrics,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            client: Client::new(&config.http, &format!("Prometheus/{PROMETHEUS_VERSION}"))?,
            url: config.url.clone(),
            place: without_password(&config.url),
            interval: config.refresh_interval.to_std(),
            failures: metrics.http_failures.clone(),
        })
    }

    async fn ask(&self) -> Result<Found, DiscoveryError> {
        let request = self.client.request(Method::GET, &self.url).await;
        let request = request
            .map_err(|error| DiscoveryError(error.to_string()))?
            .header(ACCEPT, "application/json")
            .header(
                "X-Prometheus-Refresh-Interval-Seconds",
                self.interval.as_secs_f64().to_string(),
            );
        let answer = answer::get(request, &self.place, self.interval).await?;
        if answer.status != reqwest::StatusCode::OK {
            return Err(DiscoveryError(format!("server returned HTTP status {}", answer.status)));
        }
        let content_type = answer.content_type();
        if !is_json(content_type) {
            return Err(DiscoveryError(format!("unsupported content type {content_type:?}")));
        }
        let groups = read_target_answer(&self.place, answer.text()?)
            .map_err(|error| DiscoveryError(error.to_string()))?;
        let groups = groups.iter().enumerate().map(|(at, group)| {
            TargetGroup::fixed(format!("{}:{at}", self.place), group).with_label(URL, &self.url)
        });
        Ok(groups.collect::<Vec<_>>().into())
    }
}

impl Discoverer for HttpList {
    async fn refresh(&mut self) -> Result<Found, DiscoveryError> {
        self.ask().await.inspect_err(|_| self.failures.inc())
    }
}

fn without_password(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return String::new() };
    // A URL that cannot have a password has none.
    let _ = url.set_password(None);
    url.into()
}

/// Whether it is JSON in UTF-8; no other parameter is allowed.
fn is_json(content_type: &str) -> bool {
    let (kind, parameter) = content_type.trim().split_once(';').unwrap_or((content_type, ""));
    let parameter = parameter.trim().to_ascii_lowercase();
    let utf8 = ["", "charset=utf-8", "charset=\"utf-8\""].contains(&parameter.as_str());
    kind.trim().eq_ignore_ascii_case("application/json") && utf8
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Reply, Server, metrics, shown_found};
    use super::*;
    use crate::config::SdConfig;
    use crate::config::tests_support::sd_config;

    fn list(url: &str, keys: &str) -> (HttpList, crate::metrics::Metrics) {
        let keys = format!("http_sd_configs: [{{url: '{url}', refresh_interval: 90s{keys}}}]");
        let SdConfig::Http(config) = sd_config(&keys) else { panic!("http is expected") };
        let (registry, metrics) = metrics();
        (HttpList::new(&config, &metrics).unwrap(), registry)
    }

    async fn answered(reply: Reply) -> Result<Found, DiscoveryError> {
        let server = Server::of(&[("/list", reply)]).await;
        list(&format!("{}/list", server.url()), "").0.refresh().await
    }

    #[tokio::test]
    async fn a_list_is_asked_for_as_configured_and_becomes_groups() {
        let body = r#"[{"targets": ["a:1", "b:2"], "labels": {"zone": "x", "__meta_k": "v"}},
                       {"targets": ["c:3"]}, {"labels": {"empty": "1"}}]"#;
        let reply = Reply::typed("application/json; charset=utf-8", body);
        let server = Server::of(&[("/list?a=b", reply)]).await;
        let url = format!("{}/list?a=b", server.url());
        let keys = ", authorization: {credentials: tok}, http_headers: {X-Team: {values: [t]}}";
        let (mut list, registry) = list(&url, keys);
        let found = list.refresh().await.unwrap();
        let expected = format!(
            "__address__=\"a:1\"\n  __meta_k=\"v\"\n  __meta_url=\"{url}\"\n  zone=\"x\"\n\
             __address__=\"b:2\"\n  __meta_k=\"v\"\n  __meta_url=\"{url}\"\n  zone=\"x\"\n\
             __address__=\"c:3\"\n  __meta_url=\"{url}\""
        );
        assert_eq!(shown_found(&found), expected);
        let sources: Vec<_> = found.groups.iter().map(|group| group.source.clone()).collect();
        assert_eq!(sources, [0, 1, 2].map(|at| format!("{url}:{at}")));
        let asked = server.requests.lock()[0].clone();
        assert_eq!((&*asked.method, &*asked.body), ("GET", ""));
        let header = |name: &str| asked.headers.get(name).cloned().unwrap_or_default();
        assert_eq!(header("accept"), "application/json");
        assert_eq!(header("x-prometheus-refresh-interval-seconds"), "90");
        assert_eq!((&*header("authorization"), &*header("x-team")), ("Bearer tok", "t"));
        assert!(header("user-agent").starts_with("Prometheus/"));
        assert!(registry.render().contains("prometheus_sd_http_failures_total 0\n"));
    }

    #[tokio::test]
    async fn what_is_no_list_is_refused_and_counted() {
        let good = r#"[{"targets": ["a:1"]}]"#;
        for (reply, text) in [
            (Reply::status(503), "server returned HTTP status 503"),
            (Reply::typed("text/plain", good), "unsupported content type \"text/plain\""),
            (Reply::typed("application/json; charset=latin1", good), "unsupported content type"),
            (Reply::json("[{"), "not valid JSON"),
            (Reply::json(r#"[{"target": ["a:1"]}]"#), "unknown key `target`"),
            (Reply::json(r#"{"targets": ["a:1"]}"#), "a list of target groups is expected"),
            (Reply::json("[null]"), "nil target group"),
            (Reply::Half(good.to_owned()), "error decoding response body"),
            (Reply::json(" ".repeat(answer::BODY_MAX + 1)), "is longer than 64 MiB"),
        ] {
            let error = answered(reply).await.unwrap_err().to_string();
            assert!(error.contains(text), "{text} in {error}");
        }
        assert_eq!(answered(Reply::json("[]")).await, Ok(Found::default()));
        let (mut list, registry) = list("http://me:hunter2@127.0.0.1:1/", "");
        let error = list.refresh().await.unwrap_err().to_string();
        assert!(error.contains("http://me@127.0.0.1:1/") && !error.contains("hunter2"), "{error}");
        assert!(registry.render().contains("prometheus_sd_http_failures_total 1\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up_after_the_interval() {
        let server = Server::of(&[("/", Reply::Silence)]).await;
        let error = list(&server.url(), "").0.refresh().await.unwrap_err().to_string();
        assert!(error.ends_with("did not answer within 90 s"), "{error}");
    }
}
