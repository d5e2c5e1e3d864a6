//! What moves from the head to blocks, and out of them by retention.

use super::*;

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
    assert!(jobs.contains(&"truncate"), "{jobs:?}");
    assert!(db.stats().head_file_bytes > 0, "the next checkpoint tries again");
}
