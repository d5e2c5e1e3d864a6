//! Rates, increases and deltas.

use std::sync::Arc;

use stint_model::histogram::{FloatHistogram, ResetHint};

use crate::column::Samples;
use crate::exec::window::{Edges, Scope, Window};
use crate::functions::over_time::{is_mixed, warn_layouts};
use crate::value::SampleValue;

type Answer = Option<SampleValue>;

pub(crate) fn rate(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    extrapolated(window, scope, true, true)
}

pub(crate) fn increase(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    extrapolated(window, scope, true, false)
}

pub(crate) fn delta(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    extrapolated(window, scope, false, false)
}

pub(crate) fn irate(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    between_last_two(window, scope, true)
}

pub(crate) fn idelta(window: &Window<'_>, scope: &Scope<'_>) -> Answer {
    between_last_two(window, scope, false)
}

/// Remarks on a rate of something that is not called or typed a counter.
pub(crate) fn remark_on_name(scope: &Scope<'_>) {
    let name = scope.metric();
    if name.is_empty() {
        return;
    }
    if scope.shared.options.type_and_unit_labels {
        let kind = scope.labels.get("__type__").unwrap_or_default();
        if !matches!(kind, "counter" | "histogram") {
            scope.info(&format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \
                 \"histogram\", got {kind:?}: {name:?}"
            ));
        }
    } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.ends_with(end)) {
        scope.info(&format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \
             {name:?}"
        ));
    }
}

/// Whether the start times of two neighbouring samples say that the counter began anew between
/// them. `i64::MIN` stands for an unknown start; a start not before its sample says nothing.
pub(crate) fn is_restart(time_a: i64, start_a: i64, time_b: i64, start_b: i64) -> bool {
    if start_b == i64::MIN || start_b >= time_b {
        return false;
    }
    let first_is_known = start_a != i64::MIN && start_a < time_a;
    start_b > time_a || (start_b == time_a && first_is_known)
}

/// Times and starts of the samples of one kind in a window.
struct Timeline<'w> {
    times: &'w [i64],
    /// Empty when no sample has a start, or starts do not count.
    starts: &'w [i64],
    /// Where a sample of value zero may be assumed before the first one.
    zero_at: Option<i64>,
}

impl<'w> Timeline<'w> {
    fn new(times: &'w [i64], starts: &'w [i64], window: &Window<'_>, counts: bool) -> Self {
        let starts = if counts { starts } else { &[] };
        let zero_at = match (starts.first(), times.first()) {
            (Some(start), Some(first)) if *start > window.start && start < first => Some(*start),
            _ => None,
        };
        Self { times, starts, zero_at }
    }

    /// Whether the counter began anew before sample `at`.
    fn restarts(&self, at: usize) -> bool {
        match (at.checked_sub(1), self.starts.get(at)) {
            (Some(before), Some(start)) => {
                let time = |at: usize| self.times.get(at).copied().unwrap_or_default();
                let start_before = self.starts.get(before).copied().unwrap_or(i64::MIN);
                is_restart(time(before), start_before, time(at), *start)
            }
            _ => false,
        }
    }

    /// Whether a start lies before the sample before, without being that one's start.
    fn overlaps(&self) -> bool {
        self.starts.windows(2).zip(self.times).any(|(starts, time)| match starts {
            [before, start] => {
                *start != i64::MIN && start < time && start != before && *before != *start
            }
            _ => false,
        })
    }
}

fn warn_overlap(timeline: &Timeline<'_>, scope: &Scope<'_>) {
    if timeline.overlaps() {
        scope.warn(&format!(
            "sample has start time that overlaps with previous sample timestamp for metric {:?}",
            scope.metric()
        ));
    }
}

fn extrapolated(
    window: &Window<'_>,
    scope: &Scope<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<SampleValue> {
    if is_mixed(window, scope) {
        return None;
    }
    let seconds = scope.shape.range as f64 / 1000.0;
    if scope.shape.edges != Edges::Plain {
        return edged(window, scope, is_counter, is_rate);
    }
    let counts = scope.use_starts && is_counter;
    if window.histograms().is_empty() {
        let timeline = Timeline::new(window.float_times(), window.float_starts(), window, counts);
        if !timeline.starts.is_empty() {
            warn_overlap(&timeline, scope);
        }
        let (result, first) = float_increase(window, &timeline, is_counter)?;
        let zero_share = (is_counter && result > 0.0 && first >= 0.0).then(|| first / result);
        let factor = factor(window, &timeline, zero_share, is_rate.then_some(seconds));
        return Some(SampleValue::Float(result * factor));
    }
    let timeline =
        Timeline::new(window.histogram_times(), window.histogram_starts(), window, counts);
    if !timeline.starts.is_empty() {
        warn_overlap(&timeline, scope);
    }
    let mut result = histogram_increase(window, scope, &timeline, is_counter)?;
    let first = window.histograms().first().map_or(f64::NAN, |first| first.count);
    let zero_share =
        (is_counter && result.count > 0.0 && first >= 0.0).then(|| first / result.count);
    result.scale(factor(window, &timeline, zero_share, is_rate.then_some(seconds)));
    Some(SampleValue::Histogram(Arc::new(result)))
}

/// By what an increase between the first and the last sample grows over the whole window.
fn factor(
    window: &Window<'_>,
    timeline: &Timeline<'_>,
    zero_share: Option<f64>,
    per_seconds: Option<f64>,
) -> f64 {
    let first = timeline.times.first().copied().unwrap_or_default();
    let first = timeline.zero_at.unwrap_or(first);
    let last = timeline.times.last().copied().unwrap_or_default();
    let sampled = (last - first) as f64 / 1000.0;
    let mut to_start = first.saturating_sub(window.start) as f64 / 1000.0;
    let mut to_end = window.end.saturating_sub(last) as f64 / 1000.0;
    // An assumed sample says nothing about the distance of the real ones.
    let gaps = timeline.times.len() - 1;
    let average = if timeline.zero_at.is_none() {
        sampled / gaps as f64
    } else if gaps == 0 {
        0.0
    } else {
        let real = timeline.times.first().map_or(0, |first| last - first);
        real as f64 / 1000.0 / gaps as f64
    };
    let threshold = average * 1.1;
    if timeline.zero_at.is_some() {
        to_start = 0.0;
    } else {
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        // A counter is not extrapolated below zero.
        if let Some(share) = zero_share {
            let to_zero = sampled * share;
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let factor = (sampled + to_start + to_end) / sampled;
    match per_seconds {
        Some(seconds) => factor / seconds,
        None => factor,
    }
}

/// The increase between the first and the last float, and the first float.
fn float_increase(
    window: &Window<'_>,
    timeline: &Timeline<'_>,
    is_counter: bool,
) -> Option<(f64, f64)> {
    let floats = window.floats();
    let (first, last) = (*floats.first()?, *floats.last()?);
    let from = if timeline.zero_at.is_some() { 0.0 } else { first };
    if floats.len() < 2 && timeline.zero_at.is_none() {
        return None;
    }
    let mut result = last - from;
    if is_counter && timeline.starts.is_empty() {
        // Where values drop is known for the whole series: most windows have no such place.
        let drops = &window.samples.drops;
        let range = &window.float_range;
        let begin = drops.partition_point(|at| *at <= range.start);
        for at in drops.get(begin..).unwrap_or_default() {
            if *at >= range.end {
                break;
            }
            if let Some(before) = window.samples.floats.get(at - 1) {
                result += before;
            }
        }
    } else if is_counter {
        for (at, pair) in floats.windows(2).enumerate() {
            if let [before, now] = pair
                && (now < before || timeline.restarts(at + 1))
            {
                result += before;
            }
        }
    }
    Some((result, first))
}

/// The increase between the first and the last histogram, as a gauge.
fn histogram_increase(
    window: &Window<'_>,
    scope: &Scope<'_>,
    timeline: &Timeline<'_>,
    is_counter: bool,
) -> Option<FloatHistogram> {
    let all = window.histograms();
    let (first, last) = (all.first()?, all.last()?);
    if all.len() < 2 && timeline.zero_at.is_none() {
        return None;
    }
    if is_counter && all.iter().any(|histogram| histogram.reset_hint == ResetHint::Gauge) {
        warn_not(scope, "counter");
    }
    if !is_counter && (first.reset_hint != ResetHint::Gauge || last.reset_hint != ResetHint::Gauge)
    {
        warn_not(scope, "gauge");
    }
    let resets = |at: usize| {
        let (Some(now), Some(before)) = (all.get(at), at.checked_sub(1).and_then(|b| all.get(b)))
        else {
            return false;
        };
        now.is_reset_after(before) || timeline.restarts(at)
    };
    // What the first one was before a reset does not matter, not even its layout.
    let skips_first = is_counter && all.len() > 1 && resets(1) && timeline.zero_at.is_none();
    let counted = if skips_first { all.get(1..)? } else { all };
    if counted.iter().any(|histogram| histogram.is_custom() != last.is_custom()) {
        warn_layouts(scope);
        return None;
    }
    let lowest = counted.iter().map(|histogram| histogram.schema).min()?;
    let mut result = (**last).clone();
    result.reduce_resolution(lowest);
    let mut reconciled = false;
    if !skips_first && timeline.zero_at.is_none() {
        let Ok(combined) = result.sub(first) else {
            warn_layouts(scope);
            return None;
        };
        reconciled |= combined.bounds_reconciled;
    }
    if is_counter {
        let from = if skips_first { 2 } else { 1 };
        for at in from..all.len() {
            if resets(at)
                && let Some(before) = all.get(at - 1)
            {
                let Ok(combined) = result.add(before) else {
                    warn_layouts(scope);
                    return None;
                };
                reconciled |= combined.bounds_reconciled;
            }
        }
    }
    if reconciled {
        scope.info("mismatched custom buckets were reconciled during subtraction");
    }
    result.reset_hint = ResetHint::Gauge;
    result.compact();
    Some(result)
}

fn warn_not(scope: &Scope<'_>, kind: &str) {
    scope.warn(&format!("this native histogram metric is not a {kind}: {:?}", scope.metric()));
}

/// The change between the last two samples.
fn between_last_two(window: &Window<'_>, scope: &Scope<'_>, is_rate: bool) -> Option<SampleValue> {
    if window.len() < 2 {
        return None;
    }
    let (floats, histograms) = (window.floats(), window.histograms());
    let counts = scope.use_starts && is_rate;
    let last_float = window.float_times().last().copied().unwrap_or(i64::MIN);
    let last_histogram = window.histogram_times().last().copied().unwrap_or(i64::MIN);
    let before_float = window.float_times().iter().nth_back(1).copied().unwrap_or(i64::MIN);
    let before_histogram = window.histogram_times().iter().nth_back(1).copied().unwrap_or(i64::MIN);
    if before_float > last_histogram || histograms.is_empty() {
        let [.., before, now] = floats else { return None };
        let timeline = Timeline::new(window.float_times(), window.float_starts(), window, counts);
        let seconds = (last_float - before_float) as f64 / 1000.0;
        if seconds == 0.0 {
            return None;
        }
        let restarted = timeline.restarts(floats.len() - 1);
        let change = if is_rate && (now < before || restarted) { *now } else { now - before };
        return Some(SampleValue::Float(if is_rate { change / seconds } else { change }));
    }
    if before_histogram <= last_float && !floats.is_empty() {
        scope.warn(&format!(
            "encountered a mix of histograms and floats for metric name {:?}",
            scope.metric()
        ));
        return None;
    }
    let [.., before, now] = histograms else { return None };
    let timeline =
        Timeline::new(window.histogram_times(), window.histogram_starts(), window, counts);
    let seconds = (last_histogram - before_histogram) as f64 / 1000.0;
    if seconds == 0.0 {
        return None;
    }
    let gauges = [before, now].map(|histogram| histogram.reset_hint == ResetHint::Gauge);
    if is_rate && gauges.contains(&true) {
        warn_not(scope, "counter");
    }
    if !is_rate && gauges.contains(&false) {
        warn_not(scope, "gauge");
    }
    let mut change = (**now).clone();
    let restarted = timeline.restarts(histograms.len() - 1);
    if !(is_rate && (now.is_reset_after(before) || restarted)) {
        match change.sub(before) {
            Ok(combined) if combined.bounds_reconciled => {
                scope.info("mismatched custom buckets were reconciled during subtraction");
            }
            Ok(_) => {}
            Err(_) => {
                warn_layouts(scope);
                return None;
            }
        }
    }
    if is_rate {
        change.divide(seconds);
    }
    change.reset_hint = ResetHint::Gauge;
    change.compact();
    Some(SampleValue::Histogram(Arc::new(change)))
}

/// The change between anchored or interpolated edges, without extrapolation.
fn edged(
    window: &Window<'_>,
    scope: &Scope<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<SampleValue> {
    let smoothed = scope.shape.edges == Edges::Smoothed;
    let seconds = scope.shape.range as f64 / 1000.0;
    let times = if window.histograms().is_empty() {
        window.float_times()
    } else {
        window.histogram_times()
    };
    let (first, last) = (*times.first()?, *times.last()?);
    if last <= window.start || first > window.end {
        return None;
    }
    let left = smoothed && first < window.start;
    let right = smoothed && last > window.end;
    let share = |at: i64, a: usize, b: usize| {
        let time = |index: usize| times.get(index).copied().unwrap_or_default();
        (at - time(a)) as f64 / (time(b) - time(a)) as f64
    };
    let end = times.len() - 1;
    if window.histograms().is_empty() {
        let floats = window.floats();
        let value = |at: usize| floats.get(at).copied().unwrap_or(f64::NAN);
        let between = |at: i64, a: usize, b: usize| {
            mix_floats(value(a), value(b), share(at, a, b), is_counter)
        };
        let from = if left { between(window.start, 0, 1) } else { value(0) };
        let to = if right { between(window.end, end - 1, end) } else { value(end) };
        let mut result = to - from;
        if is_counter {
            for at in usize::from(left) + 1..=end {
                if value(at) < value(at - 1) {
                    result += value(at - 1);
                }
            }
        }
        return Some(SampleValue::Float(if is_rate { result / seconds } else { result }));
    }
    let all = window.histograms();
    let is_gauge = |histogram: &Arc<FloatHistogram>| histogram.reset_hint == ResetHint::Gauge;
    if is_counter && all.iter().any(is_gauge) {
        warn_not(scope, "counter");
    }
    if !is_counter && (!is_gauge(all.first()?) || !is_gauge(all.last()?)) {
        warn_not(scope, "gauge");
    }
    let result = edged_histograms(all, (left, right), is_counter, |at_start| {
        if at_start { share(window.start, 0, 1) } else { share(window.end, end - 1, end) }
    });
    let Some(mut result) = result else {
        warn_layouts(scope);
        return None;
    };
    if is_rate {
        result.divide(seconds);
    }
    result.reset_hint = ResetHint::Gauge;
    result.compact();
    Some(SampleValue::Histogram(Arc::new(result)))
}

/// `None` when exponential and custom buckets meet.
fn edged_histograms(
    all: &[Arc<FloatHistogram>],
    (left, right): (bool, bool),
    is_counter: bool,
    share: impl Fn(bool) -> f64,
) -> Option<FloatHistogram> {
    let end = all.len() - 1;
    let from = if left {
        mix_histograms(all.first()?, all.get(1)?, share(true), is_counter)?
    } else {
        (**all.first()?).clone()
    };
    let mut result = if right {
        mix_histograms(all.get(end - 1)?, all.get(end)?, share(false), is_counter)?
    } else {
        (**all.get(end)?).clone()
    };
    result.sub(&from).ok()?;
    if is_counter {
        for at in usize::from(left) + 1..=end {
            let (before, now) = (all.get(at - 1)?, all.get(at)?);
            if now.is_reset_after(before) {
                result.add(before).ok()?;
            }
        }
    }
    Some(result)
}

/// The value at `share` of the way from `a` to `b`; a counter that was reset starts at zero.
fn mix_floats(a: f64, b: f64, share: f64, is_counter: bool) -> f64 {
    let a = if is_counter && b < a { 0.0 } else { a };
    a + (b - a) * share
}

fn mix_histograms(
    a: &FloatHistogram,
    b: &FloatHistogram,
    share: f64,
    is_counter: bool,
) -> Option<FloatHistogram> {
    let mut mixed = b.clone();
    if is_counter && b.is_reset_after(a) {
        if a.is_custom() != b.is_custom() {
            return None;
        }
        mixed.scale(share);
        return Some(mixed);
    }
    mixed.sub(a).ok()?;
    mixed.scale(share);
    mixed.add(a).ok()?;
    mixed.reset_hint = b.reset_hint;
    Some(mixed)
}

/// Why there is no value between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    /// One is a float, the other a histogram.
    Types,
    /// One histogram is exponential, the other custom.
    Layouts,
}

/// The value at `at` on the line between the samples around it, each within the lookback.
pub(crate) fn interpolate(
    samples: &Samples,
    at: i64,
    lookback: i64,
) -> Result<Option<SampleValue>, Clash> {
    let around = |times: &[i64]| {
        let after = times.partition_point(|time| *time <= at);
        let before = after.checked_sub(1);
        let before =
            before.filter(|b| times.get(*b).is_some_and(|t| *t > at.saturating_sub(lookback)));
        let after = times.get(after).filter(|t| **t <= at.saturating_add(lookback)).map(|_| after);
        (before, after)
    };
    let floats = around(&samples.float_times);
    let histograms = around(&samples.histogram_times);
    let has = |pair: (Option<usize>, Option<usize>)| pair.0.is_some() || pair.1.is_some();
    if has(floats) && has(histograms) {
        return Err(Clash::Types);
    }
    let share = |times: &[i64], a: usize, b: usize| {
        let time = |index: usize| times.get(index).copied().unwrap_or_default();
        (at - time(a)) as f64 / (time(b) - time(a)) as f64
    };
    match (floats, histograms) {
        ((Some(before), after), _) => {
            let times = &samples.float_times;
            let value = |index: usize| samples.floats.get(index).copied().unwrap_or(f64::NAN);
            let value = match after {
                Some(after) if times.get(before) != Some(&at) => {
                    mix_floats(value(before), value(after), share(times, before, after), false)
                }
                _ => value(before),
            };
            Ok(Some(SampleValue::Float(value)))
        }
        (_, (Some(before), after)) => {
            let times = &samples.histogram_times;
            let Some(a) = samples.histograms.get(before) else { return Ok(None) };
            match after.and_then(|after| samples.histograms.get(after).zip(Some(after))) {
                Some((b, after)) if times.get(before) != Some(&at) => {
                    let is_counter =
                        a.reset_hint != ResetHint::Gauge && b.reset_hint != ResetHint::Gauge;
                    let share = share(times, before, after);
                    let mixed = mix_histograms(a, b, share, is_counter).ok_or(Clash::Layouts)?;
                    Ok(Some(SampleValue::Histogram(Arc::new(mixed))))
                }
                _ => Ok(Some(SampleValue::Histogram(a.clone()))),
            }
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_tell_restarts() {
        assert!(is_restart(60, 0, 120, 61));
        assert!(is_restart(60, 0, 120, 60));
        assert!(!is_restart(60, i64::MIN, 120, 60));
        assert!(!is_restart(60, 0, 120, 120));
        assert!(!is_restart(60, 0, 120, 0));
    }

    #[test]
    fn values_between_samples_lie_on_a_line() {
        let mut samples = Samples::default();
        samples.push_float(0, 1.0);
        samples.push_float(100, 2.0);
        assert_eq!(interpolate(&samples, 50, 1000), Ok(Some(SampleValue::Float(1.5))));
        assert_eq!(interpolate(&samples, 150, 1000), Ok(Some(SampleValue::Float(2.0))));
        assert_eq!(interpolate(&samples, 5000, 1000), Ok(None));
    }
}
