//! The command line: exit codes and what is said on standard error.

use std::process::Command;

use crate::support::TestDir;

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
