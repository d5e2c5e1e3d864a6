//! Labels of many series at once: their order, and which names and values there are.

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::select::{AT_ONCE, Rebuilt, Search, Union, search};
use super::{Index, Postings, Slot};
use crate::index::order::{Rows, order_of_texts};
use crate::sync::RwLock;

/// Things, each with series that have it.
#[derive(Debug)]
pub(crate) struct Groups<T> {
    things: Vec<T>,
    slots: Vec<Slot>,
    /// Where in `slots` those of each thing end.
    ends: Vec<usize>,
}

impl<T> Groups<T> {
    fn new() -> Self {
        Self { things: Vec::new(), slots: Vec::new(), ends: Vec::new() }
    }

    fn push(&mut self, thing: T, slots: impl IntoIterator<Item = Slot>) {
        self.things.push(thing);
        self.slots.extend(slots);
        self.ends.push(self.slots.len());
    }

    /// The series of each thing.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &[Slot]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let slots = self.slots.get(start..*end).unwrap_or_default();
            start = *end;
            slots
        })
    }

    /// Each thing and its series.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&T, &[Slot])> {
        self.things.iter().zip(self.slots())
    }

    /// The things alone.
    pub(crate) fn into_things(self) -> Vec<T> {
        self.things
    }
}

/// The values of a label that some series have, numbered as they come.
#[derive(Debug, Default)]
struct Column {
    name: u32,
    values: Vec<u32>,
    numbers: HashMap<u32, u32>,
    last: Option<(u32, u32)>,
}

impl Column {
    fn number(&mut self, value: u32) -> u32 {
        if let Some((last, number)) = self.last
            && last == value
        {
            return number;
        }
        let next = self.values.len() as u32;
        let number = *self.numbers.entry(value).or_insert(next);
        if number == next {
            self.values.push(value);
        }
        self.last = Some((value, number));
        number
    }
}

#[derive(Debug, Default)]
struct Columns {
    all: Vec<Column>,
    by_name: HashMap<u32, u32>,
    /// The columns of the names of a shape.
    by_shape: HashMap<u32, Vec<u32>>,
}

impl Columns {
    fn of_shape(&mut self, shape: u32, names: &[u32]) -> &[u32] {
        let Self { all, by_name, by_shape } = self;
        by_shape.entry(shape).or_insert_with(|| {
            let column = |name: &u32| {
                let next = all.len() as u32;
                let column = *by_name.entry(*name).or_insert(next);
                if column == next {
                    all.push(Column { name: *name, ..Column::default() });
                }
                column
            };
            names.iter().map(column).collect()
        })
    }
}

/// The place of each in an order.
fn ranks(order: &[u32]) -> Vec<u32> {
    let mut ranks = vec![0; order.len()];
    for (rank, at) in (0..).zip(order) {
        if let Some(place) = ranks.get_mut(*at as usize) {
            *place = rank;
        }
    }
    ranks
}

/// Puts series in order of their labels. Each value is compared as a text only once.
pub(crate) fn sort<T: Copy>(lock: &RwLock<Index>, series: &mut Vec<(Slot, T)>) {
    let order = search(lock, |search| order(search, series));
    *series = order.iter().filter_map(|at| series.get(*at as usize).copied()).collect();
}

/// The places of series in order of their labels.
fn order<T: Copy>(search: &Search<'_>, series: &[(Slot, T)]) -> Result<Vec<u32>, Rebuilt> {
    let mut columns = Columns::default();
    // Column and number of the value of each label.
    let mut cells: Vec<(u32, u32)> = Vec::with_capacity(series.len() * 8);
    let mut ends = Vec::with_capacity(series.len());
    for part in series.chunks(AT_ONCE / 4) {
        search.step(|index| {
            for (slot, _) in part {
                if let Some(entity) = index.entity(*slot)
                    && let Some(shape) = index.shapes.get(entity.shape as usize)
                {
                    columns.of_shape(entity.shape, &shape.names);
                    let Columns { all, by_shape, .. } = &mut columns;
                    let of_shape = by_shape.get(&entity.shape).map(Vec::as_slice);
                    let of_shape = of_shape.unwrap_or_default();
                    for (column, value) in of_shape.iter().zip(shape.row(entity.row)) {
                        if let Some(place) = all.get_mut(*column as usize) {
                            cells.push((*column, place.number(*value)));
                        }
                    }
                }
                ends.push(cells.len());
            }
        })?;
    }
    let texts = search.texts()?;
    let ranks = |symbols: &[u32]| {
        let text = |at: u32| symbols.get(at as usize).map(|symbol| texts.get(*symbol));
        ranks(&order_of_texts(symbols.len() as u32, |at| text(at).unwrap_or_default()))
    };
    let names: Vec<u32> = columns.all.iter().map(|column| column.name).collect();
    let name_ranks = ranks(&names);
    let value_ranks: Vec<Vec<u32>> =
        columns.all.iter().map(|column| ranks(&column.values)).collect();
    let has_one_shape = columns.by_shape.len() == 1;
    let mut rows = Rows::default();
    let mut start = 0;
    for end in ends {
        let row = cells.get(start..end).unwrap_or_default().iter();
        start = end;
        let value = |(column, number): (u32, u32)| {
            let ranks = value_ranks.get(column as usize);
            ranks.and_then(|ranks| ranks.get(number as usize)).copied().unwrap_or_default()
        };
        let name = |column: u32| name_ranks.get(column as usize).copied().unwrap_or_default();
        if has_one_shape {
            rows.push(row.map(|cell| value(*cell)));
        } else {
            rows.push(row.flat_map(|cell| [name(cell.0), value(*cell)]));
        }
    }
    Ok(rows.order())
}

/// The sets of label names that `slots` have.
pub(crate) fn name_sets_among(lock: &RwLock<Index>, slots: &RoaringBitmap) -> Groups<Vec<String>> {
    search(lock, |search| {
        let mut by_shape: HashMap<u32, Vec<Slot>> = HashMap::new();
        let mut left = slots.iter();
        loop {
            let mut passed = 0;
            search.step(|index| {
                for slot in left.by_ref().take(AT_ONCE) {
                    passed += 1;
                    if let Some(entity) = index.entity(slot) {
                        by_shape.entry(entity.shape).or_default().push(slot);
                    }
                }
            })?;
            if passed < AT_ONCE {
                break;
            }
        }
        let mut groups = Groups::new();
        search.step(|index| {
            for (shape, slots) in by_shape {
                let Some(shape) = index.shapes.get(shape as usize) else { continue };
                let names = shape.names.iter().map(|name| index.symbols.get(*name).to_owned());
                groups.push(names.collect(), slots);
            }
        })?;
        Ok(groups)
    })
}

/// The values that `slots` have for a label.
pub(crate) fn values_among(
    lock: &RwLock<Index>,
    name: &str,
    slots: &RoaringBitmap,
) -> Groups<String> {
    search(lock, |search| {
        let mut groups = Groups::new();
        let Some(name) = search.step(|index| index.symbols.find(name))? else { return Ok(groups) };
        let values = search.values_of_slots(slots, name)?;
        let pairs = values.into_iter().filter_map(|(slot, value)| value.map(|value| (value, slot)));
        let mut pairs: Vec<(u32, Slot)> = pairs.collect();
        pairs.sort_unstable();
        let texts = search.texts()?;
        for same in pairs.chunk_by(|a, b| a.0 == b.0) {
            if let Some((value, _)) = same.first() {
                let text = texts.get(*value).to_owned();
                groups.push(text, same.iter().map(|(_, slot)| *slot));
            }
        }
        Ok(groups)
    })
}

/// The names of labels, each with a few of the series that have it.
pub(crate) fn names(lock: &RwLock<Index>, few: usize) -> Groups<String> {
    let mut groups = Groups::new();
    let index = lock.read();
    for (name, values) in &index.postings {
        let shards = (0..).map_while(|number| values.shard(number));
        let some = shards.flat_map(HashMap::values).take(few).filter_map(Postings::first);
        groups.push(index.symbols.get(*name).to_owned(), some);
    }
    groups
}

/// The values of a label, each with one of the series that have it.
pub(crate) fn values(lock: &RwLock<Index>, name: &str) -> Groups<String> {
    search(lock, |search| {
        let mut found: Vec<(u32, Option<Slot>)> = Vec::new();
        search.each_shard(name, |shard| {
            found.extend(shard.iter().map(|(value, postings)| (*value, postings.first())));
        })?;
        found.sort_unstable();
        found.dedup_by_key(|(value, _)| *value);
        let texts = search.texts()?;
        let mut groups = Groups::new();
        for (value, first) in found {
            groups.push(texts.get(value).to_owned(), first);
        }
        Ok(groups)
    })
}

/// The series that have a label of this name.
pub(crate) fn with_name(lock: &RwLock<Index>, name: &str) -> RoaringBitmap {
    search(lock, |search| {
        let mut union = Union::default();
        search.each_shard(name, |shard| shard.values().for_each(|postings| union.add(postings)))?;
        Ok(union.finish())
    })
}

/// The series that have this label.
pub(crate) fn with_label(lock: &RwLock<Index>, name: &str, value: &str) -> RoaringBitmap {
    let mut union = Union::default();
    if let Some(postings) = lock.read().postings_of(name, value) {
        union.add(postings);
    }
    union.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stint_model::Labels;

    use super::*;

    fn label_sets() -> impl Strategy<Value = Vec<Labels>> {
        let name = prop::sample::select(vec!["__name__", "a", "b", "job"]);
        let labels = prop::collection::btree_map(name, "[xyz]{0,2}", 0..4);
        let set = labels.prop_map(Labels::from_pairs);
        prop::collection::btree_set(set, 0..40).prop_map(|sets| sets.into_iter().rev().collect())
    }

    proptest! {
        #[test]
        fn series_are_put_in_the_order_of_their_labels(sets in label_sets()) {
            let mut index = Index::default();
            for (slot, labels) in (0..).zip(&sets) {
                index.insert(slot, labels, labels.stable_hash());
            }
            let mut series: Vec<(Slot, u32)> = (0..sets.len() as u32).map(|slot| (slot, !slot)).collect();
            let lock = RwLock::new(index);
            sort(&lock, &mut series);
            let index = lock.read();
            let sorted: Vec<Labels> = series.iter().filter_map(|(slot, _)| index.labels(*slot)).collect();
            let mut want = sets;
            want.sort();
            prop_assert_eq!(sorted, want);
            prop_assert!(series.iter().all(|(slot, with)| *with == !slot));
        }
    }
}
