//! The ledger's file: records of leases, each with a checksum.
//!
//! Layout, little endian: the magic `STLEDGR2`, then records of magic `LREC` (4 bytes), number of
//! entries (u32), CRC32C of what follows (u32), and per entry the key (16 bytes), the class (u16)
//! and for how many seconds it is known to be unused (u16). The first record is the checkpoint.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stint_storage::disk::{read_all, write_atomically};
use stint_storage::{Disk, DiskError, DiskFile};

use super::Found;
use crate::budget::group::Key;

const FILE_MAGIC: &[u8; 8] = b"STLEDGR2";
const RECORD_MAGIC: &[u8; 4] = b"LREC";
const RECORD_HEADER: usize = 12;
const ENTRY: usize = 20;

/// One lease as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) class: u16,
    /// For how long the series has surely not been sent, rounded down; zero while it may be.
    pub(super) unused: Duration,
}

/// The open file.
pub(super) struct LedgerFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Open for appending; `None` after a failure: then the next write makes a new file.
    open: Option<Box<dyn DiskFile>>,
    /// Entries in the file, ended leases included.
    entries: u64,
}

impl fmt::Debug for LedgerFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerFile({}, {} entries)", self.path.display(), self.entries)
    }
}

impl LedgerFile {
    /// Reads the file. It is written anew at the first grant or checkpoint.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path) -> (Self, Vec<Entry>, Found) {
        let (entries, found) = match read_all(&*disk, path) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.is_not_found() => (Vec::new(), Found::Missing),
            Err(error) => (Vec::new(), Found::Damaged(error.to_string())),
        };
        let file = Self { disk, path: path.to_path_buf(), open: None, entries: 0 };
        (file, entries, found)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can be appended to.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Makes `new` durable behind what is there.
    pub(super) fn append(&mut self, new: &[Entry]) -> Result<(), DiskError> {
        let Some(file) = self.open.take() else {
            let source = std::io::Error::other("it has to be made anew");
            return Err(DiskError::new("append to", &self.path, source));
        };
        file.append(&record(new))?;
        file.sync()?;
        self.entries += new.len() as u64;
        self.open = Some(file);
        Ok(())
    }

    /// Lets go of the file, and sees to it that a new one has a place. What is there stays.
    pub(super) fn begin_anew(&mut self) -> Result<(), DiskError> {
        self.open = None;
        self.path.parent().map_or(Ok(()), |dir| create_dir_durably(&*self.disk, dir))
    }

    /// Replaces the file by one with these leases.
    pub(super) fn rewrite(&mut self, live: &[Entry]) -> Result<(), DiskError> {
        let mut bytes = FILE_MAGIC.to_vec();
        bytes.extend_from_slice(&record(live));
        write_atomically(&*self.disk, &self.path, &bytes)?;
        self.open = Some(self.disk.open(&self.path)?);
        self.entries = live.len() as u64;
        Ok(())
    }

    /// The series that the file on disk says were unused for a while; nothing when it cannot be read.
    pub(super) fn unused_in_file(&self) -> Option<HashSet<Key>> {
        let (entries, found) = match read_all(&*self.disk, &self.path) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.is_not_found() => (Vec::new(), Found::Missing),
            Err(_) => return None,
        };
        let unused = entries.iter().filter(|entry| !entry.unused.is_zero());
        (!matches!(found, Found::Damaged(_))).then(|| unused.map(|entry| entry.key).collect())
    }

    /// Whether enough leases have ended since the last checkpoint to write a new one.
    pub(super) fn wants_checkpoint(&self, live: u64) -> bool {
        self.open.is_none() || self.entries > live + live / 16
    }
}

/// Creates `dir` so that its name, and those above it, survive the machine.
fn create_dir_durably(disk: &dyn Disk, dir: &Path) -> Result<(), DiskError> {
    disk.create_dir(dir)?;
    for above in dir.ancestors().skip(1) {
        disk.sync_dir(above)?;
    }
    Ok(())
}

fn record(entries: &[Entry]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(entries.len() * ENTRY);
    for Entry { key, class, unused } in entries {
        let secs = u16::try_from(unused.as_secs()).unwrap_or(u16::MAX);
        payload.extend_from_slice(&key.0.to_le_bytes());
        payload.extend_from_slice(&class.to_le_bytes());
        payload.extend_from_slice(&secs.to_le_bytes());
    }
    let mut bytes = Vec::with_capacity(RECORD_HEADER + payload.len());
    bytes.extend_from_slice(RECORD_MAGIC);
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// The record at the start of `bytes` and what follows it.
fn take_record(bytes: &[u8]) -> Option<(Vec<Entry>, &[u8])> {
    let rest = bytes.strip_prefix(RECORD_MAGIC)?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = (u32::from_le_bytes(*count) as usize).checked_mul(ENTRY)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    if crc32c::crc32c(payload) != u32::from_le_bytes(*crc) {
        return None;
    }
    let entries = payload.chunks_exact(ENTRY).filter_map(entry).collect();
    Some((entries, rest))
}

/// Whether all bytes that the record at the start of `bytes` should have are there.
fn is_full_length(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.get(RECORD_MAGIC.len()..) else { return false };
    let Some((count, rest)) = rest.split_first_chunk::<4>() else { return false };
    let length = (u32::from_le_bytes(*count) as usize).saturating_mul(ENTRY);
    rest.len() >= length.saturating_add(RECORD_HEADER - 8)
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let (key, rest) = bytes.split_first_chunk::<16>()?;
    let (class, rest) = rest.split_first_chunk::<2>()?;
    let unused = rest.first_chunk::<2>()?;
    Some(Entry {
        key: Key(u128::from_le_bytes(*key)),
        class: u16::from_le_bytes(*class),
        unused: Duration::from_secs(u16::from_le_bytes(*unused).into()),
    })
}

fn parse(bytes: &[u8]) -> (Vec<Entry>, Found) {
    let mut entries = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(FILE_MAGIC) else {
        return (entries, Found::Damaged("it does not start as a ledger does".to_owned()));
    };
    let mut records = 0u64;
    while let Some((found, after)) = take_record(rest) {
        entries.extend(found);
        rest = after;
        records += 1;
    }
    // The checkpoint was complete before the file got its name.
    let torn_at = bytes.len() - rest.len();
    if records == 0 {
        return (entries, Found::Damaged("its checkpoint is damaged".to_owned()));
    }
    // A grant is synced before anything is sent under it, so only the last one can be torn, and
    // what it granted was never sent. A whole record behind the damage disproves that; so does a
    // last record of full length, which may have been synced and used before it was damaged.
    let full = is_full_length(rest);
    let mut behind = false;
    let mut tail = rest;
    while let Some((_, next)) = tail.split_first() {
        if let Some((found, _)) = take_record(tail) {
            entries.extend(found);
            behind = true;
        }
        tail = next;
    }
    let count = entries.iter().map(|entry| entry.key).collect::<HashSet<Key>>().len() as u64;
    if behind || full {
        // What renewed them may be what is damaged.
        for entry in &mut entries {
            entry.unused = Duration::ZERO;
        }
        return (entries, Found::Damaged(format!("a record at byte {torn_at} is damaged")));
    }
    (entries, Found::Leases(count))
}
