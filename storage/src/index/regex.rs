//! Which strings of a dictionary a matcher means, without testing them one by one.
//!
//! A regular expression is compiled to an automaton that is run along the front-coded strings:
//! what a string shares with the one before is not read again, and once no match is possible the
//! rest is skipped.

use memchr::memmem::Finder;
use regex_automata::dfa::{StartKind, dense};
use regex_automata::{nfa::thompson, util::syntax};
use stint_model::{MatchOp, Matcher};

use super::containing::Piece;
use super::dictionary::Dictionary;
use super::groups::GROUP;
use super::literal;
use super::walk::{GaveUp, Walk};
use crate::codec::Corruption;

/// Below this many strings, testing them one by one is faster than building an automaton.
const STRINGS_MIN: u32 = 256;
/// Expressions whose automaton takes more memory than this are tested string by string.
const AUTOMATON_BYTES_MAX: usize = 1 << 20;

/// The numbers, rising, of the strings whose text the matcher names: equal to its value or in its
/// expression. The negative operators are read as the positive ones.
pub fn named(dictionary: &Dictionary<'_>, matcher: &Matcher) -> Result<Vec<u32>, Corruption> {
    if matches!(matcher.op(), MatchOp::Equal | MatchOp::NotEqual) {
        return Ok(dictionary.find(matcher.value())?.into_iter().collect());
    }
    if let Some(set) = matcher.set_of_values() {
        let mut numbers = Vec::with_capacity(set.len());
        for text in set {
            numbers.extend(dictionary.find(text)?);
        }
        numbers.sort_unstable();
        return Ok(numbers);
    }
    let range = dictionary.prefix_range(matcher.literal_prefix())?;
    // The prefix is the whole expression, or the expression is anything.
    if matcher.value().strip_suffix(".*") == Some(matcher.literal_prefix()) {
        return Ok(range.collect());
    }
    if range.end - range.start >= STRINGS_MIN
        && let Some(piece) = rare_piece(dictionary, matcher, &range)?
    {
        return test_containing(dictionary, matcher, range, &piece);
    }
    if range.end - range.start >= STRINGS_MIN
        && let Some(automaton) = matcher.expression().and_then(build)
        && let Some(numbers) = run(&automaton, dictionary, range.clone())?
    {
        return Ok(numbers);
    }
    test_each(dictionary, matcher, range)
}

/// A piece of text that few strings of the range seem to have, and all that the matcher names.
fn rare_piece(
    dictionary: &Dictionary<'_>,
    matcher: &Matcher,
    range: &std::ops::Range<u32>,
) -> Result<Option<Vec<u8>>, Corruption> {
    let pieces = matcher.expression().map(literal::required).unwrap_or_default();
    if pieces.is_empty() {
        return Ok(None);
    }
    let step = ((range.end - range.start) as usize / literal::SAMPLES).max(1);
    let samples = range.clone().step_by(step).map(|number| dictionary.get(number));
    let samples: Vec<String> = samples.collect::<Result<_, _>>()?;
    Ok(literal::rarest(pieces, &samples))
}

/// Tests the strings of such groups as may have `piece`.
fn test_containing(
    dictionary: &Dictionary<'_>,
    matcher: &Matcher,
    range: std::ops::Range<u32>,
    piece: &[u8],
) -> Result<Vec<u32>, Corruption> {
    let Some(wanted) = Piece::new(piece) else { return test_each(dictionary, matcher, range) };
    let finder = Finder::new(piece);
    let (mut numbers, mut text) = (Vec::new(), Vec::new());
    for group in range.start / GROUP as u32..range.end.div_ceil(GROUP as u32) {
        if !wanted.may_be_in(dictionary.groups().get(group)?, &mut text)? {
            continue;
        }
        let first = group * GROUP as u32;
        let inside = first.max(range.start)..range.end.min(first.saturating_add(GROUP as u32));
        let has_it = |text: &[u8]| finder.find(text).is_some();
        test(dictionary, matcher, inside, has_it, &mut numbers)?;
    }
    Ok(numbers)
}

fn test_each(
    dictionary: &Dictionary<'_>,
    matcher: &Matcher,
    range: std::ops::Range<u32>,
) -> Result<Vec<u32>, Corruption> {
    let mut numbers = Vec::new();
    test(dictionary, matcher, range, |_| true, &mut numbers)?;
    Ok(numbers)
}

/// Adds to `numbers` the strings of `range` that the matcher names, of those that `may` be.
fn test(
    dictionary: &Dictionary<'_>,
    matcher: &Matcher,
    range: std::ops::Range<u32>,
    may: impl Fn(&[u8]) -> bool,
    numbers: &mut Vec<u32>,
) -> Result<(), Corruption> {
    let negative = matcher.op().is_negative();
    let mut text = Vec::new();
    let start = range.start;
    dictionary.walk(range, |number, next| {
        next.apply(&mut text);
        let is_named = |text: &[u8]| {
            std::str::from_utf8(text).is_ok_and(|text| matcher.matches(text) != negative)
        };
        if number >= start && may(&text) && is_named(&text) {
            numbers.push(number);
        }
    })
}

/// The automaton of `expression`, which is anchored; `None` where it is too large.
pub(super) fn build(expression: &str) -> Option<dense::DFA<Vec<u32>>> {
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .dfa_size_limit(Some(AUTOMATON_BYTES_MAX))
                .determinize_size_limit(Some(AUTOMATON_BYTES_MAX)),
        )
        .syntax(syntax::Config::new())
        .thompson(thompson::Config::new().nfa_size_limit(Some(AUTOMATON_BYTES_MAX)))
        .build(expression)
        .ok()
}

/// The strings of `range` that match; `None` when the automaton gives up.
fn run(
    automaton: &dense::DFA<Vec<u32>>,
    dictionary: &Dictionary<'_>,
    range: std::ops::Range<u32>,
) -> Result<Option<Vec<u32>>, Corruption> {
    let Some(mut along) = Walk::new(automaton) else { return Ok(None) };
    let mut numbers = Vec::new();
    let mut gave_up = false;
    let start = range.start;
    dictionary.walk(range, |number, next| match along.step(next.shared, next.rest) {
        Ok(true) if number >= start => numbers.push(number),
        Ok(_) => {}
        Err(GaveUp) => gave_up = true,
    })?;
    Ok((!gave_up).then_some(numbers))
}

#[cfg(test)]
mod tests {
    use super::super::dictionary;
    use super::*;
    use proptest::prelude::*;

    fn check(texts: &[&str], matcher: &Matcher) {
        let (file, section) = dictionary::write(0, texts.iter().copied()).unwrap();
        let dictionary = Dictionary::new(&file, section, texts.len() as u32);
        let negative = matcher.op().is_negative();
        let expected: Vec<u32> = (0..texts.len() as u32)
            .filter(|number| matcher.matches(texts[*number as usize]) != negative)
            .collect();
        assert_eq!(named(&dictionary, matcher).unwrap(), expected, "{matcher}");
        let all = 0..dictionary.len();
        for piece in matcher.expression().map(literal::required).unwrap_or_default() {
            if matcher.set_of_values().is_none() {
                let found = test_containing(&dictionary, matcher, all.clone(), &piece);
                assert_eq!(found.unwrap(), expected, "{matcher}");
            }
        }
        if let Some(automaton) = matcher.expression().and_then(build)
            && matcher.set_of_values().is_none()
            && matcher.op() == MatchOp::Regex
        {
            assert_eq!(run(&automaton, &dictionary, all).unwrap(), Some(expected), "{matcher}");
        }
    }

    proptest! {
        #[test]
        fn it_names_what_the_matcher_matches(
            texts in proptest::collection::btree_set("[ab.\n]{0,4}", 0..400),
            pattern in "[ab.|*+?(){}1]{0,6}",
            op in 0_usize..4,
        ) {
            let op = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex][op];
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            if let Ok(matcher) = Matcher::new(op, "l", &pattern) {
                check(&texts, &matcher);
            }
        }
    }

    #[test]
    fn many_strings_take_the_automaton() {
        let texts: Vec<String> = (0..5000).map(|i| format!("pod-{i:05}-x")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for pattern in [
            ".*-012.*",
            ".+4321-x",
            ".*77-x",
            "pod-0.*[13]-x",
            ".*7.-x",
            "pod-(1|2)...0-x",
            "\\w+-00\\d+-x",
            ".+",
            ".*",
        ] {
            check(&texts, &Matcher::new(MatchOp::Regex, "pod", pattern).unwrap());
        }
    }

    #[test]
    fn what_no_automaton_can_do_is_tested_one_by_one() {
        let texts: Vec<String> = (0..500).map(|i| format!("a b{i:03}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        // Its automaton would remember where the last b's stood.
        let matcher = Matcher::new(MatchOp::Regex, "l", ".*b.{20}|a b0.[02]").unwrap();
        assert!(matcher.expression().and_then(build).is_none());
        check(&texts, &matcher);
    }
}
