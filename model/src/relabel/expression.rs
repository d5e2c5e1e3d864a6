//! The expression of a rule, tried without the engine where its form allows that.

use std::sync::Arc;

use regex_syntax::hir::HirKind;

use crate::matcher::{Pattern, RegexError};
use crate::re2;

/// Anchored at both ends.
#[derive(Clone)]
pub(super) struct Expression {
    pattern: Arc<Pattern>,
    /// Whether there is a first group, and all that matches lies in it: `(.*)`, `(a|b.+)`.
    first_is_all: bool,
}

/// A match.
pub(super) enum Groups<'t> {
    /// Only the whole text is of interest.
    Whole(&'t str),
    /// Every group.
    Each(regex::Captures<'t>),
}

impl Groups<'_> {
    /// The text of a group; empty when it took no part.
    pub(super) fn get(&self, at: usize) -> &str {
        match self {
            Self::Whole(text) if at == 0 => text,
            Self::Whole(_) => "",
            Self::Each(captures) => captures.get(at).map_or("", |found| found.as_str()),
        }
    }
}

impl Expression {
    /// Compiles `text`.
    pub(super) fn new(text: &str) -> Result<Self, RegexError> {
        let first_is_all = first_group_is_all(text);
        // Its text between the parentheses is an expression by itself, and often one of a simple form.
        let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
        let inner = inner.filter(|inner| first_is_all && !inner.starts_with('?'));
        let pattern = match inner.map(Pattern::new) {
            Some(Ok(pattern)) if pattern.engine().is_none() => pattern,
            // What has groups needs all of the text.
            _ => Pattern::new(text)?,
        };
        Ok(Self { pattern: Arc::new(pattern), first_is_all })
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.pattern.matches(text)
    }

    /// The match of `text`; with every group only if `each` is wanted.
    pub(super) fn groups<'t>(&self, text: &'t str, each: bool) -> Option<Groups<'t>> {
        match self.pattern.engine().filter(|_| each) {
            None => self.is_match(text).then_some(Groups::Whole(text)),
            Some(_) if !self.pattern.may_match(text) => None,
            Some(regex) => regex.captures(text).map(Groups::Each),
        }
    }

    /// The number of a group, 0 where its text is always the whole match; `None` when there is no such group.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        let number = match self.pattern.engine() {
            Some(regex) => group_number(name, regex)?,
            // What needs no engine has no group, but for one around it.
            None => ["0", "1"]
                .iter()
                .take(1 + usize::from(self.first_is_all))
                .position(|known| *known == name)?,
        };
        Some(if number == 1 && self.first_is_all { 0 } else { number })
    }
}

fn first_group_is_all(text: &str) -> bool {
    let parsed = re2::translate(text)
        .ok()
        .and_then(|text| regex_syntax::Parser::new().parse(&format!("(?s:{text})")).ok());
    parsed.is_some_and(|hir| matches!(hir.kind(), HirKind::Capture(group) if group.index == 1))
}

fn group_number(name: &str, regex: &regex::Regex) -> Option<usize> {
    let number = name.bytes().all(|b| b.is_ascii_digit());
    if number && (name.len() == 1 || !name.starts_with('0')) {
        return name.parse().ok().filter(|at| *at < regex.captures_len());
    }
    regex.capture_names().position(|group| group == Some(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matcher::anchored_regex;

    fn check(text: &str, needs_engine: bool, first_is_all: bool) {
        let expression = Expression::new(text).unwrap();
        let found = (expression.pattern.engine().is_some(), expression.first_is_all);
        assert_eq!(found, (needs_engine, first_is_all), "{text}");
    }

    #[test]
    fn common_forms_need_no_engine() {
        check("(.*)", false, true);
        check("(.+)", false, true);
        check(".*", false, false);
        check("a|b", false, false);
        check("(a|b)", false, true);
        check("(kube_.*)", false, true);
        check("()", false, true);
        check("(a|b)|(c)", true, false);
        check("(a)(b)", true, false);
        check("(a)*", true, false);
        check("(a(b))", true, true);
        check("(?P<all>.*)", true, true);
        check("(?i)(ab)", true, true);
        check("(?:a|b)", true, false);
        check("(?:a)|(b)", true, false);
    }

    #[test]
    fn what_is_no_expression_is_refused_whole() {
        for text in ["(", "(a", ")a(", "(a))(b)", "(*)"] {
            assert!(Expression::new(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Groups are those of the engine, by number and by name, whether it was asked or not.
        #[test]
        fn shortcuts_change_nothing(
            regex in r"[(]?(a|b|ab|\.\*|\.\+|[(]a[)]|[(]b\|a[)]|[(][?]P<n>a\*[)]|[|?*]|[(][?]:b[)]){0,5}[)]?",
            text in "[ab\n]{0,6}",
            group in "[0-3]|n|1a|01",
            each in any::<bool>(),
        ) {
            let engine = anchored_regex(&regex);
            let expression = Expression::new(&regex);
            prop_assert_eq!(engine.is_err(), expression.is_err());
            let (Ok(engine), Ok(expression)) = (engine, expression) else { return Ok(()) };
            prop_assert_eq!(expression.is_match(&text), engine.is_match(&text));
            let expected = engine.captures(&text);
            let groups = expression.groups(&text, each);
            prop_assert_eq!(groups.is_some(), expected.is_some());
            let number = group_number(&group, &engine);
            prop_assert_eq!(expression.group(&group).is_some(), number.is_some());
            let (Some(groups), Some(expected)) = (groups, expected) else { return Ok(()) };
            let (Some(own), Some(number)) = (expression.group(&group), number) else { return Ok(()) };
            if each || own == 0 {
                prop_assert_eq!(groups.get(own), expected.get(number).map_or("", |found| found.as_str()));
            }
        }
    }
}
