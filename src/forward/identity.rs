//! Numbers for targets that come and go: at the endpoint a task is known by its service and the lowest
//! number that was free when it came, so that its successor goes on with its series instead of
//! making new ones. While both run they have two numbers.
//!
//! Who has which number is durable before anything is sent under it ([`file`]): two tasks that swapped
//! their numbers over a restart would be one series that jumps. What is read again after a restart
//! gets the number that its target had then, whoever has it by now.

mod file;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stint_model::{Labels, Span, Timestamp};
use stint_storage::Disk;

use crate::budget::group::KeyHasher;
use crate::config::IdentityRule;

/// A target of which nothing came for so long is gone, unless its own rhythm is slower.
const GONE_AFTER: Span = Span(90_000);
/// One that was seen once may have any rhythm that queries can show.
const GONE_UNKNOWN: Span = Span(5 * Span::MINUTE.0);
/// While nothing at all comes, nobody is looked for: so much of such a time counts.
const PAUSE_MAX: Span = Span(45_000);
/// Samples from further ahead say nothing of what time it is.
const AHEAD_MAX: Span = Span(5 * Span::MINUTE.0);
/// A number that nobody had for so long is forgotten.
const FORGOTTEN_AFTER: Span = Span::DAY;
/// How often it is written who was seen when. Numbers that are given are written at once.
const KEEP_EVERY: Duration = Duration::from_secs(30);
/// After the disk failed.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Numbers of one service: a label that changes with every sample is no target's.
const NUMBERS_MAX: usize = 10_000;
/// Numbers of all services.
const HELD_MAX: usize = 100_000;
/// Earlier holders of one number that are remembered, for what is read again.
const PAST_MAX: usize = 4;
/// What the values that replace a target's name begin with.
const PREFIX: &str = "slot-";
/// Before the names of the labels that were replaced, in the series that tells who has a number.
const REAL: &str = "real_";

/// Some target's time with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tenure {
    target: u128,
    /// The time of its first sample.
    since: Timestamp,
    /// The time of its newest sample or stale marker.
    last: Timestamp,
    /// Whether another one had the number before.
    follows: bool,
}

/// A number of a service.
#[derive(Clone, Debug, PartialEq)]
struct Number {
    holder: Tenure,
    /// By the clock of [`Identities`], when it was seen.
    seen: Span,
    /// Its rhythm, where two of its samples were seen.
    gap: Option<Span>,
    has_ended: bool,
    /// Whether it got the number in this run.
    is_new: bool,
    /// Whether another one may have had it in an earlier run of which nothing is known.
    may_follow: bool,
    is_durable: bool,
    /// Who had it before, latest first.
    past: Vec<Tenure>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Service {
    numbers: Vec<Number>,
    /// The number of each holder.
    index: HashMap<u128, u32>,
}

/// A target's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    service: u128,
    number: u32,
    /// The target.
    pub(super) target: u128,
    /// Whether it is about the series whose end is the target's.
    pub(super) is_up: bool,
}

/// A series as it is sent.
#[derive(Debug)]
pub(super) struct Placed {
    /// Its labels.
    pub(super) labels: Labels,
    /// Its target's number.
    pub(super) slot: Slot,
    /// For `up`: the labels of the series that tells who has the number.
    pub(super) info: Option<Labels>,
}

/// How a target stands to a number at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It is its own.
    Own,
    /// The same, and that is not durable yet.
    Unsaved,
    /// It was its own at that time.
    Past,
    /// Another one has it.
    Lost,
}

/// Whether a series has to be parted from what another target sent under the number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// It has.
    Yes,
    /// If something was sent.
    IfSent,
    /// Nothing was, or the two are parted.
    No,
}

/// For the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityCounts {
    /// Numbers that somebody had within a day.
    pub numbers: u64,
    /// Of these, what targets have that are there.
    pub held: u64,
    /// How often a target went on with the number of another one.
    pub takeovers: u64,
    /// Targets that found no number, since there are too many.
    pub unnumbered: u64,
}

/// All numbers of one endpoint.
#[derive(Debug)]
pub(super) struct Identities {
    rules: Vec<IdentityRule>,
    services: HashMap<u128, Service, KeyHasher>,
    held: usize,
    file: Option<(Arc<dyn Disk>, PathBuf)>,
    /// Time that passed while something came.
    clock: Span,
    newest: Option<Timestamp>,
    /// What an earlier run gave is not known, although it may have given some.
    is_fresh: bool,
    has_unsaved: bool,
    has_news: bool,
    keep_at: Duration,
    /// After the disk failed: when it is tried again.
    retry_at: Duration,
    takeovers: u64,
    unnumbered: u64,
}

impl Identities {
    /// The numbers that an earlier run left at `path`.
    pub(super) fn open(rules: Vec<IdentityRule>, disk: Arc<dyn Disk>, path: &Path) -> Self {
        let mut all = Self::in_memory(rules);
        if all.rules.is_empty() {
            return all;
        }
        match file::read(&*disk, path) {
            Ok(Some(kept)) => all.restore(kept),
            Ok(None) => all.is_fresh = true,
            Err(error) => {
                tracing::warn!("{error}; numbers of targets begin anew");
                all.is_fresh = true;
            }
        }
        all.file = Some((disk, path.to_path_buf()));
        all
    }

    /// Numbers that are not kept.
    pub(super) fn in_memory(rules: Vec<IdentityRule>) -> Self {
        Self {
            rules,
            services: HashMap::default(),
            held: 0,
            file: None,
            clock: Span::ZERO,
            newest: None,
            is_fresh: false,
            has_unsaved: false,
            has_news: false,
            keep_at: Duration::ZERO,
            retry_at: Duration::ZERO,
            takeovers: 0,
            unnumbered: 0,
        }
    }

    /// Whether no target gets a number.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Lets the time of the samples pass.
    pub(super) fn tick(&mut self, at: Timestamp, wall: Timestamp) {
        let most = Timestamp(wall.as_ms().saturating_add(AHEAD_MAX.as_ms()));
        if at > most {
            return;
        }
        // What a wrong clock said is forgotten.
        let newest = self.newest.map_or(at, |newest| newest.min(most));
        let pause = at.since(newest).as_ms().clamp(0, PAUSE_MAX.as_ms());
        self.clock = Span(self.clock.as_ms().saturating_add(pause));
        self.newest = Some(newest.max(at));
    }

    /// The labels of a series with the number of its target, for a sample at `at`; nothing where no rule
    /// selects it or there are too many.
    pub(super) fn place(&mut self, labels: &Labels, at: Timestamp) -> Option<Placed> {
        let selects = |rule: &&IdentityRule| rule.selectors.iter().any(|it| it.matches(labels));
        let rule = self.rules.iter().find(selects)?.clone();
        let is_identity = |name: &str| rule.replace.iter().any(|other| other == name);
        let is_service = |name: &str| rule.per.iter().any(|other| other == name);
        let real = labels.retain(is_identity);
        if real.is_empty() {
            return None;
        }
        // Rules that name the same labels number the same targets.
        let kind = rule.replace.join(",");
        let of = |labels: Labels| labels.to_builder().set("__replace__", &kind).build();
        let service = of(labels.retain(is_service)).stable_hash_128();
        let target = of(real.clone()).stable_hash_128();
        let number = self.number(service, target, at)?;
        let value = format!("{PREFIX}{number}");
        let first = rule.replace.first()?;
        let mut builder = labels.to_builder();
        for name in &rule.replace {
            builder.set(name, "");
        }
        let placed = builder.set(first, &value).build();
        let is_up = labels.metric_name() == Some("up");
        let info = rule.info.as_ref().filter(|_| is_up).map(|name| {
            let mut builder = placed.to_builder();
            for (name, value) in &real {
                builder.set(&format!("{REAL}{name}"), value);
            }
            builder.set(stint_model::labels::METRIC_NAME, name).build()
        });
        Some(Placed { labels: placed, slot: Slot { service, number, target, is_up }, info })
    }

    fn number(&mut self, service: u128, target: u128, at: Timestamp) -> Option<u32> {
        let clock = self.clock;
        let known = self.services.entry(service).or_default();
        if let Some(number) = known.index.get(&target) {
            return Some(*number);
        }
        let had = |number: &Number| number.past.iter().any(|past| past.covers(target, at));
        if let Some(number) = known.numbers.iter().position(had) {
            return Some(number as u32);
        }
        let new = Number {
            holder: Tenure { target, since: at, last: at, follows: false },
            seen: clock,
            gap: None,
            has_ended: false,
            is_new: true,
            may_follow: self.is_fresh,
            is_durable: self.file.is_none(),
            past: Vec::new(),
        };
        let number = match known.numbers.iter().position(|number| number.is_free(at, clock)) {
            Some(free) => {
                self.takeovers += 1;
                known.take_over(free, new);
                free
            }
            None if known.numbers.len() >= NUMBERS_MAX || self.held >= HELD_MAX => {
                if self.unnumbered == 0 {
                    tracing::warn!(
                        "there are more targets than numbers; the others keep their own names"
                    );
                }
                self.unnumbered += 1;
                return None;
            }
            None => {
                known.numbers.push(new);
                self.held += 1;
                known.numbers.len() - 1
            }
        };
        known.index.insert(target, number as u32);
        (self.has_unsaved, self.has_news) = (self.file.is_some(), true);
        Some(number as u32)
    }

    /// Notes a sample of a target; `ends` says that it is the stale marker of its `up`.
    pub(super) fn touch(&mut self, slot: Slot, at: Timestamp, is_stale: bool, ends: bool) -> Hold {
        let clock = self.clock;
        let hold = self.stands(slot, at);
        if !matches!(hold, Hold::Own | Hold::Unsaved) {
            return hold;
        }
        let service = self.services.get_mut(&slot.service);
        let Some(number) = service.and_then(|it| it.numbers.get_mut(slot.number as usize)) else {
            return hold;
        };
        let is_later = at > number.holder.last;
        number.holder.last = number.holder.last.max(at);
        if is_stale {
            // Others of its series end by themselves now and then.
            number.has_ended |= ends;
        } else if is_later {
            let gap = Span(clock.as_ms() - number.seen.as_ms());
            if gap > Span::ZERO {
                // Its series need not come all at once.
                number.gap = number.gap.map_or(Some(gap), |known| {
                    let slowly = Span(known.as_ms() - known.as_ms() / 4);
                    Some(gap.max(slowly).min(GONE_UNKNOWN))
                });
            }
            (number.seen, number.has_ended) = (clock, false);
        }
        self.has_news = true;
        hold
    }

    /// How a target stands to a number at a time.
    pub(super) fn stands(&self, slot: Slot, at: Timestamp) -> Hold {
        let Some(number) = self.get(slot) else { return Hold::Lost };
        if number.holder.target == slot.target {
            return if number.is_durable { Hold::Own } else { Hold::Unsaved };
        }
        let had = number.past.iter().any(|past| past.covers(slot.target, at));
        if had { Hold::Past } else { Hold::Lost }
    }

    /// Whether a series of which the first sample here is one at `at` has to be parted from what another
    /// target sent under the number before.
    pub(super) fn follows(&self, slot: Slot, at: Timestamp) -> Follows {
        let Some(number) = self.get(slot) else { return Follows::No };
        let is_first = |it: &Tenure| it.follows && at <= it.since;
        let holder = &number.holder;
        if holder.target != slot.target {
            let mut past = number.past.iter();
            let had = past.any(|past| past.covers(slot.target, at) && is_first(past));
            return if had { Follows::Yes } else { Follows::No };
        }
        if is_first(holder) {
            Follows::Yes
        } else if number.is_new && (holder.follows || number.may_follow) {
            // What comes later in this run may follow as well; what an earlier run has sent does not.
            Follows::IfSent
        } else {
            Follows::No
        }
    }

    fn get(&self, slot: Slot) -> Option<&Number> {
        self.services.get(&slot.service)?.numbers.get(slot.number as usize)
    }

    /// Makes durable who has which number: at once where somebody got one, else now and then.
    pub(super) fn keep(&mut self, now: Duration) {
        let is_due = self.has_unsaved || self.has_news && now >= self.keep_at;
        if !is_due || now < self.retry_at {
            return;
        }
        self.forget();
        self.has_news = false;
        let Some((disk, path)) = &self.file else { return };
        match file::write(&**disk, path, &self.kept()) {
            Ok(()) => {
                self.keep_at = now + KEEP_EVERY;
                self.has_unsaved = false;
                for number in self.services.values_mut().flat_map(|it| &mut it.numbers) {
                    number.is_durable = true;
                }
            }
            Err(error) => {
                self.retry_at = now + TRY_AGAIN;
                tracing::warn!("{error}; new targets wait until it can be written");
            }
        }
    }

    /// Forgets the highest numbers of services that nobody had for long.
    fn forget(&mut self) {
        let clock = self.clock;
        let is_old = |last: &Number| clock.as_ms() - last.seen.as_ms() > FORGOTTEN_AFTER.as_ms();
        for service in self.services.values_mut() {
            while let Some(last) = service.numbers.pop_if(|last| is_old(last)) {
                service.index.remove(&last.holder.target);
                self.held -= 1;
            }
        }
        self.services.retain(|_, service| !service.numbers.is_empty());
    }

    /// Numbers for the report.
    pub(super) fn counts(&self) -> IdentityCounts {
        let numbers = self.services.values().flat_map(|service| &service.numbers);
        let held = numbers.filter(|number| !number.has_gone(self.clock)).count() as u64;
        let (takeovers, unnumbered) = (self.takeovers, self.unnumbered);
        IdentityCounts { numbers: self.held as u64, held, takeovers, unnumbered }
    }
}

impl Service {
    /// Gives a number to somebody else.
    fn take_over(&mut self, number: usize, mut new: Number) {
        let Some(old) = self.numbers.get_mut(number) else { return };
        self.index.remove(&old.holder.target);
        new.past = std::mem::take(&mut old.past);
        new.past.insert(0, old.holder);
        new.past.truncate(PAST_MAX);
        new.holder.follows = true;
        *old = new;
    }
}

impl Tenure {
    /// Whether it was that target's at that time.
    fn covers(&self, target: u128, at: Timestamp) -> bool {
        self.target == target && at <= self.last
    }
}

impl Number {
    fn has_gone(&self, clock: Span) -> bool {
        let patience = match self.gap {
            Some(gap) => Span(gap.as_ms().saturating_mul(2)).max(GONE_AFTER),
            None => GONE_UNKNOWN,
        };
        self.has_ended || clock.as_ms() - self.seen.as_ms() > patience.as_ms()
    }

    /// Whether somebody else may have it from `at` on. What parts the two comes in between.
    fn is_free(&self, at: Timestamp, clock: Span) -> bool {
        self.has_gone(clock) && at.since(self.holder.last).as_ms() > 1
    }
}

#[cfg(test)]
mod tests;
