//! Relabelling rules out of a configuration file.

use stint_model::labels::NameScheme;
use stint_model::relabel::{Action, Rule, RuleSpec};

use super::decode::Section;

/// The rules in the list under `key`.
pub(super) fn read(section: &mut Section<'_>, key: &'static str, scheme: NameScheme) -> Vec<Rule> {
    section.sections(key).into_iter().filter_map(|rule| read_rule(rule, scheme)).collect()
}

fn read_rule(mut section: Section<'_>, scheme: NameScheme) -> Option<Rule> {
    if section.is_empty() {
        section.cx.error(section.at, format!("empty or null relabeling rule: {}", section.name()));
        return None;
    }
    let default = RuleSpec::default();
    let action =
        section.parsed("action", |text| text.parse::<Action>().map_err(|error| error.to_string()));
    let wrong = section.has("action") && action.is_none();
    let source_labels = section.texts("source_labels");
    for (at, name) in &source_labels {
        // What is read may have any name; what is written has to fit the scheme.
        if name.is_empty() {
            section.cx.error(*at, "\"\" is not a valid label name");
        }
    }
    let spec = RuleSpec {
        source_labels: source_labels.into_iter().map(|(_, name)| name.to_owned()).collect(),
        separator: section.string_or("separator", &default.separator),
        regex: section.string_or("regex", &default.regex),
        modulus: section.u64("modulus").unwrap_or_default(),
        target_label: section.string_or("target_label", ""),
        replacement: section.string_or("replacement", &default.replacement),
        action: action.unwrap_or_default(),
    };
    let (cx, at, name) = (section.cx, section.at, section.name().to_owned());
    let regex_at = section.position("regex");
    section.finish();
    if wrong {
        return None;
    }
    match Rule::new(spec, scheme) {
        Ok(rule) => Some(rule),
        Err(error) => {
            let regex = matches!(error, stint_model::relabel::RuleError::Regex(_));
            cx.error(if regex { regex_at } else { at }, format!("`{name}`: {error}"));
            None
        }
    }
}
