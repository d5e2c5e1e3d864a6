//! When a group is evaluated: at its own offset of the interval, pinned to absolute time, so that
//! restarts change nothing and groups do not all fall together. The points are Prometheus'.

use stint_model::{Span, Timestamp};
use xxhash_rust::xxh64::xxh64;

const NS_PER_MS: i64 = 1_000_000;

/// The points in time of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lattice {
    interval_ns: i64,
    offset_ns: i64,
}

/// A point of a lattice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point(i64);

impl Point {
    /// In whole milliseconds, as evaluations see it.
    pub fn at(self) -> Timestamp {
        Timestamp(self.0.div_euclid(NS_PER_MS))
    }

    /// The first millisecond that is not before it.
    pub fn due(self) -> Timestamp {
        Timestamp(self.0.saturating_add(NS_PER_MS - 1).div_euclid(NS_PER_MS))
    }
}

impl Lattice {
    /// Of the group `name` in `file`.
    pub fn new(file: &str, name: &str, interval: Span) -> Self {
        let interval_ns = interval.0.max(1).saturating_mul(NS_PER_MS);
        let offset_ns = (hash(file, name) % interval_ns.unsigned_abs()) as i64;
        Self { interval_ns, offset_ns }
    }

    /// The last point that is not after `now`.
    pub fn last_before(self, now: Timestamp) -> Point {
        let now = now.0.saturating_mul(NS_PER_MS);
        let since = now.saturating_sub(self.offset_ns).rem_euclid(self.interval_ns);
        Point(now.saturating_sub(since))
    }

    /// The point after `point`.
    pub fn next(self, point: Point) -> Point {
        Point(point.0.saturating_add(self.interval_ns))
    }

    /// The point to evaluate at `now` when the last one was `last` and the next is due: the newest
    /// one, and how many between are left out.
    pub fn newest(self, last: Point, now: Timestamp) -> (Point, u64) {
        let now = now.0.saturating_mul(NS_PER_MS);
        let steps = (now.saturating_sub(last.0) / self.interval_ns).max(1);
        let point = last.0.saturating_add(steps.saturating_mul(self.interval_ns));
        (Point(point), (steps - 1).unsigned_abs())
    }
}

/// Of file and name as Prometheus hashes a set of labels: XXH64 over names and values, each with
/// its length in front.
fn hash(file: &str, name: &str) -> u64 {
    let mut bytes = Vec::new();
    for text in ["file", file, "name", name] {
        match u8::try_from(text.len()) {
            Ok(length) if length < 255 => bytes.push(length),
            _ => {
                bytes.push(255);
                bytes.extend(text.len().to_le_bytes().iter().take(3));
            }
        }
        bytes.extend(text.as_bytes());
    }
    xxh64(&bytes, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn points_are_pinned_and_missed_ones_counted() {
        let lattice = Lattice { interval_ns: 10_000 * NS_PER_MS, offset_ns: 3_000_500_000 };
        let first = lattice.last_before(Timestamp(23_001));
        assert_eq!((first.at(), first.due()), (Timestamp(23_000), Timestamp(23_001)));
        assert_eq!(lattice.last_before(Timestamp(23_000)).at(), Timestamp(13_000));
        let next = lattice.next(first);
        assert_eq!(next.at(), Timestamp(33_000));
        assert_eq!(lattice.newest(first, next.due()), (next, 0));
        let (late, missed) = lattice.newest(first, Timestamp(59_000));
        assert_eq!((late.at(), missed), (Timestamp(53_000), 2));
    }

    proptest! {
        #[test]
        fn a_point_is_less_than_an_interval_away(
            name in "[a-z]{1,4}", interval in 1_i64..100_000, now in 0_i64..2_000_000_000_000,
        ) {
            let lattice = Lattice::new("f", &name, Span(interval));
            let point = lattice.last_before(Timestamp(now));
            prop_assert!(point.due() <= Timestamp(now));
            prop_assert!(lattice.next(point).due() > Timestamp(now));
            prop_assert_eq!(lattice.last_before(point.due()), point);
        }
    }
}
