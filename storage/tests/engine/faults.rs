//! Any call to the disk fails: no panic, nothing refused becomes visible, nothing acknowledged is
//! lost, and a database that is reopened is as good as before.

use stint_model::{AppendError, Appender as _, Batch, Sample, Timestamp};
use stint_storage::SimDisk;
use stint_storage::disk::sim::{Fault, Plan};

use crate::support::{batches_in, content, content_after, long, open, series, tell};

#[test]
fn a_failure_at_any_call_is_survived() {
    let calm = SimDisk::new();
    tell(&calm, |_, _| {});
    let kinds = [(Fault::Io, false), (Fault::Full, false), (Fault::Io, true), (Fault::Full, true)];
    for call in 0..calm.calls() {
        for (number, (fault, repeated)) in kinds.into_iter().enumerate() {
            if !long() && call as usize % kinds.len() != number {
                continue;
            }
            let place = format!("call {call}, {fault:?}, repeated: {repeated}");
            let disk = SimDisk::new();
            disk.set_plan(Some(Plan { call, fault, repeated }));
            let told = tell(&disk, |db, told| {
                let seen = batches_in(&content(db));
                assert_eq!(seen, told.acknowledged, "{place}");
            });
            disk.set_plan(None);
            let (db, report) = open(&disk).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(content(&db), content_after(&told.acknowledged), "{place}: {report:?}");
            assert!(report.quarantined.is_empty(), "{place}: {report:?}");
        }
    }
}

#[test]
fn a_full_disk_refuses_appends_until_there_is_room() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk).unwrap();
    let mut at = 0;
    let mut append = || {
        at += 100;
        let mut batch = Batch::default();
        batch.push(series(1), Sample::float(Timestamp(at), at as f64));
        db.append(&batch)
    };
    append().unwrap();
    disk.set_capacity(600);
    let refused = (0..100).find_map(|_| append().err()).expect("the disk fills up");
    assert!(matches!(&refused, AppendError::DiskFull(text) if text.contains("wal/")), "{refused}");
    let held = content(&db)[&series(1)].len();
    assert!(matches!(append(), Err(AppendError::DiskFull(_))));
    assert_eq!(content(&db)[&series(1)].len(), held, "queries go on");
    disk.set_capacity(u64::MAX);
    append().unwrap();
    assert_eq!(content(&db)[&series(1)].len(), held + 1);
    let before = content(&db);
    drop(append);
    drop(db);
    assert_eq!(content(&open(&disk).unwrap().0), before);
}
