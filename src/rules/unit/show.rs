//! What unit tests print: alerts, samples, and the difference of two texts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stint_model::labels::Quoted;
use stint_promql::QueryValue;

/// An alert as it is shown and compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shown {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

fn braces(texts: &BTreeMap<String, String>) -> String {
    let pairs = texts.iter().map(|(name, value)| format!("{name}={}", Quoted(value)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

/// Alerts below each other, indented.
pub(super) fn list(alerts: &[Shown]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    let mut text = String::from("[");
    for (number, alert) in alerts.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let (labels, annotations) = (braces(&alert.labels), braces(&alert.annotations));
        let indent = " ".repeat(12);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{comma}\n{indent}{number}:\n{indent}  Labels:{labels}\n{indent}  Annotations:{annotations}"
        );
    }
    text.push_str("\n            ]");
    text
}

/// Most lines on either side that are compared line by line.
const LINES_MAX: usize = 2000;

/// What has to be taken out of `expected` (red, with a minus) and put in (green, with a plus) to get `found`.
pub(super) fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let mut text = String::from("diff:");
    let mut line = |sign: char, line: &str| {
        let _ = match sign {
            '-' => write!(text, "\n\u{1b}[0;31m-{line}\u{1b}[0m"),
            '+' => write!(text, "\n\u{1b}[0;32m+{line}\u{1b}[0m"),
            _ => write!(text, "\n {line}"),
        };
    };
    if old.len() > LINES_MAX || new.len() > LINES_MAX {
        for old in old {
            line('-', old);
        }
        for new in new {
            line('+', new);
        }
        return text;
    }
    let common = common_lengths(&old, &new);
    let length = |i: usize, j: usize| common.get(i * (new.len() + 1) + j).copied().unwrap_or(0);
    let (mut i, mut j) = (0, 0);
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                line(' ', a);
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || length(i + 1, j) >= length(i, j + 1) => {
                line('-', a);
                i += 1;
            }
            (_, Some(b)) => {
                line('+', b);
                j += 1;
            }
            (_, None) => return text,
        }
    }
}

/// For each pair of places, how long the longest common sequence of lines behind them is.
fn common_lengths(old: &[&str], new: &[&str]) -> Vec<u16> {
    let width = new.len() + 1;
    let mut lengths = vec![0_u16; (old.len() + 1) * width];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let at = |i: usize, j: usize| lengths.get(i * width + j).copied().unwrap_or(0);
            let best = if a == b { at(i + 1, j + 1) + 1 } else { at(i + 1, j).max(at(i, j + 1)) };
            if let Some(slot) = lengths.get_mut(i * width + j) {
                *slot = best;
            }
        }
    }
    lengths
}

/// Series and their samples, as promtool prints a matrix.
pub(super) fn series(value: &QueryValue) -> String {
    let QueryValue::Matrix(series) = value else { return String::new() };
    let mut blocks: Vec<String> = series
        .iter()
        .map(|one| {
            let mut samples: Vec<_> =
                one.floats.iter().map(|(at, value)| (*at, value.to_string())).collect();
            let histograms = one.histograms.iter();
            samples.extend(histograms.map(|(at, histogram)| (*at, histogram.to_string())));
            samples.sort_by_key(|(at, _)| *at);
            let lines = samples.iter().map(|(at, value)| format!("{value} @[{}]", at.0));
            format!("{} =>\n{}", one.labels, lines.collect::<Vec<_>>().join("\n"))
        })
        .collect();
    blocks.sort();
    blocks.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_keeps_what_is_common() {
        let plain = difference("a\nb\nc\nd", "a\nc\nx\nd").replace("\u{1b}[0", "");
        assert_eq!(plain, "diff:\n a\n;31m-bm\n c\n;32m+xm\n d");
        assert_eq!(difference("a", "a"), "diff:\n a");
        assert!(difference("", "a").ends_with("+a\u{1b}[0m"));
        assert!(difference("a\nb", "").contains("-b"));
    }
}
