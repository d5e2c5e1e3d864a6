//! `prometheus_sd_*`: how discovery goes, under the names that dashboards and alert rules know.

use std::sync::Arc;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};
use stint_model::Clock;

use crate::config::SdConfig;
use crate::metrics::summary::SummaryVec;
use crate::metrics::{Metrics, counter, counter_vec, histogram_vec, int_gauge_vec};

/// Bounds of the seconds that a look takes.
const DURATION_BOUNDS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// The families of all mechanisms.
#[derive(Clone)]
pub struct DiscoveryMetrics {
    /// Targets found, by who wants them (`scrape` or `notify`) and its name.
    pub discovered: IntGaugeVec,
    /// Changes that a consumer was told of, by kind of consumer.
    pub updates: IntCounterVec,
    /// Seconds that a look took, by mechanism.
    pub(super) duration: SummaryVec,
    pub(super) duration_histogram: HistogramVec,
    /// Looks that failed, by mechanism and the name of the first consumer.
    pub(super) failures: IntCounterVec,
    pub(super) file_errors: IntCounter,
    pub(super) http_failures: IntCounter,
    pub(super) dns_lookups: IntCounter,
    pub(super) dns_failures: IntCounter,
    pub(super) consul_failures: IntCounter,
    pub(super) kubernetes_failures: IntCounter,
    /// Objects that came, changed and went, by role and event.
    pub(super) kubernetes_events: IntCounterVec,
}

impl DiscoveryMetrics {
    /// Registers all families.
    pub fn new(metrics: &Metrics, clock: &Arc<dyn Clock>) -> Self {
        let registry = metrics.registry();
        Self {
            discovered: int_gauge_vec(
                registry,
                "prometheus_sd_discovered_targets",
                "Targets that discovery found, before relabelling.",
                &["name", "config"],
            ),
            updates: counter_vec(
                registry,
                "prometheus_sd_updates_total",
                "Changes of targets that scraping or alerting was told of.",
                &["name"],
            ),
            duration: SummaryVec::new(
                metrics,
                Arc::clone(clock),
                "prometheus_sd_refresh_duration_seconds",
                "Time that it took to ask for targets.",
                "mechanism",
                &[0.5, 0.9, 0.99],
            ),
            duration_histogram: histogram_vec(
                registry,
                "prometheus_sd_refresh_duration_histogram_seconds",
                "Time that it took to ask for targets.",
                &["mechanism"],
                &DURATION_BOUNDS,
            ),
            failures: counter_vec(
                registry,
                "prometheus_sd_refresh_failures_total",
                "Times that targets could not be asked for; those that were known stay.",
                &["mechanism", "config"],
            ),
            file_errors: counter(
                registry,
                "prometheus_sd_file_read_errors_total",
                "Discovery files that could not be read.",
            ),
            http_failures: counter(
                registry,
                "prometheus_sd_http_failures_total",
                "Lists of targets that could not be had over HTTP.",
            ),
            dns_lookups: counter(
                registry,
                "prometheus_sd_dns_lookups_total",
                "Names that were looked up.",
            ),
            dns_failures: counter(
                registry,
                "prometheus_sd_dns_lookup_failures_total",
                "Names that could not be looked up.",
            ),
            consul_failures: counter(
                registry,
                "prometheus_sd_consul_rpc_failures_total",
                "Questions that Consul did not answer well.",
            ),
            kubernetes_failures: counter(
                registry,
                "prometheus_sd_kubernetes_failures_total",
                "Lists of a Kubernetes API server that could not be asked for or followed.",
            ),
            kubernetes_events: counter_vec(
                registry,
                "prometheus_sd_kubernetes_events_total",
                "Objects of Kubernetes that came, changed and went.",
                &["role", "event"],
            ),
        }
    }

    /// Forgets a consumer that is gone: its kind and its name.
    pub fn forget(&self, consumer: &str, name: &str) {
        // A family that never had the labels is fine too.
        let _ = self.discovered.remove_label_values(&[consumer, name]);
        for mechanism in SdConfig::MECHANISMS {
            let _ = self.failures.remove_label_values(&[mechanism, name]);
        }
    }
}
