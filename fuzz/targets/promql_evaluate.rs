//! Any query over any few samples has an answer or an error, with the shortcuts of the engine and
//! without.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use stint_model::clock::SystemClock;
use stint_model::{Labels, Sample, Span, Timestamp, Value};
use stint_promql::script::MemoryStore;
use stint_promql::{Cancel, Engine, EngineOptions, InstantQuery, RangeQuery, Rewrites, parse};

fn engine(rewrites: Rewrites) -> Engine {
    Engine::new(EngineOptions {
        features: parse::Options { max_length: 500, ..parse::Options::all() },
        samples_max: 20_000,
        timeout: Duration::from_secs(5),
        rewrites,
        ..EngineOptions::default()
    })
}

static QUICK: LazyLock<Engine> = LazyLock::new(|| engine(Rewrites::ALL));
static PLAIN: LazyLock<Engine> = LazyLock::new(|| engine(Rewrites::NONE));

/// Three series of `a_total` and `b`, a sample for each byte: a float, none, or a stale marker.
fn store(bytes: &[u8]) -> MemoryStore {
    let mut store = MemoryStore::new();
    for (at, byte) in bytes.iter().enumerate() {
        let labels = Labels::from_pairs([
            ("__name__", ["a_total", "b", "a_total"][at % 3]),
            ("x", ["1", "1", "2"][at % 3]),
            ("le", ["1", "+Inf", "+Inf"][at % 3]),
        ]);
        let value = match byte {
            0..4 => continue,
            4..8 => Value::Stale,
            8..12 => Value::Float(f64::NAN),
            12..16 => Value::Float(f64::INFINITY),
            _ => Value::Float(f64::from(*byte) / 4.0 - 8.0),
        };
        let at = Timestamp(at as i64 / 3 * 15_000 + at as i64 % 3);
        store.append(&labels, Sample { at, started: None, value });
    }
    store
}

fuzz_target!(|input: (Vec<u8>, i16, &str)| {
    let (samples, time, expr) = input;
    let store = store(samples.get(..samples.len().min(60)).unwrap_or_default());
    let cancel = Cancel::new(Arc::new(SystemClock::new()));
    let start = Timestamp(i64::from(time) * 1000);
    let end = Timestamp(start.0 + 150_000);
    let range = RangeQuery { expr, start, end, step: Span(30_000), lookback: None };
    let quick = QUICK.range(&store, &range, &cancel);
    let plain = PLAIN.range(&store, &range, &cancel);
    // Which error comes first, and how much is held, is all in which they may differ.
    let is_limit = |text: String| text.contains("too many samples") || text.contains("timed out");
    match (quick, plain) {
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => {
            assert!(is_limit(error.to_string()), "{expr}: {error}");
        }
        _ => {}
    }
    let instant = InstantQuery { expr, at: start, lookback: None };
    drop(QUICK.instant(&store, &instant, &cancel));
});
