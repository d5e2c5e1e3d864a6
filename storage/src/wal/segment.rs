//! One file of the log: its header, its records, and reading them back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskResult};

/// Bytes before the first record.
pub(crate) const HEADER_BYTES: u64 = 16;
/// Bytes before the payload of each record.
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
/// The longest payload that is written or believed.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// The version of the format that is written.
pub(crate) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"STINTWAL";
const READ_BYTES: usize = 1 << 20;

/// Where segment `number` lies.
pub(crate) fn path(number: u64) -> PathBuf {
    Path::new(super::DIR).join(format!("{number:08}"))
}

/// The header of a new segment.
pub(crate) fn header() -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
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
    /// Bytes that are no record. Where `resumes`, reading goes on behind them; else they reach to
    /// the end.
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
                let behind = behind.filter(|behind| *behind < self.end);
                if let Some(behind) = behind
                    && self.check(behind)?.is_ok()
                {
                    self.offset = behind;
                    let bytes = behind - offset;
                    return Ok(Step::Damaged { offset, bytes, reason, resumes: true });
                }
                self.offset = self.end;
                Ok(Step::Damaged { offset, bytes: left, reason, resumes: false })
            }
        }
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

    fn file(records: &[&[u8]]) -> (SimDisk, Vec<u64>) {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("wal")).unwrap();
        let writer = disk.create(&path(0)).unwrap();
        writer.append(&header()).unwrap();
        let mut starts = Vec::new();
        for payload in records {
            starts.push(disk.size(&path(0)).unwrap());
            let mut record = vec![0; RECORD_HEADER_BYTES];
            record.extend_from_slice(payload);
            seal(&mut record);
            writer.append(&record).unwrap();
        }
        (disk, starts)
    }

    fn read(disk: &SimDisk) -> Vec<String> {
        let end = disk.size(&path(0)).unwrap();
        let mut reader = SegmentReader::new(Arc::new(disk.clone()), path(0), 0, end);
        let mut steps = Vec::new();
        loop {
            match reader.step().unwrap() {
                Step::Record { payload, .. } => {
                    steps.push(String::from_utf8(payload.to_vec()).unwrap());
                }
                Step::Damaged { offset, bytes, resumes, .. } => {
                    steps.push(format!("damaged {offset}+{bytes} {resumes}"));
                }
                Step::End => return steps,
            }
        }
    }

    #[test]
    fn records_come_back_in_order() {
        let (disk, _) = file(&[b"one", b"two", b"three"]);
        assert_eq!(read(&disk), ["one", "two", "three"]);
        let mut reader = SegmentReader::new(Arc::new(disk), path(0), 0, 1000);
        assert_eq!(reader.version().unwrap(), Some(VERSION));
    }

    #[test]
    fn a_damaged_payload_costs_one_record() {
        let (disk, starts) = file(&[b"one", b"two", b"three"]);
        disk.damage(&path(0), starts[1] as usize + 9, 1).unwrap();
        assert_eq!(read(&disk), ["one", "damaged 27+11 true", "three"]);
    }

    #[test]
    fn a_damaged_length_or_end_costs_the_rest() {
        let (disk, starts) = file(&[b"one", b"two", b"three"]);
        disk.damage(&path(0), starts[1] as usize, 0x40).unwrap();
        assert_eq!(read(&disk), ["one", "damaged 27+24 false"]);
        let (disk, _) = file(&[b"one", b"two"]);
        disk.open(&path(0)).unwrap().truncate(37).unwrap();
        assert_eq!(read(&disk), ["one", "damaged 27+10 false"]);
        let (disk, _) = file(&[b"one"]);
        disk.open(&path(0)).unwrap().append(&[0; 20]).unwrap();
        assert_eq!(read(&disk), ["one", "damaged 27+20 false"]);
    }
}
