//! Stopping a query from outside, or when its time is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stint_model::Clock;

use crate::error::QueryError;

/// A handle by which a query is stopped. Clones share the flag.
#[derive(Clone)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    deadline: Option<Duration>,
}

impl Cancel {
    /// A handle whose time is read from `clock`, without a deadline of its own.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { flag: Arc::default(), clock, deadline: None }
    }

    /// The same flag with a deadline `timeout` from now, or the earlier one it has.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let end = self.clock.monotonic().saturating_add(timeout);
        let deadline = Some(self.deadline.map_or(end, |deadline| deadline.min(end)));
        Self { flag: self.flag.clone(), clock: self.clock.clone(), deadline }
    }

    /// Stops the query at its next check.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether the query was stopped from outside.
    pub fn is_canceled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// An error when the query should stop; `phase` says where it was.
    ///
    /// # Errors
    /// It was stopped from outside, or its time is up.
    pub fn check(&self, phase: &'static str) -> Result<(), QueryError> {
        if self.is_canceled() {
            return Err(QueryError::Canceled(phase));
        }
        match self.deadline {
            Some(deadline) if self.clock.monotonic() >= deadline => Err(QueryError::Timeout(phase)),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel")
            .field("canceled", &self.is_canceled())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stint_model::clock::SimClock;
    use stint_model::{Span, Timestamp};

    #[test]
    fn time_and_flag_stop_a_query() {
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        let cancel = Cancel::new(clock.clone());
        let timed = cancel.with_timeout(Duration::from_secs(1));
        assert_eq!(timed.check("x"), Ok(()));
        clock.advance(Span(1000));
        assert_eq!(timed.check("x"), Err(QueryError::Timeout("x")));
        assert_eq!(cancel.check("x"), Ok(()));
        cancel.cancel();
        assert_eq!(timed.check("x"), Err(QueryError::Canceled("x")));
    }
}
