//! From what asks for slots to leases.
//!
//! All that ask are looked at when something may have become free, when times of waiting end, and
//! every half a minute. In between only what is new is looked at: what was withheld would be withheld
//! again, since there is no more for it than there was.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use stint_model::Timestamp;

use super::groups::Member;
use super::work::{Decided, Done, Work};
use super::{Admission, GroupIndex, State};
use crate::budget::group::Key;
use crate::budget::ledger::{GrantError, Write};
use crate::budget::policy::Reason;
use crate::budget::ranking::Weight;
use crate::budget::share::{Demand, Free, Plan, STEPS, plan};
use crate::config::Level;

/// All that ask are looked at this often, even if nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After the ledger could not be written.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(5);
/// More slots than there ever are.
const NO_ROOM: u64 = 1 << 40;
/// A group that asked for nothing this long does not take part in a plan.
const WANTED_FOR: Duration = Duration::from_mins(3);

/// What asks for slots that it does not have.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// What was looked at.
    known: Vec<GroupIndex>,
    /// What came since.
    fresh: Vec<GroupIndex>,
    /// What was left at the last look at all of it.
    left: Free,
    look_at: Duration,
    /// Why new metrics were withheld then.
    withheld: HashMap<u32, Reason>,
    /// Metrics that hold leases of an earlier run.
    held: HashSet<u32>,
}

impl Pending {
    pub(super) fn add(&mut self, index: GroupIndex) {
        self.fresh.push(index);
    }

    /// Sees to it that everything is looked at next time.
    pub(super) fn look_soon(&mut self) {
        self.look_at = Duration::ZERO;
    }
}

impl Admission {
    /// Decides over the groups that want slots. What that comes to holds when the work that is returned
    /// was done, which waits for the disk, and [`Admission::settle`] was told of it. Leases end only in
    /// [`Admission::advance`], which comes before the questions whose answers lead here.
    pub fn decide(&mut self, now: Duration) -> Work {
        let decided = self.decided(now);
        let admitted = decided.as_ref().map_or(&[][..], |decided| &decided.plan.admit);
        let work = self.promise(admitted, now);
        Work { decided, ..work }
    }

    /// The same all at once, for who alone looks at the budget.
    pub fn plan(&mut self, now: Duration, wall: Timestamp) {
        let done = self.decide(now).write();
        self.settle(done, now, wall);
        self.beside(now).write();
    }

    /// What is decided over the groups that want slots; nothing where nobody asks.
    fn decided(&mut self, now: Duration) -> Option<Decided> {
        self.choose_targets(now);
        let free = self.free(now);
        let more = free.slots > self.pending.left.slots || free.reserve > self.pending.left.reserve;
        let all = more || now >= self.pending.look_at || self.is_over();
        if self.pending.fresh.is_empty() && (!all || self.pending.known.is_empty()) {
            return None;
        }
        let fresh = std::mem::take(&mut self.pending.fresh);
        let listed = if all {
            let mut known = std::mem::take(&mut self.pending.known);
            known.extend(fresh);
            self.pending.withheld.clear();
            self.pending.held.clear();
            self.pending.look_at = now + LOOK_EVERY;
            known
        } else {
            fresh
        };
        let (ranks, by_use) = (&mut self.ranks, self.policy.class_by_use(Weight::Rest).is_some());
        self.groups.order(|family| if by_use { ranks.asked(family) } else { 0 });
        let (demand, early) = self.demand(listed, now);
        self.count_quotas();
        if self.growth_minute != now.as_secs() / 60 {
            self.growth_minute = now.as_secs() / 60;
            self.growth.used.clear();
        }
        let used = self.ledger.live_by_class();
        let (quotas, growth) = (&mut self.quotas, &mut self.growth);
        let mut plan = plan(&self.policy, demand, free, used, quotas, growth);
        plan.withhold.extend(early);
        self.lower_all(&plan.admit, now);
        Some(Decided { plan, all })
    }

    /// What has to be written so that these groups are sent, and because it is time.
    pub(super) fn promise(&mut self, admitted: &[(Demand, u8)], now: Duration) -> Work {
        let index = |demand: &Demand| GroupIndex::of(demand.at);
        let wanted: Vec<(Key, u16)> =
            admitted.iter().flat_map(|(demand, _)| self.missing(index(demand))).collect();
        let mut renewed = std::mem::take(&mut self.ending);
        renewed.extend(admitted.iter().flat_map(|(demand, _)| self.members(index(demand))));
        let (before, all) = (self.live(), self.slots_of_all(now));
        let ledger = &mut self.ledger;
        // Nobody else grants slots of the account meanwhile.
        let (write, granted) = self.seat.grant(|others| {
            let slots = all.saturating_sub(others).max(before);
            let promised = ledger.promise(&wanted, renewed, slots, now);
            (ledger.live(), promised)
        });
        let lists_told = self.is_told && write.as_ref().is_some_and(Write::is_whole);
        let (left, beside) = (self.seat.left_writes(now), self.beside(now).all);
        let (decided, ledger, is_last) = (None, write, false);
        let marks = self.marks.due(self.doubt.as_ref(), ledger.is_some(), now);
        let pen = self.seat.pen();
        Work { pen, decided, marks, ledger, granted, lists_told, is_last, left, beside }
    }

    /// Brings back what was written: what was promised with it is granted, or is not where the disk
    /// failed.
    pub fn settle(&mut self, done: Done, now: Duration, wall: Timestamp) {
        let Done { decided, marked, ledger, granted, lists_told, is_last, left } = done;
        self.seat.settle_left(left, now);
        match marked {
            Some(Ok(())) => {
                if let Some(doubt) = &mut self.doubt {
                    doubt.became_durable();
                }
                self.marks.became_durable();
                self.ledger_error = None;
            }
            Some(Err(error)) => self.ledger_error = Some(self.marks.failed(&error, now)),
            None => {}
        }
        let written = ledger.map(|written| self.ledger.settle(written, now));
        // Where the promise was broken.
        self.seat.note(self.live());
        match &written {
            Some(Ok(())) => self.ledger_error = None,
            Some(Err(error)) => {
                self.failed(error);
            }
            None => {}
        }
        if lists_told {
            self.is_told = false;
            if matches!(written, Some(Ok(())))
                && let Some(doubt) = self.doubt.take()
            {
                self.besides.extend(doubt.end(self.limits.is_some()));
            }
        }
        if is_last && matches!(written, Some(Ok(()))) {
            self.besides.extend(self.marks.end());
        }
        let Some(Decided { mut plan, all }) = decided else { return };
        let granted = written.unwrap_or(Ok(())).and(granted);
        self.admit(&mut plan, &granted, now);
        for (demand, reason) in &plan.withhold {
            let index = GroupIndex::of(demand.at);
            if !demand.grows
                && let Some(group) = self.groups.get(index)
            {
                self.pending.withheld.insert(group.metric, *reason);
            }
            self.withhold(index, self.sharpen(*reason, now), now, wall);
            self.pending.known.push(index);
        }
        if all {
            self.preempt(&plan.withhold, now, wall);
            self.share(&plan.withhold, now);
        }
        self.pending.left = self.free(now);
    }

    /// Sends from now on what is admitted; what could not be made durable is withheld.
    fn admit(&mut self, plan: &mut Plan, granted: &Result<u64, GrantError>, now: Duration) {
        let reason = match granted {
            Ok(slots) => {
                self.full.granted(*slots);
                Reason::Budget
            }
            Err(error) => {
                self.pending.look_at = now + TRY_AGAIN;
                self.failed(error)
            }
        };
        for (demand, _) in std::mem::take(&mut plan.admit) {
            let index = GroupIndex::of(demand.at);
            // Where the disk fails, what needs nothing of it goes on.
            let needs = || self.members(index).any(|key| !self.ledger.is_fit(key));
            let was_taken_out = self.groups.get(index).is_some_and(
                |group| matches!(group.state, State::Evicted { until, .. } if until > now),
            );
            if was_taken_out {
                // Meanwhile, since the account told of less.
                self.pending.known.push(index);
            } else if granted.is_ok() || !needs() {
                self.groups.set_state(index, State::Admitted);
                self.groups.unlisted(index);
            } else {
                plan.withhold.push((demand, reason));
            }
        }
    }

    /// Makes metrics smaller, each as far as any of its groups needs it.
    fn lower_all(&mut self, admitted: &[(Demand, u8)], now: Duration) {
        let mut steps: HashMap<Arc<str>, (GroupIndex, u8)> = HashMap::new();
        for (demand, wanted) in admitted.iter().filter(|(_, steps)| *steps > 0) {
            let index = GroupIndex::of(demand.at);
            let Some(group) = self.groups.get(index) else { continue };
            let most = steps.entry(self.groups.family(group)).or_insert((index, 0));
            most.1 = most.1.max(*wanted);
        }
        for (index, steps) in steps.into_values() {
            self.lower(index, steps, now);
        }
    }

    /// The groups that ask for slots they do not have; others leave the list. Beside them what is
    /// withheld without a question: the rest of its metric is, for the same reason.
    fn demand(
        &mut self,
        listed: Vec<GroupIndex>,
        now: Duration,
    ) -> (Vec<Demand>, Vec<(Demand, Reason)>) {
        let (mut demand, mut early) = (Vec::with_capacity(listed.len()), Vec::new());
        let is_over = self.is_over();
        // What an earlier run sent of a metric goes on, also where not all of it had found room.
        if !is_over {
            for index in &listed {
                if let Some(group) = self.groups.get(*index)
                    && !self.pending.held.contains(&group.metric)
                    && group.members.iter().any(|m| self.ledger.is_live(m.key()))
                {
                    self.pending.held.insert(group.metric);
                }
            }
        }
        for index in listed {
            let Some(group) = self.groups.get(index) else {
                self.groups.unlisted(index);
                continue;
            };
            let missing = self.missing(index).count() as u64;
            let dormant = self.members(index).filter(|key| self.ledger.is_dormant(*key)).count();
            let is_sent = group.state == State::Admitted && missing == 0 && dormant == 0;
            if is_sent || now.saturating_sub(group.wanted_at) > WANTED_FOR {
                self.groups.unlisted(index);
                continue;
            }
            if matches!(group.state, State::Evicted { until, .. } if until > now) {
                self.pending.known.push(index);
                continue;
            }
            // What is new to a metric of which leases are over is decided by itself: there is no
            // room for it, and its metric goes on without it.
            let is_alone = is_over && missing > 0;
            let held = || self.pending.held.contains(&group.metric);
            let (slots, steps) = match (is_over, missing) {
                (false, missing) => self.smaller(index, missing),
                (true, 0) => ([dormant as u64; STEPS], 0),
                (true, _) => ([NO_ROOM; STEPS], 0),
            };
            let one = Demand {
                class: group.class,
                metric: self.groups.place_of(group.metric),
                group: group.id,
                quotas: group.quotas,
                slots,
                steps,
                grows: is_alone || self.groups.is_sent(group.metric) || held(),
                at: index.number(),
            };
            if self.leaves_out(group) {
                early.push((one, Reason::Targets));
                continue;
            }
            match self.pending.withheld.get(&group.metric) {
                Some(reason) if !one.grows => early.push((one, *reason)),
                _ => demand.push(one),
            }
        }
        (demand, early)
    }

    /// What a group lacks now, and after each step by which its histogram may be made smaller.
    fn smaller(&self, index: GroupIndex, missing: u64) -> ([u64; STEPS], u8) {
        let mut slots = [missing; STEPS];
        let mut steps = 0;
        let mut level = self.level_of(index);
        for slot in slots.iter_mut().skip(1) {
            let Some(lower) = self.below(index, level) else { break };
            level = lower;
            let kept = self.kept(index, level);
            *slot = kept.iter().filter(|key| !self.ledger.is_live(**key)).count() as u64;
            steps += 1;
        }
        (slots, steps)
    }

    /// The series of a group that are to be sent and hold no lease.
    pub(super) fn missing(&self, index: GroupIndex) -> impl Iterator<Item = (Key, u16)> + '_ {
        let class = self.groups.get(index).map_or(0, |group| group.class);
        self.members(index).filter(|key| !self.ledger.is_live(*key)).map(move |key| (key, class))
    }

    /// The series of a group that are to be sent.
    pub(super) fn members(&self, index: GroupIndex) -> impl Iterator<Item = Key> + '_ {
        let members = self.groups.get(index).into_iter().flat_map(|group| &group.members);
        members.map(Member::key).filter(|key| !self.thinning.leaves_out(*key))
    }

    /// Counts the slots that each quota uses.
    fn count_quotas(&mut self) {
        if self.quotas.each.is_empty() {
            return;
        }
        for quota in &mut self.quotas.each {
            quota.used = 0;
        }
        for key in self.ledger.keys() {
            let Some(index) = self.quota_keys.get(&key) else { continue };
            let set = self.groups.get(*index).map_or(0, |group| group.quotas);
            for number in self.quotas.sets.get(set as usize).into_iter().flat_map(|set| &**set) {
                if let Some(quota) = self.quotas.each.get_mut(*number as usize) {
                    quota.used += 1;
                }
            }
        }
    }

    /// The level at which the histogram of a group is sent.
    pub(super) fn level_of(&self, index: GroupIndex) -> Level {
        let Some(group) = self.groups.get(index) else { return Level::Full };
        let Some(rule) = group.rule.and_then(|rule| self.policy.histogram(rule)) else {
            return Level::Full;
        };
        self.thinning.level(&self.groups.family(group), rule)
    }
}
