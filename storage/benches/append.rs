//! What storing a sample costs, from batch to log and head, on the real disk.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stint_model::{
    Appender as _, Batch, Columns, Hints, Labels, Queryable as _, Sample, Selector, TimeRange,
    Timestamp,
};
use stint_storage::{Db, Options, OsDisk};

const SERIES: usize = 10_000;
const BATCH: usize = 1000;

fn labels(number: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("http_requests_{}_total", number % 50)),
        ("job", "api".to_owned()),
        ("instance", format!("10.0.{}.1:8080", number / 500)),
        ("method", ["GET", "POST"][number % 2].to_owned()),
        ("path", format!("/v1/items/{}", number / 100)),
        ("code", format!("{}", 200 + number % 7)),
        ("number", number.to_string()),
    ])
}

struct Fixture {
    db: Db,
    dir: std::path::PathBuf,
    at: i64,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("stint-bench-{name}-{}", std::process::id()));
        let disk = Arc::new(OsDisk::new(&dir).expect("temporary directory"));
        let (db, _) = Db::open(disk, Options::default()).expect("new database");
        Self { db, dir, at: 1_700_000_000_000 }
    }

    /// One sample for each series; time stays inside one block range for 480 rounds.
    fn round(&mut self, batches: &mut [Batch]) {
        self.at += 15_000;
        for batch in batches {
            for (number, row) in batch.rows.iter_mut().enumerate() {
                let value = (self.at / 1000 + number as i64 % 13 * 7) as f64;
                row.sample = Sample::float(Timestamp(self.at), value);
            }
            let appended = self.db.append(batch).expect("append");
            assert!(appended.rejected.is_empty());
        }
        while let Some(job) = self.db.next_job(Timestamp(self.at)) {
            job.run().expect("job");
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).expect("the directory was made by this bench");
    }
}

fn by_labels() -> Vec<Batch> {
    let all: Vec<usize> = (0..SERIES).collect();
    let batch = |numbers: &[usize]| {
        let mut batch = Batch::default();
        for number in numbers {
            batch.push(labels(*number), Sample::float(Timestamp(0), 0.0));
        }
        batch
    };
    all.chunks(BATCH).map(batch).collect()
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(SERIES as u64));
    group.sample_size(20);
    let mut fixture = Fixture::new("labels");
    let mut batches = by_labels();
    group.bench_function("by_labels", |bencher| {
        bencher.iter(|| fixture.round(&mut batches));
    });
    // The batches carry the times of the last round.
    let at = fixture.at;
    let mut fixture = Fixture::new("known");
    fixture.at = at;
    let mut known = Vec::new();
    for batch in &batches {
        let appended = fixture.db.append(batch).expect("append");
        let mut by_handle = Batch::default();
        for series in appended.refs.into_iter().flatten() {
            by_handle.push_known(series, Sample::float(Timestamp(0), 0.0));
        }
        known.push(by_handle);
    }
    group.bench_function("known", |bencher| bencher.iter(|| fixture.round(&mut known)));
    group.finish();
    read(criterion, &fixture.db);
}

fn read(criterion: &mut Criterion, db: &Db) {
    let mut group = criterion.benchmark_group("read");
    let metric = Selector::metric("http_requests_7_total");
    group.bench_function("one_metric_200_series", |bencher| {
        let mut columns = Columns::default();
        bencher.iter(|| {
            let querier = db.querier(TimeRange::ALL).expect("open");
            let set = querier.select(&metric, &Hints::default()).expect("select");
            assert_eq!(set.len(), 200);
            for index in 0..set.len() {
                columns.clear();
                set.read(index, TimeRange::ALL, &mut columns).expect("read");
                black_box(&columns);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
