//! An endpoint that counts as Mimir does, and keeps everything that arrives.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::Value as Json;
use stint_model::clock::SystemClock;
use stint_model::{Clock as _, STALE_NAN_BITS, Value};
use stint_wire::remote_write::v1::{self, Item};
use stint_wire::snappy;
use tokio::sync::Notify;

/// A series is active for so long after its last arrival.
const WINDOW: Duration = Duration::from_mins(20);
/// What was delivered this long before a kill is known to have been, after the next start.
const SAVED_WITHIN: Duration = Duration::from_secs(4);

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// 503, and nothing is taken.
    Away,
    /// Every other request meets a limit of the rate.
    Busy,
    /// Everything is taken, and no answer comes.
    Mute,
}

/// One arrival.
#[derive(Clone, Debug)]
struct Arrival {
    at: i64,
    value: Option<String>,
    run: u64,
    when: Duration,
    /// Its request was answered.
    answered: bool,
}

/// What arrived of a series, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Vec<Arrival>, Arc<HashMap<u64, Duration>>);

impl Seen {
    /// Samples by time, without markers.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&i64, &String)> {
        let all: BTreeMap<&i64, &String> =
            self.0.iter().filter_map(|it| Some((&it.at, it.value.as_ref()?))).collect();
        all.into_iter()
    }

    /// The time of its first sample.
    pub(crate) fn first(&self) -> i64 {
        self.values().next().map_or(i64::MAX, |(at, _)| *at)
    }

    /// New samples never go back, and what comes again comes after a crash, or after a request to
    /// which there was no answer.
    pub(crate) fn assert_in_order(&self, name: &str) {
        let mut newest = i64::MIN;
        let mut first: HashMap<i64, &Arrival> = HashMap::new();
        for arrival in &self.0 {
            let Some(before) = first.get(&arrival.at) else {
                assert!(arrival.at > newest, "{name} goes back to {}", arrival.at);
                newest = arrival.at;
                first.insert(arrival.at, arrival);
                continue;
            };
            assert_eq!(before.value, arrival.value, "{name} at {}", arrival.at);
            if before.run == arrival.run {
                assert!(!before.answered, "{name} at {} was sent twice", arrival.at);
                continue;
            }
            let killed = self.1[&before.run];
            let early = killed.saturating_sub(before.when);
            // Runs that ended before they could note anything leave the same window behind.
            let runs = (before.run + 1..arrival.run).filter(|run| self.1.contains_key(run)).count();
            assert!(
                early < SAVED_WITHIN || runs > 0,
                "{name} at {} was sent again although it had arrived {early:?} before the end",
                arrival.at
            );
        }
    }
}

/// What is to be said of a sender.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    requests: u64,
    samples: u64,
    repeated: u64,
    pub(crate) refused: u64,
    pub(crate) active_most: u64,
}

#[derive(Default)]
struct State {
    mood: Option<Mood>,
    active: HashMap<String, Duration>,
    seen: HashMap<String, Vec<Arrival>>,
    ended: HashMap<u64, Duration>,
    run: u64,
    newest: i64,
    verdict: Verdict,
}

pub(crate) struct Judge {
    pub(crate) limit: u64,
    clock: SystemClock,
    state: Mutex<State>,
    arrived: Notify,
}

impl Judge {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        let (clock, state) = (SystemClock::default(), Mutex::default());
        Arc::new(Self { limit, clock, state, arrived: Notify::new() })
    }

    pub(crate) async fn serve(self: &Arc<Self>) -> String {
        let own = Arc::clone(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let take = move |body: Bytes| {
            let own = Arc::clone(&own);
            async move { own.answer(&body).await }
        };
        let router = axum::Router::new().route("/api/v1/write", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.state.lock().mood = Some(mood);
    }

    pub(crate) fn begin_run(&self) {
        self.state.lock().run += 1;
    }

    pub(crate) fn end_run(&self) {
        let mut state = self.state.lock();
        let run = state.run;
        state.ended.insert(run, self.clock.monotonic());
    }

    /// Waits until so many more requests came.
    pub(crate) async fn wait_for_requests(&self, more: u64) {
        let until = self.state.lock().verdict.requests + more;
        self.wait(|state| state.verdict.requests >= until).await;
    }

    /// Waits until a sample of that time came.
    pub(crate) async fn wait_for_time(&self, at: i64) {
        self.wait(|state| state.newest >= at).await;
    }

    async fn wait(&self, is_it: impl Fn(&State) -> bool) {
        let patience = Duration::from_mins(2);
        let arrived = async {
            loop {
                let next = self.arrived.notified();
                if is_it(&self.state.lock()) {
                    return;
                }
                next.await;
            }
        };
        tokio::time::timeout(patience, arrived).await.expect("it came within two minutes");
    }

    pub(crate) fn newest(&self) -> i64 {
        self.state.lock().newest
    }

    /// Series that are active now.
    pub(crate) fn active(&self) -> u64 {
        let mut state = self.state.lock();
        state.forget(self.clock.monotonic());
        state.active.len() as u64
    }

    pub(crate) fn seen(&self) -> BTreeMap<String, Seen> {
        let state = self.state.lock();
        let ended = Arc::new(state.ended.clone());
        let one = |(name, all): (&String, &Vec<Arrival>)| {
            (name.clone(), Seen(all.clone(), Arc::clone(&ended)))
        };
        state.seen.iter().map(one).collect()
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.state.lock().verdict
    }

    async fn answer(&self, body: &[u8]) -> Response {
        let (mood, refused) = {
            let now = self.clock.monotonic();
            let mut state = self.state.lock();
            state.verdict.requests += 1;
            let mood = state.mood.unwrap_or(Mood::Well);
            let is_busy = mood == Mood::Busy && state.verdict.requests.is_multiple_of(2);
            let takes = !is_busy && mood != Mood::Away;
            let refused = takes && state.take(body, self.limit, mood != Mood::Mute, now);
            (
                if is_busy {
                    Mood::Busy
                } else if mood == Mood::Busy {
                    Mood::Well
                } else {
                    mood
                },
                refused,
            )
        };
        self.arrived.notify_waiters();
        match mood {
            Mood::Well if refused => {
                let text = "no room (err-mimir-max-active-series)";
                (StatusCode::TOO_MANY_REQUESTS, text).into_response()
            }
            Mood::Well => StatusCode::OK.into_response(),
            Mood::Away => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Mood::Busy => {
                let text = "slower (err-mimir-tenant-max-ingestion-rate)";
                (StatusCode::TOO_MANY_REQUESTS, text).into_response()
            }
            Mood::Mute => std::future::pending().await,
        }
    }
}

impl State {
    fn forget(&mut self, now: Duration) {
        self.active.retain(|_, arrived| now.saturating_sub(*arrived) < WINDOW);
    }

    /// Takes a request; says whether some of it was refused.
    fn take(&mut self, body: &[u8], limit: u64, answered: bool, now: Duration) -> bool {
        let mut message = Vec::new();
        snappy::decompress_limited(body, snappy::DECOMPRESSED_BYTES_MAX, &mut message).unwrap();
        self.forget(now);
        let mut refused = false;
        for item in v1::decode(&message) {
            let Item::Series(series) = item.unwrap() else { continue };
            let name = name_of(series.labels().map(Result::unwrap));
            let is_new = !self.active.contains_key(&name);
            if is_new && self.active.len() as u64 >= limit {
                self.verdict.refused += 1;
                refused = true;
                continue;
            }
            self.active.insert(name.clone(), now);
            let active = self.active.len() as u64;
            self.verdict.active_most = self.verdict.active_most.max(active);
            let all = self.seen.entry(name).or_default();
            for sample in series.samples().map(Result::unwrap) {
                let value = match sample.value {
                    Value::Stale => None,
                    Value::Float(value) if value.to_bits() == STALE_NAN_BITS => None,
                    Value::Float(value) => Some(value.to_string()),
                    Value::Histogram(_) => panic!("nobody sent a histogram"),
                };
                let at = sample.at.as_ms();
                self.newest = self.newest.max(at);
                self.verdict.samples += 1;
                self.verdict.repeated += u64::from(all.iter().rev().any(|it| it.at == at));
                all.push(Arrival { at, value, run: self.run, when: now, answered });
            }
        }
        refused
    }
}

/// A series in words.
fn name_of<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut metric = "";
    let mut rest: Vec<String> = Vec::new();
    for (name, value) in labels {
        match name {
            "__name__" => metric = value,
            _ => rest.push(format!("{name}={value}")),
        }
    }
    rest.sort();
    format!("{metric}{{{}}}", rest.join(","))
}

/// A series of an answer in the same words.
pub(crate) fn name_of_json(labels: &Json) -> String {
    let labels = labels.as_object().unwrap().iter();
    name_of(labels.map(|(name, value)| (name.as_str(), value.as_str().unwrap())))
}
