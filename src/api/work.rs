//! Running queries: so many at a time, stopped when nobody waits any more, and off the async threads
//! but for what is known to take less time than the way to another thread and back.

use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntGauge};
use stint_model::{Clock, Span, Timestamp};
use stint_promql::Cancel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::costs::{Costs, Question};
use super::error::{ApiError, ErrorKind};
use super::helpers::Helpers;
use crate::metrics::summary::SummaryVec;
use crate::metrics::{Metrics, histogram_vec, int_gauge};

mod costs;

/// How long something that is taken to be cheap may hold up an async thread. What takes longer after
/// all is given up there and done again where it may take its time.
const AT_ONCE_WITHIN: Duration = Duration::from_millis(5);

/// Bounds of query durations, in seconds.
const DURATION_BOUNDS: [f64; 9] = [0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0];

/// Prometheus' words, and what to do.
const QUEUE_TIMEOUT: &str = "query timed out in query queue; ask for less at once, or raise \
                             --query.max-concurrency or --query.timeout";

/// Where queries run.
pub struct Workers {
    clock: Arc<dyn Clock>,
    slots: Arc<Semaphore>,
    helpers: Arc<Helpers>,
    costs: Costs,
    timeout: Span,
    running: IntGauge,
    queue_time: Histogram,
    eval_time: Histogram,
    durations: SummaryVec,
}

/// How long a query took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Waiting for a slot.
    pub queueing: Duration,
    /// Being evaluated.
    pub running: Duration,
}

/// What is made of the outcome of a query.
pub(super) trait Finish<T>: Send + 'static {
    type Made: Send + 'static;

    /// Whether it is made so soon that others may wait for it.
    fn is_quick(&self, outcome: &T) -> bool;

    fn make(self, outcome: T, spent: Spent) -> Self::Made;
}

/// Stops the query when the request that waits for it is dropped.
struct StopOnDrop(Cancel);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How far a time lies from now, as far as that decides what a question about it costs: another number
/// for about twice as many minutes.
pub(super) fn distance(now: Timestamp, at: Timestamp) -> i32 {
    let minutes = at.0.saturating_sub(now.0) / Span::MINUTE.0;
    let magnitude = (i64::BITS - minutes.unsigned_abs().leading_zeros()) as i32;
    if minutes < 0 { -magnitude } else { magnitude }
}

impl Workers {
    /// Room for `concurrency_max` queries of at most `timeout`, waiting included. `helpers` learn
    /// which cores queries leave free.
    pub fn new(
        clock: Arc<dyn Clock>,
        helpers: Arc<Helpers>,
        concurrency_max: u32,
        timeout: Span,
        metrics: &Metrics,
    ) -> Self {
        let registry = metrics.registry();
        let concurrent = int_gauge(
            registry,
            "prometheus_engine_queries_concurrent_max",
            "How many queries may run at the same time.",
        );
        concurrent.set(i64::from(concurrency_max));
        let durations: HistogramVec = histogram_vec(
            registry,
            "stint_query_duration_seconds",
            "Time that queries spent waiting for a slot and being evaluated.",
            &["slice"],
            &DURATION_BOUNDS,
        );
        let summary = SummaryVec::new(
            metrics,
            Arc::clone(&clock),
            "prometheus_engine_query_duration_seconds",
            "Time that queries spent in each phase.",
            "slice",
            &[0.5, 0.9, 0.99],
        );
        Self {
            clock,
            slots: Arc::new(Semaphore::new(concurrency_max as usize)),
            helpers,
            costs: Costs::new(),
            timeout,
            running: int_gauge(
                registry,
                "prometheus_engine_queries",
                "Queries that are running or waiting for a slot.",
            ),
            queue_time: durations.with_label_values(&["queue_time"]),
            eval_time: durations.with_label_values(&["inner_eval"]),
            durations: summary,
        }
    }

    /// Runs `work` once there is a slot. The time limit is the shorter of the server's and the
    /// client's.
    ///
    /// # Errors
    /// No slot in time, whatever `work` returns, or a bug in it.
    pub async fn run<T: Send + 'static>(
        &self,
        timeout: Option<Span>,
        work: impl FnOnce(&Cancel) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Spent), ApiError> {
        let turn = self.turn(timeout).await?;
        let Turn { cancel, place, queueing } = turn;
        let _stop = StopOnDrop(cancel.clone());
        let (outcome, running) = self.elsewhere(place, move || work(&cancel)).await?;
        self.finished(outcome, Spent { queueing, running })
    }

    /// As [`Self::run`], for what may be asked again: what `asked` stands for. Once it is known to be
    /// cheap, it is done at once.
    ///
    /// # Errors
    /// As there.
    pub async fn run_known<T: Send + 'static>(
        &self,
        asked: &(impl Hash + Sync),
        timeout: Option<Span>,
        work: impl Fn(&Cancel) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.run_finished(asked, timeout, work, AsItIs).await
    }

    /// As [`Self::run_known`], and what `finish` makes of it, where that is done too.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn run_finished<T: Send + 'static, F: Finish<T>>(
        &self,
        asked: &(impl Hash + Sync),
        timeout: Option<Span>,
        work: impl Fn(&Cancel) -> Result<T, ApiError> + Send + 'static,
        finish: F,
    ) -> Result<F::Made, ApiError> {
        let question = self.costs.question(asked);
        let Turn { cancel, place, queueing } = self.turn(timeout).await?;
        let _stop = StopOnDrop(cancel.clone());
        if self.costs.is_cheap(question)
            && let Some((outcome, running)) = self.at_once(question, &cancel, &work)
        {
            let (outcome, spent) = self.finished(outcome, Spent { queueing, running })?;
            if finish.is_quick(&outcome) {
                let made = catch_unwind(AssertUnwindSafe(|| finish.make(outcome, spent)));
                return made.map_err(|_| unexpected(&"panic"));
            }
            let (made, _) = self.elsewhere(place, move || finish.make(outcome, spent)).await?;
            return Ok(made);
        }
        let clock = Arc::clone(&self.clock);
        let work = move || {
            let started_at = clock.monotonic();
            let outcome = work(&cancel);
            let running = clock.monotonic().saturating_sub(started_at);
            let spent = Spent { queueing, running };
            (outcome.map(|outcome| finish.make(outcome, spent)), spent)
        };
        let ((outcome, spent), _) = self.elsewhere(place, work).await?;
        self.costs.note(question, spent.running);
        Ok(self.finished(outcome, spent)?.0)
    }

    /// Waits for a slot.
    async fn turn(&self, timeout: Option<Span>) -> Result<Turn, ApiError> {
        let limit = timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout)).to_std();
        let cancel = Cancel::new(Arc::clone(&self.clock)).with_timeout(limit);
        let running = Counted::new(&self.running);
        let queued_at = self.clock.monotonic();
        // Mostly one is free, and nothing has to be set up to wait.
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(Turn { cancel, place: (slot, running), queueing: Duration::ZERO });
        }
        let slot = tokio::time::timeout(limit, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(slot)) = slot else {
            return Err(ApiError::new(ErrorKind::Timeout, QUEUE_TIMEOUT));
        };
        let queueing = self.clock.monotonic().saturating_sub(queued_at);
        Ok(Turn { cancel, place: (slot, running), queueing })
    }

    /// Does `work` on this thread; `None` when that would take too long.
    fn at_once<T>(
        &self,
        question: Question,
        cancel: &Cancel,
        work: &impl Fn(&Cancel) -> Result<T, ApiError>,
    ) -> Option<(Result<T, ApiError>, Duration)> {
        let _core = self.helpers.enter();
        let started_at = self.clock.monotonic();
        let hurried = cancel.with_timeout(AT_ONCE_WITHIN);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&hurried)));
        let took = self.clock.monotonic().saturating_sub(started_at);
        self.costs.note(question, took);
        let outcome = outcome.unwrap_or_else(|_| Err(unexpected(&"panic")));
        let is_late = matches!(&outcome, Err(error) if error.kind == ErrorKind::Timeout);
        (!is_late).then_some((outcome, took))
    }

    /// Does `work` on a thread that may take its time; how long it took.
    async fn elsewhere<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Duration), ApiError> {
        let (helpers, clock) = (Arc::clone(&self.helpers), Arc::clone(&self.clock));
        let outcome = tokio::task::spawn_blocking(move || {
            let _place = place;
            let _core = helpers.enter();
            let started_at = clock.monotonic();
            let outcome = work();
            (outcome, clock.monotonic().saturating_sub(started_at))
        });
        outcome.await.map_err(|error| unexpected(&error))
    }

    fn finished<T>(
        &self,
        outcome: Result<T, ApiError>,
        spent: Spent,
    ) -> Result<(T, Spent), ApiError> {
        self.queue_time.observe(spent.queueing.as_secs_f64());
        self.eval_time.observe(spent.running.as_secs_f64());
        self.durations.observe("queue_time", spent.queueing.as_secs_f64());
        self.durations.observe("inner_eval", spent.running.as_secs_f64());
        Ok((outcome?, spent))
    }
}

/// Nothing is made of the outcome.
struct AsItIs;

impl<T: Send + 'static> Finish<T> for AsItIs {
    type Made = T;

    fn is_quick(&self, _: &T) -> bool {
        true
    }

    fn make(self, outcome: T, _: Spent) -> T {
        outcome
    }
}

/// A slot, counted.
type Place = (OwnedSemaphorePermit, Counted);

/// What a query has once it may run.
struct Turn {
    cancel: Cancel,
    place: Place,
    /// How long it waited.
    queueing: Duration,
}

fn unexpected(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(ErrorKind::Internal, format!("the query ended unexpectedly: {error}"))
}

/// Holds a place in a gauge.
pub(super) struct Counted(IntGauge);

impl Counted {
    /// Takes the place.
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use stint_model::Timestamp;
    use stint_model::clock::SimClock;

    use super::*;

    fn workers(slots: u32, timeout: Span) -> Workers {
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        Workers::new(clock, Helpers::new(1), slots, timeout, &Metrics::new())
    }

    #[test]
    fn what_is_asked_of_other_times_is_another_question() {
        let now = Timestamp(Span::DAY.0 * 365);
        let of = |minutes: i64| distance(now, now + Span(minutes * Span::MINUTE.0));
        assert_eq!([0, -1, -2, -3, -4, 5].map(of), [0, -1, -2, -2, -3, 3]);
        assert_ne!(of(-60), of(-60 * 24 * 30));
        assert!(distance(now, Timestamp::MIN) < of(-60 * 24 * 300));
        assert!(distance(now, Timestamp::MAX) > of(60 * 24 * 300));
    }

    #[tokio::test]
    async fn work_runs_and_its_errors_come_back() {
        let workers = workers(1, Span::MINUTE);
        let (value, _) = workers.run(None, |_| Ok(7)).await.unwrap();
        assert_eq!(value, 7);
        let error = workers.run::<()>(None, |_| Err(ApiError::bad_data("x"))).await;
        assert_eq!(error.unwrap_err(), ApiError::bad_data("x"));
        assert_eq!(workers.running.get(), 0);
    }

    #[tokio::test]
    async fn without_a_free_slot_the_query_times_out() {
        let workers = workers(1, Span(1));
        let _slot = Arc::clone(&workers.slots).acquire_owned().await.unwrap();
        let error = workers.run(None, |_| Ok(())).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert_eq!(error.message, QUEUE_TIMEOUT);
    }

    #[tokio::test]
    async fn a_dropped_request_stops_its_query() {
        let workers = Arc::new(workers(1, Span::MINUTE));
        let (started, mut has_started) = tokio::sync::mpsc::channel(1);
        let (stopped, has_stopped) = std::sync::mpsc::channel();
        let request = tokio::spawn({
            let workers = Arc::clone(&workers);
            async move {
                workers
                    .run(None, move |cancel| {
                        started.blocking_send(()).expect("the test waits");
                        while !cancel.is_canceled() {
                            std::thread::yield_now();
                        }
                        stopped.send(()).expect("the test waits");
                        Ok(())
                    })
                    .await
            }
        });
        has_started.recv().await.unwrap();
        request.abort();
        tokio::task::spawn_blocking(move || has_stopped.recv().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let workers = workers(1, Span::MINUTE);
        let outcome = workers.run::<()>(None, |_| panic!("a bug")).await;
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Internal);
        workers.run_known(&"q", None, |_| Ok(())).await.unwrap();
        let outcome = workers.run_known::<()>(&"q", None, |_| panic!("a bug")).await;
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Internal);
        assert_eq!((workers.running.get(), workers.slots.available_permits()), (0, 1));
    }

    #[tokio::test]
    async fn what_is_known_to_be_cheap_is_done_at_once() {
        let workers = workers(1, Span::MINUTE);
        let thread = async |asked: &str| {
            let work = |_: &Cancel| Ok(std::thread::current().id());
            workers.run_known(&asked, None, work).await.unwrap()
        };
        let own = std::thread::current().id();
        assert_ne!(thread("a").await, own);
        assert_eq!(thread("a").await, own);
        assert_ne!(thread("b").await, own);
    }

    /// Tells on which thread it was made, and at once only if so told.
    struct Told {
        is_quick: bool,
    }

    impl Finish<std::thread::ThreadId> for Told {
        type Made = [std::thread::ThreadId; 2];

        fn is_quick(&self, _: &std::thread::ThreadId) -> bool {
            self.is_quick
        }

        fn make(self, worked: std::thread::ThreadId, _: Spent) -> Self::Made {
            [worked, std::thread::current().id()]
        }
    }

    #[tokio::test]
    async fn what_is_made_of_an_outcome_holds_nobody_up() {
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        let workers = Workers::new(clock, Helpers::new(1), 1, Span::MINUTE, &Metrics::new());
        let own = std::thread::current().id();
        let ask = async |is_quick| {
            let work = |_: &Cancel| Ok(std::thread::current().id());
            workers.run_finished(&"q", None, work, Told { is_quick }).await.unwrap()
        };
        let [worked, made] = ask(true).await;
        assert_ne!(worked, own, "it is not known yet");
        assert_eq!(made, worked, "without another way to the thread and back");
        assert_eq!(ask(true).await, [own, own]);
        let [worked, made] = ask(false).await;
        assert_eq!(worked, own);
        assert_ne!(made, own);
        assert_eq!(workers.running.get(), 0);
        assert_eq!(workers.slots.available_permits(), 1);
    }

    #[tokio::test]
    async fn what_takes_long_after_all_is_done_elsewhere() {
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        let workers =
            Workers::new(clock.clone(), Helpers::new(1), 1, Span::MINUTE, &Metrics::new());
        workers.run_known(&"q", None, |_| Ok(())).await.unwrap();
        let own = std::thread::current().id();
        let work = move |cancel: &Cancel| {
            clock.advance(Span::SECOND);
            cancel.check("working").map_err(ApiError::from)?;
            Ok(std::thread::current().id())
        };
        let first = workers.run_known(&"q", None, work.clone()).await.unwrap();
        assert_ne!(first, own, "it was given up here");
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let outcome = workers.run_known(&"q", None, move |cancel| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            work(cancel)
        });
        assert_ne!(outcome.await.unwrap(), own);
        assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1, "it is no longer tried");
    }
}
