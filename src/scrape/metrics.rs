//! `prometheus_target_*`: how scraping goes, under the names that dashboards
//! and alert rules know.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec};
use stint_model::{Appended, Clock, RejectReason};

use crate::metrics::summary::SummaryVec;
use crate::metrics::{Metrics, counter, counter_vec, int_gauge_vec};

/// Quantiles of durations, as Prometheus exposes them.
const QUANTILES: [f64; 5] = [0.01, 0.05, 0.5, 0.90, 0.99];

/// The families of all pools.
#[derive(Clone)]
pub struct ScrapeMetrics {
    /// Seconds between scrapes, by the interval that was asked for.
    pub(super) interval_length: SummaryVec,
    /// Seconds that it took to make loops of what was discovered, by job.
    pub(super) sync_length: SummaryVec,
    pub(super) syncs: IntCounterVec,
    pub(super) sync_failures: IntCounterVec,
    pub(super) pools: IntCounter,
    pub(super) pools_failed: IntCounter,
    pub(super) reloads: IntCounter,
    pub(super) targets: IntGaugeVec,
    pub(super) target_limit: IntGaugeVec,
    pub(super) metadata_entries: IntGaugeVec,
    pub(super) over_target_limit: IntCounter,
    pub(super) over_sample_limit: IntCounter,
    pub(super) over_body_limit: IntCounter,
    /// Bodies that found no room beside others.
    pub(super) over_body_room: IntCounter,
    pub(super) over_label_limits: IntCounter,
    pub(super) over_bucket_limit: IntCounter,
    /// Classic histograms that contradict themselves and could not be converted.
    pub(super) not_converted: IntCounter,
    duplicates: IntCounter,
    out_of_order: IntCounter,
    out_of_bounds: IntCounter,
}

impl ScrapeMetrics {
    /// Registers all families.
    pub fn new(metrics: &Metrics, clock: &Arc<dyn Clock>) -> Self {
        let registry = metrics.registry();
        let count = |name, help| counter(registry, name, help);
        let by_job = |name, help| counter_vec(registry, name, help, &["scrape_job"]);
        let gauge = |name, help| int_gauge_vec(registry, name, help, &["scrape_job"]);
        let summary = |name, help, label| {
            SummaryVec::new(metrics, Arc::clone(clock), name, help, label, &QUANTILES)
        };
        Self {
            interval_length: summary(
                "prometheus_target_interval_length_seconds",
                "Actual intervals between scrapes.",
                "interval",
            ),
            sync_length: summary(
                "prometheus_target_sync_length_seconds",
                "Time that it took to make scrape loops of discovered targets.",
                "scrape_job",
            ),
            syncs: by_job(
                "prometheus_target_scrape_pool_sync_total",
                "Updates of a job's targets.",
            ),
            sync_failures: by_job(
                "prometheus_target_sync_failed_total",
                "Discovered targets that cannot be scraped.",
            ),
            pools: count("prometheus_target_scrape_pools_total", "Scrape jobs that were started."),
            pools_failed: count(
                "prometheus_target_scrape_pools_failed_total",
                "Scrape jobs that could not be started.",
            ),
            reloads: count(
                "prometheus_target_scrape_pool_reloads_total",
                "Scrape jobs that were given another configuration.",
            ),
            targets: gauge("prometheus_target_scrape_pool_targets", "Targets that are scraped."),
            target_limit: gauge(
                "prometheus_target_scrape_pool_target_limit",
                "How many targets a job may have; 0 for any number.",
            ),
            metadata_entries: gauge(
                "prometheus_target_metadata_cache_entries",
                "Metric families whose metadata is known.",
            ),
            over_target_limit: count(
                "prometheus_target_scrape_pool_exceeded_target_limit_total",
                "Updates that found more targets than the limit.",
            ),
            over_sample_limit: count(
                "prometheus_target_scrapes_exceeded_sample_limit_total",
                "Scrapes with more samples than the limit.",
            ),
            over_body_limit: count(
                "prometheus_target_scrapes_exceeded_body_size_limit_total",
                "Scrapes with a larger body than the limit.",
            ),
            over_body_room: count(
                "stint_scrape_bodies_without_room_total",
                "Scrapes that failed since the bodies of all targets took too much memory together.",
            ),
            over_label_limits: count(
                "prometheus_target_scrape_pool_exceeded_label_limits_total",
                "Scrapes with more or longer labels than the limits.",
            ),
            over_bucket_limit: count(
                "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total",
                "Scrapes with a native histogram that has more buckets than the limit.",
            ),
            not_converted: count(
                "stint_scrape_histograms_not_converted_total",
                "Classic histograms that contradict themselves and so became no native ones.",
            ),
            duplicates: count(
                "prometheus_target_scrapes_sample_duplicate_timestamp_total",
                "Scraped samples refused: another value for a time.",
            ),
            out_of_order: count(
                "prometheus_target_scrapes_sample_out_of_order_total",
                "Scraped samples refused: out of order.",
            ),
            out_of_bounds: count(
                "prometheus_target_scrapes_sample_out_of_bounds_total",
                "Scraped samples refused: out of the times that can be stored.",
            ),
        }
    }

    /// Counts what the store refused of a scrape.
    pub(super) fn refused(&self, appended: &Appended) {
        for rejected in &appended.rejected {
            match rejected.reason {
                RejectReason::DuplicateTimestamp => self.duplicates.inc(),
                RejectReason::OutOfOrder => self.out_of_order.inc(),
                RejectReason::OutOfBounds | RejectReason::TooOld | RejectReason::TooFarInFuture => {
                    self.out_of_bounds.inc();
                }
                RejectReason::UnknownSeries
                | RejectReason::InvalidLabels
                | RejectReason::InvalidHistogram
                | RejectReason::LabelLimit => {}
            }
        }
    }

    /// Makes the families show a job from its start.
    pub(super) fn add_job(&self, job: &str, target_limit: u64) {
        self.syncs.with_label_values(&[job]);
        self.sync_failures.with_label_values(&[job]);
        let limit = i64::try_from(target_limit).unwrap_or(i64::MAX);
        self.target_limit.with_label_values(&[job]).set(limit);
    }

    /// Forgets a job that is gone.
    pub(super) fn remove_job(&self, job: &str) {
        self.sync_length.remove(job);
        // A family that never had the job is fine too.
        for family in [&self.syncs, &self.sync_failures] {
            let _ = family.remove_label_values(&[job]);
        }
        for family in [&self.targets, &self.target_limit, &self.metadata_entries] {
            let _ = family.remove_label_values(&[job]);
        }
    }
}
