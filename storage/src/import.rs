//! Samples that never pass the log: blocks of what was stored elsewhere before.
//!
//! What is imported is not new: it goes straight to a block, so that no holder of the log sees it
//! and it takes no room in the head. Of a sample that the database has already, the one that is
//! there counts.

use std::path::Path;
use std::sync::Arc;

use stint_model::{Columns, Histogram, Labels, Span, TimeRange};

use crate::block::{Block, BlockId, BlockMeta, BlockWriter};
use crate::compact::CompactOptions;
use crate::db::{Db, Inner};
use crate::error::JobError;
use crate::head::validate::{Admitted, admit};
use crate::job::swept;
use crate::version;

/// A block that is being imported. Dropped before [`BlockImport::finish`], it leaves a temporary
/// directory behind that the next start removes.
#[must_use = "nothing is there before it is finished"]
pub struct BlockImport<'d> {
    db: &'d Arc<Inner>,
    id: BlockId,
    writer: BlockWriter<'d>,
    refused: u64,
}

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The block; none where there was no sample.
    pub block: Option<BlockMeta>,
    /// Native histograms that contradict themselves and were left out.
    pub refused: u64,
}

impl Db {
    /// Starts a block of what lies inside `range`, which should be one of [`Db::import_windows`]:
    /// blocks of other ranges are merged and removed later than they could be.
    pub fn import(&self, range: TimeRange) -> Result<BlockImport<'_>, JobError> {
        let db = &self.inner;
        db.check_open()?;
        let id = db.blocks.new_id();
        let writer =
            BlockWriter::new(&*db.disk, Path::new(version::DIR), BlockMeta::new(id, range))?;
        Ok(BlockImport { db, id, writer, refused: 0 })
    }

    /// How long the blocks are that compaction would make in the end. They begin at multiples of it.
    pub fn import_windows(&self) -> Span {
        let retention = self.inner.limits().retention;
        CompactOptions::of(self.inner.options.block_range, retention).longest()
    }
}

impl BlockImport<'_> {
    /// Adds a series with all its samples, which rise in time and lie inside the range. Series come
    /// in the order of [`crate::series_order`], each once. Histograms that contradict themselves are
    /// taken out of `columns` and counted.
    pub fn add_series(&mut self, labels: &Labels, columns: &mut Columns) -> Result<(), JobError> {
        self.refused += keep_valid(columns);
        self.writer.add_series(labels, columns).map_err(JobError::from)
    }

    /// Publishes the block.
    pub fn finish(self) -> Result<Imported, JobError> {
        let Self { db, id, writer, refused } = self;
        if writer.series() == 0 {
            writer.abandon()?;
            return Ok(Imported { block: None, refused });
        }
        let opened = writer
            .finish()
            .map_err(JobError::from)
            .and_then(|_| Ok(Block::open(&*db.disk, &version::path(id))?));
        // Jobs decide by the blocks that they see.
        let _jobs = db.jobs.lock();
        match opened {
            Ok(block) => {
                let meta = block.meta().clone();
                db.blocks.change(&[], vec![block]);
                Ok(Imported { block: Some(meta), refused })
            }
            Err(error) => {
                // It may have got its name before it failed.
                db.blocks.give_up(id);
                Err(swept(db, error))
            }
        }
    }

    /// Gives the block up and removes what was written.
    pub fn abandon(self) -> Result<(), JobError> {
        self.writer.abandon().map_err(JobError::from)
    }
}

/// The form in which a native histogram is stored; `None` for one that contradicts itself.
pub fn storable(histogram: Arc<Histogram>) -> Option<Arc<Histogram>> {
    match admit(&histogram) {
        Admitted::AsItIs => Some(histogram),
        Admitted::As(stored) => Some(stored),
        Admitted::Refused => None,
    }
}

/// Removes the histograms that no reader could use, and brings others to the form that is stored;
/// how many were removed.
fn keep_valid(columns: &mut Columns) -> u64 {
    let mut refused = Vec::new();
    for (row, histogram) in &mut columns.histograms {
        match admit(histogram) {
            Admitted::AsItIs => {}
            Admitted::As(stored) => *histogram = stored,
            Admitted::Refused => refused.push(*row),
        }
    }
    if !refused.is_empty() {
        remove_rows(columns, &refused);
    }
    refused.len() as u64
}

/// Removes the histograms at `rows`, which rise.
fn remove_rows(columns: &mut Columns, rows: &[usize]) {
    let mut kept = Columns::default();
    let mut histograms = std::mem::take(&mut columns.histograms).into_iter().peekable();
    let values = columns.times.iter().zip(&columns.values);
    for (row, (at, value)) in values.enumerate() {
        let histogram: Option<(usize, Arc<Histogram>)> = histograms.next_if(|(at, _)| *at == row);
        if rows.binary_search(&row).is_ok() {
            continue;
        }
        match histogram {
            Some((_, histogram)) => kept.push_histogram(*at, histogram),
            None => kept.push_float(*at, *value),
        }
        if let Some(start) = columns.starts.get(row) {
            kept.set_last_start(*start);
        }
    }
    *columns = kept;
}
