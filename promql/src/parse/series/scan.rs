//! Small pieces of series descriptions.

use stint_model::Span;

use crate::parse::ast::PosRange;
use crate::parse::lexer::{is_space, scan_number};
use crate::parse::literal::{parse_duration, parse_number, quote};

/// What is wrong, and where.
pub(super) type Mistake = (PosRange, String);

/// A place in a text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    pos: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, pos: usize) -> Self {
        Self { text, pos }
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    pub(super) fn pos(&self) -> u32 {
        self.pos as u32
    }

    /// A mistake here.
    pub(super) fn mistake(&self, message: &str) -> Mistake {
        (PosRange::new(self.pos(), self.text.len() as u32), message.to_owned())
    }

    /// What is here was not expected.
    pub(super) fn unexpected(&self, context: &str, expected: &str) -> Mistake {
        let here = self.rest().split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
        let shown = if here.is_empty() { "end of input".to_owned() } else { quote(here) };
        self.mistake(&format!("unexpected {shown} in {context}, expected {expected}"))
    }

    /// Skips `word` if it is here.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let here = self.rest().starts_with(word);
        if here {
            self.pos += word.len();
        }
        here
    }

    /// Skips spaces; whether there were any.
    pub(super) fn skip_space(&mut self) -> bool {
        !self.take_while(is_space).is_empty()
    }

    /// The text here of which each byte passes `keep` (which must keep to ASCII), skipped.
    pub(super) fn take_while(&mut self, keep: fn(u8) -> bool) -> &'a str {
        let length = self.rest().bytes().take_while(|byte| keep(*byte)).count();
        let taken = self.rest().get(..length).unwrap_or_default();
        self.pos += length;
        taken
    }

    /// A number without sign or point.
    pub(super) fn whole(&mut self) -> Result<u64, Mistake> {
        let before = self.clone();
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        digits.parse().map_err(|_| {
            before.mistake(&format!("invalid repetition in series values: {}", quote(digits)))
        })
    }

    /// A number with or without sign: decimal, `Inf`, `NaN`, or a duration as seconds.
    pub(super) fn number(&mut self, context: &str, expected: &str) -> Result<f64, Mistake> {
        let before = self.clone();
        let sign = self.sign();
        let rest = self.rest();
        for word in ["Inf", "NaN"] {
            if rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)) {
                self.pos += word.len();
                let value = if word == "Inf" { f64::INFINITY } else { f64::NAN };
                return Ok(sign * value);
            }
        }
        let scan = scan_number(rest.as_bytes(), true);
        let text = rest.get(..scan.length).unwrap_or_default();
        if scan.valid {
            self.pos += scan.length;
            return parse_number(text).map(|value| sign * value).map_err(|e| before.mistake(&e));
        }
        if text.is_empty() {
            return Err(before.unexpected(context, expected));
        }
        let span = self.duration_text()?;
        Ok(sign * (span.as_ms() as f64 / 1000.0))
    }

    /// A length of time with or without sign.
    pub(super) fn duration(&mut self) -> Result<Span, Mistake> {
        let negative = self.sign() < 0.0;
        let span = self.duration_text()?;
        Ok(if negative { Span(-span.0) } else { span })
    }

    fn duration_text(&mut self) -> Result<Span, Mistake> {
        let before = self.clone();
        // An `x` begins a repetition.
        let text = self.take_while(|byte| byte.is_ascii_alphanumeric() && byte != b'x');
        parse_duration(text).map_err(|message| before.mistake(&message))
    }

    fn sign(&mut self) -> f64 {
        if self.take("-") {
            -1.0
        } else {
            self.take("+");
            1.0
        }
    }
}
