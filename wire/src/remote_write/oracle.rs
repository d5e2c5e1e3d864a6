//! The messages of both versions as structs that `prost` derives: an independent reader and
//! writer of the same bytes.

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use stint_model::exemplar::Exemplar;
use stint_model::histogram::{BucketSpan, FloatHistogram, Histogram, IntegerHistogram, ResetHint};
use stint_model::labels::Labels;
use stint_model::metadata::{Metadata, MetricType};
use stint_model::sample::{Sample, Value, is_stale};
use stint_model::time::Timestamp;

use super::{v1, v2};

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries1>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Metadata1>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries1 {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WireSample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar1>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<WireHistogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WireSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    at: i64,
    #[prost(int64, tag = "3")]
    started: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar1 {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    at: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata1 {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    family: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct WireHistogram {
    #[prost(oneof = "Count", tags = "1, 2")]
    count: Option<Count>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(oneof = "ZeroCount", tags = "6, 7")]
    zero_count: Option<ZeroCount>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<Span>,
    #[prost(sint64, repeated, packed = "false", tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    at: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
    #[prost(int64, tag = "17")]
    started: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
enum Count {
    #[prost(uint64, tag = "1")]
    Integer(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
enum ZeroCount {
    #[prost(uint64, tag = "6")]
    Integer(u64),
    #[prost(double, tag = "7")]
    Float(f64),
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Request2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries2>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WireSample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<WireHistogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Exemplar2>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata2>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    at: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Metadata2 {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

/// One series in the words of the model; floats and histograms are never mixed.
#[derive(Clone, Debug, PartialEq)]
struct Series {
    labels: Labels,
    samples: Vec<Sample>,
    exemplars: Vec<Exemplar>,
}

fn spans(spans: &[Span]) -> Vec<BucketSpan> {
    spans.iter().map(|span| BucketSpan { offset: span.offset, length: span.length }).collect()
}

impl WireHistogram {
    fn sample(&self) -> Sample {
        let reset_hint = match self.reset_hint {
            1 => ResetHint::Reset,
            2 => ResetHint::NotReset,
            3 => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        };
        let histogram = match (self.count, self.zero_count) {
            (Some(Count::Float(count)), Some(ZeroCount::Float(zero_count))) => {
                Histogram::Float(FloatHistogram {
                    reset_hint,
                    schema: self.schema,
                    zero_threshold: self.zero_threshold,
                    zero_count,
                    count,
                    sum: self.sum,
                    positive_spans: spans(&self.positive_spans),
                    negative_spans: spans(&self.negative_spans),
                    positive_buckets: self.positive_counts.clone(),
                    negative_buckets: self.negative_counts.clone(),
                    custom_bounds: self.custom_values.clone(),
                })
            }
            (Some(Count::Integer(count)), Some(ZeroCount::Integer(zero_count))) => {
                Histogram::Integer(IntegerHistogram {
                    reset_hint,
                    schema: self.schema,
                    zero_threshold: self.zero_threshold,
                    zero_count,
                    count,
                    sum: self.sum,
                    positive_spans: spans(&self.positive_spans),
                    negative_spans: spans(&self.negative_spans),
                    positive_deltas: self.positive_deltas.clone(),
                    negative_deltas: self.negative_deltas.clone(),
                    custom_bounds: self.custom_values.clone(),
                })
            }
            mixed => panic!("counts of two kinds: {mixed:?}"),
        };
        let value =
            if is_stale(self.sum) { Value::Stale } else { Value::Histogram(Arc::new(histogram)) };
        Sample { at: Timestamp(self.at), started: start(self.started), value }
    }
}

fn start(ms: i64) -> Option<Timestamp> {
    (ms != 0).then_some(Timestamp(ms))
}

fn float(sample: &WireSample) -> Sample {
    Sample {
        at: Timestamp(sample.at),
        started: start(sample.started),
        value: Value::from_wire(sample.value),
    }
}

impl TimeSeries1 {
    fn series(&self) -> Series {
        let labels = |labels: &[Label]| {
            Labels::from_pairs(labels.iter().map(|label| (&label.name, &label.value)))
        };
        let floats = self.samples.iter().map(float);
        Series {
            labels: labels(&self.labels),
            samples: floats.chain(self.histograms.iter().map(WireHistogram::sample)).collect(),
            exemplars: self
                .exemplars
                .iter()
                .map(|exemplar| Exemplar {
                    labels: labels(&exemplar.labels),
                    value: exemplar.value,
                    at: Timestamp(exemplar.at),
                })
                .collect(),
        }
    }
}

impl Request2 {
    fn labels(&self, references: &[u32]) -> Labels {
        let symbol = |reference: u32| &self.symbols[reference as usize];
        Labels::from_pairs(
            references.as_chunks::<2>().0.iter().map(|[n, v]| (symbol(*n), symbol(*v))),
        )
    }

    fn series(&self, series: &TimeSeries2) -> Series {
        let floats = series.samples.iter().map(float);
        Series {
            labels: self.labels(&series.labels_refs),
            samples: floats.chain(series.histograms.iter().map(WireHistogram::sample)).collect(),
            exemplars: series
                .exemplars
                .iter()
                .map(|exemplar| Exemplar {
                    labels: self.labels(&exemplar.labels_refs),
                    value: exemplar.value,
                    at: Timestamp(exemplar.at),
                })
                .collect(),
        }
    }
}

/// What our decoder of 1.0 makes of a body.
fn decode1(body: &[u8]) -> (Vec<Series>, Vec<(String, Metadata)>) {
    let (mut all, mut metadata) = (Vec::new(), Vec::new());
    for item in v1::decode(body) {
        match item.unwrap() {
            v1::Item::Metadata(family) => metadata.push(family.to_model()),
            v1::Item::Series(series) => all.push(Series {
                labels: Labels::from_pairs(series.labels().map(Result::unwrap)),
                samples: series.samples().chain(series.histograms()).map(Result::unwrap).collect(),
                exemplars: series.exemplars().map(Result::unwrap).collect(),
            }),
        }
    }
    (all, metadata)
}

/// What our decoder of 2.0 makes of a body.
fn decode2(body: &[u8]) -> Vec<(Series, Metadata)> {
    let request = v2::decode(body).unwrap();
    let mut labels = Vec::new();
    request
        .series()
        .map(|series| {
            let series = series.unwrap();
            series.labels_into(&mut labels).unwrap();
            let metadata = series.metadata().unwrap();
            let series = Series {
                labels: Labels::from_pairs(labels.iter().copied()),
                samples: series.samples().chain(series.histograms()).map(Result::unwrap).collect(),
                exemplars: series.exemplars().map(Result::unwrap).collect(),
            };
            (series, metadata)
        })
        .collect()
}

const KINDS: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

prop_compose! {
    fn any_span()(offset in any::<i32>(), length in any::<u32>()) -> Span {
        Span { offset, length }
    }
}

prop_compose! {
    fn any_histogram()(
        integer in any::<bool>(),
        count in 0_u32..,
        sum in any::<f64>(),
        schema in -53..9,
        zero in prop_oneof![Just(0.0), any::<f64>()],
        spans in proptest::collection::vec(any_span(), 0..3),
        deltas in proptest::collection::vec(any::<i64>(), 0..5),
        counts in proptest::collection::vec(any::<f64>(), 0..5),
        reset_hint in 0..4,
        at in any::<i64>(),
        started in any::<i64>(),
    ) -> WireHistogram {
        let mut histogram = WireHistogram {
            count: Some(Count::Integer(count.into())),
            zero_count: Some(ZeroCount::Integer(u64::from(count) / 2)),
            sum,
            schema,
            zero_threshold: zero,
            negative_spans: spans.clone(),
            positive_spans: spans,
            reset_hint,
            at,
            custom_values: counts.clone(),
            started,
            ..WireHistogram::default()
        };
        if integer {
            histogram.negative_deltas.clone_from(&deltas);
            histogram.positive_deltas = deltas;
        } else {
            histogram.count = Some(Count::Float(count.into()));
            histogram.zero_count = Some(ZeroCount::Float(zero));
            histogram.negative_counts.clone_from(&counts);
            histogram.positive_counts = counts;
        }
        histogram
    }
}

fn any_labels() -> impl Strategy<Value = Vec<Label>> {
    proptest::collection::btree_map(".{1,6}", ".{1,9}", 0..4)
        .prop_map(|labels| labels.into_iter().map(|(name, value)| Label { name, value }).collect())
}

prop_compose! {
    fn any_series()(
        labels in any_labels(),
        points in proptest::collection::vec((any::<f64>(), any::<i64>()), 0..4),
        histograms in proptest::collection::vec(any_histogram(), 0..3),
        exemplar in proptest::option::of((any_labels(), any::<f64>(), any::<i64>())),
    ) -> TimeSeries1 {
        let exemplar = exemplar.map(|(labels, value, at)| Exemplar1 { labels, value, at });
        TimeSeries1 {
            labels,
            samples: points.into_iter().map(|(value, at)| WireSample { value, at, started: 0 }).collect(),
            exemplars: exemplar.into_iter().collect(),
            histograms: histograms.into_iter().map(|h| WireHistogram { started: 0, ..h }).collect(),
        }
    }
}

prop_compose! {
    fn any_metadata()(kind in 0..8, family in ".{0,5}", help in ".{0,9}", unit in ".{0,3}") -> Metadata1 {
        Metadata1 { kind, family, help, unit }
    }
}

impl Metadata1 {
    fn model(&self) -> Metadata {
        let kind = KINDS[self.kind as usize];
        Metadata { kind, help: self.help.clone(), unit: self.unit.clone() }
    }
}

proptest! {
    #[test]
    fn version_1_reads_what_others_write(
        timeseries in proptest::collection::vec(any_series(), 0..4),
        metadata in proptest::collection::vec(any_metadata(), 0..3),
    ) {
        let request = WriteRequest { timeseries, metadata };
        let (series, metadata) = decode1(&request.encode_to_vec());
        let expected: Vec<_> = request.timeseries.iter().map(TimeSeries1::series).collect();
        prop_assert_eq!(series, expected);
        let expected: Vec<_> =
            request.metadata.iter().map(|m| (m.family.clone(), m.model())).collect();
        prop_assert_eq!(metadata, expected);
    }

    #[test]
    fn others_read_what_version_1_writes(
        timeseries in proptest::collection::vec(any_series(), 0..4),
        metadata in proptest::collection::vec(any_metadata(), 0..3),
    ) {
        let mut encoder = v1::Encoder::new();
        for series in timeseries.iter().map(TimeSeries1::series) {
            let mut open = encoder.series(&series.labels);
            for sample in &series.samples {
                open.sample(sample);
            }
            for exemplar in &series.exemplars {
                open.exemplar(exemplar);
            }
        }
        for family in &metadata {
            encoder.metadata(&family.family, &family.model());
        }
        let back = WriteRequest::decode(encoder.body()).unwrap();
        let expected: Vec<_> = timeseries.iter().map(TimeSeries1::series).collect();
        let found: Vec<_> = back.timeseries.iter().map(TimeSeries1::series).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(back.metadata, metadata);
    }

    #[test]
    fn version_2_and_others_read_each_other(
        timeseries in proptest::collection::vec(any_series(), 0..4),
        metadata in any_metadata(),
        started in any::<i64>(),
    ) {
        let mut encoder = v2::Encoder::new();
        let mut expected = Vec::new();
        for mut series in timeseries.iter().map(TimeSeries1::series) {
            for sample in &mut series.samples {
                if sample.value != Value::Stale {
                    sample.started = start(started);
                }
            }
            let mut open = encoder.series(&series.labels, Some(&metadata.model()));
            for sample in &series.samples {
                open.sample(sample);
            }
            for exemplar in &series.exemplars {
                open.exemplar(exemplar);
            }
            drop(open);
            expected.push((series, metadata.model()));
        }
        let mut body = Vec::new();
        encoder.finish_into(&mut body);
        prop_assert_eq!(decode2(&body), expected.clone());

        let theirs = Request2::decode(&body[..]).unwrap();
        prop_assert_eq!(&theirs.symbols[0], "");
        let found: Vec<_> = theirs
            .timeseries
            .iter()
            .map(|series| {
                let told = series.metadata.unwrap_or_default();
                let metadata = Metadata {
                    kind: KINDS[told.kind as usize],
                    help: theirs.symbols[told.help_ref as usize].clone(),
                    unit: theirs.symbols[told.unit_ref as usize].clone(),
                };
                (theirs.series(series), metadata)
            })
            .collect();
        prop_assert_eq!(found, expected.clone());
        // And what they write, we read.
        prop_assert_eq!(decode2(&theirs.encode_to_vec()), expected);
    }
}

#[test]
fn a_histogram_whose_sum_is_the_stale_marker_ends_the_series() {
    let histogram = WireHistogram {
        count: Some(Count::Integer(0)),
        sum: stint_model::sample::stale_nan(),
        at: 5,
        ..WireHistogram::default()
    };
    let series = TimeSeries1 { histograms: vec![histogram], ..TimeSeries1::default() };
    let request = WriteRequest { timeseries: vec![series], metadata: vec![] };
    let (series, _) = decode1(&request.encode_to_vec());
    assert_eq!(series[0].samples, [Sample::stale(Timestamp(5))]);
}
