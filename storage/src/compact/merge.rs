//! Series of several blocks, in order, each once, with the samples of all.

use stint_model::{Columns, Labels, TimeRange};

use crate::block::Block;
use crate::codec::Corruption;
use crate::index::series_order;
use crate::query::columns;

/// Walks the series of several blocks side by side.
#[derive(Debug)]
pub struct Merge {
    /// In order of age: where two blocks have a sample for the same time, the first one's stays.
    cursors: Vec<Cursor>,
    parts: Vec<Columns>,
}

#[derive(Debug)]
struct Cursor {
    block: Block,
    series: u32,
    /// The labels of `series`; `None` behind the last one.
    labels: Option<Labels>,
}

impl Cursor {
    fn move_to(&mut self, series: u32) -> Result<(), Corruption> {
        self.series = series;
        self.labels =
            if series < self.block.series_len() { Some(self.block.labels(series)?) } else { None };
        Ok(())
    }
}

impl Merge {
    /// A walk through all series of `blocks`.
    pub fn new(mut blocks: Vec<Block>) -> Result<Self, Corruption> {
        blocks.sort_by_key(|block| block.meta().age);
        let mut cursors = Vec::with_capacity(blocks.len());
        for block in blocks {
            let mut cursor = Cursor { block, series: 0, labels: None };
            cursor.move_to(0)?;
            cursors.push(cursor);
        }
        Ok(Self { cursors, parts: Vec::new() })
    }

    /// Fills `columns` with the samples of the next series; its labels, `None` behind the last.
    /// A series all of whose samples were deleted comes without samples.
    pub fn next_series(&mut self, columns: &mut Columns) -> Result<Option<Labels>, Corruption> {
        columns.clear();
        let labels = self.cursors.iter().filter_map(|cursor| cursor.labels.as_ref());
        let Some(labels) = labels.min_by(|a, b| series_order(a, b)).cloned() else {
            return Ok(None);
        };
        let mut used = 0;
        for cursor in &mut self.cursors {
            if cursor.labels.as_ref() != Some(&labels) {
                continue;
            }
            if used == self.parts.len() {
                self.parts.push(Columns::default());
            }
            if let Some(part) = self.parts.get_mut(used) {
                part.clear();
                cursor.block.read(cursor.series, TimeRange::ALL, part)?;
                used += 1;
            }
            cursor.move_to(cursor.series + 1)?;
        }
        let parts = self.parts.get(..used).unwrap_or_default();
        join(parts, columns);
        Ok(Some(labels))
    }
}

/// The rows of all `parts` in order of time; of equal times the row of the first part.
fn join(parts: &[Columns], out: &mut Columns) {
    let mut by_time: Vec<&Columns> = parts.iter().filter(|part| !part.is_empty()).collect();
    by_time.sort_by_key(|part| part.times.first().copied());
    let disjoint = by_time.windows(2).all(|pair| match pair {
        [a, b] => a.times.last() < b.times.first(),
        _ => true,
    });
    if disjoint {
        for part in by_time {
            columns::append(out, part);
        }
        return;
    }
    let mut merged = Columns::default();
    for part in parts {
        out.clear();
        columns::merge(&merged, part, out);
        std::mem::swap(&mut merged, out);
    }
    std::mem::swap(&mut merged, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::chunk::tests::{assert_same, columns};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use stint_model::Timestamp;
    use stint_model::histogram::ResetHint;

    /// One row by itself.
    fn row_of(columns: &Columns, row: usize) -> Columns {
        let mut out = Columns::default();
        match columns.histograms.iter().find(|(at, _)| *at == row) {
            Some((_, histogram)) => out.push_histogram(columns.times[row], histogram.clone()),
            None => out.push_float(columns.times[row], columns.values[row]),
        }
        if let Some(start) = columns.starts.get(row).filter(|start| **start != Timestamp::MIN) {
            out.set_last_start(*start);
        }
        out
    }

    fn push_row(row: &Columns, out: &mut Columns) {
        match row.histograms.first() {
            Some((_, histogram)) => out.push_histogram(row.times[0], histogram.clone()),
            None => out.push_float(row.times[0], row.values[0]),
        }
        if let Some(start) = row.starts.first() {
            out.set_last_start(*start);
        }
    }

    proptest! {
        #[test]
        fn rows_are_joined_in_order_of_time(
            mut parts in proptest::collection::vec(columns(), 0..4),
            shifts in proptest::collection::vec(prop_oneof![Just(0_i64), Just(50), Just(1 << 40)], 4),
        ) {
            // Coarse times, so that some are equal.
            for (part, shift) in parts.iter_mut().zip(&shifts) {
                let first = part.times.first().map_or(0, |time| time.0);
                for (row, time) in part.times.iter_mut().enumerate() {
                    *time = Timestamp(first + row as i64 * 10 + shift);
                }
            }
            let mut expected: BTreeMap<Timestamp, (usize, Columns)> = BTreeMap::new();
            for (number, part) in parts.iter().enumerate() {
                for (row, time) in part.times.iter().enumerate() {
                    expected.entry(*time).or_insert_with(|| (number, row_of(part, row)));
                }
            }
            let mut naive = Columns::default();
            let (mut last, mut is_joint) = (None, false);
            for (number, mut row) in expected.into_values() {
                is_joint |= last.replace(number).is_some_and(|last| last != number);
                if let Some((_, histogram)) = row.histograms.first_mut()
                    && std::mem::take(&mut is_joint)
                    && histogram.reset_hint() != ResetHint::Gauge
                {
                    Arc::make_mut(histogram).set_reset_hint(ResetHint::Unknown);
                }
                push_row(&row, &mut naive);
            }
            let mut joined = Columns::default();
            join(&parts, &mut joined);
            assert_same(&joined, &naive);
        }
    }
}
