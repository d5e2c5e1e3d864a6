//! Relabelling rules: labels in, labels or a drop out.
//!
//! A [`Rule`] is validated and compiled once, when the configuration is read; [`apply`] then runs
//! a list of them over a [`LabelsBuilder`]. Semantics and error texts are those of Prometheus
//! (`model/relabel`).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};

use self::expression::Expression;
use self::template::{Template, is_name_template};
use crate::labels::{LabelsBuilder, NameScheme, Quoted};
use crate::matcher::RegexError;

mod expression;
mod template;

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// Writes the expanded replacement to the target label when the source matches.
    #[default]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops what differs from the target label's value.
    KeepEqual,
    /// Drops what equals the target label's value.
    DropEqual,
    /// Writes a hash of the source, modulo a number, to the target label.
    HashMod,
    /// Copies the labels whose names match to names made from the replacement.
    LabelMap,
    /// Removes the labels whose names match.
    LabelDrop,
    /// Removes the labels whose names do not match.
    LabelKeep,
    /// Writes the source in lower case to the target label.
    Lowercase,
    /// Writes the source in upper case to the target label.
    Uppercase,
}

impl Action {
    const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// The name used in configuration files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }
}

impl FromStr for Action {
    type Err = RuleError;

    /// Reads an action's name; upper and lower case are the same.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| RuleError::UnknownAction(text.to_owned()))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The regular expression of a rule that gives none.
pub const DEFAULT_REGEX: &str = "(.*)";
/// The separator of a rule that gives none.
pub const DEFAULT_SEPARATOR: &str = ";";
/// The replacement of a rule that gives none.
pub const DEFAULT_REPLACEMENT: &str = "$1";

/// A rule as it is written in a configuration file, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleSpec {
    /// The labels whose values, joined, are the rule's input. An absent label is empty.
    pub source_labels: Vec<String>,
    /// What stands between the values.
    pub separator: String,
    /// Must match the whole input (or label name).
    pub regex: String,
    /// Divisor of `hashmod`.
    pub modulus: u64,
    /// The label written, or compared with.
    pub target_label: String,
    /// What is written; `$1`, `${1}` and `${name}` stand for groups of `regex`.
    pub replacement: String,
    /// What to do.
    pub action: Action,
}

impl Default for RuleSpec {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: DEFAULT_SEPARATOR.to_owned(),
            regex: DEFAULT_REGEX.to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: DEFAULT_REPLACEMENT.to_owned(),
            action: Action::Replace,
        }
    }
}

/// Why a rule is refused, in Prometheus' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No such action.
    #[error("unknown relabel action {}", Quoted(.0))]
    UnknownAction(String),
    /// `hashmod` without a divisor.
    #[error("relabel configuration for hashmod requires non-zero modulus")]
    NoModulus,
    /// The action writes a label, and none is named.
    #[error("relabel configuration for {0} action requires 'target_label' value")]
    NoTarget(Action),
    /// The label to write has no valid name.
    #[error("{target} is invalid 'target_label' for {action} action", target = Quoted(.0), action = .1)]
    InvalidTarget(String, Action),
    /// The names that `labelmap` would write are not valid.
    #[error("{to} is invalid 'replacement' for {action} action", to = Quoted(.0), action = .1)]
    InvalidReplacement(String, Action),
    /// A replacement where the action has no use for it.
    #[error("'replacement' can not be set for {0} action")]
    UselessReplacement(Action),
    /// More than the two fields that `keepequal` and `dropequal` know.
    #[error("{0} action requires only 'source_labels' and `target_label`, and no other fields")]
    OnlyLabels(Action),
    /// More than the one field that `labeldrop` and `labelkeep` know.
    #[error("{0} action requires only 'regex', and no other fields")]
    OnlyRegex(Action),
    /// Not a regular expression.
    #[error(transparent)]
    Regex(RegexError),
}

/// A validated, compiled rule.
#[derive(Clone)]
pub struct Rule {
    spec: RuleSpec,
    scheme: NameScheme,
    regex: Expression,
    target: Template,
    replacement: Template,
    /// Whether target or replacement refer to parts of what matched.
    needs_groups: bool,
}

impl Rule {
    /// Checks and compiles `spec`; label names written by it must be valid under `scheme`.
    pub fn new(spec: RuleSpec, scheme: NameScheme) -> Result<Self, RuleError> {
        validate(&spec, scheme)?;
        let regex = Expression::new(&spec.regex).map_err(RuleError::Regex)?;
        let target = Template::new(&spec.target_label, &regex);
        let replacement = Template::new(&spec.replacement, &regex);
        let needs_groups = target.needs_groups() || replacement.needs_groups();
        Ok(Self { spec, scheme, regex, target, replacement, needs_groups })
    }

    /// The rule as it was written.
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    fn input<'l>(&self, labels: &'l LabelsBuilder) -> Cow<'l, str> {
        let sources = match &*self.spec.source_labels {
            [] => return "".into(),
            [name] => return labels.get(name).unwrap_or_default().into(),
            sources => sources,
        };
        let mut input = String::new();
        for (at, name) in sources.iter().enumerate() {
            if at > 0 {
                input.push_str(&self.spec.separator);
            }
            input.push_str(labels.get(name).unwrap_or_default());
        }
        input.into()
    }

    fn run(&self, labels: &mut LabelsBuilder) -> Verdict {
        let keep = |keep: bool| if keep { Verdict::Keep } else { Verdict::Drop };
        let target = self.spec.target_label.as_str();
        match self.spec.action {
            Action::Keep => return keep(self.regex.is_match(&self.input(labels))),
            Action::Drop => return keep(!self.regex.is_match(&self.input(labels))),
            Action::KeepEqual | Action::DropEqual => {
                let equal = labels.get(target).unwrap_or_default() == self.input(labels);
                return keep(equal == (self.spec.action == Action::KeepEqual));
            }
            Action::Replace => self.replace(labels),
            Action::Lowercase => {
                let value = lower(&self.input(labels));
                labels.set(target, &value);
            }
            Action::Uppercase => {
                let value = upper(&self.input(labels));
                labels.set(target, &value);
            }
            Action::HashMod => {
                let value = hash(&self.input(labels)) % self.spec.modulus.max(1);
                labels.set(target, &value.to_string());
            }
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => labels.retain(|name| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name| self.regex.is_match(name)),
        }
        Verdict::Keep
    }

    fn replace(&self, labels: &mut LabelsBuilder) {
        let input = self.input(labels);
        let Some(groups) = self.regex.groups(&input, self.needs_groups) else { return };
        let target = self.target.expand(&groups);
        if self.scheme.is_label_name(&target) {
            let value = self.replacement.expand(&groups);
            labels.set(&target, &value);
        }
    }

    fn map_names(&self, labels: &mut LabelsBuilder) {
        let mut mapped = Vec::new();
        for (name, value) in labels.iter() {
            if let Some(groups) = self.regex.groups(name, self.needs_groups) {
                mapped.push((self.replacement.expand(&groups), value.to_owned()));
            }
        }
        // What has no name is no label.
        for (name, value) in mapped.into_iter().filter(|(name, _)| !name.is_empty()) {
            labels.set(&name, &value);
        }
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec && self.scheme == other.scheme
    }
}

impl Eq for Rule {}

impl std::hash::Hash for Rule {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.spec.hash(state);
        self.scheme.hash(state);
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

/// What a list of rules decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the labels as they are now.
    Keep,
    /// Forget the target or sample.
    Drop,
}

/// Runs `rules` in order over `labels`, which hold the outcome unless the verdict is to drop.
#[must_use]
pub fn apply(rules: &[Rule], labels: &mut LabelsBuilder) -> Verdict {
    for rule in rules {
        if rule.run(labels) == Verdict::Drop {
            return Verdict::Drop;
        }
    }
    Verdict::Keep
}

fn validate(spec: &RuleSpec, scheme: NameScheme) -> Result<(), RuleError> {
    use Action::{
        DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace,
        Uppercase,
    };
    let action = spec.action;
    let default_replacement = spec.replacement == DEFAULT_REPLACEMENT;
    let default_rest = spec.modulus == 0
        && spec.separator == DEFAULT_SEPARATOR
        && spec.replacement == DEFAULT_REPLACEMENT;
    if action == HashMod && spec.modulus == 0 {
        return Err(RuleError::NoModulus);
    }
    if matches!(action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual) {
        if spec.target_label.is_empty() {
            return Err(RuleError::NoTarget(action));
        }
        let valid = if action == Replace && spec.target_label.contains('$') {
            is_name_template(&spec.target_label, scheme)
        } else {
            scheme.is_label_name(&spec.target_label)
        };
        if !valid {
            return Err(RuleError::InvalidTarget(spec.target_label.clone(), action));
        }
    }
    if matches!(action, Lowercase | Uppercase | KeepEqual | DropEqual) && !default_replacement {
        return Err(RuleError::UselessReplacement(action));
    }
    if action == LabelMap && !is_name_template(&spec.replacement, scheme) {
        return Err(RuleError::InvalidReplacement(spec.replacement.clone(), action));
    }
    if matches!(action, KeepEqual | DropEqual) && (spec.regex != DEFAULT_REGEX || !default_rest) {
        return Err(RuleError::OnlyLabels(action));
    }
    let names_labels = !spec.source_labels.is_empty() || !spec.target_label.is_empty();
    if matches!(action, LabelDrop | LabelKeep) && (names_labels || !default_rest) {
        return Err(RuleError::OnlyRegex(action));
    }
    Ok(())
}

/// The last 8 of the 16 bytes of the MD5 sum, as Prometheus shards.
fn hash(input: &str) -> u64 {
    let sum: [u8; 16] = Md5::digest(input.as_bytes()).into();
    u128::from_be_bytes(sum) as u64
}

/// In capitals, character by character as Go has it: one that would become several stays.
fn upper(text: &str) -> String {
    let upper = |c: char| {
        let mut mapped = c.to_uppercase();
        mapped.next().filter(|_| mapped.next().is_none()).unwrap_or(c)
    };
    text.chars().map(upper).collect()
}

/// In small letters, character by character as Go has it.
fn lower(text: &str) -> String {
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

#[cfg(test)]
mod tests;
