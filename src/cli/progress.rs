//! How far long work is, on standard error: a line that changes on a terminal, elsewhere a line from
//! time to time.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use stint_model::Clock;

/// How often a terminal is told.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// How often others are.
const LOGGED_EVERY: Duration = Duration::from_secs(10);
/// Characters of the bar.
const WIDTH: u64 = 30;

/// See the module's documentation.
pub(super) struct Progress {
    clock: Arc<dyn Clock>,
    began: Duration,
    shown: Duration,
    is_terminal: bool,
    is_dirty: bool,
    /// What is counted.
    what: &'static str,
}

impl Progress {
    /// Begins now; `what` is counted, in the plural.
    pub(super) fn new(clock: Arc<dyn Clock>, what: &'static str) -> Self {
        let began = clock.monotonic();
        let is_terminal = std::io::stderr().is_terminal();
        Self { clock, began, shown: began, is_terminal, is_dirty: false, what }
    }

    /// `done` of `total` is behind, in which there were `count` of what is counted.
    pub(super) fn at(&mut self, done: u64, total: u64, count: u64) {
        let now = self.clock.monotonic();
        let every = if self.is_terminal { SHOWN_EVERY } else { LOGGED_EVERY };
        if now.saturating_sub(self.shown) < every {
            return;
        }
        self.shown = now;
        let line = line(done, total, count, self.what, now.saturating_sub(self.began));
        // Where standard error is closed, nobody wants to know.
        let _ = if self.is_terminal {
            self.is_dirty = true;
            write!(std::io::stderr(), "\r{} {line}\x1b[K", bar(done, total))
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    /// Leaves the line, so that something else can be said.
    pub(super) fn finish(&mut self) {
        if std::mem::take(&mut self.is_dirty) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn bar(done: u64, total: u64) -> String {
    let full = (done.min(total) as u128 * u128::from(WIDTH) / u128::from(total.max(1))) as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH as usize - full))
}

fn line(done: u64, total: u64, count: u64, what: &str, took: Duration) -> String {
    let share = done.min(total) as f64 / total.max(1) as f64;
    let seconds = took.as_secs_f64();
    let mut line = format!(
        "{:3.0} %  {} {what}, {}/s",
        (share * 100.0).floor(),
        short(count as f64),
        short(count as f64 / seconds.max(0.001))
    );
    if share > 0.01 && share < 1.0 {
        let left = seconds / share - seconds;
        // Writing to a string cannot fail.
        let _ = write!(line, ", about {left:.0} s left");
    }
    line
}

/// A number in three digits or so.
fn short(number: f64) -> String {
    for (unit, size) in [("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if number >= size {
            return format!("{:.1}{unit}", number / size);
        }
    }
    format!("{number:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_share_speed_and_rest() {
        let told = line(25, 100, 5_000_000, "samples", Duration::from_secs(2));
        assert_eq!(told, " 25 %  5.0M samples, 2.5M/s, about 6 s left");
        assert_eq!(line(7, 7, 999, "series", Duration::from_secs(1)), "100 %  999 series, 999/s");
        assert_eq!(line(0, 0, 0, "series", Duration::ZERO), "  0 %  0 series, 0/s");
        assert_eq!(bar(1, 3), format!("[{}{}]", "#".repeat(10), ".".repeat(20)));
        assert_eq!(bar(u64::MAX, u64::MAX), format!("[{}]", "#".repeat(30)));
    }
}
