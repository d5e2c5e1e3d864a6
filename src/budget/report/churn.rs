//! Slots of targets that are gone while their successors have others: what the churn of a job costs.

use std::collections::{BTreeMap, HashSet};

use stint_model::labels::{INSTANCE, JOB};

use super::advice::{Advice, SLOTS_MIN, toml_text};
use super::look::SeriesRow;

/// Jobs that are named.
const JOBS_MAX: usize = 3;

/// For each job, how many slots are held by series of a target that is gone, of which a target that is
/// there has the same series: the successor would go on with it if both had the same name.
pub(super) fn churn(series: &[SeriesRow]) -> Vec<(String, u64)> {
    let without = |row: &SeriesRow| row.labels.retain(|label| label != INSTANCE).stable_hash_128();
    let mut gone: BTreeMap<&str, u64> = BTreeMap::new();
    for row in series.iter().filter(|row| row.is_cooling) {
        *gone.entry(row.labels.get(JOB).unwrap_or_default()).or_default() += 1;
    }
    // Most jobs have few, and are not looked at.
    gone.retain(|job, count| !job.is_empty() && *count >= SLOTS_MIN);
    if gone.is_empty() {
        return Vec::new();
    }
    let of_job = |row: &&SeriesRow| row.labels.get(JOB).is_some_and(|job| gone.contains_key(job));
    let there: HashSet<u128> =
        series.iter().filter(of_job).filter(|row| !row.is_cooling).map(without).collect();
    let mut saved: BTreeMap<&str, u64> = BTreeMap::new();
    for row in series.iter().filter(of_job).filter(|row| row.is_cooling) {
        if row.labels.get(INSTANCE).is_some() && there.contains(&without(row)) {
            *saved.entry(row.labels.get(JOB).unwrap_or_default()).or_default() += 1;
        }
    }
    let mut saved: Vec<(String, u64)> =
        saved.into_iter().map(|(job, slots)| (job.to_owned(), slots)).collect();
    saved.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    saved
}

/// Advice to give the targets of these jobs numbers.
pub(super) fn advice(churn: &[(String, u64)]) -> impl Iterator<Item = Advice> + '_ {
    churn.iter().take(JOBS_MAX).map(|(job, slots)| {
        let selector = format!("{{job={}}}", stint_model::labels::Quoted(job));
        Advice {
            kind: "churning_targets".to_owned(),
            text: format!(
                "targets of {job} come and go: known by a number, those that are there would have the \
                 slots of those that are gone (queries at the endpoint then tell them apart by \
                 target_identity)"
            ),
            slots: *slots,
            file: "retention.toml".to_owned(),
            snippet: format!("[[budget.identity]]\nmatch = [{}]\n", toml_text(&selector)),
            ..Advice::default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(metric: &str, instance: &str, is_cooling: bool) -> SeriesRow {
        let pairs = [("__name__", metric), ("job", "web"), ("instance", instance)];
        SeriesRow { labels: stint_model::Labels::from_pairs(pairs), is_cooling }
    }

    #[test]
    fn what_a_successor_has_under_another_name_would_be_saved() {
        let mut rows = Vec::new();
        for n in 0..6 {
            let metric = format!("m{n}");
            // Two that are gone, and one that is there.
            rows.extend([
                row(&metric, "a", true),
                row(&metric, "b", true),
                row(&metric, "c", false),
            ]);
        }
        rows.push(row("only_old", "a", true));
        assert_eq!(churn(&rows), [("web".to_owned(), 12)]);
        let advice: Vec<Advice> = advice(&churn(&rows)).collect();
        assert_eq!(advice[0].snippet, "[[budget.identity]]\nmatch = [\"{job=\\\"web\\\"}\"]\n");
        assert_eq!(churn(&rows[..6]), [], "a few are not worth a line");
    }
}
