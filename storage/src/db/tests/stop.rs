//! A clean stop leaves nothing to replay, and takes nothing from what follows.

use super::*;
use crate::disk::sim::{Crash, Fault, Plan, Unsynced};

#[test]
fn a_clean_stop_leaves_nothing_to_replay() {
    let disk = SimDisk::new();
    let db = filled(&disk, 40);
    run_jobs(&db, 4000);
    append_one(&db, 2345, 7.0, 10_000);
    let range = TimeRange::new(Timestamp(3800), Timestamp(3950));
    db.delete_series(&[Selector::new(vec![Matcher::equal("n", "2")])], range).unwrap();
    let before = dump(&db);
    let pinned = db.querier(TimeRange::ALL).unwrap();
    let report = db.close().unwrap();
    assert_eq!(report.replays, None);
    assert_eq!(dump_querier(&*pinned), before);
    drop((db, pinned));
    // Even a power cut right behind it.
    let left = disk.after_crash(Crash { data: Unsynced::Dropped, names_kept: false });
    for disk in [disk, left] {
        let (db, report) = open(&disk);
        assert_eq!((report.segments, report.bytes), (0, 0), "{report:?}");
        assert_eq!(dump(&db), before);
        let blocks = db.stats().blocks;
        let again = db.close().unwrap();
        assert_eq!(again, CloseReport::default(), "there is nothing new to write");
        drop(db);
        let (db, _) = open(&disk);
        assert_eq!((dump(&db), db.stats().blocks), (before.clone(), blocks));
        for at in 40..70 {
            db.append(&batch(at * 100, 0..3)).unwrap();
        }
        let more = dump(&db);
        run_jobs(&db, 7000);
        assert_eq!(dump(&db), more, "overlapping blocks are merged");
    }
}

#[test]
fn samples_are_judged_after_a_clean_stop_as_before() {
    use RejectReason::{DuplicateTimestamp, OutOfBounds, OutOfOrder};
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    assert_eq!(append_one(&db, 5000, 1.0, 0), None);
    db.append(&batch(5200, 1..2)).unwrap();
    let refs = db.append(&batch(5300, 0..2)).unwrap().refs;
    db.close().unwrap();
    drop(db);
    let (db, _) = open(&disk);
    assert_eq!(append_one(&db, 5300, 5300.0, 0), None, "the same again is no change");
    assert_eq!(append_one(&db, 5300, 2.0, 0), Some(DuplicateTimestamp));
    assert_eq!(append_one(&db, 5200, 2.0, 0), Some(OutOfOrder));
    assert_eq!(append_one(&db, 4700, 2.0, 0), Some(OutOfBounds));
    db.append(&batch(5250, 7..8)).unwrap();
    assert_eq!(append_one(&db, 5400, 2.0, 0), None);
    assert_eq!(db.append(&batch(5500, 0..2)).unwrap().refs, refs, "handles stay");
    let all = dump(&db);
    assert_eq!(all[0], r#"{__name__="m", n="0"} 5000=1 5300=5300 5400=2 5500=5500"#);
    assert_eq!(all[2], r#"{__name__="m", n="7"} 5250=5250.875"#);
}

#[test]
fn a_hold_goes_on_after_a_clean_stop() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let hold = db.hold("slow", None).unwrap();
    for at in 0..40 {
        db.append(&batch(at * 100, 0..3)).unwrap();
    }
    let saved = [hold.position(), db.wal_end()];
    drop(hold);
    db.close().unwrap();
    drop(db);
    let (db, _) = open(&disk);
    let mut late = db.hold("slow", Some(saved[0])).unwrap();
    let mut even = db.hold("even", Some(saved[1])).unwrap();
    db.append(&batch(4000, 0..3)).unwrap();
    for (hold, want) in [(&mut late, 123), (&mut even, 3)] {
        let mut rows = 0;
        while let CursorEvent::Batch(batch) = hold.next_event().unwrap() {
            assert_eq!(batch.orphans, 0);
            rows += batch.rows.len();
        }
        assert_eq!(rows, want);
    }
}

#[test]
fn a_stop_that_cannot_write_its_checkpoint_loses_nothing() {
    for call in 0.. {
        let disk = SimDisk::new();
        let db = filled(&disk, 40);
        let before = dump(&db);
        disk.set_plan(Some(Plan { call, fault: Fault::Full, repeated: true }));
        let report = db.close();
        let done = disk.calls() <= call;
        disk.set_plan(None);
        let replays = report.as_ref().map_or(true, |report| report.replays.is_some());
        assert!(done || replays, "call {call}: {report:?}");
        drop(db);
        let (db, report) = open(&disk);
        assert_eq!(dump(&db), before, "call {call}");
        assert!(replays || report.segments == 0, "call {call}");
        if done {
            break;
        }
    }
}
