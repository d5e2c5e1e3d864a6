//! Who is sent at present: the groups of one endpoint, their leases, and the decisions over them.
//!
//! A forwarder registers each series once, says which groups have samples to send, lets
//! [`Admission::plan`] decide, and asks [`Admission::check`] before it sends anything.

mod decide;
mod evicted;
mod feedback;
mod groups;
mod marks;
mod preempt;
mod rank;
mod targets;
mod thin;
mod work;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stint_model::{Labels, Span, Timestamp};
use stint_storage::Disk;

use decide::Pending;
use evicted::Evictions;
use groups::{Groups, Place};
use marks::Marks;
use rank::Ranks;
use targets::Sampling;
use thin::Thinning;

use super::beside::Beside;
use super::doubt::{self, Doubt, Opened};
use super::feedback::Feedback;
use super::full::ServerFull;
use super::group::{Key, membership, target_of};
use super::history::History;
use super::ledger::{Found, GrantError, Ledger};
use super::limits::{HOLD, Limits, MissingLedger};
use super::points::Points;
use super::policy::{Policy, Reason};
use super::pool::Seat;
use super::ranking::Ranking;
use super::share::{Free, Growth, Quotas};
use super::symbols::Symbols;

pub(super) use groups::{Group, State};
pub use groups::{GroupIndex, Outgoing};
pub use work::{Besides, Done, Work};

/// Where a registered series belongs.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The series, with its group.
    pub series: Arc<Outgoing>,
    /// The number of its class.
    pub class: u16,
    /// The finest resolution of its native histograms.
    pub resolution: Option<i32>,
}

/// Where a series comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Provenance {
    /// A hash of its target.
    pub target: u64,
    /// See [`Outgoing::keeps_value`].
    pub keeps_value: bool,
}

/// How a series stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether a sample of it may be sent, or why not.
    pub verdict: Result<(), Reason>,
    /// Whether the server may be counting it and has not refused it.
    pub is_shown: bool,
    /// The number of its class; nothing when it is not known any more.
    pub class: Option<u16>,
}

impl Standing {
    /// Whether nothing needs planning: it is sent, or left out as configured.
    pub fn is_settled(&self) -> bool {
        matches!(self.verdict, Ok(()) | Err(Reason::Buckets | Reason::Targets))
    }
}

/// An evicted group is not considered again before this has passed, lest it flap.
const EVICTED_FOR: Duration = Duration::from_hours(1);
/// A metric of a job that is sent already may gain this part of the target in a minute,
const GROWTH_PART: u64 = 20;
/// or so many slots where that is more.
const GROWTH_MIN: u64 = 50;
/// After a first start the targets come one by one; the slots are shared out when they are known.
const FIRST_START: Duration = Duration::from_mins(1);

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
    /// Its place among the endpoints of its account.
    pub seat: Seat,
    /// What is used, where that decides what matters.
    pub ranking: Option<Arc<Ranking>>,
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
    pub(super) seat: Seat,
    /// What the account says, where it is asked.
    pub(super) feedback: Option<Feedback>,
    groups: Groups,
    /// Texts of the labels of all series.
    symbols: Arc<Symbols>,
    /// What asks for slots it does not have.
    pending: Pending,
    pub(super) quotas: Quotas,
    /// Numbers of quotas by number in the policy and value of the label that it is per.
    pub(super) quota_numbers: HashMap<(u32, Box<str>), u32>,
    /// Groups of the series that count towards a quota.
    quota_keys: HashMap<Key, GroupIndex>,
    growth: Growth,
    growth_minute: u64,
    thinning: Thinning,
    sampling: Sampling,
    evictions: Evictions,
    ranks: Ranks,
    doubt: Option<Doubt>,
    marks: Marks,
    started: Duration,
    preempt_at: Duration,
    /// When slots may be given back to others at the earliest.
    give_at: Duration,
    /// Slots that are lacking here.
    wants: u64,
    /// Points handed to the network since the history was last written.
    sent: u64,
    points: Points,
    /// Dormant leases of series of which the end is to be told.
    ending: Vec<Key>,
    /// The server has told of all that is on it; the ledger is to list it before nothing is in doubt.
    is_told: bool,
    /// What is to be written beside the ledger.
    besides: Vec<Beside>,
}

impl Admission {
    /// Opens the budget of an endpoint, with the leases of an earlier run where there are any.
    pub fn open(opening: Opening<'_>) -> Self {
        let Opening { limits, policy, disk, path, ran_before, seat, ranking, now } = opening;
        let before = seat.take_over();
        let missing = limits.as_ref().map(|limits| limits.missing_ledger).unwrap_or_default();
        let missing = if ran_before { MissingLedger::Full } else { missing };
        let opened = doubt::open(doubt::Opening {
            disk: Arc::clone(&disk),
            path,
            missing: Some(missing),
            others: seat.others(),
            lists: limits.is_some(),
            now,
        });
        let Opened { mut ledger, found, doubt, problem } = opened;
        let found = match before {
            // It was written anew since.
            Some(before) if doubt.as_ref().is_some_and(|doubt| doubt.is_open(now)) => before,
            _ => found,
        };
        let mut marks = Marks::default();
        let mut problem = problem;
        if limits.is_none() {
            ledger.write_at_end();
            marks = Marks::unlisted(Arc::clone(&disk), path);
            problem = problem.or(marks.write_now(now).err());
        }
        let evictions = match &limits {
            Some(_) => Evictions::read(Arc::clone(&disk), path, now),
            None => Evictions::in_memory(),
        };
        let (quotas, quota_numbers) = quotas_of(&policy);
        let growth_max = limits.as_ref().map(growth_of);
        let history = match &limits {
            Some(_) => History::open(Arc::clone(&disk), path),
            None => History::default(),
        };
        let per_minute = limits.as_ref().and_then(|limits| limits.points_per_minute);
        let points = Points::new(per_minute, seat.bucket(), now);
        let admission = Self {
            limits,
            policy,
            ledger,
            found,
            full: ServerFull::default(),
            history,
            ledger_error: problem,
            seat,
            feedback: None,
            groups: Groups::default(),
            symbols: Arc::default(),
            pending: Pending::default(),
            quotas,
            quota_numbers,
            quota_keys: HashMap::new(),
            growth: Growth { max: growth_max, ..Growth::default() },
            growth_minute: 0,
            thinning: Thinning::default(),
            sampling: Sampling::default(),
            evictions,
            ranks: Ranks::new(ranking),
            doubt,
            marks,
            started: now,
            preempt_at: now + HOLD.to_std(),
            give_at: now,
            wants: 0,
            sent: 0,
            points,
            ending: Vec::new(),
            is_told: false,
            besides: Vec::new(),
        };
        // In one step: nobody is granted what is unknown here in between.
        admission.seat.join(admission.live(), admission.told_ceiling(now));
        admission
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
    pub fn register(&mut self, labels: &Labels, key: Key, origin: Provenance) -> Registered {
        let names = membership(labels);
        let class = self.class_of(labels, &names.family);
        self.ledger.reclass(key, class);
        let index = self.groups.find(names.group, class).unwrap_or_else(|| {
            let place = Place {
                rule: self.policy.histogram_rule(labels, &names.family),
                quotas: self.quotas_of(labels, &names.family),
                target: target_of(labels),
                state: self.first_state(class, names.group),
            };
            self.groups.add(class, &names.family, &names.job, names.group, place)
        });
        let rule = self.groups.get(index).and_then(|group| group.rule);
        let Provenance { target, keeps_value } = origin;
        let symbols = &self.symbols;
        let make = |is_shared| {
            let labels = symbols.numbers(labels);
            Outgoing { key, group: index, labels, is_shared, target, keeps_value }
        };
        let new = self.groups.add_member(index, key, || make(false));
        let is_new = new.is_some();
        let series = new.unwrap_or_else(|| Arc::new(make(true)));
        if is_new && rule.is_some() {
            self.thin(index);
        }
        if self.groups.get(index).is_some_and(|group| group.quotas > 0) {
            self.quota_keys.insert(key, index);
        }
        let resolution = rule.and_then(|rule| self.policy.histogram(rule)?.resolution);
        Registered { series, class, resolution }
    }

    /// How a new group begins.
    fn first_state(&self, class: u16, group: super::group::GroupId) -> State {
        let sends = self.policy.class(class).is_none_or(|class| class.send);
        let reason = if sends { Reason::Budget } else { Reason::Policy };
        let since = Timestamp::MIN;
        match self.evictions.until(group) {
            Some(until) if sends => State::Evicted { since, reason, until },
            _ => State::Waiting { since, reason },
        }
    }

    /// The number of the set of quotas that a series counts towards.
    fn quotas_of(&mut self, labels: &Labels, family: &str) -> u32 {
        let mut set = Vec::new();
        for (number, quota) in self.policy.quotas().iter().enumerate() {
            let selects = |selector: &stint_model::Selector| selector.matches(labels);
            if !quota.selectors.is_empty() && !quota.selectors.iter().any(selects) {
                continue;
            }
            let value = match quota.per.as_deref() {
                None => "",
                Some(stint_model::labels::METRIC_NAME) => family,
                Some(label) => labels.get(label).unwrap_or_default(),
            };
            let place = (number as u32, Box::from(value));
            let new = self.quotas.each.len() as u32;
            let at = *self.quota_numbers.entry(place).or_insert(new);
            if at == new {
                let (max, guaranteed) = (quota.series, quota.guaranteed);
                let rule = Some(number as u32).filter(|_| quota.per.is_some() && max.is_some());
                self.quotas.each.push(super::share::Quota { max, used: 0, guaranteed, rule });
            }
            set.push(at);
        }
        let known = self.quotas.sets.iter().position(|known| **known == *set);
        known.unwrap_or_else(|| {
            self.quotas.sets.push(set.into());
            self.quotas.sets.len() - 1
        }) as u32
    }

    /// Forgets a series that has not been seen for long. Its lease ends by itself.
    pub fn forget(&mut self, index: GroupIndex, key: Key) {
        // Another series may still be sent under the same labels.
        if self.groups.remove_member(index, key) {
            self.quota_keys.remove(&key);
            self.thinning.forget(key);
        }
    }

    /// Says that a group has a sample to send.
    pub fn want(&mut self, index: GroupIndex, now: Duration) {
        let Some(group) = self.groups.get_mut(index) else { return };
        group.wanted_at = now;
        if !group.is_listed {
            group.is_listed = true;
            self.pending.add(index);
        }
    }

    /// Grows with every change to what [`Admission::standing`] says of any series.
    pub fn changes(&self) -> u64 {
        self.groups.changes() + self.ledger.changes() + self.thinning.changes()
    }

    /// How many leases have ended.
    pub fn ended(&self) -> u64 {
        self.ledger.ended()
    }

    /// How a series stands, until [`Admission::changes`] grows.
    pub fn standing(&self, index: GroupIndex, key: Key) -> Standing {
        Standing {
            verdict: self.check(index, key),
            is_shown: self.is_live(key) && !self.is_refused(key) && !self.ledger.needs_writing(key),
            class: self.class_of_group(index),
        }
    }

    /// Whether a sample of the series may be sent now, or why not.
    pub fn check(&self, index: GroupIndex, key: Key) -> Result<(), Reason> {
        let Some(group) = self.groups.get(index) else { return Err(Reason::Budget) };
        if self.thinning.leaves_out(key) {
            return Err(Reason::Buckets);
        }
        match group.state {
            State::Admitted if self.ledger.is_live(key) => {
                if self.ledger.is_fit(key) {
                    Ok(())
                } else {
                    Err(Reason::LedgerFailed)
                }
            }
            State::Admitted => Err(Reason::Budget),
            State::Waiting { reason, .. } | State::Evicted { reason, .. } => Err(reason),
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

    /// Whether nothing needs planning: the group is sent and the series holds its lease, or it is left
    /// out as configured.
    pub fn is_settled(&self, index: GroupIndex, key: Key) -> bool {
        self.standing(index, key).is_settled()
    }

    /// Slots that may be in use at `now`, by this endpoint.
    pub fn slots(&self, now: Duration) -> u64 {
        if self.limits.is_none() {
            return u64::MAX;
        }
        self.slots_of_all(now).saturating_sub(self.seat.others())
    }

    /// Slots that may be in use at `now`, by all endpoints that share the account.
    fn slots_of_all(&self, now: Duration) -> u64 {
        let most = self.ceiling(now).unwrap_or(u64::MAX);
        most.min(self.seat.ceiling(now).unwrap_or(u64::MAX))
    }

    /// The same as far as this endpoint can tell; nothing without a budget.
    fn ceiling(&self, now: Duration) -> Option<u64> {
        let limits = self.limits.as_ref()?;
        let target =
            if self.full.is_probing() { limits.target } else { self.full.target(limits.target) };
        let hold = HOLD.to_std();
        let Some(doubt) = &self.doubt else { return Some(target) };
        let age = doubt.age(now);
        Some(match doubt.rule {
            _ if !doubt.is_open(now) => target,
            MissingLedger::Nothing => target,
            MissingLedger::Ramp => {
                let part = (age.as_secs_f64() / hold.as_secs_f64()).clamp(0.5, 1.0);
                (target as f64 * part) as u64
            }
            MissingLedger::Full => {
                // What could be read of ledgers is not unknown any more.
                let beside = limits.contract.saturating_sub(limits.target);
                target.min(beside.saturating_add(doubt.recovered))
            }
            MissingLedger::Unlisted => target.min(self.live().saturating_add(self.seat.others())),
        })
    }

    /// What the other endpoints of the account are told may be in use while this one cannot be sure.
    fn told_ceiling(&self, now: Duration) -> Option<u64> {
        let ceiling = self.ceiling(now).filter(|_| self.is_in_doubt(now));
        let there = self.live().saturating_add(self.seat.others());
        let full = match self.full.allowance(u64::MAX) {
            // Nobody tries what the server has just refused.
            0 => Some(there),
            _ if self.full.is_holding_back() => self.ceiling(now),
            _ => None,
        };
        ceiling.into_iter().chain(full).min()
    }

    /// Slots that are free at `now`.
    pub fn room(&self, now: Duration) -> u64 {
        self.slots(now).saturating_sub(self.live())
    }

    /// Whether the server may be counting series that the ledger does not list: there was none, or
    /// it was damaged, and the hold time has not passed since.
    pub fn is_in_doubt(&self, now: Duration) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| doubt.is_open(now))
    }

    /// Slots that may be in use right after the start.
    pub fn slots_at_start(&self) -> u64 {
        self.slots(self.started)
    }

    /// Families of which something is sent.
    pub fn families(&self) -> HashSet<&str> {
        self.groups.families()
    }

    /// Whether leases of an earlier run are more than the target: it was lowered since. Then each
    /// series that goes on takes a slot of the new target, until the others have ended.
    fn is_over(&self) -> bool {
        let Some(limits) = &self.limits else { return false };
        self.live().saturating_add(self.seat.others()) > limits.target && self.ledger.dormant() > 0
    }

    fn free(&self, now: Duration) -> Free {
        let Some(limits) = &self.limits else { return Free { slots: u64::MAX, reserve: 0 } };
        let left = if self.is_over() {
            let own = limits.target.saturating_sub(self.seat.others());
            own.saturating_sub(self.live() - self.ledger.dormant())
        } else {
            // No more than others leave, as far as they need it.
            let fair = self.seat.fair(self.slots_of_all(now));
            self.slots(now).min(fair).saturating_sub(self.live())
        };
        let left = left.min(self.full.allowance(limits.target));
        let reserve = limits.reserve.min(left);
        let slots = if self.is_first_start(now) { 0 } else { left - reserve };
        Free { slots, reserve }
    }

    /// Whether it is the first start and too early to choose.
    fn is_first_start(&self, now: Duration) -> bool {
        self.doubt
            .as_ref()
            .is_some_and(|doubt| doubt.rule == MissingLedger::Ramp && doubt.age(now) < FIRST_START)
    }

    /// A lack of slots has other reasons at times.
    fn sharpen(&self, reason: Reason, now: Duration) -> Reason {
        match reason {
            Reason::Budget if self.full.is_holding_back() => Reason::ServerFull,
            Reason::Budget if self.is_first_start(now) => Reason::FirstStart,
            _ => reason,
        }
    }

    fn failed(&mut self, error: &GrantError) -> Reason {
        match error {
            GrantError::NoRoom { .. } => Reason::Budget,
            GrantError::Disk(_) | GrantError::Busy => {
                self.ledger_error = Some(error.to_string());
                Reason::LedgerFailed
            }
        }
    }

    /// Lets time pass: ends leases, keeps the history. What is to be written of it comes with the next
    /// [decision](Admission::decide).
    pub fn advance(&mut self, now: Duration, wall: Timestamp) {
        self.ledger.advance(now);
        self.seat.advance(now);
        self.seat.note(self.live());
        if let Some(limits) = &self.limits {
            self.full.advance(now, limits.target);
        }
        self.besides.extend(Doubt::pass(&mut self.doubt, self.limits.is_some(), now));
        self.seat.note_ceiling(self.told_ceiling(now));
        self.give_back(now, wall);
        self.raise(now);
        self.history.record(wall, self.ledger.live(), std::mem::take(&mut self.sent));
        self.besides.extend(self.history.keep(now, false));
    }

    /// What is to be written beside the ledger, which nothing waits for.
    pub fn beside(&mut self, now: Duration) -> Besides {
        self.besides.extend(self.evictions.keep(now));
        Besides { pen: self.seat.pen(), all: std::mem::take(&mut self.besides) }
    }

    /// Why no slots can be granted, while the ledger cannot be written.
    pub fn ledger_error(&self) -> Option<&str> {
        self.ledger_error.as_deref()
    }

    /// Says that the end of a series is to be told, if it holds a lease that the ledger has for unused.
    pub fn end(&mut self, key: Key) {
        if self.ledger.needs_writing(key) {
            self.ending.push(key);
        }
    }

    /// Keeps a group from being sent. One that is being sent is sent no more, as a whole.
    fn withhold(&mut self, index: GroupIndex, reason: Reason, now: Duration, wall: Timestamp) {
        let Some(group) = self.groups.get(index) else { return };
        let was_sent = group.state == State::Admitted
            && group.members.iter().any(|member| self.ledger.is_live(member.key()));
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
        if let State::Evicted { until, .. } = state {
            self.evictions.note(group.id, until);
        }
        self.groups.set_state(index, state);
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
        let seat = &self.seat;
        self.points.plan(newest, behind, configured, |all, wanted| seat.points(all, wanted));
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

    /// Notes that so many samples that were handed over never left this machine.
    pub fn not_sent(&mut self, samples: u64) {
        self.sent = self.sent.saturating_sub(samples);
        self.points.give_back(samples);
    }

    /// Notes that the server took the series in.
    pub fn accepted(&mut self, keys: &[Key], now: Duration) {
        self.ledger.answered(keys.iter().copied(), now, true);
    }

    /// Notes that there was no answer: the request may still arrive.
    pub fn unanswered(&mut self, keys: &[Key]) {
        self.ledger.unanswered(keys.iter().copied());
    }

    /// Notes an answer after which nothing of the request arrives any more.
    pub fn answered(&mut self, keys: &[Key], now: Duration) {
        self.ledger.answered(keys.iter().copied(), now, false);
    }

    /// Notes an answer that says that nothing of the request was looked at, and nothing was counted.
    pub fn uncounted(&mut self, keys: &[Key]) {
        self.ledger.uncounted(keys.iter().copied());
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
            let there = self.live().saturating_add(self.seat.others());
            let there = there.saturating_sub(doubtful.len() as u64);
            self.full.refused(now, there, limits.target, message);
        }
        let groups: HashSet<GroupIndex> =
            sent.iter().filter(|(key, _)| doubtful.contains(key)).map(|(_, at)| *at).collect();
        for index in groups {
            self.withhold(index, Reason::ServerFull, now, wall);
        }
        doubtful
    }

    /// What is to be written before an orderly end.
    pub fn close(&mut self, now: Duration) -> Work {
        self.besides.extend(self.history.keep(now, true));
        self.ledger.want_checkpoint();
        self.marks.is_ending();
        Work { is_last: true, ..self.promise(&[], now) }
    }

    /// All groups, for the report.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// The metric family of a group.
    pub(super) fn family_of(&self, group: &Group) -> Arc<str> {
        self.groups.family(group)
    }

    /// The job of a group.
    pub(super) fn job_of(&self, group: &Group) -> Arc<str> {
        self.groups.job(group)
    }

    /// Groups with their places, from a place on.
    pub(super) fn groups_from(&self, place: usize) -> impl Iterator<Item = (usize, &Group)> {
        self.groups.from(place)
    }
}

/// How many slots a metric of a job may gain in a minute.
fn growth_of(limits: &Limits) -> u64 {
    (limits.target / GROWTH_PART).max(GROWTH_MIN)
}

/// Quotas of which nothing is used. Those that are not per label are there from the start, since
/// slots may be guaranteed to them.
fn quotas_of(policy: &Policy) -> (Quotas, HashMap<(u32, Box<str>), u32>) {
    let mut quotas = Quotas { sets: vec![Arc::default()], each: Vec::new() };
    let mut numbers = HashMap::new();
    for (number, quota) in policy.quotas().iter().enumerate().filter(|(_, it)| it.per.is_none()) {
        numbers.insert((number as u32, Box::from("")), quotas.each.len() as u32);
        let (max, guaranteed) = (quota.series, quota.guaranteed);
        quotas.each.push(super::share::Quota { max, used: 0, guaranteed, rule: None });
    }
    (quotas, numbers)
}

#[cfg(test)]
mod tests;
