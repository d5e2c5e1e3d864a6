//! Aggregations, and the lists of labels that they share with binary operators.

use super::ast::{Aggregate, AggregateOp, BinaryOp, Expr, PosRange};
use super::grammar::{Node, Parsed, Parser, Stop, is_metric_word};
use super::lexer::{Keyword, Kind, Token};
use super::literal::{quote_bytes, unquote};

#[derive(Debug)]
struct AggregateParts {
    args: Vec<Expr>,
    below: usize,
    without: bool,
    grouping: Vec<String>,
    end: u32,
}

impl Parser<'_> {
    pub(super) fn aggregate(&mut self, op: AggregateOp, token: Token) -> Parsed<Node> {
        match self.aggregate_parts() {
            Ok(parts) => self.finish_aggregate(op, token, parts),
            Err(Stop::Unexpected) => {
                self.report("aggregation", "");
                let pos = PosRange::new(token.start, self.last_closing);
                self.error(pos, "no arguments for aggregate expression provided");
                Err(Stop::Abort)
            }
            Err(Stop::Abort) => Err(Stop::Abort),
        }
    }

    fn aggregate_parts(&mut self) -> Parsed<AggregateParts> {
        let before = self.aggregate_modifier()?;
        let (args, below) = self.arguments()?;
        let mut end = self.last_closing;
        let modifier = if before.is_some() {
            before
        } else {
            let after = self.aggregate_modifier()?;
            if after.is_some() {
                end = self.last_closing;
            }
            after
        };
        let (without, grouping) = modifier.unwrap_or_default();
        Ok(AggregateParts { args, below, without, grouping, end })
    }

    /// `by (…)` or `without (…)`, if it is here: whether `without`, and the labels.
    fn aggregate_modifier(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let without = match self.peek() {
            Kind::Keyword(Keyword::By) => false,
            Kind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.bump();
        Ok(Some((without, self.grouping()?)))
    }

    fn finish_aggregate(
        &mut self,
        op: AggregateOp,
        token: Token,
        parts: AggregateParts,
    ) -> Parsed<Node> {
        let AggregateParts { args, below, without, grouping, end } = parts;
        let pos = PosRange::new(token.start, end);
        let got = args.len();
        let mut args = args.into_iter();
        if got == 0 {
            self.error(pos, "no arguments for aggregate expression provided");
            return self.placeholder(pos);
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with \
                 --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            self.error(pos, message);
        }
        let wants = if op.param_type().is_some() { 2 } else { 1 };
        let param = if wants == 2 { args.next() } else { None };
        if let (Some(expr), true) = (args.next(), got == wants) {
            let aggregate = Aggregate { op, expr, param, grouping, without, pos };
            return self.node(Expr::Aggregate(Box::new(aggregate)), below);
        }
        let message = format!(
            "wrong number of arguments for aggregate expression provided, \
             expected {wants}, got {got}"
        );
        self.error(pos, message);
        self.placeholder(pos)
    }

    /// Labels in parentheses.
    pub(super) fn grouping(&mut self) -> Parsed<Vec<String>> {
        let mut labels = Vec::new();
        if self.peek() != Kind::LeftParen {
            self.report("grouping opts", "\"(\"");
            return Err(Stop::Abort);
        }
        self.bump();
        if self.peek() == Kind::RightParen {
            self.bump();
            return Ok(labels);
        }
        loop {
            let token = self.peek_token();
            if token.kind == Kind::String {
                self.bump();
                self.grouping_label(&mut labels, token);
            } else if is_label_word(token.kind) {
                self.bump();
                labels.push(self.token_text(token).to_owned());
            } else {
                self.report("grouping opts", "label");
                self.skip_to(&[Kind::Comma, Kind::RightParen])?;
            }
            if !matches!(self.peek(), Kind::Comma | Kind::RightParen) {
                self.report("grouping opts", "\",\" or \")\"");
                self.skip_to(&[Kind::Comma, Kind::RightParen])?;
            }
            if self.bump().kind == Kind::Comma {
                if self.peek() != Kind::RightParen {
                    continue;
                }
                self.bump();
            }
            return Ok(labels);
        }
    }

    fn grouping_label(&mut self, labels: &mut Vec<String>, token: Token) {
        let bytes = unquote(self.token_text(token));
        let pos = PosRange::new(token.start, token.end);
        match String::from_utf8(bytes) {
            Ok(label) if !label.is_empty() => labels.push(label),
            Ok(_) => self.error(pos, "invalid label name for grouping: \"\""),
            Err(error) => {
                let shown = quote_bytes(error.as_bytes());
                self.error(pos, format!("invalid label name for grouping: {shown}"));
            }
        }
    }
}

/// Whether a token of this kind may be a label in a grouping.
fn is_label_word(kind: Kind) -> bool {
    is_metric_word(kind) || matches!(kind, Kind::Keyword(_) | Kind::Op(BinaryOp::Atan2))
}
