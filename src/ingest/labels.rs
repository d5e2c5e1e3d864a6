//! Labels that every series must carry: added where they are missing, checked when a series comes
//! with its labels, and remembered where they are wrong.
//!
//! Sources send the labels of a series once and its handle from then on, so that this costs
//! nothing per sample. When the rules change, handles from before are refused as unknown until
//! their series have come with labels again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prometheus::IntCounterVec;
use serde::Serialize;
use stint_model::labels::JOB;
use stint_model::{
    Batch, Clock, Labels, RejectReason, Rejected, Row, SeriesKey, SeriesRef, Timestamp, Value,
};

use crate::config::RequiredLabels;

/// Where rules keep since when their alerts are there. They look for it by the alert's own labels after
/// a restart, so that nothing is added.
const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
/// Series of which is remembered that they were counted; beyond, a series that comes again is
/// counted again.
const COUNTED_MAX: usize = 100_000;
/// Rows of the report.
const ROWS_MAX: usize = 1000;
/// Characters of a value that the report shows.
const VALUE_CHARS_MAX: usize = 200;

/// The rules in force, and what broke them.
pub struct LabelPolicy {
    state: RwLock<Arc<State>>,
    clock: Arc<dyn Clock>,
    violations: IntCounterVec,
}

struct State {
    required: RequiredLabels,
    /// The handles of series that came since the rules changed; `None` where they never did.
    settled: Option<RwLock<Bits>>,
    found: Mutex<Found>,
}

/// Numbers, a bit each.
#[derive(Default)]
struct Bits(Vec<u64>);

#[derive(Default)]
struct Found {
    counted: HashSet<u64>,
    /// By label, value and job.
    rows: BTreeMap<(String, String, String), Violation>,
    left_out: u64,
}

/// What is wrong with the labels of series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelReport {
    /// Whether series that break a rule are kept from being forwarded.
    pub withhold: bool,
    /// The rules.
    pub rules: Vec<RuleReport>,
    /// What broke them, since the server started or the rules changed; most series first.
    pub violations: Vec<Violation>,
    /// Series of which the report has no room to tell.
    pub left_out: u64,
}

/// A label that series must carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// Its name.
    pub label: String,
    /// What series get that have none.
    pub value: Option<String>,
    /// What it may be.
    pub allowed: String,
}

/// Series of one job that break one rule in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The label.
    pub label: String,
    /// What it is; empty where it is missing.
    pub found: String,
    /// The job of the series.
    pub job: String,
    /// How many series.
    pub series: u64,
    /// One of them.
    pub example: String,
    /// When the first of them came, in milliseconds.
    pub first_seen: i64,
    /// When the last of them came with its labels, in milliseconds.
    pub last_seen: i64,
}

impl Bits {
    fn has(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Handles are numbered from one on, so that this stays as small as the store is.
    fn set(&mut self, number: u64) {
        let Ok(at) = usize::try_from(number / 64) else { return };
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        if let Some(word) = self.0.get_mut(at) {
            *word |= 1 << (number % 64);
        }
    }
}

/// One batch under the rules that held when it came.
pub(super) struct Checked<'b> {
    state: Arc<State>,
    /// The batch, with labels added.
    pub(super) batch: Cow<'b, Batch>,
    /// Rows whose handles are from before a change of the rules.
    pub(super) refused: Vec<Rejected>,
}

impl LabelPolicy {
    /// No rules.
    pub(super) fn new(clock: Arc<dyn Clock>, violations: IntCounterVec) -> Self {
        let state =
            State { required: RequiredLabels::default(), settled: None, found: Mutex::default() };
        Self { state: RwLock::new(Arc::new(state)), clock, violations }
    }

    /// Rules that hold from the start.
    pub fn begin(&self, required: &RequiredLabels) {
        self.replace(required, false);
    }

    /// Other rules. Series that were known by a handle have to come with their labels again.
    pub fn change(&self, required: &RequiredLabels) {
        if self.state.read().required != *required {
            self.replace(required, true);
        }
    }

    fn replace(&self, required: &RequiredLabels, settle: bool) {
        *self.state.write() = Arc::new(State {
            required: required.clone(),
            settled: settle.then(RwLock::default),
            found: Mutex::default(),
        });
    }

    /// Checks a batch.
    pub(super) fn check<'b>(&self, batch: &'b Batch) -> Checked<'b> {
        let state = Arc::clone(&self.state.read());
        let mut batch = Cow::Borrowed(batch);
        let refused = state.unsettled(&batch);
        if !state.required.rules.is_empty() {
            self.label(&state, &mut batch);
        }
        Checked { state, batch, refused }
    }

    fn label(&self, state: &State, batch: &mut Cow<'_, Batch>) {
        let mut complete = Vec::new();
        for (at, row) in batch.rows.iter().enumerate() {
            let SeriesKey::Labels(labels) = &row.series else { continue };
            // What has no name is refused by the store, whatever else it has.
            if labels.is_empty() || labels.metric_name() == Some(ALERTS_FOR_STATE) {
                continue;
            }
            let added = state.completed(labels);
            self.note(state, added.as_ref().unwrap_or(labels));
            complete.extend(added.map(|added| (at, added)));
        }
        if complete.is_empty() {
            return;
        }
        let batch = batch.to_mut();
        for (at, labels) in complete {
            if let Some(row) = batch.rows.get_mut(at) {
                row.series = SeriesKey::Labels(labels);
            }
        }
    }

    /// Remembers what is wrong with `labels`.
    fn note(&self, state: &State, labels: &Labels) {
        let mut broken = state.required.broken_by(labels).peekable();
        if broken.peek().is_none() {
            return;
        }
        let now = self.clock.now();
        let mut found = state.found.lock();
        let hash = labels.stable_hash();
        let is_new = !found.counted.contains(&hash);
        if is_new && found.counted.len() < COUNTED_MAX {
            found.counted.insert(hash);
        }
        for (rule, value) in broken {
            let problem = if value.is_empty() { "missing" } else { "not_allowed" };
            if is_new {
                self.violations.with_label_values(&[rule.name.as_str(), problem]).inc();
            }
            found.note(&rule.name, value, labels, is_new, now);
        }
    }

    /// What the rules are, and what broke them.
    pub fn report(&self) -> LabelReport {
        let state = Arc::clone(&self.state.read());
        let rules = state.required.rules.iter().map(|rule| RuleReport {
            label: rule.name.clone(),
            value: rule.value.clone(),
            allowed: rule.allowed_text.clone(),
        });
        let found = state.found.lock();
        let mut violations: Vec<Violation> = found.rows.values().cloned().collect();
        violations.sort_by_key(|violation| std::cmp::Reverse(violation.series));
        LabelReport {
            withhold: state.required.withhold,
            rules: rules.collect(),
            violations,
            left_out: found.left_out,
        }
    }
}

impl Found {
    fn note(&mut self, label: &str, value: &str, labels: &Labels, is_new: bool, now: Timestamp) {
        let shown: String = value.chars().take(VALUE_CHARS_MAX).collect();
        let job: String =
            labels.get(JOB).unwrap_or_default().chars().take(VALUE_CHARS_MAX).collect();
        let key = (label.to_owned(), shown, job);
        let has_room = self.rows.len() < ROWS_MAX;
        if let Some(row) = self.rows.get_mut(&key) {
            row.series += u64::from(is_new);
            row.last_seen = now.as_ms();
        } else if has_room {
            let (label, found, job) = key.clone();
            let (first_seen, last_seen) = (now.as_ms(), now.as_ms());
            let example = labels.to_string();
            self.rows.insert(
                key,
                Violation { label, found, job, series: 1, example, first_seen, last_seen },
            );
        } else {
            self.left_out += u64::from(is_new);
        }
    }
}

impl State {
    /// `labels` with what is missing and known; `None` where nothing is to be added.
    fn completed(&self, labels: &Labels) -> Option<Labels> {
        let missing = self.required.rules.iter().filter_map(|rule| {
            let value = rule.value.as_deref()?;
            labels.get(&rule.name).is_none_or(str::is_empty).then_some((rule.name.as_str(), value))
        });
        let mut missing = missing.peekable();
        missing.peek()?;
        let mut builder = labels.to_builder();
        for (name, value) in missing {
            builder.set(name, value);
        }
        Some(builder.build())
    }

    /// Rows whose handles are from before. The ends of their series pass, so that they end.
    fn unsettled(&self, batch: &Batch) -> Vec<Rejected> {
        let Some(settled) = &self.settled else { return Vec::new() };
        let settled = settled.read();
        let is_from_before = |row: &Row| match row.series {
            SeriesKey::Known(series) => {
                !settled.has(series.0) && !matches!(row.sample.value, Value::Stale)
            }
            SeriesKey::Labels(_) => false,
        };
        let rows = batch.rows.iter().enumerate().filter(|(_, row)| is_from_before(row));
        rows.map(|(row, _)| Rejected { row, reason: RejectReason::UnknownSeries }).collect()
    }
}

impl Checked<'_> {
    /// Notes which handles are those of series that came with their labels.
    pub(super) fn settle(&self, refs: &[Option<SeriesRef>]) {
        let Some(settled) = &self.state.settled else { return };
        let rows = self.batch.rows.iter().zip(refs);
        let mut news = rows
            .filter(|(row, _)| matches!(row.series, SeriesKey::Labels(_)))
            .filter_map(|(_, series)| *series)
            .peekable();
        if news.peek().is_some() {
            let mut settled = settled.write();
            news.for_each(|series| settled.set(series.0));
        }
    }
}

#[cfg(test)]
mod tests;
