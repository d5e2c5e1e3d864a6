//! A world for the forwarder's tests: a stored log in memory, a clock that goes with tokio's, and an
//! endpoint that counts series as Mimir does or takes samples as Prometheus does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use stint_model::{Clock, Labels, SeriesRef, Span, Timestamp, Value};
use stint_model::{Exemplar, Metadata, Sample};
use stint_storage::WalId;
use stint_wire::remote_write::v1::{self, Item};
use stint_wire::snappy;
use tokio::time::Instant;

use super::cursor::Saved;
use super::retry::Response;
use super::source::{Event, Position, Source, SourceError, StoredBatch};
use super::transport::{Request, Transport, TransportError};
use crate::config::{
    Budget, HttpConfig, MetadataConfig, ProtobufMessage, QueueConfig, RemoteWrite,
};

/// Goes with tokio's clock, which tests pause; the wall clock can be set.
#[derive(Debug)]
pub(super) struct TokioClock {
    start: Instant,
    wall: AtomicI64,
}

impl TokioClock {
    pub(super) fn at(wall: Timestamp) -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), wall: AtomicI64::new(wall.as_ms()) })
    }

    pub(super) fn step(&self, by: Span) {
        self.wall.fetch_add(by.as_ms(), Ordering::SeqCst);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let since = self.start.elapsed().as_millis() as i64;
        Timestamp(self.wall.load(Ordering::SeqCst) + since)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A stored log.
#[derive(Debug, Default)]
pub(super) struct Log {
    batches: Vec<Event>,
    refs: HashMap<Labels, SeriesRef>,
    pub(super) samples: u64,
    released: u64,
    /// Nobody can open it.
    pub(super) is_closed: bool,
    /// The next one to read here breaks down.
    pub(super) breaks_at: Option<u64>,
}

impl Log {
    pub(super) fn append(&mut self, samples: &[(Labels, Sample)]) {
        let mut batch = StoredBatch::default();
        for (labels, sample) in samples {
            let next = SeriesRef(self.refs.len() as u64);
            let series = *self.refs.entry(labels.clone()).or_insert(next);
            batch.rows.push((series, Some(labels.clone()), sample.clone()));
        }
        self.samples += samples.len() as u64;
        self.push(batch);
    }

    pub(super) fn append_exemplar(&mut self, labels: &Labels, at: Timestamp) {
        let exemplar = Exemplar { labels: Labels::default(), value: 1.0, at };
        let series = self.refs[labels];
        self.push(StoredBatch { exemplars: vec![(series, exemplar)], ..StoredBatch::default() });
    }

    pub(super) fn append_metadata(&mut self, family: &str, metadata: Metadata) {
        let metadata = vec![(family.to_owned(), metadata)];
        self.push(StoredBatch { metadata, ..StoredBatch::default() });
    }

    fn push(&mut self, mut batch: StoredBatch) {
        batch.position_after = Position { segment: 1, offset: self.batches.len() as u64 + 1 };
        self.batches.push(Event::Batch(batch));
    }

    /// A stretch that was removed before it was read.
    pub(super) fn lose(&mut self) {
        let to = Position { segment: 1, offset: self.batches.len() as u64 + 1 };
        self.batches.push(Event::Lost { to, reason: "removed".into() });
    }
}

/// Reads a [`Log`].
pub(super) struct LogSource {
    log: Arc<Mutex<Log>>,
    at: u64,
    end: Position,
}

impl LogSource {
    pub(super) fn open(
        log: &Arc<Mutex<Log>>,
        saved: &Saved,
    ) -> Result<Box<dyn Source>, SourceError> {
        if log.lock().is_closed {
            return Err(SourceError("closed".into()));
        }
        let at = match saved {
            Saved::At(place) => place.done.offset,
            Saved::Nothing => log.lock().batches.len() as u64,
            Saved::Damaged(_) => 0,
        };
        assert!(at >= log.lock().released, "what was released is gone");
        let end = Position { segment: 1, offset: log.lock().batches.len() as u64 };
        Ok(Box::new(Self { log: Arc::clone(log), at, end }))
    }
}

impl Source for LogSource {
    fn next(&mut self, is_known: &dyn Fn(SeriesRef) -> bool) -> Result<Event, SourceError> {
        let mut log = self.log.lock();
        if log.breaks_at.is_some_and(|at| at == self.at) {
            log.breaks_at = None;
            drop(log);
            panic!("the log cannot be understood");
        }
        let Some(event) = log.batches.get(self.at as usize) else { return Ok(Event::CaughtUp) };
        self.at += 1;
        let mut event = event.clone();
        if let Event::Batch(batch) = &mut event {
            for (series, labels, _) in &mut batch.rows {
                labels.take_if(|_| is_known(*series));
            }
        }
        Ok(event)
    }

    fn position(&self) -> Position {
        Position { segment: 1, offset: self.at }
    }

    fn log(&self) -> WalId {
        "000102030405060708090a0b0c0d0e0f".parse().unwrap()
    }

    fn end(&self) -> Position {
        self.end
    }

    fn release(&mut self, position: Position) {
        let mut log = self.log.lock();
        log.released = log.released.max(position.offset);
    }

    fn present(&self) -> Result<Option<HashSet<u64>>, SourceError> {
        let log = self.log.lock();
        let rows = log.batches.iter().filter_map(|event| match event {
            Event::Batch(batch) => Some(&batch.rows),
            _ => None,
        });
        let newest = rows.clone().flatten().map(|(_, _, sample)| sample.at).max();
        let mut present = HashSet::new();
        for (_, labels, sample) in rows.flatten() {
            if newest.is_some_and(|newest| newest.since(sample.at) < Span::from_secs(300))
                && let Some(labels) = labels
            {
                present.insert(labels.stable_hash());
            }
        }
        Ok(Some(present))
    }

    fn lag_bytes(&self) -> u64 {
        (self.log.lock().batches.len() as u64).saturating_sub(self.at)
    }
}

/// How late is what is late: within the timeout and the time for which requests may linger.
const LATE: Duration = Duration::from_secs(50);

/// How the endpoint behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should.
    Well,
    /// Nobody answers, nothing arrives.
    Unreachable,
    /// Everything arrives, and no answer comes back.
    Mute,
    /// The same, and it arrives when nobody waits for the answer any more.
    Late,
    /// The same answer to everybody; nothing is taken.
    Answers(Response),
}

/// An endpoint that counts as Mimir does: a series is active from its arrival for 20 minutes, in
/// whole minutes, cleaned up once a minute; the limit holds per partition; a refused series takes
/// no slot, and the rest of its request is stored.
#[derive(Debug)]
pub(super) struct Mimir {
    clock: Arc<TokioClock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    /// One sample out of order rolls the whole request back, as with a Prometheus.
    rolls_back: bool,
    /// Samples of which metric make it answer what.
    poison: Option<(String, Response)>,
    partitions: u64,
    partition_max: u64,
    /// Series of other senders, evenly over the partitions.
    others: u64,
    /// How far a sample may lie behind the newest one of the account.
    window: Option<Span>,
    newest: i64,
    samples_max: usize,
    active: HashMap<Labels, i64>,
    active_most: usize,
    stored: BTreeMap<String, Vec<(i64, u64)>>,
    requests: Vec<(Duration, u32)>,
    /// What is on its way, and when it arrives.
    late: Vec<(Duration, bytes::Bytes)>,
    /// When how many samples arrived.
    arrivals: Vec<(Duration, usize)>,
    metadata: BTreeMap<String, Metadata>,
}

impl Mimir {
    pub(super) fn new(clock: &Arc<TokioClock>, partitions: u64, limit: u64) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::clone(clock),
            state: Mutex::new(State {
                mood: Mood::Well,
                rolls_back: false,
                poison: None,
                partitions,
                partition_max: limit / partitions,
                others: 0,
                window: None,
                newest: i64::MIN,
                samples_max: usize::MAX,
                active: HashMap::new(),
                active_most: 0,
                stored: BTreeMap::new(),
                requests: Vec::new(),
                late: Vec::new(),
                arrivals: Vec::new(),
                metadata: BTreeMap::new(),
            }),
        })
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        self.state.lock().mood = mood;
    }

    /// From now on it takes samples as a Prometheus does.
    pub(super) fn behave_as_prometheus(&self) {
        self.state.lock().rolls_back = true;
    }

    /// It holds these series at these times already.
    pub(super) fn hold(&self, series: &[Labels], times: &[i64]) {
        let mut state = self.state.lock();
        for labels in series {
            let samples = times.iter().zip(0u32..).map(|(at, n)| (*at, f64::from(n).to_bits()));
            state.stored.entry(labels.to_string()).or_default().extend(samples);
        }
    }

    pub(super) fn set_poison(&self, metric: &str, answer: Response) {
        self.state.lock().poison = Some((metric.to_owned(), answer));
    }

    pub(super) fn set_samples_max(&self, max: usize) {
        self.state.lock().samples_max = max;
    }

    pub(super) fn set_limit(&self, limit: u64) {
        let mut state = self.state.lock();
        state.partition_max = limit / state.partitions;
    }

    /// The limit is spread over so many partitions.
    pub(super) fn set_partitions(&self, partitions: u64, limit: u64) {
        let mut state = self.state.lock();
        (state.partitions, state.partition_max) = (partitions, limit / partitions);
    }

    /// Others use the account too.
    pub(super) fn set_others(&self, series: u64) {
        self.state.lock().others = series;
    }

    /// What lies further behind the newest sample is too old.
    pub(super) fn set_window(&self, window: Span) {
        self.state.lock().window = Some(window);
    }

    /// The most series that were ever active at once.
    pub(super) fn active_most(&self) -> usize {
        let mut state = self.state.lock();
        state.take_late(self.clock.monotonic());
        state.active_most
    }

    /// From now on the most series that are active at once are found out anew; how many there are.
    pub(super) fn count_anew(&self) -> usize {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        state.take_late(now);
        state.forget(now);
        state.active_most = state.active.len();
        state.active_most
    }

    /// Time and attempt number of each request.
    pub(super) fn requests(&self) -> Vec<(Duration, u32)> {
        self.state.lock().requests.clone()
    }

    /// The most samples that arrived in any stretch of so long.
    pub(super) fn arrived_most(&self, window: Duration) -> usize {
        let state = self.state.lock();
        let arrivals = &state.arrivals;
        let within = |from: usize| {
            let start = arrivals[from].0;
            let inside = arrivals[from..].iter().take_while(|(at, _)| *at < start + window);
            inside.map(|(_, count)| count).sum::<usize>()
        };
        (0..arrivals.len()).map(within).max().unwrap_or(0)
    }

    /// What is stored of each series: time and bits of the value, in order of arrival.
    pub(super) fn stored(&self) -> BTreeMap<String, Vec<(i64, u64)>> {
        self.state.lock().stored.clone()
    }

    /// Checks that the samples of every series arrived in order, as `place` tells it by time and bits:
    /// what was sent again, by this run of the sender or a later one, is what had been sent.
    pub(super) fn assert_in_order(&self, place: impl Fn(i64, u64) -> f64, seed: u64) {
        for (series, samples) in &self.state.lock().stored {
            let mut newest = f64::NEG_INFINITY;
            let mut seen = HashSet::new();
            for (at, bits) in samples.iter().filter(|it| it.1 != stint_model::STALE_NAN_BITS) {
                if seen.insert((*at, *bits)) {
                    let place = place(*at, *bits);
                    assert!(place >= newest, "seed {seed}: {series} goes back to {place} at {at}");
                    newest = place;
                }
            }
        }
    }

    pub(super) fn metadata(&self) -> BTreeMap<String, Metadata> {
        self.state.lock().metadata.clone()
    }
}

impl Mimir {
    fn arrived(&self, request: &Request) -> Result<Response, TransportError> {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        state.take_late(now);
        state.requests.push((now, request.attempt));
        match state.mood.clone() {
            Mood::Well => Ok(state.take(&request.body, now)),
            Mood::Unreachable => Err(TransportError::NotSent("connection refused".into())),
            Mood::Answers(response) => Ok(response),
            Mood::Mute => {
                state.take(&request.body, now);
                Err(TransportError::NoAnswer("timed out".into()))
            }
            Mood::Late => {
                state.late.push((now + LATE, request.body.clone()));
                Err(TransportError::NoAnswer("timed out".into()))
            }
        }
    }
}

impl State {
    /// Takes what has arrived since.
    fn take_late(&mut self, now: Duration) {
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|it| it.0 <= now);
        self.late = late;
        let due: Vec<(Duration, bytes::Bytes)> = due;
        for (at, body) in due {
            self.take(&body, at);
        }
    }

    fn forget(&mut self, now: Duration) {
        let minute = now.as_secs() as i64 / 60;
        self.active.retain(|_, arrived| minute - *arrived <= 21);
    }

    fn admit(&mut self, labels: &Labels, now: Duration) -> bool {
        let minute = now.as_secs() as i64 / 60;
        if let Some(arrived) = self.active.get_mut(labels) {
            *arrived = minute;
            return true;
        }
        let partition = |labels: &Labels| labels.stable_hash() % self.partitions;
        let used = match self.partitions {
            1 => self.active.len(),
            _ => self.active.keys().filter(|o| partition(o) == partition(labels)).count(),
        };
        if used as u64 + self.others / self.partitions >= self.partition_max {
            return false;
        }
        self.active.insert(labels.clone(), minute);
        self.active_most = self.active_most.max(self.active.len());
        true
    }

    fn take(&mut self, body: &[u8], now: Duration) -> Response {
        let mut message = Vec::new();
        snappy::decompress_limited(body, snappy::DECOMPRESSED_BYTES_MAX, &mut message).unwrap();
        self.forget(now);
        let (mut refused, mut too_old) = (None, false);
        let mut all = Vec::new();
        for item in v1::decode(&message) {
            match item.unwrap() {
                Item::Metadata(family) => {
                    let (family, metadata) = family.to_model();
                    self.metadata.insert(family, metadata);
                }
                Item::Series(series) => {
                    let labels = Labels::from_pairs(series.labels().map(Result::unwrap));
                    let samples: Vec<Sample> = series.samples().map(Result::unwrap).collect();
                    all.push((labels, samples));
                }
            }
        }
        let count: usize = all.iter().map(|(_, samples)| samples.len()).sum();
        self.arrivals.push((now, count));
        if count > self.samples_max {
            return answer(413, "too large");
        }
        if let Some((metric, answer)) = &self.poison
            && all.iter().any(|(labels, _)| labels.metric_name() == Some(metric))
        {
            return answer.clone();
        }
        if self.rolls_back {
            return self.take_all_or_nothing(&all);
        }
        for (labels, samples) in all {
            if !self.admit(&labels, now) {
                refused = Some(labels);
                continue;
            }
            // The series counts already when its samples are looked at.
            let oldest =
                self.window.map_or(i64::MIN, |window| self.newest.saturating_sub(window.as_ms()));
            let stored = self.stored.entry(labels.to_string()).or_default();
            for pair in samples.iter().map(pair) {
                if pair.0 < oldest {
                    too_old = true;
                } else {
                    self.newest = self.newest.max(pair.0);
                    stored.push(pair);
                }
            }
        }
        match refused {
            None if too_old => answer(400, "(err-mimir-sample-timestamp-too-old)"),
            None => answer(200, ""),
            Some(labels) => {
                answer(429, &format!("no room for {labels} (err-mimir-max-active-series)"))
            }
        }
    }
}

impl State {
    /// A sample older than the newest of its series, or another one for its time, is out of order
    /// and undoes the request; the newest one again is fine and changes nothing.
    fn take_all_or_nothing(&mut self, all: &[(Labels, Vec<Sample>)]) -> Response {
        let mut stored = self.stored.clone();
        for (labels, samples) in all {
            let stored = stored.entry(labels.to_string()).or_default();
            for pair in samples.iter().map(pair) {
                match stored.last() {
                    Some(newest) if *newest == pair => {}
                    Some((newest, _)) if *newest >= pair.0 => {
                        return answer(400, "out of order sample");
                    }
                    _ => stored.push(pair),
                }
            }
        }
        self.stored = stored;
        answer(204, "")
    }
}

/// Time and bits of a sample.
fn pair(sample: &Sample) -> (i64, u64) {
    let bits = match sample.value {
        Value::Float(value) => value.to_bits(),
        _ => stint_model::STALE_NAN_BITS,
    };
    (sample.at.as_ms(), bits)
}

/// An endpoint with nothing set.
pub(super) fn endpoint(name: &str, url: &str) -> RemoteWrite {
    RemoteWrite {
        name: name.into(),
        url: url.into(),
        remote_timeout: Span::from_secs(30),
        headers: Vec::new(),
        write_relabel_configs: Vec::new(),
        protobuf_message: ProtobufMessage::V1,
        send_exemplars: false,
        send_native_histograms: false,
        queue: QueueConfig::default(),
        metadata: MetadataConfig::default(),
        http: HttpConfig::default(),
        labels: Labels::default(),
        budget: Budget::default(),
    }
}

pub(super) fn answer(status: u16, body: &str) -> Response {
    Response { status, body: body.to_owned(), ..Response::default() }
}

impl Transport for Mimir {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let answer = self.arrived(&request);
            // Who is killed in here has delivered and does not know it.
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer
        })
    }
}
