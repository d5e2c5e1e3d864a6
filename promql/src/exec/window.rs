//! Range selectors: a window slides over the samples of each series, a function makes one value
//! of each window.

use std::ops::Range;
use std::sync::Arc;

use stint_model::histogram::FloatHistogram;
use stint_model::{Labels, Selector, TimeRange, Timestamp};

use crate::column::{Column, Samples};
use crate::error::QueryError;
use crate::exec::duration::Reference;
use crate::exec::groups::SeenLabels;
use crate::exec::produce::{Scratch, Waiting};
use crate::exec::selector::load;
use crate::exec::timeline::{Timeline, Timelines};
use crate::exec::{Evaluator, Shared};
use crate::functions::{Kernel, floats, lanes, plain_rate};
use crate::parse::ast::{Expr, MatrixSelector, PosRange};
use crate::value::RangeSeries;

/// How a window treats its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edges {
    /// Only samples inside count.
    Plain,
    /// The last sample before the window stands at its start.
    Anchored,
    /// Values at both edges are interpolated.
    Smoothed,
}

impl Edges {
    /// What the modifier of a selector asks for.
    pub(crate) fn of(matrix: &MatrixSelector) -> Self {
        match (matrix.selector.anchored, matrix.selector.smoothed) {
            (true, _) => Self::Anchored,
            (_, true) => Self::Smoothed,
            _ => Self::Plain,
        }
    }
}

/// Where and how long the windows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) reference: Reference,
    /// Length in milliseconds.
    pub(crate) range: i64,
    pub(crate) edges: Edges,
}

/// The samples of one series in one window.
#[derive(Clone, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) samples: &'a Samples,
    pub(crate) float_range: Range<usize>,
    pub(crate) histogram_range: Range<usize>,
    /// The window holds times after `start` up to `end`.
    pub(crate) start: i64,
    pub(crate) end: i64,
}

impl<'a> Window<'a> {
    pub(crate) fn floats(&self) -> &'a [f64] {
        self.samples.floats.get(self.float_range.clone()).unwrap_or_default()
    }

    pub(crate) fn float_times(&self) -> &'a [i64] {
        self.samples.float_times.get(self.float_range.clone()).unwrap_or_default()
    }

    pub(crate) fn float_starts(&self) -> &'a [i64] {
        self.samples.float_starts.get(self.float_range.clone()).unwrap_or_default()
    }

    pub(crate) fn histograms(&self) -> &'a [Arc<FloatHistogram>] {
        self.samples.histograms.get(self.histogram_range.clone()).unwrap_or_default()
    }

    pub(crate) fn histogram_times(&self) -> &'a [i64] {
        self.samples.histogram_times.get(self.histogram_range.clone()).unwrap_or_default()
    }

    pub(crate) fn histogram_starts(&self) -> &'a [i64] {
        self.samples.histogram_starts.get(self.histogram_range.clone()).unwrap_or_default()
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        self.float_range.len() + self.histogram_range.len()
    }
}

/// What a range function knows beside its window.
pub(crate) struct Scope<'a> {
    pub(crate) shared: &'a Shared<'a>,
    pub(crate) labels: &'a Labels,
    pub(crate) shape: Shape,
    /// The time of the step.
    pub(crate) time: i64,
    /// The scalar arguments at the step.
    pub(crate) args: [f64; 2],
    /// Where the range vector stands.
    pub(crate) pos: PosRange,
    /// Where the first scalar argument stands.
    pub(crate) arg_pos: PosRange,
    /// Whether start times of samples tell resets.
    pub(crate) use_starts: bool,
}

impl Scope<'_> {
    /// The metric name, empty without one.
    pub(crate) fn metric(&self) -> &str {
        self.labels.metric_name().unwrap_or_default()
    }

    /// Warns about the range vector.
    pub(crate) fn warn(&self, text: &str) {
        self.shared.warn(text, self.pos);
    }

    /// Remarks on the range vector.
    pub(crate) fn info(&self, text: &str) {
        self.shared.info(text, self.pos);
    }
}

/// Takes labels, whether the name is to be dropped, and samples of one series.
pub(crate) type SamplesSink<'s> =
    dyn FnMut(Labels, bool, &mut Samples) -> Result<(), QueryError> + 's;

/// Takes labels and column of one series, and the timeline that the column was filled along.
pub(crate) type ColumnsSink<'s> =
    dyn FnMut(Labels, Column, &Timeline) -> Result<(), QueryError> + 's;

/// What is made of a series.
enum Made {
    Nothing,
    Samples(Samples),
    /// Also how many samples it was made of.
    Column(Column, Arc<Timeline>, usize),
}

impl Waiting for Made {
    fn points(&self) -> usize {
        match self {
            Self::Nothing | Self::Column(..) => 0,
            Self::Samples(samples) => samples.weight(),
        }
    }
}

impl Evaluator<'_> {
    /// The windows of a range vector.
    pub(crate) fn shape(&self, expr: &Expr) -> Result<Shape, QueryError> {
        match expr.unparenthesized() {
            Expr::MatrixSelector(matrix) => self.matrix_shape(matrix),
            Expr::Subquery(subquery) => {
                let (_, range, reference) = self.subquery_shape(subquery)?;
                Ok(Shape { reference, range, edges: Edges::Plain })
            }
            _ => Err(QueryError::execution("the expression is not a range vector")),
        }
    }

    fn matrix_shape(&self, matrix: &MatrixSelector) -> Result<Shape, QueryError> {
        let selector = &matrix.selector;
        let reference = self.reference(&selector.offset, selector.at)?;
        let range = self.positive_duration(&matrix.range)?;
        Ok(Shape { reference, range, edges: Edges::of(matrix) })
    }

    /// Hands the samples of each series of a range vector to `sink`.
    pub(crate) fn stream_samples(
        &self,
        expr: &Expr,
        func: &str,
        sink: &mut SamplesSink<'_>,
    ) -> Result<(), QueryError> {
        match expr.unparenthesized() {
            Expr::MatrixSelector(matrix) => self.matrix_samples(matrix, func, sink),
            Expr::Subquery(subquery) => self.subquery_samples(subquery, sink),
            _ => Err(QueryError::execution("the expression is not a range vector")),
        }
    }

    fn matrix_samples(
        &self,
        matrix: &MatrixSelector,
        func: &str,
        sink: &mut SamplesSink<'_>,
    ) -> Result<(), QueryError> {
        self.matrix_windows(matrix, func, None, sink, &mut |_, column, _| {
            self.shared.recycle(column);
            Ok(())
        })
    }

    /// Hands the samples of each series to `sink`, or, where a kernel is for them, the column that
    /// it makes of them to `columns`.
    pub(crate) fn matrix_windows(
        &self,
        matrix: &MatrixSelector,
        func: &str,
        kernel: Option<Kernel>,
        sink: &mut SamplesSink<'_>,
        columns: &mut ColumnsSink<'_>,
    ) -> Result<(), QueryError> {
        let shape = self.matrix_shape(matrix)?;
        let selector = Selector::new(matrix.selector.matchers.clone());
        let set = self.select(&selector, shape.range, func)?;
        let lookback = self.shared.lookback;
        let (back, ahead) = match shape.edges {
            Edges::Plain => (0, 0),
            Edges::Anchored => (lookback, 0),
            Edges::Smoothed => (lookback, lookback),
        };
        let first = shape.reference.time(self.steps.start).saturating_sub(shape.range);
        let first = first.saturating_sub(back).saturating_add(1);
        let last = shape.reference.time(self.steps.end()).saturating_add(ahead);
        let range = TimeRange::closed(Timestamp(first), Timestamp(last));
        let (steps, detects_resets) = (self.steps, self.shared.detects_resets.get());
        let set = &*set;
        let make = |index: usize, scratch: &mut Scratch| {
            scratch.columns.clear();
            set.read(index, range, &mut scratch.columns)?;
            scratch.samples.clear();
            load(&mut scratch.columns, &mut scratch.samples, detects_resets);
            let weight = scratch.samples.weight();
            if weight == 0 {
                return Ok(Made::Nothing);
            }
            let Some(kernel) = kernel.filter(|_| scratch.samples.is_plain()) else {
                return Ok(Made::Samples(std::mem::take(&mut scratch.samples)));
            };
            let mut column = scratch.column(steps.count);
            let mut timelines =
                scratch.timelines.take().unwrap_or_else(|| Timelines::new(shape, steps));
            let check = || scratch.check();
            let made = apply_kernel(kernel, &scratch.samples, &mut timelines, &mut column, &check);
            let timeline = made?;
            scratch.timelines = Some(timelines);
            Ok(Made::Column(column, timeline, weight))
        };
        let mut seen = SeenLabels::new(self.grouping);
        self.produce(set.len(), &make, &mut |index, made| match made {
            Made::Nothing => Ok(()),
            Made::Samples(mut samples) => {
                let weight = samples.weight();
                self.shared.hold(weight)?;
                sink(seen.of(set, index), false, &mut samples)?;
                self.shared.release(weight);
                Ok(())
            }
            Made::Column(column, timeline, weight) => {
                self.shared.hold(weight)?;
                columns(seen.of(set, index), column, &timeline)?;
                self.shared.release(weight);
                Ok(())
            }
        })
    }

    /// The samples of a range vector themselves, for an instant query that asks for them.
    pub(crate) fn raw_matrix(&self, expr: &Expr) -> Result<Vec<RangeSeries>, QueryError> {
        let shape = self.shape(expr)?;
        if shape.edges != Edges::Plain {
            return Err(QueryError::execution(
                "anchored and smoothed modifiers need a function around the range",
            ));
        }
        let mut all = Vec::new();
        self.stream_samples(expr, "", &mut |labels, drop_name, samples| {
            let end = shape.reference.time(self.steps.start);
            let start = end.saturating_sub(shape.range);
            let window = Slide::default().to(samples, start, end, Edges::Plain, 0);
            let floats = window.float_times().iter().zip(window.floats());
            let histograms = window.histogram_times().iter().zip(window.histograms());
            self.shared.looked_at(window.len(), window.len());
            if self.shared.counts_steps() {
                self.shared.looked_at_step(self.steps.start, window.len(), window.len());
            }
            self.shared.hold(window.len())?;
            let labels = if drop_name { crate::column::without_metadata(&labels) } else { labels };
            let series = RangeSeries {
                labels,
                floats: floats.map(|(time, value)| (Timestamp(*time), *value)).collect(),
                histograms: histograms.map(|(time, h)| (Timestamp(*time), h.clone())).collect(),
            };
            if !series.floats.is_empty() || !series.histograms.is_empty() {
                all.push(series);
            }
            Ok(())
        })?;
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(all)
    }
}

/// Fills a column, and gives the timeline it was filled along. `check` is asked now and then
/// whether to go on.
pub(crate) fn apply_kernel(
    kernel: Kernel,
    samples: &Samples,
    timelines: &mut Timelines,
    column: &mut Column,
    check: &dyn Fn() -> Result<(), QueryError>,
) -> Result<Arc<Timeline>, QueryError> {
    let range = timelines.range();
    let timeline = timelines.of(&samples.float_times, |timeline, shape, steps| {
        if let Kernel::Rate(kind) = kernel {
            plain_rate::prepare(kind, timeline, shape, steps);
        }
    });
    match kernel {
        Kernel::Rate(kind) => plain_rate::column(kind, samples, &timeline, range, column),
        Kernel::Summary(summary) => {
            lanes::column(summary, &samples.floats, &timeline.windows, column, check)?;
        }
        Kernel::Floats(function) => {
            floats::column(function, &samples.floats, &timeline.windows, column, check)?;
        }
    }
    Ok(timeline)
}

/// Two pointers into the samples that only move forward while windows do.
#[derive(Debug, Default)]
pub(crate) struct Slide {
    floats: Range<usize>,
    histograms: Range<usize>,
}

impl Slide {
    /// The window of times after `start` up to `end`, with the samples around it that its edges
    /// need.
    pub(crate) fn to<'s>(
        &mut self,
        samples: &'s Samples,
        start: i64,
        end: i64,
        edges: Edges,
        lookback: i64,
    ) -> Window<'s> {
        advance(&mut self.floats, &samples.float_times, start, end);
        advance(&mut self.histograms, &samples.histogram_times, start, end);
        let mut window = Window {
            samples,
            float_range: self.floats.clone(),
            histogram_range: self.histograms.clone(),
            start,
            end,
        };
        if edges != Edges::Plain {
            widen(&mut window.float_range, &samples.float_times, start, end, edges, lookback);
            widen(
                &mut window.histogram_range,
                &samples.histogram_times,
                start,
                end,
                edges,
                lookback,
            );
            one_anchor(&mut window);
        }
        window
    }
}

/// Keeps only the later of two samples before the window, if there are a float and a histogram.
fn one_anchor(window: &mut Window<'_>) {
    let anchor = |times: &[i64]| times.first().copied().filter(|time| *time <= window.start);
    let (float, histogram) = (anchor(window.float_times()), anchor(window.histogram_times()));
    if let (Some(float), Some(histogram)) = (float, histogram) {
        if float < histogram {
            window.float_range.start += 1;
        } else {
            window.histogram_range.start += 1;
        }
    }
}

fn advance(range: &mut Range<usize>, times: &[i64], start: i64, end: i64) {
    while times.get(range.start).is_some_and(|time| *time <= start) {
        range.start += 1;
    }
    range.end = range.end.max(range.start);
    while times.get(range.end).is_some_and(|time| *time <= end) {
        range.end += 1;
    }
}

/// Takes in the sample at or before `start`, and for smoothed edges the one after `end`, if each
/// lies within the lookback.
fn widen(
    range: &mut Range<usize>,
    times: &[i64],
    start: i64,
    end: i64,
    edges: Edges,
    lookback: i64,
) {
    let reaches_start = |time: &i64| *time > start.saturating_sub(lookback);
    if range.start > 0 && times.get(range.start - 1).is_some_and(reaches_start) {
        range.start -= 1;
    }
    let reaches_end = |time: &i64| *time <= end.saturating_add(lookback);
    if edges == Edges::Smoothed
        && range.end.checked_sub(1).and_then(|last| times.get(last)) != Some(&end)
        && times.get(range.end).is_some_and(reaches_end)
    {
        range.end += 1;
    }
}
