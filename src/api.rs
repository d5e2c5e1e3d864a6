//! The HTTP API: Prometheus' endpoints, parameters, answers and errors.
//!
//! Handlers take [`extract::Ready`] for what exists only once the store is open; until then, and
//! again while the server stops, they answer 503 as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::routing::{any, get};
use regex::Regex;
use stint_model::{Clock, Span, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tower_http::compression::CompressionLayer;

use crate::metrics::Metrics;

pub mod error;
pub mod extract;
pub mod json;
pub mod layers;
pub mod number;
pub mod params;
pub mod result;
pub mod web;

/// What the operator decided about the API.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether reloading and stopping by request is allowed.
    pub lifecycle: bool,
    /// Whether snapshots and deletions by request are allowed.
    pub admin: bool,
    /// Origins that browsers may send requests from; `None` for all.
    pub cors_origin: Option<Regex>,
    /// How long a client may take to send the body of a request.
    pub read_timeout: Span,
    /// The path before everything, without a slash at the end; empty for none.
    pub route_prefix: String,
    /// The URL under which others reach this server, without a slash at the end.
    pub external_url: String,
}

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The store is being opened.
    Starting = 0,
    /// Requests are answered.
    Ready = 1,
    /// What runs is finished, nothing new begins.
    Stopping = 2,
}

/// What a request may ask of the server itself.
#[derive(Debug)]
pub enum Control {
    /// Read the configuration again; the outcome goes back to the client.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Stop.
    Quit,
}

/// What all handlers share.
pub struct Api {
    /// What the operator decided.
    pub options: Options,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The server's own metrics.
    pub metrics: Metrics,
    /// When the server was started.
    pub started_at: Timestamp,
    phase: AtomicU8,
    control: mpsc::Sender<Control>,
}

impl Api {
    /// The state of a server that is starting, and the requests that it will have to obey.
    pub fn new(
        options: Options,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> (Arc<Self>, mpsc::Receiver<Control>) {
        let (control, orders) = mpsc::channel(4);
        let started_at = clock.now();
        let phase = AtomicU8::new(Phase::Starting as u8);
        (Arc::new(Self { options, clock, metrics, started_at, phase, control }), orders)
    }

    /// Where the server is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }

    /// Nothing new begins from now on.
    pub fn set_stopping(&self) {
        self.phase.store(Phase::Stopping as u8, Ordering::Release);
        self.metrics.ready.set(0);
    }
}

/// Everything that is served.
pub fn router(api: &Arc<Api>) -> Router {
    let served = Router::new()
        .route("/", get(web::index))
        .route("/-/healthy", get(web::healthy))
        .route("/-/ready", get(web::ready))
        .route("/-/reload", any(web::reload))
        .route("/-/quit", any(web::quit))
        .route("/metrics", get(web::metrics))
        .route("/version", get(web::version))
        .fallback(web::not_found)
        .layer(CompressionLayer::new())
        .layer(axum::middleware::from_fn_with_state(Arc::clone(api), layers::observe))
        .with_state(Arc::clone(api));
    layers::under_prefix(&api.options.route_prefix, served)
}

#[cfg(test)]
mod tests;
