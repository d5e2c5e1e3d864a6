//! Writes length-delimited metric families: federation for readers that take native histograms.

use stint_model::histogram::{BucketSpan, FloatHistogram};
use stint_model::labels::METRIC_NAME;
use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

use super::super::escape::Escaping;
use crate::proto::{put_bytes, put_double_always, put_sint_always, put_uint_always, put_varint};

/// Appends metric families to a body that it owns.
#[derive(Clone, Debug, Default)]
pub struct ProtobufWriter {
    out: Vec<u8>,
    /// The family whose metrics are being added; empty before the first.
    family: Vec<u8>,
    metric: Vec<u8>,
    escaping: Escaping,
}

impl ProtobufWriter {
    /// A writer of names in the given scheme.
    pub fn new(escaping: Escaping) -> Self {
        Self { escaping, ..Self::default() }
    }

    /// Begins a family; the metrics that follow belong to it. Kinds that the format does not have
    /// are written as unknown.
    pub fn family(&mut self, name: &str, kind: MetricType) {
        self.finish_family();
        put_bytes(&mut self.family, 1, self.escaping.metric_name(name).as_bytes());
        let kind = match kind {
            MetricType::Counter => 0,
            MetricType::Gauge => 1,
            MetricType::Summary => 2,
            MetricType::Histogram => 4,
            MetricType::GaugeHistogram => 5,
            MetricType::Info | MetricType::StateSet | MetricType::Unknown => 3,
        };
        put_uint_always(&mut self.family, 3, kind);
    }

    /// A number without a meaning that is known, in a family of unknown kind.
    pub fn untyped<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        value: f64,
        at: Timestamp,
    ) {
        let mut untyped = Vec::with_capacity(9);
        put_double_always(&mut untyped, 1, value);
        self.metric(labels, 5, &untyped, at);
    }

    /// A histogram: a native one as it is, one with custom bounds as a classic one, which is the
    /// only way that readers know them.
    pub fn histogram<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        histogram: &FloatHistogram,
        at: Timestamp,
    ) {
        let message = match histogram.classic_buckets() {
            Some(buckets) => classic(histogram, buckets),
            None => native(histogram),
        };
        self.metric(labels, 7, &message, at);
    }

    /// The finished body.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.finish_family();
        self.out
    }

    fn metric<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        field: u32,
        contents: &[u8],
        at: Timestamp,
    ) {
        self.metric.clear();
        let mut pair = Vec::new();
        for (name, value) in labels.into_iter().filter(|(name, _)| *name != METRIC_NAME) {
            pair.clear();
            put_bytes(&mut pair, 1, self.escaping.label_name(name).as_bytes());
            put_bytes(&mut pair, 2, value.as_bytes());
            put_bytes(&mut self.metric, 1, &pair);
        }
        // In order of their numbers, as readers expect without needing it.
        if field > 6 {
            put_uint_always(&mut self.metric, 6, at.0 as u64);
        }
        put_bytes(&mut self.metric, field, contents);
        if field < 6 {
            put_uint_always(&mut self.metric, 6, at.0 as u64);
        }
        put_bytes(&mut self.family, 4, &self.metric);
    }

    fn finish_family(&mut self) {
        if self.family.is_empty() {
            return;
        }
        put_varint(&mut self.out, self.family.len() as u64);
        self.out.append(&mut self.family);
    }
}

fn native(histogram: &FloatHistogram) -> Vec<u8> {
    let mut out = Vec::new();
    put_double_always(&mut out, 2, histogram.sum);
    put_double_always(&mut out, 4, histogram.count);
    put_sint_always(&mut out, 5, i64::from(histogram.schema));
    put_double_always(&mut out, 6, histogram.zero_threshold);
    put_double_always(&mut out, 8, histogram.zero_count);
    put_side(&mut out, [9, 11], &histogram.negative_spans, &histogram.negative_buckets);
    put_side(&mut out, [12, 14], &histogram.positive_spans, &histogram.positive_buckets);
    out
}

/// Spans and counts of one side. Repeated numbers are not packed in this version of the language.
fn put_side(out: &mut Vec<u8>, fields: [u32; 2], spans: &[BucketSpan], counts: &[f64]) {
    let [span_field, count_field] = fields;
    let mut message = Vec::new();
    for span in spans {
        message.clear();
        put_sint_always(&mut message, 1, i64::from(span.offset));
        put_uint_always(&mut message, 2, u64::from(span.length));
        put_bytes(out, span_field, &message);
    }
    for count in counts {
        put_double_always(out, count_field, *count);
    }
}

/// The bucket without an upper bound is left out: it is the count.
fn classic(histogram: &FloatHistogram, buckets: impl Iterator<Item = (f64, f64)>) -> Vec<u8> {
    let mut out = Vec::new();
    put_double_always(&mut out, 2, histogram.sum);
    let mut message = Vec::new();
    for (bound, count) in buckets {
        message.clear();
        put_double_always(&mut message, 2, bound);
        put_double_always(&mut message, 4, count);
        put_bytes(&mut out, 3, &message);
    }
    put_double_always(&mut out, 4, histogram.count);
    out
}
