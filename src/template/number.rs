//! Numbers as Go's `strconv` and `fmt` write and read them.

use stint_model::histogram::Short;

/// The most digits after the point that a float is written with.
pub(super) const PRECISION_MAX: usize = 1000;

/// `value` with the verb of `fmt` (one of `eEfFgG`); without a precision the shortest digits that read back to it.
/// Infinities and NaN have their names.
pub(super) fn float(value: f64, verb: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let precision = precision.map(|digits| digits.min(PRECISION_MAX));
    let text = match verb.to_ascii_lowercase() {
        'e' => scientific(&match precision {
            Some(digits) => format!("{value:.digits$e}"),
            None => format!("{value:e}"),
        }),
        'f' => match precision {
            Some(digits) => format!("{value:.digits$}"),
            None => format!("{value}"),
        },
        _ => match precision {
            Some(digits) => general(value, digits.max(1)),
            None => Short(value).to_string(),
        },
    };
    if verb.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text }
}

/// Rust's `1.5e-7` as Go's `1.5e-07`.
fn scientific(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `%.Ng`: so many significant digits at most, without zeros at the end.
fn general(value: f64, digits: usize) -> String {
    let rounded = format!("{value:.precision$e}", precision = digits - 1);
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    if exponent < -4 || exponent >= digits as i32 {
        return scientific(&format!("{mantissa}e{exponent}"));
    }
    // Rounding to as many places after the point as digits are left gives the same digits.
    let significant = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    let places = (significant - 1 - exponent).max(0) as usize;
    format!("{value:.places$}")
}

/// Why a text is not a number, in the words of `strconv.ParseFloat`.
pub(super) fn parse_float(text: &str) -> Result<f64, String> {
    let wrong = |why: &str| format!("strconv.ParseFloat: parsing {}: {why}", quote(text));
    // Underscores may stand between digits.
    let misplaced = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    let digits = if misplaced { text.to_owned() } else { text.replace('_', "") };
    let value: f64 = digits.parse().map_err(|_| wrong("invalid syntax"))?;
    let named = text.bytes().any(|byte| matches!(byte, b'n' | b'N'));
    if value.is_infinite() && !named {
        return Err(wrong("value out of range"));
    }
    Ok(value)
}

/// `text` in double quotes, as `%q` and `strconv.Quote` write it.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        escape(c, '"', &mut out);
    }
    out.push('"');
    out
}

/// `c` in single quotes.
pub(super) fn quote_char(c: char) -> String {
    let mut out = String::from("'");
    escape(c, '\'', &mut out);
    out.push('\'');
    out
}

fn escape(c: char, delimiter: char, out: &mut String) {
    use std::fmt::Write as _;
    match c {
        '\\' => out.push_str("\\\\"),
        c if c == delimiter => {
            out.push('\\');
            out.push(c);
        }
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        ' ' => out.push(' '),
        c if is_printable(c) => out.push(c),
        // Writing to a text cannot fail.
        c if (c as u32) < 0x80 => {
            let _ = write!(out, "\\x{:02x}", c as u32);
        }
        c if (c as u32) < 0x1_0000 => {
            let _ = write!(out, "\\u{:04x}", c as u32);
        }
        c => {
            let _ = write!(out, "\\U{:08x}", c as u32);
        }
    }
}

/// Whether a character can be shown as it is.
pub(super) fn is_printable(c: char) -> bool {
    let invisible = matches!(c as u32, 0xad | 0x200b..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xe_0000..);
    !(c.is_control() || invisible || c.is_whitespace() && c != ' ')
}

/// The text that a quoted one stands for: raw in backquotes, or with escapes in double or single quotes.
/// `None` when it is none. Bytes that make no text become the replacement character.
pub(super) fn unquote(quoted: &str) -> Option<String> {
    let delimiter = quoted.chars().next()?;
    let inner = quoted.strip_prefix(delimiter)?.strip_suffix(delimiter)?;
    if delimiter == '`' {
        // Go leaves carriage returns out of raw texts.
        return (!inner.contains('`')).then(|| inner.replace('\r', ""));
    }
    if !matches!(delimiter, '"' | '\'') {
        return None;
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        if c == '\n' || c == delimiter {
            return None;
        }
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let kind = rest.chars().next()?;
        rest = rest.get(kind.len_utf8()..)?;
        match kind {
            'x' => bytes.push(u8::try_from(digits(&mut rest, 2, 16)?).ok()?),
            'u' | 'U' => {
                let count = if kind == 'u' { 4 } else { 8 };
                let c = char::from_u32(digits(&mut rest, count, 16)?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '0'..='7' => {
                let more = digits(&mut rest, 2, 8)?;
                bytes.push(u8::try_from(kind.to_digit(8)? * 64 + more).ok()?);
            }
            _ => bytes.push(simple_escape(kind, delimiter)?),
        }
    }
    Some(
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

fn simple_escape(kind: char, delimiter: char) -> Option<u8> {
    Some(match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        c if c == delimiter => u8::try_from(c).ok()?,
        _ => return None,
    })
}

/// Takes exactly `count` digits off `rest`.
fn digits(rest: &mut &str, count: usize, radix: u32) -> Option<u32> {
    let taken = rest.get(..count)?;
    if !taken.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    *rest = rest.get(count..)?;
    u32::from_str_radix(taken, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_does() {
        for (value, verb, precision, text) in [
            (0.876_543_2, 'g', Some(4), "0.8765"),
            (200_000.0, 'g', Some(4), "2e+05"),
            (9999.5, 'g', Some(4), "1e+04"),
            (9999.4, 'g', Some(4), "9999"),
            (100.0, 'g', Some(4), "100"),
            (0.000_012_34, 'g', Some(2), "1.2e-05"),
            (0.0, 'g', Some(4), "0"),
            (1e15, 'f', Some(3), "1000000000000000.000"),
            (12_345.678, 'e', Some(6), "1.234568e+04"),
            (0.000_01, 'G', None, "1E-05"),
            (1e21, 'f', None, "1000000000000000000000"),
            (f64::NAN, 'f', Some(2), "NaN"),
            (f64::INFINITY, 'f', Some(2), "+Inf"),
            (2.5, 'f', Some(0), "2"),
            (3.5, 'f', Some(0), "4"),
            (5.0, 'g', Some(0), "5"),
        ] {
            assert_eq!(float(value, verb, precision), text, "{value} {verb} {precision:?}");
        }
    }

    #[test]
    fn texts_are_quoted_and_unquoted() {
        assert_eq!(quote("a\"\\\n\u{1}é\u{a0}😀"), r#""a\"\\\n\x01é\u00a0😀""#);
        assert_eq!(quote_char('\''), r"'\''");
        let unquoted = [
            (r#""a\tb\x41\u00e9\101\"""#, Some("a\tbAéA\"")),
            ("`a\\n\r`", Some("a\\n")),
            (r"'x'", Some("x")),
            (r#""\q""#, None),
            (r#""\x4""#, None),
            (r#""\ud800""#, None),
            (r#""\400""#, None),
            ("\"", None),
            ("", None),
        ];
        for (quoted, text) in unquoted {
            assert_eq!(unquote(quoted).as_deref(), text, "{quoted}");
        }
    }

    #[test]
    fn what_is_no_number_is_told_in_the_words_of_go() {
        assert_eq!(parse_float("1.5e3"), Ok(1500.0));
        assert!(parse_float("inf").unwrap().is_infinite());
        let wrong = parse_float("0x10").unwrap_err();
        assert_eq!(wrong, r#"strconv.ParseFloat: parsing "0x10": invalid syntax"#);
        assert!(parse_float("1e999").unwrap_err().ends_with("value out of range"));
    }
}
