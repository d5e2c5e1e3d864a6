//! `sort` and its relatives, which order the series of an instant query.

use std::cmp::Ordering;

use crate::column::Series;
use crate::error::QueryError;
use crate::exec::{Evaluator, Sink};
use crate::parse::ast::{Call, Expr};

impl Evaluator<'_> {
    /// The series of a sorting function.
    pub(crate) fn sort(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        if self.shared.is_range && self.shared.query.0 != self.shared.query.1 {
            self.shared.warn(
                "sort is ineffective for range queries since results are always ordered by labels",
                call.pos,
            );
        }
        let Some((vector, rest)) = call.args.split_first() else {
            return Err(QueryError::execution("an argument is missing"));
        };
        let mut all = self.vector(vector)?;
        let descending = call.function.name.ends_with("_desc");
        if call.function.name.starts_with("sort_by_label") {
            let labels: Vec<String> = rest
                .iter()
                .filter_map(|arg| match arg.unparenthesized() {
                    Expr::String(text) => Some(text.text().into_owned()),
                    _ => None,
                })
                .collect();
            all.sort_by(|a, b| {
                let order = by_labels(a, b, &labels);
                if descending { order.reverse() } else { order }
            });
        } else {
            for series in &mut all {
                series.column.filter_floats(|_, _| true);
            }
            all.sort_by(|a, b| {
                let (a, b) = (a.column.float(0), b.column.float(0));
                let (a, b) = (a.unwrap_or(f64::NAN), b.unwrap_or(f64::NAN));
                if descending { by_value(b, a, true) } else { by_value(a, b, false) }
            });
        }
        all.into_iter().try_for_each(|series| self.emit(series, sink))
    }
}

/// Rising, NaN after everything else in either direction.
fn by_value(a: f64, b: f64, reversed: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => {
            if reversed {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if reversed {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
    }
}

fn by_labels(a: &Series, b: &Series, labels: &[String]) -> Ordering {
    for label in labels {
        let (a, b) = (a.labels.get(label), b.labels.get(label));
        let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
        if a != b {
            return if natural_less(a, b) { Ordering::Less } else { Ordering::Greater };
        }
    }
    a.labels.cmp(&b.labels)
}

/// Natural order: runs of digits compare as numbers.
fn natural_less(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (mut i, mut j) = (0, 0);
    loop {
        let (Some(x), Some(y)) = (a.get(i), b.get(j)) else { return a.len() - i < b.len() - j };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number_a, end_a) = digits(a, i);
            let (number_b, end_b) = digits(b, j);
            let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
            if order != Ordering::Equal {
                return order == Ordering::Less;
            }
            // Equal numbers: the one with fewer leading zeros comes first.
            if end_a - i != end_b - j {
                return end_a - i < end_b - j;
            }
            (i, j) = (end_a, end_b);
        } else if x == y {
            i += 1;
            j += 1;
        } else {
            // A run of text that a number ends comes before one that goes on.
            let inside_text = i.checked_sub(1).and_then(|before| a.get(before));
            return match inside_text {
                Some(before) if !before.is_ascii_digit() && x.is_ascii_digit() => true,
                Some(before) if !before.is_ascii_digit() && y.is_ascii_digit() => false,
                _ => x < y,
            };
        }
    }
}

/// The run of digits at `from` without leading zeros, and where it ends.
fn digits(text: &[u8], from: usize) -> (&[u8], usize) {
    let rest = text.get(from..).unwrap_or_default();
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let zeros = rest.iter().take(length).take_while(|byte| **byte == b'0').count();
    (rest.get(zeros..length).unwrap_or_default(), from + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_labels_compare_as_numbers() {
        assert!(natural_less("node2", "node10"));
        assert!(!natural_less("node10", "node2"));
        assert!(natural_less("node", "node1"));
        assert!(natural_less("a1b2", "a1b10"));
        assert!(natural_less("1", "01"));
        assert!(natural_less("schema_5", "schema_-2"));
        assert!(!natural_less("schema_-2", "schema_0"));
        assert!(natural_less("1-", "1a") && natural_less("-2", "2") && natural_less("1", "a"));
    }
}
