//! `POST /api/v1/read`: remote read, answered with samples or with a stream of chunks.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::IntGauge;
use stint_model::labels::{Labels, LabelsBuilder};
use stint_model::{
    Columns, Hints, MatchOp, Matcher, Queryable, Sample, Selector, TimeRange, Value,
};
use stint_promql::Cancel;
use stint_wire::remote_read::{Query, ReadRequest, ResponseEncoder, ResponseType};
use stint_wire::remote_write::v1;
use stint_wire::snappy::{DECOMPRESSED_BYTES_MAX, compress_into, decompress_limited};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::extract::{Ready, read_body};
use super::series::{PHASE, SERIES_BETWEEN_CHECKS};
use super::work::Counted;
use super::{Api, Parts};
use crate::metrics::{Metrics, int_gauge};

mod stream;

/// The largest response, uncompressed; a reader has to ask for less at once.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Limits of remote read, and who reads now.
#[derive(Debug)]
pub struct RemoteRead {
    samples_max: usize,
    frame_bytes_max: usize,
    slots: Option<Arc<Semaphore>>,
    running: IntGauge,
}

impl RemoteRead {
    /// `samples_max` for each query of an answer made of samples, `concurrent_max` requests at the
    /// same time (0 for no limit of either), `frame_bytes_max` for frames of chunks.
    pub fn new(
        samples_max: u64,
        concurrent_max: u32,
        frame_bytes_max: u64,
        metrics: &Metrics,
    ) -> Self {
        let unlimited = |limit: u64| usize::try_from(limit).ok().filter(|limit| *limit > 0);
        Self {
            samples_max: unlimited(samples_max).unwrap_or(usize::MAX),
            frame_bytes_max: usize::try_from(frame_bytes_max).unwrap_or(usize::MAX),
            slots: (concurrent_max > 0).then(|| Arc::new(Semaphore::new(concurrent_max as usize))),
            running: int_gauge(
                metrics.registry(),
                "prometheus_api_remote_read_queries",
                "Remote read requests that are being answered or waiting.",
            ),
        }
    }

    /// Waits for the turn of a request.
    async fn enter(&self) -> Turn {
        let counted = Counted::new(&self.running);
        let slot = match &self.slots {
            // An error would mean that it was closed, which nobody does.
            Some(slots) => Arc::clone(slots).acquire_owned().await.ok(),
            None => None,
        };
        Turn { _slot: slot, _counted: counted }
    }
}

/// A request's place among those that read.
struct Turn {
    _slot: Option<OwnedSemaphorePermit>,
    _counted: Counted,
}

/// What a reader gets and may get.
struct Reading {
    request: ReadRequest,
    external_labels: Labels,
    samples_max: usize,
}

/// Answers all queries of a request.
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    request: Request,
) -> Response {
    let body = match read_body(request.into_body(), DECOMPRESSED_BYTES_MAX, &api).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let request = match decode(&body) {
        Ok(request) => request,
        Err(cause) => return refuse(&cause),
    };
    let Some(kind) = request.response_type() else {
        let accepted = &request.accepted;
        return refuse(&format!("none of the response types {accepted:?} is known"));
    };
    let reading = Reading {
        request,
        external_labels: parts.config.read().global.external_labels.clone(),
        samples_max: parts.remote_read.samples_max,
    };
    let selected = reading.request.queries.iter();
    let selected: Vec<Selector> =
        selected.map(|query| Selector::new(query.matchers.clone())).collect();
    parts.selected(&selected, api.clock.now());
    let turn = parts.remote_read.enter().await;
    match kind {
        ResponseType::Samples => sampled(&parts, reading).await,
        ResponseType::StreamedChunks => stream::streamed(&api, &parts, reading, turn).await,
    }
}

fn refuse(cause: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{cause}\n")).into_response()
}

fn decode(body: &[u8]) -> Result<ReadRequest, String> {
    let mut message = Vec::new();
    decompress_limited(body, DECOMPRESSED_BYTES_MAX, &mut message)
        .map_err(|error| error.to_string())?;
    ReadRequest::decode(&message).map_err(|error| error.to_string())
}

async fn sampled(parts: &Parts, reading: Reading) -> Response {
    let store = Arc::clone(&parts.store);
    match parts.run(None, move |cancel| reading.answer(store.as_ref(), cancel)).await {
        Ok((body, _)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/x-protobuf"),
                (header::CONTENT_ENCODING, "snappy"),
            ];
            (headers, body).into_response()
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &ApiError) -> Response {
    (error.kind.status(), format!("{}\n", error.message)).into_response()
}

impl Reading {
    fn answer(&self, store: &dyn Queryable, cancel: &Cancel) -> Result<Vec<u8>, ApiError> {
        let mut response = ResponseEncoder::default();
        for query in &self.request.queries {
            self.result(query, store, cancel, &mut response)?;
        }
        let mut body = Vec::new();
        compress_into(response.body(), &mut body)
            .map_err(|error| ApiError::bad_data(error.to_string()))?;
        Ok(body)
    }

    fn result(
        &self,
        query: &Query,
        store: &dyn Queryable,
        cancel: &Cancel,
        response: &mut ResponseEncoder,
    ) -> Result<(), ApiError> {
        let range = TimeRange::closed(query.start, query.end);
        let set = store.querier(range)?.select(&self.selector(query), &Hints::default())?;
        let (mut result, mut columns, mut samples) = (v1::Encoder::new(), Columns::default(), 0);
        for index in 0..set.len() {
            if index % SERIES_BETWEEN_CHECKS == 0 {
                cancel.check(PHASE)?;
            }
            columns.clear();
            set.read(index, range, &mut columns)?;
            if columns.is_empty() {
                continue;
            }
            samples += columns.len();
            if samples > self.samples_max {
                let limit = self.samples_max;
                return Err(ApiError::bad_data(format!("exceeded sample limit ({limit})")));
            }
            push(&mut result, &self.with_external(&set.labels(index)), &columns);
            if result.body().len() + response.body().len() > RESPONSE_BYTES_MAX {
                let message = "the answer is too large; ask for fewer series or a shorter time";
                return Err(ApiError::bad_data(message));
            }
        }
        response.push(&result);
        Ok(())
    }

    fn selector(&self, query: &Query) -> Selector {
        let matchers = query.matchers.iter().map(|matcher| self.without_external(matcher));
        Selector::new(matchers.collect())
    }

    /// Stored series have no external labels: to demand one's value is to demand its absence.
    fn without_external(&self, matcher: &Matcher) -> Matcher {
        let external = self.external_labels.get(matcher.name());
        if matcher.op() == MatchOp::Equal && external == Some(matcher.value()) {
            Matcher::equal(matcher.name(), "")
        } else {
            matcher.clone()
        }
    }

    fn with_external(&self, labels: &Labels) -> Labels {
        if self.external_labels.is_empty() {
            return labels.clone();
        }
        let mut joined: LabelsBuilder = labels.to_builder();
        for (name, value) in &self.external_labels {
            if labels.get(name).is_none() {
                joined.set(name, value);
            }
        }
        joined.build()
    }
}

fn push(result: &mut v1::Encoder, labels: &Labels, columns: &Columns) {
    let mut series = result.series(labels);
    let mut histograms = columns.histograms.iter().peekable();
    for (row, (at, value)) in columns.times.iter().zip(&columns.values).enumerate() {
        match histograms.next_if(|(of, _)| *of == row) {
            Some((_, histogram)) => {
                let value = Value::Histogram(Arc::clone(histogram));
                series.sample(&Sample { at: *at, started: None, value });
            }
            None => {
                series.float(*at, *value);
            }
        }
    }
}
