//! What is read and printed reads as the same again, on one line and laid out.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_promql::parse::{Options, parse, pretty};

fuzz_target!(|text: &str| {
    let options = Options::all();
    let Ok(expr) = parse(text, &options) else { return };
    let printed = expr.to_string();
    let again = match parse(&printed, &options) {
        Ok(again) => again,
        // Printing may add parentheses or digits, and with them pass a limit.
        Err(error) if error.to_string().contains("at most") => return,
        Err(error) => panic!("{printed}: {error}"),
    };
    assert_eq!(again.to_string(), printed);
    let laid_out = pretty(&expr, 60);
    match parse(&laid_out, &options) {
        Ok(again) => assert_eq!(again.to_string(), printed, "{laid_out}"),
        Err(error) => assert!(error.to_string().contains("at most"), "{laid_out}: {error}"),
    }
});
