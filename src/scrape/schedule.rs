//! When a target is scraped: at its own offset of the interval, pinned to absolute time, so that
//! restarts change nothing and many targets do not fall together.

use stint_model::{Span, Timestamp};

/// The ticks of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    interval: Span,
    offset: Span,
}

impl Schedule {
    /// Ticks every `interval`, at an offset made from `hash`.
    pub(super) fn new(interval: Span, hash: u64) -> Self {
        let interval = Span(interval.0.max(1));
        let offset = Span((hash % interval.0.unsigned_abs()) as i64);
        Self { interval, offset }
    }

    /// Distance between ticks.
    pub(super) fn interval(self) -> Span {
        self.interval
    }

    /// The first tick after `now`. Ticks that were missed are gone.
    pub(super) fn next_after(self, now: Timestamp) -> Timestamp {
        let since = now.0.saturating_sub(self.offset.0).rem_euclid(self.interval.0);
        now + Span(self.interval.0 - since)
    }

    /// The time that samples of a scrape get which was due at `tick` and began at `now`: the tick
    /// when the delay is no more than 2 ms and 1 % of the interval, so that the distances between
    /// samples are all equal and compress well.
    pub(super) fn align(self, tick: Timestamp, now: Timestamp) -> Timestamp {
        let tolerance = (self.interval.0 / 100).min(2);
        if now.since(tick).0.abs() <= tolerance { tick } else { now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_pinned_to_absolute_time() {
        let schedule = Schedule::new(Span(15_000), 15_000 * 7 + 4000);
        assert_eq!(schedule.next_after(Timestamp(0)), Timestamp(4000));
        assert_eq!(schedule.next_after(Timestamp(3999)), Timestamp(4000));
        assert_eq!(schedule.next_after(Timestamp(4000)), Timestamp(19_000));
        assert_eq!(schedule.next_after(Timestamp(100_000)), Timestamp(109_000));
    }

    #[test]
    fn a_small_delay_is_hidden_and_a_large_one_told() {
        let schedule = Schedule::new(Span(15_000), 0);
        let tick = Timestamp(30_000);
        assert_eq!(schedule.align(tick, Timestamp(30_002)), tick);
        assert_eq!(schedule.align(tick, Timestamp(30_003)), Timestamp(30_003));
        assert_eq!(schedule.align(tick, Timestamp(29_998)), tick);
        let fast = Schedule::new(Span(100), 0);
        assert_eq!(fast.align(tick, Timestamp(30_001)), tick);
        assert_eq!(fast.align(tick, Timestamp(30_002)), Timestamp(30_002));
    }

    proptest! {
        #[test]
        fn the_next_tick_is_at_most_one_interval_away(
            interval in 1_i64..1_000_000,
            hash: u64,
            now in 0_i64..2_000_000_000_000,
        ) {
            let schedule = Schedule::new(Span(interval), hash);
            let next = schedule.next_after(Timestamp(now));
            let wait = next.since(Timestamp(now)).0;
            prop_assert!(wait > 0 && wait <= interval);
            prop_assert_eq!(schedule.next_after(next).since(next), Span(interval));
        }
    }
}
