//! Trees as JSON, in the shape of `/api/v1/parse_query`. Keys are sorted.

use std::fmt::{self, Write};

use stint_model::Matcher;

use super::ast::{At, Duration, DurationExpr, Expr, NumberLiteral, VectorMatching, VectorSelector};
use super::functions::FunctionSignature;
use super::literal::NumberText;

/// `expr` as a JSON object.
pub fn to_json(expr: &Expr) -> String {
    let mut json = Json { out: String::new() };
    json.expr(expr);
    json.out
}

struct Json {
    out: String,
}

impl Json {
    fn push(&mut self, text: impl fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{text}");
    }

    /// `"key":`, with a comma where one is needed.
    fn key(&mut self, key: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.push(format_args!("\"{key}\":"));
    }

    fn raw(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        self.push(value);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.quoted(value);
    }

    fn quoted(&mut self, value: &str) {
        self.out.push('"');
        for c in value.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                // Go escapes what could end a script in HTML.
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                    self.push(format_args!("\\u{:04x}", c as u32));
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn texts<'t>(&mut self, key: &str, values: impl Iterator<Item = &'t str>) {
        self.key(key);
        self.out.push('[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.quoted(value);
        }
        self.out.push(']');
    }

    fn child(&mut self, key: &str, expr: &Expr) {
        self.key(key);
        self.expr(expr);
    }

    fn expr(&mut self, expr: &Expr) {
        self.out.push('{');
        match expr {
            Expr::Number(node) => {
                self.text("type", "numberLiteral");
                self.text("val", &NumberText(node.value).to_string());
            }
            Expr::String(node) => {
                self.text("type", "stringLiteral");
                self.text("val", &node.text());
            }
            Expr::VectorSelector(node) => {
                self.selector(node, None);
                self.text("type", "vectorSelector");
            }
            Expr::MatrixSelector(node) => {
                self.selector(&node.selector, Some(&node.range));
                self.text("type", "matrixSelector");
            }
            Expr::Subquery(node) => {
                self.child("expr", &node.expr);
                self.duration("offset", "offsetExpr", Some(&node.offset));
                self.duration("range", "rangeExpr", Some(&node.range));
                self.start_or_end(node.at);
                self.duration("step", "stepExpr", node.step.as_ref());
                self.timestamp(node.at);
                self.text("type", "subquery");
            }
            Expr::Call(node) => {
                self.key("args");
                self.exprs(&node.args);
                self.key("func");
                self.function(node.function);
                self.text("type", "call");
            }
            Expr::Aggregate(node) => {
                self.child("expr", &node.expr);
                self.texts("grouping", node.grouping.iter().map(String::as_str));
                self.text("op", node.op.as_str());
                match &node.param {
                    Some(param) => self.child("param", param),
                    None => self.raw("param", "null"),
                }
                self.text("type", "aggregation");
                self.raw("without", node.without);
            }
            Expr::Binary(node) => {
                self.raw("bool", node.return_bool);
                self.child("lhs", &node.lhs);
                self.key("matching");
                match &node.matching {
                    Some(matching) => self.matching(matching),
                    None => self.out.push_str("null"),
                }
                self.text("op", node.op.as_str());
                self.child("rhs", &node.rhs);
                self.text("type", "binaryExpr");
            }
            Expr::Unary(node) => {
                self.child("expr", &node.expr);
                self.text("op", if node.negative { "-" } else { "+" });
                self.text("type", "unaryExpr");
            }
            Expr::Paren(node) => {
                self.child("expr", &node.expr);
                self.text("type", "parenExpr");
            }
        }
        self.out.push('}');
    }

    fn exprs(&mut self, exprs: &[Expr]) {
        self.out.push('[');
        for (at, expr) in exprs.iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            self.expr(expr);
        }
        self.out.push(']');
    }

    fn selector(&mut self, selector: &VectorSelector, range: Option<&Duration>) {
        self.raw("anchored", selector.anchored);
        self.key("matchers");
        self.matchers(&selector.matchers);
        self.text("name", selector.name.as_deref().unwrap_or_default());
        self.duration("offset", "offsetExpr", Some(&selector.offset));
        if range.is_some() {
            self.duration("range", "rangeExpr", range);
        }
        self.raw("smoothed", selector.smoothed);
        self.start_or_end(selector.at);
        self.timestamp(selector.at);
    }

    fn matchers(&mut self, matchers: &[Matcher]) {
        self.out.push('[');
        for (at, matcher) in matchers.iter().enumerate() {
            self.out.push_str(if at > 0 { ",{" } else { "{" });
            self.text("name", matcher.name());
            self.text("type", matcher.op().as_str());
            self.text("value", matcher.value());
            self.out.push('}');
        }
        self.out.push(']');
    }

    fn start_or_end(&mut self, at: Option<At>) {
        match at {
            Some(At::Start) => self.text("startOrEnd", "start"),
            Some(At::End) => self.text("startOrEnd", "end"),
            Some(At::Time(_)) | None => self.raw("startOrEnd", "null"),
        }
    }

    fn timestamp(&mut self, at: Option<At>) {
        match at {
            Some(At::Time(time)) => self.raw("timestamp", time.as_ms()),
            Some(At::Start | At::End) | None => self.raw("timestamp", "null"),
        }
    }

    /// A length under two keys: milliseconds where it is known, and its expression where not.
    fn duration(&mut self, key: &str, key_of_expr: &str, duration: Option<&Duration>) {
        match duration {
            Some(Duration::Fixed(span)) => self.raw(key, span.as_ms()),
            Some(Duration::Expr(_)) | None => self.raw(key, 0),
        }
        match duration {
            Some(Duration::Expr(expr)) => {
                self.key(key_of_expr);
                self.duration_expr(expr, false);
            }
            Some(Duration::Fixed(_)) | None => self.raw(key_of_expr, "null"),
        }
    }

    fn duration_expr(&mut self, expr: &DurationExpr, wrapped: bool) {
        match expr {
            DurationExpr::Number(number) if wrapped => {
                self.duration_node(None, "+", Some(expr), true, Some(number));
            }
            DurationExpr::Number(number) => self.duration_number(number),
            DurationExpr::Paren { inner, .. } => self.duration_expr(inner, true),
            DurationExpr::Step(_) => self.duration_node(None, "step", None, wrapped, None),
            DurationExpr::Range(_) => self.duration_node(None, "range", None, wrapped, None),
            DurationExpr::Unary { negative, operand, .. } => {
                let op = if *negative { "-" } else { "+" };
                self.duration_node(None, op, Some(operand), wrapped, None);
            }
            DurationExpr::Binary { op, lhs, rhs, .. } => {
                self.duration_node(Some(lhs), op.as_str(), Some(rhs), wrapped, None);
            }
        }
    }

    /// `number` stands on the right as it is, in place of `rhs`.
    fn duration_node(
        &mut self,
        lhs: Option<&DurationExpr>,
        op: &str,
        rhs: Option<&DurationExpr>,
        wrapped: bool,
        number: Option<&NumberLiteral>,
    ) {
        self.out.push('{');
        self.side("lhs", lhs);
        self.text("op", op);
        match number {
            Some(number) => {
                self.key("rhs");
                self.duration_number(number);
            }
            None => self.side("rhs", rhs),
        }
        self.text("type", "durationExpr");
        self.raw("wrapped", wrapped);
        self.out.push('}');
    }

    fn side(&mut self, key: &str, side: Option<&DurationExpr>) {
        match side {
            Some(expr) => {
                self.key(key);
                self.duration_expr(expr, false);
            }
            None => self.raw(key, "null"),
        }
    }

    fn duration_number(&mut self, number: &NumberLiteral) {
        self.out.push('{');
        self.raw("duration", number.is_duration);
        self.text("type", "numberLiteral");
        self.text("val", &NumberText(number.value).to_string());
        self.out.push('}');
    }

    fn function(&mut self, function: &FunctionSignature) {
        self.out.push('{');
        self.texts("argTypes", function.args.iter().map(|value_type| value_type.as_str()));
        self.text("name", function.name);
        self.text("returnType", function.returns.as_str());
        self.raw("variadic", function.variadic);
        self.out.push('}');
    }

    fn matching(&mut self, matching: &VectorMatching) {
        self.out.push('{');
        self.text("card", matching.card.as_str());
        self.key("fillValues");
        self.out.push('{');
        for (key, value) in [("lhs", matching.fill_lhs), ("rhs", matching.fill_rhs)] {
            match value {
                Some(value) if value.is_finite() => self.raw(key, NumberText(value)),
                // JSON has no other numbers.
                Some(value) => self.text(key, &NumberText(value).to_string()),
                None => self.raw(key, "null"),
            }
        }
        self.out.push('}');
        self.texts("include", matching.include.iter().map(String::as_str));
        self.texts("labels", matching.labels.iter().map(String::as_str));
        self.raw("on", matching.on);
        self.out.push('}');
    }
}
