//! The directories of blocks.

use std::path::Path;

use super::{CheckReport, or_nothing};
use crate::block::chunks::CHUNKS_FILE;
use crate::block::meta::META_FILE;
use crate::block::reader::INDEX_FILE;
use crate::block::{Block, BlockId};
use crate::disk::{Disk, DiskResult, TEMPORARY_SUFFIX};
use crate::tombstones::TOMBSTONES_FILE;
use crate::version;

const FILES: [&str; 4] = [CHUNKS_FILE, INDEX_FILE, META_FILE, TOMBSTONES_FILE];

pub(super) fn check(disk: &dyn Disk, report: &mut CheckReport) -> DiskResult<()> {
    for entry in or_nothing(disk.list(Path::new(version::DIR)))? {
        let path = Path::new(version::DIR).join(&entry.name);
        if entry.name.ends_with(TEMPORARY_SUFFIX) {
            continue;
        }
        match BlockId::from_dir_name(&entry.name) {
            Some(id) if entry.is_dir => check_block(disk, &path, id, report)?,
            _ => report.found(&path, "not a block (or one that was set aside)"),
        }
    }
    Ok(())
}

fn check_block(
    disk: &dyn Disk,
    path: &Path,
    id: BlockId,
    report: &mut CheckReport,
) -> DiskResult<()> {
    for entry in disk.list(path)? {
        let known = entry.name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(&entry.name);
        if !FILES.contains(&known) {
            report.found(&path.join(&entry.name), "unknown file");
        }
    }
    let block = match Block::open(disk, path) {
        Ok(block) => block,
        Err(error) => {
            report.found(path, error.to_string());
            return Ok(());
        }
    };
    report.blocks += 1;
    let meta = block.meta();
    if meta.id != id {
        report.found(&path.join(META_FILE), format!("it is the meta of {}", meta.id));
    }
    match block.verify() {
        Ok(()) => report.block_samples += meta.samples,
        Err(corruption) => report.found(path, corruption.to_string()),
    }
    Ok(())
}
