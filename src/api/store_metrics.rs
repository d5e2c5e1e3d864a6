//! `prometheus_tsdb_*`: the store's figures as metrics, read at each exposition.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use stint_model::{RejectReason, Timestamp};
use stint_storage::{Db, Options, Stats};

use crate::metrics::{Metrics, counter, counter_vec, gauge, int_gauge, int_gauge_vec};

/// Families about the store, under the names that dashboards know.
pub struct StoreMetrics {
    retention_seconds: IntGauge,
    retention_bytes: IntGauge,
    exemplars_max: IntGauge,
    head_series: IntGauge,
    head_chunks: IntGauge,
    head_bytes: IntGauge,
    head_min_time: IntGauge,
    head_max_time: IntGauge,
    newest_seconds: Gauge,
    samples_in: IntCounter,
    head_min_seconds: Gauge,
    head_max_seconds: Gauge,
    lowest_time: IntGauge,
    lowest_seconds: Gauge,
    wal_segment: IntGauge,
    samples: IntCounterVec,
    late_samples: IntCounter,
    series_created: IntCounter,
    rejected: [IntCounter; 4],
    exemplars: IntGauge,
    wal_bytes: IntGauge,
    wal_segments: IntGauge,
    blocks: IntGauge,
    block_bytes: IntGauge,
    damaged_blocks: IntGaugeVec,
    corruptions: IntCounter,
    write_failures: IntCounter,
    read_only: IntGauge,
}

/// Reasons that have a counter of their own in Prometheus.
const REASONS: [RejectReason; 4] = [
    RejectReason::OutOfOrder,
    RejectReason::OutOfBounds,
    RejectReason::TooOld,
    RejectReason::DuplicateTimestamp,
];

impl StoreMetrics {
    /// Registers all families.
    pub fn new(metrics: &Metrics) -> Self {
        let registry = metrics.registry();
        let whole = |name, help| int_gauge(registry, name, help);
        let count = |name, help| counter(registry, name, help);
        let samples = counter_vec(
            registry,
            "prometheus_tsdb_head_samples_appended_total",
            "Appended samples.",
            &["type"],
        );
        // Known label values exist from the start, so that rates do.
        samples.with_label_values(&["float"]);
        Self {
            retention_seconds: whole(
                "prometheus_tsdb_retention_limit_seconds",
                "How long samples are kept.",
            ),
            retention_bytes: whole(
                "prometheus_tsdb_retention_limit_bytes",
                "How many bytes are kept; 0 for no limit.",
            ),
            exemplars_max: whole(
                "prometheus_tsdb_exemplar_max_exemplars",
                "How many exemplars are kept.",
            ),
            head_series: whole("prometheus_tsdb_head_series", "Series in the head."),
            head_chunks: whole("prometheus_tsdb_head_chunks", "Chunks in the head."),
            head_bytes: whole("stint_storage_head_bytes", "Bytes of the head, about."),
            head_min_time: whole("prometheus_tsdb_head_min_time", "First time in the head, ms."),
            head_max_time: whole("prometheus_tsdb_head_max_time", "Last time in the head, ms."),
            newest_seconds: gauge(
                registry,
                "prometheus_remote_storage_highest_timestamp_in_seconds",
                "Time of the newest stored sample: what endpoints are compared with.",
            ),
            samples_in: count(
                "prometheus_remote_storage_samples_in_total",
                "Samples stored: what endpoints are given to choose from.",
            ),
            lowest_time: whole("prometheus_tsdb_lowest_timestamp", "First stored time, ms."),
            head_min_seconds: gauge(
                registry,
                "prometheus_tsdb_head_min_time_seconds",
                "First time in the head.",
            ),
            head_max_seconds: gauge(
                registry,
                "prometheus_tsdb_head_max_time_seconds",
                "Last time in the head.",
            ),
            lowest_seconds: gauge(
                registry,
                "prometheus_tsdb_lowest_timestamp_seconds",
                "First stored time.",
            ),
            wal_segment: whole(
                "prometheus_tsdb_wal_segment_current",
                "Number of the segment of the log that is written to.",
            ),
            samples,
            late_samples: count(
                "prometheus_tsdb_head_out_of_order_samples_appended_total",
                "Appended samples that came late.",
            ),
            series_created: count(
                "prometheus_tsdb_head_series_created_total",
                "Series created in the head.",
            ),
            rejected: rejected(metrics),
            exemplars: whole(
                "prometheus_tsdb_exemplar_exemplars_in_storage",
                "Exemplars in memory.",
            ),
            wal_bytes: whole("prometheus_tsdb_wal_storage_size_bytes", "Bytes of the log."),
            wal_segments: whole("stint_storage_wal_segments", "Segments of the log."),
            blocks: whole("prometheus_tsdb_blocks_loaded", "Blocks that are served."),
            block_bytes: whole("prometheus_tsdb_storage_blocks_bytes", "Bytes of all blocks."),
            damaged_blocks: int_gauge_vec(
                registry,
                "stint_storage_damaged_blocks",
                "1 for each block that is damaged: set aside, or met by a reader.",
                &["block"],
            ),
            corruptions: count("prometheus_tsdb_wal_corruptions_total", "Damaged places found."),
            write_failures: count(
                "prometheus_tsdb_wal_writes_failed_total",
                "Batches that could not be written.",
            ),
            read_only: whole(
                "stint_storage_read_only",
                "1 when a failure keeps the store from taking anything until a restart.",
            ),
        }
    }

    /// Takes over the figures.
    pub fn refresh(&self, db: &Db) {
        self.wal_segment.set(i64::try_from(db.wal_end().segment).unwrap_or(i64::MAX));
        self.take(&db.stats(), &db.options());
    }

    fn take(&self, stats: &Stats, options: &Options) {
        self.retention_seconds.set(options.retention.map_or(0, |time| time.as_ms() / 1000));
        self.retention_bytes.set(options.retention_bytes.unwrap_or(0) as i64);
        self.exemplars_max.set(options.exemplars_max as i64);
        let (first, last) = stats.head_bounds.map_or((0, 0), |(first, last)| (first.0, last.0));
        self.head_series.set(stats.series as i64);
        self.head_chunks.set(stats.chunks as i64);
        self.head_bytes.set(stats.head_bytes as i64);
        self.head_min_time.set(first);
        self.head_max_time.set(last);
        let lowest = stats.bounds.map_or(0, |(first, _)| first.0);
        self.lowest_time.set(lowest);
        let seconds = |ms: i64| Timestamp(ms).as_secs_f64();
        self.head_min_seconds.set(seconds(first));
        self.head_max_seconds.set(seconds(last));
        self.newest_seconds.set(seconds(last));
        self.lowest_seconds.set(seconds(lowest));
        raise(&self.samples_in, stats.samples_appended);
        raise(&self.samples.with_label_values(&["float"]), stats.samples_appended);
        raise(&self.late_samples, stats.samples_late);
        raise(&self.series_created, stats.series_created);
        for (counter, reason) in self.rejected.iter().zip(REASONS) {
            raise(counter, stats.rejected_for(reason));
        }
        self.exemplars.set(stats.exemplars as i64);
        self.wal_bytes.set(stats.wal_bytes as i64);
        self.wal_segments.set(stats.wal_segments as i64);
        self.blocks.set(stats.blocks as i64);
        self.block_bytes.set(stats.block_bytes as i64);
        self.damaged_blocks.reset();
        for block in &stats.damaged_blocks {
            self.damaged_blocks.with_label_values(&[block.as_str()]).set(1);
        }
        raise(&self.corruptions, stats.corruptions);
        raise(&self.write_failures, stats.failed_batches);
        self.read_only.set(i64::from(stats.read_only.is_some()));
    }
}

/// A counter for each of [`REASONS`].
fn rejected(metrics: &Metrics) -> [IntCounter; 4] {
    let count = |name, help| counter(metrics.registry(), name, help);
    [
        count("prometheus_tsdb_out_of_order_samples_total", "Samples refused: out of order."),
        count("prometheus_tsdb_out_of_bound_samples_total", "Samples refused: out of bounds."),
        count("prometheus_tsdb_too_old_samples_total", "Samples refused: too old."),
        count(
            "stint_storage_duplicate_samples_total",
            "Samples refused: another value for a time.",
        ),
    ]
}

/// Brings a counter up to a total that is kept elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_store_are_exposed() {
        let metrics = Metrics::new();
        let store = StoreMetrics::new(&metrics);
        let stats = Stats { series: 7, samples_appended: 9, ..Stats::default() };
        let damaged = Stats { damaged_blocks: vec!["b-1".to_owned()], ..stats.clone() };
        store.take(&damaged, &Options::default());
        assert!(metrics.render().contains("stint_storage_damaged_blocks{block=\"b-1\"} 1\n"));
        store.take(&stats, &Options::default());
        assert!(!metrics.render().contains("block="), "only while it is");
        let text = metrics.render();
        for line in [
            "prometheus_tsdb_head_series 7\n",
            "prometheus_tsdb_head_samples_appended_total{type=\"float\"} 9\n",
            "prometheus_tsdb_retention_limit_seconds 604800\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
