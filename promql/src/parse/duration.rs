//! Lengths of time in brackets and after `offset`: their grammar and their values.

use std::fmt;

use stint_model::Span;

use super::ast::{BinaryOp, Duration, DurationExpr, DurationOp, NumberLiteral, PosRange};
use super::grammar::{Parsed, Parser, Stop};
use super::lexer::{Keyword, Kind};

/// Seconds at which nanoseconds no longer fit into 64 bits.
const SECONDS_MAX: f64 = 9_223_372_036.854_776;

/// What duration expressions may refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationContext {
    /// The query's resolution, 0 for an instant query.
    pub step: Span,
    /// The query's end minus its start, 0 for an instant query.
    pub range: Span,
}

/// A duration expression without a usable value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationError {
    /// Where it stands in the query.
    pub pos: PosRange,
    /// What is wrong.
    pub cause: &'static str,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.pos.start, self.pos.end, self.cause)
    }
}

impl std::error::Error for DurationError {}

impl Duration {
    /// The length, which must be above 0; for ranges and the steps of subqueries.
    pub fn resolve_positive(&self, context: DurationContext) -> Result<Span, DurationError> {
        match self {
            Self::Fixed(span) => Ok(*span),
            Self::Expr(expr) => expr.span(context, true),
        }
    }

    /// The length, which may be 0 or below; for offsets.
    pub fn resolve_signed(&self, context: DurationContext) -> Result<Span, DurationError> {
        match self {
            Self::Fixed(span) => Ok(*span),
            Self::Expr(expr) => expr.span(context, false),
        }
    }
}

impl DurationExpr {
    fn span(&self, context: DurationContext, positive: bool) -> Result<Span, DurationError> {
        let seconds = self.seconds(context)?;
        let failed = |cause| Err(DurationError { pos: self.inner_pos(), cause });
        if seconds.is_nan() || seconds.is_infinite() {
            return failed("duration is not finite");
        }
        if positive && seconds <= 0.0 {
            return failed("duration must be greater than 0");
        }
        if seconds.abs() > SECONDS_MAX {
            return failed("duration is out of range");
        }
        Ok(Span((seconds * 1000.0) as i64))
    }

    /// Where the expression stands, parentheses around it left out.
    fn inner_pos(&self) -> PosRange {
        let mut expr = self;
        while let Self::Paren { inner, .. } = expr {
            expr = inner;
        }
        expr.pos()
    }

    fn seconds(&self, context: DurationContext) -> Result<f64, DurationError> {
        match self {
            Self::Number(number) => Ok(number.value),
            Self::Step(_) => Ok(context.step.as_ms() as f64 / 1000.0),
            Self::Range(_) => Ok(context.range.as_ms() as f64 / 1000.0),
            Self::Paren { inner, .. } => inner.seconds(context),
            Self::Unary { negative, operand, .. } => {
                let value = operand.seconds(context)?;
                Ok(if *negative { -value } else { value })
            }
            Self::Binary { op, lhs, rhs, .. } => {
                let (left, right) = (lhs.seconds(context)?, rhs.seconds(context)?);
                let failed = |cause| Err(DurationError { pos: self.inner_pos(), cause });
                Ok(match op {
                    DurationOp::Add => left + right,
                    DurationOp::Sub => left - right,
                    DurationOp::Mul => left * right,
                    DurationOp::Div if right == 0.0 => return failed("division by zero"),
                    DurationOp::Div => left / right,
                    DurationOp::Mod if right == 0.0 => return failed("modulo by zero"),
                    DurationOp::Mod => left % right,
                    DurationOp::Pow => left.powf(right),
                    DurationOp::MinOf => left.min(right),
                    DurationOp::MaxOf => left.max(right),
                })
            }
        }
    }
}

const POWER_OF_POW: u8 = 3;

fn operator(op: BinaryOp) -> Option<(DurationOp, u8)> {
    match op {
        BinaryOp::Add => Some((DurationOp::Add, 1)),
        BinaryOp::Sub => Some((DurationOp::Sub, 1)),
        BinaryOp::Mul => Some((DurationOp::Mul, 2)),
        BinaryOp::Div => Some((DurationOp::Div, 2)),
        BinaryOp::Mod => Some((DurationOp::Mod, 2)),
        BinaryOp::Pow => Some((DurationOp::Pow, POWER_OF_POW)),
        _ => None,
    }
}

/// Stands for a literal that is wrong, when that has been noted.
const NOTHING: NumberLiteral =
    NumberLiteral { value: 0.0, is_duration: false, pos: PosRange::new(0, 0) };

/// A duration expression and the height of its tree.
type Tree = (DurationExpr, usize);

impl Parser<'_> {
    /// A length of time that is above 0 as far as is known now.
    pub(super) fn positive_duration(&mut self) -> Parsed<Duration> {
        let (expr, _) = self.duration_expr(0)?;
        if let DurationExpr::Number(number) = expr {
            let mut value = number.value;
            if value.is_nan() || value <= 0.0 {
                self.error(number.pos, "duration must be greater than 0");
                value = 0.0;
            }
            return Ok(Duration::Fixed(fixed(value)));
        }
        Ok(Duration::Expr(Box::new(expr)))
    }

    /// What may follow `offset`: without parentheses only one literal or call.
    pub(super) fn offset_duration(&mut self) -> Parsed<Duration> {
        let sign = self.peek_token();
        let expr = match sign.kind {
            Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.bump();
                let negative = op == BinaryOp::Sub;
                let pos = PosRange::new(sign.start, sign.end);
                let is_signed = matches!(self.peek(), Kind::Op(BinaryOp::Add | BinaryOp::Sub));
                let (operand, height) = if is_signed {
                    self.nested(Self::signed_duration)?
                } else {
                    self.duration_operand()?
                };
                match operand {
                    DurationExpr::Paren { .. } if !negative => operand,
                    DurationExpr::Number(_) => self.signed(negative, pos, operand, height)?.0,
                    operand => unary(negative, sign.start, operand),
                }
            }
            _ => self.duration_operand()?.0,
        };
        Ok(match expr {
            DurationExpr::Number(number) => Duration::Fixed(fixed(number.value)),
            expr => Duration::Expr(Box::new(expr)),
        })
    }

    fn duration_expr(&mut self, min_power: u8) -> Parsed<Tree> {
        let (mut left, mut height) = self.signed_duration()?;
        while let Kind::Op(op) = self.peek() {
            let Some((op, power)) = operator(op).filter(|(_, power)| *power >= min_power) else {
                break;
            };
            let token = self.bump();
            let min_right = if op == DurationOp::Pow { power } else { power + 1 };
            let (right, right_height) = self.nested(|parser| parser.duration_expr(min_right))?;
            height = self.deeper(height.max(right_height))?;
            self.gate(left.pos());
            let mistake = match (op, &right) {
                (DurationOp::Div, DurationExpr::Number(by)) if by.value == 0.0 => {
                    Some("division by zero")
                }
                (DurationOp::Mod, DurationExpr::Number(by)) if by.value == 0.0 => {
                    Some("modulo by zero")
                }
                _ => None,
            };
            left = if let Some(mistake) = mistake {
                self.error(PosRange::new(token.start, token.end), mistake);
                DurationExpr::Number(NOTHING)
            } else {
                let pos = PosRange::new(left.pos().start, right.pos().end);
                DurationExpr::Binary { op, lhs: Box::new(left), rhs: Box::new(right), pos }
            };
        }
        Ok((left, height))
    }

    /// The height of a tree above one of this height.
    fn deeper(&mut self, below: usize) -> Parsed<usize> {
        let nothing = super::ast::Expr::Number(NOTHING);
        self.node(nothing, below).map(|node| node.height)
    }

    /// Notes the use of an expression where only literals are allowed.
    fn gate(&mut self, pos: PosRange) {
        if !self.options.duration_expr {
            self.error(pos, "experimental duration expression is not enabled");
        }
    }

    fn signed_duration(&mut self) -> Parsed<Tree> {
        let sign = self.peek_token();
        let Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) = sign.kind else {
            return self.duration_operand();
        };
        self.bump();
        let (operand, height) = self.nested(|parser| parser.duration_expr(POWER_OF_POW))?;
        let pos = PosRange::new(sign.start, sign.end);
        self.signed(op == BinaryOp::Sub, pos, operand, height)
    }

    /// `operand` with a sign before it; a literal takes the sign in, a `+` has no other effect.
    fn signed(
        &mut self,
        negative: bool,
        sign: PosRange,
        operand: DurationExpr,
        height: usize,
    ) -> Parsed<Tree> {
        Ok(match operand {
            DurationExpr::Number(mut number) => {
                if negative {
                    number.value = -number.value;
                }
                number.pos.start = sign.start;
                (DurationExpr::Number(number), height)
            }
            operand if negative => (unary(true, sign.start, operand), self.deeper(height)?),
            operand => (operand, height),
        })
    }

    fn duration_operand(&mut self) -> Parsed<Tree> {
        let token = self.peek_token();
        let expr = match token.kind {
            Kind::Number | Kind::Duration => {
                let number = self.number()?;
                if number.value.is_nan() || number.value.abs() > SECONDS_MAX {
                    self.error(number.pos, "duration out of range");
                    return Ok((DurationExpr::Number(NOTHING), 1));
                }
                return Ok((DurationExpr::Number(number), 1));
            }
            Kind::LeftParen => {
                self.bump();
                let (inner, height) = self.nested(|parser| parser.duration_expr(0))?;
                let end = self.expect(Kind::RightParen)?.end;
                self.gate(inner.pos());
                let pos = PosRange::new(token.start, end);
                // Parentheses around parentheses add nothing.
                if let DurationExpr::Paren { inner, .. } = inner {
                    return Ok((DurationExpr::Paren { inner, pos }, height));
                }
                let height = self.deeper(height)?;
                return Ok((DurationExpr::Paren { inner: Box::new(inner), pos }, height));
            }
            Kind::Keyword(word @ (Keyword::Step | Keyword::Range)) => {
                self.bump();
                self.expect(Kind::LeftParen)?;
                let end = self.expect(Kind::RightParen)?.end;
                let pos = PosRange::new(token.start, end);
                self.gate(pos);
                let is_step = word == Keyword::Step;
                if is_step { DurationExpr::Step(pos) } else { DurationExpr::Range(pos) }
            }
            Kind::Keyword(word @ (Keyword::MinOf | Keyword::MaxOf)) => {
                self.bump();
                self.expect(Kind::LeftParen)?;
                let (lhs, left) = self.nested(|parser| parser.duration_expr(0))?;
                self.expect(Kind::Comma)?;
                let (rhs, right) = self.nested(|parser| parser.duration_expr(0))?;
                let end = self.expect(Kind::RightParen)?.end;
                let pos = PosRange::new(token.start, end);
                self.gate(pos);
                let is_min = word == Keyword::MinOf;
                let op = if is_min { DurationOp::MinOf } else { DurationOp::MaxOf };
                let height = self.deeper(left.max(right))?;
                let (lhs, rhs) = (Box::new(lhs), Box::new(rhs));
                return Ok((DurationExpr::Binary { op, lhs, rhs, pos }, height));
            }
            _ => return Err(Stop::Unexpected),
        };
        Ok((expr, 1))
    }
}

fn unary(negative: bool, start: u32, operand: DurationExpr) -> DurationExpr {
    let pos = PosRange::new(start, operand.pos().end);
    DurationExpr::Unary { negative, operand: Box::new(operand), pos }
}

/// Whole milliseconds of seconds, by way of nanoseconds as in Prometheus.
fn fixed(seconds: f64) -> Span {
    Span((seconds * 1e9).round() as i64 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::ast::Expr;
    use crate::parse::{Options, parse};

    fn range_of(text: &str) -> Result<Span, String> {
        let context = DurationContext { step: Span(60_000), range: Span(3_600_000) };
        let options = Options::all();
        match parse(text, &options).map_err(|errors| errors.to_string())? {
            Expr::MatrixSelector(matrix) => {
                matrix.range.resolve_positive(context).map_err(|error| error.to_string())
            }
            Expr::VectorSelector(vector) => {
                vector.offset.resolve_signed(context).map_err(|error| error.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn expressions_have_values() {
        for (text, ms) in [
            ("x[5m+1m]", 360_000),
            ("x[2^3]", 8_000),
            ("x[step()*2]", 120_000),
            ("x[max_of(step(), 90s)]", 90_000),
            ("x[min_of(range(), 90s)]", 90_000),
            ("x[-2^2+10]", 6_000),
            ("x[17 % 5]", 2_000),
            ("x[300]", 300_000),
            ("x[0.0015]", 1),
            ("x offset -step()", -60_000),
            ("x offset --5m", 300_000),
            ("x offset -+5m", -300_000),
            ("x offset (5-8)", -3_000),
            ("x offset +min_of(1,2)", 1_000),
        ] {
            assert_eq!(range_of(text), Ok(Span(ms)), "{text}");
        }
    }

    #[test]
    fn expressions_without_a_value_say_where() {
        for (text, error) in [
            ("x[step()-1h]", "2:11: duration must be greater than 0"),
            ("x[(step()-1h)]", "3:12: duration must be greater than 0"),
            ("x[5/(step()-60)]", "2:15: division by zero"),
            ("x[10^200]", "2:8: duration is out of range"),
        ] {
            assert_eq!(range_of(text), Err(error.to_owned()), "{text}");
        }
    }
}
