//! Series of several blocks, in order, each once, with the samples of all.

use std::cmp::Ordering;
use std::sync::Arc;

use stint_model::{Columns, Histogram, Labels, TimeRange, Timestamp};

use crate::block::Block;
use crate::codec::Corruption;
use crate::index::series_order;

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
        blocks.sort_by_key(|block| block.meta().id);
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
            append_rows(part, out);
        }
        return;
    }
    let mut merged = Columns::default();
    for part in parts {
        out.clear();
        merge_columns(&merged, part, out);
        std::mem::swap(&mut merged, out);
    }
    std::mem::swap(&mut merged, out);
}

/// Appends all rows of `rows` to `out`.
pub fn append_rows(rows: &Columns, out: &mut Columns) {
    let first = out.len();
    if !rows.starts.is_empty() {
        out.starts.resize(first, Timestamp::MIN);
        out.starts.extend_from_slice(&rows.starts);
    } else if !out.starts.is_empty() {
        out.starts.resize(first + rows.len(), Timestamp::MIN);
    }
    out.times.extend_from_slice(&rows.times);
    out.values.extend_from_slice(&rows.values);
    let histograms = rows.histograms.iter();
    out.histograms.extend(histograms.map(|(row, histogram)| (first + row, histogram.clone())));
}

/// Appends the rows of `a` and `b`, each in order of time, in order of time; of equal times the
/// row of `a`.
pub fn merge_columns(a: &Columns, b: &Columns, out: &mut Columns) {
    let (mut a, mut b) = (RowCursor::new(a), RowCursor::new(b));
    loop {
        let order = match (a.time(), b.time()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.cmp(&b),
        };
        match order {
            Ordering::Less => a.copy(out),
            Ordering::Greater => b.copy(out),
            Ordering::Equal => {
                a.copy(out);
                b.skip();
            }
        }
    }
}

struct RowCursor<'a> {
    columns: &'a Columns,
    row: usize,
    histograms: std::slice::Iter<'a, (usize, Arc<Histogram>)>,
}

impl<'a> RowCursor<'a> {
    fn new(columns: &'a Columns) -> Self {
        Self { columns, row: 0, histograms: columns.histograms.iter() }
    }

    fn time(&self) -> Option<Timestamp> {
        self.columns.times.get(self.row).copied()
    }

    /// Leaves the row; its histogram, if it has one.
    fn skip(&mut self) -> Option<&'a Arc<Histogram>> {
        let row = self.row;
        self.row += 1;
        match self.histograms.as_slice().first() {
            Some((at, _)) if *at == row => self.histograms.next().map(|(_, histogram)| histogram),
            _ => None,
        }
    }

    fn copy(&mut self, out: &mut Columns) {
        let row = self.row;
        let histogram = self.skip();
        let (Some(time), Some(value)) = (self.columns.times.get(row), self.columns.values.get(row))
        else {
            return;
        };
        match histogram {
            Some(histogram) => out.push_histogram(*time, histogram.clone()),
            None => out.push_float(*time, *value),
        }
        match self.columns.starts.get(row) {
            Some(start) if *start != Timestamp::MIN => out.set_last_start(*start),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::chunk::tests::{assert_same, columns};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

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
            let mut expected: BTreeMap<Timestamp, Columns> = BTreeMap::new();
            for part in &parts {
                for (row, time) in part.times.iter().enumerate() {
                    expected.entry(*time).or_insert_with(|| row_of(part, row));
                }
            }
            let mut naive = Columns::default();
            for row in expected.values() {
                append_rows(row, &mut naive);
            }
            let mut joined = Columns::default();
            join(&parts, &mut joined);
            assert_same(&joined, &naive);
        }
    }
}
