//! What happens when the server refuses new series although the target is not reached: somebody
//! else uses the account, or the limit is lower than believed.
//!
//! Normal → (refusal) → full: nothing new is granted, what is sent goes on being sent. After two
//! quiet minutes → probing: a few new series per minute. A refusal then means full again, with a
//! lower target; a whole hold time without refusal means normal, and the target recovers slowly.

use std::collections::BTreeSet;
use std::time::Duration;

use super::limits::HOLD;

const QUIET: Duration = Duration::from_mins(2);
const MINUTE: Duration = Duration::from_mins(1);
const RECOVER_EVERY: Duration = Duration::from_mins(10);
const EXAMPLES_MAX: usize = 8;

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Normal,
    Full,
    Probing { minute: Duration, granted: u64 },
}

/// The state machine of one endpoint.
#[derive(Clone, Debug)]
pub struct ServerFull {
    state: State,
    refused_at: Duration,
    lowered: Option<u64>,
    recover_at: Duration,
    refusals: u64,
    examples: BTreeSet<String>,
}

impl Default for ServerFull {
    fn default() -> Self {
        Self {
            state: State::Normal,
            refused_at: Duration::ZERO,
            lowered: None,
            recover_at: Duration::ZERO,
            refusals: 0,
            examples: BTreeSet::new(),
        }
    }
}

impl ServerFull {
    /// Notes a refusal. About so many series as `there` says are known to the server; `message` is its
    /// text.
    pub fn refused(&mut self, now: Duration, there: u64, target: u64, message: &str) {
        self.refusals += 1;
        self.refused_at = now;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.insert(message.to_owned());
        }
        if self.state != State::Full {
            // Not below the floor: one refusal says little about how much room there is.
            let lower = (there.saturating_mul(98) / 100).max(target.saturating_mul(7) / 10);
            self.lowered = Some(self.target(target).min(lower));
            self.recover_at = now + hold() + RECOVER_EVERY;
            self.state = State::Full;
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Duration, target: u64) {
        let quiet = now.saturating_sub(self.refused_at);
        match self.state {
            State::Full if quiet >= QUIET => {
                self.state = State::Probing { minute: now, granted: 0 };
            }
            State::Probing { .. } if quiet >= hold() => {
                self.state = State::Normal;
                self.examples.clear();
            }
            State::Probing { minute, .. } if now >= minute + MINUTE => {
                self.state = State::Probing { minute: now, granted: 0 };
            }
            State::Normal | State::Full | State::Probing { .. } => {}
        }
        if let Some(lowered) = self.lowered
            && self.state == State::Normal
            && now >= self.recover_at
        {
            self.recover_at = now + RECOVER_EVERY;
            let raised = lowered.saturating_add((target / 50).max(1));
            self.lowered = (raised < target).then_some(raised);
        }
    }

    /// The target, lowered as long as the server refused recently.
    pub fn target(&self, configured: u64) -> u64 {
        self.lowered.map_or(configured, |lowered| lowered.min(configured))
    }

    /// How many slots may be granted now, apart from what the target allows. While probing, grants
    /// may go beyond the lowered target, up to the configured one.
    pub fn allowance(&self, configured: u64) -> u64 {
        match self.state {
            State::Normal => u64::MAX,
            State::Full => 0,
            State::Probing { granted, .. } => (configured / 100).max(1).saturating_sub(granted),
        }
    }

    /// Whether a few new series are being tried.
    pub fn is_probing(&self) -> bool {
        matches!(self.state, State::Probing { .. })
    }

    /// Whether new series are held back at all.
    pub fn is_holding_back(&self) -> bool {
        self.state != State::Normal
    }

    /// Notes granted slots.
    pub fn granted(&mut self, slots: u64) {
        if let State::Probing { granted, .. } = &mut self.state {
            *granted = granted.saturating_add(slots);
        }
    }

    /// Name of the state for the report: `normal`, `full` or `probing`.
    pub fn name(&self) -> &'static str {
        match self.state {
            State::Normal => "normal",
            State::Full => "full",
            State::Probing { .. } => "probing",
        }
    }

    /// Refusals since the start.
    pub fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Some of the server's messages since the last normal state.
    pub fn examples(&self) -> impl Iterator<Item = &str> {
        self.examples.iter().map(String::as_str)
    }
}

fn hold() -> Duration {
    HOLD.to_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_refusal_stops_grants_and_quiet_resumes_them_slowly() {
        let mut full = ServerFull::default();
        assert_eq!(full.allowance(1000), u64::MAX);
        full.refused(secs(100), 900, 1000, "no room");
        assert_eq!((full.name(), full.allowance(1000), full.target(1000)), ("full", 0, 882));
        full.advance(secs(219), 1000);
        assert_eq!(full.name(), "full");
        full.advance(secs(220), 1000);
        assert_eq!((full.name(), full.allowance(1000)), ("probing", 10));
        full.granted(10);
        assert_eq!(full.allowance(1000), 0);
        full.advance(secs(281), 1000);
        assert_eq!(full.allowance(1000), 10);
    }

    #[test]
    fn a_refused_probe_lowers_the_target_further() {
        let mut full = ServerFull::default();
        full.refused(secs(0), 900, 1000, "a");
        full.refused(secs(1), 800, 1000, "b");
        assert_eq!(full.target(1000), 882, "refusals of one episode count once");
        full.advance(secs(130), 1000);
        full.refused(secs(140), 800, 1000, "a");
        assert_eq!((full.name(), full.target(1000)), ("full", 784));
        assert_eq!(full.examples().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(full.refusals(), 3);
    }

    #[test]
    fn the_target_recovers_after_a_hold_time_without_refusal() {
        let mut full = ServerFull::default();
        full.refused(secs(0), 1000, 1000, "a");
        full.advance(secs(121), 1000);
        full.advance(secs(22 * 60), 1000);
        assert_eq!((full.name(), full.target(1000)), ("normal", 980));
        full.advance(secs(32 * 60), 1000);
        assert_eq!(full.target(1000), 1000);
    }
}
