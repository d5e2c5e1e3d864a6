//! Instant selectors: at each step the newest sample within the lookback.

use std::sync::Arc;

use stint_model::histogram::{FloatHistogram, ResetHint};
use stint_model::labels::METRIC_NAME;
use stint_model::{
    Columns, Hints, Labels, MatchOp, Selector, SeriesSet, Span, TimeRange, Timestamp, is_stale,
};

use crate::column::{Column, Samples, Series, Steps};
use crate::error::QueryError;
use crate::exec::duration::Reference;
use crate::exec::groups::SeenLabels;
use crate::exec::produce::{Scratch, Waiting};
use crate::exec::{Evaluator, Sink};
use crate::functions::rate::{Clash, interpolate};
use crate::parse::ast::{PosRange, VectorSelector};

/// What a histogram weighs as long as it is not looked at, in floats with their times.
const HISTOGRAM_POINTS: usize = 16;

/// What is taken from the sample that a selector finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Its value.
    Value,
    /// Its time, in seconds.
    Time,
    /// Its start time, in seconds.
    StartTime,
    /// Its time if it is a float; a histogram as it is.
    FloatTime,
}

/// Whether the selector names one metric.
pub(crate) fn has_one_name(selector: &VectorSelector) -> bool {
    selector.matchers.iter().any(|matcher| {
        matcher.name() == METRIC_NAME
            && matcher.op() == MatchOp::Equal
            && !matcher.value().is_empty()
    })
}

impl Evaluator<'_> {
    /// The series that a selector matches.
    pub(crate) fn select(
        &self,
        selector: &Selector,
        range: i64,
        func: &str,
    ) -> Result<Box<dyn SeriesSet>, QueryError> {
        let step = if self.steps.count > 1 { self.steps.step } else { 0 };
        let hints = Hints {
            step: Span(step),
            range: Span(range),
            func: func.to_owned(),
            limit: 0,
            unordered: self.unordered,
        };
        match &self.shared.querier {
            Some(querier) => Ok(querier.select(selector, &hints)?),
            None => Err(QueryError::Storage(stint_model::QueryError::Closed)),
        }
    }

    /// The values of an instant selector.
    pub(crate) fn instant_selector(
        &self,
        selector: &VectorSelector,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        if selector.smoothed {
            self.smoothed_selector(selector, sink)
        } else {
            self.take(selector, Take::Value, sink)
        }
    }

    /// Values or times of the samples that an instant selector finds.
    pub(crate) fn take(
        &self,
        selector: &VectorSelector,
        take: Take,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let reference = self.reference(&selector.offset, selector.at)?;
        let set = self.select(&Selector::new(selector.matchers.clone()), 0, "")?;
        self.take_all(&*set, reference, take, sink)
    }

    /// Values or times of the samples of all series of a set.
    pub(crate) fn take_all(
        &self,
        set: &dyn SeriesSet,
        reference: Reference,
        take: Take,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let lookback = self.shared.lookback;
        let first = reference.time(self.steps.start).saturating_sub(lookback).saturating_add(1);
        let last = reference.time(self.steps.end());
        let range = TimeRange::closed(Timestamp(first), Timestamp(last));
        let steps = self.steps;
        let is_simple = !self.shared.counts_steps();
        let make = |index: usize, scratch: &mut Scratch| {
            scratch.columns.clear();
            set.read(index, range, &mut scratch.columns)?;
            if scratch.columns.is_empty() {
                return Ok(Made::Nothing);
            }
            if !is_simple || !scratch.columns.histograms.is_empty() {
                return Ok(Made::Samples(std::mem::take(&mut scratch.columns)));
            }
            let mut column = scratch.column(steps.count);
            let read =
                fill_floats(&scratch.columns, steps, (reference, lookback), take, &mut column);
            if read > 0 {
                return Ok(Made::Column(column, read));
            }
            scratch.recycle(column);
            Ok(Made::Nothing)
        };
        let mut seen = SeenLabels::new(self.grouping);
        self.produce(set.len(), &make, &mut |index, made| {
            let (column, read) = match made {
                Made::Nothing => return Ok(()),
                Made::Column(column, read) => (column, read),
                Made::Samples(columns) => {
                    let mut column = self.shared.column(steps.count);
                    let read = self.fill(&columns, reference, take, &mut column);
                    (column, read)
                }
            };
            self.shared.looked_at(column.weight(), read);
            if column.is_empty() {
                self.shared.recycle(column);
                return Ok(());
            }
            self.emit(Series::new(seen.of(set, index), column), sink)
        })
    }

    /// Fills a column; how many samples it was filled with, each counted once.
    fn fill(&self, columns: &Columns, reference: Reference, take: Take, out: &mut Column) -> usize {
        let (mut next, mut read, mut newest) = (0, 0, usize::MAX);
        let mut histograms = Histograms::new(columns, self.shared.detects_resets.get());
        for (at, time) in self.steps.times().enumerate() {
            let time = reference.time(time);
            while columns.times.get(next).is_some_and(|sample| sample.0 <= time) {
                next += 1;
            }
            let Some(row) = next.checked_sub(1) else { continue };
            let (Some(sampled), Some(value)) = (columns.times.get(row), columns.values.get(row))
            else {
                continue;
            };
            if sampled.0 <= time.saturating_sub(self.shared.lookback) || is_stale(*value) {
                continue;
            }
            let histogram = histograms.at(row);
            if histogram.is_some_and(|histogram| is_stale(histogram.sum)) {
                continue;
            }
            let fresh = usize::from(newest != row);
            newest = row;
            read += fresh;
            if self.shared.counts_steps() {
                self.shared.looked_at_step(self.steps.at(at), 1, fresh);
            }
            match (take, histogram) {
                (Take::Value | Take::FloatTime, Some(histogram)) => {
                    out.set_histogram(at, histogram.clone());
                }
                (Take::Value, None) => out.set_float(at, *value),
                (Take::Time | Take::FloatTime, _) => out.set_float(at, sampled.as_secs_f64()),
                (Take::StartTime, _) => match columns.starts.get(row) {
                    Some(start) if *start != Timestamp::MIN => {
                        out.set_float(at, start.as_secs_f64());
                    }
                    _ => out.set_float(at, 0.0),
                },
            }
        }
        read
    }

    /// Interpolates between the samples before and after each step.
    fn smoothed_selector(
        &self,
        selector: &VectorSelector,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let reference = self.reference(&selector.offset, selector.at)?;
        let set = self.select(&Selector::new(selector.matchers.clone()), 0, "")?;
        let lookback = self.shared.lookback;
        let first = reference.time(self.steps.start).saturating_sub(lookback).saturating_add(1);
        let last = reference.time(self.steps.end()).saturating_add(lookback);
        let range = TimeRange::closed(Timestamp(first), Timestamp(last));
        let mut columns = Columns::default();
        let mut samples = Samples::default();
        for index in 0..set.len() {
            self.shared.check()?;
            columns.clear();
            set.read(index, range, &mut columns)?;
            samples.clear();
            load(&mut columns, &mut samples, self.shared.detects_resets.get());
            let mut column = self.shared.column(self.steps.count);
            for (at, time) in self.steps.times().enumerate() {
                match interpolate(&samples, reference.time(time), lookback) {
                    Ok(Some(value)) => column.set(at, value),
                    Ok(None) => {}
                    Err(clash) => self.warn_clash(clash, &set.labels(index), selector.pos),
                }
            }
            self.emit(Series::new(set.labels(index), column), sink)?;
        }
        Ok(())
    }
}

/// What is made of a series.
enum Made {
    Nothing,
    /// Also how many samples it was filled with.
    Column(Column, usize),
    Samples(Columns),
}

impl Waiting for Made {
    fn points(&self) -> usize {
        match self {
            Self::Nothing | Self::Column(..) => 0,
            Self::Samples(columns) => columns.len() + columns.histograms.len() * HISTOGRAM_POINTS,
        }
    }
}

/// As [`Evaluator::fill`], of columns without histograms.
fn fill_floats(
    columns: &Columns,
    steps: Steps,
    (reference, lookback): (Reference, i64),
    take: Take,
    out: &mut Column,
) -> usize {
    let Columns { times, values, starts, .. } = columns;
    let (mut next, mut read, mut newest) = (0, 0, usize::MAX);
    // Without a pointer to move, the one sample of an instant query is found by searching.
    if steps.count == 1 {
        next = times.partition_point(|sampled| sampled.0 <= reference.time(steps.start));
    }
    for (at, time) in steps.times().enumerate() {
        let time = reference.time(time);
        while times.get(next).is_some_and(|sampled| sampled.0 <= time) {
            next += 1;
        }
        let Some(row) = next.checked_sub(1) else { continue };
        let (Some(sampled), Some(value)) = (times.get(row), values.get(row)) else { continue };
        if sampled.0 <= time.saturating_sub(lookback) || is_stale(*value) {
            continue;
        }
        read += usize::from(newest != row);
        newest = row;
        let value = match take {
            Take::Value => *value,
            Take::Time | Take::FloatTime => sampled.as_secs_f64(),
            Take::StartTime => match starts.get(row) {
                Some(start) if *start != Timestamp::MIN => start.as_secs_f64(),
                _ => 0.0,
            },
        };
        out.set_float(at, value);
    }
    read
}

impl Evaluator<'_> {
    fn warn_clash(&self, clash: Clash, labels: &Labels, pos: PosRange) {
        let name = labels.metric_name().unwrap_or_default();
        let text = match clash {
            Clash::Types => {
                format!("encountered a mix of histograms and floats for metric name {name:?}")
            }
            Clash::Layouts => format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas \
                 for metric name {name:?}"
            ),
        };
        self.shared.warn(&text, pos);
    }
}

/// The histograms of columns by row, each converted once; rows must be asked for in order.
pub(crate) struct Histograms<'a> {
    columns: &'a Columns,
    next: usize,
    row: usize,
    current: Option<Arc<FloatHistogram>>,
    /// Whether unknown hints are filled in by comparing neighbours.
    detects_resets: bool,
}

impl<'a> Histograms<'a> {
    /// Of these columns.
    pub(crate) fn new(columns: &'a Columns, detects_resets: bool) -> Self {
        Self { columns, next: 0, row: usize::MAX, current: None, detects_resets }
    }

    /// The histogram at `row`, if that is what is there.
    pub(crate) fn at(&mut self, row: usize) -> Option<&Arc<FloatHistogram>> {
        if self.columns.histograms.is_empty() {
            return None;
        }
        if self.row != row {
            let all = &self.columns.histograms;
            while all.get(self.next).is_some_and(|(at, _)| *at < row) {
                self.next += 1;
            }
            self.row = row;
            self.current = all.get(self.next).filter(|(at, _)| *at == row).map(|(_, histogram)| {
                let mut float = histogram.to_float();
                let before = self.next.checked_sub(1).and_then(|before| all.get(before));
                if self.detects_resets
                    && float.reset_hint == ResetHint::Unknown
                    && let Some((_, before)) = before
                {
                    let reset = float.is_reset_after(&before.to_float());
                    float.reset_hint = if reset { ResetHint::Reset } else { ResetHint::NotReset };
                }
                Arc::new(float)
            });
        }
        self.current.as_ref()
    }
}

/// Splits columns into floats and histograms, without stale markers.
pub(crate) fn load(columns: &mut Columns, samples: &mut Samples, detects_resets: bool) {
    // Most series are plain floats. What is not a number may be a stale marker.
    let is_plain = columns.histograms.is_empty()
        && columns.starts.is_empty()
        && columns.values.iter().filter(|value| value.is_nan()).count() == 0;
    if is_plain {
        samples.take_floats(columns);
        return;
    }
    let columns = &*columns;
    let mut histograms = Histograms::new(columns, detects_resets);
    let has_starts = !columns.starts.is_empty();
    for (row, (time, value)) in columns.times.iter().zip(&columns.values).enumerate() {
        let start = columns.starts.get(row).copied().unwrap_or(Timestamp::MIN).0;
        if let Some(histogram) = histograms.at(row) {
            if !is_stale(histogram.sum) {
                samples.push_histogram(time.0, histogram.clone());
                if has_starts {
                    samples.histogram_starts.push(start);
                }
            }
        } else if !is_stale(*value) {
            samples.push_float(time.0, *value);
            if has_starts {
                samples.float_starts.push(start);
            }
        }
    }
}
