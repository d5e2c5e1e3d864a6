//! Label matchers and selectors.

use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

use crate::labels::{Labels, METRIC_NAME, Quoted, is_legacy_label_name};
use crate::re2;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

impl MatchOp {
    /// The operator as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }

    /// Whether the operator is one of the two negative ones.
    pub const fn is_negative(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotRegex)
    }
}

/// A condition on one label. An absent label has the empty value.
#[derive(Clone)]
pub struct Matcher {
    name: Arc<str>,
    op: MatchOp,
    value: Arc<str>,
    pattern: Option<Arc<Pattern>>,
}

/// An invalid regular expression, with the parser's own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {message}")]
pub struct RegexError {
    /// What is wrong.
    pub message: String,
}

impl Matcher {
    /// A condition on `name`; compiles the expression of `=~` and `!~`.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, RegexError> {
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(Pattern::new(value)?)),
        };
        Ok(Self { name: name.into(), op, value: value.into(), pattern })
    }

    /// `name = value`, which needs no compiling.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), pattern: None }
    }

    /// The condition that a metric has this name. It shares the text.
    pub fn metric(name: Arc<str>) -> Self {
        static LABEL: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(METRIC_NAME));
        Self { name: Arc::clone(&LABEL), op: MatchOp::Equal, value: name, pattern: None }
    }

    /// The label it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What it compares with, as written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label with this value passes.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.pattern) {
            (MatchOp::Equal, _) => *self.value == *value,
            (MatchOp::NotEqual, _) => *self.value != *value,
            (MatchOp::Regex, Some(pattern)) => pattern.matches(value),
            (MatchOp::NotRegex, Some(pattern)) => !pattern.matches(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => {
                unreachable!("a regex matcher is built with its pattern")
            }
        }
    }

    /// Whether a series without the label passes.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The literals of an expression such as `a|b|c`, where it is nothing else.
    pub fn set_of_values(&self) -> Option<&[String]> {
        match self.pattern.as_deref()? {
            Pattern::Set(set) => Some(set),
            _ => None,
        }
    }

    /// The anchored expression in the syntax of the `regex` crate, where values must be tried with it.
    pub fn expression(&self) -> Option<&str> {
        match self.pattern.as_deref()? {
            Pattern::Regex { regex, .. } => Some(&regex.source),
            _ => None,
        }
    }

    /// The literal text with which every matching value starts; empty when there is none.
    pub fn literal_prefix(&self) -> &str {
        match self.pattern.as_deref() {
            Some(Pattern::Prefix(prefix, _) | Pattern::Regex { prefix, .. }) => prefix,
            _ => "",
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.op, &self.name, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "{}", Quoted(&self.name))?;
        }
        write!(f, "{}{}", self.op.as_str(), Quoted(&self.value))
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A compiled, anchored regular expression with the fast paths that dashboards need.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// `a|b|c`, sorted.
    Set(Vec<String>),
    /// `prefix.*` (true: `.+`).
    Prefix(String, bool),
    /// `.*`
    Anything,
    /// `.+`
    Something,
    /// Everything else.
    Regex { prefix: String, regex: Lazy },
}

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Result<Self, RegexError> {
        match pattern {
            ".*" => return Ok(Self::Anything),
            ".+" => return Ok(Self::Something),
            _ => {}
        }
        // A list of names needs no engine, however long it is.
        if let Some(set) = literal_alternatives(pattern) {
            return Ok(Self::Set(set));
        }
        for (suffix, needs_more) in [(".*", false), (".+", true)] {
            if let Some(prefix) = pattern.strip_suffix(suffix)
                && is_literal(prefix)
            {
                return Ok(Self::Prefix(prefix.to_owned(), needs_more));
            }
        }
        let regex = Lazy::new(pattern)?;
        let literal = pattern.bytes().take_while(|b| !is_meta(*b)).count();
        // What a repetition or an alternative follows is not fixed text; flags and quotes may stand in between.
        let prefix = match pattern.as_bytes().get(literal) {
            Some(b'?' | b'*' | b'{' | b'(' | b'\\') => {
                let kept = pattern.get(..literal).unwrap_or_default();
                kept.char_indices().last().map_or("", |(at, _)| kept.get(..at).unwrap_or_default())
            }
            _ => pattern.get(..literal).unwrap_or_default(),
        };
        let prefix = if pattern.contains('|') { String::new() } else { prefix.to_owned() };
        Ok(Self::Regex { prefix, regex })
    }

    /// Whether all of `value` matches.
    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Set(set) => set.binary_search_by(|item| item.as_str().cmp(value)).is_ok(),
            Self::Prefix(prefix, false) => value.starts_with(prefix.as_str()),
            Self::Prefix(prefix, true) => {
                value.len() > prefix.len() && value.starts_with(prefix.as_str())
            }
            Self::Anything => true,
            Self::Something => !value.is_empty(),
            Self::Regex { regex, .. } => {
                self.may_match(value) && regex.get().is_some_and(|regex| regex.is_match(value))
            }
        }
    }

    /// Whether `value` starts as everything that matches does.
    pub(crate) fn may_match(&self, value: &str) -> bool {
        match self {
            Self::Regex { prefix, .. } => value.starts_with(prefix.as_str()),
            _ => true,
        }
    }

    /// The compiled expression, where values must be tried with it.
    pub(crate) fn engine(&self) -> Option<&regex::Regex> {
        match self {
            Self::Regex { regex, .. } => regex.get(),
            _ => None,
        }
    }
}

/// Longest expression that is compiled only when it is needed: such a one cannot become too large.
const LAZY_BYTES_MAX: usize = 256;

/// A correct, anchored expression. Compiling takes a hundred times as long as reading a query, and many
/// expressions are never tried: queries that are only checked or laid out, stores that search an index.
#[derive(Debug)]
pub(crate) struct Lazy {
    /// In the syntax of the `regex` crate.
    source: String,
    compiled: OnceLock<Option<regex::Regex>>,
}

impl Lazy {
    fn new(pattern: &str) -> Result<Self, RegexError> {
        let source = anchored(pattern)?;
        // Repetitions and classes of Unicode multiply what few characters compile to.
        let may_be_large = pattern.len() > LAZY_BYTES_MAX
            || pattern.contains('{')
            || pattern.contains("\\p")
            || pattern.contains("\\P");
        let is_certain = !may_be_large && regex_syntax::Parser::new().parse(&source).is_ok();
        let compiled = if is_certain {
            OnceLock::new()
        } else {
            OnceLock::from(Some(compile(pattern, &source)?))
        };
        Ok(Self { source, compiled })
    }

    fn get(&self) -> Option<&regex::Regex> {
        self.compiled.get_or_init(|| compile(&self.source, &self.source).ok()).as_ref()
    }
}

/// Most memory that a compiled expression may take.
const REGEX_BYTES_MAX: usize = 32 << 20;
/// Longest part of an expression that an error shows.
const SHOWN_BYTES_MAX: usize = 1000;

/// Compiles `pattern` as Prometheus does: the syntax of Go, anchored at both ends, the dot matching newlines.
pub fn anchored_regex(pattern: &str) -> Result<regex::Regex, RegexError> {
    compile(pattern, &anchored(pattern)?)
}

fn anchored(pattern: &str) -> Result<String, RegexError> {
    Ok(format!("^(?s:{})$", re2::translate(pattern)?))
}

/// Compiles `pattern` in the syntax of Go, to be found anywhere in a text.
///
/// # Errors
/// It is no expression, or too large.
pub fn search_regex(pattern: &str) -> Result<regex::Regex, RegexError> {
    compile(pattern, &re2::translate(pattern)?)
}

fn compile(pattern: &str, translated: &str) -> Result<regex::Regex, RegexError> {
    let mut builder = regex::RegexBuilder::new(translated);
    let builder = builder.size_limit(REGEX_BYTES_MAX);
    builder.build().map_err(|error| {
        let shown = pattern.get(..pattern.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or(pattern);
        // The crate prints a picture of the expression; its last line is the cause.
        let text = error.to_string();
        let cause = match &error {
            regex::Error::CompiledTooBig(_) => "expression too large",
            _ => text.lines().last().map_or("", |line| line.trim_start_matches("error: ")),
        };
        RegexError { message: format!("{cause}: `{shown}`") }
    })
}

fn is_meta(byte: u8) -> bool {
    matches!(
        byte,
        b'\\'
            | b'.'
            | b'+'
            | b'*'
            | b'?'
            | b'('
            | b')'
            | b'|'
            | b'['
            | b']'
            | b'{'
            | b'}'
            | b'^'
            | b'$'
    )
}

fn is_literal(text: &str) -> bool {
    !text.bytes().any(is_meta)
}

/// The texts of `a|b|c`, where the expression is nothing else; escaped punctuation is common in host names.
fn literal_alternatives(pattern: &str) -> Option<Vec<String>> {
    let mut set = Vec::new();
    let mut text = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '|' => set.push(std::mem::take(&mut text)),
            '\\' => text.push(chars.next().filter(char::is_ascii_punctuation)?),
            c if u8::try_from(c).is_ok_and(is_meta) => return None,
            c => text.push(c),
        }
    }
    set.push(text);
    set.sort();
    set.dedup();
    Some(set)
}

/// All conditions that a series must meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The conditions; several may look at the same label.
    pub matchers: Vec<Matcher>,
}

impl Selector {
    /// A selector of these conditions.
    pub fn new(matchers: Vec<Matcher>) -> Self {
        Self { matchers }
    }

    /// Every series of a metric.
    pub fn metric(name: &str) -> Self {
        Self::new(vec![Matcher::equal(METRIC_NAME, name)])
    }

    /// Whether a series with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers
            .iter()
            .all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, matcher) in self.matchers.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{matcher}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let matcher = Matcher::new(MatchOp::Regex, "l", pattern).unwrap();
        for value in yes {
            assert!(matcher.matches(value), "{pattern} should match {value:?}");
        }
        for value in no {
            assert!(!matcher.matches(value), "{pattern} should not match {value:?}");
        }
    }

    #[test]
    fn regular_expressions_are_anchored() {
        check("5..", &["500", "5\n1"], &["1500", "5000", "50"]);
        check("a|b", &["a", "b"], &["ab", "", "c"]);
        check("api.*", &["api", "api\nx"], &["xapi"]);
        check("api.+", &["apix"], &["api"]);
        check(".*", &["", "x"], &[]);
        check(".+", &["x"], &[""]);
        check("", &[""], &["x"]);
        check("ab?c", &["ac", "abc"], &["abbc"]);
        check("a|bc.*", &["a", "bcd"], &["ad", "b"]);
        check("a\\.b|c", &["a.b", "c"], &["axb"]);
        check("(?i:ab)c", &["ABc"], &["abC"]);
    }

    #[test]
    fn an_expression_is_compiled_when_it_is_tried_unless_it_may_be_too_large() {
        let is_compiled = |matcher: &Matcher| match matcher.pattern.as_deref() {
            Some(Pattern::Regex { regex, .. }) => regex.compiled.get().is_some(),
            other => panic!("{other:?}"),
        };
        let matcher = Matcher::new(MatchOp::Regex, "l", "5.[02]").unwrap();
        assert!(!is_compiled(&matcher));
        assert_eq!(matcher.expression(), Some("^(?s:5.[02])$"));
        assert!(matcher.matches("500") && !matcher.matches("501"));
        assert!(is_compiled(&matcher));
        for pattern in ["a{1,9}", r"\pL+", &"a.".repeat(200)] {
            assert!(is_compiled(&Matcher::new(MatchOp::Regex, "l", pattern).unwrap()), "{pattern}");
        }
    }

    #[test]
    fn a_broken_expression_says_what_is_wrong() {
        let error = Matcher::new(MatchOp::Regex, "l", "a(").unwrap_err();
        assert_eq!(error.to_string(), "error parsing regexp: missing closing ): `a(`");
        assert!(Matcher::new(MatchOp::Regex, "a", ")|b(").is_err(), "it leaves its group");
    }

    #[test]
    fn a_missing_label_is_empty() {
        let labels = Labels::from_pairs([("__name__", "up")]);
        let matcher = Matcher::new(MatchOp::NotEqual, "job", "node").unwrap();
        assert!(Selector::new(vec![matcher]).matches(&labels));
        assert!(!Selector::new(vec![Matcher::equal("job", "node")]).matches(&labels));
    }

    proptest! {
        #[test]
        fn fast_paths_agree_with_the_regex_engine(
            pattern in "[ab.|*+?\\\\(){}0-2]{0,8}",
            value in "[ab.0-2\n]{0,6}",
        ) {
            if let Ok(regex) = anchored_regex(&pattern) {
                let matcher = Matcher::new(MatchOp::Regex, "l", &pattern).unwrap();
                prop_assert_eq!(matcher.matches(&value), regex.is_match(&value), "{}", pattern);
            }
        }
    }
}
