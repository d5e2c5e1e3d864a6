//! What was in use minute by minute, and where that leads.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stint_model::{Span, Timestamp};
use stint_storage::Disk;

use super::beside::Beside;
use super::month::{Month, MonthFigures};

/// Minutes that are remembered: one day.
const MINUTES_MAX: usize = 1440;
/// Minutes that the trend is taken from.
const TREND_MINUTES: usize = 360;
/// Minutes below which a trend means nothing.
const TREND_MINUTES_MIN: usize = 30;

/// One minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Minute {
    number: i64,
    live: u64,
    points: u64,
}

/// The last day, and the month.
#[derive(Debug, Default)]
pub struct History {
    minutes: VecDeque<Minute>,
    month: Month,
}

/// Where the use of slots is going.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Slots per hour; negative when use falls.
    pub slots_per_hour: f64,
    /// When the target is reached at that rate; `None` when it is not.
    pub exhausted_in: Option<Span>,
    /// How much the points per minute grow in an hour.
    pub points_per_hour: f64,
    /// When as many are sent as are included; `None` when that does not happen, or nothing limits them.
    pub points_exhausted_in: Option<Span>,
}

impl Minute {
    /// What is billed.
    fn size(&self) -> u64 {
        self.live.max(self.points)
    }

    fn start(&self) -> Timestamp {
        Timestamp(self.number.saturating_mul(Span::MINUTE.as_ms()))
    }
}

impl History {
    /// Nothing of the day, and of the month what an earlier run left beside the ledger.
    pub fn open(disk: Arc<dyn Disk>, ledger: &Path) -> Self {
        Self { minutes: VecDeque::new(), month: Month::open(disk, ledger) }
    }

    /// What is to be written of the month, now and then or where it `ends`.
    pub fn keep(&mut self, now: Duration, ends: bool) -> Option<Beside> {
        self.month.keep(now, ends)
    }

    /// What the month comes to.
    pub fn month(&self) -> Option<MonthFigures> {
        let last = self.minutes.back()?;
        let over = self.minutes.iter().take(self.minutes.len() - 1);
        let figures = self.month.figures(last.start(), over.map(Minute::size));
        (figures.minutes > 0).then_some(figures)
    }

    /// Notes the slots in use at `now` and samples handed to the network since the last call.
    pub fn record(&mut self, now: Timestamp, live: u64, points: u64) {
        let number = now.as_ms().div_euclid(Span::MINUTE.as_ms());
        match self.minutes.back_mut() {
            // A clock set back goes on in the minute it left.
            Some(last) if last.number >= number => {
                last.live = last.live.max(live);
                last.points = last.points.saturating_add(points);
            }
            over => {
                if let Some(over) = over {
                    self.month.add(over.start(), over.size());
                }
                self.minutes.push_back(Minute { number, live, points });
            }
        }
        if self.minutes.len() > MINUTES_MAX {
            self.minutes.pop_front();
        }
    }

    /// Samples handed to the network in the last whole minute.
    pub fn points_last_minute(&self) -> u64 {
        let before_last = self.minutes.len().checked_sub(2);
        before_last.and_then(|at| self.minutes.get(at)).map_or(0, |minute| minute.points)
    }

    /// The most slots in use at once over the last day.
    pub fn live_max(&self) -> u64 {
        self.minutes.iter().map(|minute| minute.live).max().unwrap_or(0)
    }

    /// What the account would be billed by: the 95th percentile over the remembered minutes of
    /// the larger of slots and points.
    pub fn billable_p95(&self) -> u64 {
        let mut all: Vec<u64> = self.minutes.iter().map(Minute::size).collect();
        all.sort_unstable();
        let at = (all.len() * 95).div_ceil(100).saturating_sub(1);
        all.get(at).copied().unwrap_or(0)
    }

    /// The trend of the last hours; `None` with less than half an hour of history.
    pub fn trend(&self, target: u64, points: Option<u64>) -> Option<Trend> {
        let skip = self.minutes.len().saturating_sub(TREND_MINUTES);
        let recent: Vec<&Minute> = self.minutes.iter().skip(skip).collect();
        if recent.len() < TREND_MINUTES_MIN {
            return None;
        }
        let live = Line::through(&recent, |minute| minute.live)?;
        // The last minute is not over.
        let whole = recent.get(..recent.len() - 1).unwrap_or_default();
        let sent = Line::through(whole, |minute| minute.points)?;
        Some(Trend {
            slots_per_hour: live.per_minute * 60.0,
            exhausted_in: live.reaches(target),
            points_per_hour: sent.per_minute * 60.0,
            points_exhausted_in: points.and_then(|points| sent.reaches(points)),
        })
    }
}

/// A straight line through the minutes.
struct Line {
    per_minute: f64,
    last: u64,
}

impl Line {
    fn through(minutes: &[&Minute], value: impl Fn(&Minute) -> u64) -> Option<Self> {
        let first = minutes.first()?.number;
        let last = value(minutes.last()?);
        let count = minutes.len() as f64;
        let at = |minute: &Minute| (minute.number - first) as f64;
        let mean_x = minutes.iter().map(|m| at(m)).sum::<f64>() / count;
        let mean_y = minutes.iter().map(|m| value(m) as f64).sum::<f64>() / count;
        let mut covariance = 0.0;
        let mut variance = 0.0;
        for minute in minutes {
            let x = at(minute) - mean_x;
            covariance += x * (value(minute) as f64 - mean_y);
            variance += x * x;
        }
        (variance > 0.0).then(|| Self { per_minute: covariance / variance, last })
    }

    /// When the line reaches `limit`, from the last minute on.
    fn reaches(&self, limit: u64) -> Option<Span> {
        let minutes = limit.saturating_sub(self.last) as f64 / self.per_minute;
        // A year from now is as good as never.
        let soon = self.per_minute > 0.0 && minutes < 365.0 * 24.0 * 60.0;
        soon.then_some(Span((minutes * 60_000.0) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(n: i64) -> Timestamp {
        Timestamp(n * 60_000)
    }

    #[test]
    fn minutes_that_are_over_make_the_month() {
        let mut history = History::default();
        history.record(minute(0), 5, 3);
        assert_eq!(history.month(), None);
        for n in 1..=40 {
            history.record(minute(n), 5, 100);
        }
        let month = history.month().unwrap();
        assert_eq!((month.name.as_str(), month.minutes), ("1970-01", 40));
        assert_eq!((month.so_far, month.projected), (100, 100));
    }

    #[test]
    fn a_steady_rise_says_when_the_target_is_reached() {
        let mut history = History::default();
        for n in 0..60 {
            history.record(minute(n), 100 + n as u64, 5 + 2 * n as u64);
        }
        let trend = history.trend(219, Some(181)).unwrap();
        assert!((trend.points_per_hour - 120.0).abs() < 1e-6);
        assert_eq!(trend.points_exhausted_in, Some(Span(30 * 60_000)));
        assert_eq!(history.trend(219, None).unwrap().points_exhausted_in, None);
        assert!((trend.slots_per_hour - 60.0).abs() < 1e-6);
        assert_eq!(trend.exhausted_in, Some(Span(60 * 60_000)));
    }

    #[test]
    fn a_level_or_falling_use_never_reaches_it() {
        let mut history = History::default();
        for n in 0..29 {
            history.record(minute(n), 100, 5);
        }
        assert_eq!(history.trend(200, Some(9)), None);
        for n in 29..60 {
            history.record(minute(n), 100, 5);
        }
        assert_eq!(history.trend(200, Some(9)).unwrap().exhausted_in, None);
    }

    #[test]
    fn minutes_add_up_and_a_clock_set_back_makes_no_new_ones() {
        let mut history = History::default();
        history.record(minute(10), 5, 100);
        history.record(minute(3), 7, 20);
        history.record(minute(11), 6, 1);
        assert_eq!(history.points_last_minute(), 120);
        assert_eq!((history.live_max(), history.billable_p95()), (7, 120));
        for n in 12..5000 {
            history.record(minute(n), 1, 1);
        }
        assert_eq!(history.live_max(), 1);
    }
}
