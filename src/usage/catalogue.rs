//! Everything known to be used, by metric and label.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use stint_model::{MatchOp, Matcher, Timestamp};

use super::expression::{Name, Use};

/// Where an expression comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Somebody asked it here.
    Query,
    /// A rule evaluates it.
    Rule,
    /// A dashboard shows it.
    Dashboard,
}

/// One expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Where it comes from.
    pub source: Source,
    /// What shows it: dashboard and panel, group and rule; the expression itself for a query.
    pub what: String,
    /// The expression as it is written there.
    pub expr: String,
    /// What it touches; empty when it cannot be read.
    pub uses: Vec<Use>,
    /// Why it cannot be read.
    pub unread: Option<String>,
    /// When it was last asked, for queries.
    pub last: Option<Timestamp>,
    /// How often it was asked, for queries.
    pub count: u64,
}

impl Known {
    /// An expression, and what became of the attempt to read it.
    pub fn new(source: Source, what: String, expr: &str, uses: Result<Vec<Use>, String>) -> Self {
        let (uses, unread) = match uses {
            Ok(uses) => (uses, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Self { source, what, expr: expr.to_owned(), uses, unread, last: None, count: 0 }
    }
}

/// Everything known, to be asked by metric.
#[derive(Debug, Default)]
pub struct Catalogue {
    known: Vec<Known>,
    /// Uses by the metric they name: numbers of expressions, and of their uses.
    by_name: HashMap<String, Vec<(usize, usize)>>,
    by_pattern: Vec<(Matcher, usize, usize)>,
    /// Uses of labels, whatever the metric.
    of_any: Vec<(usize, usize)>,
    /// Since when queries are remembered.
    queries_since: Option<Timestamp>,
}

/// Who uses a metric.
#[derive(Debug, Default)]
pub struct Users<'a> {
    all: Vec<(&'a Known, &'a Use)>,
    any: Vec<(&'a Known, &'a Use)>,
}

impl Catalogue {
    /// A catalogue of these expressions; `queries_since` is when queries began to be remembered.
    pub fn new(known: Vec<Known>, queries_since: Option<Timestamp>) -> Self {
        let mut made = Self { queries_since, ..Self::default() };
        for (at, one) in known.iter().enumerate() {
            for (number, used) in one.uses.iter().enumerate() {
                match &used.name {
                    Name::Is(name) => {
                        made.by_name.entry(name.clone()).or_default().push((at, number));
                    }
                    Name::Like(pattern) => {
                        // It was compiled when the expression was read.
                        let matcher = Matcher::new(MatchOp::Regex, "__name__", pattern);
                        made.by_pattern.extend(matcher.map(|matcher| (matcher, at, number)));
                    }
                    Name::Any => made.of_any.push((at, number)),
                }
            }
        }
        made.known = known;
        made
    }

    /// All expressions.
    pub fn known(&self) -> &[Known] {
        &self.known
    }

    /// Since when queries are remembered; nothing when they are not.
    pub fn queries_since(&self) -> Option<Timestamp> {
        self.queries_since
    }

    /// How many expressions come from there.
    pub fn count(&self, source: Source) -> u64 {
        self.known.iter().filter(|known| known.source == source).count() as u64
    }

    /// Who uses the metric of this name.
    pub fn users(&self, metric: &str) -> Users<'_> {
        let named = self.by_name.get(metric).into_iter().flatten().copied();
        let matched = self.by_pattern.iter().filter(|(matcher, ..)| matcher.matches(metric));
        let all = named.chain(matched.map(|(_, at, number)| (*at, *number)));
        Users { all: self.resolve(all), any: self.resolve(self.of_any.iter().copied()) }
    }

    fn resolve(&self, uses: impl Iterator<Item = (usize, usize)>) -> Vec<(&Known, &Use)> {
        let one = |(at, number): (usize, usize)| {
            let known = self.known.get(at)?;
            Some((known, known.uses.get(number)?))
        };
        uses.filter_map(one).collect()
    }
}

impl<'a> Users<'a> {
    /// Whether anybody uses the metric by its name. What selects by labels alone (as tools do that
    /// count everything) makes no metric used.
    pub fn is_used(&self) -> bool {
        !self.all.is_empty()
    }

    /// Whether anybody needs the label of the metric.
    pub fn needs(&self, label: &str) -> bool {
        self.all.iter().chain(&self.any).any(|(_, used)| used.needs.contains(label))
    }

    /// Who uses the metric, each once.
    pub fn names(&self) -> BTreeSet<(Source, &'a str)> {
        self.all.iter().map(|(known, _)| (known.source, known.what.as_str())).collect()
    }

    /// Who needs the label of the metric, each once.
    pub fn names_needing(&self, label: &str) -> BTreeSet<(Source, &'a str)> {
        let needing = self.all.iter().filter(|(_, used)| used.needs.contains(label));
        needing.map(|(known, _)| (known.source, known.what.as_str())).collect()
    }

    /// When a query last used the metric.
    pub fn last(&self) -> Option<Timestamp> {
        self.all.iter().filter_map(|(known, _)| known.last).max()
    }

    /// How many queries used it.
    pub fn count(&self) -> u64 {
        self.all.iter().map(|(known, _)| known.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::expression::uses;

    fn known(source: Source, expr: &str) -> Known {
        Known::new(source, format!("shown by {expr}"), expr, uses(expr))
    }

    #[test]
    fn a_metric_is_used_by_name_and_by_pattern_but_not_by_labels_alone() {
        let all = vec![
            known(Source::Rule, "sum by (a) (m_total)"),
            known(Source::Query, "sum by (b) ({__name__=~\"m_.+\"})"),
            known(Source::Query, "count by (c) ({__name__=~\".+\"})"),
        ];
        let catalogue = Catalogue::new(all, None);
        let users = catalogue.users("m_total");
        assert!(users.is_used() && users.needs("a") && users.needs("b") && users.needs("c"));
        assert!(!users.needs("d"));
        assert_eq!(users.names().len(), 2);
        let needing: Vec<_> = users.names_needing("a").into_iter().collect();
        assert_eq!(needing, [(Source::Rule, "shown by sum by (a) (m_total)")]);
        assert!(!catalogue.users("other").is_used());
        assert!(catalogue.users("m_x").is_used());
        assert_eq!(catalogue.count(Source::Query), 2);
    }
}
