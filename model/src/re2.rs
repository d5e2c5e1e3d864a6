//! Regular expressions as Go reads them (RE2's syntax), in the words of the `regex` crate.
//!
//! The two languages look alike and differ in what matters: Go's `\d`, `\s`, `\w` and `\b` know
//! ASCII only, a brace that counts nothing is a character, `[` inside a class is one too, `\Q…\E`
//! quotes, and a repetition of a repetition is an error.

use std::fmt::Write as _;

use crate::matcher::RegexError;

/// The most that a repetition may ask for, nested ones multiplied.
const REPEAT_MAX: u64 = 1000;
/// How deep groups may nest.
const DEPTH_MAX: usize = 200;

/// `pattern` in the syntax of the `regex` crate.
///
/// # Errors
/// What Go refuses, in its words.
pub(crate) fn translate(pattern: &str) -> Result<String, RegexError> {
    let mut reader = Reader { pattern, rest: pattern, out: String::with_capacity(pattern.len()) };
    reader.alternatives(0)?;
    if reader.rest.is_empty() { Ok(reader.out) } else { Err(error("unexpected )", pattern)) }
}

fn error(what: &str, place: &str) -> RegexError {
    RegexError { message: format!("{what}: `{place}`") }
}

struct Reader<'a> {
    pattern: &'a str,
    rest: &'a str,
    out: String,
}

/// How often an expression repeats something at most, nested repetitions multiplied.
type Weight = u64;

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// What was read since `before` was all that was left.
    fn since(&self, before: &'a str) -> &'a str {
        before.get(..before.len() - self.rest.len()).unwrap_or_default()
    }

    /// Up to the end or to a `)`, which stays.
    fn alternatives(&mut self, depth: usize) -> Result<Weight, RegexError> {
        if depth > DEPTH_MAX {
            return Err(error("expression nests too deeply", self.pattern));
        }
        let mut heaviest = 1;
        // Weight of what a repetition would repeat, and where the last repetition stands.
        let mut last: Option<Weight> = None;
        let mut repeated: Option<&'a str> = None;
        while let Some(next) = self.peek() {
            let before = self.rest;
            match next {
                ')' => break,
                '|' => {
                    self.next();
                    self.out.push('|');
                    (last, repeated) = (None, None);
                    continue;
                }
                '*' | '+' | '?' | '{' => {
                    if let Some((least, most)) = self.repetition()? {
                        if let Some(first) = repeated {
                            let place = first.get(..first.len() - self.rest.len());
                            let what = "invalid nested repetition operator";
                            return Err(error(what, place.unwrap_or_default()));
                        }
                        let Some(weight) = last else {
                            let what = "missing argument to repetition operator";
                            return Err(error(what, self.since(before)));
                        };
                        let weight = weight.saturating_mul(most.unwrap_or(least));
                        if weight > REPEAT_MAX {
                            return Err(error("invalid repeat count", self.since(before)));
                        }
                        heaviest = heaviest.max(weight);
                        self.out.push_str(self.since(before));
                        repeated = Some(before);
                        continue;
                    }
                    self.next();
                    self.literal(next);
                    last = Some(1);
                }
                '(' => last = self.group(depth)?.or(last),
                '[' => {
                    self.class()?;
                    last = Some(1);
                }
                '\\' => last = self.escape()?.or(last),
                '.' | '^' | '$' => {
                    self.next();
                    self.out.push(next);
                    last = Some(1);
                }
                _ => {
                    self.next();
                    self.literal(next);
                    last = Some(1);
                }
            }
            heaviest = heaviest.max(last.unwrap_or(1));
            repeated = None;
        }
        Ok(heaviest)
    }

    fn literal(&mut self, character: char) {
        if character.is_ascii() && !character.is_ascii_alphanumeric() && character != '_' {
            // Writing to a string cannot fail.
            let _ = write!(self.out, "\\x{{{:x}}}", u32::from(character));
        } else {
            self.out.push(character);
        }
    }

    /// Reads a repetition with its `?`: least and most. `None` for a brace that counts nothing.
    fn repetition(&mut self) -> Result<Option<(u64, Option<u64>)>, RegexError> {
        let before = self.rest;
        let range = match self.next() {
            Some('*' | '+') => (1, None),
            Some('?') => (1, Some(1)),
            _ => {
                let Some((least, most)) = self.counts() else {
                    self.rest = before;
                    return Ok(None);
                };
                let high = most.unwrap_or(least);
                if high > REPEAT_MAX || least > high {
                    return Err(error("invalid repeat count", self.since(before)));
                }
                (least, most)
            }
        };
        self.eat("?");
        Ok(Some(range))
    }

    /// `n}`, `n,}` or `n,m}`.
    fn counts(&mut self) -> Option<(u64, Option<u64>)> {
        let least = self.number()?;
        let most = if self.eat(",") {
            if self.rest.starts_with('}') { None } else { Some(self.number()?) }
        } else {
            Some(least)
        };
        self.eat("}").then_some((least, most))
    }

    fn number(&mut self) -> Option<u64> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        self.rest = rest;
        Some(digits.parse().unwrap_or(u64::MAX))
    }

    /// A group, or a change of flags, which is nothing that could be repeated.
    fn group(&mut self, depth: usize) -> Result<Option<Weight>, RegexError> {
        let before = self.rest;
        self.next();
        self.out.push('(');
        if self.eat("?") {
            self.out.push('?');
            if self.eat("P<") || self.eat("<") {
                let end = self.rest.find('>');
                let Some(end) = end else {
                    return Err(error("invalid named capture", before));
                };
                let (name, rest) = self.rest.split_at(end);
                self.rest = rest;
                self.next();
                if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
                    return Err(error("invalid named capture", self.since(before)));
                }
                // The crate wants no digit first, and numbers are what such a name stands for.
                let _ = write!(self.out, "P<{name}>");
            } else if self.flags(before)? {
                return Ok(None);
            }
        }
        let weight = self.alternatives(depth + 1)?;
        if !self.eat(")") {
            return Err(error("missing closing )", self.pattern));
        }
        self.out.push(')');
        Ok(Some(weight))
    }

    /// `ims-U:` or `ims-U)`; whether it is the latter.
    fn flags(&mut self, before: &'a str) -> Result<bool, RegexError> {
        let mut negated = false;
        let mut any = false;
        loop {
            match self.next() {
                Some(flag @ ('i' | 'm' | 's' | 'U')) => {
                    any = true;
                    self.out.push(flag);
                }
                Some('-') if !negated => {
                    (negated, any) = (true, false);
                    self.out.push('-');
                }
                Some(end @ (':' | ')')) if any || !negated => {
                    // `(?)` and `(?:` are as good as nothing.
                    if end == ')' && self.out.ends_with('?') {
                        self.out.pop();
                    }
                    self.out.push(end);
                    return Ok(end == ')');
                }
                None => return Err(error("missing closing )", self.pattern)),
                Some(_) => {
                    let what = "invalid or unsupported Perl syntax";
                    return Err(error(what, self.since(before)));
                }
            }
        }
    }

    /// An escape outside of a class; `None` for an empty quotation.
    fn escape(&mut self) -> Result<Option<Weight>, RegexError> {
        let before = self.rest;
        self.next();
        let fixed = match self.peek() {
            Some('A') => r"\A",
            Some('z') => r"\z",
            Some('b') => r"(?-u:\b)",
            Some('B') => r"(?-u:\B)",
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            Some('s') => r"[\t\n\x0C\r ]",
            Some('S') => r"[^\t\n\x0C\r ]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some('Q') => {
                self.next();
                let end = self.rest.find("\\E");
                let quoted = self.rest.get(..end.unwrap_or(self.rest.len())).unwrap_or_default();
                self.rest = self.rest.get(quoted.len()..).unwrap_or_default();
                self.eat("\\E");
                quoted.chars().for_each(|character| self.literal(character));
                return Ok((!quoted.is_empty()).then_some(1));
            }
            Some('p' | 'P') => {
                self.property(before)?;
                return Ok(Some(1));
            }
            _ => {
                let character = self.escaped(before)?;
                self.literal(character);
                return Ok(Some(1));
            }
        };
        self.next();
        self.out.push_str(fixed);
        Ok(Some(1))
    }

    /// `pN`, `p{Greek}`, `P{^Greek}`, behind the backslash.
    fn property(&mut self, before: &'a str) -> Result<(), RegexError> {
        let mut negated = self.next() == Some('P');
        let name = if self.eat("{") {
            let Some(end) = self.rest.find('}') else {
                return Err(error("invalid character class range", before));
            };
            let (name, rest) = self.rest.split_at(end);
            self.rest = rest;
            self.next();
            name
        } else {
            let at = self.rest;
            self.next();
            self.since(at)
        };
        let bare = name.strip_prefix('^').unwrap_or(name);
        negated ^= bare.len() < name.len();
        // The crate knows more than categories and scripts, and reads their names loosely.
        if bare.is_empty() || !bare.chars().all(|c| c == '_' || c.is_ascii_alphabetic()) {
            return Err(error("invalid character class range", self.since(before)));
        }
        if bare != "Any" {
            let _ = write!(self.out, "\\{}{{{bare}}}", if negated { 'P' } else { 'p' });
        } else if negated {
            self.out.push_str(r"[^\x{0}-\x{10FFFF}]");
        } else {
            self.out.push_str(r"[\x{0}-\x{10FFFF}]");
        }
        Ok(())
    }

    /// The character that an escape stands for, behind the backslash.
    fn escaped(&mut self, before: &'a str) -> Result<char, RegexError> {
        let Some(next) = self.next() else {
            return Err(error("trailing backslash at end of expression", ""));
        };
        let code = match next {
            'a' => 7,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '0' | '1'..='7'
                if next == '0' || self.rest.starts_with(|c| ('0'..='7').contains(&c)) =>
            {
                let mut code = next.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    self.next();
                    code = code * 8 + digit;
                }
                code
            }
            'x' => {
                let code = self.hexadecimal();
                code.ok_or_else(|| error("invalid escape sequence", self.since(before)))?
            }
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => u32::from(other),
            _ => return Err(error("invalid escape sequence", self.since(before))),
        };
        char::from_u32(code).ok_or_else(|| error("invalid escape sequence", self.since(before)))
    }

    /// `41` or `{1F600}`.
    fn hexadecimal(&mut self) -> Option<u32> {
        let digits = if self.eat("{") {
            let end = self.rest.find('}')?;
            let (digits, rest) = self.rest.split_at(end);
            self.rest = rest.get(1..)?;
            digits
        } else {
            let digits = self.rest.get(..2)?;
            self.rest = self.rest.get(2..)?;
            digits
        };
        let valid = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| valid)
    }

    /// A class in brackets.
    fn class(&mut self) -> Result<(), RegexError> {
        let before = self.rest;
        self.next();
        self.out.push('[');
        if self.eat("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if self.rest.is_empty() {
                return Err(error("missing closing ]", before));
            }
            if !first && self.eat("]") {
                break;
            }
            first = false;
            if self.posix()? {
                continue;
            }
            let item = self.rest;
            if self.eat("\\") {
                match self.peek() {
                    Some('d') => self.out.push_str("0-9"),
                    Some('D') => self.out.push_str("[^0-9]"),
                    Some('s') => self.out.push_str(r"\t\n\x0C\r\x20"),
                    Some('S') => self.out.push_str(r"[^\t\n\x0C\r\x20]"),
                    Some('w') => self.out.push_str("0-9A-Za-z_"),
                    Some('W') => self.out.push_str("[^0-9A-Za-z_]"),
                    Some('p' | 'P') => {
                        self.property(item)?;
                        continue;
                    }
                    _ => {
                        self.rest = item;
                        self.range(before)?;
                        continue;
                    }
                }
                self.next();
            } else {
                self.range(before)?;
            }
        }
        self.out.push(']');
        Ok(())
    }

    /// `[:alpha:]` or `[:^alpha:]` inside a class; whether there was one.
    fn posix(&mut self) -> Result<bool, RegexError> {
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print",
            "punct", "space", "upper", "word", "xdigit",
        ];
        let Some(rest) = self.rest.strip_prefix("[:") else { return Ok(false) };
        let Some(end) = rest.find(":]") else { return Ok(false) };
        let whole = self.rest.get(..end + 4).unwrap_or_default();
        let name = rest.get(..end).unwrap_or_default();
        if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(error("invalid character class range", whole));
        }
        self.out.push_str(whole);
        self.rest = self.rest.get(whole.len()..).unwrap_or_default();
        Ok(true)
    }

    /// One character of a class, or a range of them.
    fn range(&mut self, class: &'a str) -> Result<(), RegexError> {
        let before = self.rest;
        let low = self.class_character(class)?;
        let mut high = low;
        if self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.rest.len() > 1 {
            self.next();
            high = self.class_character(class)?;
            if high < low {
                return Err(error("invalid character class range", self.since(before)));
            }
        }
        let (low, high) = (u32::from(low), u32::from(high));
        let _ = write!(self.out, "\\x{{{low:x}}}");
        if high > low {
            let _ = write!(self.out, "-\\x{{{high:x}}}");
        }
        Ok(())
    }

    fn class_character(&mut self, class: &'a str) -> Result<char, RegexError> {
        let before = self.rest;
        match self.next() {
            Some('\\') => self.escaped(before),
            Some(other) => Ok(other),
            None => Err(error("missing closing ]", class)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::anchored_regex;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let regex = anchored_regex(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for text in yes {
            assert!(regex.is_match(text), "{pattern} {text}: {:?}", translate(pattern));
        }
        for text in no {
            assert!(!regex.is_match(text), "{pattern} {text}: {:?}", translate(pattern));
        }
    }

    fn refuse(pattern: &str, message: &str) {
        let told = translate(pattern).map_err(|error| error.message);
        assert_eq!(told, Err(message.to_owned()), "{pattern}");
    }

    #[test]
    fn classes_know_ascii_only() {
        check(r"\d+", &["12"], &["١٢", "a"]);
        check(r"\w+", &["aZ_9"], &["é"]);
        check(r"\W", &["é", "-"], &["a"]);
        check(r"\s", &[" ", "\t", "\n"], &["\u{b}", "\u{a0}"]);
        check(r"[\d\s]+", &["1 2"], &["a"]);
        check(r"[^\D]+", &["12"], &["a"]);
        check(r"a\b-", &["a-"], &[]);
        check(r"é\b-", &[], &["é-"]);
        check(r"a\Bb", &["ab"], &[]);
        check(r"\pL\p{Greek}\P{^Lu}", &["éαA"], &["1αA", "éαa"]);
    }

    #[test]
    fn what_is_special_there_is_special_here_and_no_more() {
        check("foo{bar}", &["foo{bar}"], &["foobar"]);
        check("a{,2}|{|x{01}", &["a{,2}", "{", "x{01}"], &["a", "aa"]);
        check(r"\Qa.b\E+\Q", &["a.b", "a.bbb"], &["axb"]);
        check("[a[b&&c]", &["[", "&", "b", "c"], &["d"]);
        check("[]a]|[^]a]b|[a-]", &["]", "a", "xb", "-"], &["]b"]);
        check("[[:alpha:]_]+|[[:^digit:]-]x", &["_", "ab", "-x"], &["1x"]);
        check(r"\<\>\_\#", &["<>_#"], &[]);
        check(r"\x41\x{1F600}\101\0", &["A😀A\0"], &[]);
        check(r"(?i)ab(?-i)c|(?U:d+)", &["ABc", "d"], &["ABC"]);
        check("(?s:.)(?)x", &["\nx"], &[]);
        check("a(?P<n>b)(?<m>c)", &["abc"], &[]);
        check("(a{30}){30}b*?", &[&"a".repeat(900)], &["a"]);
        check("", &[""], &["a"]);
        check("#a ~&", &["#a ~&"], &[]);
    }

    #[test]
    fn what_go_refuses_is_refused_in_its_words() {
        refuse("a++", "invalid nested repetition operator: `++`");
        refuse("a{2}*", "invalid nested repetition operator: `{2}*`");
        refuse("a??+", "invalid nested repetition operator: `??+`");
        refuse("x{1001}", "invalid repeat count: `{1001}`");
        refuse("x{3,2}", "invalid repeat count: `{3,2}`");
        refuse("(x{100}){11}", "invalid repeat count: `{11}`");
        refuse("*a", "missing argument to repetition operator: `*`");
        refuse("a|+", "missing argument to repetition operator: `+`");
        refuse("a(", "missing closing ): `a(`");
        refuse(")a", "unexpected ): `)a`");
        refuse("a[b", "missing closing ]: `[b`");
        refuse("[z-a]", "invalid character class range: `z-a`");
        refuse("[[:foo:]]", "invalid character class range: `[:foo:]`");
        refuse("(?x)a", "invalid or unsupported Perl syntax: `(?x`");
        refuse("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
        refuse(r"\1", r"invalid escape sequence: `\1`");
        refuse(r"\C", r"invalid escape sequence: `\C`");
        refuse("a\\", "trailing backslash at end of expression: ``");
        refuse("(?P<n", "invalid named capture: `(?P<n`");
        refuse(&"(".repeat(300), &format!("expression nests too deeply: `{}`", "(".repeat(300)));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_what_is_accepted_compiles(pattern in r"[ab\\^$.|?*+(){}\[\]QEdwsx0-9,:<>P\-!=&~#é]{0,12}") {
            if let Ok(translated) = translate(&pattern) {
                let outcome = regex::Regex::new(&translated);
                let is_known = outcome.as_ref().err().is_none_or(|error| {
                    let error = error.to_string();
                    ["duplicate capture", "Unicode property", "invalid capture", "capture group name"]
                        .iter().any(|known| error.contains(known))
                });
                proptest::prop_assert!(is_known, "{pattern} {translated} {outcome:?}");
            }
        }

        #[test]
        fn plain_text_means_itself(text in "\\PC*") {
            let quoted = format!("\\Q{}\\E", text.replace("\\E", ""));
            let regex = regex::Regex::new(&format!("^(?s:{})$", translate(&quoted).unwrap())).unwrap();
            proptest::prop_assert!(regex.is_match(&text.replace("\\E", "")));
        }
    }
}
