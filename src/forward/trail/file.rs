//! The trail's file: records, each with a checksum.
//!
//! Layout, little endian: the magic `STTRAIL1` and the log's identity (32 hexadecimal digits), then
//! records of magic `TREC` (4 bytes), length (u32) and CRC32C (u32) of what follows: whether it is a
//! round (u8), the position up to which was read (two u64), the newest time (i64), and groups of
//! kind (u8), target (u64), time around which its intervals lie (i64), time (i64), number of series (u32), and those (u64 each), with the bits of
//! a value (u64) where the kind has one. The first record is what was known when the file was made.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_model::{STALE_NAN_BITS, Timestamp};
use stint_storage::disk::{read_all, write_atomically};
use stint_storage::{Disk, DiskError, DiskFile, WalId};

use crate::forward::source::Position;

const FILE_MAGIC: &[u8; 8] = b"STTRAIL1";
const RECORD_MAGIC: &[u8; 4] = b"TREC";
const LOG_DIGITS: usize = 32;
/// A file that grew beyond that is not read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Below that it is not worth making a new one.
const SHORT: u64 = 256 << 10;
/// About the bytes of a series in a snapshot.
const SERIES_BYTES: u64 = 16;

/// What is known of the samples of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// That they were sent.
    Plain,
    /// Their values too.
    Valued,
    /// They are stale markers.
    Stale,
}

/// Samples of one target and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) kind: Kind,
    pub(super) target: u64,
    pub(super) anchor: Timestamp,
    pub(super) at: Timestamp,
    /// The series, and the bits of their values where the kind has any.
    pub(super) series: Vec<(u64, u64)>,
}

/// What is written at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) until: Position,
    pub(super) newest: Timestamp,
    /// It may not have been dealt with.
    pub(super) is_round: bool,
    pub(super) groups: Vec<Group>,
}

/// Target, time around which its intervals lie, time, kind, series, bits of the value.
pub(super) type Entry = (u64, Timestamp, Timestamp, Kind, u64, u64);

/// Entries as groups.
pub(super) fn grouped(mut entries: Vec<Entry>) -> Vec<Group> {
    entries.sort_unstable();
    let mut groups: Vec<Group> = Vec::new();
    for (target, anchor, at, kind, series, bits) in entries {
        let place = (target, anchor, at, kind);
        match groups.last_mut() {
            Some(group) if (group.target, group.anchor, group.at, group.kind) == place => {
                group.series.push((series, bits));
            }
            _ => groups.push(Group { kind, target, anchor, at, series: vec![(series, bits)] }),
        }
    }
    groups
}

/// The open file.
pub(super) struct TrailFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    log: WalId,
    /// Open for appending; nothing at first and after a failure: then the next write makes a new file.
    open: Option<Box<dyn DiskFile>>,
    bytes: u64,
    /// What earlier runs left and may not have been dealt with, so that it must not be left out of a
    /// new file.
    rounds: Vec<Record>,
    /// What this run noted in a new file. It has dealt with all before that: one round follows the other.
    latest: Option<Record>,
}

impl fmt::Debug for TrailFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrailFile({}, {} bytes)", self.path.display(), self.bytes)
    }
}

impl TrailFile {
    /// Reads the file. What is damaged ends it.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path, log: WalId) -> (Self, Vec<Record>) {
        let records = match read(&*disk, path) {
            Ok(Some(bytes)) => parse(&bytes, log).unwrap_or_else(|why| {
                tracing::warn!(
                    "{}: {why}; what was sent before is not known, and the next samples are sent as if nothing had been",
                    path.display()
                );
                Vec::new()
            }),
            Ok(None) => Vec::new(),
            Err(error) => {
                tracing::warn!("{error}; what was sent before is not known");
                Vec::new()
            }
        };
        let rounds = records.iter().filter(|record| record.is_round).cloned().collect();
        let path = path.to_path_buf();
        (Self { disk, path, log, open: None, bytes: 0, rounds, latest: None }, records)
    }

    /// Makes `record` durable. Where there is no file, a new one begins with `snapshot` and what has not
    /// been dealt with.
    pub(super) fn append(
        &mut self,
        record: &Record,
        snapshot: impl FnOnce() -> Record,
    ) -> Result<(), DiskError> {
        let Some(file) = self.open.take() else {
            self.latest = Some(record.clone());
            return self.write(&snapshot());
        };
        let bytes = print(record);
        file.append(&bytes)?;
        file.sync()?;
        self.bytes += bytes.len() as u64;
        self.open = Some(file);
        Ok(())
    }

    /// Everything that was noted has been dealt with.
    pub(super) fn settle(&mut self) {
        (self.rounds, self.latest) = (Vec::new(), None);
    }

    /// Replaces the file by `snapshot` and what has not been dealt with.
    pub(super) fn write(&mut self, snapshot: &Record) -> Result<(), DiskError> {
        let mut bytes = FILE_MAGIC.to_vec();
        bytes.extend_from_slice(self.log.to_string().as_bytes());
        for record in std::iter::once(snapshot).chain(&self.rounds).chain(&self.latest) {
            bytes.extend_from_slice(&print(record));
        }
        self.open = None;
        if let Some(dir) = self.path.parent() {
            self.disk.create_dir(dir)?;
        }
        write_atomically(&*self.disk, &self.path, &bytes)?;
        self.open = Some(self.disk.open(&self.path)?);
        self.bytes = bytes.len() as u64;
        Ok(())
    }

    /// Whether it is much longer than a snapshot of so many series.
    pub(super) fn is_long(&self, series: usize) -> bool {
        self.bytes > SHORT + 4 * SERIES_BYTES * series as u64
    }
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match disk.size(path) {
        Ok(size) if size > FILE_BYTES_MAX => {
            tracing::warn!("{}: it is too large to be read", path.display());
            Ok(None)
        }
        Ok(_) => read_all(disk, path).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn print(record: &Record) -> Vec<u8> {
    let mut payload = vec![u8::from(record.is_round)];
    payload.extend_from_slice(&record.until.segment.to_le_bytes());
    payload.extend_from_slice(&record.until.offset.to_le_bytes());
    payload.extend_from_slice(&record.newest.as_ms().to_le_bytes());
    for Group { kind, target, anchor, at, series } in &record.groups {
        payload.push(*kind as u8);
        payload.extend_from_slice(&target.to_le_bytes());
        payload.extend_from_slice(&anchor.as_ms().to_le_bytes());
        payload.extend_from_slice(&at.as_ms().to_le_bytes());
        payload.extend_from_slice(&(series.len() as u32).to_le_bytes());
        for (series, bits) in series {
            payload.extend_from_slice(&series.to_le_bytes());
            if *kind == Kind::Valued {
                payload.extend_from_slice(&bits.to_le_bytes());
            }
        }
    }
    let mut bytes = RECORD_MAGIC.to_vec();
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// The records of a file. The last one may be torn: nothing was sent that it speaks of. Of another
/// log, only what was sent last is known, and no position.
fn parse(bytes: &[u8], log: WalId) -> Result<Vec<Record>, String> {
    let rest = bytes.strip_prefix(FILE_MAGIC).ok_or("it does not start as a trail does")?;
    let (of, mut rest) = rest.split_at_checked(LOG_DIGITS).ok_or("it is too short")?;
    let is_same = of == log.to_string().as_bytes();
    let mut records = Vec::new();
    while let Some((payload, after)) = take_payload(rest) {
        let mut record = record(payload).ok_or("a record is damaged")?;
        if !is_same {
            (record.is_round, record.until) = (false, Position::default());
        }
        records.push(record);
        rest = after;
    }
    if records.is_empty() { Err("its first record is damaged".to_owned()) } else { Ok(records) }
}

fn take_payload(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(RECORD_MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    (crc32c::crc32c(payload) == u32::from_le_bytes(*crc)).then_some((payload, rest))
}

/// Reads numbers from the front.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*first))
    }

    fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.u64().map(|number| Timestamp(number.cast_signed()))
    }
}

fn record(payload: &[u8]) -> Option<Record> {
    let mut numbers = Numbers(payload);
    let is_round = numbers.u8()? == 1;
    let until = Position { segment: numbers.u64()?, offset: numbers.u64()? };
    let newest = numbers.time()?;
    let mut groups = Vec::new();
    while !numbers.0.is_empty() {
        let kind = match numbers.u8()? {
            0 => Kind::Plain,
            1 => Kind::Valued,
            2 => Kind::Stale,
            _ => return None,
        };
        let (target, anchor, at) = (numbers.u64()?, numbers.time()?, numbers.time()?);
        let count = numbers.u32()? as usize;
        let mut series = Vec::with_capacity(count.min(numbers.0.len() / 8));
        for _ in 0..count {
            let number = numbers.u64()?;
            let bits = match kind {
                Kind::Plain => 0,
                Kind::Valued => numbers.u64()?,
                Kind::Stale => STALE_NAN_BITS,
            };
            series.push((number, bits));
        }
        groups.push(Group { kind, target, anchor, at, series });
    }
    Some(Record { until, newest, is_round, groups })
}

#[cfg(test)]
mod tests {
    use stint_storage::SimDisk;
    use stint_storage::disk::sim::{Crash, Unsynced};

    use super::*;

    fn log(number: u8) -> WalId {
        format!("{number:032x}").parse().unwrap()
    }

    fn some(n: u64) -> Record {
        let at = Timestamp(n as i64 * 1000);
        let entry = |kind, series, bits| (7, Timestamp(5), at, kind, series, bits);
        Record {
            until: Position { segment: 3, offset: n },
            newest: Timestamp(n as i64 * 1000),
            is_round: true,
            groups: grouped(vec![
                entry(Kind::Valued, 3, 9),
                entry(Kind::Plain, 2, 0),
                entry(Kind::Plain, 1, 0),
                entry(Kind::Stale, 4, STALE_NAN_BITS),
            ]),
        }
    }

    fn empty() -> Record {
        Record {
            until: Position::default(),
            newest: Timestamp::MIN,
            is_round: false,
            groups: Vec::new(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_what_was_not_sent() {
        let disk = SimDisk::new();
        let path = Path::new("trail");
        let open = |disk: &SimDisk, of| TrailFile::open(Arc::new(disk.clone()), path, log(of));
        let (mut file, records) = open(&disk, 1);
        assert!(records.is_empty());
        file.append(&some(1), empty).unwrap();
        file.append(&some(2), || panic!("there is a file")).unwrap();
        let (mut again, records) = open(&disk, 1);
        assert_eq!(records, [empty(), some(1), some(2)]);
        assert_eq!(some(1).groups.len(), 3);
        // What has not been dealt with is carried over into a new file.
        again.append(&some(3), empty).unwrap();
        assert_eq!(open(&disk, 1).1, [empty(), some(1), some(2), some(3)]);
        let whole = read_all(&disk, path).unwrap();
        for cut in 1..40 {
            let torn = parse(&whole[..whole.len() - cut], log(1)).unwrap();
            assert_eq!(torn, [empty(), some(1), some(2)]);
        }
        assert!(parse(&whole[..60], log(1)).is_err() && parse(b"something", log(1)).is_err());
        again.settle();
        again.write(&empty()).unwrap();
        assert_eq!(open(&disk, 1).1, [empty()]);
        // Positions of another log mean nothing.
        again.append(&some(4), empty).unwrap();
        let other = open(&disk, 2).1;
        assert!(other.iter().all(|it| !it.is_round && it.until == Position::default()));
        assert_eq!(other[1].groups, some(4).groups);
        let cut = disk.after_crash(Crash { data: Unsynced::Dropped, names_kept: false });
        assert_eq!(open(&cut, 1).1, [empty(), some(4)], "it is durable");
    }

    #[test]
    fn a_disk_that_fails_for_long_costs_the_memory_of_one_round() {
        let disk = SimDisk::new();
        let open = || TrailFile::open(Arc::new(disk.clone()), Path::new("trail"), log(1));
        open().0.append(&some(1), empty).unwrap();
        let (mut file, _) = open();
        disk.set_capacity(0);
        for n in 2..50 {
            file.append(&some(n), empty).unwrap_err();
        }
        disk.set_capacity(u64::MAX);
        file.append(&some(50), empty).unwrap();
        // What an earlier run left is not forgotten.
        assert_eq!(open().1, [empty(), some(1), some(50)]);
    }

    #[test]
    fn it_is_long_when_it_is_much_more_than_what_is_needed() {
        let disk = SimDisk::new();
        let (mut file, _) = TrailFile::open(Arc::new(disk), Path::new("trail"), log(1));
        let many: Vec<Entry> =
            (0..100_000).map(|n| (1, Timestamp(0), Timestamp(1), Kind::Plain, n, 0)).collect();
        let record = Record { groups: grouped(many), ..some(1) };
        file.append(&record, empty).unwrap();
        assert!(!file.is_long(100_000) && file.is_long(1000));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = record(&bytes);
            let mut file = FILE_MAGIC.to_vec();
            file.extend_from_slice(log(1).to_string().as_bytes());
            file.extend_from_slice(RECORD_MAGIC);
            file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            file.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            file.extend_from_slice(&bytes);
            let _ = parse(&file, log(1));
        }
    }
}
