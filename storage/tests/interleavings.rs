//! The real engine under a scheduler that decides, at every lock and every call to the disk, which thread
//! goes on: what holds however threads interleave is tried with many interleavings.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test -p stint-storage --test interleavings --release
//! ```
//!
//! `STINT_LONG=1` tries a hundred times as many. Without the flag there is nothing here: the
//! engine's locks are then those of `parking_lot`. A failure prints the schedule that it took.
#![cfg(shuttle)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use shuttle::sync::Mutex;
use shuttle::thread;
use stint_model::{
    AppendError, Appender as _, Batch, Columns, Hints, Labels, Matcher, Querier, Queryable as _,
    Sample, Selector, Span, TimeRange, Timestamp,
};
use stint_storage::check::check;
use stint_storage::disk::sim::{Crash, Unsynced};
use stint_storage::{CloseReport, CursorEvent, Db, Disk, JobError, Options, SimDisk, SyncPolicy};

/// Tries a test under schedules at random, and under such as change the running thread seldom, which
/// finds what needs a thread to be held up for long.
fn explore(test: impl Fn() + Send + Sync + Copy + 'static) {
    let times = if std::env::var_os("STINT_LONG").is_some() { 20_000 } else { 200 };
    shuttle::check_random(test, times);
    shuttle::check_pct(test, times, 3);
}

/// Limits so small that a few batches pass all of them.
fn options() -> Options {
    Options {
        block_range: Span(1000),
        retention: None,
        chunk_samples: 3,
        segment_bytes: 200,
        checkpoint_bytes: 150,
        head_file_bytes: 60,
        ..Options::default()
    }
}

fn open(disk: &SimDisk) -> Db {
    let (db, report) = Db::open(Arc::new(disk.clone()), options()).unwrap();
    assert!(report.damage.is_empty() && report.quarantined.is_empty(), "{report:?}");
    db
}

const SERIES: usize = 3;

/// Batch `number`: a sample of each series at its time, and a late one now and then.
fn rows(number: i64) -> Vec<(usize, i64)> {
    let mut rows: Vec<_> = (0..SERIES).map(|n| (n, number * 200)).collect();
    if number % 3 == 2 {
        rows.push((1, number * 200 - 450));
    }
    if number % 4 == 3 {
        rows.push((SERIES + number as usize, number * 200));
    }
    rows
}

fn labels(n: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())])
}

fn append(db: &Db, number: i64) -> Result<(), AppendError> {
    let mut batch = Batch { out_of_order_window: Span(5000), ..Batch::default() };
    for (n, at) in rows(number) {
        batch.push(labels(n), Sample::float(Timestamp(at), number as f64));
    }
    let appended = db.append(&batch)?;
    assert!(appended.rejected.is_empty(), "batch {number}: {:?}", appended.rejected);
    Ok(())
}

/// Number of the batch by series and time.
type Content = BTreeMap<(String, i64), i64>;

fn content(querier: &dyn Querier) -> Content {
    let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
    let mut content = Content::new();
    for index in 0..set.len() {
        let mut columns = Columns::default();
        set.read(index, TimeRange::ALL, &mut columns).unwrap();
        assert!(columns.times.windows(2).all(|pair| pair[0] < pair[1]), "times rise");
        for (at, value) in columns.times.iter().zip(&columns.values) {
            let name = set.labels(index).get("n").unwrap_or_default().to_owned();
            assert_eq!(content.insert((name, at.0), *value as i64), None, "a series is there once");
        }
    }
    content
}

fn content_of(db: &Db) -> Content {
    content(&*db.querier(TimeRange::ALL).unwrap())
}

/// The batches that are there, all of them whole.
fn batches(content: &Content) -> BTreeSet<i64> {
    let found: BTreeSet<i64> = content.values().copied().collect();
    let mut samples = 0;
    for number in &found {
        for (n, at) in rows(*number) {
            let held = content.get(&(n.to_string(), at));
            assert_eq!(held, Some(number), "batch {number} is there in part: {content:?}");
            samples += 1;
        }
    }
    assert_eq!(samples, content.len());
    found
}

/// What was acknowledged so far.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<BTreeSet<i64>>>);

impl Acknowledged {
    fn add(&self, number: i64) {
        self.0.lock().unwrap().insert(number);
    }

    fn so_far(&self) -> BTreeSet<i64> {
        self.0.lock().unwrap().clone()
    }
}

/// Appends the batches of `numbers` one after the other, in a thread.
fn writer(
    db: &Db,
    numbers: std::ops::Range<i64>,
    acknowledged: &Acknowledged,
) -> thread::JoinHandle<()> {
    let (db, acknowledged) = (db.clone(), acknowledged.clone());
    thread::spawn(move || {
        for number in numbers {
            append(&db, number).unwrap();
            acknowledged.add(number);
        }
    })
}

/// Does what there is to do, in a thread.
fn worker(db: &Db, steps: usize) -> thread::JoinHandle<BTreeSet<&'static str>> {
    let db = db.clone();
    thread::spawn(move || {
        let mut done = BTreeSet::new();
        for _ in 0..steps {
            match db.next_job(Timestamp(9000)) {
                Some(job) => drop(done.insert(job.run().unwrap().job)),
                None => thread::yield_now(),
            }
        }
        done
    })
}

/// A database with a few batches, of which a block is due soon.
fn begun(disk: &SimDisk, batches: i64) -> (Db, Acknowledged) {
    let (db, acknowledged) = (open(disk), Acknowledged::default());
    for number in 0..batches {
        append(&db, number).unwrap();
        acknowledged.add(number);
    }
    (db, acknowledged)
}

/// Nothing is amiss, and a start after a kill finds the same.
fn check_end(disk: &SimDisk, db: Db, want: &BTreeSet<i64>) {
    let end = content_of(&db);
    assert_eq!(&batches(&end), want);
    drop(db);
    let left = disk.after_crash(Crash::KILL);
    let shared: Arc<dyn Disk> = Arc::new(left.clone());
    let findings = check(&shared).unwrap().findings;
    assert!(findings.is_empty(), "{findings:#?}");
    assert_eq!(content_of(&open(&left)), end);
}

#[test]
fn a_reader_sees_whole_batches_that_never_change() {
    explore(|| {
        let disk = SimDisk::new();
        let (db, acknowledged) = begun(&disk, 7);
        let writing = writer(&db, 7..13, &acknowledged);
        let working = worker(&db, 12);
        for _ in 0..3 {
            let before = acknowledged.so_far();
            let querier = db.querier(TimeRange::ALL).unwrap();
            let first = content(&*querier);
            let seen = batches(&first);
            assert!(seen.is_superset(&before), "{before:?} were acknowledged, {seen:?} seen");
            thread::yield_now();
            assert_eq!(content(&*querier), first, "a pinned reader");
            let values = querier.label_values("n", &[], 0).unwrap();
            let names: BTreeSet<&String> = first.keys().map(|(name, _)| name).collect();
            assert_eq!(values.iter().collect::<BTreeSet<_>>(), names);
        }
        writing.join().unwrap();
        working.join().unwrap();
        check_end(&disk, db, &(0..13).collect());
    });
}

#[test]
fn a_set_of_series_stays_readable_while_the_head_is_sealed_flushed_and_truncated() {
    explore(|| {
        let disk = SimDisk::new();
        let (db, acknowledged) = begun(&disk, 9);
        let querier = db.querier(TimeRange::ALL).unwrap();
        let before = content(&*querier);
        let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
        let labels: Vec<Labels> = (0..set.len()).map(|index| set.labels(index)).collect();
        let writing = writer(&db, 9..14, &acknowledged);
        let working = worker(&db, 10);
        for (index, labels) in labels.iter().enumerate() {
            let mut columns = Columns::default();
            set.read(index, TimeRange::ALL, &mut columns).unwrap();
            assert_eq!(set.labels(index), *labels);
            let name = labels.get("n").unwrap_or_default();
            let want = before.iter().filter(|((n, _), _)| n == name);
            assert!(want.map(|((_, at), _)| *at).eq(columns.times.iter().map(|at| at.0)));
        }
        drop((set, querier));
        writing.join().unwrap();
        working.join().unwrap();
        while let Some(job) = db.next_job(Timestamp(9000)) {
            job.run().unwrap();
        }
        check_end(&disk, db, &(0..14).collect());
    });
}

#[test]
fn a_cursor_reads_every_batch_once_while_the_log_is_trimmed_behind_it() {
    explore(|| {
        let disk = SimDisk::new();
        let (db, acknowledged) = begun(&disk, 7);
        let mut hold = db.hold("reader", None).unwrap();
        let writing = writer(&db, 7..14, &acknowledged);
        let working = worker(&db, 12);
        let mut read = Vec::new();
        let mut all_were_there = false;
        loop {
            match hold.next_event().unwrap() {
                CursorEvent::Batch(batch) => {
                    assert_eq!(batch.orphans, 0);
                    let (_, _, sample) = &batch.rows[0];
                    let stint_model::Value::Float(number) = sample.value else { panic!() };
                    assert_eq!(batch.rows.len(), rows(number as i64).len());
                    read.push(number as i64);
                    hold.release_until(batch.position_after);
                }
                CursorEvent::Lost { reason, .. } => panic!("the log was held: {reason}"),
                CursorEvent::CaughtUp if all_were_there => break,
                CursorEvent::CaughtUp => {
                    all_were_there = acknowledged.so_far().len() == 14;
                    thread::yield_now();
                }
            }
        }
        assert_eq!(read, (7..14).collect::<Vec<_>>());
        writing.join().unwrap();
        working.join().unwrap();
        drop(hold);
        check_end(&disk, db, &(0..14).collect());
    });
}

#[test]
fn what_was_deleted_stays_deleted() {
    explore(|| {
        let disk = SimDisk::new();
        let (db, acknowledged) = begun(&disk, 9);
        let range = TimeRange::new(Timestamp(200), Timestamp(1300));
        let gone = move |key: &(String, i64)| key.0 == "2" && range.contains(Timestamp(key.1));
        let writing = writer(&db, 9..13, &acknowledged);
        let working = worker(&db, 10);
        let selector = Selector::new(vec![Matcher::equal("n", "2")]);
        db.delete_series(&[selector], range).unwrap();
        for _ in 0..3 {
            let seen = content_of(&db);
            assert_eq!(seen.keys().find(|key| gone(key)), None);
            thread::yield_now();
        }
        writing.join().unwrap();
        working.join().unwrap();
        let end = content_of(&db);
        let mut want = Content::new();
        for number in 0..13 {
            want.extend(rows(number).iter().map(|(n, at)| ((n.to_string(), *at), number)));
        }
        want.retain(|key, _| !gone(key));
        assert_eq!(end, want);
        drop(db);
        assert_eq!(content_of(&open(&disk.after_crash(Crash::KILL))), want);
    });
}

#[test]
fn closing_takes_what_was_acknowledged_and_nothing_else() {
    explore(|| {
        let disk = SimDisk::new();
        let (db, acknowledged) = begun(&disk, 9);
        let writing = {
            let (db, acknowledged) = (db.clone(), acknowledged.clone());
            thread::spawn(move || {
                for number in 9..14 {
                    match append(&db, number) {
                        Ok(()) => acknowledged.add(number),
                        Err(AppendError::Closed) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        };
        let working = {
            let db = db.clone();
            thread::spawn(move || {
                while let Some(job) = db.next_job(Timestamp(9000)) {
                    match job.run() {
                        Ok(_) => {}
                        Err(JobError::Interrupted | JobError::Append(AppendError::Closed)) => {
                            return;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        };
        thread::yield_now();
        assert_eq!(db.close().unwrap(), CloseReport::default(), "the job that ran is at its end");
        // Others still have the database, and may not know yet; the directory is free.
        let (again, report) = Db::open(Arc::new(disk.clone()), options()).unwrap();
        assert_eq!(report.segments, 0, "there is nothing to replay");
        let closed = content_of(&again);
        again.close().unwrap();
        writing.join().unwrap();
        working.join().unwrap();
        let want = acknowledged.so_far();
        assert_eq!(batches(&closed), want);
        drop((db, again));
        // The machine may end right behind it.
        let left = disk.after_crash(Crash { data: Unsynced::Dropped, names_kept: true });
        for disk in [left, disk] {
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let findings = check(&shared).unwrap().findings;
            assert!(findings.is_empty(), "{findings:#?}");
            assert_eq!(batches(&content_of(&open(&disk))), want);
        }
    });
}

#[test]
fn what_two_writers_were_told_is_durable_survives_the_machine() {
    explore(|| {
        let disk = SimDisk::new();
        let options = Options { sync: SyncPolicy::EveryCommit, ..options() };
        let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
        let acknowledged = Acknowledged::default();
        // Of one batch each: they may come in any order.
        let writing: Vec<_> = (0..3)
            .map(|client| {
                let (db, acknowledged) = (db.clone(), acknowledged.clone());
                thread::spawn(move || {
                    for step in 0..3 {
                        let number = client * 100 + step;
                        let mut batch = Batch::default();
                        let labels = labels(client as usize);
                        batch.push(labels, Sample::float(Timestamp(step), number as f64));
                        db.append(&batch).unwrap();
                        acknowledged.add(number);
                    }
                })
            })
            .collect();
        let working = worker(&db, 3);
        for _ in 0..3 {
            let told = acknowledged.so_far();
            let left = disk.after_crash(Crash { data: Unsynced::Dropped, names_kept: false });
            let held: BTreeSet<i64> = content_of(&open(&left)).into_values().collect();
            assert!(held.is_superset(&told), "{told:?} were acknowledged, {held:?} survived");
            thread::yield_now();
        }
        for thread in writing {
            thread.join().unwrap();
        }
        working.join().unwrap();
    });
}

#[test]
fn a_snapshot_is_whole_batches_while_all_goes_on() {
    explore(|| {
        let disk = SimDisk::new();
        let (db, acknowledged) = begun(&disk, 9);
        let writing = writer(&db, 9..13, &acknowledged);
        let working = worker(&db, 8);
        let before = acknowledged.so_far();
        db.snapshot(Path::new("snapshot"), true).unwrap();
        let copy = open(&disk.at_dir(Path::new("snapshot")).unwrap());
        let held = batches(&content_of(&copy));
        assert!(held.is_superset(&before), "{before:?} were acknowledged, {held:?} copied");
        writing.join().unwrap();
        working.join().unwrap();
    });
}
