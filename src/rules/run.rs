//! One group's loop: wait for the next point of its lattice, evaluate, and at the end mark what has
//! ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use stint_model::{Span, Timestamp};
use tokio::sync::watch;

use super::env::Env;
use super::group::Group;
use super::lattice::Point;
use super::manager::{patience, until};

/// The longest sleep, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// What a loop is told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Command {
    /// Go on.
    #[default]
    Run,
    /// Stop now; somebody else goes on with the rules.
    Stop,
    /// The group is gone: wait in case its rules are elsewhere, then mark its series as ended.
    Remove,
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The point is due.
    Due,
    /// The clock was set back by more than an interval.
    SetBack,
    /// The loop is to end.
    Over,
}

/// Evaluates one group until told otherwise.
pub(super) struct Loop {
    pub(super) group: Arc<Group>,
    pub(super) env: Arc<Env>,
    pub(super) commands: watch::Receiver<Command>,
    /// Whether the server stops.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Loop {
    /// Runs until told to stop.
    pub(super) async fn run(mut self) {
        let lattice = self.group.lattice;
        let mut point = lattice.last_before(self.env.clock.now());
        let mut evaluations = 0_u64;
        loop {
            match self.wait(lattice.next(point)).await {
                Wait::Over => break,
                Wait::SetBack => {
                    let group = self.group.spec.name.as_str();
                    tracing::warn!(group, "the clock was set back: evaluations follow it");
                    point = lattice.last_before(self.env.clock.now());
                }
                Wait::Due => {
                    let missed;
                    (point, missed) = lattice.newest(point, self.env.clock.now());
                    self.eval(point.at(), missed).await;
                    evaluations += 1;
                    if evaluations == 2 && self.group.restores() {
                        self.restore().await;
                    }
                }
            }
        }
        if *self.commands.borrow() == Command::Remove {
            self.end().await;
        }
    }

    /// Waits until `point`, the next one, is due, or something else is to be done.
    async fn wait(&mut self, point: Point) -> Wait {
        // What is rounded to milliseconds may be one further away.
        let longest = Span(self.group.spec.interval.0.saturating_add(1));
        loop {
            if *self.commands.borrow() != Command::Run {
                return Wait::Over;
            }
            let now = self.env.clock.now();
            if now >= point.due() {
                return Wait::Due;
            }
            if point.due().since(now) > longest {
                return Wait::SetBack;
            }
            let pause = until(point.due(), now).min(SLEEP_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The sender lives as long as the group is in force.
                changed = self.commands.changed() => if changed.is_err() { return Wait::Over },
            }
        }
    }

    async fn eval(&self, at: Timestamp, missed: u64) {
        let (group, env) = (Arc::clone(&self.group), Arc::clone(&self.env));
        self.in_background(move || group.eval(at, missed, &env)).await;
    }

    async fn restore(&self) {
        let (group, env) = (Arc::clone(&self.group), Arc::clone(&self.env));
        self.in_background(move || group.restore(env.clock.now(), &env)).await;
    }

    /// Marks the series of the group as ended, unless the server stops first.
    async fn end(&mut self) {
        let at = self.env.clock.now();
        let pause = tokio::time::sleep(patience(self.group.spec.interval).to_std());
        tokio::select! {
            () = pause => {}
            _ = self.stopping.wait_for(|stopping| *stopping) => return,
        }
        let (group, env) = (Arc::clone(&self.group), Arc::clone(&self.env));
        self.in_background(move || group.end(at, &env)).await;
    }

    /// Runs `work` off the async threads. A panic in it is told, and ends nothing but the work.
    async fn in_background(&self, work: impl FnOnce() + Send + 'static) {
        let done = tokio::task::spawn_blocking(move || catch_unwind(AssertUnwindSafe(work)));
        if !matches!(done.await, Ok(Ok(()))) {
            let group = self.group.spec.name.as_str();
            tracing::error!(group, "evaluating a rule group panicked");
        }
    }
}
