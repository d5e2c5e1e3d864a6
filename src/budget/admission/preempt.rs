//! Making room: for a more important class by taking slots from a less important one, and for
//! other endpoints of the account by giving back what is more than a fair part.

use std::time::Duration;

use stint_model::Timestamp;

use super::{Admission, GroupIndex, State};
use crate::budget::policy::Reason;
use crate::budget::share::Demand;

/// Decisions of this kind are made at most this often, so that what users see is stable.
const PREEMPT_EVERY: Duration = Duration::from_mins(10);
/// How often it is looked at whether others lack something.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

impl Admission {
    /// Stops sending whole metrics of the least important classes until as much as can be of what is
    /// withheld from better ones will fit. Their slots come free only after the hold time.
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
            let units = units_of(withheld, class);
            if units.is_empty() {
                continue;
            }
            // What helps nobody, because the demand is for more than there is, stays where it is.
            let most = coming.saturating_add(self.slots_below(class));
            let needed = units.into_iter().fold(0u64, |sum, slots| {
                if sum.saturating_add(slots) <= most { sum + slots } else { sum }
            });
            let covered = coming.min(needed);
            coming -= covered;
            let lacking = needed - covered;
            if lacking > 0 {
                self.preempt_at = now + PREEMPT_EVERY;
                let freed = self.evict_below(class, lacking, now, wall);
                coming += freed.saturating_sub(lacking);
            }
        }
    }

    /// Tells other endpoints of the account what is lacking here.
    pub(super) fn share(&mut self, withheld: &[(Demand, Reason)], now: Duration) {
        if self.limits.is_none() {
            return;
        }
        let total = self.slots_of_all(now);
        // What would not fit into the fair part either helps nobody.
        let most = self.seat.fair(total).saturating_sub(self.live());
        let classes = 0..self.policy.classes().len() as u16;
        let wants = classes.flat_map(|class| units_of(withheld, class)).fold(0u64, |sum, slots| {
            if sum.saturating_add(slots) <= most { sum + slots } else { sum }
        });
        self.wants = wants;
        self.seat.note_wants(wants);
    }

    /// Stops sending what is more than the target, or more than a fair part where others lack
    /// something.
    pub(super) fn give_back(&mut self, now: Duration, wall: Timestamp) {
        let Some(limits) = &self.limits else { return };
        // What an earlier run left of a higher target is decided as it is sent again.
        let all = self.live().saturating_add(self.seat.others());
        let is_over = all > limits.target && self.ledger.dormant() == 0;
        let is_asked = self.seat.is_somebody_short() && !self.full.is_holding_back();
        if now < self.give_at || !(is_over || is_asked) {
            return;
        }
        let total = if is_over { limits.target } else { self.slots_of_all(now) };
        let fair = self.seat.fair_of(total, self.live().saturating_add(self.wants));
        let kept = self.live().saturating_sub(self.slots_of_evicted());
        if kept > fair {
            self.give_at = now + PREEMPT_EVERY;
            self.evict_below(0, kept - fair, now, wall);
        } else {
            self.give_at = now + LOOK_AGAIN;
        }
    }

    /// Live leases of groups that are not sent any more.
    fn slots_of_evicted(&self) -> u64 {
        let evicted = |state| matches!(state, State::Evicted { .. });
        self.groups().filter(|group| evicted(group.state)).map(|group| self.leased(group)).sum()
    }

    fn leased(&self, group: &super::Group) -> u64 {
        group.members.iter().filter(|member| self.ledger.is_live(member.key())).count() as u64
    }

    fn slots_below(&self, class: u16) -> u64 {
        self.groups()
            .filter(|group| group.class > class && group.state == State::Admitted)
            .map(|group| self.leased(group))
            .sum()
    }

    fn evict_below(&mut self, class: u16, needed: u64, now: Duration, wall: Timestamp) -> u64 {
        // The last metric of the last class goes first.
        let mut candidates: Vec<(u16, u32, GroupIndex)> = self
            .groups
            .numbered()
            .filter(|(_, group)| group.class > class && group.state == State::Admitted)
            .map(|(index, group)| (group.class, self.groups.place_of(group.metric), index))
            .collect();
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        let mut freed = 0;
        let mut last = None;
        for (class, metric, index) in candidates {
            if freed >= needed && last != Some((class, metric)) {
                break;
            }
            freed += self.groups.get(index).map_or(0, |group| self.leased(group));
            self.withhold(index, Reason::Budget, now, wall);
            last = Some((class, metric));
        }
        freed
    }
}

/// The slots of each unit of a class for which there is no room, in order of rank.
fn units_of(withheld: &[(Demand, Reason)], class: u16) -> Vec<u64> {
    let lacks =
        |(demand, reason): &&(Demand, Reason)| *reason == Reason::Budget && demand.class == class;
    let mut units: Vec<(&Demand, u64)> = Vec::new();
    for (demand, _) in withheld.iter().filter(lacks) {
        match units.last_mut() {
            Some((last, slots)) if !last.grows && !demand.grows && last.is_same_unit(demand) => {
                *slots = slots.saturating_add(demand.slots[0]);
            }
            _ => units.push((demand, demand.slots[0])),
        }
    }
    units.into_iter().map(|(_, slots)| slots).collect()
}
