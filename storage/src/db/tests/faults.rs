//! What a failing step leaves behind does no harm later.

use super::*;
use crate::disk::sim::{Crash, Fault, Plan};

/// A database whose next job is called `name`.
fn due(name: &str) -> (SimDisk, Db) {
    let disk = SimDisk::new();
    let db = filled(&disk, 40);
    while db.next_job(Timestamp(4000)).expect("a job").name() != name {
        db.next_job(Timestamp(4000)).expect("a job").run().unwrap();
    }
    (disk, db)
}

#[test]
fn a_block_that_fails_after_it_got_its_name_does_not_come_back() {
    for (name, repeated) in [("flush", false), ("flush", true), ("compact", false)] {
        let (_, calm) = due(name);
        run_jobs(&calm, 4000);
        for call in 0.. {
            let (disk, mut db) = due(name);
            disk.set_plan(Some(Plan { call, fault: Fault::Io, repeated }));
            let outcome = db.next_job(Timestamp(4000)).expect("the job").run();
            let done = disk.calls() <= call;
            let place = format!("{name}, call {call}, {repeated}: {outcome:?}");
            let range = TimeRange::new(Timestamp(500), Timestamp(3500));
            let selector = [Selector::new(vec![Matcher::equal("n", "1")])];
            if db.delete_series(&selector, range).is_err() {
                disk.set_plan(None);
                if db.delete_series(&selector, range).is_err() {
                    // A sync has failed: only a new start helps.
                    drop(db);
                    db = open(&disk).0;
                    db.delete_series(&selector, range).unwrap();
                }
            }
            disk.set_plan(None);
            let rest = dump(&db);
            assert_eq!(dump(&open(&disk.after_crash(Crash::KILL)).0), rest, "{place}");
            run_jobs(&db, 4000);
            db.clean_tombstones().unwrap();
            assert_eq!(dump(&db), rest, "{place}");
            let (samples, blocks) = stored(&disk);
            assert_eq!(blocks, db.stats().blocks, "{place}");
            assert!(samples <= calm.stats().samples_appended, "{samples}");
            drop(db);
            assert_eq!(dump(&open(&disk).0), rest, "{place}");
            if done {
                break;
            }
        }
    }
}

/// Samples in blocks, and blocks, on the disk.
fn stored(disk: &SimDisk) -> (u64, u64) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = crate::check::check(&disk).unwrap();
    assert_eq!(report.findings, []);
    (report.block_samples, report.blocks)
}
