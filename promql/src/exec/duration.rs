//! Lengths of time and reference times, once the query's step and range are known.

use stint_model::Span;

use crate::error::QueryError;
use crate::exec::Evaluator;
use crate::parse::DurationContext;
use crate::parse::ast::{At, Duration, Expr, Subquery, VectorSelector};

/// Which time a selector looks at, seen from a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The time of `@`.
    pub(crate) at: Option<i64>,
    /// Milliseconds into the past.
    pub(crate) offset: i64,
}

impl Reference {
    /// The time looked at from a step at `time`.
    pub(crate) fn time(self, time: i64) -> i64 {
        self.at.unwrap_or(time).saturating_sub(self.offset)
    }
}

impl Evaluator<'_> {
    fn context(&self) -> DurationContext {
        let (start, end, step) = self.shared.query;
        DurationContext { step: Span(step), range: Span(end.saturating_sub(start)) }
    }

    /// Milliseconds of a length of time above zero.
    pub(crate) fn positive_duration(&self, duration: &Duration) -> Result<i64, QueryError> {
        let span = duration.resolve_positive(self.context());
        // A positive length may be less than a millisecond.
        Ok(span.map_err(|error| QueryError::Parse(error.to_string()))?.0.max(1))
    }

    /// Where `offset` and `@` point.
    pub(crate) fn reference(
        &self,
        offset: &Duration,
        at: Option<At>,
    ) -> Result<Reference, QueryError> {
        let at = at.map(|at| match at {
            At::Time(time) => time.0,
            At::Start => self.shared.query.0,
            At::End => self.shared.query.1,
        });
        let offset = offset.resolve_signed(self.context());
        let offset = offset.map_err(|error| QueryError::Parse(error.to_string()))?.0;
        Ok(Reference { at, offset })
    }

    /// Step and range of a subquery, and where it points.
    pub(crate) fn subquery_shape(
        &self,
        subquery: &Subquery,
    ) -> Result<(i64, i64, Reference), QueryError> {
        let step = match &subquery.step {
            Some(step) => self.positive_duration(step)?,
            None => self.shared.options.subquery_step.0.max(1),
        };
        let range = self.positive_duration(&subquery.range)?;
        Ok((step, range, self.reference(&subquery.offset, subquery.at)?))
    }
}

/// The first and the last millisecond at which any selector of the expression may look; without
/// selectors, the time of the query.
pub(crate) fn reach(eval: &Evaluator<'_>, expr: &Expr) -> Result<(i64, i64), QueryError> {
    let mut reached: Option<(i64, i64)> = None;
    walk(eval, expr, (eval.steps.start, eval.steps.end()), &mut reached)?;
    Ok(reached.unwrap_or((eval.steps.start, eval.steps.start)))
}

fn walk(
    eval: &Evaluator<'_>,
    expr: &Expr,
    (start, end): (i64, i64),
    reached: &mut Option<(i64, i64)>,
) -> Result<(), QueryError> {
    let mut add = |selector: &VectorSelector, range: i64| -> Result<(), QueryError> {
        let reference = eval.reference(&selector.offset, selector.at)?;
        let lookback = eval.shared.lookback;
        let back = range.saturating_add(lookback);
        let ahead = if selector.smoothed { lookback } else { 0 };
        let first = reference.time(start).saturating_sub(back);
        let last = reference.time(end).saturating_add(ahead);
        let (a, b) = reached.unwrap_or((first, last));
        *reached = Some((a.min(first), b.max(last)));
        Ok(())
    };
    match expr {
        Expr::VectorSelector(selector) => add(selector, 0),
        Expr::MatrixSelector(matrix) => {
            add(&matrix.selector, eval.positive_duration(&matrix.range)?)
        }
        Expr::Subquery(subquery) => {
            let (_, range, reference) = eval.subquery_shape(subquery)?;
            let first = reference.time(start).saturating_sub(range);
            walk(eval, &subquery.expr, (first, reference.time(end)), reached)
        }
        Expr::Call(call) if call.function.name == "info" => {
            // The info series are looked up at the same times as the base series.
            let first =
                call.args.first().map_or(Ok(()), |arg| walk(eval, arg, (start, end), reached));
            first?;
            let lookback = eval.shared.lookback;
            let (a, b) = reached.unwrap_or((start, end));
            *reached = Some((a.min(start).saturating_sub(lookback), b.max(end)));
            Ok(())
        }
        _ => expr.children().try_for_each(|child| walk(eval, child, (start, end), reached)),
    }
}
