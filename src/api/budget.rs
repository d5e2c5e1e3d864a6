//! `/api/v1/status/budget`: what is forwarded where, within which budget.

use std::sync::Arc;

use axum::extract::State;

use super::extract::Ready;
use super::json::Reply;
use super::{Api, Parts};
use crate::budget::report::Report;
use crate::forward::report::report;

/// The report over all endpoints; see `docs/budget.md`.
pub(super) async fn budget(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Reply {
    match made(&api, &parts).await {
        Some(report) => Reply::json(&report),
        None => Reply::empty().warn("the report could not be made"),
    }
}

/// The report, made where it keeps nobody waiting; nothing when that broke down.
pub(super) async fn made(api: &Api, parts: &Arc<Parts>) -> Option<Report> {
    let parts = Arc::clone(parts);
    let (now, wall) = (api.clock.monotonic(), api.clock.now());
    let made = tokio::task::spawn_blocking(move || {
        let handles = parts.forwarding.handles();
        let usage = parts.config.read().usage.clone();
        report(&handles, &parts.usage.overview(&usage), now, wall)
    });
    made.await.ok()
}
