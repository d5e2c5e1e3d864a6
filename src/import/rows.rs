//! Rows of one series from several places, put together.

use std::sync::Arc;

use stint_model::{Columns, TimeRange, Timestamp};
use stint_storage::codec::chunk::Mark;

/// Keeps the rows inside `range`. The rows have to be in order.
pub fn clip(columns: &mut Columns, range: TimeRange) {
    let start = columns.times.partition_point(|at| *at < range.start);
    let end = columns.times.partition_point(|at| *at < range.end).max(start);
    if start > 0 || end < columns.len() {
        Mark::default().keep_rows(start..end, columns);
    }
}

/// Brings the rows in order of time, one for each time: of several the first.
pub fn order(columns: &mut Columns) {
    if columns.times.is_sorted_by(|a, b| a < b) {
        return;
    }
    let mut rows: Vec<usize> = (0..columns.len()).collect();
    rows.sort_by_key(|row| columns.times.get(*row));
    rows.dedup_by_key(|row| columns.times.get(*row));
    let mut sorted = Columns::default();
    for row in rows {
        push_row(columns, row, &mut sorted);
    }
    *columns = sorted;
}

/// Removes the rows inside any of `ranges`.
pub fn remove(columns: &mut Columns, ranges: &[TimeRange]) {
    let is_deleted = |at: &Timestamp| ranges.iter().any(|range| range.contains(*at));
    if ranges.is_empty() || !columns.times.iter().any(is_deleted) {
        return;
    }
    let mut kept = Columns::default();
    for row in 0..columns.len() {
        if columns.times.get(row).is_some_and(|at| !is_deleted(at)) {
            push_row(columns, row, &mut kept);
        }
    }
    *columns = kept;
}

/// Appends the rows of `from`.
pub fn append(to: &mut Columns, from: &Columns) {
    for row in 0..from.len() {
        push_row(from, row, to);
    }
}

fn push_row(from: &Columns, row: usize, to: &mut Columns) {
    let (Some(at), Some(value)) = (from.times.get(row), from.values.get(row)) else { return };
    let histogram = from.histograms.binary_search_by_key(&row, |(at, _)| *at).ok();
    match histogram.and_then(|place| from.histograms.get(place)) {
        Some((_, histogram)) => to.push_histogram(*at, Arc::clone(histogram)),
        None => to.push_float(*at, *value),
    }
    if let Some(start) = from.starts.get(row) {
        to.set_last_start(*start);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use stint_model::Histogram;
    use stint_model::histogram::IntegerHistogram;

    use super::*;

    fn columns(times: &[i64]) -> Columns {
        let mut columns = Columns::default();
        for (row, at) in times.iter().enumerate() {
            if row % 3 == 1 {
                let histogram = IntegerHistogram { count: row as u64, ..Default::default() };
                columns.push_histogram(Timestamp(*at), Arc::new(Histogram::Integer(histogram)));
            } else {
                columns.push_float(Timestamp(*at), row as f64);
            }
        }
        columns
    }

    /// The number that each row was made with, by its time.
    fn rows(columns: &Columns) -> Vec<(i64, u64)> {
        let mut histograms = columns.histograms.iter().peekable();
        let of_row = |row: usize| match histograms.next_if(|(at, _)| *at == row) {
            Some((_, histogram)) => histogram.to_float().count as u64,
            None => columns.values[row] as u64,
        };
        columns.times.iter().map(|at| at.0).zip((0..columns.len()).map(of_row)).collect()
    }

    proptest! {
        #[test]
        fn the_first_of_each_time_stays(
            times in prop::collection::vec(0..30_i64, 0..60),
            from in 0..30_i64, length in 0..20_i64,
        ) {
            let mut want: BTreeMap<i64, u64> = BTreeMap::new();
            for (row, at) in times.iter().enumerate() {
                want.entry(*at).or_insert(row as u64);
            }
            let mut found = columns(&times);
            order(&mut found);
            prop_assert_eq!(rows(&found), want.clone().into_iter().collect::<Vec<_>>());
            let range = TimeRange::new(Timestamp(from), Timestamp(from + length));
            let (mut inside, mut outside) = (found.clone(), found);
            clip(&mut inside, range);
            remove(&mut outside, &[range]);
            let (within, beyond): (Vec<_>, Vec<_>) =
                want.into_iter().partition(|(at, _)| range.contains(Timestamp(*at)));
            prop_assert_eq!(rows(&inside), within);
            prop_assert_eq!(rows(&outside), beyond);
        }
    }
}
