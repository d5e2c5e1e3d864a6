//! Labels of many series of an index as numbers, of which label sets are made where they are wanted:
//! most of what a query asks for is grouped by a few labels, or only counted.

use hashbrown::HashMap;
use stint_model::Labels;
use stint_model::labels::encode_label;

use super::dictionary::Dictionary;
use super::groups::GROUP;
use super::reader::Index;
use super::rows::RowReader;
use crate::codec::Corruption;

/// Labels of series, by the place of each. Everything in it was read and checked, so that nothing can
/// fail any more.
#[derive(Debug, Default)]
pub(crate) struct LabelTable {
    columns: Vec<Column>,
    /// The columns of each set of names.
    shapes: Vec<Box<[u32]>>,
    /// The set of names of each series, and where in `cells` it ends.
    rows: Vec<(u32, usize)>,
    /// For each label of a series the place of its value in the column.
    cells: Vec<u32>,
    /// Bytes of all label sets, were they made.
    labels_bytes: usize,
}

/// A label and such of its values as were read.
#[derive(Debug)]
struct Column {
    name: String,
    text: String,
    /// Where in `text` each value ends.
    ends: Vec<usize>,
}

impl Column {
    fn get(&self, at: u32) -> &str {
        let at = at as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let range = start.unwrap_or_default()..self.ends.get(at).copied().unwrap_or_default();
        self.text.get(range).unwrap_or_default()
    }

    /// Bytes that a label with value `at` takes in a label set, but for long ones.
    fn label_bytes(&self, at: u32) -> usize {
        self.name.len() + self.get(at).len() + 2
    }
}

/// Fills a column: each group of the dictionary is read when one of its values is first wanted.
struct Filler<'a> {
    column: Column,
    dictionary: Dictionary<'a>,
    /// The place of the first value of each group that was read.
    groups: HashMap<u32, u32>,
    /// The group at hand, and the place of its first value.
    last: Option<(u32, u32)>,
}

impl<'a> Filler<'a> {
    fn new(name: &str, dictionary: Dictionary<'a>) -> Self {
        let column = Column { name: name.to_owned(), text: String::new(), ends: Vec::new() };
        Self { column, dictionary, groups: HashMap::new(), last: None }
    }

    /// The place of value number `number`.
    fn place(&mut self, number: u32) -> Result<u32, Corruption> {
        if number >= self.dictionary.len() {
            return Err(Corruption::new(0, "a value that does not exist"));
        }
        let group = number / GROUP as u32;
        let first = match self.last {
            Some((last, first)) if last == group => first,
            _ => match self.groups.get(&group) {
                Some(first) => *first,
                None => self.read(group)?,
            },
        };
        self.last = Some((group, first));
        let place = first + number % GROUP as u32;
        if self.column.get(place).is_empty() {
            return Err(Corruption::new(0, "a label without a value"));
        }
        Ok(place)
    }

    fn read(&mut self, group: u32) -> Result<u32, Corruption> {
        let start = group * GROUP as u32;
        let end = self.dictionary.len().min(start.saturating_add(GROUP as u32));
        let Column { text, ends, .. } = &mut self.column;
        let first = ends.len() as u32;
        let mut bytes = Vec::new();
        let mut is_text = true;
        self.dictionary.walk(start..end, |_, next| {
            next.apply(&mut bytes);
            match std::str::from_utf8(&bytes) {
                Ok(string) => text.push_str(string),
                Err(_) => is_text = false,
            }
            ends.push(text.len());
        })?;
        if !is_text {
            return Err(Corruption::new(0, "a string that is not UTF-8"));
        }
        self.groups.insert(group, first);
        Ok(first)
    }
}

impl LabelTable {
    fn row(&self, at: usize) -> impl Iterator<Item = (&Column, u32)> {
        let row = self.rows.get(at).copied();
        let columns = row.and_then(|(shape, _)| self.shapes.get(shape as usize));
        let columns = columns.map(|columns| &**columns).unwrap_or_default();
        let end = row.map_or(0, |(_, end)| end);
        let cells = self.cells.get(end.saturating_sub(columns.len())..end).unwrap_or_default();
        let cells = columns.iter().zip(cells);
        cells.filter_map(|(column, place)| Some((self.columns.get(*column as usize)?, *place)))
    }

    /// The labels of the series at place `at`.
    pub(crate) fn labels(&self, at: usize) -> Labels {
        let pairs = self.row(at).map(|(column, place)| (column.name.as_str(), column.get(place)));
        // Their order was checked.
        Labels::from_sorted(pairs).unwrap_or_default()
    }

    /// See [`stint_model::SeriesSet::encode_labels`].
    pub(crate) fn encode(&self, at: usize, keep: &dyn Fn(&str) -> bool, text: &mut String) {
        for (column, place) in self.row(at) {
            if keep(&column.name) {
                encode_label(&column.name, column.get(place), text);
            }
        }
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        let texts = self.columns.iter();
        let texts = texts.map(|column| column.text.len() + column.ends.len() * size_of::<usize>());
        let rows = self.rows.len() * size_of::<(u32, usize)>();
        texts.sum::<usize>() + rows + self.cells.len() * size_of::<u32>()
    }

    /// Bytes of all label sets, were they made.
    pub(crate) fn labels_bytes(&self) -> usize {
        self.labels_bytes
    }
}

impl Index {
    /// The labels of `series`, which best rise: what neighbours share is read once.
    ///
    /// # Errors
    /// Damage to the index.
    pub(crate) fn label_table(
        &self,
        series: impl IntoIterator<Item = u32>,
    ) -> Result<LabelTable, Corruption> {
        let mut table = LabelTable::default();
        let mut fillers: Vec<Filler<'_>> = Vec::new();
        let mut by_name: HashMap<u32, u32> = HashMap::new();
        let mut by_schema: HashMap<u32, u32> = HashMap::new();
        let mut reader = RowReader::new(self);
        for number in series {
            let (schema, names, values) = reader.whole(number)?;
            let shape = if let Some(shape) = by_schema.get(&schema) {
                *shape
            } else {
                let next = table.shapes.len() as u32;
                table.shapes.push(self.columns_of(names, &mut by_name, &mut fillers)?);
                by_schema.insert(schema, next);
                next
            };
            let columns = table.shapes.get(shape as usize).map(|columns| &**columns);
            for (column, value) in columns.unwrap_or_default().iter().zip(values) {
                if let Some(filler) = fillers.get_mut(*column as usize) {
                    let place = filler.place(*value)?;
                    table.labels_bytes += filler.column.label_bytes(place);
                    table.cells.push(place);
                }
            }
            table.rows.push((shape, table.cells.len()));
        }
        table.columns = fillers.into_iter().map(|filler| filler.column).collect();
        Ok(table)
    }

    /// The columns of a set of names, which must rise.
    fn columns_of<'a>(
        &'a self,
        names: &[u32],
        by_name: &mut HashMap<u32, u32>,
        fillers: &mut Vec<Filler<'a>>,
    ) -> Result<Box<[u32]>, Corruption> {
        let mut columns = Vec::with_capacity(names.len());
        let mut last: Option<&str> = None;
        for name in names {
            let text = self.name_text(*name)?;
            if last.is_some_and(|last| last >= text) {
                return Err(Corruption::new(0, "labels of a series out of order"));
            }
            last = Some(text);
            let next = fillers.len() as u32;
            let column = *by_name.entry(*name).or_insert(next);
            if column == next {
                fillers.push(Filler::new(text, self.name_at(*name)?.values));
            }
            columns.push(column);
        }
        Ok(columns.into())
    }
}
