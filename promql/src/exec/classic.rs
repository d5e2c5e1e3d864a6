//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction` over vectors in which
//! classic buckets and native histograms may stand side by side.

use hashbrown::HashMap;
use stint_model::Labels;
use stint_model::histogram::FloatHistogram;
use stint_model::labels::{BUCKET_BOUND, METRIC_NAME};

use crate::column::{Column, Scalar, Series};
use crate::error::QueryError;
use crate::exec::call::string;
use crate::exec::topk::go;
use crate::exec::{Evaluator, Sink};
use crate::functions::calendar::rfc3339;
use crate::functions::histogram::{
    Cumulative, Forced, NanEffect, classic_fraction, classic_quantile, native_fraction,
    native_quantile, sort, tidy,
};
use crate::parse::ast::{Call, Expr, PosRange};

/// What is computed of each histogram.
enum Question {
    Quantile(Scalar),
    Fraction(Scalar, Scalar),
}

/// The series of one histogram.
#[derive(Default)]
struct Group {
    /// Bounds and indexes of classic buckets.
    buckets: Vec<(f64, usize)>,
    /// Series that may be native histograms.
    native: Vec<usize>,
}

/// Where and when buckets had to be forced to rise.
struct Forcing {
    forced: Forced,
    samples: usize,
    first: i64,
    last: i64,
}

impl Evaluator<'_> {
    /// The series of a histogram function.
    pub(crate) fn histogram_call(
        &self,
        call: &Call,
        sink: &mut Sink<'_>,
    ) -> Result<(), QueryError> {
        let arg = |at: usize| {
            call.args.get(at).ok_or_else(|| QueryError::execution("an argument is missing"))
        };
        let mut results = Vec::new();
        match call.function.name {
            "histogram_quantile" => {
                let quantile = self.checked_quantile(arg(0)?)?;
                let all = self.vector(arg(1)?)?;
                let question = Question::Quantile(quantile);
                self.ask(&all, arg(1)?.pos(), &question, None, &mut results)?;
                self.recycle_all(all);
            }
            "histogram_fraction" => {
                let question = Question::Fraction(self.scalar(arg(0)?)?, self.scalar(arg(1)?)?);
                let all = self.vector(arg(2)?)?;
                self.ask(&all, arg(2)?.pos(), &question, None, &mut results)?;
                self.recycle_all(all);
            }
            _ => {
                let label = string(call, 1)?;
                let all = self.vector(arg(0)?)?;
                for at in 2..call.args.len() {
                    let quantile = self.checked_quantile(arg(at)?)?;
                    let value = open_metrics_float(quantile.at(0));
                    let question = Question::Quantile(quantile);
                    let label = Some((label.as_str(), value.as_str()));
                    self.ask(&all, arg(0)?.pos(), &question, label, &mut results)?;
                }
                self.recycle_all(all);
            }
        }
        results.into_iter().try_for_each(|series| self.emit(series, sink))
    }

    fn recycle_all(&self, all: Vec<Series>) {
        for series in all {
            self.shared.recycle(series.column);
        }
    }

    fn checked_quantile(&self, arg: &Expr) -> Result<Scalar, QueryError> {
        let quantile = self.scalar(arg)?;
        for at in 0..self.steps.count {
            let value = quantile.at(at);
            if !(0.0..=1.0).contains(&value) {
                self.quantile_warning(value, arg.pos());
            }
        }
        Ok(quantile)
    }

    fn ask(
        &self,
        all: &[Series],
        pos: PosRange,
        question: &Question,
        label: Option<(&str, &str)>,
        results: &mut Vec<Series>,
    ) -> Result<(), QueryError> {
        let (order, groups) = self.group_histograms(all, pos);
        let mut forcings: HashMap<String, Forcing, foldhash::fast::FixedState> = HashMap::default();
        for (labels, group) in order.iter().zip(&groups) {
            self.shared.check()?;
            let name = labels.metric_name().unwrap_or_default();
            let mut column = Column::new(self.steps.count);
            let mut drop_name = false;
            let mut buckets: Vec<Cumulative> = Vec::new();
            for at in 0..self.steps.count {
                buckets.clear();
                for (bound, index) in &group.buckets {
                    if let Some(count) = all.get(*index).and_then(|s| s.column.float(at)) {
                        buckets.push(Cumulative { bound: *bound, count });
                    }
                }
                let mut native =
                    group.native.iter().filter_map(|index| all.get(*index)?.column.histogram(at));
                let answer = match (native.next(), buckets.is_empty()) {
                    (Some(_), false) => {
                        let text = "vector contains a mix of classic and native histograms";
                        self.shared.warn(&named(text, name), pos);
                        None
                    }
                    (Some(histogram), true) => {
                        Some(self.native(question, at, histogram, name, pos))
                    }
                    (None, false) => {
                        Some(self.classic(question, at, &mut buckets, name, &mut forcings))
                    }
                    (None, true) => None,
                };
                if let Some(answer) = answer {
                    column.set_float(at, answer);
                }
            }
            for index in group.buckets.iter().map(|(_, index)| index).chain(&group.native) {
                drop_name |= all.get(*index).is_some_and(|series| series.drop_name);
            }
            let labels = match label {
                Some((name, value)) => labels.to_builder().set(name, value).build(),
                None => labels.clone(),
            };
            let mut series = Series { labels, drop_name, column };
            self.drop_name(&mut series);
            results.push(series);
        }
        for (name, forcing) in &forcings {
            self.note_forcing(name, forcing, pos);
        }
        Ok(())
    }

    fn group_histograms(&self, all: &[Series], pos: PosRange) -> (Vec<Labels>, Vec<Group>) {
        let mut index: HashMap<Labels, usize, foldhash::fast::FixedState> = HashMap::default();
        let mut order = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for (at, series) in all.iter().enumerate() {
            let has_floats = series.column.floats().next().is_some();
            let bound = series.labels.get(BUCKET_BOUND).map(parse_bound);
            let mut slot = |labels: Labels| {
                *index.entry(labels.clone()).or_insert_with(|| {
                    order.push(labels);
                    groups.push(Group::default());
                    groups.len() - 1
                })
            };
            if has_floats {
                if let Some(Some(bound)) = bound {
                    let slot = slot(series.labels.retain(|name| name != BUCKET_BOUND));
                    if let Some(group) = groups.get_mut(slot) {
                        group.buckets.push((bound, at));
                    }
                } else {
                    let value = series.labels.get(BUCKET_BOUND).unwrap_or_default();
                    let text = format!(
                        "bucket label \"le\" is missing or has a malformed value of {value:?}"
                    );
                    let name = series.labels.get(METRIC_NAME).unwrap_or_default();
                    self.shared.warn(&named(&text, name), pos);
                }
            }
            if series.column.has_histograms() {
                let slot = index.entry(series.labels.clone()).or_insert_with(|| {
                    order.push(series.labels.clone());
                    groups.push(Group::default());
                    groups.len() - 1
                });
                if let Some(group) = groups.get_mut(*slot) {
                    group.native.push(at);
                }
            }
        }
        (order, groups)
    }

    fn native(
        &self,
        question: &Question,
        at: usize,
        histogram: &FloatHistogram,
        name: &str,
        pos: PosRange,
    ) -> f64 {
        match question {
            Question::Quantile(quantile) => {
                let (value, effect) = native_quantile(quantile.at(at), histogram);
                let what = match effect {
                    NanEffect::None => return value,
                    NanEffect::NoResult => "result is NaN",
                    NanEffect::Skewed => "result is skewed higher",
                };
                let text = format!("input to histogram_quantile has NaN observations, {what}");
                self.shared.info(&named(&text, name), pos);
                value
            }
            Question::Fraction(lower, upper) => {
                let buckets = histogram.buckets();
                let in_buckets: f64 = buckets.iter().map(|bucket| bucket.count).sum();
                if histogram.sum.is_nan() && in_buckets < histogram.count {
                    let text = "input to histogram_fraction has NaN observations, which are \
                                excluded from all fractions";
                    self.shared.info(&named(text, name), pos);
                }
                native_fraction(lower.at(at), upper.at(at), histogram)
            }
        }
    }

    fn classic(
        &self,
        question: &Question,
        at: usize,
        buckets: &mut Vec<Cumulative>,
        name: &str,
        forcings: &mut HashMap<String, Forcing, foldhash::fast::FixedState>,
    ) -> f64 {
        let tidied = match question {
            Question::Quantile(_) => tidy(buckets),
            // A share is that of the counts as they are.
            Question::Fraction(..) => sort(buckets).map(|()| None),
        };
        let Ok(forced) = tidied else {
            return match question {
                Question::Quantile(quantile) if quantile.at(at) < 0.0 => f64::NEG_INFINITY,
                Question::Quantile(quantile) if quantile.at(at) > 1.0 => f64::INFINITY,
                _ => f64::NAN,
            };
        };
        match question {
            Question::Quantile(quantile) => {
                // Quantiles outside have an answer before the buckets are looked at.
                let is_inside = (0.0..=1.0).contains(&quantile.at(at));
                if let Some(forced) = forced.filter(|_| is_inside) {
                    let time = self.steps.at(at);
                    let known = forcings.entry(name.to_owned()).or_insert(Forcing {
                        forced,
                        samples: 0,
                        first: time,
                        last: time,
                    });
                    known.samples += 1;
                    known.first = known.first.min(time);
                    known.last = known.last.max(time);
                    known.forced.lowest = known.forced.lowest.min(forced.lowest);
                    known.forced.highest = known.forced.highest.max(forced.highest);
                    known.forced.difference = known.forced.difference.max(forced.difference);
                }
                classic_quantile(quantile.at(at), buckets)
            }
            Question::Fraction(lower, upper) => {
                classic_fraction(lower.at(at), upper.at(at), buckets)
            }
        }
    }

    fn note_forcing(&self, name: &str, forcing: &Forcing, pos: PosRange) {
        let text = named(
            "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
            name,
        );
        let Forced { lowest, highest, difference } = forcing.forced;
        let (lowest, highest, samples) = (go(lowest), go(highest), forcing.samples);
        let (first, last) = (rfc3339(forcing.first), rfc3339(forcing.last));
        self.shared.info(
            &format!(
                "{text}, from buckets {lowest} to {highest}, with a max diff of {difference:.2}, \
                 over {samples} samples from {first} to {last}"
            ),
            pos,
        );
    }
}

/// Adds the metric name to a remark, where there is one.
fn named(text: &str, name: &str) -> String {
    if name.is_empty() { text.to_owned() } else { format!("{text} for metric name {name:?}") }
}

/// The bound in an `le` label, as Go reads floats.
fn parse_bound(text: &str) -> Option<f64> {
    text.parse::<f64>().ok()
}

/// A float as `OpenMetrics` writes it: with a point or an exponent.
fn open_metrics_float(value: f64) -> String {
    let text = go(value).to_string();
    if text.contains(['.', 'e', 'N', 'I']) { text } else { format!("{text}.0") }
}
