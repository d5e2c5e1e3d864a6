//! What is counted about notifications, under the names that dashboards know.

use std::sync::Arc;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};
use stint_model::Clock;

use crate::metrics::summary::SummaryVec;
use crate::metrics::{Metrics, counter_vec, histogram_vec, int_gauge, int_gauge_vec};

/// Bounds of the seconds that a request takes.
const LATENCY_BOUNDS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// The families of this part.
#[derive(Clone)]
pub struct NotifyMetrics {
    pub(super) latency: SummaryVec,
    pub(super) latency_histogram: HistogramVec,
    pub(super) errors: IntCounterVec,
    pub(super) sent: IntCounterVec,
    pub(super) dropped: IntCounterVec,
    pub(super) queue_length: IntGaugeVec,
    pub(super) queue_capacity: IntGauge,
    pub(super) discovered: IntGauge,
    pub(super) webhook_sent: IntCounterVec,
    pub(super) webhook_failed: IntCounterVec,
    pub(super) webhook_alerts: IntGaugeVec,
    pub(super) webhook_dropped: IntCounterVec,
}

impl NotifyMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics, clock: &Arc<dyn Clock>) -> Self {
        let registry = metrics.registry();
        let to = &["alertmanager"];
        let webhook = &["webhook"];
        Self {
            latency: SummaryVec::new(
                metrics,
                Arc::clone(clock),
                "prometheus_notifications_latency_seconds",
                "Seconds that requests to an Alertmanager take.",
                "alertmanager",
                &[0.5, 0.9, 0.99],
            ),
            latency_histogram: histogram_vec(
                registry,
                "prometheus_notifications_latency_histogram_seconds",
                "Seconds that requests to an Alertmanager take.",
                to,
                &LATENCY_BOUNDS,
            ),
            errors: counter_vec(
                registry,
                "prometheus_notifications_errors_total",
                "Alerts in requests that failed.",
                to,
            ),
            sent: counter_vec(
                registry,
                "prometheus_notifications_sent_total",
                "Alerts that were sent, those of failed requests included.",
                to,
            ),
            dropped: counter_vec(
                registry,
                "prometheus_notifications_dropped_total",
                "Alerts that did not reach an Alertmanager.",
                to,
            ),
            queue_length: int_gauge_vec(
                registry,
                "prometheus_notifications_queue_length",
                "Alerts that wait for an Alertmanager.",
                to,
            ),
            queue_capacity: int_gauge(
                registry,
                "prometheus_notifications_queue_capacity",
                "Alerts that may wait for each Alertmanager.",
            ),
            discovered: int_gauge(
                registry,
                "prometheus_notifications_alertmanagers_discovered",
                "Alertmanagers that alerts are sent to.",
            ),
            webhook_sent: counter_vec(
                registry,
                "stint_webhook_notifications_total",
                "Messages that a webhook took.",
                webhook,
            ),
            webhook_failed: counter_vec(
                registry,
                "stint_webhook_notifications_failed_total",
                "Messages that a webhook did not take; they are tried again.",
                webhook,
            ),
            webhook_alerts: int_gauge_vec(
                registry,
                "stint_webhook_alerts",
                "Alerts that a webhook's groups hold.",
                webhook,
            ),
            webhook_dropped: counter_vec(
                registry,
                "stint_webhook_alerts_dropped_total",
                "Alerts that a webhook's groups had no room for.",
                webhook,
            ),
        }
    }

    /// Makes the series of an Alertmanager, so that rates see its first failure.
    pub(super) fn add(&self, url: &str) {
        for counter in [&self.errors, &self.sent, &self.dropped] {
            counter.with_label_values(&[url]);
        }
        self.queue_length.with_label_values(&[url]).set(0);
        self.latency_histogram.with_label_values(&[url]);
    }

    /// Forgets an Alertmanager.
    pub(super) fn remove(&self, url: &str) {
        // A series that is not there is as good as forgotten.
        for counter in [&self.errors, &self.sent, &self.dropped] {
            let _ = counter.remove_label_values(&[url]);
        }
        let _ = self.queue_length.remove_label_values(&[url]);
        let _ = self.latency_histogram.remove_label_values(&[url]);
        self.latency.remove(url);
    }

    /// Makes the series of a webhook.
    pub(super) fn add_webhook(&self, name: &str) {
        for counter in [&self.webhook_sent, &self.webhook_failed, &self.webhook_dropped] {
            counter.with_label_values(&[name]);
        }
        self.webhook_alerts.with_label_values(&[name]).set(0);
    }

    /// Forgets a webhook.
    pub(super) fn remove_webhook(&self, name: &str) {
        for counter in [&self.webhook_sent, &self.webhook_failed, &self.webhook_dropped] {
            let _ = counter.remove_label_values(&[name]);
        }
        let _ = self.webhook_alerts.remove_label_values(&[name]);
    }
}
