//! Endpoints outside `/api/v1`: health, lifecycle, version, the server's own metrics.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::oneshot;

use super::extract::Gate;
use super::{Api, Reload};
use crate::metrics::PROMETHEUS_VERSION;

/// Content type of the text exposition format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

pub(super) async fn healthy() -> &'static str {
    "Prometheus Server is Healthy.\n"
}

pub(super) async fn ready(_gate: Gate) -> &'static str {
    "Prometheus Server is Ready.\n"
}

/// Reloads the configuration and answers once that is done.
pub(super) async fn reload(State(api): State<Arc<Api>>, request: Request) -> Response {
    if let Some(refusal) = refuse_order(&api, &request) {
        return refusal;
    }
    let (done, outcome) = oneshot::channel();
    let failed = |cause: &str| {
        let message = format!("failed to reload config: {cause}");
        (StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
    };
    if api.reload.send(Reload(done)).await.is_err() {
        return failed("the server is stopping");
    }
    match outcome.await {
        Ok(Ok(())) => StatusCode::OK.into_response(),
        Ok(Err(cause)) => failed(&cause),
        Err(_) => failed("the server is stopping"),
    }
}

/// Asks the server to stop and does not wait for it.
pub(super) async fn quit(State(api): State<Arc<Api>>, request: Request) -> Response {
    if let Some(refusal) = refuse_order(&api, &request) {
        return refusal;
    }
    if api.quit.send_replace(true) {
        "Termination already in progress.".into_response()
    } else {
        "Requesting termination... Goodbye!".into_response()
    }
}

/// The answer to a lifecycle request that must not be obeyed.
fn refuse_order(api: &Api, request: &Request) -> Option<Response> {
    if !matches!(*request.method(), Method::POST | Method::PUT) {
        let text = "Only POST or PUT requests allowed";
        let allow = [(header::ALLOW, "POST, PUT")];
        return Some((StatusCode::METHOD_NOT_ALLOWED, allow, text).into_response());
    }
    if !api.options.lifecycle {
        return Some((StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response());
    }
    None
}

/// Brings figures that are kept elsewhere into the metrics. Takes its time.
pub(super) fn refresh(api: &Api) {
    if let Some(parts) = api.parts() {
        parts.store_metrics.refresh(&parts.db);
        parts.scrape.refresh_metrics();
        parts.notifier.refresh_metrics();
    }
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    // Walking over the store's series and formatting the text take their time.
    let expositions = api.metrics.expositions.clone();
    let rendered = tokio::task::spawn_blocking(move || {
        refresh(&api);
        api.metrics.render()
    });
    let answer = match rendered.await {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    expositions.with_label_values(&[answer.status().as_str()]).inc();
    answer
}

/// What the server says it is. `version` is the Prometheus version whose API is spoken: clients
/// choose features by it. There must be no key `features`, by which Mimir is recognised.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildInfo {
    version: &'static str,
    revision: &'static str,
    branch: &'static str,
    build_user: &'static str,
    build_date: &'static str,
    go_version: &'static str,
    application: &'static str,
    application_version: &'static str,
}

impl BuildInfo {
    pub(super) const CURRENT: Self = Self {
        version: PROMETHEUS_VERSION,
        revision: "",
        branch: "",
        build_user: "",
        build_date: "",
        go_version: "",
        application: "Stint",
        application_version: env!("CARGO_PKG_VERSION"),
    };
}

pub(super) async fn version() -> axum::Json<BuildInfo> {
    axum::Json(BuildInfo::CURRENT)
}

/// The text matters: Grafana looks for it to tell a missing endpoint from a broken one.
pub(super) async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}
