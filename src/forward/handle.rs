//! A view of an endpoint for reports.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Clock, Span};

use super::status::Status;
use crate::budget::admission::Admission;
use crate::budget::feedback::Said;
use crate::budget::group::Key;

/// A view of a forwarder for reports, cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// The endpoint's name.
    pub name: Arc<str>,
    /// Where it is, without credentials.
    pub url: Arc<str>,
    /// Distance between forwarded samples; zero for all.
    pub interval: Span,
    /// Whether the endpoint is told the types of metrics.
    pub sends_metadata: bool,
    /// The fewest and the most requests in flight at once.
    pub shards: (usize, usize),
    /// The most items in one request.
    pub samples_per_send_max: usize,
    pub(super) status: Arc<Mutex<Status>>,
    pub(super) admission: Arc<Mutex<Admission>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Handle {
    /// How the endpoint is doing.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Tells the budget what its account says.
    pub(super) fn hear(&self, said: Said) {
        let (now, wall) = (self.clock.monotonic(), self.clock.now());
        self.admission.lock().hear(said, now, wall);
    }

    /// Whether the server may be counting what nobody here knows of.
    pub(super) fn is_in_doubt(&self) -> bool {
        let now = self.clock.monotonic();
        self.with_budget(|admission| admission.is_in_doubt(now))
    }

    /// Tells the budget which series the server counts. A request may arrive for so long after it was
    /// sent.
    pub(super) fn recover(&self, keys: &[Key], in_flight_max: Duration) {
        let now = self.clock.monotonic();
        self.admission.lock().recover(keys, in_flight_max, now);
    }

    /// Looks at the budget, which stands still meanwhile.
    pub fn with_budget<T>(&self, look: impl FnOnce(&Admission) -> T) -> T {
        look(&self.admission.lock())
    }
}
