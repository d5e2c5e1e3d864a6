//! Laws of the engine over generated queries and data, and its limits.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use stint_model::clock::SimClock;
use stint_model::{
    Columns, Hints, Labels, Querier, Queryable, Sample, Selector, SeriesSet, Span, TimeRange,
    Timestamp, Value,
};
use stint_promql::script::MemoryStore;
use stint_promql::{
    Answer, Cancel, Engine, EngineOptions, InstantQuery, QueryError, QueryValue, RangeQuery,
    Rewrites, SampleValue, Workers, parse,
};

mod generate;
mod naive;
mod naive_windows;

use generate::{choiceless, data, expression};
use naive::{Element, Naive, Refusal};

/// Series with their samples in order of time.
type Data = Vec<(Labels, Vec<Sample>)>;

const STEP: Span = Span(20_000);
const LOOKBACK: Span = Span(45_000);

/// How many of each: 400, or as many as `STINT_LAW_CASES` says.
fn cases() -> u32 {
    let wanted = std::env::var("STINT_LAW_CASES").ok();
    wanted.map_or(400, |wanted| wanted.parse().expect("STINT_LAW_CASES is a number"))
}

fn store(data: &Data) -> MemoryStore {
    let mut store = MemoryStore::new();
    for (labels, samples) in data {
        for sample in samples {
            store.append(labels, sample.clone());
        }
    }
    store
}

fn cancel() -> Cancel {
    Cancel::new(Arc::new(SimClock::at(Timestamp(0))))
}

fn engine(delayed_name_removal: bool) -> Engine {
    Engine::new(EngineOptions {
        features: parse::Options::all(),
        lookback: LOOKBACK,
        delayed_name_removal,
        ..EngineOptions::default()
    })
}

/// The shortcuts whose bits are set.
fn some(bits: u16) -> Rewrites {
    let has = |bit: u32| bits >> bit & 1 == 1;
    Rewrites {
        columnar_windows: has(0),
        unseen_names: has(1),
        group_keys: has(2),
        any_order: has(3),
        common_parts: has(4),
        pushed_matchers: has(5),
        column_joins: has(6),
        column_folds: has(7),
        step_invariant: has(8),
        workers: has(9),
    }
}

/// Starts threads for whatever is asked.
#[derive(Debug)]
struct Threads(usize);

impl Workers for Threads {
    fn beside(&self, help: &(dyn Fn() + Sync), own: &mut dyn FnMut()) {
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(help);
            }
            own();
        });
    }

    fn is_worthwhile(&self, _: usize) -> bool {
        true
    }
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

#[test]
fn what_matches_nothing_on_the_other_side_is_not_read() {
    let series = |name: &str, x: &str, y: &str| {
        let labels = Labels::from_pairs([("__name__", name), ("x", x), ("y", y)]);
        (labels, vec![Sample::float(Timestamp(1), 2.0)])
    };
    let mut data: Data = ["1", "2", "3"].map(|x| series("a", x, "p")).into();
    data.extend(["1", "2", "3"].map(|x| series("b", x, "p")));
    data.push(series("b", "1", "q"));
    let store = store(&data);
    let read = |expr: &str, rewrites: Rewrites| {
        let engine = Engine::new(EngineOptions { rewrites, ..EngineOptions::default() });
        instant(&engine, &store, expr, 1).map(|answer| answer.stats.samples_read)
    };
    let kept = Rewrites { pushed_matchers: false, ..Rewrites::ALL };
    for (expr, all, few) in [
        ("a{x=\"1\"} / b", 5, 3),
        ("a * on (x) b{x=\"2\"}", 4, 2),
        ("b unless on (x) a{x=\"1\"}", 5, 5),
        ("a{x=\"3\"} unless on (x) b", 5, 2),
        ("b and on (x) a{x=\"2\"}", 5, 2),
    ] {
        assert_eq!((read(expr, kept), read(expr, Rewrites::ALL)), (Ok(all), Ok(few)), "{expr}");
    }
    // Two series of the one side stay an error where nothing of the other side meets them.
    let expr = "(a > 5 or a{x=\"2\"}) * on (x) b{x=\"1\"}";
    assert!(read(expr, kept).is_err());
    let expr = "a{x!=\"1\"} * on (x) b{x=\"1\"}";
    assert_eq!(read(expr, Rewrites::ALL), read(expr, kept));
    assert!(read(expr, kept).is_err());
}

#[test]
fn the_order_of_groups_shows_in_no_digit_of_a_deviation() {
    let one = |labels: [(&str, &str); 4], value| {
        (Labels::from_pairs(labels), vec![Sample::float(Timestamp(1), value)])
    };
    let data = vec![
        one([("__name__", "a_total"), ("le", "1"), ("x", "1"), ("y", "p")], 13.625),
        one([("__name__", "a_total"), ("le", "2"), ("x", "2"), ("y", "q")], 4.625),
        one([("__name__", "b"), ("le", "2"), ("x", "1"), ("y", "q")], 11.125),
    ];
    let (quick, store) = (engine(false), store(&data));
    let plain = Engine::new(EngineOptions { rewrites: Rewrites::NONE, ..quick.options().clone() });
    let expr = "stddev(max without (y) ({__name__=~\"a_total|b\"}))";
    let answers = [quick, plain].map(|engine| {
        let answer = instant(&engine, &store, expr, 1).unwrap();
        at(&answer.value, 1)
    });
    assert_eq!(answers[0], answers[1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_range_is_its_instants(
        data in data(),
        expr in expression(),
        start in -40_000_i64..200_000,
        delayed in any::<bool>(),
    ) {
        let (engine, store) = (engine(delayed), store(&data));
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
    fn the_engine_agrees_with_a_plain_evaluator(
        data in data(),
        expr in choiceless(),
        start in -40_000_i64..200_000,
    ) {
        // Deviations and what is extrapolated differ in their last digits, which this makes labels of.
        let differ = ["std", "rate", "increase", "delta", "deriv"];
        let differs = differ.iter().any(|function| expr.contains(function));
        prop_assume!(!(expr.contains("count_values") && differs));
        let (engine, store) = (engine(false), store(&data));
        let end = start + 4 * STEP.0;
        if let Some(plain) = plain_answers(&data, &expr, (start, end, STEP.0)) {
            let answer = range(&engine, &store, &expr, (start, end));
            let plain: Result<Vec<_>, _> = plain.into_iter().collect();
            prop_assert_eq!(answer.is_err(), plain.is_err(), "{}: {:?}", expr, answer.err());
            for (step, expected) in plain.unwrap_or_default().iter().enumerate() {
                let time = start + step as i64 * STEP.0;
                let got = elements(&answer.as_ref().unwrap().value, time);
                prop_assert!(same(&got, expected), "{expr} at {time}: {got:?}, not {expected:?}");
            }
        }
        if let Some(plain) = plain_answers(&data, &expr, (start, start, 0)) {
            let answer = instant(&engine, &store, &expr, start);
            match (answer, plain.into_iter().next().unwrap()) {
                (Ok(answer), Ok(expected)) => {
                    let got = elements(&answer.value, start);
                    prop_assert!(same(&got, &expected), "{expr}: {got:?}, not {expected:?}");
                }
                (answer, expected) => {
                    prop_assert_eq!(answer.is_err(), expected.is_err(), "{}", expr);
                }
            }
        }
    }

    #[test]
    fn shortcuts_change_nothing(
        data in data(),
        expr in expression(),
        start in -40_000_i64..200_000,
        delayed in any::<bool>(),
        rewrites in prop_oneof![Just(Rewrites::ALL), any::<u16>().prop_map(some)],
    ) {
        let (plain, store) = (engine(delayed), store(&data));
        let with = |rewrites| Engine::new(EngineOptions { rewrites, ..plain.options().clone() });
        let (quick, plain) = (with(rewrites), with(Rewrites::NONE));
        let all = (start, start + 11 * STEP.0);
        match (range(&quick, &store, &expr, all), range(&plain, &store, &expr, all)) {
            (Ok(quick), Ok(plain)) => {
                prop_assert_eq!(&quick.annotations, &plain.annotations, "{} with {:?}", expr, rewrites);
                for step in 0..12 {
                    let time = start + step * STEP.0;
                    prop_assert_eq!(at(&quick.value, time), at(&plain.value, time), "{} with {:?}", expr, rewrites);
                }
            }
            (quick, plain) => {
                let (quick, plain) = (quick.map(|_| ()), plain.map(|_| ()));
                prop_assert_eq!(quick, plain, "{} with {:?}", expr, rewrites);
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing(
        data in data(),
        expr in expression(),
        start in -40_000_i64..200_000,
        delayed in any::<bool>(),
        threads in 0_usize..4,
    ) {
        let (alone, store) = (engine(delayed), store(&data));
        let helped = engine(delayed).with_workers(Arc::new(Threads(threads)));
        let all = (start, start + 11 * STEP.0);
        match (range(&helped, &store, &expr, all), range(&alone, &store, &expr, all)) {
            (Ok(helped), Ok(alone)) => {
                prop_assert_eq!(&helped.annotations, &alone.annotations, "{}", expr);
                prop_assert_eq!(&helped.stats, &alone.stats, "{}", expr);
                for step in 0..12 {
                    let time = start + step * STEP.0;
                    prop_assert_eq!(at(&helped.value, time), at(&alone.value, time), "{}", expr);
                }
            }
            (helped, alone) => {
                let (helped, alone) = (helped.map(|_| ()), alone.map(|_| ()));
                prop_assert_eq!(helped, alone, "{}", expr);
            }
        }
    }

    #[test]
    fn an_instant_is_a_range_of_one(data in data(), expr in expression(), time in 0_i64..300_000) {
        let (engine, store) = (engine(true), store(&data));
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

/// Labels and value of everything an answer has at a time, in order of labels.
fn elements(value: &QueryValue, time: i64) -> Vec<(Labels, SampleValue)> {
    let mut all: Vec<(Labels, SampleValue)> = match value {
        QueryValue::Scalar { value, .. } => {
            vec![(Labels::default(), SampleValue::Float(*value))]
        }
        QueryValue::String { .. } => Vec::new(),
        QueryValue::Vector(samples) => {
            samples.iter().map(|s| (s.labels.clone(), s.value.clone())).collect()
        }
        QueryValue::Matrix(series) => series
            .iter()
            .filter_map(|series| {
                let float = series.floats.iter().find(|(at, _)| at.0 == time);
                let histogram = series.histograms.iter().find(|(at, _)| at.0 == time);
                let value = float
                    .map(|(_, value)| SampleValue::Float(*value))
                    .or(histogram.map(|(_, h)| SampleValue::Histogram(h.clone())))?;
                Some((series.labels.clone(), value))
            })
            .collect(),
    };
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Whether two values are the same but for what rounding makes of other orders of addition.
fn nearly(a: &SampleValue, b: &Value) -> bool {
    match (a, b) {
        (SampleValue::Float(a), Value::Float(b)) => {
            a == b
                || (a.is_nan() && b.is_nan())
                || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
        }
        (SampleValue::Histogram(a), Value::Histogram(b)) => a.same_values(&b.to_float()),
        _ => false,
    }
}

/// What the plain evaluator says at each of the steps; `None` when it does not know one of them.
fn plain_answers(
    data: &Data,
    expr: &str,
    query: (i64, i64, i64),
) -> Option<Vec<Result<Vec<Element>, Refusal>>> {
    let parsed = parse::parse(expr, &parse::Options::all()).expect("generated as the grammar says");
    let naive = Naive { data, lookback: LOOKBACK.0, query };
    let step = query.2.max(1) as usize;
    let mut answers = Vec::new();
    for time in (query.0..=query.1).step_by(step) {
        let mut answer = naive.eval(&parsed, time);
        if answer == Err(Refusal::Unknown) {
            return None;
        }
        if let Ok(elements) = &mut answer {
            elements.sort_by(|a, b| a.0.cmp(&b.0));
        }
        answers.push(answer);
    }
    Some(answers)
}

fn same(got: &[(Labels, SampleValue)], expected: &[Element]) -> bool {
    got.len() == expected.len()
        && got.iter().zip(expected).all(|(a, b)| a.0 == b.0 && nearly(&a.1, &b.1))
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
fn samples_are_counted_by_step_and_in_all() {
    let store = small_store();
    let count = |expr: &str, rewrites: Rewrites| {
        let options = EngineOptions { per_step_stats: true, rewrites, ..EngineOptions::default() };
        let stats = range(&Engine::new(options), &store, expr, (40_000, 80_000)).unwrap().stats;
        let steps: Vec<_> =
            stats.steps.iter().map(|s| (s.at.0, s.samples_total, s.samples_read)).collect();
        (stats.samples_total, stats.samples_read, steps)
    };
    let windows = vec![(40_000, 600, 600), (60_000, 600, 400), (80_000, 600, 400)];
    for rewrites in [Rewrites::ALL, Rewrites::NONE] {
        assert_eq!(count("rate(m_total[30s])", rewrites), (1800, 1400, windows.clone()));
        assert_eq!(count("changes(m_total[30s])", rewrites), (1800, 1400, windows.clone()));
        let single = vec![(40_000, 20, 20), (60_000, 20, 20), (80_000, 20, 20)];
        assert_eq!(count("m_total", rewrites), (60, 60, single));
        // Every step of a subquery counts for the step of the query that it lies in.
        let (total, _, steps) = count("max_over_time(m_total[10s:4s])", rewrites);
        assert_eq!(total, steps.iter().map(|(_, total, _)| total).sum::<usize>());
    }
    let stats = range(&engine(false), &store, "m_total", (40_000, 80_000)).unwrap().stats;
    assert!(stats.steps.is_empty());
    // The last sample stays the newest one.
    let stats = range(&engine(false), &store, "m_total", (99_000, 139_000)).unwrap().stats;
    assert_eq!((stats.samples_total, stats.samples_read), (60, 20));
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

/// A store whose series cannot be read, from number `bad` on, or panic when they are.
struct Broken {
    bad: usize,
    panics: bool,
}

impl Queryable for Broken {
    fn querier(&self, _: TimeRange) -> Result<Box<dyn Querier>, stint_model::QueryError> {
        Ok(Box::new(Broken { ..*self }))
    }
}

impl Querier for Broken {
    fn select(
        &self,
        _: &Selector,
        _: &Hints,
    ) -> Result<Box<dyn SeriesSet>, stint_model::QueryError> {
        Ok(Box::new(Broken { ..*self }))
    }

    fn label_names(
        &self,
        _: &[Selector],
        _: usize,
    ) -> Result<Vec<String>, stint_model::QueryError> {
        Ok(Vec::new())
    }

    fn label_values(
        &self,
        _: &str,
        _: &[Selector],
        _: usize,
    ) -> Result<Vec<String>, stint_model::QueryError> {
        Ok(Vec::new())
    }
}

impl SeriesSet for Broken {
    fn len(&self) -> usize {
        500
    }

    fn labels(&self, index: usize) -> Labels {
        Labels::from_pairs([("__name__", "m_total"), ("s", &format!("{index:03}"))])
    }

    fn read(
        &self,
        index: usize,
        _: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), stint_model::QueryError> {
        if index < self.bad {
            columns.push_float(Timestamp(1000), 1.0);
            return Ok(());
        }
        assert!(!self.panics, "the store has a bug");
        Err(stint_model::QueryError::Storage(format!("series {index}")))
    }
}

#[test]
fn the_first_error_ends_a_query_with_helpers() {
    for bad in [0, 17, 499] {
        let broken = Broken { bad, panics: false };
        let engine = engine(false).with_workers(Arc::new(Threads(3)));
        let query = InstantQuery { expr: "m_total", at: Timestamp(1000), lookback: None };
        let error = engine.instant(&broken, &query, &cancel()).unwrap_err();
        assert_eq!(error.to_string(), format!("expanding series: series {bad}"));
    }
}

#[test]
fn a_panic_of_a_helper_does_not_leave_the_others_waiting() {
    let run = || {
        let broken = Broken { bad: 300, panics: true };
        let engine = engine(false).with_workers(Arc::new(Threads(3)));
        let query = InstantQuery { expr: "m_total", at: Timestamp(1000), lookback: None };
        engine.instant(&broken, &query, &cancel()).map(|_| ())
    };
    let panicked = std::thread::Builder::new().spawn(run).unwrap().join();
    assert!(panicked.is_err());
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
