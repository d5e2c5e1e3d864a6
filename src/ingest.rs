//! The one way in: every source appends through a [`Pipeline`], which enforces the limits that
//! hold for all of them, adds and checks the labels that every series must carry, and counts what
//! came and what was refused.

mod labels;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::{IntCounter, IntCounterVec};
use stint_model::{
    AppendError, Appended, Appender, Batch, Clock, RejectReason, Rejected, Row, SeriesKey, Span,
    Timestamp,
};
use tokio::sync::Notify;

use crate::metrics::{Metrics, counter_vec};
pub use labels::{LabelPolicy, LabelReport, RuleReport, Violation};

/// Limits that hold for every source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How far ahead of the clock a sample may be. Prometheus allows ten minutes.
    pub future_max: Span,
    /// Most labels of one series, the metric name included.
    pub labels_max: usize,
    /// Most bytes of one series' names and values together.
    pub labels_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { future_max: Span(10 * 60_000), labels_max: 256, labels_bytes_max: 64 << 10 }
    }
}

/// Checks limits, counts, and hands on to the store.
///
/// Cheap to clone; [`Pipeline::source`] gives each source its own counters.
#[derive(Clone)]
pub struct Pipeline {
    store: Arc<dyn Appender>,
    clock: Arc<dyn Clock>,
    limits: Arc<Limits>,
    samples: IntCounterVec,
    rejected: IntCounterVec,
    failed: IntCounterVec,
    stored: Arc<Notify>,
    trouble: Arc<Trouble>,
    labels: Arc<LabelPolicy>,
}

impl Pipeline {
    /// A pipeline in front of `store`.
    pub fn new(
        store: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        metrics: &Metrics,
    ) -> Self {
        let registry = metrics.registry();
        let violations = counter_vec(
            registry,
            "stint_ingest_label_violations_total",
            "Series that came without a label that they must carry, or with one that may not be so.",
            &["label", "problem"],
        );
        Self {
            labels: Arc::new(LabelPolicy::new(Arc::clone(&clock), violations)),
            store,
            clock,
            limits: Arc::new(limits),
            samples: counter_vec(
                registry,
                "stint_ingest_samples_total",
                "Samples that were stored.",
                &["source"],
            ),
            rejected: counter_vec(
                registry,
                "stint_ingest_rejected_samples_total",
                "Samples that were refused.",
                &["source", "reason"],
            ),
            failed: counter_vec(
                registry,
                "stint_ingest_failed_batches_total",
                "Batches that could not be stored; the source decides whether to send them again.",
                &["source"],
            ),
            stored: Arc::default(),
            trouble: Arc::default(),
        }
    }

    /// Wakes those who wait for something new in the store.
    pub fn stored(&self) -> Arc<Notify> {
        Arc::clone(&self.stored)
    }

    /// The labels that every series must carry.
    pub fn labels(&self) -> Arc<LabelPolicy> {
        Arc::clone(&self.labels)
    }

    /// The appender of the source `name` (`scrape`, `remote_write`, …).
    pub fn source(&self, name: &str) -> Arc<dyn Appender> {
        let rejected = RejectReason::ALL
            .map(|reason| self.rejected.with_label_values(&[name, reason.as_str()]));
        Arc::new(Source {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            limits: Arc::clone(&self.limits),
            samples: self.samples.with_label_values(&[name]),
            rejected,
            failed: self.failed.with_label_values(&[name]),
            stored: Arc::clone(&self.stored),
            trouble: Arc::clone(&self.trouble),
            labels: Arc::clone(&self.labels),
        })
    }
}

/// One source's end of the pipeline.
struct Source {
    store: Arc<dyn Appender>,
    clock: Arc<dyn Clock>,
    limits: Arc<Limits>,
    samples: IntCounter,
    /// By position in [`RejectReason::ALL`].
    rejected: [IntCounter; RejectReason::ALL.len()],
    failed: IntCounter,
    stored: Arc<Notify>,
    trouble: Arc<Trouble>,
    labels: Arc<LabelPolicy>,
}

impl Appender for Source {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        let latest = self.clock.now() + self.limits.future_max;
        let mut checked = self.labels.check(batch);
        let mut refused = std::mem::take(&mut checked.refused);
        let from_before = refused.len();
        let batch = checked.batch.as_ref();
        refused.extend(batch.rows.iter().enumerate().filter_map(|(row, content)| {
            self.limits.check(content, latest).map(|reason| Rejected { row, reason })
        }));
        if from_before > 0 {
            refused.sort_by_key(|rejected| rejected.row);
            refused.dedup_by_key(|rejected| rejected.row);
        }
        let outcome = if refused.is_empty() {
            self.store.append(batch)
        } else {
            append_without(self.store.as_ref(), batch, refused)
        };
        match &outcome {
            Ok(appended) => {
                checked.settle(&appended.refs);
                self.count(batch, appended);
                self.stored.notify_waiters();
                if self.trouble.ended() {
                    tracing::info!("samples can be stored again");
                }
            }
            Err(error) => {
                self.failed.inc();
                if self.trouble.began() {
                    tracing::error!(
                        %error,
                        "samples cannot be stored: scraped ones are lost, received ones refused"
                    );
                }
            }
        }
        outcome
    }
}

/// Whether the store takes anything, so that a failure that lasts is told once and not with every
/// batch.
#[derive(Debug, Default)]
struct Trouble(AtomicBool);

impl Trouble {
    /// Notes a failure; whether it is the first.
    fn began(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// Notes a success; whether there were failures before.
    fn ended(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

impl Source {
    fn count(&self, batch: &Batch, appended: &Appended) {
        let stored = batch.rows.len().saturating_sub(appended.rejected.len());
        self.samples.inc_by(stored as u64);
        for rejected in &appended.rejected {
            let position = RejectReason::ALL.iter().position(|reason| *reason == rejected.reason);
            if let Some(counter) = position.and_then(|position| self.rejected.get(position)) {
                counter.inc();
            }
        }
    }
}

impl Limits {
    /// Why the row may not pass, if it may not.
    fn check(&self, row: &Row, latest: Timestamp) -> Option<RejectReason> {
        if row.sample.at > latest {
            return Some(RejectReason::TooFarInFuture);
        }
        let SeriesKey::Labels(labels) = &row.series else { return None };
        let too_large =
            labels.size_bytes() > self.labels_bytes_max || labels.len() > self.labels_max;
        too_large.then_some(RejectReason::LabelLimit)
    }
}

/// Appends the rows of `batch` that are not in `refused` (in order of rows), and answers as if
/// the whole batch had been given to the store.
fn append_without(
    store: &dyn Appender,
    batch: &Batch,
    refused: Vec<Rejected>,
) -> Result<Appended, AppendError> {
    let mut kept = Vec::with_capacity(batch.rows.len() - refused.len());
    let mut next_refused = refused.iter().peekable();
    for row in 0..batch.rows.len() {
        if next_refused.next_if(|rejected| rejected.row == row).is_none() {
            kept.push(row);
        }
    }
    let mut passed = Batch {
        metadata: batch.metadata.clone(),
        out_of_order_window: batch.out_of_order_window,
        ..Batch::default()
    };
    passed.rows.extend(kept.iter().filter_map(|row| batch.rows.get(*row).cloned()));
    for exemplars in &batch.exemplars {
        if let Ok(row) = kept.binary_search(&exemplars.row) {
            let mut moved = exemplars.clone();
            moved.row = row;
            passed.exemplars.push(moved);
        }
    }
    let inner = store.append(&passed)?;
    let mut outcome = Appended { refs: vec![None; batch.rows.len()], rejected: refused };
    for (row, reference) in kept.iter().zip(inner.refs) {
        if let Some(slot) = outcome.refs.get_mut(*row) {
            *slot = reference;
        }
    }
    for mut rejected in inner.rejected {
        if let Some(row) = kept.get(rejected.row) {
            rejected.row = *row;
            outcome.rejected.push(rejected);
        }
    }
    outcome.rejected.sort_by_key(|rejected| rejected.row);
    Ok(outcome)
}

#[cfg(test)]
mod tests;
