//! Laws of the engine over generated queries and data, and its limits.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use stint_model::clock::SimClock;
use stint_model::histogram::{BucketSpan, FloatHistogram};
use stint_model::{Histogram, Labels, Sample, Span, Timestamp, Value};
use stint_promql::script::MemoryStore;
use stint_promql::{
    Answer, Cancel, Engine, EngineOptions, InstantQuery, QueryError, QueryValue, RangeQuery,
    Rewrites, SampleValue, parse,
};

const STEP: Span = Span(20_000);

fn cancel() -> Cancel {
    Cancel::new(Arc::new(SimClock::at(Timestamp(0))))
}

fn engine(delayed_name_removal: bool) -> Engine {
    Engine::new(EngineOptions {
        features: parse::Options::all(),
        lookback: Span(45_000),
        delayed_name_removal,
        ..EngineOptions::default()
    })
}

fn instant(
    engine: &Engine,
    store: &MemoryStore,
    expr: &str,
    at: i64,
) -> Result<Answer, QueryError> {
    engine.instant(store, &InstantQuery { expr, at: Timestamp(at), lookback: None }, &cancel())
}

fn range(
    engine: &Engine,
    store: &MemoryStore,
    expr: &str,
    (start, end): (i64, i64),
) -> Result<Answer, QueryError> {
    let (start, end) = (Timestamp(start), Timestamp(end));
    let query = RangeQuery { expr, start, end, step: STEP, lookback: None };
    engine.range(store, &query, &cancel())
}

/// A value in a form that compares bit by bit.
fn bits(value: &SampleValue) -> String {
    match value {
        // Which of its bits a NaN has is not defined.
        SampleValue::Float(value) if value.is_nan() => "NaN".to_owned(),
        SampleValue::Float(value) => format!("{:x}", value.to_bits()),
        SampleValue::Histogram(histogram) => format!("{histogram:?}"),
    }
}

/// Labels and value of everything an answer has at a time, sorted.
fn at(value: &QueryValue, time: i64) -> Vec<(String, String)> {
    let mut all = match value {
        QueryValue::Scalar { value, .. } => {
            vec![("{}".to_owned(), bits(&SampleValue::Float(*value)))]
        }
        QueryValue::String { value, .. } => vec![("{}".to_owned(), value.clone())],
        QueryValue::Vector(samples) => {
            samples.iter().map(|s| (s.labels.to_string(), bits(&s.value))).collect()
        }
        QueryValue::Matrix(series) => series
            .iter()
            .flat_map(|series| {
                let floats = series.floats.iter().map(|(t, v)| (*t, SampleValue::Float(*v)));
                let histograms =
                    series.histograms.iter().map(|(t, h)| (*t, SampleValue::Histogram(h.clone())));
                floats
                    .chain(histograms)
                    .filter(|(t, _)| t.0 == time)
                    .map(|(_, value)| (series.labels.to_string(), bits(&value)))
                    .collect::<Vec<_>>()
            })
            .collect(),
    };
    all.sort();
    all
}

/// One sample: nothing, a float, the stale marker, or a histogram.
fn sample() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        2 => Just(None),
        8 => (0_u32..200).prop_map(|n| Some(Value::Float(f64::from(n) / 8.0))),
        1 => Just(Some(Value::Float(f64::NAN))),
        1 => Just(Some(Value::Float(f64::INFINITY))),
        1 => Just(Some(Value::Stale)),
    ]
}

fn histogram_sample() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        4 => (proptest::collection::vec(0_u32..20, 1..5), -3_i32..3, 0_i32..3).prop_map(
            |(counts, offset, schema)| {
                let counts: Vec<f64> = counts.into_iter().map(f64::from).collect();
                Some(Value::Histogram(Arc::new(Histogram::Float(FloatHistogram {
                    schema,
                    count: counts.iter().sum(),
                    sum: 7.0,
                    positive_spans: vec![BucketSpan { offset, length: counts.len() as u32 }],
                    positive_buckets: counts,
                    ..FloatHistogram::default()
                }))))
            }
        ),
        1 => Just(Some(Value::Stale)),
    ]
}

fn store() -> impl Strategy<Value = MemoryStore> {
    let floats = proptest::collection::vec(proptest::collection::vec(sample(), 0..20), 6);
    let histograms =
        proptest::collection::vec(proptest::collection::vec(histogram_sample(), 0..20), 2);
    (floats, histograms).prop_map(|(floats, histograms)| {
        let mut store = MemoryStore::new();
        let names = ["a_total", "b", "h"];
        for (at, values) in floats.iter().chain(&histograms).enumerate() {
            let labels = Labels::from_pairs([
                ("__name__", if at < 6 { names[at % 2] } else { names[2] }),
                ("x", if at % 3 == 0 { "1" } else { "2" }),
                ("y", ["p", "q", "r"][at / 2 % 3]),
                ("le", if at < 6 { ["1", "2", "+Inf"][at / 2 % 3] } else { "" }),
            ]);
            for (index, value) in values.iter().enumerate() {
                let Some(value) = value.clone() else { continue };
                // Not aligned to the steps.
                let time = Timestamp(index as i64 * 15_000 + at as i64 * 1000);
                store.append(&labels, Sample { at: time, started: None, value });
            }
        }
        store
    })
}

fn selector() -> impl Strategy<Value = String> {
    let base = prop_oneof![
        Just("a_total"),
        Just("b"),
        Just("h"),
        Just("b{x=\"1\"}"),
        Just("{__name__=~\"a_total|b\"}"),
    ];
    let modifier = prop_oneof![
        6 => Just(""),
        1 => Just(" offset 30s"),
        1 => Just(" offset -15s"),
        1 => Just(" @ 120"),
    ];
    (base, modifier).prop_map(|(base, modifier)| format!("{base}{modifier}"))
}

fn window() -> impl Strategy<Value = String> {
    let base =
        prop_oneof![Just("a_total"), Just("b"), Just("h"), Just("{__name__=~\"a_total|b\"}")];
    let range = prop_oneof![
        Just("[1m]"),
        Just("[45s]"),
        Just("[2m:25s]"),
        Just("[1m] offset 20s"),
        Just("[90s] @ 200"),
        Just("[1m] anchored"),
        Just("[1m] smoothed"),
    ];
    (base, range).prop_map(|(base, range)| format!("{base}{range}"))
}

/// Any expression; a choice of `k` series stands only around the whole. An instant query sorts what `topk` chose by value,
/// so a choice around a choice may break a tie of equal values otherwise than a range query does, in Prometheus too.
fn expression() -> impl Strategy<Value = String> {
    let choice = prop_oneof![
        12 => Just(""),
        1 => Just("topk(2, "),
        1 => Just("bottomk by (x) (1, "),
        1 => Just("limitk(2, "),
    ];
    (choice, choiceless()).prop_map(|(choice, inner)| match choice {
        "" => inner,
        choice => format!("{choice}{inner})"),
    })
}

fn choiceless() -> impl Strategy<Value = String> {
    let over = prop_oneof![
        Just("rate"),
        Just("increase"),
        Just("delta"),
        Just("irate"),
        Just("idelta"),
        Just("sum_over_time"),
        Just("avg_over_time"),
        Just("max_over_time"),
        Just("min_over_time"),
        Just("count_over_time"),
        Just("last_over_time"),
        Just("first_over_time"),
        Just("changes"),
        Just("resets"),
        Just("deriv"),
        Just("stddev_over_time"),
        Just("stdvar_over_time"),
        Just("mad_over_time"),
        Just("absent_over_time"),
        Just("present_over_time"),
        Just("ts_of_max_over_time"),
    ];
    let leaf = prop_oneof![
        3 => selector(),
        4 => (over, window()).prop_map(|(function, window)| format!("{function}({window})")),
        1 => Just("vector(time())".to_owned()),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        let map = prop_oneof![
            Just("abs"),
            Just("-"),
            Just("sgn"),
            Just("absent"),
            Just("timestamp"),
            Just("minute"),
            Just("histogram_count"),
            Just("histogram_quantile(0.9, "),
            Just("clamp_max(2, "),
        ];
        let fold = prop_oneof![
            Just("sum"),
            Just("avg by (x)"),
            Just("max without (y)"),
            Just("count"),
            Just("stddev by (y)"),
            Just("quantile(0.3, "),
            Just("count_values(\"v\", "),
            Just("group by (x, y)"),
            Just("limit_ratio(0.5, "),
            Just("min by (__name__)"),
        ];
        let op = prop_oneof![
            Just("+"),
            Just("- on (x, y)"),
            Just("* ignoring (le)"),
            Just("> bool"),
            Just("<"),
            Just("and"),
            Just("or"),
            Just("unless on (x)"),
            Just("== on (x) group_left ()"),
            Just("/ on (y) group_right (x)"),
            Just("+ fill(3)"),
            Just("% on (x, y) fill_left(1)"),
        ];
        prop_oneof![
            (map, inner.clone()).prop_map(|(function, inner)| match function {
                "clamp_max(2, " => format!("clamp_max({inner}, 2)"),
                open if open.ends_with(' ') => format!("{open}{inner})"),
                function => format!("{function}({inner})"),
            }),
            (fold, inner.clone()).prop_map(|(fold, inner)| {
                if fold.ends_with(' ') {
                    format!("{fold}{inner})")
                } else {
                    format!("{fold} ({inner})")
                }
            }),
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            inner.clone().prop_map(|inner| format!("({inner}) * 2 > scalar(b{{x=\"1\"}})")),
            inner.prop_map(|inner| format!("max_over_time(({inner})[1m:20s])")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_range_is_its_instants(
        store in store(),
        expr in expression(),
        start in -40_000_i64..200_000,
        delayed in any::<bool>(),
    ) {
        let engine = engine(delayed);
        let Ok(answer) = range(&engine, &store, &expr, (start, start + 5 * STEP.0)) else {
            return Ok(());
        };
        for step in 0..=5 {
            let time = start + step * STEP.0;
            let single = instant(&engine, &store, &expr, time);
            let single = single.map_err(|error| {
                TestCaseError::fail(format!("{expr} at {time}: {error}"))
            })?;
            prop_assert_eq!(at(&answer.value, time), at(&single.value, time), "{} at {}", expr, time);
        }
    }

    #[test]
    fn shortcuts_change_nothing(
        store in store(),
        expr in expression(),
        start in -40_000_i64..200_000,
        delayed in any::<bool>(),
    ) {
        let quick = engine(delayed);
        let plain = Engine::new(EngineOptions { rewrites: Rewrites::NONE, ..quick.options().clone() });
        let all = (start, start + 11 * STEP.0);
        match (range(&quick, &store, &expr, all), range(&plain, &store, &expr, all)) {
            (Ok(quick), Ok(plain)) => {
                prop_assert_eq!(&quick.annotations, &plain.annotations, "{}", expr);
                for step in 0..12 {
                    let time = start + step * STEP.0;
                    prop_assert_eq!(at(&quick.value, time), at(&plain.value, time), "{}", expr);
                }
            }
            (quick, plain) => {
                let (quick, plain) = (quick.map(|_| ()), plain.map(|_| ()));
                prop_assert_eq!(quick, plain, "{}", expr);
            }
        }
    }

    #[test]
    fn an_instant_is_a_range_of_one(store in store(), expr in expression(), time in 0_i64..300_000) {
        let engine = engine(true);
        let single = instant(&engine, &store, &expr, time);
        let range = range(&engine, &store, &expr, (time, time));
        match (single, range) {
            (Ok(single), Ok(range)) => {
                prop_assert_eq!(at(&single.value, time), at(&range.value, time), "{}", expr);
                prop_assert_eq!(single.annotations, range.annotations, "{}", expr);
            }
            (single, range) => prop_assert_eq!(single.is_err(), range.is_err(), "{}", expr),
        }
    }
}

fn small_store() -> MemoryStore {
    let mut store = MemoryStore::new();
    for series in 0..20 {
        let labels = Labels::from_pairs([("__name__", "m_total"), ("s", &series.to_string())]);
        for at in 0..100 {
            store.append(&labels, Sample::float(Timestamp(at * 1000), at as f64));
        }
    }
    store
}

#[test]
fn too_many_samples_are_refused() {
    let options = EngineOptions { samples_max: 300, ..EngineOptions::default() };
    let engine = Engine::new(options);
    let store = small_store();
    let refused = range(&engine, &store, "m_total", (0, 2_000_000));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "query processing would load too many samples into memory in query execution"
    );
    // A sum holds one column at a time.
    assert!(range(&engine, &store, "sum(rate(m_total[30s]))", (0, 2_000_000)).is_ok());
}

#[test]
fn a_cancelled_query_stops() {
    let engine = Engine::new(EngineOptions::default());
    let canceled = cancel();
    canceled.cancel();
    let query = InstantQuery { expr: "m_total", at: Timestamp(1000), lookback: None };
    let error = engine.instant(&small_store(), &query, &canceled).unwrap_err();
    assert_eq!(error.to_string(), "query was canceled in expression evaluation");
}

#[test]
fn a_query_out_of_time_stops() {
    let options = EngineOptions { timeout: Duration::ZERO, ..EngineOptions::default() };
    let query = InstantQuery { expr: "m_total", at: Timestamp(1000), lookback: None };
    let error = Engine::new(options).instant(&small_store(), &query, &cancel()).unwrap_err();
    assert_eq!(error.to_string(), "query timed out in expression evaluation");
}

#[test]
fn extreme_times_and_steps_have_an_answer() {
    let engine = engine(false);
    let store = small_store();
    for expr in [
        "rate(m_total[1m])",
        "m_total offset 1y",
        "sum_over_time(m_total[1d:1h])",
        "predict_linear(m_total[1m] @ 50, 9)",
    ] {
        for time in [i64::MIN, -1, 0, i64::MAX] {
            instant(&engine, &store, expr, time).unwrap();
        }
    }
    let query = RangeQuery {
        expr: "m_total",
        start: Timestamp(i64::MIN),
        end: Timestamp(i64::MAX),
        step: Span(1),
        lookback: None,
    };
    assert!(engine.range(&store, &query, &cancel()).is_err());
}

#[test]
fn the_deepest_trees_fit_on_a_small_stack() {
    let run = || {
        let engine = engine(false);
        let store = small_store();
        let chain = |op: &str| vec!["m_total{s=\"1\"}"; 990].join(op);
        let deep = |open: &str| format!("{}m_total{}", open.repeat(190), ")".repeat(190));
        let subqueries =
            format!("{}m_total{}", "max_over_time(".repeat(150), "[1m:1m])".repeat(150));
        for expr in [
            chain(" or "),
            chain(" + "),
            chain(" and "),
            deep("abs("),
            "-abs(".repeat(95) + "m_total" + &")".repeat(95),
            deep("sum("),
            subqueries,
        ] {
            instant(&engine, &store, &expr, 50_000).unwrap();
            range(&engine, &store, &expr, (50_000, 90_000)).unwrap();
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}
