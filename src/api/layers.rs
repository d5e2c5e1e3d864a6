//! What happens around every request: compression, cross-origin headers, metrics, the route prefix.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Api, gzip, web};

/// What nearly all answers of the API are.
const JSON: &str = "application/json";
/// Where the API begins; cross-origin requests are answered there only.
const API_PATH: &str = "/api/v1/";

/// Answers smaller than this are sent as they are: compressing costs more than it saves.
const COMPRESSED_BYTES_MIN: u64 = 1024;
/// What is larger is compressed off the async threads.
const COMPRESSED_AT_ONCE_MAX: usize = 512 << 10;

/// Compresses the answer, adds cross-origin headers, and counts the request.
pub async fn around(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let started = api.clock.monotonic();
    let handler = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "not_found".to_owned(), |path| path.as_str().replace("{name}", ":name"));
    let is_api = request.uri().path().starts_with(API_PATH);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let takes_gzip = takes_gzip(request.headers());
    let mut response = if is_api && request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let bytes = response.body().size_hint().exact();
    if is_compressible(&response) {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if takes_gzip {
            response = compressed(response).await;
        }
    }
    if is_api {
        allow_origin(&api, origin.as_ref(), response.headers_mut());
    }
    let seconds = api.clock.monotonic().saturating_sub(started).as_secs_f64();
    let code = response.status();
    api.metrics.http_requests.with_label_values(&[handler.as_str(), code.as_str()]).inc();
    api.metrics.http_duration.with_label_values(&[handler.as_str()]).observe(seconds);
    if let Some(bytes) = bytes {
        let size = api.metrics.http_response_size.with_label_values(&[handler.as_str()]);
        size.observe(bytes as f64);
    }
    response
}

/// Whether a client says that it takes gzip. Where it names an encoding twice, the last one counts.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
    let (mut named, mut any) = (None, None);
    for part in texts.flat_map(|text| text.split(',')) {
        let (name, parameters) = part.split_once(';').unwrap_or((part, ""));
        let weight = parameters.trim().strip_prefix("q=").map(str::parse::<f32>);
        let is_taken = !matches!(weight, Some(Ok(0.0)));
        match name.trim() {
            "gzip" | "x-gzip" => named = Some(is_taken),
            "*" => any = Some(is_taken),
            _ => {}
        }
    }
    named.or(any).unwrap_or(false)
}

/// Whether an answer is whole, large enough, and not compressed already. What comes piece by piece is
/// for readers that want each of them at once.
fn is_compressible(response: &Response) -> bool {
    let headers = response.headers();
    response.body().size_hint().exact().is_some_and(|bytes| bytes >= COMPRESSED_BYTES_MIN)
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// The answer as gzip.
async fn compressed(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let is_json = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == JSON);
    let Ok(text) = axum::body::to_bytes(body, usize::MAX).await else {
        // A body that is in memory as a whole cannot fail.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let compress = if is_json { gzip::compress } else { gzip::compress_any };
    let compressed = if text.len() <= COMPRESSED_AT_ONCE_MAX {
        Some(compress(&text))
    } else {
        let text = text.clone();
        tokio::task::spawn_blocking(move || compress(&text)).await.ok()
    };
    let Some(compressed) = compressed else {
        // The runtime stops; what there is may still arrive.
        return Response::from_parts(head, Body::from(text));
    };
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(head, Body::from(compressed))
}

/// Tells the browser whether the page at `origin` may read the answer.
fn allow_origin(api: &Api, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    let allowed = match &api.options.cors_origin {
        None => HeaderValue::from_static("*"),
        Some(pattern) if origin.to_str().is_ok_and(|origin| pattern.is_match(origin)) => {
            origin.clone()
        }
        Some(_) => return,
    };
    let fixed: [(HeaderName, &'static str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
}

/// Serves `inner` under `prefix` (no slash at the end; empty for none).
pub fn under_prefix(prefix: &str, inner: Router) -> Router {
    if prefix.is_empty() {
        return inner;
    }
    let prefix: Arc<str> = Arc::from(prefix);
    Router::new().fallback(move |request: Request| {
        let inner = inner.clone();
        let prefix = Arc::clone(&prefix);
        async move { enter(&prefix, inner, request).await }
    })
}

async fn enter(prefix: &str, inner: Router, mut request: Request) -> Response<Body> {
    let path = request.uri().path();
    if path == "/" {
        return (StatusCode::FOUND, [(header::LOCATION, format!("{prefix}/"))]).into_response();
    }
    let rest = path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some(rest) = rest else { return web::not_found().await };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if rest.is_empty() { "/" } else { rest };
    let Ok(shorter) = format!("{path}{query}").parse::<PathAndQuery>() else {
        return web::not_found().await;
    };
    *request.uri_mut() = Uri::from(shorter);
    let Ok(response) = tower::ServiceExt::oneshot(inner, request).await;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &[&'static str], taken: bool) {
        let mut headers = HeaderMap::new();
        for text in accept {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
        }
        assert_eq!(takes_gzip(&headers), taken, "{accept:?}");
    }

    #[test]
    fn clients_say_what_they_take() {
        check(&[], false);
        check(&["gzip"], true);
        check(&["deflate, gzip, br, zstd"], true);
        check(&["br", "gzip;q=0.5"], true);
        check(&["gzip; q=0"], false);
        check(&["*"], true);
        check(&["*;q=1, gzip;q=0"], false);
        check(&["identity"], false);
    }
}
