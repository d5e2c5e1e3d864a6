//! One group's loop: wait for the next point of its lattice, evaluate, and at the end mark what has
//! ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use stint_model::Timestamp;
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
        let mut point = lattice.next(lattice.last_before(self.env.clock.now()));
        let (mut missed, mut evaluations) = (0, 0_u64);
        let mut goes_on = self.wait(point).await;
        while goes_on {
            self.eval(point.at(), missed).await;
            evaluations += 1;
            if evaluations == 2 && self.group.restores() {
                self.restore().await;
            }
            goes_on = self.wait(lattice.next(point)).await;
            (point, missed) = lattice.newest(point, self.env.clock.now());
        }
        if *self.commands.borrow() == Command::Remove {
            self.end().await;
        }
    }

    /// Waits until `point` is due; `false` when the loop is to end.
    async fn wait(&mut self, point: Point) -> bool {
        loop {
            if *self.commands.borrow() != Command::Run {
                return false;
            }
            let now = self.env.clock.now();
            if now >= point.due() {
                return true;
            }
            let pause = until(point.due(), now).min(SLEEP_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The sender lives as long as the group is in force.
                changed = self.commands.changed() => if changed.is_err() { return false },
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
