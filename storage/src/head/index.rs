//! The inverted index of the head: label sets, and which series have which label.

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;
use stint_model::Labels;
use stint_model::labels::encode_label;

use super::symbols::Symbols;

mod select;
pub(crate) mod texts;

/// Number of a series in the head's table. Reused after a series is gone and nobody reads it.
pub(crate) type Slot = u32;

/// Series that have a label. Most values of high-cardinality labels belong to one series.
#[derive(Debug)]
enum Postings {
    One(Slot),
    Many(Box<RoaringBitmap>),
}

/// Label sets that have the same names: symbols of the names, and for each set the symbols of the
/// values in the same order.
#[derive(Debug, Default)]
struct Shape {
    names: Box<[u32]>,
    /// Row after row.
    values: Vec<u32>,
    free: Vec<u32>,
}

/// Where the labels of a series are.
#[derive(Clone, Copy, Debug)]
struct Entity {
    hash: u32,
    shape: u32,
    row: u32,
}

const NO_SHAPE: u32 = u32::MAX;

impl Entity {
    const NONE: Self = Self { hash: 0, shape: NO_SHAPE, row: 0 };

    fn new(hash: u64, shape: u32, row: u32) -> Self {
        Self { hash: short(hash), shape, row }
    }

    fn table_hash(self) -> u64 {
        spread(self.hash)
    }
}

/// The part of a hash that is kept.
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// What is left of a hash, over all bits that a table looks at.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Shape {
    fn add(&mut self, values: &[u32]) -> u32 {
        let width = self.names.len();
        if let Some(row) = self.free.pop() {
            let start = row as usize * width;
            if let Some(place) = self.values.get_mut(start..start + width) {
                place.copy_from_slice(values);
                return row;
            }
        }
        let row = self.values.len() / width.max(1);
        self.values.extend_from_slice(values);
        row as u32
    }

    fn row(&self, row: u32) -> &[u32] {
        let start = row as usize * self.names.len();
        self.values.get(start..start + self.names.len()).unwrap_or_default()
    }

    /// Name and value of each label of a row.
    fn pairs(&self, row: u32) -> impl Iterator<Item = (u32, u32)> {
        self.names.iter().copied().zip(self.row(row).iter().copied())
    }
}

/// Label sets of the series in the head. All label sets are distinct.
#[derive(Debug, Default)]
pub(crate) struct Index {
    symbols: Symbols,
    shapes: Vec<Shape>,
    shape_numbers: HashMap<Box<[u32]>, u32>,
    entities: Vec<Entity>,
    by_labels: HashTable<Slot>,
    postings: HashMap<u32, HashMap<u32, Postings>>,
    all: RoaringBitmap,
    /// Slots whose series are gone, and whose labels readers may still want.
    gone: RoaringBitmap,
    removed: u64,
    scratch: (Vec<u32>, Vec<u32>),
}

impl Index {
    /// The series with exactly these labels; `hash` is their [`Labels::stable_hash`].
    pub(crate) fn find(&self, labels: &Labels, hash: u64) -> Option<Slot> {
        let short = short(hash);
        self.by_labels.find(spread(short), |slot| self.has_labels(*slot, short, labels)).copied()
    }

    fn has_labels(&self, slot: Slot, hash: u32, labels: &Labels) -> bool {
        let Some(entity) = self.entity(slot).filter(|entity| entity.hash == hash) else {
            return false;
        };
        let mut wanted = labels.iter();
        self.pairs(entity).all(|(name, value)| wanted.next() == Some((name, value)))
            && wanted.next().is_none()
    }

    fn entity(&self, slot: Slot) -> Option<Entity> {
        self.entities.get(slot as usize).copied().filter(|entity| entity.shape != NO_SHAPE)
    }

    fn pairs(&self, entity: Entity) -> impl Iterator<Item = (&str, &str)> {
        let shape = self.shapes.get(entity.shape as usize);
        let pairs = shape.into_iter().flat_map(move |shape| shape.pairs(entity.row));
        pairs.map(|(name, value)| (self.symbols.get(name), self.symbols.get(value)))
    }

    /// The labels of a series.
    pub(crate) fn labels(&self, slot: Slot) -> Option<Labels> {
        Labels::from_sorted(self.pairs(self.entity(slot)?))
    }

    /// See [`SeriesSet::encode_labels`](stint_model::SeriesSet::encode_labels).
    pub(crate) fn encode_labels(&self, slot: Slot, keep: &dyn Fn(&str) -> bool, text: &mut String) {
        let Some(entity) = self.entity(slot) else { return };
        let Some(shape) = self.shapes.get(entity.shape as usize) else { return };
        for (name, value) in shape.pairs(entity.row) {
            let name = self.symbols.get(name);
            if keep(name) {
                encode_label(name, self.symbols.get(value), text);
            }
        }
    }

    /// Whether a series has this label.
    pub(crate) fn has(&self, name: &str, value: &str) -> bool {
        self.postings_of(name, value).is_some()
    }

    fn postings_of(&self, name: &str, value: &str) -> Option<&Postings> {
        let by_value = self.postings.get(&self.symbols.find(name)?)?;
        by_value.get(&self.symbols.find(value)?)
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len() as usize
    }

    /// Bytes in use by symbols.
    pub(crate) fn symbol_bytes(&self) -> usize {
        self.symbols.bytes()
    }

    /// Adds a series whose labels are not there yet.
    pub(crate) fn insert(&mut self, slot: Slot, labels: &Labels, hash: u64) {
        let (mut names, mut values) = std::mem::take(&mut self.scratch);
        names.clear();
        values.clear();
        for (name, value) in labels {
            let name = self.symbols.intern(name);
            let value = self.symbols.intern(value);
            names.push(name);
            values.push(value);
            match self.postings.entry(name).or_default().entry(value) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Postings::One(slot));
                }
                Entry::Occupied(mut occupied) => occupied.get_mut().add(slot),
            }
        }
        let number = self.shape_number(&names);
        let row = self.shapes.get_mut(number as usize).map_or(0, |shape| shape.add(&values));
        self.scratch = (names, values);
        let at = slot as usize;
        if at >= self.entities.len() {
            self.entities.resize(at + 1, Entity::NONE);
        }
        let entity = Entity::new(hash, number, row);
        if let Some(place) = self.entities.get_mut(at) {
            *place = entity;
        }
        self.all.insert(slot);
        let entities = &self.entities;
        self.by_labels.insert_unique(entity.table_hash(), slot, |slot| {
            entities.get(*slot as usize).copied().unwrap_or(Entity::NONE).table_hash()
        });
    }

    fn shape_number(&mut self, names: &[u32]) -> u32 {
        if let Some(number) = self.shape_numbers.get(names) {
            return *number;
        }
        let number = self.shapes.len() as u32;
        self.shapes.push(Shape { names: names.into(), ..Shape::default() });
        self.shape_numbers.insert(names.into(), number);
        number
    }

    /// Removes a series. Its labels stay readable until [`Index::release`].
    pub(crate) fn remove(&mut self, slot: Slot) {
        if !self.all.remove(slot) {
            return;
        }
        let Some(entity) = self.entity(slot) else { return };
        self.removed += 1;
        self.gone.insert(slot);
        if let Ok(found) = self.by_labels.find_entry(entity.table_hash(), |other| *other == slot) {
            found.remove();
        }
        let Some(shape) = self.shapes.get_mut(entity.shape as usize) else { return };
        for (name, value) in shape.pairs(entity.row) {
            let Some(by_value) = self.postings.get_mut(&name) else { continue };
            if by_value.get_mut(&value).is_some_and(|postings| postings.remove(slot)) {
                by_value.remove(&value);
            }
            if by_value.is_empty() {
                self.postings.remove(&name);
            }
        }
    }

    /// Forgets the labels of a removed series, so that its slot can be used again.
    pub(crate) fn release(&mut self, slot: Slot) {
        if !self.gone.remove(slot) {
            return;
        }
        let Some(place) = self.entities.get_mut(slot as usize) else { return };
        let entity = std::mem::replace(place, Entity::NONE);
        if let Some(shape) = self.shapes.get_mut(entity.shape as usize) {
            shape.free.push(entity.row);
        }
    }

    /// Whether so many series were removed that rebuilding frees much memory.
    pub(crate) fn is_worn(&self) -> bool {
        self.removed > 1024 && self.removed as usize > self.len()
    }

    /// The same index without the strings and tables that nobody needs any more.
    pub(crate) fn rebuilt(&self) -> Self {
        let mut fresh = Self::default();
        for slot in &self.all | &self.gone {
            if let Some(labels) = self.labels(slot) {
                fresh.insert(slot, &labels, labels.stable_hash());
            }
        }
        for slot in &self.gone {
            fresh.remove(slot);
        }
        fresh.removed = 0;
        fresh
    }
}

impl Postings {
    fn add(&mut self, slot: Slot) {
        match self {
            Self::One(first) => *self = Self::Many(Box::new([*first, slot].into_iter().collect())),
            Self::Many(slots) => {
                slots.insert(slot);
            }
        }
    }

    /// Whether nothing is left.
    fn remove(&mut self, slot: Slot) -> bool {
        match self {
            Self::One(only) => *only == slot,
            Self::Many(slots) => {
                slots.remove(slot);
                slots.is_empty()
            }
        }
    }

    fn first(&self) -> Option<Slot> {
        match self {
            Self::One(slot) => Some(*slot),
            Self::Many(slots) => slots.min(),
        }
    }

    fn add_to(&self, found: &mut RoaringBitmap) {
        match self {
            Self::One(slot) => {
                found.insert(*slot);
            }
            Self::Many(slots) => *found |= &**slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use stint_model::{MatchOp, Matcher, Selector};

    use super::*;

    fn index() -> Index {
        let mut index = Index::default();
        for slot in 0..100_u32 {
            let labels = Labels::from_pairs([
                ("__name__", if slot % 2 == 0 { "even" } else { "odd" }),
                ("n", &slot.to_string()),
                ("third", if slot % 3 == 0 { "yes" } else { "" }),
            ]);
            index.insert(slot, &labels, labels.stable_hash());
        }
        index
    }

    fn count(index: &Index, matchers: &[(MatchOp, &str, &str)]) -> u64 {
        let matchers =
            matchers.iter().map(|(op, name, value)| Matcher::new(*op, name, value).unwrap());
        index.select(&Selector { matchers: matchers.collect() }).len()
    }

    #[test]
    fn selectors_find_what_they_match() {
        use MatchOp::{Equal, NotEqual, NotRegex, Regex};
        let index = index();
        assert_eq!(count(&index, &[]), 100);
        assert_eq!(count(&index, &[(Equal, "__name__", "even")]), 50);
        assert_eq!(count(&index, &[(Equal, "__name__", "none")]), 0);
        assert_eq!(count(&index, &[(Equal, "__name__", "even"), (Equal, "third", "yes")]), 17);
        assert_eq!(count(&index, &[(Equal, "third", "")]), 66);
        assert_eq!(count(&index, &[(NotEqual, "third", "")]), 34);
        assert_eq!(count(&index, &[(NotEqual, "third", "yes")]), 66);
        assert_eq!(count(&index, &[(Regex, "n", "1.*")]), 11);
        assert_eq!(count(&index, &[(Regex, "n", "1|2|777")]), 2);
        assert_eq!(count(&index, &[(NotRegex, "n", "1.*")]), 89);
        assert_eq!(count(&index, &[(Regex, "third", ".*")]), 100);
        assert_eq!(count(&index, &[(Equal, "absent", "x")]), 0);
        assert_eq!(count(&index, &[(NotEqual, "absent", "x")]), 100);
    }

    #[test]
    fn removed_series_are_gone_and_their_slots_reusable() {
        let mut index = index();
        let labels = index.labels(4).unwrap();
        assert_eq!(index.find(&labels, labels.stable_hash()), Some(4));
        let keep = |name: &str| name != "n";
        let (mut text, mut want) = (String::new(), String::new());
        index.encode_labels(4, &keep, &mut text);
        labels.encode_retained(keep, &mut want);
        assert_eq!(text, want);
        index.remove(4);
        index.remove(4);
        assert_eq!(index.find(&labels, labels.stable_hash()), None);
        assert_eq!(index.labels(4), Some(labels.clone()), "a reader may still want them");
        assert_eq!(index.rebuilt().labels(4), Some(labels.clone()));
        assert_eq!(index.rebuilt().find(&labels, labels.stable_hash()), None);
        assert_eq!(index.rebuilt().len(), 99);
        assert_eq!(count(&index, &[(MatchOp::Equal, "n", "4")]), 0);
        assert_eq!(count(&index, &[(MatchOp::Regex, "n", "4|5")]), 1);
        index.release(4);
        assert_eq!(index.labels(4), None);
        index.insert(4, &labels, labels.stable_hash());
        let rebuilt = index.rebuilt();
        assert_eq!(rebuilt.find(&labels, labels.stable_hash()), Some(4));
        assert_eq!(rebuilt.labels(4), Some(labels));
        assert_eq!(rebuilt.len(), 100);
    }
}
