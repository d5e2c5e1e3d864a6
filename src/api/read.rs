//! `POST /api/v1/read`: remote read, answered with samples.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use stint_model::labels::{Labels, LabelsBuilder};
use stint_model::{
    Columns, Hints, MatchOp, Matcher, Queryable, Sample, Selector, TimeRange, Value,
};
use stint_promql::Cancel;
use stint_wire::remote_read::{Query, ReadRequest, ResponseEncoder};
use stint_wire::remote_write::v1;
use stint_wire::snappy::{DECOMPRESSED_BYTES_MAX, compress_into, decompress_limited};

use super::Api;
use super::error::ApiError;
use super::extract::{Ready, read_body};
use super::series::{PHASE, SERIES_BETWEEN_CHECKS};

/// The largest response, uncompressed; a reader has to ask for less at once.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

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
    let refuse = |cause: String| (StatusCode::BAD_REQUEST, format!("{cause}\n")).into_response();
    let mut message = Vec::new();
    if let Err(error) = decompress_limited(&body, DECOMPRESSED_BYTES_MAX, &mut message) {
        return refuse(error.to_string());
    }
    let request = match ReadRequest::decode(&message) {
        Ok(request) => request,
        Err(error) => return refuse(error.to_string()),
    };
    if !request.takes_samples() {
        return refuse("only answers made of samples are supported; accept SAMPLES too".into());
    }
    let reading = Reading {
        request,
        external_labels: parts.config.read().global.external_labels.clone(),
        samples_max: parts.engine.options().samples_max,
    };
    let selected = reading.request.queries.iter();
    let selected: Vec<Selector> =
        selected.map(|query| Selector::new(query.matchers.clone())).collect();
    parts.selected(&selected, api.clock.now());
    let store = Arc::clone(&parts.store);
    match parts.run(None, move |cancel| reading.answer(store.as_ref(), cancel)).await {
        Ok((body, _)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/x-protobuf"),
                (header::CONTENT_ENCODING, "snappy"),
            ];
            (headers, body).into_response()
        }
        Err(error) => (error.kind.status(), format!("{}\n", error.message)).into_response(),
    }
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
        let matchers = query.matchers.iter().map(|matcher| self.without_external(matcher));
        let selector = Selector::new(matchers.collect());
        let set = store.querier(range)?.select(&selector, &Hints::default())?;
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
