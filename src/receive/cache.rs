//! From the labels as they came over the wire to the handle of their series.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use parking_lot::RwLock;
use stint_model::SeriesRef;
use xxhash_rust::xxh3::Xxh3;

/// Parts of the cache, each with its own lock and its own table. They get unlike shares of the
/// series, so that their tables double at different times: at any moment some are nearly full,
/// and growing one copies only a part of the whole.
const SHARDS: usize = 16;

/// Sets the seed of identities apart.
const IDENTITY: u64 = 0x9e37_79b9_7f4a_7c15;

/// 96 bits of a hash of a series' encoded labels. The hash is seeded at random, so that nobody can
/// prepare two series that share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LabelKey {
    high: u32,
    low: [u32; 2],
}

impl LabelKey {
    fn of(hash: u128) -> Self {
        Self { high: (hash >> 64) as u32, low: [(hash >> 32) as u32, hash as u32] }
    }

    fn table_hash(&self) -> u64 {
        u64::from(self.low[0]) << 32 | u64::from(self.low[1])
    }

    fn place(&self) -> usize {
        (self.high >> 24) as usize
    }
}

/// Remembers handles. Holds at most two generations of `generation_max` entries, of 22 to 44 bytes
/// each; what was not asked for during a whole generation is forgotten.
pub(super) struct RefCache {
    seed: u64,
    /// The shard of each of the 256 places that keys have.
    shard_of: [u8; 256],
    shards: [Shard; SHARDS],
}

#[derive(Default)]
struct Shard {
    generation_max: usize,
    generations: RwLock<Generations>,
}

/// Handles are numbered from one on; those beyond 32 bits are not worth an entry of twice the size.
#[derive(Clone, Copy)]
struct Entry {
    key: LabelKey,
    series: u32,
}

/// Where in each shard a request goes on, since senders send their series in the same order again:
/// what stands there is found without looking for it all over the memory.
#[derive(Default)]
pub(super) struct Trail([u32; SHARDS]);

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    /// In the order in which they came.
    entries: Vec<Entry>,
    /// Places in `entries`.
    table: HashTable<u32>,
}

impl Generation {
    /// The place of `key`, which may be `expected`.
    fn find(&self, key: &LabelKey, expected: u32) -> Option<(u32, u32)> {
        let at = |place: u32| self.entries.get(place as usize).filter(|entry| entry.key == *key);
        if let Some(entry) = at(expected) {
            return Some((expected, entry.series));
        }
        let place = *self.table.find(key.table_hash(), |place| at(*place).is_some())?;
        at(place).map(|entry| (place, entry.series))
    }

    /// Remembers `series` of `key`, and tells where.
    fn put(&mut self, key: LabelKey, series: u32) -> u32 {
        if let Some((place, _)) = self.find(&key, 0) {
            if let Some(entry) = self.entries.get_mut(place as usize) {
                entry.series = series;
            }
            return place;
        }
        // So many that a number of this size counts them.
        let place = self.entries.len() as u32;
        self.entries.push(Entry { key, series });
        let entries = &self.entries;
        let hash = |place: &u32| entries.get(*place as usize).map_or(0, |e| e.key.table_hash());
        self.table.insert_unique(key.table_hash(), place, hash);
        place
    }
}

impl Generations {
    fn put(&mut self, key: LabelKey, series: u32, most: usize) -> u32 {
        let young = &self.young;
        if young.entries.len() >= most && young.find(&key, 0).is_none() {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.put(key, series)
    }
}

impl RefCache {
    pub(super) fn new(generation_max: usize) -> Self {
        let seed = RandomState::new().hash_one(generation_max);
        // Each share is about 2^(1/16) times the one before it.
        let shard_of = std::array::from_fn(|place| {
            ((1.0 + place as f64 / 256.0).log2() * SHARDS as f64) as u8
        });
        let mut shards: [Shard; SHARDS] = Default::default();
        for (number, shard) in shards.iter_mut().enumerate() {
            let places = shard_of.iter().filter(|of| usize::from(**of) == number).count();
            shard.generation_max = (generation_max * places / 256).max(1);
        }
        Self { seed, shard_of, shards }
    }

    fn number(&self, key: &LabelKey) -> usize {
        self.shard_of.get(key.place()).copied().map_or(0, usize::from)
    }

    /// The key of labels as version 1.0 encodes them.
    pub(super) fn key_of_bytes(&self, label_bytes: &[u8]) -> LabelKey {
        LabelKey::of(xxhash_rust::xxh3::xxh3_128_with_seed(label_bytes, self.seed))
    }

    /// The key of bytes that tell a series from others, but are not its labels. What they mean may change
    /// with `epoch`.
    pub(super) fn key_of_identity(&self, identity: &[u8], epoch: u64) -> LabelKey {
        // With a seed of its own, so that it cannot be the key of labels.
        let seed = self.seed ^ IDENTITY.wrapping_add(epoch);
        LabelKey::of(xxhash_rust::xxh3::xxh3_128_with_seed(identity, seed))
    }

    /// The key of labels given as text, for what is not encoded alike in each request.
    pub(super) fn key_of_labels(&self, labels: &[(&str, &str)]) -> LabelKey {
        let mut hasher = Xxh3::with_seed(self.seed);
        for (name, value) in labels {
            for text in [name, value] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        LabelKey::of(hasher.digest128())
    }

    /// The handle of a series, where it is remembered. From now on it counts as just used. `trail` is
    /// that of the request.
    pub(super) fn get(&self, key: &LabelKey, trail: &mut Trail) -> Option<SeriesRef> {
        let number = self.number(key);
        let (shard, next) = (self.shards.get(number)?, trail.0.get_mut(number)?);
        let series = {
            let generations = shard.generations.read();
            if let Some((place, series)) = generations.young.find(key, *next) {
                *next = place.wrapping_add(1);
                return Some(SeriesRef(u64::from(series)));
            }
            generations.old.find(key, *next)?.1
        };
        let place = shard.generations.write().put(*key, series, shard.generation_max);
        *next = place.wrapping_add(1);
        Some(SeriesRef(u64::from(series)))
    }

    /// Remembers a handle.
    pub(super) fn put(&self, key: LabelKey, series: SeriesRef) {
        let Some(shard) = self.shards.get(self.number(&key)) else { return };
        let Ok(number) = u32::try_from(series.0) else { return };
        shard.generations.write().put(key, number, shard.generation_max);
    }

    /// Entries held.
    pub(super) fn len(&self) -> usize {
        let held = |shard: &Shard| {
            let generations = shard.generations.read();
            generations.young.entries.len() + generations.old.entries.len()
        };
        self.shards.iter().map(held).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_for_a_generation_is_forgotten() {
        let cache = RefCache::new(2);
        // Of one shard, which holds one entry a generation.
        let place = cache.key_of_bytes(b"0").place();
        let names = (0..).map(|number: u32| number.to_string().into_bytes());
        let mut keys = names.map(|name| cache.key_of_bytes(&name));
        let mut next = || keys.find(|key| key.place() == place).unwrap();
        let (a, b, c) = (next(), next(), next());
        cache.put(a, SeriesRef(1));
        cache.put(b, SeriesRef(2));
        let get = |key: &LabelKey| cache.get(key, &mut Trail::default());
        assert_eq!(get(&a), Some(SeriesRef(1)));
        cache.put(c, SeriesRef(3));
        assert_eq!(get(&b), None, "b was not used since");
        assert_eq!((get(&a), get(&c)), (Some(SeriesRef(1)), Some(SeriesRef(3))));
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn the_last_handle_of_a_key_is_kept_through_growth() {
        let cache = RefCache::new(1 << 20);
        let keys: Vec<_> =
            (0..5000_u32).map(|number| cache.key_of_bytes(&number.to_le_bytes())).collect();
        for (number, key) in (0..).zip(&keys) {
            cache.put(*key, SeriesRef(number));
            cache.put(*key, SeriesRef(number + 1));
            cache.put(*key, SeriesRef(u64::MAX));
        }
        for (number, key) in (0..).zip(&keys) {
            let found = cache.get(key, &mut Trail::default());
            assert_eq!(found, Some(SeriesRef(number + 1)));
        }
        assert_eq!(cache.len(), keys.len());
        assert!(
            cache.shards.iter().all(|shard| shard.generations.read().young.entries.len() > 100)
        );
    }

    #[test]
    fn keys_tell_names_from_values() {
        let cache = RefCache::new(2);
        let split = |labels: &[(&str, &str)]| cache.key_of_labels(labels);
        assert_ne!(split(&[("a", "bc")]), split(&[("ab", "c")]));
        assert_ne!(split(&[("a", "b"), ("c", "d")]), split(&[("c", "d"), ("a", "b")]));
        assert_eq!(split(&[("a", "b")]), split(&[("a", "b")]));
    }

    #[test]
    fn series_in_the_order_of_before_are_found_without_the_tables() {
        let cache = RefCache::new(1 << 20);
        let keys: Vec<_> =
            (0..2000_u32).map(|number| cache.key_of_bytes(&number.to_le_bytes())).collect();
        for (number, key) in (0..).zip(&keys) {
            cache.put(*key, SeriesRef(number));
        }
        // A request may begin anywhere; from there on it goes along.
        let mut trail = Trail::default();
        let half = &keys[1000..];
        for key in &half[..200] {
            cache.get(key, &mut trail).unwrap();
        }
        for shard in &cache.shards {
            shard.generations.write().young.table.clear();
        }
        for (number, key) in (1200..).zip(&half[200..]) {
            assert_eq!(cache.get(key, &mut trail), Some(SeriesRef(number)));
        }
    }

    proptest::proptest! {
        /// Wherever a trail leads, what is found is what was put there last.
        #[test]
        fn a_trail_changes_nothing_but_time(
            steps in proptest::collection::vec((0..40_u8, 0..3_u8, proptest::bool::ANY), 0..300),
        ) {
            let cache = RefCache::new(1 << 10);
            let mut model = std::collections::HashMap::new();
            let mut trails = [Trail::default(), Trail::default()];
            for (at, (name, what, other)) in (1..).zip(steps) {
                let key = cache.key_of_bytes(&[name]);
                if what == 0 {
                    cache.put(key, SeriesRef(at));
                    model.insert(name, SeriesRef(at));
                } else {
                    let trail = &mut trails[usize::from(other)];
                    proptest::prop_assert_eq!(cache.get(&key, trail), model.get(&name).copied());
                }
            }
        }
    }
}
