//! What happens around every request: cross-origin headers, metrics, the route prefix.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::pack::{Coding, pack_response};
use super::{Api, web};

/// Where the API begins; cross-origin requests are answered there only.
const API_PATH: &str = "/api/v1/";

/// Adds cross-origin headers, packs the answer and counts the request.
pub async fn observe(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let started = api.clock.monotonic();
    let handler = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "not_found".to_owned(), |path| path.as_str().replace("{name}", ":name"));
    let is_api = request.uri().path().starts_with(API_PATH);
    let wanted = Coding::wanted(request.headers());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if is_api && request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        pack_response(&api, wanted, next.run(request).await).await
    };
    if is_api {
        allow_origin(&api, origin.as_ref(), response.headers_mut());
    }
    let seconds = api.clock.monotonic().saturating_sub(started).as_secs_f64();
    let code = response.status();
    api.metrics.http_requests.with_label_values(&[handler.as_str(), code.as_str()]).inc();
    api.metrics.http_duration.with_label_values(&[handler.as_str()]).observe(seconds);
    if let Some(bytes) = response.body().size_hint().exact() {
        let size = api.metrics.http_response_size.with_label_values(&[handler.as_str()]);
        size.observe(bytes as f64);
    }
    response
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
