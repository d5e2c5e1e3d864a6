//! What damage to the log costs, and what a sync covers.

use super::*;

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
fn damaged_blocks_are_told_by_name() {
    let disk = SimDisk::new();
    let db = filled(&disk, 60);
    run_jobs(&db, 6000);
    assert_eq!(db.stats().damaged_blocks, Vec::<String>::new());
    drop(db);
    let names = disk.list(Path::new("blocks")).unwrap().into_iter().map(|entry| entry.name);
    let names: Vec<String> = names.collect();
    let [first, second, ..] = names.as_slice() else { panic!("{names:?}") };
    let chunks = Path::new("blocks").join(first).join("chunks");
    disk.damage(&chunks, disk.size(&chunks).unwrap() as usize - 9, 4).unwrap();
    disk.damage(&Path::new("blocks").join(second).join("meta"), 20, 4).unwrap();
    for _ in 0..2 {
        let (db, _) = open(&disk);
        let aside = format!("{second}.damaged");
        let named = db.stats().damaged_blocks.join(" ");
        assert_eq!(named, aside, "nobody has read the other");
        let set = db.querier(TimeRange::ALL).unwrap();
        let set = set.select(&Selector::default(), &Hints::default()).unwrap();
        let read = |index| set.read(index, TimeRange::ALL, &mut Columns::default());
        let failed = (0..set.len()).filter(|index| read(*index).is_err()).count();
        assert_eq!(failed, 1, "the rest is served");
        assert_eq!(db.stats().damaged_blocks, [aside, first.clone()]);
    }
}

#[test]
fn handles_as_no_log_has_them_cost_neither_memory_nor_the_start() {
    for (id, is_taken) in [(1 << 40, true), (1 << 61, true), (1 << 62, false), (u64::MAX, false)] {
        let disk = SimDisk::new();
        let (db, _) = open(&disk);
        db.append(&batch(10, 0..2)).unwrap();
        {
            let mut writer = db.inner.writer();
            start_record(&mut writer.encoder);
            writer.encoder.series(id, 0, &labels("m", 7));
            db.inner.log.append(&mut writer.encoder).unwrap();
        }
        drop(db);
        let (db, report) = open(&disk);
        assert_eq!(report.damage.len(), usize::from(!is_taken), "{id}: {report:?}");
        assert_eq!(report.series, 2 + u64::from(is_taken), "{id}");
        // Whatever comes next is stored, and found by the next start.
        assert!(db.append(&batch(20, 0..9)).unwrap().rejected.is_empty());
        let before = dump(&db);
        drop(db);
        assert_eq!((before.len(), dump(&open(&disk).0)), (9, before), "{id}");
    }
}
