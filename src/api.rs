//! The HTTP API: Prometheus' endpoints, parameters, answers and errors.
//!
//! Handlers take [`extract::Ready`] for what exists only once the store is open; until then, and
//! again while the server stops, they answer 503 as a whole.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, any, get, post};
use parking_lot::RwLock;
use regex::Regex;
use stint_model::{Clock, Queryable, Selector, Span, Timestamp};
use stint_promql::Engine;
use stint_storage::Db;
use tokio::sync::{mpsc, oneshot, watch};

use self::error::ApiError;
use self::notifications::Notifications;
use self::pack::Packer;
use self::read::RemoteRead;
use self::store_metrics::StoreMetrics;
use self::work::{Spent, Workers};
use crate::config::Config;
use crate::forward;
use crate::ingest::LabelPolicy;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::receive::otlp::OtlpReceiver;
use crate::receive::remote_write::RemoteWrite;
use crate::rules as rule;
use crate::scrape;
use crate::usage;

mod admin;
mod budget;
pub mod error;
mod exemplars;
pub mod extract;
mod features;
mod federate;
pub mod forward_metrics;
pub mod helpers;
pub mod json;
mod labels;
pub mod layers;
pub mod notifications;
pub mod number;
mod openapi;
pub mod otlp;
mod pack;
mod page;
pub mod params;
mod query;
pub mod read;
pub mod result;
mod rules;
mod self_metrics;
mod series;
mod status;
pub mod store_metrics;
mod syntax;
mod targets;
mod tsdb;
pub mod web;
pub mod work;
mod write;

/// What the operator decided about the API.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether reloading and stopping by request is allowed.
    pub lifecycle: bool,
    /// Whether snapshots and deletions by request are allowed.
    pub admin: bool,
    /// Whether OTLP is accepted beside the other endpoints.
    pub otlp: bool,
    /// How many clients may be told of notifications as they come.
    pub notification_watchers_max: usize,
    /// Names of the messages that remote write may send.
    pub remote_write_messages: Vec<String>,
    /// Origins that browsers may send requests from; `None` for all.
    pub cors_origin: Option<Regex>,
    /// How long a client may take to send the body of a request.
    pub read_timeout: Span,
    /// The path before everything, without a slash at the end; empty for none.
    pub route_prefix: String,
    /// The path before links in pages, as browsers see it; another where a proxy takes it away.
    pub link_prefix: String,
    /// The URL under which others reach this server, without a slash at the end.
    pub external_url: String,
    /// The first port that is listened on.
    pub listen_port: u16,
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

/// A request to read the configuration again; the outcome goes back to the client.
#[derive(Debug)]
pub struct Reload(pub oneshot::Sender<Result<(), String>>);

/// What exists once the store is open.
pub struct Parts {
    /// What queries read: the store.
    pub store: Arc<dyn Queryable>,
    /// The same store, for its administration.
    pub db: Db,
    /// Evaluates queries.
    pub engine: Arc<Engine>,
    /// Where queries run.
    pub workers: Workers,
    /// Limits of remote read.
    pub remote_read: RemoteRead,
    /// The store's figures as metrics.
    pub store_metrics: StoreMetrics,
    /// What is scraped.
    pub scrape: Arc<scrape::Manager>,
    /// What is evaluated.
    pub rules: Arc<rule::Manager>,
    /// What is forwarded.
    pub forwarding: Arc<forward::Manager>,
    /// Who is told of alerts.
    pub notifier: Arc<Notifier>,
    /// The remote write receiver, where it is enabled.
    pub receiver: Option<Arc<RemoteWrite>>,
    /// The labels that every series must carry, and which series do not.
    pub labels: Arc<LabelPolicy>,
    /// What is asked and shown, here and elsewhere.
    pub usage: Arc<usage::Observer>,
    /// The receiver of OTLP metrics.
    pub otlp: Arc<OtlpReceiver>,
    /// The configuration in force; swapped whole by a reload.
    pub config: Arc<RwLock<Arc<Config>>>,
    /// When the configuration was last loaded; guarded by itself.
    pub config_loaded_at: RwLock<Timestamp>,
    /// Damaged places that were found when the store was opened.
    pub corruptions: u64,
    /// Every flag's value, as it is shown.
    pub flags: BTreeMap<&'static str, String>,
}

impl Parts {
    /// Notes that somebody asked for `expr` at `now`, unless that is not to be remembered.
    pub(crate) fn asked(&self, expr: &str, now: Timestamp) {
        if self.config.read().usage.queries {
            self.usage.queries.note(expr, now);
        }
    }

    /// The same for series that were asked for by their labels.
    pub(crate) fn selected(&self, selectors: &[Selector], now: Timestamp) {
        if self.config.read().usage.queries {
            for selector in selectors {
                self.usage.queries.note_selector(selector, now);
            }
        }
    }

    /// See [`Workers::run`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        timeout: Option<Span>,
        work: impl FnOnce(&stint_promql::Cancel) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Spent), ApiError> {
        self.workers.run(timeout, work).await
    }

    /// See [`Workers::run_known`].
    pub(crate) async fn run_known<T: Send + 'static>(
        &self,
        asked: &(impl Hash + Sync),
        timeout: Option<Span>,
        work: impl Fn(&stint_promql::Cancel) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.workers.run_known(asked, timeout, work).await
    }
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
    /// What the operator should know.
    pub notifications: Notifications,
    packer: Packer,
    phase: AtomicU8,
    parts: OnceLock<Arc<Parts>>,
    reload: mpsc::Sender<Reload>,
    quit: watch::Sender<bool>,
}

impl Api {
    /// The state of a server that is starting, and the reloads that it will be asked for.
    pub fn new(
        options: Options,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> (Arc<Self>, mpsc::Receiver<Reload>) {
        let (reload, reloads) = mpsc::channel(4);
        let quit = watch::channel(false).0;
        let started_at = clock.now();
        let phase = AtomicU8::new(Phase::Starting as u8);
        let parts = OnceLock::new();
        let notifications = Notifications::new(options.notification_watchers_max);
        notifications.begin(notifications::STARTING, started_at);
        let api = Self {
            options,
            clock,
            metrics,
            started_at,
            notifications,
            packer: Packer::default(),
            phase,
            parts,
            reload,
            quit,
        };
        (Arc::new(api), reloads)
    }

    /// Where the server is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }

    /// The parts of the running server, once there are any.
    pub fn parts(&self) -> Option<Arc<Parts>> {
        self.parts.get().cloned()
    }

    /// Requests are answered from now on. Has no effect after [`Api::set_stopping`].
    pub fn set_ready(&self, parts: Arc<Parts>) {
        let (from, to) = (Phase::Starting as u8, Phase::Ready as u8);
        let is_starting = self.parts.set(parts).is_ok()
            && self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if is_starting {
            self.notifications.end(notifications::STARTING);
            self.metrics.ready.set(1);
        }
    }

    /// Waits until a request asks the server to stop.
    pub async fn quit_asked(&self) {
        let mut quit = self.quit.subscribe();
        // The sender lives as long as `self`, so this ends with a request only.
        drop(quit.wait_for(|quit| *quit).await);
    }

    /// Nothing new begins from now on.
    pub fn set_stopping(&self) {
        self.phase.store(Phase::Stopping as u8, Ordering::Release);
        self.metrics.ready.set(0);
        self.notifications.begin(notifications::STOPPING, self.clock.now());
    }
}

/// The endpoints of `/api/v1`.
fn v1() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/query", form(query::instant))
        .route("/api/v1/query_range", form(query::range))
        .route("/api/v1/format_query", form(syntax::format_query))
        .route("/api/v1/parse_query", form(syntax::parse_query))
        .route("/api/v1/query_exemplars", form(exemplars::exemplars))
        .route("/api/v1/series", form(series::series))
        .route("/api/v1/labels", form(series::labels))
        .route("/api/v1/label/{name}/values", form(series::label_values))
        .route("/api/v1/rules", get(rules::rules))
        .route("/api/v1/alerts", get(rules::alerts))
        .route("/api/v1/alertmanagers", get(rules::alertmanagers))
        .route("/api/v1/status/budget", get(budget::budget))
        .route("/api/v1/status/labels", get(labels::report))
        .route("/api/v1/features", get(features::features))
        .route("/api/v1/openapi.yaml", get(openapi::openapi))
        .route("/api/v1/notifications", get(notifications::notifications))
        .route("/api/v1/notifications/live", get(notifications::live))
        .route("/api/v1/status/buildinfo", get(status::build_info))
        .route("/api/v1/status/config", get(status::config))
        .route("/api/v1/status/explain", form(query::explain))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/runtimeinfo", get(status::runtime_info))
        .route("/api/v1/status/self_metrics", get(self_metrics::self_metrics))
        .route("/api/v1/status/tsdb", get(tsdb::tsdb))
        .route("/api/v1/status/usage", get(budget::usage))
        .route("/api/v1/status/tsdb/blocks", get(tsdb::blocks))
        .route("/api/v1/status/walreplay", get(tsdb::wal_replay))
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/targets/metadata", get(targets::target_metadata))
        .route("/api/v1/targets/relabel_steps", get(targets::relabel_steps))
        .route("/api/v1/scrape_pools", get(targets::scrape_pools))
        .route("/api/v1/scrape_pools/config", get(targets::scrape_pool_config))
        .route("/api/v1/metadata", get(targets::metadata))
        .route("/api/v1/admin/tsdb/snapshot", order(admin::snapshot))
        .route("/api/v1/admin/tsdb/delete_series", order(admin::delete_series))
        .route("/api/v1/admin/tsdb/clean_tombstones", order(admin::clean_tombstones))
        .route("/api/v1/read", post(read::read))
        .route("/api/v1/write", post(write::write))
        .route("/api/v1/otlp/v1/metrics", post(otlp::beside))
}

/// A question, as GET with parameters in the URL or as POST of a form.
fn form<H, T>(handler: H) -> MethodRouter<Arc<Api>>
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    get(handler.clone()).post(handler)
}

/// A request to change something.
fn order<H, T>(handler: H) -> MethodRouter<Arc<Api>>
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    post(handler.clone()).put(handler)
}

/// Everything that is served.
pub fn router(api: &Arc<Api>) -> Router {
    let served = Router::new()
        .merge(v1())
        .route("/", get(page::index))
        .route("/budget", get(page::budget))
        .route("/labels", get(page::labels))
        .route("/query", get(page::query))
        .route("/graph", get(page::graph))
        .route("/alerts", get(page::alerts))
        .route("/rules", get(page::rules))
        .route("/targets", get(page::targets))
        .route("/-/healthy", get(web::healthy))
        .route("/-/ready", get(web::ready))
        .route("/-/reload", any(web::reload))
        .route("/-/quit", any(web::quit))
        .route("/metrics", get(web::metrics))
        .route("/version", get(web::version))
        .route("/federate", get(federate::federate))
        .fallback(web::not_found)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(api), layers::observe))
        .with_state(Arc::clone(api));
    layers::under_prefix(&api.options.route_prefix, served)
}

#[cfg(test)]
mod tests;
