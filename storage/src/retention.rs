//! Which blocks are to go, and why: a pure function of what the blocks hold.

use stint_model::{Span, Timestamp};

use crate::block::{BlockId, BlockMeta};

/// How long and how much is kept. Without either limit everything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionOptions {
    /// Samples are kept this long, and until their whole block is older. Zero or less: forever.
    pub time: Span,
    /// All files of the database together may take this much. Zero: any amount.
    pub size_bytes: u64,
}

/// A block and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// What it holds.
    pub meta: &'a BlockMeta,
    /// Bytes of all its files.
    pub size_bytes: u64,
}

/// Why a block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// All its samples are older than the limit.
    Age,
    /// With it, the database is larger than the limit.
    Size,
}

/// The blocks that are to go, newest first.
///
/// Age counts back from the end of the newest block or from `now`, whichever is earlier: neither
/// a clock that jumped ahead nor a database that lay idle for long loses its data. Size counts
/// from the newest block to the oldest, on top of `other_bytes` for everything that is no block;
/// the first that exceeds the limit goes, and all older ones; but never the newest.
pub fn expired(
    blocks: &[Stored<'_>],
    other_bytes: u64,
    now: Timestamp,
    options: &RetentionOptions,
) -> Vec<(BlockId, Expired)> {
    let mut sorted = blocks.to_vec();
    sorted.sort_by_key(|block| (block.meta.range.end, block.meta.range.start, block.meta.id));
    sorted.reverse();
    let newest = sorted.first().map_or(now, |block| block.meta.range.end);
    let cutoff = (options.time > Span::ZERO).then(|| newest.min(now) - options.time);
    let mut total = other_bytes;
    let mut full = false;
    let mut newest_ahead = true;
    let mut gone = Vec::new();
    for block in sorted {
        total = total.saturating_add(block.size_bytes);
        let newest = std::mem::take(&mut newest_ahead);
        full |= !newest && options.size_bytes > 0 && total > options.size_bytes;
        if cutoff.is_some_and(|cutoff| block.meta.range.end <= cutoff) {
            gone.push((block.meta.id, Expired::Age));
        } else if full {
            gone.push((block.meta.id, Expired::Size));
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use stint_model::TimeRange;

    /// Ids that go of blocks `1..` of these hours, 100 bytes each.
    fn check(hours: &[(i64, i64)], now: i64, limits: (i64, u64), expected: &[(u64, Expired)]) {
        let metas: Vec<BlockMeta> = (1..)
            .zip(hours)
            .map(|(id, (start, end))| {
                let at = |hours: &i64| Timestamp(hours * Span::HOUR.0);
                BlockMeta::new(BlockId(id), TimeRange::new(at(start), at(end)))
            })
            .collect();
        let blocks: Vec<Stored<'_>> =
            metas.iter().map(|meta| Stored { meta, size_bytes: 100 }).collect();
        let options =
            RetentionOptions { time: Span(limits.0 * Span::HOUR.0), size_bytes: limits.1 };
        let gone = expired(&blocks, 50, Timestamp(now * Span::HOUR.0), &options);
        let gone: Vec<(u64, Expired)> = gone.into_iter().map(|(id, why)| (id.0, why)).collect();
        assert_eq!(gone, expected);
    }

    #[test]
    fn without_limits_all_stay() {
        check(&[(0, 2), (2, 4)], 1000, (0, 0), &[]);
        check(&[], 1000, (1, 1), &[]);
    }

    #[test]
    fn blocks_go_when_all_of_them_is_too_old() {
        check(&[(0, 2), (2, 4), (4, 6)], 7, (4, 0), &[(1, Expired::Age)]);
        check(&[(0, 2), (2, 4), (4, 6)], 7, (5, 0), &[]);
        check(&[(0, 5), (2, 3), (4, 6)], 7, (3, 0), &[(2, Expired::Age)]);
    }

    #[test]
    fn a_clock_that_jumped_ahead_costs_nothing() {
        check(&[(0, 2), (2, 4)], 1_000_000, (4, 0), &[]);
    }

    #[test]
    fn samples_from_the_future_cost_nothing() {
        check(&[(0, 2), (500, 502)], 3, (4, 0), &[]);
    }

    #[test]
    fn the_oldest_go_when_there_is_too_much() {
        let blocks = [(0, 2), (2, 4), (4, 6)];
        check(&blocks, 7, (0, 350), &[]);
        check(&blocks, 7, (0, 349), &[(1, Expired::Size)]);
        check(&blocks, 7, (0, 200), &[(2, Expired::Size), (1, Expired::Size)]);
        check(&blocks, 7, (0, 1), &[(2, Expired::Size), (1, Expired::Size)]);
        check(&blocks, 7, (4, 200), &[(2, Expired::Size), (1, Expired::Age)]);
    }
}
