//! What matters where nobody says so: first metrics that rules read, since alerts depend on them,
//! then those that dashboards show or somebody asked for lately, then the rest.

use stint_model::{Span, Timestamp};

use crate::usage::{Catalogue, Source};

/// What was asked for within so long is used.
const LATELY: Span = Span(7 * Span::DAY.0);
/// What the series of a metric family are called beside its name.
const SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];

/// How much a metric matters, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// A rule reads it.
    Rules,
    /// A dashboard shows it, or a query asked for it within a week.
    Used,
    /// Nobody is known to look at it.
    Rest,
}

/// What is known to be used, at one time.
#[derive(Debug)]
pub struct Ranking {
    catalogue: Catalogue,
    now: Timestamp,
}

impl Ranking {
    /// What `catalogue` knows at `now`.
    pub fn new(catalogue: Catalogue, now: Timestamp) -> Self {
        Self { catalogue, now }
    }

    /// How much a metric family matters: as much as the series of it that matters most, since they
    /// are sent together.
    pub fn weight(&self, family: &str) -> Weight {
        let named = |suffix: &&str| self.weight_of(&format!("{family}{suffix}"));
        SUFFIXES.iter().map(named).min().unwrap_or(Weight::Rest)
    }

    /// How much a metric family is asked for: queries that are remembered, and each dashboard and rule once.
    pub fn asked(&self, family: &str) -> u64 {
        let asked = |suffix: &&str| {
            let users = self.catalogue.users(&format!("{family}{suffix}"));
            let others = users.names().iter().filter(|(of, _)| *of != Source::Query).count();
            users.count().saturating_add(others as u64)
        };
        SUFFIXES.iter().map(asked).sum()
    }

    fn weight_of(&self, metric: &str) -> Weight {
        let users = self.catalogue.users(metric);
        let has = |source| users.names().iter().any(|(of, _)| *of == source);
        let lately = users.last().is_some_and(|last| self.now.since(last) <= LATELY);
        if has(Source::Rule) {
            Weight::Rules
        } else if lately || has(Source::Dashboard) {
            Weight::Used
        } else {
            Weight::Rest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Known;
    use crate::usage::expression::uses;

    #[test]
    fn rules_come_first_and_old_queries_do_not_count() {
        let now = Timestamp(100 * Span::DAY.0);
        let known = |source, expr: &str, days: i64| Known {
            last: (source == Source::Query).then(|| now - Span(days * Span::DAY.0)),
            count: if source == Source::Query { 3 } else { 0 },
            ..Known::new(source, "x".into(), expr, uses(expr))
        };
        let all = vec![
            known(Source::Rule, "rate(a_total[5m]) > 1", 0),
            known(Source::Query, "a_total", 0),
            known(Source::Query, "b", 6),
            known(Source::Query, "c", 8),
            known(Source::Dashboard, "histogram_quantile(0.9, rate(h_bucket[5m]))", 0),
        ];
        let ranking = Ranking::new(Catalogue::new(all, None), now);
        let weights = ["a_total", "b", "c", "h", "d"].map(|family| ranking.weight(family));
        use Weight::{Rest, Rules, Used};
        assert_eq!(weights, [Rules, Used, Rest, Used, Rest]);
        let asked = ["a_total", "b", "h", "d"].map(|family| ranking.asked(family));
        assert_eq!(asked, [4, 3, 1, 0]);
    }
}
