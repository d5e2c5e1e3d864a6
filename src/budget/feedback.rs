//! What the account says of itself: its limits, and how many series are active there. What is
//! active and was not sent from here is somebody else's, and leaves less for us.
//!
//! The target falls at once and rises slowly; of what others use, the most of the last half an hour
//! counts. What was said last holds until something else is said.

use std::collections::VecDeque;
use std::time::Duration;

use super::limits::{Limits, Origin};

/// How long it is remembered how much others used.
const REMEMBERED: Duration = Duration::from_mins(30);
/// The target rises by a twentieth of the configured one in this time.
const RAISE_EVERY: Duration = Duration::from_mins(5);
const RAISE_PART: u64 = 20;
/// Partitions over which the limit is taken to be spread.
const PARTITIONS: f64 = 64.0;
/// How many deviations from an even spread leave every partition below its part of the limit.
const DEVIATIONS: f64 = 3.6;

/// One answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    /// Active series, of all senders.
    pub active: Option<u64>,
    /// Series that the account includes.
    pub contract: Option<u64>,
    /// Series above which new ones are refused.
    pub enforced: Option<u64>,
    /// Points per minute that are included for each series.
    pub points_per_series: Option<f64>,
}

/// What was said, and what follows.
#[derive(Clone, Debug)]
pub struct Feedback {
    configured: Limits,
    said: Said,
    said_at: Duration,
    /// Series of others, by time.
    foreign: VecDeque<(Duration, u64)>,
    target: u64,
    raised_at: Duration,
    /// Why the last question was not answered.
    problem: Option<String>,
}

impl Feedback {
    /// Nothing was said yet.
    pub fn new(configured: Limits, now: Duration) -> Self {
        let target = configured.target;
        Self {
            configured,
            said: Said::default(),
            said_at: now,
            foreign: VecDeque::new(),
            target,
            raised_at: now,
            problem: None,
        }
    }

    /// The limits to keep after an answer, while so many series are held here.
    pub fn hear(&mut self, said: Said, held: u64, now: Duration) -> Limits {
        self.problem = None;
        self.said_at = now;
        // An answer may leave out what an earlier one told.
        self.said = Said {
            active: said.active.or(self.said.active),
            contract: said.contract.or(self.said.contract),
            enforced: said.enforced.or(self.said.enforced),
            points_per_series: said.points_per_series.or(self.said.points_per_series),
        };
        if let Some(active) = said.active {
            self.foreign.push_back((now, active.saturating_sub(held)));
        }
        while self.foreign.len() > 1
            && self.foreign.front().is_some_and(|(at, _)| *at + REMEMBERED < now)
        {
            self.foreign.pop_front();
        }
        self.limits(now)
    }

    fn limits(&mut self, now: Duration) -> Limits {
        let configured = &self.configured;
        // What nobody configured is what the account says.
        let contract = match (self.said.contract, configured.origin) {
            (Some(said), Origin::FreeTier) => said,
            (Some(said), Origin::Configured) => said.min(configured.contract),
            (None, _) => configured.contract,
        };
        let enforced = self.said.enforced.unwrap_or(contract);
        let part = configured.target as f64 / configured.contract.max(1) as f64;
        let most = match self.said.enforced {
            Some(enforced) => contract.min(skew_safe(enforced)),
            // As carefully as configured.
            None => (contract as f64 * part) as u64,
        };
        let most = most.saturating_sub(self.foreign());
        if most <= self.target {
            (self.target, self.raised_at) = (most, now);
        }
        let step = (configured.target / RAISE_PART).max(1);
        while self.target < most && self.raised_at + RAISE_EVERY <= now {
            self.target = self.target.saturating_add(step).min(most);
            self.raised_at += RAISE_EVERY;
        }
        let included = self.said.points_per_series.map(|points| (contract as f64 * points) as u64);
        let points = match (configured.points_per_minute, included) {
            (Some(points), Some(said)) => Some(points.min(said).max(1)),
            (points, _) => points,
        };
        Limits {
            contract,
            enforced,
            target: self.target,
            reserve: configured.reserve.min(self.target),
            points_per_minute: points,
            ..configured.clone()
        }
    }

    /// The most series of others in the last half an hour.
    pub fn foreign(&self) -> u64 {
        self.foreign.iter().map(|(_, foreign)| *foreign).max().unwrap_or(0)
    }

    /// What was said.
    pub fn said(&self) -> Said {
        self.said
    }

    /// How long ago something was said, or nothing was since the start.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.said_at)
    }

    /// Notes that there was no answer.
    pub fn failed(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    /// Why the last question was not answered.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

/// How many series fit below a limit that is spread evenly over partitions, so that it is unlikely
/// that one of them is full.
pub fn skew_safe(enforced: u64) -> u64 {
    let each = (enforced as f64 / PARTITIONS).floor();
    // n + d·√n ≤ each
    let root = (each + DEVIATIONS * DEVIATIONS / 4.0).sqrt() - DEVIATIONS / 2.0;
    (root.max(0.0).powi(2) * PARTITIONS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::limits::MissingLedger;

    fn configured(origin: Origin) -> Limits {
        Limits {
            contract: 10_000,
            enforced: 10_000,
            target: 9_000,
            reserve: 450,
            points_per_minute: Some(10_000),
            missing_ledger: MissingLedger::Nothing,
            origin,
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn active(active: u64) -> Said {
        Said { active: Some(active), ..Said::default() }
    }

    #[test]
    fn below_a_limit_over_partitions_there_is_room_for_skew() {
        assert!((7_400..7_600).contains(&skew_safe(10_000)), "{}", skew_safe(10_000));
        assert!((11_000..12_000).contains(&skew_safe(15_000)), "{}", skew_safe(15_000));
        assert!(skew_safe(150_000) > 130_000);
        assert_eq!(skew_safe(0), 0);
    }

    #[test]
    fn what_others_use_leaves_less_at_once_and_more_slowly() {
        let mut feedback = Feedback::new(configured(Origin::Configured), secs(0));
        assert_eq!(feedback.hear(active(4_000), 4_000, secs(60)).target, 9_000);
        assert_eq!(feedback.hear(active(7_000), 4_000, secs(120)).target, 6_000);
        assert_eq!(feedback.hear(active(4_000), 4_000, secs(180)).target, 6_000);
        assert_eq!(feedback.foreign(), 3_000);
        // Half an hour later it is forgotten that they did.
        assert_eq!(feedback.hear(active(4_000), 4_000, secs(180 + 1_800)).target, 8_700);
        let later = feedback.hear(active(4_000), 4_000, secs(180 + 1_800 + 300));
        assert_eq!((later.target, feedback.foreign()), (9_000, 0));
    }

    #[test]
    fn limits_are_those_that_are_said() {
        let said = Said {
            contract: Some(10_000),
            enforced: Some(15_000),
            points_per_series: Some(1.0),
            ..Said::default()
        };
        let mut feedback = Feedback::new(configured(Origin::FreeTier), secs(0));
        let limits = feedback.hear(said, 0, secs(3_600));
        assert_eq!((limits.contract, limits.enforced, limits.target), (10_000, 15_000, 10_000));
        // A trial ends.
        let less = Said { contract: Some(5_000), enforced: Some(5_000), ..said };
        let limits = feedback.hear(less, 0, secs(3_660));
        assert_eq!(limits.target, skew_safe(5_000));
        assert_eq!((limits.contract, limits.points_per_minute), (5_000, Some(5_000)));
        // What is configured is not passed.
        let more = Said { contract: Some(50_000), enforced: Some(100_000), ..said };
        let mut feedback = Feedback::new(configured(Origin::Configured), secs(0));
        let limits = feedback.hear(more, 0, secs(36_000));
        assert_eq!((limits.contract, limits.target), (10_000, 10_000));
    }

    #[test]
    fn silence_changes_nothing_and_is_told() {
        let mut feedback = Feedback::new(configured(Origin::Configured), secs(0));
        feedback.hear(active(6_000), 4_000, secs(60));
        feedback.failed("401".into());
        assert_eq!((feedback.problem(), feedback.age(secs(120))), (Some("401"), secs(60)));
        // One answer is remembered, however old.
        let said = Said { contract: Some(10_000), ..Said::default() };
        assert_eq!(feedback.hear(said, 4_000, secs(9_000)).target, 7_000);
    }
}
