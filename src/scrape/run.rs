//! One target's loop: wait for the tick, fetch, record, and at the end mark what has ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use stint_model::{Clock, Timestamp};
use tokio::sync::watch;

use super::fetch::{FetchError, Fetched, Fetcher};
use super::line::Line;
use super::metrics::ScrapeMetrics;
use super::record::{Recorded, Recorder, Scrape};
use super::schedule::Schedule;
use super::status::{Health, Last, TargetState};

/// Bodies up to so long are recorded at once: that takes a millisecond or two, and handing them to
/// another thread would cost a good part of it. Longer ones would make the scrapes of others late.
const AT_ONCE_BYTES: usize = 256 << 10;

/// What a loop is told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Command {
    /// Go on.
    #[default]
    Run,
    /// Stop now; the target may be scraped on by somebody else.
    Stop,
    /// The target is gone: wait in case it comes back, then mark its series as ended.
    Remove,
}

/// Scrapes one target until told otherwise.
pub(super) struct Loop {
    pub(super) state: Arc<TargetState>,
    pub(super) recorder: Box<Recorder>,
    pub(super) fetcher: Arc<dyn Fetcher>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: ScrapeMetrics,
    pub(super) schedule: Schedule,
    pub(super) commands: watch::Receiver<Command>,
    /// Why no target of the job may be scraped, if so.
    pub(super) refusal: watch::Receiver<Option<String>>,
}

impl Loop {
    /// Runs until told to stop; returns what was learned about the target, unless the target is
    /// gone and its series were ended.
    pub(super) async fn run(mut self) -> Option<Box<Recorder>> {
        let (mut line, mut size_hint) = (Line::default(), 0);
        let mut began_last = None;
        let interval = self.schedule.interval().to_string();
        while let Some(tick) = self.next_tick().await {
            let now = self.clock.now();
            let at = self.schedule.align(tick, now);
            let began = self.clock.monotonic();
            if let Some(last) = began_last.replace(began) {
                let length = began.saturating_sub(last).as_secs_f64();
                self.metrics.interval_length.observe(&interval, length);
            }
            let Some(outcome) = self.fetch(&mut line, size_hint).await else { break };
            if let Ok(fetched) = &outcome {
                size_hint = fetched.body.len();
            }
            let is_short = outcome.as_ref().map_or(0, |it| it.body.len()) <= AT_ONCE_BYTES;
            let scrape = Scrape { at, began, outcome };
            let record = move |recorder: &mut Recorder| (recorder.record(&scrape), scrape.outcome);
            let done = if is_short {
                guarded(&mut self.recorder, record)
            } else {
                let done;
                (self.recorder, done) = in_background(self.recorder, record).await?;
                done
            };
            let recorded = done.map(|(recorded, outcome)| {
                if let Ok(fetched) = outcome {
                    self.fetcher.keep(fetched.body);
                }
                recorded
            });
            let recorded = recorded.unwrap_or_else(|panic| {
                tracing::error!(
                    target = self.state.target.url,
                    panic,
                    "recording a scrape panicked"
                );
                let error = Some(format!("recording the scrape panicked: {panic}"));
                Recorded { error, duration: self.clock.monotonic().saturating_sub(began) }
            });
            if let Some(error) = &recorded.error {
                let target = &self.state.target;
                tracing::debug!(target = target.url, error, "scrape failed");
            }
            self.state.set_last(Last {
                health: if recorded.error.is_none() { Health::Up } else { Health::Down },
                error: recorded.error.unwrap_or_default(),
                at: Some(now),
                duration: recorded.duration,
            });
        }
        if *self.commands.borrow() == Command::Remove {
            self.end().await
        } else {
            Some(self.recorder)
        }
    }

    /// Waits for the next tick; `None` when the loop is to end.
    async fn next_tick(&mut self) -> Option<Timestamp> {
        let mut tick = self.schedule.next_after(self.clock.now());
        loop {
            if *self.commands.borrow() != Command::Run {
                return None;
            }
            let now = self.clock.now();
            if now >= tick {
                return Some(tick);
            }
            if tick.since(now) > self.schedule.interval() {
                // The clock was set back.
                tick = self.schedule.next_after(now);
            }
            tokio::select! {
                () = tokio::time::sleep(tick.since(now).to_std()) => {}
                _ = self.commands.changed() => return None,
            }
        }
    }

    /// The target's answer; `None` when the loop is to end.
    async fn fetch(
        &mut self,
        line: &mut Line,
        size_hint: usize,
    ) -> Option<Result<Fetched, FetchError>> {
        let refusal = self.refusal.borrow().clone();
        if let Some(refusal) = refusal {
            return Some(Err(FetchError::Failed(refusal)));
        }
        let target = &self.state.target;
        let fetch = self.fetcher.fetch(target, line, size_hint);
        tokio::select! {
            fetched = tokio::time::timeout(target.timeout.to_std(), fetch) => Some(
                fetched.unwrap_or_else(|_| Err(FetchError::Timeout(target.url.clone()))),
            ),
            _ = self.commands.changed() => None,
        }
    }

    /// Waits a little over two intervals, in which the target may come back, and then ends its
    /// series at the time of the first tick after it had gone.
    async fn end(mut self) -> Option<Box<Recorder>> {
        let first = self.schedule.next_after(self.clock.now());
        let interval = self.schedule.interval();
        let patience =
            [first.since(self.clock.now()), interval, stint_model::Span(interval.0 / 10)];
        for span in patience {
            tokio::select! {
                () = tokio::time::sleep(span.to_std()) => {}
                _ = self.commands.changed() => return Some(self.recorder),
            }
        }
        let (_, ended) = in_background(self.recorder, move |recorder| recorder.end(first)).await?;
        if let Err(panic) = ended {
            tracing::error!(
                target = self.state.target.url,
                panic,
                "ending a target's series panicked"
            );
        }
        None
    }
}

/// Does `work`. A panic in it is an error, after which the recorder begins anew.
fn guarded<T>(recorder: &mut Recorder, work: impl FnOnce(&mut Recorder) -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(|| work(recorder))).map_err(|panic| {
        recorder.reset();
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    })
}

/// Does `work` where it keeps nobody waiting, as [`guarded`] does. `None` when even that is not possible, or nobody runs such work any more.
async fn in_background<T: Send + 'static>(
    mut recorder: Box<Recorder>,
    work: impl FnOnce(&mut Recorder) -> T + Send + 'static,
) -> Option<(Box<Recorder>, Result<T, String>)> {
    let task = tokio::task::spawn_blocking(move || {
        let outcome = guarded(&mut recorder, work);
        (recorder, outcome)
    });
    match task.await {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::error!(%error, "a scrape could not be recorded; its loop ends");
            None
        }
    }
}
