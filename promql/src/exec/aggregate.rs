//! Aggregations that fold: each series goes into its group's accumulators and is forgotten.

use hashbrown::HashMap;
use stint_model::Labels;
use stint_model::histogram::{Combined, FloatHistogram, ResetHint};

use crate::column::{Column, Point, Series};
use crate::error::QueryError;
use crate::exec::{Evaluator, Sink};
use crate::kahan;
use crate::parse::ast::{Aggregate, AggregateOp};

/// Flags of a group at a step.
const FLOAT: u8 = 1;
const HISTOGRAM: u8 = 2;
const DROPPED: u8 = 4;
const INCREMENTAL: u8 = 8;
const RESET: u8 = 16;
const NOT_RESET: u8 = 32;

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
        let mut index: HashMap<Labels, usize, foldhash::fast::FixedState> = HashMap::default();
        let mut groups: Vec<Group> = Vec::new();
        self.stream(&aggregate.expr, &mut |series| {
            let key = group_labels(aggregate, &series.labels);
            let slot = if let Some(slot) = index.get(&key) {
                *slot
            } else {
                self.shared.hold(self.steps.count)?;
                groups.push(Group::new(key.clone(), self.steps.count));
                index.insert(key, groups.len() - 1);
                groups.len() - 1
            };
            if let Some(group) = groups.get_mut(slot) {
                group.drop_name |= series.drop_name;
                self.fold_column(aggregate, group, &series.column);
            }
            self.shared.recycle(series.column);
            Ok(())
        })?;
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
        let op = aggregate.op;
        if !column.has_histograms() {
            // The loops over floats only are the hot ones.
            for (at, value) in column.floats() {
                group.add_float(op, at, value);
            }
            return;
        }
        for (at, point) in column.points() {
            match point {
                Point::Float(value) => group.add_float(op, at, value),
                Point::Histogram(histogram) => match op {
                    AggregateOp::Count | AggregateOp::Group => group.add_float(op, at, 0.0),
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
        let (Some(flags), Some(sum)) = (group.flags.get_mut(at), group.histograms.get_mut(at))
        else {
            return;
        };
        *flags |= HISTOGRAM;
        *flags |= match histogram.reset_hint {
            ResetHint::Reset => RESET,
            ResetHint::NotReset => NOT_RESET,
            ResetHint::Unknown | ResetHint::Gauge => 0,
        };
        let pos = aggregate.expr.pos();
        let Some(sum) = sum else {
            let is_mean = aggregate.op == AggregateOp::Avg;
            *sum = Some(Box::new(kahan::HistogramMean::new(histogram, is_mean)));
            return;
        };
        let Ok(combined) = sum.add(histogram) else {
            *flags |= DROPPED;
            self.shared.warn(
                "vector contains a mix of histograms with exponential and custom buckets schemas",
                pos,
            );
            return;
        };
        let hints_conflict = *flags & (RESET | NOT_RESET) == RESET | NOT_RESET;
        self.remark_on_combined(Combined { hints_conflict, ..combined }, "aggregation", pos);
    }

    fn finish(&self, aggregate: &Aggregate, group: &Group, column: &mut Column) {
        let op = aggregate.op;
        for at in 0..self.steps.count {
            let flags = group.flags.get(at).copied().unwrap_or_default();
            if flags & (FLOAT | HISTOGRAM) == 0 {
                continue;
            }
            if flags & FLOAT != 0 && flags & HISTOGRAM != 0 {
                self.shared.warn(
                    "encountered a mix of histograms and floats for aggregation",
                    aggregate.expr.pos(),
                );
                continue;
            }
            if flags & FLOAT != 0 {
                column.set_float(at, group.float(op, at));
            } else if flags & DROPPED == 0
                && let Some(Some(sum)) = group.histograms.get(at)
            {
                column.set_histogram(at, sum.finish().into());
            }
        }
    }
}

/// The labels by which a series is grouped, which are also the group's labels.
pub(crate) fn group_labels(aggregate: &Aggregate, labels: &Labels) -> Labels {
    let named = |name: &str| aggregate.grouping.iter().any(|label| label == name);
    if aggregate.without {
        labels.retain(|name| {
            !named(name) && name != "__name__" && name != "__type__" && name != "__unit__"
        })
    } else if aggregate.grouping.is_empty() {
        Labels::default()
    } else {
        labels.retain(named)
    }
}

/// The accumulators of a group, one per step.
struct Group {
    labels: Labels,
    drop_name: bool,
    flags: Vec<u8>,
    counts: Vec<f64>,
    values: Vec<f64>,
    /// What rounding lost (`sum`, `avg`), or the mean (`stddev`, `stdvar`).
    extras: Vec<f64>,
    histograms: Vec<Option<Box<kahan::HistogramMean>>>,
}

impl Group {
    fn new(labels: Labels, count: usize) -> Self {
        Self {
            labels,
            drop_name: false,
            flags: vec![0; count],
            counts: vec![0.0; count],
            values: vec![0.0; count],
            extras: vec![0.0; count],
            histograms: Vec::new(),
        }
    }

    #[inline]
    fn add_float(&mut self, op: AggregateOp, at: usize, value: f64) {
        let (Some(flags), Some(count), Some(total), Some(extra)) = (
            self.flags.get_mut(at),
            self.counts.get_mut(at),
            self.values.get_mut(at),
            self.extras.get_mut(at),
        ) else {
            return;
        };
        let first = *flags & FLOAT == 0;
        *flags |= FLOAT;
        *count += 1.0;
        match op {
            AggregateOp::Sum => {
                if first {
                    *total = value;
                } else {
                    kahan::add(value, total, extra);
                }
            }
            AggregateOp::Avg => {
                if first {
                    *total = value;
                    return;
                }
                let mut mean = kahan::Mean {
                    count: *count,
                    value: *total,
                    lost: *extra,
                    incremental: *flags & INCREMENTAL != 0,
                };
                mean.add(value);
                (*total, *extra) = (mean.value, mean.lost);
                if mean.incremental {
                    *flags |= INCREMENTAL;
                }
            }
            AggregateOp::Max if first || *total < value || total.is_nan() => *total = value,
            AggregateOp::Min if first || *total > value || total.is_nan() => *total = value,
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                if first {
                    *extra = value;
                    *total = if value.is_finite() { 0.0 } else { f64::NAN };
                } else {
                    let delta = value - *extra;
                    *extra += delta / *count;
                    *total += delta * (value - *extra);
                }
            }
            _ => {}
        }
    }

    fn float(&self, op: AggregateOp, at: usize) -> f64 {
        let number = |list: &[f64]| list.get(at).copied().unwrap_or(f64::NAN);
        let (count, value, extra) =
            (number(&self.counts), number(&self.values), number(&self.extras));
        match op {
            AggregateOp::Count => count,
            AggregateOp::Group => 1.0,
            AggregateOp::Sum => value + extra,
            AggregateOp::Avg if self.flags.get(at).is_some_and(|f| f & INCREMENTAL != 0) => {
                value + extra
            }
            AggregateOp::Avg => value / count + extra / count,
            AggregateOp::Stddev => (value / count).sqrt(),
            AggregateOp::Stdvar => value / count,
            _ => value,
        }
    }
}
