//! What handlers take from a request: parameters, and the parts of a running server.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::request::Parts as RequestParts;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use super::params::Params;
use super::{Api, Parts, Phase};

/// Largest form body, as in Go's standard library.
const FORM_BYTES_MAX: usize = 10 << 20;

impl FromRequest<Arc<Api>> for Params {
    type Rejection = Response;

    /// Merges the body of a form with the URL's query. A body of another type is left alone, since
    /// clients send empty ones with all sorts of types.
    async fn from_request(request: Request<Body>, api: &Arc<Api>) -> Result<Self, Response> {
        let query = request.uri().query().map(str::to_owned);
        let has_form = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH)
            && is_form(&request);
        let body = if has_form {
            read_body(request.into_body(), FORM_BYTES_MAX, api).await?
        } else {
            Bytes::new()
        };
        Self::parse(&body, query.as_deref()).map_err(IntoResponse::into_response)
    }
}

fn is_form(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Reads a whole body of at most `bytes_max` within the time that clients have.
///
/// # Errors
/// The answer to give: 408 for a slow client, 400 for a broken or too large body.
pub async fn read_body(body: Body, bytes_max: usize, api: &Api) -> Result<Bytes, Response> {
    match read_body_within(body, bytes_max, api, |_| Ok::<(), Infallible>(())).await? {
        Ok(body) => Ok(body),
        Err(never) => match never {},
    }
}

/// The same for a body whose bytes need room, for which `take` is asked as they come. The inner
/// error is that of `take`.
///
/// # Errors
/// As [`read_body`].
pub async fn read_body_within<E>(
    body: Body,
    bytes_max: usize,
    api: &Api,
    mut take: impl FnMut(usize) -> Result<(), E>,
) -> Result<Result<Bytes, E>, Response> {
    let bad = |cause: &dyn Display| {
        let message = format!("cannot read the body (at most {bytes_max} bytes): {cause}");
        (StatusCode::BAD_REQUEST, message).into_response()
    };
    let read = async {
        let mut whole = BytesMut::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| bad(&error))?;
            if piece.len() > bytes_max - whole.len() {
                return Err(bad(&"it is longer"));
            }
            if let Err(refused) = take(piece.len()) {
                return Ok(Err(refused));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Ok(whole.freeze()))
    };
    let patience = api.options.read_timeout.to_std();
    match tokio::time::timeout(patience, read).await {
        Ok(outcome) => outcome,
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long").into_response()),
    }
}

/// Holds while the server answers requests; the request is refused with 503 before and after.
#[derive(Clone, Copy, Debug)]
pub struct Gate;

impl FromRequestParts<Arc<Api>> for Gate {
    type Rejection = Response;

    async fn from_request_parts(
        _request: &mut RequestParts,
        api: &Arc<Api>,
    ) -> Result<Self, Response> {
        match api.phase() {
            Phase::Ready => Ok(Self),
            Phase::Starting => Err(unavailable("false")),
            Phase::Stopping => Err(unavailable("true")),
        }
    }
}

/// The answer of a server that is not ready.
pub fn unavailable(stopping: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [("X-Prometheus-Stopping", stopping)], "Service Unavailable")
        .into_response()
}

/// The parts of a running server. The request is refused with 503 while there is none.
pub struct Ready(pub Arc<Parts>);

impl FromRequestParts<Arc<Api>> for Ready {
    type Rejection = Response;

    async fn from_request_parts(
        request: &mut RequestParts,
        api: &Arc<Api>,
    ) -> Result<Self, Response> {
        Gate::from_request_parts(request, api).await?;
        api.parts().map(Self).ok_or_else(|| unavailable("false"))
    }
}
