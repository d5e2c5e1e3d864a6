//! Which rules of a group may be evaluated at the same time.

use stint_model::MatchOp;
use stint_model::labels::METRIC_NAME;
use stint_promql::parse::Expr;
use stint_promql::parse::ast::VectorSelector;

use super::spec::RuleSpec;

/// The series that tell of alerts.
pub(super) const ALERTS: &str = "ALERTS";
/// The series that tell since when alerts are there.
pub(super) const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";

/// Numbers of rules in steps: those of one step do not depend on each other, later steps may depend
/// on earlier ones. Where that cannot be told, each rule is a step of its own, in order.
pub(super) fn steps(rules: &[RuleSpec]) -> Vec<Vec<usize>> {
    let in_order = || (0..rules.len()).map(|at| vec![at]).collect();
    let mut reads = Vec::new();
    for rule in rules {
        let mut names = Vec::new();
        if !metrics_read(&rule.expr, &mut names) {
            return in_order();
        }
        reads.push(names);
    }
    let is_read = |at: usize| {
        let name = rules.get(at).map_or("", |rule| rule.name.as_str());
        reads.iter().any(|names| names.contains(&name))
    };
    let depends = |at: usize| {
        let names = reads.get(at).map_or(&[][..], Vec::as_slice);
        rules.iter().any(|rule| names.contains(&rule.name.as_str()))
    };
    let (mut first, mut middle, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..rules.len() {
        match (depends(at), is_read(at)) {
            (false, _) => first.push(at),
            (true, true) => middle.push(vec![at]),
            (true, false) => last.push(at),
        }
    }
    let mut steps = vec![first];
    steps.append(&mut middle);
    steps.push(last);
    steps.retain(|step| !step.is_empty());
    steps
}

/// Adds the metrics that `expr` reads; `false` when they cannot be told, or are those of alerts.
fn metrics_read<'a>(expr: &'a Expr, names: &mut Vec<&'a str>) -> bool {
    let selector = match expr {
        Expr::VectorSelector(selector) => Some(&**selector),
        Expr::MatrixSelector(matrix) => Some(&matrix.selector),
        _ => None,
    };
    if let Some(selector) = selector {
        match metric_of(selector) {
            Some(name) if name != ALERTS && name != ALERTS_FOR_STATE => names.push(name),
            _ => return false,
        }
    }
    expr.children().all(|child| metrics_read(child, names))
}

fn metric_of(selector: &VectorSelector) -> Option<&str> {
    if let Some(name) = selector.name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let mut names = selector.matchers.iter().filter(|matcher| matcher.name() == METRIC_NAME);
    let matcher = names.next()?;
    (matcher.op() == MatchOp::Equal).then(|| matcher.value())
}
