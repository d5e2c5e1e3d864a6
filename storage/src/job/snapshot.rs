//! Copying a database without copying its bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_model::{Span, TimeRange, Timestamp};

use super::pace::{Pace, Room};
use super::{JobReport, flush};
use crate::compact::plan;
use crate::db::Inner;
use crate::disk::{DiskError, TEMPORARY_SUFFIX};
use crate::error::JobError;
use crate::head::read::HeadQuerier;
use crate::version;

/// Makes `dir` a database that holds what is visible now: blocks as hard links, the head (where
/// wanted) as further blocks. It gets its name when it is whole.
pub(crate) fn snapshot(db: &Inner, dir: &Path, with_head: bool) -> Result<JobReport, JobError> {
    // No block is removed meanwhile.
    let _jobs = db.jobs.lock();
    let mut go_on = || true;
    let mut pace = Pace::new(db, Room::Spare, &mut go_on);
    pace.step()?;
    match db.disk.list(dir) {
        Ok(_) => {
            let exists = io::ErrorKind::AlreadyExists.into();
            return Err(DiskError::new("create directory", dir, exists).into());
        }
        Err(error) if !error.is_not_found() => return Err(error.into()),
        Err(_) => {}
    }
    let mut temporary = dir.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    let remove = || match db.disk.remove_dir(&temporary) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    };
    remove()?;
    let report = match fill(db, &temporary, with_head, &mut pace) {
        Ok(report) => report,
        Err(error) => {
            return Err(match remove() {
                Ok(()) => error,
                Err(second) => JobError::Block(format!("{error}; then {second}")),
            });
        }
    };
    db.disk.rename(&temporary, dir)?;
    for above in dir.ancestors().skip(1) {
        db.disk.sync_dir(above)?;
    }
    Ok(report)
}

fn fill(
    db: &Inner,
    dir: &Path,
    with_head: bool,
    pace: &mut Pace<'_>,
) -> Result<JobReport, JobError> {
    let mut report = JobReport { job: "snapshot", ..JobReport::default() };
    let pin = Arc::new(db.head.pin());
    let version = db.blocks.current();
    let parent = dir.join(version::DIR);
    db.disk.create_dir(&parent)?;
    for block in &version.blocks {
        pace.step()?;
        let target = block.meta().dir(&parent);
        db.disk.create_dir(&target)?;
        for entry in db.disk.list(block.dir())? {
            db.disk.link(&block.dir().join(&entry.name), &target.join(&entry.name))?;
        }
        db.disk.sync_dir(&target)?;
        report.blocks_written += 1;
    }
    if with_head {
        let querier = HeadQuerier::new(Arc::clone(&db.head), pin, TimeRange::ALL).checking_again();
        let length_max = plan::second_range(db.options.block_range);
        for window in joined(&db.head.windows(Timestamp::MAX), length_max) {
            let id = db.blocks.new_id();
            if let Some(block) = flush::write(db, &parent, id, &querier, window, pace)? {
                report.blocks_written += 1;
                report.samples_written += block.meta().samples;
            }
        }
    }
    db.disk.sync_dir(&parent)?;
    db.disk.sync_dir(dir)?;
    Ok(report)
}

/// Windows that lie side by side as one, up to the length that compaction would merge them to: what
/// every block has of each series is there once.
fn joined(windows: &[TimeRange], length_max: Span) -> Vec<TimeRange> {
    let mut joined: Vec<TimeRange> = Vec::new();
    for window in windows {
        match joined.last_mut() {
            Some(last)
                if last.end == window.start
                    && window.end.0.saturating_sub(last.start.0) <= length_max.0 =>
            {
                last.end = window.end;
            }
            _ => joined.push(*window),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_side_by_side_become_one_up_to_the_next_range_of_blocks() {
        let range = |start, end| TimeRange::new(Timestamp(start), Timestamp(end));
        let windows: Vec<TimeRange> =
            [0, 2, 4, 6, 10, 14, 16].map(|start| range(start, start + 2)).to_vec();
        assert_eq!(
            joined(&windows, Span(6)),
            [range(0, 6), range(6, 8), range(10, 12), range(14, 18)]
        );
        assert!(joined(&[], Span(6)).is_empty());
    }
}
