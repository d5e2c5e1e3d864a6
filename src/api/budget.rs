//! `/api/v1/status/budget`: what is forwarded where, within which budget; and what was asked here,
//! which tells what of it is used.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use stint_model::Timestamp;

use super::extract::Ready;
use super::json::Reply;
use super::{Api, Parts};
use crate::budget::report::Report;
use crate::forward::report::report;
use crate::usage::Known;

/// The report over all endpoints; see `docs/budget.md`.
pub(super) async fn budget(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Reply {
    match made(&api, &parts).await {
        Some(report) => Reply::json(&report),
        None => Reply::empty().warn("the report could not be made"),
    }
}

/// What was asked here and is remembered.
#[derive(Serialize)]
struct Asked {
    now: f64,
    /// Since when queries are remembered; nothing where they are not.
    queries_since: Option<f64>,
    /// Latest first.
    queries: Vec<AskedQuery>,
}

/// Queries that touch the same labels of the same metrics.
#[derive(Serialize)]
struct AskedQuery {
    /// The latest of them.
    query: String,
    last: f64,
    count: u64,
}

/// The queries that tell what is used; see `docs/budget.md`.
pub(super) async fn usage(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Reply {
    let now = api.clock.now().as_secs_f64();
    if !parts.config.read().usage.queries {
        return Reply::json(&Asked { now, queries_since: None, queries: Vec::new() });
    }
    let (since, known) = parts.usage.queries.known();
    let query = |known: Known| AskedQuery {
        query: known.expr,
        last: known.last.map_or(0.0, Timestamp::as_secs_f64),
        count: known.count,
    };
    let queries = known.into_iter().map(query).collect();
    Reply::json(&Asked { now, queries_since: Some(since.as_secs_f64()), queries })
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
