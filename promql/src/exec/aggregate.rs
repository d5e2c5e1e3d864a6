//! Aggregations that fold: each series goes into its group's accumulators and is forgotten.

use stint_model::Labels;
use stint_model::histogram::{Combined, FloatHistogram, ResetHint};

use crate::column::{Column, Point, Series, is_metadata};
use crate::error::QueryError;
use crate::exec::accumulate::{DROPPED, Group, HISTOGRAM, NOT_RESET, RESET};
use crate::exec::decide::{Care, care, orders_input};
use crate::exec::groups::GroupIndex;
use crate::exec::{Evaluator, Sink};
use crate::kahan;
use crate::parse::ast::{Aggregate, AggregateOp};

impl Evaluator<'_> {
    /// The series of an aggregation.
    pub(crate) fn aggregate(
        &self,
        aggregate: &Aggregate,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        match aggregate.op {
            AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => self.choose_k(aggregate, sink),
            AggregateOp::Quantile => self.quantile(aggregate, sink),
            AggregateOp::CountValues => self.count_values(aggregate, sink),
            _ => self.fold(aggregate, sink),
        }
    }

    fn fold(&self, aggregate: &Aggregate, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let mut index = GroupIndex::default();
        let mut groups: Vec<Group> = Vec::new();
        let Care { names, unordered, all_labels } = care(aggregate, self.shared.options);
        let grouping = (!all_labels).then_some(aggregate);
        let input = Evaluator { names, unordered, grouping, ..*self };
        let mut take = |series: Series| {
            let keep = |name: &str| is_kept(aggregate, name);
            let (slot, new) = if grouping.is_some() {
                index.number_of_shared(&series.labels, keep)
            } else {
                index.number(&series.labels, keep)
            };
            if let Some(labels) = new {
                self.shared.hold(self.steps.count)?;
                groups.push(Group::new(labels, aggregate.op, self.steps.count));
            }
            if let Some(group) = groups.get_mut(slot) {
                group.drop_name |= series.drop_name;
                self.fold_column(aggregate, group, &series.column);
            }
            self.shared.recycle(series.column);
            Ok(())
        };
        if orders_input(aggregate) {
            let mut all = input.vector(&aggregate.expr)?;
            all.sort_by(|a, b| a.labels.cmp(&b.labels));
            all.into_iter().try_for_each(take)?;
        } else {
            input.stream(&aggregate.expr, &mut take)?;
        }
        if input.unordered {
            groups.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        for group in groups {
            let mut column = self.shared.column(self.steps.count);
            self.finish(aggregate, &group, &mut column);
            let series = Series { labels: group.labels, drop_name: group.drop_name, column };
            self.emit(series, sink)?;
            self.shared.release(self.steps.count);
        }
        Ok(())
    }

    fn fold_column(&self, aggregate: &Aggregate, group: &mut Group, column: &Column) {
        if !column.has_histograms() && self.shared.options.rewrites.column_folds {
            group.add_floats(column);
            return;
        }
        for (at, point) in column.points() {
            match point {
                Point::Float(value) => group.add_float(at, value),
                Point::Histogram(histogram) => match aggregate.op {
                    AggregateOp::Count | AggregateOp::Group => group.add_float(at, 0.0),
                    AggregateOp::Sum | AggregateOp::Avg => {
                        self.add_histogram(aggregate, group, at, histogram);
                    }
                    _ => self.ignored_histogram(aggregate),
                },
            }
        }
    }

    /// Notes that an aggregation knows nothing of histograms.
    pub(crate) fn ignored_histogram(&self, aggregate: &Aggregate) {
        let text = format!("ignored histogram in {} aggregation", aggregate.op.as_str());
        self.shared.info(&text, aggregate.expr.pos());
    }

    fn add_histogram(
        &self,
        aggregate: &Aggregate,
        group: &mut Group,
        at: usize,
        histogram: &FloatHistogram,
    ) {
        if group.histograms.is_empty() {
            group.histograms.resize(self.steps.count, None);
        }
        let hint = match histogram.reset_hint {
            ResetHint::Reset => RESET,
            ResetHint::NotReset => NOT_RESET,
            ResetHint::Unknown | ResetHint::Gauge => 0,
        };
        let Some(flags) = group.flags_at(at) else { return };
        *flags |= HISTOGRAM | hint;
        let hints_conflict = *flags & (RESET | NOT_RESET) == RESET | NOT_RESET;
        let pos = aggregate.expr.pos();
        let Some(sum) = group.histograms.get_mut(at) else { return };
        let Some(sum) = sum else {
            let is_mean = aggregate.op == AggregateOp::Avg;
            *sum = Some(Box::new(kahan::HistogramMean::new(histogram, is_mean)));
            return;
        };
        let Ok(combined) = sum.add(histogram) else {
            if let Some(flags) = group.flags_at(at) {
                *flags |= DROPPED;
            }
            self.shared.warn(
                "vector contains a mix of histograms with exponential and custom buckets schemas",
                pos,
            );
            return;
        };
        self.remark_on_combined(Combined { hints_conflict, ..combined }, "aggregation", pos);
    }

    fn finish(&self, aggregate: &Aggregate, group: &Group, column: &mut Column) {
        for at in 0..self.steps.count {
            let flags = group.flags.get(at).copied().unwrap_or_default();
            let (has_float, has_histogram) = (group.has_float(at), flags & HISTOGRAM != 0);
            if has_float && has_histogram {
                self.shared.warn(
                    "encountered a mix of histograms and floats for aggregation",
                    aggregate.expr.pos(),
                );
            } else if has_float {
                column.set_float(at, group.float(at));
            } else if has_histogram
                && flags & DROPPED == 0
                && let Some(Some(sum)) = group.histograms.get(at)
            {
                column.set_histogram(at, sum.finish().into());
            }
        }
    }
}

/// Whether the label of this name is one of those by which series are grouped.
pub(crate) fn is_kept(aggregate: &Aggregate, name: &str) -> bool {
    let is_named = aggregate.grouping.iter().any(|label| label == name);
    if aggregate.without { !is_named && !is_metadata(name) } else { is_named }
}

/// The labels by which a series is grouped, which are also the group's labels.
pub(crate) fn group_labels(aggregate: &Aggregate, labels: &Labels) -> Labels {
    labels.retain(|name| is_kept(aggregate, name))
}
