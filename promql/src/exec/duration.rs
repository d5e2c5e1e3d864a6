//! Lengths of time and reference times, once the query's step and range are known.

use crate::error::QueryError;
use crate::exec::Evaluator;
use crate::parse::ast::{At, Duration, DurationExpr, DurationOp, Expr, Subquery, VectorSelector};

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
    /// Milliseconds of a length of time.
    pub(crate) fn duration(&self, duration: &Duration) -> Result<i64, QueryError> {
        match duration {
            Duration::Fixed(span) => Ok(span.0),
            Duration::Expr(expr) => {
                let seconds = self.seconds(expr)?;
                if !seconds.is_finite() || seconds.abs() * 1e6 >= i64::MAX as f64 / 1000.0 {
                    return Err(at(expr, "duration is out of range"));
                }
                Ok((seconds * 1000.0) as i64)
            }
        }
    }

    /// Milliseconds of a length of time that must be above zero.
    pub(crate) fn positive_duration(&self, duration: &Duration) -> Result<i64, QueryError> {
        let ms = self.duration(duration)?;
        match duration {
            Duration::Expr(expr) if ms <= 0 => {
                Err(at(expr, "duration must be greater than 0"))
            }
            Duration::Expr(_) | Duration::Fixed(_) => Ok(ms.max(1)),
        }
    }

    fn seconds(&self, expr: &DurationExpr) -> Result<f64, QueryError> {
        let (start, end, step) = self.shared.query;
        Ok(match expr {
            DurationExpr::Number(number) => number.value,
            DurationExpr::Step(_) => step as f64 / 1000.0,
            DurationExpr::Range(_) => end.saturating_sub(start) as f64 / 1000.0,
            DurationExpr::Unary { negative, operand, .. } => {
                let value = self.seconds(operand)?;
                if *negative { -value } else { value }
            }
            DurationExpr::Paren { inner, .. } => self.seconds(inner)?,
            DurationExpr::Binary { op, lhs, rhs, .. } => {
                let (a, b) = (self.seconds(lhs)?, self.seconds(rhs)?);
                match op {
                    DurationOp::Add => a + b,
                    DurationOp::Sub => a - b,
                    DurationOp::Mul => a * b,
                    DurationOp::Div if b == 0.0 => return Err(at(expr, "division by zero")),
                    DurationOp::Div => a / b,
                    DurationOp::Mod if b == 0.0 => return Err(at(expr, "modulo by zero")),
                    DurationOp::Mod => a % b,
                    DurationOp::Pow => a.powf(b),
                    DurationOp::MinOf => a.min(b),
                    DurationOp::MaxOf => a.max(b),
                }
            }
        })
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
        Ok(Reference { at, offset: self.duration(offset)? })
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

fn at(expr: &DurationExpr, text: &str) -> QueryError {
    let pos = expr.pos();
    QueryError::Parse(format!("{}:{}: {text}", pos.start, pos.end))
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
            let first = call.args.first().map_or(Ok(()), |arg| walk(eval, arg, (start, end), reached));
            first?;
            let lookback = eval.shared.lookback;
            let (a, b) = reached.unwrap_or((start, end));
            *reached = Some((a.min(start).saturating_sub(lookback), b.max(end)));
            Ok(())
        }
        _ => expr.children().try_for_each(|child| walk(eval, child, (start, end), reached)),
    }
}
