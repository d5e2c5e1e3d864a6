//! How many requests are in flight at once.

use std::time::Duration;

use super::retry::{Backoff, Jitter};
use crate::config::QueueConfig;

/// Quiet rounds after which a shard is given up.
const QUIET_ROUNDS: u32 = 12;
/// More than anybody configures.
const SHARDS_MAX: usize = 1000;
/// So many shards cost little: a backlog gets them without a look at what they gain.
const SHARDS_AT_ONCE: usize = 4;
/// By this factor more than that must send more items a second, or they are given up again.
const GAIN_MIN: f64 = 1.1;
/// More shards are there to send more items a second; it is found out over at least
const LOOK_FOR: Duration = Duration::from_secs(1);
/// and so many full rounds.
const LOOK_ROUNDS: u32 = 4;
/// Where more did not help, it is tried again after so many such looks.
const NO_GAIN_LOOKS: u32 = 10;

/// What full rounds sent since the number of shards changed.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    rounds: u32,
    items: usize,
    took: Duration,
}

impl Look {
    fn rate(&self) -> f64 {
        self.items as f64 / self.took.as_secs_f64().max(1e-6)
    }
}

/// How a round went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) items: usize,
    /// From the first look at the store to the last answer,
    pub(super) took: Duration,
    /// and from the first request on.
    pub(super) sending: Duration,
}

/// How many requests are in flight at once.
pub(super) struct Shards {
    pub(super) count: usize,
    pub(super) desired: usize,
    min: usize,
    max: usize,
    quiet: u32,
    /// How many there were before there were more, and how many items a second they sent.
    fewer: Option<(usize, f64)>,
    /// Looks for which it is believed that more do not help.
    no_gain: u32,
    look: Look,
    pub(super) backoffs: Vec<Backoff>,
    queue: (Duration, Duration),
    jitter: Jitter,
}

impl Shards {
    /// As many as an earlier run had, so that series are divided as they were then.
    pub(super) fn new(queue: &QueueConfig, before: Option<usize>, jitter: Jitter) -> Self {
        let min = queue.min_shards.max(1);
        let max = queue.max_shards.max(min);
        let waits = (queue.min_backoff.to_std(), queue.max_backoff.to_std());
        let mut shards = Self {
            count: before.unwrap_or(min).clamp(1, SHARDS_MAX),
            desired: min,
            min,
            max,
            quiet: 0,
            fewer: None,
            no_gain: 0,
            look: Look::default(),
            backoffs: Vec::new(),
            queue: waits,
            jitter,
        };
        shards.fill_up();
        shards
    }

    fn fill_up(&mut self) {
        while self.backoffs.len() < self.count {
            let jitter = Jitter::seeded(self.jitter.next_u64());
            self.backoffs.push(Backoff::new(self.queue.0, self.queue.1, jitter));
        }
    }

    /// More requests at once while full rounds leave a backlog and more of them send more; one less after
    /// a quiet while.
    pub(super) fn adapt(&mut self, behind: bool, round: &Sent, deadline: Duration) {
        let failing = self.backoffs.iter().any(|backoff| backoff.attempts() > 0);
        self.desired = self.count;
        if behind {
            self.quiet = 0;
            self.desired = self.wanted_by_backlog(round);
        } else if round.sending * 2 < deadline {
            self.quiet += 1;
            if self.quiet >= QUIET_ROUNDS {
                self.quiet = 0;
                self.desired = self.count.saturating_sub(1);
            }
        }
        if !behind {
            (self.fewer, self.no_gain, self.look) = (None, 0, Look::default());
        }
        // More requests do not help an endpoint that fails.
        if !(failing && behind) {
            self.count = self.desired.clamp(self.min, self.max);
            self.fill_up();
        }
    }

    /// How many shards a backlog wants. Each has a request in memory: where the endpoint, or this
    /// server, has no more to give, more are a cost without a gain. The first ones are had at once.
    fn wanted_by_backlog(&mut self, round: &Sent) -> usize {
        let look = &mut self.look;
        look.rounds += 1;
        look.items += round.items;
        look.took += round.took;
        let is_known = look.rounds >= LOOK_ROUNDS && look.took >= LOOK_FOR;
        if self.count < SHARDS_AT_ONCE && self.no_gain == 0 {
            (self.fewer, self.look) = (None, Look::default());
            return self.count + 1;
        }
        if !is_known {
            return self.count;
        }
        let rate = std::mem::take(look).rate();
        if self.no_gain > 0 {
            self.no_gain -= 1;
            return self.count;
        }
        if let Some((fewer, before)) = self.fewer.take()
            && rate < before * GAIN_MIN
        {
            self.no_gain = NO_GAIN_LOOKS;
            return fewer;
        }
        self.fewer = Some((self.count, rate));
        self.count + (self.count / 2).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards() -> Shards {
        let queue = QueueConfig { min_shards: 1, max_shards: 50, ..QueueConfig::default() };
        Shards::new(&queue, None, Jitter::seeded(1))
    }

    const DEADLINE: Duration = Duration::from_secs(5);

    /// One full round while so many shards are useful: more of them share what those get done.
    fn round(shards: &mut Shards, useful: usize) {
        let items = shards.count * 1000;
        let took = Duration::from_millis(100) * shards.count.div_ceil(useful) as u32;
        shards.adapt(true, &Sent { items, took, sending: took }, DEADLINE);
    }

    /// The most shards that many rounds lead to, and those at the end.
    fn after(rounds: usize, useful: usize) -> (usize, usize) {
        let (mut shards, mut most) = (shards(), 0);
        for _ in 0..rounds {
            round(&mut shards, useful);
            most = most.max(shards.count);
        }
        (most, shards.count)
    }

    #[test]
    fn a_backlog_gets_as_many_as_help() {
        assert_eq!(after(6, 1).1, SHARDS_AT_ONCE);
        assert_eq!(after(40, 1), (SHARDS_AT_ONCE * 3 / 2, SHARDS_AT_ONCE));
        let (most, now) = after(80, 8);
        assert!((9..=13).contains(&most) && (6..=9).contains(&now), "{most} {now}");
        assert_eq!(after(200, 1000), (50, 50));
    }

    #[test]
    fn whether_more_help_is_tried_again() {
        let mut shards = shards();
        (0..40).for_each(|_| round(&mut shards, 1));
        assert_eq!(shards.count, SHARDS_AT_ONCE);
        (0..20 * NO_GAIN_LOOKS).for_each(|_| round(&mut shards, 1000));
        assert!(shards.count > SHARDS_AT_ONCE * 2, "{}", shards.count);
        let quiet = Sent { items: 10, took: DEADLINE, sending: Duration::ZERO };
        (0..100 * QUIET_ROUNDS).for_each(|_| shards.adapt(false, &quiet, DEADLINE));
        assert_eq!(shards.count, 1);
    }
}
