//! A database: the log, the head and the blocks under one roof.

mod open;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::sync::{Mutex, MutexGuard, RwLock};
use stint_model::{
    AppendError, Appended, Appender, Batch, Exemplar, Labels, Metadata, Querier, QueryError,
    Queryable, RejectReason, Selector, SeriesRef, Span, TimeRange, Timestamp,
};

use crate::block::{Block, BlockMeta};
use crate::disk::{Disk, DiskLock};
use crate::error::{CloseReport, JobError, OpenError, OpenReport};
use crate::head::append::Plan;
use crate::head::read::HeadQuerier;
use crate::head::{Effort, Head};
use crate::job::{self, Job, JobReport, Jobs};
use crate::options::{Limits, Options, SyncPolicy};
use crate::query::block::BlockQuerier;
use crate::query::querier::{MergedQuerier, Part};
use crate::query::selections::Selections;
use crate::stats::Stats;
use crate::usage::{self, Usage};
use crate::version::Blocks;
use crate::wal::hold::Holds;
use crate::wal::log::{Log, start_record};
use crate::wal::record::Encoder;
use crate::wal::{HoldError, WalHold, WalId, WalPosition};

/// The last millisecond of the year 9999: later samples are never taken.
const LATEST: Timestamp = Timestamp(253_402_300_799_999);

/// An open database. Cloning shares it; it is closed by [`Db::close`] or when the last clone,
/// querier and hold are gone.
#[derive(Clone)]
pub struct Db {
    pub(crate) inner: Arc<Inner>,
}

/// What is shared by clones, holds, queriers and jobs.
pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    /// As it was opened; for what may change see [`Inner::limits`].
    pub(crate) options: Options,
    limits: RwLock<Limits>,
    pub(crate) log: Log,
    pub(crate) wal_id: WalId,
    pub(crate) head: Arc<Head>,
    pub(crate) holds: Holds,
    pub(crate) blocks: Blocks,
    /// What was selected in blocks lately.
    selections: Arc<Selections>,
    pub(crate) jobs: Mutex<Jobs>,
    /// Held from plan to commit.
    writer: Mutex<Writer>,
    counters: Mutex<Counters>,
    /// Number of the first segment that is replayed.
    pub(crate) replay_from: Mutex<u64>,
    /// Bytes of the last checkpoint.
    pub(crate) checkpoint_size: Mutex<u64>,
    /// What it was to save on.
    pub(crate) checkpoint_effort: Mutex<Effort>,
    /// Samples later than this are refused.
    latest: Mutex<Timestamp>,
    /// Whether jobs are to end at their next step.
    stopping: AtomicBool,
    /// How many appends a full disk refused.
    refused_full: AtomicU64,
    /// What lay on the disk beside segments and blocks when it was looked at last.
    pub(crate) usage: Mutex<Usage>,
    /// Released by [`Db::close`].
    lock: RwLock<Option<Box<dyn DiskLock>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) encoder: Encoder,
    plan: Plan,
}

#[derive(Debug, Default)]
struct Counters {
    samples: u64,
    late: u64,
    batches: u64,
    failed: u64,
    created: u64,
    corruptions: u64,
    rejected: [u64; RejectReason::ALL.len()],
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Db({:?})", self.inner.disk)
    }
}

impl Db {
    /// Opens the database on `disk`, creating it where there is none, and brings back what the
    /// log holds.
    ///
    /// # Errors
    /// The disk fails, somebody else has it open, or its format is newer. Damage to the log or to
    /// a block is no error: it is set aside, reported, and the rest is served.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, OpenReport), OpenError> {
        open::open(disk, options).map(|(inner, report)| (Self { inner: Arc::new(inner) }, report))
    }

    /// Makes everything appended so far survive the machine.
    pub fn sync(&self) -> Result<(), AppendError> {
        self.inner.log.sync()
    }

    /// Makes everything survive the machine, writes a checkpoint, so that the next start has nothing
    /// to replay, and gives the directory free. Appends fail from now on; queriers that exist stay
    /// readable. Closing what is closed does nothing.
    ///
    /// A job that runs meanwhile, in whichever thread, ends at its next step, as after
    /// [`Db::stop_jobs`], and is waited for: what it was about to do is done anew after the next
    /// start, and nobody writes to the directory any more once this returns. A job that was handed
    /// out and is not running never will. From inside a job, that is, from the function given to
    /// [`Job::run_while`], it would wait for itself: [`Db::stop_jobs`] is for there.
    ///
    /// # Errors
    /// What was appended last may not survive the machine. A checkpoint that cannot be written is no
    /// error: the log has everything, and the report says why the next start has to replay it.
    pub fn close(&self) -> Result<CloseReport, AppendError> {
        let inner = &self.inner;
        self.stop_jobs();
        let mut jobs = inner.jobs.lock();
        let finished = job::finish_flush(inner, &mut jobs);
        let lock = {
            // A batch that is on its way is not cut in two; later ones find it closed.
            let _writer = inner.writer.lock();
            inner.lock.write().take()
        };
        // Released at the end, before the jobs are: the next of them finds it closed.
        let Some(_lock) = lock else { return Ok(CloseReport::default()) };
        inner.log.sync()?;
        let settled = finished.and_then(|()| job::settle(inner));
        Ok(CloseReport { replays: settled.err().map(|error| error.to_string()) })
    }

    /// The next step of work that keeps the database small, if there is any at `now`: cutting
    /// blocks, truncating the log, retention, compaction. Ask again after each job.
    pub fn next_job(&self, now: Timestamp) -> Option<Job> {
        if let Some(ahead) = self.inner.options.future_max {
            *self.inner.latest.lock() = (now + ahead).min(LATEST);
        }
        job::next(&self.inner, now)
    }

    /// Lets no job begin any more, and the one that runs (a snapshot or a rewriting of blocks too)
    /// end at its next step, with [`JobError::Interrupted`]: for whoever is about to close the
    /// database and wants to wait for it. A step is a series, or a file made durable.
    pub fn stop_jobs(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether jobs were told to end, by [`Db::stop_jobs`] or by [`Db::close`].
    pub fn is_stopping(&self) -> bool {
        self.inner.is_stopping()
    }

    /// Deletes the samples inside `range` of the series that any of `selectors` selects: hidden
    /// from now on, their space freed by compaction or by [`Db::clean_tombstones`].
    pub fn delete_series(&self, selectors: &[Selector], range: TimeRange) -> Result<(), JobError> {
        let inner = &self.inner;
        let _jobs = inner.jobs.lock();
        // Somebody else may have opened the directory since it was closed.
        inner.check_open()?;
        inner.blocks.sweep(&*inner.disk)?;
        {
            let mut writer = inner.writer();
            let pin = Arc::new(inner.head.pin());
            let querier = HeadQuerier::new(Arc::clone(&inner.head), pin, range);
            let series =
                if selectors.is_empty() { Vec::new() } else { querier.series_of(selectors) };
            if !series.is_empty() {
                start_record(&mut writer.encoder);
                for id in &series {
                    writer.encoder.deleted(id.0, range);
                }
                let end = inner.log.append(&mut writer.encoder)?;
                inner.head.delete(&series, range, end);
            }
        }
        inner.log.sync()?;
        for block in &inner.blocks.current().blocks {
            for selector in selectors {
                // Selectors may follow each other on one block: look at its present state.
                let version = inner.blocks.current();
                let Some(present) = version.get(block.meta().id) else { continue };
                let changed = present.delete(&*inner.disk, selector, range)?;
                inner.blocks.change(&[block.meta().id], vec![changed]);
            }
        }
        Ok(())
    }

    /// Rewrites the blocks of which something was deleted, so that its space is free.
    pub fn clean_tombstones(&self) -> Result<JobReport, JobError> {
        job::clean_tombstones(&self.inner)
    }

    /// Makes `dir` (on the same disk, not existing yet) a database of its own that holds what is
    /// visible now: blocks as hard links, and the head as blocks where `with_head`.
    pub fn snapshot(&self, dir: &Path, with_head: bool) -> Result<JobReport, JobError> {
        job::snapshot(&self.inner, dir, with_head)
    }

    /// The options in force.
    pub fn options(&self) -> Options {
        let Limits { retention, retention_bytes, exemplars_max } = self.inner.limits();
        Options { retention, retention_bytes, exemplars_max, ..self.inner.options.clone() }
    }

    /// Changes limits. What is too much under lower ones goes with the next jobs, exemplars at
    /// once.
    pub fn set_limits(&self, limits: Limits) {
        *self.inner.limits.write() = limits;
        self.inner.head.set_exemplars_max(limits.exemplars_max);
    }

    /// Reads the log from `from` (or from its present end) and keeps what is not released. Each
    /// name can be held once at a time. A position behind the end, as a cursor may have that was
    /// saved before a power cut took what it had read, is the end.
    pub fn hold(&self, name: &str, from: Option<WalPosition>) -> Result<WalHold, HoldError> {
        WalHold::new(Arc::clone(&self.inner), name, from)
    }

    /// Which log this is: a position saved under another identity means nothing here.
    pub fn wal_id(&self) -> WalId {
        self.inner.wal_id
    }

    /// Behind the last record of the log.
    pub fn wal_end(&self) -> WalPosition {
        self.inner.log.end()
    }

    /// The labels of a series of the head.
    pub fn labels(&self, series: SeriesRef) -> Option<Labels> {
        self.inner.head.labels_of(series)
    }

    /// Metadata by family name, sorted.
    pub fn metadata(&self) -> Vec<(String, Metadata)> {
        self.inner.head.metadata()
    }

    /// Exemplars inside `range` of the series that any of `selectors` matches, in order of
    /// labels, then time.
    pub fn exemplars(
        &self,
        selectors: &[Selector],
        range: TimeRange,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        let mut by_series = std::collections::BTreeMap::<Labels, Vec<Exemplar>>::new();
        for (series, exemplar) in self.inner.head.exemplars(range) {
            let Some(labels) = self.inner.head.labels_of(series) else { continue };
            if selectors.iter().any(|selector| selector.matches(&labels)) {
                by_series.entry(labels).or_default().push(exemplar);
            }
        }
        by_series.into_iter().collect()
    }

    /// What the blocks are, in order of time.
    pub fn blocks(&self) -> Vec<BlockMeta> {
        let version = self.inner.blocks.current();
        let mut metas: Vec<_> = version.blocks.iter().map(|block| block.meta().clone()).collect();
        metas.sort_by_key(|meta| (meta.range.start, meta.id.0));
        metas
    }

    /// Figures. Walks over the series of the head.
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let head = inner.head.stats();
        let segments = inner.log.segments();
        let version = inner.blocks.current();
        let usage = usage::measure(inner);
        let mut damaged_blocks = usage.set_aside;
        let damaged = version.blocks.iter().filter(|block| block.damage().is_some());
        damaged_blocks.extend(damaged.map(|block| block.meta().id.dir_name()));
        let counters = inner.counters.lock();
        Stats {
            series: head.series,
            chunks: head.chunks,
            late_samples: head.late,
            head_bytes: head.bytes,
            head_file_bytes: head.file_bytes,
            exemplars: head.exemplars,
            samples_appended: counters.samples,
            samples_late: counters.late,
            batches: counters.batches,
            series_created: counters.created,
            rejected: counters.rejected,
            failed_batches: counters.failed,
            wal_segments: segments.len() as u64,
            wal_bytes: segments.values().map(|info| info.bytes).sum::<u64>() + usage.log,
            blocks: version.blocks.len() as u64,
            block_bytes: version.bytes(),
            leftover_bytes: usage.blocks,
            head_bounds: head.bounds,
            bounds: join(version.bounds(), head.bounds),
            corruptions: counters.corruptions,
            damaged_blocks,
            read_only: inner.log.read_only_reason(),
        }
    }
}

/// The range of the blocks (without its end) and the head together.
fn join(
    blocks: Option<TimeRange>,
    head: Option<(Timestamp, Timestamp)>,
) -> Option<(Timestamp, Timestamp)> {
    let blocks = blocks.map(|range| (range.start, range.end - Span(1)));
    match (blocks, head) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

impl Inner {
    /// Limits in force.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.read()
    }

    /// Whether jobs are to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// How many appends a full disk refused so far.
    pub(crate) fn refused_full(&self) -> u64 {
        self.refused_full.load(Ordering::SeqCst)
    }

    /// Counts a failure that its caller can live with.
    pub(crate) fn note_failure(&self, _error: &AppendError) {
        self.counters.lock().failed += 1;
    }

    /// Keeps batches out while something must not change between plan and commit.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }

    /// Fails once the database is closed.
    pub(crate) fn check_open(&self) -> Result<(), AppendError> {
        if self.lock.read().is_some() { Ok(()) } else { Err(AppendError::Closed) }
    }

    fn append(&self, batch: &Batch) -> Result<(Appended, Option<WalPosition>), AppendError> {
        let mut writer = self.writer.lock();
        self.check_open()?;
        self.log.check_writable()?;
        let Writer { encoder, plan } = &mut *writer;
        self.head.plan(batch, *self.latest.lock(), plan);
        let mut end = None;
        if !plan.is_empty() {
            start_record(encoder);
            Head::encode(batch, plan, encoder);
            let position = self.log.append(encoder)?;
            self.head.commit(batch, plan, position);
            end = Some(position);
        }
        let mut counters = self.counters.lock();
        counters.batches += 1;
        counters.samples += plan.len() as u64;
        counters.late += plan.late_rows as u64;
        counters.created += plan.born_count() as u64;
        for rejected in &plan.appended.rejected {
            let place = RejectReason::ALL.iter().position(|reason| *reason == rejected.reason);
            if let Some(count) = place.and_then(|place| counters.rejected.get_mut(place)) {
                *count += 1;
            }
        }
        Ok((std::mem::take(&mut plan.appended), end))
    }
}

impl Appender for Db {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        let outcome = self.inner.append(batch).and_then(|(appended, end)| {
            if let (SyncPolicy::EveryCommit, Some(end)) = (self.inner.options.sync, end) {
                self.inner.log.sync_to(end)?;
            }
            Ok(appended)
        });
        if let Err(error) = &outcome {
            if matches!(error, AppendError::DiskFull(_)) {
                self.inner.refused_full.fetch_add(1, Ordering::SeqCst);
            }
            self.inner.counters.lock().failed += 1;
        }
        outcome
    }
}

impl Queryable for Db {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, QueryError> {
        let inner = &self.inner;
        inner.check_open().map_err(|_| QueryError::Closed)?;
        let pin = Arc::new(inner.head.pin());
        // After the pin: a flush that this version does not know keeps its data in the head until
        // the pin is gone.
        let version = inner.blocks.current();
        let overlaps = |block: &&Block| block.meta().range.overlaps(range);
        let mut inside: Vec<&Block> = version.blocks.iter().filter(overlaps).collect();
        // Of two samples of one time the older block's is taken, as compaction does.
        inside.sort_by_key(|block| block.meta().age);
        let mut parts: Vec<Box<dyn Part>> = Vec::new();
        for block in inside {
            let selections = Arc::clone(&inner.selections);
            parts.push(Box::new(BlockQuerier::new(block.clone(), range, selections)));
        }
        parts.push(Box::new(HeadQuerier::new(Arc::clone(&inner.head), pin, range)));
        Ok(Box::new(MergedQuerier::new(parts)))
    }
}

#[cfg(test)]
mod tests;
