//! Classic histograms as native ones with custom buckets.

use std::collections::BTreeMap;

use stint_model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram};
use stint_model::labels::{BUCKET_BOUND, METRIC_NAME};
use stint_model::{Labels, Timestamp, Value};

use crate::parse::SequenceValue;

/// The parts of one classic histogram at one time.
#[derive(Debug, Default)]
struct Parts {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
}

/// Collects the series of classic histograms.
#[derive(Debug, Default)]
pub(super) struct Converter {
    histograms: BTreeMap<Labels, BTreeMap<Timestamp, Parts>>,
}

impl Converter {
    /// Takes in a series if it is part of a classic histogram.
    pub(super) fn add(&mut self, labels: &Labels, values: &[SequenceValue], step: i64) {
        let Some(name) = labels.metric_name() else { return };
        let Some((base, part)) = name.rsplit_once('_') else { return };
        let bound = labels.get(BUCKET_BOUND).and_then(|le| le.parse::<f64>().ok());
        if !matches!((part, bound), ("bucket", Some(_)) | ("count" | "sum", None)) {
            return;
        }
        let labels = labels.to_builder().set(METRIC_NAME, base).remove(BUCKET_BOUND).build();
        let times = self.histograms.entry(labels).or_default();
        for (at, value) in values.iter().enumerate() {
            let Some(Value::Float(value)) = value.value else { continue };
            let parts = times.entry(Timestamp(at as i64 * step)).or_default();
            match (part, bound) {
                ("bucket", Some(bound)) => parts.buckets.push((bound, value)),
                ("count", _) => parts.count = Some(value),
                _ => parts.sum = Some(value),
            }
        }
    }

    /// Labels, time and histogram of everything that could be converted.
    pub(super) fn finish(self) -> Vec<(Labels, Timestamp, FloatHistogram)> {
        let mut all = Vec::new();
        for (labels, times) in self.histograms {
            for (time, parts) in times {
                if let Some(histogram) = convert(parts) {
                    all.push((labels.clone(), time, histogram));
                }
            }
        }
        all
    }
}

fn convert(mut parts: Parts) -> Option<FloatHistogram> {
    parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (last_bound, last_count) = *parts.buckets.last()?;
    let count = parts.count.unwrap_or(last_count);
    if last_bound != f64::INFINITY {
        parts.buckets.push((f64::INFINITY, count));
    }
    let mut before = 0.0;
    let mut counts = Vec::with_capacity(parts.buckets.len());
    for (_, cumulative) in &parts.buckets {
        if *cumulative < before {
            return None;
        }
        counts.push(cumulative - before);
        before = *cumulative;
    }
    if before != count {
        return None;
    }
    let mut histogram = FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum: parts.sum.unwrap_or_default(),
        positive_spans: vec![BucketSpan { offset: 0, length: counts.len() as u32 }],
        positive_buckets: counts,
        custom_bounds: parts
            .buckets
            .iter()
            .map(|(bound, _)| *bound)
            .filter(|bound| bound.is_finite())
            .collect(),
        ..FloatHistogram::default()
    };
    histogram.compact();
    Some(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cumulative_buckets_become_plain_ones() {
        let parts = Parts { buckets: vec![(2.0, 3.0), (1.0, 1.0)], count: Some(4.0), sum: None };
        let histogram = convert(parts).unwrap();
        assert_eq!(histogram.positive_buckets, [1.0, 2.0, 1.0]);
        assert_eq!(histogram.custom_bounds, [1.0, 2.0]);
        assert!(
            convert(Parts { buckets: vec![(1.0, 5.0)], count: Some(4.0), sum: None }).is_none()
        );
    }
}
