//! Start times in `OpenMetrics` text, where they are series of their own: `foo_created`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use stint_model::labels::{BUCKET_BOUND, METRIC_NAME, QUANTILE};
use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

use super::openmetrics::OpenMetrics;
use super::{Entry, SeriesEntry};

const SUFFIX: &str = "_created";

/// The start times of a body. They may stand after the series that they belong to, so they are
/// collected before those are given out.
#[derive(Clone, Debug)]
pub(super) struct Created<'a> {
    family: Cow<'a, str>,
    starts: HashMap<String, Timestamp>,
}

impl<'a> Created<'a> {
    /// The start times of `body`, up to its first fault, if it has one.
    pub(super) fn collect(body: &'a str) -> Self {
        let mut created = Self { family: Cow::Borrowed(""), starts: HashMap::new() };
        let mut entries = OpenMetrics::new(body);
        while let Ok(Some(entry)) = entries.next("") {
            match entry {
                Entry::Type { name, .. } => created.family = name,
                Entry::Series(series) => {
                    if let Some((key, true)) = created.key(&series)
                        && series.value.is_finite()
                    {
                        created.starts.insert(key, Timestamp((series.value * 1000.0) as i64));
                    }
                }
                _ => {}
            }
        }
        created.family = Cow::Borrowed("");
        created
    }

    /// Takes note of a `TYPE` line.
    pub(super) fn begin_family(&mut self, family: Cow<'a, str>) {
        self.family = family;
    }

    /// Puts its start time into `series`; false when it is a start time itself.
    pub(super) fn apply(&self, series: &mut SeriesEntry<'_>) -> bool {
        match self.key(series) {
            Some((_, true)) => false,
            Some((key, false)) => {
                series.started = self.starts.get(&key).copied();
                true
            }
            None => true,
        }
    }

    /// What a series has in common with its start time, and whether it is the start time. `None`
    /// for series that have none.
    fn key(&self, series: &SeriesEntry<'_>) -> Option<(String, bool)> {
        let suffixes: &[&str] = match series.kind {
            MetricType::Counter => &["_total", "", SUFFIX],
            MetricType::Histogram => &["_bucket", "_count", "_sum", SUFFIX],
            MetricType::Summary => &["", "_count", "_sum", SUFFIX],
            _ => return None,
        };
        let mut labels = Vec::new();
        series.labels(&mut labels);
        labels.sort();
        let (_, name) = labels.iter().find(|(name, _)| name == METRIC_NAME)?;
        let suffix = name.strip_prefix(&*self.family).filter(|rest| suffixes.contains(rest))?;
        let is_created = suffix == SUFFIX;
        // Lengths keep one label's text from being taken for two labels.
        let mut key = format!("{}:{}", self.family.len(), self.family);
        for (name, value) in &labels {
            let is_bound = match series.kind {
                MetricType::Histogram => name == BUCKET_BOUND,
                MetricType::Summary => name == QUANTILE,
                _ => false,
            };
            if name != METRIC_NAME && !is_bound {
                for text in [name, value] {
                    let written = write!(key, "{}:{text}", text.len());
                    debug_assert!(written.is_ok(), "a string takes every write");
                }
            }
        }
        Some((key, is_created))
    }
}
