//! Which series belong together: the buckets, sum and count of one histogram, the quantiles of one
//! summary. They are sent together or not at all, since a part of them says something false.

use stint_model::Labels;
use stint_model::labels::{BUCKET_BOUND, INSTANCE, JOB, METRIC_NAME, QUANTILE};

/// The identity of a series as the server sees it: a hash over the exact label set that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u128);

impl Key {
    /// The key of a final label set.
    pub fn of(labels: &Labels) -> Self {
        Self(labels.stable_hash_128())
    }
}

/// Hashes keys, which are hashes already, by taking their lower half, and numbers by spreading them.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyHasher(u64);

impl std::hash::BuildHasher for KeyHasher {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl std::hash::Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // Numbers that count up need spreading; an odd factor loses nothing.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The identity of a group of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);

/// A series' place among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The metric family: the name without `_bucket`, `_sum`, `_count` and `_created`.
    pub family: String,
    /// The series' job; empty when it has none.
    pub job: String,
    /// The group without regard to classes.
    pub group: GroupId,
}

/// Suffixes of the series a classic histogram or summary is made of.
const SUFFIXES: [&str; 4] = ["_bucket", "_sum", "_count", "_created"];

/// Where a series with these labels belongs.
///
/// A counter that merely ends in `_count` becomes a family of its own under the shortened name,
/// which changes nothing for it.
pub fn membership(labels: &Labels) -> Membership {
    let family = family_of(labels);
    let rest = labels.retain(|label| !matches!(label, METRIC_NAME | BUCKET_BOUND | QUANTILE));
    let hash = rest.stable_hash() ^ spread(family);
    Membership {
        family: family.to_owned(),
        job: labels.get(JOB).unwrap_or_default().to_owned(),
        group: GroupId(hash),
    }
}

/// The metric family of a series.
pub fn family_of(labels: &Labels) -> &str {
    let name = labels.metric_name().unwrap_or_default();
    family_of_metric(name, || labels.get(QUANTILE).is_some())
}

/// The metric family of a series by its metric's name, and whether it has a [`QUANTILE`].
pub fn family_of_metric(name: &str, has_quantile: impl FnOnce() -> bool) -> &str {
    let base = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
    base.filter(|base| !base.is_empty() && !has_quantile()).unwrap_or(name)
}

/// A hash of a name, the same everywhere.
fn spread(name: &str) -> u64 {
    Labels::from_pairs([(METRIC_NAME, name)]).stable_hash().rotate_left(17)
}

/// A hash of the target that a series was scraped from, the same for all series of one scrape.
pub fn target_of(labels: &Labels) -> u64 {
    labels.retain(|label| matches!(label, JOB | INSTANCE)).stable_hash()
}

/// The shard among `shards` that a series is sent by: always the same one, so that its samples
/// stay in order.
pub fn shard_of(key: Key, shards: usize) -> usize {
    // In halves: dividing 128 bits takes long.
    let (high, low, shards) = ((key.0 >> 64) as u64, key.0 as u64, shards.max(1) as u64);
    let Ok(shards) = u32::try_from(shards).map(u64::from) else { return 0 };
    let carry = (u64::MAX % shards + 1) % shards;
    ((high % shards * carry + low % shards) % shards) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str, more: &[(&str, &str)]) -> Labels {
        let mut builder = Labels::from_pairs([(METRIC_NAME, name), (JOB, "api")]).to_builder();
        for (name, value) in more {
            builder.set(name, value);
        }
        builder.build()
    }

    #[test]
    fn the_series_of_a_histogram_share_a_group() {
        let bucket = membership(&labels("rpc_seconds_bucket", &[("le", "0.5"), ("path", "/a")]));
        let inf = membership(&labels("rpc_seconds_bucket", &[("le", "+Inf"), ("path", "/a")]));
        let sum = membership(&labels("rpc_seconds_sum", &[("path", "/a")]));
        let created = membership(&labels("rpc_seconds_created", &[("path", "/a")]));
        assert_eq!(bucket, inf);
        assert_eq!(bucket, sum);
        assert_eq!(bucket, created);
        assert_eq!(bucket.family, "rpc_seconds");
        let other = membership(&labels("rpc_seconds_sum", &[("path", "/b")]));
        assert_ne!(bucket.group, other.group);
    }

    #[test]
    fn the_series_of_a_summary_share_a_group() {
        let quantile = membership(&labels("gc_seconds", &[("quantile", "0.5")]));
        let count = membership(&labels("gc_seconds_count", &[]));
        assert_eq!(quantile, count);
    }

    #[test]
    fn metrics_with_equal_labels_are_different_groups() {
        let a = membership(&labels("a_total", &[]));
        let b = membership(&labels("b_total", &[]));
        assert_ne!(a.group, b.group);
        assert_eq!(membership(&labels("_sum", &[])).family, "_sum");
    }

    #[test]
    fn all_series_of_a_target_share_it() {
        let a = labels("a", &[("instance", "h:1"), ("x", "1")]);
        let b = labels("b", &[("instance", "h:1")]);
        assert_eq!(target_of(&a), target_of(&b));
        assert_ne!(target_of(&a), target_of(&labels("a", &[("instance", "h:2")])));
    }

    #[test]
    fn a_key_always_has_the_same_shard() {
        let key = Key::of(&labels("a", &[]));
        assert_eq!(shard_of(key, 7), shard_of(key, 7));
        assert_eq!(shard_of(key, 0), 0);
        let keys = [key.0, 0, 1, u128::MAX, u128::from(u64::MAX), 1 << 64, u128::MAX / 3];
        for (key, shards) in keys.into_iter().flat_map(|key| (1..50).map(move |n| (key, n))) {
            assert_eq!(shard_of(Key(key), shards), (key % shards as u128) as usize);
        }
    }
}
