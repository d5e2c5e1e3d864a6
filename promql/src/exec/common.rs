//! Parts that a query asks for more than once: `a / (a + b)` reads `a` once.

use std::cell::RefCell;

use hashbrown::HashMap;

use crate::column::{Series, Steps};
use crate::error::QueryError;
use crate::exec::Evaluator;
use crate::parse::ast::{Expr, PosRange, ValueType};

/// Parts that take more text are not compared with others: their own parts are.
const TEXT_MAX: u32 = 2_000;

/// The sides of operators that a query has more than once.
#[derive(Default)]
pub(crate) struct CommonParts {
    /// How often each of them is written.
    written: HashMap<String, usize>,
    known: RefCell<HashMap<Key, Known>>,
}

/// What makes two evaluations the same: the text of the part, the steps, and whether histograms are
/// looked at for resets.
type Key = (String, (i64, i64, usize), bool);

struct Known {
    series: Vec<Series>,
    /// How often the part is still to be asked for, if every place asks once.
    left: usize,
}

impl CommonParts {
    /// Those of a query.
    pub(crate) fn of(expr: &Expr) -> Self {
        let mut parts = Self::default();
        parts.collect(expr);
        parts.written.retain(|_, times| *times > 1);
        parts
    }

    fn collect(&mut self, expr: &Expr) {
        if let Expr::Binary(binary) = expr {
            for side in [&binary.lhs, &binary.rhs] {
                if let Some(text) = text_of(side) {
                    *self.written.entry(text).or_insert(0) += 1;
                }
            }
        }
        for child in expr.children() {
            self.collect(child);
        }
    }

    /// How often the query has this side, where that is more than once.
    pub(crate) fn times(&self, side: &Expr) -> Option<usize> {
        self.find(side).map(|(_, times)| times)
    }

    /// The text of a side, and how often the query has it, where that is more than once.
    fn find(&self, side: &Expr) -> Option<(String, usize)> {
        if self.written.is_empty() {
            return None;
        }
        let text = text_of(side)?;
        let times = *self.written.get(&text)?;
        Some((text, times))
    }
}

/// The text by which a side of an operator is compared with others. Operators are not: their own
/// sides are.
fn text_of(side: &Expr) -> Option<String> {
    let PosRange { start, end } = side.pos();
    let side = side.unparenthesized();
    let is_part = !matches!(side, Expr::Binary(_)) && side.value_type() == ValueType::Vector;
    (is_part && end.saturating_sub(start) <= TEXT_MAX).then(|| side.to_string())
}

impl Evaluator<'_> {
    /// The series of a side of an operator, evaluated unless they are known.
    pub(crate) fn side(&self, side: &Expr) -> Result<Vec<Series>, QueryError> {
        let shared = self.shared;
        let Some((text, times)) = shared.common.find(side) else { return self.vector(side) };
        let Steps { start, step, count } = self.steps;
        let key = (text, (start, step, count), shared.detects_resets.get());
        if let Some(series) = self.known(&key)? {
            return Ok(series);
        }
        let before = shared.remarks_made();
        let series = self.vector(side)?;
        // A remark names its place, so the other places have to be evaluated to make theirs.
        if shared.remarks_made() == before {
            let weight = weight(&series);
            if shared.hold(weight).is_ok() {
                let known = Known { series: series.clone(), left: times - 1 };
                shared.common.known.borrow_mut().insert(key, known);
            } else {
                // There is no room for a copy.
                shared.release(weight);
            }
        }
        Ok(series)
    }

    /// A copy of known series, or those themselves when nobody else will want them.
    fn known(&self, key: &Key) -> Result<Option<Vec<Series>>, QueryError> {
        let mut all = self.shared.common.known.borrow_mut();
        let Some(known) = all.get_mut(key) else { return Ok(None) };
        known.left = known.left.saturating_sub(1);
        if known.left == 0 {
            return Ok(all.remove(key).map(|known| known.series));
        }
        self.shared.hold(weight(&known.series))?;
        Ok(Some(known.series.clone()))
    }
}

/// Points that the series are charged for.
fn weight(series: &[Series]) -> usize {
    series.iter().map(|series| series.column.charged).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Options, parse};

    fn common(text: &str) -> Vec<String> {
        let expr = parse(text, &Options::all()).unwrap();
        let mut parts: Vec<String> = CommonParts::of(&expr).written.into_keys().collect();
        parts.sort();
        parts
    }

    #[test]
    fn sides_that_are_written_twice_are_found() {
        assert_eq!(common("a / (a + b)"), ["a"]);
        assert_eq!(common("sum(rate(a[5m])) / (1 + (sum(rate(a[5m]))))"), ["sum(rate(a[5m]))"]);
        assert_eq!(common("a + b"), Vec::<String>::new());
        assert_eq!(common("a{x=\"1\"} - a offset 5m"), Vec::<String>::new());
        assert_eq!(common("sum(a - b) + count(a)"), Vec::<String>::new());
        assert_eq!(common("1 + 1"), Vec::<String>::new());
    }
}
