//! Asking an account for its limits and its use.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::Value as Json;
use stint_model::Labels;

use super::handle::Handle;
use super::round::REPLICA;
use super::setup::{LINGER, own_labels};
use crate::budget::feedback::Said;
use crate::budget::group::Key;
use crate::config::{AccountApi, AccountKind, RemoteWrite};
use crate::http::{Client, explain};

/// How often it is asked.
pub(super) const ASK_EVERY: Duration = Duration::from_mins(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any answer to these questions has.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// More than the names of the series of an account have.
const SERIES_BYTES_MAX: usize = 256 << 20;

/// Asks one account.
pub(super) struct Asker {
    api: AccountApi,
    client: Client,
    /// Of all series that are sent from here, as the server has them; `None` where it may have others.
    labels: Option<Labels>,
    in_flight_max: Duration,
}

impl Asker {
    /// Somebody to ask where `api` says.
    ///
    /// # Errors
    /// The client cannot be made.
    pub(super) fn new(
        api: &AccountApi,
        labels: Option<Labels>,
        in_flight_max: Duration,
    ) -> Result<Self, String> {
        let client = Client::new(&api.http, super::manager::USER_AGENT);
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { api: api.clone(), client, labels, in_flight_max })
    }

    /// Asks for ever, and tells the budget that `handle` gives.
    pub(super) async fn run(self, handle: impl Fn() -> Option<Handle>) {
        let mut failures = 0u32;
        loop {
            let outcome = self.ask().await;
            if let Some(handle) = handle() {
                match &outcome {
                    Ok(_) => failures = 0,
                    Err(problem) => {
                        failures = failures.saturating_add(1);
                        if failures.is_power_of_two() {
                            tracing::warn!(endpoint = %handle.name, failures, "the account does not tell its use: {problem}");
                        }
                    }
                }
                // What was sent from here is not taken for others'.
                if self.api.kind == AccountKind::Cardinality
                    && let Some(labels) = &self.labels
                    && handle.is_in_doubt()
                {
                    self.find(labels, &handle).await;
                }
                tell(handle, outcome).await;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Finds out which series the server counts, where the ledger was lost.
    async fn find(&self, labels: &Labels, handle: &Handle) {
        match self.active(labels).await {
            // Likely nobody has these labels; what an earlier run sent may have had others.
            Ok(keys) if keys.is_empty() => {}
            Ok(keys) => {
                tracing::info!(endpoint = %handle.name, series = keys.len(), "the server has told which series it counts; they hold their slots");
                let (handle, in_flight_max) = (handle.clone(), self.in_flight_max);
                let told = move || handle.recover(&keys, in_flight_max);
                if let Err(error) = tokio::task::spawn_blocking(told).await {
                    tracing::error!(%error, "the budget could not be told what the server counts");
                }
            }
            Err(problem) => {
                tracing::warn!(endpoint = %handle.name, "the server does not tell which series it counts: {problem}");
            }
        }
    }

    /// The active series that may have been sent from here: those with the labels that all have, or
    /// all where there are none.
    async fn active(&self, labels: &Labels) -> Result<Vec<Key>, String> {
        let selector =
            if labels.is_empty() { "{__name__!=\"\"}".to_owned() } else { labels.to_string() };
        let pairs = [("selector", selector.as_str())];
        let body = self.body("cardinality/active_series", &pairs, SERIES_BYTES_MAX).await?;
        // A large account's answer takes its time.
        let read = tokio::task::spawn_blocking(move || {
            let answer: Result<ActiveSeries, _> = serde_json::from_slice(&body);
            answer.map(|answer| answer.data.into_iter().map(|series| series.0).collect())
        });
        let read = read.await.map_err(|error| error.to_string())?;
        read.map_err(|error| error.to_string())
    }

    /// What the account says.
    pub(super) async fn ask(&self) -> Result<Said, String> {
        match self.api.kind {
            AccountKind::Usage => self.usage().await,
            AccountKind::Cardinality => {
                let pairs =
                    [("label_names[]", "__name__"), ("count_method", "active"), ("limit", "1")];
                let answer = self.get("cardinality/label_values", &pairs).await?;
                let active = answer["series_count_total"].as_u64();
                let active = active.ok_or("the answer has no series_count_total")?;
                Ok(Said { active: Some(active), ..Said::default() })
            }
        }
    }

    async fn usage(&self) -> Result<Said, String> {
        let id = self.api.stack.as_ref().map(|id| format!("id=\"{id}\"")).unwrap_or_default();
        let limit = ["limit_name=\"max_global_series_per_user\"", &id].join(",");
        let count = |value: Option<f64>| {
            value.filter(|value| (0.0..1e15).contains(value)).map(|value| value as u64)
        };
        let active = format!("sum(grafanacloud_instance_active_series{{{id}}})");
        let enforced = format!("max(grafanacloud_instance_metrics_limits{{{limit}}})");
        let said = Said {
            active: count(self.number(&active).await?),
            enforced: count(self.number(&enforced).await?).filter(|limit| *limit > 0),
            contract: count(self.number("max(grafanacloud_org_metrics_included_series)").await?)
                .filter(|contract| *contract > 0),
            points_per_series: self
                .number("max(grafanacloud_org_metrics_included_dpm_per_series)")
                .await?
                .filter(|points| *points > 0.0 && points.is_finite()),
        };
        if said == Said::default() {
            return Err("it answers, but has none of the usage metrics; is `stack` right?".into());
        }
        Ok(said)
    }

    /// The value of an expression that has one; nothing where it has none.
    async fn number(&self, expr: &str) -> Result<Option<f64>, String> {
        let answer = self.get("query", &[("query", expr)]).await?;
        if answer["status"] != "success" {
            return Err(format!("{expr}: {}", answer["error"]));
        }
        let text = answer.pointer("/data/result/0/value/1").and_then(Json::as_str);
        Ok(text.and_then(|text| text.parse().ok()))
    }

    async fn get(&self, path: &str, pairs: &[(&str, &str)]) -> Result<Json, String> {
        let body = self.body(path, pairs, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    async fn body(
        &self,
        path: &str,
        pairs: &[(&str, &str)],
        bytes_max: usize,
    ) -> Result<Vec<u8>, String> {
        let url = format!("{}/api/v1/{path}", self.api.url);
        let url = Url::parse_with_params(&url, pairs).map_err(|error| error.to_string())?;
        let request = self.client.request(Method::GET, url.as_str()).await;
        let request = request.map_err(|error| error.to_string())?.timeout(PATIENCE);
        let failed = |error: reqwest::Error| explain(&error.without_url());
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > bytes_max {
                return Err("the answer is too long".into());
            }
        }
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("http {}: {}", status.as_u16(), super::send::first_line(&text)));
        }
        Ok(body)
    }
}

/// An answer to which series are active.
#[derive(serde::Deserialize)]
struct ActiveSeries {
    data: Vec<ActiveKey>,
}

/// The key of a series, made as soon as its labels are read: they are many.
#[derive(serde::Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
struct ActiveKey(Key);

impl From<BTreeMap<String, String>> for ActiveKey {
    fn from(series: BTreeMap<String, String>) -> Self {
        Self(Key::of(&Labels::from_pairs(series.iter().map(|(n, v)| (n.as_str(), v.as_str())))))
    }
}

/// The labels that all series that are sent have on the server too, where that is certain: no rule takes
/// them away, and neither does the server, which drops the name of a replica.
fn certain_labels(config: &RemoteWrite, external_labels: &Labels) -> Option<Labels> {
    let labels = own_labels(config, external_labels);
    let is_certain = config.write_relabel_configs.is_empty()
        && config.budget.aggregates.is_empty()
        && labels.get(REPLICA).is_none();
    is_certain.then_some(labels)
}

/// Tells the budget what was said, where it may wait: forwarding holds the budget while it decides over
/// many series.
async fn tell(handle: Handle, outcome: Result<Said, String>) {
    let told = tokio::task::spawn_blocking(move || match outcome {
        Ok(said) => handle.hear(said),
        Err(problem) => handle.admission.lock().unheard(problem),
    });
    if let Err(error) = told.await {
        tracing::error!(%error, "the budget could not be told what the account says");
    }
}

/// Asks for an endpoint, whichever forwarder runs for it.
pub(super) fn spawn(
    config: &RemoteWrite,
    external_labels: &Labels,
    handle: impl Fn() -> Option<Handle> + Send + Sync + 'static,
) -> Option<tokio::task::JoinHandle<()>> {
    let api = config.budget.account.as_ref()?;
    let labels = certain_labels(config, external_labels);
    let in_flight_max = config.remote_timeout.to_std() + LINGER;
    match Asker::new(api, labels, in_flight_max) {
        Ok(asker) => Some(tokio::spawn(asker.run(handle))),
        Err(error) => {
            tracing::error!(
                endpoint = config.name,
                "the account cannot be asked for its use: {error}"
            );
            None
        }
    }
}
