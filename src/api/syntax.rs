//! `/api/v1/parse_query`: the expression tree as JSON.

use serde_json::{Value as Json, json};
use stint_promql::parse::ast::{
    At, Duration, DurationExpr, DurationOp, Expr, NumberLiteral, VectorMatching, VectorSelector,
};

use super::error::ApiError;
use super::extract::Ready;
use super::json::Reply;
use super::number::push_decimal;
use super::params::Params;

/// Answers with the tree.
pub(super) async fn parse_query(Ready(parts): Ready, params: Params) -> Result<Reply, ApiError> {
    let text = params.get("query").unwrap_or_default();
    let expr = stint_promql::parse::parse(text, &parts.engine.options().features)
        .map_err(|error| ApiError::invalid_parameter("query", error))?;
    Ok(Reply::json(&tree(&expr)))
}

fn tree(expr: &Expr) -> Json {
    match expr {
        Expr::Number(number) => json!({"type": "numberLiteral", "val": decimal(number)}),
        Expr::String(text) => json!({"type": "stringLiteral", "val": text.text()}),
        Expr::Paren(paren) => json!({"type": "parenExpr", "expr": tree(&paren.expr)}),
        Expr::Unary(unary) => {
            json!({"type": "unaryExpr", "op": sign(unary.negative), "expr": tree(&unary.expr)})
        }
        Expr::VectorSelector(selector) => selector_tree("vectorSelector", selector),
        Expr::MatrixSelector(matrix) => {
            let mut node = selector_tree("matrixSelector", &matrix.selector);
            set_duration(&mut node, "range", &matrix.range);
            node
        }
        Expr::Subquery(subquery) => {
            let mut node = json!({"type": "subquery", "expr": tree(&subquery.expr)});
            set_duration(&mut node, "range", &subquery.range);
            set_duration(&mut node, "offset", &subquery.offset);
            set_duration(&mut node, "step", subquery.step.as_ref().unwrap_or(&Duration::ZERO));
            set_at(&mut node, subquery.at);
            node
        }
        Expr::Call(call) => {
            let types: Vec<&str> = call.function.args.iter().map(|kind| kind.as_str()).collect();
            json!({
                "type": "call",
                "func": {
                    "name": call.function.name,
                    "argTypes": types,
                    "variadic": call.function.variadic,
                    "returnType": call.function.returns.as_str(),
                },
                "args": call.args.iter().map(tree).collect::<Vec<_>>(),
            })
        }
        Expr::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.as_str(),
            "expr": tree(&aggregate.expr),
            "param": aggregate.param.as_ref().map(tree),
            "grouping": aggregate.grouping,
            "without": aggregate.without,
        }),
        Expr::Binary(binary) => json!({
            "type": "binaryExpr",
            "op": binary.op.as_str(),
            "lhs": tree(&binary.lhs),
            "rhs": tree(&binary.rhs),
            "bool": binary.return_bool,
            "matching": binary.matching.as_ref().map(matching),
        }),
    }
}

fn selector_tree(kind: &str, selector: &VectorSelector) -> Json {
    let matchers: Vec<Json> = selector
        .matchers
        .iter()
        .map(|matcher| {
            let kind = matcher.op().as_str();
            json!({"name": matcher.name(), "type": kind, "value": matcher.value()})
        })
        .collect();
    let mut node = json!({
        "type": kind,
        "name": selector.name,
        "matchers": matchers,
        "anchored": selector.anchored,
        "smoothed": selector.smoothed,
    });
    set_duration(&mut node, "offset", &selector.offset);
    set_at(&mut node, selector.at);
    node
}

fn matching(matching: &VectorMatching) -> Json {
    json!({
        "card": matching.card.as_str(),
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": {"lhs": matching.fill_lhs, "rhs": matching.fill_rhs},
    })
}

/// Sets `name` to milliseconds and `nameExpr` to the tree of a computed duration.
fn set_duration(node: &mut Json, name: &str, duration: &Duration) {
    let (ms, expr) = match duration {
        Duration::Fixed(span) => (span.as_ms(), Json::Null),
        Duration::Expr(expr) => (0, duration_tree(expr)),
    };
    set(node, name, json!(ms));
    set(node, &format!("{name}Expr"), expr);
}

fn set_at(node: &mut Json, at: Option<At>) {
    let (timestamp, start_or_end) = match at {
        None => (Json::Null, Json::Null),
        Some(At::Time(at)) => (json!(at.as_ms()), Json::Null),
        Some(At::Start) => (Json::Null, json!("start")),
        Some(At::End) => (Json::Null, json!("end")),
    };
    set(node, "timestamp", timestamp);
    set(node, "startOrEnd", start_or_end);
}

fn set(node: &mut Json, name: &str, value: Json) {
    if let Json::Object(fields) = node {
        fields.insert(name.to_owned(), value);
    }
}

fn duration_tree(expr: &DurationExpr) -> Json {
    let node = |op: &str, lhs: Json, rhs: Json, wrapped: bool| json!({"type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": wrapped});
    match expr {
        DurationExpr::Number(number) => json!({
            "type": "numberLiteral",
            "val": decimal(number),
            "duration": number.is_duration,
        }),
        DurationExpr::Step(_) => node("step", Json::Null, Json::Null, false),
        DurationExpr::Range(_) => node("range", Json::Null, Json::Null, false),
        DurationExpr::Unary { negative, operand, .. } => {
            node(sign(*negative), Json::Null, duration_tree(operand), false)
        }
        DurationExpr::Binary { op, lhs, rhs, .. } => {
            node(duration_op(*op), duration_tree(lhs), duration_tree(rhs), false)
        }
        DurationExpr::Paren { inner, .. } => {
            let mut inner = duration_tree(inner);
            if inner.get("wrapped").is_some() {
                set(&mut inner, "wrapped", json!(true));
            }
            inner
        }
    }
}

fn duration_op(op: DurationOp) -> &'static str {
    match op {
        DurationOp::Add => "+",
        DurationOp::Sub => "-",
        DurationOp::Mul => "*",
        DurationOp::Div => "/",
        DurationOp::Mod => "%",
        DurationOp::Pow => "^",
        DurationOp::MinOf => "min_of",
        DurationOp::MaxOf => "max_of",
    }
}

fn sign(negative: bool) -> &'static str {
    if negative { "-" } else { "+" }
}

fn decimal(number: &NumberLiteral) -> String {
    let mut out = Vec::new();
    push_decimal(&mut out, number.value);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Json) {
        let expr = stint_promql::parse::parse(text, &stint_promql::parse::Options::all()).unwrap();
        assert_eq!(&tree(&expr), expected, "{text}");
    }

    fn up() -> Json {
        json!({
            "type": "vectorSelector",
            "name": "up",
            "matchers": [{"name": "__name__", "type": "=", "value": "up"}],
            "offset": 0,
            "offsetExpr": null,
            "timestamp": null,
            "startOrEnd": null,
            "anchored": false,
            "smoothed": false,
        })
    }

    #[test]
    fn selectors_tell_their_modifiers() {
        check("up", &up());
        let mut matrix = up();
        set(&mut matrix, "type", json!("matrixSelector"));
        set(&mut matrix, "range", json!(300_000));
        set(&mut matrix, "rangeExpr", Json::Null);
        set(&mut matrix, "offset", json!(60_000));
        set(&mut matrix, "startOrEnd", json!("end"));
        check("up[5m] @ end() offset 1m", &matrix);
    }

    #[test]
    fn operations_tell_how_series_meet() {
        let number = json!({"type": "numberLiteral", "val": "1"});
        let expected = json!({
            "type": "binaryExpr", "op": "+", "bool": false, "matching": null,
            "lhs": number, "rhs": {"type": "unaryExpr", "op": "-", "expr": up()},
        });
        check("1 + -up", &expected);
        let expected = json!({
            "type": "binaryExpr", "op": "*", "bool": false, "lhs": up(), "rhs": up(),
            "matching": {
                "card": "many-to-one", "labels": ["a"], "on": true, "include": ["b"],
                "fillValues": {"lhs": null, "rhs": null},
            },
        });
        check("up * on (a) group_left (b) up", &expected);
    }

    #[test]
    fn calls_and_aggregations_tell_their_signature() {
        let expected = json!({
            "type": "aggregation", "op": "sum", "param": null, "grouping": ["job"],
            "without": true,
            "expr": {
                "type": "call",
                "func": {
                    "name": "abs", "argTypes": ["vector"], "variadic": 0, "returnType": "vector",
                },
                "args": [{"type": "parenExpr", "expr": up()}],
            },
        });
        check("sum without (job) (abs((up)))", &expected);
    }
}
