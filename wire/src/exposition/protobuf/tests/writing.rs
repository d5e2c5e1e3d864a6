//! What is written, as other readers and our own see it.

use prost::Message;

use super::super::super::{Entry, Escaping, Format, Options, Parser};
use super::super::ProtobufWriter;
use super::{MetricFamily, Span};
use stint_model::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, ResetHint,
};
use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

fn exponential() -> FloatHistogram {
    FloatHistogram {
        reset_hint: ResetHint::Gauge,
        schema: -2,
        zero_threshold: 0.0,
        zero_count: 1.5,
        count: 12.5,
        sum: -0.0,
        positive_spans: vec![
            BucketSpan { offset: -3, length: 2 },
            BucketSpan { offset: 1, length: 1 },
        ],
        negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
        positive_buckets: vec![2.0, 0.0, 4.0],
        negative_buckets: vec![5.0],
        custom_bounds: Vec::new(),
    }
}

fn custom() -> FloatHistogram {
    FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_bounds: vec![0.5, 2.0],
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_buckets: vec![3.0, 4.0],
        count: 7.0,
        sum: 9.25,
        ..FloatHistogram::default()
    }
}

fn written() -> Vec<u8> {
    let mut writer = ProtobufWriter::new(Escaping::Underscores);
    writer.family("a.b", MetricType::Unknown);
    writer.untyped([("__name__", "a.b"), ("c.d", "é")], 0.0, Timestamp(-7));
    writer.untyped([("__name__", "a.b"), ("instance", "")], f64::INFINITY, Timestamp(8));
    writer.family("h", MetricType::GaugeHistogram);
    writer.histogram([("__name__", "h")], &exponential(), Timestamp(9));
    writer.family("h", MetricType::Histogram);
    writer.histogram([("__name__", "h"), ("x", "y")], &custom(), Timestamp(10));
    writer.into_bytes()
}

#[test]
fn another_library_reads_every_field() {
    let bytes = written();
    let mut rest = bytes.as_slice();
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
    }
    let [numbers, gauge, classic] = families.as_slice() else { panic!("{families:?}") };
    assert_eq!((numbers.name.as_deref(), numbers.kind), (Some("a_b"), Some(3)));
    let pairs = |family: &MetricFamily, at: usize| -> Vec<(String, String)> {
        let labels = family.metric[at].label.iter();
        labels.map(|pair| (pair.name.clone().unwrap(), pair.value.clone().unwrap())).collect()
    };
    assert_eq!(pairs(numbers, 0), [("c_d".to_owned(), "é".to_owned())]);
    assert_eq!(pairs(numbers, 1), [("instance".to_owned(), String::new())]);
    assert_eq!(numbers.metric[0].untyped.as_ref().unwrap().value, Some(0.0));
    assert_eq!(numbers.metric[0].timestamp_ms, Some(-7));
    assert_eq!(gauge.kind, Some(5));
    let native = gauge.metric[0].histogram.as_ref().unwrap();
    assert_eq!((native.count_float, native.zero_count_float), (Some(12.5), Some(1.5)));
    assert_eq!((native.schema, native.zero_threshold), (Some(-2), Some(0.0)));
    assert_eq!(native.sum.map(f64::to_bits), Some((-0.0_f64).to_bits()));
    assert_eq!(native.positive_count, [2.0, 0.0, 4.0]);
    let span = |offset, length| Span { offset: Some(offset), length: Some(length) };
    assert_eq!(native.positive_span, [span(-3, 2), span(1, 1)]);
    assert_eq!(native.negative_span, [span(0, 1)]);
    assert!(native.bucket.is_empty());
    assert_eq!(classic.kind, Some(4));
    let classic = classic.metric[0].histogram.as_ref().unwrap();
    assert_eq!((classic.schema, classic.count_float, classic.sum), (None, Some(7.0), Some(9.25)));
    let buckets: Vec<_> =
        classic.bucket.iter().map(|bucket| (bucket.bound, bucket.count_float)).collect();
    assert_eq!(buckets, [(Some(0.5), Some(0.0)), (Some(2.0), Some(3.0))]);
}

#[test]
fn the_own_reader_gets_back_what_was_written() {
    let bytes = written();
    let wanted = Options { native_histograms: true, ..Options::default() };
    let mut parser = Parser::with_options(Format::Protobuf, &bytes, wanted);
    let mut seen = Vec::new();
    while let Some(entry) = parser.next().unwrap() {
        match entry {
            Entry::Histogram(entry) => {
                assert_eq!(entry.histogram, Histogram::Float(exponential()));
                seen.push(format!("{:?}", entry.timestamp));
            }
            Entry::Series(entry) => seen.push(format!("{} {}", entry.raw, entry.value)),
            _ => {}
        }
    }
    let expected = [
        "a_b{c_d=\"é\"} 0",
        "a_b{instance=\"\"} inf",
        "Some(Timestamp(9))",
        "h_count{x=\"y\"} 7",
        "h_sum{x=\"y\"} 9.25",
        "h_bucket{x=\"y\",le=\"0.5\"} 0",
        "h_bucket{x=\"y\",le=\"2.0\"} 3",
        "h_bucket{x=\"y\",le=\"+Inf\"} 7",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn nothing_is_an_empty_body() {
    assert!(ProtobufWriter::new(Escaping::AllowUtf8).into_bytes().is_empty());
}
