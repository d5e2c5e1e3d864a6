//! What is wrong with a query, and where.

use std::fmt;

use super::ast::PosRange;

/// The most mistakes that are told apart.
pub(super) const ERRORS_MAX: usize = 100;

/// One mistake in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The bytes of the query that are wrong.
    pub pos: PosRange,
    /// What is wrong.
    pub message: String,
    /// The line on which the range starts, from 1; 0 when it starts outside the query.
    pub line: u32,
    /// The byte within the line, from 1.
    pub column: u32,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "invalid position: parse error: {}", self.message)
        } else {
            write!(f, "{}:{}: parse error: {}", self.line, self.column, self.message)
        }
    }
}

/// All mistakes that were found, at least one, in the order they were found.
///
/// It prints as its first one, `1:5: parse error: …`, as the API does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseErrors {
    first: ParseError,
    rest: Vec<ParseError>,
}

impl ParseErrors {
    /// `found` with the places computed from `text`; `None` when nothing was found.
    pub(super) fn new(text: &str, found: Vec<(PosRange, String)>) -> Option<Self> {
        // Beyond a few nobody reads on, and each costs a walk over the text.
        let mut errors = found.into_iter().take(ERRORS_MAX).map(|(pos, message)| {
            let (line, column) = line_and_column(text, pos.start);
            ParseError { pos, message, line, column }
        });
        Some(Self { first: errors.next()?, rest: errors.collect() })
    }

    /// One mistake.
    pub(super) fn single(text: &str, pos: PosRange, message: &str) -> Self {
        let (line, column) = line_and_column(text, pos.start);
        let first = ParseError { pos, message: message.to_owned(), line, column };
        Self { first, rest: Vec::new() }
    }

    /// The first mistake.
    pub fn first(&self) -> &ParseError {
        &self.first
    }

    /// All mistakes.
    pub fn iter(&self) -> impl Iterator<Item = &ParseError> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)
    }
}

impl std::error::Error for ParseErrors {}

/// Line and column (in bytes) of the byte at `offset` of `text`, both from 1; (0, 0) outside.
pub fn line_and_column(text: &str, offset: u32) -> (u32, u32) {
    let Some(before) = text.as_bytes().get(..offset as usize) else { return (0, 0) };
    let breaks = before.split(|byte| *byte == b'\n').count() - 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
    (breaks as u32 + 1, column as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_one() {
        assert_eq!(line_and_column("ab\ncd", 0), (1, 1));
        assert_eq!(line_and_column("ab\ncd", 2), (1, 3));
        assert_eq!(line_and_column("ab\ncd", 4), (2, 2));
        assert_eq!(line_and_column("ab\ncd", 5), (2, 3));
        assert_eq!(line_and_column("ab\ncd", 6), (0, 0));
    }
}
