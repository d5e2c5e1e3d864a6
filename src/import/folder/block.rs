//! The blocks of a folder that reach into one window.

use std::collections::BTreeMap;
use std::path::Path;

use stint_model::{Columns, Labels, TimeRange};
use stint_storage::codec::chunk::Mark;
use stint_storage::{Disk as _, Mapped, series_order};
use stint_wire::tsdb::index::{ChunkRef, Index, Metric, SeriesEntry};
use stint_wire::tsdb::segment::BlockSegment;
use stint_wire::tsdb::{chunk, tombstones};

use super::{Folder, Work, unread};
use crate::import::{Counts, ImportError, Target, Watcher, rows};

/// Series between two looks at the watcher.
const SERIES_BETWEEN: usize = 1024;

/// The files of a block.
struct Files {
    name: String,
    index: Mapped,
    chunks: Vec<Mapped>,
    deleted: BTreeMap<u64, Vec<TimeRange>>,
}

/// A block whose index can be read.
struct Block<'a> {
    files: &'a Files,
    index: Index<'a>,
}

/// A series of a block, under the labels by which it is stored.
struct Found {
    labels: Labels,
    block: usize,
    number: u32,
}

/// Imports what lies inside `window` into one block.
pub(super) fn import(
    folder: &Folder,
    target: &Target<'_>,
    window: TimeRange,
    work: &mut Work,
    counts: &mut Counts,
    watcher: &mut dyn Watcher,
) -> Result<(), ImportError> {
    let range =
        TimeRange::new(window.start.max(target.range.start), window.end.min(target.range.end));
    let mut files = Vec::new();
    for meta in folder.reaching_into(window) {
        match Files::open(folder, &meta.ulid) {
            Ok(opened) => files.push(opened),
            Err(error) => counts.damaged(|| error),
        }
    }
    let mut blocks = Vec::new();
    for files in &files {
        match Index::open(&files.index) {
            Ok(index) => blocks.push(Block { files, index }),
            Err(damage) => counts.damaged(|| format!("{}/index: {damage}", files.name)),
        }
    }
    let mut import = target.db.import(window)?;
    let metrics = metrics(&blocks, counts);
    let (share, total, all) = (work.share(window), work.total(), metrics.len().max(1));
    let (mut columns, mut written, mut seen) = (Columns::default(), 0, 0);
    let mut reader = Reader::default();
    for (place, numbers) in metrics.into_values().enumerate() {
        let found = reader.found(&blocks, &numbers, range, target, counts);
        for same in found.chunk_by(|a, b| a.labels == b.labels) {
            columns.clear();
            for one in same {
                if let Some(block) = blocks.get(one.block) {
                    reader.read(block, one.number, range, &mut columns, counts)?;
                }
            }
            rows::order(&mut columns);
            rows::clip(&mut columns, range);
            let Some(first) = same.first().filter(|_| !columns.is_empty()) else { continue };
            written += columns.len() as u64;
            import.add_series(&first.labels, &mut columns)?;
            seen += 1;
            if seen % SERIES_BETWEEN == 0 {
                let done = work.done + (share as f64 * (place as f64 / all as f64)) as u64;
                if !watcher.at(done, total, counts.samples + written) {
                    import.abandon()?;
                    return Err(ImportError::Stopped);
                }
            }
        }
    }
    counts.add(&import.finish()?);
    if watcher.at(work.done + share, total, counts.samples) {
        Ok(())
    } else {
        Err(ImportError::Stopped)
    }
}

/// Where the series of a metric are: block and list of numbers.
type Lists<'a> = Vec<(usize, List<'a>)>;

enum List<'a> {
    Metric(Metric<'a>),
    /// Series without a metric name.
    Numbers(Vec<u32>),
}

/// The metrics of all blocks, in order; series without one come first.
fn metrics<'a>(blocks: &[Block<'a>], counts: &mut Counts) -> BTreeMap<&'a str, Lists<'a>> {
    let mut all: BTreeMap<&str, Lists<'a>> = BTreeMap::new();
    for (number, block) in blocks.iter().enumerate() {
        for metric in block.index.metrics() {
            all.entry(metric.name).or_default().push((number, List::Metric(*metric)));
        }
        match block.index.series_without_metric() {
            Ok(numbers) if numbers.is_empty() => {}
            Ok(numbers) => all.entry("").or_default().push((number, List::Numbers(numbers))),
            Err(damage) => counts.damaged(|| format!("{}/index: {damage}", block.files.name)),
        }
    }
    all
}

impl Files {
    fn open(folder: &Folder, name: &str) -> Result<Self, String> {
        let dir = Path::new(name);
        let map = |file: &Path| folder.disk.map(file).map_err(|error| unread(&error).to_string());
        let mut chunks = Vec::new();
        let listed = folder.disk.list(&dir.join("chunks"));
        for entry in listed.map_err(|error| error.to_string())? {
            // Files are numbered without gaps; anything else is a leftover.
            if entry.name.parse::<u32>().is_ok() {
                chunks.push(map(&dir.join("chunks").join(&entry.name))?);
            }
        }
        let deleted = match folder.disk.map(&dir.join("tombstones")) {
            Err(error) if error.is_not_found() => BTreeMap::new(),
            Err(error) => return Err(error.to_string()),
            Ok(bytes) => tombstones::read(&bytes)
                .map_err(|damage| format!("{name}/tombstones: {damage}; the block is left out"))?,
        };
        Ok(Self { name: name.to_owned(), index: map(&dir.join("index"))?, chunks, deleted })
    }
}

/// Memory that is used again and again.
#[derive(Default)]
struct Reader {
    entry: SeriesEntry,
    part: Columns,
}

impl Reader {
    /// The series of a metric that have chunks inside `range` and are taken, in the order of blocks
    /// of ours; those that several blocks have lie side by side.
    fn found(
        &mut self,
        blocks: &[Block<'_>],
        lists: &Lists<'_>,
        range: TimeRange,
        target: &Target<'_>,
        counts: &mut Counts,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        for (place, list) in lists {
            let Some(block) = blocks.get(*place) else { continue };
            let numbers = match list {
                List::Numbers(numbers) => Ok(numbers.clone()),
                List::Metric(metric) => block.index.series_of(metric).map(Iterator::collect),
            };
            let numbers: Vec<u32> = match numbers {
                Ok(numbers) => numbers,
                Err(damage) => {
                    counts.damaged(|| format!("{}/index: {damage}", block.files.name));
                    continue;
                }
            };
            for number in numbers {
                match self.labels(block, number, range) {
                    Ok(Some(labels)) => {
                        if let Some(labels) = target.stored(&labels) {
                            found.push(Found { labels, block: *place, number });
                        }
                    }
                    Ok(None) => {}
                    Err(damage) => {
                        counts.damaged(|| format!("{}/index: {damage}", block.files.name));
                    }
                }
            }
        }
        let by_order =
            |a: &Found, b: &Found| series_order(&a.labels, &b.labels).then(a.block.cmp(&b.block));
        if !found.is_sorted_by(|a, b| by_order(a, b).is_le()) {
            found.sort_by(by_order);
        }
        found
    }

    /// The labels of a series that has chunks inside `range`.
    fn labels(
        &mut self,
        block: &Block<'_>,
        number: u32,
        range: TimeRange,
    ) -> Result<Option<Labels>, stint_wire::tsdb::Damage> {
        block.index.series(number, &mut self.entry)?;
        if !self.entry.chunks.iter().any(|chunk| reaches_into(chunk, range)) {
            return Ok(None);
        }
        block.index.labels(&self.entry).map(Some)
    }

    /// Appends the samples of a series that were not deleted: those of all chunks that reach into
    /// `range`.
    fn read(
        &mut self,
        block: &Block<'_>,
        number: u32,
        range: TimeRange,
        columns: &mut Columns,
        counts: &mut Counts,
    ) -> Result<(), ImportError> {
        let name = &block.files.name;
        if let Err(damage) = block.index.series(number, &mut self.entry) {
            counts.damaged(|| format!("{name}/index: {damage}"));
            return Ok(());
        }
        let deleted = block.files.deleted.get(&u64::from(number));
        self.part.clear();
        let out = if deleted.is_some() { &mut self.part } else { &mut *columns };
        for place in self.entry.chunks.iter().filter(|chunk| reaches_into(chunk, range)) {
            let file =
                (place.file as usize).checked_sub(1).and_then(|at| block.files.chunks.get(at));
            let Some(file) = file else {
                counts.damaged(|| format!("{name}/chunks: file {} is missing", place.file));
                continue;
            };
            let (encoding, data) =
                match BlockSegment::open(file).and_then(|segment| segment.chunk(place.offset)) {
                    Ok(read) => read,
                    Err(damage) => {
                        counts.damaged(|| format!("{name}/chunks/{:06}: {damage}", place.file));
                        continue;
                    }
                };
            if !encoding.is_known() {
                return Err(unknown_encoding(name, encoding.0));
            }
            let mark = Mark::of(out);
            if let Err(damage) = chunk::decode(encoding, data, out) {
                mark.restore(out);
                let damage = damage.behind(place.offset as usize);
                counts.damaged(|| format!("{name}/chunks/{:06}: {damage}", place.file));
            }
        }
        if let Some(deleted) = deleted {
            rows::remove(&mut self.part, deleted);
            rows::append(columns, &self.part);
        }
        Ok(())
    }
}

/// Why a chunk cannot be read that is as it was written.
pub(super) fn unknown_encoding(name: &str, encoding: u8) -> ImportError {
    ImportError::Source(format!(
        "{name}: chunks of encoding {encoding}, which a later version of Prometheus writes, cannot \
         be read; start that server and import what it answers to remote read (stint import URL)"
    ))
}

fn reaches_into(chunk: &ChunkRef, range: TimeRange) -> bool {
    chunk.first < range.end && chunk.last >= range.start
}
