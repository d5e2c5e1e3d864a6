//! Cursors over the log, and how long they keep it.

use super::*;

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
        seen.extend(
            batch
                .rows
                .iter()
                .map(|(_, labels, s)| format!("{} {}", labels.as_ref().unwrap(), s.at)),
        );
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
        seen.extend(
            batch
                .rows
                .iter()
                .map(|(_, labels, s)| format!("{} {}", labels.as_ref().unwrap(), s.at)),
        );
    }
    assert_eq!(hold.lag_bytes(), 0);
    let want: Vec<_> = (2..=30)
        .flat_map(|at| (0..2).map(move |n| format!("{} {}", labels("m", n), at * 10)))
        .collect();
    assert_eq!(seen, want);
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
fn series_that_the_reader_knows_come_without_labels() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let mut hold = db.hold("f", None).unwrap();
    for at in 1..4 {
        db.append(&batch(at * 10, 0..3)).unwrap();
    }
    let CursorEvent::Batch(first) = hold.next_event().unwrap() else { panic!("a batch") };
    let known = first.rows[1].0;
    assert!(first.rows.iter().all(|(_, labels, _)| labels.is_some()));
    let event = hold.next_event_knowing(&|series| series == known).unwrap();
    let CursorEvent::Batch(second) = event else { panic!("a batch") };
    let with_labels: Vec<bool> = second.rows.iter().map(|(_, it, _)| it.is_some()).collect();
    assert_eq!(with_labels, [true, false, true]);
    assert_eq!(second.rows[0].1, first.rows[0].1);
    // Everything is known, and nothing of it is lost.
    let event = hold.next_event_knowing(&|_| true).unwrap();
    let CursorEvent::Batch(third) = event else { panic!("a batch") };
    assert_eq!((third.rows.len(), third.orphans), (3, 0));
    assert!(third.rows.iter().all(|(_, labels, _)| labels.is_none()));
}

#[test]
fn a_segment_whose_file_somebody_removed_is_told_as_lost() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let mut hold = db.hold("f", None).unwrap();
    let mut at = 0;
    while db.stats().wal_segments < 3 {
        db.append(&batch(at * 10, 0..3)).unwrap();
        at += 1;
    }
    let first = hold.position();
    crate::disk::Disk::remove(&disk, &crate::wal::segment::path(first.segment)).unwrap();
    let CursorEvent::Lost { from, to, reason } = hold.next_event().unwrap() else { panic!() };
    assert_eq!((from, to.segment), (first, first.segment + 1), "{reason}");
    assert!(reason.contains("missing"), "{reason}");
    assert!(matches!(hold.next_event().unwrap(), CursorEvent::Batch(_)));
}
