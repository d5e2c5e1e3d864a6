//! A store in memory, for scripts and tests.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use stint_model::histogram::ResetHint;
use stint_model::{
    Columns, Hints, Histogram, Labels, Querier, QueryError, Queryable, Sample, Selector, SeriesSet,
    TimeRange, Value, stale_nan,
};

/// Series in memory. As a real store does, it notes for each histogram whether the counter is
/// known to have gone on since the one before.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    series: BTreeMap<Labels, Arc<Vec<Sample>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample in order of time, or replaces the one of the same time.
    pub fn append(&mut self, labels: &Labels, mut sample: Sample) {
        let samples = Arc::make_mut(self.series.entry(labels.clone()).or_default());
        let at = samples.partition_point(|other| other.at < sample.at);
        if let Value::Histogram(histogram) = &sample.value {
            let before = at.checked_sub(1).and_then(|before| samples.get(before));
            let noted = with_hint(histogram, before);
            sample.value = Value::Histogram(noted);
        }
        match samples.get_mut(at) {
            Some(other) if other.at == sample.at => *other = sample,
            _ => samples.insert(at, sample),
        }
    }
}

/// The histogram with what comparing it with the one before tells. A real store knows that a
/// counter went on within a chunk, and nothing where a reset or a new layout began one.
fn with_hint(histogram: &Arc<Histogram>, before: Option<&Sample>) -> Arc<Histogram> {
    let mut float = histogram.to_float();
    if float.reset_hint == ResetHint::Gauge {
        return histogram.clone();
    }
    let told = std::mem::replace(&mut float.reset_hint, ResetHint::Unknown);
    let goes_on = match before.map(|sample| &sample.value) {
        Some(Value::Histogram(before)) => {
            let before = before.to_float();
            told != ResetHint::Reset
                && before.reset_hint != ResetHint::Gauge
                && float.schema == before.schema
                && float.zero_threshold == before.zero_threshold
                && float.custom_bounds == before.custom_bounds
                && !float.is_reset_after(&before)
        }
        _ => false,
    };
    if goes_on {
        float.reset_hint = ResetHint::NotReset;
    }
    Arc::new(Histogram::Float(float))
}

impl Queryable for MemoryStore {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, QueryError> {
        Ok(Box::new(MemoryQuerier { store: self.clone(), range }))
    }
}

struct MemoryQuerier {
    store: MemoryStore,
    range: TimeRange,
}

impl MemoryQuerier {
    fn matching<'s>(&'s self, selectors: &'s [Selector]) -> impl Iterator<Item = &'s Labels> {
        self.store.series.keys().filter(|labels| {
            selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
        })
    }
}

fn limited(mut all: Vec<String>, limit: usize) -> Vec<String> {
    if limit > 0 {
        all.truncate(limit);
    }
    all
}

impl Querier for MemoryQuerier {
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
        let mut series: Vec<_> = self
            .store
            .series
            .iter()
            .filter(|(labels, _)| selector.matches(labels))
            .map(|(labels, samples)| (labels.clone(), samples.clone()))
            .collect();
        if hints.limit > 0 {
            series.truncate(hints.limit);
        }
        Ok(Box::new(MemorySet { series, range: self.range }))
    }

    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError> {
        let names: BTreeSet<&str> = self
            .matching(selectors)
            .flat_map(|labels| labels.iter().map(|(name, _)| name))
            .collect();
        Ok(limited(names.into_iter().map(str::to_owned).collect(), limit))
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        let values: BTreeSet<&str> =
            self.matching(selectors).filter_map(|labels| labels.get(name)).collect();
        Ok(limited(values.into_iter().map(str::to_owned).collect(), limit))
    }
}

struct MemorySet {
    series: Vec<(Labels, Arc<Vec<Sample>>)>,
    range: TimeRange,
}

impl SeriesSet for MemorySet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.series.get(index).map(|(labels, _)| labels.clone()).unwrap_or_default()
    }

    fn read(
        &self,
        index: usize,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), QueryError> {
        let Some((_, samples)) = self.series.get(index) else { return Ok(()) };
        for sample in samples.iter() {
            if !range.contains(sample.at) || !self.range.contains(sample.at) {
                continue;
            }
            match &sample.value {
                Value::Float(value) => columns.push_float(sample.at, *value),
                Value::Stale => columns.push_float(sample.at, stale_nan()),
                Value::Histogram(histogram) => {
                    columns.push_histogram(sample.at, histogram.clone());
                }
            }
            if let Some(started) = sample.started {
                columns.set_last_start(started);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stint_model::Timestamp;

    #[test]
    fn samples_come_back_in_order_and_range() {
        let mut store = MemoryStore::new();
        let labels = Labels::from_pairs([("__name__", "up")]);
        for at in [3, 1, 2] {
            store.append(&labels, Sample::float(Timestamp(at), at as f64));
        }
        let querier = store.querier(TimeRange::new(Timestamp(2), Timestamp(9))).unwrap();
        let set = querier.select(&Selector::metric("up"), &Hints::default()).unwrap();
        let mut columns = Columns::default();
        set.read(0, TimeRange::ALL, &mut columns).unwrap();
        assert_eq!(columns.values, [2.0, 3.0]);
        assert_eq!(querier.label_values("__name__", &[], 0).unwrap(), ["up"]);
    }
}
