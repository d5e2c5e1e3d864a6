//! Files of chunks: those of a block, in which the index points to chunks, and those of the head,
//! in which each chunk says whose it is.

use stint_model::Timestamp;

use super::chunk::Encoding;
use super::cursor::Cursor;
use super::{Damage, checksum_holds};

const BLOCK_MAGIC: u32 = 0x85BD_40DD;
const HEAD_MAGIC: u32 = 0x0130_BC91;
const HEADER_BYTES: usize = 8;
/// The bit of an encoding that tells that a chunk of the head came late.
const LATE: u8 = 1 << 7;

/// A file of chunks of a block.
#[derive(Clone, Copy, Debug)]
pub struct BlockSegment<'a> {
    bytes: &'a [u8],
}

impl<'a> BlockSegment<'a> {
    /// The file that consists of `bytes`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Damage> {
        header(bytes, BLOCK_MAGIC, "not a file of chunks")?;
        Ok(Self { bytes })
    }

    /// The chunk at `offset`: how it is encoded, and its data. Its checksum was verified.
    pub fn chunk(&self, offset: u32) -> Result<(Encoding, &'a [u8]), Damage> {
        let start = offset as usize;
        let rest = self.bytes.get(start.max(HEADER_BYTES)..).unwrap_or_default();
        read_chunk(rest).map_err(|damage| damage.behind(start))
    }
}

fn read_chunk(rest: &[u8]) -> Result<(Encoding, &[u8]), Damage> {
    let mut cursor = Cursor::new(rest);
    let length = cursor.count(1)?;
    let checked = cursor.rest().get(..=length).ok_or_else(|| cursor.damage("ends too early"))?;
    let encoding = cursor.byte()?;
    let data = cursor.take(length)?;
    if !checksum_holds(checked, cursor.be_u32()?) {
        return Err(Damage::new(0, "the checksum of a chunk does not match"));
    }
    Ok((Encoding(encoding), data))
}

/// A chunk of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadChunk<'a> {
    /// Whose it is, as records of the log name series.
    pub series: u64,
    /// Time of its first sample.
    pub first: Timestamp,
    /// Time of its last sample.
    pub last: Timestamp,
    /// Whether its samples came after later ones.
    pub is_late: bool,
    /// How it is encoded.
    pub encoding: Encoding,
    /// The chunk.
    pub data: &'a [u8],
}

/// The chunks of a file of the head, in order of writing. What a crash left unwritten ends them.
/// After damage there is nothing more: where the next chunk begins is not known.
#[derive(Clone, Debug)]
pub struct HeadSegment<'a> {
    cursor: Cursor<'a>,
    bytes: &'a [u8],
}

impl<'a> HeadSegment<'a> {
    /// The file that consists of `bytes`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Damage> {
        header(bytes, HEAD_MAGIC, "not a file of chunks of the head")?;
        let mut cursor = Cursor::new(bytes);
        cursor.take(HEADER_BYTES)?;
        Ok(Self { cursor, bytes })
    }

    fn read(&mut self) -> Result<HeadChunk<'a>, Damage> {
        let start = self.cursor.at();
        let series = self.cursor.be_u64()?;
        let first = Timestamp(self.cursor.be_u64()? as i64);
        let last = Timestamp(self.cursor.be_u64()? as i64);
        let encoding = self.cursor.byte()?;
        let data = self.cursor.counted()?;
        let checked = self.bytes.get(start..self.cursor.at()).unwrap_or_default();
        if !checksum_holds(checked, self.cursor.be_u32()?) {
            return Err(Damage::new(start, "the checksum of a chunk does not match"));
        }
        let (is_late, encoding) = (encoding & LATE != 0, Encoding(encoding & !LATE));
        Ok(HeadChunk { series, first, last, is_late, encoding, data })
    }
}

impl<'a> Iterator for HeadSegment<'a> {
    type Item = Result<HeadChunk<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        // Files are made longer before they are written.
        if self.cursor.rest().iter().take(25).all(|byte| *byte == 0) {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.cursor = Cursor::new(&[]);
        }
        Some(read)
    }
}

fn header(bytes: &[u8], magic: u32, otherwise: &'static str) -> Result<(), Damage> {
    let mut cursor = Cursor::new(bytes);
    if bytes.len() < HEADER_BYTES || cursor.be_u32()? != magic {
        return Err(Damage::new(0, otherwise));
    }
    if cursor.byte()? != 1 {
        return Err(Damage::new(4, "a format of chunks of a later version of Prometheus"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::cursor::put;

    fn file(magic: u32) -> Vec<u8> {
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes
    }

    fn block_file(chunks: &[&[u8]]) -> (Vec<u8>, Vec<u32>) {
        let (mut bytes, mut offsets) = (file(BLOCK_MAGIC), Vec::new());
        for data in chunks {
            offsets.push(bytes.len() as u32);
            put::uvarint(&mut bytes, data.len() as u64);
            let checked = [&[1], *data].concat();
            bytes.extend_from_slice(&checked);
            bytes.extend_from_slice(&crc32c::crc32c(&checked).to_be_bytes());
        }
        (bytes, offsets)
    }

    fn head_file(chunks: &[(u64, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = file(HEAD_MAGIC);
        for (series, encoding, data) in chunks {
            let start = bytes.len();
            for number in [*series, 10, 20] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.push(*encoding);
            put::uvarint(&mut bytes, data.len() as u64);
            bytes.extend_from_slice(data);
            let checksum = crc32c::crc32c(&bytes[start..]);
            bytes.extend_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn chunks_of_a_block_are_found_by_their_place() {
        let (bytes, offsets) = block_file(&[b"one", b""]);
        let segment = BlockSegment::open(&bytes).unwrap();
        assert_eq!(segment.chunk(offsets[0]), Ok((Encoding::XOR, &b"one"[..])));
        assert_eq!(segment.chunk(offsets[1]), Ok((Encoding::XOR, &b""[..])));
        assert!(segment.chunk(bytes.len() as u32).is_err());
        assert!(segment.chunk(u32::MAX).is_err());
        for at in offsets[0] as usize..offsets[1] as usize {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(BlockSegment::open(&damaged).unwrap().chunk(offsets[0]).is_err(), "byte {at}");
        }
        assert!(BlockSegment::open(&file(HEAD_MAGIC)).is_err());
    }

    #[test]
    fn chunks_of_the_head_follow_each_other_up_to_what_was_never_written() {
        let mut bytes = head_file(&[(7, 1, b"one"), (8, LATE | 2, b"two")]);
        fn read(bytes: &[u8]) -> Vec<Result<HeadChunk<'_>, Damage>> {
            HeadSegment::open(bytes).unwrap().collect()
        }
        bytes.extend_from_slice(&[0; 100]);
        let all = read(&bytes);
        let [Ok(one), Ok(two)] = &all[..] else { panic!("{all:?}") };
        assert_eq!((one.series, one.first, one.last), (7, Timestamp(10), Timestamp(20)));
        assert_eq!((one.encoding, one.data, one.is_late), (Encoding::XOR, &b"one"[..], false));
        assert_eq!((two.series, two.encoding, two.is_late), (8, Encoding::HISTOGRAM, true));
        bytes[20] ^= 1;
        assert!(matches!(&read(&bytes)[..], [Err(_)]));
        assert!(matches!(&read(&head_file(&[(7, 1, b"one")])[..30])[..], [Err(_)]));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_panic(rest: Vec<u8>, offset: u32) {
            let bytes = [file(BLOCK_MAGIC), rest.clone()].concat();
            let _ = BlockSegment::open(&bytes).unwrap().chunk(offset % 64);
            let bytes = [file(HEAD_MAGIC), rest].concat();
            let _ = HeadSegment::open(&bytes).unwrap().count();
        }
    }
}
