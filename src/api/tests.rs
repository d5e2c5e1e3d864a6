use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use stint_model::clock::SimClock;
use tower::ServiceExt as _;

use super::*;

fn options() -> Options {
    Options {
        otlp: false,
        notification_watchers_max: 16,
        remote_write_messages: Vec::new(),
        lifecycle: true,
        admin: false,
        cors_origin: None,
        read_timeout: Span::MINUTE,
        route_prefix: String::new(),
        link_prefix: String::new(),
        external_url: "http://localhost:9090".into(),
        listen_port: 9090,
    }
}

fn api(options: Options) -> (Arc<Api>, mpsc::Receiver<Reload>) {
    Api::new(options, Arc::new(SimClock::at(Timestamp(1_000))), Metrics::new())
}

async fn send(api: &Arc<Api>, method: Method, path: &str) -> Response {
    let request = Request::builder().method(method).uri(path).header(header::ORIGIN, "http://x.y");
    router(api).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name).map(|value| value.to_str().unwrap());
    value.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_starting_server_is_healthy_but_not_ready() {
    let (api, _orders) = api(options());
    let healthy = send(&api, Method::GET, "/-/healthy").await;
    assert_eq!(text(healthy).await, "Prometheus Server is Healthy.\n");
    let ready = send(&api, Method::GET, "/-/ready").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&ready, "x-prometheus-stopping"), "false");
    assert_eq!(text(ready).await, "Service Unavailable");
    api.set_stopping();
    let stopping = send(&api, Method::GET, "/-/ready").await;
    assert_eq!(header(&stopping, "x-prometheus-stopping"), "true");
}

#[tokio::test]
async fn what_is_not_there_says_so_in_gos_words() {
    let (api, _orders) = api(options());
    let response = send(&api, Method::GET, "/api/v1/nothing").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(text(response).await, "404 page not found\n");
    let wrong_method = send(&api, Method::DELETE, "/-/healthy").await;
    assert_eq!(wrong_method.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(header(&wrong_method, "allow").contains("GET"));
}

#[tokio::test]
async fn browsers_may_ask_from_everywhere_by_default() {
    let (api, _orders) = api(options());
    let response = send(&api, Method::OPTIONS, "/api/v1/query").await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    assert_eq!(header(&response, "access-control-allow-methods"), "GET, POST, OPTIONS");
    assert_eq!(header(&response, "vary"), "Origin");
}

#[tokio::test]
async fn browsers_may_be_held_off() {
    let pattern = |text| stint_model::matcher::anchored_regex(text).unwrap();
    let strict = |text| Options { cors_origin: Some(pattern(text)), ..options() };
    let (open, _orders) = api(strict("http://x.*"));
    let response = send(&open, Method::OPTIONS, "/api/v1/query").await;
    assert_eq!(header(&response, "access-control-allow-origin"), "http://x.y");
    let (closed, _orders) = api(strict("http://x"));
    let response = send(&closed, Method::OPTIONS, "/api/v1/query").await;
    assert_eq!(header(&response, "access-control-allow-origin"), "");
}

#[tokio::test]
async fn lifecycle_requests_need_permission_and_the_right_method() {
    let (closed, _orders) = api(Options { lifecycle: false, ..options() });
    let refused = send(&closed, Method::POST, "/-/quit").await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(text(refused).await, "Lifecycle API is not enabled.");
    let (open, _orders) = api(options());
    let wrong = send(&open, Method::GET, "/-/reload").await;
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(text(wrong).await, "Only POST or PUT requests allowed");
    let quit = send(&open, Method::PUT, "/-/quit").await;
    assert_eq!(text(quit).await, "Requesting termination... Goodbye!");
    open.quit_asked().await;
    let again = send(&open, Method::PUT, "/-/quit").await;
    assert_eq!(text(again).await, "Termination already in progress.");
}

#[tokio::test]
async fn a_failed_reload_tells_the_client_why() {
    let (api, mut orders) = api(options());
    let server = tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            let Reload(done) = order;
            done.send(Err("prometheus.yml:3: unknown key".into())).unwrap();
        }
    });
    let response = send(&api, Method::POST, "/-/reload").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let expected = "failed to reload config: prometheus.yml:3: unknown key";
    assert_eq!(text(response).await, expected);
    drop(api);
    server.await.unwrap();
}

#[tokio::test]
async fn everything_moves_under_the_prefix() {
    let (api, _orders) = api(Options { route_prefix: "/prom".into(), ..options() });
    let home = send(&api, Method::GET, "/").await;
    assert_eq!((home.status(), header(&home, "location")), (StatusCode::FOUND, "/prom/".into()));
    assert_eq!(send(&api, Method::GET, "/prom").await.status(), StatusCode::OK);
    assert_eq!(send(&api, Method::GET, "/prom/-/healthy").await.status(), StatusCode::OK);
    assert_eq!(send(&api, Method::GET, "/-/healthy").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(send(&api, Method::GET, "/prometheus").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn requests_are_counted_by_handler_and_code() {
    let (api, _orders) = api(options());
    send(&api, Method::GET, "/-/ready").await;
    send(&api, Method::GET, "/elsewhere").await;
    let metrics = text(send(&api, Method::GET, "/metrics").await).await;
    for line in [
        "prometheus_http_requests_total{code=\"503\",handler=\"/-/ready\"} 1\n",
        "prometheus_http_requests_total{code=\"404\",handler=\"not_found\"} 1\n",
        "prometheus_http_request_duration_seconds_count{handler=\"/-/ready\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn the_version_is_the_one_whose_api_is_spoken() {
    let (api, _orders) = api(options());
    let version = text(send(&api, Method::GET, "/version").await).await;
    let version: serde_json::Value = serde_json::from_str(&version).unwrap();
    assert_eq!(version["version"], "3.14.0");
    assert!(version.get("features").is_none(), "a key by which clients recognise Mimir");
}

#[tokio::test]
async fn a_body_is_read_as_far_as_there_is_room_for_it() {
    let (api, _reloads) = api(options());
    let read = async |bytes_max: usize, room: usize| {
        let pieces = ["abc", "def"].map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let mut left = room;
        let take = |bytes| {
            left = usize::checked_sub(left, bytes).ok_or("full")?;
            Ok(())
        };
        extract::read_body_within(body, bytes_max, &api, take).await.map_err(|no| no.status())
    };
    assert_eq!(read(6, 6).await, Ok(Ok("abcdef".into())));
    assert_eq!(read(6, 5).await, Ok(Err("full")));
    assert_eq!(read(5, 6).await, Err(StatusCode::BAD_REQUEST));
}
