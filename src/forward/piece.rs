//! What is sent as one request, and how it is taken apart.

use std::time::Duration;

use bytes::Bytes;
use stint_model::Timestamp;

use super::encode;
use super::round::{Item, Payload, REPLICA};
use crate::budget::group::Key;

/// How many items of a piece are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Stored samples.
    pub(super) samples: u64,
    /// Samples that are made here.
    pub(super) made: u64,
    pub(super) markers: u64,
}

impl Counts {
    fn of(items: &[Item]) -> Self {
        let mut counts = Self::default();
        for item in items {
            match item.payload {
                Payload::Sample(_) => counts.samples += 1,
                Payload::Made(_) => counts.made += 1,
                Payload::Marker(_) => counts.markers += 1,
                Payload::Exemplar(_) => {}
            }
        }
        counts
    }

    /// What the endpoint counts as data points.
    pub(super) fn points(&self) -> u64 {
        self.samples + self.made + self.markers
    }
}

/// Items that are sent as one request.
pub(super) struct Piece {
    /// Changed by [`Piece::retain`] alone.
    items: Vec<Item>,
    counts: Counts,
    pub(super) body: Option<Bytes>,
    pub(super) exemplars: u64,
    pub(super) failures: u32,
    pub(super) splits: u32,
    /// Monotonic milliseconds of the first failure.
    pub(super) failed_at: Option<u64>,
    /// A following piece holds later samples of the same series.
    pub(super) pinned: bool,
    /// Refused, unless something is accepted before its turn comes.
    pub(super) refused: Option<Refused>,
    /// Items were taken out of it.
    is_thinned: bool,
}

/// What is to become of a piece of which samples were sent alone and refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// The id under which they were refused.
    pub(super) id: String,
    /// Requests that the delivery had had accepted by then.
    pub(super) accepted: u64,
}

/// Refusals in a row after which a refused piece is taken apart no more.
const APART_MAX: u32 = 1000;
/// Refusals in a row after which parts of one time are probed before they are taken apart.
const PROBE_AFTER: u32 = 128;
/// Items that are sent alone before the rest of their piece is given up.
const PROBES: usize = 3;

impl Piece {
    pub(super) fn new(items: Vec<Item>) -> Self {
        Self {
            counts: Counts::of(&items),
            items,
            body: None,
            exemplars: 0,
            failures: 0,
            splits: 0,
            failed_at: None,
            pinned: false,
            refused: None,
            is_thinned: false,
        }
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn samples(&self) -> u64 {
        self.counts.samples
    }

    /// Takes out items for which `keep` does not hold; they are not in a request that was encoded.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Item) -> bool) {
        let before = self.items.len();
        self.items.retain(keep);
        if self.items.len() < before {
            self.counts = Counts::of(&self.items);
            self.body = None;
            self.is_thinned = true;
        }
    }

    /// Whether another replica may send the same.
    pub(super) fn is_of_replica(&self) -> bool {
        let Some(first) = self.items.first() else { return false };
        let texts = first.series.labels.symbols().read();
        self.items.iter().any(|item| item.series.labels.value(&texts, REPLICA).is_some())
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.items.iter().map(|item| item.series.key).collect()
    }

    /// Of an endpoint without a budget: the series for which it was not noted in the minute of the sample
    /// that they are sent. It need not be known better there, unless the piece has waited: with `is_late`
    /// it is noted of all.
    pub(super) fn keys_to_note(&self, is_late: bool) -> Vec<Key> {
        let all = is_late || self.failures > 0 || self.is_thinned;
        let is_due = |item: &&Item| all || item.is_noted;
        self.items.iter().filter(is_due).map(|item| item.series.key).collect()
    }

    pub(super) fn failed(mut self, now: Duration) -> Self {
        self.failures = self.failures.saturating_add(1);
        self.failed_at.get_or_insert(now.as_millis() as u64);
        self
    }

    pub(super) fn is_one_series(&self) -> bool {
        let mut series = self.items.iter().map(|item| &item.series);
        let first = series.next();
        first.is_none_or(|first| series.all(|other| encode::is_same(first, other)))
    }

    /// Whether an earlier run may have delivered some of it already.
    fn is_maybe_sent(&self) -> bool {
        self.items.iter().any(|item| item.maybe_sent)
    }

    /// The parts of a piece that was refused, the last of `in_row` refusals; or itself alone where
    /// it is to be given up.
    pub(super) fn apart(self, in_row: u32, refused: Refused) -> Vec<Self> {
        if in_row > APART_MAX {
            return vec![self];
        }
        let mut parts = self.by_time();
        match parts.pop() {
            Some(alone) if parts.is_empty() && alone.is_maybe_sent() && !alone.is_one_series() => {
                if in_row > PROBE_AFTER {
                    alone.probed(refused)
                } else {
                    alone.in_order()
                }
            }
            last => parts.into_iter().chain(last).collect(),
        }
    }

    /// The earlier and the later half of its times, in this order; itself where there is one time.
    fn by_time(self) -> Vec<Self> {
        let mut times: Vec<Timestamp> = self.items.iter().map(Item::at).collect();
        times.sort_unstable();
        times.dedup();
        let (Some(middle), true) = (times.get(times.len() / 2).copied(), times.len() > 1) else {
            return vec![self];
        };
        let (splits, failed_at, pinned) = (self.splits + 1, self.failed_at, self.pinned);
        let (earlier, later) = self.items.into_iter().partition(|item| item.at() < middle);
        let piece = |items, pinned| Self { splits, failed_at, pinned, ..Self::new(items) };
        vec![piece(earlier, true), piece(later, pinned)]
    }

    /// Its first and its last half. One delivery goes through the items in order, so that what an
    /// earlier one has brought of the items of one time lies in front.
    fn in_order(self) -> Vec<Self> {
        let (splits, failed_at, pinned) = (self.splits + 1, self.failed_at, self.pinned);
        let mut first = self.items;
        let last = first.split_off(first.len() / 2);
        let piece = |items| Self { splits, failed_at, pinned, ..Self::new(items) };
        vec![piece(first), piece(last)]
    }

    /// The first, the middle and the last item, each alone; then the rest, for which
    /// `refused` holds unless one of them is accepted. A piece that has been through that falls in
    /// halves.
    fn probed(self, refused: Refused) -> Vec<Self> {
        if self.refused.is_some() || self.items.len() <= PROBES {
            return self.in_order();
        }
        let (splits, failed_at, pinned) = (self.splits + 1, self.failed_at, self.pinned);
        let (middle, last) = (self.items.len() / 2, self.items.len() - 1);
        let piece = |items| Self { splits, failed_at, pinned, ..Self::new(items) };
        let mut parts = Vec::new();
        let mut rest = Vec::new();
        for (at, item) in self.items.into_iter().enumerate() {
            if [0, middle, last].contains(&at) {
                parts.push(piece(vec![item]));
            } else {
                rest.push(item);
            }
        }
        parts.push(Self { refused: Some(refused), ..piece(rest) });
        parts
    }

    /// Two pieces with half of the series each, or half of the samples where there is one series.
    pub(super) fn halves(self) -> Vec<Self> {
        let (splits, failed_at) = (self.splits + 1, self.failed_at);
        let one_series = self.is_one_series();
        let pinned = self.pinned || one_series;
        let (first, second) = if one_series {
            let mut first = self.items;
            let second = first.split_off(first.len() / 2);
            (first, second)
        } else {
            let mut keys = self.items.iter().map(|item| item.series.key).collect::<Vec<_>>();
            keys.sort_unstable();
            keys.dedup();
            let middle = keys.get(keys.len() / 2).copied();
            self.items.into_iter().partition(|item| Some(item.series.key) < middle)
        };
        let piece = |items| Self { splits, failed_at, pinned, ..Self::new(items) };
        vec![piece(first), piece(second)]
    }
}
