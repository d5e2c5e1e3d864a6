//! The series that every scrape adds about itself: `up` and its companions.

use std::time::Duration;

use stint_model::labels::METRIC_NAME;
use stint_model::{Appended, Batch, Metadata, MetricType, Sample, SeriesRef, Span, Timestamp};

use super::super::target::Target;

/// Names and help texts; the last three only on demand.
const SERIES: [(&str, &str); 8] = [
    ("up", "Whether the last scrape of the target succeeded (1) or failed (0)."),
    ("scrape_duration_seconds", "How long the last scrape took."),
    ("scrape_samples_scraped", "How many samples the target exposed."),
    (
        "scrape_samples_post_metric_relabeling",
        "How many samples were left after metric relabelling.",
    ),
    ("scrape_series_added", "How many series the scrape saw for the first time."),
    ("scrape_timeout_seconds", "When a scrape of the target is given up."),
    ("scrape_sample_limit", "How many samples a scrape may have; 0 for any number."),
    ("scrape_body_size_bytes", "Size of the last body; -1 when it was over the limit."),
];
const ALWAYS: usize = 5;

/// What is reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported {
    pub(super) up: bool,
    pub(super) duration: Duration,
    pub(super) scraped: u64,
    pub(super) kept: u64,
    pub(super) added: u64,
    pub(super) timeout: Span,
    pub(super) sample_limit: u64,
    pub(super) body_bytes: f64,
    /// Whether the last three series are wanted.
    pub(super) extra: bool,
}

/// The handles of the series of one target.
#[derive(Debug, Default)]
pub(super) struct Report {
    refs: [Option<SeriesRef>; SERIES.len()],
    /// Whether the store has been told what these series are.
    described: bool,
}

impl Report {
    /// Adds the report to `batch`; returns the number of its first row.
    pub(super) fn push(
        &mut self,
        batch: &mut Batch,
        target: &Target,
        at: Timestamp,
        reported: &Reported,
    ) -> usize {
        let start = batch.rows.len();
        let values = [
            f64::from(u8::from(reported.up)),
            reported.duration.as_secs_f64(),
            reported.scraped as f64,
            reported.kept as f64,
            reported.added as f64,
            reported.timeout.as_secs_f64(),
            reported.sample_limit as f64,
            reported.body_bytes,
        ];
        let wanted = if reported.extra { SERIES.len() } else { ALWAYS };
        for (((name, help), series), value) in SERIES.iter().zip(self.refs).zip(values).take(wanted)
        {
            let sample = Sample::float(at, value);
            if let Some(series) = series {
                batch.push_known(series, sample);
            } else {
                let mut labels = target.labels.to_builder();
                batch.push(labels.set(METRIC_NAME, name).build(), sample);
            }
            if !self.described {
                let (kind, help) = (MetricType::Gauge, (*help).to_owned());
                let metadata = Metadata { kind, help, unit: String::new() };
                batch.metadata.push(((*name).to_owned(), metadata));
            }
        }
        start
    }

    /// Takes the handles of the rows from `start` on out of the store's answer; one that the store
    /// has forgotten is none.
    pub(super) fn learn(&mut self, start: usize, appended: &Appended) {
        self.described = true;
        for (at, slot) in self.refs.iter_mut().enumerate() {
            let row = start + at;
            if let Some(series) = appended.refs.get(row) {
                let refused = appended.rejected.iter().any(|rejected| rejected.row == row);
                *slot = if refused { None } else { *series };
            }
        }
    }

    /// Those of `series` that are not known any more.
    pub(super) fn without(&self, mut series: Vec<SeriesRef>) -> Vec<SeriesRef> {
        series.retain(|series| !self.refs.contains(&Some(*series)));
        series
    }

    /// All handles; none are left.
    pub(super) fn take(&mut self) -> Vec<SeriesRef> {
        std::mem::take(&mut self.refs).into_iter().flatten().collect()
    }
}
