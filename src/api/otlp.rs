//! OTLP metrics over HTTP and gRPC: the transport around [`OtlpReceiver`].
//!
//! A gRPC call here is one request and one answer, each a message with a prefix of five bytes, and
//! a status in the trailers (`PROTOCOL-HTTP2` of gRPC); that little is done on top of the HTTP/2
//! library, so that the room for a message is taken before it is read.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use stint_wire::otlp::answer::{self, Code, Encoding};

use super::extract::{Ready, read_body_within};
use super::{Api, Parts, Phase};
use crate::receive::otlp::compression::{self, Compression};
use crate::receive::otlp::{Answer, Content, MESSAGE_BYTES_MAX, OtlpReceiver};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const GRPC: &str = "application/grpc";
/// Bytes before a message in a gRPC call: whether it is compressed, and its length.
const GRPC_PREFIX_BYTES: usize = 5;

/// What is served on a port of its own over HTTP.
pub fn http_router(api: &Arc<Api>) -> Router {
    Router::new().route("/v1/metrics", post(own_port)).with_state(Arc::clone(api))
}

/// What is served on a port of its own over gRPC.
pub fn grpc_router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", post(export))
        .fallback(unknown_method)
        .with_state(Arc::clone(api))
}

/// `POST /api/v1/otlp/v1/metrics`, where Prometheus has it.
pub(super) async fn beside(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    request: Request,
) -> Response {
    if !api.options.otlp {
        let text = "otlp write receiver needs to be enabled with --web.enable-otlp-receiver";
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    receive(&api, &parts, request).await
}

async fn own_port(State(api): State<Arc<Api>>, Ready(parts): Ready, request: Request) -> Response {
    receive(&api, &parts, request).await
}

async fn receive(api: &Api, parts: &Parts, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let content = match content(&head.headers) {
        Ok(content) => content,
        Err(message) => return (StatusCode::BAD_REQUEST, message).into_response(),
    };
    let receiver = Arc::clone(&parts.otlp);
    match answer_to(api, receiver, content, body, 0).await {
        Ok(answer) => http_answer(&answer, content.encoding),
        Err(refusal) => refusal,
    }
}

/// Reads a body and stores what it holds behind its first `skipped` bytes. An error is the answer
/// to a body that cannot be read.
async fn answer_to(
    api: &Api,
    receiver: Arc<OtlpReceiver>,
    content: Content,
    body: Body,
    skipped: usize,
) -> Result<Answer, Response> {
    let mut held = receiver.enter();
    let most = MESSAGE_BYTES_MAX + skipped;
    let body = match read_body_within(body, most, api, |bytes| held.grow(bytes)).await? {
        Ok(body) => body,
        Err(full) => return Ok(receiver.count(Answer::later(&full))),
    };
    let message = match message_in(&body, skipped) {
        Ok(message) => message,
        Err(message) => {
            let refused = Answer::Refused { code: Code::InvalidArgument, message };
            return Ok(receiver.count(refused));
        }
    };
    let content = match message {
        (_, false) => Content { compression: Compression::Identity, ..content },
        (_, true) => content,
    };
    let bytes = message.0;
    let stored = tokio::task::spawn_blocking(move || receiver.receive(content, &bytes, held));
    Ok(stored.await.unwrap_or_else(|error| Answer::Refused {
        code: Code::Internal,
        message: format!("storing the request ended unexpectedly: {error}"),
    }))
}

/// The message in a body, and whether it may be compressed: all of the body over HTTP, what is
/// behind the prefix over gRPC.
fn message_in(body: &Bytes, skipped: usize) -> Result<(Bytes, bool), String> {
    if skipped == 0 {
        return Ok((body.clone(), true));
    }
    let Some((prefix, message)) = body.split_first_chunk::<GRPC_PREFIX_BYTES>() else {
        return Err(format!("a call of {} bytes is too short for its prefix", body.len()));
    };
    let [compressed, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if length != message.len() {
        let found = message.len();
        return Err(format!("the call announces a message of {length} bytes and has {found}"));
    }
    Ok((body.slice(GRPC_PREFIX_BYTES..), compressed != 0))
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn content(headers: &HeaderMap) -> Result<Content, String> {
    let kind = text(headers, &header::CONTENT_TYPE);
    let encoding = match kind.split(';').next().unwrap_or_default().trim() {
        PROTOBUF => Encoding::Protobuf,
        JSON => Encoding::Json,
        _ => {
            let known = format!("[{JSON}, {PROTOBUF}]");
            return Err(format!("unsupported content type: {kind}, supported: {known}"));
        }
    };
    let name = text(headers, &header::CONTENT_ENCODING);
    let Some(compression) = Compression::of(name) else {
        let known = compression::NAMES;
        return Err(format!("unsupported compression: {name}, supported: [{known}]"));
    };
    Ok(Content { encoding, compression })
}

fn http_answer(answer: &Answer, encoding: Encoding) -> Response {
    let (status, body) = match answer {
        Answer::Stored(partial) => (StatusCode::OK, answer::success(partial.as_ref(), encoding)),
        Answer::Refused { code, message } => {
            let status = match code {
                Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
                Code::Internal | Code::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
                Code::InvalidArgument | Code::Unimplemented => StatusCode::BAD_REQUEST,
            };
            (status, answer::status(*code, message, None, encoding))
        }
        Answer::Later { message, seconds } => {
            let body = answer::status(Code::Unavailable, message, Some(*seconds), encoding);
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    let kind = match encoding {
        Encoding::Protobuf => PROTOBUF,
        Encoding::Json => JSON,
    };
    let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
    if let Answer::Later { seconds, .. } = answer {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    response
}

/// `MetricsService/Export`.
async fn export(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !text(&head.headers, &header::CONTENT_TYPE).starts_with(GRPC) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let name = text(&head.headers, &HeaderName::from_static("grpc-encoding"));
    let Some(compression) = Compression::of(name) else {
        let known = compression::NAMES;
        let message = format!("unsupported compression: {name}, supported: {known}");
        let refused = Answer::Refused { code: Code::Unimplemented, message };
        return grpc_answer(&refused);
    };
    let (Phase::Ready, Some(parts)) = (api.phase(), api.parts()) else {
        return grpc_answer(&Answer::later(&"the server is starting or stopping"));
    };
    let content = Content { encoding: Encoding::Protobuf, compression };
    let receiver = Arc::clone(&parts.otlp);
    match answer_to(&api, receiver, content, body, GRPC_PREFIX_BYTES).await {
        Ok(answer) => grpc_answer(&answer),
        Err(refusal) => {
            let code = match refusal.status() {
                StatusCode::REQUEST_TIMEOUT => Code::Unavailable,
                _ => Code::ResourceExhausted,
            };
            let message = format!("the body cannot be read, or is longer than {MESSAGE_BYTES_MAX}");
            grpc_answer(&Answer::Refused { code, message })
        }
    }
}

async fn unknown_method(request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("there is no method {path}; metrics are all that is received");
    grpc_answer(&Answer::Refused { code: Code::Unimplemented, message })
}

fn grpc_answer(answer: &Answer) -> Response {
    let kind = HeaderValue::from_static(GRPC);
    let (code, message, seconds) = match answer {
        Answer::Stored(partial) => {
            let message = answer::success(partial.as_ref(), Encoding::Protobuf);
            let mut framed = vec![0];
            framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
            framed.extend_from_slice(&message);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = http_body_util::Full::new(Bytes::from(framed))
                .with_trailers(async move { Some(Ok(trailers)) });
            let mut response = Response::new(Body::new(body));
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return response;
        }
        Answer::Refused { code, message } => (*code, message, None),
        Answer::Later { message, seconds } => (Code::Unavailable, message, Some(*seconds)),
    };
    // Without a message, the status stands among the headers.
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert("grpc-status", HeaderValue::from(u16::from(code as u8)));
    let details = answer::status(code, message, seconds, Encoding::Protobuf);
    for (name, value) in [
        ("grpc-message", percent_encoded(message)),
        ("grpc-status-details-bin", STANDARD_NO_PAD.encode(details)),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// A message as a header has it: what is not printable ASCII, and the percent sign, escaped.
fn percent_encoded(message: &str) -> String {
    message.bytes().fold(String::with_capacity(message.len()), |mut out, byte| {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_taken_apart() {
        let call = Bytes::from_static(b"\x01\x00\x00\x00\x02ab");
        assert_eq!(message_in(&call, 5), Ok((Bytes::from_static(b"ab"), true)));
        assert_eq!(message_in(&call, 0), Ok((call.clone(), true)));
        assert!(message_in(&call.slice(..6), 5).is_err());
        assert!(message_in(&call.slice(..3), 5).is_err());
    }

    #[test]
    fn content_is_what_headers_say() {
        let headers = |kind: &'static str, encoding: &'static str| {
            HeaderMap::from_iter([
                (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
                (header::CONTENT_ENCODING, HeaderValue::from_static(encoding)),
            ])
        };
        let json = Content { encoding: Encoding::Json, compression: Compression::Zstd };
        assert_eq!(content(&headers("application/json; charset=utf-8", "zstd")), Ok(json));
        let error = content(&headers("text/plain", "")).unwrap_err();
        assert_eq!(
            error,
            "unsupported content type: text/plain, supported: [application/json, \
             application/x-protobuf]"
        );
        assert!(content(&headers(PROTOBUF, "br")).unwrap_err().contains("br, supported: [gzip"));
    }

    #[test]
    fn who_may_send_again_is_told_when() {
        let later = Answer::later(&"full");
        let response = http_answer(&later, Encoding::Json);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        let response = grpc_answer(&later);
        assert_eq!(
            (response.status(), &response.headers()["grpc-status"]),
            (StatusCode::OK, &HeaderValue::from(14))
        );
        assert!(response.headers().contains_key("grpc-status-details-bin"));
        assert_eq!(percent_encoded("50 % ö"), "50 %25 %C3%B6");
    }
}
