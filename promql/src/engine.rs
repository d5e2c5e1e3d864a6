//! The engine: takes a query's text and a store, gives an answer.

use std::sync::Arc;
use std::time::Duration;

use stint_model::{Labels, Queryable, Span, TimeRange, Timestamp};

use crate::cancel::Cancel;
use crate::column::{Series, Steps, merge_equal, without_metadata};
use crate::error::QueryError;
use crate::exec::{Evaluator, Shared, reach};
use crate::explain::explain;
use crate::parse;
use crate::parse::ast::{Expr, ValueType};
use crate::parsed::Parsed;
use crate::rewrites::Rewrites;
use crate::value::{Answer, InstantSample, QueryValue, RangeSeries, SampleValue};
use crate::workers::Workers;

/// The phase that limits and cancellations are reported to happen in.
pub(crate) const PHASE: &str = "expression evaluation";

/// What an engine accepts, and how much.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// How far an instant selector looks back for a sample.
    pub lookback: Span,
    /// Most points held in memory by one query.
    pub samples_max: usize,
    /// Longest evaluation.
    pub timeout: Duration,
    /// Step of subqueries that name none.
    pub subquery_step: Span,
    /// What the parser accepts beyond the stable language.
    pub features: parse::Options,
    /// Metric names are dropped at the end of a query (`promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// Start times of samples tell counter resets (`use-start-timestamps`).
    pub use_start_timestamps: bool,
    /// Types and units are labels (`type-and-unit-labels`).
    pub type_and_unit_labels: bool,
    /// Samples are counted by step, too (`promql-per-step-stats`).
    pub per_step_stats: bool,
    /// Shortcuts that change no answer.
    pub rewrites: Rewrites,
}

impl Default for EngineOptions {
    /// Prometheus' defaults: 5 minutes, 50 million samples, 2 minutes, no experiments.
    fn default() -> Self {
        Self {
            lookback: Span(300_000),
            samples_max: 50_000_000,
            timeout: Duration::from_mins(2),
            subquery_step: Span::MINUTE,
            features: parse::Options::default(),
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            per_step_stats: false,
            rewrites: Rewrites::ALL,
        }
    }
}

/// A query at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstantQuery<'a> {
    /// What is asked.
    pub expr: &'a str,
    /// When.
    pub at: Timestamp,
    /// Instead of the engine's lookback.
    pub lookback: Option<Span>,
}

/// A query at many times: `start`, `start + step` and so on up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeQuery<'a> {
    /// What is asked.
    pub expr: &'a str,
    /// The first time.
    pub start: Timestamp,
    /// The last time, where the steps meet it.
    pub end: Timestamp,
    /// The distance; above zero.
    pub step: Span,
    /// Instead of the engine's lookback.
    pub lookback: Option<Span>,
}

/// Evaluates queries. Cheap to share; holds nothing between queries but how their texts read.
#[derive(Clone, Debug)]
pub struct Engine {
    options: EngineOptions,
    workers: Option<Arc<dyn Workers>>,
    parsed: Arc<Parsed>,
}

impl Engine {
    /// An engine with these options.
    pub fn new(options: EngineOptions) -> Self {
        Self { options, workers: None, parsed: Arc::default() }
    }

    /// The same engine with threads that help with its queries.
    #[must_use]
    pub fn with_workers(self, workers: Arc<dyn Workers>) -> Self {
        Self { workers: Some(workers), ..self }
    }

    /// The engine's options.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates a query at one time.
    pub fn instant(
        &self,
        source: &dyn Queryable,
        query: &InstantQuery<'_>,
        cancel: &Cancel,
    ) -> Result<Answer, QueryError> {
        let expr = self.parse(query.expr)?;
        self.instant_run(source, (query.expr, &expr), query.at, query.lookback, cancel)
    }

    /// As [`Engine::instant`] of an expression that is already parsed from a text: for what is
    /// evaluated again and again.
    ///
    /// # Errors
    /// As there, apart from reading the text.
    pub fn instant_parsed(
        &self,
        source: &dyn Queryable,
        parsed: (&str, &Expr),
        at: Timestamp,
        cancel: &Cancel,
    ) -> Result<Answer, QueryError> {
        self.instant_run(source, parsed, at, None, cancel)
    }

    fn instant_run(
        &self,
        source: &dyn Queryable,
        (text, expr): (&str, &Expr),
        at: Timestamp,
        lookback: Option<Span>,
        cancel: &Cancel,
    ) -> Result<Answer, QueryError> {
        let steps = Steps::once(at.0);
        let run = Run { text, expr, steps, end: at.0, is_range: false, lookback };
        self.run(source, &run, cancel, |eval| instant_value(eval, expr))
    }

    /// Evaluates a query at many times.
    pub fn range(
        &self,
        source: &dyn Queryable,
        query: &RangeQuery<'_>,
        cancel: &Cancel,
    ) -> Result<Answer, QueryError> {
        let expr = self.parse(query.expr)?;
        let kind = expr.value_type();
        if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            return Err(QueryError::Parse(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                kind.documented()
            )));
        }
        let (start, end, step) = (query.start.0, query.end.0, query.step.0);
        if step <= 0 {
            return Err(QueryError::Parse(
                "zero or negative query resolution step widths are not accepted. Try a positive \
                 integer"
                    .to_owned(),
            ));
        }
        if end < start {
            return Err(QueryError::Parse(
                "end timestamp must not be before start time".to_owned(),
            ));
        }
        let count = (end.saturating_sub(start) / step).saturating_add(1);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > self.options.samples_max {
            return Err(QueryError::TooManySamples("query execution"));
        }
        let run = Run {
            text: query.expr,
            expr: &expr,
            steps: Steps { start, step, count },
            end,
            is_range: true,
            lookback: query.lookback,
        };
        self.run(source, &run, cancel, |eval| range_value(eval, &expr))
    }

    /// How a query would be evaluated, as text: one line for each part, those it is made of indented
    /// below it. `is_range` tells a query at many times from one at a single time.
    ///
    /// # Errors
    /// The query cannot be read.
    pub fn explain(&self, expr: &str, is_range: bool) -> Result<String, QueryError> {
        let expr = self.parse(expr)?;
        Ok(explain(&expr, &self.options, is_range, self.workers.is_some()))
    }

    fn parse(&self, text: &str) -> Result<Arc<Expr>, QueryError> {
        self.parsed
            .get(text, |text| parse::parse(text, &self.options.features))
            .map_err(|error| QueryError::Parse(error.to_string()))
    }

    fn run(
        &self,
        source: &dyn Queryable,
        run: &Run<'_>,
        cancel: &Cancel,
        value: impl FnOnce(&Evaluator<'_>) -> Result<QueryValue, QueryError>,
    ) -> Result<Answer, QueryError> {
        let cancel = cancel.with_timeout(self.options.timeout);
        let mut shared = Shared::new(&self.options, self.workers.as_deref(), run, cancel);
        let steps = run.steps;
        let (first, last) = reach(&Evaluator::new(&shared, steps), run.expr)?;
        let range = TimeRange::closed(Timestamp(first), Timestamp(last));
        shared.querier = Some(source.querier(range)?);
        let value = value(&Evaluator::new(&shared, steps))?;
        shared.check_now()?;
        let (annotations, stats) = shared.finish();
        Ok(Answer { value, annotations, stats })
    }
}

/// A parsed query on its way.
pub(crate) struct Run<'a> {
    pub(crate) text: &'a str,
    pub(crate) expr: &'a Expr,
    pub(crate) steps: Steps,
    pub(crate) end: i64,
    pub(crate) is_range: bool,
    pub(crate) lookback: Option<Span>,
}

fn instant_value(eval: &Evaluator<'_>, expr: &Expr) -> Result<QueryValue, QueryError> {
    let at = Timestamp(eval.steps.start);
    match expr.value_type() {
        ValueType::Scalar => Ok(QueryValue::Scalar { at, value: eval.scalar(expr)?.at(0) }),
        ValueType::Matrix => Ok(QueryValue::Matrix(eval.raw_matrix(expr)?)),
        ValueType::String | ValueType::None => match expr.unparenthesized() {
            Expr::String(text) => Ok(QueryValue::String { at, value: text.text().into_owned() }),
            _ => Err(QueryError::execution("the expression has no value")),
        },
        ValueType::Vector => {
            let samples = finished(eval, expr)?.into_iter().filter_map(|series| {
                let value = series.column.get(0)?.to_value();
                Some(InstantSample { labels: series.labels, at, value })
            });
            Ok(QueryValue::Vector(samples.collect()))
        }
    }
}

fn range_value(eval: &Evaluator<'_>, expr: &Expr) -> Result<QueryValue, QueryError> {
    let all = if expr.value_type() == ValueType::Scalar {
        let scalar = eval.scalar(expr)?;
        let floats = eval.steps.times().enumerate();
        let floats = floats.map(|(at, time)| (Timestamp(time), scalar.at(at))).collect();
        vec![RangeSeries { labels: Labels::default(), floats, histograms: Vec::new() }]
    } else {
        let mut all: Vec<RangeSeries> = finished(eval, expr)?
            .iter()
            .map(|series| to_range(&eval.steps, series))
            .filter(|series| !series.floats.is_empty() || !series.histograms.is_empty())
            .collect();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        all
    };
    Ok(QueryValue::Matrix(all))
}

/// The series of an expression, with the names dropped that only waited for the end.
fn finished(eval: &Evaluator<'_>, expr: &Expr) -> Result<Vec<Series>, QueryError> {
    let mut all = eval.vector(expr)?;
    for series in &mut all {
        if series.drop_name {
            series.labels = without_metadata(&series.labels);
        }
    }
    merge_equal(all)
}

fn to_range(steps: &Steps, series: &Series) -> RangeSeries {
    let mut range =
        RangeSeries { labels: series.labels.clone(), floats: Vec::new(), histograms: Vec::new() };
    for (at, point) in series.column.points() {
        let time = Timestamp(steps.at(at));
        match point.to_value() {
            SampleValue::Float(value) => range.floats.push((time, value)),
            SampleValue::Histogram(histogram) => range.histograms.push((time, histogram)),
        }
    }
    range
}
