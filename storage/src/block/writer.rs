//! Writes a block: beside its final place, synced, then renamed.

use std::ops::Range;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use stint_model::{Columns, Labels, Timestamp};
use xxhash_rust::xxh3::xxh3_128;

use super::chunks::{self, CHUNKS_FILE, ChunkRef, ColumnInfo};
use super::meta::{BlockMeta, META_FILE};
use super::reader::INDEX_FILE;
use super::relatives::{Relatives, TimesOf};
use super::{BlockError, chunks::MAGIC};
use crate::codec::chunk::{self, Rows};
use crate::codec::varint;
use crate::codec::{crc, times};
use crate::disk::{Disk, DiskFile, DiskResult, TEMPORARY_SUFFIX};
use crate::index::writer::ChunkList;
use crate::index::{IndexBuilder, LABELS_MAX};

/// Chunks are handed to the disk in pieces of about this many bytes.
const PIECE: usize = 1 << 20;

/// What is written is made durable whenever it is so much, so that neither the end of the block nor
/// the sync of the log beside it waits for all of it.
const SYNC_BYTES: u64 = 32 << 20;

/// Columns remembered in full, to recognise columns that are parts of them.
const RECENT_MAX: usize = 32;

/// Writes one block. Dropped without [`BlockWriter::finish`], it leaves a temporary directory
/// behind that the next start (or the next writer of this block) removes.
pub struct BlockWriter<'d> {
    disk: &'d dyn Disk,
    parent_dir: PathBuf,
    temporary: PathBuf,
    meta: BlockMeta,
    chunks: ChunkFile,
    index: IndexBuilder,
    columns: ColumnDictionary,
    relatives: Relatives,
    /// The rows of a chunk.
    rows: Vec<u8>,
}

impl<'d> BlockWriter<'d> {
    /// Starts the block that `meta` describes (its counts are filled in at the end) under
    /// `parent_dir`.
    pub fn new(disk: &'d dyn Disk, parent_dir: &Path, meta: BlockMeta) -> Result<Self, BlockError> {
        let temporary = parent_dir.join(format!("{}{TEMPORARY_SUFFIX}", meta.id.dir_name()));
        match disk.remove_dir(&temporary) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        disk.create_dir(&temporary)?;
        let mut chunks = ChunkFile {
            file: disk.create(&temporary.join(CHUNKS_FILE))?,
            held: Vec::with_capacity(PIECE),
            flushed: 0,
            synced: 0,
        };
        chunks.held.extend_from_slice(&MAGIC);
        Ok(Self {
            disk,
            parent_dir: parent_dir.to_path_buf(),
            temporary,
            meta,
            chunks,
            index: IndexBuilder::default(),
            columns: ColumnDictionary::default(),
            relatives: Relatives::default(),
            rows: Vec::new(),
        })
    }

    /// Adds a series with all its samples; one without samples is left out. Series come in the
    /// order of [`crate::index::series_order`], each once.
    pub fn add_series(&mut self, labels: &Labels, columns: &Columns) -> Result<(), BlockError> {
        if columns.is_empty() {
            return Ok(());
        }
        if labels.len() > LABELS_MAX {
            return Err(BlockError::Labels { labels: labels.len(), max: LABELS_MAX });
        }
        if !self.index.accepts(labels) {
            return Err(BlockError::SeriesOrder { labels: labels.to_string() });
        }
        let rising = columns.times.windows(2).all(|pair| pair.first() < pair.get(1));
        let inside = columns.times.first().is_some_and(|first| self.meta.range.contains(*first))
            && columns.times.last().is_some_and(|last| self.meta.range.contains(*last));
        if !rising || !inside || columns.values.len() != columns.times.len() {
            return Err(BlockError::Samples { labels: labels.to_string() });
        }
        let series = self.index.len();
        let rows = Rows::of(columns);
        let parts = chunks::split(&columns.times);
        let mut list = Vec::new();
        varint::put(&mut list, parts.len() as u64);
        let mut start = None;
        let mut end = 0;
        for (number, part) in parts.into_iter().enumerate() {
            let chunk_rows = rows.slice(part);
            let (column, part) = self.columns.number(chunk_rows.times, &mut self.chunks);
            self.rows.clear();
            chunk::put_rows(&chunk_rows, &mut self.rows);
            let times = TimesOf { column, part };
            let base = self.relatives.shorten(series, times, chunk_rows.values, &mut self.rows);
            let base = base.map(|base| series - base);
            let offset = self.chunks.position();
            let start = *start.get_or_insert(offset);
            let place = chunks::chunk_place(series, number);
            let length = self.chunks.put(place, |out| out.extend_from_slice(&self.rows));
            let gap = if offset == start { 0 } else { offset - end };
            end = offset + u64::from(length);
            ChunkRef { gap, length, column, part, base }.put(&mut list);
            self.meta.chunks += 1;
        }
        let start = start.unwrap_or_default();
        self.index.add(labels, ChunkList { start, bytes: &list });
        self.meta.samples += columns.len() as u64;
        self.meta.series += 1;
        self.chunks.flush_when_full()?;
        Ok(())
    }

    /// Syncs everything and publishes the block.
    pub fn finish(mut self) -> Result<BlockMeta, BlockError> {
        self.write_chunks()?;
        self.write_index()?;
        self.publish()
    }

    /// The first of the three steps of [`Self::finish`], after the last series: makes the chunks
    /// durable.
    pub(crate) fn write_chunks(&mut self) -> Result<(), BlockError> {
        self.chunks.flush()?;
        Ok(self.chunks.file.sync()?)
    }

    /// The second step: makes index and meta durable.
    pub(crate) fn write_index(&mut self) -> Result<(), BlockError> {
        let groups = chunks::column_groups(&self.columns.infos);
        let index = self.index.finish(&groups, self.columns.infos.len() as u32)?;
        self.write_file(INDEX_FILE, &index)?;
        self.meta.columns = self.columns.infos.len() as u64;
        self.meta.chunks_bytes = self.chunks.flushed;
        self.meta.index_bytes = index.len() as u64;
        self.write_file(META_FILE, self.meta.to_text().as_bytes())?;
        Ok(self.disk.sync_dir(&self.temporary)?)
    }

    /// The last step: gives the block its name.
    pub(crate) fn publish(self) -> Result<BlockMeta, BlockError> {
        self.disk.rename(&self.temporary, &self.meta.dir(&self.parent_dir))?;
        self.disk.sync_dir(&self.parent_dir)?;
        Ok(self.meta)
    }

    /// How many series were added so far.
    pub fn series(&self) -> u64 {
        self.meta.series
    }

    /// Gives the block up and removes what was written.
    pub fn abandon(self) -> Result<(), BlockError> {
        let Self { disk, temporary, chunks, .. } = self;
        drop(chunks);
        Ok(disk.remove_dir(&temporary)?)
    }

    /// Writes bytes that belong to nothing.
    #[cfg(test)]
    pub(crate) fn leave_gap(&mut self) {
        self.chunks.held.extend_from_slice(b"nothing");
    }

    /// Adds a column of times that no chunk has.
    #[cfg(test)]
    pub(crate) fn add_column(&mut self, times: &[Timestamp]) {
        self.columns.number(times, &mut self.chunks);
    }

    /// Changes what is told of columns.
    #[cfg(test)]
    pub(crate) fn edit_columns(&mut self, edit: impl FnOnce(&mut Vec<ColumnInfo>)) {
        edit(&mut self.columns.infos);
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> DiskResult<()> {
        let file = self.disk.create(&self.temporary.join(name))?;
        file.append(bytes)?;
        file.sync()
    }
}

/// The chunk file being written.
struct ChunkFile {
    file: Box<dyn DiskFile>,
    held: Vec<u8>,
    flushed: u64,
    synced: u64,
}

impl ChunkFile {
    fn position(&self) -> u64 {
        self.flushed + self.held.len() as u64
    }

    /// Adds what `fill` appends, and its checksum; the bytes of both.
    fn put(&mut self, place: u64, fill: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let start = self.held.len();
        fill(&mut self.held);
        let checksum = crc::checksum_at(place, self.held.get(start..).unwrap_or_default());
        self.held.extend_from_slice(&checksum.to_le_bytes());
        (self.held.len() - start) as u32
    }

    fn flush_when_full(&mut self) -> DiskResult<()> {
        if self.held.len() < PIECE {
            return Ok(());
        }
        self.flush()?;
        if self.flushed - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.flushed;
        }
        Ok(())
    }

    fn flush(&mut self) -> DiskResult<()> {
        self.file.append(&self.held)?;
        self.flushed += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }
}

/// The distinct columns of times of a block.
#[derive(Default)]
struct ColumnDictionary {
    infos: Vec<ColumnInfo>,
    /// Number of a column by the hash of its times; 128 bits need no second look.
    by_content: HashMap<u128, u32>,
    /// The columns written last, oldest first.
    recent: Vec<(u32, Vec<Timestamp>)>,
    scratch: Vec<u8>,
}

impl ColumnDictionary {
    /// The number of the column `times`, or of one of which it is a part; written if new.
    fn number(&mut self, times: &[Timestamp], file: &mut ChunkFile) -> (u32, Option<(u32, u32)>) {
        for (number, column) in self.recent.iter().rev() {
            if let Some(rows) = position_in(times, column) {
                let part =
                    (rows.len() < column.len()).then_some((rows.start as u32, rows.len() as u32));
                return (*number, part);
            }
        }
        self.scratch.clear();
        for time in times {
            self.scratch.extend_from_slice(&time.0.to_le_bytes());
        }
        let next = self.infos.len() as u32;
        let number = *self.by_content.entry(xxh3_128(&self.scratch)).or_insert(next);
        if number == next {
            let offset = file.position();
            let length = file.put(chunks::column_place(number), |out| times::put(times, out));
            let first = times.first().copied().unwrap_or_default();
            let last = times.last().copied().unwrap_or_default();
            self.infos.push(ColumnInfo { offset, length, rows: times.len() as u32, first, last });
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.remove(0);
        }
        self.recent.push((number, times.to_vec()));
        (number, None)
    }
}

/// The rows of `column` that are `times`.
fn position_in(times: &[Timestamp], column: &[Timestamp]) -> Option<Range<usize>> {
    let (first, last) = (times.first()?, times.last()?);
    if column.first()? > first || column.last()? < last {
        return None;
    }
    let start = column.binary_search(first).ok()?;
    let rows = start..start + times.len();
    (column.get(rows.clone())? == times).then_some(rows)
}
