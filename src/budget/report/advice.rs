//! What would save slots: each with what to write where, and what would miss it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::tables::Family;
use super::{EndpointReport, named};
use crate::usage::Catalogue;

/// One piece of advice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Advice {
    /// `unused_metrics`, `unused_buckets`, `thin_buckets` or `unused_label`.
    pub kind: String,
    /// What to do, in a sentence.
    pub text: String,
    /// Slots that would be free.
    pub slots: u64,
    /// Samples per minute that would not be sent.
    pub points: f64,
    /// The file to add the snippet to: `retention.toml`, or a rule file.
    pub file: String,
    /// What to add.
    pub snippet: String,
    /// Some of what would miss it.
    pub breaks: Vec<String>,
    /// How much would miss it.
    pub breaks_count: u64,
}

/// Pieces of advice of one kind.
const KIND_MAX: usize = 5;
/// Metrics that one snippet names.
const METRICS_MAX: usize = 50;
/// Things that would break that are named.
const BREAKS_MAX: usize = 10;
/// Slots below which an advice is not worth its line.
const SLOTS_MIN: u64 = 5;

/// What would save slots, most first. Without knowledge of what is used there is only what needs
/// none.
pub(super) fn advice(
    report: &EndpointReport,
    families: &BTreeMap<&str, Family<'_>>,
    known: Option<&Catalogue>,
) -> Vec<Advice> {
    let mut all = Vec::new();
    if let Some(known) = known {
        all.extend(unused_metrics(report, families, known));
        all.extend(unused_labels(report, known));
    }
    all.extend(histograms(report, families, known));
    all.retain(|advice| advice.slots >= SLOTS_MIN);
    all.sort_by(|a, b| b.slots.cmp(&a.slots).then_with(|| a.text.cmp(&b.text)));
    all
}

fn unused_metrics(
    report: &EndpointReport,
    families: &BTreeMap<&str, Family<'_>>,
    known: &Catalogue,
) -> Option<Advice> {
    let vital = |family: &Family<'_>| family.names.iter().all(|name| is_vital(name));
    let mut unused: Vec<(&str, &Family<'_>)> = families
        .iter()
        .map(|(name, family)| (*name, family))
        .filter(|(_, family)| family.slots() > 0 && !vital(family) && !family.is_used(known))
        .collect();
    unused.sort_by(|(a_name, a), (b_name, b)| {
        b.slots().cmp(&a.slots()).then_with(|| a_name.cmp(b_name))
    });
    unused.truncate(METRICS_MAX);
    if unused.is_empty() {
        return None;
    }
    let names: BTreeSet<&str> =
        unused.iter().flat_map(|(_, family)| family.names.iter().copied()).collect();
    let slots = unused.iter().map(|(_, family)| family.slots()).sum();
    let text = format!(
        "no query, rule or dashboard uses {}",
        listed(unused.iter().map(|(name, _)| *name))
    );
    Some(Advice {
        kind: "unused_metrics".to_owned(),
        text,
        slots,
        points: unused.iter().map(|(_, family)| family.points()).sum(),
        file: "retention.toml".to_owned(),
        snippet: class(&free_name(report, "unused"), &names),
        ..Advice::default()
    })
}

/// What is sent first whatever happens is not called unused: it is for alerts that others keep.
fn is_vital(name: &str) -> bool {
    name == "up" || name.starts_with("scrape_") || name.starts_with("ALERTS")
}

fn histograms(
    report: &EndpointReport,
    families: &BTreeMap<&str, Family<'_>>,
    known: Option<&Catalogue>,
) -> Vec<Advice> {
    let mut all = Vec::new();
    for histogram in &report.histograms {
        let Some(family) = families.get(&*histogram.name) else { continue };
        let is_used = known.is_none_or(|known| family.is_used(known));
        // Where nothing of it is used, all of it is unused.
        if !is_used || all.len() == KIND_MAX {
            continue;
        }
        let bucket = format!("{}_bucket", histogram.name);
        let part = |slots: u64| family.points() * slots as f64 / family.slots().max(1) as f64;
        let (kind, text, slots, level) = if histogram.buckets_used == Some(false) {
            let text = format!("nobody looks at the buckets of {}", histogram.name);
            ("unused_buckets", text, histogram.saving_totals, "totals")
        } else {
            let text = format!(
                "every second bucket of {} may be enough: those that stay are exact, quantiles get \
                 coarser",
                histogram.name
            );
            ("thin_buckets", text, histogram.saving_thin, "thin")
        };
        let users = known.map(|known| known.users(&bucket).names()).unwrap_or_default();
        let mut advice = Advice {
            kind: kind.to_owned(),
            text,
            slots,
            points: part(slots),
            file: "retention.toml".to_owned(),
            snippet: histogram_rule(&histogram.name, level),
            ..Advice::default()
        };
        advice.breaks_count = users.len() as u64;
        advice.breaks = users.into_iter().map(|(it, name)| named(it, name)).collect();
        advice.breaks.truncate(BREAKS_MAX);
        all.push(advice);
    }
    all
}

fn unused_labels(report: &EndpointReport, known: &Catalogue) -> Vec<Advice> {
    // `le` and `quantile` are what their metrics are about.
    let rows = report.metric_labels.iter().filter(|row| {
        row.used == Some(false)
            && !matches!(&*row.label, "le" | "quantile" | "job" | "instance")
            && known.users(&row.metric).is_used()
    });
    let advice = |row: &super::MetricLabel| Advice {
        kind: "unused_label".to_owned(),
        text: format!(
            "nobody looks at the label {} of {}, which has {} values: record the sum over it and \
             send that",
            row.label, row.metric, row.values
        ),
        slots: row.saving,
        points: 0.0,
        file: "a rule file, and retention.toml".to_owned(),
        snippet: without_label(report, &row.metric, &row.label),
        breaks: known
            .users(&row.metric)
            .names()
            .into_iter()
            .map(|(s, n)| named(s, n))
            .take(BREAKS_MAX)
            .collect(),
        breaks_count: known.users(&row.metric).names().len() as u64,
    };
    rows.take(KIND_MAX).map(advice).collect()
}

/// A class that keeps these metrics at home.
fn class(name: &str, metrics: &BTreeSet<&str>) -> String {
    let selectors: Vec<String> =
        metrics.iter().map(|metric| toml_text(&selector(metric))).collect();
    format!(
        "[[budget.class]]\nname = {}\nmatch = [{}]\nsend = false\n",
        toml_text(name),
        selectors.join(", ")
    )
}

fn histogram_rule(family: &str, level: &str) -> String {
    let selector = toml_text(&selector(family));
    format!("[[budget.histogram]]\nmatch = [{selector}]\nlevel = \"{level}\"\n")
}

fn without_label(report: &EndpointReport, metric: &str, label: &str) -> String {
    let (is_counter, base) = match metric.strip_suffix("_total") {
        Some(base) => (true, base),
        None => (["_bucket", "_count", "_sum"].iter().any(|it| metric.ends_with(it)), metric),
    };
    let selector = selector(metric);
    let (record, inner) = if is_counter {
        (format!("{base}:rate5m_without_{label}"), format!("rate({selector}[5m])"))
    } else {
        (format!("{base}:sum_without_{label}"), selector)
    };
    let expr = format!("sum without ({label}) ({inner})");
    let rule = format!(
        "groups:\n- name: stint-budget\n  rules:\n  - record: {}\n    expr: {}\n",
        yaml_text(&record),
        yaml_text(&expr)
    );
    let class = class(&free_name(report, "recorded"), &BTreeSet::from([metric]));
    let class = class.trim_end().replace('\n', "\n# ");
    format!("{rule}# and in retention.toml:\n# {class}\n")
}

/// A selector of one metric, whatever its name.
fn selector(metric: &str) -> String {
    if stint_model::labels::is_legacy_metric_name(metric) {
        metric.to_owned()
    } else {
        format!("{{{}}}", stint_model::labels::Quoted(metric))
    }
}

/// A name for a class that no class has.
fn free_name(report: &EndpointReport, wanted: &str) -> String {
    let is_taken = |name: &str| report.classes.iter().any(|class| class.name == name);
    let others = (2u64..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned())
        .chain(others)
        .find(|name| !is_taken(name))
        .unwrap_or_default()
}

fn toml_text(text: &str) -> String {
    // A basic string of TOML has the escapes of JSON.
    serde_json::to_string(text).unwrap_or_default()
}

fn yaml_text(text: &str) -> String {
    // So has a double-quoted one of YAML.
    serde_json::to_string(text).unwrap_or_default()
}

/// Some names, and how many there are beside.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let count = names.len();
    let text = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    match count.saturating_sub(SHOWN) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
