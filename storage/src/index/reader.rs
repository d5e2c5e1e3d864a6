//! An index read in place from mapped bytes.

mod verify;

use std::sync::OnceLock;

use roaring::RoaringBitmap;
use stint_model::Labels;

use super::LABELS_MAX;
use super::dictionary::Dictionary;
use super::groups::{GROUP, Groups, Section};
use super::postings::{Lists, Union};
use super::rows::RowReader;
use super::writer::{LIKE_BEFORE, MAGIC, MAGIC_V1, TRAILER_LEN};
use crate::codec::varint::Reader;
use crate::codec::{Corruption, crc};
use crate::disk::Mapped;

/// A mapped index file.
#[derive(Debug)]
pub struct Index {
    bytes: Mapped,
    file: String,
    series: u32,
    names_len: u32,
    names: Section,
    infos: Section,
    schemas_len: u32,
    schemas: Section,
    entries: Section,
    columns_len: u32,
    columns: Section,
    /// Whether no series is told by what sets it apart from the one before: in version 1.
    all_labels: bool,
    /// All names and where their values are, read when first wanted: labels need them often.
    known: OnceLock<Vec<KnownName>>,
    /// Set once all that labels are made of was compared with its checksums.
    labels_fit: OnceLock<()>,
}

#[derive(Debug)]
struct KnownName {
    text: String,
    values_len: u32,
    values: Section,
    lists: Section,
}

/// How the labels of a series are told.
pub(super) enum LabelsHead {
    /// By a set of names, and the value of each.
    All {
        /// The number of the set.
        schema: u32,
    },
    /// By which of the values of the series before have changed, and to what.
    Changed,
}

/// Values and postings of one label name.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// Its values, sorted.
    pub values: Dictionary<'a>,
    /// The series of each value, and behind them those that have the label at all.
    pub lists: Lists<'a>,
}

impl Index {
    /// Opens the index in `bytes`; reads the footer only. `file` is its name for errors.
    pub fn open(bytes: Mapped, file: &str) -> Result<Self, Corruption> {
        Self::read_footer(bytes, file).map_err(|corruption| corruption.in_file(file, 0))
    }

    fn read_footer(bytes: Mapped, file: &str) -> Result<Self, Corruption> {
        let mapped = bytes.clone();
        let corrupt = |what| Corruption::new(mapped.len(), what);
        let magic = [MAGIC, MAGIC_V1].into_iter().find(|magic| mapped.starts_with(magic));
        let Some(magic) = magic else {
            return Err(Corruption::new(0, "not an index of a known version"));
        };
        let Some((body, trailer)) = mapped.split_last_chunk::<TRAILER_LEN>() else {
            return Err(corrupt("too short for an index"));
        };
        let mut reader = Reader::new(trailer);
        let footer_len = reader.u32()? as usize;
        let checksum = reader.u32()?;
        if reader.rest() != magic {
            return Err(corrupt("an index that ends too early"));
        }
        let Some(footer_at) = body.len().checked_sub(footer_len) else {
            return Err(corrupt("an index footer longer than its file"));
        };
        let footer = body.get(footer_at..).unwrap_or_default();
        if crc::checksum_at(footer_at as u64, footer) != checksum {
            return Err(corrupt("the checksum of the index footer does not match"));
        }
        let mut reader = Reader::new(footer);
        let count = |reader: &mut Reader<'_>| {
            reader.varint_up_to(u32::MAX as usize).map(|count| count as u32)
        };
        let index = Self {
            bytes,
            file: file.to_owned(),
            series: count(&mut reader)?,
            names_len: count(&mut reader)?,
            names: Section::take(&mut reader)?,
            infos: Section::take(&mut reader)?,
            schemas_len: count(&mut reader)?,
            schemas: Section::take(&mut reader)?,
            entries: Section::take(&mut reader)?,
            columns_len: count(&mut reader)?,
            columns: Section::take(&mut reader)?,
            all_labels: magic == MAGIC_V1,
            known: OnceLock::new(),
            labels_fit: OnceLock::new(),
        };
        let sections = [
            (index.series, index.entries),
            (index.names_len, index.names),
            (index.names_len, index.infos),
            (index.schemas_len, index.schemas),
            (index.columns_len, index.columns),
        ];
        if !sections.iter().all(|(len, section)| section.holds(*len, &index.bytes)) {
            return Err(corrupt("an index footer that does not fit its file"));
        }
        Ok(index)
    }

    /// How many series there are.
    pub const fn series_len(&self) -> u32 {
        self.series
    }

    /// How many columns of times there are.
    pub const fn columns_len(&self) -> u32 {
        self.columns_len
    }

    /// The file's name, for errors.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Bytes of the file.
    pub fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The sorted label names.
    pub fn names(&self) -> Dictionary<'_> {
        Dictionary::new(&self.bytes, self.names, self.names_len)
    }

    /// The group of columns in which column `number` lies.
    pub fn column_group(&self, number: u32) -> Result<&[u8], Corruption> {
        if number >= self.columns_len {
            return Err(self.corrupt("a column that does not exist"));
        }
        Groups::new(&self.bytes, self.columns).get(number / GROUP as u32)
    }

    fn corrupt(&self, what: &'static str) -> Corruption {
        Corruption { file: self.file.clone(), offset: 0, what }
    }

    /// All names, in order.
    fn known(&self) -> Result<&[KnownName], Corruption> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let mut known = Vec::with_capacity(self.names_len as usize);
        let infos = Groups::new(&self.bytes, self.infos);
        let mut texts = self.names().collect(0..self.names_len)?.into_iter();
        for group in 0..infos.len() {
            let mut reader = Reader::new(infos.get(group)?);
            while !reader.is_empty() {
                let values_len = reader.varint_up_to(u32::MAX as usize - 1)? as u32;
                let values = Section::take(&mut reader)?;
                let lists = Section::take(&mut reader)?;
                let fits = values.holds(values_len, &self.bytes)
                    && lists.holds(values_len + 1, &self.bytes);
                match texts.next() {
                    Some(text) if fits => {
                        known.push(KnownName { text, values_len, values, lists });
                    }
                    _ => return Err(reader.corrupt("values that do not fit their file")),
                }
            }
        }
        if known.len() != self.names_len as usize {
            return Err(self.corrupt("fewer label names than announced"));
        }
        Ok(self.known.get_or_init(|| known))
    }

    fn known_name(&self, number: u32) -> Result<&KnownName, Corruption> {
        let known = self.known()?.get(number as usize);
        known.ok_or_else(|| self.corrupt("a label name that does not exist"))
    }

    /// The number of a name, if any series has it.
    pub fn name_number(&self, name: &str) -> Result<Option<u32>, Corruption> {
        let found = self.known()?.binary_search_by(|known| known.text.as_str().cmp(name));
        Ok(found.ok().map(|number| number as u32))
    }

    /// Values and postings of a name, if any series has it.
    pub fn name(&self, name: &str) -> Result<Option<Name<'_>>, Corruption> {
        match self.name_number(name)? {
            Some(number) => self.name_at(number).map(Some),
            None => Ok(None),
        }
    }

    /// Values and postings of name number `number`.
    pub fn name_at(&self, number: u32) -> Result<Name<'_>, Corruption> {
        let known = self.known_name(number)?;
        Ok(Name {
            values: Dictionary::new(&self.bytes, known.values, known.values_len),
            lists: Lists::new(&self.bytes, known.lists, known.values_len + 1),
        })
    }

    /// The union of the postings of values `numbers` (rising) of a name.
    pub fn union(&self, name: &Name<'_>, numbers: &[u32]) -> Result<RoaringBitmap, Corruption> {
        let mut union = Union::new(self.series);
        name.lists.add_to(&mut union, numbers)?;
        Ok(union.finish())
    }

    /// The series that have a name at all.
    pub fn any(&self, name: &Name<'_>) -> Result<RoaringBitmap, Corruption> {
        self.union(name, &[name.values.len()])
    }

    /// Every series.
    pub fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.series);
        all
    }

    /// The place of the first chunk of series number `series`, and the block's list of its chunks.
    pub fn chunks(&self, series: u32) -> Result<(u64, Reader<'_>), Corruption> {
        let (group_start, mut item) = self.item(series)?;
        let head = item.varint()?;
        let values = match self.labels_head(head, &item)? {
            LabelsHead::All { schema } => self.schema(schema)?.varint_up_to(LABELS_MAX)?,
            LabelsHead::Changed => item.varint()?.count_ones() as usize,
        };
        for _ in 0..values {
            item.varint()?;
        }
        let chunk_start = group_start.saturating_add(item.varint()?);
        Ok((chunk_start, Reader::new(item.rest())))
    }

    /// What the first number of a series says of its labels.
    pub(super) fn labels_head(
        &self,
        head: u64,
        item: &Reader<'_>,
    ) -> Result<LabelsHead, Corruption> {
        let schema = match (self.all_labels, head & 1) {
            (true, _) => head,
            (false, 0) => head >> 1,
            _ if head == LIKE_BEFORE => return Ok(LabelsHead::Changed),
            _ => return Err(item.corrupt("an unknown form of labels")),
        };
        match u32::try_from(schema) {
            Ok(schema) => Ok(LabelsHead::All { schema }),
            Err(_) => Err(item.corrupt("a label set that does not exist")),
        }
    }

    /// A reader of the group that series number `series` lies in, at its first series.
    pub(super) fn entries_of_group(&self, series: u32) -> Result<Reader<'_>, Corruption> {
        if series >= self.series {
            return Err(self.corrupt("a series that does not exist"));
        }
        let group = Groups::new(&self.bytes, self.entries).get(series / GROUP as u32)?;
        let mut reader = Reader::new(group);
        reader.varint()?;
        Ok(reader)
    }

    /// Reads the numbers of the names in set number `number` into `names`.
    pub(super) fn read_schema(&self, number: u32, names: &mut Vec<u32>) -> Result<(), Corruption> {
        let mut schema = self.schema(number)?;
        names.clear();
        for _ in 0..schema.varint_up_to(LABELS_MAX)? {
            names.push(schema.varint_up_to(u32::MAX as usize)? as u32);
        }
        Ok(())
    }

    /// The text of name number `number`.
    pub(super) fn name_text(&self, number: u32) -> Result<&str, Corruption> {
        Ok(&self.known_name(number)?.text)
    }

    /// Where `part`, which was read from this index, lies in it.
    pub fn place_of(&self, part: &[u8]) -> (u64, u32) {
        let start = (part.as_ptr() as usize).wrapping_sub(self.bytes.as_ptr() as usize);
        (start as u64, part.len() as u32)
    }

    /// The part at a place.
    pub fn at_place(&self, (start, length): (u64, u32)) -> &[u8] {
        let start = start as usize;
        self.bytes.get(start..start.saturating_add(length as usize)).unwrap_or_default()
    }

    /// The place of the first chunk of the series' group, and a reader of what is stored of it.
    fn item(&self, series: u32) -> Result<(u64, Reader<'_>), Corruption> {
        if series >= self.series {
            return Err(self.corrupt("a series that does not exist"));
        }
        let group = Groups::new(&self.bytes, self.entries).get(series / GROUP as u32)?;
        let mut reader = Reader::new(group);
        let group_start = reader.varint()?;
        for _ in 0..series % GROUP as u32 {
            let length = reader.varint_up_to(usize::MAX)?;
            reader.take(length)?;
        }
        let length = reader.varint_up_to(usize::MAX)?;
        Ok((group_start, Reader::new(reader.take(length)?)))
    }

    /// A reader at schema number `number`: how many names, and their numbers.
    fn schema(&self, number: u32) -> Result<Reader<'_>, Corruption> {
        if number >= self.schemas_len {
            return Err(self.corrupt("a label set that does not exist"));
        }
        let group = Groups::new(&self.bytes, self.schemas).get(number / GROUP as u32)?;
        let mut reader = Reader::new(group);
        for _ in 0..number % GROUP as u32 {
            for _ in 0..reader.varint_up_to(LABELS_MAX)? {
                reader.varint()?;
            }
        }
        Ok(reader)
    }

    /// The labels of series number `series`.
    pub fn labels(&self, series: u32) -> Result<Labels, Corruption> {
        let mut reader = RowReader::new(self);
        let (names, values) = reader.row(series)?;
        let mut pairs = Vec::with_capacity(names.len());
        for (name, value) in names.iter().zip(values) {
            let known = self.known_name(*name)?;
            let values = Dictionary::new(&self.bytes, known.values, known.values_len);
            pairs.push((known.text.as_str(), values.get(*value)?));
        }
        Labels::from_sorted(pairs.iter().map(|(name, value)| (*name, value.as_str())))
            .ok_or_else(|| self.corrupt("labels of a series out of order"))
    }
}
