//! Walks over a database that nobody has open and verifies what must hold.
//!
//! - Every record of the log has its checksum and can be decoded; samples, exemplars and
//!   deletions name series that an earlier record or the checkpoint defined; no handle has two
//!   label sets.
//! - Segments that are replayed follow each other without gaps.
//! - Every block opens, its index and chunks have their checksums, its samples rise and lie
//!   inside its range ([`Block::verify`]).
//! - The identity of the log can be read.
//! - Files with sealed chunks of the head have their checksums, and have what the checkpoint says.
//! - Nothing unknown lies in the directories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use stint_model::Labels;

use crate::block::{Block, BlockId};
use crate::disk::{Disk, DiskError, TEMPORARY_SUFFIX};
use crate::head::{arena, state};
use crate::version;
use crate::wal::record::{self, Item};
use crate::wal::segment::{self, SegmentReader, Step};
use crate::wal::{self, checkpoint, identity};

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong, and where in it.
    pub what: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Segments of the log read.
    pub segments: u64,
    /// Samples in them.
    pub wal_samples: u64,
    /// Series known to the log.
    pub wal_series: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Samples in them.
    pub block_samples: u64,
    /// What does not hold; empty when all is well.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    fn found(&mut self, path: &Path, what: impl Into<String>) {
        self.findings.push(Finding { path: path.to_path_buf(), what: what.into() });
    }
}

/// Verifies the database on `disk`, reading all of it and changing nothing.
///
/// # Errors
/// The disk fails. What does not hold is no error but a finding.
pub fn check(disk: &Arc<dyn Disk>) -> Result<CheckReport, DiskError> {
    let mut report = CheckReport::default();
    let extents = check_log(disk, &mut report)?;
    check_blocks(disk, &mut report)?;
    check_head(disk, extents, &mut report)?;
    Ok(report)
}

/// How many items the payload of a record of the log has.
///
/// # Errors
/// Why it makes no sense.
pub fn record_items(payload: &[u8]) -> Result<usize, &'static str> {
    let mut count = 0;
    record::decode(payload, |_| count += 1)?;
    Ok(count)
}

/// What records said so far.
#[derive(Default)]
struct Known {
    series: HashMap<u64, Labels>,
    extents: Extents,
}

/// Files of sealed chunks, and how many bytes of each are referred to.
type Extents = BTreeMap<u32, u64>;

/// Returns what the checkpoint refers to.
fn check_log(disk: &Arc<dyn Disk>, report: &mut CheckReport) -> Result<Extents, DiskError> {
    let mut segments = BTreeMap::new();
    let mut newest_checkpoint = None;
    let entries = match disk.list(Path::new(wal::DIR)) {
        // A snapshot that was never opened has none.
        Err(error) if error.is_not_found() => Vec::new(),
        entries => entries?,
    };
    for entry in entries {
        let path = Path::new(wal::DIR).join(&entry.name);
        if let Some(number) = checkpoint::number_of(&entry.name) {
            newest_checkpoint = newest_checkpoint.max(Some((number, entry.size)));
        } else if let Ok(number) = entry.name.parse::<u64>() {
            segments.insert(number, entry.size);
        } else if entry.name == identity::FILE {
            if identity::read(&**disk)?.is_none() {
                report.found(&path, "not the identity of a log");
            }
        } else if !entry.name.ends_with(TEMPORARY_SUFFIX) {
            report.found(&path, "unknown file");
        }
    }
    let mut known = Known::default();
    let mut first = 0;
    if let Some((number, size)) = newest_checkpoint {
        first = number;
        check_records(disk, &checkpoint::path(number), size, &mut known, report)?;
    }
    let mut expected = None;
    for (number, size) in segments.range(first..) {
        let path = segment::path(*number);
        if expected.is_some_and(|expected| expected != *number) {
            report.found(&path, "the segment before it is missing");
        }
        expected = Some(number + 1);
        check_records(disk, &path, *size, &mut known, report)?;
        report.segments += 1;
    }
    report.wal_series = known.series.len() as u64;
    Ok(known.extents)
}

fn check_records(
    disk: &Arc<dyn Disk>,
    path: &Path,
    size: u64,
    known: &mut Known,
    report: &mut CheckReport,
) -> Result<(), DiskError> {
    let mut reader = SegmentReader::new(Arc::clone(disk), path.to_path_buf(), 0, size);
    if size == 0 {
        // Its header was torn, and cut off when the database was opened.
        return Ok(());
    }
    if reader.version()?.is_none() {
        report.found(path, "no header");
        return Ok(());
    }
    loop {
        let at = reader.offset();
        match reader.step()? {
            Step::End => return Ok(()),
            Step::Damaged { offset, bytes, reason, .. } => {
                report.found(path, format!("{bytes} bytes at {offset}: {reason}"));
            }
            Step::Record { payload, .. } => {
                let mut items = Vec::new();
                if let Err(reason) = record::decode(payload, |item| items.push(item)) {
                    report.found(path, format!("record at {at}: {reason}"));
                }
                for item in items {
                    if let Some(what) = check_item(item, known, report) {
                        report.found(path, format!("record at {at}: {what}"));
                    }
                }
            }
        }
    }
}

fn check_item(item: Item, known: &mut Known, report: &mut CheckReport) -> Option<String> {
    let id = match item {
        Item::Series { id, labels, .. } => {
            let first = known.series.entry(id).or_insert_with(|| labels.clone());
            return (*first != labels).then(|| format!("series {id} is {first} and {labels}"));
        }
        Item::Sample { id, .. } => {
            report.wal_samples += 1;
            id
        }
        Item::Exemplar { id, .. } | Item::Deleted { id, .. } => id,
        Item::State { id, state } => match state::extents(&state) {
            Ok(extents) => {
                for (file, end) in extents {
                    let referred = known.extents.entry(file).or_default();
                    *referred = end.max(*referred);
                }
                id
            }
            Err(corruption) => return Some(corruption.to_string()),
        },
        Item::Metadata { .. }
        | Item::StatesAt { .. }
        | Item::FlushBegin { .. }
        | Item::FlushDone { .. }
        | Item::Checkpoint { .. } => return None,
    };
    (!known.series.contains_key(&id)).then(|| format!("series {id} was never defined"))
}

fn check_head(
    disk: &Arc<dyn Disk>,
    mut extents: Extents,
    report: &mut CheckReport,
) -> Result<(), DiskError> {
    let dir = Path::new(arena::DIR);
    let entries = match disk.list(dir) {
        // A snapshot that was never opened has none.
        Err(error) if error.is_not_found() => Vec::new(),
        entries => entries?,
    };
    for entry in entries {
        let path = dir.join(&entry.name);
        if let Some(number) = arena::number_of(&entry.name) {
            let referred = extents.remove(&number).unwrap_or(0);
            if referred > entry.size {
                report.found(&path, "shorter than the checkpoint says");
            }
            if !arena::is_whole(&**disk, &path, 1 << 20)? {
                report.found(&path, "checksum mismatch");
            }
        } else if !arena::is_unfinished(&entry.name) {
            report.found(&path, "unknown file");
        }
    }
    for number in extents.keys() {
        report.found(&arena::path(*number), "missing, and the checkpoint refers to it");
    }
    Ok(())
}

fn check_blocks(disk: &Arc<dyn Disk>, report: &mut CheckReport) -> Result<(), DiskError> {
    for entry in disk.list(Path::new(version::DIR))? {
        let path = Path::new(version::DIR).join(&entry.name);
        if entry.name.ends_with(TEMPORARY_SUFFIX) {
            continue;
        }
        if BlockId::from_dir_name(&entry.name).is_none() {
            report.found(&path, "not a block (or one that was set aside)");
            continue;
        }
        match Block::open(&**disk, &path) {
            Ok(block) => {
                report.blocks += 1;
                report.block_samples += block.meta().samples;
                if let Err(corruption) = block.verify() {
                    report.found(&path, corruption.to_string());
                }
            }
            Err(error) => report.found(&path, error.to_string()),
        }
    }
    Ok(())
}
