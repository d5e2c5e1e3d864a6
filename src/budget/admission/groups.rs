//! The groups of one endpoint, and the metrics of jobs that they make up.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use stint_model::Timestamp;

use super::Reason;
use crate::budget::group::{GroupId, Key, KeyHasher};
use crate::budget::symbols::Numbers;

/// A group's number, valid until its last series is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(test, derive(Default))]
pub struct GroupIndex(u32);

impl GroupIndex {
    /// The number.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The group of that number.
    pub(crate) fn of(number: u32) -> Self {
        Self(number)
    }
}

/// What a group is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::budget) enum State {
    /// Sent.
    Admitted,
    /// Not sent since a time, for a reason; considered at every plan.
    Waiting { since: Timestamp, reason: Reason },
    /// Not sent any more although it was; not considered again before `until`.
    Evicted { since: Timestamp, reason: Reason, until: Duration },
}

/// A series as it is sent. Its group has it, and everything of it that is on its way.
#[derive(Debug)]
pub struct Outgoing {
    /// Its identity at the endpoint.
    pub key: Key,
    /// Its group.
    pub group: GroupIndex,
    /// The final labels.
    pub labels: Numbers,
    /// Whether there is another one with the same key.
    pub is_shared: bool,
    /// A hash of the target it comes from.
    pub target: u64,
    /// Whether its values are made here, or say when it is sent, so that they must be known when it is
    /// sent again.
    pub keeps_value: bool,
}

/// One series of a group.
#[derive(Debug)]
pub(in crate::budget) struct Member {
    pub(in crate::budget) series: Arc<Outgoing>,
    /// How often it was registered and not forgotten: stored series may end up as the same one.
    uses: u32,
}

impl Member {
    pub(in crate::budget) fn key(&self) -> Key {
        self.series.key
    }
}

/// The series of a group. Most groups have one, which needs no place of its own.
#[derive(Debug)]
pub(in crate::budget) enum Members {
    One(Member),
    Many(Vec<Member>),
}

impl Members {
    fn push(&mut self, member: Member) {
        match self {
            Self::Many(members) if members.is_empty() => *self = Self::One(member),
            Self::Many(members) => {
                if members.len() == members.capacity() {
                    members.reserve_exact(members.len());
                }
                members.push(member);
            }
            Self::One(_) => {
                let one = std::mem::replace(self, Self::Many(Vec::with_capacity(2)));
                if let (Self::One(one), Self::Many(members)) = (one, self) {
                    members.extend([one, member]);
                }
            }
        }
    }

    fn find(&mut self, key: Key) -> Option<&mut Member> {
        let members = match self {
            Self::One(member) => std::slice::from_mut(member),
            Self::Many(members) => members,
        };
        members.iter_mut().find(|member| member.key() == key)
    }

    /// Takes out those that are not used any more.
    fn drop_unused(&mut self) {
        match self {
            Self::One(member) if member.uses == 0 => *self = Self::Many(Vec::new()),
            Self::One(_) => {}
            Self::Many(members) => members.retain(|member| member.uses > 0),
        }
    }
}

impl std::ops::Deref for Members {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        match self {
            Self::One(member) => std::slice::from_ref(member),
            Self::Many(members) => members,
        }
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Member;
    type IntoIter = std::slice::Iter<'a, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Series that are sent together or not at all.
#[derive(Debug)]
pub(in crate::budget) struct Group {
    /// Without regard to classes.
    pub(in crate::budget) id: GroupId,
    /// Number of the class.
    pub(in crate::budget) class: u16,
    pub(in crate::budget) members: Members,
    pub(in crate::budget) state: State,
    /// Number of its metric of its job, which has their names.
    pub(super) metric: u32,
    /// Number of the rule for its histogram.
    pub(super) rule: Option<u16>,
    /// Number of the set of quotas that it counts towards.
    pub(in crate::budget) quotas: u32,
    /// The target that it comes from.
    pub(super) target: u64,
    /// When it was last seen, where anybody asks for that.
    pub(super) seen: Duration,
    pub(super) wanted_at: Duration,
    pub(super) is_listed: bool,
}

/// A metric of a job in a class, as far as it counts towards the same quotas.
#[derive(Clone, Debug)]
pub(super) struct Metric {
    pub(super) family: Arc<str>,
    class: u16,
    job: Arc<str>,
    quotas: u32,
    groups: u32,
    admitted: u32,
}

/// What a new group is besides its names.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) rule: Option<u16>,
    pub(super) quotas: u32,
    pub(super) target: u64,
    pub(super) state: State,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: Vec<Option<Group>>,
    vacant: Vec<u32>,
    /// Numbers of groups by id and class.
    index: HashTable<u32>,
    metrics: Vec<Option<Metric>>,
    metric_index: HashMap<(u16, Arc<str>, Arc<str>, u32), u32>,
    metrics_vacant: Vec<u32>,
    /// Place of each metric in the order of class, family, job and quotas.
    order: Vec<u32>,
    is_ordered: bool,
    names: HashSet<Arc<str>>,
    changes: u64,
}

impl Groups {
    /// Grows with every change to what a group may do.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn get(&self, index: GroupIndex) -> Option<&Group> {
        self.all.get(index.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: GroupIndex) -> Option<&mut Group> {
        self.all.get_mut(index.0 as usize)?.as_mut()
    }

    pub(super) fn find(&self, group: GroupId, class: u16) -> Option<GroupIndex> {
        let is = |number: &u32| {
            let known = self.get(GroupIndex(*number)).map(|it| (it.id, it.class));
            known == Some((group, class))
        };
        self.index.find(hash_of(group, class), is).map(|number| GroupIndex(*number))
    }

    /// Lists a group under its id and class.
    fn list(&mut self, number: u32, group: GroupId, class: u16) {
        let all = &self.all;
        self.index.insert_unique(hash_of(group, class), number, |number| {
            let group = all.get(*number as usize).and_then(Option::as_ref);
            group.map_or(0, |group| hash_of(group.id, group.class))
        });
    }

    fn unlist(&mut self, number: u32, group: GroupId, class: u16) {
        if let Ok(entry) = self.index.find_entry(hash_of(group, class), |it| *it == number) {
            entry.remove();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.all.iter().flatten()
    }

    /// Groups with their places, from a place on.
    pub(super) fn from(&self, place: usize) -> impl Iterator<Item = (usize, &Group)> {
        let groups = self.all.iter().enumerate().skip(place);
        groups.filter_map(|(place, group)| Some((place, group.as_ref()?)))
    }

    pub(super) fn numbered(&self) -> impl Iterator<Item = (GroupIndex, &Group)> {
        let numbered = self.all.iter().enumerate();
        numbered.filter_map(|(at, group)| Some((GroupIndex(at as u32), group.as_ref()?)))
    }

    /// Adds a group without members.
    pub(super) fn add(
        &mut self,
        class: u16,
        family: &str,
        job: &str,
        group: GroupId,
        place: Place,
    ) -> GroupIndex {
        let (family, job) = (self.intern(family), self.intern(job));
        let metric = self.metric(class, &family, &job, place.quotas);
        let new = Group {
            id: group,
            class,
            members: Members::Many(Vec::new()),
            state: place.state,
            metric,
            rule: place.rule,
            quotas: place.quotas,
            target: place.target,
            seen: Duration::ZERO,
            wanted_at: Duration::ZERO,
            is_listed: false,
        };
        let number = self.vacant.pop().unwrap_or(self.all.len() as u32);
        if let Some(slot) = self.all.get_mut(number as usize) {
            *slot = Some(new);
        } else {
            if self.all.len() == self.all.capacity() {
                // There are many of them: an eighth more, not as much again.
                self.all.reserve_exact((self.all.len() / 8).max(64));
            }
            self.all.push(Some(new));
        }
        self.list(number, group, class);
        GroupIndex(number)
    }

    /// Moves a group to another class. There is no other group of the same series.
    pub(super) fn reclass(&mut self, index: GroupIndex, class: u16) {
        self.changes += 1;
        let Some(group) = self.get(index) else { return };
        let (id, was, quotas, metric) = (group.id, group.class, group.quotas, group.metric);
        let Some((family, job)) =
            self.names(metric).map(|(family, job)| (family.clone(), job.clone()))
        else {
            return;
        };
        let is_sent = u32::from(group.state == State::Admitted);
        self.unlist(index.0, id, was);
        let new = self.metric(class, &family, &job, quotas);
        if let Some(Some(metric)) = self.metrics.get_mut(new as usize) {
            metric.admitted += is_sent;
        }
        self.leave_metric(metric, is_sent);
        if let Some(group) = self.get_mut(index) {
            group.class = class;
            group.metric = new;
        }
        self.list(index.0, id, class);
    }

    /// A group, sent or not, is no part of a metric any more.
    fn leave_metric(&mut self, number: u32, sent: u32) {
        let Some(slot) = self.metrics.get_mut(number as usize) else { return };
        let Some(metric) = slot else { return };
        metric.groups -= 1;
        metric.admitted = metric.admitted.saturating_sub(sent);
        if metric.groups == 0 {
            let Metric { class, family, job, quotas, .. } = metric.clone();
            self.metric_index.remove(&(class, family, job, quotas));
            self.metrics_vacant.push(number);
            *slot = None;
        }
    }

    /// Adds a series to a group, where it is new there.
    pub(super) fn add_member(
        &mut self,
        index: GroupIndex,
        key: Key,
        make: impl FnOnce() -> Outgoing,
    ) -> Option<Arc<Outgoing>> {
        let group = self.get_mut(index)?;
        if let Some(member) = group.members.find(key) {
            member.uses += 1;
            return None;
        }
        let series = Arc::new(make());
        group.members.push(Member { series: Arc::clone(&series), uses: 1 });
        Some(series)
    }

    /// Forgets one use of a series, and what is empty then; says whether the series is gone.
    pub(super) fn remove_member(&mut self, index: GroupIndex, key: Key) -> bool {
        let Some(group) = self.get_mut(index) else { return false };
        let before = group.members.len();
        if let Some(member) = group.members.find(key) {
            member.uses -= 1;
        }
        group.members.drop_unused();
        let (is_gone, is_empty) = (group.members.len() < before, group.members.is_empty());
        if is_empty {
            self.remove(index);
        }
        is_gone
    }

    fn remove(&mut self, index: GroupIndex) {
        let state = State::Waiting { since: Timestamp::MIN, reason: Reason::Budget };
        self.set_state(index, state);
        let Some(group) = self.all.get_mut(index.0 as usize).and_then(Option::take) else { return };
        self.unlist(index.0, group.id, group.class);
        if !group.is_listed {
            self.vacant.push(index.0);
        }
        self.leave_metric(group.metric, 0);
        drop(group);
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }

    /// Makes the number of a group that is gone free, now that no list has it.
    pub(super) fn unlisted(&mut self, index: GroupIndex) {
        match self.get_mut(index) {
            Some(group) => group.is_listed = false,
            None => self.vacant.push(index.0),
        }
    }

    fn metric(&mut self, class: u16, family: &Arc<str>, job: &Arc<str>, quotas: u32) -> u32 {
        let place = (class, family.clone(), job.clone(), quotas);
        if let Some(number) = self.metric_index.get(&place) {
            if let Some(Some(metric)) = self.metrics.get_mut(*number as usize) {
                metric.groups += 1;
            }
            return *number;
        }
        let (family, job) = (family.clone(), job.clone());
        let new = Metric { class, family, job, quotas, groups: 1, admitted: 0 };
        let number = self.metrics_vacant.pop().unwrap_or(self.metrics.len() as u32);
        match self.metrics.get_mut(number as usize) {
            Some(slot) => *slot = Some(new),
            None => self.metrics.push(Some(new)),
        }
        self.metric_index.insert(place, number);
        self.is_ordered = false;
        number
    }

    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.names.insert(new.clone());
        new
    }

    /// The order of metrics may have changed.
    pub(super) fn disorder(&mut self) {
        self.is_ordered = false;
    }

    /// Sees to it that [`Groups::place_of`] is right. `asked` tells how much a family is asked for.
    pub(super) fn order(&mut self, mut asked: impl FnMut(&str) -> u64) {
        if self.is_ordered {
            return;
        }
        self.is_ordered = true;
        let mut slots = vec![0u64; self.metrics.len()];
        for group in self.all.iter().flatten() {
            if let Some(slots) = slots.get_mut(group.metric as usize) {
                *slots += group.members.len() as u64;
            }
        }
        let mut sorted: Vec<(&Metric, u32)> = self
            .metrics
            .iter()
            .enumerate()
            .filter_map(|(number, metric)| Some((metric.as_ref()?, number as u32)))
            .collect();
        let mut rank = |metric: &Metric, number: u32| {
            let slots = slots.get(number as usize).copied().unwrap_or(0);
            let worth = Reverse(worth(asked(&metric.family), slots));
            (metric.class, worth, metric.family.clone(), metric.job.clone(), metric.quotas)
        };
        sorted.sort_by_cached_key(|(metric, number)| rank(metric, *number));
        let mut order = vec![0; self.metrics.len()];
        for (place, (_, number)) in sorted.iter().enumerate() {
            if let Some(slot) = order.get_mut(*number as usize) {
                *slot = place as u32;
            }
        }
        self.order = order;
    }

    /// The family and the job of a metric.
    pub(super) fn names(&self, metric: u32) -> Option<(&Arc<str>, &Arc<str>)> {
        let metric = self.metrics.get(metric as usize)?.as_ref()?;
        Some((&metric.family, &metric.job))
    }

    /// The metric family of a group.
    pub(super) fn family(&self, group: &Group) -> Arc<str> {
        self.names(group.metric).map_or_else(Arc::default, |(family, _)| Arc::clone(family))
    }

    /// The job of a group.
    pub(super) fn job(&self, group: &Group) -> Arc<str> {
        self.names(group.metric).map_or_else(Arc::default, |(_, job)| Arc::clone(job))
    }

    /// The place of a metric in the order of class, what it is worth, family, job and quotas.
    pub(super) fn place_of(&self, metric: u32) -> u32 {
        self.order.get(metric as usize).copied().unwrap_or(0)
    }

    /// Whether something of the metric is sent.
    pub(super) fn is_sent(&self, metric: u32) -> bool {
        self.metrics
            .get(metric as usize)
            .is_some_and(|metric| metric.as_ref().is_some_and(|metric| metric.admitted > 0))
    }

    /// Families of which something is sent.
    pub(super) fn families(&self) -> HashSet<&str> {
        let sent = self.metrics.iter().flatten().filter(|metric| metric.admitted > 0);
        sent.map(|metric| &*metric.family).collect()
    }

    /// The only way a group's state changes, so that admitted groups are counted right.
    pub(super) fn set_state(&mut self, index: GroupIndex, state: State) {
        self.changes += 1;
        let Some(group) = self.get_mut(index) else { return };
        let was = group.state == State::Admitted;
        let is = state == State::Admitted;
        group.state = state;
        let metric = group.metric;
        if was == is {
            return;
        }
        if let Some(Some(metric)) = self.metrics.get_mut(metric as usize) {
            metric.admitted =
                if is { metric.admitted + 1 } else { metric.admitted.saturating_sub(1) };
        }
    }

    /// Whether nothing at all is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
            && self.names.is_empty()
            && self.metric_index.is_empty()
            && self.metrics.iter().all(Option::is_none)
            && self.index.is_empty()
    }
}

fn hash_of(group: GroupId, class: u16) -> u64 {
    KeyHasher::default().hash_one(group.0 ^ u64::from(class))
}

/// What a metric is worth that is asked for so often and takes so many slots: in powers of two, so that
/// a query more changes nothing.
fn worth(asked: u64, slots: u64) -> Option<i32> {
    (asked > 0).then(|| (asked as f64 / slots.max(1) as f64).log2().floor() as i32)
}
