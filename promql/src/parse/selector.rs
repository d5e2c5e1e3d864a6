//! Selectors and what may follow an expression: ranges, subqueries, `offset`, `@`, `anchored`,
//! `smoothed`.

use std::borrow::Cow;
use std::sync::Arc;

use stint_model::labels::METRIC_NAME;
use stint_model::{MatchOp, Matcher, Timestamp};

use super::ast::{
    At, BinaryOp, Duration, Expr, MatrixSelector, PosRange, Subquery, VectorSelector,
};
use super::grammar::{Node, Parsed, Parser, Stop};
use super::lexer::{Keyword, Kind, Token};
use super::literal::{NumberText, unescaped, unquote};

const NOT_A_SELECTOR: &str = "must be preceded by an instant vector selector or range vector \
                              selector or a subquery";
const RANGE_OF_WHAT: &str = "ranges only allowed for vector selectors";

/// What a modifier changes.
struct Target<'e> {
    offset: &'e mut Duration,
    at: &'e mut Option<At>,
    end: &'e mut u32,
}

/// A range of something that has none; the mistake has been noted.
fn is_misplaced_range(matrix: &MatrixSelector) -> bool {
    matrix.selector.pos.start == matrix.selector.pos.end
}

fn target(expr: &mut Expr) -> Option<Target<'_>> {
    match expr {
        Expr::VectorSelector(node) => {
            let VectorSelector { offset, at, pos, .. } = &mut **node;
            Some(Target { offset, at, end: &mut pos.end })
        }
        Expr::MatrixSelector(node) if !is_misplaced_range(node) => {
            let MatrixSelector { selector, pos, .. } = &mut **node;
            let VectorSelector { offset, at, .. } = selector;
            Some(Target { offset, at, end: &mut pos.end })
        }
        Expr::Subquery(node) => {
            let Subquery { offset, at, pos, .. } = &mut **node;
            Some(Target { offset, at, end: &mut pos.end })
        }
        _ => None,
    }
}

impl<'a> Parser<'a> {
    /// A selector whose name, if any, has been read.
    pub(super) fn selector(&mut self, name: Option<Token>) -> Parsed<Node> {
        let selector = self.vector_selector(name)?;
        self.node(Expr::VectorSelector(Box::new(selector)), 0)
    }

    pub(super) fn vector_selector(&mut self, name: Option<Token>) -> Parsed<VectorSelector> {
        let start = name.map_or_else(|| self.peek_token().start, |token| token.start);
        let mut end = name.map_or(start, |token| token.end);
        // Nearly all selectors have a name, and few have more conditions than these.
        let mut matchers = Vec::with_capacity(if self.peek() == Kind::LeftBrace { 4 } else { 1 });
        if name.is_none() || self.peek() == Kind::LeftBrace {
            self.expect(Kind::LeftBrace)?;
            end = self.matchers(&mut matchers)?;
        }
        let name: Option<Arc<str>> = name.map(|token| self.token_text(token).into());
        if let Some(name) = &name {
            matchers.push(Matcher::metric(Arc::clone(name)));
        }
        Ok(VectorSelector {
            name,
            matchers,
            offset: Duration::ZERO,
            at: None,
            anchored: false,
            smoothed: false,
            pos: PosRange::new(start, end),
        })
    }

    /// The inside of braces up to and with the right one, whose end is returned.
    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Parsed<u32> {
        const ENDS: [Kind; 2] = [Kind::Comma, Kind::RightBrace];
        if self.peek() == Kind::RightBrace {
            return Ok(self.bump().end);
        }
        loop {
            match self.matcher() {
                Ok(matcher) => matchers.extend(matcher),
                Err(expected) => {
                    self.report("label matching", expected);
                    self.skip_to(&ENDS)?;
                }
            }
            if !ENDS.contains(&self.peek()) {
                self.report("label matching", "\",\" or \"}\"");
                self.skip_to(&ENDS)?;
            }
            let token = self.bump();
            if token.kind == Kind::RightBrace {
                return Ok(token.end);
            }
            if self.peek() == Kind::RightBrace {
                return Ok(self.bump().end);
            }
        }
    }

    /// One matcher, none when its regular expression is wrong, or what was expected instead.
    fn matcher(&mut self) -> Result<Option<Matcher>, &'static str> {
        let name = self.peek_token();
        let quoted = name.kind == Kind::String;
        if !quoted && name.kind != Kind::Identifier {
            return Err("identifier or \"}\"");
        }
        self.bump();
        let op = match self.peek() {
            Kind::Equal => MatchOp::Equal,
            Kind::Op(BinaryOp::Ne) => MatchOp::NotEqual,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotEqualRegex => MatchOp::NotRegex,
            _ if quoted => {
                let value = self.unquoted(name);
                return Ok(Some(Matcher::equal(METRIC_NAME, &value)));
            }
            _ => return Err("label matching operator"),
        };
        self.bump();
        let value = self.peek_token();
        if value.kind != Kind::String {
            return Err("string");
        }
        self.bump();
        let label = if quoted { self.unquoted(name) } else { Cow::Borrowed(self.token_text(name)) };
        match Matcher::new(op, &label, &self.unquoted(value)) {
            Ok(matcher) => Ok(Some(matcher)),
            Err(error) => {
                self.error(PosRange::new(name.start, value.end), error.to_string());
                Ok(None)
            }
        }
    }

    /// The text of a string token. What is not UTF-8 becomes U+FFFD: no label is like that.
    fn unquoted(&self, token: Token) -> Cow<'a, str> {
        let text = self.token_text(token);
        if let Some(plain) = unescaped(text) {
            return Cow::Borrowed(plain);
        }
        Cow::Owned(String::from_utf8_lossy(&unquote(text)).into_owned())
    }

    /// Everything that may follow an expression.
    pub(super) fn postfix(&mut self, mut node: Node) -> Parsed<Node> {
        loop {
            match self.peek() {
                Kind::LeftBracket => node = self.bracket(node)?,
                Kind::Keyword(Keyword::Offset) => {
                    self.bump();
                    self.offset(&mut node.expr)?;
                }
                Kind::At => {
                    self.bump();
                    self.at(&mut node.expr)?;
                }
                Kind::Keyword(word @ (Keyword::Anchored | Keyword::Smoothed)) => {
                    self.bump();
                    self.extended(&mut node.expr, word == Keyword::Anchored);
                }
                _ => return Ok(node),
            }
        }
    }

    /// `result`, an unexpected token in it being reported.
    fn within<T>(&mut self, result: Parsed<T>, context: &str, expected: &str) -> Parsed<T> {
        if result.as_ref().err() == Some(&Stop::Unexpected) {
            self.report(context, expected);
            return Err(Stop::Abort);
        }
        result
    }

    fn bracket(&mut self, node: Node) -> Parsed<Node> {
        let open = self.bump();
        let range = self.positive_duration();
        let range = self.within(
            range,
            "subquery or range selector",
            "number, duration, step(), or range()",
        )?;
        match self.peek() {
            Kind::RightBracket => {
                let close = self.bump();
                self.range(node, range, open, close)
            }
            Kind::Colon => {
                self.bump();
                self.subquery(node, range)
            }
            _ => self.within(Err(Stop::Unexpected), "subquery or range", "\":\" or \"]\""),
        }
    }

    fn range(&mut self, node: Node, range: Duration, open: Token, close: Token) -> Parsed<Node> {
        let start = node.expr.pos().start;
        let (selector, mistake) = if let Expr::VectorSelector(selector) = node.expr {
            let mistake = if selector.offset != Duration::ZERO {
                Some("no offset modifiers allowed before range")
            } else if selector.at.is_some() {
                Some("no @ modifiers allowed before range")
            } else {
                None
            };
            (*selector, mistake)
        } else {
            let selector = VectorSelector {
                name: None,
                matchers: Vec::new(),
                offset: Duration::ZERO,
                at: None,
                anchored: false,
                smoothed: false,
                pos: PosRange::new(start, start),
            };
            (selector, Some(RANGE_OF_WHAT))
        };
        if let Some(mistake) = mistake {
            self.error(PosRange::new(open.start, close.end), mistake);
        }
        let pos = PosRange::new(start, close.end);
        let matrix = MatrixSelector { selector, range, pos };
        self.node(Expr::MatrixSelector(Box::new(matrix)), 0)
    }

    fn subquery(&mut self, node: Node, range: Duration) -> Parsed<Node> {
        let step = if self.peek() == Kind::RightBracket {
            None
        } else {
            let step = self.positive_duration();
            let expected = "number, duration, step(), range(), or \"]\"";
            Some(self.within(step, "subquery selector", expected)?)
        };
        let close = self.expect(Kind::RightBracket);
        let close = self.within(close, "subquery selector", "\"]\"")?;
        let subquery = Subquery {
            range,
            step,
            offset: Duration::ZERO,
            at: None,
            pos: PosRange::new(node.expr.pos().start, close.end),
            expr: node.expr,
        };
        self.node(Expr::Subquery(Box::new(subquery)), node.height)
    }

    fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
        let length = self.offset_duration();
        let length = self.within(length, "offset", "number, duration, step(), or range()")?;
        let pos = expr.pos();
        match target(expr) {
            Some(target) if *target.offset == Duration::ZERO => {
                *target.offset = length;
                *target.end = self.last_closing;
            }
            Some(target) => {
                *target.end = self.last_closing;
                self.error(pos, "offset may not be set multiple times");
            }
            None => self.wrong_target(expr, "offset modifier"),
        }
        Ok(())
    }

    fn wrong_target(&mut self, expr: &Expr, what: &str) {
        let message = match expr {
            Expr::MatrixSelector(_) => RANGE_OF_WHAT.to_owned(),
            _ => format!("{what} {NOT_A_SELECTOR}"),
        };
        self.error(expr.pos(), message);
    }

    fn at(&mut self, expr: &mut Expr) -> Parsed<()> {
        let at = match self.peek() {
            Kind::Keyword(word @ (Keyword::Start | Keyword::End)) => {
                self.bump();
                let end = self.expect(Kind::LeftParen).and_then(|_| self.expect(Kind::RightParen));
                end.map(|_| Ok(if word == Keyword::Start { At::Start } else { At::End }))
            }
            _ => self.signed_number().map(time_at),
        };
        let at = self.within(at, "@", "timestamp")?;
        let pos = expr.pos();
        let at = match at {
            Ok(at) => at,
            Err(message) => {
                self.error(pos, message);
                return Ok(());
            }
        };
        match target(expr) {
            Some(target) => {
                *target.end = self.last_closing;
                if target.at.replace(at).is_some() {
                    self.error(pos, "@ <timestamp> may not be set multiple times");
                }
            }
            None => self.wrong_target(expr, "@ modifier"),
        }
        Ok(())
    }

    fn extended(&mut self, expr: &mut Expr, anchored: bool) {
        let word = if anchored { "anchored" } else { "smoothed" };
        let pos = expr.pos();
        if !self.options.extended_range_selectors {
            self.error(pos, format!("{word} modifier is experimental and not enabled"));
        }
        let selector = match expr {
            Expr::VectorSelector(selector) => &mut **selector,
            Expr::MatrixSelector(matrix) => {
                if is_misplaced_range(matrix) {
                    return;
                }
                &mut matrix.selector
            }
            Expr::Subquery(_) => {
                self.error(pos, format!("{word} modifier is not supported for subqueries"));
                return;
            }
            _ => {
                self.error(pos, format!("{word} modifier not implemented"));
                return;
            }
        };
        if anchored {
            selector.anchored = true;
        } else {
            selector.smoothed = true;
        }
        if selector.anchored && selector.smoothed {
            self.error(pos, "anchored and smoothed modifiers cannot be used together");
        }
    }
}

/// The time of `@ seconds`, or why it cannot be one.
fn time_at(seconds: f64) -> Result<At, String> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if !seconds.is_finite() || seconds >= LIMIT || seconds <= -LIMIT {
        let shown = if seconds.is_finite() {
            format!("{seconds:.6}")
        } else {
            NumberText(seconds).to_string()
        };
        return Err(format!("timestamp out of bounds for @ modifier: {shown}"));
    }
    Ok(At::Time(Timestamp((seconds * 1000.0).round() as i64)))
}
