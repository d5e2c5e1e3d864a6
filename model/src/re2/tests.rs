use serde::Deserialize;

use super::*;
use crate::matcher::{MatchOp, Matcher, anchored_regex};

/// What a Prometheus 3.5.3 said of expressions: its error, or which of the values `label_replace` found to match.
#[derive(Deserialize)]
struct Recorded {
    values: Vec<Vec<String>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    pattern: String,
    error: Option<String>,
    #[serde(default)]
    tried: usize,
    #[serde(default)]
    matches: Vec<String>,
}

fn recorded() -> Recorded {
    serde_json::from_str(include_str!("prometheus.json")).unwrap()
}

#[test]
fn expressions_match_what_they_match_in_prometheus() {
    let Recorded { values, cases } = recorded();
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| case.error.is_none()) {
        let matcher = match Matcher::new(MatchOp::Regex, "l", &case.pattern) {
            Ok(matcher) => matcher,
            Err(error) => {
                wrong.push(format!("{:?} is refused: {error}", case.pattern));
                continue;
            }
        };
        let matches: Vec<&String> =
            values[case.tried].iter().filter(|value| matcher.matches(value)).collect();
        let expected: Vec<&String> = case.matches.iter().collect();
        if matches != expected {
            wrong.push(format!("{:?} matches {matches:?}, not {expected:?}", case.pattern));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn errors_have_the_words_of_prometheus() {
    let mut wrong = Vec::new();
    for case in recorded().cases {
        let Some(expected) = case.error else { continue };
        match anchored_regex(&case.pattern) {
            Err(error) if error.message == expected => {}
            other => wrong.push(format!("{:?}: {expected}, not {other:?}", case.pattern)),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn deep_nesting_is_refused_before_it_takes_the_stack() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(anchored_regex(&nested(200)).unwrap().is_match("a"));
    assert!(translate(&nested(201)).is_err());
    assert!(translate(&nested(100_000)).is_err());
}

#[test]
fn a_long_list_of_names_is_no_expression_to_compile() {
    let names: Vec<String> = (0..20_000).map(|n| format!("node-{n}\\.example\\.com")).collect();
    let matcher = Matcher::new(MatchOp::Regex, "l", &names.join("|")).unwrap();
    assert_eq!(matcher.set_of_values().map(<[String]>::len), Some(20_000));
    assert!(matcher.matches("node-17.example.com"));
    let error = anchored_regex(&"\\pL{1000}".repeat(200)).unwrap_err();
    assert!(error.message.starts_with("expression too large: `"), "{error}");
    assert!(error.message.len() < 1100, "the error does not repeat all of it");
}
