//! What the tests of scraping share: a store that remembers, a clock that follows tokio's, and
//! targets that answer from a script.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{
    AppendError, Appended, Appender, Batch, Clock, Labels, RejectReason, Rejected, SeriesKey,
    SeriesRef, Timestamp, Value,
};

use super::fetch::{FetchError, FetchFuture, Fetched, Fetcher, Room};
use super::line::Line;
use super::target::Target;

/// A store that keeps rows in the order in which they came.
#[derive(Default)]
pub(super) struct Store {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    refs: HashMap<Labels, SeriesRef>,
    labels: HashMap<SeriesRef, Labels>,
    last: HashMap<SeriesRef, Timestamp>,
    rows: Vec<(Labels, Timestamp, Value)>,
    batches: Vec<Batch>,
    next: u64,
    broken: bool,
    panics: bool,
}

impl Store {
    /// The rows since the last call, each as `labels value @time`, sorted.
    pub(super) fn take(&self) -> Vec<String> {
        let rows = std::mem::take(&mut self.inner.lock().rows);
        let show = |(labels, at, value): &(Labels, Timestamp, Value)| {
            let value = match value {
                Value::Float(value) => value.to_string(),
                Value::Histogram(_) => "histogram".to_owned(),
                Value::Stale => "stale".to_owned(),
            };
            format!("{labels} {value} @{at}")
        };
        let mut shown: Vec<_> = rows.iter().map(show).collect();
        shown.sort();
        shown
    }

    /// The rows since the last call whose metric is not one of the report, without times.
    pub(super) fn samples(&self) -> Vec<String> {
        let rows = self.take().into_iter();
        let own = |row: &String| !row.contains("\"up\"") && !row.contains("\"scrape_");
        let without_time =
            |row: String| row.rsplit_once(" @").map_or(row.clone(), |(row, _)| row.to_owned());
        rows.filter(own).map(without_time).collect()
    }

    pub(super) fn take_batches(&self) -> Vec<Batch> {
        std::mem::take(&mut self.inner.lock().batches)
    }

    /// Forgets all handles, as a store that was reopened.
    pub(super) fn forget(&self) {
        let mut inner = self.inner.lock();
        inner.refs.clear();
        inner.labels.clear();
    }

    /// The next batch meets a bug.
    pub(super) fn panic_once(&self) {
        self.inner.lock().panics = true;
    }

    pub(super) fn set_broken(&self, broken: bool) {
        self.inner.lock().broken = broken;
    }
}

impl Appender for Store {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        let mut inner = self.inner.lock();
        assert!(!std::mem::take(&mut inner.panics), "a bug in the store");
        if inner.broken {
            return Err(AppendError::Io("broken".to_owned()));
        }
        inner.batches.push(batch.clone());
        let mut appended = Appended::default();
        for (at, row) in batch.rows.iter().enumerate() {
            let series = match &row.series {
                SeriesKey::Known(series) => inner.labels.contains_key(series).then_some(*series),
                SeriesKey::Labels(labels) => {
                    let next = SeriesRef(inner.next);
                    inner.next += 1;
                    let series = *inner.refs.entry(labels.clone()).or_insert(next);
                    inner.labels.insert(series, labels.clone());
                    Some(series)
                }
            };
            appended.refs.push(series);
            let Some(series) = series else {
                appended.rejected.push(Rejected { row: at, reason: RejectReason::UnknownSeries });
                continue;
            };
            if inner.last.get(&series).is_some_and(|last| *last >= row.sample.at) {
                appended.rejected.push(Rejected { row: at, reason: RejectReason::OutOfOrder });
                continue;
            }
            inner.last.insert(series, row.sample.at);
            let labels = inner.labels.get(&series).cloned().unwrap_or_default();
            inner.rows.push((labels, row.sample.at, row.sample.value.clone()));
        }
        Ok(appended)
    }
}

/// A clock that follows tokio's, which tests pause.
pub(super) struct TokioClock {
    start: Timestamp,
    began: tokio::time::Instant,
}

impl TokioClock {
    pub(super) fn at(start: Timestamp) -> Self {
        Self { start, began: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.start.0 + self.began.elapsed().as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Answers by URL; what has no answer never does.
#[derive(Default)]
pub(super) struct Script {
    answers: Mutex<HashMap<String, Result<String, FetchError>>>,
    asked: Mutex<Vec<String>>,
    silent: Mutex<HashSet<String>>,
}

impl Script {
    pub(super) fn answer(&self, url: &str, body: &str) {
        self.answers.lock().insert(url.to_owned(), Ok(body.to_owned()));
    }

    pub(super) fn fail(&self, url: &str, error: FetchError) {
        self.answers.lock().insert(url.to_owned(), Err(error));
    }

    pub(super) fn silence(&self, url: &str) {
        self.silent.lock().insert(url.to_owned());
    }

    /// The URLs asked for since the last call.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock())
    }
}

impl Fetcher for Script {
    fn fetch<'a>(
        &'a self,
        target: &'a Target,
        _line: &'a mut Line,
        _size_hint: usize,
    ) -> FetchFuture<'a> {
        self.asked.lock().push(target.url.clone());
        let answer = self.answers.lock().get(&target.url).cloned();
        let silent = self.silent.lock().contains(&target.url);
        Box::pin(async move {
            match answer {
                Some(answer) if !silent => answer.map(|body| text(&body)),
                _ => std::future::pending().await,
            }
        })
    }
}

/// A body in the text format.
pub(super) fn text(body: &str) -> Fetched {
    Fetched {
        content_type: "text/plain".to_owned(),
        body: body.as_bytes().to_vec(),
        room: Room::default(),
    }
}

/// A fetcher maker that hands out `script`.
pub(super) fn always(script: &Arc<Script>) -> super::manager::MakeFetcher {
    let script = Arc::clone(script);
    Box::new(move |_| Ok(Arc::clone(&script) as Arc<dyn Fetcher>))
}
