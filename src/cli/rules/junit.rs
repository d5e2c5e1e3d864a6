//! The outcome of unit tests as `JUnit`'s XML, for build servers.

use std::fmt::Write as _;

use stint_model::Timestamp;

use crate::rules::unit::TestOutcome;

/// One file of tests.
#[derive(Clone, Debug, Default)]
pub(super) struct Suite {
    name: String,
    at: Timestamp,
    /// In order of the file.
    pub(super) tests: Vec<TestOutcome>,
    /// Why none could be run; empty when they could.
    pub(super) error: String,
}

impl Suite {
    /// The file `name`, tested at `at`, without tests as yet.
    pub(super) fn new(name: &str, at: Timestamp) -> Self {
        Self { name: name.to_owned(), at, ..Self::default() }
    }
}

/// The whole report.
pub(super) fn report(suites: &[Suite]) -> String {
    let mut xml = String::from("<testsuites>\n");
    for suite in suites {
        let errors = usize::from(!suite.error.is_empty());
        let tests = suite.tests.len() + errors;
        let failures: usize = suite.tests.iter().map(|test| test.failures.len()).sum();
        let (name, at) = (escaped(&suite.name), super::shown(suite.at));
        // Writing to a string cannot fail.
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" \
             skipped=\"0\" timestamp=\"{at}\">"
        );
        for (number, test) in suite.tests.iter().enumerate() {
            let name = match test.name.as_str() {
                "" => format!("unnamed#{number}"),
                name => escaped(name),
            };
            let _ = writeln!(xml, "    <testcase name=\"{name}\">");
            for failure in &test.failures {
                let _ = writeln!(xml, "      <failure>{}</failure>", escaped(failure));
            }
            xml.push_str("    </testcase>\n");
        }
        if errors > 0 {
            let error = escaped(&suite.error);
            let _ = writeln!(
                xml,
                "    <testcase name=\"\">\n      <error>{error}</error>\n    </testcase>"
            );
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// Text that stands for itself in XML 1.0; what may not be in it becomes a replacement character.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\n' => escaped.push_str("&#xA;"),
            '\t' => escaped.push_str("&#x9;"),
            '\r' => escaped.push_str("&#xD;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                escaped.push(char::REPLACEMENT_CHARACTER);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_errors_are_told_apart() {
        let test = |name: &str, failures: &[&str]| TestOutcome {
            name: name.to_owned(),
            failures: failures.iter().map(|text| (*text).to_owned()).collect(),
            dump: None,
        };
        let mut ran = Suite::new("a&b.yml", Timestamp(0));
        ran.tests = vec![test("fine", &[]), test("", &["x < \"1\"\n\u{1b}"])];
        let mut broken = Suite::new("c.yml", Timestamp(0));
        broken.error = "no such file".to_owned();
        let expected = r#"<testsuites>
  <testsuite name="a&amp;b.yml" tests="2" failures="1" errors="0" skipped="0" timestamp="1970-01-01T00:00:00Z">
    <testcase name="fine">
    </testcase>
    <testcase name="unnamed#1">
      <failure>x &lt; &#34;1&#34;&#xA;REPLACED</failure>
    </testcase>
  </testsuite>
  <testsuite name="c.yml" tests="1" failures="0" errors="1" skipped="0" timestamp="1970-01-01T00:00:00Z">
    <testcase name="">
      <error>no such file</error>
    </testcase>
  </testsuite>
</testsuites>
"#;
        assert_eq!(report(&[ran, broken]), expected.replace("REPLACED", "\u{fffd}"));
    }
}
