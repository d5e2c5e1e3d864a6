//! `stint budget`: the report of a running server, live, and plans before something is deployed.

mod plan;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::budget::report::Report;
use crate::config::HttpConfig;
use crate::http::client::Client;

/// Shows what the series budget of each endpoint is spent on, and what is withheld.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BudgetArgs {
    #[command(subcommand)]
    command: Option<BudgetCommand>,
    /// The running server.
    #[arg(long, default_value = "http://127.0.0.1:9090", value_name = "URL")]
    server: String,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Shows the report live, until q is pressed.
    #[arg(long, conflicts_with = "format")]
    watch: bool,
}

#[derive(Debug, Subcommand)]
enum BudgetCommand {
    Plan(plan::PlanArgs),
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for people.
    Text,
    /// JSON, as the API has it.
    Json,
}

/// The part of an API answer that matters here.
#[derive(Debug, Deserialize)]
struct Answer {
    data: Option<Report>,
    error: Option<String>,
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// Fetches the report and prints it on standard output, or what else was asked for.
pub(super) fn run(args: &BudgetArgs) -> anyhow::Result<ExitCode> {
    if let Some(BudgetCommand::Plan(args)) = &args.command {
        return plan::run(args);
    }
    if args.watch {
        watch::run(&args.server)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(fetch(&args.server))?;
    print(&match args.format {
        Format::Text => report.to_string(),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the report")
}

/// Tells of something that does not keep the rest from being told.
fn warn(problem: &str) -> anyhow::Result<()> {
    writeln!(std::io::stderr(), "warning: {problem}").context("cannot print a warning")
}

fn client() -> anyhow::Result<Client> {
    Ok(Client::new(&HttpConfig::default(), concat!("Stint/", env!("CARGO_PKG_VERSION")))?)
}

async fn fetch(server: &str) -> anyhow::Result<Report> {
    let url = format!("{}/api/v1/status/budget", server.trim_end_matches('/'));
    let request = client()?.request(reqwest::Method::GET, &url).await?.timeout(TIMEOUT);
    let hint = || format!("cannot ask {url}; is the server running there? see --server");
    let response = request.send().await.with_context(hint)?;
    let status = response.status();
    let body = response.bytes().await.with_context(hint)?;
    let answer: Answer = serde_json::from_slice(&body)
        .with_context(|| format!("{url} answered {status} and no budget report"))?;
    match (answer.data, answer.error) {
        (Some(report), _) => Ok(report),
        (None, Some(error)) => anyhow::bail!("{url} answered {status}: {error}"),
        (None, None) => anyhow::bail!("{url} answered {status} and no budget report"),
    }
}
