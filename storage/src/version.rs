//! Which blocks there are at a moment. A version never changes; publishing or removing a block
//! makes a new one, while readers keep the one they started with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sync::{Mutex, RwLock};
use stint_model::{TimeRange, Timestamp};

use crate::block::meta::without_superseded;
use crate::block::{Block, BlockError, BlockId, BlockMeta};
use crate::disk::{Disk, DiskError, DiskResult, TEMPORARY_SUFFIX};
use crate::error::{OpenError, Quarantined};

/// Directory of the blocks.
pub(crate) const DIR: &str = "blocks";
/// What the directory of a damaged block ends with.
const DAMAGED_SUFFIX: &str = ".damaged";

/// The blocks at a moment, in order of range, then of number.
#[derive(Debug, Default)]
pub(crate) struct Version {
    pub(crate) blocks: Vec<Block>,
}

impl Version {
    /// The block with this number.
    pub(crate) fn get(&self, id: BlockId) -> Option<&Block> {
        self.blocks.iter().find(|block| block.meta().id == id)
    }

    /// The range of all blocks together.
    pub(crate) fn bounds(&self) -> Option<TimeRange> {
        let start = self.blocks.iter().map(|block| block.meta().range.start).min()?;
        let end = self.blocks.iter().map(|block| block.meta().range.end).max()?;
        Some(TimeRange::new(start, end))
    }

    /// Bytes of all blocks.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.iter().map(Block::size_bytes).sum()
    }
}

/// The present version and the numbers that are free.
#[derive(Debug)]
pub(crate) struct Blocks {
    current: RwLock<Arc<Version>>,
    next: Mutex<BlockId>,
    /// Blocks that do not count but may still lie on the disk. Until they are gone nothing may
    /// be deleted: they would not know, and a restart would bring them back.
    leaving: Mutex<Vec<BlockId>>,
}

impl Blocks {
    /// Opens what lies on `disk`, removes what interrupted steps left, and sets damaged blocks
    /// aside.
    pub(crate) fn open(disk: &dyn Disk, aside: &mut Vec<Quarantined>) -> Result<Self, OpenError> {
        let mut blocks = Vec::new();
        let mut last = 0;
        for entry in disk.list(Path::new(DIR))? {
            let path = Path::new(DIR).join(&entry.name);
            if entry.name.ends_with(TEMPORARY_SUFFIX) {
                disk.remove_dir(&path)?;
                continue;
            }
            let name = entry.name.strip_suffix(DAMAGED_SUFFIX).unwrap_or(&entry.name);
            let Some(id) = BlockId::from_dir_name(name) else { continue };
            last = last.max(id.0);
            if name.len() < entry.name.len() {
                continue;
            }
            match Block::open(disk, &path) {
                Ok(block) => blocks.push(block),
                Err(BlockError::Disk(error)) if !error.is_not_found() => return Err(error.into()),
                Err(BlockError::Version { file, version, known }) => {
                    return Err(OpenError::NewerFormat {
                        path: file.into(),
                        found: version,
                        known,
                    });
                }
                Err(error) => aside.push(set_aside(disk, &path, &error)?),
            }
        }
        let metas: Vec<BlockMeta> = blocks.iter().map(|block| block.meta().clone()).collect();
        let (_, gone) = without_superseded(&metas);
        for meta in &gone {
            remove(disk, meta.id)?;
        }
        blocks.retain(|block| !gone.iter().any(|meta| meta.id == block.meta().id));
        sort(&mut blocks);
        let unused = BlockId::unused(&metas);
        Ok(Self {
            current: RwLock::new(Arc::new(Version { blocks })),
            next: Mutex::new(unused.max(BlockId(last + 1))),
            leaving: Mutex::default(),
        })
    }

    /// The present version.
    pub(crate) fn current(&self) -> Arc<Version> {
        Arc::clone(&self.current.read())
    }

    /// A number for a new block.
    pub(crate) fn new_id(&self) -> BlockId {
        let mut next = self.next.lock();
        let id = *next;
        next.0 += 1;
        id
    }

    /// Makes the version without the blocks `gone` and with `added`. Those that are gone leave the
    /// disk with the next [`Blocks::sweep`].
    pub(crate) fn change(&self, gone: &[BlockId], added: Vec<Block>) {
        let stays = |id: &BlockId| added.iter().any(|block| block.meta().id == *id);
        self.leaving.lock().extend(gone.iter().filter(|id| !stays(id)));
        let mut current = self.current.write();
        let kept = current.blocks.iter().filter(|block| !gone.contains(&block.meta().id));
        let mut blocks: Vec<Block> = kept.cloned().chain(added).collect();
        sort(&mut blocks);
        *current = Arc::new(Version { blocks });
    }
}

impl Blocks {
    /// Lets the block `id`, which never came to count, leave the disk, as far as it is there.
    pub(crate) fn give_up(&self, id: BlockId) {
        self.leaving.lock().push(id);
    }

    /// Whether blocks are to leave the disk.
    pub(crate) fn needs_sweep(&self) -> bool {
        !self.leaving.lock().is_empty()
    }

    /// Removes the blocks from the disk that are to leave it; how many there were. Those that an
    /// error keeps are tried again by the next call.
    pub(crate) fn sweep(&self, disk: &dyn Disk) -> DiskResult<u64> {
        let mut leaving = self.leaving.lock();
        let mut removed = 0;
        while let Some(id) = leaving.last() {
            remove(disk, *id)?;
            leaving.pop();
            removed += 1;
        }
        Ok(removed)
    }
}

fn sort(blocks: &mut [Block]) {
    blocks.sort_by_key(|block| (block.meta().range.start, block.meta().range.end, block.meta().id));
}

/// Where a block lies.
pub(crate) fn path(id: BlockId) -> PathBuf {
    Path::new(DIR).join(id.dir_name())
}

/// Removes a block from the disk so that an interruption leaves it whole or not at all.
fn remove(disk: &dyn Disk, id: BlockId) -> DiskResult<()> {
    let path = path(id);
    let going = Path::new(DIR).join(format!("{}{TEMPORARY_SUFFIX}", id.dir_name()));
    let ignore_missing = |result: Result<(), DiskError>| match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    };
    ignore_missing(disk.remove_dir(&going))?;
    ignore_missing(disk.rename(&path, &going))?;
    disk.sync_dir(Path::new(DIR))?;
    ignore_missing(disk.remove_dir(&going))
}

/// Whether the directory of this name is a damaged block that was set aside.
pub(crate) fn is_set_aside(name: &str) -> bool {
    name.strip_suffix(DAMAGED_SUFFIX).and_then(BlockId::from_dir_name).is_some()
}

fn set_aside(disk: &dyn Disk, path: &Path, error: &BlockError) -> DiskResult<Quarantined> {
    let mut name = path.as_os_str().to_owned();
    name.push(DAMAGED_SUFFIX);
    let aside = PathBuf::from(name);
    disk.rename(path, &aside)?;
    disk.sync_dir(Path::new(DIR))?;
    Ok(Quarantined { path: aside, reason: error.to_string() })
}

/// The block range that `at` lies in.
pub(crate) fn window(at: Timestamp, length: i64) -> TimeRange {
    let start = at.0.div_euclid(length).saturating_mul(length);
    TimeRange::new(Timestamp(start), Timestamp(start.saturating_add(length)))
}
