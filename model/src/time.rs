//! Points in time, lengths of time, and ranges, all in milliseconds.

use std::fmt;
use std::ops::{Add, Neg, Sub};

/// A point in time: milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest representable time.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest representable time.
    pub const MAX: Self = Self(i64::MAX);

    /// Milliseconds since 1970.
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Seconds since 1970, as the API and `PromQL` show them.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The time `span` later, clamped to the representable range.
    #[must_use]
    pub const fn saturating_add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The time `span` earlier, clamped to the representable range.
    #[must_use]
    pub const fn saturating_sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// How long after `earlier` this is (negative when before), clamped.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        self.saturating_add(span)
    }
}

impl Sub<Span> for Timestamp {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        self.saturating_sub(span)
    }
}

/// A length of time in milliseconds; may be negative (an offset into the future).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Span(pub i64);

/// Why a duration could not be read; the texts are those Prometheus shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing between the quotes.
    #[error("empty duration string")]
    Empty,
    /// Not of the form `1d2h3m`, each unit once, largest first.
    #[error("not a valid duration string: {0:?}")]
    Invalid(String),
    /// More milliseconds than fit.
    #[error("duration out of range")]
    OutOfRange,
}

/// Units of a Prometheus duration, largest first, with their milliseconds.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// One second.
    pub const SECOND: Self = Self(1000);
    /// One minute.
    pub const MINUTE: Self = Self(60_000);
    /// One hour.
    pub const HOUR: Self = Self(3_600_000);
    /// One day of 24 hours.
    pub const DAY: Self = Self(86_400_000);

    /// Milliseconds.
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Seconds with a fraction.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// A whole number of seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// As the standard library's duration; zero when negative.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.max(0) as u64)
    }

    /// Reads a Prometheus duration such as `1h30m`: units `y w d h m s ms`, each at most once,
    /// largest first; a bare `0` is allowed.
    ///
    /// # Errors
    /// Empty, malformed, or too large for 64-bit nanoseconds (Prometheus' own limit).
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        if text.is_empty() {
            return Err(DurationError::Empty);
        }
        if text == "0" {
            return Ok(Self::ZERO);
        }
        let invalid = || DurationError::Invalid(text.to_owned());
        let mut rest = text;
        let mut next_unit = 0;
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            let position = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
            if number.is_empty() || position < next_unit {
                return Err(invalid());
            }
            next_unit = position + 1;
            let amount = number.parse::<i64>().map_err(|_| DurationError::OutOfRange)?;
            total = UNITS
                .get(position)
                .and_then(|(_, ms)| amount.checked_mul(*ms))
                .and_then(|ms| total.checked_add(ms))
                .filter(|ms| *ms <= i64::MAX / 1_000_000)
                .ok_or(DurationError::OutOfRange)?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

impl Neg for Span {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl fmt::Display for Span {
    /// Prints as Prometheus does: `5m`, `1h30m`, `0s`; years and weeks only when exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut left = self.0.unsigned_abs();
        for (unit, ms) in UNITS {
            let ms = ms as u64;
            let only_exact = matches!(unit, "y" | "w");
            if left == 0 || left < ms || (only_exact && !left.is_multiple_of(ms)) {
                continue;
            }
            write!(f, "{}{unit}", left / ms)?;
            left %= ms;
        }
        Ok(())
    }
}

/// A half-open range of time: `start` is inside, `end` is not.
///
/// `PromQL`'s left-open windows and the API's closed ranges are converted once, at their edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First millisecond inside.
    pub start: Timestamp,
    /// First millisecond after.
    pub end: Timestamp,
}

impl TimeRange {
    /// All of time but the very last millisecond.
    pub const ALL: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// The range of `start <= t < end`.
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// The range of `first <= t <= last`.
    pub const fn closed(first: Timestamp, last: Timestamp) -> Self {
        Self { start: first, end: last.saturating_add(Span(1)) }
    }

    /// Whether nothing lies inside.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Whether `at` lies inside.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether the two ranges share a millisecond.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, ms: i64, printed: &str) {
        let span = Span::parse(text).unwrap();
        assert_eq!(span, Span(ms), "{text}");
        assert_eq!(span.to_string(), printed, "{text}");
    }

    #[test]
    fn durations_read_and_print_as_prometheus_does() {
        check("0", 0, "0s");
        check("5m", 300_000, "5m");
        check("1h30m", 5_400_000, "1h30m");
        check("90m", 5_400_000, "1h30m");
        check("1w", 604_800_000, "1w");
        check("8d", 691_200_000, "8d");
        check("1y", 31_536_000_000, "1y");
        check("1s500ms", 1500, "1s500ms");
        assert_eq!(Span(-90_000).to_string(), "-1m30s");
    }

    #[test]
    fn malformed_durations_are_refused() {
        for text in ["1", "5", "m", "1m1h", "1m1m", "-5m", "1.5h", "5 m", "5x"] {
            assert_eq!(Span::parse(text), Err(DurationError::Invalid(text.into())), "{text}");
        }
        assert_eq!(Span::parse(""), Err(DurationError::Empty));
        assert_eq!(Span::parse("293y"), Err(DurationError::OutOfRange));
        assert_eq!(Span::parse("99999999999999999999s"), Err(DurationError::OutOfRange));
    }

    #[test]
    fn ranges_are_half_open() {
        let range = TimeRange::new(Timestamp(10), Timestamp(20));
        assert!(range.contains(Timestamp(10)) && !range.contains(Timestamp(20)));
        assert!(!range.overlaps(TimeRange::new(Timestamp(20), Timestamp(30))));
        assert!(TimeRange::closed(Timestamp(10), Timestamp(20)).contains(Timestamp(20)));
        assert!(TimeRange::new(Timestamp(5), Timestamp(5)).is_empty());
    }
}
