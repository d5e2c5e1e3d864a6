//! How full each quota is.

use std::sync::Arc;

use super::super::admission::{Admission, State};
use super::super::policy::Reason;
use super::QuotaUse;
use super::look::GroupRow;

/// The quotas that there are, and which groups count towards which.
#[derive(Debug)]
pub(super) struct Found {
    /// Numbers of quotas, by number of the set.
    sets: Vec<Arc<[u32]>>,
    quotas: Vec<QuotaUse>,
}

impl Found {
    /// Those of a policy, without their use.
    pub(super) fn of(admission: &Admission) -> Self {
        let mut quotas = vec![QuotaUse::default(); admission.quotas.each.len()];
        for ((number, value), at) in &admission.quota_numbers {
            let rule = admission.policy.quotas().get(*number as usize);
            let (Some(rule), Some(quota)) = (rule, quotas.get_mut(*at as usize)) else { continue };
            quota.name.clone_from(&rule.name);
            quota.value = rule.per.is_some().then(|| value.to_string());
            (quota.max, quota.guaranteed) = (rule.series, rule.guaranteed);
        }
        Self { sets: admission.quotas.sets.clone(), quotas }
    }

    /// The `rows` fullest ones.
    pub(super) fn uses(&self, groups: &[GroupRow], rows: usize) -> Vec<QuotaUse> {
        let mut quotas = self.quotas.clone();
        for group in groups {
            let (State::Waiting { reason, .. } | State::Evicted { reason, .. }) = group.state
            else {
                self.add(&mut quotas, group, 0);
                continue;
            };
            let withheld = if reason == Reason::Quota { group.members } else { 0 };
            self.add(&mut quotas, group, withheld);
        }
        let part = |quota: &QuotaUse| match quota.max {
            Some(max) => quota.slots as f64 / max.max(1) as f64,
            None => 0.0,
        };
        quotas.sort_by(|a, b| {
            let by_part = part(b).total_cmp(&part(a));
            by_part.then_with(|| (&a.name, &a.value).cmp(&(&b.name, &b.value)))
        });
        quotas.truncate(rows);
        quotas
    }

    fn add(&self, quotas: &mut [QuotaUse], group: &GroupRow, withheld: u64) {
        for number in self.sets.get(group.quotas as usize).into_iter().flat_map(|set| &**set) {
            if let Some(quota) = quotas.get_mut(*number as usize) {
                quota.slots += group.series.len() as u64;
                quota.withheld += withheld;
            }
        }
    }
}
