//! `[labels]` of `retention.toml`: what every series must carry.

use stint_model::labels::{METRIC_NAME, NameScheme, Quoted};
use stint_model::matcher::MatchOp;
use stint_model::{Labels, Matcher, Selector};

use super::decode::Section;
use super::global::{Environment, expand};

/// Labels that every series must carry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequiredLabels {
    /// By name of the label.
    pub rules: Vec<LabelRule>,
    /// Whether series that break a rule are kept from being forwarded.
    pub withhold: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelRule {
    /// The label.
    pub name: String,
    /// What series get that have none; `None` = it stays missing.
    pub value: Option<String>,
    /// What it may be; `None` = anything but empty.
    pub allowed: Option<Matcher>,
    /// The same as it is written, to be shown.
    pub allowed_text: String,
}

impl LabelRule {
    /// Whether a series may have `value`, which is empty where the label is missing.
    pub fn allows(&self, value: &str) -> bool {
        !value.is_empty() && self.allowed.as_ref().is_none_or(|allowed| allowed.matches(value))
    }

    /// Selects the series that break the rule.
    fn broken(&self) -> Vec<Selector> {
        let mut selectors = vec![Selector::new(vec![Matcher::equal(&self.name, "")])];
        let allowed = self.allowed.as_ref();
        // It was compiled before, and so it is again.
        if let Some(not) = allowed
            .and_then(|allowed| Matcher::new(MatchOp::NotRegex, &self.name, allowed.value()).ok())
        {
            selectors.push(Selector::new(vec![not]));
        }
        selectors
    }
}

impl RequiredLabels {
    pub(super) fn read(mut section: Section<'_>, environment: Environment<'_>) -> Self {
        let withhold = section.bool_or("withhold", false);
        let mut rules = Vec::new();
        for (key, section) in section.map_of_sections("required") {
            let name = &key.text;
            if !NameScheme::Utf8.is_label_name(name) || name == METRIC_NAME {
                let message = format!("{} is not a label that can be required", Quoted(name));
                section.cx.error(key.at, message);
            }
            rules.push(read_rule(name, section, environment));
        }
        section.finish();
        Self { rules, withhold }
    }

    /// Selects what is not to be forwarded.
    pub(super) fn withheld(&self) -> Vec<Selector> {
        let rules = self.rules.iter().filter(|_| self.withhold);
        rules.flat_map(LabelRule::broken).collect()
    }

    /// The rules that `labels` break, each with what was found.
    pub fn broken_by<'a>(
        &'a self,
        labels: &'a Labels,
    ) -> impl Iterator<Item = (&'a LabelRule, &'a str)> {
        let found = |rule: &'a LabelRule| (rule, labels.get(&rule.name).unwrap_or_default());
        self.rules.iter().map(found).filter(|(rule, value)| !rule.allows(value))
    }
}

fn read_rule(name: &str, mut section: Section<'_>, environment: Environment<'_>) -> LabelRule {
    let value = section.text("value").and_then(|text| {
        let mut unset = None;
        let value = expand(text, &mut |variable| {
            environment(variable).filter(|value| !value.is_empty()).unwrap_or_else(|| {
                unset = Some(variable.to_owned());
                String::new()
            })
        });
        if let Some(variable) = unset {
            let message = format!(
                "`{name}` is not added to series that have none: the environment variable \
                 `{variable}` is not set"
            );
            section.warn("value", message);
            return None;
        }
        Some(value).filter(|value| !value.is_empty())
    });
    let list = section.has("allowed").then(|| section.strings("allowed"));
    let pattern = section.text("pattern");
    let (source, allowed_text) = match (&list, pattern) {
        (Some(_), Some(_)) => {
            section
                .error("pattern", "`allowed` and `pattern` are two ways to say the same: use one");
            (None, String::new())
        }
        (Some(list), None) => {
            if list.iter().any(String::is_empty) || list.is_empty() {
                section.error("allowed", "`allowed` is a list of values, none of them empty");
            }
            let escaped: Vec<String> = list.iter().map(|value| regex::escape(value)).collect();
            (Some(escaped.join("|")), list.join(", "))
        }
        (None, Some(pattern)) => (Some(pattern.to_owned()), format!("/{pattern}/")),
        (None, None) => (None, "anything".to_owned()),
    };
    let allowed = source.and_then(|source| {
        let matcher = Matcher::new(MatchOp::Regex, name, &source);
        matcher.map_err(|error| section.error("pattern", error.to_string())).ok()
    });
    let rule = LabelRule { name: name.to_owned(), value, allowed, allowed_text };
    if let Some(value) = &rule.value
        && !rule.allows(value)
    {
        let message = format!("{} is not one of the values that are allowed", Quoted(value));
        section.error("value", message);
    }
    section.finish();
    rule
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests_support::policy;

    const RULES: &str = "[labels]\nwithhold = true\n\
        [labels.required.environment]\nvalue = \"${ENVIRONMENT}\"\nallowed = [\"dev\", \"prod+1\"]\n\
        [labels.required.service]\npattern = \"[a-z-]+\"\n\
        [labels.required.project]\n";

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn rules_are_read_and_checked() {
        let required = policy(RULES, &[("ENVIRONMENT", "dev")]).unwrap().labels;
        let broken = |pairs| {
            let labels = labels(pairs);
            let names =
                required.broken_by(&labels).map(|(rule, found)| format!("{}={found}", rule.name));
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            required.rules.iter().map(|rule| rule.value.as_deref()).collect::<Vec<_>>(),
            [Some("dev"), None, None]
        );
        assert!(
            broken(&[("environment", "prod+1"), ("service", "a-b"), ("project", "p")]).is_empty()
        );
        assert_eq!(
            broken(&[("environment", "prodd1"), ("service", "A")]),
            ["environment=prodd1", "service=A", "project="]
        );
        let withheld = required.withheld();
        let selects = |pairs| {
            let labels = labels(pairs);
            withheld.iter().any(|selector| selector.matches(&labels))
        };
        assert!(!selects(&[("environment", "dev"), ("service", "a"), ("project", "p")]));
        assert!(selects(&[("environment", "dev"), ("service", "a")]));
        assert!(selects(&[("environment", "x"), ("service", "a"), ("project", "p")]));
        let kept = RULES.replace("withhold = true", "withhold = false");
        assert!(policy(&kept, &[]).unwrap().labels.withheld().is_empty());
    }

    #[test]
    fn a_variable_that_is_not_set_adds_nothing() {
        let config = policy(RULES, &[]).unwrap();
        assert_eq!(config.labels.rules[0].value, None);
        assert!(
            config.warnings[0].message.contains("`ENVIRONMENT` is not set"),
            "{:?}",
            config.warnings
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let wrong = |text: &str, message: &str| {
            let errors = policy(text, &[]).unwrap_err();
            assert!(errors.contains(message), "{errors}");
        };
        let rule = "[labels.required.a]\n";
        wrong(&format!("{rule}value = \"x\"\nallowed = [\"y\"]"), "\"x\" is not one of the values");
        wrong(&format!("{rule}pattern = \"(\""), "retention.toml:2:");
        wrong(&format!("{rule}allowed = []"), "none of them empty");
        wrong(&format!("{rule}allowed = [\"x\"]\npattern = \"x\""), "use one");
        wrong(&format!("{rule}vale = \"x\""), "did you mean `value`?");
        wrong("[labels.required.__name__]\n", "not a label that can be required");
    }
}
