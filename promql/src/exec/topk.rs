//! Aggregations that look at all series of a group at once: `topk`, `bottomk`, `limitk`,
//! `limit_ratio`, `quantile`, `count_values`.

use hashbrown::HashMap;
use stint_model::Labels;

use crate::column::{Column, Point, Scalar, Series};
use crate::error::QueryError;
use crate::exec::aggregate::{group_labels, is_kept};
use crate::exec::groups::GroupIndex;
use crate::exec::{Evaluator, Sink};
use crate::functions::over_time::quantile_of;
use crate::parse::ast::{Aggregate, AggregateOp, Expr, PosRange};

impl Evaluator<'_> {
    /// The series of an aggregation that keeps some series of each group as they are.
    pub(crate) fn choose_k(
        &self,
        aggregate: &Aggregate,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let (param, pos) = self.parameter(aggregate)?;
        let limits = self.limits(aggregate.op, &param, pos)?;
        let mut all = self.vector(&aggregate.expr)?;
        // Which of equals is chosen depends on their labels alone, not on the way they were found.
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        let groups = group(aggregate, &all);
        if aggregate.op == AggregateOp::LimitRatio {
            for mut series in all {
                let share = label_share(&series.labels);
                for (at, ratio) in limits.iter().enumerate() {
                    if !is_in_ratio(share, *ratio) {
                        series.column.clear(at);
                    }
                }
                self.emit(series, sink)?;
            }
            return Ok(());
        }
        let mut chosen: Vec<Column> =
            all.iter().map(|_| self.shared.column(self.steps.count)).collect();
        let mut order: Vec<usize> = Vec::with_capacity(all.len());
        for members in &groups {
            for (at, limit) in limits.iter().enumerate() {
                if *limit < 1.0 {
                    continue;
                }
                self.shared.check()?;
                let picked = self.pick(aggregate, &all, members, at, *limit as usize);
                for member in &picked {
                    if let (Some(point), Some(column)) =
                        (all.get(*member).and_then(|s| s.column.get(at)), chosen.get_mut(*member))
                    {
                        column.set(at, point.to_value());
                    }
                }
                if self.steps.count == 1 {
                    order.extend(&picked);
                }
            }
            if self.steps.count > 1 {
                order.extend(members);
            }
        }
        let mut results: Vec<Option<Series>> = all
            .into_iter()
            .zip(chosen)
            .map(|(series, column)| {
                let (labels, drop_name) = (series.labels, series.drop_name);
                self.shared.recycle(series.column);
                Some(Series { labels, drop_name, column })
            })
            .collect();
        for at in order {
            if let Some(series) = results.get_mut(at).and_then(Option::take) {
                self.emit(series, sink)?;
            }
        }
        Ok(())
    }

    /// The members of a group that are kept at a step, the first ones first.
    fn pick(
        &self,
        aggregate: &Aggregate,
        all: &[Series],
        members: &[usize],
        at: usize,
        limit: usize,
    ) -> Vec<usize> {
        let column = |member: &usize| all.get(*member).map(|series| &series.column);
        if aggregate.op == AggregateOp::Limitk {
            return members
                .iter()
                .filter(|member| column(member).is_some_and(|column| column.has(at)))
                .take(limit)
                .copied()
                .collect();
        }
        let top = aggregate.op == AggregateOp::Topk;
        // Members are in order: of equals the first ones are kept.
        let mut ranked: Vec<(u64, usize)> = Vec::with_capacity(members.len());
        for member in members {
            match column(member).and_then(|column| column.get(at)) {
                Some(Point::Float(value)) => ranked.push((rank(value, top), *member)),
                Some(Point::Histogram(_)) => self.ignored_histogram(aggregate),
                None => {}
            }
        }
        if let Some(last) = limit.checked_sub(1).filter(|last| *last < ranked.len()) {
            ranked.select_nth_unstable(last);
            ranked.truncate(limit);
        }
        ranked.sort_unstable();
        ranked.into_iter().take(limit).map(|(_, member)| member).collect()
    }

    fn parameter(&self, aggregate: &Aggregate) -> Result<(Scalar, PosRange), QueryError> {
        match &aggregate.param {
            Some(param) => Ok((self.scalar(param)?, param.pos())),
            None => Err(QueryError::execution("the aggregation needs a parameter")),
        }
    }

    /// The parameter at each step, checked.
    fn limits(
        &self,
        op: AggregateOp,
        param: &Scalar,
        pos: PosRange,
    ) -> Result<Vec<f64>, QueryError> {
        let mut limits = Vec::with_capacity(self.steps.count);
        let highest =
            (0..self.steps.count).map(|at| param.at(at)).fold(f64::NEG_INFINITY, f64::max);
        for at in 0..self.steps.count {
            let value = param.at(at);
            if op == AggregateOp::LimitRatio {
                if value.is_nan() {
                    return Err(QueryError::execution("Ratio value is NaN"));
                }
                let capped = value.clamp(-1.0, 1.0);
                if capped != value {
                    let (value, capped) = (go(value), go(capped));
                    let text = format!(
                        "ratio value should be between -1 and 1, got {value}, capping to {capped}"
                    );
                    self.shared.warn(&text, pos);
                }
                limits.push(capped);
                continue;
            }
            if value.is_nan() {
                return Err(QueryError::execution("Parameter value is NaN"));
            }
            if highest < 1.0 {
                // Nothing is wanted at any step, so how little does not matter.
                limits.push(0.0);
                continue;
            }
            if value < i64::MIN as f64 {
                let text = format!("Scalar value {} underflows int64", go(value));
                return Err(QueryError::Execution(text));
            }
            if value >= i64::MAX as f64 {
                let text = format!("Scalar value {} overflows int64", go(value));
                return Err(QueryError::Execution(text));
            }
            limits.push(value.trunc());
        }
        Ok(limits)
    }

    /// The series of `quantile`.
    pub(crate) fn quantile(
        &self,
        aggregate: &Aggregate,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let (param, pos) = self.parameter(aggregate)?;
        for at in 0..self.steps.count {
            let value = param.at(at);
            if !(0.0..=1.0).contains(&value) {
                self.shared.check()?;
                self.quantile_warning(value, pos);
            }
        }
        let all = self.vector(&aggregate.expr)?;
        let mut values: Vec<f64> = Vec::new();
        for members in group(aggregate, &all) {
            let mut column = self.shared.column(self.steps.count);
            for at in 0..self.steps.count {
                self.shared.check()?;
                values.clear();
                for series in members.iter().filter_map(|member| all.get(*member)) {
                    match series.column.get(at) {
                        Some(Point::Float(value)) => values.push(value),
                        Some(Point::Histogram(_)) => self.ignored_histogram(aggregate),
                        None => {}
                    }
                }
                if !values.is_empty() {
                    column.set_float(at, quantile_of(param.at(at), &mut values));
                }
            }
            self.emit(grouped(aggregate, &all, &members, column), sink)?;
        }
        for series in all {
            self.shared.recycle(series.column);
        }
        Ok(())
    }

    /// Warns about a quantile outside of 0 to 1.
    pub(crate) fn quantile_warning(&self, value: f64, pos: PosRange) {
        let text = format!("quantile value should be between 0 and 1, got {}", go(value));
        self.shared.warn(&text, pos);
    }

    /// The series of `count_values`.
    pub(crate) fn count_values(
        &self,
        aggregate: &Aggregate,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let Some(Expr::String(label)) = aggregate.param.as_ref().map(Expr::unparenthesized) else {
            return Err(QueryError::execution("count_values needs a label name"));
        };
        let Ok(name) = std::str::from_utf8(&label.value) else {
            let shown = crate::functions::quote_bytes(&label.value);
            return Err(QueryError::Execution(format!("invalid label name {shown}")));
        };
        if name.is_empty() {
            return Err(QueryError::execution("invalid label name \"\""));
        }
        let mut index: HashMap<Labels, usize, foldhash::fast::FixedState> = HashMap::default();
        let mut results: Vec<Series> = Vec::new();
        self.stream(&aggregate.expr, &mut |series| {
            for (at, point) in series.column.points() {
                let text = match point {
                    Point::Float(value) => fixed(value),
                    Point::Histogram(histogram) => histogram.to_string(),
                };
                // As any other label, that of the value goes when it is named in `without`.
                let labels = if aggregate.without {
                    let valued = series.labels.to_builder().set(name, &text).build();
                    group_labels(aggregate, &valued)
                } else {
                    let group = group_labels(aggregate, &series.labels);
                    group.to_builder().set(name, &text).build()
                };
                let slot = if let Some(slot) = index.get(&labels) {
                    *slot
                } else {
                    // There may be as many as there are points: each is charged at once.
                    self.shared.check()?;
                    let mut column = Column::new(self.steps.count);
                    column.charged = column.dense_weight() + 1;
                    self.shared.hold(column.charged)?;
                    index.insert(labels.clone(), results.len());
                    results.push(Series::new(labels, column));
                    results.len() - 1
                };
                if let Some(result) = results.get_mut(slot) {
                    let count = result.column.float(at).unwrap_or_default();
                    result.column.set_float(at, count + 1.0);
                    result.drop_name |= series.drop_name;
                }
            }
            self.shared.recycle(series.column);
            Ok(())
        })?;
        results.into_iter().try_for_each(|series| self.emit(series, sink))
    }
}

fn grouped(aggregate: &Aggregate, all: &[Series], members: &[usize], column: Column) -> Series {
    let mut members = members.iter().filter_map(|member| all.get(*member)).peekable();
    let labels = members.peek().map(|series| group_labels(aggregate, &series.labels));
    let drop_name = members.any(|series| series.drop_name);
    Series { labels: labels.unwrap_or_default(), drop_name, column }
}

/// Indexes of the series of each group, groups in order of their first series.
fn group(aggregate: &Aggregate, all: &[Series]) -> Vec<Vec<usize>> {
    let mut index = GroupIndex::default();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, series) in all.iter().enumerate() {
        let (slot, _) = index.number(&series.labels, |name| is_kept(aggregate, name));
        if slot == groups.len() {
            groups.push(Vec::new());
        }
        if let Some(group) = groups.get_mut(slot) {
            group.push(at);
        }
    }
    groups
}

/// A number from 0 to 1 that the labels alone decide.
fn label_share(labels: &Labels) -> f64 {
    // The hash is that of Prometheus, over each string behind its length, so that the same series
    // are chosen.
    let mut bytes = Vec::with_capacity(labels.size_bytes());
    for (name, value) in labels {
        for text in [name, value] {
            let length = text.len();
            if length < 255 {
                bytes.push(length as u8);
            } else {
                bytes.push(255);
                bytes.extend(length.to_le_bytes().iter().take(3));
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    xxhash_rust::xxh64::xxh64(&bytes, 0) as f64 / u64::MAX as f64
}

fn is_in_ratio(share: f64, ratio: f64) -> bool {
    (ratio >= 0.0 && share < ratio) || (ratio < 0.0 && share >= 1.0 + ratio)
}

/// Go's `%g` with the shortest digits.
pub(crate) fn go(value: f64) -> stint_model::histogram::Short {
    stint_model::histogram::Short(value)
}

/// Shortest digits, never an exponent.
fn fixed(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}
/// A number that is the smaller the sooner `value` is kept, the greatest ones first if `top`. What is
/// no number comes last, and both zeros are equal.
fn rank(value: f64, top: bool) -> u64 {
    if value.is_nan() {
        return u64::MAX;
    }
    // Adding to it makes a zero of the negative one.
    let bits = (value + 0.0).to_bits();
    let rising = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    if top { !rising } else { rising }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_are_in_the_order_of_values(
            values in prop::collection::vec(
                prop_oneof![
                    any::<f64>(),
                    prop::sample::select(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]),
                ],
                0..20,
            ),
            top: bool,
        ) {
            let mut want: Vec<(f64, usize)> = values.iter().copied().zip(0..).collect();
            want.sort_by(|(a, _), (b, _)| match (a.is_nan(), b.is_nan()) {
                (true, true) => std::cmp::Ordering::Equal,
                (true, false) => std::cmp::Ordering::Greater,
                (false, true) => std::cmp::Ordering::Less,
                _ if top => b.partial_cmp(a).unwrap(),
                _ => a.partial_cmp(b).unwrap(),
            });
            let mut got: Vec<(u64, usize)> =
                values.iter().map(|value| rank(*value, top)).zip(0..).collect();
            got.sort_unstable();
            let got: Vec<usize> = got.into_iter().map(|(_, at)| at).collect();
            let want: Vec<usize> = want.into_iter().map(|(_, at)| at).collect();
            prop_assert_eq!(got, want);
        }
    }
}
