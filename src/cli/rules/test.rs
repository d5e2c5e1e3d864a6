//! `stint test rules`: promtool's unit tests.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use regex::Regex;
use stint_model::Clock as _;
use stint_model::clock::SystemClock;

use super::junit::Suite;
use super::{junit, language};
use crate::rules::unit::{self, RunOptions, TestOutcome};

/// What to test.
#[derive(Debug, Args)]
pub(in crate::cli) struct TestArgs {
    #[command(subcommand)]
    what: TestWhat,
    /// Also write the outcome to this file, as `JUnit`'s XML.
    #[arg(long, value_name = "FILE", global = true)]
    junit: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum TestWhat {
    /// Unit tests of rules, in promtool's format.
    Rules(TestRulesArgs),
}

#[derive(Debug, Args)]
struct TestRulesArgs {
    /// Files of tests.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Run only the tests with a name that matches; may be repeated.
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    run: Vec<Regex>,
    /// Show the difference between what was expected and what was found, in colours.
    #[arg(long)]
    diff: bool,
    /// Show when tests begin and end, and all samples at their end.
    #[arg(long)]
    debug: bool,
    /// Pass over fields of rule files that are not known; the server refuses them.
    #[arg(long = "ignore-unknown-fields")]
    ignore_unknown_fields: bool,
    /// Experimental features, comma-separated; may be repeated.
    #[arg(long = "enable-feature", value_name = "NAMES", value_delimiter = ',')]
    enable_feature: Vec<String>,
}

/// Runs unit tests and prints what promtool prints: exit code 1 for failures.
pub(in crate::cli) fn test(args: &TestArgs) -> ExitCode {
    let TestWhat::Rules(rules) = &args.what;
    let mut out = std::io::stdout().lock();
    let mut errors = std::io::stderr().lock();
    let mut suites = Vec::new();
    let passed = test_to(rules, &mut out, &mut errors, &mut suites).unwrap_or(false);
    if let Some(file) = &args.junit
        && let Err(error) = std::fs::write(file, junit::report(&suites))
    {
        let text = format!("{}: cannot write the report: {error}\n", file.display());
        // Where standard error is closed, nobody wants to know.
        let _ = std::io::Write::write_all(&mut errors, text.as_bytes());
        return ExitCode::from(1);
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// Whether all passed.
fn test_to(
    args: &TestRulesArgs,
    out: &mut dyn std::io::Write,
    errors: &mut dyn std::io::Write,
    suites: &mut Vec<Suite>,
) -> std::io::Result<bool> {
    let mut passed = true;
    let wanted =
        |name: &str| args.run.is_empty() || args.run.iter().any(|pattern| pattern.is_match(name));
    let warnings = RefCell::new(Vec::new());
    let options = RunOptions {
        features: language(&args.enable_feature),
        wanted: &wanted,
        warn: &|warning| warnings.borrow_mut().push(warning.to_owned()),
        ignore_unknown: args.ignore_unknown_fields,
        diff: args.diff,
        dump: args.debug,
    };
    let clock = SystemClock::new();
    for file in &args.files {
        writeln!(out, "Unit Testing:  {}", file.display())?;
        let mut suite = Suite::new(&file.display().to_string(), clock.now());
        let failures = match unit::run(file, &options) {
            Ok(tests) => {
                for test in &tests {
                    dumped(test, out)?;
                }
                suite.tests = tests;
                suite.tests.iter().flat_map(|test| test.failures.clone()).collect()
            }
            Err(mistakes) => {
                suite.error = mistakes.join("\n");
                mistakes
            }
        };
        suites.push(suite);
        for warning in warnings.take() {
            writeln!(errors, "  WARNING: {warning}")?;
        }
        if failures.is_empty() {
            writeln!(out, "  SUCCESS")?;
        } else {
            passed = false;
            writeln!(errors, "  FAILED:")?;
            for failure in failures {
                writeln!(errors, "{failure}\n")?;
            }
        }
        writeln!(out)?;
    }
    Ok(passed)
}

/// Shows what a test left behind, where that is wanted.
fn dumped(test: &TestOutcome, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    let Some(dump) = &test.dump else { return Ok(()) };
    writeln!(out, "DEBUG: Starting test {}\n{dump}", test.name)?;
    writeln!(out, "DEBUG: Test {} finished", test.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: PathBuf) -> TestRulesArgs {
        TestRulesArgs {
            files: vec![file],
            run: Vec::new(),
            diff: false,
            debug: false,
            ignore_unknown_fields: false,
            enable_feature: Vec::new(),
        }
    }

    fn written(name: &str) -> (PathBuf, PathBuf) {
        let folder =
            std::env::temp_dir().join(format!("stint-cli-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("t.yml");
        let test = |name: &str| {
            format!(
                "- name: {name}\n  promql_expr_test: [{{expr: up, exp_samples: [{{value: 1}}]}}]\n"
            )
        };
        std::fs::write(&file, format!("tests:\n{}{}", test("one"), test("two"))).unwrap();
        (folder, file)
    }

    #[test]
    fn tests_are_chosen_by_name() {
        let (folder, file) = written("chosen");
        let run = |patterns: &[&str]| {
            let run = patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect();
            let args = TestRulesArgs { run, ..args(file.clone()) };
            let (mut out, mut errors) = (Vec::new(), Vec::new());
            let passed = test_to(&args, &mut out, &mut errors, &mut Vec::new()).unwrap();
            (passed, String::from_utf8(errors).unwrap().matches("expr:").count())
        };
        assert_eq!(run(&[]), (false, 2));
        assert_eq!(run(&["^t"]), (false, 1));
        assert_eq!(run(&["three"]), (true, 0));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_pattern_without_files_is_told_and_fails_nothing() {
        let (folder, file) = written("warned");
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        std::fs::write(&file, "rule_files: ['none-*.yml']\ntests: []\n").unwrap();
        assert!(test_to(&args(file), &mut out, &mut errors, &mut Vec::new()).unwrap());
        let errors = String::from_utf8(errors).unwrap();
        assert!(errors.contains("WARNING: ") && errors.contains("none-*.yml"), "{errors}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn reports_and_dumps_name_the_tests() {
        let (folder, file) = written("report");
        let args = TestRulesArgs { debug: true, ..args(file) };
        let (mut out, mut errors, mut suites) = (Vec::new(), Vec::new(), Vec::new());
        assert!(!test_to(&args, &mut out, &mut errors, &mut suites).unwrap());
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("DEBUG: Starting test one\nDEBUG: Dumping all data"), "{out}");
        assert_eq!((suites[0].tests.len(), suites[0].error.as_str()), (2, ""));
        std::fs::write(&args.files[0], "tests: 1").unwrap();
        test_to(&args, &mut Vec::new(), &mut Vec::new(), &mut suites).unwrap();
        assert!(suites[1].error.contains("tests"), "{}", suites[1].error);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
