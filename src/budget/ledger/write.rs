//! Writing the ledger without holding it: what is to be written is decided while the ledger is locked, and
//! takes the file along; it is written while nothing is locked; then the ledger is told, and has the
//! file again. In between nobody else can write, and what is promised is not used.

use std::collections::HashSet;
use std::time::Duration;

use stint_storage::DiskError;

use super::file::{Entry, LedgerFile};
use super::{GrantError, Key, Lease, Ledger, State};

/// The file of a ledger.
#[derive(Debug)]
pub(super) enum Paper {
    /// The ledger is in memory only.
    Nowhere,
    /// At hand.
    Here(LedgerFile),
    /// Being written.
    Away,
}

/// Something to be written, with the file.
#[derive(Debug)]
pub struct Write {
    file: LedgerFile,
    what: What,
    /// Leases that may be used once it is written.
    promised: Vec<Key>,
}

#[derive(Debug)]
enum What {
    /// Behind what is there.
    Append(Vec<Entry>),
    /// Instead of what is there.
    Rewrite(Vec<Entry>),
}

/// What came of it; to be brought back by [`Ledger::settle`].
#[derive(Debug)]
pub struct Written {
    file: LedgerFile,
    promised: Vec<Key>,
    outcome: Result<(), DiskError>,
    /// Of which series the file says that they were unused, where it is a new one.
    unused: Unused,
}

#[derive(Debug)]
enum Unused {
    /// What it said of them stands.
    AsBefore,
    /// Of these.
    Of(HashSet<Key>),
    /// It cannot be read.
    Unknown,
}

impl Write {
    /// Whether all leases are written, so that afterwards the file lists them.
    pub fn is_whole(&self) -> bool {
        matches!(self.what, What::Rewrite(_))
    }

    /// Writes. It waits for the disk.
    pub fn run(self) -> Written {
        let Self { mut file, what, promised } = self;
        let (outcome, unused) = match what {
            What::Append(new) => (file.append(&new), Unused::AsBefore),
            What::Rewrite(all) => file
                .begin_anew()
                .map_or_else(|error| (Err(error), Unused::AsBefore), |()| rewrite(&mut file, &all)),
        };
        Written { file, promised, outcome, unused }
    }
}

impl Write {
    /// What comes of it where somebody else works with the ledger by now: nothing.
    pub fn give_up(self) -> Written {
        let source = std::io::Error::other("another forwarder works with it by now");
        let error = DiskError::new("write", self.file.path(), source);
        self.fail(error)
    }

    /// What comes of it where something that has to be there first could not be written: nothing.
    pub fn fail(self, error: DiskError) -> Written {
        let Self { file, promised, .. } = self;
        Written { file, promised, outcome: Err(error), unused: Unused::AsBefore }
    }
}

fn rewrite(file: &mut LedgerFile, all: &[Entry]) -> (Result<(), DiskError>, Unused) {
    let outcome = file.rewrite(all);
    // A new file that failed may be there all the same.
    let unused = match &outcome {
        Ok(()) => Some(unused_of(all)),
        Err(_) => file.unused_in_file(),
    };
    (outcome, unused.map_or(Unused::Unknown, Unused::Of))
}

fn unused_of(entries: &[Entry]) -> HashSet<Key> {
    let unused = entries.iter().filter(|entry| entry.unused.as_secs() > 0);
    unused.map(|entry| entry.key).collect()
}

impl Ledger {
    /// Promises leases to all of `wanted`, or to none when more than `slots` would be live, and
    /// makes those of `renewed` that are dormant fit for use: at once those of which the file does not say
    /// that they were unused, the others with what is returned. Series that hold a lease already
    /// stay as they are. A checkpoint that is due is a part of it.
    ///
    /// A promised lease counts as live and must not be used before what is returned was written and
    /// brought back. Beside it: how many leases are promised or granted to new series.
    pub fn promise(
        &mut self,
        wanted: &[(Key, u16)],
        renewed: impl IntoIterator<Item = Key>,
        slots: u64,
        now: Duration,
    ) -> (Option<Write>, Result<u64, GrantError>) {
        let is_written = match self.paper {
            Paper::Nowhere => false,
            Paper::Here(_) => self.is_durable,
            Paper::Away => return (None, Err(GrantError::Busy)),
        };
        let mut promised = self.renewals(renewed, now);
        let mut new: Vec<(Key, u16)> =
            wanted.iter().filter(|(key, _)| !self.is_live(*key)).copied().collect();
        new.sort_unstable();
        new.dedup_by_key(|(key, _)| *key);
        let (count, free) = (new.len() as u64, slots.saturating_sub(self.live()));
        let outcome = if count > free {
            Err(GrantError::NoRoom { wanted: count, free })
        } else {
            for (key, class) in new {
                let is_promised = is_written;
                let granted = Lease::granted(now + self.hold, class);
                self.insert(key, Lease { is_promised, ..granted });
                if is_written {
                    promised.push(key);
                } else {
                    self.granted += 1;
                }
            }
            Ok(count)
        };
        (self.write(promised, now), outcome)
    }

    /// Makes those of `keys` fit for use that need no writing; the others are promised that.
    fn renewals(&mut self, keys: impl IntoIterator<Item = Key>, now: Duration) -> Vec<Key> {
        let mut promised = Vec::new();
        for key in keys {
            let Some(lease) = self.leases.get_mut(&key).filter(|lease| lease.is_dormant) else {
                continue;
            };
            if lease.is_unused_written && self.is_durable {
                if !std::mem::replace(&mut lease.is_promised, true) {
                    promised.push(key);
                }
            } else {
                // A restart holds it for the whole hold time, whether it was used in this run or not.
                lease.is_dormant = false;
                lease.is_unused_written = false;
                lease.ends = now + self.hold;
                self.changes += 1;
            }
        }
        promised
    }

    /// What is to be written so that `promised` is durable, and because it is time.
    fn write(&mut self, promised: Vec<Key>, now: Duration) -> Option<Write> {
        let Paper::Here(file) = &self.paper else { return None };
        if promised.is_empty() && !self.is_checkpoint_due {
            return None;
        }
        let entry = |key: &Key, lease: &Lease| {
            let is_used = !lease.is_dormant || lease.is_promised;
            let left = lease.ends.saturating_sub(now);
            let unused = if is_used { Duration::ZERO } else { self.hold.saturating_sub(left) };
            Entry { key: *key, class: lease.class, unused }
        };
        let what = if self.is_checkpoint_due || !file.is_open() {
            What::Rewrite(self.leases.iter().map(|(key, lease)| entry(key, lease)).collect())
        } else {
            let lease = |key: &Key| Some(entry(key, self.leases.get(key)?));
            What::Append(promised.iter().filter_map(lease).collect())
        };
        self.is_checkpoint_due = false;
        match std::mem::replace(&mut self.paper, Paper::Away) {
            Paper::Here(file) => Some(Write { file, what, promised }),
            Paper::Nowhere | Paper::Away => None,
        }
    }

    /// Takes the file back, and keeps what was promised with it, or takes that back where it was not
    /// written.
    ///
    /// # Errors
    /// It was not written.
    pub fn settle(&mut self, written: Written, now: Duration) -> Result<(), GrantError> {
        let Written { file, promised, outcome, unused } = written;
        self.paper = Paper::Here(file);
        self.note_unused(&unused, outcome.is_ok(), now);
        for key in promised {
            let Some(lease) = self.leases.get_mut(&key) else { continue };
            lease.is_promised = false;
            if outcome.is_ok() {
                if std::mem::take(&mut lease.is_dormant) {
                    lease.ends = now + self.hold;
                } else {
                    self.granted += 1;
                }
                lease.is_unused_written = false;
                self.changes += 1;
            } else if lease.is_dormant || lease.state == State::Recovered {
                // That the server may count it does not depend on the disk.
                lease.is_dormant = true;
            } else {
                self.remove(key);
            }
        }
        outcome.map_err(GrantError::from)
    }

    /// Notes of which leases the file says that they were unused.
    fn note_unused(&mut self, unused: &Unused, is_written: bool, now: Duration) {
        if matches!(unused, Unused::AsBefore) {
            return;
        }
        for (key, lease) in &mut self.leases {
            let so_far = self.hold.saturating_sub(lease.ends.saturating_sub(now));
            let may_be = is_written || so_far >= Duration::from_secs(1);
            lease.is_unused_written = lease.is_dormant
                && match unused {
                    Unused::Of(keys) => may_be && keys.contains(key),
                    Unused::Unknown | Unused::AsBefore => may_be,
                };
        }
    }

    /// Sees to it that all leases are written next time.
    pub fn want_checkpoint(&mut self) {
        self.is_checkpoint_due = true;
    }

    /// Writes all live leases as a new file, here and now.
    ///
    /// # Errors
    /// The disk failed, or it is being written.
    pub fn checkpoint(&mut self, now: Duration) -> Result<(), GrantError> {
        self.want_checkpoint();
        let (write, outcome) = self.promise(&[], [], u64::MAX, now);
        outcome?;
        write.map_or(Ok(()), |write| self.settle(write.run(), now))
    }
}
