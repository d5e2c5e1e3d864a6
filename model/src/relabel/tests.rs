use super::*;
use crate::labels::Labels;

fn spec(action: Action) -> RuleSpec {
    RuleSpec { action, ..RuleSpec::default() }
}

fn from(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|&label| label.to_owned()).collect()
}

/// Applies one rule to `labels`; the outcome as printed labels, or `dropped`.
fn run(spec: RuleSpec, labels: &[(&str, &str)]) -> String {
    let rule = Rule::new(spec, NameScheme::Utf8).unwrap();
    let mut builder = Labels::from_pairs(labels.iter().copied()).to_builder();
    match apply(&[rule], &mut builder) {
        Verdict::Keep => builder.build().to_string(),
        Verdict::Drop => "dropped".to_owned(),
    }
}

fn refuse(spec: RuleSpec, scheme: NameScheme, text: &str) {
    assert_eq!(Rule::new(spec, scheme).unwrap_err().to_string(), text);
}

fn replace(source: &[&str], regex: &str, target: &str, replacement: &str) -> RuleSpec {
    RuleSpec {
        source_labels: from(source),
        regex: regex.into(),
        target_label: target.into(),
        replacement: replacement.into(),
        ..RuleSpec::default()
    }
}

#[test]
fn replace_expands_groups_by_number_and_name() {
    let a = [("a", "foo"), ("b", "bar")];
    assert_eq!(
        run(replace(&["a"], "f(.*)", "d", "ch${1}-ch${1}"), &a),
        r#"{a="foo", b="bar", d="choo-choo"}"#
    );
    assert_eq!(
        run(replace(&["a", "b"], "(?P<x>.*);(.*)", "c", "$2/${x}"), &a),
        r#"{a="foo", b="bar", c="bar/foo"}"#
    );
    assert_eq!(run(replace(&["a"], "(f).*", "c", "$1x."), &a), r#"{a="foo", b="bar", c="."}"#);
    assert_eq!(
        run(replace(&["a"], "(f).*", "c", "$$1 $ ${1 $9."), &a),
        r#"{a="foo", b="bar", c="$1 $ ${1 ."}"#
    );
    assert_eq!(
        run(replace(&["a"], "(f)(.*)", "${1}_$2", "v"), &a),
        r#"{a="foo", b="bar", f_oo="v"}"#
    );
}

#[test]
fn replace_without_a_match_changes_nothing() {
    let a = [("a", "foo")];
    assert_eq!(run(replace(&["a"], "f", "a", "b"), &a), r#"{a="foo"}"#);
    assert_eq!(run(replace(&["a"], "(x)?.*", "${1}", "b"), &a), r#"{a="foo"}"#);
}

#[test]
fn an_empty_result_deletes_the_target() {
    let a = [("a", "line\nbreak"), ("b", "x")];
    assert_eq!(run(replace(&["a"], ".*", "b", "$7"), &a), "{a=\"line\\nbreak\"}");
    assert_eq!(run(replace(&["missing"], "(.*)", "b", "$1"), &a), "{a=\"line\\nbreak\"}");
    assert_eq!(run(replace(&[], "(.*)", "b", "y"), &a), "{a=\"line\\nbreak\", b=\"y\"}");
    assert_eq!(
        run(replace(&["missing"], "", "b", "empty"), &a),
        "{a=\"line\\nbreak\", b=\"empty\"}"
    );
}

#[test]
fn keep_and_drop_match_the_whole_joined_input() {
    let a = [("a", "foo"), ("b", "bar")];
    let with = |action, regex: &str| RuleSpec {
        source_labels: from(&["a", "b"]),
        separator: "/".into(),
        regex: regex.into(),
        ..spec(action)
    };
    assert_eq!(run(with(Action::Keep, "foo"), &a), "dropped");
    assert_eq!(run(with(Action::Keep, "foo/bar"), &a), r#"{a="foo", b="bar"}"#);
    assert_eq!(run(with(Action::Drop, "foo/b.*"), &a), "dropped");
    assert_eq!(run(with(Action::Drop, "a|foo"), &a), r#"{a="foo", b="bar"}"#);
}

#[test]
fn keepequal_and_dropequal_compare_with_the_target() {
    let with = |action| RuleSpec {
        source_labels: from(&["__port1"]),
        target_label: "__port2".into(),
        ..spec(action)
    };
    let same = [("__port1", "1"), ("__port2", "1")];
    let other = [("__port1", "1"), ("__port2", "2")];
    assert_ne!(run(with(Action::KeepEqual), &same), "dropped");
    assert_eq!(run(with(Action::KeepEqual), &other), "dropped");
    assert_eq!(run(with(Action::DropEqual), &same), "dropped");
    assert_ne!(run(with(Action::DropEqual), &other), "dropped");
    assert_eq!(run(with(Action::DropEqual), &[("x", "y")]), "dropped");
}

#[test]
fn hashmod_takes_the_low_half_of_md5() {
    // Expected values are md5sum(input)[16..32] as a number, modulo 1000.
    let with = |modulus| RuleSpec {
        source_labels: from(&["c"]),
        target_label: "d".into(),
        modulus,
        ..spec(Action::HashMod)
    };
    assert_eq!(run(with(1000), &[("c", "baz")]), r#"{c="baz", d="976"}"#);
    assert_eq!(run(with(1000), &[("c", "foo\nbar")]), "{c=\"foo\\nbar\", d=\"734\"}");
}

#[test]
fn label_names_are_mapped_dropped_and_kept() {
    let a = [("a", "foo"), ("b1", "bar"), ("b2", "baz")];
    let map = RuleSpec {
        regex: "(b.*)".into(),
        replacement: "bar_${1}".into(),
        ..spec(Action::LabelMap)
    };
    assert_eq!(run(map, &a), r#"{a="foo", b1="bar", b2="baz", bar_b1="bar", bar_b2="baz"}"#);
    let meta = RuleSpec { regex: "__meta_(my.*)".into(), ..spec(Action::LabelMap) };
    assert_eq!(run(meta, &[("__meta_my_bar", "x")]), r#"{__meta_my_bar="x", my_bar="x"}"#);
    let drop = RuleSpec { regex: "(b.*)".into(), ..spec(Action::LabelDrop) };
    assert_eq!(run(drop, &a), r#"{a="foo"}"#);
    let keep = RuleSpec { regex: "(b.*)".into(), ..spec(Action::LabelKeep) };
    assert_eq!(run(keep, &a), r#"{b1="bar", b2="baz"}"#);
}

#[test]
fn no_label_without_a_name_is_made() {
    let rule = RuleSpec { regex: "a(.*)".into(), ..spec(Action::LabelMap) };
    assert_eq!(run(rule, &[("a", "1"), ("ab", "2")]), r#"{a="1", ab="2", b="2"}"#);
    assert_eq!(run(replace(&["a"], "1(.*)", "$1", "v"), &[("a", "1")]), r#"{a="1"}"#);
}

#[test]
fn case_is_changed() {
    let with = |action| RuleSpec {
        source_labels: from(&["foo"]),
        target_label: "out".into(),
        ..spec(action)
    };
    assert_eq!(
        run(with(Action::Lowercase), &[("foo", "bAr123Foo")]),
        r#"{foo="bAr123Foo", out="bar123foo"}"#
    );
    assert_eq!(
        run(with(Action::Uppercase), &[("foo", "bAr123Foo")]),
        r#"{foo="bAr123Foo", out="BAR123FOO"}"#
    );
}

#[test]
fn rules_run_in_order_until_one_drops() {
    let rules = [
        Rule::new(replace(&["a"], "(.*)", "b", "$1!"), NameScheme::Utf8).unwrap(),
        Rule::new(
            RuleSpec { source_labels: from(&["b"]), regex: "x!".into(), ..spec(Action::Drop) },
            NameScheme::Utf8,
        )
        .unwrap(),
    ];
    let mut labels = Labels::from_pairs([("a", "x")]).to_builder();
    assert_eq!(apply(&rules, &mut labels), Verdict::Drop);
    let mut labels = Labels::from_pairs([("a", "y")]).to_builder();
    assert_eq!(apply(&rules, &mut labels), Verdict::Keep);
    assert_eq!(labels.get("b"), Some("y!"));
}

#[test]
fn incomplete_rules_are_refused_in_prometheus_words() {
    use NameScheme::{Legacy, Utf8};
    let target = |action, target: &str| RuleSpec { target_label: target.into(), ..spec(action) };
    refuse(
        spec(Action::Replace),
        Utf8,
        "relabel configuration for replace action requires 'target_label' value",
    );
    refuse(
        target(Action::HashMod, "a"),
        Utf8,
        "relabel configuration for hashmod requires non-zero modulus",
    );
    refuse(
        spec(Action::Lowercase),
        Utf8,
        "relabel configuration for lowercase action requires 'target_label' value",
    );
    refuse(
        target(Action::Replace, "a-b"),
        Legacy,
        "\"a-b\" is invalid 'target_label' for replace action",
    );
    refuse(
        target(Action::Uppercase, "${3}"),
        Legacy,
        "\"${3}\" is invalid 'target_label' for uppercase action",
    );
    refuse(
        target(Action::Replace, "${3"),
        Legacy,
        "\"${3\" is invalid 'target_label' for replace action",
    );
    refuse(
        RuleSpec { replacement: "x".into(), ..target(Action::Lowercase, "a") },
        Utf8,
        "'replacement' can not be set for lowercase action",
    );
    refuse(
        RuleSpec { replacement: "a b".into(), ..spec(Action::LabelMap) },
        Legacy,
        "\"a b\" is invalid 'replacement' for labelmap action",
    );
    refuse(
        RuleSpec { regex: "a".into(), ..target(Action::KeepEqual, "a") },
        Utf8,
        "keepequal action requires only 'source_labels' and `target_label`, and no other fields",
    );
    refuse(
        target(Action::LabelDrop, "a"),
        Utf8,
        "labeldrop action requires only 'regex', and no other fields",
    );
    assert!(Rule::new(target(Action::Replace, "${1}_x$name"), Legacy).is_ok());
    assert!(Rule::new(target(Action::Replace, "a-b"), Utf8).is_ok());
    assert_eq!(
        "repalce".parse::<Action>().unwrap_err().to_string(),
        "unknown relabel action \"repalce\""
    );
    assert_eq!("LabelMap".parse::<Action>(), Ok(Action::LabelMap));
}

#[test]
fn a_broken_expression_is_refused_however_it_breaks() {
    for regex in ["(", "a)", "[a-", "*a"] {
        let broken = RuleSpec { regex: regex.into(), ..spec(Action::LabelDrop) };
        let error = Rule::new(broken, NameScheme::Utf8).unwrap_err();
        assert!(matches!(error, RuleError::Regex(_)), "{regex}: {error}");
    }
}

#[test]
fn case_changes_character_by_character() {
    assert_eq!((upper("éßŉ"), lower("ÉẞİΣ")), ("Éßŉ".into(), "éßiσ".into()));
}
