//! Cutting and merging columns.

use std::ops::Range;
use std::sync::Arc;

use stint_model::histogram::ResetHint;
use stint_model::{Columns, TimeRange, Timestamp};

/// Keeps, of the rows from `start` on, the first `count` as far as they lie inside `range`.
pub(crate) fn clip(columns: &mut Columns, start: usize, count: usize, range: TimeRange) {
    let end = columns.len().min(start.saturating_add(count));
    let rows = columns.times.get(start..end).unwrap_or_default();
    let first = start + rows.partition_point(|at| *at < range.start);
    let last = start + rows.partition_point(|at| *at < range.end);
    if last < columns.len() {
        truncate(columns, last.max(first));
    }
    if first > start {
        remove(columns, start..first.min(columns.len()));
    }
}

fn truncate(columns: &mut Columns, length: usize) {
    columns.times.truncate(length);
    columns.values.truncate(length);
    columns.starts.truncate(length);
    let histograms = columns.histograms.partition_point(|(row, _)| *row < length);
    columns.histograms.truncate(histograms);
}

fn remove(columns: &mut Columns, rows: Range<usize>) {
    columns.times.drain(rows.clone());
    columns.values.drain(rows.clone());
    if !columns.starts.is_empty() {
        columns.starts.drain(rows.clone());
    }
    let removed = rows.len();
    columns.histograms.retain_mut(|(row, _)| {
        if *row >= rows.end {
            *row -= removed;
            true
        } else {
            *row < rows.start
        }
    });
}

/// Appends all rows of `from`, which are later, to `to`, as a continuation from elsewhere.
pub(crate) fn append(to: &mut Columns, from: &Columns) {
    let (is_first, joint) = (to.is_empty(), to.histograms.len());
    extend(to, from, 0..from.len());
    if !is_first {
        forget_reset(to, joint);
    }
}

/// Forgets what is known about resets of histogram number `number`, if there is one, since the sample
/// before it is not the one that it was compared with. A gauge stays one.
pub(crate) fn forget_reset(columns: &mut Columns, number: usize) {
    if let Some((_, histogram)) = columns.histograms.get_mut(number)
        && matches!(histogram.reset_hint(), ResetHint::Reset | ResetHint::NotReset)
    {
        Arc::make_mut(histogram).set_reset_hint(ResetHint::Unknown);
    }
}

/// Appends the rows `rows` of `from` to `to`.
fn extend(to: &mut Columns, from: &Columns, rows: Range<usize>) {
    if rows.is_empty() {
        return;
    }
    let base = to.len();
    let (Some(times), Some(values)) = (from.times.get(rows.clone()), from.values.get(rows.clone()))
    else {
        return;
    };
    if !from.starts.is_empty() || !to.starts.is_empty() {
        to.starts.resize(base, Timestamp::MIN);
        match from.starts.get(rows.clone()) {
            Some(starts) => to.starts.extend_from_slice(starts),
            None => to.starts.resize(base + rows.len(), Timestamp::MIN),
        }
    }
    to.times.extend_from_slice(times);
    to.values.extend_from_slice(values);
    let first = from.histograms.partition_point(|(row, _)| *row < rows.start);
    for (row, histogram) in from.histograms.iter().skip(first) {
        if *row >= rows.end {
            break;
        }
        to.histograms.push((base + row - rows.start, Arc::clone(histogram)));
    }
}

/// Appends the rows of `a` and `b` to `out` in order of time. Where both have a row, that of `a`
/// is taken. Where rows of one follow those of the other, nothing is known about resets.
pub(crate) fn merge(a: &Columns, b: &Columns, out: &mut Columns) {
    let mut last = None;
    let mut take = |from: &Columns, rows: Range<usize>, is_a: bool| {
        if rows.is_empty() {
            return;
        }
        let joint = out.histograms.len();
        extend(out, from, rows);
        if last.replace(is_a).is_some_and(|last| last != is_a) {
            forget_reset(out, joint);
        }
    };
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let from_a = a.times.get(i..).unwrap_or_default();
        let from_b = b.times.get(j..).unwrap_or_default();
        let Some(next_b) = from_b.first() else {
            take(a, i..a.len(), true);
            return;
        };
        let run = from_a.partition_point(|at| at < next_b);
        take(a, i..i + run, true);
        i += run;
        let Some(next_a) = a.times.get(i) else {
            take(b, j..b.len(), false);
            return;
        };
        let run = from_b.partition_point(|at| at < next_a);
        take(b, j..j + run, false);
        j += run;
        if b.times.get(j) == Some(next_a) {
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;
    use stint_model::Histogram;
    use stint_model::histogram::FloatHistogram;

    type Row = (f64, bool, Option<i64>);

    fn build(rows: &BTreeMap<i64, Row>) -> Columns {
        let mut columns = Columns::default();
        for (at, (value, histogram, started)) in rows {
            if *histogram {
                let histogram = FloatHistogram { sum: *value, ..FloatHistogram::default() };
                columns.push_histogram(Timestamp(*at), Arc::new(Histogram::Float(histogram)));
            } else {
                columns.push_float(Timestamp(*at), *value);
            }
            if let Some(started) = started {
                columns.set_last_start(Timestamp(*started));
            }
        }
        columns
    }

    fn same(a: &Columns, b: &Columns) -> bool {
        let starts = |c: &Columns| {
            let mut starts = c.starts.clone();
            starts.resize(c.len(), Timestamp::MIN);
            starts
        };
        (&a.times, &a.values, &a.histograms, starts(a))
            == (&b.times, &b.values, &b.histograms, starts(b))
    }

    fn rows() -> impl Strategy<Value = BTreeMap<i64, Row>> {
        prop::collection::btree_map(
            0..60_i64,
            (
                (0..9_i32).prop_map(f64::from),
                prop::bool::weighted(0.2),
                prop::option::weighted(0.2, 0..9_i64),
            ),
            0..30,
        )
    }

    proptest! {
        #[test]
        fn merging_is_a_union_that_prefers_the_first(a in rows(), b in rows(), before in rows()) {
            let mut union = b.clone();
            union.extend(a.clone());
            let mut out = build(&before);
            merge(&build(&a), &build(&b), &mut out);
            let mut want = before;
            want.extend(union.into_iter().map(|(at, row)| (at + 1000, row)));
            out.times.iter_mut().skip(want.len() - want.range(1000..).count()).for_each(|at| at.0 += 1000);
            prop_assert!(same(&out, &build(&want)));
        }

        #[test]
        fn clipping_keeps_what_is_inside(
            before in rows(), a in rows(), count in 0..40_usize, start in 0..60_i64, end in 0..70_i64,
        ) {
            let mut columns = build(&before);
            let from = columns.len();
            let mut all = before;
            all.extend(a.iter().map(|(at, row)| (at + 1000, *row)));
            let full = build(&all);
            extend(&mut columns, &full, from..full.len());
            clip(&mut columns, from, count, TimeRange::new(Timestamp(start + 1000), Timestamp(end + 1000)));
            let kept: Vec<i64> = a.keys().take(count).filter(|at| (start..end.max(start)).contains(at)).map(|at| at + 1000).collect();
            all.retain(|at, _| *at < 1000 || kept.contains(at));
            prop_assert!(same(&columns, &build(&all)));
        }
    }

    /// A histogram for each time, with what is known about resets.
    fn histograms(rows: &[(i64, ResetHint)]) -> Columns {
        let mut columns = Columns::default();
        for (at, reset_hint) in rows {
            let histogram = FloatHistogram { reset_hint: *reset_hint, ..FloatHistogram::default() };
            columns.push_histogram(Timestamp(*at), Arc::new(Histogram::Float(histogram)));
        }
        columns
    }

    fn hints(columns: &Columns) -> Vec<(i64, ResetHint)> {
        let histograms = columns.histograms.iter();
        histograms.map(|(row, h)| (columns.times[*row].0, h.reset_hint())).collect()
    }

    #[test]
    fn nothing_is_known_about_resets_where_rows_of_two_meet() {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let a = histograms(&[(10, Reset), (30, Reset), (40, Reset), (70, NotReset), (80, Gauge)]);
        let b =
            histograms(&[(20, Reset), (30, Reset), (50, NotReset), (60, NotReset), (75, Gauge)]);
        let mut out = Columns::default();
        merge(&a, &b, &mut out);
        let want = [
            (10, Reset),
            (20, Unknown),
            (30, Unknown),
            (40, Reset),
            (50, Unknown),
            (60, NotReset),
            (70, Unknown),
            (75, Gauge),
            (80, Gauge),
        ];
        assert_eq!(hints(&out), want);
        assert_eq!(hints(&a)[1], (30, Reset), "what was merged stays as it is");
        let mut out = Columns::default();
        merge(&Columns::default(), &a, &mut out);
        assert_eq!(hints(&out), hints(&a), "there is nothing before");
        let mut float = Columns::default();
        float.push_float(Timestamp(30), 1.0);
        let mut out = Columns::default();
        merge(&float, &a, &mut out);
        assert_eq!(hints(&out)[..2], [(10, Reset), (40, Unknown)], "the one before is hidden");
    }

    #[test]
    fn nothing_is_known_about_resets_where_columns_are_joined() {
        use ResetHint::{Reset, Unknown};
        let mut out = Columns::default();
        append(&mut out, &histograms(&[(10, Reset)]));
        append(&mut out, &histograms(&[(20, Reset), (30, Reset)]));
        assert_eq!(hints(&out), [(10, Reset), (20, Unknown), (30, Reset)]);
    }
}
