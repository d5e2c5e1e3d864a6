mod blocks;
mod checkpoint;
mod cursor;
mod damage;
mod deletion;
mod faults;
mod histograms;
mod import;
mod names;
mod precedence;
mod stop;

use std::sync::Arc;

use proptest::prelude::{prop, prop_assert_eq, proptest};
use stint_model::*;

use super::*;
use crate::disk::sim::SimDisk;
use crate::wal::CursorEvent;
fn options() -> Options {
    Options { block_range: Span(1000), chunk_samples: 4, segment_bytes: 400, ..Options::default() }
}

fn open(disk: &SimDisk) -> (Db, OpenReport) {
    Db::open(Arc::new(disk.clone()), options()).unwrap()
}

fn labels(name: &str, n: usize) -> Labels {
    Labels::from_pairs([("__name__", name.to_owned()), ("n", n.to_string())])
}

fn batch(at: i64, series: std::ops::Range<usize>) -> Batch {
    let mut batch = Batch::default();
    for n in series {
        batch.push(labels("m", n), Sample::float(Timestamp(at), at as f64 + n as f64 / 8.0));
    }
    batch
}

/// Everything in the database, as text.
fn dump(db: &Db) -> Vec<String> {
    dump_querier(&*db.querier(TimeRange::ALL).unwrap())
}

fn dump_querier(querier: &dyn Querier) -> Vec<String> {
    let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
    (0..set.len())
        .map(|index| {
            let mut columns = Columns::default();
            set.read(index, TimeRange::ALL, &mut columns).unwrap();
            let rows: Vec<String> = columns
                .times
                .iter()
                .zip(&columns.values)
                .map(|(at, value)| format!("{at}={value}"))
                .collect();
            format!("{} {}", set.labels(index), rows.join(" "))
        })
        .collect()
}

#[test]
fn what_is_appended_can_be_read_and_comes_back() {
    let disk = SimDisk::new();
    let (db, report) = open(&disk);
    assert_eq!(report, OpenReport::default());
    let first = db.append(&batch(10, 0..3)).unwrap();
    assert!(first.rejected.is_empty() && first.refs.iter().all(Option::is_some));
    let mut known = Batch::default();
    for series in first.refs.iter().flatten() {
        known.push_known(*series, Sample::float(Timestamp(20), 0.5));
    }
    assert_eq!(db.append(&known).unwrap().refs, first.refs);
    let before = dump(&db);
    assert_eq!(before.len(), 3);
    assert_eq!(before[1], r#"{__name__="m", n="1"} 10=10.125 20=0.5"#);
    let job = db.next_job(Timestamp(9000));
    assert_eq!(db.close().unwrap(), CloseReport { replays: None });
    assert_eq!(db.append(&known), Err(AppendError::Closed));
    assert!(job.is_none_or(|job| job.run().is_err()));
    drop(db);
    let (db, report) = open(&disk);
    assert_eq!((report.series, report.segments), (3, 0), "nothing is replayed");
    assert_eq!(dump(&db), before);
    // Handles are not given twice.
    let new = db.append(&batch(30, 7..8)).unwrap();
    assert!(!first.refs.contains(&new.refs[0]));
}

#[test]
fn a_directory_is_opened_once() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let again = Db::open(Arc::new(disk.clone()), options());
    assert!(matches!(again, Err(OpenError::InUse)));
    db.close().unwrap();
    open(&disk);
}

fn append_one(db: &Db, at: i64, value: f64, window: i64) -> Option<RejectReason> {
    let mut batch = Batch { out_of_order_window: Span(window), ..Batch::default() };
    batch.push(labels("m", 0), Sample::float(Timestamp(at), value));
    db.append(&batch).unwrap().rejected.first().map(|rejected| rejected.reason)
}

#[test]
fn samples_are_judged_as_prometheus_judges_them() {
    use RejectReason::{DuplicateTimestamp, OutOfBounds, OutOfOrder, TooOld};
    let (db, _) = open(&SimDisk::new());
    assert_eq!(append_one(&db, 5000, 1.0, 0), None);
    assert_eq!(append_one(&db, 5000, 1.0, 0), None, "the same again is no change");
    assert_eq!(append_one(&db, 5000, 2.0, 0), Some(DuplicateTimestamp));
    assert_eq!(append_one(&db, 4900, 1.0, 0), Some(OutOfOrder));
    assert_eq!(append_one(&db, 4400, 1.0, 0), Some(OutOfBounds));
    assert_eq!(append_one(&db, 4900, 1.0, 200), None);
    assert_eq!(append_one(&db, 4900, 1.0, 200), None);
    assert_eq!(append_one(&db, 4900, 3.0, 200), Some(DuplicateTimestamp));
    assert_eq!(append_one(&db, 4700, 1.0, 200), Some(TooOld));
    assert_eq!(append_one(&db, 4800, 7.0, 5000), None);
    assert_eq!(append_one(&db, 6000, 9.0, 0), None);
    let all = [r#"{__name__="m", n="0"} 4800=7 4900=1 5000=1 6000=9"#];
    assert_eq!(dump(&db), all);
    let stats = db.stats();
    assert_eq!((stats.samples_appended, stats.samples_late), (4, 2));
    assert_eq!(stats.rejected_for(DuplicateTimestamp), 2);
}

#[test]
fn what_lies_far_ahead_does_not_make_the_rest_too_old() {
    use RejectReason::TooFarInFuture;
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let year_10000 = 253_402_300_800_000;
    for at in [i64::MAX, year_10000] {
        assert_eq!(append_one(&db, at, 1.0, 0), Some(TooFarInFuture));
        assert_eq!(append_one(&db, at, 1.0, 5000), Some(TooFarInFuture));
    }
    let mut mixed = batch(50, 0..1);
    mixed.out_of_order_window = Span(10);
    mixed.push(labels("m", 1), Sample::float(Timestamp(i64::MAX), 1.0));
    mixed.push(labels("m", 2), Sample::float(Timestamp(45), 1.0));
    let rejected = db.append(&mixed).unwrap().rejected;
    assert_eq!(rejected, [Rejected { row: 1, reason: TooFarInFuture }]);
    assert!(db.next_job(Timestamp(1000)).is_none());
    assert_eq!(append_one(&db, 1001 + Span::DAY.0, 1.0, 0), Some(TooFarInFuture));
    assert_eq!(append_one(&db, 100, 1.0, 0), None);
    assert_eq!(append_one(&db, 1000 + Span::DAY.0, 1.0, 0), None);
    assert_eq!(db.stats().rejected_for(TooFarInFuture), 6);
}

#[test]
fn bad_rows_do_not_fail_good_ones() {
    let (db, _) = open(&SimDisk::new());
    let mut mixed = batch(10, 0..2);
    mixed.push(Labels::default(), Sample::float(Timestamp(10), 1.0));
    mixed.push_known(SeriesRef(99), Sample::float(Timestamp(10), 1.0));
    mixed.push(labels("m", 0), Sample::float(Timestamp(11), 3.0));
    mixed.push(labels("m", 0), Sample::float(Timestamp(11), 4.0));
    let broken = histogram::IntegerHistogram { count: 1, ..Default::default() };
    let value = Value::Histogram(Arc::new(Histogram::Integer(broken)));
    mixed.push(labels("h", 0), Sample { at: Timestamp(10), started: None, value });
    let appended = db.append(&mixed).unwrap();
    let reasons: Vec<_> = appended.rejected.iter().map(|r| (r.row, r.reason)).collect();
    assert_eq!(
        reasons,
        [
            (2, RejectReason::InvalidLabels),
            (3, RejectReason::UnknownSeries),
            (5, RejectReason::DuplicateTimestamp),
            (6, RejectReason::InvalidHistogram),
        ]
    );
    assert_eq!(appended.refs[4], appended.refs[0]);
    assert_eq!(appended.refs[6], None);
    assert_eq!(db.stats().series, 2);
}

#[test]
fn a_pinned_querier_never_changes_its_answer() {
    let (db, _) = open(&SimDisk::new());
    for at in 1..7 {
        db.append(&batch(at * 10, 0..2)).unwrap();
    }
    let pinned = db.querier(TimeRange::ALL).unwrap();
    let set = pinned.select(&Selector::metric("m"), &Hints::default()).unwrap();
    let before = dump(&db);
    for at in 7..20 {
        let mut more = batch(at * 10, 0..3);
        more.out_of_order_window = Span(1000);
        more.push(labels("m", 1), Sample::float(Timestamp(at * 10 - 35), 1.0));
        db.append(&more).unwrap();
    }
    assert_eq!(dump_querier(&*pinned), before);
    assert_eq!(pinned.label_values("n", &[], 0).unwrap(), ["0", "1"]);
    let mut columns = Columns::default();
    set.read(1, TimeRange::ALL, &mut columns).unwrap();
    assert_eq!(columns.len(), 6);
    let now = db.querier(TimeRange::ALL).unwrap();
    assert_eq!(now.label_values("n", &[], 0).unwrap(), ["0", "1", "2"]);
}

#[test]
fn exemplars_and_metadata_survive() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let mut with = batch(10, 0..1);
    let trace = Labels::from_pairs([("trace_id", "abc")]);
    let exemplar = Exemplar { labels: trace, value: 1.0, at: Timestamp(9) };
    with.exemplars.push(Exemplars { row: 0, exemplars: vec![exemplar.clone(), exemplar.clone()] });
    let metadata = Metadata { help: "help".into(), ..Metadata::default() };
    with.metadata.push(("m".into(), metadata.clone()));
    db.append(&with).unwrap();
    db.close().unwrap();
    let (db, _) = open(&disk);
    let found = db.exemplars(&[Selector::metric("m")], TimeRange::ALL);
    assert_eq!(found, [(labels("m", 0), vec![exemplar])]);
    assert_eq!(db.metadata(), [("m".to_owned(), metadata)]);
    assert!(db.exemplars(&[Selector::metric("other")], TimeRange::ALL).is_empty());
}

/// Runs jobs until none is left; their names.
fn run_jobs(db: &Db, now: i64) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Some(job) = db.next_job(Timestamp(now)) {
        names.push(job.run().unwrap().job);
        assert!(names.len() < 100, "{names:?}");
    }
    names
}

fn filled(disk: &SimDisk, until: i64) -> Db {
    let (db, _) = open(disk);
    for at in 0..until {
        let mut more = batch(at * 100, 0..3);
        if at % 7 == 6 {
            more.out_of_order_window = Span(10_000);
            more.push(labels("m", 1), Sample::float(Timestamp(at * 100 - 550), 5.0));
        }
        db.append(&more).unwrap();
    }
    db
}

#[test]
fn late_rows_meet_the_earlier_rows_of_their_batch_however_many_there_are() {
    let (db, _) = open(&SimDisk::new());
    let mut batch = Batch { out_of_order_window: Span(1 << 20), ..Batch::default() };
    // Going through the rows before for each late one would take minutes.
    let rows = 50_000;
    let series: Vec<Labels> = (0..500).map(|n| labels("m", n)).collect();
    for row in 0..rows {
        let at = if row < series.len() { 1 << 19 } else { row / series.len() };
        let sample = Sample::float(Timestamp(at as i64), row as f64);
        batch.push(series[row % series.len()].clone(), sample);
    }
    batch.push(series[3].clone(), Sample::float(Timestamp(1), 503.0));
    batch.push(series[3].clone(), Sample::float(Timestamp(1), 504.0));
    batch.push(series[4].clone(), Sample::float(Timestamp(1 << 19), 5.0));
    let rejected = db.append(&batch).unwrap().rejected;
    let rejected: Vec<_> = rejected.iter().map(|r| (r.row - rows, r.reason)).collect();
    let duplicate = RejectReason::DuplicateTimestamp;
    assert_eq!(rejected, [(1, duplicate), (2, duplicate)], "the same value again is no mistake");
    assert_eq!(db.stats().samples_appended, rows as u64);
}

#[test]
fn a_series_of_more_labels_than_a_block_takes_is_refused() {
    let (db, _) = open(&SimDisk::new());
    let of = |count: usize| Labels::from_pairs((0..count).map(|n| (format!("l{n:05}"), "x")));
    let most = crate::index::LABELS_MAX;
    let mut batch = Batch::default();
    for count in [most, most + 1] {
        batch.push(of(count), Sample::float(Timestamp(1), 1.0));
    }
    let appended = db.append(&batch).unwrap();
    assert_eq!(appended.rejected, [Rejected { row: 1, reason: RejectReason::LabelLimit }]);
    assert!(appended.refs[0].is_some() && appended.refs[1].is_none());
    db.close().unwrap();
}

proptest! {
    #[test]
    fn a_batch_is_judged_like_its_rows_one_by_one(
        rows in prop::collection::vec((0..4_usize, 0..20_i64, 0..3_u8), 1..40),
        handles: bool,
        late: bool,
    ) {
        let window = Span(if late { 1 << 30 } else { 0 });
        let mut outcomes = Vec::new();
        for at_once in [rows.len(), 1] {
            let (db, _) = open(&SimDisk::new());
            let known = db.append(&batch(-1, 0..4)).unwrap().refs;
            let mut rejected = Vec::new();
            for (number, part) in rows.chunks(at_once).enumerate() {
                let mut batch = Batch { out_of_order_window: window, ..Batch::default() };
                for (n, at, value) in part {
                    let sample = Sample::float(Timestamp(*at), f64::from(*value));
                    match known[*n].filter(|_| handles) {
                        Some(known) => batch.push_known(known, sample),
                        // Some are born in the batch.
                        None => batch.push(labels("m", n * 2), sample),
                    }
                }
                let appended = db.append(&batch).unwrap();
                let reasons = appended.rejected.into_iter();
                rejected.extend(reasons.map(|row| (number * at_once + row.row, row.reason)));
            }
            outcomes.push((rejected, dump(&db)));
        }
        prop_assert_eq!(&outcomes[0], &outcomes[1]);
    }
}
