//! What `retention.toml` says of the series that are sent: classes, quotas, histograms, labels
//! that are aggregated away.

use stint_model::labels::{BUCKET_BOUND, INSTANCE, JOB, METRIC_NAME, NameScheme, QUANTILE};
use stint_model::{Selector, Span};

use super::decode::Section;

/// Series that are treated alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Names it in reports; unique.
    pub name: String,
    /// A series belongs to the class when any of these selects it (labels as they are sent).
    pub selectors: Vec<Selector>,
    /// Whether its series are sent at all.
    pub send: bool,
    /// Most series of the class; `None` = only the budget limits it.
    pub series: Option<u64>,
    /// Overrides the budget's interval.
    pub interval: Option<Span>,
    /// Most targets of each job that are sent; `None` = all.
    pub targets: Option<u64>,
}

/// How many slots some series may use together, and how many are kept for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// Names it in reports; unique.
    pub name: String,
    /// Which series it is about (labels as they are sent).
    pub selectors: Vec<Selector>,
    /// Each value of this label has a quota of its own; `__name__` means the metric family.
    pub per: Option<String>,
    /// Most slots; `None` = only the budget limits them.
    pub series: Option<u64>,
    /// Slots that nobody else gets.
    pub guaranteed: u64,
}

/// How much of a histogram is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// All of it.
    #[default]
    Full,
    /// Some of its buckets; `+Inf`, sum and count always.
    Thin,
    /// Sum and count.
    Totals,
    /// Nothing.
    Nothing,
}

/// How histograms are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramRule {
    /// Which histograms, by the name of the metric or of its buckets and by labels.
    pub selectors: Vec<Selector>,
    /// How much of them.
    pub level: Level,
    /// The least that may be sent of them when slots are scarce; `level` where nothing is said.
    pub at_least: Level,
    /// The bounds that a thinned histogram keeps; where there are none, every second.
    pub bounds: Vec<f64>,
    /// The finest resolution of native histograms.
    pub resolution: Option<i32>,
}

/// How the series become one that differ only in labels that are aggregated away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    /// Sum of increases: resets and ends of single series do not lower it.
    Counter,
    /// Sum of the present values.
    Sum,
    /// Mean of the present values.
    Avg,
    /// Least of the present values.
    Min,
    /// Largest of the present values.
    Max,
}

impl Fold {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// Labels that are not sent: the series that differ in them alone become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which series, by their labels before.
    pub selectors: Vec<Selector>,
    /// The labels.
    pub without: Vec<String>,
    /// What becomes of the values.
    pub fold: Fold,
}

/// What is sent of gauges at each interval.
#[derive(Clone, Debug, PartialEq)]
pub struct GaugeRule {
    /// Which series (labels as they are sent).
    pub selectors: Vec<Selector>,
    /// Least, largest or mean value since the last sample that was sent.
    pub fold: Fold,
}

/// Targets that come and go are known by a number at the endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityRule {
    /// Which series, by their labels before.
    pub selectors: Vec<Selector>,
    /// The labels that tell the target; the first one gets the number, the others are not sent.
    pub replace: Vec<String>,
    /// The labels that tell the service, within which targets are numbered.
    pub per: Vec<String>,
    /// The name of the series that tells who has which number; nothing for none.
    pub info: Option<String>,
}

/// Reads the selectors under `match`, of which there must be one where they are `required`.
fn selectors(section: &mut Section<'_>, what: &str, required: bool) -> Vec<Selector> {
    let texts = section.texts("match");
    if texts.is_empty() && required {
        section.error("match", format!("{what} needs `match`, a list of series selectors"));
    }
    let mut selectors = Vec::new();
    for (at, text) in texts {
        match super::selector::read(text) {
            Ok(selector) => selectors.push(selector),
            Err(message) => section.cx.error(at, message),
        }
    }
    selectors
}

fn name(section: &mut Section<'_>, what: &str, mut others: impl Iterator<Item = String>) -> String {
    let name = section.string_or("name", "");
    if name.is_empty() {
        section.error("name", format!("a {what} needs a `name`"));
    } else if others.any(|other| other == name) {
        section.error("name", format!("another {what} is named `{name}`"));
    }
    name
}

/// What PromQL looks back at most for a sample, by default.
const INTERVAL_SHOWN_MAX: Span = Span(5 * Span::MINUTE.0);

/// The distance of forwarded samples. Readers look back five minutes, and the remote forgets a series
/// after twenty.
pub(super) fn interval(section: &mut Section<'_>) -> Option<Span> {
    let interval = section.span("interval")?;
    if interval > INTERVAL_SHOWN_MAX {
        section.warn("interval", format!(
            "`interval = \"{interval}\"` is longer than the {INTERVAL_SHOWN_MAX} that queries look back: between two samples the series are not seen"
        ));
    }
    Some(interval)
}

pub(super) fn read_classes(section: &mut Section<'_>) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for mut class in section.sections("class") {
        let name = name(&mut class, "class", classes.iter().map(|class| class.name.clone()));
        let selectors = selectors(&mut class, "a class", true);
        let targets = class.u64("targets");
        if targets == Some(0) {
            class.error("targets", "a class of no targets is one with `send = false`");
        }
        classes.push(Class {
            name,
            selectors,
            send: class.bool_or("send", true),
            series: class.u64("series"),
            interval: interval(&mut class),
            targets,
        });
        class.finish();
    }
    classes
}

pub(super) fn read_quotas(section: &mut Section<'_>) -> Vec<Quota> {
    let mut quotas: Vec<Quota> = Vec::new();
    for mut quota in section.sections("quota") {
        let name = name(&mut quota, "quota", quotas.iter().map(|quota| quota.name.clone()));
        let selectors = selectors(&mut quota, "a quota", false);
        let per = quota.text("per").map(str::to_owned);
        let (series, guaranteed) = (quota.u64("series"), quota.u64("guaranteed"));
        if selectors.is_empty() && per.is_none() {
            quota.error("match", "a quota needs `match` or `per`, or it would be the budget");
        }
        if series.is_none() && guaranteed.is_none() {
            quota.error("series", "a quota needs `series` (most slots) or `guaranteed` (least)");
        }
        if per.is_some() && guaranteed.is_some() {
            quota.error("guaranteed", "what is guaranteed is for all of `match`; leave out `per`");
        }
        if series.is_some_and(|series| series < guaranteed.unwrap_or(0)) {
            quota.error("series", "`series` is less than `guaranteed`");
        }
        let guaranteed = guaranteed.unwrap_or(0);
        quotas.push(Quota { name, selectors, per, series, guaranteed });
        quota.finish();
    }
    quotas
}

pub(super) fn read_gauges(section: &mut Section<'_>) -> Vec<GaugeRule> {
    let mut rules = Vec::new();
    for mut rule in section.sections("gauge") {
        let selectors = selectors(&mut rule, "a rule for gauges", true);
        let fold = rule.parsed("function", |text| {
            let all = [Fold::Avg, Fold::Min, Fold::Max];
            let found = all.into_iter().find(|fold| fold.as_str() == text);
            found.ok_or_else(|| format!("{text} is none of avg, min, max"))
        });
        if !rule.has("function") {
            rule.error("function", "a rule for gauges needs `function`: avg, min or max");
        }
        rules.push(GaugeRule { selectors, fold: fold.unwrap_or(Fold::Max) });
        rule.finish();
    }
    rules
}

pub(super) fn read_identities(section: &mut Section<'_>) -> Vec<IdentityRule> {
    let mut rules = Vec::new();
    for mut rule in section.sections("identity") {
        let selectors = selectors(&mut rule, "a rule for identities", true);
        let or = |labels: Vec<String>, default: &str| {
            if labels.is_empty() { vec![default.to_owned()] } else { labels }
        };
        let replace = or(rule.strings("replace"), INSTANCE);
        let per = or(rule.strings("per"), JOB);
        let is_fixed =
            |label: &String| matches!(label.as_str(), METRIC_NAME | BUCKET_BOUND | QUANTILE);
        if replace.iter().any(is_fixed) || replace.iter().any(|label| per.contains(label)) {
            let message = "what is replaced tells the target: neither the name, `le` and `quantile`, nor what is in `per`";
            rule.error("replace", message);
        }
        let info = rule.string_or("info", "target_identity");
        if !info.is_empty() && !NameScheme::Legacy.is_metric_name(&info) {
            rule.error("info", format!("{info} is no name of a metric"));
        }
        let info = Some(info).filter(|name| !name.is_empty());
        rules.push(IdentityRule { selectors, replace, per, info });
        rule.finish();
    }
    rules
}

fn read_level(text: &str) -> Result<Level, String> {
    match text {
        "full" => Ok(Level::Full),
        "thin" => Ok(Level::Thin),
        "totals" => Ok(Level::Totals),
        "nothing" => Ok(Level::Nothing),
        _ => Err(format!("{text} is none of full, thin, totals, nothing")),
    }
}

pub(super) fn read_histograms(section: &mut Section<'_>) -> Vec<HistogramRule> {
    let mut rules = Vec::new();
    for mut rule in section.sections("histogram") {
        let selectors = selectors(&mut rule, "a histogram rule", true);
        if selectors.iter().any(|s| s.matchers.iter().any(|m| m.name() == BUCKET_BOUND)) {
            rule.error("match", "a histogram is selected as a whole, not by `le`");
        }
        let level = rule.parsed("level", read_level).unwrap_or_default();
        let at_least = rule.parsed("at_least", read_level).unwrap_or(level);
        if at_least < level {
            rule.error("at_least", "`at_least` cannot be more than `level`");
        }
        let resolution = rule.parsed("resolution", |text| match text.parse::<i32>() {
            Ok(number) if (-4..=8).contains(&number) => Ok(number),
            _ => Err(format!("{text} is not a whole number from -4 to 8")),
        });
        let bounds = bounds(&mut rule);
        if !rule.has("level") && at_least == level && resolution.is_none() {
            rule.error("level", "a histogram rule needs `level`, `at_least` or `resolution`");
        }
        rules.push(HistogramRule { selectors, level, at_least, bounds, resolution });
        rule.finish();
    }
    rules
}

fn bounds(rule: &mut Section<'_>) -> Vec<f64> {
    let mut bounds = Vec::new();
    for (at, text) in rule.texts("buckets") {
        match text.parse::<f64>() {
            Ok(bound) if bound.is_finite() => bounds.push(bound),
            _ => {
                rule.cx
                    .error(at, format!("{text} is not the bound of a bucket; +Inf always stays"));
            }
        }
    }
    bounds
}

pub(super) fn read_aggregates(section: &mut Section<'_>) -> Vec<Aggregate> {
    let mut rules = Vec::new();
    for mut rule in section.sections("aggregate") {
        let selectors = selectors(&mut rule, "an aggregation", true);
        let without = rule.strings("without");
        if without.is_empty() {
            rule.error("without", "an aggregation needs `without`, a list of labels");
        }
        if without
            .iter()
            .any(|label| matches!(label.as_str(), METRIC_NAME | BUCKET_BOUND | QUANTILE))
        {
            let message = "the name, `le` and `quantile` cannot be aggregated away: what differs in them means something else";
            rule.error("without", message);
        }
        let fold = rule.parsed("function", |text| {
            let all = [Fold::Counter, Fold::Sum, Fold::Avg, Fold::Min, Fold::Max];
            let found = all.into_iter().find(|fold| fold.as_str() == text);
            found.ok_or_else(|| format!("{text} is none of counter, sum, avg, min, max"))
        });
        if !rule.has("function") {
            rule.error(
                "function",
                "an aggregation needs `function`: counter, or for gauges sum, avg, min or max",
            );
        }
        let is_quantile = |it: &stint_model::Matcher| it.name() == QUANTILE && !it.matches_empty();
        if matches!(fold, Some(Fold::Counter | Fold::Sum | Fold::Avg))
            && selectors.iter().any(|selector| selector.matchers.iter().any(is_quantile))
        {
            let message = "quantiles have neither sum nor mean; min and max are bounds of the quantile of all";
            rule.error("function", message);
        }
        rules.push(Aggregate { selectors, without, fold: fold.unwrap_or(Fold::Sum) });
        rule.finish();
    }
    rules
}
