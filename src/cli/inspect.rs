//! `stint inspect`: what a data directory holds, and whether all of it is whole.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use stint_model::Timestamp;
use stint_storage::check::{CheckReport, check};
use stint_storage::{BlockEntry, Disk, Inventory, OsDisk};

use super::Format;
use crate::import::folder::own_folder;

/// Lists the blocks and the log of a data directory, and verifies them.
///
/// Exits with 0 when all is well, with 1 when something is damaged or the directory cannot be
/// read.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The data directory.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "data/")]
    pub(super) path: PathBuf,
    /// Read everything and verify checksums, order and references. No server may have the
    /// directory open; a snapshot of a running one can be verified instead.
    #[arg(long)]
    pub(super) verify: bool,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    blocks: Vec<BlockRow>,
    log_segments: u64,
    log_bytes: u64,
    unusable: Vec<Problem>,
    verified: Option<Verified>,
}

#[derive(Debug, Serialize)]
struct BlockRow {
    id: String,
    min_time_ms: i64,
    max_time_ms: i64,
    level: u32,
    series: u64,
    samples: u64,
    chunks: u64,
    bytes: u64,
    series_with_deletions: u64,
}

#[derive(Debug, Serialize)]
struct Problem {
    path: PathBuf,
    what: String,
}

#[derive(Debug, Serialize)]
struct Verified {
    blocks: u64,
    block_samples: u64,
    log_segments: u64,
    log_series: u64,
    log_samples: u64,
    checkpoints: u64,
    checkpoint_samples: u64,
    head_files: u64,
    findings: Vec<Problem>,
}

/// Inspects, and prints the report on standard output.
pub(super) fn run(args: &InspectArgs) -> ExitCode {
    match inspect(&args.path, args.verify).and_then(|report| print(&report, args.format)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => super::fail(1, &format!("{error:#}")),
    }
}

/// Whether all is well.
fn print(report: &Report, format: Format) -> anyhow::Result<bool> {
    let text = match format {
        Format::Text => report.to_string(),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(report)?),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the report")?;
    let findings = report.verified.as_ref().map_or(0, |verified| verified.findings.len());
    Ok(report.unusable.is_empty() && findings == 0)
}

fn inspect(path: &Path, verify: bool) -> anyhow::Result<Report> {
    let path = &own_folder(path);
    if !["wal", "blocks"].iter().any(|dir| path.join(dir).is_dir()) {
        anyhow::bail!(
            "{} holds no database (neither wal/ nor blocks/); see --storage.tsdb.path",
            path.display()
        );
    }
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new(path)?);
    let verified = if verify { Some(verified(path, &disk)?) } else { None };
    let all = Inventory::take(&*disk)?;
    Ok(Report {
        path: path.clone(),
        blocks: all.blocks.iter().map(row).collect(),
        log_segments: all.segments,
        log_bytes: all.log_bytes,
        unusable: all.unusable.into_iter().map(|(path, what)| Problem { path, what }).collect(),
        verified,
    })
}

fn verified(path: &Path, disk: &Arc<dyn Disk>) -> anyhow::Result<Verified> {
    let lock = Path::new("lock");
    // A directory without the file, such as a snapshot, was never open: it is left as it is.
    let _held = match path.join(lock).exists().then(|| disk.lock(lock)).transpose() {
        Ok(held) => held,
        Err(error) if error.source.kind() == std::io::ErrorKind::WouldBlock => anyhow::bail!(
            "a server has {} open and writes to it; stop it, or verify a snapshot of it (POST /api/v1/admin/tsdb/snapshot)",
            path.display()
        ),
        Err(error) => return Err(error.into()),
    };
    let CheckReport {
        segments,
        wal_samples,
        wal_series,
        checkpoints,
        checkpoint_samples,
        head_files,
        blocks,
        block_samples,
        findings,
    } = check(disk)?;
    let problem =
        |finding: stint_storage::check::Finding| Problem { path: finding.path, what: finding.what };
    Ok(Verified {
        blocks,
        block_samples,
        log_segments: segments,
        log_series: wal_series,
        log_samples: wal_samples,
        checkpoints,
        checkpoint_samples,
        head_files,
        findings: findings.into_iter().map(problem).collect(),
    })
}

fn row(block: &BlockEntry) -> BlockRow {
    let meta = &block.meta;
    BlockRow {
        id: meta.id.to_string(),
        min_time_ms: meta.range.start.as_ms(),
        max_time_ms: meta.range.end.as_ms(),
        level: meta.level,
        series: meta.series,
        samples: meta.samples,
        chunks: meta.chunks,
        bytes: block.bytes,
        series_with_deletions: block.series_with_deletions,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.blocks.is_empty() {
            writeln!(f, "no blocks yet: everything is in the log")?;
        } else {
            writeln!(
                f,
                "{:<13} {:<20} {:<20} {:>5} {:>9} {:>13} {:>11} {:>8}",
                "block", "from", "to", "level", "series", "samples", "bytes", "B/sample"
            )?;
        }
        for block in &self.blocks {
            let mut line = String::new();
            write!(
                line,
                "{:<13} {:<20} {:<20} {:>5} {:>9} {:>13} {:>11} {:>8.3}",
                block.id,
                time(block.min_time_ms),
                time(block.max_time_ms),
                block.level,
                block.series,
                block.samples,
                block.bytes,
                per(block.bytes, block.samples)
            )?;
            if block.series_with_deletions > 0 {
                write!(line, "  parts of {} series deleted", block.series_with_deletions)?;
            }
            writeln!(f, "{line}")?;
        }
        let bytes: u64 = self.blocks.iter().map(|block| block.bytes).sum();
        let samples: u64 = self.blocks.iter().map(|block| block.samples).sum();
        writeln!(
            f,
            "{} blocks: {samples} samples in {bytes} bytes ({:.3} each); log: {} segments, {} bytes",
            self.blocks.len(),
            per(bytes, samples),
            self.log_segments,
            self.log_bytes
        )?;
        for Problem { path, what } in &self.unusable {
            writeln!(f, "not usable: {}: {what}", path.display())?;
        }
        let Some(verified) = &self.verified else { return Ok(()) };
        for Problem { path, what } in &verified.findings {
            writeln!(f, "damaged: {}: {what}", path.display())?;
        }
        writeln!(
            f,
            "verified {} samples in {} blocks, {} in {} checkpoints with {} files of the head, and {} in {} segments of the log, of {} series: {}",
            verified.block_samples,
            verified.blocks,
            verified.checkpoint_samples,
            verified.checkpoints,
            verified.head_files,
            verified.log_samples,
            verified.log_segments,
            verified.log_series,
            match verified.findings.len() {
                0 => "all is well".to_owned(),
                1 => "1 finding".to_owned(),
                many => format!("{many} findings"),
            }
        )
    }
}

fn per(bytes: u64, samples: u64) -> f64 {
    if samples == 0 { 0.0 } else { bytes as f64 / samples as f64 }
}

/// UTC, to the second.
fn time(at_ms: i64) -> String {
    let at = Timestamp(at_ms.div_euclid(1000).saturating_mul(1000));
    jiff::Timestamp::from_millisecond(at.as_ms())
        .map_or_else(|_| "-".to_owned(), |at| at.to_string())
}
