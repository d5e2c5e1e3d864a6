//! A running server, asked by remote read, a window at a time.
//!
//! Chunks are asked for, which a server streams without gathering the answer; one that knows only
//! samples answers with them. Where a server refuses to give so much at once, it is asked for less.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use stint_model::{Columns, Labels, MatchOp, Matcher, Selector, Span, TimeRange, Value};
use stint_wire::remote_read::{Query, client};
use stint_wire::remote_write::v1;
use stint_wire::snappy::{compress_into, decompress_limited};
use stint_wire::tsdb::chunk;

use super::spool::{Number, Spool};
use super::state::State;
use super::{Counts, ImportError, Target, Watcher, rows};
use crate::http::client::{Client, explain};

/// Bytes of samples in memory.
const SPOOL_BYTES: usize = 192 << 20;
/// The longest answer made of samples, decompressed.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// The longest compressed answer made of samples.
const BODY_BYTES_MAX: usize = 256 << 20;
/// The longest text of a refusal that is read.
const REFUSAL_BYTES_MAX: usize = 4096;
/// How long a server may say nothing.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Nobody is asked for less than this at once.
const SHORTEST: Span = Span::MINUTE;

/// A server that answers remote read.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    url: String,
    /// The same without a password, for messages and the list of what was imported.
    place: String,
}

/// A URL that may be told. What is none is told as it is: it fails before anything is sent.
fn without_password(text: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(text) else { return text.to_owned() };
    // A URL that cannot have a password has none.
    let _ = url.set_password(None);
    url.into()
}

/// Why one request got no answer that can be used.
enum Refusal {
    /// It was too much at once.
    TooMuch(String),
    Other(ImportError),
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        Self::Other(error)
    }
}

impl Remote {
    /// The server at `url`, which is its address or that of its remote read endpoint.
    pub fn new(client: Client, url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let url =
            if url.ends_with("/read") { url.to_owned() } else { format!("{url}/api/v1/read") };
        let place = without_password(&url);
        Self { client, url, place }
    }

    /// Where it is asked, without a password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Imports everything that `target` takes, which must begin and end somewhere.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub async fn import(
        &self,
        target: &Target<'_>,
        state: &mut State<'_>,
        source: &str,
        watcher: &mut dyn Watcher,
    ) -> Result<Counts, ImportError> {
        let mut counts = Counts::default();
        let windows = target.windows(target.range);
        let total = target.range.end.since(target.range.start).0.max(0) as u64;
        let mut most = target.db.import_windows();
        for window in windows {
            let range = TimeRange::new(
                window.start.max(target.range.start),
                window.end.min(target.range.end),
            );
            let unit = format!("{}..{}", range.start, range.end);
            if state.is_done(source, &unit) {
                counts.done_before += 1;
                continue;
            }
            let part = Target { range, ..target.clone() };
            let mut spool = Spool::new(&part, SPOOL_BYTES);
            let mut at = range.start;
            while at < range.end {
                let end = at.saturating_add(most).min(range.end);
                match self.ask(TimeRange::new(at, end), &part, &mut spool, &mut counts).await {
                    Ok(()) => at = end,
                    Err(Refusal::TooMuch(_)) if most > SHORTEST => {
                        most = Span(end.since(at).0 / 2).max(SHORTEST);
                    }
                    Err(Refusal::TooMuch(why)) => return Err(ImportError::Source(why)),
                    Err(Refusal::Other(error)) => return Err(error),
                }
                let done = at.since(target.range.start).0.max(0) as u64;
                if !watcher.at(done, total, counts.samples + spool.waiting()) {
                    return Err(ImportError::Stopped);
                }
            }
            spool.empty(&mut counts)?;
            state.done(source, &unit)?;
        }
        Ok(counts)
    }

    /// Takes what the server has inside `range`. What it gave before it failed is taken too: asked
    /// again, it is the same.
    async fn ask(
        &self,
        range: TimeRange,
        target: &Target<'_>,
        spool: &mut Spool<'_>,
        counts: &mut Counts,
    ) -> Result<(), Refusal> {
        let fail = |why: String| ImportError::Source(format!("{}: {why}", self.place));
        let mut body = Vec::new();
        let request =
            client::encode(&queries(target, range), &[client::STREAMED_CHUNKS, client::SAMPLES]);
        compress_into(&request, &mut body).map_err(|error| fail(error.to_string()))?;
        let request = self.client.request(Method::POST, &self.url).await;
        let request = request.map_err(|error| fail(error.to_string()))?;
        let sent = request
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Read-Version", "0.1.0")
            .body(body)
            .send();
        let response = tokio::time::timeout(TIMEOUT, sent).await;
        let response = response.map_err(|_| fail("no answer".to_owned()))?;
        let response = response.map_err(|error| fail(explain(&error.without_url())))?;
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_stream =
            kind.is_some_and(|kind| kind.starts_with("application/x-streamed-protobuf"));
        if !status.is_success() {
            let text = refusal(response).await;
            let why = format!("{}: answered {status}: {}", self.place, text.trim());
            let is_limit = text.contains("limit") || text.contains("too large");
            return Err(if is_limit || status.as_u16() == 413 || status.as_u16() == 422 {
                Refusal::TooMuch(why)
            } else {
                Refusal::Other(ImportError::Source(why))
            });
        }
        if is_stream {
            Ok(self.take_chunks(response, range, target, spool, counts).await?)
        } else {
            self.take_samples(response, target, spool, counts).await
        }
    }

    async fn take_chunks(
        &self,
        response: reqwest::Response,
        range: TimeRange,
        target: &Target<'_>,
        spool: &mut Spool<'_>,
        counts: &mut Counts,
    ) -> Result<(), ImportError> {
        let fail = |why: String| ImportError::Source(format!("{}: {why}", self.place));
        let mut frames = client::Frames::default();
        let mut stream = response.bytes_stream();
        let mut columns = Columns::default();
        loop {
            let piece = tokio::time::timeout(TIMEOUT, stream.next()).await;
            let Some(piece) = piece.map_err(|_| fail("no more of the answer".to_owned()))? else {
                return frames.finish().map_err(|error| fail(error.to_string()));
            };
            frames.push(&piece.map_err(|error| fail(explain(&error.without_url())))?);
            while let Some(frame) = frames.next().map_err(|error| fail(error.to_string()))? {
                let all = client::chunked_series(frame).map_err(|error| fail(error.to_string()))?;
                for series in all {
                    let labels = Labels::from_pairs(series.labels.iter().copied());
                    let Some(number) = stored(&labels, target, spool) else { continue };
                    for chunk in &series.chunks {
                        columns.clear();
                        chunk::decode(chunk.encoding, chunk.data, &mut columns)
                            .map_err(|damage| fail(format!("a chunk of {labels}: {damage}")))?;
                        rows::order(&mut columns);
                        rows::clip(&mut columns, range);
                        spool.columns(number, &columns);
                    }
                }
                if spool.is_full() {
                    spool.empty(counts)?;
                }
            }
        }
    }

    async fn take_samples(
        &self,
        response: reqwest::Response,
        target: &Target<'_>,
        spool: &mut Spool<'_>,
        counts: &mut Counts,
    ) -> Result<(), Refusal> {
        let fail = |why: String| ImportError::Source(format!("{}: {why}", self.place));
        let (mut body, mut answer) = (Vec::new(), Vec::new());
        let mut stream = response.bytes_stream();
        loop {
            let piece = tokio::time::timeout(TIMEOUT, stream.next()).await;
            let Some(piece) = piece.map_err(|_| fail("no more of the answer".to_owned()))? else {
                break;
            };
            body.extend_from_slice(&piece.map_err(|error| fail(explain(&error.without_url())))?);
            if body.len() > BODY_BYTES_MAX {
                return Err(Refusal::TooMuch(format!("{}: the answer is too large", self.place)));
            }
        }
        if let Err(error) = decompress_limited(&body, ANSWER_BYTES_MAX, &mut answer) {
            let why = format!("{}: {error}", self.place);
            let too_much = matches!(error, stint_wire::snappy::SnappyError::TooLarge { .. });
            return Err(if too_much {
                Refusal::TooMuch(why)
            } else {
                Refusal::Other(ImportError::Source(why))
            });
        }
        drop(body);
        for result in client::results(&answer) {
            let result = result.map_err(|error| fail(error.to_string()))?;
            for item in v1::decode(result) {
                let v1::Item::Series(series) = item.map_err(|error| fail(error.to_string()))?
                else {
                    continue;
                };
                let labels: Result<Vec<_>, _> = series.labels().collect();
                let labels = labels.map_err(|error| fail(error.to_string()))?;
                let Some(number) = stored(&Labels::from_pairs(labels), target, spool) else {
                    continue;
                };
                for sample in series.samples().chain(series.histograms()) {
                    let sample = sample.map_err(|error| fail(error.to_string()))?;
                    match sample.value {
                        Value::Float(value) => spool.float(number, sample.at, value),
                        Value::Histogram(histogram) => {
                            spool.histogram(number, sample.at, histogram);
                        }
                        Value::Stale => {
                            spool.float(number, sample.at, stint_model::sample::stale_nan());
                        }
                    }
                }
                if spool.is_full() {
                    spool.empty(counts)?;
                }
            }
        }
        Ok(())
    }
}

fn stored(labels: &Labels, target: &Target<'_>, spool: &mut Spool<'_>) -> Option<Number> {
    target.stored(labels).map(|labels| spool.number(&labels))
}

/// One query for each selector; without any, one for everything.
fn queries(target: &Target<'_>, range: TimeRange) -> Vec<Query> {
    let (start, end) = (range.start, range.end - Span(1));
    // Only expressions can be wrong.
    let named = Matcher::new(MatchOp::NotEqual, "__name__", "").ok();
    let everything = || vec![Selector::new(named.into_iter().collect())];
    let selectors =
        if target.selectors.is_empty() { everything() } else { target.selectors.clone() };
    let query = |selector: Selector| Query { start, end, matchers: selector.matchers };
    selectors.into_iter().map(query).collect()
}

/// What a server says that refuses.
async fn refusal(response: reqwest::Response) -> String {
    let mut text = Vec::new();
    let mut stream = response.bytes_stream();
    while let Ok(Some(Ok(piece))) = tokio::time::timeout(TIMEOUT, stream.next()).await {
        text.extend_from_slice(&piece);
        if text.len() >= REFUSAL_BYTES_MAX {
            text.truncate(REFUSAL_BYTES_MAX);
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_in_the_address_is_not_told() {
        let told = super::without_password("http://me:hunter2@h:9090/api/v1/read");
        assert_eq!(told, "http://me@h:9090/api/v1/read");
    }
}
