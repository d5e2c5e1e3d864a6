//! `/api/v1/targets`, `/api/v1/scrape_pools` and what targets say about their metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use serde::{Serialize, Serializer};
use stint_model::{Labels, Metadata, Selector};
use stint_promql::parse::parse_selector;

use super::Api;
use super::error::ApiError;
use super::extract::Ready;
use super::json::Reply;
use super::params::Params;
use super::status::rfc_3339;
use crate::scrape::{ActiveTarget, TargetMetadata};

mod relabel;

pub(super) use relabel::relabel_steps;

/// A label set as an object.
struct LabelsJson<'a>(&'a Labels);

impl Serialize for LabelsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolsJson {
    scrape_pools: Vec<String>,
}

pub(super) async fn scrape_pools(Ready(parts): Ready) -> Reply {
    Reply::json(&PoolsJson { scrape_pools: parts.scrape.status().pools })
}

#[derive(Serialize)]
struct PoolConfigJson {
    yaml: String,
}

/// The part of the configuration in force that makes a pool, without its secrets.
pub(super) async fn scrape_pool_config(
    Ready(parts): Ready,
    params: Params,
) -> Result<Reply, ApiError> {
    let Some(pool) = params.get("scrapePool") else {
        return Err(ApiError::bad_data("no scrapePool parameter provided"));
    };
    let config = Arc::clone(&parts.config.read());
    let yaml = config.shown_job(pool).ok_or_else(|| {
        ApiError::invalid_parameter("scrapePool", format!("unknown scrape pool {pool:?}"))
    })?;
    Ok(Reply::json(&PoolConfigJson { yaml }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetsJson<'a> {
    active_targets: Vec<ActiveJson<'a>>,
    dropped_targets: Vec<DroppedJson<'a>>,
    dropped_target_counts: Option<&'a BTreeMap<String, u64>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActiveJson<'a> {
    discovered_labels: LabelsJson<'a>,
    labels: LabelsJson<'a>,
    scrape_pool: &'a str,
    scrape_url: &'a str,
    global_url: String,
    last_error: &'a str,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DroppedJson<'a> {
    discovered_labels: LabelsJson<'a>,
    scrape_pool: &'a str,
}

/// What is scraped, how it went, and what relabelling dropped.
pub(super) async fn targets(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    params: Params,
) -> Reply {
    let state = params.get("state").unwrap_or("any").to_ascii_lowercase();
    let shows = |kind: &str| state == kind || state == "any";
    let pool = params.get("scrapePool");
    let in_pool = |name: &str| pool.is_none_or(|pool| pool == name);
    let status = parts.scrape.status();
    let active = status.active.iter().filter(|target| shows("active") && in_pool(&target.pool));
    let dropped = status.dropped.iter().filter(|target| shows("dropped") && in_pool(&target.pool));
    Reply::json(&TargetsJson {
        active_targets: active.map(|target| active_json(target, &api)).collect(),
        dropped_targets: dropped
            .map(|target| DroppedJson {
                discovered_labels: LabelsJson(&target.discovered),
                scrape_pool: &target.pool,
            })
            .collect(),
        dropped_target_counts: shows("dropped").then_some(&status.dropped_counts),
    })
}

fn active_json<'a>(target: &'a ActiveTarget, api: &Api) -> ActiveJson<'a> {
    ActiveJson {
        discovered_labels: LabelsJson(&target.discovered),
        labels: LabelsJson(&target.labels),
        scrape_pool: &target.pool,
        scrape_url: &target.url,
        global_url: global_url(&target.url, &api.options.external_url, api.options.listen_port),
        last_error: &target.last_error,
        last_scrape: target.last_scrape.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc_3339),
        last_scrape_duration: target.last_duration.as_secs_f64(),
        health: target.health.as_str(),
        scrape_interval: target.interval.clone(),
        scrape_timeout: target.timeout.clone(),
    }
}

/// The target's URL as others can follow it: a host that means "this machine" becomes the host of
/// the external URL, whose scheme and port are taken too where the target is this server.
fn global_url(url: &str, external_url: &str, listen_port: u16) -> String {
    let parts = |url: &str| {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let own = str::to_owned;
        Some((own(scheme), own(host), port.map(own), own(path)))
    };
    let (Some((scheme, host, port, path)), Some((outer_scheme, outer_host, outer_port, _))) =
        (parts(url), parts(external_url))
    else {
        return url.to_owned();
    };
    if !matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]") {
        return url.to_owned();
    }
    let own_port = port.as_deref().and_then(|port| port.parse().ok()) == Some(listen_port);
    let (scheme, port) = if own_port { (outer_scheme, outer_port) } else { (scheme, port) };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{outer_host}{port}{path}")
}

#[derive(Serialize)]
struct MetadataJson<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    help: &'a str,
    unit: &'a str,
}

impl<'a> MetadataJson<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        Self { kind: metadata.kind.as_str(), help: &metadata.help, unit: &metadata.unit }
    }
}

/// Types and help texts by metric family, each once.
pub(super) async fn metadata(Ready(parts): Ready, params: Params) -> Result<Reply, ApiError> {
    let limit = params.lenient_limit("limit")?;
    let per_metric = params.lenient_limit("limit_per_metric")?;
    let wanted = params.get("metric");
    let all = parts.scrape.target_metadata();
    let mut families: BTreeMap<&str, Vec<&Metadata>> = BTreeMap::new();
    for one in &all {
        if wanted.is_some_and(|wanted| wanted != one.family) {
            continue;
        }
        let known = families.entry(&one.family).or_default();
        let is_room = per_metric == 0 || known.len() < per_metric;
        if is_room && !known.contains(&&one.metadata) {
            known.push(&one.metadata);
        }
    }
    let shown: BTreeMap<&str, Vec<MetadataJson<'_>>> = families
        .into_iter()
        .take(if limit == 0 { usize::MAX } else { limit })
        .map(|(family, known)| (family, known.into_iter().map(MetadataJson::new).collect()))
        .collect();
    Ok(Reply::json(&shown))
}

#[derive(Serialize)]
struct TargetMetadataJson<'a> {
    target: LabelsJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'a str>,
    #[serde(flatten)]
    metadata: MetadataJson<'a>,
}

/// Types and help texts by target.
pub(super) async fn target_metadata(
    Ready(parts): Ready,
    params: Params,
) -> Result<Reply, ApiError> {
    let limit = params.lenient_limit("limit")?;
    let wanted = params.get("metric");
    let selector = match params.get("match_target") {
        None => None,
        Some(text) => Some(Selector::new(
            parse_selector(text)
                .map_err(|error| ApiError::invalid_parameter("match_target", error))?,
        )),
    };
    let is_wanted = |one: &&TargetMetadata| {
        wanted.is_none_or(|wanted| wanted == one.family)
            && selector.as_ref().is_none_or(|selector| selector.matches(&one.target))
    };
    let all = parts.scrape.target_metadata();
    let shown: Vec<TargetMetadataJson<'_>> = all
        .iter()
        .filter(is_wanted)
        .take(if limit == 0 { usize::MAX } else { limit })
        .map(|one| TargetMetadataJson {
            target: LabelsJson(&one.target),
            metric: wanted.is_none().then_some(one.family.as_str()),
            metadata: MetadataJson::new(&one.metadata),
        })
        .collect();
    Ok(Reply::json(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: &str) {
        assert_eq!(global_url(url, "https://prom.example/x", 9090), expected);
    }

    #[test]
    fn urls_of_this_machine_are_told_as_others_reach_it() {
        check("http://localhost:9100/metrics", "http://prom.example:9100/metrics");
        check("http://[::1]:9100/metrics", "http://prom.example:9100/metrics");
        check("http://127.0.0.1:9090/metrics", "https://prom.example/metrics");
        check("http://host:9090/metrics", "http://host:9090/metrics");
    }
}
