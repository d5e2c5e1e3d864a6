//! From the text of a series to its handle, between the scrapes of one target.
//!
//! Targets show their series in the same order every time. One that comes where the previous
//! scrape had it costs a comparison of its text; one that comes elsewhere costs one look-up, for which
//! an index is made when the first such comes, and given up after the scrape. In neither case are its
//! labels decoded again. The cache also knows which series a target has shown last, and so which have
//! ended.
//!
//! There is an entry for every scraped series, so that every byte counts.

use std::collections::HashSet;
use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use stint_model::{MetricType, SeriesRef};
use stint_wire::exposition::Format;

mod texts;

use texts::Texts;

/// What is known of a series' text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handle {
    /// The store knows the series.
    Known(SeriesRef),
    /// The series is in the present batch, in this row, with its labels.
    Pending(usize),
    /// Relabelling dropped it.
    Dropped,
    /// The store does not know the series any more; it is in the present body.
    Forgotten,
}

/// Which [`Handle`] an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Known,
    Pending,
    Dropped,
    /// Dropped, and first shown by a scrape that has not succeeded yet.
    DroppedNow,
    Forgotten,
}

/// The number of a scrape. After as many as there are numbers, one means another scrape.
pub(super) type ScrapeNumber = u32;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The reference or the row of its handle.
    number: u64,
    /// The scrape that saw it last.
    pub(super) seen: ScrapeNumber,
    kind: Kind,
    /// The type by which bounds were normalised when the labels were decoded, if any: with another
    /// one the same text means other labels.
    bounds: Option<MetricType>,
    /// Whether it is to get a staleness marker when it ends, as of the scrape that saw it last.
    pub(super) tracked: bool,
    /// Whether it was there, and tracked, after the previous scrape.
    live: bool,
}

impl Entry {
    /// An entry that `seen` shows for the first time.
    fn new(handle: Handle, bounds: Option<MetricType>, tracked: bool, seen: ScrapeNumber) -> Self {
        let (kind, number) = match handle {
            Handle::Known(series) => (Kind::Known, series.0),
            Handle::Pending(row) => (Kind::Pending, row as u64),
            Handle::Dropped => (Kind::DroppedNow, 0),
            Handle::Forgotten => (Kind::Forgotten, 0),
        };
        Self { number, seen, kind, bounds, tracked, live: false }
    }

    /// What is known of it.
    pub(super) fn handle(&self) -> Handle {
        match self.kind {
            Kind::Known => Handle::Known(SeriesRef(self.number)),
            Kind::Pending => Handle::Pending(self.number as usize),
            Kind::Dropped | Kind::DroppedNow => Handle::Dropped,
            Kind::Forgotten => Handle::Forgotten,
        }
    }

    fn known(&self) -> Option<SeriesRef> {
        (self.kind == Kind::Known).then_some(SeriesRef(self.number))
    }

    /// Whether it is kept when a scrape failed: what only failing scrapes have shown would pile up.
    fn outlives_failure(&self) -> bool {
        matches!(self.kind, Kind::Known | Kind::Dropped)
    }

    /// Makes it what it is after a whole scrape, whose rows have the handles `refs`; false when it
    /// is over.
    fn settle(&mut self, scrape: ScrapeNumber, refs: &[Option<SeriesRef>]) -> bool {
        if self.seen != scrape {
            return false;
        }
        self.live = self.tracked;
        match self.kind {
            Kind::Pending => {
                let series = refs.get(self.number as usize).copied().flatten();
                if let Some(series) = series {
                    (self.kind, self.number) = (Kind::Known, series.0);
                }
                series.is_some()
            }
            Kind::DroppedNow => {
                self.kind = Kind::Dropped;
                true
            }
            Kind::Known | Kind::Dropped | Kind::Forgotten => true,
        }
    }
}

/// What to do about the end of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The body was read to its end: what was not in it has ended.
    Whole,
    /// There was no body, or an empty or bad one: everything has ended, and what is known of it is
    /// kept, since it may be back soon.
    Failed,
}

/// All series of one target.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// In the order of the last whole body, and behind them those that the present one shows for the
    /// first time.
    entries: Vec<Entry>,
    /// The text of each.
    texts: Texts,
    /// From the hash of a text to its place, for what does not come where it is expected.
    index: HashTable<(u64, u32)>,
    /// So many of the first entries are in the index.
    indexed: usize,
    hasher: RandomState,
    scrape: ScrapeNumber,
    /// The format of the last body: only in the same one its texts are known to be sound.
    format: Option<Format>,
    /// Whether anything is expected.
    expects: bool,
    /// The place of the series that is expected next.
    at: usize,
    /// The text at `ready`.
    expected: String,
    ready: Option<usize>,
    /// The places that the present body has shown so far; nothing while they are those before `at`.
    order: Option<Vec<u32>>,
    /// Whether a body is read for the second time, to find some series in it.
    again: bool,
    /// Series of a former configuration, to be ended unless they come again.
    orphans: Vec<SeriesRef>,
}

impl Cache {
    /// Begins a scrape.
    pub(super) fn begin(&mut self) {
        self.scrape = self.scrape.wrapping_add(1);
    }

    /// The number of the present scrape.
    pub(super) fn scrape(&self) -> ScrapeNumber {
        self.scrape
    }

    /// Begins a body: its series are expected in the order of the last one of this format.
    pub(super) fn begin_body(&mut self, format: Format) {
        self.expects = self.format.replace(format) == Some(format);
        (self.order, self.again) = (None, false);
        self.go_to(0);
    }

    /// Begins the present scrape's body once more.
    pub(super) fn begin_again(&mut self) {
        (self.expects, self.again) = (false, true);
    }

    /// Expects what lies at `place` next.
    fn go_to(&mut self, place: usize) {
        self.at = place;
        if !self.expects || place >= self.entries.len() {
            return;
        }
        if place > 0 && self.ready == Some(place - 1) {
            self.texts.step(place, &mut self.expected);
        } else if self.ready != Some(place) {
            self.texts.read(place, &mut self.expected);
        }
        self.ready = Some(place);
    }

    /// The text of the series that is expected next; empty when none is.
    pub(super) fn expected(&self) -> &str {
        if self.expects && self.ready == Some(self.at) { &self.expected } else { "" }
    }

    /// What is known of `raw`, which the body shows now. `is_expected` says that it was compared
    /// with [`Cache::expected`] already, and is the same.
    pub(super) fn find(
        &mut self,
        raw: &str,
        bounds: Option<MetricType>,
        is_expected: bool,
    ) -> Option<&mut Entry> {
        let is_ready = self.expects && self.ready == Some(self.at);
        let place = if is_ready && (is_expected || self.expected == raw) {
            let place = self.at;
            self.go_to(place + 1);
            self.note(place, true);
            place
        } else {
            let place = self.place(raw, self.hasher.hash_one(raw))?;
            self.note(place, false);
            place
        };
        let entry = self.entries.get_mut(place)?;
        (entry.bounds == bounds && entry.kind != Kind::Forgotten).then_some(entry)
    }

    /// Notes that the present body shows what lies at `place`.
    fn note(&mut self, place: usize, is_expected: bool) {
        let is_new = self.entries.get(place).is_some_and(|entry| entry.seen != self.scrape);
        if self.again || !is_new {
            return;
        }
        if is_expected {
            if let Some(order) = &mut self.order {
                order.push(place as u32);
            }
            return;
        }
        self.out_of_order(place);
        // The order goes on behind it, whatever has vanished before.
        self.go_to(place + 1);
    }

    fn out_of_order(&mut self, place: usize) {
        let in_order = if self.expects { 0..self.at as u32 } else { 0..0 };
        self.order.get_or_insert_with(|| in_order.collect()).push(place as u32);
    }

    /// The place of `raw`, which has this hash.
    fn place(&mut self, raw: &str, hash: u64) -> Option<usize> {
        self.make_index();
        let is_it =
            |(other, place): &(u64, u32)| *other == hash && self.texts.is(*place as usize, raw);
        self.index.find(hash, is_it).map(|(_, place)| *place as usize)
    }

    /// Completes the index.
    fn make_index(&mut self) {
        let mut text = String::new();
        let missing = self.entries.len() - self.indexed;
        self.index.reserve(missing, |(hash, _)| *hash);
        for place in self.indexed..self.entries.len() {
            if place == self.indexed {
                self.texts.read(place, &mut text);
            } else {
                self.texts.step(place, &mut text);
            }
            let hash = self.hasher.hash_one(text.as_str());
            self.index.insert_unique(hash, (hash, place as u32), |(hash, _)| *hash);
        }
        self.indexed = self.entries.len();
    }

    /// How many texts are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Remembers `raw`, which the present scrape shows for the first time. A series that the same
    /// text meant before is ended with the former configuration's.
    pub(super) fn insert(
        &mut self,
        raw: &str,
        handle: Handle,
        bounds: Option<MetricType>,
        tracked: bool,
    ) {
        let new = Entry::new(handle, bounds, tracked, self.scrape);
        let hash = self.hasher.hash_one(raw);
        if let Some(place) = self.place(raw, hash) {
            if let Some(entry) = self.entries.get_mut(place) {
                let old = std::mem::replace(entry, new);
                self.orphans.extend(old.known().filter(|_| old.live));
            }
            return;
        }
        let place = self.entries.len();
        self.entries.push(new);
        self.texts.push(raw);
        self.index.insert_unique(hash, (hash, place as u32), |(hash, _)| *hash);
        self.indexed = self.entries.len();
        if !self.again {
            self.out_of_order(place);
        }
    }

    /// The series to be ended now.
    pub(super) fn ending(&self, ended: Ended) -> Vec<SeriesRef> {
        // One that comes with a time of its own now has left the ranks of those that can end.
        let goes_on = |entry: &&Entry| entry.seen == self.scrape && entry.tracked;
        let over = |entry: &&Entry| entry.live && (ended == Ended::Failed || !goes_on(entry));
        let mut ending: Vec<_> =
            self.entries.iter().filter(over).filter_map(Entry::known).collect();
        if ended == Ended::Failed {
            ending.extend(&self.orphans);
        } else if !ending.is_empty() {
            // The same series may be there under another text.
            let present: HashSet<_> =
                self.entries.iter().filter(goes_on).filter_map(Entry::known).collect();
            ending.retain(|series| !present.contains(series));
        }
        ending.sort_unstable();
        ending.dedup();
        ending
    }

    /// Ends a scrape whose batch was stored; `refs` are the handles of its rows.
    pub(super) fn finish(&mut self, ended: Ended, refs: &[Option<SeriesRef>]) {
        let (scrape, order) = (self.scrape, self.order.take());
        if ended == Ended::Failed {
            self.orphans.clear();
            self.retain(None, |entry| {
                entry.live = false;
                entry.outlives_failure()
            });
        } else {
            self.retain(order, |entry| entry.settle(scrape, refs));
        }
    }

    /// Ends a scrape whose batch could not be stored: nothing of it happened.
    pub(super) fn abandon(&mut self) {
        self.order = None;
        self.retain(None, |entry| entry.outlives_failure());
    }

    /// Keeps the entries that `keep` says, those at the places of `order` first, as far as there is
    /// one.
    fn retain(&mut self, order: Option<Vec<u32>>, mut keep: impl FnMut(&mut Entry) -> bool) {
        let mut kept = Vec::new();
        let mut over = 0;
        for (place, entry) in self.entries.iter_mut().enumerate() {
            let keeps = keep(entry);
            if !keeps && over == 0 {
                kept = vec![true; place];
            }
            over += usize::from(!keeps);
            if over > 0 {
                kept.push(keeps);
            }
        }
        if over > 0 || order.is_some() {
            kept.resize(self.entries.len(), true);
            self.arrange(order.unwrap_or_default(), kept, over);
        }
        self.index = HashTable::new();
        self.indexed = 0;
    }

    /// Lays down anew what is kept, without the `over` that are not.
    fn arrange(&mut self, order: Vec<u32>, mut kept: Vec<bool>, over: usize) {
        let others = 0..self.entries.len();
        let mut entries = Vec::with_capacity(self.entries.len().saturating_sub(over));
        let (mut texts, mut text) = (Texts::default(), String::new());
        let mut before = None;
        for place in order.into_iter().map(|place| place as usize).chain(others) {
            let (Some(keeps), Some(entry)) = (kept.get_mut(place), self.entries.get(place)) else {
                continue;
            };
            if !std::mem::take(keeps) {
                continue;
            }
            if before.is_some_and(|before: usize| before + 1 == place) {
                self.texts.step(place, &mut text);
            } else {
                self.texts.read(place, &mut text);
            }
            before = Some(place);
            entries.push(*entry);
            texts.push(&text);
        }
        texts.settle();
        (self.entries, self.texts) = (entries, texts);
        (self.ready, self.at) = (None, 0);
    }

    /// The orphans that have not come again; none are left.
    pub(super) fn take_orphans(&mut self) -> Vec<SeriesRef> {
        if self.orphans.is_empty() {
            return Vec::new();
        }
        let present: HashSet<_> = self.entries.iter().filter_map(Entry::known).collect();
        let mut orphans = std::mem::take(&mut self.orphans);
        orphans.retain(|series| !present.contains(series));
        orphans
    }

    /// Forgets the handles that the store does not know any more. Returns the texts of those that
    /// the present body shows: they are to be looked up in it again.
    pub(super) fn forget(&mut self, unknown: &HashSet<SeriesRef>) -> HashSet<Box<str>> {
        let mut texts = HashSet::new();
        let mut text = String::new();
        for (place, entry) in self.entries.iter_mut().enumerate() {
            self.texts.step(place, &mut text);
            let Some(series) = entry.known().filter(|series| unknown.contains(series)) else {
                continue;
            };
            if entry.seen != self.scrape {
                continue;
            }
            texts.insert(Box::from(text.as_str()));
            // It may have come to mean another series, and then this one has ended.
            if entry.live {
                self.orphans.push(series);
            }
            entry.kind = Kind::Forgotten;
        }
        self.retain(None, |entry| entry.known().is_none_or(|series| !unknown.contains(&series)));
        texts
    }

    /// Forgets all texts, since they mean other labels under a new configuration.
    pub(super) fn orphan_all(&mut self) {
        let live = self.entries.iter().filter(|entry| entry.live);
        self.orphans.extend(live.filter_map(Entry::known));
        self.retain(None, |_| false);
    }
}

#[cfg(test)]
mod tests;
