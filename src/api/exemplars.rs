//! `/api/v1/query_exemplars`.

use stint_model::{Exemplar, Labels, Selector, TimeRange, Timestamp};
use stint_promql::parse::ast::Expr;

use super::error::ApiError;
use super::extract::Ready;
use super::json::{Reply, push_labels};
use super::number::{push_json_float, push_value};
use super::params::Params;

/// The exemplars of all series that the expression selects.
pub(super) async fn exemplars(Ready(parts): Ready, params: Params) -> Result<Reply, ApiError> {
    let start = params.time("start", Timestamp::MIN)?;
    let end = params.time("end", Timestamp::MAX)?;
    if end < start {
        let cause = "end timestamp must not be before start timestamp";
        return Err(ApiError::invalid_parameter("end", cause));
    }
    let text = params.get("query").unwrap_or_default();
    let expr = stint_promql::parse::parse(text, &parts.engine.options().features)
        .map_err(|error| ApiError::invalid_parameter("query", error))?;
    let mut selectors = Vec::new();
    collect_selectors(&expr, &mut selectors);
    if selectors.is_empty() {
        return Ok(Reply::empty());
    }
    let db = parts.db.clone();
    let outcome = parts.run(None, move |_cancel| {
        Ok(Reply::raw(&write(&db.exemplars(&selectors, TimeRange::closed(start, end)))))
    });
    Ok(outcome.await?.0)
}

fn collect_selectors(expr: &Expr, selectors: &mut Vec<Selector>) {
    match expr {
        Expr::VectorSelector(selector) => {
            selectors.push(Selector::new(selector.matchers.clone()));
        }
        Expr::MatrixSelector(matrix) => {
            selectors.push(Selector::new(matrix.selector.matchers.clone()));
        }
        other => other.children().for_each(|child| collect_selectors(child, selectors)),
    }
}

/// Clients reject exemplars with any other key than these three.
fn write(found: &[(Labels, Vec<Exemplar>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(found.len() * 256 + 2);
    out.push(b'[');
    for (position, (labels, exemplars)) in found.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"seriesLabels\":");
        push_labels(&mut out, labels);
        out.extend_from_slice(b",\"exemplars\":[");
        for (position, exemplar) in exemplars.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"labels\":");
            push_labels(&mut out, &exemplar.labels);
            out.extend_from_slice(b",\"value\":\"");
            push_value(&mut out, exemplar.value);
            out.extend_from_slice(b"\",\"timestamp\":");
            push_json_float(&mut out, exemplar.at.as_secs_f64());
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_have_exactly_the_keys_that_clients_know() {
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("trace_id", "x")]),
            value: 6.0,
            at: Timestamp(1_600_096_945_479),
        };
        let found = [(Labels::from_pairs([("__name__", "a")]), vec![exemplar])];
        let expected = concat!(
            r#"[{"seriesLabels":{"__name__":"a"},"exemplars":[{"labels":{"trace_id":"x"},"#,
            r#""value":"6","timestamp":1600096945.479}]}]"#
        );
        assert_eq!(String::from_utf8(write(&found)).unwrap(), expected);
        assert_eq!(write(&[]), b"[]");
    }
}
