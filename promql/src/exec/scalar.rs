//! Expressions that are one number per step.

use crate::column::Scalar;
use crate::error::QueryError;
use crate::exec::Evaluator;
use crate::exec::binary::float_operator;
use crate::parse::ast::{Call, Expr};

impl Evaluator<'_> {
    /// The numbers of a scalar expression.
    pub(crate) fn scalar(&self, expr: &Expr) -> Result<Scalar, QueryError> {
        match expr {
            Expr::Number(number) => Ok(Scalar::Constant(number.value)),
            Expr::Paren(paren) => self.scalar(&paren.expr),
            Expr::Unary(unary) => {
                let inner = self.scalar(&unary.expr)?;
                Ok(if unary.negative { inner.map(|value| -value) } else { inner })
            }
            Expr::Binary(binary) => {
                let (lhs, rhs) = (self.scalar(&binary.lhs)?, self.scalar(&binary.rhs)?);
                let op = float_operator(binary.op);
                Ok(lhs.zip(&rhs, self.steps.count, op))
            }
            Expr::Call(call) => self.scalar_call(call),
            _ => Err(QueryError::execution("the expression is not a scalar")),
        }
    }

    fn scalar_call(&self, call: &Call) -> Result<Scalar, QueryError> {
        let (start, end, step) = self.shared.query;
        let seconds = |ms: i64| Scalar::Constant(ms as f64 / 1000.0);
        let argument = |at: usize| match call.args.get(at) {
            Some(arg) => self.scalar(arg),
            None => Err(QueryError::execution("an argument is missing")),
        };
        match call.function.name {
            "pi" => Ok(Scalar::Constant(std::f64::consts::PI)),
            "time" => {
                Ok(Scalar::Steps(self.steps.times().map(|time| time as f64 / 1000.0).collect()))
            }
            "start" => Ok(seconds(start)),
            "end" => Ok(seconds(end)),
            "step" => Ok(seconds(step)),
            "range" => Ok(seconds(end.saturating_sub(start))),
            "max_of" => Ok(argument(0)?.zip(&argument(1)?, self.steps.count, go_max)),
            "min_of" => Ok(argument(0)?.zip(&argument(1)?, self.steps.count, go_min)),
            "scalar" => match call.args.first() {
                Some(arg) => self.only_float(arg),
                None => Err(QueryError::execution("an argument is missing")),
            },
            name => Err(QueryError::execution(format!("unknown scalar function {name:?}"))),
        }
    }

    /// At each step the value of the only series with a float, NaN where there is not one.
    fn only_float(&self, arg: &Expr) -> Result<Scalar, QueryError> {
        let mut values = vec![f64::NAN; self.steps.count];
        let mut found = vec![0_u8; self.steps.count];
        self.stream(arg, &mut |series| {
            for (at, value) in series.column.floats() {
                if let (Some(slot), Some(found)) = (values.get_mut(at), found.get_mut(at)) {
                    *found = found.saturating_add(1);
                    *slot = if *found == 1 { value } else { f64::NAN };
                }
            }
            self.shared.recycle(series.column);
            Ok(())
        })?;
        Ok(Scalar::Steps(values))
    }
}

/// Go's `math.Max`: NaN wins, and +0 over -0.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if a == f64::INFINITY || b == f64::INFINITY { f64::INFINITY } else { f64::NAN };
    }
    if a == 0.0 && b == 0.0 { if a.is_sign_negative() { b } else { a } } else { a.max(b) }
}

/// Go's `math.Min`: NaN wins, and -0 over +0.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        let least = f64::NEG_INFINITY;
        return if a == least || b == least { least } else { f64::NAN };
    }
    if a == 0.0 && b == 0.0 { if a.is_sign_negative() { a } else { b } } else { a.min(b) }
}
