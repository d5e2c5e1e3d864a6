//! `POST /api/v1/write`: the HTTP side of the remote write receiver.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use stint_wire::remote_write::{
    EXEMPLARS_WRITTEN_HEADER, HISTOGRAMS_WRITTEN_HEADER, SAMPLES_WRITTEN_HEADER,
};

use super::Api;
use super::extract::{Ready, read_body};
use crate::receive::remote_write::{Answer, BODY_BYTES_MAX};

/// Stores what a sender sends.
pub(super) async fn write(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    request: Request,
) -> Response {
    if parts.receiver.is_none() {
        let text = "remote write receiver needs to be enabled with \
                    --web.enable-remote-write-receiver";
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    let (head, body): (_, Body) = request.into_parts();
    let body = match read_body(body, BODY_BYTES_MAX, &api).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let kind = text_of(&head.headers, &header::CONTENT_TYPE);
    let encoding = text_of(&head.headers, &header::CONTENT_ENCODING);
    let answer = tokio::task::spawn_blocking(move || {
        parts.receiver.as_ref().map(|receiver| receiver.receive(&kind, &encoding, &body))
    });
    match answer.await {
        Ok(Some(answer)) => respond(answer),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            let text = format!("storing the request ended unexpectedly: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = if answer.text.is_empty() {
        status.into_response()
    } else {
        (status, answer.text).into_response()
    };
    if let Some(written) = answer.written {
        for (name, count) in [
            (SAMPLES_WRITTEN_HEADER, written.samples),
            (HISTOGRAMS_WRITTEN_HEADER, written.histograms),
            (EXEMPLARS_WRITTEN_HEADER, written.exemplars),
        ] {
            if let Ok(name) = name.parse::<HeaderName>() {
                response.headers_mut().insert(name, HeaderValue::from(count));
            }
        }
    }
    response
}
