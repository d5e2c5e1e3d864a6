//! Each test damages one thing, so that all checksums hold unless they are what is damaged.

use stint_model::{
    Appender as _, Batch, Labels, Matcher, Sample, Selector, Span, TimeRange, Timestamp,
};

use super::*;
use crate::disk::sim::{Crash, SimDisk};
use crate::head::Effort;
use crate::job::checkpoint::Begun;
use crate::wal::WalPosition;
use crate::wal::record::{Encoder, Item};
use crate::wal::segment::{self, RECORD_HEADER_BYTES, SegmentReader, Step};
use crate::{Db, Options};

fn options() -> Options {
    Options {
        block_range: Span(1000),
        chunk_samples: 4,
        segment_bytes: 1 << 20,
        checkpoint_bytes: 1 << 30,
        head_file_bytes: 100,
        ..Options::default()
    }
}

/// A database with blocks, tombstones, files of the head, a checkpoint and a segment behind it.
fn database() -> (SimDisk, Db) {
    let disk = SimDisk::new();
    let (db, _) = Db::open(Arc::new(disk.clone()), options()).unwrap();
    let append = |at: i64| {
        let mut batch = Batch { out_of_order_window: Span(5000), ..Batch::default() };
        for n in 0..3 {
            let labels = Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())]);
            batch.push(labels, Sample::float(Timestamp(at), at as f64 / 7.0));
        }
        if at % 500 == 400 {
            let labels = Labels::from_pairs([("__name__", "m"), ("n", "1")]);
            batch.push(labels, Sample::float(Timestamp(at - 150), 0.5));
        }
        db.append(&batch).unwrap();
    };
    (0..40).for_each(|at| append(at * 100));
    while let Some(job) = db.next_job(Timestamp(4000)) {
        job.run().unwrap();
    }
    (40..44).for_each(|at| append(at * 100));
    let selector = Selector::new(vec![Matcher::equal("n", "2")]);
    db.delete_series(&[selector], TimeRange::new(Timestamp(500), Timestamp(700))).unwrap();
    (disk, db)
}

/// The same, closed by a kill.
fn closed() -> SimDisk {
    database().0.after_crash(Crash::KILL)
}

fn report(disk: &SimDisk) -> CheckReport {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    check(&disk).unwrap()
}

/// The only finding.
#[track_caller]
fn finding(disk: &SimDisk) -> (String, String) {
    let report = report(disk);
    let [finding] = &report.findings[..] else { panic!("{report:#?}") };
    (finding.path.display().to_string(), finding.what.clone())
}

/// Files below `dir` whose names begin so.
fn named(disk: &SimDisk, dir: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = disk.list(Path::new(dir)).unwrap();
    let names = entries.iter().filter(|entry| entry.name.starts_with(prefix));
    names.map(|entry| Path::new(dir).join(&entry.name)).collect()
}

fn checkpoint(disk: &SimDisk) -> PathBuf {
    named(disk, "wal", "checkpoint.").pop().unwrap()
}

/// The last segment.
fn last_segment(disk: &SimDisk) -> PathBuf {
    named(disk, "wal", "0").pop().unwrap()
}

fn items(disk: &SimDisk, path: &Path) -> Vec<Item> {
    let size = disk.size(path).unwrap();
    let mut reader = SegmentReader::new(Arc::new(disk.clone()), path.into(), 0, size);
    let mut items = Vec::new();
    while let Step::Record { payload, .. } = reader.step().unwrap() {
        record::decode(payload, |item| items.push(item)).unwrap();
    }
    items
}

fn record_of(items: &[Item]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.reset(RECORD_HEADER_BYTES);
    for item in items {
        match item {
            Item::Series { id, last_segment, labels } => {
                encoder.series(*id, *last_segment, labels);
            }
            Item::Sample { id, sample } => encoder.sample(*id, sample),
            Item::Metadata { family, metadata } => encoder.metadata(family, metadata),
            Item::Exemplar { id, exemplar } => encoder.exemplar(*id, exemplar),
            Item::FlushBegin { before } => encoder.flush_begin(*before),
            Item::FlushDone { before } => encoder.flush_done(*before),
            Item::Deleted { id, range } => encoder.deleted(*id, *range),
            Item::Checkpoint { next_id, flushed } => encoder.checkpoint(*next_id, *flushed),
            Item::StatesAt { position } => encoder.states_at(*position),
            Item::State { id, state } => encoder.state(*id, |out| out.extend_from_slice(state)),
        }
    }
    segment::seal(encoder.bytes_mut());
    std::mem::take(encoder.bytes_mut())
}

/// The database with a record more in its last segment.
fn with_record(items: &[Item]) -> SimDisk {
    let disk = closed();
    let path = last_segment(&disk);
    disk.open(&path).unwrap().append(&record_of(items)).unwrap();
    disk
}

/// The database with other items in its checkpoint.
fn with_checkpoint(edit: impl FnOnce(&mut Vec<Item>)) -> SimDisk {
    let disk = closed();
    let path = checkpoint(&disk);
    let mut items = items(&disk, &path);
    edit(&mut items);
    disk.remove(&path).unwrap();
    let file = disk.create(&path).unwrap();
    file.append(&segment::header(segment::CHECKPOINT_VERSION)).unwrap();
    file.append(&record_of(&items)).unwrap();
    disk
}

#[test]
fn all_is_well_and_every_sample_is_counted() {
    let (disk, db) = database();
    let stats = db.stats();
    assert!(stats.blocks > 0 && stats.series == 3);
    let report = report(&disk);
    assert_eq!(report.findings, []);
    assert_eq!((report.blocks, report.wal_series), (stats.blocks, 3));
    assert_eq!((report.segments, report.checkpoints), (1, 1));
    assert!(report.head_files > 0);
    // Four batches of three behind the checkpoint.
    assert_eq!(report.wal_samples, 12);
    assert_eq!(report.checkpoint_samples + report.wal_samples + report.block_samples, 120 + 8 + 12);
    assert!(report.checkpoint_samples > 12, "{report:?}");
    db.close().unwrap();
    let closed = super::check(&(Arc::new(disk) as Arc<dyn Disk>)).unwrap();
    assert_eq!(closed.findings, []);
    let all = report.checkpoint_samples + report.wal_samples;
    assert_eq!((closed.wal_samples, closed.checkpoint_samples), (0, all), "{closed:?}");
    // Rewriting it as one record changes nothing.
    assert_eq!(super::tests::report(&with_checkpoint(|_| {})).findings, []);
}

#[test]
fn unknown_files_are_named() {
    for path in ["wal/notes", "head/notes", "blocks/notes", "blocks/b-0000000001.damaged"] {
        let disk = closed();
        disk.create(Path::new(path)).unwrap();
        assert_eq!(finding(&disk).0, path);
    }
    let disk = closed();
    let block = named(&disk, "blocks", "b-").pop().unwrap();
    disk.create(&block.join("notes")).unwrap();
    assert_eq!(finding(&disk).0, block.join("notes").display().to_string());
    // What a crash leaves is removed at the next start.
    for path in ["wal/00000009.tmp", "head/00000009.tmp", "blocks/b-0000000009.tmp"] {
        let disk = closed();
        disk.create(Path::new(path)).unwrap();
        assert_eq!(report(&disk).findings, []);
    }
}

#[test]
fn a_block_is_the_one_that_its_directory_is_named_for() {
    let disk = closed();
    let block = named(&disk, "blocks", "b-").pop().unwrap();
    disk.rename(&block, Path::new("blocks/b-0000000099")).unwrap();
    let (path, what) = finding(&disk);
    assert_eq!(path, "blocks/b-0000000099/meta");
    assert!(what.contains(&block.file_name().unwrap().display().to_string()), "{what}");
    disk.remove(Path::new("blocks/b-0000000099/chunks")).unwrap();
    assert!(finding(&disk).1.contains("chunks"));
}

#[test]
fn the_log_has_an_identity() {
    let disk = closed();
    disk.damage(Path::new("wal/identity"), 20, 1).unwrap();
    assert_eq!(finding(&disk), ("wal/identity".into(), "not the identity of a log".into()));
    disk.remove(Path::new("wal/identity")).unwrap();
    assert!(finding(&disk).1.starts_with("missing"));
}

#[test]
fn segments_follow_each_other_from_the_checkpoint_on() {
    let disk = closed();
    let last = last_segment(&disk);
    let number: u64 = last.file_name().unwrap().to_str().unwrap().parse().unwrap();
    disk.rename(&last, &segment::path(number + 1)).unwrap();
    let missing = |number| {
        (segment::path(number).display().to_string(), "the segment before it is missing".to_owned())
    };
    assert_eq!(finding(&disk), missing(number + 1));
    // One more, with a gap between.
    let disk = closed();
    let next = disk.create(&segment::path(number + 2)).unwrap();
    next.append(&segment::header(segment::VERSION)).unwrap();
    assert_eq!(finding(&disk), missing(number + 2));
    // Without a checkpoint it begins at the beginning, and nothing is known of its series.
    let disk = closed();
    disk.remove(&checkpoint(&disk)).unwrap();
    let findings = report(&disk).findings;
    let undefined = |finding: &&Finding| finding.what.contains("never defined");
    assert!(findings.iter().any(|finding| finding.what == "the segment before it is missing"));
    assert!(findings.iter().filter(undefined).count() > 0, "{findings:?}");
}

#[test]
fn segments_that_are_kept_for_slow_readers_are_read_too() {
    let disk = closed();
    let held = segment::path(7);
    assert!(last_segment(&disk) > held.with_file_name("00000000"));
    let number = named(&disk, "wal", "0").len();
    assert_eq!(number, 1);
    let last: u64 = last_segment(&disk).file_name().unwrap().to_str().unwrap().parse().unwrap();
    let path = segment::path(last - 1);
    let file = disk.create(&path).unwrap();
    file.append(&segment::header(segment::VERSION)).unwrap();
    let gone = Item::Sample { id: 999, sample: Sample::float(Timestamp(5), 1.0) };
    file.append(&record_of(std::slice::from_ref(&gone))).unwrap();
    assert_eq!(report(&disk).findings, [], "its series may be gone");
    assert_eq!(report(&disk).wal_samples, 12, "nobody replays it");
    disk.damage(&path, 26, 1).unwrap();
    assert_eq!(finding(&disk).0, path.display().to_string());
}

#[test]
fn records_say_what_belongs_into_their_file() {
    let before = Timestamp(1);
    let state = Item::State { id: 1, state: vec![0] };
    let place = Item::StatesAt { position: WalPosition::default() };
    let begin = Item::Checkpoint { next_id: 1, flushed: before };
    for item in [state.clone(), place, begin] {
        let disk = with_record(std::slice::from_ref(&item));
        assert!(finding(&disk).1.contains("no place in such a file"), "{item:?}");
    }
    let sample = Item::Sample { id: 1, sample: Sample::float(before, 1.0) };
    let range = TimeRange::new(Timestamp(1), Timestamp(2));
    let marks = [Item::FlushBegin { before }, Item::FlushDone { before }];
    for item in marks.iter().chain([&sample, &Item::Deleted { id: 1, range }]) {
        let disk = with_checkpoint(|items| items.insert(items.len() - 1, item.clone()));
        assert!(finding(&disk).1.contains("no place in such a file"), "{item:?}");
    }
}

#[test]
fn records_name_series_that_are_defined_once() {
    let sample = Sample::float(Timestamp(9000), 1.0);
    let range = TimeRange::new(Timestamp(1), Timestamp(2));
    for item in [Item::Sample { id: 99, sample }, Item::Deleted { id: 99, range }] {
        let disk = with_record(&[item]);
        assert!(finding(&disk).1.ends_with("series 99 was never defined"));
    }
    let labels = Labels::from_pairs([("__name__", "other")]);
    let disk = with_record(&[Item::Series { id: 1, last_segment: 0, labels }]);
    assert!(finding(&disk).1.contains("series 1 is"));
    let range = TimeRange::new(Timestamp(2), Timestamp(2));
    assert!(finding(&with_record(&[Item::Deleted { id: 1, range }])).1.contains("of nothing"));
    let before = Timestamp(123);
    let disk = with_record(&[Item::FlushDone { before }]);
    assert!(finding(&disk).1.ends_with("the end of a flush that was not begun"));
    let disk = with_record(&[Item::FlushBegin { before }, Item::FlushDone { before }]);
    assert_eq!(report(&disk).findings, []);
}

#[test]
fn records_can_be_read() {
    let disk = closed();
    let path = last_segment(&disk);
    let mut record = record_of(&[Item::FlushBegin { before: Timestamp(1) }]);
    record[RECORD_HEADER_BYTES] = 0xff;
    segment::seal(&mut record);
    disk.open(&path).unwrap().append(&record).unwrap();
    assert!(finding(&disk).1.ends_with("malformed record"));
    disk.damage(&path, 20, 1).unwrap();
    assert_eq!(report(&disk).findings.len(), 2);
    let disk = closed();
    disk.damage(&last_segment(&disk), 3, 1).unwrap();
    assert_eq!(finding(&disk).1, "no header");
    let disk = closed();
    let path = last_segment(&disk);
    disk.remove(&path).unwrap();
    disk.create(&path).unwrap().append(&segment::header(9)).unwrap();
    assert!(finding(&disk).1.starts_with("format version 9"));
}

#[test]
fn a_checkpoint_begins_and_ends_alike() {
    let disk = with_checkpoint(|items| drop(items.pop()));
    assert_eq!(finding(&disk).1, "it does not end as it began");
    let disk = with_checkpoint(|items| drop(items.remove(0)));
    let findings = report(&disk).findings;
    assert!(findings[0].what.ends_with("it does not begin as checkpoints do"), "{findings:?}");
    let disk = with_checkpoint(|items| {
        if let Some(Item::Checkpoint { next_id, .. }) = items.last_mut() {
            *next_id += 1;
        }
    });
    assert_eq!(finding(&disk).1, "it does not end as it began");
}

fn is_state(item: &Item) -> bool {
    matches!(item, Item::State { .. })
}

#[test]
fn a_checkpoint_has_a_state_of_each_series_with_its_place() {
    let disk = with_checkpoint(|items| {
        let at = items.iter().position(is_state).unwrap();
        items.insert(at, items[at].clone());
    });
    let findings = report(&disk).findings;
    assert!(findings.iter().any(|finding| finding.what.contains("a second state of series")));
    let disk = with_checkpoint(|items| items.retain(|item| !matches!(item, Item::StatesAt { .. })));
    let findings = report(&disk).findings;
    assert!(findings[0].what.contains("without its place in the log"), "{findings:?}");
    let disk = with_checkpoint(|items| {
        let at = items.iter().position(|item| matches!(item, Item::Series { .. })).unwrap();
        items.remove(at);
    });
    let findings = report(&disk).findings;
    assert!(findings.iter().any(|finding| finding.what.contains("never defined")), "{findings:?}");
    // A place in the middle of a record; one behind the end may be what a power cut took.
    let at = |offset: u64| {
        let disk = closed();
        let name = last_segment(&disk);
        let number = name.file_name().unwrap().to_str().unwrap().parse().unwrap();
        with_checkpoint(|items| {
            for item in items.iter_mut() {
                if let Item::StatesAt { position } = item {
                    *position = WalPosition { segment: number, offset };
                }
            }
        })
    };
    assert!(finding(&at(17)).1.contains("where no record ends"));
    for offset in [0, 16, 1 << 40] {
        assert_eq!(report(&at(offset)).findings, []);
    }
}

#[test]
fn chunks_of_states_are_in_their_files_once() {
    let disk = closed();
    let files = named(&disk, "head", "0");
    let with_file = |edit: &dyn Fn(&mut Vec<Item>)| report(&with_checkpoint(edit)).findings;
    // The same state under another series.
    let findings = with_file(&|items| {
        let mut states = items.iter_mut().filter(|item| is_state(item));
        let (Some(Item::State { state: one, .. }), Some(Item::State { state: other, .. })) =
            (states.next(), states.next())
        else {
            panic!("there are several")
        };
        other.clone_from(one);
    });
    assert!(findings.iter().any(|f| f.what.starts_with("two series refer to the chunk")));
    let disk_without = closed();
    disk_without.remove(&files[0]).unwrap();
    let findings = report(&disk_without).findings;
    let name = files[0].display().to_string();
    assert!(findings.iter().any(|f| f.what.ends_with(&format!("{name} is missing"))));
    let cut = closed();
    cut.open(&files[0]).unwrap().truncate(20).unwrap();
    let findings = report(&cut).findings;
    assert!(findings.iter().any(|f| f.what == "checksum mismatch"), "{findings:?}");
    assert!(findings.iter().any(|f| f.what.contains("a chunk beyond head/")), "{findings:?}");
    // A chunk that is another one, in a file whose checksum holds.
    let other = closed();
    let mut bytes = crate::disk::read_all(&other, &files[0]).unwrap();
    let end = bytes.len() - 4;
    // Of the last chunk.
    bytes[end - 6] ^= 1;
    let checksum = crate::codec::crc::checksum(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    other.remove(&files[0]).unwrap();
    other.create(&files[0]).unwrap().append(&bytes).unwrap();
    let findings = report(&other).findings;
    assert!(!findings.is_empty() && findings.iter().all(|f| f.path.starts_with("wal")));
}

#[test]
fn the_checkpoint_that_a_start_falls_back_to_is_read_too() {
    let (disk, db) = database();
    let older = checkpoint(&disk);
    let mut begun = Begun::new(&db.inner, Effort::Time).unwrap().unwrap();
    while begun.step(&db.inner).unwrap() {}
    // As a crash between publishing one and removing the one before leaves it.
    let bytes = crate::disk::read_all(&disk, &older).unwrap();
    begun.finish(&db.inner).unwrap();
    drop(db);
    disk.create(&older).unwrap().append(&bytes).unwrap();
    let report = report(&disk);
    assert_eq!((report.checkpoints, report.findings.len()), (2, 0), "{report:?}");
    disk.damage(&older, bytes.len() / 2, 4).unwrap();
    let findings = super::tests::report(&disk).findings;
    assert!(!findings.is_empty() && findings.iter().all(|finding| finding.path == older));
}
