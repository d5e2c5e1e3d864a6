//! `stint check`: reads what the server would read, and everything that points to, without starting
//! anything.

mod configuration;
mod endpoints;
mod metrics;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::Format;
use crate::server::web;
use configuration::Depth;
pub(super) use configuration::found;

/// What to check.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CheckArgs {
    #[command(subcommand)]
    what: Option<CheckWhat>,
    /// `prometheus.yml`; without the flag the one in the working directory, where there is one, else
    /// the built-in configuration.
    #[arg(long = "config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// `retention.toml`; without the flag the one beside `prometheus.yml`, where there is one.
    #[arg(long = "retention.file", value_name = "FILE")]
    retention_file: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// What can be checked by itself.
#[derive(Debug, clap::Subcommand)]
enum CheckWhat {
    /// Checks rule files.
    Rules(super::rules::CheckArgs),
    Metrics(metrics::MetricsArgs),
    /// Checks configurations, as without a word: both files and what they point to.
    Config(ConfigArgs),
    /// Checks files for `--web.config.file`, and the certificates that they point to.
    WebConfig(WebConfigArgs),
}

/// Which web configurations to check.
#[derive(Debug, clap::Args)]
struct WebConfigArgs {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// The configurations to check.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// `prometheus.yml`; several are checked one by one.
    #[arg(required = true, value_name = "FILE")]
    config_files: Vec<PathBuf>,
    /// `retention.toml`; without the flag the one beside `prometheus.yml`, where there is one.
    #[arg(long = "retention.file", value_name = "FILE")]
    retention_file: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// How configurations are checked, and how that is told.
#[derive(Debug, clap::Args)]
struct How {
    /// Whether `${NAME}` is a variable of the environment in any value of both files.
    #[arg(long = "config.expand-env")]
    expand_env: bool,
    /// Check the two files only, not those that they point to.
    #[arg(long = "syntax-only")]
    syntax_only: bool,
    /// Where a server that is to be started anew with the configuration keeps its samples, if it ran
    /// already: told is what it takes that series are sent under other labels than by then.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "data/")]
    storage_path: PathBuf,
    /// What else to look for in rule files: duplicate-rules, all or none.
    #[arg(long, value_name = "WHAT", default_value = "duplicate-rules",
          value_parser = ["duplicate-rules", "all", "none"])]
    lint: String,
    /// Exit with 3 when that finds something.
    #[arg(long = "lint-fatal")]
    lint_fatal: bool,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Checks, and prints the report: to standard output when all is well, else to standard error.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    match &args.what {
        Some(CheckWhat::Rules(args)) => super::rules::check(args),
        Some(CheckWhat::Metrics(args)) => metrics::run(args),
        Some(CheckWhat::WebConfig(args)) => check_web(args),
        Some(CheckWhat::Config(args)) => {
            let given: Vec<_> = args.config_files.iter().map(|file| Some(file.as_path())).collect();
            check_all(&given, args.retention_file.as_deref(), &args.how)
        }
        None => {
            check_all(&[args.config_file.as_deref()], args.retention_file.as_deref(), &args.how)
        }
    }
}

/// Checks configurations; the exit code is that of the worst.
fn check_all(given: &[Option<&Path>], retention: Option<&Path>, how: &How) -> ExitCode {
    let depth = Depth {
        files_only: how.syntax_only,
        lints: how.lint != "none",
        expand_env: how.expand_env,
    };
    let (mut listed, mut is_valid, mut is_clean) = (Vec::new(), true, true);
    let mut replicas = Vec::new();
    for given in given {
        let (prometheus, retention) = found(*given, retention, Path::new(""));
        let (prometheus_path, retention_path) = (prometheus.as_deref(), retention.as_deref());
        let mut checked =
            configuration::check(prometheus_path, retention_path, &how.storage_path, depth);
        checked.compare(&replicas);
        replicas.append(&mut checked.replicas);
        is_valid &= checked.is_valid();
        is_clean &= checked.lints.is_empty();
        let files = [prometheus, retention].into_iter().flatten();
        let files: Vec<String> = files.map(|path| path.display().to_string()).collect();
        match how.format {
            Format::Json => listed.push(checked.to_json(&files)),
            Format::Text => {
                let report = checked.to_text(&files);
                // Where the report cannot be written, the exit code still tells.
                let _ = if checked.is_valid() {
                    std::io::stdout().write_all(report.as_bytes())
                } else {
                    std::io::stderr().write_all(report.as_bytes())
                };
            }
        }
    }
    if how.format == Format::Json {
        print_json(&listed);
    }
    match (is_valid, is_clean) {
        (false, _) => ExitCode::from(1),
        (true, false) if how.lint_fatal => ExitCode::from(super::rules::EXIT_LINT),
        (true, _) => ExitCode::SUCCESS,
    }
}

/// Prints one object for each file that was checked; where that cannot be, the exit code still tells.
pub(super) fn print_json(listed: &[serde_json::Value]) {
    let _ = writeln!(std::io::stdout(), "{:#}", json!(listed));
}

/// Tells of each web configuration whether the server would start with it.
fn check_web(args: &WebConfigArgs) -> ExitCode {
    let (mut listed, mut is_valid) = (Vec::new(), true);
    for file in &args.files {
        let (file_text, outcome) = (file.display().to_string(), web::check(file));
        is_valid &= outcome.is_ok();
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        // Where the report cannot be written, the exit code still tells.
        let _ = match (outcome, args.format) {
            (Ok(config), Format::Text) => {
                let warnings = config.warnings.iter();
                let warned = warnings.map(|warning| format!("warning: {warning}\n"));
                let report: String = warned.collect();
                writeln!(out, "{report}{file_text} SUCCESS")
            }
            (Err(errors), Format::Text) => writeln!(err, "{file_text} FAILED:\n{errors}"),
            (Ok(config), Format::Json) => {
                let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
                listed.push(json!({
                    "file": file_text, "valid": true, "warnings": warnings, "errors": [],
                }));
                Ok(())
            }
            (Err(errors), Format::Json) => {
                let errors: Vec<_> = errors.lines().collect();
                listed.push(json!({
                    "file": file_text, "valid": false, "warnings": [], "errors": errors,
                }));
                Ok(())
            }
        };
    }
    if args.format == Format::Json {
        print_json(&listed);
    }
    ExitCode::from(u8::from(!is_valid))
}
