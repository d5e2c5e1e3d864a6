//! Who is sent at present: the groups of one endpoint, their leases, and the decisions over them.
//!
//! A forwarder registers each series once, says which groups have samples to send, lets
//! [`Admission::plan`] decide, and asks [`Admission::check`] before it sends anything.

mod doubt;
mod preempt;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stint_model::{Labels, Span, Timestamp};
use stint_storage::Disk;

use doubt::Doubt;

use super::full::ServerFull;
use super::group::{GroupId, Key, membership};
use super::history::History;
use super::ledger::{Found, GrantError, Ledger};
use super::limits::{HOLD, Limits, MissingLedger};
use super::points::Points;
use super::policy::{Demand, Free, Policy, Rank, Reason, plan};

/// A group's number, valid until its last series is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupIndex(u32);

/// Where a registered series belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its group.
    pub group: GroupIndex,
    /// The number of its class.
    pub class: u16,
}

/// What a group is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Sent.
    Admitted,
    /// Not sent since a time, for a reason; considered at every plan.
    Waiting { since: Timestamp, reason: Reason },
    /// Not sent any more although it was; not considered again before `until`.
    Evicted { since: Timestamp, reason: Reason, until: Duration },
}

/// One series of a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) key: Key,
    pub(super) labels: Labels,
    /// How often it was registered and not forgotten: stored series may end up as the same one.
    uses: u32,
}

/// Series that are sent together or not at all.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) rank: Rank,
    pub(super) members: Vec<Member>,
    pub(super) state: State,
    wanted_at: Duration,
    is_listed: bool,
}

/// An evicted group is not considered again before this has passed, lest it flap.
const EVICTED_FOR: Duration = Duration::from_hours(1);
/// More slots than there ever are.
const NO_ROOM: u64 = 1 << 40;
/// A group that asked for nothing this long does not take part in a plan.
const WANTED_FOR: Duration = Duration::from_mins(3);

/// How an endpoint's budget begins.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Limits, or none.
    pub limits: Option<Limits>,
    /// Classes.
    pub policy: Policy,
    /// Where the ledger is kept.
    pub disk: Arc<dyn Disk>,
    /// The ledger's file.
    pub path: &'a Path,
    /// Whether other traces of an earlier run exist, so that a missing ledger was lost.
    pub ran_before: bool,
    /// Monotonic time.
    pub now: Duration,
}

/// The budget of one endpoint at work.
#[derive(Debug)]
pub struct Admission {
    pub(super) limits: Option<Limits>,
    pub(super) policy: Policy,
    pub(super) ledger: Ledger,
    pub(super) found: Found,
    pub(super) full: ServerFull,
    pub(super) history: History,
    pub(super) ledger_error: Option<String>,
    groups: Vec<Option<Group>>,
    vacant: Vec<u32>,
    index: HashMap<(GroupId, u16), u32>,
    /// Admitted groups by class, metric and job.
    metrics: HashMap<(u16, Arc<str>, Arc<str>), u32>,
    names: HashSet<Arc<str>>,
    /// Groups that ask for slots they do not have.
    listed: Vec<u32>,
    doubt: Option<Doubt>,
    started: Duration,
    preempt_at: Duration,
    /// Points handed to the network since the history was last written.
    sent: u64,
    points: Points,
}

impl Admission {
    /// Opens the budget of an endpoint, with the leases of an earlier run where there are any.
    pub fn open(opening: Opening<'_>) -> Self {
        let Opening { limits, policy, disk, path, ran_before, now } = opening;
        let (ledger, found) = match &limits {
            Some(_) => Ledger::open(Arc::clone(&disk), path, HOLD, now),
            None => (Ledger::in_memory(HOLD), Found::Leases(0)),
        };
        let mut ledger = ledger;
        let points = Points::new(limits.as_ref().and_then(|limits| limits.points_per_minute), now);
        let lost = match (&found, &limits) {
            (Found::Leases(_), _) | (_, None) => None,
            (Found::Missing, Some(limits)) if !ran_before => Some(limits.missing_ledger),
            (Found::Missing | Found::Damaged(_), Some(_)) => Some(MissingLedger::Full),
        };
        let (doubt, problem) = match (lost, &limits) {
            (_, None) => (None, None),
            (None, Some(_)) => (Doubt::read(disk, path), None),
            (Some(rule), Some(_)) => {
                let (doubt, problem) = Doubt::begin(disk, path, rule, ledger.live());
                // From now on there is a ledger, even if nothing is ever granted.
                let written = ledger.checkpoint(now).map_err(|error| error.to_string());
                (Some(doubt), problem.or(written.err()))
            }
        };
        Self {
            limits,
            policy,
            ledger,
            found,
            full: ServerFull::default(),
            history: History::default(),
            ledger_error: problem,
            groups: Vec::new(),
            vacant: Vec::new(),
            index: HashMap::new(),
            metrics: HashMap::new(),
            names: HashSet::new(),
            listed: Vec::new(),
            doubt,
            started: now,
            preempt_at: now + HOLD.to_std(),
            sent: 0,
            points,
        }
    }

    /// What was found when the ledger was opened, for the log.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The limits, or none.
    pub fn limits(&self) -> Option<&Limits> {
        self.limits.as_ref()
    }

    /// The classes.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Slots in use.
    pub fn live(&self) -> u64 {
        self.ledger.live()
    }

    /// Makes a series known.
    pub fn register(&mut self, labels: &Labels, key: Key) -> Registered {
        let class = self.policy.class_of(labels);
        self.ledger.reclass(key, class);
        let place = membership(labels);
        let number = if let Some(number) = self.index.get(&(place.group, class)) {
            *number
        } else {
            let family = self.intern(&place.family);
            let job = self.intern(&place.job);
            self.add_group(Rank { class, family, job, group: place.group })
        };
        let group = GroupIndex(number);
        if let Some(entry) = self.group_mut(group) {
            match entry.members.iter_mut().find(|member| member.key == key) {
                Some(member) => member.uses += 1,
                None => entry.members.push(Member { key, labels: labels.clone(), uses: 1 }),
            }
        }
        Registered { group, class }
    }

    /// Forgets a series that has not been seen for long. Its lease ends by itself.
    pub fn forget(&mut self, index: GroupIndex, key: Key) {
        let Some(group) = self.group_mut(index) else { return };
        if let Some(member) = group.members.iter_mut().find(|member| member.key == key) {
            member.uses -= 1;
        }
        group.members.retain(|member| member.uses > 0);
        if !group.members.is_empty() {
            return;
        }
        self.set_state(index, State::Waiting { since: Timestamp::MIN, reason: Reason::Budget });
        if let Some(group) = self.groups.get_mut(index.0 as usize).and_then(Option::take) {
            self.index.remove(&(group.rank.group, group.rank.class));
            if !group.is_listed {
                self.vacant.push(index.0);
            }
        }
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }

    /// Says that a group has a sample to send.
    pub fn want(&mut self, index: GroupIndex, now: Duration) {
        let Some(group) = self.group_mut(index) else { return };
        group.wanted_at = now;
        if !group.is_listed {
            group.is_listed = true;
            self.listed.push(index.0);
        }
    }

    /// Whether a sample of the series may be sent now, or why not.
    pub fn check(&self, index: GroupIndex, key: Key) -> Result<(), Reason> {
        match self.group(index).map(|group| group.state) {
            Some(State::Admitted) if self.ledger.is_live(key) => {
                if self.ledger.is_dormant(key) {
                    Err(Reason::LedgerFailed)
                } else {
                    Ok(())
                }
            }
            Some(State::Admitted) | None => Err(Reason::Budget),
            Some(State::Waiting { reason, .. } | State::Evicted { reason, .. }) => Err(reason),
        }
    }

    /// Whether the server may be counting the series.
    pub fn is_live(&self, key: Key) -> bool {
        self.ledger.is_live(key)
    }

    /// Whether the server refused the series when it was sent last, so that it shows nothing of it.
    pub fn is_refused(&self, key: Key) -> bool {
        self.ledger.is_refused(key)
    }

    /// Whether the group is sent and the series holds its lease, so that nothing needs planning.
    pub fn is_settled(&self, index: GroupIndex, key: Key) -> bool {
        self.check(index, key).is_ok()
    }

    /// Slots that may be in use at `now`.
    pub fn slots(&self, now: Duration) -> u64 {
        let Some(limits) = &self.limits else { return u64::MAX };
        let target =
            if self.full.is_probing() { limits.target } else { self.full.target(limits.target) };
        let hold = HOLD.to_std();
        let Some(doubt) = &self.doubt else { return target };
        let age = doubt.age(now.saturating_sub(self.started));
        match doubt.rule {
            _ if age >= hold => target,
            MissingLedger::Nothing => target,
            MissingLedger::Ramp => {
                let part = (age.as_secs_f64() / hold.as_secs_f64()).max(0.5);
                (target as f64 * part) as u64
            }
            MissingLedger::Full => {
                // What could be read of the ledger is not unknown any more.
                let beside = limits.contract.saturating_sub(limits.target);
                target.min(beside.saturating_add(doubt.recovered))
            }
        }
    }

    /// Whether the server may be counting series that the ledger does not list: there was none, or
    /// it was damaged, and the hold time has not passed since.
    pub fn is_in_doubt(&self, now: Duration) -> bool {
        let running = now.saturating_sub(self.started);
        self.doubt.as_ref().is_some_and(|doubt| {
            doubt.rule != MissingLedger::Nothing && doubt.age(running) < HOLD.to_std()
        })
    }

    /// Slots that may be in use right after the start.
    pub fn slots_at_start(&self) -> u64 {
        self.slots(self.started)
    }

    /// Families of which something is sent.
    pub fn families(&self) -> HashSet<&str> {
        self.metrics.keys().map(|(_, family, _)| &**family).collect()
    }

    /// Whether leases of an earlier run are more than the target: it was lowered since. Then each
    /// series that goes on takes a slot of the new target, until the others have ended.
    fn is_over(&self) -> bool {
        self.limits.as_ref().is_some_and(|limits| self.live() > limits.target)
            && self.ledger.dormant() > 0
    }

    fn free(&self, now: Duration) -> Free {
        let Some(limits) = &self.limits else { return Free { slots: u64::MAX, reserve: 0 } };
        let left = if self.is_over() {
            limits.target.saturating_sub(self.live() - self.ledger.dormant())
        } else {
            self.slots(now).saturating_sub(self.live())
        };
        let left = left.min(self.full.allowance(limits.target));
        let reserve = limits.reserve.min(left);
        Free { slots: left - reserve, reserve }
    }

    /// Decides over all groups that want slots, and makes the grants durable. Leases end only in
    /// [`Admission::advance`], which comes before the questions whose answers lead here.
    pub fn plan(&mut self, now: Duration, wall: Timestamp) {
        let demand = self.demand(now);
        if demand.is_empty() {
            return;
        }
        let indices: HashMap<(GroupId, u16), u32> = demand
            .iter()
            .filter_map(|d| {
                let id = (d.rank.group, d.rank.class);
                self.index.get(&id).map(|number| (id, *number))
            })
            .collect();
        let number = |d: &Demand| indices.get(&(d.rank.group, d.rank.class)).copied();
        let mut plan = plan(&self.policy, demand, self.free(now), self.ledger.live_by_class());
        let admitted: Vec<u32> = plan.admit.iter().filter_map(number).collect();
        let wanted: Vec<(Key, u16)> = admitted.iter().flat_map(|at| self.keys_of(*at)).collect();
        let renewed: Vec<Key> = admitted.iter().flat_map(|at| self.members_of(*at)).collect();
        let before = self.live();
        let slots = self.slots(now).max(before);
        let granted = self.ledger.renew(renewed, now);
        match granted.and_then(|()| self.ledger.grant(&wanted, slots, now)) {
            Ok(()) => {
                self.ledger_error = None;
                self.full.granted(self.live() - before);
                for at in admitted {
                    self.set_state(GroupIndex(at), State::Admitted);
                }
            }
            Err(error) => {
                let reason = self.failed(&error);
                plan.withhold.extend(plan.admit.drain(..).map(|demand| (demand, reason)));
            }
        }
        for (demand, reason) in &plan.withhold {
            if let Some(at) = number(demand) {
                self.withhold(GroupIndex(at), self.sharpen(*reason), now, wall);
            }
        }
        self.preempt(&plan.withhold, now, wall);
    }

    /// A lack of slots while the server refuses new series has that as its reason.
    fn sharpen(&self, reason: Reason) -> Reason {
        if reason == Reason::Budget && self.full.is_holding_back() {
            return Reason::ServerFull;
        }
        reason
    }

    fn failed(&mut self, error: &GrantError) -> Reason {
        match error {
            GrantError::NoRoom { .. } => Reason::Budget,
            GrantError::Disk(_) => {
                self.ledger_error = Some(error.to_string());
                Reason::LedgerFailed
            }
        }
    }

    /// Lets time pass: ends leases, writes checkpoints, keeps the history.
    pub fn advance(&mut self, now: Duration, wall: Timestamp) {
        if let Err(error) = self.ledger.advance(now) {
            self.failed(&error);
        }
        if let Some(limits) = &self.limits {
            self.full.advance(now, limits.target);
        }
        let running = now.saturating_sub(self.started);
        match self.doubt.take() {
            Some(doubt) if doubt.age(running) >= HOLD.to_std() => doubt.end(),
            Some(mut doubt) => {
                doubt.keep(running);
                self.doubt = Some(doubt);
            }
            None => {}
        }
        self.history.record(wall, self.ledger.live(), std::mem::take(&mut self.sent));
    }

    /// The groups that ask for slots they do not have; others leave the list.
    fn demand(&mut self, now: Duration) -> Vec<Demand> {
        let mut demand = Vec::new();
        let is_over = self.is_over();
        let listed = std::mem::take(&mut self.listed);
        // What an earlier run sent of a metric goes on, also where not all of it had found room.
        let held: HashSet<_> = listed
            .iter()
            .filter_map(|number| self.group(GroupIndex(*number)))
            .filter(|group| !is_over && group.members.iter().any(|m| self.ledger.is_live(m.key)))
            .map(|group| metric_of(&group.rank))
            .collect();
        for number in listed {
            let Some(group) = self.group(GroupIndex(number)) else {
                self.vacant.push(number);
                continue;
            };
            let missing = self.keys_of(number).count() as u64;
            let dormant =
                group.members.iter().filter(|m| self.ledger.is_dormant(m.key)).count() as u64;
            let is_sent = group.state == State::Admitted && missing == 0 && dormant == 0;
            let slots = match (is_over, missing) {
                (false, missing) => missing,
                (true, 0) => dormant,
                // There is no room for anything new.
                (true, _) => NO_ROOM,
            };
            if is_sent || now.saturating_sub(group.wanted_at) > WANTED_FOR {
                if let Some(group) = self.group_mut(GroupIndex(number)) {
                    group.is_listed = false;
                }
                continue;
            }
            let blocked = matches!(group.state, State::Evicted { until, .. } if until > now);
            if !blocked {
                let metric = metric_of(&group.rank);
                // What is new to a metric of which leases are over is decided by itself: there is no
                // room for it, and its metric goes on without it.
                let is_alone = is_over && missing > 0;
                let grows =
                    is_alone || self.metrics.contains_key(&metric) || held.contains(&metric);
                demand.push(Demand { rank: group.rank.clone(), slots, grows });
            }
            self.listed.push(number);
        }
        demand
    }

    /// The series of a group that hold no lease.
    fn keys_of(&self, number: u32) -> impl Iterator<Item = (Key, u16)> + '_ {
        let group = self.group(GroupIndex(number));
        group.into_iter().flat_map(|group| {
            group
                .members
                .iter()
                .filter(|member| !self.ledger.is_live(member.key))
                .map(|member| (member.key, group.rank.class))
        })
    }

    /// The series of a group.
    fn members_of(&self, number: u32) -> impl Iterator<Item = Key> + '_ {
        let group = self.group(GroupIndex(number));
        group.into_iter().flat_map(|group| group.members.iter().map(|member| member.key))
    }

    /// Keeps a group from being sent. One that is being sent is sent no more, as a whole.
    fn withhold(&mut self, index: GroupIndex, reason: Reason, now: Duration, wall: Timestamp) {
        let Some(group) = self.group(index) else { return };
        let was_sent = group.state == State::Admitted
            && group.members.iter().any(|member| self.ledger.is_live(member.key));
        let since = match group.state {
            State::Waiting { since, .. } | State::Evicted { since, .. } => since,
            State::Admitted => wall,
        };
        let since = if since == Timestamp::MIN { wall } else { since };
        let state = match group.state {
            // The time that it is withheld for stands.
            evicted @ State::Evicted { until, .. } if until > now => evicted,
            _ if was_sent && reason != Reason::LedgerFailed => {
                State::Evicted { since, reason, until: now + EVICTED_FOR }
            }
            _ => State::Waiting { since, reason },
        };
        self.set_state(index, state);
    }

    /// Notes a sample that could be sent; see [`Points::seen`].
    pub fn seen(&mut self, class: u16, mark: &mut u32) {
        self.points.seen(class, mark);
    }

    /// Notes a point that no interval rules.
    pub fn extra_point(&mut self) {
        self.points.extra();
    }

    /// The interval at which a class is sent whose configured one is `configured`.
    pub fn interval(&self, class: u16, configured: Span) -> Span {
        self.points.interval(class, configured)
    }

    /// Thins the classes as far as points per minute are scarce; see [`Points::plan`].
    pub fn plan_points(&mut self, newest: Timestamp, behind: bool, configured: &[Span]) {
        self.points.plan(newest, behind, configured);
    }

    /// Takes points for a request.
    ///
    /// # Errors
    /// How long to wait before there are enough.
    pub fn take_points(&mut self, count: u64, now: Duration) -> Result<(), Duration> {
        self.points.take(count, now)
    }

    /// Notes that samples of these series are about to be handed to the network and may arrive
    /// until `until`.
    pub fn hand_over(&mut self, keys: &[Key], samples: u64, until: Duration) {
        self.sent = self.sent.saturating_add(samples);
        self.ledger.hand_over(keys.iter().copied(), until);
    }

    /// Notes that the server took the series in.
    pub fn accepted(&mut self, keys: &[Key], now: Duration) {
        self.ledger.answered(keys.iter().copied(), now, true);
    }

    /// Notes an answer after which nothing of the request arrives any more.
    pub fn answered(&mut self, keys: &[Key], now: Duration) {
        self.ledger.answered(keys.iter().copied(), now, false);
    }

    /// How many of `keys` a full server may have refused: those that are new, or, where none is,
    /// those of an earlier run.
    pub fn doubtful(&self, keys: &[Key]) -> usize {
        match self.ledger.unconfirmed_of(keys.iter().copied()).len() {
            0 => self.ledger.recovered_of(keys.iter().copied()).len(),
            new => new,
        }
    }

    /// Notes that the server had no room for new series. Returns those of `sent` that it may have
    /// refused; their groups are not sent for a while. Series of an earlier run are among them only
    /// when they were sent alone.
    pub fn server_full(
        &mut self,
        sent: &[(Key, GroupIndex)],
        message: &str,
        now: Duration,
        wall: Timestamp,
    ) -> HashSet<Key> {
        let keys = || sent.iter().map(|(key, _)| *key);
        let mut doubtful: HashSet<Key> = self.ledger.unconfirmed_of(keys()).into_iter().collect();
        let distinct: HashSet<Key> = keys().collect();
        if distinct.len() == 1 {
            doubtful.extend(self.ledger.recovered_of(distinct));
        }
        self.ledger.answered(keys(), now, false);
        self.ledger.refused(doubtful.iter().copied());
        if let Some(limits) = &self.limits {
            // What an earlier run had sent is not confirmed by this one, and there all the same.
            let there = self.live().saturating_sub(doubtful.len() as u64);
            self.full.refused(now, there, limits.target, message);
        }
        let groups: HashSet<GroupIndex> =
            sent.iter().filter(|(key, _)| doubtful.contains(key)).map(|(_, at)| *at).collect();
        for index in groups {
            self.withhold(index, Reason::ServerFull, now, wall);
        }
        doubtful
    }

    /// Writes the ledger before an orderly end.
    pub fn close(&mut self, now: Duration) -> Result<(), GrantError> {
        self.ledger.checkpoint(now)
    }

    /// All groups, for the report.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().flatten()
    }

    fn group(&self, index: GroupIndex) -> Option<&Group> {
        self.groups.get(index.0 as usize)?.as_ref()
    }

    fn group_mut(&mut self, index: GroupIndex) -> Option<&mut Group> {
        self.groups.get_mut(index.0 as usize)?.as_mut()
    }

    fn add_group(&mut self, rank: Rank) -> u32 {
        let id = (rank.group, rank.class);
        let sends = self.policy.class(rank.class).is_none_or(|class| class.send);
        let reason = if sends { Reason::Budget } else { Reason::Policy };
        let state = State::Waiting { since: Timestamp::MIN, reason };
        let wanted_at = Duration::ZERO;
        let group = Group { rank, members: Vec::new(), state, wanted_at, is_listed: false };
        let number = self.vacant.pop().unwrap_or(self.groups.len() as u32);
        match self.groups.get_mut(number as usize) {
            Some(slot) => *slot = Some(group),
            None => self.groups.push(Some(group)),
        }
        self.index.insert(id, number);
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

    /// The only way a group's state changes, so that admitted metrics are counted right.
    fn set_state(&mut self, index: GroupIndex, state: State) {
        let Some(group) = self.group_mut(index) else { return };
        let was = group.state == State::Admitted;
        let is = state == State::Admitted;
        group.state = state;
        if was == is {
            return;
        }
        let metric = metric_of(&group.rank);
        let count = self.metrics.entry(metric.clone()).or_insert(0);
        *count = if is { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.metrics.remove(&metric);
        }
    }
}

fn metric_of(rank: &Rank) -> (u16, Arc<str>, Arc<str>) {
    (rank.class, rank.family.clone(), rank.job.clone())
}

#[cfg(test)]
mod tests;
