//! The targets of one job: discovered groups in, running loops out.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stint_model::{Labels, Span};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::failure_log::FailureLog;
use super::fetch::Fetcher;
use super::manager::Parts;
use super::record::{Recorder, Task};
use super::run::{Command, Loop};
use super::schedule::Schedule;
use super::status::TargetState;
use super::target::{Built, Target};
use crate::config::ScrapeConfig;
use crate::discovery::{Sources, TargetGroup};

/// Labels and URL: two targets with the same are one.
type Key = (Labels, String);

/// What a pool is made of, besides the parts that all pools share.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) job: Arc<ScrapeConfig>,
    pub(super) fetcher: Arc<dyn Fetcher>,
    pub(super) sources: Sources,
    /// Shifts all offsets, so that several servers do not scrape at the same moment.
    pub(super) seed: u64,
    pub(super) out_of_order_window: Span,
    pub(super) failure_log: Option<Arc<FailureLog>>,
}

/// The loops of one job.
pub(super) struct Pool {
    setup: Setup,
    parts: Arc<Parts>,
    running: HashMap<Key, Running>,
    /// Loops whose targets are gone and whose series have not been ended yet.
    retiring: Vec<Running>,
    /// What is known of targets from before a reload, by their public labels and URL.
    inherited: HashMap<Key, (Arc<TargetState>, Box<Recorder>)>,
    refusal: watch::Sender<Option<String>>,
    view: Arc<Mutex<View>>,
}

/// What the outside sees of a pool. Replaced whole at each change of targets.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) active: Vec<Arc<TargetState>>,
    pub(super) dropped: Vec<Labels>,
    pub(super) dropped_count: u64,
}

struct Running {
    state: Arc<TargetState>,
    commands: watch::Sender<Command>,
    task: JoinHandle<Option<Box<Recorder>>>,
}

impl Pool {
    pub(super) fn new(setup: Setup, parts: Arc<Parts>) -> Self {
        Self {
            setup,
            parts,
            running: HashMap::new(),
            retiring: Vec::new(),
            inherited: HashMap::new(),
            refusal: watch::channel(None).0,
            view: Arc::default(),
        }
    }

    pub(super) fn view(&self) -> Arc<Mutex<View>> {
        Arc::clone(&self.view)
    }

    pub(super) fn job(&self) -> &ScrapeConfig {
        &self.setup.job
    }

    /// Whether no target was known in it before.
    pub(super) fn is_new(&self) -> bool {
        self.inherited.is_empty() && self.running.is_empty()
    }

    /// Makes the targets of `groups` the ones that are scraped. Loops of targets that stay are not
    /// touched.
    pub(super) fn sync(&mut self, groups: &[TargetGroup]) {
        let (metrics, began) = (&self.parts.metrics, self.parts.clock.monotonic());
        let name = self.setup.job.job_name.clone();
        let mut wanted: HashMap<Key, Target> = HashMap::new();
        let mut dropped = Vec::new();
        for group in groups {
            for found in &group.targets {
                match Target::build(&self.setup.job, group, found) {
                    Built::Active(target) => {
                        let key = (target.all_labels.clone(), target.url.clone());
                        // Of those that are the same, the last one is shown.
                        wanted.insert(key, *target);
                    }
                    Built::Dropped(labels) => dropped.push(labels),
                    Built::Invalid(error) => {
                        metrics.sync_failures.with_label_values(&[&name]).inc();
                        let (job, source) = (&self.setup.job.job_name, &group.source);
                        tracing::warn!(job, source, %found, error, "target cannot be scraped");
                    }
                }
            }
        }
        self.limit_targets(wanted.len());
        self.retire(&wanted);
        for (key, target) in wanted {
            if let Some(running) = self.running.get(&key) {
                running.state.found_as(target.discovered);
            } else {
                let running = self.start(target);
                self.running.insert(key, running);
            }
        }
        self.end_inherited();
        self.show(dropped);
        let metrics = &self.parts.metrics;
        metrics.targets.with_label_values(&[&name]).set(self.running.len() as i64);
        metrics.syncs.with_label_values(&[&name]).inc();
        let took = self.parts.clock.monotonic().saturating_sub(began);
        metrics.sync_length.observe(&name, took.as_secs_f64());
    }

    fn limit_targets(&self, number: usize) {
        let limit = self.setup.job.limits.targets;
        let refusal = (limit > 0 && number as u64 > limit).then(|| {
            self.parts.metrics.over_target_limit.inc();
            format!("target_limit exceeded (number of targets: {number}, limit: {limit})")
        });
        self.refusal.send_replace(refusal);
    }

    /// Lets the loops of targets go that are no longer `wanted`.
    fn retire(&mut self, wanted: &HashMap<Key, Target>) {
        self.retiring.retain(|running| !running.task.is_finished());
        let gone: Vec<Key> =
            self.running.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in gone {
            if let Some(running) = self.running.remove(&key) {
                running.commands.send_replace(Command::Remove);
                self.retiring.push(running);
            }
        }
    }

    fn start(&mut self, target: Target) -> Running {
        let target = Arc::new(target);
        let setup = &self.setup;
        let identity = (target.labels.clone(), target.url.clone());
        let inherited = self.inherited.remove(&identity);
        let task = Task {
            job: Arc::clone(&setup.job),
            target: Arc::clone(&target),
            out_of_order_window: setup.out_of_order_window,
            failure_log: setup.failure_log.clone(),
        };
        let (recorder, before) = match inherited {
            Some((state, mut recorder)) => {
                recorder.adopt(task);
                (recorder, Some(state))
            }
            None => (
                Box::new(Recorder::new(
                    task,
                    Arc::clone(&self.parts.appender),
                    Arc::clone(&self.parts.clock),
                    self.parts.metrics.clone(),
                    Arc::clone(&self.parts.shared),
                )),
                None,
            ),
        };
        let state = Arc::new(TargetState::new(target, recorder.families()));
        if let Some(before) = before {
            state.inherit(&before);
        }
        self.spawn(state, recorder, Command::Run)
    }

    fn spawn(&self, state: Arc<TargetState>, recorder: Box<Recorder>, command: Command) -> Running {
        let (commands, receiver) = watch::channel(command);
        let target = &state.target;
        let task = Loop {
            recorder,
            fetcher: Arc::clone(&self.setup.fetcher),
            clock: Arc::clone(&self.parts.clock),
            metrics: self.parts.metrics.clone(),
            schedule: Schedule::new(target.interval, target.hash() ^ self.setup.seed),
            commands: receiver,
            refusal: self.refusal.subscribe(),
            state: Arc::clone(&state),
        };
        let task = match &self.parts.threads {
            Some(threads) => threads.spawn(task.run()),
            None => tokio::spawn(task.run()),
        };
        Running { state, commands, task }
    }

    /// Ends the series of targets that the reload has left behind.
    fn end_inherited(&mut self) {
        for (state, recorder) in std::mem::take(&mut self.inherited).into_values() {
            let running = self.spawn(state, recorder, Command::Remove);
            self.retiring.push(running);
        }
    }

    fn show(&self, mut dropped: Vec<Labels>) {
        let mut active: Vec<_> =
            self.running.values().map(|running| Arc::clone(&running.state)).collect();
        active.sort_by(|a, b| {
            (&a.target.url, &a.target.labels).cmp(&(&b.target.url, &b.target.labels))
        });
        let dropped_count = dropped.len() as u64;
        let kept = self.setup.job.limits.keep_dropped_targets;
        if kept > 0 {
            dropped.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        }
        *self.view.lock() = View { active, dropped, dropped_count };
    }

    /// Stops all loops and starts over with `setup`; what the loops have learned is kept for the
    /// targets that the next [`Pool::sync`] finds again.
    pub(super) async fn reload(mut self, setup: Setup) -> Self {
        let mut inherited = HashMap::new();
        for (_, running) in self.running.drain() {
            running.commands.send_replace(Command::Stop);
            if let Ok(Some(recorder)) = running.task.await {
                let target = &running.state.target;
                let identity = (target.labels.clone(), target.url.clone());
                inherited.insert(identity, (running.state, recorder));
            }
        }
        Self { setup, inherited, ..self }
    }

    /// Lets all targets go: their series end as when they vanish from discovery.
    pub(super) fn remove_all(&mut self) {
        self.sync(&[]);
    }

    /// Whether no loop is left.
    pub(super) fn is_finished(&self) -> bool {
        self.running.is_empty() && self.retiring.iter().all(|running| running.task.is_finished())
    }

    /// Stops all loops and leaves their series as they are: the server may be back soon.
    pub(super) async fn stop(&mut self) {
        let all: Vec<Running> = self
            .running
            .drain()
            .map(|(_, running)| running)
            .chain(self.retiring.drain(..))
            .collect();
        for running in &all {
            running.commands.send_replace(Command::Stop);
        }
        for running in all {
            if let Err(error) = running.task.await {
                tracing::error!(%error, "a scrape loop did not end in good order");
            }
        }
    }
}
