//! `stint snapshot`: a copy of a database that costs almost no room.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::Format;

/// Makes a copy of everything that is stored, as a data directory of its own whose blocks are hard
/// links: of a running server (which needs --web.enable-admin-api), or of a data directory that no
/// server has open.
///
/// Prints where it is. Exits with 1 when there is none.
#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    /// The running server.
    #[arg(long, value_name = "URL", conflicts_with_all = ["path", "name"])]
    server: Option<String>,
    /// The data directory.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "data/")]
    path: PathBuf,
    /// Name of the snapshot, a directory in `snapshots/` of the data directory.
    #[arg(required_unless_present = "server")]
    name: Option<String>,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Makes the snapshot.
pub(super) fn run(args: &SnapshotArgs) -> anyhow::Result<()> {
    let made = match (&args.server, &args.name) {
        (Some(server), _) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let answer = runtime.block_on(super::query::ask(server, "admin/tsdb/snapshot", &[]))?;
            let name = answer.pointer("/data/name").and_then(serde_json::Value::as_str);
            let name = name.context("the server does not say how the snapshot is called")?;
            Path::new("snapshots").join(name)
        }
        (None, Some(name)) => local(&args.path, name)?,
        (None, None) => bail!("a snapshot needs a name"),
    };
    let shown = made.display().to_string();
    let text = match args.format {
        Format::Text => format!("{shown}\n"),
        Format::Json => format!("{}\n", serde_json::json!({ "snapshot": shown })),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print where the snapshot is")
}

fn local(path: &Path, name: &str) -> anyhow::Result<PathBuf> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        bail!("{name} is no name of a directory");
    }
    let db = super::tsdb::open(path)?;
    let inside = Path::new("snapshots").join(name);
    let made = db.snapshot(&inside, true).context("cannot make the snapshot");
    db.close().context("cannot close the store")?;
    made?;
    Ok(path.join(inside))
}
