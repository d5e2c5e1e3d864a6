//! The only source of time: a trait, the system's clock, and one that tests move by hand.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::time::{Span, Timestamp};

/// Reads the time. Everything that needs it is handed one of these.
pub trait Clock: Send + Sync {
    /// Wall-clock time; may step backwards when the system's clock is set.
    fn now(&self) -> Timestamp;
    /// Time since some fixed point, never going backwards; for measuring durations. It stands still
    /// while the machine sleeps: what was on its way then arrives afterwards, and must not have timed
    /// out before.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    pub fn new() -> Self {
        Self { started: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |since| since.as_millis() as i64))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct SimClock {
    now_ms: AtomicI64,
    monotonic_ms: AtomicI64,
}

impl SimClock {
    /// A clock standing at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { now_ms: AtomicI64::new(now.0), monotonic_ms: AtomicI64::new(0) }
    }

    /// Lets `span` pass on both clocks.
    pub fn advance(&self, span: Span) {
        self.now_ms.fetch_add(span.0, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(span.0.max(0), Ordering::SeqCst);
    }

    /// Sets the wall clock without time passing, as an administrator or NTP does.
    pub fn step_to(&self, now: Timestamp) {
        self.now_ms.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_no_passing_of_time() {
        let clock = SimClock::at(Timestamp(1000));
        clock.advance(Span(500));
        clock.step_to(Timestamp(200));
        assert_eq!(clock.now(), Timestamp(200));
        assert_eq!(clock.monotonic(), Duration::from_millis(500));
    }
}
