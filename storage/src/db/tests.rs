mod faults;
mod histograms;
mod names;
mod precedence;
mod stop;

use std::sync::Arc;

use stint_model::*;

use super::*;
use crate::disk::sim::SimDisk;
use crate::wal::CursorEvent;

fn options() -> Options {
    Options { block_range: Span(1000), chunk_samples: 4, segment_bytes: 400, ..Options::default() }
}

fn open(disk: &SimDisk) -> (Db, OpenReport) {
    Db::open(Arc::new(disk.clone()), options()).unwrap()
}

fn labels(name: &str, n: usize) -> Labels {
    Labels::from_pairs([("__name__", name.to_owned()), ("n", n.to_string())])
}

fn batch(at: i64, series: std::ops::Range<usize>) -> Batch {
    let mut batch = Batch::default();
    for n in series {
        batch.push(labels("m", n), Sample::float(Timestamp(at), at as f64 + n as f64 / 8.0));
    }
    batch
}

/// Everything in the database, as text.
fn dump(db: &Db) -> Vec<String> {
    dump_querier(&*db.querier(TimeRange::ALL).unwrap())
}

fn dump_querier(querier: &dyn Querier) -> Vec<String> {
    let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
    (0..set.len())
        .map(|index| {
            let mut columns = Columns::default();
            set.read(index, TimeRange::ALL, &mut columns).unwrap();
            let rows: Vec<String> = columns
                .times
                .iter()
                .zip(&columns.values)
                .map(|(at, value)| format!("{at}={value}"))
                .collect();
            format!("{} {}", set.labels(index), rows.join(" "))
        })
        .collect()
}

#[test]
fn what_is_appended_can_be_read_and_comes_back() {
    let disk = SimDisk::new();
    let (db, report) = open(&disk);
    assert_eq!(report, OpenReport::default());
    let first = db.append(&batch(10, 0..3)).unwrap();
    assert!(first.rejected.is_empty() && first.refs.iter().all(Option::is_some));
    let mut known = Batch::default();
    for series in first.refs.iter().flatten() {
        known.push_known(*series, Sample::float(Timestamp(20), 0.5));
    }
    assert_eq!(db.append(&known).unwrap().refs, first.refs);
    let before = dump(&db);
    assert_eq!(before.len(), 3);
    assert_eq!(before[1], r#"{__name__="m", n="1"} 10=10.125 20=0.5"#);
    let job = db.next_job(Timestamp(9000));
    assert_eq!(db.close().unwrap(), CloseReport { samples_written: 6, replays: None });
    assert_eq!(db.append(&known), Err(AppendError::Closed));
    assert!(job.is_none_or(|job| job.run().is_err()));
    drop(db);
    let (db, report) = open(&disk);
    assert_eq!((report.series, report.segments), (3, 0), "nothing is replayed");
    assert_eq!(dump(&db), before);
    // Handles are not given twice.
    let new = db.append(&batch(30, 7..8)).unwrap();
    assert!(!first.refs.contains(&new.refs[0]));
}

#[test]
fn a_directory_is_opened_once() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let again = Db::open(Arc::new(disk.clone()), options());
    assert!(matches!(again, Err(OpenError::InUse)));
    db.close().unwrap();
    open(&disk);
}

fn append_one(db: &Db, at: i64, value: f64, window: i64) -> Option<RejectReason> {
    let mut batch = Batch { out_of_order_window: Span(window), ..Batch::default() };
    batch.push(labels("m", 0), Sample::float(Timestamp(at), value));
    db.append(&batch).unwrap().rejected.first().map(|rejected| rejected.reason)
}

#[test]
fn samples_are_judged_as_prometheus_judges_them() {
    use RejectReason::{DuplicateTimestamp, OutOfBounds, OutOfOrder, TooOld};
    let (db, _) = open(&SimDisk::new());
    assert_eq!(append_one(&db, 5000, 1.0, 0), None);
    assert_eq!(append_one(&db, 5000, 1.0, 0), None, "the same again is no change");
    assert_eq!(append_one(&db, 5000, 2.0, 0), Some(DuplicateTimestamp));
    assert_eq!(append_one(&db, 4900, 1.0, 0), Some(OutOfOrder));
    assert_eq!(append_one(&db, 4400, 1.0, 0), Some(OutOfBounds));
    assert_eq!(append_one(&db, 4900, 1.0, 200), None);
    assert_eq!(append_one(&db, 4900, 1.0, 200), None);
    assert_eq!(append_one(&db, 4900, 3.0, 200), Some(DuplicateTimestamp));
    assert_eq!(append_one(&db, 4700, 1.0, 200), Some(TooOld));
    assert_eq!(append_one(&db, 4800, 7.0, 5000), None);
    assert_eq!(append_one(&db, 6000, 9.0, 0), None);
    let all = [r#"{__name__="m", n="0"} 4800=7 4900=1 5000=1 6000=9"#];
    assert_eq!(dump(&db), all);
    let stats = db.stats();
    assert_eq!((stats.samples_appended, stats.samples_late), (4, 2));
    assert_eq!(stats.rejected_for(DuplicateTimestamp), 2);
}

#[test]
fn bad_rows_do_not_fail_good_ones() {
    let (db, _) = open(&SimDisk::new());
    let mut mixed = batch(10, 0..2);
    mixed.push(Labels::default(), Sample::float(Timestamp(10), 1.0));
    mixed.push_known(SeriesRef(99), Sample::float(Timestamp(10), 1.0));
    mixed.push(labels("m", 0), Sample::float(Timestamp(11), 3.0));
    mixed.push(labels("m", 0), Sample::float(Timestamp(11), 4.0));
    let broken = histogram::IntegerHistogram { count: 1, ..Default::default() };
    let value = Value::Histogram(Arc::new(Histogram::Integer(broken)));
    mixed.push(labels("h", 0), Sample { at: Timestamp(10), started: None, value });
    let appended = db.append(&mixed).unwrap();
    let reasons: Vec<_> = appended.rejected.iter().map(|r| (r.row, r.reason)).collect();
    assert_eq!(
        reasons,
        [
            (2, RejectReason::InvalidLabels),
            (3, RejectReason::UnknownSeries),
            (5, RejectReason::DuplicateTimestamp),
            (6, RejectReason::InvalidHistogram),
        ]
    );
    assert_eq!(appended.refs[4], appended.refs[0]);
    assert_eq!(appended.refs[6], None);
    assert_eq!(db.stats().series, 2);
}

#[test]
fn a_pinned_querier_never_changes_its_answer() {
    let (db, _) = open(&SimDisk::new());
    for at in 1..7 {
        db.append(&batch(at * 10, 0..2)).unwrap();
    }
    let pinned = db.querier(TimeRange::ALL).unwrap();
    let set = pinned.select(&Selector::metric("m"), &Hints::default()).unwrap();
    let before = dump(&db);
    for at in 7..20 {
        let mut more = batch(at * 10, 0..3);
        more.out_of_order_window = Span(1000);
        more.push(labels("m", 1), Sample::float(Timestamp(at * 10 - 35), 1.0));
        db.append(&more).unwrap();
    }
    assert_eq!(dump_querier(&*pinned), before);
    assert_eq!(pinned.label_values("n", &[], 0).unwrap(), ["0", "1"]);
    let mut columns = Columns::default();
    set.read(1, TimeRange::ALL, &mut columns).unwrap();
    assert_eq!(columns.len(), 6);
    let now = db.querier(TimeRange::ALL).unwrap();
    assert_eq!(now.label_values("n", &[], 0).unwrap(), ["0", "1", "2"]);
}

#[test]
fn exemplars_and_metadata_survive() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let mut with = batch(10, 0..1);
    let trace = Labels::from_pairs([("trace_id", "abc")]);
    let exemplar = Exemplar { labels: trace, value: 1.0, at: Timestamp(9) };
    with.exemplars.push(Exemplars { row: 0, exemplars: vec![exemplar.clone(), exemplar.clone()] });
    let metadata = Metadata { help: "help".into(), ..Metadata::default() };
    with.metadata.push(("m".into(), metadata.clone()));
    db.append(&with).unwrap();
    db.close().unwrap();
    let (db, _) = open(&disk);
    let found = db.exemplars(&[Selector::metric("m")], TimeRange::ALL);
    assert_eq!(found, [(labels("m", 0), vec![exemplar])]);
    assert_eq!(db.metadata(), [("m".to_owned(), metadata)]);
    assert!(db.exemplars(&[Selector::metric("other")], TimeRange::ALL).is_empty());
}

#[test]
fn a_hold_reads_what_was_appended_across_restarts() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    db.append(&batch(10, 0..2)).unwrap();
    let mut hold = db.hold("f", None).unwrap();
    assert!(matches!(db.hold("f", None), Err(HoldError::Taken(_))));
    assert_eq!(hold.next_event().unwrap(), CursorEvent::CaughtUp);
    for at in 2..30 {
        db.append(&batch(at * 10, 0..2)).unwrap();
    }
    let mut seen = Vec::new();
    while let CursorEvent::Batch(batch) = hold.next_event().unwrap() {
        assert_eq!(batch.orphans, 0);
        seen.extend(batch.rows.iter().map(|(_, labels, s)| format!("{labels} {}", s.at)));
        if seen.len() == 20 {
            break;
        }
    }
    let saved = hold.position().to_string();
    drop(hold);
    db.close().unwrap();
    let (db, _) = open(&disk);
    db.append(&batch(300, 0..2)).unwrap();
    let mut hold = db.hold("f", Some(saved.parse().unwrap())).unwrap();
    assert!(hold.lag_bytes() > 0);
    while let CursorEvent::Batch(batch) = hold.next_event().unwrap() {
        seen.extend(batch.rows.iter().map(|(_, labels, s)| format!("{labels} {}", s.at)));
    }
    assert_eq!(hold.lag_bytes(), 0);
    let want: Vec<_> = (2..=30)
        .flat_map(|at| (0..2).map(move |n| format!("{} {}", labels("m", n), at * 10)))
        .collect();
    assert_eq!(seen, want);
}

/// Runs jobs until none is left; their names.
fn run_jobs(db: &Db, now: i64) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Some(job) = db.next_job(Timestamp(now)) {
        names.push(job.run().unwrap().job);
        assert!(names.len() < 100, "{names:?}");
    }
    names
}

fn filled(disk: &SimDisk, until: i64) -> Db {
    let (db, _) = open(disk);
    for at in 0..until {
        let mut more = batch(at * 100, 0..3);
        if at % 7 == 6 {
            more.out_of_order_window = Span(10_000);
            more.push(labels("m", 1), Sample::float(Timestamp(at * 100 - 550), 5.0));
        }
        db.append(&more).unwrap();
    }
    db
}

#[test]
fn blocks_are_cut_and_nothing_changes_for_readers() {
    let disk = SimDisk::new();
    let db = filled(&disk, 40);
    let before = dump(&db);
    let pinned = db.querier(TimeRange::ALL).unwrap();
    assert_eq!(run_jobs(&db, 4000), ["flush"], "the pin keeps the head from being truncated");
    assert_eq!(dump(&db), before);
    drop(pinned);
    let jobs = run_jobs(&db, 4000);
    assert!(jobs.starts_with(&["truncate", "flush", "truncate"]), "{jobs:?}");
    assert_eq!(dump(&db), before);
    let stats = db.stats();
    assert!(stats.blocks > 0 && stats.head_bounds.unwrap().0 >= Timestamp(2000), "{stats:?}");
    // Late samples for what was cut already are kept, and go with the next cut.
    assert_eq!(append_one(&db, 1234, 77.0, 10_000), None);
    let before = dump(&db);
    assert!(before[0].contains("1234=77"));
    db.close().unwrap();
    let (db, report) = open(&disk);
    assert_eq!(dump(&db), before);
    assert!(report.samples < 120, "{report:?}");
    for at in 40..60 {
        db.append(&batch(at * 100, 0..3)).unwrap();
    }
    let before = dump(&db);
    assert!(run_jobs(&db, 6000).contains(&"flush"));
    assert_eq!(dump(&db), before);
    assert_eq!(db.stats().late_samples, 0);
}

#[test]
fn retention_removes_whole_blocks_and_their_series() {
    let disk = SimDisk::new();
    let options = Options { retention: Some(Span(2000)), ..options() };
    let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
    let mut first = batch(0, 9..10);
    first.metadata = ["m", "gone"].map(|family| (family.into(), Metadata::default())).into();
    db.append(&first).unwrap();
    for at in 1..200 {
        db.append(&batch(at * 100, 0..2)).unwrap();
        run_jobs(&db, at * 100);
    }
    let all = dump(&db);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(db.stats().series, 2);
    assert_eq!(db.metadata(), [("m".to_owned(), Metadata::default())]);
    assert!(db.stats().wal_segments < 12, "{:?}", db.stats());
    assert!(db.stats().bounds.unwrap().0 >= Timestamp(5000));
}

#[test]
fn a_shorter_retention_holds_from_the_next_job_on() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    for at in 0..100 {
        db.append(&batch(at * 100, 0..2)).unwrap();
        run_jobs(&db, at * 100);
    }
    assert_eq!(db.stats().bounds.unwrap().0, Timestamp(0));
    db.set_limits(Limits { retention: Some(Span(2000)), ..options().limits() });
    run_jobs(&db, 9900);
    assert!(db.stats().bounds.unwrap().0 >= Timestamp(5000), "{:?}", db.stats().bounds);
    assert_eq!(db.options().retention, Some(Span(2000)));
}

#[test]
fn a_hold_keeps_the_log_up_to_its_bound() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let hold = db.hold("slow", None).unwrap();
    for at in 0..60 {
        db.append(&batch(at * 100, 0..3)).unwrap();
        run_jobs(&db, at * 100);
    }
    let mut rows = 0;
    let start = hold.position();
    drop(hold);
    let mut hold = db.hold("slow", Some(start)).unwrap();
    while let CursorEvent::Batch(batch) = hold.next_event().unwrap() {
        rows += batch.rows.len();
        assert_eq!(batch.orphans, 0);
        hold.release_until(batch.position_after);
    }
    assert_eq!(rows, 180);
    let held = db.stats().wal_segments;
    assert!(run_jobs(&db, 6000).contains(&"trim_log"));
    assert!(db.stats().wal_segments < held);
    hold.seek(start);
    assert!(matches!(hold.next_event().unwrap(), CursorEvent::Lost { from, .. } if from == start));
    assert!(matches!(hold.next_event().unwrap(), CursorEvent::Batch(_)));
}

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

#[test]
fn a_sample_from_long_ago_is_followed_by_few_blocks() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    db.append(&batch(1, 0..1)).unwrap();
    db.append(&batch(1_000_000_000, 0..1)).unwrap();
    let mut jobs = 0;
    while let Some(job) = db.next_job(Timestamp(1_000_000_000)) {
        job.run().unwrap();
        jobs += 1;
        assert!(jobs < 20, "a job for each block range that holds nothing");
    }
}

#[test]
fn a_sync_covers_what_a_killed_run_left() {
    use crate::disk::sim::{Crash, Unsynced};
    let power_cut = Crash { data: Unsynced::Dropped, names_kept: false };
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    db.sync().unwrap();
    db.append(&batch(10, 0..2)).unwrap();
    let before = dump(&db);
    let killed = disk.after_crash(Crash::KILL);
    let (db, _) = open(&killed);
    db.sync().unwrap();
    let (db, _) = open(&killed.after_crash(power_cut));
    assert_eq!(dump(&db), before);
}

#[test]
fn a_snapshot_is_a_database() {
    let root = std::env::temp_dir().join(format!("stint-snapshot-{}", std::process::id()));
    let disk = Arc::new(crate::OsDisk::new(&root).unwrap());
    let (db, _) = Db::open(disk, options()).unwrap();
    for at in 0..40 {
        db.append(&batch(at * 100, 0..3)).unwrap();
    }
    run_jobs(&db, 4000);
    db.snapshot(Path::new("snapshots/one"), true).unwrap();
    assert!(db.snapshot(Path::new("snapshots/one"), true).is_err(), "the name is taken");
    let before = dump(&db);
    db.append(&batch(5000, 0..3)).unwrap();
    let copy = Arc::new(crate::OsDisk::new(root.join("snapshots/one")).unwrap());
    let (copy, _) = Db::open(copy, options()).unwrap();
    assert_eq!(dump(&copy), before);
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn a_cursor_from_before_a_power_cut_goes_on_at_the_end() {
    use crate::disk::sim::{Crash, Unsynced};
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    db.append(&batch(10, 0..2)).unwrap();
    db.sync().unwrap();
    for at in 2..5 {
        db.append(&batch(at * 10, 0..2)).unwrap();
    }
    let (id, ahead) = (db.wal_id(), db.wal_end());
    let left = disk.after_crash(Crash { data: Unsynced::Dropped, names_kept: false });
    let (db, _) = open(&left);
    assert_eq!(db.wal_id(), id);
    assert!(db.wal_end() < ahead);
    let mut hold = db.hold("f", Some(ahead)).unwrap();
    assert_eq!(hold.position(), db.wal_end());
    assert_eq!(hold.next_event().unwrap(), CursorEvent::CaughtUp);
    db.append(&batch(60, 0..2)).unwrap();
    let CursorEvent::Batch(batch) = hold.next_event().unwrap() else { panic!("a batch") };
    assert_eq!(batch.rows.len(), 2);
    assert_ne!(open(&SimDisk::new()).0.wal_id(), id);
}

#[test]
fn damage_inside_the_last_segment_costs_what_it_hits_and_no_more() {
    let disk = SimDisk::new();
    let options = Options { segment_bytes: 1 << 20, ..options() };
    let (db, _) = Db::open(Arc::new(disk.clone()), options.clone()).unwrap();
    db.append(&batch(10, 0..3)).unwrap();
    let mut ends = vec![db.wal_end().offset];
    for at in 2..6 {
        db.append(&batch(at * 10, 0..3)).unwrap();
        ends.push(db.wal_end().offset);
    }
    drop(db);
    let first = Path::new("wal/00000000");
    for (place, lost) in [(ends[1], Some((ends[1], ends[2] - ends[1]))), (3, Some((0, 16)))] {
        let hurt = disk.after_crash(crate::disk::sim::Crash::KILL);
        hurt.damage(first, place as usize, 0x40).unwrap();
        let (db, report) = Db::open(Arc::new(hurt), options.clone()).unwrap();
        assert_eq!(report.torn_tail, None);
        let found = report.damage.iter().map(|damage| (damage.offset, damage.bytes));
        assert_eq!(found.collect::<Vec<_>>(), Vec::from_iter(lost), "{report:?}");
        let kept = if place == 3 { 15 } else { 12 };
        assert_eq!((report.samples, report.orphaned_samples), (kept, 0));
        assert_eq!(dump(&db).len(), 3);
    }
    // With nothing behind it, it is a torn tail of exactly so many bytes.
    disk.damage(first, ends[3] as usize, 0x40).unwrap();
    let (_, report) = Db::open(Arc::new(disk.clone()), options).unwrap();
    let tail = report.torn_tail.unwrap();
    assert_eq!((tail.offset, tail.bytes), (ends[3], ends[4] - ends[3]));
    assert_eq!(disk.size(first).unwrap(), ends[3]);
}

#[test]
fn a_damaged_checkpoint_costs_what_it_hits_and_the_start_goes_on() {
    let disk = SimDisk::new();
    let db = filled(&disk, 40);
    run_jobs(&db, 4000);
    for at in 40..44 {
        db.append(&batch(at * 100, 0..5)).unwrap();
    }
    let before = dump(&db);
    let next = db.append(&batch(4500, 9..10)).unwrap().refs;
    drop(db);
    let name = disk.list(Path::new("wal")).unwrap().into_iter().map(|entry| entry.name);
    let name = name.filter(|name| name.starts_with("checkpoint.")).collect::<Vec<_>>();
    let path = Path::new("wal").join(&name[0]);
    for at in 0..disk.size(&path).unwrap() {
        let hurt = disk.after_crash(crate::disk::sim::Crash::KILL);
        hurt.damage(&path, at as usize, 1 << (at % 8)).unwrap();
        let (db, report) = open(&hurt);
        assert!(report.damage.iter().any(|damage| damage.path == path), "{at}: {report:?}");
        assert!(report.damage.iter().map(|damage| damage.bytes).sum::<u64>() > 0);
        // Blocks and series that begin behind it are all there.
        let after = dump(&db);
        assert_eq!(after.len(), before.len() + 1);
        assert_eq!(after[3..5], before[3..5]);
        assert_eq!(after == [&before[..], &after[5..]].concat(), report.orphaned_samples == 0);
        let born = db.append(&batch(4600, 20..21)).unwrap().refs;
        assert!(born > next, "{at}: a handle is given twice");
    }
}

#[test]
fn a_series_with_two_handles_keeps_both_in_the_checkpoint() {
    let disk = SimDisk::new();
    let open = |disk: &SimDisk| {
        let options = Options { segment_bytes: 60, ..options() };
        Db::open(Arc::new(disk.clone()), options).unwrap()
    };
    let (db, _) = open(&disk);
    let gone = db.append(&batch(0, 9..10)).unwrap().refs;
    for at in 1..40 {
        db.append(&batch(at * 100, 0..3)).unwrap();
    }
    // The head forgets a series, but the checkpoint that would say so cannot be written.
    let obstacles = (0..99).map(|n| format!("wal/checkpoint.{n:08}.tmp")).collect::<Vec<_>>();
    for dir in &obstacles {
        disk.create_dir(Path::new(dir)).unwrap();
    }
    while let Some(job) = db.next_job(Timestamp(4000)) {
        if job.run().is_err() {
            break;
        }
    }
    assert!(db.labels(gone[0].unwrap()).is_none());
    let born = db.append(&batch(4000, 9..10)).unwrap().refs;
    assert_ne!(born, gone);
    for at in 41..60 {
        let mut more = batch(at * 100, 0..3);
        more.push_known(born[0].unwrap(), Sample::float(Timestamp(at * 100), 1.0));
        db.append(&more).unwrap();
    }
    drop(db);
    for dir in &obstacles {
        disk.remove_dir(Path::new(dir)).unwrap();
    }
    let (db, _) = open(&disk);
    assert_eq!(db.append(&batch(6000, 9..10)).unwrap().refs, gone, "both mean the same series");
    let before = dump(&db);
    assert!(run_jobs(&db, 6000).contains(&"truncate"));
    drop(db);
    let (db, report) = open(&disk);
    assert_eq!((report.orphaned_samples, dump(&db)), (0, before));
    for at in 61..90 {
        db.append(&batch(at * 100, 0..3)).unwrap();
    }
    run_jobs(&db, 9000);
    for handle in [gone[0], born[0]] {
        assert_eq!(db.labels(handle.unwrap()), None, "it goes with all its handles");
    }
}

#[test]
fn a_long_outage_costs_held_log_before_it_costs_blocks() {
    let disk = SimDisk::new();
    let limit = 40_000;
    let options = Options { retention_bytes: Some(limit), ..options() };
    let (db, _) = Db::open(Arc::new(disk), options).unwrap();
    let mut hold = db.hold("slow", None).unwrap();
    for at in 0..1000_i64 {
        let mut batch = Batch::default();
        for n in 0..9 {
            // Values that do not compress.
            let bits = (at as u64 * 9 + n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2;
            batch.push(labels("m", n), Sample::float(Timestamp(at * 100), f64::from_bits(bits)));
        }
        db.append(&batch).unwrap();
        run_jobs(&db, at * 100);
        let stats = db.stats();
        assert!(stats.disk_bytes() <= limit, "{stats:?}");
    }
    let stats = db.stats();
    assert!(stats.block_bytes > limit / 2, "{stats:?}");
    assert!(stats.wal_bytes > limit / 20, "a share is left to the hold: {stats:?}");
    assert!(matches!(hold.next_event().unwrap(), CursorEvent::Lost { .. }));
    let CursorEvent::Batch(batch) = hold.next_event().unwrap() else { panic!("a batch") };
    assert_eq!((batch.rows.len(), batch.orphans), (9, 0));
}

#[test]
fn every_file_is_accounted_for() {
    let disk = SimDisk::new();
    let db = filled(&disk, 60);
    run_jobs(&db, 6000);
    db.append(&batch(6100, 0..3)).unwrap();
    let range = TimeRange::new(Timestamp(500), Timestamp(3500));
    db.delete_series(&[Selector::metric("m")], range).unwrap();
    for dir in ["blocks/00000099.tmp", "blocks/other"] {
        disk.create_dir(Path::new(dir)).unwrap();
        disk.create(&Path::new(dir).join("x")).unwrap().append(&[1; 1000]).unwrap();
    }
    let below = |dir: &Path| disk.list(dir).unwrap().iter().map(|entry| entry.size).sum::<u64>();
    let mut all = below(Path::new("wal"));
    for entry in disk.list(Path::new("blocks")).unwrap() {
        all += below(&Path::new("blocks").join(entry.name));
    }
    let stats = db.stats();
    assert_eq!((stats.disk_bytes(), stats.leftover_bytes), (all, 2000), "{stats:?}");
}

#[test]
fn sealed_chunks_leave_memory_for_files() {
    let disk = SimDisk::new();
    let options = Options { head_file_bytes: 150, ..options() };
    let (db, _) = Db::open(Arc::new(disk.clone()), options.clone()).unwrap();
    for at in 1..10 {
        db.append(&batch(at * 100, 0..9)).unwrap();
    }
    let (before, heap) = (dump(&db), db.stats().head_bytes);
    assert_eq!(db.stats().head_file_bytes, 0);
    let pinned = db.querier(TimeRange::ALL).unwrap();
    let jobs = run_jobs(&db, 900);
    assert!(jobs.len() > 1 && jobs.iter().all(|job| *job == "write_chunks"), "{jobs:?}");
    let stats = db.stats();
    assert!(stats.head_file_bytes > 300 && stats.head_bytes + 300 < heap, "{stats:?}");
    assert_eq!(dump(&db), before);
    let files = || disk.list(Path::new("head")).unwrap().len();
    let full = files();
    for at in 10..40 {
        db.append(&batch(at * 100, 0..1)).unwrap();
    }
    drop(pinned);
    assert!(run_jobs(&db, 4000).contains(&"truncate"));
    assert!(files() < full, "{} of {full} files left", files());
    let before = dump(&db);
    db.close().unwrap();
    let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
    assert_eq!(dump(&db), before);
}

#[test]
fn sealed_chunks_stay_in_memory_where_the_disk_refuses_them() {
    let disk = SimDisk::new();
    let options = Options { head_file_bytes: 1, ..options() };
    let (db, _) = Db::open(Arc::new(disk.clone()), options).unwrap();
    disk.create_dir(Path::new("head/00000000.tmp")).unwrap();
    for at in 1..10 {
        db.append(&batch(at * 100, 0..2)).unwrap();
    }
    let before = dump(&db);
    let job = db.next_job(Timestamp(900)).unwrap();
    assert_eq!(job.name(), "write_chunks");
    assert!(job.run().unwrap_err().to_string().contains("head/00000000.tmp"));
    assert!(db.next_job(Timestamp(900)).is_none(), "not again and again");
    assert_eq!((dump(&db), db.stats().head_file_bytes), (before, 0));
    disk.remove_dir(Path::new("head/00000000.tmp")).unwrap();
    for at in 10..40 {
        db.append(&batch(at * 100, 0..2)).unwrap();
    }
    let jobs = run_jobs(&db, 4000);
    assert!(jobs.contains(&"truncate") && jobs.contains(&"write_chunks"), "{jobs:?}");
}

#[test]
fn late_rows_meet_the_earlier_rows_of_their_batch_however_many_there_are() {
    let (db, _) = open(&SimDisk::new());
    let mut batch = Batch { out_of_order_window: Span(1 << 20), ..Batch::default() };
    // Going through the rows before for each late one would take minutes.
    let rows = 50_000;
    let series: Vec<Labels> = (0..500).map(|n| labels("m", n)).collect();
    for row in 0..rows {
        let at = if row < series.len() { 1 << 19 } else { row / series.len() };
        let sample = Sample::float(Timestamp(at as i64), row as f64);
        batch.push(series[row % series.len()].clone(), sample);
    }
    batch.push(series[3].clone(), Sample::float(Timestamp(1), 503.0));
    batch.push(series[3].clone(), Sample::float(Timestamp(1), 504.0));
    batch.push(series[4].clone(), Sample::float(Timestamp(1 << 19), 5.0));
    let rejected = db.append(&batch).unwrap().rejected;
    let rejected: Vec<_> = rejected.iter().map(|r| (r.row - rows, r.reason)).collect();
    let duplicate = RejectReason::DuplicateTimestamp;
    assert_eq!(rejected, [(1, duplicate), (2, duplicate)], "the same value again is no mistake");
    assert_eq!(db.stats().samples_appended, rows as u64);
}

#[test]
fn a_series_of_more_labels_than_a_block_takes_is_refused() {
    let (db, _) = open(&SimDisk::new());
    let of = |count: usize| Labels::from_pairs((0..count).map(|n| (format!("l{n:05}"), "x")));
    let most = crate::index::LABELS_MAX;
    let mut batch = Batch::default();
    for count in [most, most + 1] {
        batch.push(of(count), Sample::float(Timestamp(1), 1.0));
    }
    let appended = db.append(&batch).unwrap();
    assert_eq!(appended.rejected, [Rejected { row: 1, reason: RejectReason::LabelLimit }]);
    assert!(appended.refs[0].is_some() && appended.refs[1].is_none());
    db.close().unwrap();
}
