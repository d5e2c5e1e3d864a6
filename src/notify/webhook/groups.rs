//! When which group is told of: a state machine that knows no network and no clock.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stint_model::{Labels, Span, Timestamp};

use super::fingerprint::fingerprint;
use crate::config::Webhook;
use crate::rules::Alert;

/// Most alerts that the groups of one webhook hold.
const ALERTS_MAX: usize = 10_000;
/// The longest wait between two attempts at a receiver that does not take messages.
const BACKOFF_MAX: Span = Span::MINUTE;
/// Stands for all labels in `group_by`.
const ALL_LABELS: &str = "...";

/// What a group was last told of; it survives restarts, so that nobody is told twice, and everybody of the end of what
/// they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// When, in milliseconds since 1970.
    pub(super) at: i64,
    /// Fingerprints of the alerts that fired.
    pub(super) firing: BTreeSet<u64>,
    /// Fingerprints of those that had ended.
    pub(super) resolved: BTreeSet<u64>,
    /// The alerts that fired.
    #[serde(default)]
    pub(super) alerts: Vec<Kept>,
}

/// An alert that is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
    starts_at: i64,
    ends_at: i64,
    generator_url: String,
}

impl Kept {
    fn of(alert: &Alert) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            labels: alert.labels.iter().map(owned).collect(),
            annotations: alert.annotations.to_vec(),
            starts_at: alert.starts_at.0,
            ends_at: alert.ends_at.0,
            generator_url: alert.generator_url.as_ref().to_owned(),
        }
    }

    fn alert(&self) -> Alert {
        let labels = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Alert {
            labels: Labels::from_pairs(labels),
            annotations: self.annotations.clone().into(),
            starts_at: Timestamp(self.starts_at),
            ends_at: Timestamp(self.ends_at),
            generator_url: self.generator_url.as_str().into(),
        }
    }
}

#[derive(Debug)]
struct Group {
    alerts: BTreeMap<u64, Alert>,
    /// When it is looked at next.
    due: Timestamp,
    /// Failed attempts since the last message that was taken.
    failures: u32,
    /// Whether a message is on its way.
    sending: bool,
}

/// The groups of one webhook.
#[derive(Debug, Default)]
pub(in crate::notify) struct Groups {
    by_labels: BTreeMap<Labels, Group>,
    told: BTreeMap<String, Told>,
    alerts: usize,
    /// Ended alerts that had to make room and nobody was told of.
    evicted: u64,
    /// When room was last looked for.
    searched: Option<Timestamp>,
}

/// A message that is to be sent now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    /// The labels that the alerts of the group share by choice.
    pub(super) group: Labels,
    /// In order of their labels.
    pub(super) alerts: Vec<Alert>,
    /// When it was made; an alert that ended before has ended.
    pub(super) at: Timestamp,
    told: Told,
}

/// What a receiver made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It took it.
    Taken,
    /// It did not, and may later.
    Failed,
    /// It never will as it is.
    Refused,
}

impl Groups {
    /// Groups that know what an earlier run told.
    pub(super) fn new(told: BTreeMap<String, Told>) -> Self {
        Self { told, ..Self::default() }
    }

    /// The same, where what fired is there again and is believed as long as it was when it was told: the rules have
    /// that long to say that it still fires.
    pub(super) fn resumed(told: BTreeMap<String, Told>, config: &Webhook, now: Timestamp) -> Self {
        let mut groups = Self::new(told);
        let mut resumed = Vec::new();
        for (key, told) in &groups.told {
            for kept in &told.alerts {
                let mut alert = kept.alert();
                let group = group_of(config, &alert.labels);
                // Under another `group_by` it is another group, which was told nothing.
                if group.to_string() == *key {
                    alert.ends_at = now + Timestamp(kept.ends_at).since(Timestamp(told.at));
                    resumed.push((group, Timestamp(told.at) + config.group_interval, alert));
                }
            }
        }
        for (key, due, alert) in resumed {
            groups.receive(config, alert, now);
            if let Some(group) = groups.by_labels.get_mut(&key) {
                group.due = due.max(now);
            }
        }
        groups
    }

    /// The same alerts under another configuration; what was told of a group counts where it is still one.
    pub(super) fn regrouped(self, config: &Webhook, now: Timestamp) -> Self {
        let mut groups = Self { told: self.told, evicted: self.evicted, ..Self::default() };
        let on_their_way = self.by_labels.iter().filter(|(_, group)| group.sending);
        let on_their_way: Vec<Labels> = on_their_way.map(|(key, _)| key.clone()).collect();
        for alert in self.by_labels.into_values().flat_map(|group| group.alerts.into_values()) {
            groups.receive(config, alert, now);
        }
        for key in on_their_way {
            if let Some(group) = groups.by_labels.get_mut(&key) {
                group.sending = true;
            }
        }
        groups
    }

    /// What was told, to be kept.
    pub(super) fn told(&self) -> &BTreeMap<String, Told> {
        &self.told
    }

    /// How many alerts the groups hold.
    pub(super) fn len(&self) -> usize {
        self.alerts
    }

    /// Takes an alert in; whether there was room.
    pub(super) fn receive(&mut self, config: &Webhook, alert: Alert, now: Timestamp) -> bool {
        let key = group_of(config, &alert.labels);
        let print = fingerprint(&alert.labels);
        let known = self.by_labels.get(&key).is_some_and(|group| group.alerts.contains_key(&print));
        if !known && alert.is_resolved(now) && !self.was_told(&key, print) {
            // Nobody was told of its beginning.
            return true;
        }
        if !known && self.alerts >= ALERTS_MAX && !self.make_room(now) {
            return false;
        }
        let group = self.by_labels.entry(key).or_insert_with(|| Group {
            alerts: BTreeMap::new(),
            due: now + config.group_wait,
            failures: 0,
            sending: false,
        });
        if group.alerts.insert(print, alert).is_none() {
            self.alerts += 1;
        }
        true
    }

    /// Forgets what ended, which a receiver that does not answer was not told: what fires matters more. Whether there is
    /// room now.
    fn make_room(&mut self, now: Timestamp) -> bool {
        if self.searched == Some(now) {
            return false;
        }
        self.searched = Some(now);
        for group in self.by_labels.values_mut() {
            group.alerts.retain(|_, alert| !alert.is_resolved(now));
        }
        self.by_labels.retain(|_, group| !group.alerts.is_empty() || group.sending);
        let left: usize = self.by_labels.values().map(|group| group.alerts.len()).sum();
        self.evicted += (self.alerts - left) as u64;
        self.alerts = left;
        left < ALERTS_MAX
    }

    /// How many alerts had to make room since this was last asked.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    fn was_told(&self, key: &Labels, print: u64) -> bool {
        self.told.get(&key.to_string()).is_some_and(|told| told.firing.contains(&print))
    }

    /// When there is something to do next.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.by_labels.values().filter(|group| !group.sending).map(|group| group.due).min()
    }

    /// At most `most` messages that are due. Each waits for its [`Groups::done`].
    pub(super) fn due(&mut self, config: &Webhook, now: Timestamp, most: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut gone = Vec::new();
        let longest = config.group_wait.max(config.group_interval).max(BACKOFF_MAX);
        for (key, group) in &mut self.by_labels {
            if group.due > now + longest {
                // The clock was set back.
                group.due = now;
            }
            if messages.len() >= most {
                break;
            }
            if group.sending || group.due > now {
                continue;
            }
            let (firing, resolved): (Vec<_>, Vec<_>) =
                group.alerts.iter().partition(|(_, alert)| !alert.is_resolved(now));
            let mut told = Told {
                at: now.0,
                firing: firing.iter().map(|(print, _)| **print).collect(),
                resolved: resolved.iter().map(|(print, _)| **print).collect(),
                alerts: Vec::new(),
            };
            let before = self.told.get(&key.to_string());
            if must_tell(config, before, &told, now) {
                told.alerts = firing.iter().map(|(_, alert)| Kept::of(alert)).collect();
                let shown =
                    firing.into_iter().chain(resolved.into_iter().filter(|_| config.send_resolved));
                let mut alerts: Vec<Alert> = shown.map(|(_, alert)| alert.clone()).collect();
                alerts.sort_by(|a, b| a.labels.cmp(&b.labels));
                group.sending = true;
                messages.push(Message { group: key.clone(), alerts, at: now, told });
                continue;
            }
            group.due = now + config.group_interval;
            self.alerts -= forget_resolved(group, &told.resolved, now);
            if group.alerts.is_empty() {
                gone.push(key.clone());
            }
        }
        for key in gone {
            self.by_labels.remove(&key);
            self.told.remove(&key.to_string());
        }
        messages
    }

    /// Notes what became of a message.
    pub(super) fn done(
        &mut self,
        config: &Webhook,
        message: &Message,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let Some(group) = self.by_labels.get_mut(&message.group) else { return };
        group.sending = false;
        match outcome {
            Outcome::Taken => {
                group.failures = 0;
                group.due = message.at + config.group_interval;
                self.alerts -= forget_resolved(group, &message.told.resolved, message.at);
                let key = message.group.to_string();
                if group.alerts.is_empty() {
                    self.by_labels.remove(&message.group);
                    self.told.remove(&key);
                } else {
                    self.told.insert(key, message.told.clone());
                }
            }
            // The next attempt tells what holds then.
            Outcome::Failed => {
                let backoff = Span(1000_i64 << group.failures.min(10)).min(BACKOFF_MAX);
                group.failures = group.failures.saturating_add(1);
                group.due = now + backoff.min(config.group_interval);
            }
            Outcome::Refused => group.due = now + config.group_interval,
        }
    }

    /// Forgets what was told of groups that did not come back after a restart.
    pub(super) fn forget_old(&mut self, config: &Webhook, now: Timestamp) {
        let keep = config.repeat_interval.max(config.group_interval);
        let groups = &self.by_labels;
        let live: BTreeSet<String> = groups.keys().map(ToString::to_string).collect();
        self.told.retain(|key, told| live.contains(key) || Timestamp(told.at) + keep > now);
    }
}

/// Takes out of `group` what ended and was told of; how many there were.
fn forget_resolved(group: &mut Group, told: &BTreeSet<u64>, at: Timestamp) -> usize {
    let before = group.alerts.len();
    group.alerts.retain(|print, alert| !(told.contains(print) && alert.is_resolved(at)));
    before - group.alerts.len()
}

/// The labels that decide which group an alert belongs to.
fn group_of(config: &Webhook, labels: &Labels) -> Labels {
    if config.group_by.iter().any(|name| name == ALL_LABELS) {
        return labels.clone();
    }
    labels.retain(|name| config.group_by.iter().any(|by| by == name))
}

/// Whether what is known now is worth a message, after what was told before.
fn must_tell(config: &Webhook, before: Option<&Told>, now_is: &Told, now: Timestamp) -> bool {
    let Some(before) = before else { return !now_is.firing.is_empty() };
    if !now_is.firing.is_subset(&before.firing) {
        return true;
    }
    if now_is.firing.is_empty() {
        return config.send_resolved && !before.firing.is_empty();
    }
    if config.send_resolved && !now_is.resolved.is_subset(&before.resolved) {
        return true;
    }
    Timestamp(before.at) + config.repeat_interval <= now
}

#[cfg(test)]
mod tests;
