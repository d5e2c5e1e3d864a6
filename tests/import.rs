//! `stint import`, from outside.

use std::process::{Command, Output};

use crate::support::TestDir;

fn stint(dir: &TestDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stint"))
        .args(arguments)
        .current_dir(dir.path())
        .output()
        .unwrap()
}

/// Exit code, standard output, standard error.
fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_nobody_would_keep_is_told_and_left_out() {
    let dir = TestDir::new();
    std::fs::write(dir.path().join("old.om"), "# TYPE a gauge\na 1 1000\na 2 2000\n# EOF\n")
        .unwrap();
    let (code, report, errors) = told(stint(&dir, &["import", "old.om"]));
    assert_eq!((code, &*report), (Some(0), "0 samples imported\n"));
    assert!(errors.contains("data is kept for 1w: samples before"), "{errors}");
    let keep = ["import", "old.om", "--storage.tsdb.retention.time=100y", "--again"];
    let (code, report, errors) = told(stint(&dir, &keep));
    assert_eq!((code, &*report), (Some(0), "2 samples imported\n"), "{errors}");
    let (code, _, errors) = told(stint(&dir, &["import", "elsewhere"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("cannot read elsewhere"), "{errors}");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let (code, _, errors) = told(stint(&dir, &["import", "empty"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("empty is no Prometheus data folder"), "{errors}");
    let (code, _, errors) = told(stint(&dir, &["import", "data"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("data is a data folder of Stint"), "{errors}");
}
