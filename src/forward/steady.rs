//! Whether the wall clock can be believed: while it jumps, nothing is sent.
//!
//! A sample is too old or not by the wall clock. One that is set hours ahead by mistake and back again a
//! moment later would in between give up all that waits. So after a jump nothing is sent until
//! the clock has gone on evenly for a while, or is back where it was. Samples keep the times that
//! they have. A machine that slept comes back with a jump as well.

use std::time::Duration;

use stint_model::{Span, Timestamp};

/// Less is how clocks are kept right.
const JUMP_MIN: Span = Span(60 * Span::SECOND.0);
/// After a jump it has to go on evenly for so long.
const SETTLES_IN: Duration = Duration::from_mins(2);

/// The wall clock as compared with the time that passes.
#[derive(Debug, Default)]
pub(super) struct Steady {
    /// The difference between both while the clock was believed.
    believed: Option<i64>,
    /// The difference since the last jump, and when that was.
    jumped: Option<(i64, Duration)>,
}

impl Steady {
    /// How long to wait before the clock, which shows `wall` at `now`, is looked at again; nothing
    /// where it can be believed.
    pub(super) fn wait(&mut self, now: Duration, wall: Timestamp) -> Option<Duration> {
        let difference = wall.as_ms().saturating_sub(now.as_millis() as i64);
        let is_near = |other: i64| difference.abs_diff(other) <= JUMP_MIN.as_ms().unsigned_abs();
        let believed = *self.believed.get_or_insert(difference);
        if is_near(believed) {
            // Small steps add up to no jump.
            (self.believed, self.jumped) = (Some(difference), None);
            return None;
        }
        let since = match self.jumped {
            Some((other, since)) if is_near(other) => since,
            _ => {
                let by = Span(difference.saturating_sub(believed));
                tracing::warn!(
                    by_secs = by.as_secs_f64(),
                    "the wall clock has jumped; nothing is forwarded until it has gone on evenly for {} s",
                    SETTLES_IN.as_secs()
                );
                now
            }
        };
        let left = (since + SETTLES_IN).saturating_sub(now);
        if left.is_zero() {
            (self.believed, self.jumped) = (Some(difference), None);
            return None;
        }
        self.jumped = Some((difference, since));
        // It may be set back before.
        Some(left.min(Duration::from_secs(5)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// The clock at a time, when it was set by so many seconds.
    fn wall(now: u64, by: i64) -> Timestamp {
        Timestamp(1_700_000_000_000 + (now as i64 + by) * 1000)
    }

    #[test]
    fn a_jump_is_believed_when_the_clock_has_gone_on_evenly() {
        let mut steady = Steady::default();
        assert_eq!(steady.wait(secs(10), wall(10, 0)), None);
        assert_eq!(steady.wait(secs(20), wall(20, 3_600)), Some(secs(5)));
        assert_eq!(steady.wait(secs(138), wall(138, 3_601)), Some(secs(2)));
        assert_eq!(steady.wait(secs(140), wall(140, 3_601)), None);
        assert_eq!(steady.wait(secs(141), wall(141, 3_601)), None);
        assert!(steady.wait(secs(142), wall(142, 0)).is_some(), "back is a jump as well by now");
    }

    #[test]
    fn a_clock_that_is_back_where_it_was_is_believed_at_once() {
        let mut steady = Steady::default();
        assert_eq!(steady.wait(secs(10), wall(10, 0)), None);
        assert!(steady.wait(secs(20), wall(20, -700)).is_some());
        assert!(steady.wait(secs(130), wall(130, 900)).is_some(), "another jump begins anew");
        assert!(steady.wait(secs(240), wall(240, 900)).is_some());
        assert_eq!(steady.wait(secs(241), wall(241, 2)), None);
    }

    #[test]
    fn a_clock_that_is_kept_right_in_small_steps_does_not_jump() {
        let mut steady = Steady::default();
        for n in 0..100 {
            assert_eq!(steady.wait(secs(n * 60), wall(n * 60, n as i64 * 20)), None);
        }
    }
}
