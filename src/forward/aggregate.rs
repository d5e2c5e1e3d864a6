//! Labels that are aggregated away: series that differ in them alone become one, before any slot is
//! asked for.
//!
//! A counter's aggregate is the sum of its inputs' increases: an input that starts anew, ends or joins
//! never lowers it, and a restart goes on from what was sent last. A gauge's is made from the inputs that are there. The aggregates have one sample at
//! each boundary of whole intervals, when the samples' own time is a little past it; a sample from
//! behind the boundary waits for the next one. So all buckets of a histogram are made of the same
//! scrapes, and what is read again after a restart makes the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use stint_model::histogram::FloatHistogram;
use stint_model::labels::QUANTILE;
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
    /// Samples up to this time are in it, by what an earlier run sent.
    sum_until: Timestamp,
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
        let rule = self.rules.iter().filter(|rule| suits(rule.fold, labels)).find(selects)?;
        let fold = rule.fold;
        let left = labels.retain(|label| !rule.without.iter().any(|gone| gone == label));
        let mut is_new = false;
        let output = match self.index.entry(Key::of(&left)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                is_new = true;
                let new = State {
                    fold,
                    labels: left,
                    sum: None,
                    sum_until: Timestamp::MIN,
                    inputs: Vec::new(),
                    is_shown: false,
                };
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

    /// Goes on with a counter from what an earlier run sent of it last: its value at `at`.
    pub(super) fn resume(&mut self, output: Output, at: Timestamp, value: f64) {
        if let Some(state) = self.outputs.get_mut(output.0 as usize)
            && state.fold == Fold::Counter
            && value.is_finite()
            && value >= 0.0
        {
            (state.sum, state.sum_until) = (Some(Amount::Float(value)), at);
        }
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
        state.sum_until = Timestamp::MIN;
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
        // What is read again is in the sum already.
        if state.fold == Fold::Counter && sample.at > state.sum_until {
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

/// Whether a series may be folded so. Quantiles of several sources have neither sum nor mean; the least
/// and the largest of them are bounds of the quantile of all.
fn suits(fold: Fold, labels: &Labels) -> bool {
    matches!(fold, Fold::Min | Fold::Max) || labels.get(QUANTILE).is_none()
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
mod tests;
