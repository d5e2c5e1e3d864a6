//! Numbers as the text formats write them.

use std::fmt::Write as _;

use stint_model::histogram::Short;

/// The bits of the one NaN that a text format can express.
const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The one NaN that stands for all of them.
pub(super) fn normal_nan() -> f64 {
    f64::from_bits(NORMAL_NAN_BITS)
}

/// Powers of ten that a float holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// The value and length of the decimal (`-12.5`, `1.5e+06`) at the start of `text`, where both its
/// digits and its power of ten are exact in a float, so that one operation rounds it correctly.
/// What follows the number is not looked at.
#[inline]
pub(super) fn leading_decimal(text: &[u8]) -> Option<(f64, usize)> {
    let negative = text.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut at = start;
    let mut mantissa = 0_u64;
    let mut point = None;
    while let Some(byte) = text.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            // Wraps only for more digits than are accepted below.
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        } else if *byte == b'.' && point.is_none() {
            point = Some(at);
        } else {
            break;
        }
        at += 1;
    }
    let digits = at - start - usize::from(point.is_some());
    if digits == 0 || digits > 19 || mantissa > 1 << 53 {
        return None;
    }
    let mut power = point.map_or(0, |point| point as i64 + 1 - at as i64);
    if let Some(b'e' | b'E') = text.get(at) {
        let (exponent, length) = short_exponent(text.get(at + 1..)?)?;
        power += exponent;
        at += 1 + length;
    }
    let exact = EXACT_POWERS.get(power.unsigned_abs() as usize)?;
    let value = mantissa as f64;
    let value = if power < 0 { value / exact } else { value * exact };
    Some((if negative { -value } else { value }, at))
}

/// The exponent of one to three digits at the start of `text`, and its length.
fn short_exponent(text: &[u8]) -> Option<(i64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let digits = text.get(sign..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=3).contains(&digits) {
        return None;
    }
    let length = sign + digits;
    let value = text.get(sign..length)?.iter().fold(0, |sum, b| sum * 10 + i64::from(b - b'0'));
    Some((if text.first() == Some(&b'-') { -value } else { value }, length))
}

/// A float as Go's `ParseFloat` reads it, without hexadecimal forms and underscores. `None` for
/// malformed text and for numbers beyond the range of a float.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    if let Some((value, length)) = leading_decimal(text.as_bytes())
        && length == text.len()
    {
        return Some(value);
    }
    if text.eq_ignore_ascii_case("nan") {
        return Some(normal_nan());
    }
    let value: f64 = text.parse().ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_word = unsigned.starts_with(['i', 'I']);
    (value.is_finite() || (value.is_infinite() && is_word)).then_some(value)
}

/// Appends `value` in the shortest form that reads back to it, as Go's `FormatFloat(_, 'g', -1)`.
pub(super) fn push_float(out: &mut String, value: f64) {
    let written = write!(out, "{}", Short(value));
    debug_assert!(written.is_ok(), "a string takes every write");
}

/// Appends `value` as `OpenMetrics` writes bucket bounds: like [`push_float`], but never as a
/// bare integer.
pub(super) fn push_bound(out: &mut String, value: f64) {
    let start = out.len();
    // There is one zero among bounds.
    push_float(out, if value == 0.0 { 0.0 } else { value });
    let is_plain = |text: &str| text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    if out.get(start..).is_some_and(is_plain) {
        out.push_str(".0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn floats_read_as_go_reads_them() {
        let check = |text: &str, value: f64| {
            assert_eq!(parse_float(text).map(f64::to_bits), Some(value.to_bits()), "{text}");
        };
        check("1", 1.0);
        check("-0", -0.0);
        check("+1.5", 1.5);
        check(".5", 0.5);
        check("5.", 5.0);
        check("1e3", 1000.0);
        check("1E-3", 0.001);
        check("+Inf", f64::INFINITY);
        check("inf", f64::INFINITY);
        check("-INFINITY", f64::NEG_INFINITY);
        check("NaN", f64::from_bits(NORMAL_NAN_BITS));
        check("nan", f64::from_bits(NORMAL_NAN_BITS));
        check("9007199254740993", 9_007_199_254_740_992.0);
        check("123456789012345678901234567890", 1.234_567_890_123_456_8e29);
        check("0.1234567890123456789012", 0.123_456_789_012_345_68);
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in
            ["", "-", ".", "1e", "0x1p4", "0x1", "1_000", "+NaN", "1e999", "-1e999", "1.2.3"]
        {
            assert_eq!(parse_float(text), None, "{text}");
        }
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        let check = |value: f64, text: &str, bound: &str| {
            let mut out = String::new();
            push_float(&mut out, value);
            assert_eq!(out, text);
            out.clear();
            push_bound(&mut out, value);
            assert_eq!(out, bound);
        };
        check(0.0, "0", "0.0");
        check(-0.0, "-0", "0.0");
        check(-1.0, "-1", "-1.0");
        check(100_000.0, "100000", "100000.0");
        check(1_000_000.0, "1e+06", "1e+06");
        check(123_456_789.0, "1.23456789e+08", "1.23456789e+08");
        check(0.0001, "0.0001", "0.0001");
        check(0.00001, "1e-05", "1e-05");
        check(2.5, "2.5", "2.5");
        check(1e100, "1e+100", "1e+100");
        check(f64::INFINITY, "+Inf", "+Inf");
        check(f64::NAN, "NaN", "NaN");
    }

    proptest! {
        #[test]
        fn the_fast_path_agrees_with_the_standard_library(text in "-?[0-9]{0,18}\\.?[0-9]{0,24}([eE][+-]?[0-9]{0,2})?") {
            let expected: Option<f64> = text.parse().ok();
            prop_assert_eq!(parse_float(&text).map(f64::to_bits), expected.map(f64::to_bits));
        }

        #[test]
        fn printed_floats_read_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            let mut out = String::new();
            push_float(&mut out, value);
            let back = parse_float(&out).unwrap();
            prop_assert!(back == value || (back.is_nan() && value.is_nan()), "{}", out);
        }
    }
}
