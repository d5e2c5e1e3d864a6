//! Times and durations as Go writes them.

use super::number::float;
use super::value::Value;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// Nanoseconds in a millisecond and in a second.
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// A moment taken apart, in UTC.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    millisecond: i64,
    weekday: i64,
    year_day: i64,
}

impl Civil {
    fn at(ms: i64) -> Self {
        let days = ms.div_euclid(86_400_000);
        let of_day = ms.rem_euclid(86_400_000);
        // The calendar repeats every 400 years, which begin in March here, so that leap days come last.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let year_day = before.get(month as usize - 1).copied().unwrap_or_default()
            + day
            + i64::from(leap && month > 2);
        Self {
            year,
            month,
            day,
            hour: of_day / 3_600_000,
            minute: of_day / 60_000 % 60,
            second: of_day / 1000 % 60,
            millisecond: of_day % 1000,
            weekday: (days + 4).rem_euclid(7),
            year_day,
        }
    }

    fn month_name(&self) -> &'static str {
        MONTHS.get(self.month as usize - 1).copied().unwrap_or_default()
    }

    fn weekday_name(&self) -> &'static str {
        WEEKDAYS.get(self.weekday as usize).copied().unwrap_or_default()
    }
}

/// A time as Go prints it: `2015-06-23 13:19:44.128 +0000 UTC`.
pub(super) fn show(ms: i64) -> String {
    format(ms, "2006-01-02 15:04:05.999999999 -0700 MST")
}

/// The parts of a layout other than fractions of a second.
const PARTS: [&str; 32] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "_2",
    "__2",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "1",
    "2",
    "3",
    "4",
    "5",
    "PM",
    "pm",
    "-07:00:00",
    "-070000",
    "-07:00",
    "-0700",
    "-07",
    "Z07:00:00",
    "Z07:00",
    "Z0700",
    "Z07",
];

/// A time in a layout of Go, whose parts are those of `Mon Jan 2 15:04:05 MST 2006`.
pub(super) fn format(ms: i64, layout: &str) -> String {
    let civil = Civil::at(ms);
    let mut out = String::with_capacity(layout.len() + 8);
    let mut rest = layout;
    while let Some(next) = rest.chars().next() {
        let length = if let Some(length) = fraction_length(rest) {
            push_fraction(&mut out, &civil, rest.get(..length).unwrap_or_default());
            length
        } else if let Some(part) = part_of(rest) {
            push_part(&mut out, &civil, part);
            part.len()
        } else {
            out.push(next);
            next.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    out
}

/// The longest part that `rest` begins with.
fn part_of(rest: &str) -> Option<&'static str> {
    let begins = |part: &&&str| {
        let after = rest.get(part.len()..).and_then(|after| after.bytes().next());
        // `Jan` is a month, but not in `Janet`.
        let word = matches!(**part, "Jan" | "Mon") && after.is_some_and(|c| c.is_ascii_lowercase());
        rest.starts_with(**part) && !word
    };
    PARTS.iter().filter(begins).max_by_key(|part| part.len()).copied()
}

/// How long the fraction of a second is that `rest` begins with: `.000` or `,999`, and no digit after it.
fn fraction_length(rest: &str) -> Option<usize> {
    let digits = rest.strip_prefix(['.', ','])?;
    let digit = digits.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let after = digits.trim_start_matches(digit);
    let ends = !after.starts_with(|c: char| c.is_ascii_digit());
    ends.then_some(rest.len() - after.len())
}

fn push_fraction(out: &mut String, civil: &Civil, part: &str) {
    let count = part.len() - 1;
    let digits = format!("{:0<count$}", format!("{:03}", civil.millisecond));
    let digits = digits.get(..count).unwrap_or_default();
    let digits = if part.ends_with('9') { digits.trim_end_matches('0') } else { digits };
    if !digits.is_empty() {
        out.extend(part.chars().take(1));
        out.push_str(digits);
    }
}

fn push_part(out: &mut String, civil: &Civil, part: &str) {
    let hour = (civil.hour + 11) % 12 + 1;
    let afternoon = civil.hour >= 12;
    let text = match part {
        "January" => civil.month_name().to_owned(),
        "Jan" => civil.month_name().get(..3).unwrap_or_default().to_owned(),
        "1" => civil.month.to_string(),
        "01" => format!("{:02}", civil.month),
        "Monday" => civil.weekday_name().to_owned(),
        "Mon" => civil.weekday_name().get(..3).unwrap_or_default().to_owned(),
        "2" => civil.day.to_string(),
        "_2" => format!("{:>2}", civil.day),
        "02" => format!("{:02}", civil.day),
        "002" => format!("{:03}", civil.year_day),
        "__2" => format!("{:>3}", civil.year_day),
        "15" => format!("{:02}", civil.hour),
        "3" => hour.to_string(),
        "03" => format!("{hour:02}"),
        "4" => civil.minute.to_string(),
        "04" => format!("{:02}", civil.minute),
        "5" => civil.second.to_string(),
        "05" => format!("{:02}", civil.second),
        "2006" => format!("{:04}", civil.year),
        "06" => format!("{:02}", civil.year.rem_euclid(100)),
        "PM" => if afternoon { "PM" } else { "AM" }.to_owned(),
        "pm" => if afternoon { "pm" } else { "am" }.to_owned(),
        "MST" => "UTC".to_owned(),
        "-07:00:00" => "+00:00:00".to_owned(),
        "-070000" => "+000000".to_owned(),
        "-07:00" => "+00:00".to_owned(),
        "-0700" => "+0000".to_owned(),
        "-07" => "+00".to_owned(),
        _ => "Z".to_owned(),
    };
    out.push_str(&text);
}

/// A duration as Go prints it: `1h2m3.5s`, `150ms`.
pub(super) fn show_duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let fraction = |whole: u64, part: u64, width: usize| {
        let digits = format!("{part:0width$}");
        match digits.trim_end_matches('0') {
            "" => whole.to_string(),
            digits => format!("{whole}.{digits}"),
        }
    };
    let second = SECOND as u64;
    if total < second {
        return match total {
            0..1000 => format!("{sign}{total}ns"),
            1000..1_000_000 => format!("{sign}{}µs", fraction(total / 1000, total % 1000, 3)),
            _ => format!("{sign}{}ms", fraction(total / 1_000_000, total % 1_000_000, 6)),
        };
    }
    let seconds = total / second;
    let shown = fraction(seconds % 60, total % second, 9);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{sign}{shown}s"),
        (0, minutes) => format!("{sign}{minutes}m{shown}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{shown}s"),
    }
}

/// The time that seconds since 1970 mean, in milliseconds.
pub(super) fn from_seconds(seconds: f64) -> Result<i64, String> {
    Ok(nanoseconds(seconds, "timestamp")? / MILLISECOND)
}

/// Seconds as a duration in nanoseconds.
pub(super) fn duration_from_seconds(seconds: f64) -> Result<i64, String> {
    nanoseconds(seconds, "duration")
}

fn nanoseconds(seconds: f64, what: &str) -> Result<i64, String> {
    if !seconds.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let scaled = seconds * SECOND as f64;
    if scaled > i64::MAX as f64 || scaled < i64::MIN as f64 {
        let shown = float(seconds, 'g', None);
        let what = if what == "timestamp" { "nanoseconds timestamp" } else { "duration" };
        let article = if what == "duration" { "a duration" } else { "a nanoseconds timestamp" };
        return Err(format!("{shown} cannot be represented as {article} since it overflows int64"));
    }
    Ok(scaled as i64)
}

/// A method of a time or a duration, called with `arguments`. `None` when there is no such method, or it
/// takes other arguments.
pub(super) fn method(receiver: &Value, name: &str, arguments: &[Value]) -> Option<Value> {
    match (receiver, arguments) {
        (Value::Time(at), []) => time_part(*at, name),
        (Value::Time(at), [argument]) => time_with(*at, name, argument),
        (Value::Duration(of), []) => duration_part(*of, name),
        (Value::Duration(of), [Value::Duration(by)]) => duration_with(*of, name, *by),
        (Value::Named(_, _, text), []) if name == "String" => Some(Value::text(text)),
        (Value::Histogram(histogram), []) if name == "String" => {
            Some(Value::text(histogram.to_string()))
        }
        _ => None,
    }
}

fn time_part(at: i64, name: &str) -> Option<Value> {
    let civil = Civil::at(at);
    Some(Value::Int(match name {
        "Year" => civil.year,
        "Day" => civil.day,
        "Hour" => civil.hour,
        "Minute" => civil.minute,
        "Second" => civil.second,
        "Nanosecond" => civil.millisecond * MILLISECOND,
        "YearDay" => civil.year_day,
        "Unix" => at.div_euclid(1000),
        "UnixMilli" => at,
        "UnixMicro" => at.saturating_mul(1000),
        "UnixNano" => at.saturating_mul(MILLISECOND),
        "Month" => return Some(Value::Named("time.Month", civil.month, civil.month_name())),
        "Weekday" => {
            return Some(Value::Named("time.Weekday", civil.weekday, civil.weekday_name()));
        }
        "String" => return Some(Value::text(show(at))),
        "UTC" => return Some(Value::Time(at)),
        "IsZero" => return Some(Value::Bool(false)),
        _ => return None,
    }))
}

fn time_with(at: i64, name: &str, argument: &Value) -> Option<Value> {
    Some(match (name, argument) {
        ("Format", Value::Text(layout)) => Value::text(format(at, layout)),
        ("Add", Value::Duration(by)) => Value::Time(at.saturating_add(by / MILLISECOND)),
        ("Truncate", Value::Duration(by)) if *by >= MILLISECOND => {
            // Go counts from the year 1, whose first day was a Monday.
            let zero = 62_135_596_800_000_i64;
            let since = at.saturating_add(zero);
            Value::Time(since - since.rem_euclid(by / MILLISECOND) - zero)
        }
        ("Sub", Value::Time(other)) => {
            Value::Duration(at.saturating_sub(*other).saturating_mul(MILLISECOND))
        }
        ("Before", Value::Time(other)) => Value::Bool(at < *other),
        ("After", Value::Time(other)) => Value::Bool(at > *other),
        ("Equal", Value::Time(other)) => Value::Bool(at == *other),
        ("Compare", Value::Time(other)) => Value::Int(at.cmp(other) as i64),
        _ => return None,
    })
}

fn duration_part(of: i64, name: &str) -> Option<Value> {
    let float = |unit: i64| {
        let (whole, rest) = (of / unit, of % unit);
        Value::Float(whole as f64 + rest as f64 / unit as f64)
    };
    Some(match name {
        "Hours" => float(3600 * SECOND),
        "Minutes" => float(60 * SECOND),
        "Seconds" => float(SECOND),
        "Milliseconds" => Value::Int(of / MILLISECOND),
        "Microseconds" => Value::Int(of / 1000),
        "Nanoseconds" => Value::Int(of),
        "Abs" => Value::Duration(of.saturating_abs()),
        "String" => Value::text(show_duration(of)),
        _ => return None,
    })
}

fn duration_with(of: i64, name: &str, by: i64) -> Option<Value> {
    if by <= 0 {
        return matches!(name, "Truncate" | "Round").then_some(Value::Duration(of));
    }
    let rest = of % by;
    match name {
        "Truncate" => Some(Value::Duration(of - rest)),
        "Round" => {
            // Halves go away from zero.
            let up = rest.unsigned_abs().saturating_mul(2) >= by.unsigned_abs();
            let towards = if of < 0 { -by } else { by };
            Some(Value::Duration((of - rest).saturating_add(if up { towards } else { 0 })))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        assert_eq!(show(1_435_065_584_128), "2015-06-23 13:19:44.128 +0000 UTC");
        assert_eq!(show(-1000), "1969-12-31 23:59:59 +0000 UTC");
        assert_eq!(show(951_782_400_000), "2000-02-29 00:00:00 +0000 UTC");
        let at = 1_709_212_329_050;
        for (layout, text) in [
            ("Monday, 02-Jan-06 15:04:05 MST", "Thursday, 29-Feb-24 13:12:09 UTC"),
            ("2006-01-02T15:04:05Z07:00", "2024-02-29T13:12:09Z"),
            ("Mon Jan _2 3:04PM .000 .99", "Thu Feb 29 1:12PM .050 .05"),
            ("002 -0700", "060 +0000"),
        ] {
            assert_eq!(format(at, layout), text, "{layout}");
        }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (150, "150ns"),
            (1500, "1.5µs"),
            (-150_000_000, "-150ms"),
            (90_500_000_000, "1m30.5s"),
            (7_200_000_000_000, "2h0m0s"),
        ] {
            assert_eq!(show_duration(nanoseconds), text);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(from_seconds(1.5), Ok(1500));
        assert_eq!(from_seconds(f64::NAN), Err("value is NaN or Inf".into()));
        assert!(
            from_seconds(1e10).unwrap_err().starts_with("1e+10 cannot be represented as a nano")
        );
    }
}
