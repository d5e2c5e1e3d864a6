//! What the account behind an endpoint says of itself, asked over HTTP.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use crate::support::{TestDir, TestServer};

const FLAGS: &[&str] = &["--web.enable-remote-write-receiver", "--web.enable-lifecycle"];
const CONFIG: &str = "remote_write: [{url: 'http://127.0.0.1:9/', name: cloud}]\n";
/// As `curl -u 77:secret` has it.
const BASIC: &str = "Basic Nzc6c2VjcmV0";

/// How the account answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    /// It knows nothing of what is asked.
    Empty,
    Answers(u16, &'static str),
    TooMuch,
    Never,
}

/// The account's APIs.
struct Account {
    mood: Mutex<Mood>,
    /// Included series, enforced limit, active series.
    numbers: Mutex<[u64; 3]>,
    asked: Mutex<Vec<String>>,
}

impl Account {
    fn new() -> Arc<Self> {
        let (mood, numbers) = (Mutex::new(Mood::Well), Mutex::new([10_000, 15_000, 4_000]));
        Arc::new(Self { mood, numbers, asked: Mutex::default() })
    }

    async fn serve(self: &Arc<Self>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new()
            .route("/usage/api/v1/query", get(Self::query))
            .route("/prom/api/v1/cardinality/label_values", get(Self::cardinality))
            .route("/prom/api/v1/cardinality/active_series", get(Self::active_series))
            .with_state(Arc::clone(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// What it answers whatever is asked; nothing where it is well.
    async fn moody(&self, headers: &HeaderMap, expected: &str) -> Option<Response> {
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        if authorization != Some(expected) {
            return Some((StatusCode::UNAUTHORIZED, "invalid token").into_response());
        }
        let mood = *self.mood.lock();
        match mood {
            Mood::Well | Mood::Empty => None,
            Mood::Answers(status, text) => {
                Some((StatusCode::from_u16(status).unwrap(), text).into_response())
            }
            Mood::TooMuch => Some("x".repeat(2 << 20).into_response()),
            Mood::Never => std::future::pending().await,
        }
    }

    async fn query(
        State(own): State<Arc<Self>>,
        headers: HeaderMap,
        Query(params): Query<Vec<(String, String)>>,
    ) -> Response {
        let expr = params.iter().find(|(name, _)| name == "query").unwrap().1.clone();
        own.asked.lock().push(expr.clone());
        if let Some(answer) = own.moody(&headers, "Bearer viewer").await {
            return answer;
        }
        let [included, enforced, active] = *own.numbers.lock();
        let value = [
            ("instance_active_series{id=\"123\"}", active),
            ("limit_name=\"max_global_series_per_user\",id=\"123\"", enforced),
            ("included_series", included),
            ("included_dpm_per_series", 1),
        ];
        let value = value.iter().find(|(part, _)| expr.contains(part)).map(|(_, value)| *value);
        let result = match value.filter(|_| *own.mood.lock() == Mood::Well) {
            Some(value) => json!([{"metric": {}, "value": [1.5, value.to_string()]}]),
            None => json!([]),
        };
        let data = json!({"resultType": "vector", "result": result});
        axum::Json(json!({"status": "success", "data": data})).into_response()
    }

    async fn cardinality(
        State(own): State<Arc<Self>>,
        headers: HeaderMap,
        Query(params): Query<Vec<(String, String)>>,
    ) -> Response {
        if let Some(answer) = own.moody(&headers, BASIC).await {
            return answer;
        }
        let has = |name: &str, value: &str| params.iter().any(|(n, v)| n == name && v == value);
        if !has("label_names[]", "__name__") || !has("count_method", "active") {
            return StatusCode::BAD_REQUEST.into_response();
        }
        let active = own.numbers.lock()[2];
        axum::Json(json!({"series_count_total": active, "labels": []})).into_response()
    }
}

impl Account {
    async fn active_series(
        State(own): State<Arc<Self>>,
        headers: HeaderMap,
        Query(params): Query<Vec<(String, String)>>,
    ) -> Response {
        if let Some(answer) = own.moody(&headers, BASIC).await {
            return answer;
        }
        if params != [("selector".to_owned(), "{cluster=\"here\"}".to_owned())] {
            return StatusCode::BAD_REQUEST.into_response();
        }
        let series = |n: u64| json!({"__name__": "x", "cluster": "here", "n": n.to_string()});
        let data: Vec<Json> = (0..77).map(series).collect();
        axum::Json(json!({"data": data})).into_response()
    }
}

#[tokio::test]
async fn where_the_ledger_is_lost_the_server_tells_which_series_it_counts() {
    let account = Account::new();
    let url = account.serve().await;
    let dir = TestDir::new();
    configure(&dir, 8_000, &cardinality(&url, "secret"));
    // A cursor that cannot be read, and no ledger: there was an earlier run.
    let folder = dir.path().join("data/forward/cloud");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("cursor"), "damaged").unwrap();
    let config = format!("global: {{external_labels: {{cluster: here}}}}\n{CONFIG}");
    let server = TestServer::start(&dir, &config, FLAGS).await;
    let found = |data: &Json| data["endpoints"][0]["live"] == 77;
    let report = server.wait_for("/api/v1/status/budget", found).await;
    let said = &report["endpoints"][0]["series"];
    assert_eq!(said["in_doubt"], true, "what was on its way may still arrive: {said}");
    server.stop().await;
}

/// A server that asks the account as `api` says.
async fn start(dir: &TestDir, api: &str) -> TestServer {
    configure(dir, 8_000, api);
    TestServer::start(dir, CONFIG, FLAGS).await
}

fn configure(dir: &TestDir, series: u64, api: &str) {
    std::fs::write(dir.path().join("token"), "viewer\n").unwrap();
    let text = format!("[budget]\nseries = {series}\n[budget.account]\n{api}\n");
    std::fs::write(dir.path().join("retention.toml"), text).unwrap();
}

fn usage(url: &str) -> String {
    format!(
        "kind = 'usage'\nurl = '{url}/usage/'\nstack = '123'\n\
         authorization = {{ credentials_file = 'token' }}"
    )
}

fn cardinality(url: &str, password: &str) -> String {
    format!(
        "kind = 'cardinality'\nurl = '{url}/prom'\n\
         basic_auth = {{ username = '77', password = '{password}' }}"
    )
}

/// The budget of series, once the account has been heard of or the question has failed.
async fn series(server: &TestServer) -> Json {
    let told = |data: &Json| !data["endpoints"][0]["series"]["account"].is_null();
    let report = server.wait_for("/api/v1/status/budget", told).await;
    report["endpoints"][0]["series"].clone()
}

#[tokio::test]
async fn the_usage_metrics_set_limits_and_tell_of_others() {
    let account = Account::new();
    let (url, dir) = (account.serve().await, TestDir::new());
    let server = start(&dir, &usage(&url)).await;
    let said = series(&server).await;
    assert_eq!(said["account"]["active"], 4_000, "{said}");
    assert_eq!(said["account"]["foreign"], 4_000);
    assert_eq!((&said["contract"], &said["enforced"]), (&8_000.into(), &15_000.into()));
    // What is configured is not passed, and others leave the rest.
    assert_eq!(said["target"], 4_000, "{said}");
    let metrics = server.get("/metrics").await.text;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    assert_eq!(value("stint_budget_account_series{"), "4000");
    assert_eq!(value("stint_budget_account_foreign_series{"), "4000");
    assert_eq!(account.asked.lock().len(), 4, "{:?}", account.asked.lock());

    // A trial ends; what is said is asked for again with a new configuration.
    *account.numbers.lock() = [5_000, 5_000, 1_000];
    configure(&dir, 7_999, &usage(&url));
    assert_eq!(server.post("/-/reload", &[]).await.status, 200);
    let lower = |data: &Json| data["endpoints"][0]["series"]["account"]["active"] == 1_000;
    let report = server.wait_for("/api/v1/status/budget", lower).await;
    let said = &report["endpoints"][0]["series"];
    assert_eq!((&said["contract"], &said["enforced"]), (&5_000.into(), &5_000.into()), "{said}");
    let target = said["target"].as_u64().unwrap();
    assert!((2_000..3_500).contains(&target), "below what is enforced, without others': {said}");
    server.stop().await;
}

#[tokio::test]
async fn the_cardinality_api_tells_of_others() {
    let account = Account::new();
    let (url, dir) = (account.serve().await, TestDir::new());
    let server = start(&dir, &cardinality(&url, "secret")).await;
    let said = series(&server).await;
    assert_eq!((&said["account"]["active"], &said["target"]), (&4_000.into(), &4_000.into()));
    assert_eq!((&said["contract"], &said["enforced"]), (&8_000.into(), &8_000.into()));
    server.stop().await;
}

#[tokio::test]
async fn what_goes_wrong_is_told_and_changes_nothing() {
    let account = Account::new();
    let url = account.serve().await;
    let well = (Mood::Well, "wrong", "http 401: invalid token");
    let cases = [
        well,
        (Mood::Answers(503, "later\nmore"), "secret", "http 503: later"),
        (Mood::Answers(200, "<html>"), "secret", "expected value"),
        (Mood::Answers(200, "{}"), "secret", "no series_count_total"),
        (Mood::TooMuch, "secret", "too long"),
    ];
    for (mood, password, expected) in cases {
        *account.mood.lock() = mood;
        let dir = TestDir::new();
        let server = start(&dir, &cardinality(&url, password)).await;
        let said = series(&server).await;
        let problem = said["account"]["problem"].as_str().unwrap_or_default();
        assert!(problem.contains(expected), "{mood:?}: {said}");
        assert!(!problem.contains("secret") && !problem.contains("wrong"), "{problem}");
        assert_eq!((&said["account"]["active"], &said["target"]), (&Json::Null, &8_000.into()));
        server.stop().await;
    }
    // Nobody is there at all.
    let dir = TestDir::new();
    let server = start(&dir, &cardinality("http://127.0.0.1:9", "secret")).await;
    let said = series(&server).await;
    assert!(said["account"]["problem"].as_str().unwrap().contains("refused"), "{said}");
    server.stop().await;
    // It answers, and knows none of the metrics.
    *account.mood.lock() = Mood::Empty;
    let dir = TestDir::new();
    let server = start(&dir, &usage(&url)).await;
    let said = series(&server).await;
    assert!(said["account"]["problem"].as_str().unwrap().contains("is `stack` right?"), "{said}");
    server.stop().await;
}

#[tokio::test]
async fn an_account_that_never_answers_holds_nothing_up() {
    let account = Account::new();
    *account.mood.lock() = Mood::Never;
    let (url, near, far) = (account.serve().await, TestDir::new(), TestDir::new());
    let receiver = TestServer::start(&far, "", FLAGS).await;
    configure(&near, 8_000, &usage(&url));
    let config = format!(
        "remote_write: [{{url: '{}/api/v1/write', name: cloud, \
         queue_config: {{batch_send_deadline: 10ms}}}}]\n",
        receiver.url
    );
    let sender = TestServer::start(&near, &config, FLAGS).await;
    let up: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];
    assert_eq!(sender.write(&[(up, &[(0, 1.5)])]).await.status, 204);
    let arrived = |data: &Json| !data["result"][0].is_null();
    receiver.wait_for("/api/v1/query?query=up", arrived).await;
    assert!(!account.asked.lock().is_empty(), "it was asked before");
    let report = sender.get("/api/v1/status/budget").await.data();
    assert_eq!(report["endpoints"][0]["series"]["target"], 8_000, "{report}");
    // A question that is open ends with the server.
    sender.stop().await;
    receiver.stop().await;
}
