//! Prometheus' own test scripts, where they are at hand.

use std::path::PathBuf;

use stint_promql::script::{Script, conformance_options};

/// Evaluations that pass in each script, as measured; none may be lost.
const PASSES: [(&str, usize); 0] = [];

fn folder() -> PathBuf {
    let shared = std::env::var_os("STINT_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    shared.join("promqltest")
}

#[test]
fn scripts_of_prometheus_pass() {
    let folder = folder();
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no scripts in {}", folder.display());
        return;
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    paths.sort();
    let (mut all_passed, mut all_total) = (0, 0);
    let mut lost = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut options = conformance_options();
        options.type_and_unit_labels = name == "type_and_unit.test";
        let script = match Script::parse(&text) {
            Ok(script) => script,
            Err(error) => panic!("{name}: {error}"),
        };
        let outcomes = script.run(&options).unwrap();
        let passed = outcomes.iter().filter(|outcome| outcome.failure.is_none()).count();
        println!("{name:28} {passed:4} / {:4}", outcomes.len());
        for outcome in &outcomes {
            if let Some(failure) = &outcome.failure {
                println!("    {name}:{} {}\n        {failure}", outcome.line, outcome.expr);
            }
        }
        let expected = PASSES.iter().find(|(script, _)| *script == name).map_or(0, |(_, n)| *n);
        if passed < expected {
            lost.push(format!("{name}: {passed} pass, {expected} did"));
        }
        all_passed += passed;
        all_total += outcomes.len();
    }
    println!("{:28} {all_passed:4} / {all_total:4}", "together");
    assert!(lost.is_empty(), "{lost:#?}");
}
