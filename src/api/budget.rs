//! `/api/v1/status/budget`: what is forwarded where, within which budget.

use std::sync::Arc;

use axum::extract::State;

use super::Api;
use super::extract::Ready;
use super::json::Reply;
use crate::forward::report::report;

/// The report over all endpoints; see `docs/budget.md`.
pub(super) async fn budget(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Reply {
    let handles = parts.forwarding.handles();
    let (now, wall) = (api.clock.monotonic(), api.clock.now());
    let made = tokio::task::spawn_blocking(move || {
        let usage = parts.config.read().usage.clone();
        report(&handles, &parts.usage.overview(&usage), now, wall)
    });
    match made.await {
        Ok(report) => Reply::json(&report),
        Err(_) => Reply::empty().warn("the report could not be made"),
    }
}
