//! A bound over everything that is being received at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;

use crate::metrics::{Metrics, int_gauge};

/// Memory for all requests that are being received: the largest one always fits.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// When a sender that was refused for want of room may try again, in seconds.
pub const RETRY_AFTER_SECONDS: u64 = 5;

/// Room for the bytes of requests that are read, decoded and stored right now.
#[derive(Debug)]
pub struct InFlight {
    used: AtomicUsize,
    bytes_max: usize,
    shown: IntGauge,
}

/// There is no room now; there will be as soon as other requests are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much is being received at once; send it again later")]
pub struct Full;

/// The room of one request, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    room: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    /// Room for `bytes_max` bytes.
    pub fn new(bytes_max: usize, metrics: &Metrics) -> Arc<Self> {
        let shown = int_gauge(
            metrics.registry(),
            "stint_receive_in_flight_bytes",
            "Memory set aside for the requests that are being received, about.",
        );
        Arc::new(Self { used: AtomicUsize::new(0), bytes_max, shown })
    }

    /// A request without any bytes yet.
    pub fn enter(self: &Arc<Self>) -> Held {
        Held { room: Arc::clone(self), bytes: 0 }
    }

    fn change(&self, to: impl Fn(usize) -> Option<usize>) -> Result<(), Full> {
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, &to).map_err(|_| Full)?;
        self.shown.set(self.used.load(Ordering::Relaxed) as i64);
        Ok(())
    }
}

impl Held {
    /// Takes room for `bytes` more.
    ///
    /// # Errors
    /// Not that much is left; what is held stays held.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let bytes_max = self.room.bytes_max;
        self.room.change(|used| used.checked_add(bytes).filter(|used| *used <= bytes_max))?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Giving back cannot fail.
        let _ = self.room.change(|used| Some(used.saturating_sub(self.bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
        let room = InFlight::new(10, &Metrics::new());
        let (mut one, mut two) = (room.enter(), room.enter());
        assert_eq!(one.grow(6), Ok(()));
        assert_eq!(two.grow(5), Err(Full));
        assert_eq!(two.grow(4), Ok(()));
        assert_eq!(one.grow(1), Err(Full));
        assert_eq!(one.grow(usize::MAX), Err(Full));
        assert_eq!(room.shown.get(), 10);
        drop(one);
        assert_eq!(two.grow(6), Ok(()));
        drop(two);
        assert_eq!(room.shown.get(), 0);
    }
}
