//! A small database, and a fixed story that meets every border of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use stint_model::{
    Appender as _, Batch, Columns, Hints, Labels, Matcher, Querier, Queryable as _, Sample,
    Selector, Span, TimeRange, Timestamp,
};
use stint_storage::check::check;
use stint_storage::{Db, Disk, Limits, OpenError, OpenReport, Options, SimDisk};

/// Value by time, by series.
pub(crate) type Content = BTreeMap<Labels, BTreeMap<i64, u64>>;

/// Limits so small that a few batches pass all of them.
pub(crate) fn options() -> Options {
    Options {
        block_range: Span(1000),
        retention: None,
        chunk_samples: 4,
        segment_bytes: 300,
        checkpoint_bytes: 200,
        head_file_bytes: 60,
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

/// A deletion of the story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deletion {
    /// Only samples of earlier batches are deleted.
    before_batch: usize,
    n: usize,
    range: TimeRange,
    /// Whether it was acknowledged; if not, it may have been done in part.
    pub(crate) acknowledged: bool,
}

/// What the story's teller knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Batches that were acknowledged.
    pub(crate) acknowledged: Vec<usize>,
    /// Of these, how many were acknowledged when the last sync succeeded.
    pub(crate) synced: usize,
    /// Deletions that were tried.
    pub(crate) deletions: Vec<Deletion>,
    /// Retention may have removed samples before this.
    pub(crate) cut: Option<i64>,
    /// What was there when the snapshot was begun, and whether it was acknowledged.
    pub(crate) snapshot: Option<(Content, bool)>,
    /// Names of the jobs that were done.
    pub(crate) jobs: BTreeSet<&'static str>,
}

/// Where the story puts its snapshot.
pub(crate) const SNAPSHOT: &str = "snapshots/one";

impl Told {
    fn delete(&mut self, db: &Db, before_batch: usize, n: usize, start: i64, end: i64) {
        let range = TimeRange::new(Timestamp(start), Timestamp(end));
        let selector = Selector::new(vec![Matcher::equal("n", &n.to_string())]);
        let acknowledged = db.delete_series(&[selector], range).is_ok();
        self.deletions.push(Deletion { before_batch, n, range, acknowledged });
        if acknowledged {
            self.synced = self.acknowledged.len();
        }
    }

    /// The step of the story that follows batch `number`, beside syncs and jobs.
    fn chapter(&mut self, db: &Db, number: usize) {
        match number {
            20 => self.delete(db, number + 1, 1, 300, 900),
            25 => {
                let seen = content(db);
                self.snapshot = Some((seen.clone(), false));
                let done = db.snapshot(Path::new(SNAPSHOT), true).is_ok();
                self.snapshot = Some((seen, done));
            }
            21 => {
                if let Ok(report) = db.clean_tombstones()
                    && report.blocks_written > 0
                {
                    self.jobs.insert(report.job);
                }
            }
            38 => self.delete(db, number + 1, 0, 1000, 3000),
            40 => {
                let retention = Span(1000);
                db.set_limits(Limits { retention: Some(retention), ..db.options().limits() });
                self.cut = Some(100 * STORY_BATCHES as i64 - retention.0);
            }
            _ => {}
        }
    }
}

/// Tells the story to a database on `disk`: appends, syncs, deletions, a snapshot, jobs, one
/// reopening. Goes on after errors. `look` is called now and then with what was acknowledged so
/// far.
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
        told.chapter(&db, number);
        if number % 6 == 5 {
            for _ in 0..20 {
                let Some(job) = db.next_job(Timestamp(100 * number as i64)) else { break };
                let Ok(report) = job.run() else { break };
                told.jobs.insert(report.job);
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

/// The batches of which `content` has samples. Fails when it does not have all of `kept`, has a
/// part of a batch (unless `parts`), what was deleted, or what was never appended.
pub(crate) fn judge(
    content: &Content,
    told: &Told,
    kept: &[usize],
    parts: bool,
    place: &str,
) -> Vec<usize> {
    let has = |(n, at, value): &(usize, i64, f64)| {
        content.get(&series(*n)).and_then(|rows| rows.get(at)) == Some(&value.to_bits())
    };
    let mut found = Vec::new();
    let mut known = 0;
    for number in 0..STORY_BATCHES {
        let rows = story_batch(number);
        let mut certain = Vec::new();
        for row in rows {
            known += usize::from(has(&row));
            let covers = |deletion: &&Deletion| {
                number < deletion.before_batch
                    && deletion.n == row.0
                    && deletion.range.contains(Timestamp(row.1))
            };
            let deletions: Vec<_> = told.deletions.iter().filter(covers).collect();
            let deleted = deletions.iter().any(|deletion| deletion.acknowledged);
            assert!(!deleted || !has(&row), "{place}: {row:?} of batch {number} was deleted");
            if deletions.is_empty() && told.cut.is_none_or(|cut| row.1 >= cut) {
                certain.push(row);
            }
        }
        let there = certain.iter().filter(|row| has(row)).count();
        let whole = there == certain.len();
        assert!(whole || !kept.contains(&number), "{place}: batch {number} lost {certain:?}");
        assert!(whole || there == 0 || parts, "{place}: {there} rows of batch {number}");
        if there > 0 {
            found.push(number);
        }
    }
    let all: usize = content.values().map(BTreeMap::len).sum();
    assert_eq!(known, all, "{place}: nothing that was never appended");
    found
}
