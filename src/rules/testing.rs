//! Rules over a store in memory, in a time that stands still until a test moves it.

use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use stint_model::clock::SimClock;
use stint_model::{
    AppendError, Appended, Appender, Batch, Labels, Querier, QueryError, Queryable, RejectReason,
    Rejected, Sample, SeriesKey, SeriesRef, Span, TimeRange, Timestamp, Value, is_stale,
};
use stint_promql::script::MemoryStore;
use stint_promql::{Cancel, Engine, EngineOptions, InstantQuery, QueryValue, SampleValue};

use super::alert::{Alert, AlertSink};
use super::env::{Env, Slots};
use super::group::Group;
use super::metrics::RuleMetrics;
use super::spec::{self, GroupSpec, Reading};
use crate::metrics::Metrics;

/// A store that takes samples in order of time, as the real one does.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    memory: MemoryStore,
    /// With the time of the newest sample of each; a handle is a position.
    series: Vec<(Labels, Timestamp)>,
    /// Handles below are not known any more.
    forgotten: u64,
    fails: bool,
    batches: usize,
}

impl Store {
    /// Appends fail from now on, or work again.
    pub(crate) fn set_failing(&self, fails: bool) {
        self.0.lock().fails = fails;
    }

    /// All handles that were given out mean nothing any more.
    pub(crate) fn forget_handles(&self) {
        let mut inner = self.0.lock();
        let known = inner.series.len() as u64;
        inner.forgotten = known;
    }

    /// How many batches came.
    pub(crate) fn batches(&self) -> usize {
        self.0.lock().batches
    }

    /// Adds one native histogram of the series `name`.
    pub(crate) fn append_histogram(
        &self,
        name: &str,
        at: Timestamp,
        histogram: stint_model::histogram::FloatHistogram,
    ) {
        let labels = Labels::from_pairs([("__name__", name)]);
        let value = Value::Histogram(Arc::new(stint_model::Histogram::Float(histogram)));
        self.0.lock().memory.append(&labels, Sample { at, started: None, value });
    }

    /// Adds one sample.
    pub(crate) fn put(&self, labels: &Labels, at: Timestamp, value: f64) {
        let value = if is_stale(value) { Value::Stale } else { Value::Float(value) };
        self.0.lock().memory.append(labels, Sample { at, started: None, value });
    }
}

impl Queryable for Store {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, QueryError> {
        self.0.lock().memory.querier(range)
    }
}

impl Appender for Store {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        let mut inner = self.0.lock();
        if inner.fails {
            return Err(AppendError::Io("no disk".into()));
        }
        inner.batches += 1;
        let mut appended = Appended::default();
        for (row, content) in batch.rows.iter().enumerate() {
            let place = match &content.series {
                SeriesKey::Known(known) if known.0 < inner.forgotten => None,
                SeriesKey::Known(known) => Some(known.0 as usize),
                SeriesKey::Labels(labels) => {
                    let first = inner.forgotten as usize;
                    let known =
                        inner.series.iter().skip(first).position(|(other, _)| other == labels);
                    Some(known.map_or_else(
                        || {
                            inner.series.push((labels.clone(), Timestamp::MIN));
                            inner.series.len() - 1
                        },
                        |known| known + first,
                    ))
                }
            };
            let Some(place) = place else {
                appended.refs.push(None);
                appended.rejected.push(Rejected { row, reason: RejectReason::UnknownSeries });
                continue;
            };
            appended.refs.push(Some(SeriesRef(place as u64)));
            let (labels, newest) = inner.series[place].clone();
            if newest > content.sample.at {
                appended.rejected.push(Rejected { row, reason: RejectReason::OutOfOrder });
                continue;
            }
            inner.series[place].1 = content.sample.at;
            inner.memory.append(&labels, content.sample.clone());
        }
        Ok(appended)
    }
}

/// Keeps what is sent.
#[derive(Default)]
pub(crate) struct Sent(pub(crate) Mutex<Vec<Alert>>);

impl AlertSink for Sent {
    fn send(&self, alerts: Vec<Alert>) {
        self.0.lock().extend(alerts);
    }
}

/// Everything that rules need.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) sent: Arc<Sent>,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) metrics: Metrics,
    pub(crate) env: Arc<Env>,
}

impl World {
    /// An empty one at time 0.
    pub(crate) fn new() -> Self {
        Self::with(Store::default(), None)
    }

    /// One over an existing store.
    pub(crate) fn with(store: Store, slots: Option<Slots>) -> Self {
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        let (sent, metrics) = (Arc::new(Sent::default()), Metrics::new());
        let dyn_clock: Arc<dyn stint_model::Clock> = clock.clone();
        let env = Env {
            store: Arc::new(store.clone()),
            engine: Arc::new(Engine::new(EngineOptions::default())),
            appender: Arc::new(store.clone()),
            sink: Arc::clone(&sent) as Arc<dyn AlertSink>,
            clock: Arc::clone(&dyn_clock),
            metrics: RuleMetrics::new(&metrics, &dyn_clock),
            cancel: Cancel::new(dyn_clock),
            external_url: "http://localhost:9090".into(),
            slots,
            room: Arc::default(),
            resend_delay: Span::MINUTE,
            outage_tolerance: Span::HOUR,
            grace_period: Span(600_000),
            external_labels: RwLock::default(),
        };
        Self { store, sent, clock, metrics, env: Arc::new(env) }
    }

    /// A group that does not restore.
    pub(crate) fn group(&self, yaml: &str) -> Group {
        Group::new(group_spec(yaml), false, &self.env)
    }

    /// Moves to `at` and evaluates.
    pub(crate) fn eval(&self, group: &Group, at: i64) {
        self.clock.step_to(Timestamp(at));
        group.eval(Timestamp(at), 0, &self.env);
    }

    /// A sample of a series such as `up{job="a"}`.
    pub(crate) fn put(&self, series: &str, at: i64, value: f64) {
        let labels = stint_promql::parse::parse_metric(series).unwrap();
        self.store.put(&labels, Timestamp(at), value);
    }

    /// What an expression finds, in order, without what is stale.
    pub(crate) fn ask(&self, expr: &str, at: i64) -> Vec<String> {
        let query = InstantQuery { expr, at: Timestamp(at), lookback: None };
        let answer = self.env.engine.instant(&self.store, &query, &self.env.cancel).unwrap();
        let QueryValue::Vector(samples) = answer.value else { panic!("{expr} is no vector") };
        let mut shown: Vec<String> = samples
            .into_iter()
            .map(|sample| match sample.value {
                SampleValue::Float(value) => format!("{} {value}", sample.labels),
                SampleValue::Histogram(histogram) => {
                    format!("{} histogram of {}", sample.labels, histogram.count)
                }
            })
            .collect();
        shown.sort();
        shown
    }
}

/// The only group of a file.
pub(crate) fn group_spec(yaml: &str) -> GroupSpec {
    let reading = Reading {
        features: EngineOptions::default().features,
        name_scheme: stint_model::labels::NameScheme::Utf8,
        interval: Span::MINUTE,
        query_offset: Span::ZERO,
        ignore_unknown: false,
    };
    let mut read = spec::read(Path::new("r.yml"), yaml, &reading).unwrap_or_else(|errors| {
        panic!("{}", errors.join("\n"));
    });
    read.groups.remove(0)
}
