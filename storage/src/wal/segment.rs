//! One file of the log: its header, its records, and reading them back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record;
use crate::disk::{Disk, DiskResult};

/// Bytes before the first record.
pub(crate) const HEADER_BYTES: u64 = 16;
/// Bytes before the payload of each record.
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
/// The longest payload that is written or believed.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// The version of the format of segments that is written.
pub(crate) const VERSION: u32 = 1;
/// The same of checkpoints, which is the newest that is read.
pub(crate) const CHECKPOINT_VERSION: u32 = 4;

const MAGIC: [u8; 8] = *b"STINTWAL";
const READ_BYTES: usize = 1 << 18;
/// How many bytes are tried as records in the search for what follows damage, so that content made
/// to look like records cannot stall the start.
const SEARCH_BYTES_MAX: usize = if cfg!(test) { 1 << 22 } else { 1 << 28 };

/// Where segment `number` lies.
pub(crate) fn path(number: u64) -> PathBuf {
    Path::new(super::DIR).join(format!("{number:08}"))
}

/// The header of a new file whose format has `version`.
pub(crate) fn header(version: u32) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Completes a record whose payload follows [`RECORD_HEADER_BYTES`] free bytes.
pub(crate) fn seal(record: &mut [u8]) {
    if let Some((header, payload)) = record.split_at_mut_checked(RECORD_HEADER_BYTES) {
        let length = (payload.len() as u32).to_le_bytes();
        header[..4].copy_from_slice(&length);
        header[4..].copy_from_slice(&crc(length, payload).to_le_bytes());
    }
}

/// The length is covered too, so that a damaged one is noticed even before zeros.
fn crc(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A record.
    Record { payload: &'a [u8], after: u64 },
    /// Nothing more, up to the end that was set.
    End,
    /// Bytes that are no record. Where `resumes`, a record follows them and reading goes on there;
    /// else they reach to the end.
    Damaged { offset: u64, bytes: u64, reason: &'static str, resumes: bool },
}

/// Reads the records of a file in order.
pub(crate) struct SegmentReader {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    offset: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl SegmentReader {
    /// Reads `path` from the record at `offset` (0 = the first), up to the byte `end`.
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, offset: u64, end: u64) -> Self {
        Self { disk, path, offset, end, buffer: Vec::new(), buffer_at: 0 }
    }

    /// Lets reading go on up to the byte `end` of a file that has grown.
    pub(crate) fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    /// Where the next record starts.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The version in the header, if the header is whole.
    pub(crate) fn version(&mut self) -> DiskResult<Option<u32>> {
        self.fill(0, HEADER_BYTES as usize)?;
        let Some(header) = self.bytes(0, HEADER_BYTES as usize) else { return Ok(None) };
        let (content, crc) = header.split_at(12);
        let whole = content.starts_with(&MAGIC) && crc == crc32c::crc32c(content).to_le_bytes();
        let version = content.get(8..12).and_then(|v| v.try_into().ok()).map(u32::from_le_bytes);
        Ok(version.filter(|_| whole))
    }

    /// The next record.
    pub(crate) fn step(&mut self) -> DiskResult<Step<'_>> {
        self.offset = self.offset.max(HEADER_BYTES);
        let offset = self.offset;
        if offset >= self.end {
            return Ok(Step::End);
        }
        let left = self.end - offset;
        match self.check(offset)? {
            Ok(length) => {
                let start = offset + RECORD_HEADER_BYTES as u64;
                let after = start + length as u64;
                self.offset = after;
                Ok(Step::Record { payload: self.bytes(start, length).unwrap_or_default(), after })
            }
            Err((reason, length)) => {
                let behind = length.map(|l| offset + (RECORD_HEADER_BYTES + l) as u64);
                let next = match behind.filter(|behind| *behind < self.end) {
                    Some(behind) if self.check(behind)?.is_ok() => Some(behind),
                    _ => self.search(offset + 1)?,
                };
                self.offset = next.unwrap_or(self.end);
                let bytes = next.map_or(left, |next| next - offset);
                Ok(Step::Damaged { offset, bytes, reason, resumes: next.is_some() })
            }
        }
    }

    /// The first record at or behind `from`, where a damaged length does not tell. It takes the
    /// rest of the file into memory. Decoding comes before the checksum: it ends at the first
    /// byte that makes no sense, while the checksum of what looks long would be computed at every
    /// other byte.
    fn search(&mut self, from: u64) -> DiskResult<Option<u64>> {
        let left = usize::try_from(self.end.saturating_sub(from)).unwrap_or(usize::MAX);
        self.fill(from, left)?;
        let Some(rest) = self.bytes(from, left) else { return Ok(None) };
        let mut tried = 0;
        for at in 0..left {
            let Some((header, behind)) =
                rest.get(at..).and_then(<[u8]>::split_first_chunk::<RECORD_HEADER_BYTES>)
            else {
                break;
            };
            let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
            let length = [l0, l1, l2, l3];
            let Some(payload) = behind.get(..u32::from_le_bytes(length) as usize) else { continue };
            if payload.is_empty() || payload.len() > PAYLOAD_BYTES_MAX {
                continue;
            }
            let readable = record::readable_bytes(payload);
            if readable == payload.len()
                && crc(length, payload) == u32::from_le_bytes([c0, c1, c2, c3])
            {
                return Ok(Some(from + at as u64));
            }
            tried += readable;
            if tried > SEARCH_BYTES_MAX {
                break;
            }
        }
        Ok(None)
    }

    /// Length of the payload of the record at `offset`, or why there is none and how long it
    /// claims to be.
    fn check(&mut self, offset: u64) -> DiskResult<Result<usize, (&'static str, Option<usize>)>> {
        self.fill(offset, RECORD_HEADER_BYTES)?;
        let Some(header) = self.bytes(offset, RECORD_HEADER_BYTES) else {
            return Ok(Err(("record cut short", None)));
        };
        let (length, stored) = header.split_at(4);
        let length: [u8; 4] = length.try_into().unwrap_or_default();
        let stored: [u8; 4] = stored.try_into().unwrap_or_default();
        let count = u32::from_le_bytes(length) as usize;
        if count == 0 || count > PAYLOAD_BYTES_MAX {
            return Ok(Err(("impossible length", None)));
        }
        let start = offset + RECORD_HEADER_BYTES as u64;
        if start + count as u64 > self.end {
            return Ok(Err(("record cut short", None)));
        }
        self.fill(offset, RECORD_HEADER_BYTES + count)?;
        let Some(payload) = self.bytes(start, count) else {
            return Ok(Err(("record cut short", None)));
        };
        if crc(length, payload) == u32::from_le_bytes(stored) {
            Ok(Ok(count))
        } else {
            Ok(Err(("checksum does not match", Some(count))))
        }
    }

    fn fill(&mut self, offset: u64, length: usize) -> DiskResult<()> {
        if self.bytes(offset, length).is_none() {
            let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let wanted = length.max(READ_BYTES).min(left);
            // Not both at once.
            self.buffer = Vec::new();
            self.buffer = self.disk.read(&self.path, offset, wanted)?;
            self.buffer_at = offset;
        }
        Ok(())
    }

    fn bytes(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.buffer_at)?).ok()?;
        self.buffer.get(start..start.checked_add(length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;
    use stint_model::Timestamp;

    /// A segment of records that hold one number each.
    fn file(numbers: &[i64]) -> (SimDisk, Vec<u64>) {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("wal")).unwrap();
        let writer = disk.create(&path(0)).unwrap();
        writer.append(&header(VERSION)).unwrap();
        let mut starts = Vec::new();
        for number in numbers {
            starts.push(disk.size(&path(0)).unwrap());
            let mut encoder = record::Encoder::default();
            encoder.reset(RECORD_HEADER_BYTES);
            encoder.flush_begin(Timestamp(*number));
            encoder.flush_done(Timestamp(*number));
            seal(encoder.bytes_mut());
            writer.append(encoder.bytes_mut()).unwrap();
        }
        (disk, starts)
    }

    fn read(disk: &SimDisk) -> Vec<String> {
        let end = disk.size(&path(0)).unwrap();
        let mut reader = SegmentReader::new(Arc::new(disk.clone()), path(0), 0, end);
        let mut steps = Vec::new();
        loop {
            match reader.step().unwrap() {
                Step::Record { payload, .. } => record::decode(payload, |item| {
                    if let record::Item::FlushBegin { before } = item {
                        steps.push(before.to_string());
                    }
                })
                .unwrap(),
                Step::Damaged { offset, bytes, resumes, .. } => {
                    steps.push(format!("damaged {offset}+{bytes} {resumes}"));
                }
                Step::End => return steps,
            }
        }
    }

    #[test]
    fn records_come_back_in_order() {
        let (disk, _) = file(&[1, 2, 3]);
        assert_eq!(read(&disk), ["1", "2", "3"]);
        let mut reader = SegmentReader::new(Arc::new(disk), path(0), 0, 1000);
        assert_eq!(reader.version().unwrap(), Some(VERSION));
    }

    #[test]
    fn damage_costs_the_records_it_hits() {
        let (disk, starts) = file(&[1, 2, 3, 4]);
        assert_eq!(starts, [16, 28, 40, 52]);
        for at in starts[1]..starts[2] {
            for bit in 0..8 {
                disk.damage(&path(0), at as usize, 1 << bit).unwrap();
                assert_eq!(read(&disk), ["1", "damaged 28+12 true", "3", "4"], "{at}, bit {bit}");
                disk.damage(&path(0), at as usize, 1 << bit).unwrap();
            }
        }
        disk.damage(&path(0), starts[1] as usize, 1).unwrap();
        disk.damage(&path(0), starts[2] as usize, 0x40).unwrap();
        assert_eq!(read(&disk), ["1", "damaged 28+24 true", "4"]);
    }

    #[test]
    fn a_torn_end_is_lost_as_a_whole() {
        let (disk, _) = file(&[1, 2]);
        disk.open(&path(0)).unwrap().truncate(38).unwrap();
        assert_eq!(read(&disk), ["1", "damaged 28+10 false"]);
        let (disk, starts) = file(&[1, 2, 3]);
        disk.damage(&path(0), starts[2] as usize, 0x40).unwrap();
        assert_eq!(read(&disk), ["1", "2", "damaged 40+12 false"]);
        let (disk, _) = file(&[1]);
        disk.open(&path(0)).unwrap().append(&[0; 20]).unwrap();
        assert_eq!(read(&disk), ["1", "damaged 28+20 false"]);
    }

    #[test]
    fn searching_what_looks_like_records_ends() {
        let (disk, _) = file(&[1]);
        // Each byte begins a record as long as the rest, and every item of it can be decoded.
        disk.open(&path(0)).unwrap().append(&vec![1; 1 << 25]).unwrap();
        assert_eq!(read(&disk), ["1", "damaged 28+33554432 false"]);
    }
}
