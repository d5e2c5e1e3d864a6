//! `stint check rules`, `stint test rules` and `stint rules backfill`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use stint_model::labels::NameScheme;
use stint_model::{Span, Timestamp};
use stint_promql::parse;

use super::Format;
use crate::rules::spec::{self, GroupSpec, Reading};

mod backfill;
mod junit;
mod test;

pub(super) use test::{TestArgs, test};

/// Exit code of what is allowed and yet looks wrong, where that is to count.
pub(super) const EXIT_LINT: u8 = 3;

/// Works with rules.
#[derive(Debug, Args)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    what: RulesWhat,
}

#[derive(Debug, Subcommand)]
enum RulesWhat {
    /// Computes recording rules over stored history.
    Backfill(backfill::BackfillArgs),
}

/// Runs the command.
pub(super) fn run(args: &RulesArgs) -> anyhow::Result<()> {
    match &args.what {
        RulesWhat::Backfill(args) => backfill::run(args),
    }
}

/// A time for people.
pub(super) fn shown(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_ms())
        .map_or_else(|_| at.to_string(), |time| time.to_string())
}

/// Which rule files to check, and how.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Rule files; standard input without any.
    files: Vec<PathBuf>,
    /// What else to look for: duplicate-rules, all or none.
    #[arg(long, value_name = "WHAT", default_value = "duplicate-rules",
          value_parser = ["duplicate-rules", "all", "none"])]
    lint: String,
    /// Exit with 3 when that finds something.
    #[arg(long = "lint-fatal")]
    lint_fatal: bool,
    /// Pass over fields that are not known; the server refuses them.
    #[arg(long = "ignore-unknown-fields")]
    ignore_unknown_fields: bool,
    /// Experimental features, comma-separated; may be repeated.
    #[arg(long = "enable-feature", value_name = "NAMES", value_delimiter = ',')]
    enable_feature: Vec<String>,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What checking one file found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    file: String,
    rules: usize,
    warnings: Vec<String>,
    errors: Vec<String>,
    lint: Option<String>,
}

impl Found {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file,
            "valid": self.errors.is_empty(),
            "rules": self.rules,
            "warnings": self.warnings,
            "lints": self.lint.iter().collect::<Vec<_>>(),
            "errors": self.errors,
        })
    }
}

/// Checks rule files and prints what promtool prints, or JSON: exit code 1 for mistakes.
pub(super) fn check(args: &CheckArgs) -> ExitCode {
    let found = look(args);
    match args.format {
        Format::Json => {
            let listed: Vec<_> = found.iter().map(Found::to_json).collect();
            super::check::print_json(&listed);
        }
        Format::Text => {
            // Where the report cannot be written, the exit code still tells.
            let _ = print(&found, &mut std::io::stdout().lock(), &mut std::io::stderr().lock());
        }
    }
    if found.iter().any(|found| !found.errors.is_empty()) {
        ExitCode::from(1)
    } else if args.lint_fatal && found.iter().any(|found| found.lint.is_some()) {
        ExitCode::from(EXIT_LINT)
    } else {
        ExitCode::SUCCESS
    }
}

fn look(args: &CheckArgs) -> Vec<Found> {
    let ignore_unknown = args.ignore_unknown_fields;
    let reading = Reading { ignore_unknown, ..reading(&args.enable_feature) };
    let lints = args.lint != "none";
    let mut inputs: Vec<(String, std::io::Result<String>)> = Vec::new();
    if args.files.is_empty() {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text).map(|_| text);
        inputs.push(("standard input".to_owned(), read));
    }
    for file in &args.files {
        inputs.push((file.display().to_string(), std::fs::read_to_string(file)));
    }
    let check = |(file, text): (String, std::io::Result<String>)| {
        let checked = text
            .map_err(|error| vec![format!("{file}: cannot read the file: {error}")])
            .and_then(|text| spec::read(Path::new(&file), &text, &reading));
        match checked {
            Err(errors) => Found { file, errors, ..Found::default() },
            Ok(read) => {
                let rules = read.groups.iter().map(|group| group.rules.len()).sum();
                let lint = if lints { duplicates(&read.groups) } else { None };
                Found { file, rules, warnings: read.warnings, lint, ..Found::default() }
            }
        }
    };
    inputs.into_iter().map(check).collect()
}

fn print(
    found: &[Found],
    out: &mut dyn std::io::Write,
    errors: &mut dyn std::io::Write,
) -> std::io::Result<()> {
    for found in found {
        writeln!(out, "Checking {}", found.file)?;
        for warning in &found.warnings {
            writeln!(errors, "{warning}")?;
        }
        if !found.errors.is_empty() {
            writeln!(errors, "  FAILED:\n{}", found.errors.join("\n"))?;
        } else if let Some(lint) = &found.lint {
            writeln!(errors, "  FAILED:\n{lint}")?;
        } else {
            writeln!(out, "  SUCCESS: {} rules found", found.rules)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The same for files of groups: what each file writes twice.
pub(super) fn duplicates_by_file(groups: &[GroupSpec]) -> Vec<String> {
    let by_file = groups.chunk_by(|a, b| a.file == b.file);
    let told = by_file.filter_map(|groups| {
        let file = &groups.first()?.file;
        duplicates(groups).map(|found| format!("{file}: {found}"))
    });
    told.collect()
}

/// Rules that write the same series or alerts, if there are any.
fn duplicates(groups: &[GroupSpec]) -> Option<String> {
    use std::fmt::Write as _;
    let mut seen = BTreeMap::new();
    for rule in groups.iter().flat_map(|group| &group.rules) {
        let labels = rule.labels.iter().map(|(name, text)| (name.as_str(), text.raw()));
        let labels: Vec<(&str, &str)> = labels.collect();
        *seen.entry((rule.name.as_str(), labels)).or_insert(0) += 1;
    }
    seen.retain(|_, count| *count > 1);
    if seen.is_empty() {
        return None;
    }
    let mut text = format!("lint error {} duplicate rule(s) found.\n", seen.len());
    for (name, labels) in seen.keys() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Metric: {name}\nLabel(s):");
        for (label, value) in labels {
            let _ = writeln!(text, "\t{label}: {value}");
        }
    }
    text.push_str("Might cause inconsistency while recording expressions");
    Some(text)
}

fn reading(features: &[String]) -> Reading {
    Reading {
        features: language(features),
        name_scheme: NameScheme::Utf8,
        interval: Span::MINUTE,
        query_offset: Span::ZERO,
        ignore_unknown: false,
    }
}

/// What the features switch on in the language.
fn language(features: &[String]) -> parse::Options {
    let has = |name: &str| features.iter().any(|feature| feature == name);
    parse::Options {
        experimental_functions: has("promql-experimental-functions"),
        extended_range_selectors: has("promql-extended-range-selectors"),
        fill_modifiers: has("promql-binop-fill-modifiers"),
        ..parse::Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("stint-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn checked(name: &str, yaml: &str, lint: &str) -> (bool, bool, String, String) {
        let folder = folder(name);
        let file = folder.join("r.yml");
        std::fs::write(&file, yaml).unwrap();
        let args = CheckArgs {
            files: vec![file],
            lint: lint.to_owned(),
            lint_fatal: false,
            ignore_unknown_fields: name == "unknown",
            enable_feature: Vec::new(),
            format: Format::Text,
        };
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let found = look(&args);
        print(&found, &mut out, &mut errors).unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap().replace(&format!("{}/", folder.display()), "")
        };
        std::fs::remove_dir_all(&folder).unwrap();
        let [found] = &*found else { panic!("one file") };
        let json = found.to_json();
        assert_eq!(json["valid"], found.errors.is_empty());
        assert_eq!(json["lints"].as_array().map(Vec::len), Some(found.lint.iter().count()));
        (found.errors.is_empty(), found.lint.is_none(), text(out), text(errors))
    }

    #[test]
    fn rule_files_are_checked_in_promtools_words() {
        let (is_valid, is_clean, out, errors) =
            checked("good", "groups: [{name: g, rules: [{record: a, expr: up}]}]", "all");
        assert!(is_valid && is_clean);
        assert_eq!((&*out, &*errors), ("Checking r.yml\n  SUCCESS: 1 rules found\n\n", ""));
        let (is_valid, _, out, errors) =
            checked("bad", "groups: [{name: g, rules: [{record: a}]}]", "all");
        assert!(!is_valid);
        assert_eq!(out, "Checking r.yml\n\n");
        assert_eq!(
            errors,
            "  FAILED:\nr.yml: 1:28: group \"g\", rule 1, \"a\": field 'expr' must be set in rule\n"
        );
    }

    #[test]
    fn unknown_fields_are_passed_over_where_that_is_wanted() {
        let yaml = "groups: [{name: g, owner: me, rules: [{record: a, expr: up}]}]";
        assert!(!checked("known", yaml, "all").0);
        assert!(checked("unknown", yaml, "all").0);
    }

    #[test]
    fn duplicates_are_found_unless_nobody_wants_to_know() {
        let rule = "{record: a, expr: up, labels: {x: y}}";
        let yaml = format!("groups: [{{name: g, rules: [{rule}, {rule}]}}]");
        let (is_valid, is_clean, _, errors) = checked("twice", &yaml, "duplicate-rules");
        assert!(is_valid && !is_clean);
        assert_eq!(
            errors,
            "  FAILED:\nlint error 1 duplicate rule(s) found.\nMetric: a\nLabel(s):\n\tx: y\nMight cause \
             inconsistency while recording expressions\n"
        );
        assert!(checked("none", &yaml, "none").1);
    }
}
