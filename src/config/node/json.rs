//! JSON to tree. Values do not know their own place, only that of the file's start: discovery
//! files are written by programs.

use serde_json::Value;

use super::{Key, Kind, Node, Position, SyntaxError};

const START: Position = Position { line: 1, column: 1 };

/// Reads `text`.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(node(value)),
        Err(error) => Err(SyntaxError {
            at: Position { line: error.line(), column: error.column() },
            message: format!("not valid JSON: {error}"),
        }),
    }
}

fn node(value: Value) -> Node {
    let quoted = value.is_string();
    let kind = match value {
        Value::Null => Kind::Null,
        Value::Bool(value) => Kind::Scalar(value.to_string()),
        Value::Number(number) => Kind::Scalar(number.to_string()),
        Value::String(text) => Kind::Scalar(text),
        Value::Array(items) => Kind::List(items.into_iter().map(node).collect()),
        Value::Object(entries) => {
            let entry = |(text, value)| (Key { text, at: START }, node(value));
            Kind::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { at: START, kind, quoted }
}
