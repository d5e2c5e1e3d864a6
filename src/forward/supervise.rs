//! Keeps an endpoint's forwarder at work: one that cannot start or breaks down is logged, shows in
//! the status, and starts again after a while. The log is held meanwhile, see
//! [`stored::Keep`](super::stored::Keep).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use stint_model::Clock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::forwarder::{Forwarder, panic_text};
use super::retry::{Backoff, Jitter};
use super::send::is_stopping;
use super::status::{Failure, Status};

/// First wait before a forwarder starts again.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// Longest wait.
const AGAIN_MAX: Duration = Duration::from_mins(5);
/// A forwarder that worked this long has shown that it can.
const STEADY: Duration = Duration::from_mins(10);

/// What supervising needs to know of an endpoint.
pub struct Supervisor {
    /// The endpoint's name, for the log.
    pub name: String,
    /// How the endpoint is doing.
    pub status: Arc<Mutex<Status>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Seed of the jitter between starts.
    pub seed: u64,
}

impl Supervisor {
    /// Runs the forwarder that `first` is, or else those that `start` makes, until `stop`.
    pub async fn run<S, F>(
        self,
        first: Result<Forwarder, String>,
        start: S,
        mut stop: watch::Receiver<bool>,
    ) where
        S: Fn() -> F,
        F: Future<Output = Result<Forwarder, String>>,
    {
        let mut backoff = Backoff::new(AGAIN_MIN, AGAIN_MAX, Jitter::seeded(self.seed));
        let mut next = first;
        loop {
            let reason = match next {
                Ok(forwarder) => {
                    self.status.lock().running = true;
                    let began = Instant::now();
                    let running = AssertUnwindSafe(forwarder.run(stop.clone())).catch_unwind();
                    let outcome = running.await;
                    self.status.lock().running = false;
                    if began.elapsed() >= STEADY {
                        backoff.reset();
                    }
                    match outcome {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => error.to_string(),
                        Err(panic) => panic_text(&*panic),
                    }
                }
                Err(error) => error,
            };
            let wait = backoff.after(None);
            self.note(&reason, wait);
            if is_stopping(&stop) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            next = start().await;
        }
    }

    fn note(&self, reason: &str, wait: Duration) {
        tracing::error!(
            endpoint = %self.name, wait_secs = wait.as_secs(),
            "forwarding broke down and starts again; samples are kept in the store: {reason}"
        );
        let message = format!("forwarding broke down: {reason}");
        let mut status = self.status.lock();
        status.restarts += 1;
        status.last_error = Some(Failure { at: self.clock.now(), message });
    }
}
