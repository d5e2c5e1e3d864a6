//! Remarks that accompany an answer: warnings and infos, each text once.

use std::collections::BTreeSet;

/// The most remarks of one kind that an answer shows.
const SHOWN_MAX: usize = 10;

/// The most remarks of one kind that are kept at all, the first in order: a query may make one at each
/// of millions of steps.
const KEPT_MAX: usize = 1000;

/// Remarks on a result, as the HTTP API shows them (`PromQL warning: … (1:5)`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The result is probably not what was wanted. Sorted, each text once.
    pub warnings: Vec<String>,
    /// The result may be not what was wanted. Sorted, each text once.
    pub infos: Vec<String>,
}

impl Annotations {
    /// At most ten remarks of each kind, and one that counts the rest, as the HTTP API shows them.
    #[must_use]
    pub fn capped(mut self) -> Self {
        cap(&mut self.warnings, "warning");
        cap(&mut self.infos, "info");
        self
    }
}

fn cap(texts: &mut Vec<String>, kind: &str) {
    if texts.len() > SHOWN_MAX {
        let omitted = texts.len() - SHOWN_MAX;
        texts.truncate(SHOWN_MAX);
        texts.push(format!("{omitted} more {kind} annotations omitted"));
    }
}

/// Collects remarks during an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    warnings: BTreeSet<String>,
    infos: BTreeSet<String>,
    made: usize,
}

impl Remarks {
    /// How often something was remarked.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// Adds a warning about the place `at`, given as ` (line:column)`.
    pub(crate) fn warn(&mut self, text: &str, at: &str) {
        self.made += 1;
        keep(&mut self.warnings, format!("PromQL warning: {text}{at}"));
    }

    /// Adds an info about the place `at`, given as ` (line:column)`.
    pub(crate) fn info(&mut self, text: &str, at: &str) {
        self.made += 1;
        keep(&mut self.infos, format!("PromQL info: {text}{at}"));
    }

    /// The collected remarks.
    pub(crate) fn finish(self) -> Annotations {
        Annotations {
            warnings: self.warnings.into_iter().collect(),
            infos: self.infos.into_iter().collect(),
        }
    }
}

fn keep(texts: &mut BTreeSet<String>, text: String) {
    texts.insert(text);
    if texts.len() > KEPT_MAX {
        texts.pop_last();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_do_not_pile_up() {
        let mut remarks = Remarks::default();
        for n in (0..100_000).rev() {
            remarks.warn(&format!("{n:06}"), "");
        }
        let warnings = remarks.finish().warnings;
        assert_eq!(warnings.len(), KEPT_MAX);
        assert_eq!(warnings[0], "PromQL warning: 000000");
    }

    #[test]
    fn many_remarks_are_counted() {
        let warnings = (0..12).map(|n| n.to_string()).collect();
        let capped = Annotations { warnings, infos: vec![] }.capped();
        assert_eq!(capped.warnings.len(), 11);
        assert_eq!(
            capped.warnings.last().map(String::as_str),
            Some("2 more warning annotations omitted")
        );
    }

    #[test]
    fn equal_remarks_are_one() {
        let mut remarks = Remarks::default();
        remarks.warn("odd", " (1:2)");
        remarks.warn("odd", " (1:2)");
        assert_eq!(remarks.finish().warnings, ["PromQL warning: odd (1:2)"]);
    }
}
