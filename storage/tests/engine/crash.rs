//! The machine stops at any call to the disk: what was synced comes back, whole batches only.

use std::path::Path;

use stint_storage::SimDisk;
use stint_storage::disk::sim::{Crash, Fault, Plan, Unsynced};

use crate::support::{SNAPSHOT, Told, content, judge, long, open, tell, verify};

fn stop_at(call: u64) -> (SimDisk, Told) {
    let disk = SimDisk::new();
    disk.set_plan(Some(Plan { call, fault: Fault::Crash, repeated: true }));
    let told = tell(&disk, |_, _| {});
    (disk, told)
}

fn check(disk: &SimDisk, told: &Told, crash: Crash, holes: bool, place: &str) {
    let left = disk.after_crash(crash);
    let (db, report) = open(&left).unwrap_or_else(|error| panic!("{place}: {error}"));
    let first = content(&db);
    // Pages that were written back out of order look like damage, and cost what they hit.
    let holes = holes || crash.data == Unsynced::Reordered;
    let kept = if crash == Crash::KILL { told.acknowledged.len() } else { told.synced };
    let parts = holes && report.orphaned_samples > 0;
    judge(&first, told, &told.acknowledged[..kept], parts, &format!("{place}: {report:?}"));
    assert!(holes || report.damage.is_empty(), "{place}: {report:?}");
    assert!(report.quarantined.is_empty(), "{place}: {report:?}");
    assert!(holes || report.orphaned_samples == 0, "{place}");
    check_snapshot(&left, told, place);
    drop(db);
    let (db, report) = open(&left).unwrap_or_else(|error| panic!("{place}, again: {error}"));
    assert_eq!(content(&db), first, "{place}: recovering twice gives the same");
    assert_eq!(report.torn_tail, None, "{place}: the tail was cut off the first time");
    if report.damage.is_empty() {
        verify(&left);
    }
}

/// A snapshot that has its name is whole, and one that was acknowledged has its name.
fn check_snapshot(left: &SimDisk, told: &Told, place: &str) {
    let there = left.at_dir(Path::new(SNAPSHOT));
    let Some((seen, acknowledged)) = &told.snapshot else {
        return assert!(there.is_err(), "{place}");
    };
    assert!(there.is_ok() || !acknowledged, "{place}: the snapshot is lost");
    if let Ok(disk) = there {
        let (db, report) = open(&disk).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(&content(&db), seen, "{place}: {report:?}");
    }
}

#[test]
fn a_crash_at_any_call_loses_nothing_synced() {
    let calm = SimDisk::new();
    let told = tell(&calm, |_, _| {});
    let calls = calm.calls();
    assert!(calls > 200, "{calls} calls");
    // The story meets all that may be interrupted.
    let jobs: Vec<_> = told.jobs.iter().copied().collect();
    let all = [
        "checkpoint",
        "clean_tombstones",
        "compact",
        "flush",
        "retain",
        "trim_log",
        "truncate",
        "write_chunks",
    ];
    assert_eq!(jobs, all);
    assert!(told.deletions.iter().all(|deletion| deletion.acknowledged));
    assert!(told.snapshot.as_ref().is_some_and(|(_, done)| *done));
    check(&calm, &told, Crash::KILL, false, "no crash");
    for call in 0..calls {
        let (disk, told) = stop_at(call);
        assert!(disk.has_crashed());
        for (number, crash) in Crash::ALL.into_iter().enumerate() {
            if long() || call as usize % Crash::ALL.len() == number {
                check(&disk, &told, crash, false, &format!("call {call}, {crash:?}"));
            }
        }
    }
}

#[test]
fn a_crash_during_recovery_loses_nothing_either() {
    let calm = SimDisk::new();
    tell(&calm, |_, _| {});
    let step = if long() { 1 } else { 29 };
    for call in (0..calm.calls()).step_by(step) {
        let (disk, told) = stop_at(call);
        let crash = Crash::ALL[call as usize % Crash::ALL.len()];
        for second in 0.. {
            let left = disk.after_crash(crash);
            left.set_plan(Some(Plan { call: second, fault: Fault::Crash, repeated: true }));
            drop(open(&left));
            if !left.has_crashed() {
                break;
            }
            if long() || second % 5 == call % 5 {
                let holes = crash.data == Unsynced::Reordered;
                let place = format!("call {call}, {crash:?}, then {second}");
                check(&left, &told, Crash::ALL[1], holes, &place);
            }
        }
    }
}
