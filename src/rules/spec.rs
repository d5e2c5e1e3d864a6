//! What rule files say, checked as Prometheus checks it, with its texts.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use stint_model::Span;
use stint_model::labels::{METRIC_NAME, NameScheme, Quoted};
use stint_promql::parse::{self, Expr};

use super::expand::Text;
use crate::config::rules::{RuleFile, WrittenGroup, WrittenRule};

/// A group of rules that are evaluated one after the other, at the same time.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    /// The file that it stands in, as it was named.
    pub file: String,
    /// Unique in the file.
    pub name: String,
    /// Distance between evaluations; above zero.
    pub interval: Span,
    /// How far back expressions look, and outcomes lie.
    pub query_offset: Span,
    /// Most series or alerts of one rule; 0 for no limit.
    pub limit: usize,
    /// In order of the file.
    pub rules: Vec<RuleSpec>,
}

impl GroupSpec {
    /// What tells the group from all others, as in the label `rule_group`.
    pub fn key(&self) -> String {
        format!("{};{}", self.file, self.name)
    }
}

/// A rule.
#[derive(Clone, Debug)]
pub struct RuleSpec {
    /// The metric that is recorded, or the name of the alert.
    pub name: String,
    /// What is evaluated.
    pub expr: Arc<Expr>,
    /// The expression as it prints.
    pub query: String,
    /// Labels of the group and of the rule, those of the rule winning, in order of names. They may
    /// be empty, and those of alerts may be templates.
    pub labels: Vec<(String, Text)>,
    /// What is done with the outcome.
    pub kind: RuleKind,
}

/// What is done with the outcome of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// It is stored as series of another name.
    Recording,
    /// Each series of it is an alert.
    Alerting(AlertSpec),
}

/// What an alerting rule says beyond its expression.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertSpec {
    /// How long an alert has to be there before it fires.
    pub hold: Span,
    /// How long it goes on firing when it is no longer there.
    pub keep_firing_for: Span,
    /// In order of names.
    pub annotations: Vec<(String, Text)>,
}

impl PartialEq for RuleSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.query == other.query
            && self.labels == other.labels
            && self.kind == other.kind
    }
}

impl RuleSpec {
    /// What the rule says about alerts, if it is about alerts.
    pub fn alert(&self) -> Option<&AlertSpec> {
        match &self.kind {
            RuleKind::Alerting(alert) => Some(alert),
            RuleKind::Recording => None,
        }
    }
}

/// What rule files are read with.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The language of the expressions.
    pub features: parse::Options,
    /// Which names are accepted.
    pub name_scheme: NameScheme,
    /// Distance between evaluations of groups that say nothing.
    pub interval: Span,
    /// How far back groups look that say nothing.
    pub query_offset: Span,
    /// Whether fields that are not known are passed over.
    pub ignore_unknown: bool,
}

/// The groups of a file, and what is allowed in it and hardly meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadFile {
    /// In order of the file.
    pub groups: Vec<GroupSpec>,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Reads the rule file called `file`.
///
/// # Errors
/// Every mistake, one line each, beginning with the file and where it is.
pub fn read(file: &Path, text: &str, reading: &Reading) -> Result<ReadFile, Vec<String>> {
    let written = RuleFile::parse_with(file, text, reading.ignore_unknown)
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let shown = file.display().to_string();
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    let mut groups = Vec::new();
    for group in &written.groups {
        let (line, column) = group.at;
        if group.name.is_empty() {
            errors.push(format!("{line}:{column}: Groupname must not be empty"));
        }
        if !seen.insert(group.name.as_str()) {
            errors.push(format!(
                "{line}:{column}: groupname: \"{}\" is repeated in the same file",
                group.name
            ));
        }
        for (name, _) in &group.labels {
            if !is_label_name(name, reading.name_scheme) {
                errors.push(format!("invalid label name: {name}"));
            }
        }
        let rules = group.rules.iter().enumerate().map(|(at, rule)| {
            let mut check = Check { errors: &mut errors, group, rule, number: at + 1 };
            check.rule(reading)
        });
        let rules: Vec<Option<RuleSpec>> = rules.collect();
        groups.push(GroupSpec {
            file: shown.clone(),
            name: group.name.clone(),
            interval: group.interval.unwrap_or(reading.interval),
            query_offset: group.query_offset.unwrap_or(reading.query_offset),
            limit: usize::try_from(group.limit).unwrap_or(0),
            rules: rules.into_iter().flatten().collect(),
        });
    }
    if errors.is_empty() {
        Ok(ReadFile { groups, warnings: written.warnings })
    } else {
        Err(errors.into_iter().map(|error| format!("{shown}: {error}")).collect())
    }
}

fn is_label_name(name: &str, scheme: NameScheme) -> bool {
    name != METRIC_NAME && scheme.is_label_name(name)
}

/// Checks one rule.
struct Check<'a> {
    errors: &'a mut Vec<String>,
    group: &'a WrittenGroup,
    rule: &'a WrittenRule,
    number: usize,
}

impl Check<'_> {
    /// Tells of a mistake at these places.
    fn error(&mut self, places: &[(usize, usize)], message: &str) {
        use std::fmt::Write as _;
        let rule = self.rule;
        let name = if rule.alert.text.is_empty() { &rule.record.text } else { &rule.alert.text };
        let mut text = String::new();
        for (line, column) in places {
            let (line, column) = if *line == 0 { rule.at } else { (*line, *column) };
            // Writing to a string cannot fail.
            let _ = write!(text, "{line}:{column}: ");
        }
        let (group, number) = (Quoted(&self.group.name), self.number);
        let _ = write!(text, "group {group}, rule {number}, {}: {message}", Quoted(name));
        self.errors.push(text);
    }

    /// The rule; `None` when it cannot be made, for a reason that was told.
    fn rule(&mut self, reading: &Reading) -> Option<RuleSpec> {
        let rule = self.rule;
        let (record, alert) = (rule.record.at, rule.alert.at);
        match (rule.record.text.is_empty(), rule.alert.text.is_empty()) {
            (false, false) => {
                self.error(&[record, alert], "only one of 'record' and 'alert' must be set");
            }
            (true, true) => {
                self.error(&[record, alert], "one of 'record' or 'alert' must be set");
            }
            _ => {}
        }
        let expr = self.expr(reading);
        if !rule.record.text.is_empty() {
            self.record(reading.name_scheme);
        }
        for (name, _) in &rule.labels {
            if !is_label_name(name, reading.name_scheme) {
                self.error(&[], &format!("invalid label name: {name}"));
            }
        }
        for (name, _) in &rule.annotations {
            if !reading.name_scheme.is_label_name(name) {
                self.error(&[], &format!("invalid annotation name: {name}"));
            }
        }
        let is_alert = !rule.alert.text.is_empty();
        let labels = self.texts(is_alert, "label", &rule.labels);
        let annotations = self.texts(is_alert, "annotation", &rule.annotations);
        let of_group = self.group_labels(is_alert);
        let expr = expr?;
        let kind = if is_alert {
            RuleKind::Alerting(AlertSpec {
                hold: rule.hold,
                keep_firing_for: rule.keep_firing_for,
                annotations: sorted(annotations),
            })
        } else {
            RuleKind::Recording
        };
        let name = if rule.alert.text.is_empty() { &rule.record.text } else { &rule.alert.text };
        Some(RuleSpec {
            name: name.clone(),
            query: expr.to_string(),
            expr: Arc::new(expr),
            labels: sorted(of_group.into_iter().chain(labels)),
            kind,
        })
    }

    fn expr(&mut self, reading: &Reading) -> Option<Expr> {
        let expr = &self.rule.expr;
        if expr.text.is_empty() {
            self.error(&[expr.at], "field 'expr' must be set in rule");
            return None;
        }
        match parse::parse(&expr.text, &reading.features) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.error(&[expr.at], &format!("could not parse expression: {error}"));
                None
            }
        }
    }

    fn record(&mut self, scheme: NameScheme) {
        let rule = self.rule;
        let (at, name) = (rule.record.at, &rule.record.text);
        if !rule.annotations.is_empty() {
            self.error(&[at], "invalid field 'annotations' in recording rule");
        }
        if rule.hold != Span::ZERO {
            self.error(&[at], "invalid field 'for' in recording rule");
        }
        if rule.keep_firing_for != Span::ZERO {
            self.error(&[at], "invalid field 'keep_firing_for' in recording rule");
        }
        if !scheme.is_metric_name(name) {
            self.error(&[at], &format!("invalid recording rule name: {name}"));
        }
        if name.contains(['{', '}']) {
            let text = "braces present in the recording rule name; should it be in expr?";
            self.error(&[at], &format!("{text}: {name}"));
        }
    }

    /// The texts of a rule, read as templates where they are ones.
    fn texts(
        &mut self,
        are_templates: bool,
        kind: &str,
        texts: &[(String, String)],
    ) -> Vec<(String, Text)> {
        let mut read = Vec::with_capacity(texts.len());
        for (name, text) in texts {
            if !are_templates {
                read.push((name.clone(), Text::plain(text)));
                continue;
            }
            match Text::template(&self.rule.alert.text, text) {
                Ok(text) => read.push((name.clone(), text)),
                Err(error) => self.error(&[], &format!("{kind} {}: {error}", Quoted(name))),
            }
        }
        read
    }

    /// The labels of the group. Nobody looks at them before they are used as templates, so what is
    /// wrong with one is told in place of its text.
    fn group_labels(&self, are_templates: bool) -> Vec<(String, Text)> {
        let read = |(name, text): &(String, String)| {
            let text = if are_templates {
                Text::template(&self.rule.alert.text, text)
                    .unwrap_or_else(|error| Text::broken(text, &error))
            } else {
                Text::plain(text)
            };
            (name.clone(), text)
        };
        self.group.labels.iter().map(read).collect()
    }
}

/// In order of names; the last of equal names wins.
fn sorted(pairs: impl IntoIterator<Item = (String, Text)>) -> Vec<(String, Text)> {
    pairs.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
