//! Carries a plan out, one series at a time.

use std::path::Path;

use stint_model::Columns;

use super::merge::Merge;
use super::plan::Plan;
use crate::block::{Block, BlockError, BlockId, BlockMeta, BlockWriter};
use crate::disk::Disk;

/// What became of a compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new block is published; its parents no longer count and are to be removed.
    Merged(BlockMeta),
    /// Everything was deleted: there is no new block, and the parents are to be removed.
    Empty,
    /// It was told to stop; nothing changed.
    Stopped,
}

/// A compaction under way. Dropped before the end, it leaves a temporary directory behind that
/// the next start removes; [`Compaction::abandon`] removes it at once.
pub struct Compaction<'d> {
    merge: Merge,
    writer: BlockWriter<'d>,
    columns: Columns,
}

impl<'d> Compaction<'d> {
    /// Starts merging `blocks`, those of `plan`, to block `id` under `parent_dir`.
    pub fn start(
        disk: &'d dyn Disk,
        parent_dir: &Path,
        blocks: Vec<Block>,
        plan: &Plan,
        id: BlockId,
    ) -> Result<Self, BlockError> {
        let merge = Merge::new(blocks)?;
        let writer = BlockWriter::new(disk, parent_dir, plan.meta(id))?;
        Ok(Self { merge, writer, columns: Columns::default() })
    }

    /// Merges one series; false when there are no more.
    pub fn step(&mut self) -> Result<bool, BlockError> {
        let Some(labels) = self.merge.next_series(&mut self.columns)? else { return Ok(false) };
        self.writer.add_series(&labels, &self.columns)?;
        Ok(true)
    }

    /// Publishes the block, after the last step. `go_on` is asked before each file is made durable.
    pub fn finish(mut self, go_on: &mut dyn FnMut() -> bool) -> Result<Outcome, BlockError> {
        if self.writer.series() == 0 {
            self.writer.abandon()?;
            return Ok(Outcome::Empty);
        }
        for write in [BlockWriter::write_chunks, BlockWriter::write_index] {
            if !go_on() {
                self.abandon()?;
                return Ok(Outcome::Stopped);
            }
            write(&mut self.writer)?;
        }
        if !go_on() {
            self.abandon()?;
            return Ok(Outcome::Stopped);
        }
        Ok(Outcome::Merged(self.writer.publish()?))
    }

    /// Gives up and removes what was written.
    pub fn abandon(self) -> Result<(), BlockError> {
        self.writer.abandon()
    }
}

/// Merges `blocks`, those of `plan`, to block `id` under `parent_dir`. `go_on` is asked before
/// every series, and before each file is made durable.
pub fn run(
    disk: &dyn Disk,
    parent_dir: &Path,
    blocks: Vec<Block>,
    plan: &Plan,
    id: BlockId,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Outcome, BlockError> {
    let mut compaction = Compaction::start(disk, parent_dir, blocks, plan, id)?;
    loop {
        if !go_on() {
            compaction.abandon()?;
            return Ok(Outcome::Stopped);
        }
        match compaction.step() {
            Ok(true) => {}
            Ok(false) => return compaction.finish(go_on),
            Err(error) => {
                // The first error says what went wrong; leftovers go at the next start.
                let _ = compaction.abandon();
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests;
