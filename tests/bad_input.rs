//! What no decent client sends: too much, too little, too slowly, in the wrong encoding, or in too many connections. Every
//! request gets a clear answer, and others are served meanwhile.

use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::{Running, free_address};
use crate::support::{Answer, TestDir, TestServer};

const FORM: &str = "application/x-www-form-urlencoded";
const RECEIVE: &[&str] = &["--web.enable-remote-write-receiver", "--web.enable-otlp-receiver"];

/// Nobody may wait longer for anything here; what hangs fails.
const PATIENCE: Duration = Duration::from_mins(1);

async fn served(server: &TestServer) {
    let answer = server.get("/api/v1/query?query=1%2B1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Sends bytes as they are, and reads until the server closes the connection.
async fn raw(server: &TestServer, bytes: &[u8]) -> String {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The first line of what is answered to a request with this head.
async fn first_line(server: &TestServer, head: &[u8]) -> String {
    raw(server, head).await.lines().next().unwrap_or_default().to_owned()
}

async fn post(server: &TestServer, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = server.request(reqwest::Method::POST, path).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    TestServer::answer(request).await
}

#[tokio::test]
async fn queries_of_any_size_and_shape_are_answered() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &[]).await;
    let sum = "1+".repeat(50_000) + "1";
    let text = format!("\"{}\"", "x".repeat(100_000));
    let parens = "(".repeat(50_000) + "1" + &")".repeat(50_000);
    let calls = "abs(".repeat(20_000) + "x" + &")".repeat(20_000);
    let matchers = format!("{{{}}}", "a=\"b\",".repeat(14_000));
    let minus = "-".repeat(100_000) + "1";
    let open = "sum by (a) (".repeat(8_000);
    let comment = format!("1 #{}", "x".repeat(100_000));
    let unicode = "\u{1f980}".repeat(25_000);
    let nested = format!("x{}", "[1m:1s]".repeat(14_000));
    let regex_depth = format!("{{a=~\"{}b{}\"}}", "(".repeat(40_000), ")".repeat(40_000));
    let regex_repeats = "{a=~\"((((((x{1000}){1000}){1000}){1000}){1000}){1000})\"}";
    let regex_choices = format!("{{a=~\"{}\"}}", "ab|".repeat(33_000));
    let regex_classes = format!("{{a=~\"{}\"}}", "[^a]*".repeat(20_000));
    let regex_slow = "label_replace(vector(1), \"a\", \"$1\", \"b\", \"(((a*)*)*)*b\")";
    for (query, expected) in [
        (sum.as_str(), &[200, 400][..]),
        (&text, &[200]),
        (&parens, &[400]),
        (&calls, &[400]),
        (&matchers, &[200]),
        (&minus, &[200, 400]),
        (&open, &[400]),
        (&comment, &[200]),
        (&unicode, &[400]),
        (&nested, &[400]),
        (&regex_depth, &[400]),
        (regex_repeats, &[400]),
        (&regex_choices, &[200, 400]),
        (&regex_classes, &[200, 400]),
        (regex_slow, &[200]),
        ("\0", &[400]),
        ("\u{feff}1", &[400]),
        ("1e999999999", &[200, 400]),
        ("x[99999999999999999999y]", &[400]),
        ("x offset 292277025y", &[400]),
    ] {
        let shown: String = query.chars().take(30).collect();
        for path in ["/api/v1/query", "/api/v1/format_query", "/api/v1/parse_query"] {
            let form = [("query", query)];
            let asked = server.post(path, &form);
            let answer = tokio::time::timeout(PATIENCE, asked).await.expect(&shown);
            let fine = expected.contains(&answer.status) || answer.status == 200;
            assert!(fine, "{path} {shown}: {} {:.200}", answer.status, answer.text);
            let status = if answer.status == 200 { "success" } else { "error" };
            assert_eq!(answer.json()["status"], status, "{path} {shown}");
            if path.ends_with("/query") {
                assert!(expected.contains(&answer.status), "{shown}: {}", answer.status);
            }
            if status == "error" {
                let error = answer.json()["error"].as_str().unwrap().to_owned();
                assert!(!error.is_empty(), "{shown}");
            }
        }
    }
    served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn wrong_encodings_are_refused_in_words() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVE).await;
    let form = [("Content-Type", FORM)];
    for (path, headers, body, expected) in [
        ("/api/v1/query", &form[..], &b"query=%zz"[..], 400),
        ("/api/v1/query", &form, b"query=%f", 400),
        ("/api/v1/query", &form, b"query=a;b=c", 400),
        ("/api/v1/query", &form, b"query=\xff\xfe", 400),
        ("/api/v1/query", &form, b"query=%ff", 400),
        ("/api/v1/query", &[("Content-Type", "\u{e9}/\u{e9}")], b"query=1", 400),
        ("/api/v1/query", &[("Content-Type", "application/json")], b"{\"query\":\"1\"}", 400),
        ("/api/v1/write", &[], b"", 400),
        ("/api/v1/write", &[("Content-Type", "text/plain")], b"up 1", 415),
        (
            "/api/v1/write",
            &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")],
            b"\x1f\x8b",
            415,
        ),
        (
            "/api/v1/write",
            &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")],
            b"\xff\xff\xff\xff\xff\xff",
            400,
        ),
        (
            "/api/v1/write",
            &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")],
            // Twelve bytes are promised, a field of nine more begins, and there are three.
            b"\x03\x08\x0a\x09a",
            400,
        ),
        (
            "/api/v1/write",
            &[
                ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v3.Request"),
                ("Content-Encoding", "snappy"),
            ],
            b"\x00",
            415,
        ),
        ("/api/v1/read", &[("Content-Encoding", "snappy")], b"\x05abc", 400),
        ("/api/v1/read", &[], b"not snappy", 400),
        ("/api/v1/otlp/v1/metrics", &[("Content-Type", "text/plain")], b"x", 400),
        ("/api/v1/otlp/v1/metrics", &[("Content-Type", "application/json")], b"{", 400),
        (
            "/api/v1/otlp/v1/metrics",
            &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")],
            b"no gzip",
            400,
        ),
    ] {
        let answer = post(&server, path, headers, body.to_vec()).await;
        let shown = String::from_utf8_lossy(body);
        assert_eq!(answer.status, expected, "{path} {headers:?} {shown}: {answer:?}");
        assert!(!answer.text.trim().is_empty(), "{path} {headers:?} {shown}");
        if path == "/api/v1/query" {
            assert_eq!(answer.json()["errorType"], "bad_data", "{shown}");
        }
    }
    served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn too_much_is_refused_before_it_is_kept() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVE).await;
    let long = "x".repeat(11 << 20);
    let answer = post(&server, "/api/v1/query", &[("Content-Type", FORM)], long.into_bytes()).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.text.contains("at most 10485760 bytes"), "{answer:?}");
    // A few bytes that say that they are four gigabytes.
    let bomb = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, b'a'];
    for (path, kind) in
        [("/api/v1/write", "application/x-protobuf"), ("/api/v1/read", "application/x-protobuf")]
    {
        let headers = [("Content-Type", kind), ("Content-Encoding", "snappy")];
        let answer = post(&server, path, &headers, bomb.clone()).await;
        assert!((400..500).contains(&answer.status), "{path} {answer:?}");
    }
    // Zeros that are a thousand times smaller when packed.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        std::io::Write::write_all(&mut packed, &zeros).unwrap();
    }
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "gzip")];
    let answer = post(&server, "/api/v1/otlp/v1/metrics", &headers, packed.finish().unwrap()).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn requests_that_are_none_get_an_answer_that_is_one() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &[]).await;
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    let long_header = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(2 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(5_000));
    for (head, expected) in [
        ("GET /api/v1/query?query=\u{e9} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400"),
        ("GET /\u{0} HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        (&long_path, "414"),
        (&long_header, "431"),
        (&many_headers, "431"),
        ("nonsense\r\n\r\n", "400"),
        ("GET / HTTP/9.9\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\nA\u{0}: b\r\n\r\n", "400"),
        ("POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400"),
        (
            "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "400",
        ),
        // Two ways to tell the length: the last request of the connection at best.
        (
            "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /-/quit HTTP/1.1\r\n\r\n",
            "400",
        ),
        (
            "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "400",
        ),
        ("\u{16}\u{3}\u{1}\u{0}\u{5}hello", "400"),
    ] {
        let line = first_line(&server, head.as_bytes()).await;
        let shown: String = head.chars().take(80).collect();
        assert!(line.starts_with(&format!("HTTP/1.1 {expected}")), "{shown:?}: {line:?}");
    }
    served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_stop_short_change_nothing() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", RECEIVE).await;
    let address = server.url.strip_prefix("http://").unwrap();
    for path in ["/api/v1/query", "/api/v1/write", "/api/v1/read", "/api/v1/otlp/v1/metrics"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 100\r\n\r\nquery=1"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
    }
    served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn the_slow_are_told_so_or_left() {
    let dir = TestDir::new();
    let flags = [RECEIVE, &["--web.read-timeout=1s"]].concat();
    let server = TestServer::start(&dir, "", &flags).await;
    // Nothing at all, half a head, and a second request that never comes: the connection ends.
    for (sent, expected) in [
        ("", ""),
        ("GET /api/v1/query?query=1 HTT", ""),
        ("GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"),
    ] {
        let answer = raw(&server, sent.as_bytes()).await;
        assert!(answer.starts_with(expected), "{sent:?}: {answer:?}");
        assert_eq!(answer.is_empty(), expected.is_empty(), "{sent:?}: {answer:?}");
    }
    // Half a body: an answer.
    for path in ["/api/v1/query", "/api/v1/write", "/api/v1/read", "/api/v1/otlp/v1/metrics"] {
        let kind = if path == "/api/v1/query" { FORM } else { "application/x-protobuf" };
        let encoding = if path.contains("otlp") { "identity" } else { "snappy" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n\
             Content-Encoding: {encoding}\r\nContent-Length: 100\r\n\r\nquery=1"
        );
        let line = first_line(&server, head.as_bytes()).await;
        assert!(line.starts_with("HTTP/1.1 408"), "{path}: {line:?}");
    }
    served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn who_comes_too_much_waits_and_is_served_when_others_left() {
    let dir = TestDir::new();
    let flags = ["--web.max-connections=8", "--web.read-timeout=1h"];
    let server = TestServer::start(&dir, "", &flags).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        // Answered, so that it is sure to have one of the places.
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut waits = TcpStream::connect(&address).await.unwrap();
    waits.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    let early = tokio::time::timeout(Duration::from_millis(200), waits.read_exact(&mut first));
    assert!(early.await.is_err(), "there was no place left");
    held.pop();
    tokio::time::timeout(PATIENCE, waits.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop((held, waits));
    server.stop().await;
}

/// Bytes in memory of a process, from its own metrics.
async fn resident(address: &str) -> u64 {
    let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
    let text = text.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.unwrap().parse::<f64>().unwrap() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_cost_little_and_others_are_served() {
    const CONNECTIONS: usize = 10_000;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if most < CONNECTIONS as u64 + 500 {
        eprintln!("skipped: no more than {most} files may be open");
        return;
    }
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let dir = TestDir::new();
    let address = free_address();
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, "").unwrap();
    let _server = Running::start(
        Command::new(env!("CARGO_BIN_EXE_stint"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--web.max-connections={}", CONNECTIONS + 100)),
    );
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..600 {
        tick.tick().await;
        let ready = reqwest::get(format!("http://{address}/-/ready")).await;
        if ready.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
    }
    let before = resident(&address).await;
    let mut held = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(&address));
        let mut stream = connected.await.unwrap().unwrap();
        // Half of them keep still, half have begun to say something.
        if number % 2 == 0 {
            stream.write_all(b"GET /api/v1/query?query=").await.unwrap();
        }
        held.push(stream);
    }
    let asked = reqwest::get(format!("http://{address}/api/v1/query?query=1"));
    let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let during = resident(&address).await;
    let each = during.saturating_sub(before) / CONNECTIONS as u64;
    assert!(each < 24 << 10, "{each} bytes for a connection");
    drop(held);
    let answer = reqwest::get(format!("http://{address}/api/v1/query?query=1")).await.unwrap();
    assert_eq!(answer.status(), 200);
}
