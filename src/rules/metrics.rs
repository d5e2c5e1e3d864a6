//! The figures of rules, under the names that dashboards and alerts know.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{GaugeVec, IntCounter, IntCounterVec, Opts};
use stint_model::{Clock, Span, Timestamp};

use crate::metrics::summary::SummaryVec;
use crate::metrics::{Metrics, counter, counter_vec, register};

/// The label that tells groups apart.
const GROUP: &str = "rule_group";

/// All families about rules.
#[derive(Clone)]
pub struct RuleMetrics {
    evaluations: IntCounterVec,
    failures: IntCounterVec,
    iterations: IntCounterVec,
    missed: IntCounterVec,
    interval: GaugeVec,
    last_duration: GaugeVec,
    last_rule_duration: GaugeVec,
    last_samples: GaugeVec,
    last_evaluation: GaugeVec,
    last_restore: GaugeVec,
    rules: GaugeVec,
    rule_duration: SummaryVec,
    group_duration: SummaryVec,
    expansions: IntCounter,
    expansion_failures: IntCounter,
}

/// The figures of one group.
#[derive(Clone)]
pub struct GroupMetrics {
    all: RuleMetrics,
    key: String,
}

fn gauge_vec(metrics: &Metrics, name: &str, help: &str) -> GaugeVec {
    let made = GaugeVec::new(Opts::new(name, help), &[GROUP]).expect("metric names are valid");
    register(metrics.registry(), made)
}

impl RuleMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics, clock: &Arc<dyn Clock>) -> Self {
        let counters =
            |name: &str, help: &str| counter_vec(metrics.registry(), name, help, &[GROUP]);
        let gauges = |name: &str, help: &str| gauge_vec(metrics, name, help);
        let summary = |name: &str, help: &str| {
            SummaryVec::without_label(metrics, Arc::clone(clock), name, help, &[0.5, 0.9, 0.99])
        };
        Self {
            evaluations: counters("prometheus_rule_evaluations_total", "Evaluations of rules."),
            failures: counters(
                "prometheus_rule_evaluation_failures_total",
                "Evaluations of rules that failed, or whose outcome could not be stored.",
            ),
            iterations: counters(
                "prometheus_rule_group_iterations_total",
                "Points in time at which groups were to be evaluated, missed ones included.",
            ),
            missed: counters(
                "prometheus_rule_group_iterations_missed_total",
                "Points in time that were left out because an evaluation took too long.",
            ),
            interval: gauges(
                "prometheus_rule_group_interval_seconds",
                "Distance between evaluations of a group.",
            ),
            last_duration: gauges(
                "prometheus_rule_group_last_duration_seconds",
                "Time that the last evaluation of a group took.",
            ),
            last_rule_duration: gauges(
                "prometheus_rule_group_last_rule_duration_sum_seconds",
                "Time that the rules of a group took at its last evaluation, summed up.",
            ),
            last_samples: gauges(
                "prometheus_rule_group_last_evaluation_samples",
                "Samples that the last evaluation of a group gave.",
            ),
            last_evaluation: gauges(
                "prometheus_rule_group_last_evaluation_timestamp_seconds",
                "When a group was last evaluated, in seconds since 1970.",
            ),
            last_restore: gauges(
                "prometheus_rule_group_last_restore_duration_seconds",
                "Time that it took to find out since when alerts were there before the start.",
            ),
            rules: gauges("prometheus_rule_group_rules", "Rules of a group."),
            rule_duration: summary(
                "prometheus_rule_evaluation_duration_seconds",
                "Time that evaluations of rules took.",
            ),
            group_duration: summary(
                "prometheus_rule_group_duration_seconds",
                "Time that evaluations of groups took.",
            ),
            expansions: counter(
                metrics.registry(),
                "prometheus_template_text_expansions_total",
                "Labels and annotations of alerts that were filled in.",
            ),
            expansion_failures: counter(
                metrics.registry(),
                "prometheus_template_text_expansion_failures_total",
                "Labels and annotations of alerts that could not be filled in.",
            ),
        }
    }

    /// The figures of the group `key`, which has this many rules. Its counters begin at 0.
    pub fn group(&self, key: &str, interval: Span, rules: usize) -> GroupMetrics {
        for counters in [&self.evaluations, &self.failures, &self.iterations, &self.missed] {
            counters.with_label_values(&[key]);
        }
        for gauges in [&self.last_duration, &self.last_rule_duration, &self.last_samples] {
            gauges.with_label_values(&[key]);
        }
        self.last_evaluation.with_label_values(&[key]);
        self.last_restore.with_label_values(&[key]);
        self.interval.with_label_values(&[key]).set(interval.as_secs_f64());
        self.rules.with_label_values(&[key]).set(rules as f64);
        GroupMetrics { all: self.clone(), key: key.to_owned() }
    }

    /// A label or annotation of an alert was filled in.
    pub fn expanded(&self) {
        self.expansions.inc();
    }

    /// One could not be.
    pub fn expansion_failed(&self) {
        self.expansion_failures.inc();
    }

    /// Removes the figures of the group `key`, which is gone.
    pub fn remove(&self, key: &str) {
        // Figures that were never set are not there to be removed.
        for counters in [&self.evaluations, &self.failures, &self.iterations, &self.missed] {
            let _ = counters.remove_label_values(&[key]);
        }
        for gauges in [
            &self.interval,
            &self.last_duration,
            &self.last_rule_duration,
            &self.last_samples,
            &self.last_evaluation,
            &self.last_restore,
            &self.rules,
        ] {
            let _ = gauges.remove_label_values(&[key]);
        }
    }
}

impl GroupMetrics {
    /// A rule was evaluated.
    pub fn evaluated(&self, took: Duration) {
        self.all.evaluations.with_label_values(&[&self.key]).inc();
        self.all.rule_duration.observe("", took.as_secs_f64());
    }

    /// The evaluation of a rule failed.
    pub fn failed(&self) {
        self.all.failures.with_label_values(&[&self.key]).inc();
    }

    /// The group is evaluated now, and left out this many times before.
    pub fn iterated(&self, missed: u64) {
        self.all.iterations.with_label_values(&[&self.key]).inc_by(missed + 1);
        self.all.missed.with_label_values(&[&self.key]).inc_by(missed);
    }

    /// The group was evaluated at `at`.
    pub fn done(&self, at: Timestamp, took: Duration, rules_took: Duration, samples: usize) {
        let key = &[self.key.as_str()];
        self.all.last_duration.with_label_values(key).set(took.as_secs_f64());
        self.all.last_rule_duration.with_label_values(key).set(rules_took.as_secs_f64());
        self.all.last_samples.with_label_values(key).set(samples as f64);
        self.all.last_evaluation.with_label_values(key).set(at.as_secs_f64());
        self.all.group_duration.observe("", took.as_secs_f64());
    }

    /// The state of alerts was restored.
    pub fn restored(&self, took: Duration) {
        self.all.last_restore.with_label_values(&[&self.key]).set(took.as_secs_f64());
    }
}
