//! The messages are built by structs that `prost` derives, which know nothing of our reader.

use proptest::prelude::*;
use prost::Message;

mod formats;
mod writing;

use super::super::{Entry, Format, Options, Parser};
use stint_model::histogram::{BucketSpan, Histogram, ResetHint};
use stint_model::time::Timestamp;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, optional, tag = "5")]
    unit: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Simple>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Simple>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    untyped: Option<Simple>,
    #[prost(int64, optional, tag = "6")]
    timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<WireHistogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Simple {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<WireExemplar>,
    #[prost(message, optional, tag = "3")]
    started: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    started: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantile {
    #[prost(double, optional, tag = "1")]
    quantile: Option<f64>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct WireHistogram {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(double, optional, tag = "4")]
    count_float: Option<f64>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(double, optional, tag = "8")]
    zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<Span>,
    #[prost(sint64, repeated, tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<Span>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(double, repeated, tag = "14")]
    positive_count: Vec<f64>,
    #[prost(message, optional, tag = "15")]
    started: Option<Time>,
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<WireExemplar>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Span {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    bound: Option<f64>,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<WireExemplar>,
    #[prost(double, optional, tag = "4")]
    count_float: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct WireExemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    at: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn label(name: &str, value: &str) -> LabelPair {
    LabelPair { name: Some(name.into()), value: Some(value.into()) }
}

fn family(name: &str, kind: i32, metric: Vec<Metric>) -> MetricFamily {
    MetricFamily { name: Some(name.into()), kind: Some(kind), metric, ..MetricFamily::default() }
}

fn bucket(bound: f64, count: u64) -> Bucket {
    Bucket { bound: Some(bound), count: Some(count), ..Bucket::default() }
}

fn exemplar(seconds: Option<i64>) -> WireExemplar {
    WireExemplar {
        label: vec![label("trace_id", "t")],
        value: Some(0.25),
        at: seconds.map(|seconds| Time { seconds, nanos: 5_000_000 }),
    }
}

fn body(families: &[MetricFamily]) -> Vec<u8> {
    let mut body = Vec::new();
    for family in families {
        family.encode_length_delimited(&mut body).unwrap();
    }
    body
}

/// Every sample as a line of text, or the error.
fn read(body: &[u8], options: Options) -> Vec<String> {
    let mut parser = Parser::with_options(Format::Protobuf, body, options);
    let mut lines = Vec::new();
    loop {
        lines.push(match parser.next() {
            Ok(None) => return lines,
            Err(error) => {
                lines.push(error.to_string());
                return lines;
            }
            Ok(Some(Entry::Series(series))) => {
                let exemplar = series.exemplar.map(|exemplar| exemplar.decode(Timestamp(-1)));
                let mut line = format!("{} {}", series.raw, series.value);
                if let Some(at) = series.timestamp {
                    line = format!("{line} {at}");
                }
                if let Some(started) = series.started {
                    line = format!("{line} since {started}");
                }
                if let Some(exemplar) = exemplar {
                    line =
                        format!("{line} # {} {} {}", exemplar.labels, exemplar.value, exemplar.at);
                }
                line
            }
            Ok(Some(Entry::Histogram(histogram))) => format!("{} native", histogram.raw),
            Ok(Some(Entry::Type { name, kind })) => format!("# TYPE {name} {kind}"),
            Ok(Some(Entry::Help { name, text })) => format!("# HELP {name} {text}"),
            Ok(Some(Entry::Unit { name, unit })) => format!("# UNIT {name} {unit}"),
        });
    }
}

#[test]
fn plain_values() {
    let started = Some(Time { seconds: 3, nanos: 1_999_999 });
    let counter = Metric {
        label: vec![label("code", "2\"00"), label("a.b", "c")],
        counter: Some(Simple { value: Some(7.0), exemplar: Some(exemplar(Some(9))), started }),
        timestamp_ms: Some(1234),
        ..Metric::default()
    };
    let gauge = Metric {
        gauge: Some(Simple { value: Some(-0.5), ..Simple::default() }),
        ..Metric::default()
    };
    let mut counters = family("busy_seconds_total", 0, vec![counter, Metric::default()]);
    counters.help = Some("Requests.".into());
    counters.unit = Some("seconds".into());
    let families = [counters, family("in.use", 1, vec![gauge])];
    assert_eq!(
        read(&body(&families), Options::default()),
        [
            "# HELP busy_seconds_total Requests.",
            "# TYPE busy_seconds_total counter",
            "# UNIT busy_seconds_total seconds",
            "busy_seconds_total{code=\"2\\\"00\",\"a.b\"=\"c\"} 7 1234 since 3001 # {trace_id=\"t\"} 0.25 9005",
            "busy_seconds_total 0",
            "# TYPE in.use gauge",
            "{\"in.use\"} -0.5",
        ]
    );
}

#[test]
fn a_name_ends_with_its_unit() {
    for (name, kind, unit, is_good) in [
        ("busy_seconds", 1, "seconds", true),
        ("busy_seconds_total", 0, "seconds", true),
        ("busy_total", 0, "total", false),
        ("busy_seconds_total", 1, "seconds", false),
        ("busyseconds", 1, "seconds", false),
        ("seconds", 1, "seconds", false),
        ("busy", 1, "seconds", false),
        ("busy", 1, "", true),
    ] {
        let mut family = family(name, kind, vec![Metric::default()]);
        family.unit = Some(unit.into());
        let lines = read(&body(&[family]), Options::default());
        let refused = lines.iter().any(|line| line.contains("is not a suffix of metric"));
        assert_eq!(!refused, is_good, "{lines:?}");
    }
}

#[test]
fn summaries_and_classic_histograms_become_series() {
    let summary = Metric {
        label: vec![label("a", "b")],
        summary: Some(Summary {
            count: Some(3),
            sum: Some(1.5),
            quantile: vec![
                Quantile { quantile: Some(0.5), value: Some(0.4) },
                Quantile { quantile: Some(1.0), value: Some(f64::NAN) },
            ],
            started: None,
        }),
        ..Metric::default()
    };
    let with_exemplar = Bucket { exemplar: Some(exemplar(None)), ..bucket(1.0, 2) };
    let histogram = WireHistogram {
        count: Some(5),
        sum: Some(10.0),
        bucket: vec![with_exemplar, bucket(1e6, 4)],
        ..WireHistogram::default()
    };
    let complete = WireHistogram {
        bucket: vec![bucket(0.5, 1), bucket(f64::INFINITY, 5)],
        ..histogram.clone()
    };
    let metric = |histogram| Metric { histogram: Some(histogram), ..Metric::default() };
    let families =
        [family("s", 2, vec![summary]), family("h", 4, vec![metric(histogram), metric(complete)])];
    assert_eq!(
        read(&body(&families), Options { native_histograms: true, ..Options::default() }),
        [
            "# TYPE s summary",
            "s_count{a=\"b\"} 3",
            "s_sum{a=\"b\"} 1.5",
            "s{a=\"b\",quantile=\"0.5\"} 0.4",
            "s{a=\"b\",quantile=\"1.0\"} NaN",
            "# TYPE h histogram",
            "h_count 5",
            "h_sum 10",
            "h_bucket{le=\"1.0\"} 2 # {trace_id=\"t\"} 0.25 -1",
            "h_bucket{le=\"1e+06\"} 4",
            "h_bucket{le=\"+Inf\"} 5",
            "h_count 5",
            "h_sum 10",
            "h_bucket{le=\"0.5\"} 1",
            "h_bucket{le=\"+Inf\"} 5",
        ]
    );
}

fn native() -> WireHistogram {
    WireHistogram {
        count: Some(6),
        sum: Some(18.5),
        schema: Some(3),
        zero_threshold: Some(0.001),
        zero_count: Some(2),
        positive_span: vec![
            Span { offset: Some(-4), length: Some(1) },
            Span { offset: Some(1), length: Some(0) },
            Span { offset: Some(2), length: Some(1) },
            Span { offset: Some(0), length: Some(1) },
        ],
        positive_delta: vec![1, 1, -1],
        bucket: vec![Bucket { exemplar: Some(exemplar(Some(4))), ..bucket(1.0, 3) }],
        exemplars: vec![exemplar(Some(8)), exemplar(None), exemplar(Some(5))],
        ..WireHistogram::default()
    }
}

#[test]
fn native_histograms_are_kept_when_wanted() {
    let metric = Metric { histogram: Some(native()), ..Metric::default() };
    let body = body(&[family("h", 5, vec![metric])]);
    let wanted = Options { native_histograms: true, ..Options::default() };
    assert_eq!(read(&body, wanted), ["# TYPE h gaugehistogram", "h native"]);
    let both = Options { classic_too: true, ..wanted };
    assert_eq!(read(&body, both).len(), 6);
    let classic = read(&body, Options::default());
    assert_eq!(
        classic[1..],
        [
            "h_count 6",
            "h_sum 18.5",
            "h_bucket{le=\"1.0\"} 3 # {trace_id=\"t\"} 0.25 4005",
            "h_bucket{le=\"+Inf\"} 6"
        ]
    );

    let mut parser = Parser::with_options(Format::Protobuf, &body, wanted);
    parser.next().unwrap();
    let Ok(Some(Entry::Histogram(entry))) = parser.next() else { panic!("expected a histogram") };
    let Histogram::Integer(histogram) = entry.histogram else { panic!("expected integer counts") };
    assert_eq!(histogram.reset_hint, ResetHint::Gauge);
    assert_eq!((histogram.schema, histogram.count, histogram.zero_count), (3, 6, 2));
    assert_eq!(
        histogram.positive_spans,
        [BucketSpan { offset: -4, length: 1 }, BucketSpan { offset: 3, length: 2 }]
    );
    assert_eq!(histogram.positive_deltas, [1, 1, -1]);
    let times: Vec<_> = entry.exemplars.iter().map(|exemplar| exemplar.at.as_ms()).collect();
    assert_eq!(times, [5005, 8005]);
}

#[test]
fn float_histograms_are_told_by_their_count() {
    let histogram = WireHistogram {
        count_float: Some(2.5),
        positive_delta: vec![],
        positive_count: vec![1.5, 0.5, 0.5],
        exemplars: vec![],
        ..native()
    };
    let metric = Metric { histogram: Some(histogram), ..Metric::default() };
    let body = body(&[family("h", 4, vec![metric])]);
    let wanted = Options { native_histograms: true, ..Options::default() };
    let mut parser = Parser::with_options(Format::Protobuf, &body, wanted);
    parser.next().unwrap();
    let Ok(Some(Entry::Histogram(entry))) = parser.next() else { panic!("expected a histogram") };
    let Histogram::Float(histogram) = entry.histogram else { panic!("expected float counts") };
    assert_eq!((histogram.count, histogram.positive_buckets.len()), (2.5, 3));
    // Without exemplars of its own, those of the classic buckets serve.
    assert_eq!(entry.exemplars.len(), 1);
}

#[test]
fn broken_bodies_say_in_which_family() {
    let good = family("good", 1, vec![]);
    let check = |bad: MetricFamily, message: &str| {
        let lines = read(
            &body(&[good.clone(), bad]),
            Options { native_histograms: true, ..Options::default() },
        );
        assert_eq!(lines.last().unwrap(), message);
    };
    check(family("", 1, vec![]), "line 2: metric family without a name in metric family \"good\"");
    check(
        family("x", 9, vec![]),
        "line 2: unknown metric type 9 of \"x\" in metric family \"good\"",
    );
    let histogram = WireHistogram { positive_delta: vec![1], ..native() };
    let metric = Metric { histogram: Some(histogram), ..Metric::default() };
    check(
        family("x", 4, vec![metric]),
        "line 2: native histogram has 1 positive buckets, but its spans cover 3 in metric family \"x\"",
    );
    let whole = body(&[good]);
    let cut = &whole[..whole.len() - 1];
    assert!(read(cut, Options::default())[0].contains("ends in the middle"));
}

fn count_samples(families: &[MetricFamily]) -> usize {
    let samples = |metric: &Metric, kind| match kind {
        2 => 2 + metric.summary.as_ref().map_or(0, |summary| summary.quantile.len()),
        4 | 5 => {
            let buckets = metric.histogram.as_ref().map_or(&[][..], |h| &h.bucket);
            let infinite = buckets.iter().position(|bucket| bucket.bound == Some(f64::INFINITY));
            2 + infinite.unwrap_or(buckets.len()) + 1
        }
        _ => 1,
    };
    families
        .iter()
        .flat_map(|family| family.metric.iter().map(|metric| samples(metric, family.kind())))
        .sum()
}

prop_compose! {
    fn any_family()(
        name in "[a-z.]{1,6}",
        kind in 0..6,
        labels in proptest::collection::vec(("[a-z. \"]{1,5}", ".{0,5}"), 0..4),
        bounds in proptest::collection::vec(prop_oneof![any::<f64>(), Just(f64::INFINITY)], 0..5),
        value in any::<f64>(),
    ) -> MetricFamily {
        let simple = Some(Simple { value: Some(value), ..Simple::default() });
        let metric = Metric {
            label: labels.iter().map(|(name, value)| label(name, value)).collect(),
            gauge: simple.clone(),
            counter: simple.clone(),
            untyped: simple,
            summary: Some(Summary {
                quantile: bounds
                    .iter()
                    .map(|bound| Quantile { quantile: Some(*bound), value: Some(value) })
                    .collect(),
                ..Summary::default()
            }),
            histogram: Some(WireHistogram {
                bucket: bounds.iter().map(|bound| bucket(*bound, 1)).collect(),
                ..WireHistogram::default()
            }),
            timestamp_ms: None,
        };
        family(&name, kind, vec![metric])
    }
}

proptest! {
    #[test]
    fn every_sample_has_its_labels(families in proptest::collection::vec(any_family(), 0..4)) {
        let body = body(&families);
        let mut parser = Parser::new(Format::Protobuf, &body);
        let mut samples = 0;
        let mut current = None;
        let mut rest = families.iter();
        while let Some(entry) = parser.next().unwrap() {
            match entry {
                Entry::Type { .. } => current = rest.next(),
                Entry::Series(series) => {
                    samples += 1;
                    let mut labels = Vec::new();
                    series.labels(&mut labels);
                    let family = current.unwrap();
                    prop_assert!(labels[0].1.starts_with(family.name()));
                    for (pair, (name, value)) in family.metric[0].label.iter().zip(&labels[1..]) {
                        prop_assert_eq!((pair.name(), pair.value()), (&**name, &**value));
                    }
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(samples, count_samples(&families));
    }

    #[test]
    fn damaged_bodies_end_without_panic(
        families in proptest::collection::vec(any_family(), 1..3),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut body = body(&families);
        let at = at.index(body.len());
        body[at] = byte;
        let mut parser = Parser::new(Format::Protobuf, &body);
        let mut entries = 0;
        while let Ok(Some(_)) = parser.next() {
            entries += 1;
        }
        prop_assert!(entries <= 4 * body.len());
    }
}
