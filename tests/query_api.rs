//! The query API over HTTP: forms, answers, errors.

use std::fmt::Write as _;
use std::io::Read as _;

use serde_json::{Value as Json, json};

use crate::support::{NOW, TestDir, TestServer};

const RECEIVER: &[&str] = &["--web.enable-remote-write-receiver"];

/// A server with two series of `http_requests_total` and one of `temperature`.
async fn server(dir: &TestDir) -> TestServer {
    let server = TestServer::start(dir, "", RECEIVER).await;
    let requests = |code| [("__name__", "http_requests_total"), ("code", code), ("job", "api")];
    let written = server
        .write(&[
            (&requests("200"), &[(-30, 10.0), (-15, 20.0), (0, 30.0)]),
            (&requests("500"), &[(-30, 0.0), (-15, 0.0), (0, 3.0)]),
            (&[("__name__", "temperature"), ("job", "lab")], &[(0, -1.5e-7)]),
        ])
        .await;
    assert_eq!(written.status, 204, "{written:?}");
    server
}

fn seconds(from_now: i64) -> i64 {
    NOW.0 / 1000 + from_now
}

#[tokio::test]
async fn answers_look_as_prometheus_gives_them() {
    let dir = TestDir::new();
    let server = server(&dir).await;
    let (start, end) = (seconds(-15), seconds(0));
    let range = format!("&start={start}&end={end}&step=15");
    let selector = "http_requests_total";
    let mut all = String::new();
    for path in [
        "/api/v1/query?query=temperature".to_owned(),
        format!("/api/v1/query?query=1%2B1&time={end}.5"),
        format!("/api/v1/query?query=%22text%22&time={end}"),
        format!("/api/v1/query?query=sum({selector})"),
        format!("/api/v1/query?query={selector}%5B20s%5D"),
        format!("/api/v1/query?query=sort({selector})&limit=1"),
        format!("/api/v1/query_range?query=sum+by(code)({selector}){range}"),
        format!("/api/v1/query_range?query=7{range}"),
        format!("/api/v1/series?match[]={selector}"),
        format!("/api/v1/series?match[]={selector}&limit=1"),
        "/api/v1/labels".to_owned(),
        "/api/v1/labels?match[]=temperature".to_owned(),
        "/api/v1/label/code/values".to_owned(),
        "/api/v1/label/__name__/values?limit=1".to_owned(),
        "/api/v1/label/U__job/values".to_owned(),
        "/api/v1/query_exemplars?query=temperature".to_owned(),
        "/api/v1/rules".to_owned(),
        "/api/v1/alerts".to_owned(),
        "/api/v1/alertmanagers".to_owned(),
        "/api/v1/status/buildinfo".to_owned(),
        "/api/v1/status/tsdb".to_owned(),
    ] {
        let answer = server.get(&path).await;
        let _ = write!(all, "GET {path}\n{} {}\n\n", answer.status, answer.text);
    }
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r#""chunkCount":\d+"#, r#""chunkCount":"[chunks]""#);
    settings.bind(|| insta::assert_snapshot!(all));
    server.stop().await;
}

#[tokio::test]
async fn errors_look_as_prometheus_gives_them() {
    let dir = TestDir::new();
    let server = server(&dir).await;
    let mut all = String::new();
    for path in [
        "/api/v1/query",
        "/api/v1/query?query=up%7B",
        "/api/v1/query?query=up&time=yesterday",
        "/api/v1/query?query=up&timeout=soon",
        "/api/v1/query?query=up&limit=-1",
        "/api/v1/query_range?query=up",
        "/api/v1/query_range?query=up&start=10&end=0&step=1",
        "/api/v1/query_range?query=up&start=0&end=10&step=0",
        "/api/v1/query_range?query=up&start=0&end=11001&step=1",
        "/api/v1/query_range?query=up[1m]&start=0&end=10&step=1",
        "/api/v1/query?query=http_requests_total*on(job)http_requests_total",
        "/api/v1/series",
        "/api/v1/series?match[]=",
        "/api/v1/series?match[]=%7Bjob%3D~%22.*%22%7D",
        "/api/v1/labels?match[]=%7B",
        "/api/v1/label/U___d800_/values",
        "/api/v1/label/%FF/values",
        "/api/v1/query?query=%zz",
    ] {
        let answer = server.get(path).await;
        let _ = write!(all, "GET {path}\n{} {}\n\n", answer.status, answer.text);
    }
    insta::assert_snapshot!(all);
    server.stop().await;
}

#[tokio::test]
async fn a_form_is_as_good_as_a_url() {
    let dir = TestDir::new();
    let server = server(&dir).await;
    let query = "sum(http_requests_total{code=\"200\"})";
    let posted = server.post("/api/v1/query", &[("query", query)]).await;
    assert_eq!(posted.data()["result"][0]["value"][1], "30");
    // Parameters in the URL of a POST, whose body is empty and of any type.
    let mixed = server
        .request(reqwest::Method::POST, "/api/v1/query?query=temperature&stats=all")
        .header("Content-Type", "application/json");
    let mixed = TestServer::answer(mixed).await.data();
    assert_eq!(mixed["result"][0]["value"][1], "-1.5e-07");
    assert!(mixed["stats"]["timings"]["execTotalTime"].is_number(), "{mixed}");
    let series = server.post("/api/v1/series", &[("match[]", "temperature")]).await;
    assert_eq!(series.data(), json!([{"__name__": "temperature", "job": "lab"}]));
    let values = server.post("/api/v1/label/job/values", &[]).await;
    assert_eq!(values.data(), json!(["api", "lab"]));
    server.stop().await;
}

#[tokio::test]
async fn a_range_query_has_at_most_11001_points() {
    let dir = TestDir::new();
    let server = server(&dir).await;
    let path = "/api/v1/query_range?query=1&start=0&end=11000&step=1";
    let values = server.get(path).await.data()["result"][0]["values"].take();
    assert_eq!(values.as_array().map(Vec::len), Some(11_001));
    server.stop().await;
}

#[tokio::test]
async fn answers_are_compressed_when_asked_for() {
    let dir = TestDir::new();
    let server = server(&dir).await;
    let ask = async |path: &str| {
        let request = server.request(reqwest::Method::GET, path);
        request.header("Accept-Encoding", "deflate, gzip, br, zstd").send().await.unwrap()
    };
    // Written and packed at once, elsewhere, and by what stands around all answers.
    let large = "/api/v1/query_range?query=1&start=0&end=9999&step=1";
    let paths = ["/api/v1/query_range?query=1&start=0&end=999&step=1", large, large, "/metrics"];
    for path in paths {
        let response = ask(path).await;
        assert_eq!(response.headers()["content-encoding"], "gzip", "{path}");
        let varies = response.headers().get_all("vary").iter();
        assert_eq!(varies.filter(|by| *by == "Accept-Encoding").count(), 1, "{path}");
        let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let packed = response.bytes().await.unwrap();
        assert_eq!(packed.len(), length, "{path}");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*packed).read_to_string(&mut text).unwrap();
        assert!(text.len() > 2 * length, "{path}");
        let plain = server.get(path).await;
        assert!(path == "/metrics" || plain.text == text, "{path}");
    }
    let small = ask("/api/v1/query?query=1").await;
    assert!(!small.headers().contains_key("content-encoding"));
    server.stop().await;
}

#[tokio::test]
async fn the_configuration_is_reloaded_as_a_whole_or_not_at_all() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &["--web.enable-lifecycle"]).await;
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, "global: {scrape_interval: 7s}\n").unwrap();
    assert_eq!(server.post("/-/reload", &[]).await.status, 200);
    let shown = server.get("/api/v1/status/config").await.data();
    let global =
        "global:\n  scrape_interval: 7s\n  scrape_timeout: 7s\n  evaluation_interval: 1m\n";
    assert_eq!(shown["yaml"], global);
    std::fs::write(&file, "global: {scrape_interval: 8s}\nnonsense: 1\n").unwrap();
    let failed = server.post("/-/reload", &[]).await;
    assert_eq!(failed.status, 500);
    assert!(failed.text.starts_with("failed to reload config: "), "{failed:?}");
    assert!(failed.text.contains("nonsense"), "{failed:?}");
    assert_eq!(server.get("/api/v1/status/config").await.data(), shown);
    let info: Json = server.get("/api/v1/status/runtimeinfo").await.data();
    assert_eq!(info["reloadConfigSuccess"], json!(false));
    let told = server.get("/api/v1/notifications").await.data();
    assert_eq!(told[0]["text"], "Configuration reload has failed.", "{told}");
    assert_eq!(told[0]["active"], json!(true));
    std::fs::write(&file, "scrape_configs:\n- job_name: x\n").unwrap();
    assert_eq!(server.post("/-/reload", &[]).await.status, 200);
    assert_eq!(server.get("/api/v1/notifications").await.data(), json!([]));
    let pool = server.get("/api/v1/scrape_pools/config?scrapePool=x").await.data();
    let pool = pool["yaml"].as_str().unwrap();
    let begins = pool.starts_with("job_name: x\nhonor_timestamps: true\n");
    assert!(begins && pool.contains("scrape_interval: 1m\n"), "{pool}");
    assert_eq!(server.get("/api/v1/scrape_pools/config?scrapePool=y").await.status, 400);
    assert_eq!(server.get("/api/v1/scrape_pools/config").await.status, 400);
    server.stop().await;
}

#[tokio::test]
async fn flags_are_shown_by_name() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &["--query.timeout=90s"]).await;
    let flags = server.get("/api/v1/status/flags").await.data();
    assert_eq!(flags["query.timeout"], "1m30s");
    assert_eq!(flags["web.enable-admin-api"], "false");
    let features = server.get("/api/v1/features").await.data();
    assert_eq!(features["api"]["admin"], json!(false));
    assert_eq!(features["promql_functions"]["rate"], json!(true));
    assert_eq!(features["promql_functions"]["info"], json!(false));
    server.stop().await;
}

#[tokio::test]
async fn expressions_are_parsed_and_laid_out() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &[]).await;
    let formatted = server.get("/api/v1/format_query?query=foo/bar%20%23comment").await;
    assert_eq!(formatted.data(), "foo / bar");
    let parsed = server.get("/api/v1/parse_query?query=-up").await.data();
    assert_eq!((&parsed["type"], &parsed["op"]), (&json!("unaryExpr"), &json!("-")));
    assert_eq!(server.post("/api/v1/parse_query", &[("query", "(")]).await.status, 400);
    server.stop().await;
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_a_snapshot_keeps_it() {
    let dir = TestDir::new();
    let flags = &["--web.enable-admin-api", "--web.enable-remote-write-receiver"];
    let server = TestServer::start(&dir, "", flags).await;
    let up: &[(&str, &str)] = &[("__name__", "up")];
    server.write(&[(up, &[(-15, 1.0), (0, 2.0)])]).await;
    let snapshot = server.post("/api/v1/admin/tsdb/snapshot", &[]).await.data();
    let name = snapshot["name"].as_str().unwrap();
    assert!(dir.path().join("data/snapshots").join(name).is_dir(), "{name}");
    let form = [("match[]", "up"), ("end", &*seconds(-10).to_string())];
    let deleted = server.post("/api/v1/admin/tsdb/delete_series", &form).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    let count = "/api/v1/query?query=count_over_time(up[1m])";
    assert_eq!(server.get(count).await.data()["result"][0]["value"][1], "1");
    assert_eq!(server.post("/api/v1/admin/tsdb/clean_tombstones", &[]).await.status, 204);
    server.stop().await;

    // A snapshot is a data directory.
    let copy =
        format!("--storage.tsdb.path={}", dir.path().join("data/snapshots/").join(name).display());
    let server = TestServer::start_with(&dir, "", &[], &copy).await;
    assert_eq!(server.get(count).await.data()["result"][0]["value"][1], "2");
    server.stop().await;
}

#[tokio::test]
async fn administration_needs_permission() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &[]).await;
    for action in ["snapshot", "delete_series", "clean_tombstones"] {
        let refused = server.post(&format!("/api/v1/admin/tsdb/{action}"), &[]).await;
        assert_eq!(refused.status, 500);
        assert_eq!(refused.json()["errorType"], "unavailable");
        assert_eq!(refused.json()["error"], "admin APIs disabled");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_newest_samples_can_be_federated() {
    let dir = TestDir::new();
    let config = "global: {external_labels: {zone: z, job: never}}\n";
    let server = TestServer::start(&dir, config, RECEIVER).await;
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let written = server
        .write(&[
            (&[("__name__", "b"), ("job", "x")], &[(-60, 1.0), (-1, 2.5)]),
            (&[("__name__", "a.b"), ("instance", "i")], &[(-299, 7.0)]),
            (&[("__name__", "b"), ("job", "old")], &[(-300, 1.0)]),
            (&[("__name__", "b"), ("job", "gone")], &[(-60, 1.0), (-30, stale)]),
            (&[("__name__", "unasked")], &[(0, 1.0)]),
        ])
        .await;
    assert_eq!(written.status, 204, "{written:?}");
    let path = "/federate?match[]=b&match[]=%7Bjob%3D%22x%22%7D&match[]=%7B%22a.b%22%7D";
    let expected = format!(
        "# TYPE a_b untyped\na_b{{instance=\"i\",job=\"never\",zone=\"z\"}} 7 {}\n\
         # TYPE b untyped\nb{{job=\"x\",instance=\"\",zone=\"z\"}} 2.5 {}\n",
        NOW.0 - 299_000,
        NOW.0 - 1000,
    );
    assert_eq!(server.get(path).await.text, expected);
    let utf8 = server.request(reqwest::Method::GET, path);
    let utf8 = utf8.header("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8");
    let text = TestServer::answer(utf8).await.text;
    assert!(text.starts_with("# TYPE \"a.b\" untyped\n{\"a.b\",instance=\"i\""), "{text}");
    assert_eq!(server.get("/federate").await.text, "");
    assert_eq!(server.get("/federate?match[]=%7B%7D").await.text, "");
    let wrong = server.get("/federate?%zz").await;
    let expected = "error parsing form values: invalid URL escape \"%zz\"\n";
    assert_eq!((wrong.status, wrong.text.as_str()), (400, expected));
    let refused = server.get("/federate?match[]=%7B").await;
    assert_eq!((refused.status, refused.text.lines().count()), (400, 1), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn plans_are_shown() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &[]).await;
    let answer = server.get("/api/v1/status/explain?query=sum(up%40end())").await;
    let plan = "sum  [folded while reading]\n";
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains("once for all steps"), "{}", answer.text);
    let answer = server.get("/api/v1/status/explain?type=instant&query=sum(up)").await;
    assert_eq!(answer.json()["data"]["plan"].as_str().unwrap().lines().next(), plan.lines().next());
    let wrong = server.get("/api/v1/status/explain?type=rule&query=up").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("is neither"), "{}", wrong.text);
    server.stop().await;
}
