//! Blocks of samples that never passed the log.

use std::sync::Arc;

use stint_model::histogram::{Histogram, IntegerHistogram};

use super::*;
use crate::import::Imported;

fn columns(times: impl Iterator<Item = i64>, value: f64) -> Columns {
    let mut columns = Columns::default();
    for at in times {
        columns.push_float(Timestamp(at), value);
    }
    columns
}

fn import(db: &Db, range: (i64, i64), series: &mut [(Labels, Columns)]) -> Imported {
    let mut import = db.import(TimeRange::new(Timestamp(range.0), Timestamp(range.1))).unwrap();
    for (labels, columns) in series {
        import.add_series(labels, columns).unwrap();
    }
    import.finish().unwrap()
}

#[test]
fn what_is_imported_is_read_and_no_holder_of_the_log_sees_it() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    db.append(&batch(5000, 0..1)).unwrap();
    let end = db.wal_end();
    let imported =
        import(&db, (0, 1000), &mut [(labels("m", 0), columns([7, 8].into_iter(), 0.5))]);
    assert_eq!(imported.block.map(|block| (block.series, block.samples)), Some((1, 2)));
    assert_eq!(db.wal_end(), end);
    let before = dump(&db);
    assert_eq!(before, [r#"{__name__="m", n="0"} 7=0.5 8=0.5 5000=5000"#]);
    db.close().unwrap();
    let (db, _) = open(&disk);
    assert_eq!(dump(&db), before);
    assert_eq!(import(&db, (0, 1000), &mut []), Imported { block: None, refused: 0 });
}

#[test]
fn what_is_there_already_counts_and_is_merged_away() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let all = |value: f64| [(labels("m", 0), columns((0..10).map(|n| n * 100), value))];
    import(&db, (0, 1000), &mut all(1.0));
    import(&db, (0, 1000), &mut all(2.0));
    let before = dump(&db);
    assert!(before[0].contains("900=1") && !before[0].contains("=2"), "{before:?}");
    let samples = |db: &Db| -> u64 {
        db.inner.blocks.current().blocks.iter().map(|block| block.meta().samples).sum()
    };
    assert_eq!((db.stats().blocks, samples(&db)), (2, 20));
    assert_eq!(run_jobs(&db, 0), ["compact"]);
    assert_eq!((db.stats().blocks, samples(&db)), (1, 10));
    assert_eq!(dump(&db), before);
}

#[test]
fn histograms_that_contradict_themselves_are_left_out() {
    let (db, _) = open(&SimDisk::new());
    let good = IntegerHistogram { count: 2, zero_count: 2, ..IntegerHistogram::default() };
    let bad = IntegerHistogram { count: 3, ..good.clone() };
    let mut mixed = Columns::default();
    mixed.push_float(Timestamp(1), 1.5);
    for (at, histogram) in [(2, &good), (3, &bad), (4, &good)] {
        mixed.push_histogram(Timestamp(at), Arc::new(Histogram::Integer(histogram.clone())));
        mixed.set_last_start(Timestamp(at - 1));
    }
    let imported = import(&db, (0, 1000), &mut [(labels("m", 0), mixed)]);
    assert_eq!(imported.refused, 1);
    let querier = db.querier(TimeRange::ALL).unwrap();
    let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
    let mut read = Columns::default();
    set.read(0, TimeRange::ALL, &mut read).unwrap();
    assert_eq!(read.times, [1, 2, 4].map(Timestamp));
    assert_eq!(read.starts, [Timestamp::MIN, Timestamp(1), Timestamp(3)]);
    assert_eq!(read.histograms.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn windows_are_those_that_compaction_makes() {
    let windows = |retention: Option<i64>| {
        let retention = retention.map(|days| Span(days * Span::DAY.0));
        let options = Options { retention, ..Options::default() };
        let (db, _) = Db::open(Arc::new(SimDisk::new()), options).unwrap();
        db.import_windows().0 / Span::HOUR.0
    };
    assert_eq!([Some(1), Some(7), Some(30), None].map(windows), [2, 24, 72, 216]);
}

#[test]
fn an_import_that_ends_early_leaves_nothing() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let range = TimeRange::new(Timestamp(0), Timestamp(1000));
    let mut given_up = db.import(range).unwrap();
    given_up.add_series(&labels("m", 0), &mut columns(1..5, 1.0)).unwrap();
    given_up.abandon().unwrap();
    let mut dropped = db.import(range).unwrap();
    dropped.add_series(&labels("m", 0), &mut columns(1..5, 1.0)).unwrap();
    drop(dropped);
    db.close().unwrap();
    let (db, _) = open(&disk);
    assert_eq!(dump(&db), Vec::<String>::new());
    assert_eq!(disk.list(Path::new(crate::version::DIR)).unwrap(), []);
    let wrong = db.import(range).unwrap().add_series(&labels("m", 0), &mut columns(998..1002, 1.0));
    assert!(wrong.is_err(), "outside of the range");
}
