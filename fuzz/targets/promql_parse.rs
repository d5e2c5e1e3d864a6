//! Any text is a query or a list of mistakes, each at a place inside the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_promql::parse::{Options, parse, parse_selector, pretty, to_json};

fuzz_target!(|text: &str| {
    match parse(text, &Options::all()) {
        Ok(expr) => {
            let json = to_json(&expr);
            assert!(json.starts_with('{') && json.ends_with('}'), "{json}");
            assert!(!pretty(&expr, 100).is_empty());
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
    drop(parse_selector(text));
});
