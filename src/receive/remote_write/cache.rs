//! From the labels as they came over the wire to the handle of their series.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};

use parking_lot::RwLock;
use stint_model::SeriesRef;
use xxhash_rust::xxh3::Xxh3;

/// A 128-bit hash of a series' encoded labels. The hash is seeded at random, so that nobody can
/// prepare two series that share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LabelKey(u128);

/// Remembers handles. Holds at most two generations of `generation_max` entries of 24 bytes; what
/// was not asked for during a whole generation is forgotten.
pub(super) struct RefCache {
    seed: u64,
    generation_max: usize,
    generations: RwLock<Generations>,
}

type Map = HashMap<LabelKey, SeriesRef, BuildHasherDefault<TakeHash>>;

#[derive(Default)]
struct Generations {
    young: Map,
    old: Map,
}

/// Keys are hashes already.
#[derive(Default)]
pub(super) struct TakeHash(u64);

impl Hasher for TakeHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

impl RefCache {
    pub(super) fn new(generation_max: usize) -> Self {
        let seed = RandomState::new().hash_one(generation_max);
        Self { seed, generation_max, generations: RwLock::default() }
    }

    /// The key of labels as version 1.0 encodes them.
    pub(super) fn key_of_bytes(&self, label_bytes: &[u8]) -> LabelKey {
        LabelKey(xxhash_rust::xxh3::xxh3_128_with_seed(label_bytes, self.seed))
    }

    /// The key of labels given as text, for version 2.0, whose encoding differs between requests.
    pub(super) fn key_of_labels(&self, labels: &[(&str, &str)]) -> LabelKey {
        let mut hasher = Xxh3::with_seed(self.seed);
        for (name, value) in labels {
            for text in [name, value] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        LabelKey(hasher.digest128())
    }

    /// Looks up many keys under one lock.
    pub(super) fn get_all<'k>(
        &self,
        keys: impl Iterator<Item = &'k LabelKey>,
    ) -> Vec<Option<SeriesRef>> {
        let generations = self.generations.read();
        keys.map(|key| generations.young.get(key).or_else(|| generations.old.get(key)).copied())
            .collect()
    }

    /// Remembers handles, new ones and those that were just used.
    pub(super) fn put_new(&self, entries: impl Iterator<Item = (LabelKey, SeriesRef)>) {
        let entries: Vec<_> = {
            let young = &self.generations.read().young;
            entries.filter(|(key, reference)| young.get(key) != Some(reference)).collect()
        };
        if entries.is_empty() {
            return;
        }
        let mut generations = self.generations.write();
        for (key, reference) in entries {
            if generations.young.len() >= self.generation_max {
                generations.old = std::mem::take(&mut generations.young);
            }
            generations.young.insert(key, reference);
        }
    }

    /// Entries held.
    pub(super) fn len(&self) -> usize {
        let generations = self.generations.read();
        generations.young.len() + generations.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cache: &RefCache, name: &str) -> LabelKey {
        cache.key_of_bytes(name.as_bytes())
    }

    #[test]
    fn what_is_not_used_for_a_generation_is_forgotten() {
        let cache = RefCache::new(2);
        let put =
            |name: &str, at: u64| cache.put_new([(key(&cache, name), SeriesRef(at))].into_iter());
        let get = |name: &str| cache.get_all([key(&cache, name)].iter()).pop().flatten();
        put("a", 1);
        put("b", 2);
        put("c", 3);
        assert_eq!((get("a"), get("c")), (Some(SeriesRef(1)), Some(SeriesRef(3))));
        put("a", 1);
        put("d", 4);
        assert_eq!(get("b"), None, "b was not used since");
        assert_eq!((get("a"), get("d")), (Some(SeriesRef(1)), Some(SeriesRef(4))));
        assert!(cache.len() <= 4);
    }

    #[test]
    fn keys_tell_names_from_values() {
        let cache = RefCache::new(2);
        let split = |labels: &[(&str, &str)]| cache.key_of_labels(labels);
        assert_ne!(split(&[("a", "bc")]), split(&[("ab", "c")]));
        assert_ne!(split(&[("a", "b"), ("c", "d")]), split(&[("c", "d"), ("a", "b")]));
        assert_eq!(split(&[("a", "b")]), split(&[("a", "b")]));
    }
}
