use super::*;
use proptest::prelude::*;

fn series(body: &[u8]) -> Vec<TimeSeries<'_>> {
    decode(body)
        .filter_map(|item| match item.unwrap() {
            Item::Series(series) => Some(series),
            Item::Metadata(_) => None,
        })
        .collect()
}

#[test]
fn a_request_comes_back() {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "node")]);
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("trace_id", "abc")]),
        value: 0.5,
        at: Timestamp(-7),
    };
    let metadata =
        Metadata { kind: MetricType::Gauge, help: "Is it up?".into(), unit: String::new() };
    let mut encoder = Encoder::new();
    encoder
        .series(&labels)
        .float(Timestamp(1000), 1.0)
        .sample(&Sample::stale(Timestamp(2000)))
        .exemplar(&exemplar);
    encoder.metadata("up", &metadata);
    encoder.encoded_series(&encode_labels(&labels)).float(Timestamp(0), 0.0);

    let items: Vec<_> = decode(encoder.body()).map(Result::unwrap).collect();
    let [Item::Series(first), Item::Metadata(family), Item::Series(second)] = &items[..] else {
        panic!("unexpected items {items:?}");
    };
    assert_eq!(first.label_bytes, second.label_bytes);
    let pairs: Vec<_> = first.labels().map(Result::unwrap).collect();
    assert_eq!(Labels::from_sorted(pairs), Some(labels));
    let samples: Vec<_> = first.samples().map(Result::unwrap).collect();
    assert_eq!(samples, [Sample::float(Timestamp(1000), 1.0), Sample::stale(Timestamp(2000))]);
    assert_eq!(first.exemplars().map(Result::unwrap).collect::<Vec<_>>(), [exemplar]);
    assert_eq!(family.to_model(), ("up".to_owned(), metadata));
    let samples: Vec<_> = second.samples().map(Result::unwrap).collect();
    assert_eq!(samples, [Sample::float(Timestamp(0), 0.0)]);
}

#[test]
fn labels_with_samples_in_between_have_one_key() {
    let (a, b) = (encode_labels([("a", "1")]), encode_labels([("b", "2")]));
    let mut message = a.clone();
    proto::put_bytes(&mut message, 2, &[]);
    message.extend_from_slice(&b);
    let mut body = Vec::new();
    proto::put_bytes(&mut body, 1, &message);
    let all = series(&body);
    assert_eq!(all[0].label_bytes, [a, b].concat());
    let mut labels = Vec::new();
    all[0].labels_into(&mut labels).unwrap();
    assert_eq!(labels, [("a", "1"), ("b", "2")]);
}

#[test]
fn labels_of_any_length_belong_to_the_key() {
    let long = "x".repeat(200);
    let labels = [("a", "1"), ("b", long.as_str()), ("c", "2")];
    let mut encoder = Encoder::new();
    encoder.series(labels).float(Timestamp(1), 2.0);
    let all = series(encoder.body());
    assert_eq!(all[0].label_bytes, encode_labels(labels));
    assert_eq!(all[0].labels().map(Result::unwrap).collect::<Vec<_>>(), labels);
    assert_eq!(all[0].samples().collect::<Vec<_>>(), [Ok(Sample::float(Timestamp(1), 2.0))]);
    assert_eq!((all[0].histograms().count(), all[0].exemplars().count()), (0, 0));
    let cut = [LABEL_TAG, 5, 1, 2];
    assert!(TimeSeries::new(&cut).is_err(), "a label that ends behind its series");
}

#[test]
fn bad_text_spoils_one_series_and_bad_structure_the_request() {
    let mut label = Vec::new();
    proto::put_bytes(&mut label, 1, b"\xff");
    let mut message = Vec::new();
    proto::put_bytes(&mut message, 1, &label);
    let mut body = Vec::new();
    proto::put_bytes(&mut body, 1, &message);
    let error = series(&body)[0].labels().next().unwrap().unwrap_err();
    assert!(error.is_local(), "{error}");

    body.extend_from_slice(&[0x0a, 200]);
    let last = decode(&body).last().unwrap();
    assert_eq!(last.unwrap_err(), DecodeError::Truncated);
}

proptest! {
    #[test]
    fn floats_come_back_bit_for_bit(
        points in proptest::collection::vec((any::<i64>(), any::<u64>()), 0..20),
        name in ".{0,300}",
    ) {
        let mut encoder = Encoder::new();
        let mut open = encoder.series([("__name__", name.as_str())]);
        for (at, bits) in &points {
            open.float(Timestamp(*at), f64::from_bits(*bits));
        }
        drop(open);
        let all = series(encoder.body());
        prop_assert_eq!(all[0].labels().next().unwrap().unwrap().1, &name);
        let back: Vec<_> = all[0]
            .samples()
            .map(|sample| match sample.unwrap() {
                Sample { at, value: Value::Float(value), .. } => (at.as_ms(), value.to_bits()),
                sample => (sample.at.as_ms(), stale_nan().to_bits()),
            })
            .collect();
        prop_assert_eq!(back, points);
    }

    #[test]
    fn garbage_is_walked_without_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = 0;
        for item in decode(&body).map_while(Result::ok) {
            if let Item::Series(series) = item {
                bytes += series.label_bytes.len();
                let _ = (series.labels().count(), series.samples().count());
                let _ = (series.histograms().count(), series.exemplars().count());
            }
        }
        prop_assert!(bytes <= body.len());
    }
}
