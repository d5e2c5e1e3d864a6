//! Collects the series of a block and writes its index.

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use stint_model::Labels;

use super::dictionary;
use super::groups::{GROUP, GroupsWriter, Section, SectionTooLarge};
use super::postings;
use crate::codec::crc;
use crate::codec::varint;

/// First bytes of every index file; the last is the format's version.
pub const MAGIC: [u8; 8] = *b"STNTIDX\x02";

/// Those of files that an earlier version wrote: it had fewer forms.
pub const MAGIC_V1: [u8; 8] = *b"STNTIDX\x01";

/// Instead of twice the number of a set of names: the set is that of the series before.
pub(super) const LIKE_BEFORE: u64 = 1;

/// Of more labels it is not told which have changed.
pub(super) const CHANGES_MAX: usize = 32;

/// Bytes of the footer's own length, checksum and magic.
pub const TRAILER_LEN: usize = 4 + 4 + 8;

/// Where the samples of a series lie, as the block encodes it.
#[derive(Clone, Copy, Debug)]
pub struct ChunkList<'a> {
    /// First byte of the series' first chunk.
    pub start: u64,
    /// Everything else; its meaning is the block's.
    pub bytes: &'a [u8],
}

/// Strings numbered in order of arrival.
#[derive(Debug, Default)]
struct Interner {
    numbers: HashMap<Box<str>, u32>,
}

impl Interner {
    fn number(&mut self, text: &str) -> u32 {
        let next = self.numbers.len() as u32;
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.numbers.insert(text.into(), next);
        next
    }

    /// The strings in order, and the place in that order of each number.
    fn sorted(&self) -> (Vec<&str>, Vec<u32>) {
        let mut pairs: Vec<(&str, u32)> =
            self.numbers.iter().map(|(text, number)| (&**text, *number)).collect();
        pairs.sort_unstable();
        let mut ranks = vec![0; pairs.len()];
        for (rank, (_, number)) in pairs.iter().enumerate() {
            if let Some(slot) = ranks.get_mut(*number as usize) {
                *slot = rank as u32;
            }
        }
        (pairs.into_iter().map(|(text, _)| text).collect(), ranks)
    }
}

/// Collects series in order. Needs about 4 bytes per label of a series, plus the distinct strings.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    names: Interner,
    /// Values of each name, by number of name.
    values: Vec<Interner>,
    /// Distinct sets of label names, as numbers of names.
    schemas: Vec<Vec<u32>>,
    schema_numbers: HashMap<Vec<u32>, u32>,
    /// Schema of each series.
    series: Vec<u32>,
    /// Numbers of the values of each series, one after the other.
    series_values: Vec<u32>,
    chunk_starts: Vec<u64>,
    chunk_ends: Vec<usize>,
    chunk_bytes: Vec<u8>,
    last: Option<Labels>,
}

impl IndexBuilder {
    /// Whether `labels` may come next: series come in order, each once.
    pub fn accepts(&self, labels: &Labels) -> bool {
        self.last.as_ref().is_none_or(|last| super::series_order(last, labels).is_lt())
    }

    /// How many series there are so far.
    pub fn len(&self) -> u32 {
        self.series.len() as u32
    }

    /// Whether there are no series yet.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Adds a series; see [`IndexBuilder::accepts`].
    pub fn add(&mut self, labels: &Labels, chunks: ChunkList<'_>) {
        debug_assert!(self.accepts(labels));
        let mut schema = Vec::with_capacity(8);
        for (name, value) in labels {
            let name = self.names.number(name);
            if name as usize == self.values.len() {
                self.values.push(Interner::default());
            }
            schema.push(name);
            if let Some(values) = self.values.get_mut(name as usize) {
                self.series_values.push(values.number(value));
            }
        }
        let next = self.schemas.len() as u32;
        let number = self.schema_numbers.get(&schema).copied().unwrap_or(next);
        if number == next {
            self.schema_numbers.insert(schema.clone(), number);
            self.schemas.push(schema);
        }
        self.series.push(number);
        self.chunk_starts.push(chunks.start);
        self.chunk_bytes.extend_from_slice(chunks.bytes);
        self.chunk_ends.push(self.chunk_bytes.len());
        self.last = Some(labels.clone());
    }

    /// The index file. `columns` are the groups of the block's columns, `column_count` columns in
    /// all, stored along.
    pub fn finish(
        &self,
        columns: &[Vec<u8>],
        column_count: u32,
    ) -> Result<Vec<u8>, SectionTooLarge> {
        let mut file = MAGIC.to_vec();
        let (names, name_ranks) = self.names.sorted();
        let value_order: Vec<(Vec<&str>, Vec<u32>)> =
            self.values.iter().map(Interner::sorted).collect();
        let ranks: Vec<&[u32]> = value_order.iter().map(|(_, ranks)| ranks.as_slice()).collect();
        let lists = self.lists(&ranks);

        let mut name_numbers: Vec<u32> = (0..names.len() as u32).collect();
        name_numbers.sort_unstable_by_key(|number| name_ranks.get(*number as usize).copied());
        let mut infos = Vec::with_capacity(names.len());
        for number in &name_numbers {
            let number = *number as usize;
            let (Some((values, _)), Some(lists)) = (value_order.get(number), lists.get(number))
            else {
                continue;
            };
            infos.push(write_name(values, lists, &mut file)?);
        }
        let mut footer = Vec::new();
        varint::put(&mut footer, u64::from(self.len()));
        varint::put(&mut footer, names.len() as u64);
        let (bytes, section) = dictionary::write(file.len() as u64, names.iter().copied())?;
        append(&mut file, &mut footer, &bytes, section);
        append_groups(&mut file, &mut footer, &infos)?;
        varint::put(&mut footer, self.schemas.len() as u64);
        append_groups(&mut file, &mut footer, &self.schema_items(&name_ranks))?;
        self.append_series(&ranks, &mut file, &mut footer)?;
        varint::put(&mut footer, u64::from(column_count));
        let mut writer = GroupsWriter::new(file.len() as u64);
        for group in columns {
            writer.push(group);
        }
        let (bytes, section) = writer.finish()?;
        append(&mut file, &mut footer, &bytes, section);

        let checksum = crc::checksum_at(file.len() as u64, &footer);
        file.extend_from_slice(&footer);
        file.extend_from_slice(&(footer.len() as u32).to_le_bytes());
        file.extend_from_slice(&checksum.to_le_bytes());
        file.extend_from_slice(&MAGIC);
        Ok(file)
    }

    /// Per name and value in order, the series that have it.
    fn lists(&self, ranks: &[&[u32]]) -> Vec<Lists> {
        let mut lists: Vec<Lists> = ranks.iter().map(|ranks| Lists::new(ranks.len())).collect();
        self.each_label(|_, name, value| {
            if let Some(lists) = lists.get_mut(name)
                && let Some(rank) = ranks.get(name).and_then(|ranks| ranks.get(value as usize))
            {
                lists.count(*rank);
            }
        });
        for lists in &mut lists {
            lists.allot();
        }
        self.each_label(|series, name, value| {
            if let Some(lists) = lists.get_mut(name)
                && let Some(rank) = ranks.get(name).and_then(|ranks| ranks.get(value as usize))
            {
                lists.push(*rank, series);
            }
        });
        lists
    }

    /// Series, number of name and number of value of every label.
    fn each_label(&self, mut each: impl FnMut(u32, usize, u32)) {
        let mut values = self.series_values.iter();
        for (series, schema) in self.series.iter().enumerate() {
            for name in self.schemas.get(*schema as usize).into_iter().flatten() {
                if let Some(value) = values.next() {
                    each(series as u32, *name as usize, *value);
                }
            }
        }
    }

    fn schema_items(&self, name_ranks: &[u32]) -> Vec<Vec<u8>> {
        let item = |schema: &Vec<u32>| {
            let mut item = Vec::new();
            varint::put(&mut item, schema.len() as u64);
            for name in schema {
                let rank = name_ranks.get(*name as usize).copied().unwrap_or_default();
                varint::put(&mut item, u64::from(rank));
            }
            item
        };
        self.schemas.iter().map(item).collect()
    }

    fn append_series(
        &self,
        ranks: &[&[u32]],
        file: &mut Vec<u8>,
        footer: &mut Vec<u8>,
    ) -> Result<(), SectionTooLarge> {
        let mut writer = GroupsWriter::new(file.len() as u64);
        let mut group = Vec::new();
        let mut item = Vec::new();
        let mut group_start = 0;
        let mut values = self.series_values.iter();
        let mut row = Row::default();
        let mut chunk_from = 0;
        let chunks = self.chunk_starts.iter().zip(&self.chunk_ends);
        for (number, (schema, (start, end))) in self.series.iter().zip(chunks).enumerate() {
            if number % GROUP == 0 {
                if number > 0 {
                    writer.push(&group);
                }
                group.clear();
                group_start = *start;
                varint::put(&mut group, *start);
            }
            item.clear();
            let names = self.schemas.get(*schema as usize).map(Vec::as_slice).unwrap_or_default();
            let numbers = names.iter().zip(&mut values).map(|(name, value)| {
                let ranks = ranks.get(*name as usize).copied().unwrap_or_default();
                ranks.get(*value as usize).copied().unwrap_or_default()
            });
            let next = Row { schema: Some(*schema), values: numbers.collect() };
            next.put(if number % GROUP == 0 { None } else { Some(&row) }, &mut item);
            row = next;
            varint::put(&mut item, start.saturating_sub(group_start));
            item.extend_from_slice(self.chunk_bytes.get(chunk_from..*end).unwrap_or_default());
            chunk_from = *end;
            varint::put(&mut group, item.len() as u64);
            group.extend_from_slice(&item);
        }
        if !self.series.is_empty() {
            writer.push(&group);
        }
        let (bytes, section) = writer.finish()?;
        append(file, footer, &bytes, section);
        Ok(())
    }
}

/// The labels of a series as numbers.
#[derive(Default)]
struct Row {
    schema: Option<u32>,
    values: Vec<u32>,
}

impl Row {
    /// Appends the labels: all of them, or where they differ from those of the series `before`.
    fn put(&self, before: Option<&Self>, out: &mut Vec<u8>) {
        let alike = before.filter(|before| before.schema == self.schema);
        if let Some(before) = alike.filter(|_| self.values.len() <= CHANGES_MAX) {
            let pairs = || self.values.iter().zip(&before.values);
            let changed =
                pairs().rev().fold(0_u64, |all, (own, before)| all << 1 | u64::from(own != before));
            if (changed.count_ones() as usize) < self.values.len() {
                varint::put(out, LIKE_BEFORE);
                varint::put(out, changed);
                for (own, _) in pairs().filter(|(own, before)| own != before) {
                    varint::put(out, u64::from(*own));
                }
                return;
            }
        }
        varint::put(out, u64::from(self.schema.unwrap_or_default()) << 1);
        for value in &self.values {
            varint::put(out, u64::from(*value));
        }
    }
}

/// The lists of one name's values, in one allocation.
struct Lists {
    /// Where the list of each value ends; while filling, where its next number goes.
    ends: Vec<usize>,
    numbers: Vec<u32>,
    any: RoaringBitmap,
}

impl Lists {
    fn new(values: usize) -> Self {
        Self { ends: vec![0; values], numbers: Vec::new(), any: RoaringBitmap::new() }
    }

    fn count(&mut self, value: u32) {
        if let Some(end) = self.ends.get_mut(value as usize) {
            *end += 1;
        }
    }

    fn allot(&mut self) {
        let mut total = 0;
        for end in &mut self.ends {
            (*end, total) = (total, total + *end);
        }
        self.numbers = vec![0; total];
    }

    fn push(&mut self, value: u32, series: u32) {
        if let Some(end) = self.ends.get_mut(value as usize) {
            if let Some(slot) = self.numbers.get_mut(*end) {
                *slot = series;
            }
            *end += 1;
        }
        self.any.insert(series);
    }

    fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts
            .zip(&self.ends)
            .map(|(start, end)| self.numbers.get(*start..*end).unwrap_or_default())
    }
}

/// Writes dictionary and lists of one name; the item that tells where they are.
fn write_name(
    values: &[&str],
    lists: &Lists,
    file: &mut Vec<u8>,
) -> Result<Vec<u8>, SectionTooLarge> {
    let mut info = Vec::new();
    varint::put(&mut info, values.len() as u64);
    let (bytes, section) = dictionary::write(file.len() as u64, values.iter().copied())?;
    append(file, &mut info, &bytes, section);
    let any: Vec<u32> = lists.any.iter().collect();
    let all = lists.iter().chain(std::iter::once(any.as_slice()));
    let (bytes, section) = postings::write(file.len() as u64, all)?;
    append(file, &mut info, &bytes, section);
    Ok(info)
}

fn append(file: &mut Vec<u8>, footer: &mut Vec<u8>, bytes: &[u8], section: Section) {
    file.extend_from_slice(bytes);
    section.put(footer);
}

/// Appends a section of self-delimiting items.
fn append_groups(
    file: &mut Vec<u8>,
    footer: &mut Vec<u8>,
    items: &[Vec<u8>],
) -> Result<(), SectionTooLarge> {
    let mut writer = GroupsWriter::new(file.len() as u64);
    for group in items.chunks(GROUP) {
        writer.push(&group.concat());
    }
    let (bytes, section) = writer.finish()?;
    append(file, footer, &bytes, section);
    Ok(())
}
