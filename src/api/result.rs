//! Query results as JSON.

use stint_model::histogram::FloatHistogram;
use stint_model::{Labels, Timestamp};
use stint_promql::{InstantSample, QueryValue, RangeSeries, SampleValue};

use super::json::{push_labels, push_sample, push_string};
use super::number::{push_decimal, push_time, push_time_plain, push_value};

/// Bytes that a series or a sample takes in an answer, roughly; to size the buffer once.
const SERIES_BYTES: usize = 160;
const SAMPLE_BYTES: usize = 36;
/// The same of a bucket of a native histogram.
const BUCKET_BYTES: usize = 64;

/// Appends the start of `data`, `{"resultType":…,"result":…`, without the closing brace, so that
/// statistics may follow. The type comes first: old clients decode in order.
pub fn push_open_data(out: &mut Vec<u8>, value: &QueryValue) {
    out.extend_from_slice(b"{\"resultType\":\"");
    out.extend_from_slice(value.type_name().as_bytes());
    out.extend_from_slice(b"\",\"result\":");
    match value {
        QueryValue::Scalar { at, value } => {
            out.push(b'[');
            push_time_plain(out, *at);
            out.extend_from_slice(b",\"");
            push_decimal(out, *value);
            out.extend_from_slice(b"\"]");
        }
        QueryValue::String { at, value } => {
            out.push(b'[');
            push_time_plain(out, *at);
            out.push(b',');
            push_string(out, value);
            out.push(b']');
        }
        QueryValue::Vector(samples) => push_list(out, samples, push_instant),
        QueryValue::Matrix(series) => push_matrix(out, series),
    }
}

/// Cuts a result to `limit` series (0 for none); whether anything was cut.
pub fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    if limit == 0 {
        return false;
    }
    let before = match value {
        QueryValue::Vector(samples) => {
            let before = samples.len();
            samples.truncate(limit);
            before
        }
        QueryValue::Matrix(series) => {
            let before = series.len();
            series.truncate(limit);
            before
        }
        QueryValue::Scalar { .. } | QueryValue::String { .. } => 0,
    };
    before > limit
}

/// Bytes of the value as JSON, about.
pub(super) fn size_hint(value: &QueryValue) -> usize {
    let content = match value {
        QueryValue::Scalar { .. } => 0,
        QueryValue::String { value, .. } => value.len(),
        QueryValue::Vector(samples) => {
            let sample = |one: &InstantSample| match &one.value {
                SampleValue::Float(_) => SAMPLE_BYTES,
                SampleValue::Histogram(histogram) => histogram_bytes(histogram),
            };
            samples.iter().map(|one| series_bytes(&one.labels) + sample(one)).sum()
        }
        QueryValue::Matrix(series) => {
            let samples = |one: &RangeSeries| {
                let histograms = one.histograms.iter().map(|(_, one)| histogram_bytes(one));
                one.floats.len() * SAMPLE_BYTES + histograms.sum::<usize>()
            };
            series.iter().map(|one| series_bytes(&one.labels) + samples(one)).sum()
        }
    };
    content + 128
}

fn series_bytes(labels: &Labels) -> usize {
    SERIES_BYTES.max(labels.size_bytes() + 64)
}

fn histogram_bytes(histogram: &FloatHistogram) -> usize {
    let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len() + 1;
    2 * SAMPLE_BYTES + buckets * BUCKET_BYTES
}

fn push_list<T>(out: &mut Vec<u8>, items: &[T], push: fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(b']');
}

fn push_instant(out: &mut Vec<u8>, sample: &InstantSample) {
    out.extend_from_slice(b"{\"metric\":");
    push_labels(out, &sample.labels);
    match &sample.value {
        SampleValue::Float(value) => {
            out.extend_from_slice(b",\"value\":");
            push_sample(out, sample.at, *value);
        }
        SampleValue::Histogram(histogram) => {
            out.extend_from_slice(b",\"histogram\":");
            push_timed_histogram(out, sample.at, histogram);
        }
    }
    out.push(b'}');
}

fn push_matrix(out: &mut Vec<u8>, all: &[RangeSeries]) {
    let mut times = Times::default();
    out.push(b'[');
    for (position, series) in all.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push_range(out, series, &mut times);
    }
    out.push(b']');
}

/// What stands between the values of a series: the end of a sample, the time of the next one. Most
/// series of an answer have the same times.
#[derive(Default)]
struct Times {
    text: Vec<u8>,
    /// Each time, and where its text ends.
    ends: Vec<(Timestamp, usize)>,
}

/// The end of a sample and what separates it from the next one.
const SAMPLE_END: &[u8] = b"\"],";

impl Times {
    /// `"],[time,"` of sample number `index`.
    fn text(&mut self, index: usize, at: Timestamp) -> &[u8] {
        if self.ends.get(index).is_none_or(|(known, _)| *known != at) {
            // From here on this series has other times than the one before.
            self.ends.truncate(index);
            self.text.truncate(self.ends.last().map_or(0, |(_, end)| *end));
            self.text.extend_from_slice(SAMPLE_END);
            self.text.push(b'[');
            push_time(&mut self.text, at);
            self.text.extend_from_slice(b",\"");
            self.ends.push((at, self.text.len()));
        }
        let end = self.ends.get(index).map_or(0, |(_, end)| *end);
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before));
        self.text.get(start.map_or(0, |(_, end)| *end)..end).unwrap_or_default()
    }
}

fn push_range(out: &mut Vec<u8>, series: &RangeSeries, times: &mut Times) {
    out.extend_from_slice(b"{\"metric\":");
    push_labels(out, &series.labels);
    for (index, (at, value)) in series.floats.iter().enumerate() {
        let text = times.text(index, *at);
        if index == 0 {
            out.extend_from_slice(b",\"values\":[");
            out.extend_from_slice(text.get(SAMPLE_END.len()..).unwrap_or_default());
        } else {
            out.extend_from_slice(text);
        }
        push_value(out, *value);
    }
    if !series.floats.is_empty() {
        out.extend_from_slice(b"\"]]");
    }
    if !series.histograms.is_empty() {
        out.extend_from_slice(b",\"histograms\":");
        push_list(out, &series.histograms, |out, (at, histogram)| {
            push_timed_histogram(out, *at, histogram);
        });
    }
    out.push(b'}');
}

fn push_timed_histogram(out: &mut Vec<u8>, at: Timestamp, histogram: &FloatHistogram) {
    out.push(b'[');
    push_time(out, at);
    out.push(b',');
    push_histogram(out, histogram);
    out.push(b']');
}

/// Appends count, sum and the buckets that are not empty, from the most negative up.
fn push_histogram(out: &mut Vec<u8>, histogram: &FloatHistogram) {
    out.extend_from_slice(b"{\"count\":\"");
    push_value(out, histogram.count);
    out.extend_from_slice(b"\",\"sum\":\"");
    push_value(out, histogram.sum);
    out.push(b'"');
    let mut first = true;
    for bucket in histogram.buckets() {
        if bucket.count == 0.0 {
            continue;
        }
        out.extend_from_slice(if first { b",\"buckets\":[[" } else { b",[" });
        first = false;
        // Which of the two bounds belongs to the bucket.
        out.push(match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => b'0',
            (true, false) => b'1',
            (false, false) => b'2',
            (true, true) => b'3',
        });
        for number in [bucket.lower, bucket.upper, bucket.count] {
            out.extend_from_slice(b",\"");
            push_value(out, number);
            out.push(b'"');
        }
        out.push(b']');
    }
    out.extend_from_slice(if first { b"}" } else { b"]}" });
}

#[cfg(test)]
mod tests;
