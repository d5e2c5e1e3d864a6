//! What the engine decides by looking at an expression, before anything is read.

use crate::column::is_metadata;
use crate::engine::EngineOptions;
use crate::exec::{call, selector};
use crate::functions::math::float_function;
use crate::functions::range_function;
use crate::parse::ast::{Aggregate, AggregateOp, BinaryOp, Expr, ValueType};

/// Functions whose value depends on the time of evaluation, not only on their arguments.
const TIME_DEPENDENT: [&str; 16] = [
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
    "start_timestamp",
    "year",
];

/// Whether dropping metric names here could make two series equal.
pub(crate) fn may_collide(expr: &Expr, options: &EngineOptions) -> bool {
    match expr {
        Expr::Unary(unary) => unary.negative && !has_one_name(&unary.expr, options),
        Expr::Call(call) => {
            call::drops_name(call.function.name)
                && call.args.iter().any(|arg| !has_one_name(arg, options))
        }
        Expr::Binary(binary) => {
            binary.matching.is_none()
                && (!has_one_name(&binary.lhs, options) || !has_one_name(&binary.rhs, options))
        }
        _ => false,
    }
}

/// Whether the labels of the expression's series are those of one selector, with the metric name
/// or without, and go through nothing that looks at the name on their way.
pub(crate) fn only_passes_labels_on(expr: &Expr) -> bool {
    let is_number = |arg: &Expr| matches!(arg.unparenthesized(), Expr::Number(_));
    match expr {
        Expr::VectorSelector(_) | Expr::MatrixSelector(_) => true,
        Expr::Paren(paren) => only_passes_labels_on(&paren.expr),
        Expr::Unary(unary) => only_passes_labels_on(&unary.expr),
        Expr::Call(call) => {
            let name = call.function.name;
            let is_known = range_function(name).is_some() || float_function(name).is_some();
            let mut args = call.args.iter().filter(|arg| !is_number(arg));
            is_known && args.next().is_some_and(only_passes_labels_on) && args.next().is_none()
        }
        Expr::Binary(binary) if !binary.op.is_set() => {
            let (lhs, rhs) = (&binary.lhs, &binary.rhs);
            (is_number(lhs) && only_passes_labels_on(rhs))
                || (is_number(rhs) && only_passes_labels_on(lhs))
        }
        _ => false,
    }
}

/// Whether all series of the expression surely have the same metric name, or none.
pub(crate) fn has_one_name(expr: &Expr, options: &EngineOptions) -> bool {
    if options.type_and_unit_labels {
        return false;
    }
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::VectorSelector(selector) => selector::has_one_name(selector),
        Expr::MatrixSelector(matrix) => selector::has_one_name(&matrix.selector),
        Expr::Subquery(subquery) => has_one_name(&subquery.expr, options),
        Expr::Paren(paren) => has_one_name(&paren.expr, options),
        Expr::Unary(unary) => has_one_name(&unary.expr, options),
        Expr::Call(call) => {
            !call.function.name.starts_with("label_")
                && call.args.iter().all(|arg| has_one_name(arg, options))
        }
        Expr::Aggregate(aggregate) => {
            has_one_name(&aggregate.expr, options)
                || (!aggregate.without && aggregate.grouping.iter().all(|l| l != "__name__"))
        }
        Expr::Binary(binary) => {
            has_one_name(&binary.lhs, options)
                && has_one_name(&binary.rhs, options)
                && !binary.op.is_set()
        }
    }
}

/// Whether no two series of the expression have equal labels, not even with values at other steps.
pub(crate) fn has_distinct_labels(expr: &Expr) -> bool {
    match expr {
        Expr::Paren(paren) => has_distinct_labels(&paren.expr),
        Expr::Aggregate(aggregate) => match aggregate.op {
            AggregateOp::CountValues => false,
            AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => has_distinct_labels(&aggregate.expr),
            _ => true,
        },
        Expr::Binary(binary) if matches!(binary.op, BinaryOp::And | BinaryOp::Unless) => {
            has_distinct_labels(&binary.lhs)
        }
        _ => only_passes_labels_on(expr),
    }
}

/// Whether the expression has the same value at every step.
pub(crate) fn is_step_invariant(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::VectorSelector(selector) => selector.at.is_some(),
        Expr::MatrixSelector(matrix) => matrix.selector.at.is_some(),
        Expr::Subquery(subquery) => subquery.at.is_some(),
        Expr::Call(call) => {
            let is_current_time =
                call.args.is_empty() && call.function.returns == ValueType::Vector;
            !TIME_DEPENDENT.contains(&call.function.name)
                && !is_current_time
                && call.args.iter().all(is_step_invariant)
        }
        _ => expr.children().all(is_step_invariant),
    }
}

/// How carefully the input of an aggregation has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Care {
    /// Somebody looks at the metric names.
    pub(crate) names: bool,
    /// Any order will do.
    pub(crate) unordered: bool,
    /// Somebody looks at labels by which the aggregation does not group.
    pub(crate) all_labels: bool,
}

impl Care {
    /// Everything is looked at.
    pub(crate) const FULL: Self = Self { names: true, unordered: false, all_labels: true };
}

/// Whether an aggregation that folds has to put its input in order first: the order shows in the last
/// digits of a deviation, and what another aggregation makes comes in an order of its own.
pub(crate) fn orders_input(aggregate: &Aggregate) -> bool {
    matches!(aggregate.op, AggregateOp::Stddev | AggregateOp::Stdvar)
        && !only_passes_labels_on(&aggregate.expr)
}

/// How carefully the input of an aggregation that folds has to be read.
pub(crate) fn care(aggregate: &Aggregate, options: &EngineOptions) -> Care {
    let rewrites = &options.rewrites;
    let is_chain = only_passes_labels_on(&aggregate.expr);
    let groups_by_name =
        !aggregate.without && aggregate.grouping.iter().any(|label| is_metadata(label));
    let seen = groups_by_name || !has_one_name(&aggregate.expr, options);
    // Sums and means make good for what rounding loses, so that their order does not show.
    let is_indifferent = matches!(
        aggregate.op,
        AggregateOp::Sum
            | AggregateOp::Avg
            | AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Count
            | AggregateOp::Group
    );
    let names_unseen = is_chain && !seen;
    Care {
        names: !(rewrites.unseen_names && names_unseen),
        all_labels: !(rewrites.group_keys && rewrites.unseen_names && names_unseen),
        unordered: rewrites.any_order && is_chain && is_indifferent,
    }
}
