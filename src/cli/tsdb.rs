//! `stint tsdb`: what a data directory holds, for people who know promtool.

mod analyze;
mod dump;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use stint_model::Selector;
use stint_promql::parse::parse_selector;
use stint_storage::{Db, OpenError, Options, OsDisk};

use super::Format;
use super::inspect::InspectArgs;
use crate::import::folder::own_folder;

/// Looks into a data directory.
///
/// All but `list` need it for themselves: a server that has it open writes to it. A snapshot of a
/// running server (`stint snapshot --server`) can be looked into instead.
///
/// Exits with 0 when all is well, and with 1 when something is damaged or cannot be read.
#[derive(Debug, Args)]
pub(super) struct TsdbArgs {
    #[command(subcommand)]
    what: TsdbWhat,
}

#[derive(Debug, Subcommand)]
enum TsdbWhat {
    /// Lists the blocks, and how much is in the log.
    List(ListArgs),
    /// Reads everything and verifies checksums, order and references.
    Verify(ListArgs),
    Analyze(analyze::AnalyzeArgs),
    /// Prints samples, one on each line.
    Dump(dump::DumpArgs),
    /// Prints samples in OpenMetrics, which `stint import` and `promtool tsdb create-blocks-from
    /// openmetrics` read. Native histograms have no place in it and are left out.
    DumpOpenmetrics(dump::DumpArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The data directory.
    #[arg(default_value = "data/")]
    path: PathBuf,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Looks, and prints on standard output.
pub(super) fn run(args: &TsdbArgs) -> ExitCode {
    let outcome = match &args.what {
        TsdbWhat::List(args) => return super::inspect::run(&args.inspect(false)),
        TsdbWhat::Verify(args) => return super::inspect::run(&args.inspect(true)),
        TsdbWhat::Analyze(args) => analyze::run(args),
        TsdbWhat::Dump(args) => dump::run(args, dump::Style::Lines),
        TsdbWhat::DumpOpenmetrics(args) => dump::run(args, dump::Style::OpenMetrics),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(1, &format!("{error:#}")),
    }
}

impl ListArgs {
    fn inspect(&self, verify: bool) -> InspectArgs {
        InspectArgs { path: self.path.clone(), verify, format: self.format }
    }
}

fn selector(text: &str) -> Result<Selector, String> {
    parse_selector(text).map(Selector::new).map_err(|error| error.to_string())
}

/// Opens the database in `path`, of which nothing is removed.
pub(super) fn open(path: &Path) -> anyhow::Result<Db> {
    let path = &own_folder(path);
    if !["wal", "blocks"].iter().any(|dir| path.join(dir).is_dir()) {
        bail!("{} holds no database (neither wal/ nor blocks/)", path.display());
    }
    let options = Options { retention: None, retention_bytes: None, ..Options::default() };
    match Db::open(Arc::new(OsDisk::new(path)?), options) {
        Ok((db, _)) => Ok(db),
        Err(OpenError::InUse) => bail!(
            "a server has {0} open and writes to it; stop it, or make a snapshot of it with stint \
             snapshot --server and look into that",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
}
