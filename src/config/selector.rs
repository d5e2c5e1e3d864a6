//! Series selectors as they stand in `retention.toml`: `name{label="value", other=~"expression"}`.

use stint_model::labels::METRIC_NAME;
use stint_model::{MatchOp, Matcher, Selector};

/// Reads one selector.
///
/// # Errors
/// What is wrong, with the selector as it was written.
pub(super) fn read(text: &str) -> Result<Selector, String> {
    let mut reader = Reader { rest: text };
    let matchers = reader.selector().map_err(|error| format!("`{text}`: {error}"))?;
    if matchers.iter().all(Matcher::matches_empty) {
        return Err(format!("`{text}`: at least one matcher must not match the empty string"));
    }
    Ok(Selector::new(matchers))
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn selector(&mut self) -> Result<Vec<Matcher>, String> {
        let mut matchers = Vec::new();
        let name = self.word(|c| c == ':');
        if !name.is_empty() {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        if self.eat("{") {
            while !self.eat("}") {
                matchers.push(self.matcher()?);
                if !self.eat(",") && !self.rest.starts_with('}') {
                    return Err("`,` or `}` is expected after a matcher".to_owned());
                }
            }
        }
        if self.rest.is_empty() { Ok(matchers) } else { Err(format!("unexpected `{}`", self.rest)) }
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let name = if self.rest.starts_with(['"', '\'', '`']) {
            let name = self.string()?;
            if self.rest.starts_with([',', '}']) {
                return Ok(Matcher::equal(METRIC_NAME, &name));
            }
            name
        } else {
            self.word(|_| false).to_owned()
        };
        if name.is_empty() {
            return Err("a label name is expected".to_owned());
        }
        let operators = [MatchOp::Regex, MatchOp::NotRegex, MatchOp::NotEqual, MatchOp::Equal];
        let operator = operators.into_iter().find(|operator| self.eat(operator.as_str()));
        let operator = operator.ok_or("one of = != =~ !~ is expected")?;
        let value = self.string()?;
        Matcher::new(operator, &name, &value).map_err(|error| error.to_string())
    }

    /// A name, and the white space behind it.
    fn word(&mut self, also: impl Fn(char) -> bool) -> &'a str {
        self.rest = self.rest.trim_start();
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || also(c);
        let end = self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    /// A string in any of the three quotes; backslashes escape in two of them.
    fn string(&mut self) -> Result<String, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next().filter(|c| matches!(c, '"' | '\'' | '`'));
        let quote = quote.ok_or("a value in quotes is expected")?;
        let mut value = String::new();
        loop {
            let c = chars.next().ok_or("a quote is not closed")?;
            if c == quote {
                break;
            }
            if c != '\\' || quote == '`' {
                value.push(c);
                continue;
            }
            value.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(c @ ('\\' | '"' | '\'')) => c,
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("unknown escape sequence `\\{other}`"));
                }
            });
        }
        self.rest = chars.as_str().trim_start();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read() {
        let check = |text: &str, printed: &[&str]| {
            let selector = read(text).unwrap();
            let found: Vec<_> = selector.matchers.iter().map(ToString::to_string).collect();
            assert_eq!(found, printed, "{text}");
        };
        check("up", &["__name__=\"up\""]);
        check(
            " a:b { x = 'y\\'' , z!~`\\d+`, } ",
            &["__name__=\"a:b\"", "x=\"y'\"", "z!~\"\\\\d+\""],
        );
        check("{\"my metric\", \"a b\"!=\"c\"}", &["__name__=\"my metric\"", "\"a b\"!=\"c\""]);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "",
            "{}",
            "{a=\"\"}",
            "up{",
            "up{a}",
            "up{a=b}",
            "up{a=\"b}",
            "up}",
            "{a=~\"(\"}",
            "rate(x)",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
