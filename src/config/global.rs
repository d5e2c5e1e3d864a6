//! `global`: defaults for scrape jobs, and the labels that leave the house.

use std::path::PathBuf;

use stint_model::labels::{NameScheme, Quoted};
use stint_model::{Labels, Span};
use stint_wire::exposition::{Escaping, Protocol};

use super::decode::{Section, is_off};
use super::scrape::{self, Limits};

/// The `global` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// How often targets are scraped.
    pub scrape_interval: Span,
    /// When a scrape is given up; at most the interval.
    pub scrape_timeout: Span,
    /// Formats asked for, best first; `None` = the default order.
    pub scrape_protocols: Option<Vec<Protocol>>,
    /// Distance between rule evaluations, and the default step of subqueries.
    pub evaluation_interval: Span,
    /// How far back rules look, and their outcomes lie, where their group says nothing.
    pub rule_query_offset: Span,
    /// Added to what is forwarded or federated; never stored.
    pub external_labels: Labels,
    /// Inherited by scrape jobs.
    pub limits: Limits,
    /// Which names are accepted.
    pub name_scheme: NameScheme,
    /// How targets are asked to write other names; `None` = as the scheme allows.
    pub name_escaping: Option<Escaping>,
    /// Whether the `scrape_*` series about limits and sizes are written too.
    pub extra_scrape_metrics: bool,
    /// Whether native histograms are taken.
    pub scrape_native_histograms: bool,
    /// Whether the classic buckets of native histograms are taken too.
    pub always_scrape_classic_histograms: bool,
    /// Whether classic histograms become native ones with custom buckets.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Where failed scrapes are written down.
    pub scrape_failure_log_file: Option<PathBuf>,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            scrape_interval: Span::MINUTE,
            scrape_timeout: Span::from_secs(10),
            scrape_protocols: None,
            evaluation_interval: Span::MINUTE,
            rule_query_offset: Span::ZERO,
            external_labels: Labels::default(),
            limits: Limits::default(),
            name_scheme: NameScheme::Utf8,
            name_escaping: None,
            extra_scrape_metrics: false,
            scrape_native_histograms: false,
            always_scrape_classic_histograms: false,
            convert_classic_histograms_to_nhcb: false,
            scrape_failure_log_file: None,
        }
    }
}

/// What `global` means for a variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Global {
    pub(super) fn read(mut section: Section<'_>, environment: Environment<'_>) -> Self {
        let default = Self::default();
        let name_scheme = scrape::name_scheme(&mut section).unwrap_or_default();
        let positive = |span: &Span| *span > Span::ZERO;
        let scrape_interval =
            section.span("scrape_interval").filter(positive).unwrap_or(default.scrape_interval);
        let scrape_timeout = section.span("scrape_timeout").filter(positive);
        if scrape_timeout.is_some_and(|timeout| timeout > scrape_interval) {
            section.error("scrape_timeout", "global scrape timeout greater than scrape interval");
        }
        let global = Self {
            scrape_interval,
            scrape_timeout: scrape_timeout.unwrap_or(default.scrape_timeout).min(scrape_interval),
            scrape_protocols: scrape::protocols(&mut section),
            evaluation_interval: section
                .span("evaluation_interval")
                .filter(positive)
                .unwrap_or(default.evaluation_interval),
            rule_query_offset: section.span("rule_query_offset").unwrap_or_default(),
            external_labels: external_labels(&mut section, name_scheme, environment),
            limits: Limits::read(&mut section, Limits::default()),
            name_scheme,
            name_escaping: scrape::name_escaping(&mut section, name_scheme),
            extra_scrape_metrics: section.bool_or("extra_scrape_metrics", false),
            scrape_native_histograms: section.bool_or("scrape_native_histograms", false),
            always_scrape_classic_histograms: section
                .bool_or("always_scrape_classic_histograms", false),
            convert_classic_histograms_to_nhcb: section
                .bool_or("convert_classic_histograms_to_nhcb", false),
            scrape_failure_log_file: section.path("scrape_failure_log_file"),
        };
        section.unsupported("query_log_file", is_off, "remove it");
        section.finish();
        global
    }
}

fn external_labels(
    section: &mut Section<'_>,
    scheme: NameScheme,
    environment: Environment<'_>,
) -> Labels {
    let mut labels = Vec::new();
    for (key, value) in section.pairs("external_labels") {
        if !scheme.is_label_name(&key.text) {
            let name = Quoted(&key.text);
            section.cx.error(key.at, format!("{name} is not a valid label name"));
        }
        let mut unset = Vec::new();
        let value = expand(value, &mut |name| {
            environment(name).filter(|value| !value.is_empty()).unwrap_or_else(|| {
                unset.push(name.to_owned());
                String::new()
            })
        });
        for name in unset {
            let label = &key.text;
            let message = format!(
                "external label `{label}` uses the environment variable `{name}`, which is not set"
            );
            section.cx.warn(key.at, message);
        }
        labels.push((key.text.as_str(), value));
    }
    Labels::from_pairs(labels)
}

/// Replaces `$name` and `${name}` in `text` as Go's `os.Expand` does; `$$` stands for a dollar.
pub(super) fn expand(text: &str, value_of: &mut dyn FnMut(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(inner) = after.strip_prefix('{') {
            // An unclosed or empty brace is eaten.
            match inner.split_once('}') {
                Some(("", tail)) => rest = tail,
                Some(("$", tail)) => {
                    out.push('$');
                    rest = tail;
                }
                Some((name, tail)) => {
                    out.push_str(&value_of(name));
                    rest = tail;
                }
                None => rest = inner,
            }
            continue;
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let special = |c: char| "*#$@!?-".contains(c) || c.is_ascii_digit();
        let length = match after.chars().next() {
            Some(c) if special(c) => 1,
            _ => after.find(|c| !word(c)).unwrap_or(after.len()),
        };
        let (name, tail) = after.split_at(length);
        match name {
            "" | "$" => out.push('$'),
            name => out.push_str(&value_of(name)),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_go_does() {
        let check = |text: &str, expanded: &str| {
            assert_eq!(expand(text, &mut |name| format!("<{name}>")), expanded, "{text}");
        };
        check("plain", "plain");
        check("$ENV-x", "<ENV>-x");
        check("a${ENV}b", "a<ENV>b");
        check("$$5", "$5");
        check("100$ ", "100$ ");
        check("$1a", "<1>a");
        check("${}x${open", "xopen");
    }
}
