//! Sharing out what is free: a plan over all that want slots.
//!
//! The plan is a pure function of what is wanted, of the policy and of what is free. It knows no
//! order of arrival, so a restart or a second replica comes to the same choice. It decides by whole
//! metrics of a job, never by single series: a metric of which a random part is missing is worse
//! than one that is missing and says so. Where only some series of a metric count towards a quota,
//! those are decided together, and the others together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::group::GroupId;
use super::policy::{Policy, Reason};
use super::pool::fair_parts;

/// How far a histogram may be made smaller: as it is, and two steps.
pub const STEPS: usize = 3;

/// A group that asks for slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Number of its class.
    pub class: u16,
    /// Place of the metric of its job in the order of names. Series that count towards other quotas
    /// are another metric.
    pub metric: u32,
    /// The group; its order means nothing.
    pub group: GroupId,
    /// Number of the set of quotas that it counts towards.
    pub quotas: u32,
    /// Slots it needs, as it is and after each step by which its metric may be made smaller.
    pub slots: [u64; STEPS],
    /// How many of these steps its metric may go.
    pub steps: u8,
    /// Whether its metric already holds slots, so that the group is growth of something admitted.
    pub grows: bool,
    /// Whatever the caller knows it by.
    pub at: u32,
}

impl Demand {
    /// Whether both are decided together when neither is growth.
    pub fn is_same_unit(&self, other: &Self) -> bool {
        self.class == other.class && self.metric == other.metric && self.quotas == other.quotas
    }
}

/// What there is to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// Slots that any class may take.
    pub slots: u64,
    /// Further slots that only the first class may take.
    pub reserve: u64,
}

/// Quotas and how much of them is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Which quotas a group counts towards, by number of the set.
    pub sets: Vec<Arc<[u32]>>,
    /// Most slots of each quota, slots used, and slots that nobody else gets.
    pub each: Vec<Quota>,
}

/// One quota, or one value's of a quota per label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Most slots.
    pub max: Option<u64>,
    /// Slots in use.
    pub used: u64,
    /// Slots that nobody else gets.
    pub guaranteed: u64,
    /// Number of the rule that gives each value of a label a quota: where there is not enough for all
    /// of them, they get equal parts.
    pub rule: Option<u32>,
}

impl Quota {
    fn unmet(&self) -> u64 {
        self.guaranteed.saturating_sub(self.used)
    }
}

/// How many slots a metric may gain in a minute once it is sent, so that one that explodes does not
/// take everything before anybody looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// By metric of a job; nothing for no limit.
    pub max: Option<u64>,
    /// Gained in this minute.
    pub used: HashMap<u32, u64>,
}

/// The outcome for each demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Groups that get their slots, in order of rank, and the steps by which their metric is made
    /// smaller for it.
    pub admit: Vec<(Demand, u8)>,
    /// Groups that do not, with the reason, in order of rank.
    pub withhold: Vec<(Demand, Reason)>,
}

/// Distributes what is free. `used` are the slots that each class already holds; `quotas` and
/// `growth` are brought up to date.
///
/// Where quotas per value of a label are more than there is for a class, each value gets its fair part
/// before any gets more. New metrics are admitted whole per job or not at all; a smaller one of lower rank may take the
/// slots that a larger one could not use. The growth of an admitted metric is admitted by group.
pub fn plan(
    policy: &Policy,
    mut demand: Vec<Demand>,
    free: Free,
    used: &[u64],
    quotas: &mut Quotas,
    growth: &mut Growth,
) -> Plan {
    // Classes first; inside a class, growth of what is admitted before anything new.
    demand.sort_unstable_by_key(|d| (d.class, !d.grows, d.metric, d.quotas, d.group));
    let unmet = quotas.each.iter().map(Quota::unmet).sum();
    let mut state = State { policy, free, used: used.to_vec(), quotas, growth, unmet };
    let mut plan = Plan::default();
    let together = |a: &Demand, b: &Demand| !a.grows && !b.grows && a.is_same_unit(b);
    for class in demand.chunk_by(|a, b| a.class == b.class) {
        let parts = state.parts(class);
        let is_late = |unit: &[Demand], state: &State<'_>| state.is_beyond(unit, &parts);
        let mut late = Vec::new();
        // What is beyond its fair part comes when the others have theirs.
        for unit in class.chunk_by(together) {
            if is_late(unit, &state) {
                late.push(unit);
            } else {
                state.decide(unit, &mut plan);
            }
        }
        for unit in late {
            state.decide(unit, &mut plan);
        }
    }
    plan
}

struct State<'a> {
    policy: &'a Policy,
    free: Free,
    used: Vec<u64>,
    quotas: &'a mut Quotas,
    growth: &'a mut Growth,
    /// Slots that are guaranteed and not in use.
    unmet: u64,
}

impl State<'_> {
    fn decide(&mut self, unit: &[Demand], plan: &mut Plan) {
        match self.take_smaller(unit) {
            Ok(steps) => plan.admit.extend(unit.iter().map(|member| (*member, steps))),
            Err(reason) => plan.withhold.extend(unit.iter().map(|member| (*member, reason))),
        }
    }

    /// The fair part of each quota that is one of many of its rule, for what a class asks for.
    fn parts(&self, class: &[Demand]) -> Vec<Option<u64>> {
        let mut asked = vec![0u64; self.quotas.each.len()];
        for member in class {
            let set = self.quotas.sets.get(member.quotas as usize);
            for number in set.into_iter().flat_map(|set| &**set) {
                if let Some(sum) = asked.get_mut(*number as usize) {
                    *sum = sum.saturating_add(member.slots[0]);
                }
            }
        }
        let mut of_rule: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (number, quota) in self.quotas.each.iter().enumerate() {
            if let Some(rule) = quota.rule {
                of_rule.entry(rule).or_default().push(number);
            }
        }
        let mut parts = vec![None; self.quotas.each.len()];
        for numbers in of_rule.values() {
            let quota = |number: &usize| self.quotas.each.get(*number);
            let used: u64 = numbers.iter().filter_map(quota).map(|quota| quota.used).sum();
            let asks = numbers.iter().map(|number| {
                let used = quota(number).map_or(0, |quota| quota.used);
                let most = quota(number).and_then(|quota| quota.max).unwrap_or(u64::MAX);
                used.saturating_add(asked.get(*number).copied().unwrap_or(0)).min(most)
            });
            let all = fair_parts(&asks.collect::<Vec<_>>(), self.free.slots.saturating_add(used));
            for (number, part) in numbers.iter().zip(all) {
                if let Some(slot) = parts.get_mut(*number) {
                    *slot = Some(part);
                }
            }
        }
        parts
    }

    /// Whether a unit, as it is, goes beyond a fair part.
    fn is_beyond(&self, unit: &[Demand], parts: &[Option<u64>]) -> bool {
        let slots = unit.iter().fold(0u64, |sum, member| sum.saturating_add(member.slots[0]));
        let set = unit.first().and_then(|first| self.quotas.sets.get(first.quotas as usize));
        set.into_iter().flat_map(|set| &**set).any(|number| {
            let used = self.quotas.each.get(*number as usize).map_or(0, |quota| quota.used);
            let part = parts.get(*number as usize).copied().flatten();
            part.is_some_and(|part| slots > 0 && used.saturating_add(slots) > part)
        })
    }

    /// Takes what a unit needs, with as few steps as needed.
    fn take_smaller(&mut self, unit: &[Demand]) -> Result<u8, Reason> {
        let steps = unit.iter().map(|member| member.steps).min().unwrap_or(0);
        let mut outcome = Err(Reason::Budget);
        for step in 0..=steps {
            outcome = self.take(unit, step).map(|()| step);
            let scarce = matches!(
                outcome,
                Err(Reason::Budget | Reason::ClassQuota | Reason::Quota | Reason::Growth)
            );
            if !scarce {
                break;
            }
        }
        outcome
    }

    fn take(&mut self, unit: &[Demand], step: u8) -> Result<(), Reason> {
        let Some(first) = unit.first() else { return Ok(()) };
        let needed = |member: &Demand| member.slots.get(usize::from(step)).copied().unwrap_or(0);
        let slots = unit.iter().fold(0u64, |sum, member| sum.saturating_add(needed(member)));
        let class = first.class;
        let settings = self.policy.class(class);
        if settings.is_some_and(|class| !class.send) {
            return Err(Reason::Policy);
        }
        let used = self.used.get(usize::from(class)).copied().unwrap_or(0).saturating_add(slots);
        if slots > 0 && settings.and_then(|class| class.series).is_some_and(|max| used > max) {
            return Err(Reason::ClassQuota);
        }
        let set = self.quotas.sets.get(first.quotas as usize).cloned().unwrap_or_default();
        let (mut own_unmet, mut met) = (0, 0);
        for number in &*set {
            let Some(quota) = self.quotas.each.get(*number as usize) else { continue };
            if slots > 0 && quota.max.is_some_and(|max| quota.used.saturating_add(slots) > max) {
                return Err(Reason::Quota);
            }
            own_unmet += quota.unmet();
            met += quota.unmet().min(slots);
        }
        let gained = self.growth.used.get(&first.metric).copied().unwrap_or(0) + slots;
        if first.grows && slots > 0 && self.growth.max.is_some_and(|max| gained > max) {
            return Err(Reason::Growth);
        }
        let reserve = if class == 0 { self.free.reserve } else { 0 };
        let kept = self.unmet.saturating_sub(own_unmet);
        if slots > 0 && slots > self.free.slots.saturating_sub(kept).saturating_add(reserve) {
            return Err(Reason::Budget);
        }
        // The common slots go first, so that the reserve stays for the next vital series.
        let common = slots.min(self.free.slots.saturating_sub(kept));
        self.free.slots -= common;
        self.free.reserve -= slots - common;
        self.unmet -= met.min(self.unmet);
        if let Some(entry) = self.used.get_mut(usize::from(class)) {
            *entry = used;
        }
        for number in &*set {
            if let Some(quota) = self.quotas.each.get_mut(*number as usize) {
                quota.used += slots;
            }
        }
        if first.grows && slots > 0 {
            self.growth.used.insert(first.metric, gained);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stint_model::Selector;

    use super::*;
    use crate::config::Class;

    /// The order of metrics is that of their names.
    fn demand(class: u16, metric: char, group: u64, slots: u64) -> Demand {
        Demand {
            class,
            metric: metric as u32,
            group: GroupId(group),
            quotas: 0,
            slots: [slots; STEPS],
            steps: 0,
            grows: false,
            at: 0,
        }
    }

    fn share(policy: &Policy, wanted: Vec<Demand>, free: Free, used: &[u64]) -> Plan {
        plan(policy, wanted, free, used, &mut Quotas::default(), &mut Growth::default())
    }

    fn admitted(plan: &Plan) -> String {
        plan.admit.iter().filter_map(|(demand, _)| char::from_u32(demand.metric)).collect()
    }

    fn reasons(plan: &Plan) -> Vec<Reason> {
        plan.withhold.iter().map(|(_, reason)| *reason).collect()
    }

    const fn free(slots: u64) -> Free {
        Free { slots, reserve: 0 }
    }

    #[test]
    fn the_more_important_class_is_served_first() {
        let wanted = vec![demand(1, 'a', 1, 3), demand(0, 'z', 2, 3)];
        let plan = share(&Policy::default(), wanted, free(3), &[0, 0]);
        assert_eq!(admitted(&plan), "z");
        assert_eq!(reasons(&plan), [Reason::Budget]);
    }

    #[test]
    fn a_metric_is_admitted_whole_or_not_at_all() {
        let wanted = vec![demand(1, 'a', 1, 3), demand(1, 'a', 2, 3), demand(1, 'b', 3, 2)];
        let plan = share(&Policy::default(), wanted, free(5), &[0, 0]);
        assert_eq!(admitted(&plan), "b");
        assert_eq!(plan.withhold.len(), 2);
    }

    #[test]
    fn growth_of_an_admitted_metric_comes_before_new_metrics_and_by_group() {
        let grown = |group| Demand { grows: true, ..demand(1, 'b', group, 2) };
        let wanted = vec![demand(1, 'a', 1, 2), grown(2), grown(3)];
        let plan = share(&Policy::default(), wanted, free(3), &[0, 0]);
        assert_eq!(admitted(&plan), "b");
        assert_eq!(plan.withhold.len(), 2);
    }

    #[test]
    fn a_metric_that_explodes_gains_only_so_much_in_a_minute() {
        let grown = |group| Demand { grows: true, ..demand(1, 'b', group, 2) };
        let wanted = vec![demand(1, 'a', 1, 9), grown(2), grown(3), grown(4)];
        let mut growth = Growth { max: Some(4), used: HashMap::new() };
        let quotas = &mut Quotas::default();
        let plan = plan(&Policy::default(), wanted, free(100), &[0, 0], quotas, &mut growth);
        assert_eq!(admitted(&plan), "bba", "a new metric is no growth");
        assert_eq!(reasons(&plan), [Reason::Growth]);
    }

    #[test]
    fn the_reserve_is_for_the_first_class() {
        let wanted = vec![demand(0, 'u', 1, 1), demand(1, 'a', 2, 1)];
        let plan = share(&Policy::default(), wanted, Free { slots: 0, reserve: 5 }, &[0, 0]);
        assert_eq!(admitted(&plan), "u");
    }

    #[test]
    fn quotas_and_dropped_classes_hold_even_with_free_slots() {
        let class = |name: &str, series, send| Class {
            name: name.into(),
            selectors: vec![Selector::metric(name)],
            series,
            interval: None,
            send,
            targets: None,
        };
        let policy = Policy::new(vec![class("a", Some(4), true), class("b", None, false)]);
        let wanted = vec![demand(1, 'a', 1, 2), demand(2, 'b', 2, 1)];
        let plan = share(&policy, wanted, free(100), &[0, 3, 0, 0]);
        assert_eq!(reasons(&plan), [Reason::ClassQuota, Reason::Policy]);
    }

    fn quota(max: Option<u64>, used: u64, guaranteed: u64) -> Quota {
        Quota { max, used, guaranteed, rule: None }
    }

    #[test]
    fn quotas_that_are_more_than_there_is_become_fair_parts() {
        // Three jobs, of which the first one by name would take everything.
        let each = vec![Quota { rule: Some(0), ..quota(Some(60), 0, 0) }; 3];
        let sets = vec![[].into(), [0].into(), [1].into(), [2].into()];
        let mut quotas = Quotas { sets, each };
        let of = |set, metric, slots| Demand { quotas: set, ..demand(1, metric, 1, slots) };
        let mut wanted: Vec<Demand> =
            ['a', 'b', 'c', 'd', 'e', 'f'].map(|metric| of(1, metric, 10)).to_vec();
        wanted.extend(['m', 'n', 'o', 'p', 'q', 'r'].map(|metric| of(2, metric, 10)));
        wanted.push(of(3, 'z', 10));
        let growth = &mut Growth::default();
        let policy = Policy::default();
        let plan = plan(&policy, wanted, free(95), &[0, 0], &mut quotas, growth);
        // One needs 10; the others share 85, and what is left of whole metrics goes by rank.
        assert_eq!(admitted(&plan), "abcdmnopz");
        let used: Vec<u64> = quotas.each.iter().map(|quota| quota.used).collect();
        assert_eq!(used, [40, 40, 10]);
    }

    #[test]
    fn what_a_fair_part_leaves_goes_to_who_can_use_it() {
        let each = vec![Quota { rule: Some(0), ..quota(Some(90), 0, 0) }; 2];
        let mut quotas = Quotas { sets: vec![[].into(), [0].into(), [1].into()], each };
        let of = |set, metric, slots| Demand { quotas: set, ..demand(1, metric, 1, slots) };
        let wanted = vec![of(1, 'a', 30), of(1, 'b', 30), of(1, 'c', 30), of(2, 'z', 60)];
        let growth = &mut Growth::default();
        let plan = plan(&Policy::default(), wanted, free(100), &[0, 0], &mut quotas, growth);
        assert_eq!(admitted(&plan), "abc", "z does not fit into its part, nor into what is left");
    }

    #[test]
    fn a_quota_holds_what_counts_towards_it_and_nothing_else() {
        let mut quotas = Quotas {
            sets: vec![[].into(), [0].into(), [0, 1].into()],
            each: vec![quota(Some(5), 1, 0), quota(Some(1), 0, 0)],
        };
        let of = |set, demand| Demand { quotas: set, ..demand };
        let wanted = vec![
            of(1, demand(1, 'a', 1, 3)),
            of(0, demand(1, 'a', 2, 9)),
            of(1, demand(1, 'b', 3, 2)),
            of(2, demand(1, 'c', 4, 1)),
        ];
        let growth = &mut Growth::default();
        let plan = plan(&Policy::default(), wanted, free(100), &[0, 0], &mut quotas, growth);
        assert_eq!(admitted(&plan), "aac");
        assert_eq!(reasons(&plan), [Reason::Quota]);
        assert_eq!((quotas.each[0].used, quotas.each[1].used), (5, 1));
    }

    #[test]
    fn what_is_guaranteed_is_kept_for_whom_it_is_guaranteed() {
        let mut quotas =
            Quotas { sets: vec![[].into(), [0].into()], each: vec![quota(None, 2, 6)] };
        let late = Demand { quotas: 1, ..demand(1, 'z', 9, 5) };
        let wanted = vec![demand(1, 'a', 1, 4), demand(1, 'b', 2, 6), late];
        let growth = &mut Growth::default();
        let plan = plan(&Policy::default(), wanted, free(10), &[0, 0], &mut quotas, growth);
        assert_eq!(admitted(&plan), "az", "four are kept, and more may be taken");
        assert_eq!(reasons(&plan), [Reason::Budget]);
    }

    #[test]
    fn a_histogram_is_made_smaller_where_that_makes_it_fit() {
        let histogram = |group| Demand { slots: [14, 8, 2], steps: 2, ..demand(1, 'h', group, 0) };
        let steps = |slots, steps| {
            let wanted: Vec<Demand> =
                [1, 2].map(|group| Demand { steps, ..histogram(group) }).to_vec();
            let plan = share(&Policy::default(), wanted, free(slots), &[0, 0]);
            plan.admit.first().map(|(_, steps)| *steps)
        };
        assert_eq!(
            [steps(28, 2), steps(27, 2), steps(15, 2), steps(3, 2)],
            [Some(0), Some(1), Some(2), None]
        );
        assert_eq!(steps(15, 1), None);
    }

    proptest! {
        #[test]
        fn never_more_than_free_and_independent_of_order(
            wanted in proptest::collection::vec((0u16..3, 0u8..6, 1u64..9, any::<bool>(), 0u32..3, 0u8..3), 0..40),
            slots in 0u64..60, reserve in 0u64..10, turn in 0usize..40,
            max in 0u64..30, guaranteed in 0u64..10,
        ) {
            let mut all: Vec<Demand> = wanted.iter().enumerate().map(|(n, (class, metric, slots, grows, quotas, steps))| {
                let slots = [*slots, slots.div_ceil(2), 1];
                let metric = char::from(b'a' + *metric);
                Demand { grows: *grows, quotas: *quotas, slots, steps: *steps, ..demand(*class, metric, n as u64, 0) }
            }).collect();
            let free = Free { slots, reserve };
            let policy = Policy::default();
            let before = Quotas {
                sets: vec![[].into(), [0].into(), [0, 1].into()],
                each: vec![
                    Quota { rule: Some(0), ..quota(Some(max), 0, 0) },
                    Quota { rule: Some(0), ..quota(None, 0, guaranteed) },
                ],
            };
            let (mut quotas, mut again) = (before.clone(), before);
            let first = plan(&policy, all.clone(), free, &[0, 0], &mut quotas, &mut Growth::default());
            if !all.is_empty() {
                let turn = turn % all.len();
                all.rotate_left(turn);
            }
            let second = plan(&policy, all.clone(), free, &[0, 0], &mut again, &mut Growth::default());
            prop_assert_eq!(&first, &second);
            let needed = |(d, step): &(Demand, u8)| d.slots[usize::from(*step)];
            let total: u64 = first.admit.iter().map(needed).sum();
            let common: u64 = first.admit.iter().filter(|(d, _)| d.class > 0).map(needed).sum();
            prop_assert!(total <= slots + reserve && common <= slots);
            let limited: u64 = first.admit.iter().filter(|(d, _)| d.quotas > 0).map(needed).sum();
            prop_assert!(limited <= max);
            let strangers: u64 = first.admit.iter().filter(|(d, _)| d.quotas < 2 && d.class > 0).map(needed).sum();
            prop_assert!(strangers <= slots.saturating_sub(guaranteed), "what is guaranteed is not given away");
            prop_assert_eq!(first.admit.len() + first.withhold.len(), all.len());
            for (held, _) in first.withhold.iter().filter(|(d, _)| !d.grows) {
                prop_assert!(!first.admit.iter().any(|(d, _)| !d.grows && d.is_same_unit(held)));
            }
        }
    }
}
