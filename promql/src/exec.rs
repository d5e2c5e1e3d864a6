//! Evaluation: an expression becomes series, each a column over all steps.
//!
//! [`Evaluator::stream`] hands the series of an expression to a sink one by one, so that an
//! aggregation never holds more than its groups and the column it is folding.

pub(crate) mod accumulate;
pub(crate) mod aggregate;
pub(crate) mod binary;
pub(crate) mod call;
pub(crate) mod classic;
pub(crate) mod common;
pub(crate) mod decide;
pub(crate) mod duration;
pub(crate) mod groups;
pub(crate) mod info;
pub(crate) mod join;
pub(crate) mod produce;
pub(crate) mod push;
pub(crate) mod range_call;
pub(crate) mod scalar;
pub(crate) mod selector;
pub(crate) mod set_ops;
pub(crate) mod sort;
pub(crate) mod subquery;
pub(crate) mod timeline;
pub(crate) mod topk;
pub(crate) mod window;

use std::cell::{Cell, RefCell};

use stint_model::{Querier, Timestamp};

use crate::annotations::{Annotations, Remarks};
use crate::cancel::Cancel;
use crate::column::{Column, Series, Steps, merge_equal, without_metadata};
use crate::engine::{EngineOptions, PHASE, Run};
use crate::error::QueryError;
use crate::parse::ast::{Aggregate, Expr, PosRange};
use crate::parse::line_and_column;
use crate::value::{Stats, StepStats};
use crate::workers::Workers;

pub(crate) use duration::reach;

/// Takes one series after the other.
pub(crate) type Sink<'s> = dyn FnMut(Series) -> Result<(), QueryError> + 's;

/// Longer columns are not kept to be used again: nobody is charged for them.
const SPARE_STEPS_MAX: usize = 1 << 16;

/// Most columns that are kept at the same time.
const SPARE_MAX: usize = 64;

/// How often it is asked whether to stop, for one reading of the clock.
const CHECKS_PER_CLOCK: u32 = 8;

/// What all parts of one query share.
pub(crate) struct Shared<'a> {
    pub(crate) options: &'a EngineOptions,
    pub(crate) querier: Option<Box<dyn Querier>>,
    pub(crate) lookback: i64,
    /// First and last time of the whole query, and its step (0 for an instant query).
    pub(crate) query: (i64, i64, i64),
    pub(crate) is_range: bool,
    text: &'a str,
    pub(crate) workers: Option<&'a dyn Workers>,
    cancel: Cancel,
    checks: Cell<u32>,
    held: Cell<usize>,
    peak: Cell<usize>,
    total: Cell<usize>,
    read: Cell<usize>,
    /// Samples looked at and read by each step; empty where nobody wants to know.
    by_step: RefCell<Vec<(usize, usize)>>,
    remarks: RefCell<Remarks>,
    spare: RefCell<Vec<Column>>,
    pub(crate) common: common::CommonParts,
    /// Whether selectors fill in what histograms do not say about counter resets. Prometheus does
    /// so where only counts and sums are asked for.
    pub(crate) detects_resets: Cell<bool>,
}

impl<'a> Shared<'a> {
    /// The state of a query that begins.
    pub(crate) fn new(
        options: &'a EngineOptions,
        workers: Option<&'a dyn Workers>,
        run: &Run<'a>,
        cancel: Cancel,
    ) -> Self {
        Self {
            options,
            querier: None,
            lookback: run.lookback.filter(|span| span.0 > 0).unwrap_or(options.lookback).0,
            query: (run.steps.start, run.end, if run.is_range { run.steps.step } else { 0 }),
            is_range: run.is_range,
            text: run.text,
            workers,
            cancel,
            checks: Cell::default(),
            held: Cell::default(),
            peak: Cell::default(),
            total: Cell::default(),
            read: Cell::default(),
            by_step: RefCell::new(if options.per_step_stats {
                vec![(0, 0); run.steps.count]
            } else {
                Vec::new()
            }),
            remarks: RefCell::default(),
            spare: RefCell::default(),
            common: if options.rewrites.common_parts {
                common::CommonParts::of(run.expr)
            } else {
                common::CommonParts::default()
            },
            detects_resets: Cell::default(),
        }
    }

    /// An error when the query should stop. Asked once for each series or more often, so that the
    /// clock is read at some of the calls only.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        let checks = self.checks.get();
        self.checks.set(checks.wrapping_add(1));
        if checks.is_multiple_of(CHECKS_PER_CLOCK) || self.cancel.is_canceled() {
            return self.cancel.check(PHASE);
        }
        Ok(())
    }

    /// As [`Self::check`], with a look at the clock.
    pub(crate) fn check_now(&self) -> Result<(), QueryError> {
        self.cancel.check(PHASE)
    }

    /// Counts points that are now held.
    pub(crate) fn hold(&self, points: usize) -> Result<(), QueryError> {
        let held = self.held.get().saturating_add(points);
        self.held.set(held);
        self.peak.set(self.peak.get().max(held));
        if held > self.options.samples_max {
            return Err(QueryError::TooManySamples("query execution"));
        }
        Ok(())
    }

    /// Counts points that are no longer held.
    pub(crate) fn release(&self, points: usize) {
        self.held.set(self.held.get().saturating_sub(points));
    }

    /// Counts samples that were looked at, and those of them that were not looked at before.
    pub(crate) fn looked_at(&self, samples: usize, read: usize) {
        self.total.set(self.total.get().saturating_add(samples));
        self.read.set(self.read.get().saturating_add(read));
    }

    /// Whether samples are counted by step.
    pub(crate) fn counts_steps(&self) -> bool {
        self.options.per_step_stats
    }

    /// Counts the samples of the step at `time`, once more beside [`Self::looked_at`].
    pub(crate) fn looked_at_step(&self, time: i64, samples: usize, read: usize) {
        let (start, _, step) = self.query;
        let mut steps = self.by_step.borrow_mut();
        let last = steps.len().saturating_sub(1);
        let at = time.saturating_sub(start).checked_div(step).unwrap_or(0).max(0);
        let at = usize::try_from(at).unwrap_or(last).min(last);
        if let Some((total, fresh)) = steps.get_mut(at) {
            *total += samples;
            *fresh += read;
        }
    }

    /// Warns about the place `pos`.
    pub(crate) fn warn(&self, text: &str, pos: PosRange) {
        self.remarks.borrow_mut().warn(text, &self.place(pos));
    }

    /// How often something was remarked so far.
    pub(crate) fn remarks_made(&self) -> usize {
        self.remarks.borrow().made()
    }

    /// Remarks on the place `pos`.
    pub(crate) fn info(&self, text: &str, pos: PosRange) {
        self.remarks.borrow_mut().info(text, &self.place(pos));
    }

    /// ` (line:column)` of the place `pos`.
    fn place(&self, pos: PosRange) -> String {
        let (line, column) = line_and_column(self.text, pos.start);
        format!(" ({line}:{column})")
    }

    /// A column of `count` empty steps, from memory used before where there is some.
    pub(crate) fn column(&self, count: usize) -> Column {
        match self.spare.borrow_mut().pop() {
            Some(mut column) => {
                column.reset(count);
                column
            }
            None => Column::new(count),
        }
    }

    /// Takes back a column that is no longer needed.
    pub(crate) fn recycle(&self, column: Column) {
        self.release(column.charged);
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX && column.len() <= SPARE_STEPS_MAX {
            spare.push(column);
        }
    }

    /// The collected remarks and costs.
    pub(crate) fn finish(self) -> (Annotations, Stats) {
        let (start, _, step) = self.query;
        let steps = self.by_step.into_inner().into_iter().enumerate();
        let steps = steps.map(|(at, (samples_total, samples_read))| StepStats {
            at: Timestamp(start.saturating_add(step.saturating_mul(at as i64))),
            samples_total,
            samples_read,
        });
        let stats = Stats {
            samples_total: self.total.get(),
            samples_read: self.read.get(),
            samples_peak: self.peak.get(),
            steps: steps.collect(),
        };
        (self.remarks.into_inner().finish(), stats)
    }
}

/// Evaluates expressions at the steps of a query or of a subquery.
#[derive(Clone, Copy)]
pub(crate) struct Evaluator<'a> {
    pub(crate) shared: &'a Shared<'a>,
    pub(crate) steps: Steps,
    /// Whether somebody looks at the metric names of the series. Where nobody does, they are not
    /// taken off either.
    pub(crate) names: bool,
    /// Whether the series may come in any order.
    pub(crate) unordered: bool,
    /// The aggregation that looks at the labels by which it groups, and nobody at any other.
    pub(crate) grouping: Option<&'a Aggregate>,
}

impl<'a> Evaluator<'a> {
    /// Evaluates at these steps, for somebody who looks at everything.
    pub(crate) fn new(shared: &'a Shared<'a>, steps: Steps) -> Self {
        Self { shared, steps, names: true, unordered: false, grouping: None }
    }

    /// The series of an instant vector.
    pub(crate) fn vector(&self, expr: &Expr) -> Result<Vec<Series>, QueryError> {
        let mut all = Vec::new();
        self.stream(expr, &mut |series| {
            all.push(series);
            Ok(())
        })?;
        Ok(all)
    }

    /// Hands the series of an instant vector to `sink`, one by one.
    pub(crate) fn stream(&self, expr: &Expr, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        if self.steps.count > 1
            && self.shared.options.rewrites.step_invariant
            && decide::is_step_invariant(expr)
        {
            let once = Evaluator { steps: Steps::once(self.steps.start), ..*self };
            return once.stream(expr, &mut |series| {
                let column = series.column.broadcast(self.steps.count);
                self.emit(Series { column, ..series }, sink)
            });
        }
        if !self.shared.options.delayed_name_removal
            && decide::may_collide(expr, self.shared.options)
        {
            let mut all = Vec::new();
            self.node(expr, &mut |series| {
                all.push(series);
                Ok(())
            })?;
            return merge_equal(all)?.into_iter().try_for_each(sink);
        }
        self.node(expr, sink)
    }

    fn node(&self, expr: &Expr, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        match expr {
            Expr::Paren(paren) => self.stream(&paren.expr, sink),
            Expr::VectorSelector(selector) => self.instant_selector(selector, sink),
            Expr::Call(call) => self.call(call, sink),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, sink),
            Expr::Binary(binary) => self.binary(binary, sink),
            Expr::Unary(unary) if unary.negative => self.negate(&unary.expr, sink),
            Expr::Unary(unary) => self.stream(&unary.expr, sink),
            Expr::Number(_) | Expr::String(_) | Expr::MatrixSelector(_) | Expr::Subquery(_) => {
                Err(QueryError::execution("the expression is not an instant vector"))
            }
        }
    }

    /// Charges a finished series to the limit and hands it on.
    pub(crate) fn emit(&self, mut series: Series, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        self.shared.check()?;
        if series.column.is_empty() {
            self.shared.recycle(series.column);
            return Ok(());
        }
        let weight = series.column.weight();
        self.shared.release(series.column.charged);
        self.shared.hold(weight)?;
        series.column.charged = weight;
        sink(series)
    }

    /// Drops the metric name, now or at the end of the query.
    pub(crate) fn drop_name(&self, series: &mut Series) {
        if self.shared.options.delayed_name_removal {
            series.drop_name = true;
        } else if self.names {
            series.labels = without_metadata(&series.labels);
        }
    }

    fn negate(&self, expr: &Expr, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        self.stream(expr, &mut |mut series| {
            let column = &mut series.column;
            if column.has_histograms() {
                for at in 0..column.len() {
                    if let Some(histogram) = column.histogram(at) {
                        let mut negated = (**histogram).clone();
                        negated.scale(-1.0);
                        column.set_histogram(at, negated.into());
                    } else if let Some(value) = column.float(at) {
                        column.set_float(at, -value);
                    }
                }
            } else {
                column.map_floats(|_, value| -value);
            }
            self.drop_name(&mut series);
            self.emit(series, sink)
        })
    }
}
