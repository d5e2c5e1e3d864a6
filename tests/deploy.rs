//! What is shipped beside the server: alert rules and the dashboard ask for what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use stint::api::forward_metrics;
use stint::config::unit_test::UnitTestFile;
use stint::usage::expression::Name;
use stint::usage::needs::Needs;
use stint::usage::{Known, Source, dashboards, rules};

use crate::support::{TestDir, TestServer};

/// What services show: by the names of Prometheus clients, and by the conventions of OpenTelemetry as OTLP is translated.
const OF_SERVICES: &[(&str, &[&str])] = &[
    ("http_requests_total", &["service", "environment", "method", "endpoint", "status_code"]),
    ("http_request_duration_seconds_bucket", &["service", "environment", "endpoint", "le"]),
    ("ai_requests_total", &["service", "environment", "model", "provider"]),
    ("ai_tokens_total", &["service", "environment", "model", "token_type"]),
    ("ai_cost_total", &["service", "environment", "model"]),
    (
        "http_server_request_duration_seconds_count",
        &["deployment_environment", "http_response_status_code", "http_route"],
    ),
    ("http_server_request_duration_seconds_bucket", &["deployment_environment", "le"]),
    (
        "gen_ai_client_operation_duration_seconds_count",
        &["deployment_environment", "gen_ai_request_model", "error_type"],
    ),
    (
        "gen_ai_client_operation_duration_seconds_bucket",
        &["deployment_environment", "gen_ai_request_model", "le"],
    ),
    (
        "gen_ai_client_token_usage_sum",
        &["deployment_environment", "gen_ai_request_model", "gen_ai_token_type"],
    ),
];

/// Everything in `deploy/` that holds expressions.
fn shipped() -> Vec<Known> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut all = Vec::new();
    for (folder, read) in [
        ("rules", rules::read as fn(&str) -> Result<Vec<Known>, String>),
        ("grafana", dashboards::read),
    ] {
        let files = std::fs::read_dir(deploy.join(folder)).unwrap();
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.retain(|path| path.is_file());
        paths.sort();
        assert!(!paths.is_empty(), "{folder}");
        for path in paths {
            let text = std::fs::read_to_string(&path).unwrap();
            all.extend(read(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        }
    }
    all
}

/// The name of a rule, without its group.
fn rule_name(known: &Known) -> &str {
    known.what.rsplit(" / ").next().unwrap()
}

/// Metrics that a running server shows, with their labels, and those of scrapes.
async fn shown() -> BTreeMap<String, BTreeSet<String>> {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &["--web.enable-remote-write-receiver"]).await;
    let text = server.get("/metrics").await.text;
    server.stop().await;
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            metrics.entry(rest.split(' ').next().unwrap().to_owned()).or_default();
            continue;
        }
        let Some((name, rest)) = line.split_once('{') else { continue };
        let labels = rest.rsplit_once('}').unwrap().0;
        let names = labels.split("\",").map(|pair| pair.split('=').next().unwrap().to_owned());
        metrics.entry(name.to_owned()).or_default().extend(names);
    }
    for (name, labels) in forward_metrics::families() {
        metrics.entry(name.to_owned()).or_default().extend(labels.into_iter().map(str::to_owned));
    }
    for (name, labels) in OF_SERVICES {
        let labels = labels.iter().map(|label| (*label).to_owned());
        metrics.entry((*name).to_owned()).or_default().extend(labels);
    }
    for name in shipped().iter().map(rule_name).filter(|name| name.contains(':')) {
        // What rules record, with the labels that they give it.
        let labels = ["service", "environment", "model", "gen_ai_request_model", "convention"];
        let labels = labels.iter().map(|label| (*label).to_owned());
        metrics.entry(name.to_owned()).or_default().extend(labels);
    }
    for name in ["up", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling"] {
        metrics.entry(name.to_owned()).or_default();
    }
    metrics
}

#[tokio::test]
async fn shipped_expressions_are_valid_and_ask_for_what_is_shown() {
    let shown = shown().await;
    let shipped = shipped();
    assert!(shipped.len() > 50, "{}", shipped.len());
    for known in &shipped {
        assert_eq!(known.unread, None, "{}: {}", known.what, known.expr);
        for used in &known.uses {
            let Name::Is(metric) = &used.name else { panic!("{}: {}", known.what, known.expr) };
            let labels =
                shown.get(metric).unwrap_or_else(|| panic!("{}: no {metric} is shown", known.what));
            let Needs::Only(needed) = &used.needs else { continue };
            for label in needed {
                let is_there = labels.contains(label) || label == "job" || label == "instance";
                assert!(is_there, "{}: {metric} has no label {label}", known.what);
            }
        }
    }
}

#[test]
fn every_shipped_alert_is_seen_firing_in_a_unit_test() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/rules");
    let files = std::fs::read_dir(rules.join("tests")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let tested = Command::new(env!("CARGO_BIN_EXE_stint"))
        .args(["test", "rules"])
        .args(&files)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&tested.stdout), text(&tested.stderr));
    assert!(tested.status.success(), "{out}{errors}");
    assert_eq!(out.matches("SUCCESS").count(), files.len(), "{out}");
    let mut firing = BTreeSet::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let file = UnitTestFile::parse(file, &text).unwrap();
        for test in file.tests.into_iter().flat_map(|test| test.alerts) {
            if !test.expected.is_empty() {
                firing.insert(test.alertname);
            }
        }
    }
    let shipped = shipped();
    let rules = shipped.iter().filter(|known| known.source == Source::Rule).map(rule_name);
    let alerts: Vec<_> = rules.filter(|name| !name.contains(':')).collect();
    assert!(alerts.len() > 30, "{alerts:?}");
    for alert in alerts {
        assert!(firing.contains(alert), "no test shows {alert} firing");
    }
}

#[test]
fn the_configuration_of_the_compose_file_is_valid() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/stint");
    let files = stint::config::Files {
        prometheus: Some(&deploy.join("prometheus.yml")),
        retention: Some(&deploy.join("retention.toml")),
        own_address: "localhost:9090",
        expand_env: false,
    };
    let config = stint::config::load(files).unwrap();
    let cloud = &config.remote_write[0];
    assert_eq!((cloud.budget.series, cloud.budget.classes.len()), (Some(10_000), 1));
    assert_eq!(config.usage.dashboards.len(), 1);
}

#[test]
fn alerts_name_each_other_apart_and_dashboards_have_their_places() {
    let shipped = shipped();
    let mut names = BTreeSet::new();
    for known in shipped.iter().filter(|known| known.what.starts_with("stint-")) {
        assert!(names.insert(&known.what), "{} twice", known.what);
    }
    assert!(names.len() >= 20);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/stint.json");
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in json["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
    }
}

#[tokio::test]
async fn the_pages_are_whole_and_load_nothing() {
    let dir = TestDir::new();
    let config = "remote_write: [{url: 'http://127.0.0.1:9/<b>', name: cloud}]\n\
                  scrape_configs: [{job_name: '<b>', static_configs: [{targets: ['127.0.0.1:9']}]}]\n\
                  rule_files: [rules.yml]\n";
    let rules = "groups: [{name: g, rules: [{alert: Less, expr: 'vector(1) < 2', \
                 annotations: {summary: <b>cloud}}]}]\n";
    std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
    std::fs::write(dir.path().join("retention.toml"), "[budget]\nseries = 100\n").unwrap();
    let server = TestServer::start(&dir, config, &["--web.route-prefix=/x"]).await;
    for (path, part) in [
        ("/x/", "/x/budget"),
        ("/x/budget", "Series in use"),
        ("/x/query", "Evaluate"),
        (
            "/x/query?g0.expr=vector(1)%3C2&g0.moment_input=2023-11-14+22:13:20",
            "<td class=\"n\">1</td>",
        ),
        ("/x/graph?g0.expr=42&g0.tab=1", "<b>42</b>"),
        ("/x/rules", "vector(1) &lt; 2"),
        ("/x/alerts", "/x/graph?g0.expr=vector%281%29+%3C+2&amp;g0.tab=1"),
        ("/x/targets", "http://127.0.0.1:9/metrics"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text.starts_with("<!doctype html>") && answer.text.contains(part));
        for word in ["<script", "src=", "http-equiv=\"set", "url(", "@import", "<b>cloud"] {
            assert!(!answer.text.contains(word), "{word} in {}", answer.text);
        }
    }
    for (query, status, told) in
        [("rate(", 400, "unclosed left parenthesis"), ("1&g0.moment_input=now", 400, "is no time")]
    {
        let answer = server.get(&format!("/x/query?g0.expr={query}")).await;
        assert_eq!(answer.status, status);
        assert!(answer.text.contains(told), "{}", answer.text);
    }
    let ranges = server.get("/x/query?g0.expr=up%5B1m%5D").await;
    assert!(ranges.status == 200 && ranges.text.contains("series"), "{}", ranges.text);
    let request = server.request(reqwest::Method::GET, "/x/budget");
    let response = request.send().await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"));
    server.stop().await;
}

#[test]
fn the_image_is_that_of_prometheus_but_for_its_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("Dockerfile")).unwrap();
    let (_, image) = text.rsplit_once("\nFROM ").unwrap();
    let said = |word: &str| {
        let line = image.lines().find_map(|line| line.strip_prefix(word));
        line.unwrap_or_else(|| panic!("no {word}")).trim()
    };
    assert_eq!(
        (said("USER "), said("WORKDIR "), said("VOLUME ")),
        ("65534", "/prometheus", "/prometheus")
    );
    assert!(said("EXPOSE ").split(' ').any(|port| port == "9090"));
    let list = |text: &str| -> Vec<String> { serde_json::from_str(text).unwrap() };
    let arguments = list(said("CMD "));
    let expected =
        ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"];
    assert_eq!(arguments, expected);
    stint::cli::flags::Flags::from_arguments(&arguments).unwrap();
    let check = said("HEALTHCHECK ");
    let command = list(check.split_once("CMD ").unwrap().1);
    assert_eq!(command, ["stint", "health"]);
    // The configuration that is there when none is mounted.
    let words = image.split_once("printf '%s\\n'").unwrap().1.split_once('>').unwrap().0;
    let lines: Vec<&str> = words.split('\'').skip(1).step_by(2).collect();
    let dir = TestDir::new();
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let files = stint::config::Files {
        prometheus: Some(&file),
        retention: None,
        own_address: "localhost:9090",
        expand_env: false,
    };
    assert_eq!(stint::config::load(files).unwrap().scrape_configs[0].job_name, "prometheus");
}

#[test]
fn what_dashboards_of_prometheus_ask_for_is_shown_or_told_to_be_absent() {
    let folder =
        std::env::var_os("STINT_SHARED").map(|folder| Path::new(&folder).join("dashboards"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        eprintln!("skipped: STINT_SHARED names no folder with dashboards");
        return;
    };
    let told = include_str!("../docs/metrics.md");
    let told: BTreeSet<&str> = told
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.contains('_'))
        .collect();
    let mut asked = BTreeSet::new();
    for name in ["prometheus-overview.json", "prometheus-remote-write.json"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        for known in dashboards::read(&text).unwrap() {
            for used in &known.uses {
                if let Name::Is(metric) = &used.name {
                    asked.insert(metric.clone());
                }
            }
        }
    }
    asked.retain(|name| name.starts_with("prometheus_"));
    assert!(asked.len() > 20, "{asked:?}");
    for name in asked {
        let ends = ["", "_sum", "_count", "_bucket"];
        let is_told =
            ends.iter().any(|end| name.strip_suffix(end).is_some_and(|name| told.contains(name)));
        assert!(is_told, "{name} is neither shown nor told to be absent in docs/metrics.md");
    }
}
