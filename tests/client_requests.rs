//! What the clients of the Prometheus API send, request by request, and what they need to find in the answer. The
//! requests lie outside of this repository: `STINT_SHARED` names the folder; without it the test says that it skips.

use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use stint_model::exemplar::Exemplar;
use stint_model::{Labels, Sample, Span, Timestamp};
use stint_wire::remote_write::v1;
use stint_wire::snappy::compress_into;

use crate::support::{NOW, TestDir, TestServer};

/// Requests that nobody needs answered here, since what they are asked for is not there.
const NEEDLESS: [&str; 1] = [
    // A sidecar that carries Prometheus' own blocks to an object store; there are none.
    "thanos-flags",
];
/// Distance between the samples of the hour that is there.
const STEP: i64 = 15_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_of_known_clients_is_answered_as_they_need_it() {
    let Some(file) = std::env::var_os("STINT_SHARED")
        .map(|folder| PathBuf::from(folder).join("reference/client_requests.json"))
        .filter(|file| file.is_file())
    else {
        eprintln!("skipped: STINT_SHARED names no folder with reference/client_requests.json");
        return;
    };
    let requests: Vec<Json> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let dir = TestDir::new();
    let server = start(&dir).await;
    fill(&server).await;
    scrape(&server).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let mut wrong = Vec::new();
    let needed = |request: &&Json| !NEEDLESS.contains(&request["id"].as_str().unwrap());
    for request in requests.iter().filter(needed) {
        let problems = problems(&client, &server.url, request).await;
        wrong.extend(problems.into_iter().map(|problem| format!("{}: {problem}", request["id"])));
    }
    assert!(requests.len() > 100, "only {} requests", requests.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop().await;
}

/// A server with two targets and two groups of rules.
async fn start(dir: &TestDir) -> TestServer {
    let node = target(
        "# HELP node_load1 Load.\n# TYPE node_load1 gauge\nnode_load1 0.5\n\
         # HELP node_cpu_seconds_total Seconds.\n# TYPE node_cpu_seconds_total counter\n\
         node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 7\n",
    )
    .await;
    let app = target(
        "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
         http_requests_total{code=\"200\"} 1\n\
         # HELP http_request_duration_seconds Seconds.\n# TYPE http_request_duration_seconds histogram\n\
         http_request_duration_seconds_bucket{le=\"+Inf\"} 1\n\
         http_request_duration_seconds_sum 1\nhttp_request_duration_seconds_count 1\n",
    )
    .await;
    let rules = "groups:\n- name: app\n  rules:\n  - {record: 'job:up:sum', expr: sum by (job) (up)}\n  \
                 - {alert: HighErrorRate, expr: up > 0, for: 5m, labels: {severity: page}}\n\
                 - name: node\n  rules: [{alert: NodeDown, expr: up == 0}]\n";
    std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, external_labels: {{cluster: local}}}}\nrule_files: [rules.yml]\n\
         scrape_configs:\n- {{job_name: node, static_configs: [{{targets: ['{node}']}}]}}\n\
         - {{job_name: app, static_configs: [{{targets: ['{app}']}}]}}\n"
    );
    let flags = ["--web.enable-lifecycle", "--web.enable-remote-write-receiver"];
    TestServer::start(dir, &config, &flags).await
}

/// Waits until both targets were scraped, which alone brings metadata. A scrape comes when its time has passed by the
/// runtime's clock and by the server's, which is moved a little with every look.
async fn scrape(server: &TestServer) {
    server
        .wait_for("/api/v1/targets", |data| {
            server.clock.advance(Span(1));
            let targets = data["activeTargets"].as_array().unwrap();
            targets.len() == 2 && targets.iter().all(|target| target["health"] == "up")
        })
        .await;
}

async fn target(body: &'static str) -> String {
    let app =
        axum::Router::new().route("/metrics", axum::routing::get(move || async move { body }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Sends the hour of samples that the requests ask about.
async fn fill(server: &TestServer) {
    let node = |name: &str, more: &[(&str, &str)]| series(name, "node", "localhost:9100", more);
    let app = |name: &str, more: &[(&str, &str)]| series(name, "app", "127.0.0.1:8080", more);
    let mut all = vec![
        (node("up", &[]), 0.0),
        (app("up", &[]), 0.0),
        (node("node_load1", &[]), 0.0),
        (node("process_start_time_seconds", &[]), 0.0),
        (node("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "user")]), 2.0),
        (node("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "idle")]), 9.0),
        (node("node_uname_info", &[("nodename", "n1")]), 0.0),
        (app("http.server.active_requests", &[("service.name", "shop")]), 0.0),
    ];
    for name in ["node_filesystem_size_bytes", "node_filesystem_avail_bytes"] {
        let disk = [("device", "/dev/vda1"), ("fstype", "ext4"), ("mountpoint", "/")];
        all.push((node(name, &disk), 0.0));
    }
    for handler in ["/api/cart", "/api/orders"] {
        for code in ["200", "404", "500"] {
            let labels = [("method", "GET"), ("code", code), ("handler", handler)];
            all.push((app("http_requests_total", &labels), 3.0));
        }
        for (bound, slope) in [("0.1", 1.0), ("0.5", 2.0), ("+Inf", 3.0)] {
            let labels = [("handler", handler), ("le", bound)];
            all.push((app("http_request_duration_seconds_bucket", &labels), slope));
        }
        for part in ["sum", "count"] {
            let name = format!("http_request_duration_seconds_{part}");
            all.push((app(&name, &[("handler", handler)]), 3.0));
        }
    }
    let mut encoder = v1::Encoder::new();
    for (labels, slope) in &all {
        let mut encoded = encoder.series(labels);
        for step in 0..=3_600_000 / STEP {
            let at = Timestamp(NOW.0 - 3_600_000 + step * STEP);
            encoded.sample(&Sample::float(at, 1.0 + slope * step as f64));
        }
        if labels.get("__name__").is_some_and(|name| name.ends_with("_bucket")) {
            let at = Timestamp(NOW.0 - 60_000);
            let trace = Labels::from_pairs([("trace_id", "a1")]);
            encoded.exemplar(&Exemplar { labels: trace, value: 0.2, at });
        }
    }
    let mut body = Vec::new();
    compress_into(encoder.body(), &mut body).unwrap();
    let request = server.request(reqwest::Method::POST, "/api/v1/write");
    let request = request.header("Content-Encoding", "snappy");
    let request = request.header("Content-Type", "application/x-protobuf").body(body);
    let answer = TestServer::answer(request).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

fn series(name: &str, job: &str, instance: &str, more: &[(&str, &str)]) -> Labels {
    let own = [("__name__", name), ("job", job), ("instance", instance)];
    Labels::from_pairs(own.into_iter().chain(more.iter().copied()))
}

fn texts(value: &Json) -> Vec<&str> {
    match value {
        Json::Array(all) => all.iter().filter_map(Json::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

fn encoded(pairs: &Json) -> String {
    let pairs = pairs.as_array().into_iter().flatten();
    let pairs = pairs.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    let mut out = reqwest::Url::parse("http://x/").unwrap();
    out.query_pairs_mut().extend_pairs(pairs);
    out.query().unwrap_or_default().to_owned()
}

/// Sends the request; what of the answer is not as expected.
async fn problems(client: &reqwest::Client, server: &str, request: &Json) -> Vec<String> {
    let query =
        request["raw_query"].as_str().map_or_else(|| encoded(&request["query"]), str::to_owned);
    let separator = if query.is_empty() { "" } else { "?" };
    let url = format!("{server}{}{separator}{query}", request["path"].as_str().unwrap());
    let method: reqwest::Method = request["method"].as_str().unwrap().parse().unwrap();
    let mut sent = client.request(method, url);
    for (name, value) in request["headers"].as_object().unwrap() {
        sent = sent.header(name, value.as_str().unwrap());
    }
    if request.get("form").is_some() {
        sent = sent.body(encoded(&request["form"]));
    } else if let Some(body) = request["body_base64"].as_str() {
        sent = sent.body(STANDARD.decode(body).unwrap());
    }
    let answer = sent.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let body = unpacked(header("content-encoding"), &answer.bytes().await.unwrap());
    let expect = &request["expect"];
    let mut wrong = Vec::new();
    let is_status = |wanted: &Json| wanted.as_u64() == Some(u64::from(status));
    let wanted = &expect["status"];
    if !is_status(wanted) && !wanted.as_array().is_some_and(|all| all.iter().any(is_status)) {
        wrong.push(format!("status {status}, not {wanted}"));
    }
    if status == 405 && header("allow").is_none() {
        wrong.push("405 without Allow".to_owned());
    }
    for (name, allowed) in expect["headers"].as_object().into_iter().flatten() {
        let absent_is_fine = allowed.as_array().unwrap().contains(&Json::Null);
        if !header(name).map_or(absent_is_fine, |value| texts(allowed).contains(&value)) {
            wrong.push(format!("{name}: {:?}, not {allowed}", header(name)));
        }
    }
    if let Some(kind) = expect["content_type"].as_str()
        && !header("content-type").is_some_and(|found| found.starts_with(kind))
    {
        wrong.push(format!("content type {:?}, not {kind}", header("content-type")));
    }
    let text = String::from_utf8_lossy(&body);
    wrong.extend(contents(expect, &text));
    if !wrong.is_empty() {
        wrong.push(text.chars().take(300).collect());
    }
    wrong
}

fn unpacked(coding: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap(),
        Some("deflate") => flate2::read::ZlibDecoder::new(body).read_to_end(&mut out).unwrap(),
        _ => return body.to_vec(),
    };
    out
}

/// What of the body is not as expected.
fn contents(expect: &Json, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(part) = expect["text_contains"].as_str()
        && !text.contains(part)
    {
        wrong.push(format!("no {part:?} in it"));
    }
    let json: Json = serde_json::from_str(text).unwrap_or_default();
    for path in texts(&expect["json"]) {
        if !is_there(&json, &steps(path)) {
            wrong.push(format!("{path} is not there"));
        }
    }
    for path in texts(&expect["absent"]) {
        if is_there(&json, &steps(path)) {
            wrong.push(format!("{path} is there"));
        }
    }
    for (path, value) in expect["equals"].as_object().into_iter().flatten() {
        let found = steps(path).iter().try_fold(&json, |at, step| child(at, step));
        let is_same = found.is_some_and(|found| match (found.as_f64(), value.as_f64()) {
            (Some(found), Some(value)) => found.to_bits() == value.to_bits(),
            _ => found == value,
        });
        if !is_same {
            wrong.push(format!("{path} is {found:?}, not {value}"));
        }
    }
    wrong
}

/// One step of a path: `a.b`, `[3]`, `[*]` or `["a.b"]`.
#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
    Each,
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (inside, tail) = match inside.strip_prefix('"') {
                Some(quoted) => {
                    let (key, tail) = quoted.split_once("\"]").unwrap();
                    steps.push(Step::Key(key.to_owned()));
                    rest = tail;
                    continue;
                }
                None => inside.split_once(']').unwrap(),
            };
            steps.push(inside.parse().map_or(Step::Each, Step::Index));
            rest = tail;
        } else {
            let key = rest.strip_prefix('.').unwrap_or(rest);
            let end = key.find(['.', '[']).unwrap_or(key.len());
            let (key, tail) = key.split_at(end);
            steps.push(Step::Key(key.to_owned()));
            rest = tail;
        }
    }
    steps
}

fn child<'j>(at: &'j Json, step: &Step) -> Option<&'j Json> {
    match step {
        Step::Key(key) => at.get(key),
        Step::Index(index) => at.get(index),
        Step::Each => None,
    }
}

/// Whether there is something at the path; for `[*]`, in every element of an array that is not empty.
fn is_there(at: &Json, steps: &[Step]) -> bool {
    match steps {
        [] => true,
        [Step::Each, rest @ ..] => at
            .as_array()
            .is_some_and(|all| !all.is_empty() && all.iter().all(|one| is_there(one, rest))),
        [step, rest @ ..] => child(at, step).is_some_and(|found| is_there(found, rest)),
    }
}

#[test]
fn paths_are_walked() {
    let json = serde_json::json!({"a": [{"b.c": 1}, {"b.c": null}], "d": []});
    for (path, expected) in [
        ("a[*][\"b.c\"]", true),
        ("a[1][\"b.c\"]", true),
        ("a[2]", false),
        ("a[*].x", false),
        ("d", true),
        ("d[*]", false),
        ("e.f", false),
    ] {
        assert_eq!(is_there(&json, &steps(path)), expected, "{path}");
    }
}
