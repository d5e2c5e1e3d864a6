//! Requests in JSON, which is turned into the binary encoding first, against a store that takes
//! notes.

use serde_json::{Value as Json, json};
use stint_model::clock::SimClock;
use stint_model::{Appended, Labels, Rejected, SeriesRef, Timestamp, Value};

use super::*;
use crate::receive::meter::LABEL_BYTES_MAX;

/// Numbers series by their labels, can forget them, and rejects values below zero.
#[derive(Default)]
struct Store {
    series: Mutex<Vec<Option<Labels>>>,
    /// What was stored, and whether with labels.
    stored: Mutex<Vec<(String, bool)>>,
    failure: Mutex<Option<AppendError>>,
}

impl Appender for Store {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        if let Some(error) = self.failure.lock().clone() {
            return Err(error);
        }
        let mut outcome = Appended::default();
        let mut series = self.series.lock();
        for (row, content) in batch.rows.iter().enumerate() {
            let (at, with_labels) = match &content.series {
                SeriesKey::Known(SeriesRef(at)) => (*at as usize, false),
                SeriesKey::Labels(labels) => {
                    let known = series.iter().position(|known| known.as_ref() == Some(labels));
                    (known.unwrap_or(series.len()), true)
                }
            };
            if at == series.len()
                && let SeriesKey::Labels(labels) = &content.series
            {
                series.push(Some(labels.clone()));
            }
            let Some(Some(labels)) = series.get(at) else {
                outcome.rejected.push(Rejected { row, reason: RejectReason::UnknownSeries });
                outcome.refs.push(None);
                continue;
            };
            outcome.refs.push(Some(SeriesRef(at as u64)));
            let value = match &content.sample.value {
                Value::Float(value) => value.to_string(),
                Value::Histogram(histogram) => histogram.to_float().to_string(),
                Value::Stale => "stale".into(),
            };
            if value.starts_with('-') {
                outcome.rejected.push(Rejected { row, reason: RejectReason::OutOfOrder });
                continue;
            }
            let since = content.sample.started.map(|at| format!(" since {}", at.0));
            let text =
                format!("{labels} {value} @{}{}", content.sample.at.0, since.unwrap_or_default());
            self.stored.lock().push((text, with_labels));
        }
        Ok(outcome)
    }
}

struct Bench {
    store: Arc<Store>,
    clock: Arc<SimClock>,
    receiver: OtlpReceiver,
}

impl Bench {
    fn new() -> Self {
        Self::with_room(1 << 20)
    }

    /// One with so many bytes for requests.
    fn with_room(room: usize) -> Self {
        let store = Arc::new(Store::default());
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        let metrics = Metrics::new();
        let receiver = OtlpReceiver::new(
            store.clone(),
            clock.clone(),
            Options::default(),
            Span(7),
            InFlight::new(room, &metrics),
            &metrics,
        );
        Self { store, clock, receiver }
    }

    fn send(&self, metrics: &[Json]) -> Answer {
        let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]});
        let content = Content { encoding: Encoding::Json, compression: Compression::Identity };
        self.receiver.receive(content, body.to_string().as_bytes(), self.receiver.enter())
    }

    /// What was stored since the last call.
    fn stored(&self) -> Vec<String> {
        std::mem::take(&mut *self.store.stored.lock()).into_iter().map(|(text, _)| text).collect()
    }
}

fn ms(at: i64) -> String {
    (at * 1_000_000).to_string()
}

fn gauge(name: &str, at: i64, value: f64) -> Json {
    json!({"name": name, "gauge": {"dataPoints": [{"timeUnixNano": ms(at), "asDouble": value}]}})
}

fn delta(name: &str, start: i64, at: i64, value: f64) -> Json {
    json!({"name": name, "sum": {
        "aggregationTemporality": 1, "isMonotonic": true,
        "dataPoints": [{"startTimeUnixNano": ms(start), "timeUnixNano": ms(at), "asDouble": value}],
    }})
}

#[test]
fn good_points_are_stored_and_bad_ones_counted() {
    let bench = Bench::new();
    let answer = bench.send(&[gauge("a", 1, 1.0), gauge("b", 1, -1.0), gauge("..", 1, 1.0)]);
    let Answer::Stored(Some(partial)) = answer else { panic!("{answer:?}") };
    assert_eq!(partial.rejected_points, 2);
    assert!(partial.message.contains("out of order sample: series {__name__=\"b\"} at"));
    assert!(partial.message.contains("the name \"..\""));
    assert_eq!(bench.stored(), ["{__name__=\"a\"} 1 @1"]);
    assert_eq!(bench.send(&[gauge("a", 2, 1.0)]), Answer::Stored(None));
    assert_eq!(bench.receiver.rejected.get(), 2);
}

#[test]
fn a_point_with_several_bad_rows_counts_once() {
    let bench = Bench::new();
    let histogram = json!({"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
        {"timeUnixNano": ms(1), "count": 2, "sum": -5, "bucketCounts": [1, 1], "explicitBounds": [-3]},
    ]}});
    let answer = bench.send(&[histogram]);
    let Answer::Stored(Some(partial)) = answer else { panic!("{answer:?}") };
    assert_eq!(partial.rejected_points, 1);
    assert_eq!(bench.stored().len(), 3, "count and both buckets");
}

#[test]
fn a_point_with_labels_that_are_too_long_counts_once() {
    let bench = Bench::with_room(8 << 20);
    let long = "x".repeat(LABEL_BYTES_MAX);
    let attributes = json!([{"key": "long", "value": {"stringValue": long}}]);
    let histogram = json!({"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
        {"timeUnixNano": ms(1), "count": 2, "sum": 1, "bucketCounts": [1, 1], "explicitBounds": [3],
         "attributes": attributes},
    ]}});
    let answer = bench.send(&[histogram]);
    let Answer::Stored(Some(partial)) = answer else { panic!("{answer:?}") };
    assert_eq!(partial.rejected_points, 1);
    assert!(bench.stored().is_empty());
}

#[test]
fn known_series_go_without_labels_and_forgotten_ones_come_again() {
    let bench = Bench::new();
    bench.send(&[gauge("a", 1, 1.0), gauge("b", 1, 1.0)]);
    bench.send(&[gauge("a", 2, 1.0), gauge("b", 2, 1.0)]);
    let labelled: Vec<bool> = bench.store.stored.lock().iter().map(|(_, with)| *with).collect();
    assert_eq!(labelled, [true, true, false, false]);
    bench.stored();
    bench.store.series.lock()[0] = None;
    assert_eq!(bench.send(&[gauge("a", 3, 1.0), gauge("b", 3, 1.0)]), Answer::Stored(None));
    assert_eq!(bench.stored(), ["{__name__=\"b\"} 1 @3", "{__name__=\"a\"} 1 @3"]);
}

#[test]
fn series_are_not_recognised_under_other_options() {
    let bench = Bench::new();
    bench.send(&[gauge("a.b", 1, 1.0)]);
    bench.send(&[gauge("a.b", 2, 1.0)]);
    assert_eq!(bench.stored(), ["{__name__=\"a_b\"} 1 @1", "{__name__=\"a_b\"} 1 @2"]);
    let resource_attributes = vec![("service.name".to_owned(), "x".to_owned())];
    bench.receiver.set_options(Options { resource_attributes, ..Options::default() }, Span(7));
    bench.send(&[gauge("a.b", 3, 1.0)]);
    assert_eq!(bench.stored(), ["{__name__=\"a_b\", job=\"x\"} 1 @3"]);
    bench.receiver.set_options(Options::default(), Span(7));
    bench.send(&[gauge("a.b", 4, 1.0)]);
    assert_eq!(bench.stored(), ["{__name__=\"a_b\"} 1 @4"]);
}

#[test]
fn what_could_not_be_stored_may_be_sent_again() {
    let bench = Bench::new();
    bench.send(&[delta("d", 1, 10, 2.0)]);
    *bench.store.failure.lock() = Some(AppendError::DiskFull("x".into()));
    let answer = bench.send(&[delta("d", 10, 20, 3.0)]);
    assert_eq!(answer, Answer::Later { message: "disk full: x".into(), seconds: 5 });
    *bench.store.failure.lock() = None;
    assert_eq!(bench.send(&[delta("d", 10, 20, 3.0)]), Answer::Stored(None));
    assert_eq!(bench.stored().last().unwrap(), "{__name__=\"d_total\"} 5 @20 since 1");
}

#[test]
fn differences_are_summed_up_in_order_of_time() {
    let bench = Bench::new();
    bench.send(&[delta("d", 10, 20, 3.0), delta("d", 1, 10, 2.0)]);
    assert_eq!(
        bench.stored(),
        ["{__name__=\"d_total\"} 2 @10 since 1", "{__name__=\"d_total\"} 5 @20 since 1",]
    );
    let answer = bench.send(&[delta("d", 10, 20, 3.0)]);
    let Answer::Stored(Some(partial)) = answer else { panic!("{answer:?}") };
    assert_eq!(partial.rejected_points, 1, "the same again is no second amount");
    bench.store.series.lock()[0] = None;
    bench.send(&[delta("d", 20, 30, 1.0)]);
    assert_eq!(
        bench.stored(),
        ["{__name__=\"d_total\"} 6 @30 since 1"],
        "added once for one that was forgotten"
    );
}

#[test]
fn differences_of_histograms_are_summed_up() {
    let bench = Bench::new();
    let histogram = |at, offset| {
        json!({"name": "h", "exponentialHistogram": {
            "aggregationTemporality": 1,
            "dataPoints": [{
                "timeUnixNano": ms(at), "count": 3, "sum": 5, "scale": 0,
                "positive": {"offset": offset, "bucketCounts": [1, 2]},
            }],
        }})
    };
    bench.send(&[histogram(10, 0)]);
    bench.send(&[histogram(20, 1)]);
    assert_eq!(
        bench.stored(),
        [
            "{__name__=\"h\"} {count:3, sum:5, (1,2]:1, (2,4]:2} @10 since 10",
            "{__name__=\"h\"} {count:6, sum:10, (1,2]:1, (2,4]:3, (4,8]:2} @20 since 10",
        ]
    );
}

#[test]
fn series_without_news_are_forgotten() {
    let bench = Bench::new();
    bench.send(&[delta("d", 1, 10, 2.0)]);
    bench.clock.advance(Span(16 * 60_000));
    bench.send(&[delta("e", 1, 10, 1.0)]);
    assert_eq!(bench.receiver.shown_streams.get(), 1);
    bench.stored();
    bench.send(&[delta("d", 10, 20, 2.0)]);
    assert_eq!(
        bench.stored(),
        ["{__name__=\"d_total\"} 2 @20 since 10"],
        "a counter that began anew"
    );
}

#[test]
fn bodies_that_are_no_requests_are_refused() {
    let bench = Bench::new();
    let receive = |encoding, body: &[u8]| {
        let content = Content { encoding, compression: Compression::Identity };
        bench.receiver.receive(content, body, bench.receiver.enter())
    };
    for (encoding, body) in [(Encoding::Protobuf, b"\x0a\xff".as_slice()), (Encoding::Json, b"{")] {
        let Answer::Refused { code, message } = receive(encoding, body) else { panic!("stored") };
        assert_eq!(code, Code::InvalidArgument);
        assert!(message.contains("no OTLP metrics request"), "{message}");
    }
    assert_eq!(receive(Encoding::Protobuf, b""), Answer::Stored(None));
    let many = vec![b' '; JSON_BYTES_MAX + 1];
    let Answer::Refused { code, .. } = receive(Encoding::Json, &many) else { panic!("stored") };
    assert_eq!(code, Code::ResourceExhausted);
    let Answer::Later { .. } = receive(Encoding::Json, &many[..JSON_BYTES_MAX / 2]) else {
        panic!("there is no room for it")
    };
}
