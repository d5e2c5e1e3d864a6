//! `stint check metrics`: whether an exposition can be read, and follows the naming rules that
//! `promtool check metrics` knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stint_model::MetricType;
use stint_wire::exposition::{Entry, Format as Exposition, ParseError, Parser};

use super::super::Format;
use super::super::rules::EXIT_LINT;

/// The most bytes that are read.
const BYTES_MAX: u64 = 1 << 30;

/// Base units.
const BASE: [&str; 11] = [
    "amperes", "bytes", "celsius", "grams", "joules", "kelvin", "meters", "metres", "moles",
    "seconds", "volts",
];
/// Units, and the base units that are to be used in their place.
const OTHER: [(&str, &str); 14] = [
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("kelvins", "kelvin"),
    ("fahrenheit", "celsius"),
    ("rankine", "celsius"),
    ("inches", "meters"),
    ("yards", "meters"),
    ("miles", "meters"),
    ("bits", "bytes"),
    ("calories", "joules"),
    ("pounds", "grams"),
    ("ounces", "grams"),
];
const PREFIXES: [&str; 18] = [
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega",
    "mibi", "giga", "gibi", "tera", "tebi", "peta", "pebi",
];
const ABBREVIATIONS: [&str; 14] =
    ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];

/// Reads metrics from standard input, in the text format or in OpenMetrics, and names what breaks
/// the rules: exit code 0 when nothing does, 1 when they cannot be read, 3 when something does.
#[derive(Debug, Args)]
pub(in crate::cli) struct MetricsArgs {
    /// Tell how many series each metric has too.
    #[arg(long)]
    extended: bool,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Problem {
    metric: String,
    text: String,
}

/// A metric family.
#[derive(Debug, Default)]
struct Family {
    kind: Option<MetricType>,
    has_help: bool,
    /// Names of labels.
    labels: BTreeSet<String>,
    series: u64,
}

/// Checks standard input.
pub(in crate::cli) fn run(args: &MetricsArgs) -> ExitCode {
    let mut bytes = Vec::new();
    if let Err(error) = std::io::stdin().lock().take(BYTES_MAX).read_to_end(&mut bytes) {
        return crate::cli::fail(1, &format!("cannot read standard input: {error}"));
    }
    let families = match read(&bytes) {
        Ok(families) => families,
        Err(error) => return crate::cli::fail(1, &format!("while reading the metrics: {error}")),
    };
    let problems = problems(&families);
    // Where nothing can be printed, the exit code still tells.
    let _ = match args.format {
        Format::Json => {
            let report = serde_json::json!({"problems": problems, "metrics": counts(&families)});
            writeln!(std::io::stdout(), "{report}")
        }
        Format::Text => {
            let mut lines = String::new();
            for problem in &problems {
                // Writing to a string cannot fail.
                let _ = writeln!(lines, "{} {}", problem.metric, problem.text);
            }
            let told = std::io::stderr().write_all(lines.as_bytes());
            if args.extended { told.and_then(|()| print_counts(&families)) } else { told }
        }
    };
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_LINT) }
}

fn counts(families: &BTreeMap<String, Family>) -> BTreeMap<&str, u64> {
    families.iter().map(|(name, family)| (name.as_str(), family.series)).collect()
}

fn print_counts(families: &BTreeMap<String, Family>) -> std::io::Result<()> {
    let mut rows: Vec<(&str, u64)> = counts(families).into_iter().collect();
    rows.sort_by_key(|(_, series)| std::cmp::Reverse(*series));
    let total: u64 = rows.iter().map(|(_, series)| series).sum();
    let mut text = format!("{:<60} {:>10} {:>8}\n", "metric", "series", "share");
    for (name, series) in rows {
        let share = series as f64 / total.max(1) as f64 * 100.0;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<60} {series:>10} {share:>7.2}%");
    }
    let _ = writeln!(text, "{:<60} {total:>10}", "all");
    std::io::stdout().write_all(text.as_bytes())
}

fn read(bytes: &[u8]) -> Result<BTreeMap<String, Family>, ParseError> {
    let is_open = bytes.trim_ascii_end().ends_with(b"# EOF");
    let format = if is_open { Exposition::OpenMetrics } else { Exposition::PrometheusText };
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut parser = Parser::new(format, bytes);
    while let Some(entry) = parser.next()? {
        match entry {
            Entry::Type { name, kind } => {
                families.entry(name.into_owned()).or_default().kind = Some(kind);
            }
            Entry::Help { name, text } => {
                families.entry(name.into_owned()).or_default().has_help = !text.is_empty();
            }
            Entry::Series(series) => {
                let (mut metric, mut labels) = (String::new(), Vec::new());
                series.each_label(|name, value| match name {
                    "__name__" => value.clone_into(&mut metric),
                    name => labels.push(name.to_owned()),
                });
                let family = families.entry(family_of(&families, metric)).or_default();
                family.series += 1;
                // Those that a kind brings are its own.
                let own = |label: &String| match family.kind {
                    Some(MetricType::Histogram) => label == "le",
                    Some(MetricType::Summary) => label == "quantile",
                    _ => false,
                };
                labels.retain(|label| !own(label));
                family.labels.extend(labels);
            }
            Entry::Histogram(_) | Entry::Unit { .. } => {}
        }
    }
    Ok(families)
}

/// The family that a series called `metric` belongs to.
fn family_of(families: &BTreeMap<String, Family>, metric: String) -> String {
    for suffix in ["_bucket", "_sum", "_count", "_total"] {
        let Some(stem) = metric.strip_suffix(suffix) else { continue };
        let is_its = match families.get(stem).and_then(|family| family.kind) {
            Some(MetricType::Histogram) => suffix != "_total",
            Some(MetricType::Summary) => matches!(suffix, "_sum" | "_count"),
            Some(MetricType::Counter) => suffix == "_total",
            _ => false,
        };
        if is_its {
            return stem.to_owned();
        }
    }
    metric
}

fn problems(families: &BTreeMap<String, Family>) -> Vec<Problem> {
    let mut all = Vec::new();
    for (metric, family) in families {
        let mut found = Vec::new();
        let (kind, name) = (family.kind.unwrap_or_default(), metric.as_str());
        if !family.has_help {
            found.push("no help text".to_owned());
        }
        found.extend(unit(name));
        found.extend(suffixes(name, kind, &family.labels));
        let type_name = kind.as_str();
        let lower = name.to_lowercase();
        let has_type =
            lower.contains(&format!("_{type_name}_")) || lower.ends_with(&format!("_{type_name}"));
        if has_type && kind != MetricType::Unknown {
            found.push(format!("metric name should not include type '{type_name}'"));
        }
        if name.contains(':') {
            found.push("metric names should not contain ':'".to_owned());
        }
        if is_camel(name) {
            found.push("metric names should be written in 'snake_case' not 'camelCase'".to_owned());
        }
        if family.labels.iter().any(|label| is_camel(label)) {
            found.push("label names should be written in 'snake_case' not 'camelCase'".to_owned());
        }
        if name.split('_').skip(1).any(|part| ABBREVIATIONS.contains(&part.to_lowercase().as_str()))
        {
            found.push("metric names should not contain abbreviated units".to_owned());
        }
        all.extend(found.into_iter().map(|text| Problem { metric: metric.clone(), text }));
    }
    all.sort();
    all
}

fn unit(name: &str) -> Option<String> {
    for part in name.split('_') {
        if BASE.contains(&part) {
            continue;
        }
        let stem = |part: &str| -> Option<&'static str> {
            BASE.iter()
                .find(|unit| **unit == part)
                .copied()
                .or_else(|| OTHER.iter().find(|(unit, _)| *unit == part).map(|(_, base)| *base))
        };
        let bare = PREFIXES.iter().find_map(|prefix| part.strip_prefix(prefix));
        if let Some(base) = stem(part).or_else(|| stem(bare?)) {
            return Some(format!("use base unit \"{base}\" instead of \"{part}\""));
        }
    }
    None
}

fn suffixes(name: &str, kind: MetricType, labels: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |text: &str| found.push(text.to_owned());
    match (kind, name.ends_with("_total")) {
        (MetricType::Counter, false) => say("counter metrics should have \"_total\" suffix"),
        (MetricType::Counter | MetricType::Unknown, _) | (_, false) => {}
        (_, true) => say("non-counter metrics should not have \"_total\" suffix"),
    }
    if kind == MetricType::Unknown {
        return found;
    }
    let (is_histogram, is_summary) = (kind == MetricType::Histogram, kind == MetricType::Summary);
    if !is_histogram && name.ends_with("_bucket") {
        say("non-histogram metrics should not have \"_bucket\" suffix");
    }
    for suffix in ["_count", "_sum"] {
        if !is_histogram && !is_summary && name.ends_with(suffix) {
            say(&format!(
                "non-histogram and non-summary metrics should not have \"{suffix}\" suffix"
            ));
        }
    }
    if !is_histogram && labels.contains("le") {
        say("non-histogram metrics should not have \"le\" label");
    }
    if !is_summary && labels.contains("quantile") {
        say("non-summary metrics should not have \"quantile\" label");
    }
    found
}

/// Whether a small letter is followed by a capital one.
fn is_camel(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let families = read(text.as_bytes()).unwrap();
        let problems = problems(&families);
        problems.into_iter().map(|p| format!("{} {}", p.metric, p.text)).collect()
    }

    #[test]
    fn what_follows_the_rules_is_let_be() {
        let text = "# HELP a_seconds x\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"1\"} 1\n\
                    a_seconds_bucket{le=\"+Inf\"} 1\na_seconds_sum 1\na_seconds_count 1\n\
                    # HELP b_total x\n# TYPE b_total counter\nb_total 1\n";
        assert_eq!(told(text), Vec::<String>::new());
        assert_eq!(read(text.as_bytes()).unwrap()["a_seconds"].series, 4);
    }

    #[test]
    fn each_rule_is_known() {
        let text = "# HELP c x\n# TYPE c counter\nc{le=\"1\"} 1\n\
                    # HELP g_total x\n# TYPE g_total gauge\ng_total{quantile=\"1\"} 1\n\
                    # HELP t_milliseconds x\n# TYPE t_milliseconds gauge\nt_milliseconds 1\n\
                    # HELP x:y_gauge x\n# TYPE x:y_gauge gauge\nx:y_gauge 1\n\
                    # TYPE camelCase_ms gauge\ncamelCase_ms{someLabel=\"1\"} 1\n\
                    # HELP e_count x\n# TYPE e_count gauge\ne_count 1\n";
        assert_eq!(
            told(text),
            [
                "c counter metrics should have \"_total\" suffix",
                "c non-histogram metrics should not have \"le\" label",
                "camelCase_ms label names should be written in 'snake_case' not 'camelCase'",
                "camelCase_ms metric names should be written in 'snake_case' not 'camelCase'",
                "camelCase_ms metric names should not contain abbreviated units",
                "camelCase_ms no help text",
                "e_count non-histogram and non-summary metrics should not have \"_count\" suffix",
                "g_total non-counter metrics should not have \"_total\" suffix",
                "g_total non-summary metrics should not have \"quantile\" label",
                "t_milliseconds use base unit \"seconds\" instead of \"milliseconds\"",
                "x:y_gauge metric name should not include type 'gauge'",
                "x:y_gauge metric names should not contain ':'",
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(read(b"a{\n").is_err());
    }
}
