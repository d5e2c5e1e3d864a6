//! What lies on the disk beside segments and blocks: checkpoints, temporary folders that a failed
//! step left, damaged blocks that were set aside. Size retention counts it too.

use std::path::Path;

use crate::block::BlockId;
use crate::db::Inner;
use crate::disk::{DirEntry, Disk, DiskResult, TEMPORARY_SUFFIX};
use crate::version::{self, Version};
use crate::wal;

/// Bytes of files that no other count has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// In the directory of the log.
    pub(crate) log: u64,
    /// In the directory of the blocks.
    pub(crate) blocks: u64,
    /// Names of the damaged blocks that were set aside.
    pub(crate) set_aside: Vec<String>,
}

/// What lies there now; where the disk refuses to tell, what was found last.
pub(crate) fn measure(db: &Inner) -> Usage {
    let mut last = db.usage.lock();
    if let Ok(usage) = look(&*db.disk, &db.blocks.current()) {
        *last = usage;
    }
    last.clone()
}

fn look(disk: &dyn Disk, version: &Version) -> DiskResult<Usage> {
    let mut usage = Usage::default();
    for entry in list(disk, Path::new(wal::DIR))? {
        if entry.name.parse::<u64>().is_err() {
            usage.log += entry.size;
        }
    }
    for entry in list(disk, Path::new(version::DIR))? {
        let counted =
            BlockId::from_dir_name(&entry.name).is_some_and(|id| version.get(id).is_some());
        if version::is_set_aside(&entry.name) {
            usage.set_aside.push(entry.name.clone());
        }
        let files = list(disk, &Path::new(version::DIR).join(&entry.name));
        if !entry.is_dir {
            usage.blocks += entry.size;
        } else if counted {
            // What counts has been counted, but not what an interrupted step left in it.
            let left = files?.into_iter().filter(|file| file.name.ends_with(TEMPORARY_SUFFIX));
            usage.blocks += left.map(|file| file.size).sum::<u64>();
        } else {
            usage.blocks += files?.iter().map(|file| file.size).sum::<u64>();
        }
    }
    Ok(usage)
}

/// Nothing, where the directory has gone meanwhile.
fn list(disk: &dyn Disk, dir: &Path) -> DiskResult<Vec<DirEntry>> {
    match disk.list(dir) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        listed => listed,
    }
}
