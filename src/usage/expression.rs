//! What an expression touches: metrics, and the labels that its result depends on.
//!
//! The analysis goes from the result down: an aggregation needs of its operand only the labels it
//! groups by, a join those it joins on, a selector those it selects by. What is shown as it is needs
//! all labels. Where two ways are possible the wider one is taken: a label that is called unused is.

use std::collections::BTreeSet;

use stint_model::labels::{BUCKET_BOUND, METRIC_NAME};
use stint_model::{MatchOp, Matcher, Span};
use stint_promql::parse::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Duration, VectorSelector,
};
use stint_promql::parse::{Expr, Options, parse};

use super::needs::Needs;

/// The metrics that a selector may find.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// The one of this name.
    Is(String),
    /// Those that an expression matches.
    Like(String),
    /// Any.
    Any,
}

/// One selector of an expression.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// What it finds.
    pub name: Name,
    /// The labels that matter to the expression.
    pub needs: Needs,
}

/// What an expression touches, each once.
///
/// # Errors
/// The text is no expression.
pub fn uses(text: &str) -> Result<Vec<Use>, String> {
    let expr = parse(text, &Options::all()).map_err(|errors| errors.to_string())?;
    let mut found = BTreeSet::new();
    walk(&expr, &Needs::all(), &mut found);
    Ok(found.into_iter().collect())
}

/// The shortest window of an expression, as of `rate(m[1m])`; nothing where there is none of fixed length.
///
/// # Errors
/// The text is no expression.
pub fn shortest_window(text: &str) -> Result<Option<Span>, String> {
    let expr = parse(text, &Options::all()).map_err(|errors| errors.to_string())?;
    let mut shortest = None;
    windows(&expr, &mut shortest);
    Ok(shortest)
}

fn windows(expr: &Expr, shortest: &mut Option<Span>) {
    match expr {
        Expr::Number(_) | Expr::String(_) | Expr::VectorSelector(_) => {}
        Expr::MatrixSelector(matrix) => {
            if let Duration::Fixed(range) = matrix.range {
                *shortest = Some(shortest.map_or(range, |known| known.min(range)));
            }
        }
        // Over computed samples: as many as its own step makes.
        Expr::Subquery(subquery) => windows(&subquery.expr, shortest),
        Expr::Unary(unary) => windows(&unary.expr, shortest),
        Expr::Paren(paren) => windows(&paren.expr, shortest),
        Expr::Call(call) => call.args.iter().for_each(|it| windows(it, shortest)),
        Expr::Aggregate(aggregate) => {
            windows(&aggregate.expr, shortest);
            if let Some(param) = &aggregate.param {
                windows(param, shortest);
            }
        }
        Expr::Binary(binary) => {
            windows(&binary.lhs, shortest);
            windows(&binary.rhs, shortest);
        }
    }
}

fn walk(expr: &Expr, needs: &Needs, found: &mut BTreeSet<Use>) {
    match expr {
        Expr::Number(_) | Expr::String(_) => {}
        Expr::VectorSelector(selector) => select(selector, needs, found),
        Expr::MatrixSelector(matrix) => select(&matrix.selector, needs, found),
        Expr::Subquery(subquery) => walk(&subquery.expr, needs, found),
        Expr::Unary(unary) => walk(&unary.expr, needs, found),
        Expr::Paren(paren) => walk(&paren.expr, needs, found),
        Expr::Call(call) => walk_call(call, needs, found),
        Expr::Aggregate(aggregate) => walk_aggregate(aggregate, needs, found),
        Expr::Binary(binary) => walk_binary(binary, needs, found),
    }
}

fn select(selector: &VectorSelector, needs: &Needs, found: &mut BTreeSet<Use>) {
    add(&selector.matchers, needs, found);
}

fn add(matchers: &[Matcher], needs: &Needs, found: &mut BTreeSet<Use>) {
    let mut needs = needs.clone();
    let mut names = vec![Name::Any];
    for matcher in matchers {
        if matcher.name() != METRIC_NAME {
            needs = needs.with(matcher.name());
            continue;
        }
        match (matcher.op(), matcher.set_of_values()) {
            (MatchOp::Equal, _) if !matcher.value().is_empty() => {
                names = vec![Name::Is(matcher.value().to_owned())];
            }
            (MatchOp::Regex, Some(values)) => {
                names = values.iter().cloned().map(Name::Is).collect();
            }
            (MatchOp::Regex, None) if names == [Name::Any] && !is_anything(matcher.value()) => {
                names = vec![Name::Like(matcher.value().to_owned())];
            }
            // What is excluded narrows nothing that could be said here.
            _ => {}
        }
    }
    found.extend(names.into_iter().map(|name| Use { name, needs: needs.clone() }));
}

fn is_anything(pattern: &str) -> bool {
    matches!(pattern, ".*" | ".+")
}

fn walk_aggregate(aggregate: &Aggregate, needs: &Needs, found: &mut BTreeSet<Use>) {
    let groups = if aggregate.without {
        Needs::all_but(&aggregate.grouping)
    } else {
        Needs::only(&aggregate.grouping)
    };
    let inner = match aggregate.op {
        // These hand through series as they are.
        AggregateOp::Topk
        | AggregateOp::Bottomk
        | AggregateOp::Limitk
        | AggregateOp::LimitRatio => groups.or(needs),
        _ => groups,
    };
    walk(&aggregate.expr, &inner, found);
    if let Some(param) = &aggregate.param {
        walk(param, &Needs::none(), found);
    }
}

fn walk_binary(binary: &Binary, needs: &Needs, found: &mut BTreeSet<Use>) {
    let Some(matching) = &binary.matching else {
        // One side is a scalar; the other keeps its labels.
        walk(&binary.lhs, needs, found);
        walk(&binary.rhs, needs, found);
        return;
    };
    let on =
        if matching.on { Needs::only(&matching.labels) } else { Needs::all_but(&matching.labels) };
    let both = on.or(needs);
    let one = on.or(&Needs::only(&matching.include));
    let (lhs, rhs) = match matching.card {
        Cardinality::ManyToMany if binary.op == BinaryOp::Or => (both.clone(), both),
        // `and` and `unless` show the left side.
        Cardinality::ManyToMany => (both, on),
        Cardinality::ManyToOne => (both, one),
        Cardinality::OneToMany => (one, both),
        // What is compared is what is shown, but for a comparison, which shows the left side.
        Cardinality::OneToOne if binary.op.is_comparison() && !binary.return_bool => (both, on),
        Cardinality::OneToOne => (on.clone(), on),
    };
    walk(&binary.lhs, &lhs, found);
    walk(&binary.rhs, &rhs, found);
}

fn walk_call(call: &Call, needs: &Needs, found: &mut BTreeSet<Use>) {
    let name = call.function.name;
    let text = |at: usize| match call.args.get(at).map(Expr::unparenthesized) {
        Some(Expr::String(text)) => Some(text.text().into_owned()),
        _ => None,
    };
    let mut needs = needs.clone();
    match name {
        "absent" | "absent_over_time" | "scalar" => needs = Needs::none(),
        "histogram_quantile" | "histogram_fraction" | "histogram_quantiles" => {
            needs = needs.with(BUCKET_BOUND);
        }
        "label_replace" => needs = text(3).map_or(Needs::all(), |source| needs.with(&source)),
        "label_join" => needs = with_texts(needs, call.args.len(), 3, text),
        "sort_by_label" | "sort_by_label_desc" => {
            needs = with_texts(needs, call.args.len(), 1, text);
        }
        // It joins by labels that its operand alone does not tell.
        "info" => needs = Needs::all(),
        _ => {}
    }
    for argument in &call.args {
        walk(argument, &needs, found);
    }
}

fn with_texts(
    mut needs: Needs,
    count: usize,
    first: usize,
    text: impl Fn(usize) -> Option<String>,
) -> Needs {
    for at in first..count {
        needs = text(at).map_or(Needs::all(), |label| needs.with(&label));
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let list = |labels: &BTreeSet<String>| labels.iter().cloned().collect::<Vec<_>>().join(",");
        let one = |used: &Use| {
            let name = match &used.name {
                Name::Is(name) => name.clone(),
                Name::Like(pattern) => format!("~{pattern}"),
                Name::Any => "*".to_owned(),
            };
            match &used.needs {
                Needs::Only(labels) => format!("{name}[{}]", list(labels)),
                Needs::AllBut(labels) => format!("{name}[-{}]", list(labels)),
            }
        };
        uses(text).unwrap().iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(shown(text), expected, "{text}");
    }

    #[test]
    fn what_is_shown_as_it_is_needs_every_label() {
        check("m", "m[-]");
        check("rate(m{a=\"x\"}[5m])", "m[-]");
        check("-(m > 5)", "m[-]");
        check("max_over_time((m)[1h:])", "m[-]");
    }

    #[test]
    fn an_aggregation_needs_what_it_groups_by_and_what_is_selected() {
        check("sum(m)", "m[]");
        check("sum by (a) (rate(m{b!=\"\"}[5m]))", "m[a,b]");
        check("sum without (a, b) (m)", "m[-a,b]");
        check("sum without (a) (m{a=\"x\"})", "m[-]");
        check("avg by (a) (sum by (a, b) (m))", "m[a,b]");
        check("topk(3, sum by (a) (m))", "m[a]");
        check("topk by (c) (3, m)", "m[-]");
        check("quantile(scalar(n), m)", "m[] n[]");
        check("count_values(\"v\", m)", "m[]");
    }

    #[test]
    fn a_join_needs_what_it_joins_on_and_brings_over() {
        check("m * on (a) group_left (v) n", "m[-] n[a,v]");
        check("sum by (j) (m * on (a) group_left (v) n)", "m[a,j] n[a,v]");
        check("sum(m) / sum(n)", "m[] n[]");
        check("sum(m and on (a) n)", "m[a] n[a]");
        check("sum(m or n)", "m[-] n[-]");
        check("sum(m / ignoring (a) n)", "m[-a] n[-a]");
        check("m * on (a) n", "m[a] n[a]");
        check("m > on (a) n", "m[-] n[a]");
    }

    #[test]
    fn functions_need_the_labels_they_name() {
        check("histogram_quantile(0.9, sum by (le) (rate(m_bucket[5m])))", "m_bucket[le]");
        check("sum by (x) (label_replace(m, \"x\", \"$1\", \"src\", \"(.*)\"))", "m[src,x]");
        check("sum by (x) (label_join(m, \"x\", \"-\", \"a\", \"b\"))", "m[a,b,x]");
        check("absent(m{a=\"1\"})", "m[a]");
        check("sum(sort_by_label(m, \"z\"))", "m[z]");
    }

    #[test]
    fn names_may_be_listed_or_described() {
        check("sum({__name__=~\"a|b\"})", "a[] b[]");
        check("sum({__name__=~\"a.+b\"})", "~a.+b[]");
        check("sum({job=\"x\"})", "*[job]");
        check("sum({__name__!=\"a\", job=\"x\"})", "*[job]");
        assert!(uses("sum(").is_err());
        assert!(uses("1 + 2").unwrap().is_empty());
    }

    #[test]
    fn the_shortest_window_is_that_of_samples() {
        let window = |text: &str| shortest_window(text).unwrap().map(Span::as_secs_f64);
        assert_eq!(window("rate(a[5m]) / sum(rate(b[90s] offset 1s))"), Some(90.0));
        assert_eq!(window("max_over_time(rate(a[2m])[30s:10s])"), Some(120.0));
        assert_eq!(window("topk(scalar(increase(a[1m])), -(b))"), Some(60.0));
        assert_eq!(window("a + 1"), None);
        assert!(shortest_window("rate(").is_err());
    }
}
