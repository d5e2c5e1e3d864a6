//! Grafana's variables in expressions, filled so that the expression can be read.

/// What a variable may stand for where a value is wanted: a name, or a number.
pub(super) const VALUES: [&str; 2] = ["x", "5"];

/// The expression with every variable filled: macros of time by a time, others by `value`. Inside
/// quotes a variable may stand for anything, so it becomes `.*`, which is what matters where a
/// metric's name is matched.
pub(super) fn fill(expr: &str, value: &'static str) -> String {
    let mut filled = String::with_capacity(expr.len() + 16);
    let mut rest = expr;
    let mut quote = None;
    while let Some(next) = rest.chars().next() {
        if let Some((name, length)) = variable(rest) {
            filled.push_str(stand_in(name, quote.is_some(), &filled, value));
            rest = rest.get(length..).unwrap_or_default();
            continue;
        }
        match (quote, next) {
            (None, '"' | '\'' | '`') => quote = Some(next),
            (Some(open), _) if open == next => quote = None,
            (Some(open), '\\') if open != '`' => {
                // The escaped character ends no text.
                filled.push(next);
                rest = rest.get(1..).unwrap_or_default();
                let Some(escaped) = rest.chars().next() else { break };
                filled.push(escaped);
                rest = rest.get(escaped.len_utf8()..).unwrap_or_default();
                continue;
            }
            _ => {}
        }
        filled.push(next);
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
    }
    filled
}

/// The variable that `text` begins with, and how long it is: `$name`, `${name}`, `${name:format}`,
/// `[[name]]`. Numbers are no variables: `$1` belongs to `label_replace`.
fn variable(text: &str) -> Option<(&str, usize)> {
    let (name, length) = if let Some(rest) = text.strip_prefix("${") {
        let end = rest.find('}')?;
        (rest.get(..end)?, end + 3)
    } else if let Some(rest) = text.strip_prefix("[[") {
        let end = rest.find("]]")?;
        (rest.get(..end)?, end + 4)
    } else {
        let rest = text.strip_prefix('$')?;
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let end = end.unwrap_or(rest.len());
        (rest.get(..end)?, end + 1)
    };
    let name = name.split(':').next().unwrap_or_default();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    is_name.then_some((name, length))
}

fn stand_in(name: &str, quoted: bool, before: &str, value: &'static str) -> &'static str {
    match name {
        "__interval_ms" | "__range_ms" => "60000",
        "__range_s" => "3600",
        "__rate_interval" | "__interval" | "__range" => "5m",
        _ if quoted => ".*",
        // In brackets and after `offset` only a time fits.
        _ if before.ends_with(['[', ':']) || before.trim_end().ends_with("offset") => "5m",
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expr: &str, expected: &str) {
        assert_eq!(fill(expr, "x"), expected);
    }

    #[test]
    fn variables_are_filled_by_where_they_stand() {
        check("rate(m{job=~\"$job\"}[$__rate_interval])", "rate(m{job=~\".*\"}[5m])");
        check("m[$__range:$step]", "m[5m:5m]");
        check("sum by (${by:csv}) (m{a='[[v]]'} offset $o)", "sum by (x) (m{a='.*'} offset 5m)");
        check("m * $__interval_ms / 1000", "m * 60000 / 1000");
        assert_eq!(fill("topk($n, m)", "5"), "topk(5, m)");
    }

    #[test]
    fn what_is_no_variable_stays() {
        let expr = "label_replace(m, \"a\", \"$1-${2}\", \"b\", \"(.*)$\")";
        check(expr, expr);
        check("m{a=\"\\\"$x\"} + n{b=~\"é$\"}", "m{a=\"\\\".*\"} + n{b=~\"é$\"}");
        check("$", "$");
        check("m{a=\"${open", "m{a=\"${open");
    }
}
