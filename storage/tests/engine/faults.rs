//! Any call to the disk fails: no panic, nothing refused becomes visible, nothing acknowledged is
//! lost, and a database that is reopened is as good as before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_model::{
    AppendError, Appender as _, Batch, Columns, Hints, Queryable as _, Sample, Selector, TimeRange,
    Timestamp,
};
use stint_storage::check::check;
use stint_storage::disk::sim::{Crash, Fault, Plan};
use stint_storage::{Disk, SimDisk};

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
    drop(db);
    assert_eq!(content(&open(&disk).unwrap().0), before);
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let disk = SimDisk::new();
    tell(&disk, |_, _| {});
    let whole = content(&open(&disk).unwrap().0);
    for dir in files_below(&disk, Path::new("")) {
        let size = disk.size(&dir).unwrap();
        let step = if long() { 1 } else { 37 };
        for offset in (0..size).step_by(step) {
            let hurt = disk.after_crash(Crash::KILL);
            hurt.damage(&dir, offset as usize, 1 << (offset % 8)).unwrap();
            let place = format!("{} at {offset}", dir.display());
            let shared: Arc<dyn Disk> = Arc::new(hurt.clone());
            assert!(!check(&shared).unwrap().findings.is_empty(), "{place}");
            // What is served is right as far as it goes: less, or an error, but nothing else.
            let Ok((db, _)) = open(&hurt) else { continue };
            let querier = db.querier(TimeRange::ALL).unwrap();
            let Ok(set) = querier.select(&Selector::default(), &Hints::default()) else { continue };
            for index in 0..set.len() {
                let mut columns = Columns::default();
                if set.read(index, TimeRange::ALL, &mut columns).is_err() {
                    continue;
                }
                let rows = &whole[&set.labels(index)];
                for (at, value) in columns.times.iter().zip(&columns.values) {
                    assert_eq!(rows.get(&at.0), Some(&value.to_bits()), "{place}: {at}");
                }
            }
        }
    }
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
