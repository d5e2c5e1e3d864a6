//! From text to tokens.
//!
//! The lexer keeps track of braces and brackets, because letters and colons mean different things
//! inside them. It stops at the first mistake.

mod number;
mod word;

use super::ast::{AggregateOp, BinaryOp};
use super::literal::{describe_char, quote, quote_char};
use number::scan_units;
use word::keyword;

pub(super) use number::scan_number;
pub(super) use word::describe;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Eof,
    /// The text could not be read further; [`Lexer::take_error`] says why.
    Error,
    Identifier,
    /// An identifier with colons.
    MetricIdentifier,
    Number,
    Duration,
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Equal,
    /// `=~`
    EqualRegex,
    /// `!~`
    NotEqualRegex,
    At,
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
}

/// A word with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Anchored,
    Bool,
    By,
    End,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    MaxOf,
    MinOf,
    Offset,
    On,
    Range,
    Smoothed,
    Start,
    Step,
    Without,
}

/// A token: what it is and which bytes it covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: u32,
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Statements,
    /// Behind `[` as far as the first number or string.
    Duration,
}

/// Reads tokens one by one.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    start: usize,
    mode: Mode,
    parens: i32,
    in_braces: bool,
    in_brackets: bool,
    got_colon: bool,
    got_duration: bool,
    failed: bool,
    error: Option<String>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            pos: 0,
            start: 0,
            mode: Mode::Statements,
            parens: 0,
            in_braces: false,
            in_brackets: false,
            got_colon: false,
            got_duration: false,
            failed: false,
            error: None,
        }
    }

    /// The next token; comments and space are skipped.
    pub(super) fn next(&mut self) -> Token {
        let kind = loop {
            self.start = self.pos;
            if self.failed {
                break Kind::Eof;
            }
            if self.skip() {
                continue;
            }
            break if self.in_braces {
                self.inside_braces()
            } else if self.mode == Mode::Duration {
                self.duration()
            } else {
                self.statement()
            };
        };
        Token { kind, start: self.start as u32, end: self.pos as u32 }
    }

    /// Why the last token was [`Kind::Error`].
    pub(super) fn take_error(&mut self) -> String {
        self.error.take().unwrap_or_default()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn char(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fail(&mut self, message: String) -> Kind {
        self.failed = true;
        self.error = Some(message);
        Kind::Error
    }

    fn unexpected(&mut self, text: &str) -> Kind {
        let shown = quote_char(self.char());
        self.fail(format!("{text}{shown}"))
    }

    /// One byte long token.
    fn single(&mut self, kind: Kind) -> Kind {
        self.pos += 1;
        kind
    }

    /// `longer` when the byte behind the present one is `second`, else `shorter`.
    fn one_or_two(&mut self, second: u8, longer: Kind, shorter: Kind) -> Kind {
        self.pos += 1;
        if self.byte() == Some(second) {
            self.pos += 1;
            return longer;
        }
        shorter
    }

    /// Skips space or a comment, if one is here.
    fn skip(&mut self) -> bool {
        let rest = self.rest();
        let length = if rest.starts_with('#') && self.mode == Mode::Statements {
            rest.bytes().take_while(|byte| !matches!(byte, b'\n' | b'\r')).count()
        } else {
            rest.bytes().take_while(|byte| is_space(*byte)).count()
        };
        self.pos += length;
        length > 0
    }

    fn statement(&mut self) -> Kind {
        let Some(byte) = self.byte() else {
            if self.parens != 0 {
                return self.fail("unclosed left parenthesis".to_owned());
            }
            if self.in_brackets {
                return self.fail("unclosed left bracket".to_owned());
            }
            return Kind::Eof;
        };
        match byte {
            b',' => self.single(Kind::Comma),
            b'@' => self.single(Kind::At),
            b'=' | b'!' | b'<' | b'>' => self.comparison(byte),
            b'0'..=b'9' => self.number_or_duration(),
            b'.' if self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit) => {
                self.number_or_duration()
            }
            b'"' | b'\'' | b'`' => self.string(byte),
            b':' | b'_' | b'a'..=b'z' | b'A'..=b'Z' if self.in_brackets => {
                self.word_in_brackets(byte)
            }
            b':' | b'_' | b'a'..=b'z' | b'A'..=b'Z' => self.word(),
            b'(' => {
                self.parens += 1;
                self.single(Kind::LeftParen)
            }
            b')' => self.right_paren(),
            b'{' => {
                self.in_braces = true;
                self.single(Kind::LeftBrace)
            }
            b'[' => self.left_bracket(),
            b']' if self.in_brackets => {
                self.in_brackets = false;
                self.single(Kind::RightBracket)
            }
            b']' => self.unexpected("unexpected right bracket "),
            _ => match arithmetic(byte) {
                Some(op) => self.single(Kind::Op(op)),
                None => self.unexpected("unexpected character: "),
            },
        }
    }

    fn comparison(&mut self, first: u8) -> Kind {
        use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne, TrimLower, TrimUpper};
        let second = self.rest().as_bytes().get(1).copied();
        let (length, kind) = match (first, second) {
            (b'=', Some(b'=')) => (2, Kind::Op(Eq)),
            (b'=', Some(b'~')) => {
                self.pos += 1;
                return self.unexpected("unexpected character after '=': ");
            }
            (b'=', _) => (1, Kind::Equal),
            (b'!', Some(b'=')) => (2, Kind::Op(Ne)),
            (b'!', _) => {
                self.pos += 1;
                return self.unexpected("unexpected character after '!': ");
            }
            (b'<', Some(b'=')) => (2, Kind::Op(Le)),
            (b'<', Some(b'/')) => (2, Kind::Op(TrimUpper)),
            (b'<', _) => (1, Kind::Op(Lt)),
            (_, Some(b'=')) => (2, Kind::Op(Ge)),
            (_, Some(b'/')) => (2, Kind::Op(TrimLower)),
            (_, _) => (1, Kind::Op(Gt)),
        };
        self.pos += length;
        kind
    }

    fn right_paren(&mut self) -> Kind {
        self.parens -= 1;
        if self.parens < 0 {
            self.pos += 1;
            self.start = self.pos;
            return self.fail("unexpected right parenthesis ')'".to_owned());
        }
        self.single(Kind::RightParen)
    }

    fn left_bracket(&mut self) -> Kind {
        if self.in_brackets {
            return self.unexpected("unexpected left bracket ");
        }
        self.in_brackets = true;
        self.got_colon = false;
        self.got_duration = false;
        self.mode = Mode::Duration;
        self.single(Kind::LeftBracket)
    }

    fn duration(&mut self) -> Kind {
        let Some(byte) = self.byte() else {
            return self.fail("unexpected end of input in duration expression".to_owned());
        };
        match byte {
            b']' => {
                self.in_brackets = false;
                self.mode = Mode::Statements;
                self.single(Kind::RightBracket)
            }
            b':' => {
                let mistake = if !self.got_duration {
                    "unexpected colon before duration in duration expression"
                } else if self.got_colon {
                    "unexpected repeated colon in duration expression"
                } else {
                    self.got_colon = true;
                    return self.single(Kind::Colon);
                };
                self.pos += 1;
                self.start = self.pos;
                self.fail(mistake.to_owned())
            }
            b'(' => {
                self.parens += 1;
                self.single(Kind::LeftParen)
            }
            b')' => self.right_paren(),
            b',' => self.single(Kind::Comma),
            b'0'..=b'9' | b'.' => {
                self.got_duration = true;
                self.mode = Mode::Statements;
                self.number_or_duration()
            }
            b'a'..=b'z' | b'A'..=b'Z' => match self.duration_keyword() {
                Some(keyword) => {
                    self.got_duration = true;
                    Kind::Keyword(keyword)
                }
                None => self.unexpected("unexpected character in duration expression: "),
            },
            _ => match arithmetic(byte) {
                Some(op) => self.single(Kind::Op(op)),
                None => self.unexpected("unexpected character in duration expression: "),
            },
        }
    }

    fn duration_keyword(&mut self) -> Option<Keyword> {
        let length = self.rest().bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'_');
        let length = length.count();
        let word = self.rest().get(..length)?;
        match keyword(word) {
            Some(Kind::Keyword(
                found @ (Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf),
            )) => {
                self.pos += length;
                Some(found)
            }
            _ => None,
        }
    }

    fn word_in_brackets(&mut self, first: u8) -> Kind {
        if first == b':' {
            if self.got_colon {
                return self.unexpected("unexpected colon ");
            }
            self.got_colon = true;
            return self.single(Kind::Colon);
        }
        if let Some(keyword) = self.duration_keyword() {
            return Kind::Keyword(keyword);
        }
        let shown = quote_char(self.char());
        self.fail(format!("unexpected character: {shown}, expected ':'"))
    }

    fn word(&mut self) -> Kind {
        let length =
            self.rest().bytes().take_while(|byte| is_alphanumeric(*byte) || *byte == b':').count();
        let word = self.rest().get(..length).unwrap_or_default();
        self.pos += length;
        if let Some(kind) = keyword(word) {
            kind
        } else if word.contains(':') {
            Kind::MetricIdentifier
        } else {
            Kind::Identifier
        }
    }

    fn inside_braces(&mut self) -> Kind {
        let Some(byte) = self.byte() else {
            return self.fail("unexpected end of input inside braces".to_owned());
        };
        match byte {
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.pos += self.rest().bytes().take_while(|byte| is_alphanumeric(*byte)).count();
                Kind::Identifier
            }
            b',' => self.single(Kind::Comma),
            b'"' | b'\'' | b'`' => self.string(byte),
            b'=' => self.one_or_two(b'~', Kind::EqualRegex, Kind::Equal),
            b'!' => {
                self.pos += 1;
                match self.byte() {
                    Some(b'~') => self.single(Kind::NotEqualRegex),
                    Some(b'=') => self.single(Kind::Op(BinaryOp::Ne)),
                    _ => self.unexpected("unexpected character after '!' inside braces: "),
                }
            }
            b'{' => self.unexpected("unexpected left brace "),
            b'}' => {
                self.in_braces = false;
                self.single(Kind::RightBrace)
            }
            _ => self.unexpected("unexpected character inside braces: "),
        }
    }

    fn number_or_duration(&mut self) -> Kind {
        let scan = scan_number(self.rest().as_bytes(), false);
        self.pos += scan.length;
        if scan.valid {
            return Kind::Number;
        }
        let tail = scan_units(self.rest().as_bytes());
        self.pos += tail.length;
        if tail.valid {
            return Kind::Duration;
        }
        // The text that is shown ends behind the first character that cannot be right.
        if tail.complete {
            self.pos += self.char().map_or(0, char::len_utf8);
        }
        let text = self.text.get(self.start..self.pos).unwrap_or_default();
        let shown = quote(text);
        self.fail(format!("bad number or duration syntax: {shown}"))
    }

    fn string(&mut self, delimiter: u8) -> Kind {
        let raw = delimiter == b'`';
        self.pos += 1;
        loop {
            let rest = self.rest();
            // Everything up to the next character that matters.
            let plain = rest.bytes().take_while(|byte| {
                *byte != delimiter && *byte != b'\\' && *byte != b'\n' && *byte != 0xef
            });
            self.pos += plain.count();
            let Some(c) = self.char() else {
                let kind = if raw { "raw" } else { "quoted" };
                return self.fail(format!("unterminated {kind} string"));
            };
            self.pos += c.len_utf8();
            match c {
                '\n' if !raw => return self.fail("unterminated quoted string".to_owned()),
                char::REPLACEMENT_CHARACTER => return self.fail("invalid UTF-8 rune".to_owned()),
                '\\' if !raw => {
                    if let Err(message) = self.escape(delimiter) {
                        return self.fail(message);
                    }
                }
                c if c == char::from(delimiter) => return Kind::String,
                _ => {}
            }
        }
    }

    /// Skips an escape sequence whose backslash has been skipped.
    fn escape(&mut self, delimiter: u8) -> Result<(), String> {
        let unfinished = || "escape sequence not terminated".to_owned();
        let kind = self.char().ok_or_else(unfinished)?;
        let (count, radix) = match kind {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => (0, 0),
            c if c == char::from(delimiter) => (0, 0),
            '0'..='7' => (3, 8),
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            c => return Err(format!("unknown escape sequence {}", describe_char(c))),
        };
        if radix != 8 {
            self.pos += kind.len_utf8();
        }
        let mut code: u32 = 0;
        for _ in 0..count {
            let c = self.char().ok_or_else(unfinished)?;
            let digit = c.to_digit(radix).ok_or_else(|| {
                format!("illegal character {} in escape sequence", describe_char(c))
            })?;
            // At most eight hexadecimal digits fit.
            code = code.wrapping_mul(radix).wrapping_add(digit);
            self.pos += 1;
        }
        let limit = if matches!(kind, 'u' | 'U') { 0x10_ffff } else { 255 };
        if code > limit || (0xd800..0xe000).contains(&code) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }
}

fn arithmetic(byte: u8) -> Option<BinaryOp> {
    match byte {
        b'+' => Some(BinaryOp::Add),
        b'-' => Some(BinaryOp::Sub),
        b'*' => Some(BinaryOp::Mul),
        b'/' => Some(BinaryOp::Div),
        b'%' => Some(BinaryOp::Mod),
        b'^' => Some(BinaryOp::Pow),
        _ => None,
    }
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
