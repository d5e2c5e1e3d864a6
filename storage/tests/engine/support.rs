//! A small database, and a fixed story that meets every border of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use stint_model::{
    Appender as _, Batch, Columns, Hints, Labels, Querier, Queryable as _, Sample, Selector, Span,
    TimeRange, Timestamp,
};
use stint_storage::check::check;
use stint_storage::{Db, Disk, OpenError, OpenReport, Options, SimDisk};

/// Value by time, by series.
pub(crate) type Content = BTreeMap<Labels, BTreeMap<i64, u64>>;

/// Limits so small that a few batches pass all of them.
pub(crate) fn options() -> Options {
    Options {
        block_range: Span(1000),
        retention: None,
        chunk_samples: 4,
        segment_bytes: 300,
        ..Options::default()
    }
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Db, OpenReport), OpenError> {
    Db::open(Arc::new(disk.clone()), options())
}

/// Fails where something in the database does not hold that must.
pub(crate) fn verify(disk: &SimDisk) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = check(&disk).unwrap();
    assert!(report.findings.is_empty(), "{report:#?}");
}

/// Whether to take the time for every case.
pub(crate) fn long() -> bool {
    std::env::var_os("STINT_LONG").is_some()
}

pub(crate) fn series(number: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &number.to_string())])
}

pub(crate) fn content(db: &Db) -> Content {
    content_of(&*db.querier(TimeRange::ALL).unwrap())
}

/// Everything that a querier sees, and that it sees it in order.
pub(crate) fn content_of(querier: &dyn Querier) -> Content {
    let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
    let mut content = Content::new();
    for index in 0..set.len() {
        let mut columns = Columns::default();
        set.read(index, TimeRange::ALL, &mut columns).unwrap();
        assert!(columns.times.windows(2).all(|pair| pair[0] < pair[1]), "times rise");
        assert!(index == 0 || set.labels(index - 1) < set.labels(index), "labels rise");
        let rows = columns.times.iter().zip(&columns.values);
        let rows: BTreeMap<i64, u64> = rows.map(|(at, value)| (at.0, value.to_bits())).collect();
        if !rows.is_empty() {
            content.insert(set.labels(index), rows);
        }
    }
    content
}

/// How many batches the story has.
pub(crate) const STORY_BATCHES: usize = 45;

/// The samples of batch `number` of the story: three series, and now and then a late sample, in
/// the head or in what is in blocks already.
pub(crate) fn story_batch(number: usize) -> Vec<(usize, i64, f64)> {
    let at = 100 * number as i64;
    let mut rows: Vec<_> = (0..3).map(|n| (n, at, number as f64)).collect();
    rows.push((3 + number / 10, at, 0.5));
    if number % 4 == 3 {
        rows.push((1, at - 250, -(number as f64)));
    }
    if number % 9 == 8 && number > 20 {
        rows.push((2, at - 1950, -(number as f64)));
    }
    rows
}

fn batch_of(rows: &[(usize, i64, f64)]) -> Batch {
    let mut batch = Batch { out_of_order_window: Span(5000), ..Batch::default() };
    for (n, at, value) in rows {
        batch.push(series(*n), Sample::float(Timestamp(*at), *value));
    }
    batch
}

/// What the story's teller knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Batches that were acknowledged.
    pub(crate) acknowledged: Vec<usize>,
    /// Of these, how many were acknowledged when the last sync succeeded.
    pub(crate) synced: usize,
}

/// Tells the story to a database on `disk`: appends, syncs, jobs, one reopening. Goes on after
/// errors. `look` is called now and then with what was acknowledged so far.
pub(crate) fn tell(disk: &SimDisk, mut look: impl FnMut(&Db, &Told)) -> Told {
    let mut told = Told::default();
    let Ok((mut db, _)) = open(disk) else { return told };
    for number in 0..STORY_BATCHES {
        if let Ok(appended) = db.append(&batch_of(&story_batch(number))) {
            assert!(appended.rejected.is_empty(), "batch {number}: {:?}", appended.rejected);
            told.acknowledged.push(number);
        }
        if number % 5 == 4 && db.sync().is_ok() {
            told.synced = told.acknowledged.len();
        }
        if number % 6 == 5 {
            for _ in 0..20 {
                let Some(job) = db.next_job(Timestamp(100 * number as i64)) else { break };
                if job.run().is_err() {
                    break;
                }
            }
            look(&db, &told);
        }
        if number == 30 {
            if db.close().is_ok() {
                told.synced = told.acknowledged.len();
            }
            drop(db);
            match open(disk) {
                Ok((again, _)) => db = again,
                Err(_) => return told,
            }
            look(&db, &told);
        }
    }
    told
}

/// The content after these batches.
pub(crate) fn content_after(batches: &[usize]) -> Content {
    let mut content = Content::new();
    for number in batches {
        for (n, at, value) in story_batch(*number) {
            content.entry(series(n)).or_default().entry(at).or_insert(value.to_bits());
        }
    }
    content
}

/// The batches of which `content` has samples. Fails when it has a part of one, or anything else.
pub(crate) fn batches_in(content: &Content) -> Vec<usize> {
    let has = |(n, at, value): &(usize, i64, f64)| {
        content.get(&series(*n)).and_then(|rows| rows.get(at)) == Some(&value.to_bits())
    };
    let mut found = Vec::new();
    for number in 0..STORY_BATCHES {
        let rows = story_batch(number);
        let there = rows.iter().filter(|row| has(row)).count();
        assert!(there == 0 || there == rows.len(), "a part of batch {number}: {there} rows");
        if there > 0 {
            found.push(number);
        }
    }
    assert_eq!(content_after(&found), *content, "nothing that was never appended");
    found
}
