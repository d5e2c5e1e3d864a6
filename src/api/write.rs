//! `POST /api/v1/write`: the HTTP side of the remote write receiver.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use stint_wire::remote_write::{
    EXEMPLARS_WRITTEN_HEADER, HISTOGRAMS_WRITTEN_HEADER, SAMPLES_WRITTEN_HEADER, Version,
};

use super::Api;
use super::extract::{Ready, read_body_within};
use crate::receive::in_flight::RETRY_AFTER_SECONDS;
use crate::receive::remote_write::{Answer, BODY_BYTES_MAX};

/// Stores what a sender sends.
pub(super) async fn write(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    request: Request,
) -> Response {
    let Some(receiver) = parts.receiver.clone() else {
        let text = "remote write receiver needs to be enabled with \
                    --web.enable-remote-write-receiver";
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let (head, body): (_, Body) = request.into_parts();
    let kind = text_of(&head.headers, &header::CONTENT_TYPE);
    if let Ok(version) = Version::from_content_type(&kind) {
        let (name, accepted) = (message_name(version), &api.options.remote_write_messages);
        if !accepted.iter().any(|accepted| accepted == name) {
            let text = format!("{name} is not accepted by this server, which takes {accepted:?}");
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
        }
    }
    let mut held = receiver.enter();
    let body = match read_body_within(body, BODY_BYTES_MAX, &api, |bytes| held.grow(bytes)).await {
        Ok(Ok(body)) => body,
        Ok(Err(full)) => return respond(receiver.refuse(full)),
        Err(refusal) => return refusal,
    };
    let encoding = text_of(&head.headers, &header::CONTENT_ENCODING);
    let answer =
        tokio::task::spawn_blocking(move || receiver.receive(&kind, &encoding, &body, held));
    match answer.await {
        Ok(answer) => respond(answer),
        Err(error) => {
            let text = format!("storing the request ended unexpectedly: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

/// As the flag calls it.
const fn message_name(version: Version) -> &'static str {
    match version {
        Version::V1 => "prometheus.WriteRequest",
        Version::V2 => "io.prometheus.write.v2.Request",
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
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = HeaderValue::from(RETRY_AFTER_SECONDS);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_send_again_is_told_when() {
        let answer = |status| respond(Answer { status, text: String::new(), written: None });
        assert_eq!(answer(503).headers()[header::RETRY_AFTER], "5");
        assert!(answer(400).headers().get(header::RETRY_AFTER).is_none());
    }
}
