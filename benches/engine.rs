//! The store and the engine together: appending samples of known series, and range queries over them.

#![expect(clippy::unwrap_used, reason = "without its input there is nothing to measure")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stint_model::clock::SystemClock;
use stint_model::{Appender, Batch, Labels, Sample, SeriesRef, Span, Timestamp};
use stint_promql::{Cancel, Engine, EngineOptions, RangeQuery};
use stint_storage::{Db, Options, OsDisk};

const SERIES: usize = 1000;
const INTERVAL: Span = Span(15_000);
const START: Timestamp = Timestamp(1_700_000_000_000);

/// A folder that goes when the bench ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("stint-{name}-{}", std::process::id()));
        Self(path)
    }

    fn open(&self) -> Db {
        let disk = OsDisk::new(&self.0).unwrap();
        Db::open(Arc::new(disk), Options::default()).unwrap().0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn labels(number: usize) -> Labels {
    let instance = format!("host-{}:9100", number % 20);
    let handler = format!("/api/{}", number / 20);
    Labels::from_pairs([
        ("__name__", "http_requests_total"),
        ("handler", &handler),
        ("instance", &instance),
        ("job", "api"),
    ])
}

/// Appends one scrape of all series and answers with their handles.
fn first_scrape(db: &Db) -> Vec<SeriesRef> {
    let mut batch = Batch::default();
    for number in 0..SERIES {
        batch.push(labels(number), Sample::float(START, 0.0));
    }
    db.append(&batch).unwrap().refs.into_iter().map(Option::unwrap).collect()
}

fn scrape(db: &Db, refs: &[SeriesRef], batch: &mut Batch, round: i64) {
    batch.clear();
    let at = Timestamp(START.0 + round * INTERVAL.0);
    for (number, series) in refs.iter().enumerate() {
        let value = (round * (number as i64 % 7)) as f64;
        batch.push_known(*series, Sample::float(at, value));
    }
    assert!(db.append(batch).unwrap().rejected.is_empty());
}

fn append(c: &mut Criterion) {
    let folder = Folder::new("bench-append");
    let db = folder.open();
    let refs = first_scrape(&db);
    let mut batch = Batch::default();
    let mut round = 0;
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(SERIES as u64));
    group.bench_function("known_series", |b| {
        b.iter(|| {
            round += 1;
            scrape(&db, &refs, &mut batch, round);
        });
    });
    group.finish();
}

fn range_query(c: &mut Criterion) {
    let folder = Folder::new("bench-query");
    let db = folder.open();
    let refs = first_scrape(&db);
    let mut batch = Batch::default();
    let rounds = 6 * Span::HOUR.0 / INTERVAL.0;
    for round in 1..=rounds {
        scrape(&db, &refs, &mut batch, round);
    }
    let engine = Engine::new(EngineOptions::default());
    let cancel = Cancel::new(Arc::new(SystemClock::new()));
    let end = Timestamp(START.0 + rounds * INTERVAL.0);
    let mut group = c.benchmark_group("range_query_6h");
    for (name, expr) in [
        ("select", "http_requests_total{handler=\"/api/1\"}"),
        ("rate", "rate(http_requests_total[5m])"),
        ("sum_by_rate", "sum by (instance) (rate(http_requests_total[5m]))"),
    ] {
        let query = RangeQuery { expr, start: START, end, step: Span::MINUTE, lookback: None };
        group.bench_function(name, |b| {
            b.iter(|| black_box(engine.range(&db, &query, &cancel).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, append, range_query);
criterion_main!(benches);
