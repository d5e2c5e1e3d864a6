//! What happens between two forwarded samples of a series: counters that begin anew there, and gauges of
//! which the largest, the least or the mean is wanted.
//!
//! A counter that is reset between two samples loses what it had counted since the first of them. So the
//! last sample before the reset is sent as well, if that is wanted. It was counted as withheld, and
//! is one more that is made here.

use stint_model::histogram::ResetHint;
use stint_model::{Labels, Sample, Value};

use super::super::rules::Rules;
use super::Decision;
use super::targets::is_cumulative;
use crate::budget::policy::Reason;
use crate::config::Fold;
use crate::forward::encode::Families;

/// What is known of the samples since the last one that was sent.
#[derive(Clone, Debug)]
pub(super) enum Window {
    /// Of what may be a counter: the newest.
    Counter {
        /// Whether numbers of it only grow; native histograms tell of themselves.
        grows: bool,
        held: Option<Box<Sample>>,
    },
    /// Of a gauge: what they come to.
    Gauge { fold: Fold, folded: Option<Folded> },
}

/// Some samples of a gauge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    value: f64,
    count: f64,
}

impl Window {
    /// The window of a series as it is sent; nothing where nothing is wanted of it.
    pub(super) fn of(labels: &Labels, rules: &Rules, families: &Families) -> Option<Box<Self>> {
        let selects = |selector: &stint_model::Selector| selector.matches(labels);
        let gauge = rules.gauges.iter().find(|rule| rule.selectors.iter().any(selects));
        if let Some(rule) = gauge {
            return Some(Box::new(Self::Gauge { fold: rule.fold, folded: None }));
        }
        let counter = || Self::Counter { grows: is_cumulative(labels, families), held: None };
        rules.reset_guard.then(|| Box::new(counter()))
    }

    /// The sample as it is sent if it is its turn.
    pub(super) fn offer(&mut self, sample: Sample) -> Sample {
        let Self::Gauge { fold, folded } = self else { return sample };
        let Value::Float(value) = sample.value else { return sample };
        if value.is_nan() {
            return sample;
        }
        let so_far = folded.get_or_insert(Folded {
            value: if *fold == Fold::Avg { 0.0 } else { value },
            count: 0.0,
        });
        so_far.count += 1.0;
        so_far.value = match fold {
            Fold::Min => so_far.value.min(value),
            Fold::Max => so_far.value.max(value),
            // The mean, so that large values do not add up beyond what there is.
            Fold::Avg => so_far.value + (value - so_far.value) / so_far.count,
            Fold::Sum | Fold::Counter => value,
        };
        Sample { value: Value::Float(so_far.value), ..sample }
    }

    /// The last sample before a reset that `sample` shows, where it was not sent.
    pub(super) fn before_reset(&self, sample: &Sample) -> Option<Sample> {
        let Self::Counter { held: Some(held), .. } = self else { return None };
        let is_reset = match (&held.value, &sample.value) {
            (Value::Float(before), Value::Float(now)) => now < before,
            (Value::Histogram(before), Value::Histogram(now))
                if now.reset_hint() != ResetHint::Gauge =>
            {
                now.to_float().is_reset_after(&before.to_float())
            }
            _ => false,
        };
        (is_reset && held.at < sample.at).then(|| (**held).clone())
    }

    /// Notes what was decided on a sample.
    pub(super) fn note(&mut self, sample: &Sample, decision: &Decision) {
        let is_between =
            matches!(decision, Decision::Withhold(Reason::Interval | Reason::Points, _));
        match self {
            Self::Gauge { folded, .. } if !is_between => *folded = None,
            Self::Counter { held, .. } if !is_between => *held = None,
            Self::Counter { grows: false, .. } if matches!(sample.value, Value::Float(_)) => {}
            Self::Counter { held: Some(held), .. } if held.at < sample.at => {
                **held = sample.clone();
            }
            Self::Counter { held: held @ None, .. } => *held = Some(Box::new(sample.clone())),
            Self::Gauge { .. } | Self::Counter { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use stint_model::histogram::IntegerHistogram;
    use stint_model::{Histogram, Selector, Timestamp};

    use super::*;
    use crate::config::GaugeRule;

    fn window(name: &str, gauge: Option<Fold>) -> Option<Box<Window>> {
        let selectors = vec![Selector::metric("temp")];
        let gauges = gauge.map(|fold| GaugeRule { selectors, fold }).into_iter().collect();
        let rules = Rules {
            reset_guard: gauge.is_none(),
            gauges,
            ..super::super::super::rules::tests_rules()
        };
        Window::of(&Labels::from_pairs([("__name__", name)]), &rules, &Families::default())
    }

    fn at(secs: i64, value: Value) -> Sample {
        Sample { at: Timestamp(secs * 1000), started: None, value }
    }

    const BETWEEN: Decision = Decision::Withhold(Reason::Interval, None);

    #[test]
    fn gauges_come_to_the_largest_the_least_or_the_mean_since_the_last_one() {
        let last = |fold, values: &[f64]| {
            let mut window = window("temp", Some(fold)).unwrap();
            let mut last = f64::NAN;
            for (secs, value) in values.iter().enumerate() {
                let sample = at(secs as i64, Value::Float(*value));
                let offered = window.offer(sample.clone());
                assert_eq!(offered.at, sample.at);
                window.note(&sample, &BETWEEN);
                let Value::Float(value) = offered.value else { panic!("a number") };
                last = value;
            }
            window.note(&at(9, Value::Stale), &Decision::Withhold(Reason::Budget, None));
            assert!(matches!(*window, Window::Gauge { folded: None, .. }), "it begins anew");
            last
        };
        assert_eq!(last(Fold::Max, &[1.0, 9.0, 2.0]), 9.0);
        assert_eq!(last(Fold::Min, &[5.0, f64::NAN, 7.0]), 5.0);
        assert_eq!(last(Fold::Avg, &[1.0, 2.0, 6.0]), 3.0);
        assert_eq!(last(Fold::Avg, &[f64::MAX, f64::MAX]), f64::MAX);
        assert!(window("other", Some(Fold::Max)).is_none());
    }

    #[test]
    fn the_last_sample_before_a_reset_is_found() {
        let before = |name: &str, values: [Value; 2]| {
            let mut window = window(name, None).unwrap();
            let [first, second] = values;
            window.note(&at(1, first), &BETWEEN);
            window.before_reset(&at(2, second)).map(|sample| sample.at.as_ms())
        };
        let floats = |a, b| [Value::Float(a), Value::Float(b)];
        assert_eq!(before("a_total", floats(5.0, 3.0)), Some(1000));
        assert_eq!(before("a_total", floats(5.0, 5.0)), None);
        assert_eq!(before("temp", floats(5.0, 3.0)), None, "a gauge falls");
        let histogram = |count, reset_hint| {
            let one = IntegerHistogram { count, reset_hint, ..IntegerHistogram::default() };
            Value::Histogram(std::sync::Arc::new(Histogram::Integer(one)))
        };
        let of = |hint| [histogram(5, hint), histogram(3, hint)];
        assert_eq!(before("h", of(ResetHint::Unknown)), Some(1000));
        assert_eq!(before("h", of(ResetHint::Gauge)), None);
        // What was sent needs nothing before it.
        let mut window = window("a_total", None).unwrap();
        window.note(&at(1, Value::Float(5.0)), &BETWEEN);
        window.note(&at(2, Value::Float(6.0)), &Decision::Withhold(Reason::Budget, None));
        assert!(window.before_reset(&at(3, Value::Float(1.0))).is_none());
    }
}
