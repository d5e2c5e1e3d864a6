//! All pools: discovery in, status out, reloads in between.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Appender, Clock, Metadata};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_64;

use super::failure_log::FailureLogs;
use super::fetch::{Clients, Fetcher, HttpFetcher, SpareBodies};
use super::metrics::ScrapeMetrics;
use super::pool::{Pool, Setup, View};
use super::record::Shared;
use super::status::{DroppedTarget, Status, TargetMetadata};
use super::threads::Threads;
use crate::config::{Config, ScrapeConfig};
use crate::discovery::{Hub, Sources};
use crate::http::ClientError;

/// The least time between two changes of a job's targets.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How long a job that was changed waits for targets of mechanisms that have just been started.
const NEW_LIST_WITHIN: Duration = Duration::from_secs(2);

/// Makes the fetcher of a job.
pub type MakeFetcher =
    Box<dyn Fn(&ScrapeConfig) -> Result<Arc<dyn Fetcher>, ClientError> + Send + Sync>;

/// What all pools share.
pub struct Parts {
    /// Where the samples go.
    pub appender: Arc<dyn Appender>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How bodies are got.
    pub make_fetcher: MakeFetcher,
    /// Where it is counted how it goes.
    pub metrics: ScrapeMetrics,
    /// What finds targets.
    pub discovery: Arc<Hub>,
    /// Tells this server from others that scrape the same targets, so that they scrape at other
    /// moments; usually the host's name.
    pub server_name: String,
    /// What the recorders of all targets share.
    pub(super) shared: Arc<Shared>,
    /// Where targets are scraped; where everything else runs if there are none.
    pub(super) threads: Option<Threads>,
}

impl Parts {
    /// Parts that fetch over HTTP.
    pub fn http(
        appender: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        metrics: ScrapeMetrics,
        discovery: Arc<Hub>,
        server_name: String,
    ) -> Self {
        let (clients, spare) = (Clients::default(), Arc::<SpareBodies>::default());
        let make_fetcher: MakeFetcher = Box::new(move |job| {
            let fetcher = HttpFetcher::new(job, clients.get(&job.http)?, Arc::clone(&spare));
            Ok(Arc::new(fetcher) as Arc<dyn Fetcher>)
        });
        let shared = Arc::default();
        let threads = Threads::start().inspect_err(|error| {
            tracing::warn!(%error, "no threads for scraping alone; it shares those of everything else");
        });
        let threads = threads.ok();
        Self { appender, clock, make_fetcher, metrics, discovery, server_name, shared, threads }
    }
}

/// Runs one pool per job.
pub struct Manager {
    parts: Arc<Parts>,
    /// Held while a configuration is applied.
    drivers: tokio::sync::Mutex<BTreeMap<String, Driver>>,
    /// Pools of jobs that are gone and whose series have not been ended yet.
    retiring: Mutex<Vec<Pool>>,
    views: Mutex<BTreeMap<String, Arc<Mutex<View>>>>,
    failure_logs: Mutex<FailureLogs>,
}

/// A pool and the task that feeds it.
struct Driver {
    setup: Setup,
    stop: watch::Sender<bool>,
    task: JoinHandle<Pool>,
}

impl Manager {
    /// A manager without pools.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            drivers: tokio::sync::Mutex::default(),
            retiring: Mutex::default(),
            views: Mutex::default(),
            failure_logs: Mutex::default(),
        }
    }

    /// Makes the jobs of `config` the ones that run. Jobs that are the same go on undisturbed;
    /// those that changed keep what they know of their targets. When this returns, the targets that can
    /// be found at once are there.
    ///
    /// # Errors
    /// What keeps a job's client from being made, each with the job's name, or a log of failed
    /// scrapes from being opened. Nothing has changed then.
    pub async fn apply(&self, config: &Config) -> Result<(), Vec<String>> {
        let mut drivers = self.drivers.lock().await;
        let setups = self.changed(config, &drivers)?;
        let wanted: HashSet<&str> =
            config.scrape_configs.iter().map(|job| job.job_name.as_str()).collect();
        let gone: Vec<String> =
            drivers.keys().filter(|name| !wanted.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.views.lock().remove(&name);
            if let Some(driver) = drivers.remove(&name)
                && let Some(mut pool) = driver.stop().await
            {
                pool.remove_all();
                self.retiring.lock().push(pool);
            }
            self.parts.metrics.remove_job(&name);
            self.parts.discovery.metrics().forget("scrape", &name);
        }
        let mut synced = Vec::new();
        for setup in setups {
            let name = setup.job.job_name.clone();
            let before = match drivers.remove(&name) {
                Some(driver) => driver.stop().await,
                None => None,
            };
            let metrics = &self.parts.metrics;
            metrics.add_job(&name, setup.job.limits.targets);
            let pool = if let Some(pool) = before {
                metrics.reloads.inc();
                pool.reload(setup.clone()).await
            } else {
                metrics.pools.inc();
                Pool::new(setup.clone(), Arc::clone(&self.parts))
            };
            self.views.lock().insert(name.clone(), pool.view());
            let (driver, ready) = Driver::start(setup, pool, &self.parts);
            drivers.insert(name, driver);
            synced.push(ready);
        }
        for ready in synced {
            // A driver that ends before it was ready has told why.
            let _ = ready.await;
        }
        self.retiring.lock().retain(|pool| !pool.is_finished());
        Ok(())
    }

    /// The setups of new and changed jobs.
    fn changed(
        &self,
        config: &Config,
        drivers: &BTreeMap<String, Driver>,
    ) -> Result<Vec<Setup>, Vec<String>> {
        let labels = config.global.external_labels.stable_hash();
        let seed = xxh3_64(self.parts.server_name.as_bytes()) ^ labels;
        let out_of_order_window = config.storage.out_of_order_time_window.unwrap_or_default();
        let mut setups = Vec::new();
        let mut errors = Vec::new();
        for job in &config.scrape_configs {
            let same = drivers.get(&job.job_name).is_some_and(|driver| {
                *driver.setup.job == *job
                    && driver.setup.seed == seed
                    && driver.setup.out_of_order_window == out_of_order_window
            });
            if same {
                continue;
            }
            let fixed = &job.static_configs;
            let sources =
                || Sources::new(&self.parts.discovery, &job.job_name, fixed, &job.sd_configs);
            let made = (self.parts.make_fetcher)(job)
                .and_then(|fetcher| sources().map(|sources| (fetcher, sources)));
            match made {
                Ok((fetcher, sources)) => {
                    let job = Arc::new(job.clone());
                    let failure_log = None;
                    setups.push(Setup {
                        job,
                        fetcher,
                        sources,
                        seed,
                        out_of_order_window,
                        failure_log,
                    });
                }
                Err(error) => {
                    self.parts.metrics.pools_failed.inc();
                    errors.push(format!("scrape job {:?}: {error}", job.job_name));
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let paths = config.scrape_configs.iter();
        let paths = paths.filter_map(|job| job.scrape_failure_log_file.as_deref());
        let mut logs = self.failure_logs.lock();
        logs.open(paths)?;
        for setup in &mut setups {
            setup.failure_log = logs.get(setup.job.scrape_failure_log_file.as_ref());
        }
        Ok(setups)
    }

    /// Stops everything; series are left as they are, since the server may be back soon.
    pub async fn stop(&self) {
        let drivers = std::mem::take(&mut *self.drivers.lock().await);
        let mut pools = std::mem::take(&mut *self.retiring.lock());
        for driver in drivers.values() {
            driver.stop.send_replace(true);
        }
        for driver in drivers.into_values() {
            pools.extend(driver.stop().await);
        }
        for mut pool in pools {
            pool.stop().await;
        }
    }

    /// All targets as they are now.
    pub fn status(&self) -> Status {
        let mut status = Status::default();
        for (name, view) in &*self.views.lock() {
            let view = view.lock();
            status.pools.push(name.clone());
            status.active.extend(view.active.iter().map(|state| state.show(name)));
            let dropped = view.dropped.iter().cloned();
            let dropped =
                dropped.map(|discovered| DroppedTarget { discovered, pool: name.clone() });
            status.dropped.extend(dropped);
            status.dropped_counts.insert(name.clone(), view.dropped_count);
        }
        status
    }

    /// Brings the gauges up to date that are counted only when they are asked for.
    pub fn refresh_metrics(&self) {
        for (job, view) in &*self.views.lock() {
            let entries: usize =
                view.lock().active.iter().map(|state| state.families.lock().len()).sum();
            let gauge = self.parts.metrics.metadata_entries.with_label_values(&[job]);
            gauge.set(entries as i64);
        }
    }

    /// What each target says about its families, in the order of [`Manager::status`].
    pub fn target_metadata(&self) -> Vec<TargetMetadata> {
        let mut all = Vec::new();
        for view in self.views.lock().values() {
            for state in &view.lock().active {
                let with_target = |(family, metadata): (String, Metadata)| TargetMetadata {
                    target: state.target.labels.clone(),
                    family,
                    metadata,
                };
                all.extend(state.families.list().into_iter().map(with_target));
            }
        }
        all
    }
}

impl Driver {
    /// Starts feeding `pool`; the receiver hears when its first targets are there.
    fn start(setup: Setup, pool: Pool, parts: &Arc<Parts>) -> (Self, oneshot::Receiver<()>) {
        let (stop, stopped) = watch::channel(false);
        let (ready, synced) = oneshot::channel();
        let sources = setup.sources.clone();
        let task = tokio::spawn(drive(pool, Arc::clone(parts), sources, stopped, ready));
        (Self { setup, stop, task }, synced)
    }

    /// Ends the feeding and hands back the pool, whose loops go on.
    async fn stop(self) -> Option<Pool> {
        self.stop.send_replace(true);
        match self.task.await {
            Ok(pool) => Some(pool),
            Err(error) => {
                let job = &self.setup.job.job_name;
                tracing::error!(job, %error, "discovery did not end in good order");
                None
            }
        }
    }
}

/// Feeds `pool` with what its job discovers until stopped.
async fn drive(
    mut pool: Pool,
    parts: Arc<Parts>,
    mut sources: Sources,
    mut stopped: watch::Receiver<bool>,
    ready: oneshot::Sender<()>,
) -> Pool {
    let name = pool.job().job_name.clone();
    let metrics = parts.discovery.metrics();
    let discovered = metrics.discovered.with_label_values(&["scrape", &name]);
    let updates = metrics.updates.with_label_values(&["scrape"]);
    // Whoever had targets before shall not lose them because the new list is not there yet.
    let patience = if pool.is_new() { Duration::ZERO } else { NEW_LIST_WITHIN };
    let mut ready = Some(ready);
    tokio::select! {
        () = sources.settle(patience) => {}
        _ = stopped.wait_for(|stopped| *stopped) => return pool,
    }
    loop {
        let groups = sources.groups();
        let found: usize = groups.iter().map(|group| group.targets.len()).sum();
        discovered.set(found as i64);
        updates.inc();
        pool.sync(&groups);
        if let Some(ready) = ready.take() {
            // Nobody listens when the configuration was given up meanwhile.
            let _ = ready.send(());
        }
        let change = async {
            tokio::time::sleep(SYNC_EVERY).await;
            sources.changed().await;
        };
        tokio::select! {
            () = change => {}
            _ = stopped.wait_for(|stopped| *stopped) => return pool,
        }
    }
}

#[cfg(test)]
mod tests;
