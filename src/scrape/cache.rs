//! From the text of a series to its handle, between the scrapes of one target.
//!
//! A series that was there in the previous scrape costs one look-up; its labels are not decoded
//! again. The cache also knows which series a target has shown last, and so which have ended.

use std::collections::{HashMap, HashSet};

use stint_model::SeriesRef;

/// What is known of a series' text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handle {
    /// The store knows the series.
    Known(SeriesRef),
    /// The series is in the present batch, in this row, with its labels.
    Pending(usize),
    /// Relabelling dropped it.
    Dropped,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) handle: Handle,
    /// Whether bucket bounds were normalised when the labels were decoded: with another type the
    /// same text means other labels.
    pub(super) bounded: bool,
    /// The scrape that saw it last.
    pub(super) seen: u64,
    /// Whether it is to get a staleness marker when it ends, as of the scrape that saw it last.
    pub(super) tracked: bool,
    /// Whether it was there, and tracked, after the previous scrape.
    live: bool,
}

/// All series of one target.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Box<str>, Entry, foldhash::fast::RandomState>,
    scrape: u64,
    /// Series of a former configuration, to be ended unless they come again.
    orphans: Vec<SeriesRef>,
}

/// What to do about the end of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The body was read to its end: what was not in it has ended.
    Whole,
    /// There was no body, or a bad one: everything has ended.
    Failed,
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

    /// What is known of `raw`.
    pub(super) fn find(&mut self, raw: &str, bounded: bool) -> Option<&mut Entry> {
        self.entries.get_mut(raw).filter(|entry| entry.bounded == bounded)
    }

    /// Remembers `raw`, which the present scrape shows for the first time. A series that the same
    /// text meant before is ended with the former configuration's.
    pub(super) fn insert(&mut self, raw: &str, handle: Handle, bounded: bool, tracked: bool) {
        let entry = Entry { handle, bounded, seen: self.scrape, tracked, live: false };
        if let Some(old) = self.entries.insert(raw.into(), entry)
            && let (Handle::Known(series), true) = (old.handle, old.live)
        {
            self.orphans.push(series);
        }
    }

    /// The series to be ended now.
    pub(super) fn ending(&self, ended: Ended) -> Vec<SeriesRef> {
        let over =
            |entry: &&Entry| entry.live && (ended == Ended::Failed || entry.seen != self.scrape);
        let known = |entry: &Entry| match entry.handle {
            Handle::Known(series) => Some(series),
            Handle::Pending(_) | Handle::Dropped => None,
        };
        let mut ending: Vec<_> = self.entries.values().filter(over).filter_map(known).collect();
        if ended == Ended::Failed {
            ending.extend(&self.orphans);
        } else if !ending.is_empty() {
            // The same series may be there under another text.
            let present: HashSet<_> = self
                .entries
                .values()
                .filter(|entry| entry.seen == self.scrape)
                .filter_map(known)
                .collect();
            ending.retain(|series| !present.contains(series));
        }
        ending.sort_unstable();
        ending.dedup();
        ending
    }

    /// Ends a scrape whose batch was stored; `refs` are the handles of its rows.
    pub(super) fn finish(&mut self, ended: Ended, refs: &[Option<SeriesRef>]) {
        let scrape = self.scrape;
        self.entries.retain(|_, entry| {
            if ended == Ended::Failed {
                entry.live = false;
                return !matches!(entry.handle, Handle::Pending(_));
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
        }
    }

    /// Ends a scrape whose batch could not be stored: nothing of it happened.
    pub(super) fn abandon(&mut self) {
        self.entries.retain(|_, entry| !matches!(entry.handle, Handle::Pending(_)));
    }

    /// The orphans that have not come again; none are left.
    pub(super) fn take_orphans(&mut self) -> Vec<SeriesRef> {
        if self.orphans.is_empty() {
            return Vec::new();
        }
        let present: HashSet<_> = self.entries.values().map(|entry| entry.handle).collect();
        let mut orphans = std::mem::take(&mut self.orphans);
        orphans.retain(|series| !present.contains(&Handle::Known(*series)));
        orphans
    }

    /// Forgets the texts whose handle the store does not know any more, and returns them.
    pub(super) fn forget(&mut self, unknown: &HashSet<SeriesRef>) -> HashSet<Box<str>> {
        let mut texts = HashSet::new();
        self.entries.retain(|raw, entry| match entry.handle {
            Handle::Known(series) if unknown.contains(&series) => {
                if entry.seen == self.scrape {
                    texts.insert(raw.clone());
                }
                false
            }
            _ => true,
        });
        texts
    }

    /// Forgets all texts, since they mean other labels under a new configuration.
    pub(super) fn orphan_all(&mut self) {
        for entry in std::mem::take(&mut self.entries).into_values() {
            if let (Handle::Known(series), true) = (entry.handle, entry.live) {
                self.orphans.push(series);
            }
        }
    }
}
