//! What the evaluation of rules is made of.

use std::sync::Arc;

use parking_lot::RwLock;
use stint_model::Queryable;
use stint_promql::{Cancel, Engine};

use super::features;
use crate::api::Api;
use crate::cli::flags::Flags;
use crate::ingest::Pipeline;
use crate::rules::{Env, Manager, NoSink, RuleMetrics, Slots};

/// A manager that reads from `store` and writes through `pipeline`.
pub(super) fn manager(
    flags: &Flags,
    api: &Api,
    store: &Arc<dyn Queryable>,
    engine: &Arc<Engine>,
    pipeline: &Pipeline,
) -> Arc<Manager> {
    let clock = &api.clock;
    Arc::new(Manager::new(Env {
        store: Arc::clone(store),
        engine: Arc::clone(engine),
        appender: pipeline.source("rules"),
        sink: Arc::new(NoSink),
        clock: Arc::clone(clock),
        metrics: RuleMetrics::new(&api.metrics, clock),
        cancel: Cancel::new(Arc::clone(clock)),
        external_url: api.options.external_url.clone(),
        slots: features::concurrent_rules(flags).map(Slots::new),
        resend_delay: flags.rules_alert_resend_delay,
        outage_tolerance: flags.rules_alert_for_outage_tolerance,
        grace_period: flags.rules_alert_for_grace_period,
        external_labels: RwLock::default(),
    }))
}
