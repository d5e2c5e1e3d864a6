//! The command line: the server, and tools beside it.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub mod check;
pub mod flags;

mod budget;
mod compat;
mod environment;
mod health;
mod import;
mod inspect;
mod progress;
mod query;
#[cfg(test)]
mod reference;
mod rules;
mod serve;
mod snapshot;
mod tsdb;

use flags::Flags;

/// Exit code for flags and configurations that cannot be used, as Prometheus has it.
const EXIT_USAGE: u8 = 2;

/// Seven days of metrics, inside your series budget: scrapes, stores, answers and forwards in
/// the place of a Prometheus server.
#[derive(Debug, Parser)]
#[command(name = "stint", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Budget(budget::BudgetArgs),
    Health(health::HealthArgs),
    /// Checks both configuration files and what they point to, and starts nothing.
    Check(check::CheckArgs),
    Import(import::ImportArgs),
    Inspect(inspect::InspectArgs),
    Query(query::QueryArgs),
    /// Works with rules: computes recording rules over stored history.
    Rules(rules::RulesArgs),
    /// Runs unit tests.
    Test(rules::TestArgs),
    Tsdb(tsdb::TsdbArgs),
    Snapshot(snapshot::SnapshotArgs),
    /// Prints what a shell needs to complete flags and commands: `source <(stint completions bash)`.
    Completions(CompletionsArgs),
}

/// Whose completions.
#[derive(Debug, clap::Args)]
struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints completions on standard output.
fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "stint", &mut script);
    std::io::stdout().write_all(&script).context("cannot print completions")
}

/// What is said below all flags.
const ENVIRONMENT_HELP: &str = "Every flag of the server can be an environment variable too: \
    --web.listen-address is STINT_WEB_LISTEN_ADDRESS. Switches are true or false, what may be \
    repeated stands between commas, and the command line counts more.";

/// The heading under which help shows a flag, by what its name begins with.
fn heading(flag: &str) -> &'static str {
    match flag.split('.').next().unwrap_or_default() {
        "config" | "retention" => "Configuration",
        "web" => "Web",
        "otlp" => "OTLP",
        "storage" => "Storage",
        "rules" | "alertmanager" | "no-alertmanager" => "Rules and alerts",
        "query" => "Queries",
        _ => "Other",
    }
}

/// The command line, its flags in groups.
fn command() -> clap::Command {
    let command = Cli::command().after_help(ENVIRONMENT_HELP);
    command.mut_args(|argument| match argument.get_long().map(heading) {
        Some(heading) => argument.help_heading(heading),
        None => argument,
    })
}

/// A command line that was read.
struct Read {
    cli: Cli,
    warnings: Vec<String>,
}

/// Why there is nothing to run.
enum Unread {
    Refused(String),
    /// A mistake, or help that was asked for.
    Told(clap::Error),
}

/// Reads what the process was started with.
fn read(
    arguments: impl IntoIterator<Item = String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Read, Unread> {
    let command = command();
    let switches: Vec<&str> = command
        .get_arguments()
        .filter(|argument| matches!(argument.get_action(), ArgAction::SetTrue))
        .filter_map(|argument| argument.get_long())
        .collect();
    let compat::Sifted { mut arguments, mut warnings } =
        compat::sift(arguments, &switches).map_err(Unread::Refused)?;
    let parse = |arguments: &[String]| {
        let matches = command.clone().try_get_matches_from(arguments).map_err(Unread::Told)?;
        Cli::from_arg_matches(&matches).map_err(Unread::Told)
    };
    let cli = parse(&arguments)?;
    if cli.command.is_some() {
        return Ok(Read { cli, warnings });
    }
    let environment::Found { arguments: more, warnings: unknown } =
        environment::arguments(&command, variables, &arguments).map_err(Unread::Refused)?;
    warnings.extend(unknown);
    arguments.extend(more);
    Ok(Read { cli: parse(&arguments)?, warnings })
}

/// How an outcome is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[value(alias = "promql")]
    Text,
    /// JSON, for programs.
    Json,
}

/// Runs the command line that the process was started with.
pub fn main() -> ExitCode {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let Read { cli, warnings } = match read(std::env::args(), variables) {
        Ok(read) => read,
        Err(Unread::Refused(refusal)) => return fail(EXIT_USAGE, &refusal),
        Err(Unread::Told(error)) => {
            let code = error.exit_code();
            // Nothing is left to be done when not even the help text can be written.
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(EXIT_USAGE));
        }
    };
    let outcome = match &cli.command {
        None => return serve::run(&cli.flags, &warnings),
        Some(Command::Budget(args)) => match budget::run(args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Some(Command::Health(args)) => health::run(args),
        Some(Command::Query(args)) => query::run(args),
        Some(Command::Check(args)) => return check::run(args),
        Some(Command::Import(args)) => return import::run(args),
        Some(Command::Inspect(args)) => return inspect::run(args),
        Some(Command::Rules(args)) => rules::run(args),
        Some(Command::Test(args)) => return rules::test(args),
        Some(Command::Tsdb(args)) => return tsdb::run(args),
        Some(Command::Snapshot(args)) => snapshot::run(args),
        Some(Command::Completions(args)) => completions(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("{error:#}")),
    }
}

/// Tells on standard error why the process ends.
fn fail(code: u8, message: &str) -> ExitCode {
    // Where standard error is closed, the exit code is all that can be said.
    let _ = writeln!(std::io::stderr(), "stint: error: {message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_the_server_is_in_a_group() {
        for argument in command().get_arguments() {
            let Some(flag) = argument.get_long() else { continue };
            let other = ["enable-feature", "log.level", "log.format", "help", "version"];
            let is_other = argument.get_help_heading() == Some("Other");
            assert_eq!(is_other, other.contains(&flag), "{flag}");
        }
    }

    #[test]
    fn the_environment_is_for_the_server_alone() {
        let variables = || [("STINT_LOG_LEVEL".to_owned(), "debug".to_owned())];
        let read = |arguments: &[&str]| {
            read(arguments.iter().map(ToString::to_string), variables()).ok().unwrap().cli
        };
        assert_eq!(read(&["stint"]).flags.log_level.to_string(), "debug");
        let given = read(&["stint", "--log.level=warn"]);
        assert_eq!(given.flags.log_level.to_string(), "warn");
        assert!(read(&["stint", "check"]).command.is_some());
    }
}
