//! What keeps a metric out for which there is no room: mostly one label.

use std::collections::BTreeSet;

use stint_model::Labels;
use stint_model::labels::{BUCKET_BOUND, JOB, QUANTILE};

use super::advice::{Advice, Aggregated};
use super::labels::savings;

/// Series that are looked at; a metric that explodes has the same label in all of them.
pub(super) const SERIES_MAX: usize = 10_000;
/// Metrics that are spoken of.
const METRICS_MAX: usize = 5;

/// For each metric of the series that found no room the label without which it would take the least,
/// where that is less than half.
pub(super) fn advice(series: &[Labels]) -> Vec<Advice> {
    let all: Vec<&Labels> = series.iter().collect();
    let names: BTreeSet<&str> = all.iter().filter_map(|labels| labels.metric_name()).collect();
    let (_, rows) = savings(&all, usize::MAX);
    let (mut told, mut advice) = (BTreeSet::new(), Vec::new());
    // The dearest label of each comes first.
    for row in rows {
        let is_part = matches!(&*row.label, BUCKET_BOUND | QUANTILE | JOB);
        if is_part || row.saving * 2 < row.series {
            continue;
        }
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|it| row.metric.strip_suffix(it));
        let base = base.filter(|base| names.contains(&*format!("{base}_bucket")));
        let metric = match base {
            Some(base) => Aggregated::histogram(base),
            None => Aggregated::metric(&row.metric),
        };
        if !told.insert(metric.family.clone()) {
            continue;
        }
        let (family, label, values) = (&metric.family, &row.label, row.values);
        let left = row.series - row.saving;
        advice.push(Advice {
            kind: "kept_out".to_owned(),
            text: format!(
                "there is no room for {family}: its label {label} has {values} values; without it \
                 {left} of {} series of {} are left",
                row.series, row.metric
            ),
            slots: row.saving,
            file: "retention.toml".to_owned(),
            snippet: metric.rule(label),
            ..Advice::default()
        });
        if advice.len() == METRICS_MAX {
            break;
        }
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, more: &[(&str, String)]) -> Labels {
        let mut labels = Labels::from_pairs([("__name__", name), ("job", "shop")]).to_builder();
        for (name, value) in more {
            labels.set(name, value);
        }
        labels.build()
    }

    #[test]
    fn the_label_that_makes_a_metric_too_large_is_named_with_what_to_write() {
        let mut all = Vec::new();
        for user in 0..300 {
            let user = ("user_id", format!("u{user}"));
            all.push(series("checkout_total", &[user.clone(), ("plan", "free".to_owned())]));
            for le in ["1", "+Inf"] {
                all.push(series("h_bucket", &[user.clone(), ("le", le.to_owned())]));
            }
            all.push(series("h_count", &[user]));
        }
        // Of two labels that tell as much apart, the first.
        for n in 0..9 {
            let (a, b) = (("a", (n / 3).to_string()), ("b", (n % 3).to_string()));
            all.push(series("even", &[a, b]));
        }
        let advice = advice(&all);
        let told: Vec<_> = advice.iter().map(|it| (it.slots, it.text.as_str())).collect();
        assert_eq!(
            told,
            [
                (
                    598,
                    "there is no room for h: its label user_id has 300 values; without it 2 of \
                     600 series of h_bucket are left"
                ),
                (
                    299,
                    "there is no room for checkout_total: its label user_id has 300 values; without \
                     it 1 of 300 series of checkout_total are left"
                ),
                (
                    6,
                    "there is no room for even: its label a has 3 values; without it 3 of 9 series \
                     of even are left"
                ),
            ]
        );
        assert!(advice[0].snippet.contains("\"h_bucket\", \"h_sum\", \"h_count\""));
        assert!(advice[1].snippet.contains("without = [\"user_id\"]\nfunction = \"counter\""));
    }
}
