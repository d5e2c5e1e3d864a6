//! A group of rules and its evaluation at one time. Nothing here waits or knows what time it is.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::labels::METRIC_NAME;
use stint_model::{Histogram, Labels, Queryable, RejectReason, Timestamp, Value};
use stint_promql::{InstantSample, QueryError, QueryValue, SampleValue};

use super::alerting::{ALERT_NAME, Alerts, Seen};
use super::env::{Env, Slots};
use super::lattice::Lattice;
use super::metrics::GroupMetrics;
use super::order;
use super::outputs::{self, Outputs};
use super::round::{Plan, Round};
use super::spec::{AlertSpec, GroupSpec, RuleSpec};
use crate::template::{QueryFunc, TemplateData, table_link};

/// How the last evaluation of a rule went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleStatus {
    /// Why it failed; `None` when it went well, or was never evaluated.
    pub error: Option<String>,
    /// When it began, by the clock.
    pub evaluated_at: Option<Timestamp>,
    /// How long it took.
    pub took: Duration,
}

/// A rule and what is known of it.
#[derive(Debug)]
pub struct Rule {
    /// What the file says.
    pub spec: RuleSpec,
    status: Mutex<RuleStatus>,
    outputs: Mutex<Outputs>,
    alerts: Mutex<Alerts>,
    /// Whether it is known since when its alerts are there; until then nothing is written about it.
    restored: AtomicBool,
    url: Arc<str>,
}

/// How the last evaluation of a group went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// When it began, by the clock.
    pub evaluated_at: Option<Timestamp>,
    /// How long it took.
    pub took: Duration,
}

/// A group of rules.
pub struct Group {
    /// What the file says.
    pub spec: GroupSpec,
    /// When it is evaluated.
    pub lattice: Lattice,
    rules: Vec<Rule>,
    /// Which rules may be evaluated together, in order.
    steps: Vec<Vec<usize>>,
    plan: Arc<Plan>,
    status: Mutex<GroupStatus>,
    /// Series of rules that are gone, to be ended at the next evaluation.
    orphans: Mutex<Vec<Labels>>,
    /// Whether the state of alerts is still to be restored.
    restores: AtomicBool,
    pub(super) metrics: GroupMetrics,
}

/// Why an evaluation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum EvalError {
    #[error("{0}")]
    Query(#[from] QueryError),
    #[error("rule result is not a vector or scalar")]
    NotVector,
    #[error("vector contains metrics with the same labelset after applying {0} labels")]
    SameLabels(&'static str),
    #[error("exceeded limit of {limit} with {found} series")]
    Limit { limit: usize, found: usize },
    #[error("{0}")]
    AlertLimit(#[from] super::alerting::LimitExceeded),
}

impl Rule {
    fn new(spec: RuleSpec, restored: bool, external_url: &str) -> Self {
        Self {
            url: Arc::from(format!("{external_url}{}", table_link(&spec.query))),
            spec,
            status: Mutex::default(),
            outputs: Mutex::default(),
            alerts: Mutex::default(),
            restored: AtomicBool::new(restored),
        }
    }

    /// How its last evaluation went.
    pub fn status(&self) -> RuleStatus {
        self.status.lock().clone()
    }

    /// Looks at its alerts.
    pub fn with_alerts<T>(&self, look: impl FnOnce(&Alerts) -> T) -> T {
        look(&self.alerts.lock())
    }

    /// Changes its alerts.
    pub(super) fn change_alerts(&self, change: impl FnOnce(&mut Alerts)) {
        change(&mut self.alerts.lock());
    }

    /// From now on its series are written.
    pub(super) fn set_restored(&self) {
        self.restored.store(true, Ordering::Release);
    }
}

impl Group {
    /// A group as its file says. When it `restores`, nothing is written about its alerts before
    /// [`Group::restore`].
    pub fn new(spec: GroupSpec, restores: bool, env: &Env) -> Self {
        let metrics = env.metrics.group(&spec.key(), spec.interval, spec.rules.len());
        let steps = if env.slots.is_some() {
            order::steps(&spec.rules)
        } else {
            (0..spec.rules.len()).map(|at| vec![at]).collect()
        };
        let rules = spec.rules.iter().cloned();
        Self {
            lattice: Lattice::new(&spec.file, &spec.name, spec.interval),
            rules: rules.map(|rule| Rule::new(rule, !restores, &env.external_url)).collect(),
            plan: Arc::new(Plan::new(&spec.rules, &steps)),
            spec,
            steps,
            status: Mutex::default(),
            orphans: Mutex::default(),
            restores: AtomicBool::new(restores),
            metrics,
        }
    }

    /// Its rules, in order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// How its last evaluation went.
    pub fn status(&self) -> GroupStatus {
        *self.status.lock()
    }

    /// Whether [`Group::restore`] is still to be called.
    pub fn restores(&self) -> bool {
        self.restores.load(Ordering::Acquire)
    }

    pub(super) fn set_restored(&self) {
        self.restores.store(false, Ordering::Release);
    }

    /// Takes over what `former`, a group of the same file and name, knows of the same rules. Rules
    /// are the same by name and labels; of several, one after the other.
    pub fn adopt(&self, former: &Self) {
        let mut taken: HashSet<usize> = HashSet::new();
        for rule in &self.rules {
            let found = former.rules.iter().enumerate().find(|(at, other)| {
                !taken.contains(at)
                    && other.spec.name == rule.spec.name
                    && other.spec.labels == rule.spec.labels
            });
            let Some((at, other)) = found else { continue };
            taken.insert(at);
            rule.outputs.lock().adopt(&other.outputs.lock());
            if rule.spec.alert().is_some() && other.spec.alert().is_some() {
                rule.alerts.lock().adopt(&other.alerts.lock());
            }
        }
        let mut orphans = self.orphans.lock();
        orphans.append(&mut former.orphans.lock());
        for (at, rule) in former.rules.iter().enumerate() {
            if !taken.contains(&at) {
                orphans.extend(rule.outputs.lock().series());
            }
        }
        *self.status.lock() = former.status();
    }

    /// Ends everything that it has written, as of `at`: it is gone for good.
    pub fn end(&self, at: Timestamp, env: &Env) {
        let mut series = std::mem::take(&mut *self.orphans.lock());
        for rule in &self.rules {
            series.extend(rule.outputs.lock().series());
        }
        let at = at - self.spec.query_offset;
        if let Err(error) = outputs::end(&series, at, env.appender.as_ref()) {
            let group = self.spec.name.as_str();
            tracing::warn!(group, %error, "the series of a removed group were not marked as ended");
        }
    }

    /// Evaluates its rules at `at`; `missed` times were left out before.
    pub fn eval(&self, at: Timestamp, missed: u64, env: &Env) {
        self.metrics.iterated(missed);
        let (began, evaluated_at) = (env.clock.monotonic(), env.clock.now());
        let samples = AtomicUsize::new(0);
        let round = Round::new(&self.plan, &env.store, &env.room, at - self.spec.query_offset);
        for (number, step) in self.steps.iter().enumerate() {
            self.eval_step(step, (at, &round), env, &samples);
            round.step_done(number);
        }
        drop(round);
        self.end_orphans(at, env);
        let took = env.clock.monotonic().saturating_sub(began);
        let rules_took = self.rules.iter().map(|rule| rule.status.lock().took).sum();
        *self.status.lock() = GroupStatus { evaluated_at: Some(evaluated_at), took };
        self.metrics.done(at, took, rules_took, samples.into_inner());
    }

    /// Evaluates rules that do not depend on each other, as many at the same time as there is room for.
    fn eval_step(
        &self,
        step: &[usize],
        (at, round): (Timestamp, &Round),
        env: &Env,
        samples: &AtomicUsize,
    ) {
        let eval = |rule: &usize| {
            if let Some(rule) = self.rules.get(*rule) {
                let number = self.eval_rule(rule, (at, round), env);
                samples.fetch_add(number, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            let eval = &eval;
            let (last, others) = match step.split_last() {
                Some((last, others)) => (Some(last), others),
                None => (None, step),
            };
            for rule in others {
                match env.slots.as_ref().and_then(Slots::take) {
                    Some(slot) => {
                        scope.spawn(move || {
                            let _slot = slot;
                            eval(rule);
                        });
                    }
                    None => eval(rule),
                }
            }
            last.into_iter().for_each(eval);
        });
    }

    fn end_orphans(&self, at: Timestamp, env: &Env) {
        let mut orphans = self.orphans.lock();
        if orphans.is_empty() {
            return;
        }
        match outputs::end(&orphans, at - self.spec.query_offset, env.appender.as_ref()) {
            Ok(()) => orphans.clear(),
            Err(error) => {
                let group = self.spec.name.as_str();
                tracing::warn!(group, %error, "the series of removed rules were not marked as ended");
            }
        }
    }

    /// Evaluates a rule, stores the outcome, and passes alerts on. Answers with the number of samples.
    fn eval_rule(&self, rule: &Rule, (at, round): (Timestamp, &Round), env: &Env) -> usize {
        let (began, evaluated_at) = (env.clock.monotonic(), env.clock.now());
        let mut outputs = rule.outputs.lock();
        let outcome = match rule.spec.alert() {
            None => self.record(rule, &mut outputs, round, env),
            Some(alert) => self.alert(rule, alert, (at, round), env),
        };
        let (number, error) = match outcome {
            Ok(samples) => {
                let number = samples.len();
                (number, self.store(rule, &mut outputs, at, samples, env))
            }
            Err(error) => {
                let (group, name) = (self.spec.name.as_str(), rule.spec.name.as_str());
                if !matches!(error, EvalError::Query(QueryError::Canceled(_))) {
                    tracing::warn!(group, rule = name, %error, "evaluating a rule failed");
                }
                self.metrics.failed();
                (0, Some(error.to_string()))
            }
        };
        let took = env.clock.monotonic().saturating_sub(began);
        self.metrics.evaluated(took);
        *rule.status.lock() = RuleStatus { error, evaluated_at: Some(evaluated_at), took };
        number
    }

    /// Stores the samples of a rule. Answers with what went wrong, if something did.
    fn store(
        &self,
        rule: &Rule,
        outputs: &mut Outputs,
        at: Timestamp,
        samples: Vec<(Labels, Value)>,
        env: &Env,
    ) -> Option<String> {
        let (group, name) = (self.spec.name.as_str(), rule.spec.name.as_str());
        match outputs.write(at - self.spec.query_offset, samples, env.appender.as_ref()) {
            Ok(stored) => {
                for (reason, dropped) in &stored.refused {
                    tracing::warn!(group, rule = name, dropped, %reason, "results were not stored");
                }
                stored.refused.last().map(|(reason, _): &(RejectReason, usize)| reason.to_string())
            }
            Err(error) => {
                tracing::warn!(group, rule = name, %error, "the results of a rule were not stored");
                self.metrics.failed();
                Some(error.to_string())
            }
        }
    }

    fn query(rule: &Rule, round: &Round, env: &Env) -> Result<Vec<InstantSample>, EvalError> {
        let parsed = (rule.spec.query.as_str(), &*rule.spec.expr);
        let store: &dyn Queryable = if round.serves(&rule.spec.expr) { round } else { &*env.store };
        let answer = env.engine.instant_parsed(store, parsed, round.at(), &env.cancel)?;
        match answer.value {
            QueryValue::Vector(samples) => Ok(samples),
            QueryValue::Scalar { at, value } => Ok(vec![InstantSample {
                labels: Labels::default(),
                at,
                value: SampleValue::Float(value),
            }]),
            QueryValue::String { .. } | QueryValue::Matrix(_) => Err(EvalError::NotVector),
        }
    }

    fn record(
        &self,
        rule: &Rule,
        outputs: &mut Outputs,
        round: &Round,
        env: &Env,
    ) -> Result<Vec<(Labels, Value)>, EvalError> {
        let found = Self::query(rule, round, env)?;
        let rename = |labels: &Labels| {
            let mut made = labels.to_builder();
            made.set(METRIC_NAME, &rule.spec.name);
            for (name, value) in &rule.spec.labels {
                made.set(name, value.raw());
            }
            made.build()
        };
        let mut samples = Vec::with_capacity(found.len());
        for sample in found {
            let value = match sample.value {
                SampleValue::Float(value) => Value::Float(value),
                SampleValue::Histogram(histogram) => {
                    Value::Histogram(Arc::new(Histogram::Float((*histogram).clone())))
                }
            };
            samples.push((outputs.renamed(&sample.labels, rename), value));
        }
        let distinct: HashSet<&Labels, foldhash::fast::RandomState> =
            samples.iter().map(|(labels, _)| labels).collect();
        if distinct.len() < samples.len() {
            return Err(EvalError::SameLabels("rule"));
        }
        let (limit, found) = (self.spec.limit, samples.len());
        if limit > 0 && found > limit {
            return Err(EvalError::Limit { limit, found });
        }
        Ok(samples)
    }

    fn alert(
        &self,
        rule: &Rule,
        spec: &AlertSpec,
        (at, round): (Timestamp, &Round),
        env: &Env,
    ) -> Result<Vec<(Labels, Value)>, EvalError> {
        let found = Self::query(rule, round, env)?;
        let mut seen = BTreeMap::new();
        let external_labels = env.external_labels();
        for sample in found {
            let data = TemplateData {
                labels: &sample.labels,
                value: &sample.value,
                external_labels: &external_labels,
                external_url: &env.external_url,
                at,
            };
            let (labels, annotations) = expanded(rule, spec, &data, env);
            let value = match sample.value {
                SampleValue::Float(value) => value,
                SampleValue::Histogram(_) => 0.0,
            };
            if seen.insert(labels, Seen { annotations, value }).is_some() {
                return Err(EvalError::SameLabels("alert"));
            }
        }
        let mut alerts = rule.alerts.lock();
        let told = alerts.update(spec, at, seen, self.spec.limit)?;
        let sent = alerts.to_send(at, self.spec.interval, env.resend_delay, &rule.url);
        drop(alerts);
        if !sent.is_empty() {
            env.sink.send(sent);
        }
        if !rule.restored.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        Ok(told.into_iter().map(|(labels, value)| (labels, Value::Float(value))).collect())
    }
}

/// The labels and annotations of an alert.
fn expanded(
    rule: &Rule,
    spec: &AlertSpec,
    data: &TemplateData<'_>,
    env: &Env,
) -> (Labels, super::Annotations) {
    let query = Query { env, at: data.at };
    let fill = |text: &super::expand::Text| {
        env.metrics.expanded();
        text.expand(data, &query, |error| {
            env.metrics.expansion_failed();
            let alert = rule.spec.name.as_str();
            tracing::warn!(alert, error, "a template of an alert could not be filled in");
        })
    };
    let mut labels = data.labels.to_builder();
    labels.remove(METRIC_NAME);
    for (name, text) in &rule.spec.labels {
        labels.set(name, &fill(text));
    }
    labels.set(ALERT_NAME, &rule.spec.name);
    let annotations = spec.annotations.iter().map(|(name, text)| (name.clone(), fill(text)));
    (labels.build(), annotations.collect())
}

/// The queries of templates.
struct Query<'a> {
    env: &'a Env,
    at: Timestamp,
}

impl QueryFunc for Query<'_> {
    fn query(&self, expr: &str) -> Result<Vec<InstantSample>, String> {
        let Env { engine, store, cancel, .. } = self.env;
        let query = stint_promql::InstantQuery { expr, at: self.at, lookback: None };
        let answer =
            engine.instant(store.as_ref(), &query, cancel).map_err(|error| error.to_string())?;
        match answer.value {
            QueryValue::Vector(samples) => Ok(samples),
            QueryValue::Scalar { at, value } => Ok(vec![InstantSample {
                labels: Labels::default(),
                at,
                value: SampleValue::Float(value),
            }]),
            QueryValue::String { .. } | QueryValue::Matrix(_) => {
                Err("rule result is not a vector or scalar".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod tests;
