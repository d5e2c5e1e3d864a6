//! Texts that a regular expression requires: strings without them need not be tested.

use memchr::memmem::Finder;
use regex_syntax::hir::{Hir, HirKind};

/// Strings by which it is judged how many have a piece of text.
pub(crate) const SAMPLES: usize = 128;

/// Few are no more than one in so many.
const FEW: usize = 8;

/// Pieces that are judged.
const PIECES_MAX: usize = 4;

/// The bytes of each piece of literal text that every string has that `expression` matches, the
/// longest first. None where the expression is not understood.
pub(crate) fn required(expression: &str) -> Vec<Vec<u8>> {
    let Ok(hir) = regex_syntax::Parser::new().parse(expression) else { return Vec::new() };
    let mut pieces = Pieces::default();
    pieces.add(&hir);
    pieces.end();
    pieces.done.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    pieces.done
}

/// Of pieces of text, all of which a string must have, the one that fewest of `samples` have, where that
/// seem to be few.
pub(crate) fn rarest<T: AsRef<[u8]>>(pieces: Vec<Vec<u8>>, samples: &[T]) -> Option<Vec<u8>> {
    let having = |piece: &[u8]| {
        let finder = Finder::new(piece);
        samples.iter().filter(|text| finder.find(text.as_ref()).is_some()).count()
    };
    let counted = pieces.into_iter().take(PIECES_MAX).map(|piece| (having(&piece), piece));
    let rarest = counted.min_by_key(|(count, _)| *count);
    rarest.filter(|(count, _)| *count <= samples.len() / FEW).map(|(_, piece)| piece)
}

/// Calls `found` with the places, rising, of those strings that contain what `finder` finds, which is not
/// empty. They lie one behind the other in `text`, and end at `ends`.
pub(crate) fn containing(
    text: &[u8],
    ends: &[u32],
    finder: &Finder<'_>,
    mut found: impl FnMut(usize),
) {
    let length = finder.needle().len();
    let (mut from, mut next) = (0, 0);
    while let Some(at) = text.get(from..).and_then(|text| finder.find(text)) {
        let at = from + at;
        let later = ends.get(next..).unwrap_or_default();
        next += later.partition_point(|end| *end as usize <= at);
        let end = ends.get(next).map_or(text.len(), |end| *end as usize);
        if at + length <= end {
            found(next);
            from = end;
        } else {
            // From one string into the next.
            from = at + 1;
        }
    }
}

#[derive(Default)]
struct Pieces {
    done: Vec<Vec<u8>>,
    /// What the piece at hand has so far.
    open: Vec<u8>,
}

impl Pieces {
    fn add(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => self.open.extend_from_slice(&literal.0),
            HirKind::Capture(capture) => self.add(&capture.sub),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.add(part)),
            HirKind::Repetition(repetition) if repetition.min > 0 => {
                self.end();
                self.add(&repetition.sub);
                self.end();
            }
            HirKind::Repetition(_) | HirKind::Class(_) | HirKind::Alternation(_) => self.end(),
        }
    }

    fn end(&mut self) {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stint_model::{MatchOp, Matcher};

    fn pieces(pattern: &str) -> Vec<String> {
        let matcher = Matcher::new(MatchOp::Regex, "l", pattern).unwrap();
        let pieces = required(matcher.expression().unwrap());
        pieces.into_iter().map(|piece| String::from_utf8(piece).unwrap()).collect()
    }

    #[test]
    fn pieces_of_text_are_found() {
        assert_eq!(pieces(".*node.+ab."), ["node", "ab"]);
        assert_eq!(pieces("a.bcd"), ["bcd", "a"]);
        assert_eq!(pieces(r"x(a\.b)+y?[0-9]z"), ["a.b", "x", "z"]);
        assert_eq!(pieces("(no|yes)-end"), ["-end"]);
        assert_eq!(pieces("nodes?.*"), ["node"]);
        for pattern in ["a*", "(?i)node", "a|b.*", "x{0,2}", "[ab]"] {
            assert!(pieces(pattern).is_empty(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn what_matches_has_them(pattern in "[abc.|*+?(){}1]{0,8}", text in "[abc.]{0,6}") {
            if let Ok(matcher) = Matcher::new(MatchOp::Regex, "l", &pattern)
                && let Some(expression) = matcher.expression()
                && matcher.matches(&text)
            {
                for piece in required(expression) {
                    let piece = String::from_utf8(piece).unwrap();
                    prop_assert!(text.contains(&piece), "{} in {} for {}", piece, text, pattern);
                }
            }
        }
    }
}
