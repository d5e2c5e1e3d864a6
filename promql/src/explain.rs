//! Plans as text: how the engine goes about a query, one line for each part.

use std::fmt::Write as _;

use stint_model::Matcher;

use crate::engine::EngineOptions;
use crate::exec::common::CommonParts;
use crate::exec::decide::{self, Care, care};
use crate::exec::push::Pushed;
use crate::exec::window::Edges;
use crate::functions::{Kernel, range_function};
use crate::parse::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, MatrixSelector, ValueType,
    VectorMatching,
};

/// The plan of an expression. At one time there are no steps to have parts in common.
pub(crate) fn explain(
    expr: &Expr,
    options: &EngineOptions,
    is_range: bool,
    has_workers: bool,
) -> String {
    let common =
        if options.rewrites.common_parts { CommonParts::of(expr) } else { CommonParts::default() };
    let is_shared = has_workers && options.rewrites.workers;
    let mut plan = Plan { options, is_range, is_shared, common: &common, text: String::new() };
    plan.part(expr, 0, Care::FULL);
    plan.text
}

struct Plan<'a> {
    options: &'a EngineOptions,
    is_range: bool,
    /// Whether other threads help with reading where there is much to read.
    is_shared: bool,
    common: &'a CommonParts,
    text: String,
}

impl Plan<'_> {
    fn line(&mut self, depth: usize, what: &str, notes: &[&str]) {
        let indent = "  ".repeat(depth);
        let notes: Vec<&str> = notes.iter().copied().filter(|note| !note.is_empty()).collect();
        let notes =
            if notes.is_empty() { String::new() } else { format!("  [{}]", notes.join(", ")) };
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(self.text, "{indent}{what}{notes}");
    }

    /// Adds what is evaluated at other steps.
    fn inside(&mut self, is_range: bool, add: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.is_range, is_range);
        add(self);
        self.is_range = outside;
    }

    /// Adds a side of an operator between vectors.
    fn side(&mut self, expr: &Expr, depth: usize, care: Care) {
        match self.common.times(expr) {
            Some(times) => {
                self.line(depth, &format!("once for {times} places"), &[]);
                self.part(expr, depth + 1, care);
            }
            None => self.part(expr, depth, care),
        }
    }

    fn part(&mut self, expr: &Expr, depth: usize, care: Care) {
        let is_once = self.is_range
            && self.options.rewrites.step_invariant
            && expr.value_type() == ValueType::Vector
            && decide::is_step_invariant(expr);
        if is_once {
            self.line(depth, "once for all steps", &[]);
            self.inside(false, |once| once.node(expr, depth + 1, care));
        } else {
            self.node(expr, depth, care);
        }
    }

    fn node(&mut self, expr: &Expr, depth: usize, care: Care) {
        let any_order = if care.unordered { "any order" } else { "" };
        let labels = if care.all_labels { "" } else { "labels of groups only" };
        let shared = if self.is_shared { "with workers if many" } else { "" };
        match expr {
            Expr::Paren(paren) => self.part(&paren.expr, depth, care),
            Expr::Number(_) | Expr::String(_) => self.line(depth, &expr.to_string(), &[]),
            Expr::VectorSelector(_) => {
                let notes = ["newest samples", any_order, labels, shared];
                self.line(depth, &format!("read {expr}"), &notes);
            }
            Expr::MatrixSelector(_) => {
                let notes = ["windows", any_order, labels, shared];
                self.line(depth, &format!("read {expr}"), &notes);
            }
            Expr::Subquery(subquery) => {
                let what = expr.to_string();
                let inner = subquery.expr.to_string();
                let times = what.strip_prefix(inner.as_str()).unwrap_or(&what);
                self.line(depth, &format!("subquery {times}"), &["windows"]);
                let care = Care::FULL;
                self.inside(true, |inner| inner.part(&subquery.expr, depth + 1, care));
            }
            Expr::Unary(unary) => {
                let what = if unary.negative { "negate" } else { "keep" };
                self.line(depth, what, &["series by series", self.merged(expr, care)]);
                self.part(&unary.expr, depth + 1, care);
            }
            Expr::Call(call) => self.call(expr, call, depth, care),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, depth),
            Expr::Binary(binary) => self.binary(expr, binary, depth, care),
        }
    }

    /// What is to be done where dropped names may make series equal.
    fn merged(&self, expr: &Expr, care: Care) -> &'static str {
        if self.options.delayed_name_removal {
            "names dropped at the end"
        } else if decide::may_collide(expr, self.options) {
            "all series held to merge equal ones"
        } else if care.names {
            ""
        } else {
            "names not dropped"
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call, depth: usize, care: Care) {
        let name = call.function.name;
        let holds_all = matches!(
            name,
            "sort"
                | "sort_desc"
                | "sort_by_label"
                | "sort_by_label_desc"
                | "label_replace"
                | "label_join"
                | "histogram_quantile"
                | "histogram_quantiles"
                | "histogram_fraction"
                | "info"
        );
        let how = match range_function(name).and_then(|function| function.kernel) {
            _ if range_function(name).is_none() => {
                if call.args.is_empty() || call.function.returns == ValueType::Scalar {
                    ""
                } else if holds_all {
                    "all series held"
                } else {
                    "series by series"
                }
            }
            Some(kernel) if self.is_columnar(call) => match kernel {
                Kernel::Rate(_) => "columns, windows and reach shared by equal sample times",
                Kernel::Summary(_) => "columns, several windows at once",
                Kernel::Floats(_) => "columns, windows shared by equal sample times",
            },
            _ => "window by window",
        };
        let merged =
            if expr.value_type() == ValueType::Vector { self.merged(expr, care) } else { "" };
        self.line(depth, name, &[how, merged]);
        let passes = range_function(name).is_some() || !holds_all;
        let inner = if passes { care } else { Care::FULL };
        for arg in &call.args {
            self.part(arg, depth + 1, inner);
        }
    }

    fn is_columnar(&self, call: &Call) -> bool {
        let is_plain = |matrix: &MatrixSelector| Edges::of(matrix) == Edges::Plain;
        self.options.rewrites.columnar_windows
            && call.args.iter().all(|arg| match arg.unparenthesized() {
                Expr::MatrixSelector(matrix) => is_plain(matrix),
                _ => true,
            })
    }

    fn aggregate(&mut self, aggregate: &Aggregate, depth: usize) {
        let op = aggregate.op.as_str();
        let grouping = aggregate.grouping.join(", ");
        let what = match (aggregate.without, aggregate.grouping.is_empty()) {
            (true, _) => format!("{op} without ({grouping})"),
            (false, true) => op.to_owned(),
            (false, false) => format!("{op} by ({grouping})"),
        };
        let folds = !matches!(
            aggregate.op,
            AggregateOp::Topk
                | AggregateOp::Bottomk
                | AggregateOp::Limitk
                | AggregateOp::LimitRatio
                | AggregateOp::Quantile
        );
        let is_folded = folds && !decide::orders_input(aggregate);
        let how = if is_folded { "folded while reading" } else { "all series held" };
        self.line(depth, &what, &[how]);
        if let Some(param) = &aggregate.param {
            self.part(param, depth + 1, Care::FULL);
        }
        let is_careful = !folds || aggregate.op == AggregateOp::CountValues;
        let inner = if is_careful { Care::FULL } else { care(aggregate, self.options) };
        self.part(&aggregate.expr, depth + 1, inner);
    }

    fn binary(&mut self, expr: &Expr, binary: &Binary, depth: usize, care: Care) {
        let is_scalar = |side: &Expr| side.value_type() == ValueType::Scalar;
        let everything = Care::FULL;
        let op = binary.op.as_str();
        let op = if binary.return_bool { format!("{op} bool") } else { op.to_owned() };
        let (how, inner) = match (is_scalar(&binary.lhs), is_scalar(&binary.rhs)) {
            (true, true) => ("", everything),
            (true, false) | (false, true) => ("series by series", care),
            _ if binary.op == BinaryOp::Or => ("series by series, signatures held", everything),
            _ if binary.op.is_set() => ("left side held", everything),
            _ => ("both sides held", everything),
        };
        let what = match &binary.matching {
            Some(matching) => format!("{op}{}", matched(binary, matching)),
            None => op,
        };
        let merged = if binary.matching.is_none() && expr.value_type() == ValueType::Vector {
            self.merged(expr, care)
        } else {
            ""
        };
        let Pushed { lhs, rhs } = Pushed::of(binary, self.options);
        let is_right_many =
            binary.matching.as_ref().is_some_and(|m| m.card == Cardinality::OneToMany);
        let condition =
            |is_many: bool| if is_many && !binary.op.is_set() { "if unique" } else { "" };
        let left = pushed("left", &lhs, condition(!is_right_many));
        let right = pushed("right", &rhs, condition(is_right_many));
        self.line(depth, &what, &[how, merged, &left, &right]);
        let is_held = binary.matching.is_some() && binary.op != BinaryOp::Or;
        if is_held {
            self.side(&binary.lhs, depth + 1, inner);
        } else {
            self.part(&binary.lhs, depth + 1, inner);
        }
        if is_held && !binary.op.is_set() {
            self.side(&binary.rhs, depth + 1, inner);
        } else {
            self.part(&binary.rhs, depth + 1, inner);
        }
    }
}

/// What a side is asked for beside what is written.
fn pushed(side: &str, matchers: &[Matcher], condition: &str) -> String {
    if matchers.is_empty() {
        return String::new();
    }
    let texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    let asked = format!("{side} side {{{}}} too", texts.join(","));
    if condition.is_empty() { asked } else { format!("{asked} {condition}") }
}

/// How the series of two sides find each other.
fn matched(binary: &Binary, matching: &VectorMatching) -> String {
    let labels = matching.labels.join(", ");
    let by = if matching.on {
        format!(" on ({labels})")
    } else if matching.labels.is_empty() {
        " on all labels".to_owned()
    } else {
        format!(" ignoring ({labels})")
    };
    let kind = match matching.card {
        _ if binary.op.is_set() => "",
        Cardinality::ManyToOne => ", many to one",
        Cardinality::OneToMany => ", one to many",
        _ => ", one to one",
    };
    format!("{by}{kind}")
}
