//! Writing the head's oldest data to blocks.

use std::path::Path;
use std::sync::Arc;

use stint_model::{Columns, Hints, Querier as _, Selector, SeriesSet, TimeRange, Timestamp};

use super::pace::Pace;
use super::{Flushed, JobReport};
use crate::block::{Block, BlockError, BlockId, BlockMeta, BlockWriter};
use crate::db::Inner;
use crate::error::JobError;
use crate::head::read::HeadQuerier;
use crate::index::series_order;
use crate::version;
use crate::wal::log::start_record;

impl From<BlockError> for JobError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Disk(error) => Self::Disk(error),
            other => Self::Block(other.to_string()),
        }
    }
}

/// Writes everything before `before` to blocks, one per block range, and publishes them together.
pub(super) fn run(
    db: &Inner,
    before: Timestamp,
    pace: &mut Pace<'_>,
    report: &mut JobReport,
) -> Result<Flushed, JobError> {
    // From here on nothing is appended in order before `before`, and what comes late after this
    // commit stays in the head.
    let (commit, pin) = {
        let mut writer = db.writer();
        start_record(&mut writer.encoder);
        writer.encoder.flush_begin(before);
        db.log.append(&mut writer.encoder)?;
        (db.head.begin_flush(before), Arc::new(db.head.pin()))
    };
    let range = TimeRange::new(Timestamp::MIN, before);
    let querier = HeadQuerier::new(Arc::clone(&db.head), pin, range).checking_again();
    let mut blocks = Vec::new();
    for window in db.head.windows(before) {
        let id = db.blocks.new_id();
        match write(db, Path::new(version::DIR), id, &querier, window, pace) {
            Ok(Some(block)) => blocks.push(block),
            Ok(None) => {}
            Err(error) => {
                // All or none. The block at hand may have got its name before it failed.
                db.blocks.give_up(id);
                for block in blocks {
                    db.blocks.give_up(block.meta().id);
                }
                return Err(swept(db, error));
            }
        }
    }
    report.blocks_written = blocks.len() as u64;
    report.samples_written = blocks.iter().map(|block| block.meta().samples).sum();
    db.blocks.change(&[], blocks);
    let pin = db.head.pins().next();
    {
        // Without this mark the next start finds the data in log and blocks, and flushes them
        // once more: harmless, so a refusal of the log does not undo the flush.
        let mut writer = db.writer();
        start_record(&mut writer.encoder);
        writer.encoder.flush_done(before);
        if let Err(error) = db.log.append(&mut writer.encoder) {
            drop(writer);
            db.note_failure(&error);
        }
    }
    Ok(Flushed { before, commit, pin })
}

/// Removes at once what `error` left behind, if that can be; a job of its own does it else.
pub(crate) fn swept(db: &Inner, error: JobError) -> JobError {
    match db.blocks.sweep(&*db.disk) {
        Ok(_) => error,
        Err(second) => JobError::Block(format!("{error}; then {second}")),
    }
}

/// Writes what `querier` finds inside `window` as block `id` under `parent`.
pub(super) fn write(
    db: &Inner,
    parent: &Path,
    id: BlockId,
    querier: &HeadQuerier,
    window: TimeRange,
    pace: &mut Pace<'_>,
) -> Result<Option<Block>, JobError> {
    let head = |error: stint_model::QueryError| JobError::Head(error.to_string());
    let set = querier.select(&Selector::default(), &Hints::default()).map_err(head)?;
    let meta = BlockMeta::new(id, window);
    let dir = meta.dir(parent);
    let mut writer = BlockWriter::new(&*db.disk, parent, meta)?;
    fill(&mut writer, &*set, window, pace)?;
    if writer.series() == 0 {
        writer.abandon()?;
        return Ok(None);
    }
    pace.step()?;
    writer.write_chunks()?;
    pace.step()?;
    writer.write_index()?;
    pace.step()?;
    writer.publish()?;
    Ok(Some(Block::open(&*db.disk, &dir)?))
}

fn fill(
    writer: &mut BlockWriter<'_>,
    set: &dyn SeriesSet,
    window: TimeRange,
    pace: &mut Pace<'_>,
) -> Result<(), JobError> {
    let mut order: Vec<_> = (0..set.len()).map(|index| (set.labels(index), index)).collect();
    order.sort_by(|a, b| series_order(&a.0, &b.0));
    let mut columns = Columns::default();
    for (labels, index) in order {
        pace.step()?;
        columns.clear();
        let read = set.read(index, window, &mut columns);
        read.map_err(|error| JobError::Head(error.to_string()))?;
        writer.add_series(&labels, &columns)?;
    }
    Ok(())
}
