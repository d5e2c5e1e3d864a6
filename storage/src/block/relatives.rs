//! Which chunks are taken against which while a block is written.
//!
//! Series come in order of their labels, so those that move together (the buckets of one
//! histogram, the same thing counted twice) mostly come shortly after each other: the chunks
//! written last are tried. One that is like an earlier one to the bit is found at any distance.
//! Chunks stand by themselves, or are taken against one that does, or are like one of either kind:
//! to read one, at most two others are read.

use std::collections::VecDeque;

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_128;

use crate::codec::chunk;
use crate::codec::values::relative::{self, Base};

/// How many others are read for a chunk, at most.
pub(super) const DEPTH_MAX: u8 = 2;

/// Chunks written last that others may be taken against.
const RECENT_MAX: usize = 16;

/// Shorter rows are not worth a look at others.
const ROWS_BYTES_MIN: usize = 16;

/// Chunks of which it is remembered what they hold: all are forgotten when there are more.
const REMEMBERED_MAX: usize = 1 << 18;

/// Rows of a chunk and the times that it shares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TimesOf {
    pub(super) column: u32,
    pub(super) part: Option<(u32, u32)>,
}

struct Recent {
    series: u32,
    times: TimesOf,
    base: Base,
}

/// Where a chunk is that holds something, and how many others are read for it.
#[derive(Clone, Copy)]
struct Holder {
    series: u32,
    depth: u8,
}

/// What was written so far, as far as others may be taken against it.
#[derive(Default)]
pub(super) struct Relatives {
    recent: VecDeque<Recent>,
    by_content: HashMap<(u128, TimesOf), Holder>,
    scratch: Vec<u8>,
}

impl Relatives {
    /// Looks for a chunk against which that of `series` takes less than `rows`, as
    /// [`chunk::put_rows`] made them of `values`, and replaces them; the other's series.
    pub(super) fn shorten(
        &mut self,
        series: u32,
        times: TimesOf,
        values: &[f64],
        rows: &mut Vec<u8>,
    ) -> Option<u32> {
        let floats = chunk::floats_in(rows).filter(|_| rows.len() >= ROWS_BYTES_MIN)?;
        self.scratch.clear();
        for value in values {
            self.scratch.extend_from_slice(&value.to_le_bytes());
        }
        let content = (xxh3_128(&self.scratch), times);
        if let Some(holder) = self.by_content.get(&content)
            && holder.series < series
        {
            let like = holder.series;
            rows.clear();
            chunk::begin_relative(rows);
            relative::put_same(values.len(), rows);
            return Some(like);
        }
        let own = Base::of(values, floats);
        if let Some(own) = &own
            && let Some(nearest) = nearest(&self.recent, times, own)
        {
            self.scratch.clear();
            chunk::begin_relative(&mut self.scratch);
            // The reference costs two bytes.
            if own.put(&nearest.base, &mut self.scratch) && self.scratch.len() + 2 < rows.len() {
                let base = nearest.series;
                std::mem::swap(rows, &mut self.scratch);
                self.remember(content, Holder { series, depth: 1 });
                return Some(base);
            }
        }
        self.remember(content, Holder { series, depth: 0 });
        if let Some(base) = own {
            if self.recent.len() == RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(Recent { series, times, base });
        }
        None
    }

    fn remember(&mut self, content: (u128, TimesOf), holder: Holder) {
        if holder.depth < DEPTH_MAX {
            if self.by_content.len() >= REMEMBERED_MAX {
                self.by_content.clear();
            }
            self.by_content.insert(content, holder);
        }
    }
}

/// The one of `recent` that `own` seems to differ least from, if that is less than what it has.
fn nearest<'r>(recent: &'r VecDeque<Recent>, times: TimesOf, own: &Base) -> Option<&'r Recent> {
    let alike = recent.iter().filter(|recent| recent.times == times);
    let gains = alike.filter_map(|recent| {
        let (alone, beside) = own.compare(&recent.base)?;
        (beside < alone).then_some((beside, recent))
    });
    gains.min_by_key(|(beside, _)| *beside).map(|(_, recent)| recent)
}
