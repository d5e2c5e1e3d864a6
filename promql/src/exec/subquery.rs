//! Subqueries: an inner evaluation on its own grid of steps, whose columns become samples.

use std::sync::Arc;

use stint_model::histogram::ResetHint;

use crate::column::{Point, Samples, Series, Steps, merge_equal};
use crate::error::QueryError;
use crate::exec::Evaluator;
use crate::exec::decide::has_distinct_labels;
use crate::exec::window::SamplesSink;
use crate::parse::ast::{Subquery, ValueType};

impl Evaluator<'_> {
    /// Hands the samples of a subquery to `sink`, series by series.
    pub(crate) fn subquery_samples(
        &self,
        subquery: &Subquery,
        sink: &mut SamplesSink<'_>,
    ) -> Result<(), QueryError> {
        let (step, range, reference) = self.subquery_shape(subquery)?;
        // The grid is aligned to multiples of the step, and open on the left.
        let after = reference.time(self.steps.start).saturating_sub(range);
        let mut start = after.div_euclid(step).saturating_mul(step);
        if start <= after {
            start = start.saturating_add(step);
        }
        let end = reference.time(self.steps.end());
        if start > end {
            return Ok(());
        }
        let count = (end.saturating_sub(start) / step).saturating_add(1);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > self.shared.options.samples_max {
            return Err(QueryError::TooManySamples("query execution"));
        }
        let inner = Evaluator::new(self.shared, Steps { start, step, count });
        let mut samples = Samples::default();
        if subquery.expr.value_type() == ValueType::Scalar {
            let scalar = inner.scalar(&subquery.expr)?;
            for (at, time) in inner.steps.times().enumerate() {
                samples.push_float(time, scalar.at(at));
            }
            return sink(stint_model::Labels::default(), false, &mut samples);
        }
        let mut hand_on = |series: Series| {
            samples.clear();
            for (at, point) in series.column.points() {
                let time = inner.steps.at(at);
                match point {
                    Point::Float(value) => samples.push_float(time, value),
                    Point::Histogram(histogram) => {
                        let mut histogram = histogram.clone();
                        // Steps may have skipped samples, so what a hint says no longer holds.
                        if matches!(histogram.reset_hint, ResetHint::Reset | ResetHint::NotReset) {
                            Arc::make_mut(&mut histogram).reset_hint = ResetHint::Unknown;
                        }
                        samples.push_histogram(time, histogram);
                    }
                }
            }
            sink(series.labels.clone(), series.drop_name, &mut samples)?;
            inner.shared.recycle(series.column);
            Ok(())
        };
        if has_distinct_labels(&subquery.expr) {
            return inner.stream(&subquery.expr, &mut hand_on);
        }
        // What comes in parts, each with other steps, is one series to whoever looks over a window.
        merge_equal(inner.vector(&subquery.expr)?)?.into_iter().try_for_each(hand_on)
    }
}
