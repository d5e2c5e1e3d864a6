//! A parsed file as a tree in which every value knows its line and column, whatever its syntax.

pub(super) mod json;
pub(super) mod toml;
pub(super) mod yaml;

/// Where something stands, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
    /// Whether it is a text by the way it is written: neither a number nor a truth value.
    pub(super) quoted: bool,
}

/// A value. Scalars stay text until a field says what it wants them to be, so that `5` is a fine
/// label value and `off` a fine job name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) at: Position,
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    pub(super) fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// How many nodes there are in this tree.
    fn size(&self) -> usize {
        match &self.kind {
            Kind::Null | Kind::Scalar(_) => 1,
            Kind::List(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Kind::Map(entries) => 1 + entries.iter().map(|(_, node)| node.size()).sum::<usize>(),
        }
    }
}

/// A file that cannot be read as a tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) at: Position,
    pub(super) message: String,
}
