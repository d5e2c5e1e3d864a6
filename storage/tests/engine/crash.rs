//! The machine stops at any call to the disk: what was synced comes back, whole batches only.

use stint_storage::SimDisk;
use stint_storage::disk::sim::{Crash, Fault, Plan};

use crate::support::{Told, batches_in, content, long, open, tell, verify};

fn stop_at(call: u64) -> (SimDisk, Told) {
    let disk = SimDisk::new();
    disk.set_plan(Some(Plan { call, fault: Fault::Crash, repeated: true }));
    let told = tell(&disk, |_, _| {});
    (disk, told)
}

fn check(disk: &SimDisk, told: &Told, crash: Crash, place: &str) {
    let left = disk.after_crash(crash);
    let (db, report) = open(&left).unwrap_or_else(|error| panic!("{place}: {error}"));
    let first = content(&db);
    let found = batches_in(&first);
    let kept = if crash == Crash::KILL { told.acknowledged.len() } else { told.synced };
    for number in &told.acknowledged[..kept] {
        assert!(found.contains(number), "{place}: batch {number} is lost; {report:?}");
    }
    assert!(report.damage.is_empty() && report.quarantined.is_empty(), "{place}: {report:?}");
    assert_eq!(report.orphaned_samples, 0, "{place}");
    drop(db);
    let (db, report) = open(&left).unwrap_or_else(|error| panic!("{place}, again: {error}"));
    assert_eq!(content(&db), first, "{place}: recovering twice gives the same");
    assert_eq!(report.torn_tail, None, "{place}: the tail was cut off the first time");
    verify(&left);
}

#[test]
fn a_crash_at_any_call_loses_nothing_synced() {
    let calm = SimDisk::new();
    let told = tell(&calm, |_, _| {});
    let calls = calm.calls();
    assert!(calls > 200, "{calls} calls");
    check(&calm, &told, Crash::KILL, "no crash");
    for call in 0..calls {
        let (disk, told) = stop_at(call);
        assert!(disk.has_crashed());
        for (number, crash) in Crash::ALL.into_iter().enumerate() {
            if long() || call as usize % Crash::ALL.len() == number {
                check(&disk, &told, crash, &format!("call {call}, {crash:?}"));
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
                let kept = Told {
                    acknowledged: told.acknowledged.clone(),
                    synced: if crash == Crash::KILL {
                        told.acknowledged.len()
                    } else {
                        told.synced
                    },
                };
                // A killed process left everything in the page cache, and then the power went.
                let kept = if crash == Crash::KILL { told.clone() } else { kept };
                check(&left, &kept, Crash::ALL[1], &format!("call {call}, then {second}"));
            }
        }
    }
}
