use parking_lot::Mutex;
use stint_model::{Appended, Labels, Rejected, Sample};
use stint_wire::remote_write::{v1, v2};
use stint_wire::snappy::compress_into;

use super::*;
use crate::receive::in_flight::IN_FLIGHT_BYTES_MAX;

/// Numbers series by their labels, can forget them, and rejects values below zero.
#[derive(Default)]
struct Store {
    series: Mutex<Vec<Labels>>,
    batches: Mutex<Vec<Batch>>,
    failure: Mutex<Option<AppendError>>,
}

impl Appender for Store {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        if let Some(error) = self.failure.lock().clone() {
            return Err(error);
        }
        self.batches.lock().push(batch.clone());
        let mut outcome = Appended::default();
        let mut series = self.series.lock();
        for (row, content) in batch.rows.iter().enumerate() {
            let at = match &content.series {
                SeriesKey::Known(SeriesRef(at)) if (*at as usize) < series.len() => *at as usize,
                SeriesKey::Known(_) => {
                    outcome.rejected.push(Rejected { row, reason: RejectReason::UnknownSeries });
                    outcome.refs.push(None);
                    continue;
                }
                SeriesKey::Labels(labels) => {
                    series.iter().position(|known| known == labels).unwrap_or_else(|| {
                        series.push(labels.clone());
                        series.len() - 1
                    })
                }
            };
            outcome.refs.push(Some(SeriesRef(at as u64)));
            if matches!(content.sample.value, Value::Float(value) if value < 0.0) {
                outcome.rejected.push(Rejected { row, reason: RejectReason::OutOfOrder });
            }
        }
        Ok(outcome)
    }
}

/// Bytes for all requests of a test.
const ROOM: usize = 1 << 20;

fn receiver() -> (Arc<Store>, RemoteWrite, Metrics) {
    let store = Arc::new(Store::default());
    let metrics = Metrics::new();
    let receiver =
        RemoteWrite::new(store.clone(), Span(7), InFlight::new(ROOM, &metrics), &metrics);
    (store, receiver, metrics)
}

fn receive(
    receiver: &RemoteWrite,
    content_type: &str,
    content_encoding: &str,
    body: &[u8],
) -> Answer {
    receiver.receive(content_type, content_encoding, body, receiver.enter())
}

fn packed(message: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    compress_into(message, &mut body).unwrap();
    body
}

type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn body_v1(all: &[Series<'_>]) -> Vec<u8> {
    let mut encoder = v1::Encoder::new();
    for (labels, samples) in all {
        let mut series = encoder.series(labels.iter().copied());
        for (at, value) in *samples {
            series.sample(&Sample::float(Timestamp(*at), *value));
        }
    }
    packed(encoder.body())
}

fn body_v2(all: &[Series<'_>]) -> Vec<u8> {
    let mut encoder = v2::Encoder::new();
    for (labels, samples) in all {
        let mut series = encoder.series(labels.iter().copied(), None);
        for (at, value) in *samples {
            series.sample(&Sample::float(Timestamp(*at), *value));
        }
    }
    let mut message = Vec::new();
    encoder.finish_into(&mut message);
    packed(&message)
}

const UP: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];
const DOWN: &[(&str, &str)] = &[("__name__", "down")];
const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn keys(store: &Store) -> Vec<Vec<SeriesKey>> {
    let batches = store.batches.lock();
    batches.iter().map(|batch| batch.rows.iter().map(|row| row.series.clone()).collect()).collect()
}

fn labels(pairs: &[(&str, &str)]) -> SeriesKey {
    SeriesKey::Labels(Labels::from_pairs(pairs.iter().copied()))
}

#[test]
fn a_known_series_is_appended_by_its_handle() {
    let (store, receiver, _metrics) = receiver();
    for at in [1, 2] {
        let answer = receive(&receiver, V1, "snappy", &body_v1(&[(UP, &[(at, 1.0)])]));
        assert_eq!(answer, Answer { status: 204, text: String::new(), written: None });
    }
    assert_eq!(keys(&store), [[labels(UP)], [SeriesKey::Known(SeriesRef(0))]]);
    assert_eq!(store.batches.lock()[0].out_of_order_window, Span(7));
}

#[test]
fn a_forgotten_series_is_sent_again_with_its_labels() {
    let (store, receiver, _metrics) = receiver();
    let body = body_v1(&[(UP, &[(1, 1.0)]), (DOWN, &[(1, 1.0), (2, 2.0)])]);
    receive(&receiver, V1, "", &body);
    store.series.lock().truncate(1);
    let answer = receive(&receiver, V1, "", &body);
    assert_eq!(answer.status, 204, "{}", answer.text);
    let last = keys(&store).pop().unwrap();
    assert_eq!(last, [labels(DOWN), labels(DOWN)]);
    receive(&receiver, V1, "", &body);
    let known = keys(&store).pop().unwrap();
    assert_eq!(known, [0, 1, 1].map(|at| SeriesKey::Known(SeriesRef(at))));
}

#[test]
fn bad_rows_are_told_and_good_rows_are_stored() {
    let (store, receiver, metrics) = receiver();
    let body = body_v1(&[(UP, &[(1, -1.0)]), (DOWN, &[(2, 1.0)])]);
    let answer = receive(&receiver, V1, "snappy", &body);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.text, "out of order sample: series {__name__=\"up\", job=\"a\"} at 1\n");
    assert_eq!(store.batches.lock()[0].rows.len(), 2);
    let expected = "stint_receive_remote_write_requests_total{code=\"400\"} 1\n";
    assert!(metrics.render().contains(expected));
}

#[test]
fn many_refusals_are_counted() {
    let (_store, receiver, _metrics) = receiver();
    let samples: Vec<(i64, f64)> = (0..9).map(|at| (at, -1.0)).collect();
    let answer = receive(&receiver, V1, "snappy", &body_v1(&[(UP, &samples)]));
    assert!(answer.text.ends_with("and 4 more samples that were not stored\n"), "{}", answer.text);
}

#[test]
fn version_1_skips_series_without_a_name_silently() {
    let (store, receiver, metrics) = receiver();
    let nameless: &[(&str, &str)] = &[("job", "a")];
    let twice: &[(&str, &str)] = &[("__name__", "x"), ("a", "1"), ("a", "2")];
    let samples: &[(i64, f64)] = &[(1, 1.0)];
    let body = body_v1(&[(nameless, samples), (twice, samples), (UP, samples)]);
    assert_eq!(receive(&receiver, V1, "snappy", &body).status, 204);
    assert_eq!(keys(&store), [[labels(UP)]]);
    let counted = "prometheus_api_remote_write_invalid_labels_samples_total 2\n";
    assert!(metrics.render().contains(counted));
}

#[test]
fn version_2_tells_what_was_written_and_what_was_not() {
    let (_store, receiver, _metrics) = receiver();
    let nameless: &[(&str, &str)] = &[("job", "a")];
    let samples: &[(i64, f64)] = &[(1, 1.0), (2, -1.0)];
    let answer = receive(&receiver, V2, "snappy", &body_v2(&[(nameless, samples), (UP, samples)]));
    assert_eq!(answer.status, 400);
    assert_eq!(answer.written, Some(Written { samples: 1, histograms: 0, exemplars: 0 }));
    assert!(answer.text.contains("no metric name") && answer.text.contains("out of order"));
    let good = receive(&receiver, V2, "snappy", &body_v2(&[(UP, &[(3, 1.0)])]));
    assert_eq!((good.status, good.written.map(|written| written.samples)), (204, Some(1)));
}

#[test]
fn samples_of_a_series_are_put_in_order_of_time() {
    let (store, receiver, _metrics) = receiver();
    receive(&receiver, V1, "snappy", &body_v1(&[(UP, &[(5, 1.0), (3, 2.0), (4, 3.0)])]));
    let times: Vec<i64> = store.batches.lock()[0].rows.iter().map(|row| row.sample.at.0).collect();
    assert_eq!(times, [3, 4, 5]);
}

#[test]
fn exemplars_in_a_series_of_their_own_find_their_samples() {
    let (store, receiver, _metrics) = receiver();
    let mut encoder = v1::Encoder::new();
    encoder.series(DOWN.iter().copied()).sample(&Sample::float(Timestamp(1), 1.0));
    encoder.series(UP.iter().copied()).sample(&Sample::float(Timestamp(1), 1.0));
    let exemplar =
        Exemplar { labels: Labels::from_pairs([("trace_id", "x")]), value: 0.5, at: Timestamp(1) };
    encoder.series(UP.iter().copied()).exemplar(&exemplar);
    assert_eq!(receive(&receiver, V1, "snappy", &packed(encoder.body())).status, 204);
    let expected = [Exemplars { row: 1, exemplars: vec![exemplar] }];
    assert_eq!(store.batches.lock()[0].exemplars, expected);
}

#[test]
fn exemplars_before_their_samples_are_not_those_of_another_series() {
    let (store, receiver, _metrics) = receiver();
    let exemplar = |value: f64| Exemplar {
        labels: Labels::from_pairs([("trace_id", "x")]),
        value,
        at: Timestamp(1),
    };
    let mut encoder = v1::Encoder::new();
    encoder.series(UP.iter().copied()).exemplar(&exemplar(0.5));
    encoder.series(DOWN.iter().copied()).sample(&Sample::float(Timestamp(1), 1.0));
    encoder.series(UP.iter().copied()).sample(&Sample::float(Timestamp(1), 1.0));
    encoder.series(UP.iter().copied()).exemplar(&exemplar(0.7));
    assert_eq!(receive(&receiver, V1, "snappy", &packed(encoder.body())).status, 204);
    let expected = [Exemplars { row: 1, exemplars: vec![exemplar(0.5), exemplar(0.7)] }];
    assert_eq!(store.batches.lock()[0].exemplars, expected);
}

#[test]
fn what_may_succeed_later_is_a_5xx() {
    let (store, receiver, _metrics) = receiver();
    let body = body_v1(&[(UP, &[(1, 1.0)])]);
    let check = |error: AppendError, status: u16| {
        *store.failure.lock() = Some(error);
        assert_eq!(receive(&receiver, V1, "snappy", &body).status, status);
    };
    check(AppendError::Busy("x".into()), 503);
    check(AppendError::Closed, 503);
    check(AppendError::DiskFull("x".into()), 500);
    check(AppendError::Io("x".into()), 500);
}

#[test]
fn what_is_no_remote_write_is_refused() {
    let (_store, receiver, _metrics) = receiver();
    let good = body_v1(&[(UP, &[(1, 1.0)])]);
    assert_eq!(receive(&receiver, "text/plain", "snappy", &good).status, 415);
    assert_eq!(receive(&receiver, V1, "gzip", &good).status, 415);
    assert_eq!(receive(&receiver, V1, "snappy", b"garbage").status, 400);
    assert_eq!(receive(&receiver, V1, "snappy", &packed(b"\x0a\xff")).status, 400);
    assert_eq!(receive(&receiver, "", "", &good).status, 204, "no headers mean 1.0");
}

#[test]
fn what_there_is_no_room_for_is_asked_to_come_again() {
    let (store, receiver, metrics) = receiver();
    let mut encoder = v1::Encoder::new();
    encoder.series([("__name__", "m")]).sample(&Sample::float(Timestamp(1), 1.0));
    let body = packed(encoder.body());
    let mut other = receiver.enter();
    other.grow(ROOM - 8).unwrap();
    let answer = receive(&receiver, V1, "snappy", &body);
    assert_eq!((answer.status, answer.text.as_str()), (503, &*Full.to_string()));
    assert!(store.batches.lock().is_empty());
    drop(other);
    assert_eq!(receive(&receiver, V1, "snappy", &body).status, 204);
    assert!(metrics.render().contains("requests_total{code=\"503\"} 1\n"));
}

/// A message of 2.0 in which `count` series have one label value of `bytes` bytes.
fn body_of_one_symbol(bytes: usize, count: usize) -> Vec<u8> {
    let value = "v".repeat(bytes);
    let mut encoder = v2::Encoder::new();
    for n in 0..count {
        let n = n.to_string();
        let labels = [("__name__", "m"), ("a", value.as_str()), ("n", n.as_str())];
        encoder.series(labels, None).sample(&Sample::float(Timestamp(1), 1.0));
    }
    let mut message = Vec::new();
    encoder.finish_into(&mut message);
    packed(&message)
}

#[test]
fn a_small_message_that_stands_for_very_much_is_refused() {
    let store = Arc::new(Store::default());
    let metrics = Metrics::new();
    let room = IN_FLIGHT_BYTES_MAX;
    let receiver =
        RemoteWrite::new(store.clone(), Span(7), InFlight::new(room, &metrics), &metrics);
    // Longer than anything that is stored: each series is left out by itself.
    let answer = receive(&receiver, V2, "snappy", &body_of_one_symbol(1 << 18, 100));
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("labels of 2621"), "{}", answer.text);
    // Short enough each, and together more than a request may become.
    let body = body_of_one_symbol(100_000, 1500);
    assert!(body.len() < 100_000, "{} bytes", body.len());
    let answer = receive(&receiver, V2, "snappy", &body);
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains("when it is decoded"), "{}", answer.text);
    assert!(store.batches.lock().is_empty());
    // What was set aside for them is free again.
    receiver.enter().grow(room).unwrap();
}

#[test]
fn what_is_decoded_takes_room() {
    let (store, receiver, _metrics) = receiver();
    let body = body_of_one_symbol(10_000, 200);
    let answer = receive(&receiver, V2, "snappy", &body);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(store.batches.lock().is_empty());
    receiver.enter().grow(ROOM).unwrap();
}
