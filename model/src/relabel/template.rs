//! What a rule writes: text with references to groups of its expression.

use std::borrow::Cow;

use super::expression::{Expression, Groups};
use crate::labels::NameScheme;

/// A replacement, cut into literals and group numbers.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    Group(usize),
}

impl Template {
    pub(super) fn new(text: &str, expression: &Expression) -> Self {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                literal.push('$');
                rest = after;
            } else if let Some((name, after)) = take_reference(after) {
                // A group that does not exist expands to nothing.
                if let Some(group) = expression.group(name) {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Group(group));
                }
                rest = after;
            } else {
                literal.push('$');
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Self(pieces)
    }

    /// Whether it refers to parts of what matched.
    pub(super) fn needs_groups(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Group(1..)))
    }

    /// The text, where it refers to nothing.
    pub(super) fn literal(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    pub(super) fn expand(&self, groups: &Groups<'_>) -> Cow<'_, str> {
        if let Some(text) = self.literal() {
            return text.into();
        }
        let mut out = String::new();
        for piece in &self.0 {
            out.push_str(match piece {
                Piece::Literal(text) => text,
                Piece::Group(at) => groups.get(*at),
            });
        }
        out.into()
    }
}

/// Whether `template` can become a label name: under the legacy scheme, name characters mixed
/// with `$name` and `${name}`.
pub(super) fn is_name_template(template: &str, scheme: NameScheme) -> bool {
    if scheme == NameScheme::Utf8 {
        return scheme.is_label_name(template);
    }
    let mut rest = template;
    let mut first = true;
    while let Some(c) = rest.chars().next() {
        if c == '$' {
            let Some((_, tail)) = rest.get(1..).and_then(take_reference) else { return false };
            rest = tail;
        } else if c == '_' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit()) {
            rest = rest.get(1..).unwrap_or_default();
        } else {
            return false;
        }
        first = false;
    }
    !first
}

/// Splits `name` or `{name}` off the text behind a dollar sign; the longest run of letters,
/// digits and underscores is the name, so `$1x` names the group `1x`.
fn take_reference(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{');
    let body = inner.unwrap_or(text);
    let end = body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len());
    let (name, rest) = body.split_at(end);
    if name.is_empty() {
        return None;
    }
    if inner.is_some() { Some((name, rest.strip_prefix('}')?)) } else { Some((name, rest)) }
}
