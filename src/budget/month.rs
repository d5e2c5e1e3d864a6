//! What a month comes to: accounts are billed by the 95th percentile of its minutes.
//!
//! Kept as a count of minutes by size, to within a hundredth, so that a month takes little room. It is
//! written beside the ledger now and then, and outlives restarts; minutes in which nothing ran are not
//! known and not counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan as _};
use stint_model::{Span, Timestamp};
use stint_storage::Disk;
use stint_storage::disk::read_all;

use super::beside::Beside;

const MAGIC: &str = "stint-month-1";
/// How often it is written.
const WRITE_EVERY: Duration = Duration::from_mins(10);
/// Sizes are told apart by so many leading bits.
const BITS: u32 = 8;

/// The minutes of a month so far.
#[derive(Debug, Default)]
pub(super) struct Month {
    /// Year and month, as `2026-11`; empty before the first minute.
    name: String,
    /// How many minutes were of a size, by its number.
    minutes: BTreeMap<u32, u64>,
    file: Option<(Arc<dyn Disk>, PathBuf)>,
    write_at: Duration,
}

/// What a month comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonthFigures {
    /// Year and month, as `2026-11`.
    pub name: String,
    /// Minutes that are known.
    pub minutes: u64,
    /// Their 95th percentile.
    pub so_far: u64,
    /// That of the whole month if the rest is as the last day was.
    pub projected: u64,
}

impl Month {
    /// What an earlier run left beside the ledger.
    pub(super) fn open(disk: Arc<dyn Disk>, ledger: &Path) -> Self {
        let path = ledger.with_extension("month");
        let (name, minutes) = match read_all(&*disk, &path) {
            Ok(bytes) => parse(&bytes).unwrap_or_else(|| {
                tracing::warn!("{}: it is damaged; the month begins anew", path.display());
                Default::default()
            }),
            Err(error) if error.is_not_found() => Default::default(),
            Err(error) => {
                tracing::warn!("{error}; the month begins anew");
                Default::default()
            }
        };
        Self { name, minutes, file: Some((disk, path)), write_at: Duration::ZERO }
    }

    /// Notes a minute that is over.
    pub(super) fn add(&mut self, minute: Timestamp, size: u64) {
        let Some(name) = name_of(minute) else { return };
        if name > self.name {
            (self.name, self.minutes) = (name, BTreeMap::new());
        } else if name < self.name {
            // The clock was set back over the end of a month; or it was far ahead before.
            if name_of(minute + Span::DAY).is_some_and(|soon| soon >= self.name) {
                return;
            }
            (self.name, self.minutes) = (name, BTreeMap::new());
        }
        *self.minutes.entry(number_of(size)).or_default() += 1;
    }

    /// What it comes to at `now`, if the rest of it is as the minutes of the `last` day were.
    pub(super) fn figures(&self, now: Timestamp, last: impl Iterator<Item = u64>) -> MonthFigures {
        let mut weights: BTreeMap<u32, f64> =
            self.minutes.iter().map(|(size, count)| (*size, *count as f64)).collect();
        let so_far = percentile(&weights);
        let last: Vec<u64> = last.collect();
        let rest = rest_of(now).unwrap_or(0.0) / last.len().max(1) as f64;
        for size in last {
            *weights.entry(number_of(size)).or_default() += rest;
        }
        MonthFigures {
            name: self.name.clone(),
            minutes: self.minutes.values().sum(),
            so_far,
            projected: percentile(&weights),
        }
    }

    /// What is to be written, now and then or where it `ends`.
    pub(super) fn keep(&mut self, now: Duration, ends: bool) -> Option<Beside> {
        if self.name.is_empty() || now < self.write_at && !ends {
            return None;
        }
        self.write_at = now + WRITE_EVERY;
        let (disk, path) = self.file.clone()?;
        let content = Some(print(&self.name, &self.minutes).into_bytes());
        let loss = "what the month has come to is not known after a restart";
        Some(Beside { disk, path, content, loss })
    }
}

/// The size above which a twentieth of the minutes are.
fn percentile(weights: &BTreeMap<u32, f64>) -> u64 {
    let most = weights.values().sum::<f64>() * 0.95;
    let mut sum = 0.0;
    let at = weights.iter().find(|(_, weight)| {
        sum += **weight;
        sum >= most
    });
    at.map_or(0, |(number, _)| size_of(*number))
}

/// A size's number: itself where it is small, else its leading bits and how many follow.
fn number_of(size: u64) -> u32 {
    let shift = (u64::BITS - size.leading_zeros()).saturating_sub(BITS);
    (shift << BITS) + (size >> shift) as u32
}

/// The least size of that number.
fn size_of(number: u32) -> u64 {
    let (shift, bits) = (number >> BITS, number & ((1 << BITS) - 1));
    u64::from(bits).checked_shl(shift).unwrap_or(u64::MAX)
}

fn date(at: Timestamp) -> Option<jiff::Zoned> {
    Some(Instant::from_millisecond(at.as_ms()).ok()?.to_zoned(TimeZone::UTC))
}

fn name_of(at: Timestamp) -> Option<String> {
    let date = date(at)?;
    Some(format!("{:04}-{:02}", date.year(), date.month()))
}

/// Minutes until the month ends.
fn rest_of(at: Timestamp) -> Option<f64> {
    let next = date(at)?.first_of_month().ok()?.checked_add(1.month()).ok()?;
    let next = next.start_of_day().ok()?.timestamp().as_millisecond();
    Some((next - at.as_ms()) as f64 / Span::MINUTE.as_ms() as f64)
}

fn print(name: &str, minutes: &BTreeMap<u32, u64>) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{MAGIC} {name}");
    for (size, count) in minutes {
        // Writing to a string never fails.
        let _ = write!(text, " {size}:{count}");
    }
    let crc = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, " {crc:08x}");
    text
}

fn parse(bytes: &[u8]) -> Option<(String, BTreeMap<u32, u64>)> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (body, crc) = text.rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
        return None;
    }
    let mut words = body.strip_prefix(MAGIC)?.split_ascii_whitespace();
    let name = words.next()?.to_owned();
    let pair = |word: &str| {
        let (size, count) = word.split_once(':')?;
        Some((size.parse().ok()?, count.parse().ok()?))
    };
    Some((name, words.map(pair).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stint_storage::SimDisk;

    use super::*;

    /// The first of November 2026.
    const START: i64 = 1_793_491_200_000;

    fn minute(n: i64) -> Timestamp {
        Timestamp(START + n * 60_000)
    }

    #[test]
    fn the_month_is_billed_by_all_but_its_dearest_twentieth() {
        let mut month = Month::default();
        for n in 0..1000 {
            month.add(minute(n), if n % 25 == 0 { 9000 } else { 200 });
        }
        let figures = month.figures(minute(1000), [200; 60].into_iter());
        assert_eq!((figures.name.as_str(), figures.minutes), ("2026-11", 1000));
        assert_eq!((figures.so_far, figures.projected), (200, 200));
        // From now on more: the rest of the month is most of it.
        assert_eq!(month.figures(minute(1000), [4096; 60].into_iter()).projected, 4096);
        // On its last day that does not matter any more.
        let late = minute(30 * 1440 - 10);
        assert_eq!(month.figures(late, [4096; 60].into_iter()).projected, 200);
        assert_eq!(rest_of(late), Some(10.0));
    }

    #[test]
    fn a_new_month_begins_anew_and_a_clock_set_back_does_not_count() {
        let mut month = Month::default();
        month.add(minute(30 * 1440 - 1), 70);
        month.add(minute(30 * 1440), 7);
        month.add(minute(30 * 1440 - 1), 900);
        let figures = month.figures(minute(30 * 1440 + 1), std::iter::empty());
        assert_eq!((figures.name.as_str(), figures.minutes), ("2026-12", 1));
        assert_eq!((figures.so_far, figures.projected), (7, 7));
        // It was far ahead: what it said of December was no month's.
        month.add(minute(3), 40);
        let figures = month.figures(minute(4), std::iter::empty());
        assert_eq!((figures.name.as_str(), figures.minutes, figures.so_far), ("2026-11", 1, 40));
    }

    #[test]
    fn it_outlives_a_restart() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let open = || Month::open(Arc::clone(&disk), Path::new("ledger"));
        let mut month = open();
        assert!(month.keep(Duration::ZERO, true).is_none());
        assert!(read_all(&*disk, Path::new("ledger.month")).is_err(), "nothing is known");
        month.add(minute(1), 500);
        month.keep(Duration::ZERO, false).unwrap().write();
        month.add(minute(2), 600);
        assert!(month.keep(Duration::from_mins(9), false).is_none());
        assert_eq!(open().figures(minute(3), std::iter::empty()).minutes, 1);
        month.keep(Duration::from_mins(10), false).unwrap().write();
        let figures = open().figures(minute(3), std::iter::empty());
        assert_eq!((figures.minutes, figures.so_far), (2, 600));
        stint_storage::disk::write_atomically(&*disk, Path::new("ledger.month"), b"something")
            .unwrap();
        assert_eq!(open().figures(minute(3), std::iter::empty()), MonthFigures::default());
    }

    proptest! {
        #[test]
        fn sizes_are_told_to_within_a_hundredth(size in any::<u64>()) {
            let found = size_of(number_of(size));
            prop_assert!(found <= size && size - found <= size / 100);
        }

        #[test]
        fn numbers_are_in_the_order_of_sizes(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(a > b || number_of(a) <= number_of(b));
        }
    }
}
