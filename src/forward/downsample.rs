//! Fewer points on the wire: one whole scrape of each target per interval, times untouched.
//!
//! Time is cut into slots of one interval; of each slot the first sample of a series is forwarded.
//! All series of a target share the slots' phase, so a scrape is taken or left as a whole: the
//! buckets of a histogram stay consistent, and series of one target keep joining by time. The
//! phase puts a target's own rhythm into the middle of a slot, so that a target scraped once per
//! interval is not lost to a few milliseconds of jitter at a slot's edge.
//!
//! A stale marker and a change of `up` pass at once.

use std::collections::HashMap;

use stint_model::{Span, Timestamp, Value};

/// How long after its last sample a series is still shown.
const LOOKBACK: Span = Span(5 * Span::MINUTE.0);

/// Endpoints refuse samples from further ahead.
const AHEAD_MAX: Span = Span(10 * Span::MINUTE.0);

/// Where the slots of each target begin.
#[derive(Debug, Default)]
pub struct Phases {
    /// Time of the first sample seen, by hash of the target's labels.
    first: HashMap<u64, Timestamp>,
}

impl Phases {
    /// The phases of an earlier run.
    pub fn known(first: HashMap<u64, Timestamp>) -> Self {
        Self { first }
    }

    /// The time around which the slots of `target` are centred: that of its first sample.
    pub fn anchor(&mut self, target: u64, at: Timestamp) -> Timestamp {
        *self.first.entry(target).or_insert(at)
    }

    /// The time around which the slots of a known target are centred.
    pub fn get(&self, target: u64) -> Option<Timestamp> {
        self.first.get(&target).copied()
    }

    /// Forgets targets for which `keep` does not hold.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.first.retain(|target, _| keep(*target));
    }
}

/// What was forwarded of one series.
#[derive(Clone, Copy, Debug)]
pub struct Thinner {
    anchor: Timestamp,
    /// The latest time that was forwarded of a series that is shown.
    taken: Timestamp,
    /// What was forwarded last: its time and the bits of its value.
    last: (Timestamp, u64),
    passes_changes: bool,
}

/// The time of what was not forwarded. There is one of each for every series.
const NEVER: Timestamp = Timestamp::MIN;

/// The number of the slot in which `at` lies.
fn slot_of(at: Timestamp, anchor: Timestamp, interval: Span) -> i64 {
    at.since(anchor).as_ms().saturating_add(interval.as_ms() / 2).div_euclid(interval.as_ms())
}

impl Thinner {
    /// A series of which nothing was forwarded yet. `anchor` comes from [`Phases::anchor`];
    /// `passes_changes` lets every change of value pass at once, as for `up`.
    pub fn new(anchor: Timestamp, passes_changes: bool) -> Self {
        Self { anchor, taken: NEVER, last: (NEVER, 0), passes_changes }
    }

    /// Goes on behind what an earlier run forwarded last: its time and the bits of its value.
    pub fn resume(&mut self, at: Timestamp, bits: u64) {
        let is_end = bits == stint_model::STALE_NAN_BITS;
        (self.taken, self.last) = (if is_end { NEVER } else { at }, (at, bits));
    }

    /// Forgets what was forwarded for times that lie so far ahead of `wall` that no endpoint took it: a
    /// clock was wrong, and what comes now must not wait until that time is there.
    pub fn settle(&mut self, wall: Timestamp) {
        if self.taken.max(self.last.0).since(wall) > AHEAD_MAX {
            (self.taken, self.last) = (NEVER, (NEVER, 0));
        }
    }

    /// Whether a sample is due at `interval`; a zero interval forwards everything.
    pub fn is_due(&self, at: Timestamp, interval: Span) -> bool {
        if interval.as_ms() <= 0 {
            return true;
        }
        // The interval may have changed since.
        let slot = |at| slot_of(at, self.anchor, interval);
        self.taken == NEVER || slot(at) > slot(self.taken)
    }

    /// Whether a sample passes although it is not due.
    pub fn passes(&self, at: Timestamp, value: &Value) -> bool {
        let (last, bits) = self.last;
        self.passes_changes && last != NEVER && at > last && bits != bits_of(value)
    }

    /// Notes that the sample is forwarded.
    pub fn taken(&mut self, at: Timestamp, value: &Value) {
        if matches!(value, Value::Stale) {
            // A series that comes back is shown at once.
            self.taken = NEVER;
        } else {
            self.taken = self.taken.max(at);
        }
        if at >= self.last.0 {
            self.last = (at, bits_of(value));
        }
    }

    /// Whether the endpoint still shows the series at `at`: a sample was forwarded less than the
    /// lookback before, and no stale marker since. Only then a stale marker says anything.
    pub fn is_shown(&self, at: Timestamp) -> bool {
        let (last, bits) = self.last;
        let age = at.since(last);
        last != NEVER && bits != stint_model::STALE_NAN_BITS && age > Span::ZERO && age < LOOKBACK
    }
}

fn bits_of(value: &Value) -> u64 {
    match value {
        Value::Float(float) => float.to_bits(),
        Value::Stale => stint_model::STALE_NAN_BITS,
        Value::Histogram(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_that_was_wrong_holds_nothing_back() {
        let mut thinner = Thinner::new(Timestamp(0), false);
        let (day, hour) = (Timestamp(Span::DAY.0), Timestamp(Span::HOUR.0));
        thinner.taken(day, &Value::Float(1.0));
        thinner.settle(day);
        assert!(!thinner.is_due(hour, Span::MINUTE));
        thinner.settle(hour);
        assert!(thinner.is_due(hour, Span::MINUTE) && !thinner.is_shown(hour));
    }

    const MINUTE: Span = Span::MINUTE;

    impl Thinner {
        fn wants(&self, at: Timestamp, value: &Value, interval: Span) -> bool {
            self.is_due(at, interval) || self.passes(at, value)
        }
    }

    fn kept(times: &[i64], interval: Span) -> Vec<i64> {
        let mut thinner = Thinner::new(Timestamp(times[0]), false);
        let mut kept = Vec::new();
        for &at in times {
            if thinner.wants(Timestamp(at), &Value::Float(1.0), interval) {
                thinner.taken(Timestamp(at), &Value::Float(1.0));
                kept.push(at);
            }
        }
        kept
    }

    #[test]
    fn every_fourth_scrape_of_a_target_is_kept() {
        let times: Vec<i64> = (0..40).map(|n| 7_000 + n * 15_000).collect();
        let kept = kept(&times, MINUTE);
        assert_eq!(kept.len(), 11);
        assert!(kept.windows(2).skip(1).all(|pair| pair[1] - pair[0] == 60_000));
    }

    #[test]
    fn jitter_loses_no_scrape_of_a_target_scraped_once_per_interval() {
        let times: Vec<i64> =
            (0..100).map(|n| n * 60_000 + if n % 2 == 0 { 3 } else { -3 }).collect();
        assert_eq!(kept(&times, MINUTE), times);
    }

    #[test]
    fn without_an_interval_everything_is_kept() {
        assert_eq!(kept(&[0, 1, 2, 15_000], Span::ZERO), [0, 1, 2, 15_000]);
    }

    #[test]
    fn an_interval_may_change_on_the_way() {
        let mut thinner = Thinner::new(Timestamp(0), false);
        thinner.taken(Timestamp(600_000), &Value::Float(1.0));
        assert!(!thinner.is_due(Timestamp(660_000), Span(4 * MINUTE.as_ms())));
        assert!(thinner.is_due(Timestamp(840_000), Span(4 * MINUTE.as_ms())));
        assert!(thinner.is_due(Timestamp(660_000), MINUTE));
    }

    #[test]
    fn a_missed_scrape_is_replaced_by_the_next_one() {
        let times = [0, 15_000, 45_000, 75_000, 105_000, 120_000];
        assert_eq!(kept(&times, MINUTE), [0, 45_000, 105_000]);
    }

    #[test]
    fn the_end_of_a_series_and_a_change_of_up_pass_at_once() {
        let mut up = Thinner::new(Timestamp(0), true);
        up.taken(Timestamp(0), &Value::Float(1.0));
        assert!(!up.wants(Timestamp(15_000), &Value::Float(1.0), MINUTE));
        assert!(up.wants(Timestamp(15_000), &Value::Float(0.0), MINUTE));
        up.taken(Timestamp(15_000), &Value::Stale);
        assert!(!up.is_shown(Timestamp(30_000)), "it ended");
        assert!(up.wants(Timestamp(16_000), &Value::Float(1.0), MINUTE), "it came back");
        let mut other = Thinner::new(Timestamp(0), false);
        other.taken(Timestamp(0), &Value::Float(1.0));
        assert!(other.is_shown(Timestamp(299_999)) && !other.is_shown(Timestamp(300_000)));
        assert!(!other.wants(Timestamp(15_000), &Value::Float(0.0), MINUTE));
    }

    #[test]
    fn a_late_series_joins_the_rhythm_of_its_target() {
        let mut phases = Phases::default();
        let anchor = phases.anchor(1, Timestamp(0));
        assert_eq!(phases.anchor(1, Timestamp(45_000)), anchor);
        let mut early = Thinner::new(anchor, false);
        let mut late = Thinner::new(anchor, false);
        let mut together = 0;
        for n in 0..20 {
            let at = Timestamp(n * 15_000);
            let value = Value::Float(1.0);
            let early_kept = early.wants(at, &value, MINUTE);
            if early_kept {
                early.taken(at, &value);
            }
            if n >= 3 && late.wants(at, &value, MINUTE) {
                late.taken(at, &value);
                together += i32::from(early_kept);
            }
        }
        assert!(together >= 4, "{together}");
        phases.retain(|_| false);
        assert_eq!(phases.anchor(1, Timestamp(9)), Timestamp(9));
    }

    proptest! {
        #[test]
        fn at_most_one_sample_per_slot_and_none_earlier_than_the_last(
            gaps in proptest::collection::vec(1i64..90_000, 1..200),
        ) {
            let mut times = vec![0i64];
            for gap in gaps {
                times.push(times[times.len() - 1] + gap);
            }
            let kept = kept(&times, MINUTE);
            let span = times[times.len() - 1];
            prop_assert!(kept.len() as i64 <= span / 60_000 + 2);
            prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
            // No gap on the wire is longer than what the target's own gaps and one slot explain.
            for pair in kept.windows(2) {
                let inside = times.iter().filter(|t| **t > pair[0] && **t < pair[1]).max();
                prop_assert!(inside.is_none_or(|t| t - pair[0] < 60_000));
            }
        }
    }
}
