//! `/api/v1/notifications`: what the operator should know now, and `live` as it changes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use parking_lot::Mutex;
use serde::Serialize;
use stint_model::Timestamp;
use tokio::sync::broadcast;

use super::Api;
use super::json::Reply;
use super::status::rfc_3339;

/// The configuration in the files is not the one in force.
pub const RELOAD_FAILED: &str = "Configuration reload has failed.";
/// The store is being opened.
pub const STARTING: &str = "Prometheus is starting and replaying the write-ahead log (WAL).";
/// What runs is finished, nothing new begins.
pub const STOPPING: &str = "Prometheus is shutting down and gracefully stopping all operations.";

/// Changes that a slow client may miss before older ones are left out.
const BACKLOG: usize = 16;

/// A state of the server that clients show, in the words that they know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notification {
    text: &'static str,
    date: String,
    active: bool,
}

/// What is to be told, and who wants to know at once.
#[derive(Debug)]
pub struct Notifications {
    active: Mutex<Vec<Notification>>,
    changes: broadcast::Sender<Notification>,
    watchers_max: usize,
}

impl Notifications {
    /// Of which at most `watchers_max` clients are told at once.
    pub fn new(watchers_max: usize) -> Self {
        let changes = broadcast::channel(BACKLOG).0;
        Self { active: Mutex::default(), changes, watchers_max }
    }

    /// `text` is the case since `at`, unless it was already.
    pub fn begin(&self, text: &'static str, at: Timestamp) {
        let mut active = self.active.lock();
        if active.iter().any(|known| known.text == text) {
            return;
        }
        let begun = Notification { text, date: rfc_3339(at), active: true };
        active.push(begun.clone());
        self.tell(begun);
    }

    /// `text` is no longer the case.
    pub fn end(&self, text: &'static str) {
        let mut active = self.active.lock();
        let Some(position) = active.iter().position(|known| known.text == text) else { return };
        let ended = active.remove(position);
        self.tell(Notification { active: false, ..ended });
    }

    fn tell(&self, change: Notification) {
        // Nobody watches, most of the time.
        let _ = self.changes.send(change);
    }

    /// What is the case now, and what changes from now on; `None` when too many watch already.
    fn watch(&self) -> Option<Watch> {
        let active = self.active.lock();
        if self.changes.receiver_count() >= self.watchers_max {
            return None;
        }
        let known = active.iter().cloned().collect();
        Some(Watch { known, changes: self.changes.subscribe(), is_over: false })
    }
}

/// One client's view.
struct Watch {
    known: VecDeque<Notification>,
    changes: broadcast::Receiver<Notification>,
    is_over: bool,
}

impl Watch {
    /// The next notification; `None` after that the server stops.
    async fn next(&mut self) -> Option<Notification> {
        while !self.is_over {
            let next = match self.known.pop_front() {
                Some(known) => known,
                None => match self.changes.recv().await {
                    Ok(change) => change,
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            self.is_over = next.text == STOPPING;
            return Some(next);
        }
        None
    }
}

/// What is the case now.
pub(super) async fn notifications(State(api): State<Arc<Api>>) -> Reply {
    let active = api.notifications.active.lock().clone();
    Reply::json(&active)
}

/// What is the case now and whatever changes, as server-sent events.
pub(super) async fn live(State(api): State<Arc<Api>>) -> Response {
    let Some(watch) = api.notifications.watch() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let events = stream::unfold(watch, |mut watch| async {
        let next = watch.next().await?;
        let data = String::from_utf8(Reply::data(&next)).unwrap_or_default();
        Some((Ok::<_, Infallible>(Event::default().data(data)), watch))
    });
    Sse::new(events).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(notifications: &Notifications) -> Vec<&'static str> {
        notifications.active.lock().iter().map(|known| known.text).collect()
    }

    #[test]
    fn what_is_the_case_is_told_once_until_it_ends() {
        let all = Notifications::new(3);
        all.begin(STARTING, Timestamp(1_000));
        all.begin(RELOAD_FAILED, Timestamp(2_000));
        all.begin(STARTING, Timestamp(3_000));
        assert_eq!(now(&all), [STARTING, RELOAD_FAILED]);
        assert_eq!(all.active.lock()[0].date, "1970-01-01T00:00:01Z");
        all.end(STARTING);
        all.end(STARTING);
        assert_eq!(now(&all), [RELOAD_FAILED]);
    }

    #[tokio::test]
    async fn who_watches_sees_the_present_then_changes_until_the_server_stops() {
        let all = Notifications::new(3);
        all.begin(RELOAD_FAILED, Timestamp(0));
        let mut watch = all.watch().unwrap();
        all.end(RELOAD_FAILED);
        all.begin(STOPPING, Timestamp(5_000));
        let mut seen = Vec::new();
        while let Some(next) = watch.next().await {
            seen.push((next.text, next.active));
        }
        assert_eq!(seen, [(RELOAD_FAILED, true), (RELOAD_FAILED, false), (STOPPING, true)]);
    }

    #[test]
    fn so_many_may_watch_and_no_more() {
        let all = Notifications::new(3);
        let watching: Vec<_> = (0..3).map(|_| all.watch().unwrap()).collect();
        assert!(all.watch().is_none());
        drop(watching);
        assert!(all.watch().is_some());
    }
}
