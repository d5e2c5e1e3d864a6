//! TOML to tree.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Key, Kind, Node, Position, SyntaxError};

/// Reads `text`; all its mistakes when there are some.
pub(crate) fn parse(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let errors = errors.iter().map(|error| SyntaxError {
            at: position(text, error.span().map_or(0, |span| span.start)),
            message: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
        });
        return Err(errors.collect());
    }
    Ok(Node {
        at: Position { line: 1, column: 1 },
        kind: table_kind(text, table.into_inner()),
        quoted: false,
    })
}

fn table_kind(text: &str, table: DeTable<'_>) -> Kind {
    let entries = table.into_iter().map(|(key, value)| {
        let at = position(text, key.span().start);
        (Key { text: key.into_inner().into_owned(), at }, node(text, value))
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(key, _)| key.at);
    Kind::Map(entries)
}

fn node(text: &str, value: Spanned<DeValue<'_>>) -> Node {
    let at = position(text, value.span().start);
    let value = value.into_inner();
    let quoted = matches!(value, DeValue::String(_));
    let kind = match value {
        DeValue::String(string) => Kind::Scalar(string.into_owned()),
        DeValue::Integer(number) => Kind::Scalar(match number.radix() {
            10 => number.as_str().to_owned(),
            radix => i64::from_str_radix(number.as_str(), radix)
                .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string()),
        }),
        DeValue::Float(number) => Kind::Scalar(number.as_str().to_owned()),
        DeValue::Boolean(value) => Kind::Scalar(value.to_string()),
        DeValue::Datetime(time) => Kind::Scalar(time.to_string()),
        DeValue::Array(items) => {
            Kind::List(items.into_iter().map(|item| node(text, item)).collect())
        }
        DeValue::Table(table) => table_kind(text, table),
    };
    Node { at, kind, quoted }
}

fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_place() {
        let root = parse("[a]\nb = 0x10\nc = [\"x\", true]\n").unwrap();
        let Kind::Map(entries) = root.kind else { panic!("a table is a map") };
        let Kind::Map(inner) = &entries[0].1.kind else { panic!("a table is a map") };
        assert_eq!(
            inner[0].1,
            Node {
                at: Position { line: 2, column: 5 },
                kind: Kind::Scalar("16".into()),
                quoted: false
            }
        );
        let Kind::List(items) = &inner[1].1.kind else { panic!("an array is a list") };
        assert_eq!(
            items[1],
            Node {
                at: Position { line: 3, column: 11 },
                kind: Kind::Scalar("true".into()),
                quoted: false
            }
        );
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let errors = parse("a = \nb = 1\nb = 2\n").unwrap_err();
        let lines: Vec<usize> = errors.iter().map(|error| error.at.line).collect();
        assert_eq!(lines, [1, 3], "{errors:?}");
    }
}
