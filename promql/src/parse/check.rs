//! The type check of a tree whose grammar is right.

use std::fmt::Display;

use stint_model::Matcher;

use super::ast::{Binary, Call, Cardinality, Expr, PosRange, ValueType, VectorSelector};
use super::lexer::is_space;
use super::literal::quote;

/// Checks types, and completes the tree: set operators match many to many, and only operations
/// between vectors have a matching.
pub(super) struct Checker<'a> {
    pub(super) text: &'a str,
    pub(super) errors: Vec<(PosRange, String)>,
}

impl Checker<'_> {
    fn error(&mut self, pos: PosRange, message: impl Into<String>) {
        self.errors.push((pos, message.into()));
    }

    /// Checks `expr` and tells its type.
    pub(super) fn check(&mut self, expr: &mut Expr) -> ValueType {
        let pos = expr.pos();
        match expr {
            Expr::Number(_) => ValueType::Scalar,
            Expr::String(_) => ValueType::String,
            Expr::VectorSelector(selector) => {
                self.selector(selector, false);
                ValueType::Vector
            }
            Expr::MatrixSelector(matrix) => {
                self.selector(&matrix.selector, false);
                ValueType::Matrix
            }
            Expr::Subquery(subquery) => {
                let found = self.check(&mut subquery.expr);
                if found != ValueType::Vector {
                    let message =
                        format!("subquery is only allowed on instant vector, got {found} instead");
                    self.error(pos, message);
                }
                ValueType::Matrix
            }
            Expr::Call(call) => self.call(call),
            Expr::Aggregate(aggregate) => {
                self.expect(&mut aggregate.expr, ValueType::Vector, || "aggregation expression");
                if let (Some(wanted), Some(param)) =
                    (aggregate.op.param_type(), &mut aggregate.param)
                {
                    self.expect(param, wanted, || "aggregation parameter");
                }
                ValueType::Vector
            }
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => {
                let found = self.check(&mut unary.expr);
                if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant \
                         vector, got {}",
                        quote(found.documented())
                    );
                    self.error(pos, message);
                }
                found
            }
            Expr::Paren(paren) => self.check(&mut paren.expr),
        }
    }

    fn expect<C: Display>(&mut self, expr: &mut Expr, wanted: ValueType, context: impl Fn() -> C) {
        let found = self.check(expr);
        if found != wanted {
            let context = context();
            let message = format!(
                "expected type {} in {context}, got {}",
                wanted.documented(),
                found.documented()
            );
            self.error(expr.pos(), message);
        }
    }

    fn selector(&mut self, selector: &VectorSelector, may_match_all: bool) {
        let Some(name) = &selector.name else {
            if !may_match_all && selector.matchers.iter().all(Matcher::matches_empty) {
                self.error(
                    selector.pos,
                    "vector selector must contain at least one non-empty matcher",
                );
            }
            return;
        };
        let given = selector.matchers.split_last().map_or(&[][..], |(_, given)| given);
        for matcher in given.iter().filter(|m| m.name() == stint_model::labels::METRIC_NAME) {
            let message = format!(
                "metric name must not be set twice: {} or {}",
                quote(name),
                quote(matcher.value())
            );
            self.error(selector.pos, message);
        }
    }

    fn call(&mut self, call: &mut Call) -> ValueType {
        let function = call.function;
        let (wanted, got) = (function.args.len(), call.args.len());
        let least = if function.variadic == 0 { wanted } else { wanted.saturating_sub(1) };
        let most = match function.variadic {
            0 => Some(wanted),
            extra => usize::try_from(extra).ok().map(|extra| least + extra),
        };
        let mistake = if function.variadic == 0 {
            (got != wanted).then(|| format!("expected {wanted}"))
        } else if got < least {
            Some(format!("expected at least {least}"))
        } else {
            most.filter(|most| got > *most).map(|most| format!("expected at most {most}"))
        };
        if let Some(mistake) = mistake {
            let name = quote(function.name);
            self.error(call.pos, format!("{mistake} argument(s) in call to {name}, got {got}"));
        }
        if function.name == "info" {
            self.info_selector(call);
        }
        for (at, arg) in call.args.iter_mut().enumerate() {
            let wanted = match (function.args.get(at), function.args.last()) {
                (Some(wanted), _) => *wanted,
                (None, Some(last)) if function.variadic != 0 => *last,
                _ => break,
            };
            match arg {
                // The second argument of info() selects labels and may match everything.
                Expr::VectorSelector(selector) if function.name == "info" && at == 1 => {
                    self.selector(selector, true);
                }
                arg => {
                    let context = || format!("call to function {}", quote(function.name));
                    self.expect(arg, wanted, context);
                }
            }
        }
        function.returns
    }

    fn info_selector(&mut self, call: &Call) {
        let Some(arg) = call.args.get(1) else { return };
        let found = arg.value_type();
        if found != ValueType::Vector {
            let message = format!(
                "expected type instant vector in call to function \"info\", got {}",
                found.documented()
            );
            self.error(call.pos, message);
        }
        match arg {
            Expr::VectorSelector(selector) if selector.name.is_none() => {}
            Expr::VectorSelector(_) => {
                self.error(arg.pos(), "expected label selectors only, got vector selector instead");
            }
            _ => self.error(arg.pos(), "expected label selectors only"),
        }
    }

    fn binary(&mut self, binary: &mut Binary) -> ValueType {
        let left = self.check(&mut binary.lhs);
        let right = self.check(&mut binary.rhs);
        let op = binary.op;
        if binary.return_bool && !op.is_comparison() {
            let pos = self.operator_pos(binary);
            self.error(pos, "bool modifier can only be used on comparison operators");
        }
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if scalars && op.is_comparison() && !binary.return_bool {
            let pos = self.operator_pos(binary);
            self.error(pos, "comparisons between scalars must use BOOL modifier");
        }
        self.matching(binary, left, right);
        if scalars { ValueType::Scalar } else { ValueType::Vector }
    }

    fn matching(&mut self, binary: &mut Binary, left: ValueType, right: ValueType) {
        let op = binary.op;
        let pos = binary.pos;
        let Some(mut matching) = binary.matching.take() else { return };
        if op.is_set() && matching.card == Cardinality::OneToOne {
            matching.card = Cardinality::ManyToMany;
        }
        if matching.on {
            let include: std::collections::HashSet<&String> = matching.include.iter().collect();
            for label in matching.labels.iter().filter(|label| include.contains(label)) {
                let pos = self.operator_pos(binary);
                let message =
                    format!("label {} must not occur in ON and GROUP clause at once", quote(label));
                self.error(pos, message);
            }
        }
        for (side, found) in [(&binary.lhs, left), (&binary.rhs, right)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                self.errors.push((side.pos(), message.to_owned()));
            }
        }
        let fills = matching.fill_lhs.is_some() || matching.fill_rhs.is_some();
        let shown = quote(op.as_str());
        if left != ValueType::Vector || right != ValueType::Vector {
            if !matching.labels.is_empty() {
                self.error(pos, "vector matching only allowed between instant vectors");
            }
            if fills {
                let message = "filling in missing series only allowed between instant vectors";
                self.error(pos, message);
            }
        } else {
            if op.is_set() {
                if matching.card != Cardinality::ManyToMany {
                    self.error(pos, format!("no grouping allowed for {shown} operation"));
                    self.error(pos, "set operations must always be many-to-many");
                }
                if fills {
                    self.error(pos, "filling in missing series not allowed for set operators");
                }
            }
            binary.matching = Some(matching);
        }
        if op.is_set() && (left == ValueType::Scalar || right == ValueType::Scalar) {
            let message = format!("set operator {shown} not allowed in binary scalar expression");
            self.error(pos, message);
        }
    }

    /// The operator with its modifiers. As in Prometheus, the end is that of the last byte but one.
    fn operator_pos(&self, binary: &Binary) -> PosRange {
        let (from, to) = (binary.lhs.pos().end as usize, binary.rhs.pos().start as usize);
        let between = self.text.as_bytes().get(from..to).unwrap_or_default();
        let before = between.iter().take_while(|byte| is_space(**byte)).count();
        let after = between.iter().rev().take_while(|byte| is_space(**byte)).count();
        PosRange::new((from + before) as u32, (to.saturating_sub(after + 1)) as u32)
    }
}
