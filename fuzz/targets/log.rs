//! Databases whose log and checkpoint have intact checksums: they are opened, and whatever was read of
//! them stays the same through all work, a stop and another start.
//!
//! The input is records one behind the other, each behind two bytes: its length, and in the highest bit
//! whether it is of the checkpoint.

#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use stint_model::{Columns, Hints, Labels, Queryable as _, Selector, Span, TimeRange, Timestamp};
use stint_storage::codec::crc;
use stint_storage::{Db, Disk, Options, SimDisk};

/// Work that is done at most: samples may lie in as many block ranges as there are.
const JOBS_MAX: usize = 40;

fn options() -> Options {
    Options {
        block_range: Span(1 << 40),
        retention: None,
        chunk_samples: 4,
        segment_bytes: 500,
        checkpoint_bytes: 200,
        head_file_bytes: 100,
        ..Options::default()
    }
}

fn header(version: u32) -> Vec<u8> {
    let mut header = b"STINTWAL".to_vec();
    header.extend_from_slice(&version.to_le_bytes());
    let checksum = crc::checksum(&header);
    header.extend_from_slice(&checksum.to_le_bytes());
    header
}

fn add_record(file: &mut Vec<u8>, payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    file.extend_from_slice(&length);
    file.extend_from_slice(&crc::continued(crc::checksum(&length), payload).to_le_bytes());
    file.extend_from_slice(payload);
}

fn files(mut input: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut segment, mut checkpoint) = (header(1), header(4));
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let length = u16::from_le_bytes(*length);
        let payload = rest.get(..usize::from(length & 0x7fff)).unwrap_or(rest);
        let file = if length & 0x8000 == 0 { &mut segment } else { &mut checkpoint };
        add_record(file, payload);
        input = &rest[payload.len()..];
    }
    (segment, checkpoint)
}

type Content = BTreeMap<Labels, Vec<(i64, u64)>>;

/// Everything in the database; `None` where some of it cannot be read, or makes no sense: of sealed chunks
/// a start reads no more than their checksums.
fn content(db: &Db) -> Option<Content> {
    let querier = db.querier(TimeRange::ALL).expect("open");
    let set = querier.select(&Selector::default(), &Hints::default()).expect("no block is damaged");
    let mut content = Content::new();
    for index in 0..set.len() {
        let mut columns = Columns::default();
        set.read(index, TimeRange::ALL, &mut columns).ok()?;
        if !columns.times.windows(2).all(|pair| pair[0] < pair[1]) {
            return None;
        }
        let mut rows: Vec<(i64, u64)> = columns
            .times
            .iter()
            .zip(&columns.values)
            .map(|(at, value)| (at.0, value.to_bits()))
            .collect();
        // What stands in place of a histogram means nothing.
        columns.histograms.iter().for_each(|(row, _)| rows[*row].1 = 0);
        if !rows.is_empty() {
            assert!(content.insert(set.labels(index), rows).is_none(), "a series is there once");
        }
    }
    Some(content)
}

fuzz_target!(|input: &[u8]| {
    let (segment, checkpoint) = files(input);
    let disk = SimDisk::new();
    disk.create_dir(Path::new("wal")).expect("room");
    let write = |name: &str, bytes: &[u8]| {
        disk.create(&Path::new("wal").join(name)).expect("new").append(bytes).expect("room");
    };
    write("00000001", &segment);
    if checkpoint.len() > header(4).len() {
        write("checkpoint.00000001", &checkpoint);
    }
    let (db, _) = Db::open(Arc::new(disk.clone()), options()).expect("damage is no error");
    let _ = db.stats();
    let Some(before) = content(&db) else { return };
    for _ in 0..JOBS_MAX {
        let Some(job) = db.next_job(Timestamp(1 << 41)) else { break };
        job.run().expect("done");
        assert_eq!(content(&db).as_ref(), Some(&before));
    }
    assert_eq!(db.close().expect("closed").replays, None);
    drop(db);
    let (db, report) = Db::open(Arc::new(disk), options()).expect("it opens");
    assert!(report.damage.is_empty() && report.quarantined.is_empty(), "{report:?}");
    assert_eq!(content(&db), Some(before));
});
