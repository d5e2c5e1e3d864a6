//! Making room for a more important class by taking slots from a less important one.

use std::time::Duration;

use stint_model::Timestamp;

use super::{Admission, GroupIndex, State};
use crate::budget::policy::{Demand, Rank, Reason};

/// Decisions of this kind are made at most this often, so that what users see is stable.
const PREEMPT_EVERY: Duration = Duration::from_mins(10);

impl Admission {
    /// Stops sending whole metrics of the least important classes until what is withheld from
    /// better ones will fit. Their slots come free only after the hold time.
    pub(super) fn preempt(
        &mut self,
        withheld: &[(Demand, Reason)],
        now: Duration,
        wall: Timestamp,
    ) {
        if now < self.preempt_at || self.limits.is_none() || self.full.is_holding_back() {
            return;
        }
        let mut coming = self.slots_of_evicted();
        for class in 0..self.policy.classes().len() as u16 {
            let needed: u64 = withheld
                .iter()
                .filter(|(demand, reason)| *reason == Reason::Budget && demand.rank.class == class)
                .map(|(demand, _)| demand.slots)
                .sum();
            let covered = coming.min(needed);
            coming -= covered;
            let lacking = needed - covered;
            if lacking > 0 {
                self.preempt_at = now + PREEMPT_EVERY;
                // A part would help nobody when the demand is for more than all lower classes hold.
                if self.slots_below(class) >= lacking {
                    let freed = self.evict_below(class, lacking, now, wall);
                    coming += freed.saturating_sub(lacking);
                }
            }
        }
    }

    /// Live leases of groups that are not sent any more.
    fn slots_of_evicted(&self) -> u64 {
        let evicted = |state| matches!(state, State::Evicted { .. });
        self.groups().filter(|group| evicted(group.state)).map(|group| self.leased(group)).sum()
    }

    fn leased(&self, group: &super::Group) -> u64 {
        group.members.iter().filter(|member| self.ledger.is_live(member.key)).count() as u64
    }

    fn slots_below(&self, class: u16) -> u64 {
        self.groups()
            .filter(|group| group.rank.class > class && group.state == State::Admitted)
            .map(|group| self.leased(group))
            .sum()
    }

    fn evict_below(&mut self, class: u16, needed: u64, now: Duration, wall: Timestamp) -> u64 {
        let mut candidates: Vec<(Rank, u32)> = self
            .groups
            .iter()
            .enumerate()
            .filter_map(|(at, group)| group.as_ref().map(|group| (at, group)))
            .filter(|(_, group)| group.rank.class > class && group.state == State::Admitted)
            .map(|(at, group)| (group.rank.clone(), at as u32))
            .collect();
        candidates.sort_by(|a, b| b.0.cmp(&a.0));
        let mut freed = 0;
        let mut metric: Option<Rank> = None;
        for (rank, at) in candidates {
            let same = metric.as_ref().is_some_and(|metric| metric.same_metric(&rank));
            if freed >= needed && !same {
                break;
            }
            let index = GroupIndex(at);
            freed += self.group(index).map_or(0, |group| self.leased(group));
            self.withhold(index, Reason::Budget, now, wall);
            metric = Some(rank);
        }
        freed
    }
}
