use std::path::PathBuf;

use super::*;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("stint-unit-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn outcome(name: &str, rules: &str, tests: &str) -> Result<Vec<String>, Vec<String>> {
    let folder = folder(name);
    std::fs::write(folder.join("rules.yml"), rules).unwrap();
    let file = folder.join("test.yml");
    std::fs::write(&file, tests).unwrap();
    let outcome = run(&file, &RunOptions { wanted: &|name| name != "not this one", ..plain() });
    std::fs::remove_dir_all(&folder).unwrap();
    outcome.map(failures)
}

fn plain() -> RunOptions<'static> {
    RunOptions {
        features: parse::Options::default(),
        wanted: &|_| true,
        ignore_unknown: false,
        diff: false,
        dump: false,
        warn: &|_| {},
    }
}

fn failures(tests: Vec<TestOutcome>) -> Vec<String> {
    tests.into_iter().flat_map(|test| test.failures).collect()
}

const RULES: &str = "groups:
- name: second
  rules:
  - {record: twice, expr: once * 2}
- name: first
  rules:
  - {record: once, expr: sum(up)}
  - alert: Down
    expr: up == 0
    for: 2m
    labels: {severity: page}
    annotations: {text: '{{ $labels.job }} in {{ $externalLabels.site }}'}
";

#[test]
fn rules_that_are_right_pass() {
    let tests = "rule_files: ['rule*.yml']
group_eval_order: [first, second]
tests:
- interval: 1m
  start_timestamp: 1000
  external_labels: {site: here}
  input_series:
  - {series: 'up{job=\"a\"}', values: '1 0x5'}
  - {series: 'up{job=\"b\"}', values: '1x5'}
  alert_rule_test:
  - {eval_time: 2m, alertname: Down}
  - eval_time: 3m30s
    alertname: Down
    exp_alerts:
    - exp_labels: {job: a, severity: page}
      exp_annotations: {text: a in here}
  promql_expr_test:
  - {expr: twice, eval_time: 1m, exp_samples: [{labels: twice, value: 2}]}
  - {expr: time(), eval_time: 1m, exp_samples: [{value: 1060}]}
  - {expr: timestamp(up offset -1m) > 1240, eval_time: 4m, exp_samples: []}
- name: not this one
  promql_expr_test: [{expr: up, exp_samples: [{value: 1}]}]
";
    // The sample a minute ahead of the last evaluation is not there yet.
    assert_eq!(outcome("right", RULES, tests), Ok(Vec::new()));
}

#[test]
fn what_is_wrong_is_shown_beside_what_was_expected() {
    let tests = "rule_files: [rules.yml]
tests:
- name: t
  input_series: [{series: 'up{job=\"a\"}', values: '0x5'}]
  alert_rule_test:
  - {eval_time: 5m, alertname: Down}
  promql_expr_test:
  - {expr: once, eval_time: 1m, exp_samples: [{labels: once, value: 1.5}]}
";
    assert_eq!(
        outcome("wrong", RULES, tests),
        Ok(vec![
            "    name: t,\n    alertname: Down, time: 5m, \n        exp:[], \n        got:[\n            0:\n              \
             Labels:{alertname=\"Down\", job=\"a\", severity=\"page\"}\n              Annotations:{text=\"a in \"}\n            ]"
                .to_owned(),
            "    expr: \"once\", time: 1m,\n        exp: {__name__=\"once\"} 1.5E+00\n        got: {__name__=\"once\"} 0E+00"
                .to_owned(),
        ])
    );
}

#[test]
fn floats_may_differ_by_the_last_bit_where_that_is_wanted() {
    let tests = |fuzzy: bool| {
        format!(
            "fuzzy_compare: {fuzzy}\ntests:\n- input_series: [{{series: x, values: 2.9999999999999996}}]\n  \
             promql_expr_test: [{{expr: x, exp_samples: [{{labels: x, value: 3}}]}}]\n"
        )
    };
    assert_eq!(outcome("fuzzy", "", &tests(true)).unwrap().len(), 0);
    assert_eq!(outcome("exact", "", &tests(false)).unwrap().len(), 1);
}

#[test]
fn a_failing_rule_ends_its_test() {
    let tests = "rule_files: [rules.yml]\ntests:\n- input_series: [{series: 'up{a=\"1\"}', values: 1}, {series: 'up{a=\"2\"}', values: 1}]\n  promql_expr_test: [{expr: up}]\n";
    let rules = "groups: [{name: g, rules: [{record: r, expr: up, labels: {a: ''}}]}]";
    assert_eq!(
        outcome("failing", rules, tests).unwrap(),
        [
            "    rule: r, time: 0s, err: vector contains metrics with the same labelset after applying rule labels"
        ]
    );
}

#[test]
fn differences_dumps_and_fields_of_others_are_shown_where_that_is_wanted() {
    let folder = folder("options");
    let rules = "groups: [{name: g, owner: me, rules: [{record: r, expr: up + 1}, {alert: A, expr: up, labels: {a: b}}]}]";
    std::fs::write(folder.join("rules.yml"), rules).unwrap();
    let file = folder.join("test.yml");
    let tests = "rule_files: [rules.yml]\ntests:\n- name: t\n  input_series: [{series: up, values: 1 2}]\n  \
                 alert_rule_test: [{eval_time: 1m, alertname: A, exp_alerts: [{exp_labels: {a: c}}]}]\n  \
                 promql_expr_test: [{expr: r, eval_time: 1m, exp_samples: [{labels: r, value: 4}]}]\n";
    std::fs::write(&file, tests).unwrap();
    let strict = run(&file, &plain()).unwrap();
    assert!(strict[0].failures[0].contains("unknown key `owner`"), "{strict:?}");
    let options = RunOptions { ignore_unknown: true, diff: true, dump: true, ..plain() };
    let outcome = run(&file, &options).unwrap().remove(0);
    std::fs::remove_dir_all(&folder).unwrap();
    let [alerts, samples] = &outcome.failures[..] else { panic!("{outcome:?}") };
    assert!(alerts.contains("diff:\n [\n"), "{alerts}");
    assert!(alerts.contains("[0;31m-              Labels:{a=\"c\", alertname=\"A\"}"), "{alerts}");
    assert!(samples.contains("[0;32m+{__name__=\"r\"} 3E+00"), "{samples}");
    assert_eq!(
        outcome.dump.unwrap().lines().filter(|line| line.contains("@[")).count(),
        8,
        "two samples of up, r, ALERTS and ALERTS_FOR_STATE"
    );
}

/// What a later version passes and the recorded one does not know.
const LATER: [&str; 1] = ["unit-tests/prometheus/start-time-test.yml"];

/// Where the failure is told in other words: other places in a text, another order of what is equal.
const OTHER_WORDS: [&str; 4] = [
    "unit-tests/prometheus/bad-input-series.yml",
    "unit-tests/prometheus/bad-promql.yml",
    "unit-tests/prometheus/bad-rules-error-test.yml",
    "unit-tests/prometheus/rules_run_extrafields.yml",
];

#[test]
fn real_tests_pass_as_with_promtool() {
    let Some(root) = std::env::var_os("STINT_RULE_FILES").map(PathBuf::from) else {
        eprintln!("skipped: STINT_RULE_FILES does not name a folder with verdicts.json");
        return;
    };
    let verdicts = std::fs::read_to_string(root.join("verdicts.json")).unwrap();
    let verdicts: serde_json::Value = serde_json::from_str(&verdicts).unwrap();
    let mut wrong = Vec::new();
    for (name, verdict) in verdicts["unit_tests"].as_object().unwrap() {
        let path = root.join(name);
        if !path.exists() {
            continue;
        }
        let passes = LATER.contains(&&**name) || verdict["passes"].as_bool().unwrap();
        let outcome = run(&path, &plain()).map(failures);
        let ours = match &outcome {
            Ok(failures) | Err(failures) => failures,
        };
        if ours.is_empty() != passes {
            wrong.push(format!("{name}:\n{}", ours.join("\n")));
        } else if !passes && outcome.is_ok() && !OTHER_WORDS.contains(&&**name) {
            let theirs = verdict["output"].as_array().unwrap().iter().skip(1);
            let theirs: Vec<_> = theirs.map(|line| line.as_str().unwrap().trim_end()).collect();
            let prefix = format!("{}/", root.display());
            let ours = ours.join("\n").replace(&prefix, "");
            let ours: Vec<_> = ours.lines().map(str::trim_end).collect();
            if ours != theirs {
                wrong.push(format!(
                    "{name}:\nours\n{}\ntheirs\n{}",
                    ours.join("\n"),
                    theirs.join("\n")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{} files", wrong.join("\n"), wrong.len());
}
