//! Merging blocks.

use std::path::Path;

use super::JobReport;
use super::flush::swept;
use super::pace::{Pace, Room};
use crate::block::{Block, BlockError, BlockId};
use crate::compact::{self, Candidate, CompactOptions, Outcome, Plan};
use crate::db::Inner;
use crate::error::JobError;
use crate::version::{self, Version};

fn candidates<'a>(version: &'a Version, without: &[BlockId]) -> Vec<Candidate<'a>> {
    let blocks = version.blocks.iter().filter(|block| !without.contains(&block.meta().id));
    blocks
        .map(|block| Candidate {
            meta: block.meta(),
            deleted_series: block.tombstones().series_len() as u64,
        })
        .collect()
}

/// The most urgent merge.
pub(super) fn next(db: &Inner, unmergeable: &[BlockId]) -> Option<Plan> {
    let version = db.blocks.current();
    let options = CompactOptions::of(db.options.block_range, db.limits().retention);
    compact::plan(&candidates(&version, unmergeable), &options)
}

/// Carries a plan out, publishes the outcome, removes the parents.
pub(super) fn run(
    db: &Inner,
    plan: &Plan,
    pace: &mut Pace<'_>,
    report: &mut JobReport,
) -> Result<(), JobError> {
    let version = db.blocks.current();
    let parents: Vec<Block> =
        plan.blocks.iter().filter_map(|id| version.get(*id).cloned()).collect();
    if parents.len() < plan.blocks.len() {
        // Removed meanwhile: the next plan knows.
        return Ok(());
    }
    if pace.room() == Room::Spare {
        check_room(db, &parents)?;
    }
    let id = db.blocks.new_id();
    let mut ended = Ok(());
    let mut go_on = || {
        ended = pace.step();
        ended.is_ok()
    };
    let merged = merge(db, plan, parents.clone(), id, &mut go_on);
    let added = match merged {
        Ok(Merged::Stopped) => return ended,
        Ok(Merged::Into(added)) => added,
        Err(error) => {
            if let BlockError::Corruption(corruption) = &error {
                let in_file = |block: &&Block| Path::new(&corruption.file).starts_with(block.dir());
                parents.iter().filter(in_file).for_each(|block| block.note_damage(corruption));
            }
            let error = JobError::from(error);
            // It may have got its name before it failed.
            db.blocks.give_up(id);
            return Err(swept(db, error));
        }
    };
    report.blocks_written += added.iter().count() as u64;
    report.samples_written += added.iter().map(|block| block.meta().samples).sum::<u64>();
    db.blocks.change(&plan.blocks, added.into_iter().collect());
    report.blocks_removed += db.blocks.sweep(&*db.disk)?;
    Ok(())
}

/// Fails where the parents might not fit on the disk once more: filling it up would refuse appends
/// for a merge that then fails itself.
fn check_room(db: &Inner, parents: &[Block]) -> Result<(), JobError> {
    let needed = parents.iter().map(Block::size_bytes).sum();
    let free = db.disk.free_space()?;
    if free < needed { Err(JobError::NoRoom { needed, free }) } else { Ok(()) }
}

/// What merging brought.
enum Merged {
    Stopped,
    /// None, where everything was deleted.
    Into(Option<Block>),
}

fn merge(
    db: &Inner,
    plan: &Plan,
    parents: Vec<Block>,
    id: BlockId,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Merged, BlockError> {
    let dir = Path::new(version::DIR);
    Ok(match compact::run(&*db.disk, dir, parents, plan, id, go_on)? {
        Outcome::Stopped => Merged::Stopped,
        Outcome::Empty => Merged::Into(None),
        Outcome::Merged(_) => Merged::Into(Some(Block::open(&*db.disk, &version::path(id))?)),
    })
}

/// Rewrites all blocks of which something was deleted.
pub(crate) fn clean_tombstones(db: &Inner) -> Result<JobReport, JobError> {
    let _jobs = db.jobs.lock();
    let mut report = JobReport { job: "clean_tombstones", ..JobReport::default() };
    let mut go_on = || true;
    // Who asks for it may want the room that it frees.
    let mut pace = Pace::new(db, Room::Needed, &mut go_on);
    pace.step()?;
    db.blocks.sweep(&*db.disk)?;
    loop {
        let version = db.blocks.current();
        let Some(plan) = compact::plan_clean(&candidates(&version, &[])) else {
            return Ok(report);
        };
        run(db, &plan, &mut pace, &mut report)?;
    }
}
