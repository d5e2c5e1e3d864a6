//! Histograms of which a part is sent: which buckets stay, and when that changes.
//!
//! What stays depends on the bounds of a histogram alone, so that all histograms of one layout keep
//! the same buckets, on every target and after every restart; cumulative buckets stay right when
//! others are missing. Where a rule allows less than it asks for, a metric for which there is no room
//! becomes smaller, on all targets at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use stint_model::labels::BUCKET_BOUND;

use super::{Admission, EVICTED_FOR, Group, GroupIndex};
use crate::budget::group::Key;
use crate::budget::symbols::Numbers;
use crate::config::{HistogramRule, Level};

/// A metric is made larger again only while no more of the target is in use than this, in percent.
const ROOMY_PERCENT: u64 = 85;

/// What is left out.
#[derive(Debug, Default)]
pub(super) struct Thinning {
    left_out: HashSet<Key>,
    changes: u64,
    /// Metrics that are smaller than their rule asks for, and until when at least.
    lowered: HashMap<Arc<str>, (Level, Duration)>,
}

impl Thinning {
    /// Grows with every change to what is left out.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a series is left out of its histogram.
    pub(super) fn leaves_out(&self, key: Key) -> bool {
        !self.left_out.is_empty() && self.left_out.contains(&key)
    }

    pub(super) fn forget(&mut self, key: Key) {
        self.changes += 1;
        self.left_out.remove(&key);
    }

    pub(super) fn level(&self, family: &str, rule: &HistogramRule) -> Level {
        let lowered = self.lowered.get(family).map_or(Level::Full, |(level, _)| *level);
        lowered.max(rule.level).min(rule.at_least)
    }
}

fn next(level: Level) -> Option<Level> {
    match level {
        Level::Full => Some(Level::Thin),
        Level::Thin => Some(Level::Totals),
        Level::Totals => Some(Level::Nothing),
        Level::Nothing => None,
    }
}

/// The bound of a bucket; nothing for what is none.
fn bound(labels: &Numbers) -> Option<f64> {
    let texts = labels.symbols().read();
    let is_bucket = labels.metric().is_some_and(|name| texts.get(name).ends_with("_bucket"));
    labels.value(&texts, BUCKET_BOUND).filter(|_| is_bucket)?.parse().ok()
}

/// The series of a histogram that are sent at `level`.
fn kept_of(group: &Group, level: Level, bounds: &[f64]) -> Vec<Key> {
    let of_buckets: Vec<Option<f64>> =
        group.members.iter().map(|m| bound(&m.series.labels)).collect();
    let is_histogram = of_buckets.iter().any(Option::is_some);
    let mut finite: Vec<f64> =
        of_buckets.iter().flatten().copied().filter(|bound| bound.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    finite.dedup();
    let stays = |bound: f64| match level {
        Level::Full => true,
        Level::Totals | Level::Nothing => false,
        Level::Thin if bound.is_infinite() => true,
        Level::Thin if !bounds.is_empty() => bounds.contains(&bound),
        Level::Thin => {
            let place = finite.partition_point(|other| *other < bound);
            place % 2 == 1 || finite.len() == 1
        }
    };
    let is_kept = |bucket: Option<f64>| match bucket {
        Some(bound) => stays(bound),
        None => level != Level::Nothing || !is_histogram,
    };
    let members = group.members.iter().zip(of_buckets);
    members.filter(|(_, bucket)| is_kept(*bucket)).map(|(member, _)| member.key()).collect()
}

impl Admission {
    /// Decides anew what is left out of a histogram.
    pub(super) fn thin(&mut self, index: GroupIndex) {
        let kept: HashSet<Key> = self.kept(index, self.level_of(index)).into_iter().collect();
        let Some(group) = self.groups.get(index) else { return };
        self.thinning.changes += 1;
        for member in &group.members {
            if kept.contains(&member.key()) {
                self.thinning.left_out.remove(&member.key());
            } else {
                self.thinning.left_out.insert(member.key());
            }
        }
    }

    /// The series of a group that are sent at `level`.
    pub(super) fn kept(&self, index: GroupIndex, level: Level) -> Vec<Key> {
        let Some(group) = self.groups.get(index) else { return Vec::new() };
        let rule = group.rule.and_then(|rule| self.policy.histogram(rule));
        kept_of(group, level, rule.map(|rule| &*rule.bounds).unwrap_or_default())
    }

    /// The level below `level` that the rule of a group allows.
    pub(super) fn below(&self, index: GroupIndex, level: Level) -> Option<Level> {
        let rule = self.groups.get(index)?.rule.and_then(|rule| self.policy.histogram(rule))?;
        next(level).filter(|lower| *lower <= rule.at_least)
    }

    /// Makes the metric of a group smaller by so many steps, on all targets.
    pub(super) fn lower(&mut self, index: GroupIndex, steps: u8, now: Duration) {
        let Some(group) = self.groups.get(index) else { return };
        let family = self.groups.family(group);
        let mut level = self.level_of(index);
        for _ in 0..steps {
            level = self.below(index, level).unwrap_or(level);
        }
        tracing::info!(metric = %family, ?level, "a histogram is made smaller, since there is no room for more of it");
        self.thinning.lowered.insert(family.clone(), (level, now + EVICTED_FOR));
        self.thin_family(&family);
    }

    fn thin_family(&mut self, family: &str) {
        let of_family =
            |group: &Group| *self.groups.family(group) == *family && group.rule.is_some();
        let indices: Vec<GroupIndex> = self
            .groups
            .numbered()
            .filter(|(_, group)| of_family(group))
            .map(|(index, _)| index)
            .collect();
        for index in indices {
            self.thin(index);
        }
    }

    /// Makes metrics larger again for which there is room by now.
    pub(super) fn raise(&mut self, now: Duration) {
        let Some(target) = self.limits.as_ref().map(|limits| limits.target) else { return };
        let due: Vec<Arc<str>> = self
            .thinning
            .lowered
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(family, _)| family.clone())
            .collect();
        for family in due {
            let before = self.thinning.lowered.remove(&family);
            self.thin_family(&family);
            let is_of = |group: &Group| self.groups.family(group) == family;
            let of_family = self.groups.numbered().filter(|(_, group)| is_of(group));
            let missing: usize = of_family.map(|(index, _)| self.missing(index).count()).sum();
            let after = self.live().saturating_add(missing as u64);
            let is_roomy = after <= target * ROOMY_PERCENT / 100 && after <= self.slots(now);
            if let (false, Some((level, _))) = (is_roomy, before) {
                self.thinning.lowered.insert(family.clone(), (level, now + EVICTED_FOR / 6));
                self.thin_family(&family);
            }
        }
    }
}
