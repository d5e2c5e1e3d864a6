//! Matchers pushed across joins: series that match nothing on the other side are not read.
//!
//! In `a{x="1"} / b` only those series of `b` meet anything that have `x="1"` too. What is left out
//! must not have shown: neither in an error (two series of the "one" side that both match are one, even
//! where nothing meets them) nor in a remark (which most functions may make of any series).

use stint_model::Matcher;

use crate::column::{Series, is_metadata};
use crate::engine::EngineOptions;
use crate::exec::aggregate::is_kept;
use crate::exec::decide::{has_one_name, only_passes_labels_on};
use crate::exec::groups::GroupIndex;
use crate::exec::join::is_matched;
use crate::functions::math::float_function;
use crate::parse::ast::{
    AggregateOp, Binary, BinaryOp, Cardinality, Expr, ValueType, VectorMatching, VectorSelector,
};

/// What the sides of an operator between vectors can be asked for beside what is written.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Pushed {
    /// Of the left side.
    pub(crate) lhs: Vec<Matcher>,
    /// Of the right side.
    pub(crate) rhs: Vec<Matcher>,
}

impl Pushed {
    /// For this operator. What is for the "many" side of an arithmetic operator or comparison holds only
    /// when no two series of the other side have the same signature ([`is_unique`]).
    pub(crate) fn of(binary: &Binary, options: &EngineOptions) -> Self {
        let none = Self::default();
        let Some(matching) = &binary.matching else { return none };
        let fills = matching.fill_lhs.is_some() || matching.fill_rhs.is_some();
        if !options.rewrites.pushed_matchers || fills || binary.op == BinaryOp::Or {
            return none;
        }
        let (lhs, rhs) = (&binary.lhs, &binary.rhs);
        let to = |target: &Expr, source: &Expr| {
            if takes_matchers(target, options) {
                news(target, source, matching)
            } else {
                Vec::new()
            }
        };
        match binary.op {
            BinaryOp::And => Self { lhs: to(lhs, rhs), rhs: to(rhs, lhs) },
            // What matches nothing stays: of the left side nothing can be left out.
            BinaryOp::Unless => Self { lhs: Vec::new(), rhs: to(rhs, lhs) },
            _ => {
                let is_right_many = matching.card == Cardinality::OneToMany;
                let one = if is_right_many { lhs } else { rhs };
                let mut pushed = Self { lhs: to(lhs, rhs), rhs: to(rhs, lhs) };
                if !has_unique_signatures(one, matching, options) {
                    let to_one = if is_right_many { &mut pushed.lhs } else { &mut pushed.rhs };
                    to_one.clear();
                }
                pushed
            }
        }
    }
}

/// Whether no two of the series have the same signature.
pub(crate) fn is_unique(one: &[Series], matching: &VectorMatching) -> bool {
    let mut index = GroupIndex::default();
    let mut signatures = one.iter().map(|series| {
        let (_, new) = index.number(&series.labels, |name| is_matched(matching, name));
        new.is_some()
    });
    signatures.all(|is_new| is_new)
}

/// The expression, asked for series that match these too. It must be one that [`Pushed`] names.
pub(crate) fn with_matchers(target: &Expr, matchers: &[Matcher]) -> Expr {
    let mut asked = target.clone();
    if let Some(selector) = selector_mut(&mut asked) {
        selector.matchers.extend_from_slice(matchers);
    }
    asked
}

/// What all series of `source` that meet anything match, as far as `target` does not ask for it.
fn news(target: &Expr, source: &Expr, matching: &VectorMatching) -> Vec<Matcher> {
    let Some(asked) = selector_of(target) else { return Vec::new() };
    let is_new = |fact: &Matcher| {
        is_matched(matching, fact.name())
            && !asked.matchers.contains(fact)
            && passes(target, fact.name())
    };
    facts(source).into_iter().filter(is_new).collect()
}

/// What all series of an expression match.
fn facts(expr: &Expr) -> Vec<Matcher> {
    match expr.unparenthesized() {
        Expr::Aggregate(aggregate) if aggregate.op != AggregateOp::CountValues => {
            let mut facts = facts(&aggregate.expr);
            let chooses = matches!(
                aggregate.op,
                AggregateOp::Topk
                    | AggregateOp::Bottomk
                    | AggregateOp::Limitk
                    | AggregateOp::LimitRatio
            );
            facts.retain(|fact| chooses || is_kept(aggregate, fact.name()));
            facts
        }
        expr if only_passes_labels_on(expr) => {
            let matchers = selector_of(expr).map(|selector| selector.matchers.as_slice());
            let facts = matchers.unwrap_or_default().iter();
            // Names come off on the way.
            facts.filter(|fact| !is_metadata(fact.name())).cloned().collect()
        }
        _ => Vec::new(),
    }
}

/// Whether series of the expression can be left out without a trace: nothing is remarked of them, and
/// none is merged with another.
fn takes_matchers(expr: &Expr, options: &EngineOptions) -> bool {
    match expr {
        Expr::Aggregate(aggregate) => {
            matches!(aggregate.op, AggregateOp::Count | AggregateOp::Group)
                && takes_matchers(&aggregate.expr, options)
        }
        Expr::Paren(paren) => takes_matchers(&paren.expr, options),
        _ => is_silent(expr) && has_one_name(expr, options),
    }
}

fn is_silent(expr: &Expr) -> bool {
    match expr {
        Expr::VectorSelector(selector) => !selector.smoothed && !selector.anchored,
        Expr::Paren(paren) => is_silent(&paren.expr),
        Expr::Unary(unary) => is_silent(&unary.expr),
        Expr::Call(call) => {
            float_function(call.function.name).is_some() && call.args.iter().all(is_silent)
        }
        _ => false,
    }
}

/// Whether series that differ in this label stay apart.
fn passes(expr: &Expr, name: &str) -> bool {
    match expr.unparenthesized() {
        Expr::Aggregate(aggregate) => is_kept(aggregate, name) && passes(&aggregate.expr, name),
        _ => true,
    }
}

/// Whether an expression alone tells that no two of its series have the same signature.
fn has_unique_signatures(expr: &Expr, matching: &VectorMatching, options: &EngineOptions) -> bool {
    match expr.unparenthesized() {
        Expr::VectorSelector(_) => {
            !matching.on && matching.labels.is_empty() && has_one_name(expr, options)
        }
        Expr::Aggregate(aggregate) => {
            let groups = matches!(aggregate.op, AggregateOp::Count | AggregateOp::Group);
            let is_compared = |name: &String| is_matched(matching, name);
            groups && !aggregate.without && aggregate.grouping.iter().all(is_compared)
        }
        _ => false,
    }
}

/// The selector whose series an expression is made of.
fn selector_of(expr: &Expr) -> Option<&VectorSelector> {
    match expr {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(matrix) => Some(&matrix.selector),
        Expr::Number(_) | Expr::String(_) | Expr::Subquery(_) => None,
        _ => expr.children().find_map(selector_of),
    }
}

/// The same, to be changed, of an expression that takes matchers.
fn selector_mut(expr: &mut Expr) -> Option<&mut VectorSelector> {
    match expr {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::Paren(paren) => selector_mut(&mut paren.expr),
        Expr::Unary(unary) => selector_mut(&mut unary.expr),
        Expr::Aggregate(aggregate) => selector_mut(&mut aggregate.expr),
        Expr::Call(call) => {
            let mut args = call.args.iter_mut();
            args.find(|arg| arg.value_type() == ValueType::Vector).and_then(selector_mut)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Options, parse};

    fn pushed(text: &str) -> (String, String) {
        let expr = parse(text, &Options::all()).unwrap();
        let Expr::Binary(binary) = &expr else { panic!("{text} is no operator") };
        let pushed = Pushed::of(binary, &EngineOptions::default());
        let text = |matchers: &[Matcher]| {
            let texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            texts.join(",")
        };
        (text(&pushed.lhs), text(&pushed.rhs))
    }

    #[track_caller]
    fn check(text: &str, lhs: &str, rhs: &str) {
        assert_eq!(pushed(text), (lhs.to_owned(), rhs.to_owned()), "{text}");
    }

    #[test]
    fn what_is_compared_is_asked_of_both_sides() {
        check("a{x=\"1\"} / b", "", "x=\"1\"");
        check("a / b{x=~\"1|2\",y!=\"\"}", "x=~\"1|2\",y!=\"\"", "");
        check("a{x=\"1\"} / b{x=\"1\"}", "", "");
        check("a * on (x) b{x=\"1\",y=\"2\"}", "x=\"1\"", "");
        check("a * ignoring (y) b{x=\"1\",y=\"2\"}", "x=\"1\"", "");
        check("a * on (x) group_left (y) b{x=\"1\",y=\"2\"}", "x=\"1\"", "");
        check("a{x=\"1\"} * on (x) group_right b", "", "x=\"1\"");
        check(
            "sum by (x) (rate(a_total{x=\"1\",y=\"2\"}[1m])) > on (x) group by (x) (b)",
            "",
            "x=\"1\"",
        );
        check("abs(-a) + sum by (x) (b{x=\"1\",y=\"2\"})", "x=\"1\"", "");
        check("a and on (x) b{x=\"1\"}", "x=\"1\"", "");
        check("a{x=\"1\"} unless b{y=\"1\"}", "", "x=\"1\"");
    }

    #[test]
    fn what_would_show_is_not_left_out() {
        // Two series of `b` may match.
        check("a{x=\"1\"} * on (x) b", "", "");
        check("a{x=\"1\"} * ignoring (y) b", "", "");
        check("b * on (x) group_right a{x=\"1\"}", "", "");
        check("a{x=\"1\"} > on (x) group by (x, y) (b)", "", "");
        // Remarks may be made of what would not be read.
        check("rate(a_total[1m]) / b{x=\"1\"}", "", "");
        check("sum by (x) (a) / b{x=\"1\"}", "", "");
        check("a smoothed / b{x=\"1\"}", "", "");
        // Equal series would be merged.
        check("abs({__name__=~\"a|b\"}) / b{x=\"1\"}", "", "");
        // Groups would have other values.
        check("count by (y) (a) / on (x, y) b{x=\"1\"}", "", "");
        check("a or b{x=\"1\"}", "", "");
        check("a + fill (0) b{x=\"1\"}", "", "");
        // Labels are others by then.
        check("a / label_replace(b{x=\"1\"}, \"x\", \"2\", \"\", \"\")", "", "");
        check("a / count_values(\"x\", b{x=\"1\"})", "", "");
        check("a / (b{x=\"1\"} or c)", "", "");
        check("a / on (__name__) {__name__=\"b\"}", "", "");
    }
}
