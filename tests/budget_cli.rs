//! `stint budget`, `stint budget plan` and `stint health` beside a server.

use std::process::Command;

use crate::support::{TestDir, TestServer};

const RECEIVER: &[&str] = &["--web.enable-remote-write-receiver"];
const CONFIG: &str = "remote_write: [{url: 'http://127.0.0.1:9/', name: cloud}]\n";
const RULES: &str = "groups: [{name: g, rules: [{record: 'job:m:sum', expr: sum by (job) (m)}, \
                     {alert: A, expr: m > 1, labels: {severity: page}}]}]\n";

/// Exit code and output of the real program.
async fn stint(dir: &TestDir, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stint"));
    command.args(arguments).current_dir(dir.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_plan_counts_what_is_stored_and_what_rules_make_of_it() {
    let dir = TestDir::new();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("prometheus.yml", CONFIG);
    file("rules.yml", RULES);
    file("six.toml", "[budget]\nseries = 6\nreserve = 0\n");
    file("seven.toml", "[budget]\nseries = 7\nreserve = 0\n");
    let server = TestServer::start(&dir, CONFIG, RECEIVER).await;
    let series = |n: &'static str| [("__name__", "m"), ("job", "j"), ("n", n)];
    let (one, two) = (series("1"), series("2"));
    assert_eq!(server.write(&[(&one, &[(0, 5.0)]), (&two, &[(0, 6.0)])]).await.status, 204);
    // Two stored, one recorded, two for each of the two alerts.
    let plan = ["budget", "plan", "--rule-file=rules.yml", "--retention.file"];
    let url = server.url.clone();
    let (code, text) = stint(&dir, &[&plan[..], &["seven.toml", "--server", &url]].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("series  2 → 7 of 7, no room for 0"), "{text}");
    let (code, text) = stint(&dir, &[&plan[..], &["six.toml", "--server", &url]].concat()).await;
    assert_eq!(code, Some(3), "{text}");
    let (code, text) = stint(&dir, &["budget", "--server", &url, "--format=json"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"name\": \"cloud\""), "{text}");
    assert_eq!(stint(&dir, &["health", "--ready", "--server", &url]).await.0, Some(0));
    server.stop().await;

    let (code, text) = stint(&dir, &["health", "--server", &url]).await;
    assert!(code == Some(1) && text.contains("cannot ask"), "{text}");
    let stored = ["seven.toml", "--storage.tsdb.path=data", "--format=json"];
    let (code, text) = stint(&dir, &[&plan[..], &stored].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["endpoints"][0]["series"]["after"], 7, "{text}");
    let (code, text) = stint(&dir, &[&plan[..], &["seven.toml", "--server", &url]].concat()).await;
    assert!(code == Some(1) && text.contains("is the server running there"), "{text}");
    assert_eq!(stint(&dir, &["budget", "plan", "--replicas=0"]).await.0, Some(2));
    let (code, text) = stint(&dir, &["budget", "--watch", "--server", &url]).await;
    assert!(code == Some(1) && text.contains("needs a terminal"), "{text}");
}

#[tokio::test]
async fn queries_that_were_asked_are_known_after_a_restart() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, CONFIG, RECEIVER).await;
    for query in ["sum(m)", "sum(m)", "sum("] {
        server.post("/api/v1/query", &[("query", query)]).await;
    }
    server.get("/federate?match[]=n").await;
    let usage = server.get("/api/v1/status/budget").await.data()["usage"].clone();
    assert_eq!((&usage["queries"], &usage["conclusive"]), (&2.into(), &false.into()));
    server.stop().await;
    let server = TestServer::start(&dir, CONFIG, RECEIVER).await;
    assert_eq!(server.get("/api/v1/status/budget").await.data()["usage"], usage);
    server.stop().await;
}

#[tokio::test]
async fn a_plan_knows_what_a_server_was_asked() {
    let dir = TestDir::new();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("prometheus.yml", CONFIG);
    file("new.toml", "[budget]\nseries = 3\nreserve = 0\n");
    let server = TestServer::start(&dir, CONFIG, RECEIVER).await;
    let series = |name: &'static str, n: &'static str| [("__name__", name), ("n", n)];
    for name in ["a", "z"] {
        for n in ["1", "2", "3"] {
            assert_eq!(server.write(&[(&series(name, n), &[(0, 5.0)])]).await.status, 204);
        }
    }
    let url = server.url.clone();
    let of_server =
        ["budget", "plan", "--format=json", "--retention.file=new.toml", "--server", &url];
    let sent = |text: &str| -> Vec<String> {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let metrics = json["endpoints"][0]["metrics"].as_array().unwrap().clone();
        let withheld = json["endpoints"][0]["withheld"].as_array().unwrap().clone();
        assert!(metrics.is_empty(), "{text}");
        withheld.iter().map(|row| row["metric"].as_str().unwrap().to_owned()).collect()
    };
    let (code, text) = stint(&dir, &of_server).await;
    assert_eq!((code, sent(&text)), (Some(3), vec!["z".to_owned()]), "{text}");
    // Somebody asks for the other one: it comes first.
    server.get("/api/v1/query?query=sum(z)").await;
    let asked = server.get("/api/v1/status/usage").await.data();
    assert_eq!(asked["queries"][0]["query"], "sum(z)", "{asked}");
    assert_eq!(asked["queries"][0]["count"], 1, "{asked}");
    let (code, text) = stint(&dir, &of_server).await;
    assert_eq!((code, sent(&text)), (Some(3), vec!["a".to_owned()]), "{text}");
    server.stop().await;
    let of_folder = [&of_server[..4], &["--storage.tsdb.path=data"]].concat();
    let (code, text) = stint(&dir, &of_folder).await;
    assert_eq!((code, sent(&text)), (Some(3), vec!["a".to_owned()]), "{text}");
    // Where queries are not to be remembered they do not count.
    file("new.toml", "[budget]\nseries = 3\nreserve = 0\n[usage]\nqueries = false\n");
    let (_, text) = stint(&dir, &of_folder).await;
    assert_eq!(sent(&text), ["z"]);
}
