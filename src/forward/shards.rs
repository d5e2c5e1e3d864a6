//! How many requests are in flight at once.

use std::time::Duration;

use super::retry::{Backoff, Jitter};
use crate::config::QueueConfig;

/// Quiet rounds after which a shard is given up.
const QUIET_ROUNDS: u32 = 12;
/// More than anybody configures.
const SHARDS_MAX: usize = 1000;

/// How many requests are in flight at once.
pub(super) struct Shards {
    pub(super) count: usize,
    pub(super) desired: usize,
    min: usize,
    max: usize,
    quiet: u32,
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

    /// More requests at once while full rounds leave a backlog, one less after a quiet while.
    pub(super) fn adapt(&mut self, behind: bool, took: Duration, deadline: Duration) {
        let failing = self.backoffs.iter().any(|backoff| backoff.attempts() > 0);
        self.desired = self.count;
        if behind {
            self.quiet = 0;
            self.desired = self.count + (self.count / 2).max(1);
        } else if took * 2 < deadline {
            self.quiet += 1;
            if self.quiet >= QUIET_ROUNDS {
                self.quiet = 0;
                self.desired = self.count.saturating_sub(1);
            }
        }
        // More requests do not help an endpoint that fails.
        if !(failing && behind) {
            self.count = self.desired.clamp(self.min, self.max);
            self.fill_up();
        }
    }
}
