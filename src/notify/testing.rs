//! What tests of this part share: alerts, a simulated network, a clock that follows the runtime's.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value as Json;
use stint_model::{Clock, Labels, Span, Timestamp};

use super::dispatch::MakeTransport;
use super::{Post, Transport};
use crate::config::{Alerting, tests_support};
use crate::rules::Alert;

/// When tests begin.
pub(super) const START: Timestamp = Timestamp(1_700_000_000_000);

/// An alert that began to fire at [`START`] and is believed for four minutes.
pub(super) fn alert(name: &str, labels: &[(&str, &str)]) -> Alert {
    let labels = labels.iter().copied().chain([("alertname", name)]);
    Alert {
        labels: Labels::from_pairs(labels),
        annotations: Arc::from([]),
        starts_at: START,
        ends_at: START + Span(4 * Span::MINUTE.0),
        generator_url: Arc::from("http://localhost:9090/graph?g0.expr=up&g0.tab=1"),
    }
}

/// The section `alerting` with one entry of `alertmanagers`.
pub(super) fn alerting(keys: &str) -> Alerting {
    let keys = keys.trim().replace('\n', "\n    ");
    tests_support::config(&format!("alerting:\n  alertmanagers:\n  - {keys}\n")).alerting
}

/// The time of the runtime, which tests stop.
pub(super) struct RuntimeClock(tokio::time::Instant);

impl RuntimeClock {
    pub(super) fn started() -> Arc<dyn Clock> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        START + Span(self.0.elapsed().as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Answers as it is told and notes what was posted.
#[derive(Default)]
pub(super) struct Network {
    pub(super) posts: Mutex<Vec<(String, Json)>>,
    /// Given one after another; then 200.
    pub(super) answers: Mutex<Vec<Result<u16, String>>>,
    /// How long an answer takes.
    pub(super) delay: Mutex<Duration>,
}

impl Network {
    pub(super) fn make(self: &Arc<Self>) -> MakeTransport {
        let network = Arc::clone(self);
        Box::new(move |_, _| Ok(Arc::clone(&network) as Arc<dyn Transport>))
    }

    /// How many alerts each post held.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.posts.lock().iter().map(|(_, body)| body.as_array().map_or(0, Vec::len)).collect()
    }
}

impl Transport for Network {
    fn post(&self, post: Post) -> BoxFuture<'_, Result<u16, String>> {
        Box::pin(async move {
            let delay = *self.delay.lock();
            tokio::time::sleep(delay).await;
            let body = serde_json::from_slice(&post.body).unwrap();
            self.posts.lock().push((post.url, body));
            let mut answers = self.answers.lock();
            if answers.is_empty() { Ok(200) } else { answers.remove(0) }
        })
    }
}
