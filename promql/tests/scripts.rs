//! Scripts of the test language beside Prometheus' own.

use stint_promql::script::{Script, conformance_options};

#[test]
fn odd_values() {
    let script = Script::parse(include_str!("scripts/odd_values.test")).unwrap();
    let outcomes = script.run(&conformance_options()).unwrap();
    assert_eq!(outcomes.len(), 14);
    for outcome in outcomes {
        assert_eq!(outcome.failure, None, "line {}: {}", outcome.line, outcome.expr);
    }
}
