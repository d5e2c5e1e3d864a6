//! Request parameters: the form body and the URL's query, and what they may hold.

use std::num::{IntErrorKind, ParseIntError};

use stint_model::{Span, Timestamp};

use super::error::ApiError;

/// The earliest time that Go's `time.Time` of Prometheus can name; clients send it for "all".
const GO_TIME_MIN: &str = "-292273086-05-16T16:47:06Z";
/// The latest such time.
const GO_TIME_MAX: &str = "292277025-08-18T07:12:54.999999999Z";

/// Names and values in the order in which they count: those of the body before those of the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a form-encoded body (empty when there is none) and the URL's query.
    ///
    /// # Errors
    /// An escape sequence that is none, or a `;` that used to separate parameters.
    pub fn parse(body: &[u8], query: Option<&str>) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for part in [body, query.unwrap_or_default().as_bytes()] {
            decode_form(part, &mut pairs).map_err(|cause| {
                ApiError::bad_data(format!("error parsing form values: {cause}"))
            })?;
        }
        Ok(Self(pairs))
    }

    /// The first value of `name`; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let first = self.0.iter().find(|(candidate, _)| candidate == name);
        first.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(candidate, _)| candidate == name).map(|(_, value)| &**value)
    }

    /// A time, or `default` when it is absent.
    pub fn time(&self, name: &str, default: Timestamp) -> Result<Timestamp, ApiError> {
        self.get(name).map_or(Ok(default), |text| {
            parse_time(text).map_err(|cause| ApiError::invalid_parameter(name, cause))
        })
    }

    /// A time that must be there.
    pub fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        parse_time(self.get(name).unwrap_or_default())
            .map_err(|cause| ApiError::invalid_parameter(name, cause))
    }

    /// A duration, if it is there.
    pub fn duration(&self, name: &str) -> Result<Option<Span>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_duration(text).map(Some).map_err(|cause| ApiError::invalid_parameter(name, cause))
    }

    /// A duration that must be there.
    pub fn required_duration(&self, name: &str) -> Result<Span, ApiError> {
        parse_duration(self.get(name).unwrap_or_default())
            .map_err(|cause| ApiError::invalid_parameter(name, cause))
    }

    /// A limit where a negative one means none too, and whose mistakes have fewer words.
    pub fn lenient_limit(&self, name: &str) -> Result<usize, ApiError> {
        let Some(text) = self.get(name) else { return Ok(0) };
        let limit = text.parse::<i64>().map_err(|_| format!("{name} must be a number"));
        limit.map(|limit| usize::try_from(limit).unwrap_or(0)).map_err(ApiError::bad_data)
    }

    /// How far instant selectors look back, if it is there; what is not above 0 means the default.
    pub fn lookback(&self) -> Result<Option<Span>, ApiError> {
        let Some(text) = self.get("lookback_delta") else { return Ok(None) };
        let span = parse_duration(text).map_err(|cause| {
            ApiError::bad_data(format!("error parsing lookback delta duration: {cause}"))
        })?;
        Ok(Some(span).filter(|span| *span > Span::ZERO))
    }

    /// A limit; 0 means none.
    pub fn limit(&self, name: &str) -> Result<usize, ApiError> {
        let Some(text) = self.get(name) else { return Ok(0) };
        match text.parse::<i64>() {
            Ok(limit) if limit >= 0 => Ok(limit as usize),
            Ok(_) => Err(ApiError::invalid_parameter(name, "limit must be non-negative")),
            Err(error) => Err(ApiError::invalid_parameter(name, atoi_error(text, &error))),
        }
    }
}

/// How Go says that `text` is no whole number.
fn atoi_error(text: &str, error: &ParseIntError) -> String {
    let cause = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.Atoi: parsing \"{text}\": {cause}")
}

/// Seconds since 1970 as a float, or RFC 3339.
///
/// # Errors
/// A text that Prometheus would show.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Some(seconds) = parse_float(text).filter(|seconds| !seconds.is_nan()) {
        let whole = seconds.trunc();
        let fraction_ms = ((seconds - whole) * 1000.0).round();
        // Casts clamp, so that a time far outside is the end of time and not an overflow.
        return Ok(Timestamp(((whole * 1000.0) as i64).saturating_add(fraction_ms as i64)));
    }
    match text {
        GO_TIME_MIN => return Ok(Timestamp::MIN),
        GO_TIME_MAX => return Ok(Timestamp::MAX),
        _ => {}
    }
    // The parser is more liberal than RFC 3339; times always have a `T`.
    let parsed = text.contains('T').then(|| text.parse::<jiff::Timestamp>().ok()).flatten();
    parsed
        .map(|time| Timestamp(time.as_millisecond()))
        .ok_or_else(|| format!("cannot parse \"{text}\" to a valid timestamp"))
}

/// Seconds as a float, or a Prometheus duration such as `1m30s`.
///
/// # Errors
/// A text that Prometheus would show.
pub fn parse_duration(text: &str) -> Result<Span, String> {
    if let Some(seconds) = parse_float(text) {
        let nanoseconds = seconds * 1e9;
        if seconds.is_nan() {
            // Where Go converts it, it is the shortest duration of all.
            return Ok(Span(i64::MIN / 1_000_000));
        }
        if nanoseconds.abs() > i64::MAX as f64 {
            return Err(format!("cannot parse \"{text}\" to a valid duration. It overflows int64"));
        }
        return Ok(Span((nanoseconds / 1e6).round() as i64));
    }
    Span::parse(text).map_err(|_| format!("cannot parse \"{text}\" to a valid duration"))
}

/// A float as Go reads it; `None` for anything else. Rust and Go agree on all decimal forms, and on
/// `inf`, `infinity` and `nan` in any case; Go takes `1_000` too, and nothing that is too large.
fn parse_float(text: &str) -> Option<f64> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let separates =
        |at: usize| is_digit(bytes.get(at.wrapping_sub(1))) && is_digit(bytes.get(at + 1));
    let value: f64 = if text.contains('_') {
        let separators = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'_');
        if !separators.map(|(at, _)| at).all(separates) {
            return None;
        }
        text.replace('_', "").parse().ok()?
    } else {
        text.parse().ok()?
    };
    let is_too_large = value.is_infinite() && text.contains(|c: char| c.is_ascii_digit());
    (!is_too_large).then_some(value)
}

/// Appends the pairs of a form-encoded text.
fn decode_form(text: &[u8], pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    for part in text.split(|byte| *byte == b'&').filter(|part| !part.is_empty()) {
        if part.contains(&b';') {
            return Err("invalid semicolon separator in query".into());
        }
        let equals = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let (name, value) = part.split_at(equals);
        let value = value.strip_prefix(b"=").unwrap_or_default();
        pairs.push((decode_text(name)?, decode_text(value)?));
    }
    Ok(())
}

/// Undoes percent-encoding and `+` for a blank. Bytes that are no UTF-8 are replaced.
fn decode_text(text: &[u8]) -> Result<String, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let Some(byte) = byte else {
                    let shown = String::from_utf8_lossy(tail.get(..2).unwrap_or(tail)).into_owned();
                    return Err(format!("invalid URL escape \"%{shown}\""));
                };
                decoded.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            other => decoded.push(*other),
        }
    }
    Ok(String::from_utf8(decoded)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_time(text: &str, ms: i64) {
        assert_eq!(parse_time(text), Ok(Timestamp(ms)), "{text}");
    }

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        check_time("1435781451.781", 1_435_781_451_781);
        check_time("1435781451", 1_435_781_451_000);
        check_time("1e9", 1_000_000_000_000);
        check_time(".4567890", 457);
        check_time("-1.5", -1500);
        check_time("0", 0);
        check_time("-62167219200", -62_167_219_200_000);
        check_time("2015-06-03T13:21:58.555Z", 1_433_337_718_555);
        check_time("2015-06-03T14:21:58.555123456+01:00", 1_433_337_718_555);
    }

    #[test]
    fn times_beyond_all_time_are_its_ends() {
        check_time("9223372036854776", i64::MAX);
        check_time("1767225600000", 1_767_225_600_000_000);
        check_time("+Inf", i64::MAX);
        check_time("-inf", i64::MIN);
        check_time(GO_TIME_MIN, i64::MIN);
        check_time(GO_TIME_MAX, i64::MAX);
    }

    #[test]
    fn what_is_no_time_is_quoted_back() {
        for text in ["", "abc", "2015-06-03", "NaN", "30s", "1e400", "_1", "1_", "1__0"] {
            let expected = format!("cannot parse \"{text}\" to a valid timestamp");
            assert_eq!(parse_time(text), Err(expected));
        }
    }

    #[test]
    fn durations_are_seconds_or_units() {
        assert_eq!(parse_duration("15"), Ok(Span(15_000)));
        assert_eq!(parse_duration("0.5"), Ok(Span(500)));
        assert_eq!(parse_duration("60.000"), Ok(Span(60_000)));
        assert_eq!(parse_duration("1_000"), Ok(Span(1_000_000)));
        assert!(parse_duration("NaN").unwrap() < Span(0));
        assert_eq!(parse_duration("1m30s"), Ok(Span(90_000)));
        assert_eq!(parse_duration("5m0s"), Ok(Span(300_000)));
        let overflow = "cannot parse \"1e100\" to a valid duration. It overflows int64";
        assert_eq!(parse_duration("1e100"), Err(overflow.into()));
        assert_eq!(parse_duration("x"), Err("cannot parse \"x\" to a valid duration".into()));
    }

    #[test]
    fn the_body_comes_before_the_url() {
        let params = Params::parse(b"query=a%2Bb+c&x=1", Some("query=other&match[]=m&x=")).unwrap();
        assert_eq!(params.get("query"), Some("a+b c"));
        assert_eq!(params.all("query").collect::<Vec<_>>(), ["a+b c", "other"]);
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["m"]);
        assert_eq!(params.get("absent"), None);
    }

    #[test]
    fn an_empty_parameter_is_an_absent_one() {
        let params = Params::parse(b"", Some("limit=&time=&flag")).unwrap();
        assert_eq!(params.limit("limit"), Ok(0));
        assert_eq!(params.time("time", Timestamp(7)), Ok(Timestamp(7)));
        assert_eq!(params.get("flag"), None);
    }

    #[test]
    fn broken_escapes_are_told() {
        for (query, cause) in [
            ("a=%zz", "invalid URL escape \"%zz\""),
            ("a=%", "invalid URL escape \"%\""),
            ("a=%+1", "invalid URL escape \"%+1\""),
            ("a=1;b=2", "invalid semicolon separator in query"),
        ] {
            let error = Params::parse(b"", Some(query)).unwrap_err();
            assert_eq!(error.message, format!("error parsing form values: {cause}"));
        }
    }

    #[test]
    fn limits_are_whole_and_not_negative() {
        let limit = |text: &str| Params::parse(b"", Some(text)).unwrap().limit("limit");
        assert_eq!(limit("limit=3"), Ok(3));
        assert!(limit("limit=-1").unwrap_err().message.contains("limit must be non-negative"));
        let cause = |text: &str| limit(text).unwrap_err().message;
        let expected =
            "invalid parameter \"limit\": strconv.Atoi: parsing \"many\": invalid syntax";
        assert_eq!(cause("limit=many"), expected);
        assert!(cause("limit=99999999999999999999").ends_with("value out of range"));
        let lenient = |text: &str| Params::parse(b"", Some(text)).unwrap().lenient_limit("limit");
        assert_eq!((lenient("limit=-1"), lenient("limit=2"), lenient("")), (Ok(0), Ok(2), Ok(0)));
        assert_eq!(lenient("limit=many").unwrap_err().message, "limit must be a number");
        let lookback = |text: &str| Params::parse(b"", Some(text)).unwrap().lookback();
        assert_eq!(lookback("lookback_delta=90"), Ok(Some(Span(90_000))));
        assert_eq!((lookback("lookback_delta=0"), lookback("")), (Ok(None), Ok(None)));
        let error = lookback("lookback_delta=x").unwrap_err().message;
        assert_eq!(
            error,
            "error parsing lookback delta duration: cannot parse \"x\" to a valid duration"
        );
    }
}
