//! What evaluating needs from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use stint_model::{Appender, Clock, Labels, Queryable, Span};
use stint_promql::{Cancel, Engine};

use super::alert::AlertSink;
use super::metrics::RuleMetrics;
use super::round::Room;

/// What all groups share.
pub struct Env {
    /// What expressions read.
    pub store: Arc<dyn Queryable>,
    /// Evaluates expressions.
    pub engine: Arc<Engine>,
    /// Where outcomes go.
    pub appender: Arc<dyn Appender>,
    /// Where alerts go.
    pub sink: Arc<dyn AlertSink>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// Where it is counted how it goes.
    pub metrics: RuleMetrics,
    /// Stops what is being evaluated.
    pub cancel: Cancel,
    /// The URL under which others reach this server, without a slash at the end.
    pub external_url: String,
    /// Room for rules that are evaluated at the same time as others of their group, where that is
    /// wanted.
    pub slots: Option<Slots>,
    /// Room for samples that rules of a group have in common.
    pub room: Arc<Room>,
    /// How long to wait before an alert that fires is sent again.
    pub resend_delay: Span,
    /// How long ago an alert may have been seen last to go on after a restart.
    pub outage_tolerance: Span,
    /// Alerts that wait for at least this long are restored; after a restart they wait for at least
    /// this long again.
    pub grace_period: Span,
    /// The labels that this server adds to all that leaves it; replaced by a reload.
    pub external_labels: RwLock<Labels>,
}

impl Env {
    /// The labels that templates see as external ones.
    pub fn external_labels(&self) -> Labels {
        self.external_labels.read().clone()
    }
}

/// A bound on what runs at the same time.
#[derive(Debug)]
pub struct Slots {
    free: Arc<AtomicUsize>,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub struct Slot(Arc<AtomicUsize>);

impl Slots {
    /// This many places.
    pub fn new(places: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(places)) }
    }

    /// A place, if one is free.
    pub fn take(&self) -> Option<Slot> {
        let taken =
            self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        taken.is_ok().then(|| Slot(Arc::clone(&self.free)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take(), slots.take());
        assert!(first.is_some() && second.is_some());
        assert!(slots.take().is_none());
        drop(first);
        assert!(slots.take().is_some());
    }
}
