//! Merging blocks.

use std::path::Path;

use super::JobReport;
use crate::block::{Block, BlockId};
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
    let first_range = db.options.block_range;
    let retention = db.limits().retention;
    let for_retention = CompactOptions::for_retention(retention.unwrap_or_default());
    let range_max = match retention {
        Some(_) => for_retention.range_max.max(first_range),
        None => stint_model::Span(31 * stint_model::Span::DAY.0),
    };
    let options = CompactOptions { first_range, range_max };
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
    let dir = Path::new(version::DIR);
    let id = db.blocks.new_id();
    let outcome = compact::run(&*db.disk, dir, parents, plan, id, &mut || true)?;
    let mut added = Vec::new();
    match outcome {
        Outcome::Stopped => return Ok(()),
        Outcome::Empty => {}
        Outcome::Merged(meta) => {
            report.blocks_written += 1;
            report.samples_written += meta.samples;
            added.push(Block::open(&*db.disk, &version::path(id))?);
        }
    }
    db.blocks.change(&plan.blocks, added);
    for parent in &plan.blocks {
        version::remove(&*db.disk, *parent)?;
        report.blocks_removed += 1;
    }
    Ok(())
}

/// Rewrites all blocks of which something was deleted.
pub(crate) fn clean_tombstones(db: &Inner) -> Result<JobReport, JobError> {
    let _jobs = db.jobs.lock();
    let mut report = JobReport { job: "clean_tombstones", ..JobReport::default() };
    loop {
        let version = db.blocks.current();
        let Some(plan) = compact::plan_clean(&candidates(&version, &[])) else {
            return Ok(report);
        };
        run(db, &plan, &mut report)?;
    }
}
