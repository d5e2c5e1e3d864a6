//! Functions of the calendar, all in UTC.

/// A day and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u32,
    /// 1 to 31.
    pub(crate) day: u32,
    /// Seconds since midnight.
    pub(crate) second: u32,
    /// Since 1970-01-01.
    pub(crate) days: i64,
}

/// The civil time of seconds since 1970.
pub(crate) fn civil(seconds: i128) -> Civil {
    let days = seconds.div_euclid(86_400) as i64;
    let second = seconds.rem_euclid(86_400) as u32;
    // Years that begin in March put the leap day at their end; 146 097 days are 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as u32;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil { year, month, day, second, days }
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn month_length(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The function of this name, of seconds since 1970.
pub(crate) fn calendar_function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "day_of_month" => |t| f64::from(civil(whole(t)).day),
        "day_of_week" => |t| (civil(whole(t)).days + 4).rem_euclid(7) as f64,
        "day_of_year" => |t| {
            let civil = civil(whole(t));
            let before: u32 = (1..civil.month).map(|month| month_length(civil.year, month)).sum();
            f64::from(before + civil.day)
        },
        "days_in_month" => |t| {
            let civil = civil(whole(t));
            f64::from(month_length(civil.year, civil.month))
        },
        "hour" => |t| f64::from(civil(whole(t)).second / 3600),
        "minute" => |t| f64::from(civil(whole(t)).second / 60 % 60),
        "month" => |t| f64::from(civil(whole(t)).month),
        "year" => |t| civil(whole(t)).year as f64,
        _ => return None,
    })
}

/// Whole seconds as Go has them: what fits into no 64-bit integer is the least of them, and the
/// first years of the range lie beyond its end.
fn whole(seconds: f64) -> i128 {
    let fits = seconds > i64::MIN as f64 && seconds < i64::MAX as f64;
    let seconds = i128::from(if fits { seconds as i64 } else { i64::MIN });
    if seconds < -9_223_371_966_579_724_800 { seconds + (1 << 64) } else { seconds }
}

/// RFC 3339 with as many digits of a second as are needed.
pub(crate) fn rfc3339(ms: i64) -> String {
    let at = civil(i128::from(ms.div_euclid(1000)));
    let (hour, minute, second) = (at.second / 3600, at.second / 60 % 60, at.second % 60);
    let fraction = match ms.rem_euclid(1000) {
        0 => String::new(),
        ms => format!(".{}", format!("{ms:03}").trim_end_matches('0')),
    };
    let (year, month, day) = (at.year, at.month, at.day);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_found_in_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_164_800_250), "2024-02-29T00:00:00.25Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        let day_of_year = calendar_function("day_of_year").unwrap();
        assert_eq!(day_of_year(1_735_603_200.0), 366.0);
        assert_eq!(calendar_function("day_of_week").unwrap()(0.0), 4.0);
        assert_eq!(calendar_function("year").unwrap()(1e300), 292_277_026_596.0);
        assert_eq!(calendar_function("hour").unwrap()(f64::NAN), 15.0);
    }
}
