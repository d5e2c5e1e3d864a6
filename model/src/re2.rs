//! Regular expressions as Go's `regexp` reads them, which Prometheus uses, brought into the syntax of the `regex` crate.
//!
//! The two languages look alike and differ in the small: `{` that begins no repetition is a character, `\d`, `\w`, `\s` and
//! `\b` know ASCII only, classes know no set operators, `\Q…\E` quotes, repetitions end at 1000 and do not follow each
//! other. Everything is parsed here and written anew, so that no text reaches the other parser with its own meaning. The
//! rules are those of Go's `regexp/syntax` with the flags `Perl`; so are the texts of the errors.

use std::fmt::Write as _;

use crate::matcher::RegexError;

/// The largest count of a repetition, and the largest product of nested ones.
const REPEAT_MAX: u32 = 1000;
/// How deep groups may be nested. Go allows 1000; compiling takes stack for each.
const DEPTH_MAX: usize = 200;

/// `pattern` in the syntax of the `regex` crate.
///
/// # Errors
/// It is no expression to Go either.
pub(crate) fn translate(pattern: &str) -> Result<String, RegexError> {
    let out = String::with_capacity(pattern.len() + 8);
    Translator { whole: pattern, rest: pattern, out, atom_end: 0, names: Vec::new() }.run()
}

/// What stands before a repetition operator.
#[derive(Clone, Copy)]
enum Before<'a> {
    /// Nothing that could be repeated.
    Nothing,
    /// Something, with the largest product of repetitions in it.
    Atom(u32),
    /// A repetition, with the text that begins with its operator.
    Repetition(u32, &'a str),
}

impl Before<'_> {
    fn product(self) -> u32 {
        match self {
            Before::Nothing => 1,
            Before::Atom(product) | Before::Repetition(product, _) => product,
        }
    }
}

struct Translator<'a> {
    whole: &'a str,
    rest: &'a str,
    out: String,
    /// Where in `out` a repetition of the last atom is written: flags may follow the atom.
    atom_end: usize,
    /// Of groups.
    names: Vec<&'a str>,
}

impl<'a> Translator<'a> {
    fn run(mut self) -> Result<String, RegexError> {
        // The largest product of repetitions so far in each open group.
        let mut groups: Vec<u32> = Vec::new();
        let mut largest = 1;
        let mut before = Before::Nothing;
        while let Some(next) = self.rest.chars().next() {
            let at = self.rest;
            largest = largest.max(before.product());
            match next {
                '(' => {
                    if !self.opening()? {
                        // Flags are no atom: a repetition still means what stands before them.
                        if let Before::Repetition(product, _) = before {
                            before = Before::Atom(product);
                        }
                        continue;
                    }
                    if groups.len() >= DEPTH_MAX {
                        return Err(error("expression nests too deeply", self.whole));
                    }
                    groups.push(largest);
                    largest = 1;
                    before = Before::Nothing;
                }
                ')' => {
                    let Some(outer) = groups.pop() else {
                        return Err(error("unexpected )", self.whole));
                    };
                    self.copy(1);
                    before = Before::Atom(largest);
                    largest = outer;
                }
                '|' => {
                    self.copy(1);
                    before = Before::Nothing;
                }
                '*' | '+' | '?' => {
                    self.skip(1);
                    before = self.repeated(at, before, before.product())?;
                }
                '{' => match self.counts()? {
                    Some((length, count)) => {
                        self.skip(length);
                        let shown = at.get(..length).unwrap_or(at);
                        let product = before.product().saturating_mul(count.max(1));
                        if count > REPEAT_MAX || count >= 2 && product > REPEAT_MAX {
                            return Err(error("invalid repeat count", shown));
                        }
                        before = self.repeated(at, before, product)?;
                    }
                    None => before = self.character('{'),
                },
                '[' => {
                    self.class()?;
                    before = Before::Atom(1);
                }
                '\\' => before = self.escape(before)?,
                '.' | '^' | '$' => {
                    self.copy(1);
                    before = Before::Atom(1);
                }
                other => before = self.character(other),
            }
            self.atom_end = self.out.len();
        }
        if groups.is_empty() { Ok(self.out) } else { Err(error("missing closing )", self.whole)) }
    }

    fn skip(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn copy(&mut self, bytes: usize) {
        let taken = self.skip(bytes);
        self.out.push_str(taken);
    }

    fn character(&mut self, c: char) -> Before<'a> {
        self.skip(c.len_utf8());
        push_literal(&mut self.out, c);
        Before::Atom(1)
    }

    /// After a repetition operator that began at `at`.
    fn repeated(
        &mut self,
        at: &'a str,
        before: Before<'a>,
        product: u32,
    ) -> Result<Before<'a>, RegexError> {
        if self.rest.starts_with('?') {
            self.skip(1);
        }
        let shown = |from: &'a str| from.get(..from.len() - self.rest.len()).unwrap_or(from);
        self.out.insert_str(self.atom_end, shown(at));
        match before {
            Before::Nothing => Err(error("missing argument to repetition operator", shown(at))),
            Before::Repetition(_, from) => {
                Err(error("invalid nested repetition operator", shown(from)))
            }
            Before::Atom(_) => Ok(Before::Repetition(product, at)),
        }
    }

    /// The length of `{n}`, `{n,}` or `{n,m}` and its largest count; `None` where it is something else.
    fn counts(&self) -> Result<Option<(usize, u32)>, RegexError> {
        let Some(inner) = self.rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            return Ok(None);
        };
        let inner = inner.0;
        let (min, max) = match inner.split_once(',') {
            None => (inner, Some(inner)),
            Some((min, "")) => (min, None),
            Some((min, max)) => (min, Some(max)),
        };
        let is_number = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_digit())
                && (text == "0" || !text.starts_with('0'))
        };
        if !is_number(min) || !max.is_none_or(is_number) {
            return Ok(None);
        }
        let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
        let (min, max) = (number(min), max.map(number));
        let length = inner.len() + 2;
        if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || max < min) {
            let shown = self.rest.get(..length).unwrap_or(self.rest);
            return Err(error("invalid repeat count", shown));
        }
        Ok(Some((length, max.unwrap_or(min))))
    }

    /// `(` and what belongs to it; whether a group is open now.
    fn opening(&mut self) -> Result<bool, RegexError> {
        let at = self.rest;
        let Some(special) = at.strip_prefix("(?") else {
            self.copy(1);
            return Ok(true);
        };
        if let Some(named) = special.strip_prefix("P<").or_else(|| special.strip_prefix('<')) {
            let Some((name, _)) = named.split_once('>') else {
                return Err(error("invalid named capture", at));
            };
            let length = at.len() - named.len() + name.len() + 1;
            let shown = at.get(..length).unwrap_or(at);
            let is_valid = |name: &str| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            if !is_valid(name) {
                return Err(error("invalid named capture", shown));
            }
            self.skip(length);
            // A name of digits is a number to who refers to it, and of equal names the first one counts.
            if self.names.contains(&name) || name.starts_with(|c: char| c.is_ascii_digit()) {
                self.out.push('(');
            } else {
                self.names.push(name);
                // Writing cannot fail: it is memory.
                let _ = write!(self.out, "(?P<{name}>");
            }
            return Ok(true);
        }
        let mut saw_flag = false;
        let mut is_negative = false;
        let mut flags = String::new();
        for (offset, c) in special.char_indices() {
            let end = 2 + offset + c.len_utf8();
            match c {
                'i' | 'm' | 's' | 'U' => {
                    saw_flag = true;
                    if !flags.rsplit('-').next().is_some_and(|flags| flags.contains(c)) {
                        flags.push(c);
                    }
                }
                '-' if !is_negative => {
                    is_negative = true;
                    saw_flag = false;
                    flags.push('-');
                }
                ':' | ')' if !is_negative || saw_flag => {
                    self.skip(end);
                    // The crate knows no `(?)`.
                    if c == ':' || !flags.is_empty() {
                        let _ = write!(self.out, "(?{flags}{c}");
                    }
                    return Ok(c == ':');
                }
                _ => {
                    let shown = at.get(..end).unwrap_or(at);
                    return Err(error("invalid or unsupported Perl syntax", shown));
                }
            }
        }
        Err(error("invalid or unsupported Perl syntax", at))
    }

    /// A backslash outside a class.
    fn escape(&mut self, before: Before<'a>) -> Result<Before<'a>, RegexError> {
        if let Some(quoted) = self.rest.strip_prefix("\\Q") {
            let (text, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            self.rest = rest;
            text.chars().for_each(|c| push_literal(&mut self.out, c));
            return Ok(if text.is_empty() { before } else { Before::Atom(1) });
        }
        let second = self.rest.chars().nth(1);
        match second {
            Some('A' | 'z') => self.copy(2),
            Some('b' | 'B') => {
                let boundary = self.skip(2);
                // Writing cannot fail: it is memory.
                let _ = write!(self.out, "(?-u:{boundary})");
            }
            Some('p' | 'P') => self.unicode_class()?,
            Some(c) if perl_class(c).is_some() => {
                let (items, negated) = perl_class(c).unwrap_or_default();
                self.skip(2);
                let sign = if negated { "^" } else { "" };
                let _ = write!(self.out, "[{sign}{items}]");
            }
            _ => {
                let c = self.escaped_character()?;
                push_code(&mut self.out, c);
            }
        }
        Ok(Before::Atom(1))
    }

    /// `\pN`, `\p{Greek}`, `\P…`, also inside classes.
    fn unicode_class(&mut self) -> Result<(), RegexError> {
        let at = self.rest;
        let invalid = |shown: &str| error("invalid character class range", shown);
        let mut negated = at.starts_with("\\P");
        let after = at.get(2..).unwrap_or_default();
        let (mut name, length) = match after.strip_prefix('{') {
            Some(braced) => match braced.split_once('}') {
                Some((name, _)) => (name, 2 + name.len() + 2),
                None => return Err(invalid(at)),
            },
            None => match after.chars().next() {
                Some(c) => (after.get(..c.len_utf8()).unwrap_or_default(), 2 + c.len_utf8()),
                None => return Err(invalid(at)),
            },
        };
        if let Some(positive) = name.strip_prefix('^') {
            negated = !negated;
            name = positive;
        }
        let shown = self.skip(length);
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let written = format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' });
        // Go knows the short names of categories, scripts, and `Any`, each with its capital letter.
        let known = match name.len() {
            1 | 2 => written.clone(),
            _ if name == "Any" => written.clone(),
            _ => format!("\\p{{Script={name}}}"),
        };
        let is_capital = name.starts_with(|c: char| c.is_ascii_uppercase());
        if !is_name || !is_capital || regex::Regex::new(&known).is_err() {
            return Err(invalid(shown));
        }
        self.out.push_str(&written);
        Ok(())
    }

    /// A character behind a backslash, as its code.
    fn escaped_character(&mut self) -> Result<u32, RegexError> {
        let at = self.rest;
        let mut chars = at.chars();
        chars.next();
        let Some(c) = chars.next() else {
            return Err(error("trailing backslash at end of expression", ""));
        };
        let mut length = 1 + c.len_utf8();
        let invalid =
            |length: usize| error("invalid escape sequence", at.get(..length).unwrap_or(at));
        let digits = chars.as_str();
        let code = match c {
            '0'..='7' => {
                let is_octal = |b: u8| (b'0'..=b'7').contains(&b);
                // A single digit but 0 would refer to a group, which does not exist here.
                if c != '0' && !digits.bytes().next().is_some_and(is_octal) {
                    return Err(invalid(length));
                }
                let more = digits.bytes().take(2).take_while(|b| is_octal(*b)).count();
                length += more;
                let text = at.get(1..length).unwrap_or_default();
                u32::from_str_radix(text, 8).map_err(|_| invalid(length))?
            }
            'x' => {
                let (hex, more) = match digits.strip_prefix('{') {
                    Some(braced) => {
                        let (hex, _) = braced.split_once('}').ok_or_else(|| invalid(at.len()))?;
                        (hex, hex.len() + 2)
                    }
                    None => (digits.get(..2).ok_or_else(|| invalid(at.len()))?, 2),
                };
                length += more;
                let start = if digits.starts_with('{') { 3 } else { 2 };
                let mut code = 0;
                for (offset, digit) in hex.char_indices() {
                    let shown = if start == 3 { start + offset + digit.len_utf8() } else { length };
                    let value = digit.to_digit(16).ok_or_else(|| invalid(shown))?;
                    code = code * 16 + value;
                    if code > 0x0010_FFFF {
                        return Err(invalid(shown));
                    }
                }
                if hex.is_empty() {
                    return Err(invalid(length));
                }
                code
            }
            'a' => 7,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
            _ => return Err(invalid(length)),
        };
        self.skip(length);
        Ok(code)
    }

    /// `[…]`.
    fn class(&mut self) -> Result<(), RegexError> {
        let at = self.rest;
        self.skip(1);
        self.out.push('[');
        if self.rest.starts_with('^') {
            self.copy(1);
        }
        let mut is_first = true;
        while is_first || !self.rest.starts_with(']') {
            is_first = false;
            if self.named_class()? {
                continue;
            }
            let second = self.rest.strip_prefix('\\').and_then(|rest| rest.chars().next());
            if matches!(second, Some('p' | 'P')) {
                self.unicode_class()?;
                continue;
            }
            if let Some((items, negated)) = second.and_then(perl_class) {
                self.skip(2);
                if negated {
                    let _ = write!(self.out, "[^{items}]");
                } else {
                    self.out.push_str(items);
                }
                continue;
            }
            self.class_range(at)?;
        }
        self.copy(1);
        Ok(())
    }

    /// One character of the class that begins at `class`, or a range.
    fn class_range(&mut self, class: &'a str) -> Result<(), RegexError> {
        let from = self.rest;
        let low = self.class_character(class)?;
        let mut high = low;
        if self.rest.starts_with('-') && self.rest.len() >= 2 && !self.rest.starts_with("-]") {
            self.skip(1);
            high = self.class_character(class)?;
            if high < low {
                let shown = from.get(..from.len() - self.rest.len()).unwrap_or(from);
                return Err(error("invalid character class range", shown));
            }
        }
        // Halves of surrogate pairs are never part of a text.
        let (low, high) = match (char::from_u32(low), char::from_u32(high)) {
            (None, None) => {
                push_code(&mut self.out, 0xD800);
                return Ok(());
            }
            (low, high) => (low.unwrap_or('\u{E000}'), high.unwrap_or('\u{D7FF}')),
        };
        push_code(&mut self.out, u32::from(low));
        if low != high {
            self.out.push('-');
            push_code(&mut self.out, u32::from(high));
        }
        Ok(())
    }

    fn class_character(&mut self, class: &'a str) -> Result<u32, RegexError> {
        match self.rest.chars().next() {
            None => Err(error("missing closing ]", class)),
            Some('\\') => self.escaped_character(),
            Some(c) => {
                self.skip(c.len_utf8());
                Ok(u32::from(c))
            }
        }
    }

    /// `[:alpha:]` inside a class; whether there is one.
    fn named_class(&mut self) -> Result<bool, RegexError> {
        let Some((name, _)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]"))
        else {
            return Ok(false);
        };
        let shown = self.skip(name.len() + 4);
        let known = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print",
            "punct", "space", "upper", "word", "xdigit",
        ];
        if !known.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(error("invalid character class range", shown));
        }
        self.out.push_str(shown);
        Ok(true)
    }
}

/// The members of `\d`, `\s`, `\w`, and whether the class is what they are not.
fn perl_class(c: char) -> Option<(&'static str, bool)> {
    let items = match c.to_ascii_lowercase() {
        'd' => "0-9",
        's' => r"\t\n\f\r ",
        'w' => "0-9A-Za-z_",
        _ => return None,
    };
    Some((items, c.is_ascii_uppercase()))
}

fn push_literal(out: &mut String, c: char) {
    if c.is_alphanumeric() || c == '_' || c == '/' || c == ':' {
        out.push(c);
    } else {
        push_code(out, u32::from(c));
    }
}

/// A code that is no character of a text matches nothing.
fn push_code(out: &mut String, code: u32) {
    // Writing cannot fail: it is memory.
    let _ = match char::from_u32(code) {
        Some(c) if c.is_ascii_alphanumeric() => write!(out, "{c}"),
        Some(_) => write!(out, "\\x{{{code:X}}}"),
        None => write!(out, r"[^\x{{0}}-\x{{10FFFF}}]"),
    };
}

fn error(what: &str, shown: &str) -> RegexError {
    RegexError { message: format!("{what}: `{shown}`") }
}

#[cfg(test)]
mod tests;
