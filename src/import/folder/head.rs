//! What a server has not yet written to blocks: its log, with the checkpoint before it, the log of
//! late samples, and full chunks of the head.
//!
//! As a start of the server would, this takes the full chunks, and from the logs what is not in
//! them. Where a file of chunks is damaged, everything comes from the logs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use stint_model::{Columns, Labels, TimeRange, Timestamp};
use stint_storage::disk::DiskResult;
use stint_storage::{Disk, DiskError, Mapped, OsDisk};
use stint_wire::tsdb::segment::HeadSegment;
use stint_wire::tsdb::wal::{self, Item, Records};
use stint_wire::tsdb::{Damage, chunk};

use super::block::unknown_encoding;
use super::{Folder, Work, unread};
use crate::import::spool::{Number, Spool};
use crate::import::{Counts, ImportError, Target, Watcher, rows};

/// Bytes of samples in memory.
const SPOOL_BYTES: usize = 192 << 20;
/// Records between two looks at the watcher.
const RECORDS_BETWEEN: u64 = 1024;

/// A file and its length.
type Sized = (PathBuf, u64);

/// The files of a head.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Of the checkpoint, then the segments behind it.
    log: Vec<Sized>,
    /// Of the log of late samples.
    late: Vec<Sized>,
    chunks: Vec<Sized>,
}

impl Files {
    pub(super) fn list(disk: &OsDisk) -> DiskResult<Self> {
        let wal = Path::new("wal");
        let mut checkpoint: Option<(u32, String)> = None;
        for entry in or_none(disk.list(wal))? {
            let number = entry.name.strip_prefix("checkpoint.").and_then(|n| n.parse().ok());
            if let Some(number) = number.filter(|_| entry.is_dir) {
                checkpoint = checkpoint.max(Some((number, entry.name)));
            }
        }
        let mut log = Vec::new();
        if let Some((_, name)) = &checkpoint {
            log.extend(numbered(disk, &wal.join(name))?.into_iter().map(|(_, file)| file));
        }
        let last = checkpoint.map(|(number, _)| number);
        let segments = numbered(disk, wal)?;
        let behind = segments.into_iter().filter(|(number, _)| last.is_none_or(|n| *number > n));
        log.extend(behind.map(|(_, file)| file));
        let all = |dir: &str| -> DiskResult<Vec<Sized>> {
            Ok(numbered(disk, Path::new(dir))?.into_iter().map(|(_, file)| file).collect())
        };
        Ok(Self { log, late: all("wbl")?, chunks: all("chunks_head")? })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.all().map(|(_, bytes)| bytes).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Sized> {
        self.log.iter().chain(&self.late).chain(&self.chunks)
    }

    /// What it is made of: it is done again when any file grew.
    pub(super) fn unit(&self) -> String {
        let files: Vec<String> =
            self.all().map(|(path, bytes)| format!("{} {bytes}", path.display())).collect();
        let hash = xxhash_rust::xxh3::xxh3_64(files.join("\n").as_bytes());
        format!("head {hash:016x}")
    }
}

fn or_none<T: Default>(found: DiskResult<T>) -> DiskResult<T> {
    match found {
        Err(error) if error.is_not_found() => Ok(T::default()),
        found => found,
    }
}

/// The files whose names are numbers, in order.
fn numbered(disk: &OsDisk, dir: &Path) -> DiskResult<Vec<(u32, Sized)>> {
    let mut files = Vec::new();
    for entry in or_none(disk.list(dir))? {
        if let Some(number) = entry.name.parse().ok().filter(|_| !entry.is_dir) {
            files.push((number, (dir.join(&entry.name), entry.size)));
        }
    }
    files.sort();
    Ok(files)
}

/// A series of the head.
struct HeadSeries {
    labels: Labels,
    /// Its number in the spool, and the round in which that holds.
    number: Option<(u64, Number)>,
    deleted: Vec<TimeRange>,
    /// Up to here its samples came from chunks.
    in_chunks: Timestamp,
}

/// An import under way.
struct Import<'a, 'w> {
    folder: &'a Folder,
    spool: Spool<'a>,
    series: HashMap<u64, HeadSeries>,
    /// Rises whenever the spool is emptied.
    round: u64,
    /// Earlier samples are in blocks.
    from: Timestamp,
    counts: &'w mut Counts,
    written_before: u64,
    done: u64,
    total: u64,
    watcher: &'w mut dyn Watcher,
}

/// Imports the head of `folder`.
pub(super) fn import<'a>(
    folder: &'a Folder,
    target: &'a Target<'a>,
    counts: &mut Counts,
    work: &mut Work,
    watcher: &mut dyn Watcher,
) -> Result<(), ImportError> {
    let written_before = counts.samples;
    let mut import = Import {
        folder,
        spool: Spool::new(target, SPOOL_BYTES),
        series: HashMap::new(),
        round: 0,
        from: folder.in_blocks_before(),
        counts,
        written_before,
        done: work.done,
        total: work.total(),
        watcher,
    };
    for (path, _) in &folder.head.log {
        import.learn(path, target)?;
    }
    import.chunks()?;
    for (path, bytes) in &folder.head.log {
        import.samples(path, false)?;
        import.finished(*bytes)?;
    }
    for (path, bytes) in &folder.head.late {
        import.samples(path, true)?;
        import.finished(*bytes)?;
    }
    let Import { mut spool, counts, .. } = import;
    spool.empty(counts)
}

impl Import<'_, '_> {
    fn map(&self, path: &Path) -> Result<Mapped, ImportError> {
        self.folder.disk.map(path).map_err(|error: DiskError| unread(&error))
    }

    /// Reads which series there are, and what of them is deleted.
    fn learn(&mut self, path: &Path, target: &Target<'_>) -> Result<(), ImportError> {
        let bytes = self.map(path)?;
        let mut records = Records::new(&bytes);
        while let Some(record) = records.next() {
            // What cannot be read is told when samples are read.
            let Ok(record) = record else { continue };
            if !wal::is_known(&record) {
                return Err(ImportError::Source(format!(
                    "{}: records that a later version of Prometheus writes; import a snapshot of \
                     that server (POST /api/v1/admin/tsdb/snapshot), or what it answers to remote \
                     read (stint import URL)",
                    path.display()
                )));
            }
            if !wal::is_about_series(&record) {
                continue;
            }
            let series = &mut self.series;
            // A record that ends early is told below too.
            let _ = wal::decode(&record, |item| match item {
                Item::Series { id, labels } => {
                    if let Some(labels) = target.stored(&labels) {
                        series.entry(id).or_insert_with(|| HeadSeries {
                            labels,
                            number: None,
                            deleted: Vec::new(),
                            in_chunks: Timestamp::MIN,
                        });
                    }
                }
                Item::Deleted { id, range } => {
                    if let Some(series) = series.get_mut(&id) {
                        series.deleted.push(range);
                    }
                }
                Item::Float { .. } | Item::Histogram { .. } => {}
            });
        }
        Ok(())
    }

    /// Takes full chunks; none of those in order where a file of them is damaged, since it is not
    /// known then which samples of the log are missing in them.
    fn chunks(&mut self) -> Result<(), ImportError> {
        let mut files = Vec::new();
        for (path, bytes) in &self.folder.head.chunks {
            files.push((path, *bytes, self.map(path)?));
        }
        let mut is_whole = true;
        for (path, _, file) in &files {
            if let Err(damage) = verified(file) {
                is_whole = false;
                self.counts.damaged(|| format!("{}: {damage}", path.display()));
            }
        }
        let mut columns = Columns::default();
        for (path, bytes, file) in &files {
            let chunks = HeadSegment::open(file).into_iter().flatten().flatten();
            for head_chunk in chunks.filter(|chunk| is_whole || chunk.is_late) {
                let from = if head_chunk.is_late { Timestamp::MIN } else { self.from };
                if head_chunk.last < from || !self.series.contains_key(&head_chunk.series) {
                    continue;
                }
                if !head_chunk.encoding.is_known() {
                    let name = path.display().to_string();
                    return Err(unknown_encoding(&name, head_chunk.encoding.0));
                }
                columns.clear();
                if let Err(damage) =
                    chunk::decode(head_chunk.encoding, head_chunk.data, &mut columns)
                {
                    self.counts.damaged(|| format!("{}: {damage}", path.display()));
                    continue;
                }
                rows::order(&mut columns);
                rows::clip(&mut columns, TimeRange::new(from, Timestamp::MAX));
                if !head_chunk.is_late
                    && let Some(series) = self.series.get_mut(&head_chunk.series)
                {
                    series.in_chunks = series.in_chunks.max(head_chunk.last);
                }
                if let Some(number) = self.number(head_chunk.series) {
                    let deleted = self.series.get(&head_chunk.series).map(|s| s.deleted.as_slice());
                    rows::remove(&mut columns, deleted.unwrap_or_default());
                    self.spool.columns(number, &columns);
                }
                self.empty_when_full()?;
            }
            self.finished(*bytes)?;
        }
        Ok(())
    }

    /// Takes the samples of a segment.
    fn samples(&mut self, path: &Path, is_late: bool) -> Result<(), ImportError> {
        let bytes = self.map(path)?;
        let mut records = Records::new(&bytes);
        let mut seen = 0;
        loop {
            let record = match records.next() {
                None => return Ok(()),
                Some(Ok(record)) => record,
                // The last record was cut off by force: it was never acknowledged.
                Some(Err(gap)) if gap.is_end => continue,
                Some(Err(gap)) => {
                    self.counts.damaged(|| format!("{}: {}", path.display(), gap.damage));
                    continue;
                }
            };
            let decoded = wal::decode(&record, |item| match item {
                Item::Float { id, at, value, start } => {
                    if let Some(number) = self.wanted(id, at, is_late) {
                        self.spool.float(number, at, value);
                        self.spool.start(number, at, start);
                    }
                }
                Item::Histogram { id, at, histogram, start } => {
                    if let Some(number) = self.wanted(id, at, is_late) {
                        self.spool.histogram(number, at, Arc::new(histogram));
                        self.spool.start(number, at, start);
                    }
                }
                Item::Series { .. } | Item::Deleted { .. } => {}
            });
            if let Err(damage) = decoded {
                self.counts.damaged(|| format!("{}: a record: {damage}", path.display()));
            }
            self.empty_when_full()?;
            seen += 1;
            if seen % RECORDS_BETWEEN == 0 {
                self.look(records.position() as u64)?;
            }
        }
    }

    /// The number in the spool of the series whose sample this is; `None` for a sample that came from
    /// elsewhere or is deleted.
    fn wanted(&mut self, id: u64, at: Timestamp, is_late: bool) -> Option<Number> {
        let series = self.series.get(&id)?;
        let is_elsewhere = !is_late && (at < self.from || at <= series.in_chunks);
        if is_elsewhere || series.deleted.iter().any(|range| range.contains(at)) {
            return None;
        }
        self.number(id)
    }

    fn number(&mut self, id: u64) -> Option<Number> {
        let series = self.series.get_mut(&id)?;
        if let Some((_, number)) = series.number.filter(|(round, _)| *round == self.round) {
            return Some(number);
        }
        let number = self.spool.number(&series.labels);
        series.number = Some((self.round, number));
        Some(number)
    }

    fn empty_when_full(&mut self) -> Result<(), ImportError> {
        if self.spool.is_full() {
            self.spool.empty(self.counts)?;
            self.round += 1;
        }
        Ok(())
    }

    fn finished(&mut self, bytes: u64) -> Result<(), ImportError> {
        self.done += bytes;
        self.look(0)
    }

    fn look(&mut self, within: u64) -> Result<(), ImportError> {
        let samples = self.written_before + self.spool.samples();
        let go_on = self.watcher.at((self.done + within).min(self.total), self.total, samples);
        if go_on { Ok(()) } else { Err(ImportError::Stopped) }
    }
}

/// Whether a file of chunks is whole.
fn verified(file: &[u8]) -> Result<(), Damage> {
    HeadSegment::open(file)?.try_for_each(|chunk| chunk.map(|_| ()))
}
