//! Asking again and again: what mechanisms have in common that look at regular times.

use std::future::Future;
use std::sync::Arc;

use stint_model::{Clock, Span};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::hub::Known;
use super::metrics::DiscoveryMetrics;
use super::{DiscoveryError, TargetGroup};

/// A mechanism that is asked from time to time.
pub(super) trait Discoverer: Send + 'static {
    /// Everything there is now.
    fn refresh(&mut self) -> impl Future<Output = Result<Found, DiscoveryError>> + Send;
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The groups there are.
    pub(super) groups: Vec<TargetGroup>,
    /// Sources that could not be asked, and why: their groups stay as they were.
    pub(super) unknown: Vec<(String, DiscoveryError)>,
}

impl From<Vec<TargetGroup>> for Found {
    fn from(groups: Vec<TargetGroup>) -> Self {
        Self { groups, unknown: Vec::new() }
    }
}

/// What a mechanism's task works with.
pub(super) struct Task {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: DiscoveryMetrics,
    pub(super) mechanism: &'static str,
    /// Of the first consumer, for logs and metrics.
    pub(super) name: String,
    pub(super) sender: watch::Sender<Known>,
}

impl Task {
    /// Makes `groups` the ones that are known; nobody is woken when they are already.
    pub(super) fn publish(&self, groups: Vec<TargetGroup>) {
        self.sender.send_if_modified(|known| {
            let same = known.has_looked && *known.groups == *groups;
            if !same {
                *known = Known { groups: groups.into(), has_looked: true };
            }
            !same
        });
    }

    /// Notes that it was tried in vain; what is known stays.
    pub(super) fn failed(&self, error: &DiscoveryError) {
        let labels = [self.mechanism, &self.name];
        self.metrics.failures.with_label_values(&labels).inc();
        let (mechanism, config) = (self.mechanism, &self.name);
        tracing::warn!(mechanism, config, %error, "discovery failed, targets are kept");
        self.sender.send_if_modified(|known| !std::mem::replace(&mut known.has_looked, true));
    }

    /// Publishes what `found` says, and keeps what it could not ask for.
    pub(super) fn take(&self, found: Found) {
        let Found { mut groups, unknown } = found;
        if !unknown.is_empty() {
            let before = Arc::clone(&self.sender.borrow().groups);
            for (source, error) in &unknown {
                self.failed(error);
                groups.extend(before.iter().filter(|group| group.source == *source).cloned());
            }
        }
        groups.sort_by(|a, b| a.source.cmp(&b.source));
        self.publish(groups);
    }

    /// Counts how long a look took that began at `began`.
    pub(super) fn took(&self, began: std::time::Duration) {
        let seconds = self.clock.monotonic().saturating_sub(began).as_secs_f64();
        self.metrics.duration.observe(self.mechanism, seconds);
        let histogram = &self.metrics.duration_histogram;
        histogram.with_label_values(&[self.mechanism]).observe(seconds);
    }
}

/// Asks `discoverer` now and at every multiple of `interval` from now on.
pub(super) fn spawn(mut discoverer: impl Discoverer, interval: Span, task: Task) -> JoinHandle<()> {
    tokio::spawn(async move {
        task.metrics.failures.with_label_values(&[task.mechanism, &task.name]);
        let mut ticks = tokio::time::interval(interval.to_std());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let began = task.clock.monotonic();
            match discoverer.refresh().await {
                Ok(found) => task.take(found),
                Err(error) => task.failed(&error),
            }
            task.took(began);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use stint_model::Labels;

    use super::super::testing::{metrics, task};
    use super::*;

    fn group(source: &str, targets: &[String]) -> TargetGroup {
        let address = |target: &String| Labels::from_pairs([(super::super::ADDRESS, target)]);
        let targets = targets.iter().map(address).collect();
        TargetGroup { source: source.to_owned(), targets, labels: Labels::default() }
    }

    /// Answers with each step in turn, and with the last one for ever; notes when it was asked.
    struct Script {
        steps: Vec<Result<Found, DiscoveryError>>,
        asked: Arc<parking_lot::Mutex<Vec<Duration>>>,
        began: tokio::time::Instant,
        takes: Duration,
    }

    impl Discoverer for Script {
        async fn refresh(&mut self) -> Result<Found, DiscoveryError> {
            self.asked.lock().push(self.began.elapsed());
            tokio::time::sleep(self.takes).await;
            if self.steps.len() > 1 { self.steps.remove(0) } else { self.steps[0].clone() }
        }
    }

    fn one(target: &str) -> Found {
        vec![group("s", &[target.to_owned()])].into()
    }

    fn failure() -> DiscoveryError {
        DiscoveryError("broken".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_at_multiples_and_failures_keep_what_was_known() {
        let (registry, metrics) = metrics();
        let (task, mut known) = task(&metrics);
        let asked = Arc::<parking_lot::Mutex<Vec<Duration>>>::default();
        let script = Script {
            steps: vec![Err(failure()), Ok(one("a")), Ok(one("a")), Err(failure()), Ok(one("b"))],
            asked: Arc::clone(&asked),
            began: tokio::time::Instant::now(),
            takes: Duration::from_secs(4),
        };
        let running = spawn(script, Span::from_secs(10), task);
        known.changed().await.unwrap();
        assert!(known.borrow_and_update().groups.is_empty(), "the failure is told, without groups");
        known.changed().await.unwrap();
        assert_eq!(*known.borrow_and_update().groups, *one("a").groups);
        // The same again and a failure wake nobody.
        known.changed().await.unwrap();
        assert_eq!(*known.borrow_and_update().groups, *one("b").groups);
        assert_eq!(*asked.lock(), [0, 10, 20, 30, 40].map(Duration::from_secs));
        let text = registry.render();
        let failures = "prometheus_sd_refresh_failures_total{config=\"job\",mechanism=\"test\"} 2";
        assert!(text.contains(failures), "{text}");
        assert!(text.contains("prometheus_sd_refresh_duration_seconds_sum{mechanism=\"test\"} 20"));
        running.abort();
    }

    proptest! {
        /// Whatever happens, what is known of a source is one of its groups as they were found, whole,
        /// and always the last one.
        #[test]
        fn groups_are_replaced_as_a_whole(
            looks in proptest::collection::vec(
                proptest::collection::btree_map(
                    "[a-c]",
                    proptest::option::of(proptest::collection::vec("[x-z]", 0..3)),
                    0..3,
                ),
                1..8,
            ),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _inside = runtime.enter();
            let (_, metrics) = metrics();
            let (task, known) = task(&metrics);
            let mut model = std::collections::BTreeMap::new();
            for look in looks {
                let mut found = Found::default();
                let mut next = std::collections::BTreeMap::new();
                for (source, targets) in look {
                    if let Some(targets) = targets {
                        found.groups.push(group(&source, &targets));
                        next.insert(source, targets);
                    } else {
                        if let Some(before) = model.get(&source) {
                            next.insert(source.clone(), Vec::clone(before));
                        }
                        found.unknown.push((source, failure()));
                    }
                }
                model = next;
                task.take(found);
                let expected: Vec<_> =
                    model.iter().map(|(source, targets)| group(source, targets)).collect();
                prop_assert_eq!(&*known.borrow().groups, &*expected);
            }
        }
    }
}
