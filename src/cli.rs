//! The command line: the server, and tools beside it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod check;
pub mod flags;

mod budget;
mod compat;
mod health;
mod inspect;
mod query;
mod rules;
mod serve;

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
    Inspect(inspect::InspectArgs),
    Query(query::QueryArgs),
    /// Works with rules: computes recording rules over stored history.
    Rules(rules::RulesArgs),
    /// Runs unit tests.
    Test(rules::TestArgs),
}

/// Runs the command line that the process was started with.
pub fn main() -> ExitCode {
    let sifted = match compat::sift(std::env::args()) {
        Ok(sifted) => sifted,
        Err(refusal) => return fail(EXIT_USAGE, &refusal),
    };
    let cli = match Cli::try_parse_from(sifted.arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = error.exit_code();
            // Nothing is left to be done when not even the help text can be written.
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(EXIT_USAGE));
        }
    };
    let outcome = match &cli.command {
        None => return serve::run(&cli.flags, &sifted.warnings),
        Some(Command::Budget(args)) => match budget::run(args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Some(Command::Health(args)) => health::run(args),
        Some(Command::Query(args)) => query::run(args),
        Some(Command::Check(args)) => return check::run(args),
        Some(Command::Inspect(args)) => return inspect::run(args),
        Some(Command::Rules(args)) => rules::run(args),
        Some(Command::Test(args)) => return rules::test(args),
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
