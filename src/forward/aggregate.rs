//! Labels that are aggregated away: series that differ in them alone become one, before any slot is
//! asked for.
//!
//! A counter's aggregate is the sum of its inputs' increases: an input that starts anew, ends or joins
//! never lowers it. A gauge's is made from the inputs that are there. The aggregates have one sample at
//! each boundary of whole intervals, when the samples' own time is a little past it; a sample from
//! behind the boundary waits for the next one. So all buckets of a histogram are made of the same
//! scrapes, and what is read again after a restart makes the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use stint_model::histogram::FloatHistogram;
use stint_model::{Histogram, Labels, Sample, Span, Timestamp, Value};

use crate::budget::group::{Key, KeyHasher};
use crate::config::{Aggregate, Fold};

/// A boundary is dealt with when the samples' time is so far past it.
const DELAY: Span = Span(5 * Span::SECOND.0);
/// An input whose rhythm is unknown is taken for one of this distance.
const GAP: Span = Span::MINUTE;
/// An input is there for so many of its distances after its last sample, in halves.
const GAPS_HALVES: i64 = 3;
/// No query shows a sample longer than this.
const SHOWN_MAX: Span = Span(5 * Span::MINUTE.0);

/// The number of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Output(u32);

/// What was summed up or is there: a number or a histogram.
#[derive(Clone, Debug, PartialEq)]
enum Amount {
    Float(f64),
    Histogram(Box<FloatHistogram>),
}

#[derive(Debug)]
struct Input {
    output: Output,
    last: Option<(Timestamp, Amount)>,
    gap: Span,
    /// Since its last sample it ended.
    is_gone: bool,
}

#[derive(Debug)]
struct State {
    fold: Fold,
    labels: Labels,
    /// Of a counter, its increases so far.
    sum: Option<Amount>,
    inputs: Vec<Key>,
    /// Whether its last sample was a value.
    is_shown: bool,
}

/// What lies further behind the next boundary is not kept until then.
const LATER_MAX: Span = Span(10 * Span::MINUTE.0);

/// All aggregates of one endpoint.
#[derive(Debug)]
pub(super) struct Aggregator {
    rules: Vec<Aggregate>,
    every: Span,
    outputs: Vec<State>,
    /// Numbers of outputs that are gone.
    vacant: Vec<u32>,
    index: HashMap<Key, Output, KeyHasher>,
    inputs: HashMap<Key, Input, KeyHasher>,
    /// From behind the next boundary.
    later: Vec<(Key, Sample)>,
    next: Option<Timestamp>,
    /// When the first sample came: what started later counts from zero.
    began: Option<Timestamp>,
}

impl Aggregator {
    /// Aggregates of one sample per `every`, or per minute where that is zero.
    pub(super) fn new(rules: Vec<Aggregate>, every: Span) -> Self {
        let every = if every > Span::ZERO { every } else { Span::MINUTE };
        Self {
            rules,
            every,
            outputs: Vec::new(),
            vacant: Vec::new(),
            index: HashMap::default(),
            inputs: HashMap::default(),
            later: Vec::new(),
            next: None,
            began: None,
        }
    }

    /// The aggregate that a series belongs to, and whether that is new.
    pub(super) fn join(&mut self, labels: &Labels) -> Option<(Output, bool)> {
        self.join_as(labels, Key::of(labels))
    }

    /// The same for a series that is another one here than by its labels: `key` tells which.
    pub(super) fn join_as(&mut self, labels: &Labels, key: Key) -> Option<(Output, bool)> {
        let selects = |rule: &&Aggregate| rule.selectors.iter().any(|it| it.matches(labels));
        let rule = self.rules.iter().find(selects)?;
        let fold = rule.fold;
        let left = labels.retain(|label| !rule.without.iter().any(|gone| gone == label));
        let mut is_new = false;
        let output = match self.index.entry(Key::of(&left)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                is_new = true;
                let new =
                    State { fold, labels: left, sum: None, inputs: Vec::new(), is_shown: false };
                let number = self.vacant.pop().unwrap_or(self.outputs.len() as u32);
                match self.outputs.get_mut(number as usize) {
                    Some(gone) => *gone = new,
                    None => self.outputs.push(new),
                }
                *place.insert(Output(number))
            }
        };
        // Stored series may end up as the same one.
        if let Entry::Vacant(vacant) = self.inputs.entry(key) {
            vacant.insert(Input { output, last: None, gap: GAP, is_gone: false });
            if let Some(state) = self.outputs.get_mut(output.0 as usize) {
                state.inputs.push(key);
            }
        }
        Some((output, is_new))
    }

    /// The labels of an aggregate.
    pub(super) fn labels(&self, output: Output) -> Labels {
        self.outputs.get(output.0 as usize).map(|state| state.labels.clone()).unwrap_or_default()
    }

    /// Forgets a series. What it brought stays.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(input) = self.inputs.remove(&key) else { return };
        if let Some(state) = self.outputs.get_mut(input.output.0 as usize) {
            state.inputs.retain(|other| *other != key);
        }
    }

    /// Forgets an aggregate that nothing belongs to any more.
    pub(super) fn forget_output(&mut self, output: Output) {
        let Some(state) = self.outputs.get_mut(output.0 as usize) else { return };
        if self.index.remove(&Key::of(&state.labels)).is_none() {
            return;
        }
        for key in std::mem::take(&mut state.inputs) {
            self.inputs.remove(&key);
        }
        (state.labels, state.sum, state.is_shown) = (Labels::default(), None, false);
        self.vacant.push(output.0);
    }

    /// Takes a sample of a series that joined; says whether it can be part of its aggregate.
    pub(super) fn feed(&mut self, key: Key, sample: &Sample) -> bool {
        let fold =
            self.inputs.get(&key).and_then(|input| self.outputs.get(input.output.0 as usize));
        let is_histogram = matches!(sample.value, Value::Histogram(_));
        if is_histogram && fold.is_none_or(|state| matches!(state.fold, Fold::Min | Fold::Max)) {
            return false;
        }
        self.began.get_or_insert(sample.at);
        match self.next {
            // A clock that is far ahead is not waited for.
            Some(next) if sample.at.since(next) > LATER_MAX => {}
            Some(next) if sample.at > next => self.later.push((key, sample.clone())),
            _ => self.apply(key, sample),
        }
        true
    }

    fn apply(&mut self, key: Key, sample: &Sample) {
        let Some(input) = self.inputs.get_mut(&key) else { return };
        let amount = match &sample.value {
            Value::Stale => {
                input.is_gone = true;
                return;
            }
            Value::Float(value) => Amount::Float(*value),
            Value::Histogram(histogram) => Amount::Histogram(Box::new(histogram.to_float())),
        };
        let before = input.last.take();
        // What comes late changes nothing.
        if let Some((at, _)) = &before
            && *at >= sample.at
        {
            input.last = before;
            return;
        }
        if let Some((at, _)) = &before {
            // Two scrapes that come close together do not make the next one late.
            let least = input.gap.as_ms() * 3 / 4;
            input.gap = Span(sample.at.since(*at).as_ms().clamp(least, GAP.as_ms()));
        }
        let Some(state) = self.outputs.get_mut(input.output.0 as usize) else { return };
        if state.fold == Fold::Counter {
            let began = self.began.unwrap_or(sample.at);
            let counts = sample.started.is_some_and(|started| started > began);
            let increase = match before {
                Some((_, before)) => amount.increase_since(&before),
                None if counts => amount.clone(),
                None => amount.zero(),
            };
            match &mut state.sum {
                Some(sum) => sum.add(&increase),
                None => state.sum = Some(increase),
            }
        }
        input.is_gone = false;
        input.last = Some((sample.at, amount));
    }

    /// The samples of all aggregates at the boundaries that lie behind `now`, the samples' time.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<(Output, Sample)> {
        let every = self.every.as_ms();
        let after = |at: Timestamp| Timestamp((at.as_ms() / every + 1) * every);
        // An earlier run may have made the first one.
        let next = *self.next.get_or_insert_with(|| after(after(now)));
        let mut made = Vec::new();
        if now.since(next) < DELAY {
            return made;
        }
        self.make(next, &mut made);
        // Where nothing was read for long there is nothing in between.
        let skipped = after(Timestamp(now.as_ms() - DELAY.as_ms() - every));
        self.next = Some(after(next).max(skipped));
        for (key, sample) in std::mem::take(&mut self.later) {
            self.feed(key, &sample);
        }
        made
    }

    fn make(&mut self, at: Timestamp, made: &mut Vec<(Output, Sample)>) {
        for (number, state) in self.outputs.iter_mut().enumerate() {
            let present = state.inputs.iter().filter_map(|key| self.inputs.get(key)?.there(at));
            let value = match state.fold {
                Fold::Counter => match (present.count(), &state.sum) {
                    (0, _) | (_, None) => None,
                    (_, Some(sum)) => Some(sum.clone()),
                },
                fold => folded(fold, present),
            };
            let output = Output(number as u32);
            match value {
                Some(value) => {
                    state.is_shown = true;
                    made.push((output, Sample { at, started: None, value: value.into_value() }));
                }
                None if state.is_shown => {
                    state.is_shown = false;
                    made.push((output, Sample::stale(at)));
                }
                None => {}
            }
        }
    }
}

impl Input {
    /// The present value at `at`, if there is one.
    fn there(&self, at: Timestamp) -> Option<&Amount> {
        let (last, amount) = self.last.as_ref()?;
        let longest = Span(self.gap.as_ms() * GAPS_HALVES / 2).min(SHOWN_MAX);
        (!self.is_gone && at.since(*last) <= longest).then_some(amount)
    }
}

fn folded<'a>(fold: Fold, present: impl Iterator<Item = &'a Amount>) -> Option<Amount> {
    let mut count = 0.0;
    let mut folded: Option<Amount> = None;
    for amount in present {
        count += 1.0;
        match (&mut folded, amount) {
            (None, first) => folded = Some(first.clone()),
            (Some(Amount::Float(so_far)), Amount::Float(value)) if fold == Fold::Min => {
                *so_far = so_far.min(*value);
            }
            (Some(Amount::Float(so_far)), Amount::Float(value)) if fold == Fold::Max => {
                *so_far = so_far.max(*value);
            }
            (Some(so_far), value) => so_far.add(value),
        }
    }
    match &mut folded {
        Some(Amount::Float(sum)) if fold == Fold::Avg => *sum /= count,
        Some(Amount::Histogram(sum)) if fold == Fold::Avg => sum.divide(count),
        _ => {}
    }
    folded
}

impl Amount {
    /// Adds what is of the same kind and layout; of two kinds that never mix, the first one stays.
    fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Float(sum), Self::Float(value)) => *sum += value,
            (Self::Histogram(sum), Self::Histogram(value)) => {
                // Custom and exponential buckets have no sum.
                let _ = sum.add(value);
            }
            _ => {}
        }
    }

    fn zero(&self) -> Self {
        match self {
            Self::Float(_) => Self::Float(0.0),
            Self::Histogram(histogram) => {
                let mut zero = histogram.clone();
                zero.scale(0.0);
                zero.compact();
                Self::Histogram(zero)
            }
        }
    }

    /// What was added since `before`: everything, after a reset.
    fn increase_since(&self, before: &Self) -> Self {
        match (self, before) {
            (Self::Float(now), Self::Float(before)) if now >= before => Self::Float(now - before),
            (Self::Histogram(now), Self::Histogram(before)) if !now.is_reset_after(before) => {
                let mut increase = now.clone();
                if increase.sub(before).is_ok() { Self::Histogram(increase) } else { self.clone() }
            }
            _ => self.clone(),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Float(value) => Value::from_wire(value),
            Self::Histogram(histogram) => Value::Histogram(Arc::new(Histogram::Float(*histogram))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stint_model::Selector;

    use super::*;

    #[test]
    fn what_nothing_belongs_to_any_more_is_forgotten_and_its_number_used_again() {
        let mut all = aggregator(Fold::Sum);
        let of = |path: &str| Labels::from_pairs([("__name__", "m"), ("pod", "p"), ("path", path)]);
        let (a, _) = all.join(&of("/a")).unwrap();
        let (b, _) = all.join(&of("/b")).unwrap();
        let ahead = Sample::float(Timestamp(Span::DAY.0), 1.0);
        all.due(Timestamp(0));
        assert!(all.feed(Key::of(&of("/b")), &ahead) && all.later.is_empty());
        all.forget_output(a);
        all.forget_output(a);
        assert_eq!(all.inputs.len(), 1);
        let (again, is_new) = all.join(&of("/a")).unwrap();
        assert!(is_new && again == a && again != b);
        assert_eq!((all.outputs.len(), all.vacant.len()), (2, 0));
        assert_eq!(all.labels(again).get("path"), Some("/a"));
    }

    fn aggregator(fold: Fold) -> Aggregator {
        let selectors = vec![Selector::metric("m")];
        let rule = Aggregate { selectors, without: vec!["pod".into()], fold };
        Aggregator::new(vec![rule], Span::MINUTE)
    }

    fn pod(name: &str) -> Labels {
        Labels::from_pairs([("__name__", "m"), ("pod", name), ("path", "/")])
    }

    /// Feeds `scrapes` (second, pod, value) in order; returns what is made, by second.
    fn run(fold: Fold, scrapes: &[(i64, &str, f64)]) -> Vec<(i64, f64)> {
        let mut all = aggregator(fold);
        let mut made = Vec::new();
        for (second, name, value) in scrapes {
            let labels = pod(name);
            if !all.inputs.contains_key(&Key::of(&labels)) {
                all.join(&labels).unwrap();
            }
            let sample = Sample::float(Timestamp(second * 1000), *value);
            made.extend(all.due(sample.at));
            assert!(all.feed(Key::of(&labels), &sample));
        }
        let last = scrapes.last().unwrap().0 * 1000;
        made.extend(all.due(Timestamp(last + 65_000)));
        made.iter()
            .map(|(_, sample)| match sample.value {
                Value::Float(value) => (sample.at.as_ms() / 1000, value),
                _ => (sample.at.as_ms() / 1000, f64::NEG_INFINITY),
            })
            .collect()
    }

    fn every_15(
        seconds: i64,
        values: impl Fn(i64) -> Vec<(&'static str, f64)>,
    ) -> Vec<(i64, &'static str, f64)> {
        let at = |second| values(second).into_iter().map(move |(pod, value)| (second, pod, value));
        (0..=seconds).step_by(15).flat_map(at).collect()
    }

    #[test]
    fn a_counter_sums_up_increases_over_resets_ends_and_beginnings() {
        let made = run(
            Fold::Counter,
            &every_15(600, |s| {
                let mut all = vec![("a", 100.0 + s as f64)];
                // One that ends in the middle, and one that begins anew.
                if s < 300 {
                    all.push(("b", 5.0 * s as f64));
                }
                all.push(("c", (s % 200) as f64));
                all
            }),
        );
        assert!(made.windows(2).all(|pair| pair[0].1 <= pair[1].1), "it never falls: {made:?}");
        assert_eq!(made[0], (120, 120.0 + 600.0 + 120.0));
        // c: 195, then 10 (not seen between), 190 of the next run, and so on.
        let (at, last) = *made.last().unwrap();
        let of_c: i64 = (15..=at)
            .step_by(15)
            .map(|s| {
                let (now, before) = (s % 200, (s - 15) % 200);
                if now >= before { now - before } else { now }
            })
            .sum();
        assert_eq!(last, at as f64 + 5.0 * 285.0 + of_c as f64);
    }

    #[test]
    fn gauges_are_made_of_what_is_there() {
        let scrapes = every_15(600, |s| match s {
            0..=299 => vec![("a", 1.0), ("b", 5.0)],
            _ => vec![("a", 2.0)],
        });
        let at = |made: &[(i64, f64)], second| made.iter().find(|it| it.0 == second).map(|it| it.1);
        for (fold, early, late) in [
            (Fold::Sum, 6.0, 2.0),
            (Fold::Avg, 3.0, 2.0),
            (Fold::Min, 1.0, 2.0),
            (Fold::Max, 5.0, 2.0),
        ] {
            let made = run(fold, &scrapes);
            assert_eq!((at(&made, 240), at(&made, 360)), (Some(early), Some(late)), "{fold:?}");
        }
    }

    #[test]
    fn what_ends_leaves_at_once_and_the_last_one_ends_the_aggregate() {
        let mut all = aggregator(Fold::Sum);
        for name in ["a", "b"] {
            all.join(&pod(name)).unwrap();
        }
        let mut made = Vec::new();
        for second in (0..600).step_by(15) {
            let at = Timestamp(second * 1000);
            made.extend(all.due(at));
            for (name, ends) in [("a", 225), ("b", 300)] {
                let sample = match second - ends {
                    0 => Sample::stale(at),
                    1.. => continue,
                    _ => Sample::float(at, 1.0),
                };
                all.feed(Key::of(&pod(name)), &sample);
            }
        }
        let values: Vec<Option<f64>> = made
            .iter()
            .map(|(_, sample)| match sample.value {
                Value::Float(value) => Some(value),
                _ => None,
            })
            .collect();
        assert_eq!(values, [Some(2.0), Some(2.0), Some(1.0), None]);
        assert_eq!(made[0].1.at, Timestamp(120_000));
    }

    #[test]
    fn a_counter_that_starts_later_counts_from_its_start() {
        let mut all = aggregator(Fold::Counter);
        all.join(&pod("a")).unwrap();
        all.join(&pod("b")).unwrap();
        let at = |second: i64| Timestamp(second * 1000);
        all.due(at(0));
        all.feed(Key::of(&pod("a")), &Sample::float(at(0), 7.0));
        let started = Sample { started: Some(at(20)), ..Sample::float(at(30), 3.0) };
        all.feed(Key::of(&pod("b")), &started);
        all.feed(Key::of(&pod("a")), &Sample::float(at(60), 9.0));
        let made = all.due(at(125));
        assert_eq!(made[0].1.value, Value::Float(5.0));
    }

    #[test]
    fn a_sample_from_behind_the_boundary_waits_for_the_next_one() {
        let scrapes =
            [(0, "a", 1.0), (60, "a", 1.0), (119, "a", 1.0), (121, "a", 9.0), (181, "a", 9.0)];
        assert_eq!(run(Fold::Sum, &scrapes), [(120, 1.0), (180, 9.0)]);
    }

    #[test]
    fn native_histograms_are_summed_up_and_resets_recognised() {
        let histogram = |count: f64| {
            let zero_count = count;
            let all = FloatHistogram { count, zero_count, sum: count, ..FloatHistogram::default() };
            Value::Histogram(Arc::new(Histogram::Float(all)))
        };
        let mut all = aggregator(Fold::Counter);
        all.join(&pod("a")).unwrap();
        all.join(&pod("b")).unwrap();
        all.due(Timestamp(0));
        for (second, a, b) in [(0, 4.0, 10.0), (60, 6.0, 15.0), (110, 1.0, 20.0)] {
            for (name, value) in [("a", a), ("b", b)] {
                let at = Timestamp(second * 1000);
                let sample = Sample { at, started: None, value: histogram(value) };
                assert!(all.feed(Key::of(&pod(name)), &sample));
            }
        }
        let made = all.due(Timestamp(125_000));
        let Value::Histogram(sum) = &made[0].1.value else { panic!("{made:?}") };
        assert_eq!(sum.to_float().count, 2.0 + 5.0 + 1.0 + 5.0);
        let mut least = aggregator(Fold::Min);
        least.join(&pod("a")).unwrap();
        let sample = Sample { at: Timestamp(1), started: None, value: histogram(1.0) };
        assert!(!least.feed(Key::of(&pod("a")), &sample), "there is no least histogram");
    }

    proptest! {
        #[test]
        fn a_counter_never_falls_and_loses_no_increase(
            steps in proptest::collection::vec((0u8..4, 0u32..50, prop::bool::weighted(0.1)), 8..200),
        ) {
            let mut now = [0.0f64; 4];
            let mut known = [false; 4];
            let names = ["a", "b", "c", "d"];
            let (mut scrapes, mut sum, mut at) = (Vec::new(), 0.0, 0);
            for (pod, by, resets) in steps {
                let pod = usize::from(pod);
                at += 15;
                let before = now[pod];
                now[pod] = if resets { f64::from(by) } else { before + f64::from(by) };
                if known[pod] {
                    sum += if now[pod] >= before { now[pod] - before } else { now[pod] };
                }
                known[pod] = true;
                scrapes.push((at, names[pod], now[pod]));
            }
            // The last state stays until it is shown.
            for _ in 0..10 {
                at += 15;
                scrapes.push((at, "a", now[0]));
                if !known[0] { known[0] = true; }
            }
            let made = run(Fold::Counter, &scrapes);
            let values: Vec<f64> = made.iter().map(|it| it.1).filter(|it| it.is_finite()).collect();
            prop_assert!(values.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert_eq!(values.last().copied(), Some(sum));
        }
    }
}
