//! Functions that summarise a window.

use std::sync::Arc;

use stint_model::histogram::{FloatHistogram, ResetHint};

use crate::error::QueryError;
use crate::exec::window::{Edges, Scope, Window};
use crate::kahan;
use crate::value::SampleValue;

type Answer = Option<SampleValue>;

fn float(value: f64) -> SampleValue {
    SampleValue::Float(value)
}

/// The text about histograms that a float function leaves out.
fn note_ignored(window: &Window<'_>, scope: &Scope<'_>) {
    if !window.floats().is_empty() && !window.histograms().is_empty() {
        scope.info(&format!(
            "ignored histograms in a range containing both floats and histograms for metric name \
             {:?}",
            scope.metric()
        ));
    }
}

/// The floats, with a note when there are histograms beside them.
fn only_floats<'w>(window: &Window<'w>, scope: &Scope<'_>) -> &'w [f64] {
    note_ignored(window, scope);
    window.floats()
}

/// Whether there are floats and histograms; then nothing can be computed, which is noted.
pub(crate) fn is_mixed(window: &Window<'_>, scope: &Scope<'_>) -> bool {
    let mixed = !window.floats().is_empty() && !window.histograms().is_empty();
    if mixed {
        scope.warn(&format!(
            "encountered a mix of histograms and floats for metric name {:?}",
            scope.metric()
        ));
    }
    mixed
}

/// Notes that exponential and custom buckets met.
pub(crate) fn warn_layouts(scope: &Scope<'_>) {
    scope.warn(&format!(
        "vector contains a mix of histograms with exponential and custom buckets schemas for \
         metric name {:?}",
        scope.metric()
    ));
}

pub(crate) fn count(window: &Window<'_>, _: &Scope<'_>) -> Answer {
    (window.len() > 0).then(|| float(window.len() as f64))
}

pub(crate) fn present(window: &Window<'_>, _: &Scope<'_>) -> Answer {
    (window.len() > 0).then(|| float(1.0))
}

pub(crate) fn last(window: &Window<'_>, _: &Scope<'_>) -> Answer {
    let float = window.float_times().last().zip(window.floats().last());
    let histogram = window.histogram_times().last().zip(window.histograms().last());
    match (float, histogram) {
        (Some((a, value)), other) if other.is_none_or(|(b, _)| a > b) => {
            Some(SampleValue::Float(*value))
        }
        (_, Some((_, histogram))) => Some(SampleValue::Histogram(histogram.clone())),
        _ => None,
    }
}

pub(crate) fn first(window: &Window<'_>, _: &Scope<'_>) -> Answer {
    let float = window.float_times().first().zip(window.floats().first());
    let histogram = window.histogram_times().first().zip(window.histograms().first());
    match (float, histogram) {
        (Some((a, value)), other) if other.is_none_or(|(b, _)| a < b) => {
            Some(SampleValue::Float(*value))
        }
        (_, Some((_, histogram))) => Some(SampleValue::Histogram(histogram.clone())),
        _ => None,
    }
}

pub(crate) fn sum(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    if is_mixed(window, scope) {
        return None;
    }
    if !window.histograms().is_empty() {
        return sum_histograms(window.histograms(), scope, false);
    }
    Some(float(sum_of(window.floats())))
}

pub(crate) fn sum_of(values: &[f64]) -> f64 {
    let (mut sum, mut lost) = (0.0, 0.0);
    for value in values {
        kahan::add(*value, &mut sum, &mut lost);
    }
    if sum.is_infinite() { sum } else { sum + lost }
}

pub(crate) fn avg(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    if is_mixed(window, scope) {
        return None;
    }
    if !window.histograms().is_empty() {
        return sum_histograms(window.histograms(), scope, true);
    }
    mean_of(window.floats()).map(float)
}

pub(crate) fn mean_of(values: &[f64]) -> Option<f64> {
    let (first, rest) = values.split_first()?;
    let mut mean = kahan::Mean { count: 1.0, value: *first, lost: 0.0, incremental: false };
    for value in rest {
        mean.count += 1.0;
        mean.add(*value);
    }
    Some(mean.finish())
}

/// The sum or the mean of histograms.
fn sum_histograms(
    histograms: &[Arc<FloatHistogram>],
    scope: &Scope<'_>,
    mean: bool,
) -> Option<SampleValue> {
    let (first, rest) = histograms.split_first()?;
    let mut sum = kahan::HistogramMean::new(first, mean);
    let mut hints = (first.reset_hint == ResetHint::Reset, first.reset_hint == ResetHint::NotReset);
    let mut reconciled = false;
    for histogram in rest {
        hints.0 |= histogram.reset_hint == ResetHint::Reset;
        hints.1 |= histogram.reset_hint == ResetHint::NotReset;
        let Ok(combined) = sum.add(histogram) else {
            warn_layouts(scope);
            return None;
        };
        reconciled |= combined.bounds_reconciled;
    }
    if hints.0 && hints.1 {
        scope.warn("conflicting counter resets during histogram aggregation");
    }
    if reconciled {
        scope.info("mismatched custom buckets were reconciled during aggregation");
    }
    Some(SampleValue::Histogram(Arc::new(sum.finish())))
}

pub(crate) fn max(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    extreme(only_floats(window, scope), |a, b| a > b)
}

pub(crate) fn min(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    extreme(only_floats(window, scope), |a, b| a < b)
}

fn extreme(values: &[f64], better: fn(f64, f64) -> bool) -> Answer {
    let (first, rest) = values.split_first()?;
    let best =
        rest.iter().fold(
            *first,
            |best, value| {
                if better(*value, best) || best.is_nan() { *value } else { best }
            },
        );
    Some(float(best))
}

/// Count times the variance, divided by the count: the population's variance.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut mean_lost, mut sum, mut sum_lost) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean + mean_lost);
        kahan::add(delta / count, &mut mean, &mut mean_lost);
        kahan::add(delta * (value - (mean + mean_lost)), &mut sum, &mut sum_lost);
    }
    (sum + sum_lost) / count
}

pub(crate) fn stdvar(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    let floats = only_floats(window, scope);
    if floats.is_empty() { None } else { Some(float(variance(floats))) }
}

pub(crate) fn stddev(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    let floats = only_floats(window, scope);
    if floats.is_empty() { None } else { Some(float(variance(floats).sqrt())) }
}

/// The φ-quantile of values, which are sorted in place; NaN counts as smallest.
pub(crate) fn quantile_of(quantile: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || quantile.is_nan() {
        return f64::NAN;
    }
    if quantile < 0.0 {
        return f64::NEG_INFINITY;
    }
    if quantile > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal),
    });
    let last = (values.len() - 1) as f64;
    let rank = quantile * last;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(last);
    let weight = rank - rank.floor();
    let at = |index: f64| values.get(index as usize).copied().unwrap_or(f64::NAN);
    at(lower) * (1.0 - weight) + at(upper) * weight
}

pub(crate) fn quantile(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    let floats = only_floats(window, scope);
    let quantile = scope.args[0];
    if floats.is_empty() {
        return None;
    }
    if !(0.0..=1.0).contains(&quantile) {
        let shown = stint_model::histogram::Short(quantile);
        let text = format!("quantile value should be between 0 and 1, got {shown}");
        scope.shared.warn(&text, scope.arg_pos);
    }
    Some(float(quantile_of(quantile, &mut floats.to_vec())))
}

pub(crate) fn mad(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    let mut values = only_floats(window, scope).to_vec();
    if values.is_empty() {
        return None;
    }
    if values.iter().any(|value| value.is_nan()) {
        return Some(float(f64::NAN));
    }
    let median = quantile_of(0.5, &mut values);
    let mut deviations: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    Some(float(quantile_of(0.5, &mut deviations)))
}

pub(crate) fn ts_of_first(window: &Window<'_>, _: &Scope<'_>) -> Answer {
    let times = [window.float_times().first(), window.histogram_times().first()];
    times.into_iter().flatten().min().map(|ms| SampleValue::Float(*ms as f64 / 1000.0))
}

pub(crate) fn ts_of_last(window: &Window<'_>, _: &Scope<'_>) -> Answer {
    let times = [window.float_times().last(), window.histogram_times().last()];
    times.into_iter().flatten().max().map(|ms| SampleValue::Float(*ms as f64 / 1000.0))
}

pub(crate) fn ts_of_max(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    note_ignored(window, scope);
    ts_of(window, |a, b| a >= b)
}

pub(crate) fn ts_of_min(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    note_ignored(window, scope);
    ts_of(window, |a, b| a <= b)
}

fn ts_of(window: &Window<'_>, better: fn(f64, f64) -> bool) -> Answer {
    let mut best: Option<(f64, i64)> = None;
    for (value, time) in window.floats().iter().zip(window.float_times()) {
        if best.is_none_or(|(best, _)| better(*value, best) || best.is_nan()) {
            best = Some((*value, *time));
        }
    }
    best.map(|(_, ms)| SampleValue::Float(ms as f64 / 1000.0))
}

/// Slope and value at `origin` of the least-squares line.
fn linear_regression(values: &[f64], times: &[i64], origin: i64) -> (f64, f64) {
    let first = values.first().copied().unwrap_or(f64::NAN);
    if values.iter().skip(1).all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let mut sums = [(0.0, 0.0); 4];
    let mut n = 0.0;
    for (y, time) in values.iter().zip(times) {
        n += 1.0;
        let x = time.saturating_sub(origin) as f64 / 1e3;
        for ((sum, lost), value) in sums.iter_mut().zip([x, *y, x * y, x * x]) {
            kahan::add(value, sum, lost);
        }
    }
    let [x, y, xy, x2] = sums.map(|(sum, lost)| sum + lost);
    let covariance = xy - x * y / n;
    let variance = x2 - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}

pub(crate) fn deriv(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    let floats = only_floats(window, scope);
    let origin = window.float_times().first().copied().unwrap_or_default();
    if floats.len() < 2 {
        return None;
    }
    Some(float(linear_regression(floats, window.float_times(), origin).0))
}

pub(crate) fn predict_linear(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    let floats = only_floats(window, scope);
    if floats.len() < 2 {
        return None;
    }
    let (slope, intercept) = linear_regression(floats, window.float_times(), scope.time);
    Some(float(slope * scope.args[0] + intercept))
}

/// An error when the factors of a smoothing are not inside 0 to 1.
pub(crate) fn check_factors([smoothing, trend]: [f64; 2]) -> Result<(), QueryError> {
    for (name, symbol, factor) in [("smoothing", "sf", smoothing), ("trend", "tf", trend)] {
        if factor <= 0.0 || factor >= 1.0 {
            return Err(QueryError::Execution(format!(
                "invalid {name} factor. Expected: 0 < {symbol} < 1, got: {factor:.6}"
            )));
        }
    }
    Ok(())
}

pub(crate) fn smoothing(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    let [smoothing, trend] = scope.args;
    let floats = only_floats(window, scope);
    let [first, second, ..] = floats else { return None };
    let (mut before, mut level) = (0.0, *first);
    let mut slope = second - first;
    for (at, value) in floats.iter().enumerate().skip(1) {
        if at > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + slope);
        (before, level) = (level, next);
    }
    Some(float(level))
}

/// A sample of either type.
#[derive(Clone, Copy)]
enum Either<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

/// The samples of a window in order of time, with their start times.
fn merged<'w>(window: &Window<'w>) -> Vec<(i64, Either<'w>, i64)> {
    let start = |starts: &[i64], at: usize| starts.get(at).copied().unwrap_or(i64::MIN);
    let floats = window.float_times().iter().zip(window.floats()).enumerate();
    let mut all: Vec<_> = floats
        .map(|(at, (time, value))| (*time, Either::Float(*value), start(window.float_starts(), at)))
        .collect();
    let histograms = window.histogram_times().iter().zip(window.histograms()).enumerate();
    all.extend(histograms.map(|(at, (time, histogram))| {
        (*time, Either::Histogram(histogram), start(window.histogram_starts(), at))
    }));
    all.sort_by_key(|(time, ..)| *time);
    all
}

/// Counts the neighbours for which `counts` holds.
fn count_pairs<'w>(
    window: &Window<'w>,
    scope: &Scope<'_>,
    counts: impl Fn(&(i64, Either<'w>, i64), &(i64, Either<'w>, i64)) -> bool,
) -> Answer {
    let all = merged(window);
    if scope.shape.edges == Edges::Anchored
        && all.last().is_none_or(|(time, ..)| *time <= window.start)
    {
        return None;
    }
    let pairs = all.windows(2).filter(|pair| match pair {
        [a, b] => counts(a, b),
        _ => false,
    });
    Some(float(pairs.count() as f64))
}

pub(crate) fn changes(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    count_pairs(window, scope, |(_, a, _), (_, b, _)| match (a, b) {
        (Either::Float(a), Either::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Either::Histogram(a), Either::Histogram(b)) => !a.same_values(b),
        _ => true,
    })
}

pub(crate) fn resets(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    count_pairs(window, scope, |(time_a, a, start_a), (time_b, b, start_b)| {
        let restarted =
            scope.use_starts && super::rate::is_restart(*time_a, *start_a, *time_b, *start_b);
        restarted
            || match (a, b) {
                (Either::Float(a), Either::Float(b)) => b < a,
                (Either::Histogram(a), Either::Histogram(b)) => b.is_reset_after(a),
                _ => true,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile_of(0.5, &mut [3.0, 1.0, 2.0, 4.0]), 2.5);
        assert_eq!(quantile_of(1.0, &mut [3.0, f64::NAN]), 3.0);
        assert_eq!(quantile_of(-1.0, &mut [3.0]), f64::NEG_INFINITY);
    }

    #[test]
    fn a_line_is_its_own_regression() {
        let (slope, value) = linear_regression(&[1.0, 3.0, 5.0], &[0, 1000, 2000], 1000);
        assert_eq!((slope, value), (2.0, 3.0));
    }
}
