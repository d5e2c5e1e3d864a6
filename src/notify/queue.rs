//! Alerts that wait for one Alertmanager.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::rules::Alert;

/// A bounded queue that keeps the newest.
pub(super) struct Queue {
    capacity: usize,
    waiting: Mutex<VecDeque<Alert>>,
    changed: Notify,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, waiting: Mutex::default(), changed: Notify::new() }
    }

    /// Adds alerts; how many had to be dropped for them, the oldest first.
    pub(super) fn push(&self, alerts: impl IntoIterator<Item = Alert>) -> usize {
        let mut waiting = self.waiting.lock();
        waiting.extend(alerts);
        let over = waiting.len().saturating_sub(self.capacity);
        waiting.drain(..over);
        drop(waiting);
        self.changed.notify_one();
        over
    }

    /// The oldest alerts, at most `most`, which are not in the queue any more.
    pub(super) fn take(&self, most: usize) -> Vec<Alert> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(most);
        waiting.drain(..count).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Waits until something was added.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
