//! Rates, increases and deltas of a series that is plain floats, at all steps at once.
//!
//! The same arithmetic as in [`super::rate`], in the same order, split into what depends on times
//! alone and is shared by all series sampled together ([`Reach`]), and the rest.

use crate::column::{Column, Samples, Steps};
use crate::exec::timeline::{Reach, Timeline};
use crate::exec::window::Shape;

/// Which of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Values only grow, unless the counter began anew.
    pub(crate) is_counter: bool,
    /// The increase is divided by the length of the window.
    pub(crate) is_rate: bool,
}

/// Products of values in here have no rounding errors but the usual, relative ones.
const USUAL: std::ops::Range<f64> = 1e-280..1e300;
/// More than a few roundings can amount to.
const MARGIN: f64 = 1.000_000_001;

/// Works out how the rates of a timeline reach beyond their samples.
pub(crate) fn prepare(kind: Kind, timeline: &mut Timeline, shape: &Shape, steps: &Steps) {
    let seconds = kind.is_rate.then_some(shape.range as f64 / 1000.0);
    let mut reaches = Vec::with_capacity(steps.count);
    let mut reached = vec![0_u64; steps.count.div_ceil(64)];
    for (at, time) in steps.times().enumerate() {
        let times = timeline.windows.get(at).map(|window| timeline.times(*window));
        let reach = match times {
            Some([first, between @ .., last]) => {
                if let Some(word) = reached.get_mut(at / 64) {
                    *word |= 1 << (at % 64);
                }
                let end = shape.reference.time(time);
                let sampled = last.saturating_sub(*first) as f64 / 1000.0;
                let to_start =
                    first.saturating_sub(end.saturating_sub(shape.range)) as f64 / 1000.0;
                let to_end = end.saturating_sub(*last) as f64 / 1000.0;
                reach(sampled, between.len() + 1, to_start, to_end, seconds)
            }
            _ => Reach::default(),
        };
        reaches.push(reach);
    }
    (timeline.reaches, timeline.reached) = (reaches, reached);
}

fn reach(sampled: f64, gaps: usize, to_start: f64, to_end: f64, seconds: Option<f64>) -> Reach {
    let average = sampled / gaps as f64;
    let threshold = average * 1.1;
    let before = if to_start >= threshold { average / 2.0 } else { to_start };
    let after = if to_end >= threshold { average / 2.0 } else { to_end };
    let mut reach = Reach { sampled, before, after, factor: 0.0 };
    reach.factor = factor(&reach, before, seconds);
    reach
}

/// By what the increase grows when it reaches `before` seconds back.
fn factor(reach: &Reach, before: f64, seconds: Option<f64>) -> f64 {
    let factor = (reach.sampled + before + reach.after) / reach.sampled;
    match seconds {
        Some(seconds) => factor / seconds,
        None => factor,
    }
}

/// Fills the steps that have a rate. The timeline must be prepared, and be that of the samples.
pub(crate) fn column(
    kind: Kind,
    samples: &Samples,
    timeline: &Timeline,
    range: i64,
    out: &mut Column,
) {
    let seconds = kind.is_rate.then_some(range as f64 / 1000.0);
    let values = out.fill(&timeline.reached);
    let mut drops = Drops { samples, next: 0 };
    for ((value, (from, to)), reach) in
        values.iter_mut().zip(&timeline.windows).zip(&timeline.reaches)
    {
        let (from, to) = (*from as usize, *to as usize);
        if to < from + 2 {
            continue;
        }
        let (Some(first), Some(last)) = (samples.floats.get(from), samples.floats.get(to - 1))
        else {
            continue;
        };
        let mut increase = last - first;
        if !kind.is_counter {
            *value = increase * reach.factor;
            continue;
        }
        if !samples.drops.is_empty() {
            increase = drops.add(increase, from, to);
        }
        *value = increase * counter_factor(*first, increase, reach, seconds);
    }
}

/// A counter is not extrapolated below zero.
#[inline]
fn counter_factor(first: f64, increase: f64, reach: &Reach, seconds: Option<f64>) -> f64 {
    if increase > 0.0 && first >= 0.0 {
        // Most counters are far from zero, which is seen without a division.
        let far = first * reach.sampled;
        if !(USUAL.contains(&far) && far >= reach.before * increase * MARGIN) {
            let to_zero = reach.sampled * (first / increase);
            if to_zero < reach.before {
                return factor(reach, to_zero, seconds);
            }
        }
    }
    reach.factor
}

/// The places where a counter began anew, passed in order.
struct Drops<'s> {
    samples: &'s Samples,
    next: usize,
}

impl Drops<'_> {
    /// Adds what was reached before each new beginning between the samples `from` and `to`.
    fn add(&mut self, mut increase: f64, from: usize, to: usize) -> f64 {
        let drops = &self.samples.drops;
        while drops.get(self.next).is_some_and(|at| *at <= from) {
            self.next += 1;
        }
        for at in drops.get(self.next..).unwrap_or_default() {
            if *at >= to {
                break;
            }
            if let Some(before) = self.samples.floats.get(at - 1) {
                increase += before;
            }
        }
        increase
    }
}
