//! The accumulators of one group of an aggregation, one for each step.

use stint_model::Labels;

use crate::column::Column;
use crate::kahan;
use crate::parse::ast::AggregateOp;

/// Flags of a group at a step.
pub(crate) const HISTOGRAM: u8 = 1;
pub(crate) const DROPPED: u8 = 2;
pub(crate) const INCREMENTAL: u8 = 4;
pub(crate) const RESET: u8 = 8;
pub(crate) const NOT_RESET: u8 = 16;

/// A group.
pub(crate) struct Group {
    pub(crate) labels: Labels,
    pub(crate) drop_name: bool,
    /// What is not as usual at each step; empty while everything is.
    pub(crate) flags: Vec<u8>,
    pub(crate) histograms: Vec<Option<Box<kahan::HistogramMean>>>,
    op: AggregateOp,
    /// Bitmap of the steps with floats.
    present: Vec<u64>,
    /// How many floats there were, where the operation wants to know.
    counts: Vec<f64>,
    values: Vec<f64>,
    /// What rounding lost (`sum`, `avg`), or the mean (`stddev`, `stdvar`).
    extras: Vec<f64>,
}

impl Group {
    /// A group of no series yet.
    pub(crate) fn new(labels: Labels, op: AggregateOp, steps: usize) -> Self {
        let list = |wanted: bool, start: f64| if wanted { vec![start; steps] } else { Vec::new() };
        let is_variance = matches!(op, AggregateOp::Stddev | AggregateOp::Stdvar);
        let is_counted = is_variance || matches!(op, AggregateOp::Avg | AggregateOp::Count);
        let start = match op {
            // Adding to -0 leaves everything as it is, -0 too; adding to 0 does not.
            AggregateOp::Sum | AggregateOp::Avg => -0.0,
            // Everything is better than NaN.
            AggregateOp::Max | AggregateOp::Min => f64::NAN,
            _ => 0.0,
        };
        let has_value = !matches!(op, AggregateOp::Count | AggregateOp::Group);
        let has_extra = is_variance || matches!(op, AggregateOp::Sum | AggregateOp::Avg);
        Self {
            labels,
            drop_name: false,
            flags: Vec::new(),
            histograms: Vec::new(),
            op,
            present: vec![0; steps.div_ceil(64)],
            counts: list(is_counted, 0.0),
            values: list(has_value, start),
            extras: list(has_extra, 0.0),
        }
    }

    /// Adds all floats of a column.
    pub(crate) fn add_floats(&mut self, column: &Column) {
        let (values, present) = column.float_parts();
        for (word_at, word) in present.iter().enumerate() {
            let base = word_at * 64;
            // Most columns have no gaps.
            let run = word.trailing_ones() as usize;
            if let Some(values) = values.get(base..base + run) {
                self.add_run(base, values);
            }
            let mut rest = if run == 64 { 0 } else { word >> run << run };
            while rest != 0 {
                let at = base + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                if let Some(values) = values.get(at..=at) {
                    self.add_run(at, values);
                }
            }
            if let Some(own) = self.present.get_mut(word_at) {
                *own |= word;
            }
        }
    }

    /// Adds one float.
    pub(crate) fn add_float(&mut self, at: usize, value: f64) {
        self.add_run(at, &[value]);
        if let Some(word) = self.present.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// Adds floats to neighbouring steps.
    fn add_run(&mut self, from: usize, input: &[f64]) {
        let range = from..from + input.len();
        let counts = self.counts.get_mut(range.clone()).unwrap_or_default();
        for count in counts.iter_mut() {
            *count += 1.0;
        }
        let values = self.values.get_mut(range.clone()).unwrap_or_default();
        let extras = self.extras.get_mut(range.clone()).unwrap_or_default();
        match self.op {
            AggregateOp::Sum => add_all(values, extras, input),
            AggregateOp::Avg => {
                let sums = values.iter().zip(input).map(|(total, value)| total + value);
                let overflows = sums.filter(|sum| sum.is_infinite()).count();
                if overflows > 0 || !self.flags.is_empty() {
                    self.add_to_means(from, input);
                } else {
                    add_all(values, extras, input);
                }
            }
            AggregateOp::Max => {
                for (best, value) in values.iter_mut().zip(input) {
                    *best = if *best < *value || best.is_nan() { *value } else { *best };
                }
            }
            AggregateOp::Min => {
                for (best, value) in values.iter_mut().zip(input) {
                    *best = if *best > *value || best.is_nan() { *value } else { *best };
                }
            }
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                let totals = values.iter_mut().zip(extras).zip(counts);
                for (((total, mean), count), value) in totals.zip(input) {
                    add_to_variance(total, mean, *count, *value);
                }
            }
            _ => {}
        }
    }

    /// Adds to means of which some may be too large to be sums.
    fn add_to_means(&mut self, from: usize, input: &[f64]) {
        for (at, value) in (from..).zip(input) {
            let (Some(count), Some(total), Some(lost)) =
                (self.counts.get(at), self.values.get_mut(at), self.extras.get_mut(at))
            else {
                return;
            };
            if *count == 1.0 {
                *total = *value;
                continue;
            }
            let incremental = self.flags.get(at).is_some_and(|flags| flags & INCREMENTAL != 0);
            let mut mean = kahan::Mean { count: *count, value: *total, lost: *lost, incremental };
            mean.add(*value);
            (*total, *lost) = (mean.value, mean.lost);
            if mean.incremental
                && let Some(flags) = self.flags_at(at)
            {
                *flags |= INCREMENTAL;
            }
        }
    }

    /// The flags of a step, to be changed.
    pub(crate) fn flags_at(&mut self, at: usize) -> Option<&mut u8> {
        if self.flags.is_empty() {
            self.flags.resize(self.present.len() * 64, 0);
        }
        self.flags.get_mut(at)
    }

    /// Whether there are floats at a step.
    pub(crate) fn has_float(&self, at: usize) -> bool {
        self.present.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// The result of the floats at a step that has some.
    pub(crate) fn float(&self, at: usize) -> f64 {
        let number = |list: &[f64]| list.get(at).copied().unwrap_or(f64::NAN);
        let (count, value, extra) =
            (number(&self.counts), number(&self.values), number(&self.extras));
        match self.op {
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

fn add_all(totals: &mut [f64], lost: &mut [f64], input: &[f64]) {
    for ((total, lost), value) in totals.iter_mut().zip(lost).zip(input) {
        kahan::add(*value, total, lost);
    }
}

/// Adds to a sum of squares around a mean; `count` includes the value.
fn add_to_variance(total: &mut f64, mean: &mut f64, count: f64, value: f64) {
    if count == 1.0 {
        *mean = value;
        *total = if value.is_finite() { 0.0 } else { f64::NAN };
    } else {
        let delta = value - *mean;
        *mean += delta / count;
        *total += delta * (value - *mean);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![
            2 => Just(None),
            10 => (-1e3_f64..1e3).prop_map(Some),
            1 => Just(Some(1e308)),
            1 => Just(Some(-0.0)),
            1 => Just(Some(f64::NAN)),
            1 => Just(Some(f64::NEG_INFINITY)),
        ]
    }

    /// The operation over the floats of one step.
    fn one_by_one(op: AggregateOp, values: &[f64]) -> f64 {
        let (first, rest) = values.split_first().unwrap();
        let better = |is_better: fn(f64, f64) -> bool| {
            rest.iter().fold(*first, |best, value| {
                if is_better(*value, best) || best.is_nan() { *value } else { best }
            })
        };
        match op {
            AggregateOp::Sum => {
                let (mut sum, mut lost) = (*first, 0.0);
                for value in rest {
                    kahan::add(*value, &mut sum, &mut lost);
                }
                sum + lost
            }
            AggregateOp::Avg => crate::functions::over_time::mean_of(values).unwrap(),
            AggregateOp::Max => better(|a, b| a > b),
            AggregateOp::Min => better(|a, b| a < b),
            AggregateOp::Count => values.len() as f64,
            _ => {
                let (mut total, mut mean) = (0.0, 0.0);
                for (at, value) in values.iter().enumerate() {
                    add_to_variance(&mut total, &mut mean, (at + 1) as f64, *value);
                }
                total / values.len() as f64
            }
        }
    }

    proptest! {
        #[test]
        fn columns_add_up_as_single_values_do(
            rows in proptest::collection::vec(proptest::collection::vec(value(), 70), 1..6),
        ) {
            for op in [
                AggregateOp::Sum,
                AggregateOp::Avg,
                AggregateOp::Max,
                AggregateOp::Min,
                AggregateOp::Count,
                AggregateOp::Stdvar,
            ] {
                let mut group = Group::new(Labels::default(), op, 70);
                for row in &rows {
                    let mut column = Column::new(70);
                    for (at, value) in row.iter().enumerate() {
                        if let Some(value) = value {
                            column.set_float(at, *value);
                        }
                    }
                    group.add_floats(&column);
                }
                for at in 0..70 {
                    let values: Vec<f64> = rows.iter().filter_map(|row| row[at]).collect();
                    prop_assert_eq!(group.has_float(at), !values.is_empty());
                    if !values.is_empty() {
                        let (got, expected) = (group.float(at), one_by_one(op, &values));
                        let same = got.to_bits() == expected.to_bits()
                            || got.is_nan() && expected.is_nan();
                        prop_assert!(same, "{op:?} of {values:?}: {got} instead of {expected}");
                    }
                }
            }
        }
    }
}
