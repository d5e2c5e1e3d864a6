//! Any call to the disk fails: no panic, nothing refused becomes visible, nothing acknowledged is
//! lost, and a database that is reopened is as good as before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_model::{
    AppendError, Appender as _, Batch, Columns, Hints, Matcher, Queryable as _, Sample, Selector,
    TimeRange, Timestamp,
};
use stint_storage::check::check;
use stint_storage::disk::sim::{Crash, Fault, Plan};
use stint_storage::{Db, Disk, Job, SimDisk};

use crate::support::{Content, Told, content, judge, long, open, series, tell};

/// All that was acknowledged is there, and nothing that was refused.
fn check_content(content: &Content, told: &Told, place: &str) {
    let found = judge(content, told, &told.acknowledged, false, place);
    assert!(found.iter().all(|batch| told.acknowledged.contains(batch)), "{place}: {found:?}");
}

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
                check_content(&content(db), told, &place);
            });
            disk.set_plan(None);
            let (db, report) = open(&disk).unwrap_or_else(|error| panic!("{place}: {error}"));
            check_content(&content(&db), &told, &format!("{place}: {report:?}"));
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
    drop(db);
    assert_eq!(content(&open(&disk).unwrap().0), before);
}

#[test]
fn a_full_disk_keeps_jobs_waiting_until_there_is_room() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk).unwrap();
    for at in 0..40 {
        let mut batch = Batch::default();
        batch.push(series(1), Sample::float(Timestamp(at * 100), at as f64));
        db.append(&batch).unwrap();
    }
    let before = content(&db);
    let room = |bytes: u64| disk.set_capacity(u64::MAX - disk.free_space().unwrap() + bytes);
    let mut refused = 0;
    for bytes in 0.. {
        disk.set_capacity(u64::MAX);
        room(bytes);
        match db.next_job(Timestamp(4000)).map(Job::run) {
            Some(Err(error)) => {
                assert!(error.to_string().contains("storage"), "{error}");
                refused += 1;
            }
            Some(Ok(_)) => {}
            None => break,
        }
        assert_eq!(content(&db), before, "{bytes} bytes of room");
    }
    assert!(refused > 10, "{refused} refused");
    disk.set_capacity(u64::MAX);
    assert_eq!(db.stats().leftover_bytes, 0);
    assert!(db.stats().blocks > 0);
    drop(db);
    assert_eq!(content(&open(&disk).unwrap().0), before);
}

#[test]
fn a_failed_sync_ends_writing_until_the_database_is_reopened() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk).unwrap();
    let append = |db: &Db, at| {
        let mut batch = Batch::default();
        batch.push(series(1), Sample::float(Timestamp(at), 1.0));
        db.append(&batch)
    };
    append(&db, 100).unwrap();
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Io, repeated: false }));
    assert!(matches!(db.sync(), Err(AppendError::ReadOnly(_))));
    assert!(matches!(append(&db, 200), Err(AppendError::ReadOnly(_))), "though the disk is well");
    assert!(matches!(db.sync(), Err(AppendError::ReadOnly(_))));
    assert!(db.delete_series(&[Selector::default()], TimeRange::ALL).is_err());
    assert!(db.next_job(Timestamp(9000)).is_none());
    assert!(db.stats().read_only.is_some_and(|reason| reason.contains("wal/")));
    assert_eq!(content(&db)[&series(1)].len(), 1, "queries go on");
    drop(db);
    let (db, _) = open(&disk).unwrap();
    append(&db, 200).unwrap();
    db.sync().unwrap();
    assert_eq!(content(&db)[&series(1)].len(), 2);
}

/// A database with files of every kind, and what it held before the last deletion.
fn of_every_kind() -> (SimDisk, Content) {
    let disk = SimDisk::new();
    tell(&disk, |_, _| {});
    let (db, _) = open(&disk).unwrap();
    let ever = content(&db);
    let selector = Selector::new(vec![Matcher::equal("n", "2")]);
    for (start, end) in [(2900, 3000), (3500, 3600)] {
        let range = TimeRange::new(Timestamp(start), Timestamp(end));
        db.delete_series(std::slice::from_ref(&selector), range).unwrap();
    }
    drop(db);
    let names: Vec<String> =
        files_below(&disk, Path::new("")).iter().map(|path| path.display().to_string()).collect();
    for kind in
        ["wal/0", "wal/checkpoint", "wal/identity", "meta", "chunks", "index", "tombs", "head/0"]
    {
        assert!(names.iter().any(|name| name.contains(kind)), "{kind}: {names:?}");
    }
    (disk, ever)
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let (disk, ever) = of_every_kind();
    let whole = content(&open(&disk).unwrap().0);
    let mut lost = 0;
    for path in files_below(&disk, Path::new("")) {
        if path.starts_with("snapshots") {
            continue;
        }
        let size = disk.size(&path).unwrap();
        let step = if long() { 1 } else { 17 };
        for offset in (0..size).step_by(step) {
            for bit in (0..8).filter(|bit| long() || offset % 8 == *bit) {
                let hurt = disk.after_crash(Crash::KILL);
                hurt.damage(&path, offset as usize, 1 << bit).unwrap();
                let place = format!("{} at {offset}, bit {bit}", path.display());
                let shared: Arc<dyn Disk> = Arc::new(hurt.clone());
                assert!(!check(&shared).unwrap().findings.is_empty(), "{place}");
                lost += usize::from(!served_or_reported(&hurt, [&whole, &ever], &place));
            }
        }
    }
    assert!(lost > 10, "damage is met");
}

/// Whether everything is served. What is served is right; what is not is missed aloud, in the
/// report of the start or as an error of the query; and so is a deletion that is lost.
fn served_or_reported(hurt: &SimDisk, [whole, ever]: [&Content; 2], place: &str) -> bool {
    let (db, report) = open(hurt).unwrap_or_else(|error| panic!("{place}: {error}"));
    let reported =
        !report.damage.is_empty() || !report.quarantined.is_empty() || report.torn_tail.is_some();
    let mut failed = false;
    let mut served = 0;
    let querier = db.querier(TimeRange::ALL).unwrap();
    if let Ok(set) = querier.select(&Selector::default(), &Hints::default()) {
        for index in 0..set.len() {
            let mut columns = Columns::default();
            if set.read(index, TimeRange::ALL, &mut columns).is_err() {
                failed = true;
                continue;
            }
            let rows = if reported { ever } else { whole };
            let rows = &rows[&set.labels(index)];
            for (at, value) in columns.times.iter().zip(&columns.values) {
                assert_eq!(rows.get(&at.0), Some(&value.to_bits()), "{place}: {at}");
            }
            served += columns.times.len();
        }
    } else {
        failed = true;
    }
    let all = served >= whole.values().map(std::collections::BTreeMap::len).sum::<usize>();
    assert!(all || reported || failed, "{place}: samples are missing in silence");
    all
}

fn files_below(disk: &SimDisk, dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in disk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            files.extend(files_below(disk, &path));
        } else {
            files.push(path);
        }
    }
    files
}
