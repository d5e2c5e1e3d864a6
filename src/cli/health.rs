//! `stint health`: asks a running server whether it is well, for containers without other tools.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::config::HttpConfig;
use crate::http::client::Client;

/// Asks a running server whether it is well: exit code 0 when it is, 1 when it is not.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The running server, with its route prefix if it has one.
    #[arg(long, default_value = "http://127.0.0.1:9090", value_name = "URL")]
    server: String,
    /// Asks whether queries are answered, which takes until the store is open.
    #[arg(long)]
    ready: bool,
}

/// A container's check is over after five seconds by itself.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Asks once.
pub(super) fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let path = if args.ready { "/-/ready" } else { "/-/healthy" };
        let url = format!("{}{path}", args.server.trim_end_matches('/'));
        let client =
            Client::new(&HttpConfig::default(), concat!("Stint/", env!("CARGO_PKG_VERSION")))?;
        let request = client.request(reqwest::Method::GET, &url).await?.timeout(TIMEOUT);
        let response = request.send().await.with_context(|| format!("cannot ask {url}"))?;
        let status = response.status();
        anyhow::ensure!(status.is_success(), "{url} answered {status}");
        Ok(())
    })
}
