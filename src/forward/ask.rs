//! Asking an account for its limits and its use.

use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::Value as Json;

use super::handle::Handle;
use crate::budget::feedback::Said;
use crate::config::{AccountApi, AccountKind};
use crate::http::{Client, explain};

/// How often it is asked.
pub(super) const ASK_EVERY: Duration = Duration::from_mins(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any answer to these questions has.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks one account.
pub(super) struct Asker {
    api: AccountApi,
    client: Client,
}

impl Asker {
    /// Somebody to ask where `api` says.
    ///
    /// # Errors
    /// The client cannot be made.
    pub(super) fn new(api: &AccountApi) -> Result<Self, String> {
        let client = Client::new(&api.http, super::manager::USER_AGENT);
        Ok(Self { api: api.clone(), client: client.map_err(|error| error.to_string())? })
    }

    /// Asks for ever, and tells the budget that `handle` gives.
    pub(super) async fn run(self, handle: impl Fn() -> Option<Handle>) {
        let mut failures = 0u32;
        loop {
            let outcome = self.ask().await;
            if let Some(handle) = handle() {
                match &outcome {
                    Ok(said) => {
                        failures = 0;
                        handle.hear(*said);
                    }
                    Err(problem) => {
                        failures = failures.saturating_add(1);
                        if failures.is_power_of_two() {
                            tracing::warn!(endpoint = %handle.name, failures, "the account does not tell its use: {problem}");
                        }
                        handle.admission.lock().unheard(problem.clone());
                    }
                }
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
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
            if body.len() > ANSWER_BYTES_MAX {
                return Err("the answer is too long".into());
            }
        }
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("http {}: {}", status.as_u16(), super::send::first_line(&text)));
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }
}

/// Asks for an endpoint, whichever forwarder runs for it.
pub(super) fn spawn(
    api: Option<&AccountApi>,
    name: &str,
    handle: impl Fn() -> Option<Handle> + Send + Sync + 'static,
) -> Option<tokio::task::JoinHandle<()>> {
    match Asker::new(api?) {
        Ok(asker) => Some(tokio::spawn(asker.run(handle))),
        Err(error) => {
            tracing::error!(endpoint = name, "the account cannot be asked for its use: {error}");
            None
        }
    }
}
