//! What a database consists of, without opening it: blocks, log, and what lies beside them.
//! Reads no sample, so it may be taken while somebody has the database open.

use std::path::{Path, PathBuf};

use crate::block::{Block, BlockId, BlockMeta};
use crate::disk::{Disk, DiskError, DiskResult, TEMPORARY_SUFFIX};
use crate::version;
use crate::wal::{self, checkpoint};

/// What lies in a database's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The blocks that can be opened, in order of their ranges.
    pub blocks: Vec<BlockEntry>,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of the log: segments and checkpoints.
    pub log_bytes: u64,
    /// Blocks that cannot be opened or were set aside, with the reason.
    pub unusable: Vec<(PathBuf, String)>,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// What it holds.
    pub meta: BlockMeta,
    /// All its files together.
    pub bytes: u64,
    /// Series of which parts are deleted.
    pub series_with_deletions: u64,
}

impl Inventory {
    /// Lists the database on `disk`.
    ///
    /// # Errors
    /// The disk fails. A block that cannot be opened is no error but an entry in `unusable`.
    pub fn take(disk: &dyn Disk) -> Result<Self, DiskError> {
        let mut all = Self::default();
        all.list_blocks(disk)?;
        for entry in or_nothing(disk.list(Path::new(wal::DIR)))? {
            if entry.name.parse::<u64>().is_ok() {
                all.segments += 1;
            } else if checkpoint::number_of(&entry.name).is_none() {
                continue;
            }
            all.log_bytes += entry.size;
        }
        Ok(all)
    }

    fn list_blocks(&mut self, disk: &dyn Disk) -> Result<(), DiskError> {
        for entry in or_nothing(disk.list(Path::new(version::DIR)))? {
            let path = Path::new(version::DIR).join(&entry.name);
            if entry.name.ends_with(TEMPORARY_SUFFIX) {
                continue;
            }
            if BlockId::from_dir_name(&entry.name).is_none() {
                self.unusable.push((path, "not a block, or one that was set aside".to_owned()));
                continue;
            }
            match Block::open(disk, &path) {
                Ok(block) => self.blocks.push(BlockEntry {
                    meta: block.meta().clone(),
                    bytes: block.size_bytes(),
                    series_with_deletions: block.tombstones().series_len() as u64,
                }),
                // It was replaced or expired since it was listed.
                Err(_) if or_nothing(disk.list(&path))?.is_empty() => {}
                Err(error) => self.unusable.push((path, error.to_string())),
            }
        }
        self.blocks.sort_by_key(|block| (block.meta.range.start, block.meta.id));
        Ok(())
    }
}

fn or_nothing<T: Default>(found: DiskResult<T>) -> DiskResult<T> {
    match found {
        Err(error) if error.is_not_found() => Ok(T::default()),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stint_model::{Appender as _, Batch, Labels, Sample, Span, Timestamp};

    use super::*;
    use crate::{Db, Options, SimDisk};

    #[test]
    fn blocks_and_log_are_counted_beside_an_open_database() {
        let disk = SimDisk::new();
        let options = Options::default();
        let range = options.block_range;
        let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
        let labels = Labels::from_pairs([("__name__", "up")]);
        for step in 0..8 {
            let mut batch = Batch::default();
            let at = Timestamp(0) + Span(range.0 / 2 * step);
            batch.push(labels.clone(), Sample::float(at, 1.0));
            db.append(&batch).unwrap();
        }
        let now = Timestamp(0) + Span(range.0 * 4);
        while let Some(job) = db.next_job(now) {
            job.run().unwrap();
        }
        let all = Inventory::take(&disk).unwrap();
        let stats = db.stats();
        assert_eq!(all.blocks.len() as u64, stats.blocks);
        assert!(stats.blocks > 0);
        assert_eq!(all.blocks.iter().map(|block| block.bytes).sum::<u64>(), stats.block_bytes);
        assert_eq!(all.segments, stats.wal_segments);
        assert_eq!(all.unusable, Vec::new());
    }

    #[test]
    fn a_block_that_does_not_open_is_named() {
        let disk = SimDisk::new();
        let dir = Path::new(version::DIR).join("b-0000000001");
        disk.create_dir(&dir).unwrap();
        disk.create(&dir.join("meta")).unwrap().append(b"nonsense").unwrap();
        let all = Inventory::take(&disk).unwrap();
        assert_eq!(all.unusable.len(), 1);
        assert_eq!(all.unusable[0].0, dir);
        assert_eq!(Inventory::take(&SimDisk::new()).unwrap(), Inventory::default());
    }
}
