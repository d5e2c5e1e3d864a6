//! Prometheus' own test scripts, where they are at hand.

use std::path::PathBuf;

use stint_promql::script::{Script, conformance_options};

/// Evaluations that pass in each script, as measured; none may be lost.
const PASSES: [(&str, usize); 21] = [
    ("aggregators.test", 160),
    ("at_modifier.test", 78),
    ("collision.test", 2),
    ("duration_expression.test", 59),
    ("extended_vectors.test", 169),
    ("fill-modifier.test", 46),
    ("functions.test", 431),
    ("histograms.test", 185),
    ("info.test", 53),
    ("limit.test", 37),
    ("literals.test", 25),
    ("name_label_dropping.test", 30),
    ("native_histograms.test", 522),
    ("operators.test", 214),
    ("range_queries.test", 18),
    ("selectors.test", 31),
    ("staleness.test", 17),
    ("start_timestamps.test", 26),
    ("subquery.test", 34),
    ("trig_functions.test", 19),
    ("type_and_unit.test", 58),
];

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
