//! Series selectors as they stand in `retention.toml`.

use stint_model::{Matcher, Selector};
use stint_promql::parse::parse_selector;

/// Reads one selector, which must not select everything.
///
/// # Errors
/// What is wrong, with the selector as it was written.
pub(super) fn read(text: &str) -> Result<Selector, String> {
    let matchers = parse_selector(text).map_err(|error| format!("`{text}`: {error}"))?;
    if matchers.iter().all(Matcher::matches_empty) {
        return Err(format!("`{text}`: at least one matcher must not match the empty string"));
    }
    Ok(Selector::new(matchers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read() {
        let selector = read("up{job=~\"a|b\"}").unwrap();
        assert_eq!(selector.matchers.len(), 2);
        assert!(read("{\"my metric\"}").is_ok());
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["", "{}", "{a=\"\"}", "up{", "up{a=~\"(\"}", "rate(x[5m])"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
