//! A data directory of each format version as a program of its time wrote it is read as ever.
//!
//! `tests/golden/v4` was written by this file: `STINT_GOLDEN=1 cargo test -p stint-storage --test
//! engine golden` writes it anew. That is right only while no release has written the format, or
//! when the format gets a new version and with it a directory of its own. `tests/golden/v1` is of the
//! time when checkpoints had no states, `tests/golden/v2` of that when they were not packed,
//! `tests/golden/v3` of that when each chunk stood by itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, IntegerHistogram};
use stint_model::{
    Appender as _, Batch, Columns, Exemplar, Exemplars, Hints, Histogram, Labels, Matcher,
    Metadata, MetricType, Queryable as _, Sample, Selector, Span, TimeRange, Timestamp, Value,
};
use stint_storage::disk::read_all;
use stint_storage::{Db, Disk, OsDisk, SimDisk};

use crate::support::{open, verify};

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

fn integer(at: i64) -> Value {
    let count = at as u64 / 100;
    Value::Histogram(Arc::new(Histogram::Integer(IntegerHistogram {
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: 1,
        count: 1 + 2 * count,
        sum: 0.5 * at as f64,
        positive_spans: vec![
            BucketSpan { offset: -2, length: 1 },
            BucketSpan { offset: 3, length: 1 },
        ],
        positive_deltas: vec![count as i64, 0],
        ..IntegerHistogram::default()
    })))
}

fn custom(at: i64) -> Value {
    Value::Histogram(Arc::new(Histogram::Float(FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 1.5 + at as f64,
        sum: 7.25,
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_buckets: vec![1.5, at as f64],
        custom_bounds: vec![0.1, 2.5],
        ..FloatHistogram::default()
    })))
}

/// One scrape: values of every form that log and chunks know.
fn batch(number: i64) -> Batch {
    let at = Timestamp(number * 100);
    let mut batch = Batch { out_of_order_window: Span(5000), ..Batch::default() };
    let labels =
        |name: &str, n: i64| Labels::from_pairs([("__name__", name), ("n", &n.to_string())]);
    let values =
        [0.0, number as f64, 0.1 * number as f64, 1.0 / (number + 1) as f64, -1e300, 0.125];
    for (n, value) in (0..).zip(values) {
        batch.push(labels("floats", n), Sample::float(at, value));
    }
    let stale = if number % 7 == 6 { Value::Stale } else { Value::Float(1.0) };
    batch.push(labels("up", 0), Sample { at, started: None, value: stale });
    let started = Some(Timestamp(-5));
    batch.push(labels("counters_total", 0), Sample { started, ..Sample::float(at, number as f64) });
    batch.push(labels("exponential", 0), Sample { at, started: None, value: integer(at.0) });
    batch.push(labels("custom", 0), Sample { at, started, value: custom(at.0) });
    batch.push(labels("born", number / 5), Sample::float(at, 2.0));
    if number % 4 == 3 {
        batch.push(labels("floats", 1), Sample::float(at - Span(250), 9.75));
    }
    let trace = Labels::from_pairs([("trace_id", "abc")]);
    let exemplar = Exemplar { labels: trace, value: 0.5, at };
    batch.exemplars.push(Exemplars { row: 7, exemplars: vec![exemplar] });
    let help = format!("Help {}.", number / 10);
    let metadata = Metadata { kind: MetricType::Counter, help, unit: "seconds".to_owned() };
    batch.metadata.push(("counters".to_owned(), metadata));
    batch
}

/// A database killed with everything in it: segments, a checkpoint, blocks cut, merged and with
/// deletions, and deletions in the log.
fn write() -> SimDisk {
    let disk = SimDisk::new();
    let (db, _) = open(&disk).unwrap();
    for number in 0..60 {
        assert!(db.append(&batch(number)).unwrap().rejected.is_empty());
        while let Some(job) = db.next_job(Timestamp(number * 100)) {
            job.run().unwrap();
        }
    }
    let selector = Selector::new(vec![Matcher::equal("n", "2")]);
    db.delete_series(&[selector], TimeRange::new(Timestamp(1500), Timestamp(5500))).unwrap();
    db.sync().unwrap();
    drop(db);
    disk
}

/// All that a database answers, as text.
fn answers(db: &Db) -> String {
    let mut text = String::new();
    let querier = db.querier(TimeRange::ALL).unwrap();
    let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
    for index in 0..set.len() {
        let mut columns = Columns::default();
        set.read(index, TimeRange::ALL, &mut columns).unwrap();
        let bits: Vec<u64> = columns.values.iter().map(|value| value.to_bits()).collect();
        writeln!(text, "{} {:?} {bits:?}", set.labels(index), columns.times).unwrap();
        writeln!(text, "{:?} {:?}", columns.histograms, columns.starts).unwrap();
    }
    writeln!(text, "{:?}", db.exemplars(&[Selector::default()], TimeRange::ALL)).unwrap();
    writeln!(text, "{:?}", db.metadata()).unwrap();
    text
}

fn files(disk: &dyn Disk, dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in disk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir { files(disk, &path, found) } else { found.push(path) }
    }
}

/// Copies `names` from one disk to the other.
fn copy(from: &dyn Disk, to: &dyn Disk, names: &[PathBuf]) {
    for name in names {
        to.create_dir(name.parent().unwrap()).unwrap();
        let file = to.create(name).unwrap();
        file.append(&read_all(from, name).unwrap()).unwrap();
    }
}

#[test]
fn a_golden_directory_is_read_as_ever() {
    if std::env::var_os("STINT_GOLDEN").is_some() {
        let written = write();
        let mut names = Vec::new();
        files(&written, Path::new(""), &mut names);
        if golden("v4").exists() {
            std::fs::remove_dir_all(golden("v4")).unwrap();
        }
        copy(&written, &OsDisk::new(golden("v4")).unwrap(), &names);
    }
    read_golden("v1", &[]);
    read_golden("v2", &["head/0"]);
    read_golden("v3", &["head/0"]);
    read_golden("v4", &["head/0"]);
}

fn read_golden(version: &str, more: &[&str]) {
    let written = write();
    let stored = OsDisk::new(golden(version)).unwrap();
    let mut names = Vec::new();
    files(&stored, Path::new(""), &mut names);
    let text = format!("{names:?}");
    let kinds = ["wal/0", "wal/checkpoint", "wal/identity", "/meta", "/chunks", "/index", "/tombs"];
    for kind in kinds.iter().chain(more) {
        assert!(text.contains(kind), "{kind}: {text}");
    }
    let disk = SimDisk::new();
    copy(&stored, &disk, &names);
    verify(&disk);
    let (old, report) = open(&disk).unwrap();
    assert!(report.damage.is_empty() && report.quarantined.is_empty(), "{report:?}");
    assert!(report.samples > 0 && report.torn_tail.is_none(), "{report:?}");
    let (new, _) = open(&written).unwrap();
    assert_eq!(answers(&old), answers(&new));
    // It can be written to, and what it held moves to the present format with everything else.
    for db in [&old, &new] {
        for number in 60..90 {
            assert!(db.append(&batch(number)).unwrap().rejected.is_empty());
        }
        while let Some(job) = db.next_job(Timestamp(9000)) {
            job.run().unwrap();
        }
    }
    assert_eq!(answers(&old), answers(&new));
}
