//! `stint budget`: the report of a running server.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::budget::report::Report;
use crate::config::HttpConfig;
use crate::http::client::Client;

/// Shows what the series budget of each endpoint is spent on, and what is withheld.
#[derive(Debug, Args)]
pub(super) struct BudgetArgs {
    /// The running server.
    #[arg(long, default_value = "http://127.0.0.1:9090", value_name = "URL")]
    server: String,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for people.
    Text,
    /// The JSON of `/api/v1/status/budget`.
    Json,
}

/// The part of an API answer that matters here.
#[derive(Debug, Deserialize)]
struct Answer {
    data: Option<Report>,
    error: Option<String>,
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// Fetches the report and prints it on standard output.
pub(super) fn run(args: &BudgetArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(fetch(&args.server))?;
    let text = match args.format {
        Format::Text => report.to_string(),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the report")
}

async fn fetch(server: &str) -> anyhow::Result<Report> {
    let url = format!("{}/api/v1/status/budget", server.trim_end_matches('/'));
    let agent = concat!("Stint/", env!("CARGO_PKG_VERSION"));
    let client = Client::new(&HttpConfig::default(), agent)?;
    let request = client.request(reqwest::Method::GET, &url).await?.timeout(TIMEOUT);
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
