//! The command line: exit codes and what is said on standard error.

use std::process::Command;

use crate::support::{TestDir, TestServer};

/// Runs the program in `dir`; its exit code and standard error.
fn run(dir: &TestDir, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stint"))
        .args(arguments)
        .current_dir(dir.path())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_flag_that_would_be_missed_is_refused_with_the_reason() {
    let (code, told) = run(&TestDir::new(), &["--agent"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("flag --agent is not supported: there is no agent mode"), "{told}");
}

#[test]
fn an_unknown_flag_is_refused() {
    let (code, told) = run(&TestDir::new(), &["--web.listen-adress=:1"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("--web.listen-address"), "a similar flag is offered: {told}");
}

#[test]
fn a_wrong_configuration_is_told_with_its_line() {
    let dir = TestDir::new();
    std::fs::write(dir.path().join("prometheus.yml"), "global: {}\nscrape_config: []\n").unwrap();
    let (code, told) = run(&dir, &["--web.listen-address=127.0.0.1:0"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("prometheus.yml:2:"), "{told}");
}

#[tokio::test]
async fn inspect_verifies_what_a_server_left_and_names_what_was_damaged_since() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &["--web.enable-remote-write-receiver"]).await;
    let labels: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];
    assert_eq!(server.write(&[(labels, &[(0, 1.0), (15, 0.0)])]).await.status, 204);
    let inspect = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_stint"))
            .args([&["inspect", "--storage.tsdb.path=data"], more].concat())
            .current_dir(dir.path())
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    };
    let (code, told) = inspect(&["--verify"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("a server has data open"), "{told}");
    let (code, told) = inspect(&[]);
    assert_eq!(code, Some(0), "listing needs nobody to stop: {told}");
    server.stop().await;

    let (code, told) = inspect(&["--verify", "--format=json"]);
    assert_eq!(code, Some(0), "{told}");
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    let verified = &report["verified"];
    assert_eq!(verified["findings"], serde_json::json!([]));
    assert_eq!((&verified["checkpoints"], &verified["log_samples"]), (&1.into(), &0.into()));
    assert!(verified["checkpoint_samples"].as_u64() >= Some(2), "{told}");

    // A clean stop leaves nothing in the log that would be read: all is in its checkpoint.
    let files = std::fs::read_dir(dir.path().join("data/wal")).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    let is_checkpoint = |path: &std::path::PathBuf| path.to_string_lossy().contains("checkpoint.");
    let file = files.find(is_checkpoint).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (code, told) = inspect(&["--verify"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("damaged: wal/checkpoint."), "{told}");
}

#[test]
fn inspect_of_a_directory_without_a_database_says_so_and_creates_nothing() {
    let dir = TestDir::new();
    let (code, told) = run(&dir, &["inspect", "--storage.tsdb.path=elsewhere"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("elsewhere holds no database"), "{told}");
    assert!(!dir.path().join("elsewhere").exists());
}

/// The last line that the program says when it cannot start.
fn refusal(dir: &TestDir, arguments: &[&str]) -> String {
    let (code, told) = run(dir, arguments);
    assert_eq!(code, Some(1), "{told}");
    assert!(!told.contains("listening"), "nobody is answered before: {told}");
    told.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_data_folder_that_cannot_be_used_is_told_once_with_what_to_do() {
    let dir = TestDir::new();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let flags = ["--web.listen-address=127.0.0.1:0", "--storage.tsdb.path=file"];
    assert_eq!(
        refusal(&dir, &flags),
        "stint: error: cannot use the data folder file: create directory file: File exists (os \
         error 17); it has to be a folder; choose another one with --storage.tsdb.path"
    );
}

#[tokio::test]
async fn a_second_server_needs_a_folder_and_a_port_of_its_own() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &[]).await;
    let listen = format!("--web.listen-address={}", server.url.trim_start_matches("http://"));
    assert_eq!(
        refusal(&dir, &[&listen, "--storage.tsdb.path=other"]),
        format!(
            "stint: error: cannot listen on {}: Address already in use (os error 98); stop the \
             server that runs there, or choose another address with --web.listen-address",
            server.url.trim_start_matches("http://")
        )
    );
    let (code, told) = run(&dir, &["--web.listen-address=127.0.0.1:0", "--storage.tsdb.path=data"]);
    assert_eq!(code, Some(1));
    assert!(
        told.ends_with(
            "stint: error: cannot open the store in the data folder data: it is in use by another \
             process; each server needs a data folder of its own (--storage.tsdb.path)\n"
        ),
        "{told}"
    );
    server.stop().await;
}

#[tokio::test]
async fn query_asks_a_server_and_explains_without_one() {
    let dir = TestDir::new();
    let server = TestServer::start(&dir, "", &["--web.enable-remote-write-receiver"]).await;
    let labels: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];
    assert_eq!(server.write(&[(labels, &[(0, 1.0), (15, 0.0)])]).await.status, 204);
    let url = server.url.clone();
    let query = move |arguments: Vec<String>| {
        let url = url.clone();
        let run = move || {
            let output = Command::new(env!("CARGO_BIN_EXE_stint"))
                .args(["query", "--server", &url])
                .args(arguments)
                .output()
                .unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        // The server lives in this process and has to answer meanwhile.
        async { tokio::task::spawn_blocking(run).await.unwrap() }
    };
    let at = |seconds: i64| (crate::support::NOW.0 / 1000 + seconds).to_string();
    let (code, told, errors) = query(vec![format!("--time={}", at(0)), "up".into()]).await;
    let expected = format!("up{{job=\"a\"}} => 1 @[{}]\n", at(0));
    assert_eq!((code, told, errors), (Some(0), expected, String::new()));
    let range = ["start", "end"].map(|name| format!("--{name}={}", at(15)));
    let (code, told, errors) =
        query([&range[..], &["--step=15s".into(), "rate(up[1m])".into()]].concat()).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.starts_with("{job=\"a\"} =>\n"), "{told}");
    assert!(errors.contains("metric might not be a counter"), "{errors}");
    let (code, _, errors) = query(vec!["up +".into()]).await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("1:5: parse error: unexpected end of input"), "{errors}");
    server.stop().await;
    let (code, told, _) = query(vec!["--explain".into(), "sum(up)".into()]).await;
    assert_eq!(code, Some(0));
    assert_eq!(
        told,
        "sum  [folded while reading]\n  read up  [newest samples, any order, labels of groups only]\n"
    );
}

/// Runs the program with something on its standard input.
fn run_with(dir: &TestDir, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_stint"))
        .args(arguments)
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn metrics_are_checked_with_the_exit_codes_of_promtool() {
    let check = |text: &str| run_with(&TestDir::new(), &["check", "metrics"], text);
    let (code, _, told) = check("# HELP a_total x\n# TYPE a_total counter\na_total 1\n");
    assert_eq!((code, &*told), (Some(0), ""));
    let (code, _, told) = check("# TYPE a counter\na 1\n");
    assert_eq!(code, Some(3));
    assert_eq!(told, "a counter metrics should have \"_total\" suffix\na no help text\n");
    let (code, _, told) = check("a{\n");
    assert_eq!(code, Some(1));
    assert!(told.contains("line 1"), "{told}");
}

#[test]
fn a_shell_gets_completions() {
    let (code, told, _) = run_with(&TestDir::new(), &["completions", "bash"], "");
    assert_eq!(code, Some(0));
    assert!(told.contains("dump-openmetrics") && told.contains("--storage.tsdb.path"));
}

#[test]
fn what_was_imported_is_listed_dumped_and_copied() {
    let dir = TestDir::new();
    let text = "# TYPE up gauge\nup{job=\"a\"} 1 1000\nup{job=\"a\"} 0.5 2000.5\n# EOF\n";
    std::fs::write(dir.path().join("in.om"), text).unwrap();
    let import = ["import", "in.om", "--storage.tsdb.retention.time=100y"];
    assert_eq!(run_with(&dir, &import, "").0, Some(0));
    let (code, told, errors) = run_with(&dir, &["tsdb", "dump-openmetrics"], "");
    assert_eq!((code, &*errors), (Some(0), ""));
    assert_eq!(told, "up{job=\"a\"} 1 1000.000\nup{job=\"a\"} 0.5 2000.500\n# EOF\n");
    let (code, told, _) = run_with(&dir, &["tsdb", "dump", "--min-time=2000000"], "");
    assert_eq!((code, &*told), (Some(0), "{__name__=\"up\", job=\"a\"} 0.5 2000500\n"));
    let (code, told, _) = run_with(&dir, &["tsdb", "analyze", "--format=json"], "");
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &report["samples"]), (Some(0), &2.into()));
    let (code, told, errors) = run_with(&dir, &["snapshot", "copy"], "");
    assert_eq!((code, &*told), (Some(0), "data/snapshots/copy\n"), "{errors}");
    for arguments in [["tsdb", "list"], ["tsdb", "verify"]] {
        let (code, told, _) =
            run_with(&dir, &[&arguments[..], &["data/snapshots/copy"]].concat(), "");
        assert_eq!(code, Some(0));
        assert!(told.contains("1 blocks: 2 samples"), "{told}");
    }
    let (code, _, errors) = run_with(&dir, &["tsdb", "dump", "elsewhere"], "");
    assert_eq!(code, Some(1));
    assert!(errors.contains("elsewhere holds no database"), "{errors}");
}
