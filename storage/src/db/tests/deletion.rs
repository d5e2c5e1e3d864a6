//! Deleted samples, and those sent again.

use super::*;

#[test]
fn deleted_samples_are_gone_from_head_and_blocks() {
    let disk = SimDisk::new();
    let db = filled(&disk, 40);
    run_jobs(&db, 4000);
    let range = TimeRange::new(Timestamp(500), Timestamp(3500));
    let selector = Selector::new(vec![Matcher::equal("n", "1")]);
    let pinned = db.querier(TimeRange::ALL).unwrap();
    let before = dump(&db);
    db.delete_series(&[selector], range).unwrap();
    assert_eq!(dump_querier(&*pinned), before);
    let after = dump(&db);
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    let times: Vec<i64> =
        after[1].split(' ').filter_map(|word| word.split_once('=')?.0.parse().ok()).collect();
    assert!(times.iter().all(|at| !range.contains(Timestamp(*at))), "{times:?}");
    assert!(times.contains(&400) && times.contains(&3500));
    drop(pinned);
    db.clean_tombstones().unwrap();
    assert_eq!(dump(&db), after);
    db.close().unwrap();
    assert_eq!(dump(&open(&disk).0), after);
}

fn late(at: i64, value: f64) -> Batch {
    let mut batch = Batch { out_of_order_window: Span(10_000), ..Batch::default() };
    batch.push(labels("m", 0), Sample::float(Timestamp(at), value));
    batch
}

#[test]
fn what_is_sent_again_after_a_deletion_is_kept() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    for at in [100, 200, 300] {
        db.append(&batch(at, 0..1)).unwrap();
    }
    db.append(&late(150, 1.0)).unwrap();
    let range = TimeRange::new(Timestamp(100), Timestamp(250));
    db.delete_series(&[Selector::metric("m")], range).unwrap();
    assert_eq!(dump(&db), [r#"{__name__="m", n="0"} 300=300"#]);
    for at in [150, 200] {
        assert!(db.append(&late(at, 2.5)).unwrap().rejected.is_empty());
    }
    let wanted = [r#"{__name__="m", n="0"} 150=2.5 200=2.5 300=300"#];
    assert_eq!(dump(&db), wanted);
    // A sample with another value for the same time is a duplicate of the new one.
    let again = db.append(&late(150, 1.0)).unwrap().rejected;
    assert_eq!(again[0].reason, RejectReason::DuplicateTimestamp);
    drop(db);
    let (db, _) = open(&disk);
    assert_eq!(dump(&db), wanted);
    db.append(&batch(9000, 0..1)).unwrap();
    run_jobs(&db, 9000);
    assert_eq!(dump(&db), [r#"{__name__="m", n="0"} 150=2.5 200=2.5 300=300 9000=9000"#]);
}
