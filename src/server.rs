//! The wiring: opens the store, starts sources and consumers, and stops them in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::RwLock;
use stint_model::{Appender, Clock, Queryable, Span};
use stint_promql::Engine;
use tokio::sync::mpsc;

use crate::api::forward_metrics;
use crate::api::helpers::Helpers;
use crate::api::notifications::RELOAD_FAILED;
use crate::api::read::RemoteRead;
use crate::api::store_metrics::StoreMetrics;
use crate::api::work::Workers;
use crate::api::{self, Api, Parts, Reload};
use crate::cli::flags::Flags;
use crate::config::{self, Config};
use crate::discovery::{DiscoveryMetrics, Hub};
use crate::forward::manager::{Manager as Forwarding, Prepared, Sources};
use crate::ingest::{Limits, Pipeline};
use crate::metrics::Metrics;
use crate::notify;
use crate::receive::in_flight::{IN_FLIGHT_BYTES_MAX, InFlight};
use crate::receive::otlp::OtlpReceiver;
use crate::receive::remote_write::RemoteWrite;
use crate::rules;
use crate::scrape;
use crate::server::http::{HttpOptions, HttpServer, Listeners, Protocol};
use crate::server::jobs::Jobs;
use crate::server::reload::Watch;
use crate::server::url::Locations;
use crate::server::usage::Keeper;
use crate::server::web::Web;

mod evaluation;
pub mod features;
pub mod http;
pub mod jobs;
mod otlp;
pub mod reload;
mod store;
pub mod url;
mod usage;
pub mod web;

/// How late a received sample may be when the configuration says nothing.
const RECEIVED_LATE_MAX: Span = Span(2 * Span::HOUR.0);
/// How long requests may take to finish when the server stops.
const REQUESTS_FINISH_WITHIN: Duration = Duration::from_secs(10);
/// How long a reload that has begun to change things may take when the server stops.
const RELOAD_FINISHES_WITHIN: Duration = Duration::from_secs(5);
/// How long the last scrapes may take to be stored when the server stops.
const SCRAPES_FINISH_WITHIN: Duration = Duration::from_secs(10);
/// How long evaluations of rules that are running may go on when the server stops.
const RULES_FINISH_WITHIN: Duration = Duration::from_secs(10);
/// How long the alerts that wait may take to be sent when the server stops.
const ALERTS_FINISH_WITHIN: Duration = Duration::from_secs(20);
/// How long a job of the store may go on when the server stops. One that is cut off leaves
/// nothing behind but unfinished files, which the next start removes.
const JOBS_FINISH_WITHIN: Duration = Duration::from_secs(30);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong; one line per mistake.
    #[error("{0}")]
    Config(String),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// A running server.
pub struct Server {
    api: Arc<Api>,
    parts: Arc<Parts>,
    http: HttpServer,
    otlp: [HttpServer; 2],
    jobs: Jobs,
    usage: Keeper,
    reloads: mpsc::Receiver<Reload>,
    flags: Flags,
    files: Files,
    auto_reload: Option<Watch>,
}

/// A configuration that was read and can be put in force.
struct Ready {
    config: Arc<Config>,
    rules: rules::Prepared,
    endpoints: Prepared,
    notified: notify::Prepared,
}

/// Where the configuration is read from.
#[derive(Clone, Debug)]
pub struct Files {
    /// `prometheus.yml`, if there is one.
    pub prometheus: Option<PathBuf>,
    /// The `retention.toml` that a flag names; it has to exist.
    pub retention: Option<PathBuf>,
    /// Where `retention.toml` is looked for without the flag, anew at every load: it may be written
    /// while the server runs.
    pub usual_retention: PathBuf,
    /// How the server reaches itself.
    pub own_address: String,
    /// Whether any value of them may hold variables of the environment.
    pub expand_env: bool,
}

impl Files {
    /// The files that the flags name, or those that are found where they usually are.
    pub fn find(flags: &Flags, own_address: String) -> Self {
        let usual = |path: PathBuf| path.exists().then_some(path);
        let prometheus =
            flags.config_file.clone().or_else(|| usual(PathBuf::from("prometheus.yml")));
        let beside = prometheus.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let retention = flags.retention_file.clone();
        let usual_retention = beside.join("retention.toml");
        let expand_env = flags.config_expand_env;
        Self { prometheus, retention, usual_retention, own_address, expand_env }
    }

    /// Reads and checks them.
    ///
    /// # Errors
    /// Every mistake, one per line.
    pub fn load(&self) -> Result<Config, String> {
        let usual = self.usual_retention.exists().then_some(self.usual_retention.as_path());
        let files = config::Files {
            prometheus: self.prometheus.as_deref(),
            retention: self.retention.as_deref().or(usual),
            own_address: &self.own_address,
            expand_env: self.expand_env,
        };
        let config = config::load(files).map_err(|errors| errors.to_string())?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
}

impl Server {
    /// Listens, opens the store, starts everything, and is ready when it returns.
    ///
    /// # Errors
    /// A wrong configuration or flag, an address in use, a store that cannot be opened.
    pub async fn start(flags: &Flags, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let listeners = Listeners::bind(&flags.web_listen_address, "web.listen-address").await?;
        let listening_on = *listeners.addresses().first().context("no address to listen on")?;
        let files = Files::find(flags, url::own_address(listening_on));
        let config = files.load().map_err(StartError::Config)?;
        let refused = |errors: Vec<String>| StartError::Config(errors.join("\n"));
        let engine_options = features::engine_options(flags, &config);
        let groups = rules::Prepared::read(&config, engine_options.features).map_err(refused)?;
        let otlp_ports = otlp::Ports::bind(flags, &files).await?;
        let metrics = Metrics::new();
        let (api, reloads) =
            Api::new(api_options(flags, listening_on)?, Arc::clone(&clock), metrics.clone());
        // Before anybody is answered: without a folder there will be no server.
        let disk = store::folder(flags).await?;
        let options = http_options(flags, &clock, &metrics).await?;
        let http = listeners.serve(&options, Protocol::Http1, &api::router(&api));
        for address in http.addresses() {
            tracing::info!(%address, "listening");
        }
        let otlp_servers = otlp_ports.serve(&options, &api);

        let (db, report) = store::open_timed(flags, &config, &disk, &clock, &metrics).await?;
        let pipeline = Pipeline::new(
            Arc::new(db.clone()) as Arc<dyn Appender>,
            Arc::clone(&clock),
            Limits::default(),
            &metrics,
        );
        pipeline.labels().begin(&config.labels);
        let (receiver, otlp) = receivers(flags, &config, &pipeline, &clock, &metrics);
        let discovery =
            Arc::new(Hub::new(Arc::clone(&clock), DiscoveryMetrics::new(&metrics, &clock)));
        let notifier = evaluation::notifier(flags, &api, &disk, &discovery);
        let mut usage = Keeper::start(Arc::clone(&disk), &clock).await;
        let forwarding = Arc::new(Forwarding::new(Sources {
            db: db.clone(),
            disk,
            clock: Arc::clone(&clock),
            wake: pipeline.stored(),
            flush_deadline: flags.storage_remote_flush_deadline.to_std(),
        }));
        let endpoints = forwarding.prepare(&config).await.map_err(refused)?;
        let notified = notifier.prepare(&config).map_err(refused)?;
        let scrape = Arc::new(scrape::Manager::new(scrape::Parts::http(
            pipeline.source("scrape"),
            Arc::clone(&clock),
            scrape::ScrapeMetrics::new(&metrics, &clock),
            discovery,
            hostname(),
        )));
        // Before anything is sent: what is used decides what matters.
        usage::rank(&usage.observer(), &clock, &forwarding, config.usage.clone()).await;
        // Forwarding first, so that it holds the log before there is anything in it.
        forwarding.apply(endpoints).await;
        // Only now: a job may remove the log that no forwarder holds.
        let jobs = Jobs::start(&db, &clock, &metrics);
        scrape.apply(&config).await.map_err(refused)?;
        let store = Arc::new(db.clone()) as Arc<dyn Queryable>;
        let helpers = Helpers::of_machine();
        let engine = Engine::new(engine_options);
        let lent = Arc::clone(&helpers) as Arc<dyn stint_promql::Workers>;
        let engine = Arc::new(engine.with_workers(Arc::clone(&lent)));
        notifier.apply(notified).await;
        let sink = Arc::clone(&notifier) as Arc<dyn rules::AlertSink>;
        let rules = evaluation::manager(flags, &api, &store, (&engine, lent), &pipeline, sink);
        rules.apply(groups).await;
        let store_metrics = StoreMetrics::new(&metrics);
        forward_metrics::register(&metrics, &forwarding, Arc::clone(&clock));
        let parts = Arc::new(Parts {
            store,
            db,
            engine,
            workers: Workers::new(
                Arc::clone(&clock),
                helpers,
                flags.query_max_concurrency,
                flags.query_timeout,
                &metrics,
            ),
            remote_read: remote_read(flags, &metrics),
            store_metrics,
            scrape,
            rules,
            notifier,
            forwarding,
            receiver,
            labels: pipeline.labels(),
            usage: usage.observer(),
            otlp,
            config: Arc::new(RwLock::new(Arc::new(config))),
            config_loaded_at: RwLock::new(clock.now()),
            corruptions: (report.damage.len() + report.quarantined.len()) as u64,
            flags: flags.to_map(),
        });
        usage.rank_regularly(&parts.forwarding, &parts.config);
        let auto_reload = watch(flags, &files);
        let flags = flags.clone();
        let otlp = otlp_servers;
        let mut server =
            Self { api, parts, http, otlp, jobs, usage, reloads, flags, files, auto_reload };
        server.reloaded();
        server.api.set_ready(Arc::clone(&server.parts));
        tracing::info!("ready");
        Ok(server)
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// The addresses where OTLP is received over gRPC, and those over HTTP.
    pub fn otlp_addresses(&self) -> [&[SocketAddr]; 2] {
        let [grpc, http] = &self.otlp;
        [grpc.addresses(), http.addresses()]
    }

    /// Serves until `stop` is done or a client asks to quit, then stops in order.
    ///
    /// # Errors
    /// The store could not be closed cleanly; nothing that was acknowledged is lost by that.
    pub async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        mut hangups: mpsc::Receiver<()>,
    ) -> anyhow::Result<()> {
        let api = Arc::clone(&self.api);
        let stop = async move {
            tokio::select! {
                () = stop => {}
                () = api.quit_asked() => {}
            }
        };
        let mut stop = std::pin::pin!(stop);
        loop {
            let client = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(Reload(client)) = self.reloads.recv() => Some(client),
                Some(()) = hangups.recv() => None,
                () = changed(self.auto_reload.as_mut()) => None,
            };
            // Nothing is changed while it reads: stopping need not wait for it.
            let prepared = tokio::select! {
                biased;
                () = &mut stop => break,
                prepared = self.prepare() => prepared,
            };
            let reload = async {
                match prepared {
                    Ok(ready) => self.apply(ready).await,
                    Err(errors) => Err(errors),
                }
            };
            let outcome = finish(reload, &mut stop, RELOAD_FINISHES_WITHIN).await;
            let stops = outcome.stops;
            let outcome =
                outcome.value.unwrap_or_else(|| Err(vec!["the server is stopping".into()]));
            match client {
                // A client that went away does not want the outcome.
                Some(client) => drop(client.send(self.note(outcome))),
                None => log_reload(&self.note(outcome)),
            }
            if stops {
                break;
            }
        }
        self.stop().await
    }

    /// Reads the configuration again and makes what can fail, but changes nothing.
    async fn prepare(&self) -> Result<Ready, Vec<String>> {
        let files = self.files.clone();
        let features = self.parts.engine.options().features;
        let read = tokio::task::spawn_blocking(move || {
            let config = files.load().map_err(|errors| vec![errors])?;
            let rules = rules::Prepared::read(&config, features)?;
            Ok::<_, Vec<String>>((Arc::new(config), rules))
        });
        let (config, rules) = match read.await {
            Ok(read) => read?,
            Err(error) => return Err(vec![format!("reading ended unexpectedly: {error}")]),
        };
        let endpoints = self.parts.forwarding.prepare(&config).await?;
        let notified = self.parts.notifier.prepare(&config)?;
        Ok(Ready { config, rules, endpoints, notified })
    }

    /// Puts what was prepared in force. All of it is applied, or nothing.
    async fn apply(&self, ready: Ready) -> Result<(), Vec<String>> {
        let Ready { config, rules, endpoints, notified } = ready;
        self.parts.scrape.apply(&config).await?;
        // Before the rules, so that nobody gets new alerts by old routes.
        self.parts.notifier.apply(notified).await;
        self.parts.rules.apply(rules).await;
        let forwarding = &self.parts.forwarding;
        usage::rank(&self.parts.usage, &self.api.clock, forwarding, config.usage.clone()).await;
        forwarding.apply(endpoints).await;
        if let Some(receiver) = &self.parts.receiver {
            receiver.set_out_of_order_window(received_late_max(&config));
        }
        self.parts.otlp.set_options(otlp::options(&config.otlp), received_late_max(&config));
        self.parts.labels.change(&config.labels);
        self.parts.db.set_limits(store::options(&self.flags, &config).limits());
        *self.parts.config.write() = config;
        Ok(())
    }

    /// Notes whether the configuration in force is the one in the files.
    fn note(&mut self, outcome: Result<(), Vec<String>>) -> Result<(), String> {
        match outcome {
            Ok(()) => {
                self.reloaded();
                Ok(())
            }
            Err(errors) => {
                self.api.metrics.config_reload_successful.set(0);
                self.api.notifications.begin(RELOAD_FAILED, self.api.clock.now());
                Err(errors.join("\n"))
            }
        }
    }

    /// Notes that the configuration in force was just loaded.
    fn reloaded(&mut self) {
        if let Some(watch) = &mut self.auto_reload {
            watch.watch_rules(&self.parts.config.read().rule_files);
        }
        let now = self.api.clock.now();
        *self.parts.config_loaded_at.write() = now;
        self.api.metrics.config_reload_successful.set(1);
        self.api.notifications.end(RELOAD_FAILED);
        self.api.metrics.config_reload_success_seconds.set(now.as_secs_f64());
    }

    /// Sources first, then what reads from the store, then the store.
    async fn stop(self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.api.set_stopping();
        let in_time = tokio::time::timeout(SCRAPES_FINISH_WITHIN, self.parts.scrape.stop()).await;
        if in_time.is_err() {
            tracing::warn!("some scrapes could not be stored in time");
        }
        let [grpc, otlp] = self.otlp;
        let finished = tokio::join!(
            self.http.stop(REQUESTS_FINISH_WITHIN),
            grpc.stop(REQUESTS_FINISH_WITHIN),
            otlp.stop(REQUESTS_FINISH_WITHIN),
        );
        if finished != (true, true, true) {
            tracing::warn!("some requests did not finish in time");
        }
        let in_time = tokio::time::timeout(RULES_FINISH_WITHIN, self.parts.rules.stop()).await;
        if in_time.is_err() {
            self.parts.rules.cancel();
            tracing::warn!("some rules were not evaluated to the end");
        }
        if tokio::time::timeout(ALERTS_FINISH_WITHIN, self.parts.notifier.stop()).await.is_err() {
            tracing::warn!("some alerts could not be sent in time");
        }
        self.parts.forwarding.stop().await;
        self.usage.stop().await;
        self.jobs.stop_and_close(JOBS_FINISH_WITHIN).await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// What became of work that a stop may cut short.
struct Finished<T> {
    /// `None` when it was cut short.
    value: Option<T>,
    /// Whether the stop came meanwhile.
    stops: bool,
}

/// Finishes `work`; once `stop` is done, within `patience` or not at all.
async fn finish<T>(
    work: impl Future<Output = T>,
    stop: impl Future<Output = ()>,
    patience: Duration,
) -> Finished<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        value = &mut work => Finished { value: Some(value), stops: false },
        () = stop => {
            let value = tokio::time::timeout(patience, work).await.ok();
            Finished { value, stops: true }
        }
    }
}

/// Waits for a change of the files; for ever when nobody watches.
async fn changed(watch: Option<&mut Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

fn log_reload(outcome: &Result<(), String>) {
    match outcome {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(errors) => {
            for error in errors.lines() {
                tracing::error!("cannot reload the configuration: {error}");
            }
        }
    }
}

/// What takes remote write, where it is enabled, and OTLP; both share the bytes in flight.
fn receivers(
    flags: &Flags,
    config: &Config,
    pipeline: &Pipeline,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> (Option<Arc<RemoteWrite>>, Arc<OtlpReceiver>) {
    let in_flight = InFlight::new(IN_FLIGHT_BYTES_MAX, metrics);
    let remote_write = flags.web_enable_remote_write_receiver.then(|| {
        Arc::new(RemoteWrite::new(
            pipeline.source("remote_write"),
            received_late_max(config),
            Arc::clone(&in_flight),
            metrics,
        ))
    });
    let otlp = Arc::new(OtlpReceiver::new(
        pipeline.source("otlp"),
        Arc::clone(clock),
        otlp::options(&config.otlp),
        received_late_max(config),
        in_flight,
        metrics,
    ));
    (remote_write, otlp)
}

/// Limits of remote read.
fn remote_read(flags: &Flags, metrics: &Metrics) -> RemoteRead {
    RemoteRead::new(
        flags.storage_remote_read_sample_limit,
        flags.storage_remote_read_concurrent_limit,
        flags.storage_remote_read_max_bytes_in_frame,
        metrics,
    )
}

fn received_late_max(config: &Config) -> Span {
    config.storage.out_of_order_time_window.unwrap_or(RECEIVED_LATE_MAX)
}

/// How many clients there may be, how patient the server is with them, and who may enter.
async fn http_options(
    flags: &Flags,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<HttpOptions> {
    let given = flags.web_config_file.clone().filter(|file| !file.as_os_str().is_empty());
    let web = match given {
        None => None,
        Some(file) => {
            let (clock, metrics) = (Arc::clone(clock), metrics.clone());
            let opened = tokio::task::spawn_blocking(move || Web::open(&file, clock, &metrics));
            let opened =
                opened.await.context("reading the web configuration ended unexpectedly")?;
            Some(Arc::new(opened.map_err(anyhow::Error::msg)?))
        }
    };
    Ok(HttpOptions {
        connections_max: flags.web_max_connections,
        read_timeout: flags.web_read_timeout.to_std(),
        web,
    })
}

/// Who notices changes of the files, where that is wanted.
fn watch(flags: &Flags, files: &Files) -> Option<Watch> {
    let every = flags.config_auto_reload_interval.to_std();
    flags.config_auto_reload.then(|| Watch::new(files, every))
}

fn api_options(flags: &Flags, listening_on: SocketAddr) -> anyhow::Result<api::Options> {
    let locations = Locations::new(
        &flags.web_external_url,
        flags.web_route_prefix.as_deref(),
        &hostname(),
        listening_on,
    )?;
    let cors_origin = match flags.web_cors_origin.as_str() {
        ".*" => None,
        pattern => Some(
            stint_model::matcher::anchored_regex(pattern)
                .with_context(|| format!("--web.cors.origin={pattern}"))?,
        ),
    };
    Ok(api::Options {
        lifecycle: flags.web_enable_lifecycle,
        admin: flags.web_enable_admin_api,
        otlp: flags.web_enable_otlp_receiver,
        notification_watchers_max: flags.web_max_notifications_subscribers as usize,
        remote_write_messages: flags.web_remote_write_accepted_messages.clone(),
        cors_origin,
        read_timeout: flags.web_read_timeout,
        route_prefix: locations.route_prefix,
        link_prefix: locations.link_prefix,
        external_url: locations.external_url,
        listen_port: listening_on.port(),
    })
}

/// The name of this machine.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_finished_in_time_after_a_stop_or_not_at_all() {
        let takes = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seconds
        };
        let stop = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let patience = Duration::from_secs(5);
        let done = finish(takes(3), stop(9), patience).await;
        assert_eq!((done.value, done.stops), (Some(3), false));
        let late = finish(takes(3), stop(1), patience).await;
        assert_eq!((late.value, late.stops), (Some(3), true));
        let cut = finish(takes(30), stop(1), patience).await;
        assert_eq!((cut.value, cut.stops), (None, true));
    }
}
