//! Whether an index fits together.

use hashbrown::HashSet;
use roaring::RoaringBitmap;

use super::{GROUP, Index, Name};
use crate::codec::Corruption;
use crate::codec::varint::Reader;
use crate::index;
use crate::index::dictionary::Dictionary;
use crate::index::groups::{Groups, Section};
use crate::index::rows::RowReader;
use crate::index::writer::{MAGIC, TRAILER_LEN};

impl Index {
    /// Reads everything once and checks that it fits together.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn verify(&self) -> Result<(), Corruption> {
        let sections = [
            (self.names, self.names_len),
            (self.infos, self.names_len),
            (self.schemas, self.schemas_len),
            (self.entries, self.series),
            (self.columns, self.columns_len),
        ];
        for (section, items) in sections {
            self.verify_section(section, items)?;
        }
        self.verify_texts(&self.names())?;
        let names = self.known()?.len();
        for number in 0..self.names_len {
            let known = self.known_name(number)?;
            self.verify_section(known.values, known.values_len)?;
            self.verify_section(known.lists, known.values_len + 1)?;
            self.verify_texts(&self.name_at(number)?.values)?;
        }
        self.verify_extent()?;
        self.verify_schemas()?;
        let pairs = self.verify_series(names)?;
        for (number, pairs) in (0..).zip(pairs) {
            self.verify_lists(&self.name_at(number)?, pairs)?;
        }
        Ok(())
    }

    /// Reads what labels of series are made of, and compares its checksums; once, since a published file
    /// does not change.
    ///
    /// # Errors
    /// The first checksum that does not fit.
    pub(crate) fn check_labels(&self) -> Result<(), Corruption> {
        if self.labels_fit.get().is_some() {
            return Ok(());
        }
        self.verify_section(self.schemas, self.schemas_len)?;
        self.verify_section(self.entries, self.series)?;
        for known in self.known()? {
            self.verify_section(known.values, known.values_len)?;
        }
        self.labels_fit.get_or_init(|| ());
        Ok(())
    }

    fn verify_section(&self, section: Section, items: u32) -> Result<(), Corruption> {
        if section.groups != items.div_ceil(GROUP as u32) {
            return Err(self.corrupt("a section with more groups than its items fill"));
        }
        Groups::new(&self.bytes, section).verify()
    }

    /// Strings rise, so none is there twice.
    fn verify_texts(&self, texts: &Dictionary<'_>) -> Result<(), Corruption> {
        let (mut before, mut text) = (Vec::new(), Vec::new());
        let mut wrong = None;
        texts.walk(0..texts.len(), |number, next| {
            next.apply(&mut text);
            if number > 0 && before >= text {
                wrong = Some("strings out of order");
            } else if std::str::from_utf8(&text).is_err() {
                wrong = Some("a string that is not UTF-8");
            }
            before.clone_from(&text);
        })?;
        wrong.map_or(Ok(()), |what| Err(self.corrupt(what)))
    }

    /// Sections follow each other from the magic to the footer.
    fn verify_extent(&self) -> Result<(), Corruption> {
        let mut sections = vec![self.names, self.infos, self.schemas, self.entries, self.columns];
        sections.extend(self.known()?.iter().flat_map(|known| [known.values, known.lists]));
        sections.sort_unstable_by_key(|section| (section.base, section.end()));
        let mut end = MAGIC.len() as u64;
        for section in sections {
            if section.base != end {
                return Err(self.corrupt("sections that overlap or leave a gap"));
            }
            end = section.end();
        }
        let footer_len = self.bytes.split_last_chunk::<TRAILER_LEN>();
        let footer_len = footer_len.and_then(|(_, trailer)| Reader::new(trailer).u32().ok());
        let behind = u64::from(footer_len.unwrap_or_default()) + TRAILER_LEN as u64;
        if end + behind == self.size_bytes() {
            Ok(())
        } else {
            Err(self.corrupt("bytes between sections and footer"))
        }
    }

    /// Label sets are distinct, and their names rise.
    fn verify_schemas(&self) -> Result<(), Corruption> {
        let mut seen = HashSet::new();
        for number in 0..self.schemas_len {
            let mut names = Vec::new();
            self.read_schema(number, &mut names)?;
            let rise = names.windows(2).all(|pair| pair.first() < pair.get(1));
            if !rise || names.last().is_some_and(|last| *last >= self.names_len) {
                return Err(self.corrupt("a label set whose names do not rise"));
            }
            if !seen.insert(names) {
                return Err(self.corrupt("two equal label sets"));
            }
        }
        Ok(())
    }

    /// Series are in order, and all label sets are in use; for each name, values and the series that
    /// have them.
    fn verify_series(&self, names: usize) -> Result<Vec<Vec<(u32, u32)>>, Corruption> {
        let mut pairs: Vec<Vec<(u32, u32)>> = vec![Vec::new(); names];
        let mut schemas = RoaringBitmap::new();
        let mut rows = RowReader::new(self);
        let mut last = None;
        for series in 0..self.series {
            let labels = self.labels(series)?;
            if last.is_some_and(|last| index::series_order(&last, &labels).is_ge()) {
                return Err(self.corrupt("series out of order"));
            }
            last = Some(labels);
            schemas.insert(rows.names(series)?.0);
            let (names, values) = rows.row(series)?;
            for (name, value) in names.iter().zip(values) {
                if let Some(pairs) = pairs.get_mut(*name as usize) {
                    pairs.push((*value, series));
                }
            }
        }
        for group in 0..self.entries.groups {
            let first = group * GROUP as u32;
            let mut reader = self.entries_of_group(first)?;
            for _ in first..self.series.min(first + GROUP as u32) {
                let length = reader.varint_up_to(usize::MAX)?;
                reader.take(length)?;
            }
            if !reader.is_empty() {
                return Err(self.corrupt("bytes behind the series of a group"));
            }
        }
        if schemas.len() < u64::from(self.schemas_len) {
            return Err(self.corrupt("a label set that no series has"));
        }
        Ok(pairs)
    }

    /// The list of each value has the series that have it, and the last one all of them.
    fn verify_lists(&self, name: &Name<'_>, mut pairs: Vec<(u32, u32)>) -> Result<(), Corruption> {
        pairs.sort_unstable();
        let mut by_value = pairs.chunk_by(|a, b| a.0 == b.0);
        let mut all = RoaringBitmap::new();
        for value in 0..name.values.len() {
            let same =
                by_value.next().filter(|same| same.first().map(|pair| pair.0) == Some(value));
            let Some(same) = same else { return Err(self.corrupt("a value that no series has")) };
            let series = same.iter().map(|(_, series)| *series);
            let series = RoaringBitmap::from_sorted_iter(series).unwrap_or_default();
            let listed = self.union(name, &[value])?;
            if listed != series || name.lists.count(value)? != series.len() {
                return Err(self.corrupt("a value's list has other series than have the value"));
            }
            all |= series;
        }
        let count = name.lists.count(name.values.len())?;
        if self.any(name)? == all && count == all.len() {
            Ok(())
        } else {
            Err(self.corrupt("the list of a label has other series than have the label"))
        }
    }
}

#[cfg(test)]
mod tests;
