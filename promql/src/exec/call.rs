//! Function calls that give instant vectors.

use stint_model::Labels;
use stint_model::labels::METRIC_NAME;
use stint_model::matcher::anchored_regex;

use crate::column::{Column, Scalar, Series, merge_equal};
use crate::error::QueryError;
use crate::exec::scalar::{go_max, go_min};
use crate::exec::selector::Take;
use crate::exec::{Evaluator, Sink};
use crate::functions::calendar::calendar_function;
use crate::functions::math::{float_function, round};
use crate::functions::{histogram, quote_bytes, range_function};
use crate::parse::ast::{Call, Expr};
use stint_model::MatchOp;
use stint_model::histogram::FloatHistogram;

/// Whether the function's results no longer deserve the metric's name.
pub(crate) fn drops_name(function: &str) -> bool {
    !matches!(
        function,
        "last_over_time" | "first_over_time" | "info" | "absent" | "absent_over_time" | "vector"
    ) && !function.starts_with("label_")
        && !function.starts_with("sort")
}

fn missing() -> QueryError {
    QueryError::execution("an argument is missing")
}

impl Evaluator<'_> {
    /// The series of a function call.
    pub(crate) fn call(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let name = call.function.name;
        if let Some(function) = range_function(name) {
            return self.range_call(call, function, sink);
        }
        if let Some(function) = float_function(name) {
            return self.map_floats(call, |_, value| function(value), sink);
        }
        if let Some(function) = calendar_function(name) {
            return self.calendar(call, function, sink);
        }
        match name {
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => self.sort(call, sink),
            "vector" => {
                let scalar = self.scalar(call.args.first().ok_or_else(missing)?)?;
                let mut column = self.shared.column(self.steps.count);
                for at in 0..self.steps.count {
                    column.set_float(at, scalar.at(at));
                }
                self.emit(Series::new(Labels::default(), column), sink)
            }
            "round" => {
                let to = self.optional_scalar(call, 1, 1.0)?;
                self.map_floats(call, |at, value| round(value, to.at(at)), sink)
            }
            "clamp" | "clamp_min" | "clamp_max" => self.clamp(call, sink),
            "timestamp" => self.sample_times(call, Take::Time, sink),
            "start_timestamp" => self.sample_times(call, Take::StartTime, sink),
            "absent" | "absent_over_time" => self.absent(call, sink),
            "label_replace" => self.label_replace(call, sink),
            "label_join" => self.label_join(call, sink),
            "histogram_count" => self.of_statistics(call, |h| h.count, sink),
            "histogram_sum" => self.of_statistics(call, |h| h.sum, sink),
            "histogram_avg" => self.of_statistics(call, |h| h.sum / h.count, sink),
            "histogram_stdvar" => self.of_histograms(call, histogram::variance, sink),
            "histogram_stddev" => self.of_histograms(call, |h| histogram::variance(h).sqrt(), sink),
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {
                let before = self.shared.detects_resets.replace(false);
                let result = self.histogram_call(call, sink);
                self.shared.detects_resets.set(before);
                result
            }
            "info" => self.info(call, sink),
            _ => Err(QueryError::Execution(format!("unknown function {name:?}"))),
        }
    }

    fn map_floats(
        &self,
        call: &Call,
        function: impl Fn(usize, f64) -> f64,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        self.stream(call.args.first().ok_or_else(missing)?, &mut |mut series| {
            series.column.map_floats(&function);
            self.drop_name(&mut series);
            self.emit(series, sink)
        })
    }

    fn optional_scalar(&self, call: &Call, at: usize, default: f64) -> Result<Scalar, QueryError> {
        call.args.get(at).map_or(Ok(Scalar::Constant(default)), |arg| self.scalar(arg))
    }

    fn clamp(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let is_max = call.function.name == "clamp_max";
        let low = if is_max {
            Scalar::Constant(f64::NEG_INFINITY)
        } else {
            self.optional_scalar(call, 1, f64::NAN)?
        };
        let high = match call.function.name {
            "clamp_max" => self.optional_scalar(call, 1, f64::NAN)?,
            "clamp" => self.optional_scalar(call, 2, f64::NAN)?,
            _ => Scalar::Constant(f64::INFINITY),
        };
        self.stream(call.args.first().ok_or_else(missing)?, &mut |mut series| {
            series.column.filter_floats(|at, _| {
                high.at(at) >= low.at(at) || high.at(at).is_nan() || low.at(at).is_nan()
            });
            series.column.map_floats(|at, value| go_max(low.at(at), go_min(high.at(at), value)));
            self.drop_name(&mut series);
            self.emit(series, sink)
        })
    }

    fn calendar(
        &self,
        call: &Call,
        function: fn(f64) -> f64,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        if !call.args.is_empty() {
            return self.map_floats(call, |_, value| function(value), sink);
        }
        let mut column = self.shared.column(self.steps.count);
        for (at, time) in self.steps.times().enumerate() {
            column.set_float(at, function(time as f64 / 1000.0));
        }
        self.emit(Series::new(Labels::default(), column), sink)
    }

    /// The times of samples: their own where the argument is a selector, else those of the steps.
    fn sample_times(&self, call: &Call, take: Take, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let arg = call.args.first().ok_or_else(missing)?;
        let mut finish = |mut series: Series| {
            self.drop_name(&mut series);
            self.emit(series, sink)
        };
        match arg.unparenthesized() {
            Expr::VectorSelector(selector) if !selector.smoothed => {
                self.take(selector, take, &mut finish)
            }
            _ if take == Take::StartTime => self.stream(arg, &mut |series| {
                self.shared.recycle(series.column);
                Ok(())
            }),
            _ => self.stream(arg, &mut |mut series| {
                for (at, time) in self.steps.times().enumerate() {
                    if series.column.has(at) {
                        series.column.clear(at);
                        series.column.set_float(at, time as f64 / 1000.0);
                    }
                }
                finish(series)
            }),
        }
    }

    /// As [`Self::of_histograms`], of functions that need no buckets.
    fn of_statistics(
        &self,
        call: &Call,
        function: impl Fn(&FloatHistogram) -> f64,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let before = self.shared.detects_resets.replace(true);
        let result = self.of_histograms(call, function, sink);
        self.shared.detects_resets.set(before);
        result
    }

    fn of_histograms(
        &self,
        call: &Call,
        function: impl Fn(&FloatHistogram) -> f64,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        self.stream(call.args.first().ok_or_else(missing)?, &mut |mut series| {
            if !series.column.has_histograms() {
                self.shared.recycle(series.column);
                return Ok(());
            }
            let mut column = self.shared.column(self.steps.count);
            for at in 0..self.steps.count {
                if let Some(histogram) = series.column.histogram(at) {
                    column.set_float(at, function(histogram));
                }
            }
            self.shared.recycle(std::mem::replace(&mut series.column, column));
            self.drop_name(&mut series);
            self.emit(series, sink)
        })
    }

    fn absent(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let arg = call.args.first().ok_or_else(missing)?;
        let mut column = Column::filled(self.steps.count, 1.0);
        if call.function.name == "absent" {
            self.stream(arg, &mut |series| {
                for at in 0..self.steps.count {
                    if series.column.has(at) {
                        column.clear(at);
                    }
                }
                self.shared.recycle(series.column);
                Ok(())
            })?;
        } else {
            let shape = self.shape(arg)?;
            self.stream_samples(arg, call.function.name, &mut |_, _, samples| {
                let mut slide = crate::exec::window::Slide::default();
                for (at, time) in self.steps.times().enumerate() {
                    let end = shape.reference.time(time);
                    let start = end.saturating_sub(shape.range);
                    if slide.to(samples, start, end, shape.edges, 0).len() > 0 {
                        column.clear(at);
                    }
                }
                Ok(())
            })?;
        }
        self.emit(Series::new(absent_labels(arg), column), sink)
    }

    fn label_replace(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let target = label_name(call, 1, "destination label name in label_replace()")?;
        let replacement = string(call, 2)?;
        let source = string(call, 3)?;
        let regex = anchored_regex(&string(call, 4)?).map_err(|error| {
            QueryError::Execution(format!("invalid regular expression in label_replace(): {error}"))
        })?;
        self.relabel(call, &target, sink, |labels| {
            let value = labels.get(&source).unwrap_or_default();
            let captures = regex.captures(value)?;
            let mut text = String::new();
            captures.expand(&replacement, &mut text);
            Some(text)
        })
    }

    fn label_join(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let target = label_name(call, 1, "destination label name in label_join()")?;
        let separator = string(call, 2)?;
        let sources: Vec<String> = (3..call.args.len())
            .map(|at| label_name(call, at, "source label name in label_join()"))
            .collect::<Result<_, _>>()?;
        self.relabel(call, &target, sink, |labels| {
            let values: Vec<&str> =
                sources.iter().map(|source| labels.get(source).unwrap_or_default()).collect();
            Some(values.join(&separator))
        })
    }

    /// Sets a label of every series to what `value` says; `None` leaves the series as it is.
    fn relabel(
        &self,
        call: &Call,
        target: &str,
        sink: &mut Sink<'_>,
        value: impl Fn(&Labels) -> Option<String>,
    ) -> Result<(), QueryError> {
        let mut all = Vec::new();
        self.stream(call.args.first().ok_or_else(missing)?, &mut |mut series| {
            if let Some(value) = value(&series.labels) {
                series.labels = series.labels.to_builder().set(target, &value).build();
                if target == METRIC_NAME {
                    // A name given by hand stays.
                    series.drop_name = false;
                }
            }
            all.push(series);
            Ok(())
        })?;
        merge_equal(all)?.into_iter().try_for_each(|series| self.emit(series, sink))
    }
}

/// The text of a string argument.
pub(crate) fn string(call: &Call, at: usize) -> Result<String, QueryError> {
    match call.args.get(at).map(Expr::unparenthesized) {
        Some(Expr::String(text)) => Ok(text.text().into_owned()),
        _ => Err(missing()),
    }
}

/// The label name in a string argument.
fn label_name(call: &Call, at: usize, what: &str) -> Result<String, QueryError> {
    match call.args.get(at).map(Expr::unparenthesized) {
        Some(Expr::String(text)) => match std::str::from_utf8(&text.value) {
            Ok(name) if !name.is_empty() => Ok(name.to_owned()),
            _ => Err(QueryError::Execution(format!(
                "invalid {what}: {}",
                quote_bytes(&text.value).trim_matches('"')
            ))),
        },
        _ => Err(missing()),
    }
}

/// What a selector says about the labels of a series that is not there.
fn absent_labels(arg: &Expr) -> Labels {
    let matchers = match arg.unparenthesized() {
        Expr::VectorSelector(selector) => &selector.matchers,
        Expr::MatrixSelector(matrix) => &matrix.selector.matchers,
        _ => return Labels::default(),
    };
    let only_once = |name: &str| matchers.iter().filter(|other| other.name() == name).count() == 1;
    let known = matchers.iter().filter(|matcher| {
        matcher.name() != METRIC_NAME && matcher.op() == MatchOp::Equal && only_once(matcher.name())
    });
    Labels::from_pairs(known.map(|matcher| (matcher.name(), matcher.value())))
}
