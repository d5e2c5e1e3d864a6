//! A template's text in tokens, as Go's `text/template/parse` cuts it.

use super::number::{is_printable, quote};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Error,
    End,
    Text,
    Left,
    Right,
    Space,
    Assign,
    Declare,
    Pipe,
    Open,
    Close,
    Char,
    Quoted,
    CharConstant,
    Number,
    Bool,
    Nil,
    Dot,
    Field,
    Variable,
    Identifier,
    Keyword,
}

/// A piece of the text.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Byte in the text.
    pub(super) at: usize,
    /// Counted from 1.
    pub(super) line: usize,
    /// As it is written; of an error, what is wrong.
    pub(super) text: String,
}

impl Token {
    /// As messages show it.
    pub(super) fn describe(&self) -> String {
        match self.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Error => self.text.clone(),
            Kind::Keyword | Kind::Dot | Kind::Nil => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                let begin: String = self.text.chars().take(10).collect();
                format!("{}...", quote(&begin))
            }
            _ => quote(&self.text),
        }
    }
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
const LEFT_COMMENT: &str = "/*";
const RIGHT_COMMENT: &str = "*/";

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `- ` after `{{`.
fn trims_left(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space))
}

/// ` -` before `}}`.
fn trims_right(text: &str) -> bool {
    text.strip_prefix(is_space).is_some_and(|rest| rest.starts_with('-'))
}

/// How long what closes an action is, if `text` begins with it, and whether it trims what follows.
fn closing(text: &str) -> Option<(usize, bool)> {
    if trims_right(text) && text.get(2..).is_some_and(|rest| rest.starts_with(RIGHT)) {
        return Some((2 + RIGHT.len(), true));
    }
    text.starts_with(RIGHT).then_some((RIGHT.len(), false))
}

/// Cuts one text; each call gives the next token, and after an error or the end nothing new.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    in_action: bool,
    open: usize,
    /// Whether blanks before the next text are left out.
    trim: bool,
    last: Option<Token>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, in_action: false, open: 0, trim: false, last: None }
    }

    pub(super) fn next(&mut self) -> Token {
        if let Some(last) = &self.last {
            return last.clone();
        }
        let token = if self.in_action { self.inside() } else { self.outside() };
        if matches!(token.kind, Kind::Error | Kind::End) {
            self.last = Some(token.clone());
        }
        token
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Goes on by `bytes`, all of them one token.
    fn token(&mut self, kind: Kind, bytes: usize) -> Token {
        let text = self.rest().get(..bytes).unwrap_or(self.rest()).to_owned();
        let token = Token { kind, at: self.at, line: self.line, text };
        self.skip(bytes);
        token
    }

    fn skip(&mut self, bytes: usize) {
        let passed = self.rest().get(..bytes).unwrap_or(self.rest());
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
        self.at += passed.len();
    }

    fn error(&self, text: impl Into<String>) -> Token {
        Token { kind: Kind::Error, at: self.at, line: self.line, text: text.into() }
    }

    fn unrecognized(&self, what: &str, c: char) -> Token {
        let shown = if is_printable(c) { format!(" '{c}'") } else { String::new() };
        self.error(format!("{what} U+{:04X}{shown}", c as u32))
    }

    /// Text up to the next action, comments left out.
    fn outside(&mut self) -> Token {
        loop {
            if std::mem::take(&mut self.trim) {
                let rest = self.rest();
                self.skip(rest.len() - rest.trim_start_matches(is_space).len());
            }
            let rest = self.rest();
            let Some(found) = rest.find(LEFT) else {
                let kind = if rest.is_empty() { Kind::End } else { Kind::Text };
                return self.token(kind, rest.len());
            };
            let inside = rest.get(found + LEFT.len()..).unwrap_or_default();
            let marker = if trims_left(inside) { 2 } else { 0 };
            let text = rest.get(..found).unwrap_or_default();
            let kept = if marker > 0 { text.trim_end_matches(is_space) } else { text };
            if !kept.is_empty() {
                let token = self.token(Kind::Text, kept.len());
                self.skip(text.len() - kept.len());
                return token;
            }
            self.skip(text.len());
            let inside = inside.get(marker..).unwrap_or_default();
            if !inside.starts_with(LEFT_COMMENT) {
                let token = self.token(Kind::Left, LEFT.len());
                self.skip(marker);
                self.in_action = true;
                self.open = 0;
                return token;
            }
            self.skip(LEFT.len() + marker);
            if let Err(error) = self.comment() {
                return error;
            }
        }
    }

    fn comment(&mut self) -> Result<(), Token> {
        let rest = self.rest();
        let Some(end) = rest.find(RIGHT_COMMENT) else {
            return Err(self.error("unclosed comment"));
        };
        let end = end + RIGHT_COMMENT.len();
        let Some((length, trim)) = closing(rest.get(end..).unwrap_or_default()) else {
            return Err(self.error("comment ends before closing delimiter"));
        };
        self.skip(end + length);
        self.trim = trim;
        Ok(())
    }

    fn inside(&mut self) -> Token {
        let rest = self.rest();
        if let Some((length, trim)) = closing(rest) {
            if self.open > 0 {
                return self.error("unclosed left paren");
            }
            if trim {
                // The blank and the minus.
                self.skip(2);
            }
            let token = self.token(Kind::Right, if trim { length - 2 } else { length });
            self.trim = trim;
            self.in_action = false;
            return token;
        }
        let Some(c) = self.peek() else { return self.error("unclosed action") };
        match c {
            c if is_space(c) => self.space(),
            '=' => self.token(Kind::Assign, 1),
            ':' if rest.starts_with(":=") => self.token(Kind::Declare, 2),
            ':' => self.error("expected :="),
            '|' => self.token(Kind::Pipe, 1),
            '"' => self.quoted('"', Kind::Quoted, "unterminated quoted string"),
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant"),
            '`' => match rest.get(1..).and_then(|inner| inner.find('`')) {
                Some(end) => self.token(Kind::Quoted, end + 2),
                None => self.error("unterminated raw quoted string"),
            },
            '$' => self.name(Kind::Variable),
            '.' if !rest.get(1..).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())) => {
                self.name(Kind::Field)
            }
            '.' | '+' | '-' | '0'..='9' => self.number(),
            c if is_alphanumeric(c) => self.word(),
            '(' => {
                self.open += 1;
                self.token(Kind::Open, 1)
            }
            ')' if self.open == 0 => self.error("unexpected right paren"),
            ')' => {
                self.open -= 1;
                self.token(Kind::Close, 1)
            }
            c if c.is_ascii() && is_printable(c) => self.token(Kind::Char, 1),
            c => self.unrecognized("unrecognized character in action:", c),
        }
    }

    /// Blanks up to one that belongs to ` -}}`.
    fn space(&mut self) -> Token {
        let rest = self.rest();
        let mut length = rest.len() - rest.trim_start_matches(is_space).len();
        let last = rest.get(..length).and_then(|blanks| blanks.char_indices().next_back());
        if let Some((before, _)) = last
            && before > 0
            && matches!(closing(rest.get(before..).unwrap_or_default()), Some((_, true)))
        {
            length = before;
        }
        self.token(Kind::Space, length)
    }

    fn quoted(&mut self, delimiter: char, kind: Kind, unterminated: &str) -> Token {
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == delimiter => return self.token(kind, at + 1),
                _ => {}
            }
        }
        self.error(unterminated)
    }

    /// The length of the run of letters and digits from `from` on.
    fn run(&self, from: usize) -> usize {
        let rest = self.rest().get(from..).unwrap_or_default();
        from + rest.len() - rest.trim_start_matches(is_alphanumeric).len()
    }

    /// A field or a variable, which begins with a mark.
    fn name(&mut self, kind: Kind) -> Token {
        let length = self.run(1);
        if length == 1 && kind == Kind::Field && self.ends_at(1) {
            return self.token(Kind::Dot, 1);
        }
        self.ended(kind, length)
    }

    fn word(&mut self) -> Token {
        let length = self.run(0);
        let kind = match self.rest().get(..length).unwrap_or_default() {
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            "block" | "break" | "continue" | "define" | "else" | "end" | "if" | "range"
            | "template" | "with" => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.ended(kind, length)
    }

    /// Whether a word may end before the byte `length` of the rest.
    fn ends_at(&self, length: usize) -> bool {
        let after = self.rest().get(length..).unwrap_or_default();
        match after.chars().next() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(c) => is_space(c) || after.starts_with(RIGHT),
        }
    }

    fn ended(&mut self, kind: Kind, length: usize) -> Token {
        if self.ends_at(length) {
            return self.token(kind, length);
        }
        let after = self.rest().get(length..).unwrap_or_default();
        let bad = after.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
        self.unrecognized("bad character", bad)
    }

    fn number(&mut self) -> Token {
        let rest = self.rest();
        let mut length = number_length(rest);
        let after = rest.get(length..).unwrap_or_default();
        let bad = if after.starts_with(is_alphanumeric) {
            length += after.chars().next().map_or(0, char::len_utf8);
            true
        } else if after.starts_with(['+', '-']) {
            // Real and imaginary part; there are no complex numbers here.
            length += number_length(after);
            true
        } else {
            false
        };
        if bad {
            let shown = quote(rest.get(..length).unwrap_or_default());
            return self.error(format!("bad number syntax: {shown}"));
        }
        self.token(Kind::Number, length)
    }
}

/// How many bytes of `text` belong to the number that it begins with.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let accept = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|byte| set.contains(byte));
    let run = |mut at: usize, set: &[u8]| {
        while accept(at, set) {
            at += 1;
        }
        at
    };
    let mut at = usize::from(accept(0, b"+-"));
    let mut digits: &[u8] = b"0123456789_";
    if accept(at, b"0") {
        at += 1;
        let hexadecimal: &[u8] = b"0123456789abcdefABCDEF_";
        for (marks, set) in [(b"xX", hexadecimal), (b"oO", b"01234567_"), (b"bB", b"01_")] {
            if accept(at, marks) {
                at += 1;
                digits = set;
                break;
            }
        }
    }
    at = run(at, digits);
    if accept(at, b".") {
        at = run(at + 1, digits);
    }
    let exponent: &[u8] = match digits.len() {
        11 => b"eE",
        23 => b"pP",
        _ => b"",
    };
    if accept(at, exponent) {
        at += 1;
        at += usize::from(accept(at, b"+-"));
        at = run(at, b"0123456789_");
    }
    if accept(at, b"i") {
        at += 1;
    }
    at
}
