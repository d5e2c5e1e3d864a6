//! The server's own metrics: one registry, made at start and passed by reference.
//!
//! Each part registers its families in its own constructor; what belongs to no part (build,
//! process, HTTP, configuration) is kept here.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use crate::metrics::process::ProcessMetrics;

mod process;
pub mod summary;

/// The version of Prometheus whose API this server speaks; clients pick features by it.
pub const PROMETHEUS_VERSION: &str = "3.14.0";

/// Bounds of request durations, in seconds; the ones Prometheus uses for the same family.
const HTTP_DURATION_BOUNDS: [f64; 9] = [0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0];
/// Bounds of response sizes, in bytes.
const HTTP_SIZE_BOUNDS: [f64; 9] = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// Registers `collector` and hands it back.
///
/// # Panics
/// When a family of that name is registered already: a mistake of the program, found at start.
pub fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("metric families have unique names");
    collector
}

/// A counter without labels, registered.
pub fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::IntCounter {
    let made = prometheus::IntCounter::new(name, help).expect("metric names are valid");
    register(registry, made)
}

/// A family of counters, registered.
pub fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let made = IntCounterVec::new(Opts::new(name, help), labels).expect("metric names are valid");
    register(registry, made)
}

/// A whole-number gauge without labels, registered.
pub fn int_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let made = IntGauge::new(name, help).expect("metric names are valid");
    register(registry, made)
}

/// A family of whole-number gauges, registered.
pub fn int_gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let made = IntGaugeVec::new(Opts::new(name, help), labels).expect("metric names are valid");
    register(registry, made)
}

/// A gauge without labels, registered.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    let made = Gauge::new(name, help).expect("metric names are valid");
    register(registry, made)
}

/// A family of histograms, registered.
pub fn histogram_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    bounds: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
    let made = HistogramVec::new(options, labels).expect("metric names are valid");
    register(registry, made)
}

/// The registry and the families that belong to no single part.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    process: Arc<ProcessMetrics>,
    /// Answered requests by handler and status code.
    pub http_requests: IntCounterVec,
    /// Seconds until the answer was ready, by handler.
    pub http_duration: HistogramVec,
    /// Bytes of answers, by handler.
    pub http_response_size: HistogramVec,
    /// Requests for federation that failed.
    pub federation_errors: IntCounter,
    /// Samples that queries read.
    pub query_samples: IntCounter,
    /// Answers of `/metrics`, by status code.
    pub expositions: IntCounterVec,
    /// 1 once the server answers queries.
    pub ready: IntGauge,
    /// 1 when the last (re)load of the configuration succeeded.
    pub config_reload_successful: IntGauge,
    /// Seconds since 1970 of the last successful (re)load.
    pub config_reload_success_seconds: Gauge,
}

impl Metrics {
    /// A fresh registry with the common families in it.
    pub fn new() -> Self {
        let registry = Registry::new();
        let build = int_gauge_vec(
            &registry,
            "prometheus_build_info",
            "A constant 1, labelled by what this server is.",
            &["version", "revision", "branch", "goversion", "goos", "goarch", "tags"],
        );
        let os = std::env::consts::OS;
        let arch = std::env::consts::ARCH;
        build.with_label_values(&[PROMETHEUS_VERSION, "", "", "", os, arch, ""]).set(1);
        let own = int_gauge_vec(
            &registry,
            "stint_build_info",
            "A constant 1, labelled by the version of the program.",
            &["version"],
        );
        own.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let expositions = counter_vec(
            &registry,
            "promhttp_metric_handler_requests_total",
            "Answers of /metrics.",
            &["code"],
        );
        for code in ["200", "500", "503"] {
            expositions.with_label_values(&[code]);
        }
        Self {
            process: Arc::new(ProcessMetrics::new(&registry)),
            http_requests: counter_vec(
                &registry,
                "prometheus_http_requests_total",
                "Answered HTTP requests.",
                &["handler", "code"],
            ),
            http_duration: histogram_vec(
                &registry,
                "prometheus_http_request_duration_seconds",
                "Time until an HTTP request was answered.",
                &["handler"],
                &HTTP_DURATION_BOUNDS,
            ),
            http_response_size: histogram_vec(
                &registry,
                "prometheus_http_response_size_bytes",
                "Size of HTTP answers before compression.",
                &["handler"],
                &HTTP_SIZE_BOUNDS,
            ),
            federation_errors: counter(
                &registry,
                "prometheus_web_federation_errors_total",
                "Requests for federation that failed.",
            ),
            query_samples: counter(
                &registry,
                "prometheus_engine_query_samples_total",
                "Samples that queries looked at.",
            ),
            expositions,
            ready: int_gauge(&registry, "prometheus_ready", "Whether the server is ready."),
            config_reload_successful: int_gauge(
                &registry,
                "prometheus_config_last_reload_successful",
                "Whether the last configuration load succeeded.",
            ),
            config_reload_success_seconds: gauge(
                &registry,
                "prometheus_config_last_reload_success_timestamp_seconds",
                "When the configuration was last loaded successfully.",
            ),
            registry,
        }
    }

    /// Where the parts register their own families.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything, by name of the family.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.process.refresh();
        self.registry.gather()
    }

    /// Everything in the text exposition format 0.0.4.
    pub fn render(&self) -> String {
        let mut body = Vec::new();
        TextEncoder::new()
            .encode(&self.gather(), &mut body)
            .expect("registered families are well-formed");
        String::from_utf8(body).expect("label values are strings")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_families_are_exposed_from_the_start() {
        let metrics = Metrics::new();
        let text = metrics.render();
        for name in [
            "prometheus_build_info{",
            "prometheus_ready 0",
            "prometheus_config_last_reload_successful 0",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
        }
    }

    #[test]
    fn a_registered_family_shows_up() {
        let metrics = Metrics::new();
        counter(metrics.registry(), "stint_test_total", "A test.").inc_by(3);
        assert!(metrics.render().contains("stint_test_total 3\n"));
    }
}
