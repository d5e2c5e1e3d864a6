use super::*;
use crate::disk::sim::{Crash, Fault, Plan, SimDisk, Unsynced};
use crate::wal::segment::{SegmentReader, Step};
use stint_model::Timestamp;

fn log(disk: &SimDisk, segment_bytes: u64) -> Log {
    disk.create_dir(Path::new("wal")).unwrap();
    Log::new(Arc::new(disk.clone()), segment_bytes, BTreeMap::new(), 0)
}

fn write(log: &Log, number: i64) -> Result<WalPosition, AppendError> {
    let mut encoder = Encoder::default();
    start_record(&mut encoder);
    encoder.flush_begin(Timestamp(number));
    log.append(&mut encoder)
}

fn records(disk: &SimDisk) -> usize {
    let mut count = 0;
    for entry in disk.list(Path::new("wal")).unwrap() {
        let path = Path::new("wal").join(entry.name);
        let mut reader = SegmentReader::new(Arc::new(disk.clone()), path, 0, entry.size);
        while let Step::Record { .. } = reader.step().unwrap() {
            count += 1;
        }
    }
    count
}

#[test]
fn segments_rotate_and_are_removed() {
    let disk = SimDisk::new();
    let log = log(&disk, 40);
    for number in 0..6 {
        write(&log, number).unwrap();
    }
    assert_eq!(log.segments().len(), 3);
    assert_eq!(records(&disk), 6);
    log.remove_before(2).unwrap();
    assert_eq!(log.segments().keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(records(&disk), 2);
    log.remove_before(99).unwrap();
    assert_eq!(records(&disk), 2, "the segment being written stays");
}

#[test]
fn only_synced_records_survive_the_machine() {
    let disk = SimDisk::new();
    let log = log(&disk, 1000);
    disk.sync_dir(Path::new("")).unwrap();
    write(&log, 1).unwrap();
    log.sync().unwrap();
    write(&log, 2).unwrap();
    assert_eq!(records(&disk.after_crash(Crash::KILL)), 2);
    let lost = Crash { data: Unsynced::Dropped, names_kept: false };
    assert_eq!(records(&disk.after_crash(lost)), 1);
}

#[test]
fn a_full_disk_refuses_then_heals() {
    let disk = SimDisk::new();
    let log = log(&disk, 1000);
    write(&log, 1).unwrap();
    disk.set_capacity(disk.size(&segment::path(0)).unwrap() + 5);
    assert!(matches!(write(&log, 2), Err(AppendError::DiskFull(_))));
    assert!(matches!(write(&log, 2), Err(AppendError::DiskFull(_))));
    disk.set_capacity(1000);
    write(&log, 3).unwrap();
    assert_eq!(records(&disk), 2);
    assert_eq!(log.segments().len(), 1);
}

#[test]
fn a_failed_sync_ends_writing() {
    let disk = SimDisk::new();
    let log = log(&disk, 1000);
    write(&log, 1).unwrap();
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Io, repeated: false }));
    assert!(matches!(log.sync(), Err(AppendError::ReadOnly(_))));
    assert!(matches!(write(&log, 2), Err(AppendError::ReadOnly(_))));
    assert!(matches!(log.sync(), Err(AppendError::ReadOnly(_))), "trying again proves nothing");
    assert_eq!(records(&disk), 1);
}

#[test]
fn a_write_that_cannot_be_undone_starts_a_new_segment() {
    let disk = SimDisk::new();
    let log = log(&disk, 1000);
    write(&log, 1).unwrap();
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    assert!(write(&log, 2).is_err());
    disk.set_plan(None);
    write(&log, 3).unwrap();
    assert_eq!(records(&disk), 2);
    assert_eq!(log.segments().len(), 2);
}
