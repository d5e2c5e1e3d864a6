//! The texts of literals: numbers, durations and strings, read and written as Go does.

use std::fmt;

use stint_model::Span;

/// The number that `text` (an accepted number token) stands for, or what is wrong with it.
///
/// A whole number may be octal (`010`) or hexadecimal (`0x1f`).
pub(super) fn parse_number(text: &str) -> Result<f64, String> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(whole) = parse_whole(&digits) {
        return Ok(whole as f64);
    }
    let failed = |cause: &str| {
        Err(format!("error parsing number: strconv.ParseFloat: parsing {}: {cause}", quote(text)))
    };
    if digits.starts_with("0x") || digits.starts_with("0X") {
        return failed("invalid syntax");
    }
    match digits.parse::<f64>() {
        Ok(value) if value.is_infinite() && digits.bytes().any(|b| b.is_ascii_digit()) => {
            failed("value out of range")
        }
        Ok(value) => Ok(value),
        Err(_) => failed("invalid syntax"),
    }
}

fn parse_whole(digits: &str) -> Option<i64> {
    let bytes = digits.as_bytes();
    match bytes {
        [b'0', b'x' | b'X', ..] => i64::from_str_radix(digits.get(2..)?, 16).ok(),
        [b'0', b'0'..=b'9', ..] => i64::from_str_radix(digits, 8).ok(),
        [b'0'..=b'9', ..] => digits.parse().ok(),
        _ => None,
    }
}

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The length of time that `text` (`1h30m`, units from large to small, each once) stands for.
///
/// # Errors
///
/// In the words of Prometheus, ready to be shown.
pub fn parse_duration(text: &str) -> Result<Span, String> {
    if text == "0" {
        return Ok(Span(0));
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    // The limit is that of nanoseconds in 64 bits.
    let limit = i64::MAX as u64 / 1_000_000;
    let mut rest = text;
    let mut units = UNITS.as_slice();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let count: u64 = number.parse().map_err(|_| invalid())?;
        let letters = tail.bytes().take_while(|b| !b.is_ascii_digit()).count();
        let (unit, tail) = tail.split_at(letters);
        rest = tail;
        if unit.is_empty() {
            return Err(invalid());
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {} in duration {}", quote(unit), quote(text)));
        };
        let Some(at) = units.iter().position(|(name, _)| *name == unit) else {
            return Err(invalid());
        };
        units = units.get(at + 1..).unwrap_or_default();
        total = count
            .checked_mul(*scale)
            .and_then(|length| total.checked_add(length))
            .filter(|total| *total <= limit)
            .ok_or("duration out of range")?;
    }
    Ok(Span(total as i64))
}

/// A length of time in the fewest units: `1h30m`; years and weeks only when nothing is left over.
/// Below zero it starts with `-`.
#[derive(Clone, Copy, Debug)]
pub struct DurationText(pub Span);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.0 < 0 {
            f.write_str("-")?;
        }
        let mut left = self.0.0.unsigned_abs();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in UNITS {
            if left < scale || (matches!(unit, "y" | "w") && !left.is_multiple_of(scale)) {
                continue;
            }
            write!(f, "{}{unit}", left / scale)?;
            left %= scale;
        }
        Ok(())
    }
}

/// A number without an exponent, as short as it can be exact; `+Inf`, `-Inf`, `NaN`.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberText(pub(super) f64);

impl fmt::Display for NumberText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_infinite() {
            f.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// What stands between the quotes of a string token.
fn inside(token: &str) -> &str {
    let mut inner = token.chars();
    inner.next();
    inner.next_back();
    inner.as_str()
}

/// The text of a string token in which nothing is escaped.
pub(super) fn unescaped(token: &str) -> Option<&str> {
    let inner = inside(token);
    (token.starts_with('`') || !inner.contains('\\')).then_some(inner)
}

/// The bytes of a string token, which includes its quotes and whose escapes the lexer has checked.
pub(super) fn unquote(token: &str) -> Vec<u8> {
    if let Some(plain) = unescaped(token) {
        return plain.as_bytes().to_vec();
    }
    let inner = inside(token);
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        bytes.extend_from_slice(plain.as_bytes());
        rest = unescape(escape, &mut bytes);
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Appends what the escape sequence at the start of `text` stands for; what follows it.
fn unescape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> &'a str {
    let mut chars = text.chars();
    chars.next();
    let Some(kind) = chars.next() else { return "" };
    let simple = match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '0'..='7' | 'x' | 'u' | 'U' => 0,
        other => {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(other.encode_utf8(&mut buffer).as_bytes());
            return chars.as_str();
        }
    };
    if simple != 0 {
        bytes.push(simple);
        return chars.as_str();
    }
    let (skip, length, radix) = match kind {
        'x' => (2, 2, 16),
        'u' => (2, 4, 16),
        'U' => (2, 8, 16),
        _ => (1, 3, 8),
    };
    let digits = text.get(skip..skip + length).unwrap_or_default();
    let code = u32::from_str_radix(digits, radix).unwrap_or_default();
    match kind {
        'u' | 'U' => {
            let mut buffer = [0; 4];
            let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
        }
        _ => bytes.push(code as u8),
    }
    text.get(skip + length..).unwrap_or_default()
}

/// `text` in double quotes, escaped as Go does.
pub(super) fn quote(text: &str) -> String {
    quote_bytes(text.as_bytes())
}

/// `bytes` in double quotes; what is not UTF-8 as `\xff`.
pub(super) fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            escape_char(&mut out, c, '"');
        }
        for byte in chunk.invalid() {
            push_hex(&mut out, "\\x", u32::from(*byte), 2);
        }
    }
    out.push('"');
    out
}

/// A character in single quotes, escaped as Go does; the end of input is U+FFFD.
pub(super) fn quote_char(c: Option<char>) -> String {
    let mut out = String::from("'");
    escape_char(&mut out, c.unwrap_or(char::REPLACEMENT_CHARACTER), '\'');
    out.push('\'');
    out
}

fn escape_char(out: &mut String, c: char, quote: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if c == quote => {
            out.push('\\');
            out.push(c);
        }
        c if is_printable(c) => out.push(c),
        c if (c as u32) < 0x80 => push_hex(out, "\\x", c as u32, 2),
        c if (c as u32) < 0x1_0000 => push_hex(out, "\\u", c as u32, 4),
        c => push_hex(out, "\\U", c as u32, 8),
    }
}

fn push_hex(out: &mut String, prefix: &str, code: u32, width: usize) {
    use fmt::Write as _;
    out.push_str(prefix);
    // Writing to a string cannot fail.
    let _ = write!(out, "{code:0width$x}");
}

fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library escapes what is not printable; a leading letter keeps it from also
    // escaping combining marks.
    let mut buffer = String::from("a");
    buffer.push(c);
    buffer.escape_debug().nth(1) == Some(c)
}

/// `U+0063 'c'`, as Go prints a character with `%#U`.
pub(super) fn describe_char(c: char) -> String {
    if is_printable(c) {
        format!("U+{:04X} '{c}'", c as u32)
    } else {
        format!("U+{:04X}", c as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_all_bases() {
        for (text, value) in [
            ("1", 1.0),
            ("010", 8.0),
            ("08", 8.0),
            ("0x1f", 31.0),
            ("1_000", 1000.0),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
            ("Inf", f64::INFINITY),
        ] {
            assert_eq!(parse_number(text), Ok(value), "{text}");
        }
        assert!(parse_number("nan").is_ok_and(f64::is_nan));
        assert_eq!(
            parse_number("1e999").unwrap_err(),
            "error parsing number: strconv.ParseFloat: parsing \"1e999\": value out of range"
        );
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, ms, printed) in [
            ("90m", 5_400_000, "1h30m"),
            ("1h30m", 5_400_000, "1h30m"),
            ("7d", 604_800_000, "1w"),
            ("90d", 7_776_000_000, "90d"),
            ("365d", 31_536_000_000, "1y"),
            ("1500ms", 1_500, "1s500ms"),
            ("0s", 0, "0s"),
            ("0", 0, "0s"),
        ] {
            assert_eq!(parse_duration(text), Ok(Span(ms)), "{text}");
            assert_eq!(DurationText(Span(ms)).to_string(), printed);
        }
        for (text, error) in [
            ("5m1h", "not a valid duration string: \"5m1h\""),
            ("5m1m", "not a valid duration string: \"5m1m\""),
            ("5hs", "unknown unit \"hs\" in duration \"5hs\""),
            ("m", "not a valid duration string: \"m\""),
            ("300y", "duration out of range"),
            ("", "empty duration string"),
        ] {
            assert_eq!(parse_duration(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(DurationText(Span(-60_000)).to_string(), "-1m");
    }

    #[test]
    fn strings_are_unquoted_into_bytes() {
        assert_eq!(unquote(r#""a\n\x41\101\u00fc\xff\"""#), b"a\nAA\xc3\xbc\xff\"");
        assert_eq!(unquote(r"`a\n`"), br"a\n");
        assert_eq!(unquote(r"'it\'s'"), b"it's");
    }

    #[test]
    fn strings_are_quoted_as_go_does() {
        assert_eq!(quote("a\"\\\n\u{7f}ü\u{a0}\u{1}"), r#""a\"\\\n\x7fü\u00a0\x01""#);
        assert_eq!(quote_bytes(b"\xff'"), r#""\xff'""#);
        assert_eq!(quote_char(Some('\'')), r"'\''");
        assert_eq!(describe_char('c'), "U+0063 'c'");
    }
}
