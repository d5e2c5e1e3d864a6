use std::path::PathBuf;

use super::*;

fn reading() -> Reading {
    Reading {
        features: parse::Options::default(),
        name_scheme: NameScheme::Utf8,
        interval: Span::MINUTE,
        query_offset: Span(5_000),
        ignore_unknown: false,
    }
}

#[test]
fn unknown_fields_are_mistakes_unless_they_are_passed_over() {
    let yaml =
        "owner: me\ngroups:\n- name: g\n  team: a\n  rules:\n  - {record: r, expr: up, note: x}\n";
    assert_eq!(errors(yaml).len(), 3, "{:?}", errors(yaml));
    let reading = Reading { ignore_unknown: true, ..reading() };
    let read = read(Path::new("r.yml"), yaml, &reading).unwrap();
    assert_eq!(read.groups[0].rules[0].name, "r");
}

fn errors(yaml: &str) -> Vec<String> {
    read(Path::new("r.yml"), yaml, &reading()).unwrap_err()
}

fn check(rule: &str, message: &str) {
    let yaml = format!("groups:\n- name: g\n  rules:\n  - {{{rule}}}\n");
    assert_eq!(errors(&yaml), [format!("r.yml: {message}")], "{rule}");
}

#[test]
fn groups_inherit_and_rules_win() {
    let read = read(
        Path::new("r.yml"),
        "groups:\n- name: g\n  limit: -1\n  labels: {a: group, b: group}\n  rules:\n  - {record: r, \
         expr: 'sum(up)by(job)', labels: {b: rule}}\n- {name: h, interval: 15s, query_offset: 0s}\n",
        &reading(),
    )
    .unwrap();
    let [group, other] = &read.groups[..] else { panic!("{read:?}") };
    assert_eq!((group.interval, group.query_offset, group.limit), (Span::MINUTE, Span(5_000), 0));
    assert_eq!((other.interval, other.query_offset), (Span(15_000), Span::ZERO));
    let rule = &group.rules[0];
    assert_eq!(rule.query, "sum by (job) (up)");
    let labels: Vec<_> = rule.labels.iter().map(|(name, text)| (&**name, text.raw())).collect();
    assert_eq!(labels, [("a", "group"), ("b", "rule")]);
    assert_eq!(group.key(), "r.yml;g");
}

#[test]
fn mistakes_are_told_in_prometheus_words() {
    check(
        "record: a, alert: b, expr: up",
        "4:14: 4:24: group \"g\", rule 1, \"b\": only one of 'record' and 'alert' must be set",
    );
    check(
        "expr: up",
        "4:5: 4:5: group \"g\", rule 1, \"\": one of 'record' or 'alert' must be set",
    );
    check("record: a", "4:5: group \"g\", rule 1, \"a\": field 'expr' must be set in rule");
    check(
        "alert: a, expr: 'up ='",
        "4:22: group \"g\", rule 1, \"a\": could not parse expression: 1:4: parse error: unexpected \"=\"",
    );
    check(
        "record: a, expr: up, for: 1m",
        "4:14: group \"g\", rule 1, \"a\": invalid field 'for' in recording rule",
    );
    check(
        "record: a, expr: up, keep_firing_for: 1m",
        "4:14: group \"g\", rule 1, \"a\": invalid field 'keep_firing_for' in recording rule",
    );
    check(
        "record: a, expr: up, annotations: {b: c}",
        "4:14: group \"g\", rule 1, \"a\": invalid field 'annotations' in recording rule",
    );
    check(
        "record: 'a{b}', expr: up",
        "4:14: group \"g\", rule 1, \"a{b}\": braces present in the recording rule name; should it be in expr?: a{b}",
    );
    check(
        "record: a, expr: up, labels: {__name__: c}",
        "group \"g\", rule 1, \"a\": invalid label name: __name__",
    );
    check(
        "alert: a, expr: up, annotations: {'': c}",
        "group \"g\", rule 1, \"a\": invalid annotation name: ",
    );
}

#[test]
fn templates_are_read_with_the_file() {
    let yaml =
        "groups: [{name: g, rules: [{alert: a, expr: up, annotations: {t: '{{ $label }}'}}]}]";
    assert_eq!(
        errors(yaml),
        [
            "r.yml: group \"g\", rule 1, \"a\": annotation \"t\": template: __alert_a:1: undefined variable \"$label\""
        ]
    );
}

#[test]
fn groups_need_names_of_their_own() {
    assert_eq!(
        errors("groups:\n- {name: a}\n- {name: a}\n- {}\n"),
        [
            "r.yml: 3:3: groupname: \"a\" is repeated in the same file",
            "r.yml: 4:3: Groupname must not be empty"
        ]
    );
}

/// The folder of real-world rule files with the verdicts of a real Prometheus, where there is one.
fn corpus() -> Option<PathBuf> {
    let found = std::env::var_os("STINT_RULE_FILES").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: STINT_RULE_FILES does not name a folder with verdicts.json");
    }
    found
}

fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The lines that a message of a YAML decoder is about, or what follows the place of another one.
fn told(message: &str) -> Vec<String> {
    if let Some(lines) = message.strip_prefix("yaml: unmarshal errors:") {
        let about = lines.lines().filter_map(|line| line.trim().strip_prefix("line "));
        return about.map(|text| format!("line {}", text.split(':').next().unwrap())).collect();
    }
    let mut rest = message;
    while let Some((place, after)) = rest.split_once(": ") {
        if !place
            .split(':')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        {
            break;
        }
        rest = after;
    }
    vec![rest.to_owned()]
}

/// Files that a later Prometheus accepts, with this parser's defaults, too.
const DIFFERENT: [&str; 1] = ["unit-tests/prometheus/features.yml"];

#[test]
fn real_files_are_accepted_and_refused_as_by_prometheus() {
    let Some(root) = corpus() else { return };
    let verdicts = read_json(&root.join("verdicts.json"));
    let (mut wrong, mut files) = (Vec::new(), 0);
    for (name, verdict) in verdicts["rule_files"].as_object().unwrap() {
        // Some are left out of the folder for their licences.
        let Ok(text) = std::fs::read_to_string(root.join(name)) else { continue };
        files += 1;
        match (read(Path::new(name), &text, &reading()), verdict["accepted"].as_bool().unwrap()) {
            (Ok(read), true) => {
                let rules = read.groups.iter().flat_map(|group| &group.rules);
                let alerting = rules.clone().filter(|rule| rule.alert().is_some()).count();
                // Those without rules are not shown by the API, which was counted.
                let groups = read.groups.iter().filter(|group| !group.rules.is_empty()).count();
                let found = (groups, alerting, rules.count() - alerting);
                let number = |key: &str| verdict[key].as_u64().unwrap() as usize;
                if found != (number("groups"), number("alerting"), number("recording")) {
                    wrong.push(format!("{name}: {found:?} groups, alerts, records"));
                }
            }
            (Err(_), false) if DIFFERENT.contains(&&**name) => {}
            (Err(errors), false) => {
                let theirs = verdict["errors"].as_array().unwrap().iter();
                let mut theirs: Vec<_> =
                    theirs.flat_map(|text| told(text.as_str().unwrap())).collect();
                let ours =
                    errors.iter().map(|text| text.strip_prefix(&format!("{name}:")).unwrap());
                let mut ours: Vec<_> = ours
                    .flat_map(|text| {
                        if text.contains("unknown key") {
                            vec![format!("line {}", text.split(':').next().unwrap())]
                        } else {
                            told(text.trim_start())
                        }
                    })
                    .collect();
                theirs.sort();
                ours.sort();
                if ours != theirs {
                    wrong.push(format!("{name}:\n  ours {ours:#?}\n  theirs {theirs:#?}"));
                }
            }
            (Ok(_), false) => wrong.push(format!("{name}: accepted")),
            (Err(errors), true) => wrong.push(errors.join("\n")),
        }
    }
    assert!(wrong.is_empty(), "{}\n{} of {files} files", wrong.join("\n"), wrong.len());
    assert!(files > 300, "only {files} files are there");
}

#[test]
fn real_expressions_parse_and_print_as_in_prometheus() {
    let Some(root) = corpus() else { return };
    let mut wrong = Vec::new();
    for one in read_json(&root.join("exprs.json")).as_array().unwrap() {
        let text = one["expr"].as_str().unwrap();
        // What a later version accepts by itself is no difference.
        let parses = one["parses"].as_bool().unwrap();
        match parse::parse(text, &parse::Options::default()) {
            Ok(expr) if parses => {
                let printed = one["printed"].as_str().unwrap_or(text);
                if expr.to_string() != printed {
                    wrong.push(format!("{printed}\n  {expr}"));
                }
            }
            Ok(_) if one["parses_with_features"].as_bool() == Some(true) => {}
            Ok(_) => wrong.push(format!("accepted: {text}")),
            Err(_) if !parses => {}
            Err(error) => wrong.push(format!("{text}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}\n{} expressions", wrong.join("\n"), wrong.len());
}
