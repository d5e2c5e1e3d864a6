//! Trees as text, in the one form that Prometheus writes.

use std::fmt::{self, Display, Formatter, Write};

use stint_model::labels::{METRIC_NAME, is_legacy_label_name};
use stint_model::{MatchOp, Matcher, Span};

use super::ast::{
    Aggregate, At, Binary, Cardinality, Duration, DurationExpr, DurationOp, Expr, MatrixSelector,
    NumberLiteral, StringLiteral, Subquery, VectorMatching, VectorSelector,
};
use super::literal::{DurationText, NumberText, quote, quote_bytes};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(node) => node.fmt(f),
            Self::String(node) => node.fmt(f),
            Self::VectorSelector(node) => node.fmt(f),
            Self::MatrixSelector(node) => node.fmt(f),
            Self::Subquery(node) => write!(f, "{}{}", node.expr, SubquerySuffix(node)),
            Self::Call(node) => {
                write!(f, "{}(", node.function.name)?;
                for (at, arg) in node.args.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}{arg}")?;
                }
                f.write_str(")")
            }
            Self::Aggregate(node) => {
                write!(f, "{}(", AggregateHead(node))?;
                if let Some(param) = &node.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", node.expr)
            }
            Self::Binary(node) => {
                write!(f, "{} {} {}", node.lhs, Operator(node), node.rhs)
            }
            Self::Unary(node) => {
                write!(f, "{}{}", if node.negative { "-" } else { "+" }, node.expr)
            }
            Self::Paren(node) => write!(f, "({})", node.expr),
        }
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_duration {
            // Only whole milliseconds can be written.
            DurationText(Span((self.value * 1000.0).round() as i64)).fmt(f)
        } else {
            NumberText(self.value).fmt(f)
        }
    }
}

impl Display for StringLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&readable(quote_bytes(&self.value)))
    }
}

/// A quoted text as it can be read again. The replacement character stands for what is no UTF-8 where
/// nothing else can, and is refused where it is written as it is.
fn readable(quoted: String) -> String {
    if quoted.contains(char::REPLACEMENT_CHARACTER) {
        quoted.replace(char::REPLACEMENT_CHARACTER, "\\ufffd")
    } else {
        quoted
    }
}

/// Names of labels in a list, quoted where they have to be.
struct Names<'a>(&'a [String]);

impl Display for Names<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (at, name) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                f.write_str(&readable(quote(name)))?;
            }
        }
        f.write_str(")")
    }
}

/// `sum by (job) `, up to the parenthesis of the arguments.
pub(super) struct AggregateHead<'a>(pub(super) &'a Aggregate);

impl Display for AggregateHead<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let node = self.0;
        f.write_str(node.op.as_str())?;
        if node.without {
            write!(f, " without {} ", Names(&node.grouping))
        } else if node.grouping.is_empty() {
            Ok(())
        } else {
            write!(f, " by {} ", Names(&node.grouping))
        }
    }
}

/// `+ on (job) group_left ()`: an operator and its modifiers.
pub(super) struct Operator<'a>(pub(super) &'a Binary);

impl Display for Operator<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op.as_str())?;
        if self.0.return_bool {
            f.write_str(" bool")?;
        }
        match &self.0.matching {
            Some(matching) => write_matching(f, matching),
            None => Ok(()),
        }
    }
}

fn write_matching(f: &mut Formatter<'_>, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.card {
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if matching.on || !matching.labels.is_empty() || group.is_some() {
        let word = if matching.on { "on" } else { "ignoring" };
        write!(f, " {word} {}", Names(&matching.labels))?;
    }
    if let Some(group) = group {
        write!(f, " {group} {}", Names(&matching.include))?;
    }
    match (matching.fill_lhs, matching.fill_rhs) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            write!(f, " fill ({})", NumberText(left))
        }
        (left, right) => {
            if let Some(left) = left {
                write!(f, " fill_left ({})", NumberText(left))?;
            }
            if let Some(right) = right {
                write!(f, " fill_right ({})", NumberText(right))?;
            }
            Ok(())
        }
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_selection(f)?;
        self.write_extended(f)?;
        write_shift(f, self.at, &self.offset)
    }
}

impl VectorSelector {
    /// Name and matchers.
    fn write_selection(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or_default())?;
        let is_name = |matcher: &Matcher| {
            matcher.name() == METRIC_NAME
                && matcher.op() == MatchOp::Equal
                && Some(matcher.value()) == self.name.as_deref()
        };
        let shown = self.matchers.iter().filter(|matcher| !is_name(matcher));
        let mut shown: Vec<String> = shown.map(matcher_text).collect();
        shown.sort();
        if shown.is_empty() && self.name.is_some() {
            return Ok(());
        }
        write!(f, "{{{}}}", shown.join(","))
    }

    fn write_extended(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (set, word) in [(self.anchored, " anchored"), (self.smoothed, " smoothed")] {
            if set {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}

fn matcher_text(matcher: &Matcher) -> String {
    let value = readable(quote(matcher.value()));
    let op = matcher.op().as_str();
    if is_legacy_label_name(matcher.name()) {
        format!("{}{op}{value}", matcher.name())
    } else {
        format!("{}{op}{value}", readable(quote(matcher.name())))
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.selector.write_selection(f)?;
        write!(f, "[{}]", self.range)?;
        self.selector.write_extended(f)?;
        write_shift(f, self.selector.at, &self.selector.offset)
    }
}

/// `[5m:1m] @ start() offset 5m`, behind a subquery's expression.
pub(super) struct SubquerySuffix<'a>(pub(super) &'a Subquery);

impl Display for SubquerySuffix<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "[{}:", self.0.range)?;
        if let Some(step) = &self.0.step {
            step.fmt(f)?;
        }
        f.write_char(']')?;
        write_shift(f, self.0.at, &self.0.offset)
    }
}

fn write_shift(f: &mut Formatter<'_>, at: Option<At>, offset: &Duration) -> fmt::Result {
    match at {
        None => {}
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        Some(At::Time(time)) => write!(f, " @ {:.3}", time.as_secs_f64())?,
    }
    if *offset == Duration::ZERO { Ok(()) } else { write!(f, " offset {offset}") }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(span) => DurationText(*span).fmt(f),
            Self::Expr(expr) => expr.fmt(f),
        }
    }
}

impl DurationOp {
    /// The operator as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::MinOf => "min_of",
            Self::MaxOf => "max_of",
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Step(_) => f.write_str("step()"),
            Self::Range(_) => f.write_str("range()"),
            Self::Paren { inner, .. } => write!(f, "({inner})"),
            // A `+` has no effect and is left out.
            Self::Unary { negative, operand, .. } => {
                write!(f, "{}{operand}", if *negative { "-" } else { "" })
            }
            Self::Binary { op: op @ (DurationOp::MinOf | DurationOp::MaxOf), lhs, rhs, .. } => {
                write!(f, "{}({lhs}, {rhs})", op.as_str())
            }
            Self::Binary { op, lhs, rhs, .. } => write!(f, "{lhs} {} {rhs}", op.as_str()),
        }
    }
}
