//! From the text of a series to its handle, between the scrapes of one target.
//!
//! Targets show their series in the same order every time. One that comes where the previous
//! scrape had it costs a comparison of its text; one that comes elsewhere costs one look-up. In
//! neither case are its labels decoded again. The cache also knows which series a target has shown
//! last, and so which have ended.

use std::collections::HashSet;
use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use stint_model::{MetricType, SeriesRef};
use stint_wire::exposition::Format;

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

/// Where the text of a series lies.
#[derive(Clone, Copy, Debug)]
struct Text {
    start: usize,
    bytes: usize,
}

/// The texts of all series, one behind the other in the order of the body: comparing a body with them
/// runs through memory once, from front to back.
#[derive(Debug, Default)]
struct Texts {
    all: String,
    /// Bytes of texts that are not needed any more.
    unused: usize,
}

impl Texts {
    fn get(&self, text: Text) -> &str {
        self.all.get(text.start..text.start + text.bytes).unwrap_or_default()
    }

    fn push(&mut self, raw: &str) -> Text {
        let start = self.all.len();
        self.all.push_str(raw);
        Text { start, bytes: raw.len() }
    }

    fn forget(&mut self, text: Text) {
        self.unused += text.bytes;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    text: Text,
    pub(super) handle: Handle,
    /// The type by which bounds were normalised when the labels were decoded, if any: with another
    /// one the same text means other labels.
    bounds: Option<MetricType>,
    /// The scrape that saw it first.
    born: u64,
    /// The scrape that saw it last.
    pub(super) seen: u64,
    /// Whether it is to get a staleness marker when it ends, as of the scrape that saw it last.
    pub(super) tracked: bool,
    /// Whether it was there, and tracked, after the previous scrape.
    live: bool,
    /// Where it stands in the order of the last whole scrape.
    place: usize,
}

/// All series of one target.
#[derive(Debug, Default)]
pub(super) struct Cache {
    texts: Texts,
    slots: Vec<Option<Entry>>,
    /// Slots without a series.
    free: Vec<usize>,
    /// From the hash of a text to its slot, for what does not come where it is expected.
    index: HashTable<usize>,
    hasher: RandomState,
    scrape: u64,
    /// The slots of the last whole scrape, sample by sample.
    order: Vec<usize>,
    /// The format that `order` was read in: only there are its texts known to be sound.
    format: Option<Format>,
    /// The place in `order` of the sample that is expected next.
    at: usize,
    /// The slots of the present scrape so far.
    present: Vec<usize>,
    /// Whether a body is read for the second time, to find some series in it.
    again: bool,
    /// Series of a former configuration, to be ended unless they come again.
    orphans: Vec<SeriesRef>,
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

impl Entry {
    /// Whether it is kept when `scrape` failed: what only failing scrapes have shown would pile up.
    fn outlives_failure(&self, scrape: u64) -> bool {
        match self.handle {
            Handle::Known(_) => true,
            Handle::Dropped => self.born < scrape,
            Handle::Pending(_) | Handle::Forgotten => false,
        }
    }
}

impl Cache {
    /// Begins a scrape.
    pub(super) fn begin(&mut self) {
        self.scrape += 1;
    }

    /// The number of the present scrape.
    pub(super) fn scrape(&self) -> u64 {
        self.scrape
    }

    /// Begins a body: its series are expected in the order of the last one of this format.
    pub(super) fn begin_body(&mut self, format: Format) {
        if self.format.replace(format) != Some(format) {
            self.order.clear();
        }
        self.present.clear();
        (self.at, self.again) = (0, false);
    }

    /// Begins the present scrape's body once more.
    pub(super) fn begin_again(&mut self) {
        (self.at, self.again) = (usize::MAX, true);
    }

    /// The text of the series that is expected next; empty when none is.
    pub(super) fn expected(&self) -> &str {
        let slot = self.order.get(self.at).and_then(|slot| self.slots.get(*slot));
        slot.and_then(Option::as_ref).map_or("", |entry| self.texts.get(entry.text))
    }

    /// What is known of `raw`, which the body shows now. `is_expected` says that it was compared
    /// with [`Cache::expected`] already, and is the same.
    pub(super) fn find(
        &mut self,
        raw: &str,
        bounds: Option<MetricType>,
        is_expected: bool,
    ) -> Option<&mut Entry> {
        let expected = self.order.get(self.at).copied();
        let slot = if let Some(slot) = expected
            && (is_expected || self.expected() == raw)
        {
            self.at += 1;
            slot
        } else {
            let slot = self.slot(raw)?;
            let entry = self.slots.get(slot)?.as_ref()?;
            // The order goes on behind it, whatever has vanished before.
            if !self.again && entry.seen != self.scrape {
                self.at = entry.place + 1;
            }
            slot
        };
        let entry = self.slots.get_mut(slot)?.as_mut()?;
        if entry.bounds != bounds || entry.handle == Handle::Forgotten {
            return None;
        }
        if !self.again {
            self.present.push(slot);
        }
        Some(entry)
    }

    fn slot(&self, raw: &str) -> Option<usize> {
        let is_it =
            |slot: &usize| self.entry(*slot).is_some_and(|entry| self.texts.get(entry.text) == raw);
        self.index.find(self.hasher.hash_one(raw), is_it).copied()
    }

    fn entry(&self, slot: usize) -> Option<&Entry> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    /// How many texts are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries().count()
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().flatten()
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
        // A new series is expected after the one before it, which is no place of its own.
        let place = self.at.min(self.order.len()).saturating_sub(1);
        let (born, seen) = (self.scrape, self.scrape);
        let entry = |text| Entry { text, handle, bounds, born, seen, tracked, live: false, place };
        let slot = if let Some(slot) = self.slot(raw) {
            if let Some(Some(known)) = self.slots.get_mut(slot) {
                let new = entry(known.text);
                let old = std::mem::replace(known, new);
                if let (Handle::Known(series), true) = (old.handle, old.live) {
                    self.orphans.push(series);
                }
            }
            slot
        } else {
            let entry = entry(self.texts.push(raw));
            let hash = self.hasher.hash_one(raw);
            let slot = self.free.pop().unwrap_or(self.slots.len());
            match self.slots.get_mut(slot) {
                Some(empty) => *empty = Some(entry),
                None => self.slots.push(Some(entry)),
            }
            let (slots, texts, hasher) = (&self.slots, &self.texts, &self.hasher);
            self.index.insert_unique(hash, slot, |slot| {
                let entry = slots.get(*slot).and_then(Option::as_ref);
                entry.map_or(0, |entry| hasher.hash_one(texts.get(entry.text)))
            });
            slot
        };
        if !self.again {
            self.present.push(slot);
        }
    }

    /// Keeps the entries that `keep` says.
    fn retain(&mut self, mut keep: impl FnMut(&mut Entry, &str) -> bool) {
        for (slot, place) in self.slots.iter_mut().enumerate() {
            let Some(entry) = place else { continue };
            let raw = self.texts.get(entry.text);
            if keep(entry, raw) {
                continue;
            }
            let hash = self.hasher.hash_one(raw);
            self.texts.forget(entry.text);
            if let Ok(found) = self.index.find_entry(hash, |other| *other == slot) {
                found.remove();
            }
            *place = None;
            self.free.push(slot);
        }
    }

    /// The series to be ended now.
    pub(super) fn ending(&self, ended: Ended) -> Vec<SeriesRef> {
        // One that comes with a time of its own now has left the ranks of those that can end.
        let goes_on = |entry: &&Entry| entry.seen == self.scrape && entry.tracked;
        let over = |entry: &&Entry| entry.live && (ended == Ended::Failed || !goes_on(entry));
        let known = |entry: &Entry| match entry.handle {
            Handle::Known(series) => Some(series),
            Handle::Pending(_) | Handle::Dropped | Handle::Forgotten => None,
        };
        let mut ending: Vec<_> = self.entries().filter(over).filter_map(known).collect();
        if ended == Ended::Failed {
            ending.extend(&self.orphans);
        } else if !ending.is_empty() {
            // The same series may be there under another text.
            let present: HashSet<_> = self.entries().filter(goes_on).filter_map(known).collect();
            ending.retain(|series| !present.contains(series));
        }
        ending.sort_unstable();
        ending.dedup();
        ending
    }

    /// Ends a scrape whose batch was stored; `refs` are the handles of its rows.
    pub(super) fn finish(&mut self, ended: Ended, refs: &[Option<SeriesRef>]) {
        let scrape = self.scrape;
        self.retain(|entry, _| {
            if ended == Ended::Failed {
                entry.live = false;
                return entry.outlives_failure(scrape);
            }
            if entry.seen != scrape {
                return false;
            }
            entry.live = entry.tracked;
            if let Handle::Pending(row) = entry.handle {
                let Some(series) = refs.get(row).copied().flatten() else { return false };
                entry.handle = Handle::Known(series);
            }
            true
        });
        if ended == Ended::Failed {
            self.orphans.clear();
        } else if !self.again && self.present != self.order {
            std::mem::swap(&mut self.order, &mut self.present);
            for (place, slot) in self.order.iter().enumerate() {
                if let Some(Some(entry)) = self.slots.get_mut(*slot) {
                    entry.place = place;
                }
            }
            self.arrange();
        }
        self.tidy();
    }

    /// Makes room when most of the texts are of no use any more.
    fn tidy(&mut self) {
        if self.texts.unused > self.texts.all.len() / 2 {
            self.arrange();
        }
    }

    /// Lays the texts down anew, in the order of the last whole scrape.
    fn arrange(&mut self) {
        let mut arranged = String::with_capacity(self.texts.all.len() - self.texts.unused);
        let mut done = HashSet::with_capacity(self.order.len());
        let others = 0..self.slots.len();
        for slot in self.order.iter().copied().chain(others) {
            if let Some(Some(entry)) = self.slots.get_mut(slot)
                && done.insert(slot)
            {
                let start = arranged.len();
                arranged.push_str(self.texts.get(entry.text));
                entry.text.start = start;
            }
        }
        self.texts = Texts { all: arranged, unused: 0 };
    }

    /// Ends a scrape whose batch could not be stored: nothing of it happened.
    pub(super) fn abandon(&mut self) {
        let scrape = self.scrape;
        self.retain(|entry, _| entry.outlives_failure(scrape));
        self.tidy();
    }

    /// The orphans that have not come again; none are left.
    pub(super) fn take_orphans(&mut self) -> Vec<SeriesRef> {
        if self.orphans.is_empty() {
            return Vec::new();
        }
        let present: HashSet<_> = self.entries().map(|entry| entry.handle).collect();
        let mut orphans = std::mem::take(&mut self.orphans);
        orphans.retain(|series| !present.contains(&Handle::Known(*series)));
        orphans
    }

    /// Forgets the handles that the store does not know any more. Returns the texts of those that
    /// the present body shows: they are to be looked up in it again.
    pub(super) fn forget(&mut self, unknown: &HashSet<SeriesRef>) -> HashSet<Box<str>> {
        let mut texts = HashSet::new();
        let mut orphans = std::mem::take(&mut self.orphans);
        let scrape = self.scrape;
        self.retain(|entry, raw| match entry.handle {
            Handle::Known(series) if unknown.contains(&series) => {
                if entry.seen != scrape {
                    return false;
                }
                texts.insert(Box::from(raw));
                // It may have come to mean another series, and then this one has ended.
                if entry.live {
                    orphans.push(series);
                }
                entry.handle = Handle::Forgotten;
                true
            }
            _ => true,
        });
        self.orphans = orphans;
        texts
    }

    /// Forgets all texts, since they mean other labels under a new configuration.
    pub(super) fn orphan_all(&mut self) {
        for entry in std::mem::take(&mut self.slots).into_iter().flatten() {
            if let (Handle::Known(series), true) = (entry.handle, entry.live) {
                self.orphans.push(series);
            }
        }
        self.texts = Texts::default();
        self.index.clear();
        self.free.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests;
