//! Merging blocks.

use std::path::Path;

use super::JobReport;
use super::flush::swept;
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
pub(super) fn run(db: &Inner, plan: &Plan, report: &mut JobReport) -> Result<(), JobError> {
    let version = db.blocks.current();
    let parents: Vec<Block> =
        plan.blocks.iter().filter_map(|id| version.get(*id).cloned()).collect();
    if parents.len() < plan.blocks.len() {
        // Removed meanwhile: the next plan knows.
        return Ok(());
    }
    let id = db.blocks.new_id();
    let added = match merge(db, plan, parents.clone(), id) {
        Ok(Merged::Stopped) => return Ok(()),
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

/// What merging brought.
enum Merged {
    Stopped,
    /// None, where everything was deleted.
    Into(Option<Block>),
}

fn merge(db: &Inner, plan: &Plan, parents: Vec<Block>, id: BlockId) -> Result<Merged, BlockError> {
    let dir = Path::new(version::DIR);
    Ok(match compact::run(&*db.disk, dir, parents, plan, id, &mut || true)? {
        Outcome::Stopped => Merged::Stopped,
        Outcome::Empty => Merged::Into(None),
        Outcome::Merged(_) => Merged::Into(Some(Block::open(&*db.disk, &version::path(id))?)),
    })
}

/// Rewrites all blocks of which something was deleted.
pub(crate) fn clean_tombstones(db: &Inner) -> Result<JobReport, JobError> {
    let _jobs = db.jobs.lock();
    let mut report = JobReport { job: "clean_tombstones", ..JobReport::default() };
    db.blocks.sweep(&*db.disk)?;
    loop {
        let version = db.blocks.current();
        let Some(plan) = compact::plan_clean(&candidates(&version, &[])) else {
            return Ok(report);
        };
        run(db, &plan, &mut report)?;
    }
}
