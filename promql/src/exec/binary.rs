//! Binary operators between vectors and scalars, and between vectors matched by labels.

use std::sync::Arc;

use stint_model::histogram::{Combined, FloatHistogram, ResetHint};

use crate::column::{Column, Point, Scalar, Series, merge_equal};
use crate::error::QueryError;
use crate::exec::{Evaluator, Sink};
use crate::parse::ast::{Binary, BinaryOp, Expr, PosRange, ValueType};
use crate::value::SampleValue;

/// The operator between two floats; comparisons give 1 or 0.
pub(crate) fn float_operator(op: BinaryOp) -> fn(f64, f64) -> f64 {
    match op {
        BinaryOp::Add => |a, b| a + b,
        BinaryOp::Sub => |a, b| a - b,
        BinaryOp::Mul => |a, b| a * b,
        BinaryOp::Div => |a, b| a / b,
        BinaryOp::Mod => |a, b| a % b,
        BinaryOp::Pow => f64::powf,
        BinaryOp::Atan2 => f64::atan2,
        BinaryOp::Eq => |a, b| f64::from(a == b),
        BinaryOp::Ne => |a, b| f64::from(a != b),
        BinaryOp::Gt => |a, b| f64::from(a > b),
        BinaryOp::Lt => |a, b| f64::from(a < b),
        BinaryOp::Ge => |a, b| f64::from(a >= b),
        BinaryOp::Le => |a, b| f64::from(a <= b),
        BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Unless
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => |_, _| f64::NAN,
    }
}

/// Whether the result is a new value that no longer deserves the metric's name.
pub(crate) fn drops_name(op: BinaryOp, return_bool: bool) -> bool {
    return_bool
        || matches!(
            op,
            BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Div
                | BinaryOp::Mod
                | BinaryOp::Pow
                | BinaryOp::Atan2
        )
}

/// Chains of operators at least this long are evaluated in a loop, so that they need no stack.
const LONG_CHAIN: usize = 64;

/// The left side of an operator.
pub(crate) enum Left<'e> {
    /// Yet to be evaluated.
    Expr(&'e Expr),
    /// Evaluated.
    Series(Vec<Series>),
}

/// The outcome of one pair of values.
pub(crate) enum Outcome {
    /// A value, and whether a comparison held.
    Value(SampleValue, bool),
    /// The operator means nothing for these types.
    Incompatible,
}

impl Evaluator<'_> {
    /// The series of a binary expression with at least one vector.
    pub(crate) fn binary(&self, binary: &Binary, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        // Long chains (`a or b or c …`) lean to the left; they are walked in a loop.
        let mut chain = vec![binary];
        let mut innermost = binary;
        while let Expr::Binary(lhs) = innermost.lhs.unparenthesized()
            && lhs.value_type() == ValueType::Vector
        {
            chain.push(lhs);
            innermost = lhs;
        }
        if chain.len() < LONG_CHAIN {
            return self.operate(binary, Left::Expr(&binary.lhs), sink);
        }
        let mut left = Left::Expr(&innermost.lhs);
        for link in chain.into_iter().rev() {
            let mut all = Vec::new();
            self.operate(link, left, &mut |series| {
                all.push(series);
                Ok(())
            })?;
            left = Left::Series(merge_equal(all)?);
        }
        self.stream_left(left, sink)
    }

    /// Hands on the series of a left side.
    pub(crate) fn stream_left(
        &self,
        left: Left<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        match left {
            Left::Expr(expr) => self.stream(expr, sink),
            Left::Series(all) => all.into_iter().try_for_each(sink),
        }
    }

    /// The series of a left side.
    pub(crate) fn vector_left(&self, left: Left<'_>) -> Result<Vec<Series>, QueryError> {
        match left {
            Left::Expr(expr) => self.side(expr),
            Left::Series(all) => Ok(all),
        }
    }

    fn operate(
        &self,
        binary: &Binary,
        left: Left<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        if binary.op.is_set() {
            return self.set_operation(binary, left, sink);
        }
        let lhs_scalar = binary.lhs.value_type() == ValueType::Scalar;
        let rhs_scalar = binary.rhs.value_type() == ValueType::Scalar;
        match (lhs_scalar, rhs_scalar) {
            (false, true) => {
                let scalar = self.scalar(&binary.rhs)?;
                self.stream_left(left, &mut |series| {
                    self.with_scalar(binary, series, &scalar, false, sink)
                })
            }
            (true, false) => {
                let scalar = self.scalar(&binary.lhs)?;
                self.stream(&binary.rhs, &mut |series| {
                    self.with_scalar(binary, series, &scalar, true, sink)
                })
            }
            _ => self.join(binary, left, sink),
        }
    }

    fn with_scalar(
        &self,
        binary: &Binary,
        mut series: Series,
        scalar: &Scalar,
        swapped: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let op = binary.op;
        let is_trim = matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        if series.column.has_histograms() || is_trim {
            self.with_scalar_mixed(binary, &mut series.column, scalar, swapped);
        } else {
            let apply = float_operator(op);
            let value = |at: usize, value: f64| {
                if swapped { apply(scalar.at(at), value) } else { apply(value, scalar.at(at)) }
            };
            if op.is_comparison() && !binary.return_bool {
                series.column.filter_floats(|at, float| value(at, float) != 0.0);
            } else {
                series.column.map_floats(value);
            }
        }
        if drops_name(op, binary.return_bool) {
            self.drop_name(&mut series);
        }
        self.emit(series, sink)
    }

    fn with_scalar_mixed(
        &self,
        binary: &Binary,
        column: &mut Column,
        scalar: &Scalar,
        swapped: bool,
    ) {
        for at in 0..column.len() {
            let Some(point) = column.get(at) else { continue };
            let number = Point::Float(scalar.at(at));
            let (lhs, rhs) = if swapped { (number, point) } else { (point, number) };
            let own = point.to_value();
            let outcome = match self.element(binary, lhs, rhs) {
                // A comparison keeps the vector's value, whichever side it stands on.
                Outcome::Value(_, keep) if binary.return_bool => {
                    Some(SampleValue::Float(f64::from(keep)))
                }
                Outcome::Value(_, keep) if binary.op.is_comparison() => keep.then_some(own),
                Outcome::Value(value, _) => Some(value),
                Outcome::Incompatible => None,
            };
            column.clear(at);
            if let Some(value) = outcome {
                column.set(at, value);
            }
        }
    }

    /// One pair of values; annotations are noted.
    pub(crate) fn element(&self, binary: &Binary, lhs: Point<'_>, rhs: Point<'_>) -> Outcome {
        let op = binary.op;
        match (lhs, rhs) {
            (Point::Float(a), Point::Float(b))
                if !matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower) =>
            {
                let value = float_operator(op)(a, b);
                if op.is_comparison() {
                    return Outcome::Value(SampleValue::Float(a), value != 0.0);
                }
                return Outcome::Value(SampleValue::Float(value), true);
            }
            (Point::Float(a), Point::Histogram(h)) if op == BinaryOp::Mul => {
                let mut scaled = (**h).clone();
                scaled.scale(a);
                return histogram(scaled);
            }
            (Point::Histogram(h), Point::Float(b)) => {
                let mut changed = (**h).clone();
                match op {
                    BinaryOp::Mul => changed.scale(b),
                    BinaryOp::Div => changed.divide(b),
                    BinaryOp::TrimUpper => changed.trim_above(b),
                    BinaryOp::TrimLower => changed.trim_below(b),
                    _ => return self.incompatible(binary, lhs, rhs),
                }
                return histogram(changed);
            }
            (Point::Histogram(a), Point::Histogram(b)) => match op {
                BinaryOp::Add => return self.combine(binary.pos, a, b, false),
                BinaryOp::Sub => return self.combine(binary.pos, a, b, true),
                BinaryOp::Eq => {
                    return Outcome::Value(SampleValue::Histogram(a.clone()), a.same_values(b));
                }
                BinaryOp::Ne => {
                    return Outcome::Value(SampleValue::Histogram(a.clone()), !a.same_values(b));
                }
                _ => {}
            },
            (Point::Float(_), _) => {}
        }
        self.incompatible(binary, lhs, rhs)
    }

    fn incompatible(&self, binary: &Binary, lhs: Point<'_>, rhs: Point<'_>) -> Outcome {
        let (op, lhs, rhs) = (binary.op.as_str(), lhs.kind(), rhs.kind());
        let text = format!(
            "incompatible sample types encountered for binary operator \"{op}\": {lhs} {op} {rhs}"
        );
        self.shared.info(&text, binary.pos);
        Outcome::Incompatible
    }

    fn combine(
        &self,
        pos: PosRange,
        a: &Arc<FloatHistogram>,
        b: &Arc<FloatHistogram>,
        subtract: bool,
    ) -> Outcome {
        let mut result = (**a).clone();
        let combined = if subtract { result.sub(b) } else { result.add(b) };
        let (operation, sign) = if subtract { ("subtraction", '-') } else { ("addition", '+') };
        let Ok(combined) = combined else {
            let text = format!("incompatible bucket layout encountered for binary operator {sign}");
            self.shared.warn(&text, pos);
            return Outcome::Incompatible;
        };
        self.remark_on_combined(combined, operation, pos);
        if subtract {
            result.reset_hint = ResetHint::Gauge;
        }
        result.compact();
        histogram(result)
    }

    /// Notes what happened when histograms were combined.
    pub(crate) fn remark_on_combined(&self, combined: Combined, operation: &str, pos: PosRange) {
        if combined.hints_conflict {
            let text = format!("conflicting counter resets during histogram {operation}");
            self.shared.warn(&text, pos);
        }
        if combined.bounds_reconciled {
            let text = format!("mismatched custom buckets were reconciled during {operation}");
            self.shared.info(&text, pos);
        }
    }
}

fn histogram(histogram: FloatHistogram) -> Outcome {
    Outcome::Value(SampleValue::Histogram(Arc::new(histogram)), true)
}
