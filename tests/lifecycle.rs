//! Starting, reloading and stopping.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;

use crate::support::{TestDir, TestServer};

#[tokio::test]
async fn a_reload_changes_how_much_is_kept() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &["--web.enable-lifecycle"]).await;
    let retention =
        async || server.get("/api/v1/status/runtimeinfo").await.data()["storageRetention"].take();
    assert_eq!(retention().await, "1w");
    // There was no such file when the server was started.
    std::fs::write(dir.path().join("retention.toml"), "[retention]\ntime = \"2d\"\n").unwrap();
    let exemplars = "storage: {exemplars: {max_exemplars: 7}}\n";
    std::fs::write(dir.path().join("prometheus.yml"), exemplars).unwrap();
    assert_eq!(server.post("/-/reload", &[]).await.status, 200);
    assert_eq!(retention().await, "2d");
    let metrics = server.get("/metrics").await.text;
    for line in [
        "prometheus_tsdb_exemplar_max_exemplars 7\n",
        "prometheus_tsdb_retention_limit_seconds 172800\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    server.stop().await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_reload_that_hangs() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &["--web.enable-lifecycle"]).await;
    // Reading it waits for somebody who writes.
    let file = dir.path().join("retention.toml");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let reload = tokio::spawn(server.request(Method::POST, "/-/reload").send());
    // Once it can be opened for writing, the reload reads.
    let writer = tokio::task::spawn_blocking(move || {
        std::fs::OpenOptions::new().write(true).open(file).unwrap()
    });
    let writer = writer.await.unwrap();
    tokio::time::timeout(Duration::from_mins(1), server.stop()).await.expect("it stops");
    let answer = reload.await.unwrap().unwrap();
    assert_eq!(answer.status(), 500);
    assert!(answer.text().await.unwrap().contains("the server is stopping"));
    drop(writer);
}

#[tokio::test]
async fn the_metrics_of_the_server_are_documented() {
    let dir = TestDir::new();
    let job = "scrape_configs: [{job_name: a, static_configs: [{targets: ['127.0.0.1:1']}]}]\n";
    let server = TestServer::start(&dir, job, &[]).await;
    server.get("/api/v1/query?query=1").await.data();
    let metrics = server.get("/metrics").await.text;
    let documented = include_str!("../docs/metrics.md");
    let prefixes = ["target", "sd", "tsdb", "engine", "http", "config"];
    let families: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| prefixes.iter().any(|part| name.starts_with(&format!("prometheus_{part}"))))
        .collect();
    assert!(families.contains(&"prometheus_engine_query_duration_seconds"), "{families:?}");
    for family in families {
        let is_there = ["`", "{"].iter().any(|end| documented.contains(&format!("`{family}{end}")));
        assert!(is_there, "{family} is missing in docs/metrics.md");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_folder_of_a_prometheus_server_is_used_and_left_as_it_is() {
    let dir = TestDir::new();
    let block = dir.path().join("data/01KB03MT3JDWSMZ7NWTCN9A5QX");
    std::fs::create_dir_all(&block).unwrap();
    std::fs::create_dir_all(dir.path().join("data/wal")).unwrap();
    for (file, text) in [("meta.json", "{}"), ("../wal/00000000", "log"), ("../lock", "")] {
        std::fs::write(block.join(file), text).unwrap();
    }
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(dir.path().join(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let series: &[(&str, &str)] = &[("__name__", "x")];
    for value in [1.0, 2.0] {
        let flags = ["--web.enable-remote-write-receiver"];
        let server = TestServer::start(&dir, "", &flags).await;
        assert_eq!(server.write(&[(series, &[(value as i64, value)])]).await.status, 204);
        let found = server.get("/api/v1/query?query=count_over_time(x[1m])&time=1767225603").await;
        assert_eq!(found.data()["result"][0]["value"][1], value.to_string());
        server.stop().await;
        assert_eq!(names("data"), ["01KB03MT3JDWSMZ7NWTCN9A5QX", "lock", "stint", "wal"]);
        assert_eq!(names("data/wal"), ["00000000"]);
    }
    assert_eq!(std::fs::read(dir.path().join("data/wal/00000000")).unwrap(), b"log");
}
