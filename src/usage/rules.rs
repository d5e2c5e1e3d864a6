//! Expressions in rule files.

use super::catalogue::{Known, Source};
use super::expression::uses;
use crate::config::rule_expressions;

/// Reads a rule file as far as its expressions go; those that cannot be read are there with the
/// reason.
///
/// # Errors
/// The text is no YAML, or holds no groups of rules.
pub fn read(text: &str) -> Result<Vec<Known>, String> {
    let rules = rule_expressions(text)?;
    let known = |rule: crate::config::RuleExpression| {
        let what = format!("{} / {}", rule.group, rule.name);
        Known::new(Source::Rule, what, &rule.expr, uses(&rule.expr))
    };
    Ok(rules.into_iter().map(known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::expression::Name;

    #[test]
    fn rules_are_known_by_group_and_name() {
        let text = "groups:\n- name: g\n  rules:\n  - {record: 'a:b', expr: sum(m)}\n\
                    \x20 - {alert: A, expr: 'up == 0', for: 5m}\n  - {alert: B, expr: 'sum('}\n";
        let rules = read(text).unwrap();
        let names: Vec<_> = rules.iter().map(|rule| rule.what.as_str()).collect();
        assert_eq!(names, ["g / a:b", "g / A", "g / B"]);
        assert_eq!(rules[0].uses[0].name, Name::Is("m".into()));
        assert!(rules[2].unread.is_some());
        assert!(read("a: b").is_err());
        assert!(read("groups: [").is_err());
    }
}
