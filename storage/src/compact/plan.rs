//! Which blocks to merge next: a pure function of what the blocks hold.

use stint_model::{Span, TimeRange, Timestamp};

use crate::block::{BlockId, BlockMeta};

/// Ranges that blocks grow through, in multiples of the first: 2 h, 6 h, 24 h, 3 d, 9 d.
const STEPS: [i64; 4] = [3, 12, 36, 108];

/// The range that blocks of `first` are merged to first.
pub(crate) fn second_range(first: Span) -> Span {
    let [step, ..] = STEPS;
    Span(first.0.saturating_mul(step))
}

/// A block is rewritten once something was deleted of one in this many of its series.
const DELETED_SHARE: u64 = 20;

/// How far blocks grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactOptions {
    /// Range of the blocks that are cut from the head; more than zero.
    pub first_range: Span,
    /// No block is merged to a longer range than this.
    pub range_max: Span,
}

impl CompactOptions {
    /// Blocks of at most a seventh of `retention`, since only whole blocks are removed, and of at
    /// most 31 days.
    pub fn for_retention(retention: Span) -> Self {
        let first_range = Span(2 * Span::HOUR.0);
        let range_max = Span((retention.0 / 7).clamp(first_range.0, 31 * Span::DAY.0));
        Self { first_range, range_max }
    }
}

impl CompactOptions {
    /// Those of a database whose head is cut into blocks of `first_range`; without `retention`
    /// blocks grow to 31 days.
    pub fn of(first_range: Span, retention: Option<Span>) -> Self {
        let range_max = match retention {
            Some(retention) => Self::for_retention(retention).range_max.max(first_range),
            None => Span(31 * Span::DAY.0),
        };
        Self { first_range, range_max }
    }

    /// The longest of the ranges that blocks grow through.
    pub fn longest(&self) -> Span {
        let lengths = STEPS.iter().filter_map(|step| self.first_range.0.checked_mul(*step));
        let fitting = lengths.filter(|length| *length <= self.range_max.0);
        Span(fitting.max().unwrap_or(self.first_range.0))
    }
}

/// A block that may be merged.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What it holds.
    pub meta: &'a BlockMeta,
    /// How many of its series something was deleted of.
    pub deleted_series: u64,
}

/// Why blocks are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Their ranges overlap, which makes queries merge.
    Overlap,
    /// Together they fill a longer range.
    Range,
    /// Much of one was deleted.
    Deleted,
}

/// Blocks to merge into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The blocks, in order of range.
    pub blocks: Vec<BlockId>,
    /// The range of the new block.
    pub range: TimeRange,
    /// The level of the new block.
    pub level: u32,
    /// The age of the new block: that of the oldest.
    pub age: BlockId,
    /// Why.
    pub reason: Reason,
}

impl Plan {
    fn of(blocks: &[Candidate<'_>], range: TimeRange, reason: Reason) -> Self {
        let level = blocks.iter().map(|block| block.meta.level).max().unwrap_or(0);
        Self {
            blocks: blocks.iter().map(|block| block.meta.id).collect(),
            range,
            // Rewriting a block by itself is no step up.
            level: if reason == Reason::Deleted { level } else { level.saturating_add(1) },
            age: blocks.iter().map(|block| block.meta.age).min().unwrap_or_default(),
            reason,
        }
    }

    /// The meta with which block `id` starts that carries the plan out.
    pub fn meta(&self, id: BlockId) -> BlockMeta {
        BlockMeta {
            level: self.level,
            parents: self.blocks.clone(),
            age: self.age,
            ..BlockMeta::new(id, self.range)
        }
    }
}

/// The most urgent merge, if there is one: overlapping blocks first, then the shortest range that
/// is complete, oldest first, then blocks much of which was deleted. Blocks that failed to merge
/// are left out by the caller.
pub fn plan(blocks: &[Candidate<'_>], options: &CompactOptions) -> Option<Plan> {
    let sorted = in_order(blocks);
    overlapping(&sorted)
        .or_else(|| side_by_side(&sorted, options))
        .or_else(|| much_deleted(&sorted))
}

/// The oldest block of which anything was deleted, to free the space at once.
pub fn plan_clean(blocks: &[Candidate<'_>]) -> Option<Plan> {
    let block = in_order(blocks).into_iter().find(|block| block.deleted_series > 0)?;
    Some(Plan::of(&[block], block.meta.range, Reason::Deleted))
}

fn in_order<'a>(blocks: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
    let mut sorted = blocks.to_vec();
    sorted.sort_by_key(|block| (block.meta.range.start, block.meta.range.end, block.meta.id));
    sorted
}

fn overlapping(sorted: &[Candidate<'_>]) -> Option<Plan> {
    let mut group: Vec<Candidate<'_>> = Vec::new();
    let mut range = TimeRange::new(Timestamp::MIN, Timestamp::MIN);
    for block in sorted {
        if block.meta.range.overlaps(range) {
            range.end = range.end.max(block.meta.range.end);
        } else {
            if group.len() > 1 {
                break;
            }
            group.clear();
            range = block.meta.range;
        }
        group.push(*block);
    }
    (group.len() > 1).then(|| Plan::of(&group, range, Reason::Overlap))
}

/// Blocks inside one aligned window that fill it, or to which nothing can be added any more since
/// there are blocks behind it.
fn side_by_side(sorted: &[Candidate<'_>], options: &CompactOptions) -> Option<Plan> {
    let newest = sorted.last()?.meta.range.start;
    for step in STEPS {
        let length = options.first_range.0.checked_mul(step)?;
        if length > options.range_max.0 || length <= 0 {
            return None;
        }
        let window_of = |block: &Candidate<'_>| block.meta.range.start.0.div_euclid(length);
        for group in sorted.chunk_by(|a, b| window_of(a) == window_of(b)) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let start = window_of(first).saturating_mul(length);
            let end = start.saturating_add(length);
            let range = TimeRange::new(first.meta.range.start, last.meta.range.end);
            let full = range.start.0 == start && range.end.0 == end;
            let complete = full || newest.0 >= end;
            if group.len() > 1 && complete && range.end.0 <= end {
                return Some(Plan::of(group, range, Reason::Range));
            }
        }
    }
    None
}

fn much_deleted(sorted: &[Candidate<'_>]) -> Option<Plan> {
    let block = sorted
        .iter()
        .find(|block| block.deleted_series.saturating_mul(DELETED_SHARE) > block.meta.series)?;
    Some(Plan::of(&[*block], block.meta.range, Reason::Deleted))
}

#[cfg(test)]
mod tests;
