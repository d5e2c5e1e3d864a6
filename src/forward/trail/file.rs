//! The trail's file: records, each with a checksum.
//!
//! Layout, little endian: the magic `STTRAIL2`, the log's identity (32 hexadecimal digits) and a hash of
//! what decides the labels that series are sent under (u64), then records of magic `TREC` (4 bytes), length (u32) and CRC32C (u32) of what follows: whether it is a
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

const FILE_MAGIC: &[u8; 8] = b"STTRAIL2";
/// Files of that kind do not say under which labels series were sent.
const FILE_MAGIC_1: &[u8; 8] = b"STTRAIL1";
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

/// What a trail is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) struct Origin {
    /// The log in which its positions mean something.
    pub(in crate::forward) log: WalId,
    /// A hash of what decides the labels that series are sent under: under other ones, they are not
    /// those that it speaks of.
    pub(in crate::forward) names: u64,
}

/// What is left of a file.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) records: Vec<Record>,
    /// Where something cannot be read that was whole once, by byte.
    pub(super) damaged: Vec<usize>,
}

/// The open file.
pub(super) struct TrailFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    origin: Origin,
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
    /// Reads the file, for a log of which everything before `done` was dealt with. What is damaged is
    /// left out, and told.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        origin: Origin,
        done: Position,
    ) -> (Self, Left) {
        let left = match read(&*disk, path, FILE_BYTES_MAX) {
            Ok(Some(bytes)) => parse(&bytes, origin, done).unwrap_or_else(|why| {
                tracing::warn!(
                    "{}: {why}; what was sent before is not known, and the next samples are sent as if nothing had been",
                    path.display()
                );
                Left { damaged: vec![0], ..Left::default() }
            }),
            Ok(None) => Left::default(),
            Err(error) => {
                tracing::warn!("{error}; what was sent before is not known");
                Left { damaged: vec![0], ..Left::default() }
            }
        };
        for at in left.damaged.iter().filter(|at| **at > 0) {
            tracing::warn!(
                "{}: it is damaged at byte {at}; of what was chosen there and was on its way to the endpoint, some may not be sent again",
                path.display()
            );
        }
        let rounds = left.records.iter().filter(|record| record.is_round).cloned().collect();
        let path = path.to_path_buf();
        (Self { disk, path, origin, open: None, bytes: 0, rounds, latest: None }, left)
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
        let mut bytes = header(self.origin);
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

/// The bytes of a file; nothing where there is none. One that is larger than `most` cannot be read.
fn read(disk: &dyn Disk, path: &Path, most: u64) -> Result<Option<Vec<u8>>, DiskError> {
    match disk.size(path) {
        Ok(size) if size > most => {
            let source = std::io::Error::other(format!("its {size} bytes are too many"));
            Err(DiskError::new("read", path, source))
        }
        Ok(_) => read_all(disk, path).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn header(origin: Origin) -> Vec<u8> {
    let mut bytes = FILE_MAGIC.to_vec();
    bytes.extend_from_slice(origin.log.to_string().as_bytes());
    bytes.extend_from_slice(&origin.names.to_le_bytes());
    bytes
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

/// The records of a file. Of another log, only what was sent last is known, and no position. Under other
/// labels, what was not dealt with was not chosen among the series that there are now.
fn parse(bytes: &[u8], origin: Origin, done: Position) -> Result<Left, String> {
    let (is_old, rest) = match (bytes.strip_prefix(FILE_MAGIC), bytes.strip_prefix(FILE_MAGIC_1)) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err("it does not start as a trail does".to_owned()),
    };
    let (log, mut rest) = rest.split_at_checked(LOG_DIGITS).ok_or("it is too short")?;
    let mut names = None;
    if !is_old {
        let (number, after) = rest.split_first_chunk::<8>().ok_or("it is too short")?;
        (names, rest) = (Some(u64::from_le_bytes(*number)), after);
    }
    let begin = bytes.len() - rest.len();
    let mut left = records(rest, begin);
    if left.records.is_empty() {
        return Err("its first record is damaged".to_owned());
    }
    if log != origin.log.to_string().as_bytes() {
        for record in &mut left.records {
            (record.is_round, record.until) = (false, Position::default());
        }
    } else if names != Some(origin.names) {
        left.records.retain(|record| !record.is_round || record.until <= done);
        left.records.iter_mut().for_each(|record| record.is_round = false);
    }
    Ok(left)
}

/// The records in `bytes`, which begin at byte `begin` of the file. What is cut at the end was not
/// synced, and nothing was sent that it speaks of. That cannot be said of what has all its bytes, or
/// whole records behind it.
fn records(bytes: &[u8], begin: usize) -> Left {
    let mut left = Left::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = begin + bytes.len() - rest.len();
        if let Some((payload, after)) = take_payload(rest) {
            match record(payload) {
                Some(record) => left.records.push(record),
                None => left.damaged.push(at),
            }
            rest = after;
            continue;
        }
        let behind = (1..rest.len()).find_map(|skipped| {
            let behind = rest.get(skipped..)?;
            take_payload(behind).map(|_| behind)
        });
        if behind.is_some() || has_all_bytes(rest) {
            left.damaged.push(at);
        }
        rest = behind.unwrap_or_default();
    }
    left
}

/// Whether all bytes that the record at the start of `bytes` should have are there.
fn has_all_bytes(bytes: &[u8]) -> bool {
    let length = bytes.strip_prefix(RECORD_MAGIC).and_then(|rest| rest.split_first_chunk::<4>());
    length.is_some_and(|(length, rest)| rest.len() >= 4 + u32::from_le_bytes(*length) as usize)
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

    fn origin(log: u8, names: u64) -> Origin {
        Origin { log: format!("{log:032x}").parse().unwrap(), names }
    }

    const START: Position = Position { segment: 0, offset: 0 };

    fn opened(disk: &SimDisk, origin: Origin) -> (TrailFile, Left) {
        TrailFile::open(Arc::new(disk.clone()), Path::new("trail"), origin, START)
    }

    #[test]
    fn what_is_too_large_to_be_read_is_not_missing() {
        let disk = SimDisk::new();
        let path = Path::new("trail");
        assert!(read(&disk, path, 10).unwrap().is_none());
        write_atomically(&disk, path, &[0; 11]).unwrap();
        assert!(read(&disk, path, 10).is_err());
        assert_eq!(read(&disk, path, 11).unwrap().unwrap().len(), 11);
    }

    /// A file of three rounds behind an empty snapshot, and where each record begins.
    fn three() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(origin(1, 1));
        let mut starts = Vec::new();
        for record in [empty(), some(1), some(2), some(3)] {
            starts.push(bytes.len());
            bytes.extend_from_slice(&print(&record));
        }
        (bytes, starts)
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
        let open = |disk: &SimDisk, log| {
            let (file, left) = opened(disk, origin(log, 1));
            (file, left.records)
        };
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
        let whole = read_all(&disk, Path::new("trail")).unwrap();
        for cut in 1..40 {
            let torn = parse(&whole[..whole.len() - cut], origin(1, 1), START).unwrap();
            assert_eq!(torn.records, [empty(), some(1), some(2)]);
            assert!(torn.damaged.is_empty(), "that is how a crash leaves it");
        }
        let fails = |bytes: &[u8]| parse(bytes, origin(1, 1), START).is_err();
        assert!(fails(&whole[..60]) && fails(b"something"));
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
    fn under_other_labels_nothing_counts_that_was_not_dealt_with() {
        let (bytes, _) = three();
        let done = some(2).until;
        let past = |record| Record { is_round: false, ..record };
        let renamed = parse(&bytes, origin(1, 2), done).unwrap();
        assert_eq!(renamed.records, [empty(), past(some(1)), past(some(2))]);
        assert_eq!(parse(&bytes, origin(1, 1), done).unwrap().records.len(), 4);
        // Files of the first kind do not tell of labels.
        let mut old = FILE_MAGIC_1.to_vec();
        old.extend_from_slice(&bytes[FILE_MAGIC.len()..FILE_MAGIC.len() + LOG_DIGITS]);
        old.extend_from_slice(&bytes[header(origin(1, 1)).len()..]);
        assert_eq!(parse(&old, origin(1, 1), done).unwrap().records, renamed.records);
    }

    #[test]
    fn damage_costs_the_record_that_it_hits_and_is_told() {
        let (bytes, starts) = three();
        let all = [empty(), some(1), some(2), some(3)];
        for (hit, start) in starts.iter().enumerate() {
            let end = starts.get(hit + 1).copied().unwrap_or(bytes.len());
            for at in [*start, start + 9, end - 1] {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0x10;
                let left = parse(&bytes, origin(1, 1), START).unwrap();
                let mut whole = all.to_vec();
                whole.remove(hit);
                assert_eq!(left.records, whole, "byte {at}");
                // Where the start of the last one is gone, it may as well never have been whole.
                let is_told = hit < 3 || at > *start;
                assert_eq!(left.damaged, if is_told { vec![*start] } else { vec![] }, "byte {at}");
            }
        }
        let disk = SimDisk::new();
        stint_storage::disk::write_atomically(&disk, Path::new("trail"), &bytes).unwrap();
        disk.damage(Path::new("trail"), starts[2] + 20, 1).unwrap();
        let (mut file, left) = opened(&disk, origin(1, 1));
        assert_eq!((left.records.len(), left.damaged), (3, vec![starts[2]]));
        file.append(&some(4), empty).unwrap();
        let left = opened(&disk, origin(1, 1)).1;
        assert_eq!(left.records, [empty(), some(1), some(3), some(4)]);
        assert!(left.damaged.is_empty(), "the new file is whole");
    }

    #[test]
    fn a_disk_that_fails_for_long_costs_the_memory_of_one_round() {
        let disk = SimDisk::new();
        let open = || opened(&disk, origin(1, 1));
        open().0.append(&some(1), empty).unwrap();
        let (mut file, _) = open();
        disk.set_capacity(0);
        for n in 2..50 {
            file.append(&some(n), empty).unwrap_err();
        }
        disk.set_capacity(u64::MAX);
        file.append(&some(50), empty).unwrap();
        // What an earlier run left is not forgotten.
        assert_eq!(open().1.records, [empty(), some(1), some(50)]);
    }

    #[test]
    fn it_is_long_when_it_is_much_more_than_what_is_needed() {
        let disk = SimDisk::new();
        let (mut file, _) = opened(&disk, origin(1, 1));
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
            let mut file = header(origin(1, 1));
            file.extend_from_slice(RECORD_MAGIC);
            file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            file.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            file.extend_from_slice(&bytes);
            let _ = parse(&file, origin(1, 1), START);
            let _ = records(&bytes, 0);
        }
    }
}
