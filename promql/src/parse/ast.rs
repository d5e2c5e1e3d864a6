//! The expression tree.
//!
//! A tree that came from [`crate::parse`] is type-checked, and its height is bounded by the
//! parser's options, so code that walks it may recurse.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use stint_model::{Matcher, Span, Timestamp};

use super::functions::FunctionSignature;

/// The bytes of the query text that a node was read from: `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PosRange {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl PosRange {
    /// The range from `start` up to `end`.
    pub const fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// Nothing.
    None,
    /// A number without labels.
    Scalar,
    /// A text.
    String,
    /// One sample for each series.
    Vector,
    /// A run of samples for each series.
    Matrix,
}

impl ValueType {
    /// The name in the API: `scalar`, `string`, `vector`, `matrix`, `none`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }

    /// The name in error messages: `instant vector` and `range vector` instead of the short ones.
    pub const fn documented(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `1`, `0x1f`, `5m`
    Number(NumberLiteral),
    /// `"text"`
    String(StringLiteral),
    /// `up{job="node"}`
    VectorSelector(Box<VectorSelector>),
    /// `up[5m]`
    MatrixSelector(Box<MatrixSelector>),
    /// `up[5m:1m]`
    Subquery(Box<Subquery>),
    /// `rate(…)`
    Call(Box<Call>),
    /// `sum by (job) (…)`
    Aggregate(Box<Aggregate>),
    /// `a + b`
    Binary(Box<Binary>),
    /// `-a`
    Unary(Box<Unary>),
    /// `(a)`
    Paren(Box<Paren>),
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberLiteral {
    /// The number; seconds when it was written as a duration.
    pub value: f64,
    /// Whether it was written as a duration (`5m`).
    pub is_duration: bool,
    /// Where it stands.
    pub pos: PosRange,
}

/// A string. Escapes may have made it something else than UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringLiteral {
    /// The bytes, unescaped.
    pub value: Vec<u8>,
    /// Where it stands.
    pub pos: PosRange,
}

impl StringLiteral {
    /// The text, bytes that are not UTF-8 replaced by U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }
}

/// The time that an `@` modifier fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// `@ 1609746000`
    Time(Timestamp),
    /// `@ start()`: the first step of the query
    Start,
    /// `@ end()`: the last step of the query
    End,
}

/// A length of time in brackets or after `offset`.
#[derive(Clone, Debug, PartialEq)]
pub enum Duration {
    /// Known now, in whole milliseconds.
    Fixed(Span),
    /// Known when the query's step and range are.
    Expr(Box<DurationExpr>),
}

/// A length of time that is computed. Values are seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationExpr {
    /// `5m` or `300`
    Number(NumberLiteral),
    /// `step()`: the query's resolution, 0 for instant queries
    Step(PosRange),
    /// `range()`: end minus start of the query, 0 for instant queries
    Range(PosRange),
    /// `+a` or `-a`
    Unary {
        /// Whether the sign is `-`.
        negative: bool,
        /// What it stands before.
        operand: Box<Self>,
        /// Where it stands.
        pos: PosRange,
    },
    /// `a + b`, `min_of(a, b)`
    Binary {
        /// What is computed.
        op: DurationOp,
        /// Left side or first argument.
        lhs: Box<Self>,
        /// Right side or second argument.
        rhs: Box<Self>,
        /// Where it stands.
        pos: PosRange,
    },
    /// `(a)`
    Paren {
        /// What is inside.
        inner: Box<Self>,
        /// Where it stands.
        pos: PosRange,
    },
}

/// An operator between lengths of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `min_of(a, b)`
    MinOf,
    /// `max_of(a, b)`
    MaxOf,
}

/// An instant vector selector, and what a matrix selector takes its range of.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric name where it was written before the braces.
    pub name: Option<Arc<str>>,
    /// All conditions in the order they were written; a name before the braces adds the last one. A
    /// bare string in the braces is a condition on `__name__`.
    pub matchers: Vec<Matcher>,
    /// `offset`, positive into the past; `Fixed(0)` where there is none.
    pub offset: Duration,
    /// `@`
    pub at: Option<At>,
    /// `anchored`
    pub anchored: bool,
    /// `smoothed`
    pub smoothed: bool,
    /// Where it stands, with its modifiers.
    pub pos: PosRange,
}

/// A range vector selector. Modifiers behind it are those of its `selector`.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// Which series, and how shifted.
    pub selector: VectorSelector,
    /// How long; above 0 when fixed.
    pub range: Duration,
    /// Where it stands, with its modifiers.
    pub pos: PosRange,
}

/// An expression evaluated at many times.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated: an instant vector or a scalar.
    pub expr: Expr,
    /// How long; above 0 when fixed.
    pub range: Duration,
    /// How far apart; the default evaluation interval where absent.
    pub step: Option<Duration>,
    /// `offset`, positive into the past; `Fixed(0)` where there is none.
    pub offset: Duration,
    /// `@`
    pub at: Option<At>,
    /// Where it stands, with its modifiers.
    pub pos: PosRange,
}

/// A function call with arguments of the right number and types.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which function.
    pub function: &'static FunctionSignature,
    /// The arguments as written; optional ones may be missing.
    pub args: Vec<Expr>,
    /// Where it stands.
    pub pos: PosRange,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// How groups are folded.
    pub op: AggregateOp,
    /// What is aggregated: an instant vector.
    pub expr: Expr,
    /// The `k`, `φ`, ratio or label of the operators that have one.
    pub param: Option<Expr>,
    /// The labels in `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether the labels are those to drop.
    pub without: bool,
    /// Where it stands.
    pub pos: PosRange,
}

/// An operation between two expressions, each a scalar or an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// What is computed.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Expr,
    /// Right side.
    pub rhs: Expr,
    /// How series find each other; present exactly when both sides are instant vectors.
    pub matching: Option<VectorMatching>,
    /// Whether a comparison answers 0 or 1 instead of dropping series.
    pub return_bool: bool,
    /// Where it stands: from the start of the left side to the end of the right side.
    pub pos: PosRange,
}

/// A sign before a scalar or an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Whether the sign is `-`.
    pub negative: bool,
    /// What it stands before.
    pub expr: Expr,
    /// Where it stands.
    pub pos: PosRange,
}

/// An expression in parentheses.
#[derive(Clone, Debug, PartialEq)]
pub struct Paren {
    /// What is inside.
    pub expr: Expr,
    /// Where it stands, with the parentheses.
    pub pos: PosRange,
}

/// How series of two vectors find each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorMatching {
    /// How many series of each side may meet.
    pub card: Cardinality,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether `labels` are those to compare (`on`) rather than those to ignore.
    pub on: bool,
    /// The labels of `group_left` or `group_right`, copied from the "one" side.
    pub include: Vec<String>,
    /// What stands for a missing sample on the left.
    pub fill_lhs: Option<f64>,
    /// What stands for a missing sample on the right.
    pub fill_rhs: Option<f64>,
}

/// How many series of each side may meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One and one.
    #[default]
    OneToOne,
    /// `group_left`: many on the left.
    ManyToOne,
    /// `group_right`: many on the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Cardinality {
    /// The name in the API, `one-to-one` and so on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::ManyToOne => "many-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

/// An operator between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `>`
    Gt,
    /// `<`
    Lt,
    /// `>=`
    Ge,
    /// `<=`
    Le,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
    /// `</`: keep a histogram's observations up to a value
    TrimUpper,
    /// `>/`: keep a histogram's observations from a value on
    TrimLower,
}

impl BinaryOp {
    /// The operator as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Lt => "<",
            Self::Ge => ">=",
            Self::Le => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// Whether it compares (and may have `bool`).
    pub const fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le)
    }

    /// Whether it is one of `and`, `or`, `unless`.
    pub const fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// How an aggregation folds a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// `avg`
    Avg,
    /// `bottomk(k, v)`
    Bottomk,
    /// `count`
    Count,
    /// `count_values("label", v)`
    CountValues,
    /// `group`
    Group,
    /// `limitk(k, v)`
    Limitk,
    /// `limit_ratio(r, v)`
    LimitRatio,
    /// `max`
    Max,
    /// `min`
    Min,
    /// `quantile(φ, v)`
    Quantile,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `sum`
    Sum,
    /// `topk(k, v)`
    Topk,
}

impl AggregateOp {
    /// The operator as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Bottomk => "bottomk",
            Self::Count => "count",
            Self::CountValues => "count_values",
            Self::Group => "group",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
            Self::Max => "max",
            Self::Min => "min",
            Self::Quantile => "quantile",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Sum => "sum",
            Self::Topk => "topk",
        }
    }

    /// The type of its parameter, for those that have one.
    pub const fn param_type(self) -> Option<ValueType> {
        match self {
            Self::CountValues => Some(ValueType::String),
            Self::Bottomk | Self::Topk | Self::Limitk | Self::LimitRatio | Self::Quantile => {
                Some(ValueType::Scalar)
            }
            _ => None,
        }
    }

    /// Whether it needs [`super::Options::experimental_functions`].
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::Limitk | Self::LimitRatio)
    }
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self::Fixed(Span(0));
}

impl Expr {
    /// Where the expression stands in the query.
    pub fn pos(&self) -> PosRange {
        match self {
            Self::Number(node) => node.pos,
            Self::String(node) => node.pos,
            Self::VectorSelector(node) => node.pos,
            Self::MatrixSelector(node) => node.pos,
            Self::Subquery(node) => node.pos,
            Self::Call(node) => node.pos,
            Self::Aggregate(node) => node.pos,
            Self::Binary(node) => node.pos,
            Self::Unary(node) => node.pos,
            Self::Paren(node) => node.pos,
        }
    }

    /// What the expression evaluates to.
    pub fn value_type(&self) -> ValueType {
        let mut expr = self;
        loop {
            return match expr {
                Self::Number(_) => ValueType::Scalar,
                Self::String(_) => ValueType::String,
                Self::VectorSelector(_) | Self::Aggregate(_) => ValueType::Vector,
                Self::MatrixSelector(_) | Self::Subquery(_) => ValueType::Matrix,
                Self::Call(call) => call.function.returns,
                Self::Binary(binary) => binary.value_type(),
                Self::Unary(unary) => {
                    expr = &unary.expr;
                    continue;
                }
                Self::Paren(paren) => {
                    expr = &paren.expr;
                    continue;
                }
            };
        }
    }

    /// The expressions directly below, in order; an aggregation's own before its parameter.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        let (list, first, second): (&[Self], Option<&Self>, Option<&Self>) = match self {
            Self::Number(_)
            | Self::String(_)
            | Self::VectorSelector(_)
            | Self::MatrixSelector(_) => (&[], None, None),
            Self::Subquery(node) => (&[], Some(&node.expr), None),
            Self::Call(node) => (&node.args, None, None),
            Self::Aggregate(node) => (&[], Some(&node.expr), node.param.as_ref()),
            Self::Binary(node) => (&[], Some(&node.lhs), Some(&node.rhs)),
            Self::Unary(node) => (&[], Some(&node.expr), None),
            Self::Paren(node) => (&[], Some(&node.expr), None),
        };
        list.iter().chain(first).chain(second)
    }

    /// The expression without parentheses around it.
    pub fn unparenthesized(&self) -> &Self {
        let mut expr = self;
        while let Self::Paren(paren) = expr {
            expr = &paren.expr;
        }
        expr
    }
}

impl Binary {
    /// A scalar when both sides are, otherwise an instant vector.
    pub fn value_type(&self) -> ValueType {
        // A long chain leans to the left; only the right sides are looked into recursively.
        let mut binary = self;
        loop {
            if binary.rhs.value_type() != ValueType::Scalar {
                return ValueType::Vector;
            }
            match binary.lhs.unparenthesized() {
                Expr::Binary(lhs) => binary = lhs,
                other if other.value_type() == ValueType::Scalar => return ValueType::Scalar,
                _ => return ValueType::Vector,
            }
        }
    }
}

impl DurationExpr {
    /// Where it stands.
    pub fn pos(&self) -> PosRange {
        match self {
            Self::Number(number) => number.pos,
            Self::Step(pos)
            | Self::Range(pos)
            | Self::Unary { pos, .. }
            | Self::Binary { pos, .. }
            | Self::Paren { pos, .. } => *pos,
        }
    }
}
