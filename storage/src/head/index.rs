//! The inverted index of the head: label sets, and which series have which label.

use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;
use stint_model::Labels;
use stint_model::labels::encode_label;

use self::values::Values;
use super::symbols::Symbols;
use crate::sync::RwLock;

pub(crate) mod select;
pub(crate) mod texts;
mod values;

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

/// Which part of the table: by bits that the part itself does not go by.
fn shard(hash: u32) -> usize {
    (spread(hash) >> 40) as usize % SHARDS
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
    fn pairs(&self, row: u32) -> impl ExactSizeIterator<Item = (u32, u32)> + Clone {
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
    /// In parts, each of which grows by itself: nobody waits for all of it to grow at once.
    by_labels: Vec<HashTable<Slot>>,
    postings: HashMap<u32, Values>,
    all: RoaringBitmap,
    /// Slots whose series are gone, and whose labels readers may still want.
    gone: RoaringBitmap,
    removed: u64,
    /// Rises when the numbers of strings become others.
    generation: u64,
    /// Series that came since a rebuilding began, if one is under way.
    since: Option<Vec<Slot>>,
    scratch: (Vec<u32>, Vec<u32>),
}

/// Parts of the table of label sets.
const SHARDS: usize = 64;

impl Index {
    /// The series with exactly these labels; `hash` is their [`Labels::stable_hash`].
    pub(crate) fn find(&self, labels: &Labels, hash: u64) -> Option<Slot> {
        let short = short(hash);
        let table = self.by_labels.get(shard(short))?;
        table.find(spread(short), |slot| self.has_labels(*slot, short, labels)).copied()
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

    /// The symbols of the names and values of a series; [`Index::text`] tells their strings.
    pub(crate) fn symbols(
        &self,
        slot: Slot,
    ) -> Option<impl ExactSizeIterator<Item = (u32, u32)> + Clone> {
        let entity = self.entity(slot)?;
        Some(self.shapes.get(entity.shape as usize)?.pairs(entity.row))
    }

    /// The string of a symbol.
    pub(crate) fn text(&self, symbol: u32) -> &str {
        self.symbols.get(symbol)
    }

    /// Rises when the symbols of strings become others.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
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
        self.values_of(name)?.get(self.symbols.find(value)?)
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
        // Those of the series before: most of the strings are the same.
        let (mut names, mut values) = std::mem::take(&mut self.scratch);
        let mut count = 0;
        for (at, (name, value)) in labels.iter().enumerate() {
            let name = self.symbol(name, at, &mut names);
            let value = self.symbol(value, at, &mut values);
            self.postings.entry(name).or_default().add(value, slot);
            count = at + 1;
        }
        names.truncate(count);
        values.truncate(count);
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
        if let Some(since) = &mut self.since {
            since.push(slot);
        }
        if self.by_labels.is_empty() {
            self.by_labels.resize_with(SHARDS, HashTable::new);
        }
        let entities = &self.entities;
        if let Some(table) = self.by_labels.get_mut(shard(entity.hash)) {
            table.insert_unique(entity.table_hash(), slot, |slot| {
                entities.get(*slot as usize).copied().unwrap_or(Entity::NONE).table_hash()
            });
        }
    }

    /// The number of a string, which may be that in `row` at place `at`; it is there afterwards.
    fn symbol(&mut self, text: &str, at: usize, row: &mut Vec<u32>) -> u32 {
        match row.get_mut(at) {
            Some(symbol) if self.symbols.get(*symbol) == text => *symbol,
            Some(symbol) => {
                *symbol = self.symbols.intern(text);
                *symbol
            }
            None => {
                let symbol = self.symbols.intern(text);
                row.push(symbol);
                symbol
            }
        }
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
        if let Some(table) = self.by_labels.get_mut(shard(entity.hash))
            && let Ok(found) = table.find_entry(entity.table_hash(), |other| *other == slot)
        {
            found.remove();
        }
        let Some(shape) = self.shapes.get_mut(entity.shape as usize) else { return };
        for (name, value) in shape.pairs(entity.row) {
            let Some(by_value) = self.postings.get_mut(&name) else { continue };
            by_value.remove(value, slot);
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

    /// The values that series have for a label.
    fn values_of(&self, name: &str) -> Option<&Values> {
        self.postings.get(&self.symbols.find(name)?)
    }

    /// The value that a series has for a label.
    fn value_of(&self, slot: Slot, name: u32) -> Option<u32> {
        let entity = self.entity(slot)?;
        let shape = self.shapes.get(entity.shape as usize)?;
        shape.pairs(entity.row).find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Copies the series of `slots` from `old`, those that are gone too.
    fn copy(&mut self, old: &Self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            if let Some((labels, entity)) = old.labels(slot).zip(old.entity(slot)) {
                self.insert(slot, &labels, u64::from(entity.hash) << 32);
                if old.gone.contains(slot) {
                    self.remove(slot);
                }
            }
        }
        self.removed = 0;
    }
}

/// Puts an index without the strings and tables that nobody needs any more in place of one that is
/// worn. Series may come meanwhile, but none may leave.
pub(crate) fn rebuild(lock: &RwLock<Index>) {
    let mut fresh = Index::default();
    {
        let mut index = lock.write();
        index.since = Some(Vec::new());
        fresh.generation = index.generation + 1;
    }
    let mut next = Some(0);
    while let Some(from) = next {
        let index = lock.read();
        let end = index.entities.len().min(from + select::AT_ONCE);
        fresh.copy(&index, from as Slot..end as Slot);
        next = (end < index.entities.len()).then_some(end);
    }
    let worn = {
        let mut index = lock.write();
        let since = index.since.take().unwrap_or_default();
        let missing = since.into_iter().filter(|slot| !fresh.all.contains(*slot));
        let missing: Vec<Slot> = missing.collect();
        fresh.copy(&index, missing);
        std::mem::replace(&mut *index, fresh)
    };
    // Not under the lock: it is much.
    drop(worn);
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

    fn count(index: &RwLock<Index>, matchers: &[(MatchOp, &str, &str)]) -> u64 {
        let matchers =
            matchers.iter().map(|(op, name, value)| Matcher::new(*op, name, value).unwrap());
        select::select(index, &Selector { matchers: matchers.collect() }).len()
    }

    #[test]
    fn selectors_find_what_they_match() {
        use MatchOp::{Equal, NotEqual, NotRegex, Regex};
        let index = RwLock::new(index());
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
        let lock = RwLock::new(index());
        let labels = lock.read().labels(4).unwrap();
        let find = || lock.read().find(&labels, labels.stable_hash());
        assert_eq!(find(), Some(4));
        let keep = |name: &str| name != "n";
        let (mut text, mut want) = (String::new(), String::new());
        lock.read().encode_labels(4, &keep, &mut text);
        labels.encode_retained(keep, &mut want);
        assert_eq!(text, want);
        lock.write().remove(4);
        lock.write().remove(4);
        for _ in 0..2 {
            assert_eq!(find(), None);
            assert_eq!(lock.read().labels(4), Some(labels.clone()), "a reader may still want them");
            assert_eq!(lock.read().len(), 99);
            assert_eq!(count(&lock, &[(MatchOp::Equal, "n", "4")]), 0);
            assert_eq!(count(&lock, &[(MatchOp::Regex, "n", "4|5")]), 1);
            rebuild(&lock);
        }
        lock.write().release(4);
        assert_eq!(lock.read().labels(4), None);
        lock.write().insert(4, &labels, labels.stable_hash());
        rebuild(&lock);
        assert_eq!(find(), Some(4));
        assert_eq!(lock.read().labels(4), Some(labels.clone()));
        assert_eq!(lock.read().len(), 100);
        for slot in 0..100 {
            let labels = lock.read().labels(slot).unwrap();
            assert_eq!(lock.read().find(&labels, labels.stable_hash()), Some(slot));
        }
    }

    #[test]
    fn series_that_come_while_it_is_rebuilt_are_there() {
        let lock = RwLock::new(index());
        let named = |n: u32| Labels::from_pairs([("n", format!("new-{n}"))]);
        let mut fresh = Index::default();
        lock.write().since = Some(Vec::new());
        fresh.copy(&lock.read(), 0..50);
        for n in 0..3 {
            lock.write().insert(200 + n, &named(n), named(n).stable_hash());
        }
        assert_eq!(lock.read().since.as_deref(), Some(&[200, 201, 202][..]));
        rebuild(&lock);
        for n in 0..3 {
            assert_eq!(lock.read().find(&named(n), named(n).stable_hash()), Some(200 + n));
        }
        assert_eq!(lock.read().len(), 103);
        assert_eq!(lock.read().since, None);
    }
}
