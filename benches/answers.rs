//! Results of range queries as they are sent, in JSON.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stint::api::result::push_open_data;
use stint_model::{Labels, Timestamp};
use stint_promql::{QueryValue, RangeSeries};

const SERIES: usize = 100;
const STEPS: i64 = 240;

/// The value of a number.
type Kind = fn(i64) -> f64;

/// A hundred series with values of `kind`.
fn result(kind: Kind) -> QueryValue {
    let series = (0..SERIES).map(|number| {
        let labels = Labels::from_pairs([
            ("__name__", "http_requests_total"),
            ("instance", &format!("host-{number:05}.example.net:9100")),
            ("job", "api"),
        ]);
        let floats = (0..STEPS).map(|step| {
            let at = Timestamp(1_700_000_000_000 + step * 15_000);
            (at, kind(step * 977 + number as i64 * 31))
        });
        RangeSeries { labels, floats: floats.collect(), histograms: Vec::new() }
    });
    QueryValue::Matrix(series.collect())
}

/// Spreads numbers over all of their bits.
fn mix(number: i64) -> u64 {
    (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn answers(c: &mut Criterion) {
    let kinds: [(&str, Kind); 4] = [
        ("rates", |number| (mix(number) >> 11) as f64 / (1_u64 << 50) as f64),
        ("cents", |number| (mix(number) >> 50) as f64 / 100.0),
        ("counts", |number| (mix(number) >> 40) as f64),
        ("constant", |_| 1.0),
    ];
    for (name, kind) in kinds {
        let value = result(kind);
        let mut body = Vec::new();
        push_open_data(&mut body, &value);
        let mut group = c.benchmark_group(format!("answer_{name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut out = Vec::with_capacity(body.len());
        group.bench_function("json", |b| {
            b.iter(|| {
                out.clear();
                push_open_data(&mut out, black_box(&value));
            });
        });
        group.finish();
    }
}

criterion_group!(benches, answers);
criterion_main!(benches);
