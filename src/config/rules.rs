//! Rule files, read field by field. What the fields mean together is checked where rules are made.

use std::path::Path;

use stint_model::Span;

use super::decode::{Context, Section};
use super::error::ConfigErrors;
use super::node::{self, Position};

/// A rule file as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleFile {
    /// In order of the file.
    pub groups: Vec<WrittenGroup>,
    /// What is allowed and hardly meant; to be logged.
    pub warnings: Vec<String>,
}

/// A group as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WrittenGroup {
    /// Line and column where it begins.
    pub at: (usize, usize),
    /// Its name; empty when it has none.
    pub name: String,
    /// Distance between evaluations, where it is not that of all groups.
    pub interval: Option<Span>,
    /// How far back expressions look, where it is not that of all groups.
    pub query_offset: Option<Span>,
    /// Most series or alerts of one rule; none below 1.
    pub limit: i64,
    /// Labels of all rules, in order of the file.
    pub labels: Vec<(String, String)>,
    /// In order of the file.
    pub rules: Vec<WrittenRule>,
}

/// A rule as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WrittenRule {
    /// Line and column where it begins.
    pub at: (usize, usize),
    /// The metric to record.
    pub record: Placed,
    /// The name of the alert.
    pub alert: Placed,
    /// What is evaluated.
    pub expr: Placed,
    /// How long an alert has to be there before it fires.
    pub hold: Span,
    /// How long it goes on firing when it is no longer there.
    pub keep_firing_for: Span,
    /// In order of the file.
    pub labels: Vec<(String, String)>,
    /// In order of the file.
    pub annotations: Vec<(String, String)>,
}

/// A text and where it stands; (0, 0) where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The text; empty for none.
    pub text: String,
    /// Line and column, from 1.
    pub at: (usize, usize),
}

impl RuleFile {
    /// Reads the first document of a rule file called `file`.
    ///
    /// # Errors
    /// Every place that is no YAML or no field of a rule file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        Self::parse_with(file, text, false)
    }

    /// The same, where keys that are not known may be passed over.
    ///
    /// # Errors
    /// Every place that is no YAML or, unless it is passed over, no field of a rule file.
    pub fn parse_with(file: &Path, text: &str, ignore_unknown: bool) -> Result<Self, ConfigErrors> {
        let mut cx = Context::new(file);
        cx.ignore_unknown = ignore_unknown;
        let mut found = Self::default();
        match node::yaml::parse_first(text) {
            Ok((root, is_alone)) => {
                let mut root = Section::open(&cx, &root, "");
                found.groups = root.sections("groups").into_iter().map(group).collect();
                root.finish();
                if !is_alone {
                    let file = file.display();
                    found.warnings.push(format!(
                        "{file}: only the first YAML document is read; what follows it is not"
                    ));
                }
            }
            Err(error) => cx.syntax(error),
        }
        let (errors, _) = cx.finish();
        if errors.is_empty() { Ok(found) } else { Err(ConfigErrors(errors)) }
    }
}

fn place(at: Position) -> (usize, usize) {
    (at.line, at.column)
}

fn group(mut section: Section<'_>) -> WrittenGroup {
    let group = WrittenGroup {
        at: place(section.at),
        name: section.string_or("name", ""),
        interval: section.span("interval").filter(|interval| *interval > Span::ZERO),
        query_offset: section.span("query_offset"),
        limit: section
            .parsed("limit", |text| {
                text.parse::<i64>().map_err(|_| format!("{text} is not a whole number"))
            })
            .unwrap_or(0),
        labels: pairs(&mut section, "labels"),
        rules: section.sections("rules").into_iter().map(rule).collect(),
    };
    section.finish();
    group
}

fn rule(mut section: Section<'_>) -> WrittenRule {
    let rule = WrittenRule {
        at: place(section.at),
        record: placed(&mut section, "record"),
        alert: placed(&mut section, "alert"),
        expr: placed(&mut section, "expr"),
        hold: section.span("for").unwrap_or_default(),
        keep_firing_for: section.span("keep_firing_for").unwrap_or_default(),
        labels: pairs(&mut section, "labels"),
        annotations: pairs(&mut section, "annotations"),
    };
    section.finish();
    rule
}

fn placed(section: &mut Section<'_>, key: &'static str) -> Placed {
    let text = section.string_or(key, "");
    let at = if section.has(key) { place(section.value_position(key)) } else { (0, 0) };
    Placed { text, at }
}

fn pairs(section: &mut Section<'_>, key: &'static str) -> Vec<(String, String)> {
    let owned = |(key, value): (&node::Key, &str)| (key.text.clone(), value.to_owned());
    section.pairs(key).into_iter().map(owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RuleFile, String> {
        RuleFile::parse(Path::new("r.yml"), text).map_err(|errors| errors.to_string())
    }

    #[test]
    fn fields_are_read_with_their_places() {
        let file = parse(
            "groups:\n- name: g\n  interval: 30s\n  query_offset: 0s\n  limit: 5\n  labels: {a: 1}\n  \
             rules:\n  - alert: A\n    expr: up == 0\n    for: 5m\n    keep_firing_for: 1m\n    \
             labels: {s: page}\n    annotations: {x: ''}\n",
        )
        .unwrap();
        let group = &file.groups[0];
        assert_eq!((group.name.as_str(), group.limit), ("g", 5));
        assert_eq!(group.interval, Some(Span(30_000)));
        assert_eq!(group.query_offset, Some(Span::ZERO));
        assert_eq!(group.labels, [("a".to_owned(), "1".to_owned())]);
        let rule = &group.rules[0];
        assert_eq!(rule.expr, Placed { text: "up == 0".into(), at: (9, 11) });
        assert_eq!(rule.record, Placed::default());
        assert_eq!((rule.hold, rule.keep_firing_for), (Span(300_000), Span::MINUTE));
        assert_eq!(rule.annotations, [("x".to_owned(), String::new())]);
    }

    #[test]
    fn unknown_fields_are_told_with_their_lines() {
        let errors =
            parse("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    annotation: {}\n")
                .unwrap_err();
        assert_eq!(
            errors,
            "r.yml:6:5: unknown key `annotation` in `groups[0].rules[0]`; did you mean `annotations`?"
        );
        assert!(
            parse("groups:\n- name: g\n  interval: soon\n").unwrap_err().starts_with("r.yml:3:13")
        );
    }

    #[test]
    fn only_the_first_document_counts() {
        let file = parse("groups: []\n---\nwhatever: 1\n").unwrap();
        assert!(file.warnings[0].contains("only the first YAML document"), "{file:?}");
        assert_eq!(parse(""), Ok(RuleFile::default()));
        assert_eq!(parse("null\n"), Ok(RuleFile::default()));
    }
}
