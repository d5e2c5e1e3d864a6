//! Scripts of the test language beside Prometheus' own.

use stint_promql::script::{Script, conformance_options};

fn check(text: &str, evaluations: usize) {
    let outcomes = Script::parse(text).unwrap().run(&conformance_options()).unwrap();
    assert_eq!(outcomes.len(), evaluations);
    for outcome in outcomes {
        assert_eq!(outcome.failure, None, "line {}: {}", outcome.line, outcome.expr);
    }
}

#[test]
fn odd_values() {
    check(include_str!("scripts/odd_values.test"), 7);
}
