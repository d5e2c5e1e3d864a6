//! The parser against collected expressions: what must parse, and how what must not is refused.
//!
//! The collections lie outside the repository, in `shared` beside it or where `STINT_SHARED` says;
//! without them these tests say so and pass.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use stint_promql::parse::pretty::LINE_MAX;
use stint_promql::parse::{
    Options, parse, parse_series_description, parse_start_times, pretty, to_json,
};

#[derive(Deserialize)]
struct Case {
    expr: Text,
    should_parse: bool,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    errors: Vec<Mistake>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Bytes { bytes_hex: String },
}

#[derive(Deserialize)]
struct Mistake {
    start: u32,
    end: u32,
    msg: String,
}

fn shared() -> PathBuf {
    std::env::var_os("STINT_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    )
}

#[expect(clippy::print_stdout, reason = "a test that does not run has to say so")]
fn fixture(name: &str) -> Option<String> {
    let path = shared().join("promql-fixtures").join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            println!("skipped: {} cannot be read: {error}", path.display());
            None
        }
    }
}

fn options(flags: &[String]) -> Options {
    let has = |name: &str| flags.iter().any(|flag| flag == name);
    Options {
        experimental_functions: has("experimental_functions"),
        extended_range_selectors: has("extended_range_selectors"),
        fill_modifiers: has("fill_modifiers"),
        ..Options::default()
    }
}

#[test]
fn collected_expressions_parse_or_fail_as_in_prometheus() {
    let Some(text) = fixture("exprs.json") else { return };
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    let (mut parsed, mut refused) = (0, 0);
    for case in &cases {
        let Text::Plain(expr) = &case.expr else { continue };
        let result = parse(expr, &options(&case.flags));
        if case.should_parse {
            match result {
                Ok(_) => parsed += 1,
                Err(errors) => wrong.push(format!("{expr}\n  must parse: {errors}")),
            }
            continue;
        }
        let Err(errors) = result else {
            wrong.push(format!("{expr}\n  must not parse"));
            continue;
        };
        // The collection says of a few only that they fail, and has two format strings unfilled.
        let found: Vec<_> = errors
            .iter()
            .map(|error| (error.pos.start, error.pos.end, error.message.clone()))
            .collect();
        let expected: Vec<_> =
            case.errors.iter().map(|e| (e.start, e.end, e.msg.clone())).collect();
        let unfilled = expected.iter().any(|(_, _, message)| message.contains("%f %%"));
        if expected.is_empty() || unfilled || found == expected {
            refused += 1;
        } else {
            wrong.push(format!("{expr}\n  found    {found:?}\n  expected {expected:?}"));
        }
    }
    println!("{parsed} parsed, {refused} refused as expected, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bytes_that_are_not_utf8_are_refused_where_they_stand() {
    let Some(text) = fixture("exprs.json") else { return };
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for case in &cases {
        let Text::Bytes { bytes_hex } = &case.expr else { continue };
        let bytes: Vec<u8> = (0..bytes_hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&bytes_hex[at..at + 2], 16).unwrap())
            .collect();
        // Queries arrive as text, so the bytes have become U+FFFD, which is longer.
        let errors = parse(&String::from_utf8_lossy(&bytes), &Options::default()).unwrap_err();
        let found: Vec<_> = errors.iter().map(|e| (e.pos.start, e.message.as_str())).collect();
        let expected: Vec<_> = case.errors.iter().map(|e| (e.start, e.msg.as_str())).collect();
        assert_eq!(found, expected);
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn series_of_the_test_language_are_read() {
    let folder = shared().join("promqltest");
    let Ok(files) = std::fs::read_dir(&folder) else {
        println!("skipped: {} cannot be read", folder.display());
        return;
    };
    let mut read = 0;
    for file in files {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "test") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut loading = false;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                loading &= line.starts_with('#');
            } else if line.starts_with("load") {
                loading = true;
            } else if loading {
                let result = if line.contains("}@st ") || line.contains("@st ") {
                    parse_start_times(line).map(|_| ())
                } else {
                    parse_series_description(line).map(|_| ())
                };
                if let Err(error) = result {
                    panic!("{}: {line}: {error}", path.display());
                }
                read += 1;
            }
        }
    }
    println!("{read} series read");
    assert!(read > 500);
}

#[derive(Deserialize)]
struct Printed {
    #[serde(rename = "in")]
    input: String,
    out: Option<String>,
    origin: String,
}

#[test]
fn trees_print_as_in_prometheus() {
    let Some(text) = fixture("print_cases.json") else { return };
    let cases: Vec<Printed> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let expr = parse(&case.input, &Options::all()).unwrap();
        // The cases of the pretty printer are written for lines of ten bytes.
        let printed =
            if case.origin.starts_with("prettier") { pretty(&expr, 10) } else { expr.to_string() };
        let expected = case.out.as_ref().unwrap_or(&case.input);
        if printed != *expected {
            wrong.push(format!("{}\nfound:\n{printed}\nexpected:\n{expected}", case.input));
        }
    }
    println!("{} of {} printed as expected", cases.len() - wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[derive(Deserialize)]
struct Answer {
    expr: String,
    parse_query: Value,
    format_query: Value,
}

/// Takes away what newer versions add.
fn without_news(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for key in ["anchored", "smoothed", "offsetExpr", "rangeExpr", "stepExpr", "fillValues"]
            {
                fields.remove(key);
            }
            fields.values_mut().for_each(without_news);
        }
        Value::Array(items) => items.iter_mut().for_each(without_news),
        _ => {}
    }
}

/// What 3.14 does otherwise than 3.5: parentheses around durations are kept, labels in groupings are
/// quoted, `ignoring ()` stays where `group_left` needs it, and a few more texts are refused.
const CHANGED_SINCE: [&str; 17] = [
    "foo offset +(5)",
    "foo offset -(5)",
    "foo offset (5)",
    "foo[(5s)]",
    "some_metric @ start() [5m]",
    "some_metric @ end()[5m]",
    "foo[5s x 5s]",
    "foo[5s s 5s]",
    "a - ignoring() group_left(__metric__) c",
    "a - ignoring() group_left c",
    "foo offset (5m)",
    "foo[(5m):(1m)]",
    "foo / on(\"äää\") bar",
    "foo / ignoring(\"üüü\") bar",
    "foo / on(\"äää\") group_left(\"ööö\") bar",
    "foo / on(\"äää\") group_right(\"ööö\") bar",
    "foo / on(legacy, \"üüü\") bar",
];

/// How the answer of an older Prometheus differs from ours, if it does.
fn difference(case: &Answer) -> Option<String> {
    let expr = match parse(&case.expr, &Options::all()) {
        Ok(expr) => expr,
        Err(error) => return Some(error.to_string()),
    };
    let mut tree: Value = serde_json::from_str(&to_json(&expr)).expect("a tree is written as JSON");
    without_news(&mut tree);
    if tree != case.parse_query {
        return Some(format!("found {tree}, expected {}", case.parse_query));
    }
    let printed = pretty(&expr, LINE_MAX);
    (Some(printed.as_str()) != case.format_query.as_str())
        .then(|| format!("found\n{printed}\nexpected\n{}", case.format_query))
}

#[test]
fn answers_of_an_older_prometheus_are_repeated() {
    let Some(text) = fixture("parse_query_prometheus_3.5.3.json") else { return };
    let cases: Vec<Answer> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for case in cases.iter().filter(|case| case.parse_query.get("error").is_none()) {
        seen += 1;
        let difference = difference(case);
        let changed = CHANGED_SINCE.contains(&case.expr.as_str());
        if difference.is_some() != changed {
            let what = difference.unwrap_or_else(|| "as before, against the list".to_owned());
            wrong.push(format!("{}\n{what}", case.expr));
        }
    }
    println!("{seen} compared, {} differ unexpectedly", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
