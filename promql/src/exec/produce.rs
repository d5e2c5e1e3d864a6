//! Many series, made one by one or by several threads at once, and taken in order.
//!
//! Making a series (reading it, sliding windows over it) is most of the work and depends on nothing
//! but the series. Taking it (folding it into a group, joining it) happens on the query's own thread
//! and in order, so that the number of threads shows in no answer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use stint_model::Columns;

use crate::cancel::Cancel;
use crate::column::{Column, Samples};
use crate::engine::PHASE;
use crate::error::QueryError;
use crate::exec::timeline::Timelines;
use crate::exec::{Evaluator, Shared};

/// Most series of one block, which is what a thread makes at once.
const BLOCK_SERIES: usize = 128;
/// Most steps of all series of one block, where it has more than one.
const BLOCK_STEPS: usize = 8192;
/// How many blocks may be made before the first of them is taken.
const AHEAD: usize = 16;
/// No block is made ahead while those that wait to be taken hold more than so many points.
const POINTS_AHEAD: usize = 1 << 20;
/// There are at least so many blocks, where there are as many series.
const BLOCKS: usize = 16;
/// A step costs at least as much as this many, for what is read.
const STEPS_OF_SERIES: usize = 64;

/// What is made of a series and may wait to be taken.
pub(crate) trait Waiting: Send {
    /// The points that it holds, but for a column of the query's steps.
    fn points(&self) -> usize;
}

/// Memory that is used again for one series after the other.
pub(crate) struct Scratch {
    pub(crate) columns: Columns,
    pub(crate) samples: Samples,
    pub(crate) timelines: Option<Timelines>,
    pub(crate) cancel: Cancel,
    spare: Vec<Column>,
}

impl Scratch {
    fn new(cancel: Cancel) -> Self {
        Self {
            columns: Columns::default(),
            samples: Samples::default(),
            timelines: None,
            cancel,
            spare: Vec::new(),
        }
    }

    /// A column of `count` empty steps.
    pub(crate) fn column(&mut self, count: usize) -> Column {
        match self.spare.pop() {
            Some(mut column) => {
                column.reset(count);
                column
            }
            None => Column::new(count),
        }
    }

    /// Takes back a column that turned out not to be needed.
    pub(crate) fn recycle(&mut self, column: Column) {
        self.spare.push(column);
    }

    /// An error when the query should stop.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        self.cancel.check(PHASE)
    }
}

/// Makes what is taken of a series.
pub(crate) type Make<'m, M> = dyn Fn(usize, &mut Scratch) -> Result<M, QueryError> + Sync + 'm;

/// Takes it.
pub(crate) type TakeMade<'t, M> = dyn FnMut(usize, M) -> Result<(), QueryError> + 't;

impl Evaluator<'_> {
    /// Makes something of each of `count` series and takes it, in order.
    pub(crate) fn produce<M: Waiting>(
        &self,
        count: usize,
        make: &Make<'_, M>,
        take: &mut TakeMade<'_, M>,
    ) -> Result<(), QueryError> {
        let steps = count.saturating_mul(self.steps.count.max(STEPS_OF_SERIES));
        let rewrites = &self.shared.options.rewrites;
        let workers = self.shared.workers.filter(|_| rewrites.workers);
        if let Some(workers) = workers.filter(|workers| workers.is_worthwhile(steps)) {
            let line = Line::new(count, self.steps.count, &self.shared.cancel);
            let mut outcome = Ok(());
            workers.beside(&|| line.help(make), &mut || {
                outcome = line.take_all(self.shared, make, take);
            });
            return outcome;
        }
        let mut scratch = Scratch::new(self.shared.cancel.clone());
        for index in 0..count {
            self.shared.check()?;
            scratch.spare.append(&mut self.shared.spare.borrow_mut());
            take(index, make(index, &mut scratch)?)?;
        }
        self.shared.spare.borrow_mut().append(&mut scratch.spare);
        Ok(())
    }
}

/// Blocks of series on their way through several threads.
struct Line<M> {
    state: Mutex<State<M>>,
    changed: Condvar,
    count: usize,
    block: usize,
    cancel: Cancel,
}

struct State<M> {
    /// The next block that nobody makes.
    next: usize,
    /// The next block to be taken.
    taken: usize,
    made: BTreeMap<usize, Made<M>>,
    /// Points of what was made and not taken.
    points: usize,
    spare: Vec<Column>,
    /// Nothing more is wanted.
    stopped: bool,
    /// Threads that wait for a change.
    waiting: usize,
}

impl<M> State<M> {
    /// Whether another block may be made before the first of them is taken.
    fn has_room(&self) -> bool {
        self.next < self.taken + AHEAD && self.points < POINTS_AHEAD
    }
}

/// A block, or why there is none.
type Made<M> = Result<Vec<M>, QueryError>;

fn points<M: Waiting>(made: &Made<M>) -> usize {
    made.iter().flatten().map(Waiting::points).sum()
}

/// What the query's own thread does next.
enum Turn<M> {
    Take(Made<M>),
    Make(usize),
    Done,
}

impl<M: Waiting> Line<M> {
    fn new(count: usize, steps: usize, cancel: &Cancel) -> Self {
        let state = State {
            next: 0,
            taken: 0,
            made: BTreeMap::new(),
            points: 0,
            spare: Vec::new(),
            stopped: false,
            waiting: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            count,
            block: (BLOCK_STEPS / steps).min(BLOCK_SERIES).min(count / BLOCKS).max(1),
            cancel: cancel.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // A thread that panicked left a whole state: nothing inside panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, mut state: MutexGuard<'g, State<M>>) -> MutexGuard<'g, State<M>> {
        state.waiting += 1;
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// Wakes who waits, if anybody does: mostly nobody, and to find that out by waking is slow.
    fn wake(&self, state: MutexGuard<'_, State<M>>) {
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.changed.notify_all();
        }
    }

    fn blocks(&self) -> usize {
        self.count.div_ceil(self.block)
    }

    fn series(&self, block: usize) -> Range<usize> {
        let start = block * self.block;
        start..(start + self.block).min(self.count)
    }

    /// Makes blocks until there are none left.
    fn help(&self, make: &Make<'_, M>) {
        let mut scratch = Scratch::new(self.cancel.clone());
        loop {
            let mut state = self.lock();
            while !state.stopped && state.next < self.blocks() && !state.has_room() {
                state = self.wait(state);
            }
            if state.stopped || state.next >= self.blocks() {
                return;
            }
            let block = self.claim(&mut state, &mut scratch);
            drop(state);
            self.make(block, &mut scratch, make);
        }
    }

    fn claim(&self, state: &mut State<M>, scratch: &mut Scratch) -> usize {
        let wanted = self.block.saturating_sub(scratch.spare.len());
        let from = state.spare.len().saturating_sub(wanted);
        scratch.spare.extend(state.spare.drain(from..));
        let block = state.next;
        state.next += 1;
        block
    }

    fn make(&self, block: usize, scratch: &mut Scratch, make: &Make<'_, M>) {
        let given_up = GivenUp(self);
        let made = self.series(block).map(|index| make(index, scratch)).collect();
        std::mem::forget(given_up);
        let mut state = self.lock();
        state.points += points(&made);
        state.made.insert(block, made);
        self.wake(state);
    }

    /// Takes all blocks, and makes some while the next one is not there yet.
    fn take_all(
        &self,
        shared: &Shared<'_>,
        make: &Make<'_, M>,
        take: &mut TakeMade<'_, M>,
    ) -> Result<(), QueryError> {
        // However this ends, nobody is to wait any longer.
        let _stop = GivenUp(self);
        let mut scratch = Scratch::new(self.cancel.clone());
        let mut index = 0;
        loop {
            match self.turn(shared, &mut scratch)? {
                Turn::Done => {
                    shared.spare.borrow_mut().append(&mut scratch.spare);
                    return Ok(());
                }
                Turn::Make(block) => self.make(block, &mut scratch, make),
                Turn::Take(block) => {
                    for made in block? {
                        shared.check()?;
                        take(index, made)?;
                        index += 1;
                    }
                }
            }
        }
    }

    fn turn(&self, shared: &Shared<'_>, scratch: &mut Scratch) -> Result<Turn<M>, QueryError> {
        let mut state = self.lock();
        state.spare.append(&mut shared.spare.borrow_mut());
        loop {
            let next = state.taken;
            if next == self.blocks() {
                return Ok(Turn::Done);
            }
            if let Some(block) = state.made.remove(&next) {
                state.taken += 1;
                state.points -= points(&block);
                self.wake(state);
                return Ok(Turn::Take(block));
            }
            if state.stopped {
                return Err(QueryError::execution("a thread that helped ended unexpectedly"));
            }
            // The next one to be taken is made whether there is room or not: else all would wait.
            if state.next < self.blocks() && (state.next == next || state.has_room()) {
                return Ok(Turn::Make(self.claim(&mut state, scratch)));
            }
            state = self.wait(state);
        }
    }
}

/// Tells everybody to stop when it is dropped, by a panic too.
struct GivenUp<'l, M: Waiting>(&'l Line<M>);

impl<M: Waiting> Drop for GivenUp<'_, M> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
