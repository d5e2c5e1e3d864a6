//! What a query holds is bounded, however few the samples are that it reads.

use std::sync::Arc;

use stint_model::clock::SystemClock;
use stint_model::{Labels, Sample, Span, Timestamp};
use stint_promql::script::MemoryStore;
use stint_promql::{Answer, Cancel, Engine, EngineOptions, InstantQuery, QueryError, RangeQuery};

const START: i64 = 1_700_000_000_000;

fn store(series: usize, samples: i64) -> MemoryStore {
    let mut store = MemoryStore::new();
    for n in 0..series {
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("n", n.to_string())]);
        for t in 0..samples {
            let value = (t * 7919 + n as i64) as f64;
            store.append(&labels, Sample::float(Timestamp(START + t * 15_000), value));
        }
    }
    store
}

fn engine(samples_max: usize) -> Engine {
    Engine::new(EngineOptions { samples_max, ..EngineOptions::default() })
}

fn cancel() -> Cancel {
    Cancel::new(Arc::new(SystemClock::default()))
}

fn instant(store: &MemoryStore, samples_max: usize, expr: &str) -> Result<Answer, QueryError> {
    let at = Timestamp(START + 60_000);
    engine(samples_max).instant(store, &InstantQuery { expr, at, lookback: None }, &cancel())
}

fn range(store: &MemoryStore, samples_max: usize, expr: &str) -> Result<Answer, QueryError> {
    let query = RangeQuery {
        expr,
        start: Timestamp(START),
        end: Timestamp(START + 1999 * 15_000),
        step: Span(15_000),
        lookback: None,
    };
    engine(samples_max).range(store, &query, &cancel())
}

fn is_too_many(answer: &Result<Answer, QueryError>) -> bool {
    matches!(answer, Err(QueryError::TooManySamples(_)))
}

#[test]
fn a_value_that_is_new_at_each_step_is_charged_as_a_series() {
    let store = store(1, 2000);
    let few = range(&store, 100_000, "count_values(\"v\", m)");
    assert!(is_too_many(&few), "{few:?}");
    assert!(range(&store, 3_000_000, "count_values(\"v\", m)").is_ok());
}

#[test]
fn long_columns_of_few_points_are_charged_by_their_length() {
    let store = store(100, 1);
    let query = "max_over_time((m + on (n) m)[1d:1s])";
    let few = instant(&store, 1_000_000, query);
    assert!(is_too_many(&few), "{few:?}");
    assert!(instant(&store, 10_000_000, query).is_ok());
}

#[test]
fn a_remark_at_each_step_is_kept_for_so_many_steps() {
    let store = store(2, 2);
    let answer = instant(&store, 50_000_000, "max_over_time(quantile(time(), m)[1h:1s])").unwrap();
    assert_eq!(answer.annotations.warnings.len(), 1000);
}

#[test]
fn a_sum_over_many_series_holds_no_more_than_over_few() {
    let peak = |series: usize| {
        let store = store(series, 100);
        let answer = range(&store, 50_000_000, "sum(rate(m[5m]))").unwrap();
        answer.stats.samples_peak
    };
    assert_eq!(peak(2), peak(200));
}
