//! Classes of which only some targets of each job are sent.
//!
//! Those with the least hashes are: which ones they are depends on which there are and on nothing
//! else, so that a restart or a second replica chooses the same.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Admission, Group, GroupIndex, State};
use crate::budget::policy::Reason;

/// A target of which nothing was seen this long is gone.
const GONE_AFTER: Duration = Duration::from_mins(5);
/// How often the choice is looked at.
const CHOOSE_EVERY: Duration = Duration::from_secs(15);

/// Which targets are sent.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    chosen: HashMap<(u16, Arc<str>), HashSet<u64>>,
    choose_at: Duration,
}

impl Admission {
    /// Whether only some targets of a class are sent, so that [`Admission::saw`] wants to know of
    /// their samples.
    pub fn samples_targets(&self, class: u16) -> bool {
        self.policy.class(class).is_some_and(|class| class.targets.is_some())
    }

    /// Notes that there is a sample of a group of a class of which some targets are sent.
    pub fn saw(&mut self, index: GroupIndex, now: Duration) {
        if let Some(group) = self.groups.get_mut(index) {
            if group.seen.is_zero() {
                self.sampling.choose_at = Duration::ZERO;
            }
            group.seen = now.max(Duration::from_millis(1));
        }
    }

    /// Whether a group comes from a target that is not chosen.
    pub(super) fn leaves_out(&self, group: &Group) -> bool {
        if !self.samples_targets(group.class) {
            return false;
        }
        let chosen = self.sampling.chosen.get(&(group.class, self.groups.job(group)));
        !chosen.is_some_and(|chosen| chosen.contains(&group.target))
    }

    /// Chooses the targets of each job anew, and ends what is not chosen any more.
    pub(super) fn choose_targets(&mut self, now: Duration) {
        let classes = 0..self.policy.classes().len() as u16;
        if now < self.sampling.choose_at || !classes.clone().any(|it| self.samples_targets(it)) {
            return;
        }
        self.sampling.choose_at = now + CHOOSE_EVERY;
        let mut there: HashMap<(u16, Arc<str>), BTreeSet<u64>> = HashMap::new();
        for group in self.groups.iter() {
            let is_there = !group.seen.is_zero() && now.saturating_sub(group.seen) < GONE_AFTER;
            if is_there && self.samples_targets(group.class) {
                let job = (group.class, self.groups.job(group));
                there.entry(job).or_default().insert(group.target);
            }
        }
        let most = |class: u16| self.policy.class(class).and_then(|class| class.targets);
        let chosen: HashMap<(u16, Arc<str>), HashSet<u64>> = there
            .into_iter()
            .map(|((class, job), targets)| {
                let most = usize::try_from(most(class).unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
                ((class, job), targets.into_iter().take(most).collect())
            })
            .collect();
        if chosen == self.sampling.chosen {
            return;
        }
        self.sampling.chosen = chosen;
        let changed: Vec<(GroupIndex, State)> = self
            .groups
            .numbered()
            .filter(|(_, group)| self.samples_targets(group.class))
            .filter_map(|(index, group)| Some((index, self.chosen_state(group)?)))
            .collect();
        for (index, state) in changed {
            self.groups.set_state(index, state);
        }
        self.pending.look_soon();
    }

    /// The state of a group where the choice changes it.
    fn chosen_state(&self, group: &Group) -> Option<State> {
        let since = stint_model::Timestamp::MIN;
        match (self.leaves_out(group), group.state) {
            (true, State::Waiting { reason: Reason::Targets, .. }) => None,
            (true, _) => Some(State::Waiting { since, reason: Reason::Targets }),
            (false, State::Waiting { reason: Reason::Targets, .. }) => {
                Some(State::Waiting { since, reason: Reason::Budget })
            }
            (false, _) => None,
        }
    }
}
