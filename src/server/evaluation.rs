//! What the evaluation of rules is made of, and who is told of their alerts.

use std::sync::Arc;

use parking_lot::RwLock;
use stint_model::Queryable;
use stint_promql::{Cancel, Engine, Workers};
use stint_storage::Disk;

use super::features;
use crate::api::Api;
use crate::cli::flags::Flags;
use crate::discovery::Hub;
use crate::ingest::Pipeline;
use crate::notify::{self, Notifier, NotifyMetrics};
use crate::rules::{AlertSink, Env, Manager, RuleMetrics, Slots};

/// With fewer steps of all series, rules are left to the thread that evaluates their group: that takes
/// the least of the machine, and nobody waits for them.
const STEPS_MIN: usize = 1 << 20;

/// Helps with large rules only.
#[derive(Debug)]
struct WhenLarge(Arc<dyn Workers>);

impl Workers for WhenLarge {
    fn beside(&self, help: &(dyn Fn() + Sync), own: &mut dyn FnMut()) {
        self.0.beside(help, own);
    }

    fn is_worthwhile(&self, steps: usize) -> bool {
        steps >= STEPS_MIN && self.0.is_worthwhile(steps)
    }
}

/// A manager that reads from `store` and writes through `pipeline`.
pub(super) fn manager(
    flags: &Flags,
    api: &Api,
    store: &Arc<dyn Queryable>,
    (engine, workers): (&Engine, Arc<dyn Workers>),
    pipeline: &Pipeline,
    sink: Arc<dyn AlertSink>,
) -> Arc<Manager> {
    let clock = &api.clock;
    Arc::new(Manager::new(Env {
        store: Arc::clone(store),
        engine: Arc::new(engine.clone().with_workers(Arc::new(WhenLarge(workers)))),
        appender: pipeline.source("rules"),
        sink,
        clock: Arc::clone(clock),
        metrics: RuleMetrics::new(&api.metrics, clock),
        cancel: Cancel::new(Arc::clone(clock)),
        external_url: api.options.external_url.clone(),
        slots: features::concurrent_rules(flags).map(Slots::new),
        room: Arc::default(),
        resend_delay: flags.rules_alert_resend_delay,
        outage_tolerance: flags.rules_alert_for_outage_tolerance,
        grace_period: flags.rules_alert_for_grace_period,
        external_labels: RwLock::default(),
    }))
}

/// A notifier that keeps what it has to remember on `disk`.
pub(super) fn notifier(
    flags: &Flags,
    api: &Api,
    disk: &Arc<dyn Disk>,
    discovery: &Arc<Hub>,
) -> Arc<Notifier> {
    let options = notify::Options {
        capacity: flags.alertmanager_queue_capacity as usize,
        batch: flags.alertmanager_batch_size as usize,
        drain: !flags.alertmanager_no_drain,
    };
    let parts = notify::Parts {
        clock: Arc::clone(&api.clock),
        metrics: NotifyMetrics::new(&api.metrics, &api.clock),
        discovery: Arc::clone(discovery),
        disk: Arc::clone(disk),
        external_url: api.options.external_url.clone(),
    };
    Arc::new(Notifier::new(options, parts))
}
