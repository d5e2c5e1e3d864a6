//! The parser against collected expressions: what must parse, and how what must not is refused.
//!
//! The collections lie outside the repository, in `shared` beside it or where `STINT_SHARED` says;
//! without them these tests say so and pass.

use std::path::PathBuf;

use serde::Deserialize;
use stint_promql::parse::{Options, parse, parse_series_description, parse_start_times};

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
