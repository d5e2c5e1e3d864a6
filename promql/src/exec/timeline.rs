//! Timelines: where the windows of a range lie among the times of a series.
//!
//! All series of a target are sampled at the same times, so what depends on times alone is worked
//! out once for all of them.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::column::Steps;
use crate::exec::window::Shape;

/// Bytes of the timelines that are remembered at the same time. A query over more targets than fit
/// in works some out again; memory does not grow with the number of series.
const BYTES_MAX: usize = 16 << 20;

/// Indexes of the samples in a window: from the first up to the second.
pub(crate) type Bounds = (u32, u32);

/// What follows from the times of a series.
#[derive(Debug)]
pub(crate) struct Timeline {
    times: Vec<i64>,
    /// The window of each step.
    pub(crate) windows: Vec<Bounds>,
    /// How a rate is extrapolated in each window; empty where nobody asked.
    pub(crate) reaches: Vec<Reach>,
    /// Bitmap of the steps that have a reach.
    pub(crate) reached: Vec<u64>,
    /// How many samples all windows have, and how many there are that any has.
    pub(crate) counted: (usize, usize),
}

/// How far the samples of a window stand for more than themselves. Lengths are in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    /// From the first to the last sample.
    pub(crate) sampled: f64,
    /// Before the first sample, unless zero is nearer.
    pub(crate) before: f64,
    /// Behind the last sample.
    pub(crate) after: f64,
    /// By what the increase between first and last sample is multiplied, unless zero is nearer.
    pub(crate) factor: f64,
}

/// The timelines of a range vector that were met lately.
pub(crate) struct Timelines {
    shape: Shape,
    steps: Steps,
    known: HashMap<(usize, i64, i64), Arc<Timeline>, foldhash::fast::FixedState>,
    bytes: usize,
}

impl Timelines {
    /// Of windows of this shape, one at each step.
    pub(crate) fn new(shape: Shape, steps: Steps) -> Self {
        Self { shape, steps, known: HashMap::default(), bytes: 0 }
    }

    /// The length of the windows in milliseconds.
    pub(crate) fn range(&self) -> i64 {
        self.shape.range
    }

    /// The timeline of a series with samples at `times`; `prepare` adds to one that is new.
    pub(crate) fn of(
        &mut self,
        times: &[i64],
        prepare: impl FnOnce(&mut Timeline, &Shape, &Steps),
    ) -> Arc<Timeline> {
        let time = |at: usize| times.get(at).copied().unwrap_or_default();
        let key = (times.len(), time(0), time(times.len() / 2));
        if let Some(known) = self.known.get(&key).filter(|known| known.times == times) {
            return Arc::clone(known);
        }
        let mut timeline = Timeline::new(times, &self.shape, &self.steps);
        prepare(&mut timeline, &self.shape, &self.steps);
        let timeline = Arc::new(timeline);
        if self.bytes > BYTES_MAX {
            self.known.clear();
            self.bytes = 0;
        }
        self.bytes += timeline.bytes();
        self.known.insert(key, Arc::clone(&timeline));
        timeline
    }
}

impl Timeline {
    fn new(times: &[i64], shape: &Shape, steps: &Steps) -> Self {
        let mut windows = Vec::with_capacity(steps.count);
        let (mut start, mut end) = (Pointer::default(), Pointer::default());
        for time in steps.times() {
            let until = shape.reference.time(time);
            let after = until.saturating_sub(shape.range);
            let (from, to) = (start.to(times, after), end.to(times, until));
            let to = to.max(from);
            windows.push((from as u32, to as u32));
        }
        let (mut samples, mut read, mut seen) = (0, 0, 0);
        for (from, to) in &windows {
            samples += (to - from) as usize;
            read += to.saturating_sub(seen.max(*from)) as usize;
            seen = seen.max(*to);
        }
        Self {
            times: times.to_vec(),
            windows,
            reaches: Vec::new(),
            reached: Vec::new(),
            counted: (samples, read),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(self.times.as_slice())
            + size_of_val(self.windows.as_slice())
            + size_of_val(self.reaches.as_slice())
    }

    /// The times of the samples from `from` up to `to`.
    pub(crate) fn times(&self, (from, to): Bounds) -> &[i64] {
        self.times.get(from as usize..to as usize).unwrap_or_default()
    }
}

/// An index that only moves forward, and by about as much each time.
#[derive(Default)]
struct Pointer {
    at: usize,
    stride: usize,
}

impl Pointer {
    /// Moves behind all times up to `limit`.
    fn to(&mut self, times: &[i64], limit: i64) -> usize {
        let begin = self.at;
        let guess = begin + self.stride;
        let is_before = |at: usize| times.get(at).is_some_and(|time| *time <= limit);
        if self.stride > 0 && is_before(guess - 1) {
            self.at = guess;
        }
        while is_before(self.at) {
            self.at += 1;
        }
        self.stride = self.at - begin;
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::duration::Reference;
    use crate::exec::window::Edges;

    fn timelines(range: i64, steps: Steps) -> Timelines {
        let reference = Reference { at: None, offset: 0 };
        Timelines::new(Shape { reference, range, edges: Edges::Plain }, steps)
    }

    #[test]
    fn windows_are_open_on_the_left() {
        let steps = Steps { start: 20, step: 10, count: 4 };
        let timeline = timelines(10, steps).of(&[5, 10, 15, 20, 21, 40, 51], |_, _, _| {});
        assert_eq!(timeline.windows, [(2, 4), (4, 5), (5, 6), (6, 6)]);
        assert_eq!(timeline.times((2, 4)), [15, 20]);
    }

    #[test]
    fn windows_of_irregular_times_are_those_of_a_search() {
        let times: Vec<i64> = (0..500_i64).map(|n| n * 7 + (n * n) % 5 + (n / 90) * 300).collect();
        for (range, step) in [(1, 1), (30, 7), (700, 35), (50, 400)] {
            let steps = Steps { start: -50, step, count: 5000 / step as usize };
            let timeline = timelines(range, steps).of(&times, |_, _, _| {});
            for (time, (from, to)) in steps.times().zip(&timeline.windows) {
                let expected_from = times.partition_point(|at| *at <= time - range);
                let expected_to = times.partition_point(|at| *at <= time);
                assert_eq!((*from as usize, *to as usize), (expected_from, expected_to));
            }
        }
    }

    #[test]
    fn equal_times_share_a_timeline_and_others_do_not() {
        let mut timelines = timelines(10, Steps { start: 20, step: 10, count: 2 });
        let first = timelines.of(&[1, 12, 23], |_, _, _| {});
        assert!(Arc::ptr_eq(&first, &timelines.of(&[1, 12, 23], |_, _, _| {})));
        // The same length, first time and time in the middle.
        let other = timelines.of(&[1, 12, 24], |_, _, _| {});
        assert!(!Arc::ptr_eq(&first, &other));
    }
}
