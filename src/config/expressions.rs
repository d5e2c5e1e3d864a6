//! What rule files evaluate, read leniently: the rest of a rule does not matter here.

use super::node::{Kind, Node, yaml};

/// An expression of a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleExpression {
    /// The group's name.
    pub group: String,
    /// The name of the alert or of what is recorded.
    pub name: String,
    /// The expression.
    pub expr: String,
    /// Whether it is an alert.
    pub is_alert: bool,
    /// The labels that the rule sets.
    pub labels: Vec<(String, String)>,
}

/// The expressions of a rule file in its order.
///
/// # Errors
/// The text is no YAML, or has no `groups`.
pub fn rule_expressions(text: &str) -> Result<Vec<RuleExpression>, String> {
    let root = yaml::parse(text)
        .map_err(|error| format!("{}:{}: {}", error.at.line, error.at.column, error.message))?;
    let Some(groups) = child(&root, "groups") else {
        return Err("a rule file has `groups`".to_owned());
    };
    let mut found = Vec::new();
    for group in items(groups) {
        let name = text_of(group, &["name"]);
        for rule in child(group, "rules").into_iter().flat_map(items) {
            found.push(RuleExpression {
                group: name.clone(),
                name: text_of(rule, &["record", "alert"]),
                expr: text_of(rule, &["expr"]),
                is_alert: child(rule, "alert").is_some(),
                labels: labels(rule),
            });
        }
    }
    Ok(found)
}

fn labels(rule: &Node) -> Vec<(String, String)> {
    match child(rule, "labels").map(|labels| &labels.kind) {
        Some(Kind::Map(entries)) => {
            let text = |(key, node): &(super::node::Key, Node)| match &node.kind {
                Kind::Scalar(text) => Some((key.text.clone(), text.clone())),
                _ => None,
            };
            entries.iter().filter_map(text).collect()
        }
        _ => Vec::new(),
    }
}

fn child<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match &node.kind {
        Kind::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node),
        _ => None,
    }
}

fn items(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        _ => &[],
    }
}

/// The text of the first of `keys` that there is.
fn text_of(node: &Node, keys: &[&str]) -> String {
    let scalar = |node: &Node| match &node.kind {
        Kind::Scalar(text) => Some(text.clone()),
        _ => None,
    };
    keys.iter().find_map(|key| child(node, key).and_then(scalar)).unwrap_or_default()
}
