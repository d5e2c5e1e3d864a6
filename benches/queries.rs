//! Queries over the store: what a step of a range function over many series costs.

#![expect(clippy::unwrap_used, reason = "without its input there is nothing to measure")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stint_model::clock::SystemClock;
use stint_model::{Appender, Batch, Labels, Sample, Span, Timestamp};
use stint_promql::{Cancel, Engine, EngineOptions, RangeQuery};
use stint_storage::{Db, Options, OsDisk};

const SERIES: usize = 10_000;
const INTERVAL: Span = Span(15_000);
const HOURS: i64 = 6;
const START: Timestamp = Timestamp(1_700_000_000_000);
/// Steps of a query over all of it.
const STEPS: u64 = (HOURS * 60) as u64 + 1;

/// A folder that goes when the bench ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A hundred targets, each scraped at its own offset, with a hundred counters each.
fn fill(db: &Db) {
    let mut batch = Batch::default();
    let labels = |number: usize| {
        Labels::from_pairs([
            ("__name__", "http_requests_total"),
            ("handler", &format!("/api/{}", number % 100)),
            ("instance", &format!("host-{}:9100", number / 100)),
            ("job", "api"),
        ])
    };
    let offset = |number: usize| number as i64 / 100 * 97;
    for number in 0..SERIES {
        let at = Timestamp(START.0 + offset(number));
        batch.push(labels(number), Sample::float(at, 0.0));
    }
    let refs: Vec<_> = db.append(&batch).unwrap().refs.into_iter().map(Option::unwrap).collect();
    for round in 1..=HOURS * Span::HOUR.0 / INTERVAL.0 {
        batch.clear();
        for (number, series) in refs.iter().enumerate() {
            let at = Timestamp(START.0 + round * INTERVAL.0 + offset(number));
            batch.push_known(*series, Sample::float(at, (round * (number as i64 % 7)) as f64));
        }
        assert!(db.append(&batch).unwrap().rejected.is_empty());
    }
}

fn many_series(c: &mut Criterion) {
    let folder = Folder(std::env::temp_dir().join(format!("stint-queries-{}", std::process::id())));
    let disk = OsDisk::new(&folder.0).unwrap();
    let db = Db::open(Arc::new(disk), Options::default()).unwrap().0;
    fill(&db);
    let engine = Engine::new(EngineOptions::default());
    let cancel = Cancel::new(Arc::new(SystemClock::new()));
    let end = Timestamp(START.0 + HOURS * Span::HOUR.0);
    let mut group = c.benchmark_group("10000_series_6h");
    group.sample_size(10);
    // Elements are output windows.
    group.throughput(Throughput::Elements(SERIES as u64 * STEPS));
    for (name, expr) in [
        ("sum_by_rate", "sum by (instance) (rate(http_requests_total[5m]))"),
        ("sum_rate", "sum(rate(http_requests_total[5m]))"),
        ("max", "max(http_requests_total)"),
        ("avg_over_time", "max(avg_over_time(http_requests_total[5m]))"),
    ] {
        let query = RangeQuery { expr, start: START, end, step: Span::MINUTE, lookback: None };
        group.bench_function(name, |b| {
            b.iter(|| black_box(engine.range(&db, &query, &cancel).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, many_series);
criterion_main!(benches);
