//! Many series of an index read one after the other: what neighbours share is read once.

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use stint_model::Labels;

use super::dictionary::Dictionary;
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

/// Strings of a dictionary, each group of them read when first wanted.
struct Texts<'a> {
    dictionary: Dictionary<'a>,
    text: String,
    /// Where each string lies in `text`.
    spans: Vec<(usize, usize)>,
    /// Where in `spans` those of a group begin.
    groups: HashMap<u32, usize>,
    last: Option<(u32, usize)>,
}

impl<'a> Texts<'a> {
    fn new(dictionary: Dictionary<'a>) -> Self {
        let (text, spans, groups) = (String::new(), Vec::new(), HashMap::new());
        Self { dictionary, text, spans, groups, last: None }
    }

    /// Makes string number `number` readable; returns its place.
    fn load(&mut self, number: u32) -> Result<usize, Corruption> {
        if let Some((last, at)) = self.last
            && last == number
        {
            return Ok(at);
        }
        let group = number / GROUP as u32;
        let first = if let Some(first) = self.groups.get(&group) {
            *first
        } else {
            let first = self.spans.len();
            let start = group * GROUP as u32;
            let end = self.dictionary.len().min(start.saturating_add(GROUP as u32));
            let mut bytes = Vec::new();
            let (text, spans) = (&mut self.text, &mut self.spans);
            let mut is_text = true;
            self.dictionary.walk(start..end, |_, next| {
                next.apply(&mut bytes);
                let from = text.len();
                match std::str::from_utf8(&bytes) {
                    Ok(string) => text.push_str(string),
                    Err(_) => is_text = false,
                }
                spans.push((from, text.len()));
            })?;
            if !is_text {
                return Err(Corruption::new(0, "a string that is not UTF-8"));
            }
            self.groups.insert(group, first);
            first
        };
        let at = first + number as usize % GROUP;
        if number >= self.dictionary.len() || at >= self.spans.len() {
            return Err(Corruption::new(0, "a value that does not exist"));
        }
        self.last = Some((number, at));
        Ok(at)
    }

    fn get(&self, at: usize) -> &str {
        let span = self.spans.get(at);
        span.and_then(|(from, to)| self.text.get(*from..*to)).unwrap_or_default()
    }
}

impl Index {
    /// The labels of many series.
    pub(crate) fn labels_of(
        &self,
        series: impl IntoIterator<Item = u32>,
    ) -> Result<Vec<Labels>, Corruption> {
        let mut reader = RowReader::new(self);
        let mut texts: HashMap<u32, (&str, Texts<'_>)> = HashMap::new();
        let mut places: Vec<usize> = Vec::new();
        let mut all = Vec::new();
        for number in series {
            let (names, values) = reader.row(number)?;
            places.clear();
            for (name, value) in names.iter().zip(values) {
                let of_name = match texts.entry(*name) {
                    hashbrown::hash_map::Entry::Occupied(known) => known.into_mut(),
                    hashbrown::hash_map::Entry::Vacant(vacant) => {
                        let values = self.name_at(*name)?.values;
                        vacant.insert((self.name_text(*name)?, Texts::new(values)))
                    }
                };
                places.push(of_name.1.load(*value)?);
            }
            let pairs = names.iter().zip(&places).filter_map(|(name, at)| {
                let (name, texts) = texts.get(name)?;
                Some((*name, texts.get(*at)))
            });
            let labels = Labels::from_sorted(pairs);
            all.push(labels.ok_or_else(|| Corruption::new(0, "labels of a series out of order"))?);
        }
        Ok(all)
    }

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
