//! Columns: what one series is at each step of a query.

use std::sync::Arc;

use hashbrown::HashMap;
use stint_model::histogram::FloatHistogram;
use stint_model::labels::METRIC_NAME;
use stint_model::{Columns, Labels, Timestamp};

use crate::error::QueryError;
use crate::value::SampleValue;

/// The times at which an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// The first.
    pub(crate) start: i64,
    /// The distance; above 0.
    pub(crate) step: i64,
    /// How many; above 0.
    pub(crate) count: usize,
}

impl Steps {
    /// Evaluation at one time only.
    pub(crate) const fn once(at: i64) -> Self {
        Self { start: at, step: 1, count: 1 }
    }

    /// The time of step `index`.
    pub(crate) const fn at(&self, index: usize) -> i64 {
        self.start.saturating_add((index as i64).saturating_mul(self.step))
    }

    /// The last time.
    pub(crate) const fn end(&self) -> i64 {
        self.at(self.count - 1)
    }

    /// All times, in order.
    pub(crate) fn times(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |index| self.at(index))
    }
}

/// A number per step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    /// The same at every step.
    Constant(f64),
    /// One for each step.
    Steps(Vec<f64>),
}

impl Scalar {
    /// The number at step `index`.
    pub(crate) fn at(&self, index: usize) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Steps(values) => values.get(index).copied().unwrap_or(f64::NAN),
        }
    }

    /// Applies `op` to every number.
    pub(crate) fn map(self, op: impl Fn(f64) -> f64) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(op(value)),
            Self::Steps(values) => Self::Steps(values.into_iter().map(op).collect()),
        }
    }

    /// Applies `op` to the numbers of both, step by step.
    pub(crate) fn zip(&self, other: &Self, count: usize, op: impl Fn(f64, f64) -> f64) -> Self {
        match (self, other) {
            (Self::Constant(a), Self::Constant(b)) => Self::Constant(op(*a, *b)),
            _ => Self::Steps((0..count).map(|at| op(self.at(at), other.at(at))).collect()),
        }
    }
}

/// What is there at one step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Point<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

impl Point<'_> {
    /// An owned copy.
    pub(crate) fn to_value(self) -> SampleValue {
        match self {
            Self::Float(value) => SampleValue::Float(value),
            Self::Histogram(histogram) => SampleValue::Histogram(histogram.clone()),
        }
    }

    /// The word for it in annotations.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One optional value per step. Floats lie densely with a bitmap of presence; histograms have a
/// column of their own, which is empty when there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    values: Vec<f64>,
    present: Vec<u64>,
    histograms: Vec<Option<Arc<FloatHistogram>>>,
    /// Points charged to the query's limit for this column.
    pub(crate) charged: usize,
}

impl Column {
    /// A column of `count` steps with nothing in it.
    pub(crate) fn new(count: usize) -> Self {
        let mut column = Self::default();
        column.reset(count);
        column
    }

    /// A column with `value` at all of `count` steps.
    pub(crate) fn filled(count: usize, value: f64) -> Self {
        let mut column = Self::new(count);
        for at in 0..count {
            column.set_float(at, value);
        }
        column
    }

    /// Empties the column, keeping its memory.
    pub(crate) fn reset(&mut self, count: usize) {
        // What stands at absent steps is never seen, so it need not be wiped out.
        self.values.resize(count, 0.0);
        self.present.clear();
        self.present.resize(count.div_ceil(64), 0);
        self.histograms.clear();
        self.charged = 0;
    }

    /// How many steps there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Sets a float.
    pub(crate) fn set_float(&mut self, at: usize, value: f64) {
        if let (Some(slot), Some(word)) = (self.values.get_mut(at), self.present.get_mut(at / 64)) {
            *slot = value;
            *word |= 1 << (at % 64);
        }
    }

    /// Makes floats present at the steps of a bitmap, and gives the values of all steps to be set.
    pub(crate) fn fill(&mut self, present: &[u64]) -> &mut [f64] {
        for (word, other) in self.present.iter_mut().zip(present) {
            *word |= other;
        }
        &mut self.values
    }

    /// Makes each float what `op` makes of the floats of two columns, at the steps at which both have
    /// one. There must be nothing in the column yet.
    pub(crate) fn zip_floats(&mut self, a: &Self, b: &Self, op: impl Fn(f64, f64) -> f64) {
        for ((word, a), b) in self.present.iter_mut().zip(&a.present).zip(&b.present) {
            *word = a & b;
        }
        for ((value, a), b) in self.values.iter_mut().zip(&a.values).zip(&b.values) {
            *value = op(*a, *b);
        }
    }

    /// The floats, those of steps without one included, and the bitmap of steps that have one.
    pub(crate) fn float_parts(&self) -> (&[f64], &[u64]) {
        (&self.values, &self.present)
    }

    /// Sets a histogram.
    pub(crate) fn set_histogram(&mut self, at: usize, histogram: Arc<FloatHistogram>) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.values.len(), None);
        }
        self.clear(at);
        if let Some(slot) = self.histograms.get_mut(at) {
            *slot = Some(histogram);
        }
    }

    /// Sets either.
    pub(crate) fn set(&mut self, at: usize, value: SampleValue) {
        match value {
            SampleValue::Float(value) => self.set_float(at, value),
            SampleValue::Histogram(histogram) => self.set_histogram(at, histogram),
        }
    }

    /// Removes what is there at a step.
    pub(crate) fn clear(&mut self, at: usize) {
        if let Some(word) = self.present.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
        if let Some(slot) = self.histograms.get_mut(at) {
            *slot = None;
        }
    }

    /// The float at a step.
    pub(crate) fn float(&self, at: usize) -> Option<f64> {
        let word = *self.present.get(at / 64)?;
        if word >> (at % 64) & 1 == 1 { self.values.get(at).copied() } else { None }
    }

    /// The histogram at a step.
    pub(crate) fn histogram(&self, at: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.get(at)?.as_ref()
    }

    /// What is there at a step.
    pub(crate) fn get(&self, at: usize) -> Option<Point<'_>> {
        self.float(at).map(Point::Float).or_else(|| self.histogram(at).map(Point::Histogram))
    }

    /// Whether anything is there at a step.
    pub(crate) fn has(&self, at: usize) -> bool {
        self.float(at).is_some() || self.histogram(at).is_some()
    }

    /// Whether there may be histograms.
    pub(crate) fn has_histograms(&self) -> bool {
        !self.histograms.is_empty()
    }

    /// Whether nothing is there at any step.
    pub(crate) fn is_empty(&self) -> bool {
        self.present.iter().all(|word| *word == 0) && self.histograms.iter().all(Option::is_none)
    }

    /// Step and value of everything that is there.
    pub(crate) fn points(&self) -> impl Iterator<Item = (usize, Point<'_>)> {
        (0..self.values.len()).filter_map(|at| Some((at, self.get(at)?)))
    }

    /// Step and value of the floats.
    pub(crate) fn floats(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.present.iter().enumerate().flat_map(move |(word_at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                if word == 0 {
                    return None;
                }
                let at = word_at * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                Some((at, self.values.get(at).copied().unwrap_or_default()))
            })
        })
    }

    /// Replaces every float by `op` of its step and value; histograms go.
    pub(crate) fn map_floats(&mut self, op: impl Fn(usize, f64) -> f64) {
        self.histograms.clear();
        // Values of absent steps are computed too and never seen: that is cheaper than asking.
        for (at, value) in self.values.iter_mut().enumerate() {
            *value = op(at, *value);
        }
    }

    /// Keeps the floats for which `keep` holds; histograms go.
    pub(crate) fn filter_floats(&mut self, keep: impl Fn(usize, f64) -> bool) {
        self.histograms.clear();
        for (at, value) in self.values.iter().enumerate() {
            if !keep(at, *value)
                && let Some(word) = self.present.get_mut(at / 64)
            {
                *word &= !(1 << (at % 64));
            }
        }
    }

    /// The points as the limit on samples counts them, at sixteen bytes each; a column of few points
    /// counts by the memory that it takes all the same.
    pub(crate) fn weight(&self) -> usize {
        let floats: usize = self.present.iter().map(|word| word.count_ones() as usize).sum();
        let floats = floats.max(self.dense_weight());
        let histograms: usize =
            self.histograms.iter().flatten().map(|histogram| histogram.size_bytes() / 16).sum();
        floats + histograms
    }

    /// What an empty column counts.
    pub(crate) fn dense_weight(&self) -> usize {
        self.values.len() / 2
    }

    /// The first value at every one of `count` steps.
    pub(crate) fn broadcast(&self, count: usize) -> Self {
        let mut column = Self::new(count);
        if let Some(point) = self.get(0) {
            for at in 0..count {
                column.set(at, point.to_value());
            }
        }
        column
    }
}

/// A series of an instant vector at every step.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its labels.
    pub(crate) labels: Labels,
    /// Whether the metric name goes when the query is finished.
    pub(crate) drop_name: bool,
    /// Its values.
    pub(crate) column: Column,
}

impl Series {
    /// A series of these labels.
    pub(crate) fn new(labels: Labels, column: Column) -> Self {
        Self { labels, drop_name: false, column }
    }
}

/// Without metric name, type and unit, which describe a value that is no longer there.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.retain(|name| !is_metadata(name))
}

/// Whether the label of this name tells what was measured.
pub(crate) fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// The text of the error for two series that became one.
pub(crate) const SAME_LABELSET: &str = "vector cannot contain metrics with the same labelset";

/// Merges series of equal labels; an error when they have a value at the same step.
pub(crate) fn merge_equal(all: Vec<Series>) -> Result<Vec<Series>, QueryError> {
    let mut index: HashMap<Labels, usize, foldhash::fast::FixedState> =
        HashMap::with_capacity_and_hasher(all.len(), foldhash::fast::FixedState::default());
    let mut merged: Vec<Series> = Vec::with_capacity(all.len());
    for series in all {
        if let Some(earlier) = index.get(&series.labels).and_then(|at| merged.get_mut(*at)) {
            for (at, point) in series.column.points() {
                if earlier.column.has(at) {
                    return Err(QueryError::execution(SAME_LABELSET));
                }
                earlier.column.set(at, point.to_value());
            }
            earlier.column.charged += series.column.charged;
            earlier.drop_name |= series.drop_name;
        } else {
            index.insert(series.labels.clone(), merged.len());
            merged.push(series);
        }
    }
    Ok(merged)
}

/// The samples of one series, floats and histograms apart, stale markers removed.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// Times of the floats.
    pub(crate) float_times: Vec<i64>,
    /// The floats.
    pub(crate) floats: Vec<f64>,
    /// Start times of the floats, `i64::MIN` for none; empty when no float has one.
    pub(crate) float_starts: Vec<i64>,
    /// Times of the histograms.
    pub(crate) histogram_times: Vec<i64>,
    /// The histograms.
    pub(crate) histograms: Vec<Arc<FloatHistogram>>,
    /// Start times of the histograms, as `float_starts`.
    pub(crate) histogram_starts: Vec<i64>,
    /// Indexes of floats that are smaller than the one before.
    pub(crate) drops: Vec<usize>,
}

impl Samples {
    /// Empties everything, keeping memory.
    pub(crate) fn clear(&mut self) {
        self.float_times.clear();
        self.floats.clear();
        self.float_starts.clear();
        self.histogram_times.clear();
        self.histograms.clear();
        self.histogram_starts.clear();
        self.drops.clear();
    }

    /// Takes the floats out of columns that have nothing else, no stale markers either.
    pub(crate) fn take_floats(&mut self, columns: &mut Columns) {
        // In place, both ways: neither copies nor allocates.
        let empty = std::mem::take(&mut self.float_times).into_iter().map(Timestamp).collect();
        let times = std::mem::replace(&mut columns.times, empty);
        self.float_times = times.into_iter().map(|time| time.0).collect();
        std::mem::swap(&mut self.floats, &mut columns.values);
        let after = self.floats.get(1..).unwrap_or_default();
        let pairs = || self.floats.iter().zip(after);
        // Counting all is faster than looking for the first.
        if pairs().filter(|(before, value)| value < before).count() > 0 {
            let drops = pairs().enumerate().filter(|(_, (before, value))| value < before);
            self.drops.extend(drops.map(|(at, _)| at + 1));
        }
    }

    /// Whether there are only floats without start times.
    pub(crate) fn is_plain(&self) -> bool {
        self.histograms.is_empty() && self.float_starts.is_empty()
    }

    /// Adds a float.
    pub(crate) fn push_float(&mut self, at: i64, value: f64) {
        if self.floats.last().is_some_and(|last| value < *last) {
            self.drops.push(self.floats.len());
        }
        self.float_times.push(at);
        self.floats.push(value);
    }

    /// Adds a histogram.
    pub(crate) fn push_histogram(&mut self, at: i64, histogram: Arc<FloatHistogram>) {
        self.histogram_times.push(at);
        self.histograms.push(histogram);
    }

    /// Points as the limit on samples counts them.
    pub(crate) fn weight(&self) -> usize {
        let histograms: usize =
            self.histograms.iter().map(|histogram| histogram.size_bytes() / 16).sum();
        self.floats.len() + histograms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_hold_floats_and_histograms() {
        let mut column = Column::new(130);
        column.set_float(0, 1.0);
        column.set_float(129, 2.0);
        column.set_histogram(5, Arc::default());
        assert_eq!(column.floats().collect::<Vec<_>>(), [(0, 1.0), (129, 2.0)]);
        assert_eq!(column.points().count(), 3);
        column.clear(5);
        column.map_floats(|_, value| value * 2.0);
        assert_eq!(column.float(129), Some(4.0));
        assert!(!column.has(5));
        column.filter_floats(|_, value| value > 3.0);
        assert_eq!(column.points().count(), 1);
    }

    #[test]
    fn equal_series_merge_where_they_do_not_overlap() {
        let labels = Labels::from_pairs([("a", "1")]);
        let series = |at| {
            let mut column = Column::new(3);
            column.set_float(at, 1.0);
            Series::new(labels.clone(), column)
        };
        let merged = merge_equal(vec![series(0), series(2)]).unwrap();
        assert_eq!(merged.len(), 1);
        assert_eq!(merged[0].column.points().count(), 2);
        assert!(merge_equal(vec![series(0), series(0)]).is_err());
    }
}
