//! A published block, mapped.

mod bases;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::sync::Mutex;
use roaring::RoaringBitmap;
use stint_model::{Columns, Labels, Selector, TimeRange, Timestamp};

use self::bases::{Bases, Relative};
use super::BlockError;
use super::chunks::{self, CHUNKS_FILE, ChunkRef, ColumnInfo, MAGIC, MAGIC_V1};
use super::meta::{BlockMeta, META_FILE};
use super::relatives::TimesOf;
use crate::codec::chunk;
use crate::codec::varint::Reader;
use crate::codec::{Corruption, crc, times};
use crate::disk::{self, Disk, Mapped};
use crate::index::table::LabelTable;
use crate::index::{Index, select};
use crate::tombstones::Tombstones;

/// Name of the index file inside a block's directory.
pub const INDEX_FILE: &str = "index";

/// Decoded columns of times kept per block; neighbouring series share theirs.
const COLUMN_SLOTS: usize = 16;

/// A published block. Cloning shares the mapping; a clone keeps answering the same after the
/// block is removed or something in it is deleted.
#[derive(Clone, Debug)]
pub struct Block {
    inner: Arc<Inner>,
    tombstones: Arc<Tombstones>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    meta: BlockMeta,
    index: Index,
    chunks: Mapped,
    chunks_file: String,
    meta_bytes: u64,
    slots: [Mutex<Slot>; COLUMN_SLOTS],
    bases: Bases,
    /// For each series, which of its first chunks were found intact: a published file does not
    /// change, so once is enough.
    intact: OnceLock<Box<[AtomicU8]>>,
    /// The first damage that a reader met.
    damage: OnceLock<Corruption>,
}

/// Where the chunks of a series of a block are listed.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    series: u32,
    /// In the index.
    list: (u64, u32),
    /// The first chunk in the chunk file.
    first: u64,
}

impl Place {
    /// The number of the series.
    pub const fn series(&self) -> u32 {
        self.series
    }
}

/// Tells a block from all others for as long as it is held, however long the block itself lives.
#[derive(Clone, Debug)]
pub struct Identity(Weak<Inner>);

impl Identity {
    /// The same for all of the same block, and different from that of any other.
    pub fn number(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Whether the block is still in use.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// A chunk, its place in the chunk file and its bytes.
struct Found<'a> {
    series: u32,
    chunk: ChunkRef,
    offset: u64,
    bytes: &'a [u8],
}

/// Number and column of what was wanted last among those that share the slot.
type Slot = Option<(u32, Arc<Column>)>;

/// A column of times, decoded when first wanted.
#[derive(Debug)]
struct Column {
    info: ColumnInfo,
    times: OnceLock<Vec<Timestamp>>,
}

impl Block {
    /// Opens the block in `dir`: reads meta, tombstones and the index footer.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, BlockError> {
        let name = |file: &str| dir.join(file).display().to_string();
        let meta_bytes = disk::read_all(disk, &dir.join(META_FILE))?;
        let meta = BlockMeta::from_text(&meta_bytes, &name(META_FILE))?;
        let index_bytes = disk.map(&dir.join(INDEX_FILE))?;
        let chunks = disk.map(&dir.join(CHUNKS_FILE))?;
        let chunks_file = name(CHUNKS_FILE);
        let corrupt = |file: &str, what| Corruption { file: file.to_owned(), offset: 0, what };
        if index_bytes.len() as u64 != meta.index_bytes {
            let what = "the index is not as long as the meta says";
            return Err(corrupt(&name(INDEX_FILE), what).into());
        }
        if chunks.len() as u64 != meta.chunks_bytes {
            return Err(corrupt(&chunks_file, "chunks are not as long as the meta says").into());
        }
        if ![MAGIC, MAGIC_V1].iter().any(|magic| chunks.starts_with(magic)) {
            return Err(corrupt(&chunks_file, "not chunks of a known version").into());
        }
        let index = Index::open(index_bytes, &name(INDEX_FILE))?;
        if u64::from(index.series_len()) != meta.series {
            let what = "the index has not the series the meta says";
            return Err(corrupt(&name(INDEX_FILE), what).into());
        }
        let tombstones = Arc::new(Tombstones::read(disk, dir)?);
        let inner = Inner {
            dir: dir.to_path_buf(),
            meta,
            index,
            chunks,
            chunks_file,
            meta_bytes: meta_bytes.len() as u64,
            slots: std::array::from_fn(|_| Mutex::new(None)),
            bases: Bases::default(),
            intact: OnceLock::new(),
            damage: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner), tombstones })
    }

    /// Remembers that a reader met damage.
    pub(crate) fn note_damage(&self, corruption: &Corruption) {
        self.inner.damage.get_or_init(|| corruption.clone());
    }

    /// The first damage that a reader met since the block was opened.
    pub(crate) fn damage(&self) -> Option<&Corruption> {
        self.inner.damage.get()
    }

    /// What the block holds.
    pub fn meta(&self) -> &BlockMeta {
        &self.inner.meta
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// What was deleted since it was written.
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// Bytes of all its files.
    pub fn size_bytes(&self) -> u64 {
        let Inner { meta, meta_bytes, .. } = &*self.inner;
        meta.chunks_bytes + meta.index_bytes + meta_bytes + self.tombstones.size_bytes()
    }

    /// What tells the block from others; the same before and after something is deleted in it.
    pub fn identity(&self) -> Identity {
        Identity(Arc::downgrade(&self.inner))
    }

    /// How many series there are; they are numbered from 0 in the order of
    /// [`crate::index::series_order`].
    pub fn series_len(&self) -> u32 {
        self.inner.index.series_len()
    }

    /// The numbers of the series that `selector` selects.
    pub fn select(&self, selector: &Selector) -> Result<RoaringBitmap, Corruption> {
        self.in_index(select::select(&self.inner.index, selector))
    }

    /// The labels of a series.
    pub fn labels(&self, series: u32) -> Result<Labels, Corruption> {
        self.in_index(self.inner.index.labels(series))
    }

    /// The labels of many series, best in rising order.
    pub(crate) fn label_table(
        &self,
        series: impl IntoIterator<Item = u32>,
    ) -> Result<LabelTable, Corruption> {
        self.in_index(self.inner.index.label_table(series))
    }

    /// Compares what labels are made of with its checksums, unless that was done before.
    pub(crate) fn check_labels(&self) -> Result<(), Corruption> {
        self.in_index(self.inner.index.check_labels())
    }

    /// The places of the series, as they rise, in order of their labels.
    pub(crate) fn order_of_labels(&self, series: &RoaringBitmap) -> Result<Vec<u32>, Corruption> {
        self.in_index(self.inner.index.order_of_labels(series))
    }

    /// Sorted names of the labels of the series that any of `selectors` selects (of all series,
    /// when there are none).
    pub fn label_names(&self, selectors: &[Selector]) -> Result<Vec<String>, Corruption> {
        self.in_index(select::label_names(&self.inner.index, selectors))
    }

    /// Sorted values of label `name` in the series that any of `selectors` selects (in all
    /// series, when there are none).
    pub fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
    ) -> Result<Vec<String>, Corruption> {
        self.in_index(select::label_values(&self.inner.index, name, selectors))
    }

    fn in_index<T>(&self, result: Result<T, Corruption>) -> Result<T, Corruption> {
        result.map_err(|corruption| corruption.in_file(self.inner.index.file(), 0))
    }

    /// Where the chunks of a series are listed.
    pub fn place(&self, series: u32) -> Result<Place, Corruption> {
        let (first, list) = self.in_index(self.inner.index.chunks(series))?;
        let list = self.inner.index.place_of(list.rest());
        Ok(Place { series, list, first })
    }

    /// Appends the samples of a series inside `range` to `columns`, in order of time.
    ///
    /// # Errors
    /// Damage, by file and place. `columns` is then as it was before.
    pub fn read(
        &self,
        series: u32,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        self.read_place(&self.place(series)?, range, columns)
    }

    /// As [`Self::read`], for a place of this block that was looked up before.
    pub fn read_place(
        &self,
        place: &Place,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        let mark = chunk::Mark::of(columns);
        let read = self.read_chunks(place, range, columns);
        if read.is_err() {
            mark.restore(columns);
        } else {
            self.tombstones.mask(place.series, mark.rows(), columns);
        }
        read
    }

    fn read_chunks(
        &self,
        place: &Place,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        let mut list = Reader::new(self.inner.index.at_place(place.list));
        let mut offset = place.first;
        let count = self.in_index(list.varint_up_to(list.rest().len()))?;
        for number in 0..count {
            let chunk = self.in_index(ChunkRef::take(&mut list))?;
            offset = offset.saturating_add(chunk.gap);
            let column = self.inner.column(chunk.column)?;
            if column.info.first >= range.end {
                break;
            }
            if column.info.last >= range.start {
                let bytes = self.inner.chunk(place.series, number, (offset, chunk.length))?;
                let found = Found { series: place.series, chunk, offset, bytes };
                let times = self.inner.times(chunk.column, &column)?;
                self.inner.read_chunk(&found, times, range, columns)?;
            }
            offset = offset.saturating_add(u64::from(chunk.length));
        }
        Ok(())
    }

    /// The same block with the samples in `range` of what `selector` selects deleted; written to
    /// the block's tombstones.
    pub fn delete(
        &self,
        disk: &dyn Disk,
        selector: &Selector,
        range: TimeRange,
    ) -> Result<Self, BlockError> {
        if range.is_empty() || !range.overlaps(self.meta().range) {
            return Ok(self.clone());
        }
        let selected = self.select(selector)?;
        if selected.is_empty() {
            return Ok(self.clone());
        }
        let mut tombstones = Tombstones::clone(&self.tombstones);
        for series in selected {
            tombstones.add(series, range);
        }
        tombstones.write(disk, self.dir())?;
        Ok(Self { inner: self.inner.clone(), tombstones: Arc::new(tombstones) })
    }
}

impl Inner {
    fn corrupt(&self, offset: u64, what: &'static str) -> Corruption {
        Corruption { file: self.chunks_file.clone(), offset, what }
    }

    /// The bytes and the checksum of the record at `offset` of the chunk file.
    fn unchecked(&self, offset: u64, length: u32) -> Result<(&[u8], &[u8; 4]), Corruption> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.chunks.get(start..start.checked_add(length as usize)?));
        let parts = bytes.and_then(<[u8]>::split_last_chunk::<4>);
        parts.ok_or_else(|| self.corrupt(offset, "a chunk beyond its file"))
    }

    /// Chunk `number` of a series, which lies at `offset` and has `length` bytes. Its checksum is
    /// compared until it was found to fit.
    fn chunk(
        &self,
        series: u32,
        number: usize,
        (offset, length): (u64, u32),
    ) -> Result<&[u8], Corruption> {
        let all = || (0..self.index.series_len()).map(|_| AtomicU8::new(0)).collect();
        let intact = self.intact.get_or_init(all).get(series as usize);
        let bit = u32::try_from(number).ok().and_then(|number| 1_u8.checked_shl(number));
        if let (Some(intact), Some(bit)) = (intact, bit)
            && intact.load(Ordering::Relaxed) & bit != 0
        {
            return Ok(self.unchecked(offset, length)?.0);
        }
        let bytes = self.record(offset, length, chunks::chunk_place(series, number))?;
        if let (Some(intact), Some(bit)) = (intact, bit) {
            intact.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// The record at `offset` of the chunk file, without its checksum, which is verified.
    fn record(&self, offset: u64, length: u32, place: u64) -> Result<&[u8], Corruption> {
        let (body, checksum) = self.unchecked(offset, length)?;
        if crc::checksum_at(place, body) != u32::from_le_bytes(*checksum) {
            return Err(self.corrupt(offset, "a chunk's checksum does not match"));
        }
        Ok(body)
    }

    /// Column `number`, from its slot or from the index.
    fn column(&self, number: u32) -> Result<Arc<Column>, Corruption> {
        let slot = self.slots.get(number as usize % COLUMN_SLOTS);
        if let Some(slot) = slot
            && let Some((held, column)) = &*slot.lock()
            && *held == number
        {
            return Ok(column.clone());
        }
        let info = self.column_info(number)?;
        let column = Arc::new(Column { info, times: OnceLock::new() });
        if let Some(slot) = slot {
            *slot.lock() = Some((number, column.clone()));
        }
        Ok(column)
    }

    /// Where column `number` lies.
    fn column_info(&self, number: u32) -> Result<ColumnInfo, Corruption> {
        let group = self.index.column_group(number);
        group
            .and_then(|group| chunks::column_in_group(group, number))
            .map_err(|corruption| corruption.in_file(self.index.file(), 0))
    }

    fn times<'c>(&self, number: u32, column: &'c Column) -> Result<&'c [Timestamp], Corruption> {
        if let Some(times) = column.times.get() {
            return Ok(times);
        }
        let ColumnInfo { offset, length, rows, .. } = column.info;
        let bytes = self.record(offset, length, chunks::column_place(number))?;
        let mut decoded = Vec::new();
        times::take(&mut Reader::new(bytes), rows as usize, &mut decoded)
            .map_err(|corruption| corruption.in_file(&self.chunks_file, offset))?;
        Ok(column.times.get_or_init(|| decoded))
    }

    fn read_chunk(
        &self,
        found: &Found<'_>,
        times: &[Timestamp],
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        let Found { series, chunk, offset, bytes } = *found;
        let ChunkRef { column, part, base, .. } = chunk;
        let times = match part {
            None => times,
            Some((first, rows)) => times
                .get(first as usize..first as usize + rows as usize)
                .ok_or_else(|| self.corrupt(offset, "a part beyond its column"))?,
        };
        let keep = times.partition_point(|time| *time < range.start)
            ..times.partition_point(|time| *time < range.end);
        if keep.is_empty() {
            return Ok(());
        }
        let mut reader = Reader::new(bytes);
        let base = match base {
            None => None,
            Some(distance) => {
                let (times_of, rows) = (TimesOf { column, part }, times.len());
                let relative = Relative { series, distance, times: times_of, rows };
                Some(self.base_of(relative)?)
            }
        };
        columns.times.extend_from_slice(times.get(keep.clone()).unwrap_or_default());
        let taken = if let Some(base) = base {
            chunk::take_relative(&mut reader, &base, keep, columns)
        } else if keep.len() < times.len() {
            chunk::take_rows_part(&mut reader, times.len(), keep, columns)
        } else {
            chunk::take_rows(&mut reader, times.len(), columns)
        };
        taken.map_err(|corruption| corruption.in_file(&self.chunks_file, offset))
    }
}

#[cfg(test)]
mod tests;
