//! Stores and expressions at random.

use std::sync::Arc;

use proptest::prelude::*;
use stint_model::histogram::{BucketSpan, FloatHistogram};
use stint_model::{Histogram, Labels, Sample, Timestamp, Value};

use crate::Data;

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

pub(crate) fn data() -> impl Strategy<Value = Data> {
    let floats = proptest::collection::vec(proptest::collection::vec(sample(), 0..20), 6);
    let histograms =
        proptest::collection::vec(proptest::collection::vec(histogram_sample(), 0..20), 2);
    (floats, histograms).prop_map(|(floats, histograms)| {
        let mut data = Data::new();
        let names = ["a_total", "b", "h"];
        for (at, values) in floats.iter().chain(&histograms).enumerate() {
            let labels = Labels::from_pairs([
                ("__name__", if at < 6 { names[at % 2] } else { names[2] }),
                ("x", if at % 3 == 0 { "1" } else { "2" }),
                ("y", ["p", "q", "r"][at / 2 % 3]),
                ("le", if at < 6 { ["1", "2", "+Inf"][at / 2 % 3] } else { "" }),
            ]);
            let mut samples = Vec::new();
            for (index, value) in values.iter().enumerate() {
                let Some(value) = value.clone() else { continue };
                // Not aligned to the steps.
                let time = Timestamp(index as i64 * 15_000 + at as i64 * 1000);
                samples.push(Sample { at: time, started: None, value });
            }
            data.push((labels, samples));
        }
        data
    })
}

fn selector() -> impl Strategy<Value = String> {
    let base = prop_oneof![
        Just("a_total"),
        Just("b"),
        Just("h"),
        Just("b{x=\"1\"}"),
        Just("a_total{y=~\"p|q\"}"),
        Just("b{x!=\"1\",le=\"\"}"),
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
pub(crate) fn expression() -> impl Strategy<Value = String> {
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

pub(crate) fn choiceless() -> impl Strategy<Value = String> {
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
            Just("* on (x)"),
            Just("and on (y)"),
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
            (selector(), op.clone(), selector()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            // The same on both sides, and once more inside one of them.
            (inner.clone(), prop_oneof![Just("/"), Just("or"), Just("- on (x, y)")])
                .prop_map(|(a, op)| format!("({a}) {op} (({a}) + ({a}))")),
            inner.clone().prop_map(|inner| format!("({inner}) * 2 > scalar(b{{x=\"1\"}})")),
            inner.prop_map(|inner| format!("max_over_time(({inner})[1m:20s])")),
        ]
    })
}
