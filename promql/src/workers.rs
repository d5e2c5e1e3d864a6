//! Threads that help with a query. The engine starts none: whoever runs it may lend some.

/// With fewer steps of all series, the start of a thread costs more than it saves.
const STEPS_MIN: usize = 16384;

/// Lends threads to queries. What a query answers does not depend on how many there are.
pub trait Workers: std::fmt::Debug + Send + Sync {
    /// Calls `help` once on each other thread that is free, and `own` on this one; returns when
    /// all calls have returned. Where no thread is free, only `own` is called.
    fn beside(&self, help: &(dyn Fn() + Sync), own: &mut dyn FnMut());

    /// Whether work on so many steps of all series is worth the start of other threads.
    fn is_worthwhile(&self, steps: usize) -> bool {
        steps >= STEPS_MIN
    }
}
