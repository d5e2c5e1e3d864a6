//! An alert as it leaves the rules, and where it goes.

use std::sync::Arc;

use stint_model::{Labels, Timestamp};

/// Texts about an alert in order of their names. Unlike a label, one may be empty.
pub type Annotations = Arc<[(String, String)]>;

/// What an alerting rule says about one set of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its identity, with `alertname` and without external labels.
    pub labels: Labels,
    /// Texts for people.
    pub annotations: Annotations,
    /// When it began to fire.
    pub starts_at: Timestamp,
    /// When it ended; while it fires, until when it is to be believed without being sent again.
    pub ends_at: Timestamp,
    /// Where its expression can be looked at.
    pub generator_url: Arc<str>,
}

impl Alert {
    /// Whether it is over at `now`.
    pub fn is_resolved(&self, now: Timestamp) -> bool {
        self.ends_at <= now
    }
}

/// Takes alerts that fire and alerts that ended. Must not block: evaluation waits for it.
pub trait AlertSink: Send + Sync {
    /// Passes on what one rule has to say at one time. Alerts that fire come again and again.
    fn send(&self, alerts: Vec<Alert>);
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl AlertSink for NoSink {
    fn send(&self, _alerts: Vec<Alert>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_over_at_its_end() {
        let alert = Alert {
            labels: Labels::from_pairs([("alertname", "Down")]),
            annotations: Arc::from([]),
            starts_at: Timestamp(1),
            ends_at: Timestamp(5),
            generator_url: Arc::from("http://localhost/graph"),
        };
        assert!(!alert.is_resolved(Timestamp(4)));
        assert!(alert.is_resolved(Timestamp(5)));
    }
}
