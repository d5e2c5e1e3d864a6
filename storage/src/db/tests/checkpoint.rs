//! A start reads a checkpoint and the log behind it, and finds what was there.

use std::path::Path;

use super::*;
use crate::disk::TEMPORARY_SUFFIX;
use crate::disk::sim::{Crash, Fault, Plan};
use crate::job::checkpoint::Begun;

/// A batch with late samples, and a series of its own.
fn mixed(at: i64) -> Batch {
    let mut batch = batch(at, 0..7);
    batch.out_of_order_window = Span(5000);
    batch.push(labels("late", at as usize % 5), Sample::float(Timestamp(at - 35), 0.5));
    batch.push(labels("m", at as usize % 7), Sample::float(Timestamp(at - 55), 0.25));
    batch.push(labels("new", at as usize), Sample::float(Timestamp(at), 1.0));
    batch
}

fn delete(db: &Db, n: usize, at: i64) {
    let selector = Selector::new(vec![Matcher::equal("n", &n.to_string())]);
    let range = TimeRange::new(Timestamp(at - 60), Timestamp(at + 1));
    db.delete_series(&[selector], range).unwrap();
}

#[test]
fn what_comes_while_a_checkpoint_is_written_is_there_once() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    for at in 1..20 {
        db.append(&mixed(at * 10)).unwrap();
    }
    let mut begun = Begun::new(&db.inner, Effort::Time).unwrap().unwrap();
    let mut at = 200;
    while begun.step(&db.inner).unwrap() {
        if at > 500 {
            // More series than it takes at once would keep it going.
            continue;
        }
        db.append(&mixed(at)).unwrap();
        delete(&db, at as usize / 10 % 7, at);
        at += 10;
        db.append(&mixed(at)).unwrap();
        at += 10;
    }
    begun.finish(&db.inner).unwrap();
    db.append(&mixed(at)).unwrap();
    let held = |db: &Db| (dump(db), db.stats().late_samples, db.stats().series);
    let (before, late, series) = held(&db);
    // Deleted late samples are in memory until the next flush, and not written down.
    assert!(late > 40 && at > 400, "{late} late, up to {at}");
    let left = disk.after_crash(Crash::KILL);
    let (db, report) = open(&left);
    assert_eq!(report.damage, []);
    let (again, late_again, series_again) = held(&db);
    assert_eq!(again, before);
    assert!(late_again <= late, "{late_again} of {late}");
    assert_eq!(series_again, series);
    // And handles, times to compare with, and what follows.
    assert_eq!(append_one(&db, at, 3.0, 0), Some(RejectReason::DuplicateTimestamp));
    for at in (at / 10 + 1)..(at / 10 + 300) {
        db.append(&mixed(at * 10)).unwrap();
    }
    let before = dump(&db);
    run_jobs(&db, 4000);
    assert_eq!(dump(&db), before);
}

#[test]
fn a_start_reads_the_log_behind_the_checkpoint_alone() {
    let disk = SimDisk::new();
    let options = Options { checkpoint_bytes: 1, head_file_bytes: 40, ..options() };
    let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
    for at in 1..9 {
        db.append(&batch(at * 100, 0..5)).unwrap();
    }
    assert!(run_jobs(&db, 800).contains(&"checkpoint"));
    assert!(!run_jobs(&db, 800).contains(&"checkpoint"), "nothing was logged since");
    db.append(&batch(900, 0..5)).unwrap();
    let before = dump(&db);
    let (db, report) = open(&disk.after_crash(Crash::KILL));
    assert_eq!((report.samples, report.series, report.damage.len()), (5, 5, 0));
    assert_eq!(dump(&db), before);
}

#[test]
fn a_damaged_file_of_the_head_costs_the_chunks_that_it_hits() {
    let disk = SimDisk::new();
    let options = Options { head_file_bytes: 1000, ..options() };
    let open = |disk: &SimDisk| Db::open(Arc::new(disk.clone()), options.clone()).unwrap();
    let (db, _) = open(&disk);
    for at in 1..10 {
        db.append(&batch(at * 100, 0..40)).unwrap();
    }
    let whole = dump(&db);
    db.close().unwrap();
    drop(db);
    let path = Path::new("head/00000000");
    let size = disk.size(path).unwrap();
    disk.damage(path, size as usize / 2, 4).unwrap();
    let (db, report) = open(&disk);
    let reasons: Vec<_> = report.damage.iter().map(|damage| damage.reason.as_str()).collect();
    let want = [
        "checksum mismatch: chunks that are damaged are left out",
        "1 sealed chunks of the head are lost",
    ];
    assert_eq!(reasons, want);
    let found = dump(&db);
    let hit = found.iter().zip(&whole).filter(|(found, whole)| found != whole).count();
    assert_eq!((hit, found.len()), (1, 40));
    // What is left becomes blocks as ever.
    for at in 10..40 {
        db.append(&batch(at * 100, 0..40)).unwrap();
    }
    assert!(run_jobs(&db, 4000).contains(&"truncate"));
    db.close().unwrap();
    drop(db);
    disk.remove(path).ok();
    let (_, report) = open(&disk);
    assert_eq!(report.damage, [], "nothing refers to that file any more");
}

#[test]
fn what_makes_room_comes_before_a_checkpoint() {
    let disk = SimDisk::new();
    let options = Options { checkpoint_bytes: 1, ..options() };
    let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
    for at in 0..60 {
        db.append(&batch(at * 100, 0..3)).unwrap();
    }
    run_jobs(&db, 6000);
    assert!(db.stats().blocks > 1);
    for at in 600..640 {
        db.append(&batch(at * 10, 0..3)).unwrap();
    }
    db.set_limits(Limits { retention_bytes: Some(1), ..db.options().limits() });
    assert_eq!(run_jobs(&db, 6400)[..2], ["retain", "checkpoint"]);
}

/// Jobs until a checkpoint has its name and the one before is there too, as after a crash in between.
fn with_two_checkpoints() -> (SimDisk, Vec<String>) {
    for call in 0.. {
        let disk = SimDisk::new();
        let options = Options { checkpoint_bytes: 1, ..options() };
        let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
        for at in 1..12 {
            db.append(&mixed(at * 100)).unwrap();
        }
        run_jobs(&db, 1200);
        for at in 120..150 {
            db.append(&mixed(at * 10)).unwrap();
        }
        let want = dump(&db);
        disk.set_plan(Some(Plan { call, fault: Fault::Crash, repeated: true }));
        while db.next_job(Timestamp(1500)).is_some_and(|job| job.run().is_ok()) {}
        let left = disk.after_crash(Crash::KILL);
        if checkpoints(&left).len() == 2 {
            return (left, want);
        }
        assert!(disk.has_crashed(), "there is such a moment");
    }
    unreachable!()
}

fn checkpoints(disk: &SimDisk) -> Vec<std::path::PathBuf> {
    let entries = disk.list(Path::new("wal")).unwrap().into_iter();
    let names = entries
        .map(|entry| entry.name)
        .filter(|name| name.starts_with("checkpoint.") && !name.ends_with(TEMPORARY_SUFFIX));
    names.map(|name| Path::new("wal").join(name)).collect()
}

#[test]
fn a_damaged_checkpoint_costs_nothing_where_the_one_before_is_still_there() {
    let (disk, want) = with_two_checkpoints();
    let newest = checkpoints(&disk).pop().unwrap();
    for at in (0..disk.size(&newest).unwrap()).step_by(7) {
        let hurt = disk.after_crash(Crash::KILL);
        hurt.damage(&newest, at as usize, 1 << (at % 8)).unwrap();
        for start in 0..2 {
            let (db, report) = open(&hurt);
            assert_eq!(dump(&db), want, "{at}, start {start}");
            assert_eq!(report.orphaned_samples, 0);
            let damage = report.damage.iter().map(|damage| &damage.path);
            let told = if start == 0 { vec![&newest] } else { vec![] };
            assert_eq!(damage.collect::<Vec<_>>(), told, "{at}, start {start}");
            assert_eq!(checkpoints(&hurt).len(), 1);
        }
    }
    // Without the log between them the newest is better, damaged or not.
    let hurt = disk.after_crash(Crash::KILL);
    hurt.damage(&newest, 20, 1).unwrap();
    let segments = hurt.list(Path::new("wal")).unwrap();
    let first = segments.iter().find(|entry| entry.name.parse::<u64>().is_ok()).unwrap();
    hurt.remove(&Path::new("wal").join(&first.name)).unwrap();
    let (_, report) = open(&hurt);
    assert_eq!((report.damage.len(), checkpoints(&hurt)), (1, vec![newest.clone()]));
    let (db, report) = open(&disk);
    assert_eq!((dump(&db), report.damage), (want, vec![]));
    assert_eq!(checkpoints(&disk), [newest]);
}

#[test]
fn a_checkpoint_that_finds_no_room_gives_back_what_it_took() {
    let disk = SimDisk::new();
    let options = Options { checkpoint_bytes: 1, ..options() };
    let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
    for at in 1..9 {
        db.append(&batch(at * 100, 0..50)).unwrap();
    }
    let free = disk.free_space().unwrap();
    disk.set_capacity(u64::MAX - free + 40);
    let error = db.next_job(Timestamp(900)).unwrap().run().unwrap_err();
    assert!(error.to_string().contains("checkpoint."), "{error}");
    let left = disk.list(Path::new("wal")).unwrap();
    assert!(left.iter().all(|entry| !entry.name.ends_with(TEMPORARY_SUFFIX)), "{left:?}");
    assert_eq!(disk.free_space().unwrap(), 40, "appends have what there was");
    disk.set_capacity(u64::MAX);
    assert_eq!(run_jobs(&db, 900), ["checkpoint", "trim_log"]);
}

#[test]
fn what_failed_waits_for_other_work_that_may_make_room() {
    let disk = SimDisk::new();
    let (db, _) = Db::open(Arc::new(disk.clone()), options()).unwrap();
    for at in 0..60 {
        db.append(&batch(at * 100, 0..3)).unwrap();
        if at == 40 {
            run_jobs(&db, 4000);
        }
    }
    let job = db.next_job(Timestamp(6000)).unwrap();
    assert_eq!(job.name(), "flush");
    job.run().unwrap();
    let free = disk.free_space().unwrap();
    disk.set_capacity(u64::MAX - free + 20);
    let job = db.next_job(Timestamp(6000)).unwrap();
    assert_eq!(job.name(), "truncate");
    job.run().unwrap_err();
    db.set_limits(Limits { retention: Some(Span(1000)), ..db.options().limits() });
    assert_eq!(run_jobs(&db, 6000)[..2], ["retain", "truncate"]);
    // With nothing else to do it is tried again.
    disk.set_capacity(0);
    db.append(&batch(6000, 0..3)).unwrap_err();
    disk.set_capacity(u64::MAX);
    for at in 60..80 {
        db.append(&batch(at * 100, 0..3)).unwrap();
    }
    disk.set_capacity(0);
    for _ in 0..3 {
        let job = db.next_job(Timestamp(8000)).unwrap();
        assert_eq!(job.name(), "flush");
        job.run().unwrap_err();
    }
}
