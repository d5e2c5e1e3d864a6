//! What would save slots: each with what to write where, and what would miss it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stint_model::Labels;

use super::tables::Family;
use super::{EndpointReport, churn, kept_out, named};
use crate::usage::Catalogue;

/// One piece of advice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Advice {
    /// `unused_metrics`, `unused_buckets`, `thin_buckets`, `unused_label`, `dear_label`,
    /// `churning_targets` or `kept_out`.
    pub kind: String,
    /// What to do, in a sentence.
    pub text: String,
    /// Slots that would be free; of what is `kept_out`, by how many fewer it would need.
    pub slots: u64,
    /// Samples per minute that would not be sent.
    pub points: f64,
    /// The file to add the snippet to.
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
/// A label is dear when it costs more than this part of the slots in use.
const DEAR_PART: u64 = 20;
/// Slots below which an advice is not worth its line.
pub(super) const SLOTS_MIN: u64 = 5;

/// What would save slots, most first. Without knowledge of what is used there is only what needs
/// none.
pub(super) fn advice(
    report: &EndpointReport,
    families: &BTreeMap<&str, Family<'_>>,
    known: Option<&Catalogue>,
    churn: &[(String, u64)],
    kept_out: &[Labels],
) -> Vec<Advice> {
    let mut all = kept_out::advice(kept_out);
    if report.identities.is_none() && report.series.is_some() {
        all.extend(churn::advice(churn));
    }
    if let Some(known) = known {
        all.extend(unused_metrics(report, families, known));
    }
    all.extend(labels(report, known));
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
    matches!(name, "up" | "target_identity")
        || name.starts_with("scrape_")
        || name.starts_with("ALERTS")
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

/// Labels that nobody needs, and dear ones that somebody does.
fn labels(report: &EndpointReport, known: Option<&Catalogue>) -> Vec<Advice> {
    let (mut unused, mut dear) = (Vec::new(), Vec::new());
    for row in &report.metric_labels {
        let Some(metric) = Aggregated::of(report, &row.metric) else { continue };
        // What the metric is about, and what tells its source, is not what makes it dear.
        if matches!(&*row.label, "le" | "quantile" | "job") {
            continue;
        }
        let needing: BTreeSet<String> = known
            .iter()
            .flat_map(|known| {
                let users = metric
                    .names
                    .iter()
                    .flat_map(|name| known.users(name).names_needing(&row.label));
                users.map(|(source, name)| named(source, name)).collect::<Vec<_>>()
            })
            .collect();
        let is_used =
            known.is_some_and(|known| metric.names.iter().any(|name| known.users(name).is_used()));
        let slots: u64 = metric.names.iter().map(|name| saving(report, name, &row.label)).sum();
        let advice = |kind: &str, text: String| Advice {
            kind: kind.to_owned(),
            text,
            slots,
            file: "retention.toml".to_owned(),
            snippet: metric.rule(&row.label),
            breaks: needing.iter().take(BREAKS_MAX).cloned().collect(),
            breaks_count: needing.len() as u64,
            ..Advice::default()
        };
        let (label, family, values) = (&row.label, &metric.family, row.values);
        if is_used && needing.is_empty() && unused.len() < KIND_MAX {
            let text =
                format!("nobody looks at the label {label} of {family}, which has {values} values");
            unused.push(advice("unused_label", text));
        } else if slots > report.live / DEAR_PART
            && dear.len() < KIND_MAX
            && (is_used || known.is_none())
        {
            let text = format!("{family} is dear by its label {label}, which has {values} values");
            dear.push(advice("dear_label", text));
        }
    }
    unused.append(&mut dear);
    unused
}

/// The saving of a label of a metric, where it is among the largest.
fn saving(report: &EndpointReport, metric: &str, label: &str) -> u64 {
    let rows = &report.metric_labels;
    let row = rows.iter().find(|row| row.metric == metric && row.label == label);
    row.map_or(0, |row| row.saving)
}

/// What is aggregated as one: a metric, or all parts of a histogram.
pub(super) struct Aggregated {
    pub(super) family: String,
    names: Vec<String>,
    is_counter: bool,
}

impl Aggregated {
    /// What `metric` stands for; nothing for the parts of a histogram whose buckets do.
    fn of(report: &EndpointReport, metric: &str) -> Option<Self> {
        let of_histogram = |suffix: &str| {
            let base = metric.strip_suffix(suffix)?;
            report.histograms.iter().find(|histogram| histogram.name == base)
        };
        if of_histogram("_sum").or_else(|| of_histogram("_count")).is_some() {
            return None;
        }
        Some(match of_histogram("_bucket") {
            Some(histogram) => Self::histogram(&histogram.name),
            None => Self::metric(metric),
        })
    }

    /// All parts of a classic histogram.
    pub(super) fn histogram(family: &str) -> Self {
        let names = ["_bucket", "_sum", "_count"].map(|it| format!("{family}{it}")).into();
        Self { family: family.to_owned(), names, is_counter: true }
    }

    /// A metric alone.
    pub(super) fn metric(name: &str) -> Self {
        let is_counter = ["_total", "_sum", "_count"].iter().any(|it| name.ends_with(it));
        Self { family: name.to_owned(), names: vec![name.to_owned()], is_counter }
    }

    pub(super) fn rule(&self, label: &str) -> String {
        let (function, remark) = if self.is_counter {
            ("counter", "")
        } else {
            ("sum", "  # or avg, min, max: what its readers take; \"counter\" if it only grows")
        };
        format!(
            "[[budget.aggregate]]\nmatch = [{}]\nwithout = [{}]\nfunction = \"{function}\"{remark}\n",
            selectors(self.names.iter().map(String::as_str)),
            toml_text(label)
        )
    }
}

/// A class that keeps these metrics at home.
fn class(name: &str, metrics: &BTreeSet<&str>) -> String {
    let selectors = selectors(metrics.iter().copied());
    let name = toml_text(name);
    format!("[[budget.class]]\nname = {name}\nmatch = [{selectors}]\nsend = false\n")
}

/// Selectors of these metrics, as a list holds them.
fn selectors<'a>(metrics: impl Iterator<Item = &'a str>) -> String {
    metrics.map(|metric| toml_text(&selector(metric))).collect::<Vec<_>>().join(", ")
}

fn histogram_rule(family: &str, level: &str) -> String {
    let selector = toml_text(&selector(family));
    format!("[[budget.histogram]]\nmatch = [{selector}]\nlevel = \"{level}\"\n")
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

pub(super) fn toml_text(text: &str) -> String {
    // A basic string of TOML has the escapes of JSON.
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
