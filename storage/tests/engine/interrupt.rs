//! Work is stopped at any step: nothing is lost, nothing is left behind, and the next run does it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, channel};

use stint_model::{
    AppendError, Appender as _, Batch, Matcher, Sample, Selector, Span, TimeRange, Timestamp,
};
use stint_storage::disk::TEMPORARY_SUFFIX;
use stint_storage::{CloseReport, Db, Disk as _, Job, JobError, JobReport, SimDisk};

use crate::support::{content, options, series, verify};

const NOW: Timestamp = Timestamp(8000);

/// A database before the job `name`, with samples of 12 series over several block ranges.
fn before(name: &str) -> (SimDisk, Db) {
    let disk = SimDisk::new();
    let (db, _) = Db::open(Arc::new(disk.clone()), options()).unwrap();
    for at in 0..70 {
        let mut batch = Batch::default();
        for n in 0..12 {
            batch.push(series(n), Sample::float(Timestamp(at * 100), (at * n as i64) as f64));
        }
        db.append(&batch).unwrap();
        // Those that come up on the way are left for the end, but the one that is wanted.
        if name == "checkpoint" || at == 69 {
            while let Some(job) = db.next_job(NOW) {
                if job.name() == name {
                    return (disk, db);
                }
                job.run().unwrap();
            }
        }
    }
    panic!("there is no {name}")
}

fn job(db: &Db, name: &str) -> Job {
    let job = db.next_job(NOW).expect("the job is not done");
    assert_eq!(job.name(), name);
    job
}

/// Files and directories of unfinished things.
fn unfinished(disk: &SimDisk) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        for entry in disk.list(&dir).unwrap() {
            let path = dir.join(&entry.name);
            if entry.name.ends_with(TEMPORARY_SUFFIX) {
                found.push(path);
            } else if entry.is_dir {
                open.push(path);
            }
        }
    }
    found
}

/// Runs the job `name` with an ever later stop until it gets through.
fn stop_at_every_step(name: &str, ever_more: impl Fn(&Db, &JobReport)) -> usize {
    let mut stops = 0;
    loop {
        let (disk, db) = before(name);
        let whole = content(&db);
        let blocks = db.stats().blocks;
        let mut steps = 0;
        let outcome = job(&db, name).run_while(&mut || {
            steps += 1;
            steps <= stops
        });
        assert_eq!(content(&db), whole, "{name}, stopped at step {stops}");
        assert_eq!(unfinished(&disk), Vec::<PathBuf>::new(), "{name}, stopped at step {stops}");
        assert_eq!(db.stats().leftover_bytes, 0, "{name}, stopped at step {stops}");
        match outcome {
            Ok(report) => {
                ever_more(&db, &report);
                return stops;
            }
            Err(JobError::Interrupted) => {}
            Err(error) => panic!("{name}, stopped at step {stops}: {error}"),
        }
        assert!(steps > stops, "it asks before every step");
        if name != "truncate" && name != "checkpoint" {
            assert_eq!(db.stats().blocks, blocks, "{name}, stopped at step {stops}");
        }
        // Appends go on, and so does the work.
        let (_, newest) = db.stats().head_bounds.unwrap();
        let mut batch = Batch::default();
        batch.push(series(1), Sample::float(newest + Span(1), 0.25));
        db.append(&batch).unwrap();
        let report = job(&db, name).run().unwrap();
        ever_more(&db, &report);
        let now = content(&db);
        assert_eq!(now[&series(2)], whole[&series(2)]);
        assert_eq!(now[&series(1)].len(), whole[&series(1)].len() + 1);
        while let Some(job) = db.next_job(NOW) {
            job.run().unwrap();
        }
        assert_eq!(content(&db), now);
        db.close().unwrap();
        drop(db);
        verify(&disk);
        let (db, report) = Db::open(Arc::new(disk), options()).unwrap();
        assert!(report.damage.is_empty() && report.quarantined.is_empty(), "{report:?}");
        assert_eq!(content(&db), now, "{name}, stopped at step {stops}");
        stops += 1;
    }
}

#[test]
fn cutting_a_block_stops_at_every_step() {
    let stops = stop_at_every_step("flush", |_, report| assert_eq!(report.blocks_written, 1));
    assert!(stops > 12, "a step for each series and for each file: {stops}");
}

#[test]
fn merging_blocks_stops_at_every_step() {
    let stops = stop_at_every_step("compact", |_, report| {
        assert_eq!(report.blocks_written, 1);
        assert!(report.blocks_removed > 1);
    });
    assert!(stops > 12, "a step for each series and for each file: {stops}");
}

#[test]
fn truncating_and_checkpoints_stop_at_every_step() {
    assert!(stop_at_every_step("truncate", |_, _| {}) > 2);
    assert!(stop_at_every_step("checkpoint", |_, _| {}) > 1);
}

#[test]
fn a_database_that_is_to_be_closed_begins_nothing_and_ends_what_runs() {
    let (disk, db) = before("compact");
    let whole = content(&db);
    let compact = job(&db, "compact");
    let (mut steps, other) = (0, db.clone());
    let outcome = compact.run_while(&mut || {
        steps += 1;
        if steps == 5 {
            other.stop_jobs();
        }
        true
    });
    assert!(matches!(outcome, Err(JobError::Interrupted)), "{outcome:?}");
    assert_eq!(steps, 5, "it ends at once");
    assert!(db.next_job(NOW).is_none());
    assert!(matches!(db.clean_tombstones(), Err(JobError::Interrupted)));
    assert!(matches!(db.snapshot(Path::new("s"), true), Err(JobError::Interrupted)));
    assert_eq!(unfinished(&disk), Vec::<PathBuf>::new());
    assert_eq!(db.close().unwrap().replays, None, "closing still writes everything down");
    drop((db, other));
    let (db, _) = Db::open(Arc::new(disk), options()).unwrap();
    assert_eq!(content(&db), whole);
    assert_eq!(db.next_job(NOW).unwrap().name(), "compact", "it is done by the next run");
}

/// Closes from another thread while the job `name` is at step `at` and does not go on before the
/// closing has begun.
fn close_beside(name: &str, at: usize) -> Result<JobReport, JobError> {
    let (disk, db) = before(name);
    let whole = content(&db);
    let job = job(&db, name);
    let (closed, is_closed) = channel();
    let mut steps = 0;
    let outcome = std::thread::scope(|scope| {
        job.run_while(&mut || {
            steps += 1;
            if steps == at {
                let closed = closed.clone();
                let db = &db;
                scope.spawn(move || {
                    closed.send(db.close().unwrap()).unwrap();
                });
                while !db.is_stopping() {
                    std::thread::yield_now();
                }
            }
            assert_eq!(is_closed.try_recv(), Err(TryRecvError::Empty), "{name}: a job runs");
            true
        })
    });
    if steps >= at {
        let report = is_closed.recv().unwrap();
        assert_eq!(report, CloseReport::default(), "{name}, closed at step {at}");
        // Nobody holds the directory any more, whoever still has the database.
        let (again, report) = Db::open(Arc::new(disk.clone()), options()).unwrap();
        assert_eq!((report.segments, &report.damage), (0, &Vec::new()), "{name}, step {at}");
        assert_eq!(content(&again), whole, "{name}, closed at step {at}");
        let selectors = [Selector::default()];
        let deleted = db.delete_series(&selectors, TimeRange::ALL);
        assert!(matches!(deleted, Err(JobError::Append(AppendError::Closed))), "{deleted:?}");
        assert_eq!(content(&again), whole);
        again.close().unwrap();
    }
    assert_eq!(db.close().unwrap(), CloseReport::default(), "once is enough");
    assert_eq!(unfinished(&disk), Vec::<PathBuf>::new(), "{name}, closed at step {at}");
    drop(db);
    verify(&disk);
    outcome
}

#[test]
fn closing_waits_for_the_job_that_runs() {
    for name in ["flush", "compact", "truncate", "checkpoint"] {
        let (mut cut_short, mut at) = (0, 1);
        while at < 60 {
            match close_beside(name, at) {
                Err(JobError::Interrupted) => cut_short += 1,
                // It may have been too far to be stopped, or there is no such step.
                Ok(_) => {}
                Err(error) => panic!("{name}, closed at step {at}: {error}"),
            }
            at += if at < 4 { 1 } else { 7 };
        }
        assert!(cut_short > 0, "{name} was never met");
    }
}

#[test]
fn merging_gives_its_room_to_appends_that_a_full_disk_refuses() {
    let (disk, db) = before("compact");
    let append = |at: i64| {
        let mut batch = Batch::default();
        batch.push(series(1), Sample::float(Timestamp(at), 0.25));
        db.append(&batch)
    };
    let whole = content(&db);
    let free = disk.free_space().unwrap();
    let mut filled = false;
    let outcome = job(&db, "compact").run_while(&mut || {
        let has_index = |path: &PathBuf| disk.size(&path.join("index")).is_ok();
        if !filled && unfinished(&disk).iter().any(has_index) {
            filled = true;
            // What the merge has written takes the last room.
            disk.set_capacity(u64::MAX - disk.free_space().unwrap() + 4);
            assert!(matches!(append(7001), Err(AppendError::DiskFull(_))));
        }
        true
    });
    assert!(matches!(outcome, Err(JobError::GaveWay)), "{outcome:?}");
    assert_eq!(unfinished(&disk), Vec::<PathBuf>::new());
    append(7001).expect("there is room again");
    // It is not begun again where it could only do the same.
    let outcome = job(&db, "compact").run();
    assert!(matches!(outcome, Err(JobError::NoRoom { .. })), "{outcome:?}");
    disk.set_capacity(u64::MAX);
    assert!(disk.free_space().unwrap() < free);
    while let Some(job) = db.next_job(NOW) {
        job.run().unwrap();
    }
    assert_eq!(content(&db)[&series(2)], whole[&series(2)]);
    assert_eq!(content(&db)[&series(1)].len(), whole[&series(1)].len() + 1);
}

#[test]
fn rewriting_and_snapshots_stop_between_steps() {
    // Whoever closes does it while they run, at each of their calls to the disk.
    for stop_at in 0.. {
        let (disk, db) = before("compact");
        let selector = Selector::new(vec![Matcher::equal("n", "3")]);
        let range = TimeRange::new(Timestamp(0), Timestamp(1500));
        db.delete_series(&[selector], range).unwrap();
        let whole = content(&db);
        disk.set_plan(None);
        let closer = db.clone();
        disk.watch(move |call| {
            if call == stop_at {
                closer.stop_jobs();
            }
        });
        let outcomes = [db.clean_tombstones(), db.snapshot(Path::new("snapshot"), true)];
        let calls = disk.calls();
        disk.unwatch();
        assert_eq!(content(&db), whole, "call {stop_at}");
        assert_eq!(unfinished(&disk), Vec::<PathBuf>::new(), "call {stop_at}");
        for outcome in &outcomes {
            assert!(matches!(outcome, Ok(_) | Err(JobError::Interrupted)), "{outcome:?}");
        }
        db.close().unwrap();
        drop(db);
        verify(&disk);
        if calls <= stop_at {
            assert!(outcomes.iter().all(Result::is_ok) && calls > 40, "{calls} calls");
            return;
        }
    }
}
