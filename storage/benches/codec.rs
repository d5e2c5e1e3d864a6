//! What a sample costs: bytes at rest, time to encode and to decode, time to select.
//!
//! `cargo bench -p stint-storage --bench codec`. With `STINT_CORPUS` naming an unpacked recording
//! (layout in `codec/corpus.rs`), the block benchmarks run on it and print its bytes per sample.

#[path = "codec/corpus.rs"]
mod corpus;

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stint_model::{Columns, Labels, MatchOp, Matcher, Selector, TimeRange, Timestamp};
use stint_storage::block::{Block, BlockId, BlockMeta, BlockWriter};
use stint_storage::codec::chunk::{self, Rows};
use stint_storage::index::writer::ChunkList;
use stint_storage::index::{Index, IndexBuilder, select, series_order};
use stint_storage::{Mapped, SimDisk};

const ROWS: usize = 480;

/// Times of scrapes every 15 s, up to 3 ms off.
fn times() -> Vec<Timestamp> {
    let off = |row: i64| row * 7919 % 7 - 3;
    (0..ROWS as i64).map(|row| Timestamp(1_700_000_000_000 + row * 15_000 + off(row))).collect()
}

fn shapes() -> Vec<(&'static str, Vec<f64>)> {
    let mut state = 1_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let mut total = 0_u64;
    let mut seconds = 0.0;
    vec![
        ("constant", vec![42.0; ROWS]),
        ("counter", {
            let mut next = || {
                total += random() % 100;
                total as f64
            };
            (0..ROWS).map(|_| next()).collect()
        }),
        (
            "gauge",
            (0..ROWS).map(|row| (1 << 20) as f64 + (row * row % 97) as f64 * 4096.0).collect(),
        ),
        ("decimal", (0..ROWS).map(|row| (row * row % 89) as f64 / 100.0).collect()),
        ("seconds", {
            let mut next = |row: usize| {
                seconds += (row * 7919 % 1000) as f64 * 1e-6;
                seconds
            };
            (0..ROWS).map(&mut next).collect()
        }),
    ]
}

fn chunks(c: &mut Criterion) {
    let times = times();
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, values) in shapes() {
        let rows = Rows::floats(&times, &values);
        let bytes = chunk::encode(&rows);
        eprintln!(
            "{name}: {:.3} bytes per sample, times included",
            bytes.len() as f64 / ROWS as f64
        );
        group.bench_function(format!("encode/{name}"), |b| {
            b.iter(|| chunk::encode(black_box(&rows)));
        });
        let mut columns = Columns::default();
        group.bench_function(format!("decode/{name}"), |b| {
            b.iter(|| {
                columns.clear();
                chunk::decode(black_box(&bytes), &mut columns)
            });
        });
    }
    group.finish();
}

/// Writes `series` as one block and opens it.
fn block_of(series: &[(Labels, Columns)]) -> Block {
    let disk = SimDisk::new();
    let dir = Path::new("blocks");
    let meta = BlockMeta::new(BlockId(1), TimeRange::ALL);
    let mut writer = BlockWriter::new(&disk, dir, meta).expect("a simulated disk takes all");
    for (labels, columns) in series {
        writer.add_series(labels, columns).expect("series are in order");
    }
    let meta = writer.finish().expect("a simulated disk takes all");
    Block::open(&disk, &meta.dir(dir)).expect("the block was just written")
}

/// The shapes above, as 2,000 series of one target.
fn made_up() -> Vec<(Labels, Columns)> {
    let times = times();
    let mut series = Vec::new();
    for number in 0..2000 {
        // Two thirds of monitoring values never change.
        let shapes = shapes();
        let shape = if number % 3 == 0 { number % shapes.len() } else { 0 };
        let values = shapes[shape].1.clone();
        let labels = Labels::from_pairs([
            ("__name__", format!("metric_{}", number / 10)),
            ("job", "job".to_owned()),
            ("instance", "host:9100".to_owned()),
            ("code", format!("{}", number % 10)),
        ]);
        series.push((labels, Columns { times: times.clone(), values, ..Columns::default() }));
    }
    series.sort_by(|a, b| series_order(&a.0, &b.0));
    series
}

fn blocks(c: &mut Criterion) {
    let series = match std::env::var_os("STINT_CORPUS") {
        Some(path) => corpus::read(Path::new(&path), ROWS),
        None => made_up(),
    };
    let block = block_of(&series);
    let meta = block.meta();
    let per_sample = |bytes: u64| bytes as f64 / meta.samples as f64;
    eprintln!(
        "block: {} series, {} samples, {} columns; bytes per sample: {:.3} chunks + {:.3} index \
         = {:.3}",
        meta.series,
        meta.samples,
        meta.columns,
        per_sample(meta.chunks_bytes),
        per_sample(meta.index_bytes),
        per_sample(block.size_bytes()),
    );
    let mut group = c.benchmark_group("block");
    group.sample_size(10);
    group.throughput(Throughput::Elements(meta.samples));
    group.bench_function("write", |b| b.iter(|| block_of(&series)));
    let mut columns = Columns::default();
    group.bench_function("read", |b| {
        b.iter(|| {
            for number in 0..block.series_len() {
                columns.clear();
                block.read(number, TimeRange::ALL, &mut columns).expect("nothing is damaged");
            }
        });
    });
    group.throughput(Throughput::Elements(meta.series));
    group.bench_function("labels", |b| {
        b.iter(|| (0..block.series_len()).all(|number| block.labels(number).is_ok()));
    });
    group.finish();
}

/// An index of a million series: 1,000 metrics of 1,000 pods.
fn million() -> Index {
    let mut builder = IndexBuilder::default();
    let mut series = Vec::with_capacity(1_000_000);
    for metric in 0..1000 {
        for pod in 0..1000 {
            series.push(Labels::from_pairs([
                ("__name__", format!("metric_{metric:03}")),
                ("job", format!("job-{}", pod % 10)),
                ("instance", format!("10.0.{}.{}:80", pod / 250, pod % 250)),
                ("pod", format!("pod-{pod:03}-{:05}", pod * 7919 % 100_003)),
                ("id", format!("{:06x}", metric * 1000 + pod)),
            ]));
        }
    }
    series.sort_by(series_order);
    for labels in &series {
        builder.add(labels, ChunkList { start: 0, bytes: &[] });
    }
    let bytes = builder.finish(&[], 0).expect("below 4 GiB");
    eprintln!("index of 1 M series: {:.1} bytes per series", bytes.len() as f64 / 1e6);
    Index::open(Mapped::new(bytes), "index").expect("the index was just written")
}

fn selectors(c: &mut Criterion) {
    let index = million();
    let mut group = c.benchmark_group("select");
    group.sample_size(10);
    let metric = Matcher::equal("__name__", "metric_500");
    let regex = |name: &str, pattern: &str| {
        Matcher::new(MatchOp::Regex, name, pattern).expect("a valid expression")
    };
    let cases = [
        ("metric", vec![metric.clone()]),
        ("metric and job", vec![metric.clone(), Matcher::equal("job", "job-3")]),
        ("job", vec![Matcher::equal("job", "job-3")]),
        ("id", vec![Matcher::equal("id", "0a1b2c")]),
        ("metric and regex of pods", vec![metric.clone(), regex("pod", "pod-.*-0.*")]),
        ("metric and regex of ids", vec![metric, regex("id", ".*7.?")]),
        ("regex of metrics", vec![regex("__name__", "metric_(1|2).*5")]),
        ("regex of pods", vec![regex("pod", ".*-00.*")]),
        ("regex of a million ids", vec![regex("id", ".*abc")]),
        ("regex of most ids", vec![regex("id", "[0-9a-f]+[0-7]")]),
    ];
    for (name, matchers) in cases {
        let selector = Selector::new(matchers);
        let found = select::select(&index, &selector).map_or(0, |found| found.len());
        group.bench_function(format!("{name} ({found})"), |b| {
            b.iter(|| select::select(&index, black_box(&selector)));
        });
    }
    group.finish();
}

criterion_group!(benches, chunks, blocks, selectors);
criterion_main!(benches);
