//! Copying a database without copying its bytes.

use std::path::Path;
use std::sync::Arc;

use stint_model::{TimeRange, Timestamp};

use super::{JobReport, flush};
use crate::db::Inner;
use crate::error::JobError;
use crate::head::read::HeadQuerier;
use crate::version;

/// Makes `dir` a database that holds what is visible now: blocks as hard links, the head (where
/// wanted) as further blocks.
pub(crate) fn snapshot(db: &Inner, dir: &Path, with_head: bool) -> Result<JobReport, JobError> {
    // No block is removed meanwhile.
    let _jobs = db.jobs.lock();
    let mut report = JobReport { job: "snapshot", ..JobReport::default() };
    let pin = Arc::new(db.head.pin());
    let version = db.blocks.current();
    let parent = dir.join(version::DIR);
    db.disk.create_dir(&parent)?;
    for block in &version.blocks {
        let target = block.meta().dir(&parent);
        db.disk.create_dir(&target)?;
        for entry in db.disk.list(block.dir())? {
            db.disk.link(&block.dir().join(&entry.name), &target.join(&entry.name))?;
        }
        db.disk.sync_dir(&target)?;
        report.blocks_written += 1;
    }
    if with_head {
        let querier = HeadQuerier::new(Arc::clone(&db.head), pin, TimeRange::ALL);
        for window in db.head.windows(Timestamp::MAX) {
            if let Some(block) = flush::write(db, &parent, &querier, window)? {
                report.blocks_written += 1;
                report.samples_written += block.meta().samples;
            }
        }
    }
    db.disk.sync_dir(&parent)?;
    db.disk.sync_dir(dir)?;
    Ok(report)
}
