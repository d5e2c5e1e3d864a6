//! Blocks of series and several threads, whoever is the first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stint_model::Timestamp;
use stint_model::clock::SimClock;

use super::*;
use crate::column::Steps;
use crate::engine::{EngineOptions, Run};
use crate::parse::{Options, parse};

/// Something of a series that holds so many points, and is counted while it is there.
struct Heavy {
    index: usize,
    points: usize,
    there: Arc<AtomicUsize>,
}

impl Heavy {
    fn new(index: usize, points: usize, there: &Arc<AtomicUsize>) -> Self {
        there.fetch_add(1, Ordering::SeqCst);
        Self { index, points, there: Arc::clone(there) }
    }
}

impl Drop for Heavy {
    fn drop(&mut self) {
        self.there.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Waiting for Heavy {
    fn points(&self) -> usize {
        self.points
    }
}

fn cancel() -> Cancel {
    Cancel::new(Arc::new(SimClock::at(Timestamp(0))))
}

#[test]
fn what_is_heavy_is_not_made_far_ahead() {
    // Blocks of one series each.
    let line: Line<Heavy> = Line::new(100, BLOCK_STEPS, &cancel());
    let there = Arc::new(AtomicUsize::new(0));
    let make = |index: usize, _: &mut Scratch| Ok(Heavy::new(index, POINTS_AHEAD / 2, &there));
    let (options, expr) = (EngineOptions::default(), parse("1", &Options::all()).unwrap());
    let steps = Steps::once(0);
    let run = Run { text: "1", expr: &expr, steps, end: 0, is_range: false, lookback: None };
    let shared = Shared::new(&options, None, &run, cancel());
    let mut next = 0;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| line.help(&make));
        }
        let take = &mut |index: usize, heavy: Heavy| {
            // Time for the others to run ahead.
            for _ in 0..2_000 {
                std::thread::yield_now();
            }
            // This one and another that waits; and each helper may have begun one before that did.
            assert!(there.load(Ordering::SeqCst) <= 5, "at {index}");
            assert_eq!((index, heavy.index), (next, next));
            next += 1;
            Ok(())
        };
        line.take_all(&shared, &make, take).unwrap();
    });
    assert_eq!((next, line.lock().points, there.load(Ordering::SeqCst)), (100, 0, 0));
}

#[test]
fn a_helper_that_panics_leaves_nobody_waiting() {
    let line: Line<Heavy> = Line::new(64, BLOCK_STEPS, &cancel());
    let there = Arc::new(AtomicUsize::new(0));
    let make = |index: usize, _: &mut Scratch| {
        assert!(index != 0, "a bug");
        Ok(Heavy::new(index, 1, &there))
    };
    std::thread::scope(|scope| {
        let helpers = [(); 3].map(|()| scope.spawn(|| line.help(&make)));
        let ends = helpers.map(|helper| helper.join().is_err());
        assert_eq!(ends.iter().filter(|panicked| **panicked).count(), 1);
    });
    assert!(line.lock().stopped);
}
