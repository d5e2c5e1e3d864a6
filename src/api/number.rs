//! Numbers as Prometheus writes them into JSON.

use std::io::Write as _;

use stint_model::Timestamp;

/// Below this, every whole number is a float of its own.
const WHOLE_MAX: u64 = 1 << 53;

/// Appends a sample value without quotes: the shortest decimal that reads back as the same
/// float, with an exponent below 1e-6 and from 1e21 on, `NaN`, `+Inf` and `-Inf`.
pub fn push_value(out: &mut Vec<u8>, value: f64) {
    let whole = value as i64;
    // Whole numbers are common and need no search for the shortest digits. Zero may be negative.
    if whole as f64 == value && whole != 0 && whole.unsigned_abs() < WHOLE_MAX {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
        return;
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) && value.is_finite() {
        push_exponent(out, value);
    } else {
        push_decimal(out, value);
    }
}

/// Appends a float without quotes and always without an exponent, as scalar results have it.
pub fn push_decimal(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    // Nothing but an exponent, of three digits with a sign at most, can follow.
    let tail = text.as_bytes().get(text.len().saturating_sub(5)..).unwrap_or_default();
    if tail.contains(&b'e') {
        // The shortest digits are the same; only the standard library lays them out in full.
        write!(out, "{value}").expect("a vector takes everything");
    } else {
        out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }
}

/// Appends a finite float as digits and an exponent of at least two digits, as Go's `%e` with the
/// shortest precision.
pub fn push_exponent(out: &mut Vec<u8>, value: f64) {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    write!(out, "{digits}e{sign}{exponent:0>2}").expect("a vector takes everything");
}

/// Appends a sample's time: whole seconds, or seconds with exactly three decimals.
pub fn push_time(out: &mut Vec<u8>, at: Timestamp) {
    let ms = at.as_ms().unsigned_abs();
    if at.as_ms() < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(ms / 1000).as_bytes());
    let fraction = ms % 1000;
    if fraction != 0 {
        write!(out, ".{fraction:03}").expect("a vector takes everything");
    }
}

/// Appends a time in seconds as a plain JSON number: the shortest float, as scalars have it.
pub fn push_time_plain(out: &mut Vec<u8>, at: Timestamp) {
    push_json_float(out, at.as_secs_f64());
}

/// Appends a finite float as Go's JSON encoder does: like a sample value, but with the shortest
/// exponent (`1e-7`).
pub fn push_json_float(out: &mut Vec<u8>, value: f64) {
    let start = out.len();
    push_value(out, value);
    // Go turns e-09 into e-9 here, and leaves positive exponents, which have two digits, alone.
    let length = out.len();
    let tail = out.get(start..).unwrap_or_default();
    if tail.len() >= 4 && tail.get(tail.len() - 4..tail.len() - 1) == Some(b"e-0") {
        out.remove(length - 2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn check_value(value: f64, expected: &str) {
        assert_eq!(text(|out| push_value(out, value)), expected);
    }

    fn check_time(ms: i64, expected: &str) {
        assert_eq!(text(|out| push_time(out, Timestamp(ms))), expected);
    }

    #[test]
    fn sample_values_are_the_shortest_decimal() {
        check_value(0.0, "0");
        check_value(-0.0, "-0");
        check_value(1.0, "1");
        check_value(-1.5, "-1.5");
        check_value(0.1, "0.1");
        check_value(1.0 / 3.0, "0.3333333333333333");
        check_value(1e6, "1000000");
        check_value(-7.0, "-7");
        check_value(9_007_199_254_740_991.0, "9007199254740991");
        check_value(-9_007_199_254_740_992.0, "-9007199254740992");
        check_value(123_456_789_012.5, "123456789012.5");
        check_value(9_007_199_254_740_993.0, "9007199254740992");
    }

    #[test]
    fn exponents_begin_below_a_millionth_and_at_1e21() {
        check_value(1e-6, "0.000001");
        check_value(0.000_001_5, "0.0000015");
        check_value(9.9e-7, "9.9e-07");
        check_value(1e-7, "1e-07");
        check_value(5e-324, "5e-324");
        check_value(1e16, "10000000000000000");
        check_value(1.5e20, "150000000000000000000");
        check_value(1e21, "1e+21");
        check_value(-1.25e100, "-1.25e+100");
        check_value(f64::MAX, "1.7976931348623157e+308");
    }

    #[test]
    fn what_is_no_number_has_gos_names() {
        check_value(f64::NAN, "NaN");
        check_value(f64::INFINITY, "+Inf");
        check_value(f64::NEG_INFINITY, "-Inf");
    }

    #[test]
    fn scalars_never_have_an_exponent() {
        assert_eq!(text(|out| push_decimal(out, 1e21)), "1000000000000000000000");
        assert_eq!(text(|out| push_decimal(out, 1e-7)), "0.0000001");
    }

    #[test]
    fn alert_values_always_have_an_exponent() {
        assert_eq!(text(|out| push_exponent(out, 1.0)), "1e+00");
        assert_eq!(text(|out| push_exponent(out, 0.25)), "2.5e-01");
    }

    #[test]
    fn times_have_no_or_three_decimals() {
        check_time(1_435_781_451_000, "1435781451");
        check_time(1_435_781_451_780, "1435781451.780");
        check_time(1_435_781_451_007, "1435781451.007");
        check_time(0, "0");
        check_time(1, "0.001");
        check_time(-1, "-0.001");
        check_time(-1500, "-1.500");
        check_time(i64::MIN, "-9223372036854775.808");
    }

    #[test]
    fn plain_times_are_shortest_floats() {
        let plain = |ms| text(|out| push_time_plain(out, Timestamp(ms)));
        assert_eq!(plain(1_435_781_451_780), "1435781451.78");
        assert_eq!(plain(1_435_781_451_000), "1435781451");
        assert_eq!(plain(-500), "-0.5");
    }

    #[test]
    fn json_floats_have_short_exponents() {
        assert_eq!(text(|out| push_json_float(out, 1e-7)), "1e-7");
        assert_eq!(text(|out| push_json_float(out, 1e-10)), "1e-10");
        assert_eq!(text(|out| push_json_float(out, 1e21)), "1e+21");
    }

    proptest! {
        #[test]
        fn every_float_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for written in [
                text(|out| push_value(out, value)),
                text(|out| push_decimal(out, value)),
                text(|out| push_exponent(out, value)),
                text(|out| push_json_float(out, value)),
            ] {
                prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), bits, "{}", written);
            }
        }
    }
}
