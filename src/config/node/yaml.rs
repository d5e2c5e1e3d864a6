//! YAML to tree: anchors, aliases and merge keys resolved, one document.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as YamlSpan, StrInput};

use super::{Key, Kind, Node, Position, SyntaxError};

/// How deep a file may nest; deeper than any configuration, and no danger to the stack.
const DEPTH_MAX: usize = 64;
/// How many quoted texts of a file may have lines that begin too far to the left.
const MOVED_MAX: usize = 200;
/// How the parser says so.
const TOO_FAR_LEFT: &str = "invalid indentation in quoted scalar";
/// How many values a file may have once its aliases are written out.
const NODES_MAX: usize = 1_000_000;

/// Reads the only document of `text`; an empty one is [`Kind::Null`].
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    match documents(text)? {
        (root, None) => Ok(root),
        (_, Some(span)) => {
            Err(error(&span, "only one YAML document is read; remove the second one"))
        }
    }
}

/// Reads the first document of `text`, and tells whether it is the only one.
pub(crate) fn parse_first(text: &str) -> Result<(Node, bool), SyntaxError> {
    documents(text).map(|(root, second)| (root, second.is_none()))
}

/// The first document, and where the second one begins.
///
/// Go's decoder lets the lines of a quoted text begin anywhere, and files are written that way. Here
/// such lines are moved to the right, where they mean the same.
fn documents(text: &str) -> Result<(Node, Option<YamlSpan>), SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut moved: Option<String> = None;
    for _ in 0..MOVED_MAX {
        let now = moved.as_deref().unwrap_or(text);
        match read_documents(now) {
            Err(error) if error.message.ends_with(TOO_FAR_LEFT) => {
                match with_lines_moved(now, error.at) {
                    Some(better) => moved = Some(better),
                    None => return Err(error),
                }
            }
            outcome => return outcome,
        }
    }
    read_documents(moved.as_deref().unwrap_or(text))
}

/// `text` with the lines of the quoted text that begins at `at` moved to the right of its beginning;
/// `None` when they are there.
fn with_lines_moved(text: &str, at: Position) -> Option<String> {
    let line_start = text.split_inclusive('\n').take(at.line - 1).map(str::len).sum::<usize>();
    let line = text.get(line_start..)?;
    let start = line_start + line.char_indices().nth(at.column - 1)?.0;
    let quote = text.get(start..)?.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let inside = text.get(start + 1..)?;
    let mut characters = inside.char_indices().peekable();
    let mut end = inside.len();
    while let Some((place, character)) = characters.next() {
        if quote == '"' && character == '\\' {
            characters.next();
        } else if character == quote {
            if quote == '\'' && characters.next_if(|(_, next)| *next == quote).is_some() {
                continue;
            }
            end = place;
            break;
        }
    }
    let (quoted, rest) = inside.split_at_checked(end)?;
    let indent = " ".repeat(at.column);
    let mut changed = false;
    let lines: Vec<String> = quoted
        .split('\n')
        .enumerate()
        .map(|(number, line)| {
            let blanks = line.len() - line.trim_start_matches(' ').len();
            if number == 0 || blanks >= at.column || line.trim().is_empty() {
                return line.to_owned();
            }
            changed = true;
            format!("{indent}{line}")
        })
        .collect();
    changed.then(|| format!("{}{}{rest}", text.get(..=start).unwrap_or_default(), lines.join("\n")))
}

fn read_documents(text: &str) -> Result<(Node, Option<YamlSpan>), SyntaxError> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut root = None;
    let mut second = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) if root.is_some() => {
                second = Some(span);
                break;
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => root = Some(reader.node(event, &span, 0)?),
        }
    }
    let start = Position { line: 1, column: 1 };
    Ok((root.unwrap_or(Node { at: start, kind: Kind::Null, quoted: false }), second))
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, YamlSpan), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Ok((Event::StreamEnd, YamlSpan::default())),
        }
    }

    fn count(&mut self, nodes: usize, span: &YamlSpan) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err(error(span, "too many values once the aliases are written out"));
        }
        Ok(())
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: &YamlSpan,
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(error(span, "nested too deeply"));
        }
        self.count(1, span)?;
        let at = position(span);
        let quoted = is_text(&event);
        let (anchor, kind) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (anchor, if null { Kind::Null } else { Kind::Scalar(text.into_owned()) })
            }
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(error(span, "an alias cannot stand inside its own anchor"));
                };
                self.count(node.size(), span)?;
                return Ok(node);
            }
            _ => return Err(error(span, "a value is expected here")),
        };
        let node = Node { at, kind, quoted };
        if anchor > 0 {
            self.count(node.size(), span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Kind, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::List(items)),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Kind, SyntaxError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, _, _));
            let key = self.node(event, &span, depth + 1)?;
            let text = match key.kind {
                Kind::Scalar(text) => text,
                Kind::Null => String::new(),
                Kind::List(_) | Kind::Map(_) => {
                    return Err(error(&span, "a key must be a single value"));
                }
            };
            let (event, value_span) = self.next()?;
            let value = self.node(event, &value_span, depth + 1)?;
            if plain && text == "<<" {
                merged.push(value);
            } else if entries.iter().any(|(key, _)| key.text == text) {
                return Err(error(&span, &format!("key `{text}` is already set in this map")));
            } else {
                entries.push((Key { text, at: position(&span) }, value));
            }
        }
        for node in merged {
            merge(&mut entries, node)?;
        }
        Ok(Kind::Map(entries))
    }
}

/// Whether a scalar is a text, whatever it looks like: quoted, a block, or tagged as one.
fn is_text(event: &Event<'_>) -> bool {
    match event {
        Event::Scalar(_, style, _, None) => *style != ScalarStyle::Plain,
        Event::Scalar(_, _, _, Some(tag)) => tag.suffix == "str",
        _ => false,
    }
}

/// Adds what a `<<` key brings in and the map itself does not have.
fn merge(entries: &mut Vec<(Key, Node)>, node: Node) -> Result<(), SyntaxError> {
    let at = node.at;
    match node.kind {
        Kind::Map(more) => {
            for (key, value) in more {
                if !entries.iter().any(|(present, _)| present.text == key.text) {
                    entries.push((key, value));
                }
            }
            Ok(())
        }
        Kind::List(maps) if maps.iter().all(|map| matches!(map.kind, Kind::Map(_))) => {
            maps.into_iter().try_for_each(|map| merge(entries, map))
        }
        _ => Err(SyntaxError { at, message: "`<<` merges maps, and this is none".to_owned() }),
    }
}

fn position(span: &YamlSpan) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

fn error(span: &YamlSpan, message: &str) -> SyntaxError {
    SyntaxError { at: position(span), message: message.to_owned() }
}

fn scan_error(error: &ScanError) -> SyntaxError {
    let mark = error.marker();
    SyntaxError {
        at: Position { line: mark.line(), column: mark.col() + 1 },
        message: format!("not valid YAML: {}", error.info()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn show(node: &Node) -> String {
        let at = node.at;
        match &node.kind {
            Kind::Null => "null".to_owned(),
            Kind::Scalar(text) => format!("{text}@{}:{}", at.line, at.column),
            Kind::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Kind::Map(entries) => {
                let entries = entries.iter().map(|(k, v)| format!("{}={}", k.text, show(v)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn refuse(text: &str, line: usize, message: &str) {
        let error = parse(text).unwrap_err();
        assert_eq!((error.at.line, error.message.contains(message)), (line, true), "{error:?}");
    }

    #[test]
    fn values_know_their_place() {
        let root = parse("a: 1\nb:\n  - x\n  - {c: 'null'}\nd: ~\n").unwrap();
        assert_eq!(show(&root), "{a=1@1:4 b=[x@3:5 {c=null@4:9}] d=null}");
        assert_eq!(show(&parse("").unwrap()), "null");
        assert_eq!(show(&parse("# only a comment\n").unwrap()), "null");
    }

    #[test]
    fn aliases_and_merge_keys_are_written_out() {
        let root = parse("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\nc: *x\n").unwrap();
        assert_eq!(
            show(&root),
            "{a={p=1@1:11 q=2@1:17} b={q=3@4:6 p=1@1:11} c={p=1@1:11 q=2@1:17}}"
        );
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_line() {
        refuse("a: 1\na: 2\n", 2, "already set");
        refuse("a: 1\n---\nb: 2\n", 2, "only one YAML document");
        refuse("a: 1\n b: 2\n", 2, "not valid YAML");
        refuse("a: [1\n", 2, "not valid YAML");
        refuse("a: &x [*x]\n", 1, "");
        refuse(&"[".repeat(200), 1, "nested too deeply");
    }

    #[test]
    fn lines_of_a_quoted_text_may_begin_anywhere() {
        let root =
            parse("a:\n  b: \"one \\\" \n two\n\n\n  three\"\n  c: 'x ''\n y'\n  d: z\n").unwrap();
        assert_eq!(show(&root), "{a={b=one \" two\n\nthree@2:6 c=x ' y@7:6 d=z@9:6}}");
        refuse("a:\n  b: \"one\n two\n", 2, "not valid YAML");
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for at in 1..9 {
            let row = vec![format!("*a{}", at - 1); 10].join(", ");
            writeln!(text, "a{at}: &a{at} [{row}]").unwrap();
        }
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains("too many values"), "{error:?}");
    }
}
