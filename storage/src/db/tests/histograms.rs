//! What becomes of native histograms on their way in.

use super::*;
use stint_model::histogram::{BucketSpan, IntegerHistogram, ResetHint};

fn row(at: i64, histogram: IntegerHistogram) -> Batch {
    let value = Value::Histogram(Arc::new(Histogram::Integer(histogram)));
    let mut batch = Batch { out_of_order_window: Span(1000), ..Batch::default() };
    batch.push(labels("m", 0), Sample { at: Timestamp(at), started: None, value });
    batch
}

fn counted(count: u64, reset_hint: ResetHint) -> IntegerHistogram {
    IntegerHistogram { count, zero_count: count, reset_hint, ..IntegerHistogram::default() }
}

fn rejected(db: &Db, batch: &Batch) -> Option<RejectReason> {
    db.append(batch).unwrap().rejected.first().map(|rejected| rejected.reason)
}

fn stored(db: &Db) -> Vec<Histogram> {
    let querier = db.querier(TimeRange::ALL).unwrap();
    let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
    let mut columns = Columns::default();
    set.read(0, TimeRange::ALL, &mut columns).unwrap();
    columns.histograms.iter().map(|(_, histogram)| (**histogram).clone()).collect()
}

#[test]
fn what_is_known_about_resets_does_not_outlive_the_sample_before() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let hints = |db: &Db| stored(db).iter().map(Histogram::reset_hint).collect::<Vec<_>>();
    for (at, count, hint) in [
        (10, 100, ResetHint::Unknown),
        (30, 200, ResetHint::NotReset),
        (40, 100, ResetHint::Reset),
        (50, 100, ResetHint::Gauge),
    ] {
        assert_eq!(rejected(&db, &row(at, counted(count, hint))), None);
    }
    let told = [ResetHint::Unknown, ResetHint::Unknown, ResetHint::Reset, ResetHint::Gauge];
    assert_eq!(hints(&db), told);
    for (at, count) in [(20, 500), (35, 50), (45, 1)] {
        assert_eq!(rejected(&db, &row(at, counted(count, ResetHint::NotReset))), None);
    }
    let all = hints(&db);
    assert_eq!((&all[..6], all[6]), (&[ResetHint::Unknown; 6][..], ResetHint::Gauge));
    let (before, now) = (stored(&db)[1].to_float(), stored(&db)[2].to_float());
    assert!(now.is_reset_after(&before), "500, then 200");
    let all = stored(&db);
    db.close().unwrap();
    drop(db);
    assert_eq!(stored(&open(&disk).0), all);
}

#[test]
fn resolutions_that_are_too_fine_are_reduced() {
    let (db, _) = open(&SimDisk::new());
    let fine = |schema| IntegerHistogram {
        schema,
        count: 3,
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_deltas: vec![1, 1],
        ..IntegerHistogram::default()
    };
    assert_eq!(rejected(&db, &row(10, fine(9))), None);
    assert_eq!(rejected(&db, &row(10, fine(9))), None, "the same again");
    assert_eq!(rejected(&db, &row(20, fine(53))), Some(RejectReason::InvalidHistogram));
    let reduced = IntegerHistogram {
        positive_spans: vec![BucketSpan { offset: 1, length: 1 }],
        positive_deltas: vec![3],
        ..fine(8)
    };
    assert_eq!(stored(&db), [Histogram::Integer(reduced.clone())]);
    assert_eq!(rejected(&db, &row(10, reduced)), None, "which is the same too");
}

#[test]
fn values_are_the_same_by_their_bits() {
    let (db, _) = open(&SimDisk::new());
    let sum = |sum| IntegerHistogram { sum, ..IntegerHistogram::default() };
    let duplicate = Some(RejectReason::DuplicateTimestamp);
    // In order, then late.
    for at in [500, 10] {
        for (sum_at, value, again, other) in
            [(at, f64::NAN, f64::NAN, 0.0), (at + 1, 0.0, 0.0, -0.0)]
        {
            assert_eq!(rejected(&db, &row(sum_at, sum(value))), None);
            assert_eq!(rejected(&db, &row(sum_at, sum(again))), None, "{value} at {sum_at}");
            assert_eq!(rejected(&db, &row(sum_at, sum(other))), duplicate, "{value} at {sum_at}");
        }
    }
    assert_eq!(stored(&db).len(), 4);
    // Within one batch.
    let mut twice = row(600, sum(f64::NAN));
    twice.rows.extend(row(600, sum(f64::NAN)).rows);
    assert_eq!(rejected(&db, &twice), None);
}

#[test]
fn nothing_is_known_about_resets_after_a_deleted_sample() {
    use ResetHint::{Gauge, Reset, Unknown};
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let hints = |db: &Db| stored(db).iter().map(Histogram::reset_hint).collect::<Vec<_>>();
    for (at, hint) in [
        (10, ResetHint::Unknown),
        (20, ResetHint::Reset),
        (30, ResetHint::Reset),
        (40, ResetHint::Reset),
        (50, ResetHint::Gauge),
    ] {
        assert_eq!(rejected(&db, &row(at, counted(100, hint))), None);
    }
    // Late, and judged by their own.
    assert_eq!(rejected(&db, &row(2, counted(100, ResetHint::Reset))), None);
    assert_eq!(rejected(&db, &row(4, counted(100, ResetHint::Reset))), None);
    let delete = |db: &Db, at: i64| {
        let range = TimeRange::new(Timestamp(at), Timestamp(at + 1));
        db.delete_series(&[Selector::default()], range).unwrap();
    };
    for at in [2, 20] {
        delete(&db, at);
    }
    assert_eq!(hints(&db), [Unknown, Unknown, Unknown, Reset, Gauge], "in the head");
    assert_eq!(append_one(&db, 3000, 0.0, 0), None);
    run_jobs(&db, 3000);
    delete(&db, 30);
    let all = [Unknown, Unknown, Unknown, Gauge];
    assert_eq!(hints(&db), all, "in a block");
    db.clean_tombstones().unwrap();
    assert_eq!(hints(&db), all, "rewritten");
}
