//! Running the commands of a script.

use std::sync::Arc;

use stint_model::clock::SimClock;
use stint_model::{Histogram, Labels, Sample, Span, Timestamp, Value};

use super::command::{Eval, Load, When};
use super::compare::{check_annotations, check_result, check_vector};
use super::nhcb::Converter;
use super::store::MemoryStore;
use crate::cancel::Cancel;
use crate::engine::{Engine, EngineOptions, InstantQuery, RangeQuery};
use crate::error::QueryError;
use crate::parse::ast::{At, Expr};
use crate::value::{Answer, InstantSample, QueryValue, SampleValue};

/// Functions of which a result at one time does not follow from pinned selectors.
const UNPINNABLE: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "year",
];

/// A store and an engine.
pub(super) struct Runner {
    store: MemoryStore,
    engine: Engine,
    cancel: Cancel,
}

impl Runner {
    pub(super) fn new(options: EngineOptions) -> Self {
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        Self { store: MemoryStore::new(), engine: Engine::new(options), cancel: Cancel::new(clock) }
    }

    pub(super) fn clear(&mut self) {
        self.store = MemoryStore::new();
    }

    pub(super) fn load(&mut self, load: &Load) {
        let step = load.step.0;
        let mut converter = Converter::default();
        for series in &load.series {
            if load.with_nhcb {
                converter.add(&series.labels, &series.values, step);
            }
            let mut starts = load.starts.get(&series.labels).map(|starts| starts.iter());
            for (at, value) in series.values.iter().enumerate() {
                let started = starts.as_mut().and_then(Iterator::next).copied().flatten();
                let Some(value) = &value.value else { continue };
                let at = Timestamp(step.saturating_mul(at as i64));
                let started = started.map(|span| at.saturating_add(span));
                self.store.append(&series.labels, Sample { at, started, value: value.clone() });
            }
        }
        for (labels, at, histogram) in converter.finish() {
            let value = Value::Histogram(Arc::new(Histogram::Float(histogram)));
            self.store.append(&labels, Sample { at, started: None, value });
        }
    }

    /// Runs an evaluation in all its forms; what is wrong, in words.
    pub(super) fn eval(&self, eval: &Eval) -> Result<(), String> {
        match eval.when {
            When::Range { start, end, step } => {
                let query = RangeQuery { expr: &eval.expr, start, end, step, lookback: None };
                match verdict(eval, self.engine.range(&self.store, &query, &self.cancel))? {
                    Some(answer) => {
                        check_annotations(eval, &answer.annotations)?;
                        check_result(eval, &answer.value)
                    }
                    None => Ok(()),
                }
            }
            When::Instant(at) => self.instant(eval, at),
        }
    }

    fn instant(&self, eval: &Eval, at: Timestamp) -> Result<(), String> {
        let query = InstantQuery { expr: &eval.expr, at, lookback: None };
        let answer = self.engine.instant(&self.store, &query, &self.cancel);
        let Some(answer) = verdict(eval, answer)? else { return Ok(()) };
        check_annotations(eval, &answer.annotations)?;
        check_result(eval, &answer.value)?;
        self.pinned(eval, at)?;
        if eval.range_vector.is_some() || eval.string.is_some() || eval.ordered {
            return Ok(());
        }
        self.as_range(eval, at, &answer)
    }

    /// The same with every selector pinned to `at`, asked at other times.
    fn pinned(&self, eval: &Eval, at: Timestamp) -> Result<(), String> {
        let options = &self.engine.options().features;
        let Ok(mut expr) = crate::parse::parse(&eval.expr, options) else { return Ok(()) };
        if !pin(&mut expr, at) {
            return Ok(());
        }
        let ms = at.0;
        let times = if ms == 0 {
            vec![-1000, 0, 1000]
        } else {
            vec![ms.saturating_mul(-10), 0, ms / 5, ms, ms.saturating_mul(10)]
        };
        for time in times {
            let answer = self.engine.instant_parsed(
                &self.store,
                (&eval.expr, &expr),
                Timestamp(time),
                &self.cancel,
            );
            let answer = answer.map_err(|error| format!("pinned, asked at {time}: {error}"))?;
            check_result(eval, &answer.value)
                .map_err(|error| format!("pinned, asked at {time}: {error}"))?;
        }
        Ok(())
    }

    /// The same as the middle one of three steps.
    fn as_range(&self, eval: &Eval, at: Timestamp, answer: &Answer) -> Result<(), String> {
        let lower = eval.expr.to_lowercase();
        if ["start()", "end()", "range()", "step()"].iter().any(|call| lower.contains(call)) {
            return Ok(());
        }
        let query = RangeQuery {
            expr: &eval.expr,
            start: at - Span::MINUTE,
            end: at + Span::MINUTE,
            step: Span::MINUTE,
            lookback: None,
        };
        let range = self.engine.range(&self.store, &query, &self.cancel);
        let range = range.map_err(|error| format!("as a range: {error}"))?;
        let QueryValue::Matrix(series) = range.value else {
            return Err("as a range: the answer is no matrix".to_owned());
        };
        let mut samples = Vec::new();
        for series in series {
            let labels: Labels = series.labels;
            let float = series.floats.iter().find(|(time, _)| *time == at);
            let histogram = series.histograms.iter().find(|(time, _)| *time == at);
            let value = float.map(|(_, value)| SampleValue::Float(*value)).or_else(|| {
                histogram.map(|(_, histogram)| SampleValue::Histogram(histogram.clone()))
            });
            if let Some(value) = value {
                samples.push(InstantSample { labels, at, value });
            }
        }
        let checked = match (&answer.value, samples.as_slice()) {
            (
                QueryValue::Scalar { .. },
                [InstantSample { value: SampleValue::Float(value), .. }],
            ) => check_result(eval, &QueryValue::Scalar { at, value: *value }),
            (QueryValue::Scalar { .. }, _) => Err("no scalar".to_owned()),
            _ => check_vector(eval, &samples),
        };
        checked.map_err(|error| format!("as a range: {error}"))
    }
}

/// The answer, or nothing when it failed as it should.
fn verdict(eval: &Eval, answer: Result<Answer, QueryError>) -> Result<Option<Answer>, String> {
    match (answer, &eval.fail) {
        (Ok(_), Some(_)) => Err("expected to fail, but has an answer".to_owned()),
        (Ok(answer), None) => Ok(Some(answer)),
        (Err(error), None) => Err(format!("failed: {error}")),
        (Err(error), Some(pattern)) if pattern.matches(&error.to_string()) => Ok(None),
        (Err(error), Some(pattern)) => {
            Err(format!("failed with {:?}, expected {pattern:?}", error.to_string()))
        }
    }
}

/// Pins every selector without `@`; false when the result would still depend on the time asked.
fn pin(expr: &mut Expr, at: Timestamp) -> bool {
    let pinned = |own: &mut Option<At>| {
        if !matches!(own, Some(At::Time(_))) {
            *own = Some(At::Time(at));
        }
    };
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::VectorSelector(selector) => {
            pinned(&mut selector.at);
            true
        }
        Expr::MatrixSelector(matrix) => {
            pinned(&mut matrix.selector.at);
            true
        }
        Expr::Subquery(subquery) => {
            pinned(&mut subquery.at);
            is_pinnable(&subquery.expr)
        }
        Expr::Call(call) => {
            !UNPINNABLE.contains(&call.function.name)
                && call.args.iter_mut().all(|arg| pin(arg, at))
        }
        Expr::Aggregate(aggregate) => {
            pin(&mut aggregate.expr, at) && aggregate.param.as_mut().is_none_or(|p| pin(p, at))
        }
        Expr::Binary(binary) => pin(&mut binary.lhs, at) && pin(&mut binary.rhs, at),
        Expr::Unary(unary) => pin(&mut unary.expr, at),
        Expr::Paren(paren) => pin(&mut paren.expr, at),
    }
}

fn is_pinnable(expr: &Expr) -> bool {
    match expr {
        Expr::Call(call) if UNPINNABLE.contains(&call.function.name) => false,
        other => other.children().all(is_pinnable),
    }
}
