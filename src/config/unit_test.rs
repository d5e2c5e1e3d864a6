//! Unit tests of rules, as promtool reads them, field by field.

use std::path::{Path, PathBuf};

use stint_model::{Span, Timestamp};

use super::decode::{Context, Section};
use super::error::ConfigErrors;
use super::files::files_matching;
use super::node;

/// A file of unit tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnitTestFile {
    /// The rule files that its patterns match.
    pub rule_files: Vec<PathBuf>,
    /// Distance between evaluations.
    pub evaluation_interval: Span,
    /// Whether neighbouring floats count as equal.
    pub fuzzy_compare: bool,
    /// In which order groups are evaluated.
    pub group_eval_order: Vec<String>,
    /// In order of the file.
    pub tests: Vec<UnitTest>,
    /// What is allowed and hardly meant, one line each.
    pub warnings: Vec<String>,
}

/// One test.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnitTest {
    /// Empty for none.
    pub name: String,
    /// Distance between the values of input series.
    pub interval: Span,
    /// The time of the first evaluation and of the first value.
    pub start: Timestamp,
    /// Series and values, in the notation of the test language.
    pub input_series: Vec<(String, String)>,
    /// What templates see as external labels.
    pub external_labels: Vec<(String, String)>,
    /// What templates see as external URL.
    pub external_url: String,
    /// What alerts are expected.
    pub alerts: Vec<AlertTest>,
    /// What expressions are expected to find.
    pub expressions: Vec<ExprTest>,
}

/// The alerts of one name that fire at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertTest {
    /// When, from the start of the test.
    pub eval_time: Span,
    /// Which.
    pub alertname: String,
    /// Labels (without the name) and annotations of each.
    pub expected: Vec<(Texts, Texts)>,
}

/// Names and texts, in order of the file.
pub type Texts = Vec<(String, String)>;

/// What an expression finds at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExprTest {
    /// What is asked.
    pub expr: String,
    /// When, from the start of the test.
    pub eval_time: Span,
    /// What is expected.
    pub expected: Vec<ExpectedSample>,
}

/// A sample that is expected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectedSample {
    /// As a metric is written.
    pub labels: String,
    /// A float; 0 where a histogram is expected.
    pub value: f64,
    /// A histogram in the notation of the test language; empty for none.
    pub histogram: String,
}

impl UnitTestFile {
    /// Reads the file called `file`; patterns of rule files are seen from its directory.
    ///
    /// # Errors
    /// Every place that is no YAML or no field of such a file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let cx = Context::new(file);
        let mut found = Self::default();
        match node::yaml::parse(text) {
            Ok(root) => found = read(&cx, Section::open(&cx, &root, "")),
            Err(error) => cx.syntax(error),
        }
        let (errors, warnings) = cx.finish();
        found.warnings = warnings.iter().map(ToString::to_string).collect();
        if errors.is_empty() { Ok(found) } else { Err(ConfigErrors(errors)) }
    }
}

fn read(cx: &Context, mut root: Section<'_>) -> UnitTestFile {
    let mut rule_files = Vec::new();
    for (at, pattern) in root.texts("rule_files") {
        match files_matching(&cx.path(pattern)) {
            Ok(files) => {
                let before = rule_files.len();
                rule_files.extend(files.into_iter().filter(|file| file.exists()));
                if rule_files.len() == before {
                    cx.warn(at, format!("no file matches {pattern}"));
                }
            }
            Err(error) => cx.error(at, format!("cannot list {pattern}: {error}")),
        }
    }
    let interval = root.span("evaluation_interval").filter(|interval| *interval > Span::ZERO);
    let interval = interval.unwrap_or(Span::MINUTE);
    let group_eval_order = root.strings("group_eval_order");
    for (number, name) in group_eval_order.iter().enumerate() {
        if group_eval_order.iter().take(number).any(|other| other == name) {
            root.error(
                "group_eval_order",
                format!("group name repeated in evaluation order: {name}"),
            );
        }
    }
    let file = UnitTestFile {
        warnings: Vec::new(),
        rule_files,
        evaluation_interval: interval,
        fuzzy_compare: root.bool_or("fuzzy_compare", false),
        group_eval_order,
        tests: root.sections("tests").into_iter().map(|test| unit_test(test, interval)).collect(),
    };
    root.finish();
    file
}

fn unit_test(mut section: Section<'_>, evaluation_interval: Span) -> UnitTest {
    let series = section.sections("input_series");
    let test = UnitTest {
        name: section.string_or("name", ""),
        interval: section
            .span("interval")
            .filter(|interval| *interval > Span::ZERO)
            .unwrap_or(evaluation_interval),
        start: section.parsed("start_timestamp", start).unwrap_or_default(),
        input_series: series
            .into_iter()
            .map(|mut series| {
                let pair = (series.string_or("series", ""), series.string_or("values", ""));
                series.finish();
                pair
            })
            .collect(),
        external_labels: texts(&mut section, "external_labels"),
        external_url: section.string_or("external_url", ""),
        alerts: section.sections("alert_rule_test").into_iter().map(alert_test).collect(),
        expressions: section.sections("promql_expr_test").into_iter().map(expr_test).collect(),
    };
    section.finish();
    test
}

/// Seconds since 1970, or RFC 3339.
fn start(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        return Ok(Timestamp((seconds * 1000.0).round() as i64));
    }
    let parsed = text.parse::<jiff::Timestamp>();
    parsed.map(|time| Timestamp(time.as_millisecond())).map_err(|_| {
        format!("{text} is neither a time in seconds nor one such as 2026-01-31T12:00:00Z")
    })
}

fn texts(section: &mut Section<'_>, key: &'static str) -> Texts {
    let pairs = section.pairs(key);
    pairs.into_iter().map(|(key, value)| (key.text.clone(), value.to_owned())).collect()
}

fn alert_test(mut section: Section<'_>) -> AlertTest {
    let test = AlertTest {
        eval_time: section.span("eval_time").unwrap_or_default(),
        alertname: section.string_or("alertname", ""),
        expected: section
            .sections("exp_alerts")
            .into_iter()
            .map(|mut alert| {
                let pair = (texts(&mut alert, "exp_labels"), texts(&mut alert, "exp_annotations"));
                alert.finish();
                pair
            })
            .collect(),
    };
    if test.alertname.is_empty() {
        let text = "an item under alert_rule_test misses required attribute alertname";
        section.cx.error(section.at, format!("{text} at eval_time {}", test.eval_time));
    }
    section.finish();
    test
}

fn expr_test(mut section: Section<'_>) -> ExprTest {
    let test = ExprTest {
        expr: section.string_or("expr", ""),
        eval_time: section.span("eval_time").unwrap_or_default(),
        expected: section.sections("exp_samples").into_iter().map(expected).collect(),
    };
    section.finish();
    test
}

fn expected(mut section: Section<'_>) -> ExpectedSample {
    let sample = ExpectedSample {
        labels: section.string_or("labels", ""),
        value: section.parsed("value", yaml_float).unwrap_or(0.0),
        histogram: section.string_or("histogram", ""),
    };
    section.finish();
    sample
}

/// A float as YAML writes it, with its infinities and its NaN.
fn yaml_float(text: &str) -> Result<f64, String> {
    let digits = text.replace('_', "");
    match digits.to_ascii_lowercase().as_str() {
        ".nan" => Ok(f64::NAN),
        ".inf" | "+.inf" => Ok(f64::INFINITY),
        "-.inf" => Ok(f64::NEG_INFINITY),
        "nan" | "inf" | "+inf" | "-inf" | "infinity" => Err(format!("{text} is not a number")),
        other => other.parse().map_err(|_| format!("{text} is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole() {
        let file = UnitTestFile::parse(
            Path::new("t.yml"),
            "evaluation_interval: 30s\nfuzzy_compare: true\ngroup_eval_order: [a, b]\ntests:\n- name: n\n  \
             start_timestamp: 2024-01-01T00:00:00Z\n  input_series: [{series: up, values: 1 2}]\n  \
             external_labels: {a: b}\n  external_url: http://x\n  alert_rule_test: [{eval_time: 1m, alertname: A, \
             exp_alerts: [{exp_labels: {c: d}, exp_annotations: {e: ''}}]}]\n  promql_expr_test: [{expr: up, \
             eval_time: 0, exp_samples: [{labels: up, value: .inf}]}]\n",
        )
        .unwrap();
        let test = &file.tests[0];
        assert_eq!((test.interval, test.start), (Span(30_000), Timestamp(1_704_067_200_000)));
        assert_eq!(test.input_series, [("up".to_owned(), "1 2".to_owned())]);
        assert_eq!(test.alerts[0].expected[0].1, [("e".to_owned(), String::new())]);
        assert_eq!(test.expressions[0].expected[0].value, f64::INFINITY);
        assert_eq!(file.group_eval_order, ["a", "b"]);
        assert!(file.warnings.is_empty());
    }

    #[test]
    fn patterns_that_match_nothing_are_told() {
        let text = "rule_files: ['no-such-rules-*.yml']\ntests: []\n";
        let file = UnitTestFile::parse(Path::new("t.yml"), text).unwrap();
        assert_eq!(file.warnings.len(), 1);
        let warning = &file.warnings[0];
        assert!(warning.ends_with("no file matches no-such-rules-*.yml"), "{warning}");
        assert!(warning.starts_with("t.yml:1:"), "{warning}");
    }

    #[test]
    fn mistakes_are_told() {
        let errors =
            |text: &str| UnitTestFile::parse(Path::new("t.yml"), text).unwrap_err().to_string();
        assert!(errors("tests: [{nam: x}]").contains("unknown key `nam` in `tests[0]`"));
        assert!(
            errors("tests: [{alert_rule_test: [{eval_time: 5m}]}]")
                .contains("alertname at eval_time 5m")
        );
        assert!(errors("group_eval_order: [a, a]").contains("repeated in evaluation order: a"));
        assert!(errors("tests: [{start_timestamp: soon}]").contains("neither a time in seconds"));
    }
}
