//! Threads that help with a query while cores are idle.
//!
//! They are there for good: to start one takes as long as to answer a small query.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon_core::{ThreadPool, ThreadPoolBuilder};
use stint_promql::Workers;

/// Most threads that help with one query.
const HELPERS_MAX: usize = 7;

/// Lends as many threads as there are cores without a query, so that many queries at once get none.
#[derive(Debug)]
pub struct Helpers {
    cores: usize,
    /// As many threads as are ever lent at the same time, so that none waits for one; nothing on one
    /// core, and where threads cannot be had.
    threads: Option<ThreadPool>,
    /// Queries that run, and threads that help.
    busy: AtomicUsize,
}

/// Cores that are taken, given back on drop.
#[derive(Debug)]
pub struct Taken<'h> {
    helpers: &'h Helpers,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.helpers.busy.fetch_sub(self.count, Ordering::Relaxed);
    }
}

impl Helpers {
    /// For a machine with `cores`.
    pub fn new(cores: usize) -> Arc<Self> {
        let threads = ThreadPoolBuilder::new()
            .num_threads(cores)
            .thread_name(|number| format!("query-helper-{number}"));
        let threads = (cores > 1).then(|| threads.build()).and_then(|threads| {
            threads.inspect_err(|error| tracing::warn!(%error, "queries use one thread each")).ok()
        });
        Arc::new(Self { cores, threads, busy: AtomicUsize::new(0) })
    }

    /// For this machine, or the part of it that the process may use.
    pub fn of_machine() -> Arc<Self> {
        Self::new(std::thread::available_parallelism().map_or(1, NonZero::get))
    }

    /// A query runs for as long as the result is held.
    pub fn enter(&self) -> Taken<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Taken { helpers: self, count: 1 }
    }

    /// Takes the cores that are free.
    fn take_free(&self) -> Taken<'_> {
        let mut busy = self.busy.load(Ordering::Relaxed);
        loop {
            // Whoever asks has a core too, and evaluations of rules do not enter.
            let count = self.cores.saturating_sub(busy.max(1)).min(HELPERS_MAX);
            let new = busy + count;
            match self.busy.compare_exchange_weak(busy, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Taken { helpers: self, count },
                Err(now) => busy = now,
            }
        }
    }
}

impl Workers for Helpers {
    fn beside(&self, help: &(dyn Fn() + Sync), own: &mut dyn FnMut()) {
        let taken = self.take_free();
        let Some(threads) = self.threads.as_ref().filter(|_| taken.count > 0) else {
            return own();
        };
        threads.in_place_scope(|scope| {
            for _ in 0..taken.count {
                scope.spawn(|_| help());
            }
            own();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn threads_are_lent_while_cores_are_free() {
        let helpers = Helpers::new(3);
        let query = helpers.enter();
        // Nobody passes before all three are there.
        let all = Barrier::new(3);
        let wait = || {
            all.wait();
        };
        helpers.beside(&wait, &mut || {
            all.wait();
            assert_eq!(helpers.take_free().count, 0);
        });
        let others = [helpers.enter(), helpers.enter(), helpers.enter()];
        let mut calls = 0;
        helpers.beside(&|| panic!("there is no core"), &mut || calls += 1);
        assert_eq!(calls, 1);
        drop((query, others));
        assert_eq!(helpers.take_free().count, 2, "one is for who asks");
        assert_eq!(helpers.busy.load(Ordering::Relaxed), 0);
    }
}
