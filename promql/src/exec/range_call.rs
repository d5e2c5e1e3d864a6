//! Functions over range vectors: one value of each window of each series.

use std::cell::RefCell;
use std::ops::Range;

use stint_model::Labels;

use crate::column::{Column, Samples, Scalar, Series};
use crate::error::QueryError;
use crate::exec::timeline::{Timeline, Timelines};
use crate::exec::window::{Edges, Scope, Shape, Slide, Window, apply_kernel};
use crate::exec::{Evaluator, Sink};
use crate::functions::{Kernel, RangeFunction, over_time, rate};
use crate::parse::ast::{Call, Expr, PosRange, ValueType};

/// Samples of windows between two looks at the clock.
const SAMPLES_PER_CHECK: usize = 1 << 16;

/// A function and everything that it is applied with.
struct Applied<'a, 'e> {
    eval: &'a Evaluator<'e>,
    name: &'static str,
    function: RangeFunction,
    /// How it is applied to plain floats, if not window by window.
    kernel: Option<Kernel>,
    shape: Shape,
    /// The scalar arguments.
    args: [Scalar; 2],
    arg_pos: PosRange,
    /// Where the range vector stands.
    pos: PosRange,
}

impl Evaluator<'_> {
    /// Applies a range function to every window of every series.
    pub(crate) fn range_call(
        &self,
        call: &Call,
        function: RangeFunction,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let mut args = [Scalar::Constant(0.0), Scalar::Constant(0.0)];
        let mut arg_pos = None;
        let mut matrix = None;
        let mut slots = args.iter_mut();
        for arg in &call.args {
            if arg.value_type() == ValueType::Matrix {
                matrix = Some(arg);
            } else if let Some(slot) = slots.next() {
                *slot = self.scalar(arg)?;
                arg_pos.get_or_insert(arg.pos());
            }
        }
        let Some(matrix) = matrix else {
            return Err(QueryError::execution("the function needs a range vector"));
        };
        let name = call.function.name;
        let shape = self.shape(matrix)?;
        check_edges(name, shape.edges)?;
        let is_columnar = self.shared.options.rewrites.columnar_windows;
        let applied = Applied {
            eval: self,
            name,
            function,
            kernel: function.kernel.filter(|_| is_columnar && shape.edges == Edges::Plain),
            shape,
            args,
            arg_pos: arg_pos.unwrap_or_default(),
            pos: matrix.pos(),
        };
        // Two closures use it, one after the other.
        let sink = RefCell::new(sink);
        let columns = &mut |labels, column, timeline: &Timeline| {
            applied.take_column(labels, false, column, timeline, &mut **sink.borrow_mut())
        };
        let mut timelines = Timelines::new(shape, self.steps);
        let samples = &mut |labels, drop_name, samples: &mut Samples| {
            if let Some(kernel) = applied.kernel.filter(|_| samples.is_plain()) {
                let mut column = self.shared.column(self.steps.count);
                let check = || self.shared.check_now();
                let timeline = apply_kernel(kernel, samples, &mut timelines, &mut column, &check)?;
                let sink = &mut **sink.borrow_mut();
                return applied.take_column(labels, drop_name, column, &timeline, sink);
            }
            applied.slide(labels, drop_name, samples, &mut **sink.borrow_mut())
        };
        match matrix.unparenthesized() {
            Expr::MatrixSelector(matrix) => {
                self.matrix_windows(matrix, name, applied.kernel, samples, columns)
            }
            _ => self.stream_samples(matrix, name, samples),
        }
    }
}

impl Applied<'_, '_> {
    fn scope<'s>(&'s self, labels: &'s Labels) -> Scope<'s> {
        Scope {
            shared: self.eval.shared,
            labels,
            shape: self.shape,
            time: 0,
            args: [0.0; 2],
            pos: self.pos,
            arg_pos: self.arg_pos,
            use_starts: self.eval.shared.options.use_start_timestamps,
        }
    }

    fn is_rate(&self) -> bool {
        matches!(self.name, "rate" | "increase")
    }

    /// Takes what a kernel made.
    fn take_column(
        &self,
        labels: Labels,
        drop_name: bool,
        column: Column,
        timeline: &Timeline,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        self.count_windows(timeline);
        if self.is_rate() && !column.is_empty() {
            rate::remark_on_name(&self.scope(&labels));
        }
        self.emit(labels, drop_name, column, sink)
    }

    /// Applies the function to one window after the other.
    fn slide(
        &self,
        labels: Labels,
        drop_name: bool,
        samples: &Samples,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let shared = self.eval.shared;
        let mut column = shared.column(self.eval.steps.count);
        let mut scope = self.scope(&labels);
        let mut slide = Slide::default();
        let mut counted = Counted::default();
        let mut unchecked = 0;
        for (at, time) in self.eval.steps.times().enumerate() {
            let end = self.shape.reference.time(time);
            let start = end.saturating_sub(self.shape.range);
            let window = slide.to(samples, start, end, self.shape.edges, shared.lookback);
            if window.len() == 0 {
                continue;
            }
            unchecked += window.len();
            if unchecked > SAMPLES_PER_CHECK {
                unchecked = 0;
                shared.check_now()?;
            }
            let (len, fresh) = counted.add(&window);
            if shared.counts_steps() {
                shared.looked_at_step(time, len, fresh);
            }
            scope.time = time;
            scope.args = [self.args[0].at(at), self.args[1].at(at)];
            if self.name == "double_exponential_smoothing" {
                over_time::check_factors(scope.args)?;
            }
            if let Some(value) = (self.function.eval)(&window, &scope) {
                column.set(at, value);
            }
        }
        shared.looked_at(counted.samples, counted.read);
        if self.is_rate() && column.floats().next().is_some() {
            rate::remark_on_name(&scope);
        }
        self.emit(labels, drop_name, column, sink)
    }

    /// Counts the samples of the windows of all steps.
    fn count_windows(&self, timeline: &Timeline) {
        let shared = self.eval.shared;
        let (samples, read) = timeline.counted;
        shared.looked_at(samples, read);
        if !shared.counts_steps() {
            return;
        }
        let mut seen = 0;
        for (at, (from, to)) in timeline.windows.iter().enumerate() {
            let fresh = to.saturating_sub(seen.max(*from)) as usize;
            seen = seen.max(*to);
            if to > from {
                shared.looked_at_step(self.eval.steps.at(at), (to - from) as usize, fresh);
            }
        }
    }

    fn emit(
        &self,
        labels: Labels,
        drop_name: bool,
        column: Column,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let mut series = Series { labels, drop_name, column };
        if self.function.drops_name {
            self.eval.drop_name(&mut series);
        }
        self.eval.emit(series, sink)
    }
}

/// How many samples windows had, and how many of them were new.
#[derive(Default)]
struct Counted {
    samples: usize,
    read: usize,
    floats: usize,
    histograms: usize,
}

impl Counted {
    /// Adds a window that lies behind those before: its samples, and the new ones among them.
    fn add(&mut self, window: &Window<'_>) -> (usize, usize) {
        let fresh = |range: &Range<usize>, seen: &mut usize| {
            let fresh = range.end.saturating_sub((*seen).max(range.start));
            *seen = (*seen).max(range.end);
            fresh
        };
        let fresh = fresh(&window.float_range, &mut self.floats)
            + fresh(&window.histogram_range, &mut self.histograms);
        self.samples += window.len();
        self.read += fresh;
        (window.len(), fresh)
    }
}

fn check_edges(function: &str, edges: Edges) -> Result<(), QueryError> {
    let (modifier, allowed): (_, &[&str]) = match edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&function) {
        return Ok(());
    }
    Err(QueryError::Execution(format!(
        "{modifier} modifier can only be used with: {} - not with {function}",
        allowed.join(", ")
    )))
}
