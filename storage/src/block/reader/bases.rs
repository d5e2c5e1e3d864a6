//! Chunks that others are taken against: found by their times, and kept for a while as decoded,
//! since several of their neighbours are mostly read together.

use std::sync::Arc;

use stint_model::Columns;

use super::Inner;
use crate::block::chunks::ChunkRef;
use crate::block::relatives::{DEPTH_MAX, TimesOf};
use crate::codec::varint::Reader;
use crate::codec::{Corruption, chunk};
use crate::sync::Mutex;

/// Decoded chunks kept per block.
const SLOTS: usize = 4;

/// All floats of a chunk, and whose it is.
type Slot = Option<(u32, TimesOf, Arc<Vec<f64>>)>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Bases {
    slots: [Mutex<Slot>; SLOTS],
}

/// What is taken against another chunk.
#[derive(Clone, Copy)]
pub(super) struct Relative {
    pub(super) series: u32,
    /// How many series before it the other is.
    pub(super) distance: u32,
    pub(super) times: TimesOf,
    /// Rows that both have.
    pub(super) rows: usize,
}

impl Inner {
    /// The floats of the chunk that `relative` is taken against.
    pub(super) fn base_of(&self, relative: Relative) -> Result<Arc<Vec<f64>>, Corruption> {
        self.base_in(relative, DEPTH_MAX)
    }

    fn base_in(&self, relative: Relative, depth: u8) -> Result<Arc<Vec<f64>>, Corruption> {
        let Relative { series, distance, times, rows } = relative;
        let damage = |what| Corruption { file: self.index.file().to_owned(), offset: 0, what };
        let before = series.checked_sub(distance).filter(|before| *before < series);
        let Some(before) = before else {
            return Err(damage("a chunk that is taken against none before it"));
        };
        let slot = self.bases.slots.get(before as usize % SLOTS);
        if let Some(slot) = slot
            && let Some((held, of, floats)) = &*slot.lock()
            && (*held, *of) == (before, times)
        {
            return Ok(Arc::clone(floats));
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Err(damage("chunks that are taken against each other in a row"));
        };
        let (number, offset, found) = self.chunk_at(before, times)?;
        let bytes = self.chunk(before, number, (offset, found.length))?;
        let mut columns = Columns::default();
        let mut reader = Reader::new(bytes);
        let taken = match found.base {
            None => chunk::take_rows(&mut reader, rows, &mut columns),
            Some(distance) => {
                let base =
                    self.base_in(Relative { series: before, distance, times, rows }, depth)?;
                chunk::take_relative(&mut reader, &base, 0..rows, &mut columns)
            }
        };
        taken.map_err(|corruption| corruption.in_file(&self.chunks_file, offset))?;
        if columns.values.len() != rows {
            return Err(damage("a chunk that is taken against one of other times"));
        }
        let floats = Arc::new(columns.values);
        if let Some(slot) = slot {
            *slot.lock() = Some((before, times, Arc::clone(&floats)));
        }
        Ok(floats)
    }

    /// Number, place and reference of the chunk of `series` that has these times.
    fn chunk_at(&self, series: u32, times: TimesOf) -> Result<(usize, u64, ChunkRef), Corruption> {
        let in_index = |corruption: Corruption| corruption.in_file(self.index.file(), 0);
        let (mut offset, mut list) = self.index.chunks(series).map_err(in_index)?;
        let count = list.varint_up_to(list.rest().len()).map_err(in_index)?;
        for number in 0..count {
            let chunk = ChunkRef::take(&mut list).map_err(in_index)?;
            offset = offset.saturating_add(chunk.gap);
            if (TimesOf { column: chunk.column, part: chunk.part }) == times {
                return Ok((number, offset, chunk));
            }
            offset = offset.saturating_add(u64::from(chunk.length));
        }
        Err(in_index(Corruption::new(0, "a chunk that is taken against one that is not there")))
    }
}
