//! Many series of an index read one after the other: what neighbours share is read once.

use roaring::RoaringBitmap;

use super::groups::GROUP;
use super::order::Rows;
use super::reader::{Index, LabelsHead};
use super::writer::CHANGES_MAX;
use crate::codec::Corruption;
use crate::codec::varint::Reader;

/// Reads label sets as numbers, best in rising order of series.
pub(crate) struct RowReader<'a> {
    index: &'a Index,
    /// The group at hand, the number of the series that comes next in it, and what is left. Names
    /// and values are those of the series before that.
    group: Option<(u32, u32, Reader<'a>)>,
    /// Number of the set of names at hand.
    schema: Option<u32>,
    names: Vec<u32>,
    values: Vec<u32>,
}

impl<'a> RowReader<'a> {
    /// Reads series of `index`.
    pub(crate) fn new(index: &'a Index) -> Self {
        Self { index, group: None, schema: None, names: Vec::new(), values: Vec::new() }
    }

    /// Reads the labels of a series: in its group, they build on those of the series before.
    fn read(&mut self, series: u32) -> Result<(), Corruption> {
        let number = series / GROUP as u32;
        let (mut next, mut rest) = match self.group.take() {
            // Read already.
            Some(group) if (group.0, group.1) == (number, series + 1) => {
                self.group = Some(group);
                return Ok(());
            }
            Some((group, next, rest)) if group == number && next <= series => (next, rest),
            _ => (number * GROUP as u32, self.index.entries_of_group(series)?),
        };
        while next <= series {
            let length = rest.varint_up_to(usize::MAX)?;
            let item = Reader::new(rest.take(length)?);
            self.read_labels(item, next % GROUP as u32 == 0)?;
            next += 1;
        }
        self.group = Some((number, next, rest));
        Ok(())
    }

    fn read_labels(&mut self, mut item: Reader<'a>, is_first: bool) -> Result<(), Corruption> {
        let head = item.varint()?;
        match self.index.labels_head(head, &item)? {
            LabelsHead::All { schema } => {
                if self.schema != Some(schema) {
                    self.schema = None;
                    self.index.read_schema(schema, &mut self.names)?;
                    self.schema = Some(schema);
                }
                self.values.clear();
                for _ in &self.names {
                    self.values.push(item.varint_up_to(u32::MAX as usize)? as u32);
                }
            }
            LabelsHead::Changed => {
                let mut changed = item.varint()?;
                let fits = self.values.len() <= CHANGES_MAX && changed >> self.values.len() == 0;
                if is_first || !fits {
                    return Err(item.corrupt("labels that build on others"));
                }
                for value in &mut self.values {
                    if changed & 1 == 1 {
                        *value = item.varint_up_to(u32::MAX as usize)? as u32;
                    }
                    changed >>= 1;
                }
            }
        }
        Ok(())
    }

    /// The numbers of the names of a series.
    pub(crate) fn names(&mut self, series: u32) -> Result<(u32, &[u32]), Corruption> {
        self.read(series)?;
        Ok((self.schema.unwrap_or_default(), &self.names))
    }

    /// The number of the set of names of a series, those of the names, and those of the values in
    /// order of names.
    pub(crate) fn whole(&mut self, series: u32) -> Result<(u32, &[u32], &[u32]), Corruption> {
        self.read(series)?;
        Ok((self.schema.unwrap_or_default(), &self.names, &self.values))
    }

    /// The numbers of names and values of a series, in order of names.
    pub(crate) fn row(&mut self, series: u32) -> Result<(&[u32], &[u32]), Corruption> {
        self.read(series)?;
        Ok((&self.names, &self.values))
    }

    /// The number of the value that a series has for name number `name`.
    pub(crate) fn value(&mut self, series: u32, name: u32) -> Result<Option<u32>, Corruption> {
        let (names, values) = self.row(series)?;
        let mut pairs = names.iter().zip(values);
        Ok(pairs.find(|(other, _)| **other == name).map(|(_, value)| *value))
    }
}

impl Index {
    /// The places of the series, as they rise, in order of their labels: names and values have their
    /// numbers in order of text, so no text is looked at.
    pub(crate) fn order_of_labels(&self, series: &RoaringBitmap) -> Result<Vec<u32>, Corruption> {
        let mut reader = RowReader::new(self);
        let mut rows = Rows::default();
        for number in series {
            let (names, values) = reader.row(number)?;
            rows.push(names.iter().zip(values).flat_map(|(name, value)| [*name, *value]));
        }
        Ok(rows.order())
    }
}
