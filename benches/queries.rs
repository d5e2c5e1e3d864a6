//! Queries over the store: what a step of a range function over many series costs, in time of the
//! processor, and how much memory it takes.

#![expect(clippy::unwrap_used, reason = "without its input there is nothing to measure")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
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

/// Time of the processor that the thread took, which others on the machine hardly change.
struct ProcessorTime;

fn processor_time() -> Duration {
    // Nobody helps this thread. What it took since the last tick of the system is missing.
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(told.split(' ').next().unwrap().parse().unwrap())
}

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        processor_time()
    }

    fn end(&self, start: Duration) -> Duration {
        processor_time().saturating_sub(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A number of kilobytes that the system tells of the process.
fn told(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// How many kilobytes `work` takes at most beyond what the process had before.
fn peak_kilobytes(work: impl FnOnce()) -> u64 {
    // The mark of the highest is set back.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = told("VmRSS:");
    work();
    told("VmHWM:").saturating_sub(before)
}

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

fn many_series(c: &mut Criterion<ProcessorTime>) {
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
    // The store's own pages are there by now, and both answers have a hundred series.
    for (series, hosts) in [(1_000, "host-[0-9]:9100"), (SERIES, ".*")] {
        let expr =
            format!("sum by (handler) (rate(http_requests_total{{instance=~\"{hosts}\"}}[5m]))");
        let query =
            RangeQuery { expr: &expr, start: START, end, step: Span::MINUTE, lookback: None };
        let peak = peak_kilobytes(|| drop(black_box(engine.range(&db, &query, &cancel).unwrap())));
        eprintln!("sum by (rate) over {series} series x {HOURS} h: {peak} KiB at most");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = many_series
}
criterion_main!(benches);
