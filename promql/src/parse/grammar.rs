//! From tokens to the tree: precedence climbing over one token of look-ahead.
//!
//! A mistake in the grammar travels up as [`Stop::Unexpected`] to the innermost construct that has
//! its own words for it, which reports it; what was wrong in content only is noted on the way and
//! parsing goes on.

use super::Options;
use super::ast::{
    Binary, BinaryOp, Call, Cardinality, Expr, NumberLiteral, Paren, PosRange, StringLiteral,
    Unary, VectorMatching,
};
use super::error::{ERRORS_MAX, ParseErrors};
use super::functions;
use super::lexer::{Keyword, Kind, Lexer, Token, describe, is_space};
use super::literal::{parse_duration, parse_number, quote, unquote};

/// Why parsing does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The present token does not fit and nobody has reported it yet.
    Unexpected,
    /// Everything worth reporting has been reported.
    Abort,
}

pub(super) type Parsed<T> = Result<T, Stop>;

/// An expression and the height of its tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) expr: Expr,
    pub(super) height: usize,
}

/// A parser of one text.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) options: &'a Options,
    lexer: Lexer<'a>,
    token: Option<Token>,
    /// The end of the last number or closing bracket that was looked at.
    pub(super) last_closing: u32,
    errors: Vec<(PosRange, String)>,
    nesting: usize,
}

/// How tightly a binary operator binds.
fn power(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::Gt
        | BinaryOp::Lt
        | BinaryOp::Ge
        | BinaryOp::Le
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => POWER_OF_POW,
    }
}

/// The tightest; a sign binds more loosely than it.
const POWER_OF_POW: u8 = 6;

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, options: &'a Options) -> Self {
        Self {
            text,
            options,
            lexer: Lexer::new(text),
            token: None,
            last_closing: 0,
            errors: Vec::new(),
            nesting: 0,
        }
    }

    /// A whole query; the mistakes are noted.
    pub(super) fn query(&mut self) -> Option<Expr> {
        if self.peek() == Kind::Eof {
            self.error(PosRange::default(), "no expression found in input");
            return None;
        }
        let node = self.expression(0).and_then(|node| match self.peek() {
            Kind::Eof => Ok(node),
            _ => Err(Stop::Unexpected),
        });
        self.settle(node).map(|node| node.expr)
    }

    /// The result, when there is one; an unexpected token is reported in general words.
    pub(super) fn settle<T>(&mut self, result: Parsed<T>) -> Option<T> {
        if result.as_ref().err() == Some(&Stop::Unexpected) {
            self.report("", "");
        }
        result.ok()
    }

    /// The mistakes so far; afterwards there are none.
    pub(super) fn take_errors(&mut self) -> Option<ParseErrors> {
        ParseErrors::new(self.text, std::mem::take(&mut self.errors))
    }

    pub(super) fn error(&mut self, pos: PosRange, message: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push((pos, message.into()));
        }
    }

    /// Says that the present token was not expected; a mistake of the lexer has been noted already.
    pub(super) fn report(&mut self, context: &str, expected: &str) {
        let token = self.peek_token();
        if token.kind == Kind::Error {
            return;
        }
        let mut message = format!("unexpected {}", describe(token.kind, self.token_text(token)));
        for (word, text) in [(" in ", context), (", expected ", expected)] {
            if !text.is_empty() {
                message.push_str(word);
                message.push_str(text);
            }
        }
        self.error(PosRange::new(token.start, token.end), message);
    }

    pub(super) fn peek_token(&mut self) -> Token {
        if let Some(token) = self.token {
            return token;
        }
        let token = self.lexer.next();
        match token.kind {
            Kind::Error => {
                let message = self.lexer.take_error();
                self.error(PosRange::new(token.start, self.text.len() as u32), message);
            }
            Kind::RightBrace
            | Kind::RightParen
            | Kind::RightBracket
            | Kind::Duration
            | Kind::Number => self.last_closing = token.end,
            _ => {}
        }
        self.token = Some(token);
        token
    }

    pub(super) fn peek(&mut self) -> Kind {
        self.peek_token().kind
    }

    pub(super) fn bump(&mut self) -> Token {
        let token = self.peek_token();
        // The end and a mistake stay where they are.
        if !matches!(token.kind, Kind::Eof | Kind::Error) {
            self.token = None;
        }
        token
    }

    pub(super) fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        if self.peek() == kind { Ok(self.bump()) } else { Err(Stop::Unexpected) }
    }

    pub(super) fn token_text(&self, token: Token) -> &'a str {
        self.text.get(token.start as usize..token.end as usize).unwrap_or_default()
    }

    /// Whether the next thing behind `token` is a left parenthesis.
    fn paren_follows(&self, token: Token) -> bool {
        let rest = self.text.as_bytes().get(token.end as usize..).unwrap_or_default();
        rest.iter().find(|byte| !is_space(**byte)) == Some(&b'(')
    }

    /// Runs `parse` one level deeper.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= self.options.max_nesting {
            return Err(self.too_deep("nested", self.options.max_nesting));
        }
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    fn too_deep(&mut self, how: &str, limit: usize) -> Stop {
        let token = self.peek_token();
        let message = format!("expression is {how} too deeply, at most {limit} levels are allowed");
        self.error(PosRange::new(token.start, token.end), message);
        Stop::Abort
    }

    /// A node above nodes of at most `below` levels.
    pub(super) fn node(&mut self, expr: Expr, below: usize) -> Parsed<Node> {
        if below >= self.options.max_depth {
            return Err(self.too_deep("chained", self.options.max_depth));
        }
        Ok(Node { expr, height: below + 1 })
    }

    fn expression(&mut self, min_power: u8) -> Parsed<Node> {
        let mut left = self.operand()?;
        while let Kind::Op(op) = self.peek() {
            let power = power(op);
            if power < min_power {
                break;
            }
            self.bump();
            let (matching, return_bool) = self.modifiers()?;
            let min_right = if op == BinaryOp::Pow { power } else { power + 1 };
            let right = self.nested(|parser| parser.expression(min_right))?;
            left = self.binary(op, left, right, matching, return_bool)?;
        }
        Ok(left)
    }

    fn binary(
        &mut self,
        op: BinaryOp,
        left: Node,
        right: Node,
        matching: VectorMatching,
        return_bool: bool,
    ) -> Parsed<Node> {
        let pos = PosRange::new(left.expr.pos().start, right.expr.pos().end);
        let fills = matching.fill_lhs.is_some() || matching.fill_rhs.is_some();
        if fills && !self.options.fill_modifiers {
            self.error(pos, "binop fill modifiers are experimental and not enabled");
        }
        let (lhs, rhs) = (left.expr, right.expr);
        let binary = Binary { op, lhs, rhs, matching: Some(matching), return_bool, pos };
        self.node(Expr::Binary(Box::new(binary)), left.height.max(right.height))
    }

    /// What stands between an operator and its right side.
    fn modifiers(&mut self) -> Parsed<(VectorMatching, bool)> {
        let mut matching = VectorMatching::default();
        let return_bool = self.peek() == Kind::Keyword(Keyword::Bool);
        if return_bool {
            self.bump();
        }
        let kind = self.peek();
        if let Kind::Keyword(word @ (Keyword::On | Keyword::Ignoring)) = kind {
            self.bump();
            matching.on = word == Keyword::On;
            matching.labels = self.grouping()?;
            if let Kind::Keyword(side @ (Keyword::GroupLeft | Keyword::GroupRight)) = self.peek() {
                self.bump();
                matching.card = match side {
                    Keyword::GroupLeft => Cardinality::ManyToOne,
                    _ => Cardinality::OneToMany,
                };
                if self.peek() == Kind::LeftParen {
                    matching.include = self.grouping()?;
                }
            }
        }
        self.fills(&mut matching)?;
        Ok((matching, return_bool))
    }

    fn fills(&mut self, matching: &mut VectorMatching) -> Parsed<()> {
        loop {
            let token = self.peek_token();
            let (left, right) = match token.kind {
                Kind::Keyword(Keyword::Fill) => (true, true),
                Kind::Keyword(Keyword::FillLeft) => (true, false),
                Kind::Keyword(Keyword::FillRight) => (false, true),
                _ => return Ok(()),
            };
            let repeated =
                (left && matching.fill_lhs.is_some()) || (right && matching.fill_rhs.is_some());
            // Without a value it is a metric of that name.
            if !self.paren_follows(token) {
                return Ok(());
            }
            if repeated {
                return Err(Stop::Unexpected);
            }
            self.bump();
            self.expect(Kind::LeftParen)?;
            let value = self.signed_number()?;
            self.expect(Kind::RightParen)?;
            if left {
                matching.fill_lhs = Some(value);
            }
            if right {
                matching.fill_rhs = Some(value);
            }
        }
    }

    /// A number that may have a sign.
    pub(super) fn signed_number(&mut self) -> Parsed<f64> {
        let sign = match self.peek() {
            Kind::Op(BinaryOp::Add) => Some(1.0),
            Kind::Op(BinaryOp::Sub) => Some(-1.0),
            _ => None,
        };
        if sign.is_some() {
            self.bump();
        }
        Ok(self.number()?.value * sign.unwrap_or(1.0))
    }

    /// A number or a duration.
    pub(super) fn number(&mut self) -> Parsed<NumberLiteral> {
        let kind = self.peek();
        if !matches!(kind, Kind::Number | Kind::Duration) {
            return Err(Stop::Unexpected);
        }
        let token = self.bump();
        let pos = PosRange::new(token.start, token.end);
        let text = self.token_text(token);
        let is_duration = kind == Kind::Duration;
        let value = if is_duration {
            parse_duration(text).map(|span| span.as_ms() as f64 / 1000.0)
        } else {
            parse_number(text)
        };
        let value = value.unwrap_or_else(|message| {
            self.error(pos, message);
            0.0
        });
        Ok(NumberLiteral { value, is_duration, pos })
    }

    fn operand(&mut self) -> Parsed<Node> {
        let (Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)), start) =
            (self.peek(), self.peek_token().start)
        else {
            let primary = self.primary()?;
            return self.postfix(primary);
        };
        self.bump();
        let negative = op == BinaryOp::Sub;
        let mut node = self.nested(|parser| parser.expression(POWER_OF_POW))?;
        if let Expr::Number(number) = &mut node.expr {
            if negative {
                number.value = -number.value;
            }
            number.pos.start = start;
            return Ok(node);
        }
        let pos = PosRange::new(start, node.expr.pos().end);
        let unary = Unary { negative, expr: node.expr, pos };
        self.node(Expr::Unary(Box::new(unary)), node.height)
    }

    fn primary(&mut self) -> Parsed<Node> {
        let token = self.peek_token();
        let pos = PosRange::new(token.start, token.end);
        match token.kind {
            Kind::Number | Kind::Duration => {
                let number = self.number()?;
                self.node(Expr::Number(number), 0)
            }
            Kind::String => {
                self.bump();
                let value = unquote(self.token_text(token));
                self.node(Expr::String(StringLiteral { value, pos }), 0)
            }
            Kind::LeftParen => {
                self.bump();
                let inner = self.nested(|parser| parser.expression(0))?;
                let end = self.expect(Kind::RightParen)?.end;
                let paren = Paren { expr: inner.expr, pos: PosRange::new(token.start, end) };
                self.node(Expr::Paren(Box::new(paren)), inner.height)
            }
            Kind::Aggregate(op) => {
                self.bump();
                match self.peek() {
                    Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without) => {
                        self.aggregate(op, token)
                    }
                    _ => self.selector(Some(token)),
                }
            }
            Kind::Identifier => {
                self.bump();
                if self.peek() == Kind::LeftParen {
                    return self.call(token);
                }
                self.selector(Some(token))
            }
            Kind::Keyword(
                Keyword::Start
                | Keyword::End
                | Keyword::Step
                | Keyword::Range
                | Keyword::MinOf
                | Keyword::MaxOf,
            ) if self.paren_follows(token) => {
                self.bump();
                self.call(token)
            }
            Kind::LeftBrace => self.selector(None),
            kind if is_metric_word(kind) => {
                self.bump();
                self.selector(Some(token))
            }
            _ => Err(Stop::Unexpected),
        }
    }

    fn call(&mut self, name: Token) -> Parsed<Node> {
        let (args, below) = self.arguments()?;
        let pos = PosRange::new(name.start, self.last_closing);
        let name_pos = PosRange::new(name.start, name.end);
        let text = self.token_text(name);
        let Some(function) = functions::function(text) else {
            self.error(name_pos, format!("unknown function with name {}", quote(text)));
            return self.placeholder(pos);
        };
        if function.experimental && !self.options.experimental_functions {
            self.error(name_pos, format!("function {} is not enabled", quote(text)));
        }
        self.node(Expr::Call(Box::new(Call { function, args, pos })), below)
    }

    /// Stands for an expression that is wrong, when that has been noted.
    pub(super) fn placeholder(&mut self, pos: PosRange) -> Parsed<Node> {
        self.node(Expr::Number(NumberLiteral { value: 0.0, is_duration: false, pos }), 0)
    }

    /// Arguments in parentheses, and the height of the highest.
    pub(super) fn arguments(&mut self) -> Parsed<(Vec<Expr>, usize)> {
        self.expect(Kind::LeftParen)?;
        let mut args = Vec::new();
        let mut below = 0;
        if self.peek() == Kind::RightParen {
            self.bump();
            return Ok((args, below));
        }
        loop {
            let argument = self.nested(|parser| parser.expression(0))?;
            args.push(argument.expr);
            below = below.max(argument.height);
            let mut more = false;
            while !more && self.peek() == Kind::Comma {
                let comma = self.bump();
                more = starts_expression(self.peek());
                if !more {
                    let pos = PosRange::new(comma.start, comma.end);
                    self.error(pos, "trailing commas not allowed in function call args");
                }
            }
            if !more {
                self.expect(Kind::RightParen)?;
                return Ok((args, below));
            }
        }
    }

    /// Leaves out tokens up to one of `kinds`.
    pub(super) fn skip_to(&mut self, kinds: &[Kind]) -> Parsed<()> {
        loop {
            match self.peek() {
                Kind::Eof | Kind::Error => return Err(Stop::Abort),
                kind if kinds.contains(&kind) => return Ok(()),
                _ => {
                    self.bump();
                }
            }
        }
    }
}

/// Whether a token of this kind may be a metric name.
pub(super) fn is_metric_word(kind: Kind) -> bool {
    match kind {
        Kind::Identifier
        | Kind::MetricIdentifier
        | Kind::Aggregate(_)
        | Kind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => true,
        Kind::Keyword(word) => !matches!(
            word,
            Keyword::Bool
                | Keyword::On
                | Keyword::Ignoring
                | Keyword::GroupLeft
                | Keyword::GroupRight
        ),
        _ => false,
    }
}

/// Whether an expression may start with a token of this kind.
fn starts_expression(kind: Kind) -> bool {
    is_metric_word(kind)
        || matches!(
            kind,
            Kind::Number
                | Kind::Duration
                | Kind::String
                | Kind::LeftParen
                | Kind::LeftBrace
                | Kind::Op(BinaryOp::Add | BinaryOp::Sub)
        )
}
