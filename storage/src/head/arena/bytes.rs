//! Bytes of chunks that stay readable.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use stint_model::Columns;

use crate::codec::chunk::{self, Check, beside};
use crate::codec::{Corruption, crc, times};
use crate::disk::Mapped;

/// What a piece holds.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Memory(Arc<Vec<u8>>),
    File(Mapped),
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::File(bytes) => bytes,
        }
    }
}

/// Chunks begin at least so many bytes apart: none has less than a count, a form, a flag and a
/// checksum, and the kind of its values.
const CHUNK_BYTES_MIN: usize = 8;

/// Which chunks of a piece were found to be as they were sealed, so that each is checked once.
#[derive(Debug, Default)]
pub(super) struct Intact {
    /// One bit for as many bytes as the shortest chunk has; made when the first chunk is read.
    bits: OnceLock<Box<[AtomicU64]>>,
}

impl Intact {
    fn word(&self, start: usize) -> Option<(&AtomicU64, u64)> {
        let place = start / CHUNK_BYTES_MIN;
        let word = self.bits.get()?.get(place / 64)?;
        Some((word, 1 << (place % 64)))
    }

    fn has(&self, start: usize) -> bool {
        self.word(start).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn add(&self, start: usize, piece_bytes: usize) {
        let words = piece_bytes.div_ceil(CHUNK_BYTES_MIN * 64);
        self.bits.get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect());
        if let Some((word, bit)) = self.word(start) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bits.get().map_or(0, |bits| size_of_val(&**bits))
    }
}

/// A chunk, and the one that has its times where it has none of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes {
    from: Option<Content>,
    range: Range<usize>,
    /// Where the chunk with the times begins.
    times_at: Option<usize>,
    /// What is known of the chunks of its piece, where that does not change.
    intact: Option<Arc<Intact>>,
}

impl Bytes {
    /// The chunk at `range` of a full piece.
    pub(super) fn in_piece(
        from: Option<Content>,
        intact: Option<Arc<Intact>>,
        range: Range<usize>,
    ) -> Self {
        let chunk = from.as_ref().and_then(|content| content.bytes().get(range.clone()));
        let times_at = chunk
            .and_then(beside::distance)
            // One that is damaged may say anything.
            .map(|distance| range.start.saturating_sub(distance));
        Self { from, range, times_at, intact }
    }

    /// A copy of the chunk at `range` of a piece that changes.
    pub(super) fn copied(piece: &[u8], range: Range<usize>) -> Self {
        let chunk = piece.get(range.clone()).unwrap_or_default();
        let times = beside::distance(chunk)
            .and_then(|distance| piece.get(range.start.checked_sub(distance)?..range.start))
            .map(|other| other.get(..beside::head_len(other).unwrap_or(0)).unwrap_or_default());
        let copy = [times.unwrap_or_default(), chunk].concat();
        let range = copy.len() - chunk.len()..copy.len();
        let from = Some(Content::Memory(Arc::new(copy)));
        Self { from, range, times_at: times.map(|_| 0), intact: None }
    }

    /// The bytes of the chunk itself.
    pub(in crate::head) fn get(&self) -> &[u8] {
        self.slice(self.range.clone())
    }

    fn slice(&self, range: Range<usize>) -> &[u8] {
        let from = self.from.as_ref().map(Content::bytes).unwrap_or_default();
        from.get(range).unwrap_or_default()
    }

    /// The chunk that has the times, and what is behind it.
    fn other(&self) -> Option<&[u8]> {
        self.times_at.map(|start| self.slice(start..self.range.start))
    }

    /// Appends the samples. Of the chunks of its series, this is number `place`. The checksum is compared
    /// once, and once more where `again` asks for it: a file may have been damaged since.
    pub(crate) fn decode(
        &self,
        again: bool,
        known: &mut times::Known,
        place: usize,
        columns: &mut Columns,
    ) -> Result<(), Corruption> {
        let start = self.range.start;
        let check = match &self.intact {
            Some(intact) if !again && intact.has(start) => Check::Done,
            _ => Check::Now,
        };
        match self.other() {
            None => chunk::decode_known(self.get(), check, known, place, columns),
            Some(other) => beside::decode_beside(self.get(), other, check, known, place, columns),
        }?;
        if let (Check::Now, Some(intact), Some(from)) = (check, &self.intact, &self.from) {
            intact.add(start, from.bytes().len());
        }
        Ok(())
    }

    /// The chunk with times of its own; as it is, where it is damaged.
    pub(in crate::head) fn alone(&self) -> Vec<u8> {
        let alone = self.other().and_then(|other| beside::alone(self.get(), other).ok());
        alone.unwrap_or_else(|| self.get().to_vec())
    }

    /// Whether the chunk is as it was sealed.
    pub(in crate::head) fn is_whole(&self) -> bool {
        match self.other() {
            None => is_whole(self.get()),
            Some(other) => beside::alone(self.get(), other).is_ok(),
        }
    }
}

/// Whether a chunk with times of its own is as it was sealed.
pub(in crate::head) fn is_whole(chunk: &[u8]) -> bool {
    let Some((body, checksum)) = chunk.split_last_chunk::<4>() else { return false };
    beside::distance(chunk).is_none() && crc::checksum(body) == u32::from_le_bytes(*checksum)
}

#[cfg(test)]
mod tests {
    use stint_model::Timestamp;

    use super::*;

    #[test]
    fn a_checksum_is_compared_once_and_again_where_that_is_asked_for() {
        let mut columns = Columns::default();
        columns.push_float(Timestamp(1), 2.5);
        let mut chunk = chunk::encode(&chunk::Rows::of(&columns));
        let intact = Arc::new(Intact::default());
        let bytes = |chunk: &[u8]| {
            let from = Some(Content::Memory(Arc::new(chunk.to_vec())));
            Bytes::in_piece(from, Some(Arc::clone(&intact)), 0..chunk.len())
        };
        let read = |chunk: &[u8], again| {
            let mut read = Columns::default();
            bytes(chunk).decode(again, &mut times::Known::default(), 0, &mut read).map(|()| read)
        };
        assert_eq!(read(&chunk, false).unwrap(), columns);
        if let Some(last) = chunk.last_mut() {
            *last ^= 1;
        }
        assert_eq!(read(&chunk, false).unwrap(), columns, "it was whole when it was read first");
        read(&chunk, true).unwrap_err();
    }
}
