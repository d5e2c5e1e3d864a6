use proptest::prelude::*;
use stint_model::Histogram;
use stint_model::histogram::{BucketSpan, FloatHistogram, IntegerHistogram, ResetHint};

use super::*;

fn read(payload: &[u8]) -> Result<Vec<Item>, &'static str> {
    let mut items = Vec::new();
    decode(payload, |item| items.push(item)).map(|()| items)
}

fn write(items: &[Item]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.reset(0);
    for item in items {
        match item {
            Item::Series { id, last_segment, labels } => encoder.series(*id, *last_segment, labels),
            Item::Sample { id, sample } => encoder.sample(*id, sample),
            Item::Metadata { family, metadata } => encoder.metadata(family, metadata),
            Item::Exemplar { id, exemplar } => encoder.exemplar(*id, exemplar),
            Item::FlushBegin { before } => encoder.flush_begin(*before),
            Item::FlushDone { before } => encoder.flush_done(*before),
            Item::Deleted { id, range } => encoder.deleted(*id, *range),
            Item::Checkpoint { next_id, flushed } => encoder.checkpoint(*next_id, *flushed),
            Item::StatesAt { position } => encoder.states_at(*position),
            Item::State { id, state } => encoder.state(*id, |out| out.extend_from_slice(state)),
        }
    }
    encoder.bytes_mut().clone()
}

fn histograms() -> [Histogram; 2] {
    let spans = vec![BucketSpan { offset: -3, length: 2 }, BucketSpan { offset: 5, length: 1 }];
    [
        Histogram::Integer(IntegerHistogram {
            reset_hint: ResetHint::Gauge,
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: 7,
            count: 1 << 40,
            sum: -0.5,
            positive_spans: spans.clone(),
            positive_deltas: vec![1, -1, 5],
            ..IntegerHistogram::default()
        }),
        Histogram::Float(FloatHistogram {
            reset_hint: ResetHint::Reset,
            schema: -53,
            count: 4.5,
            sum: f64::INFINITY,
            negative_spans: spans,
            negative_buckets: vec![0.5, 1.5, 2.5],
            custom_bounds: vec![0.1, 1.0],
            ..FloatHistogram::default()
        }),
    ]
}

#[test]
fn every_item_comes_back() {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "up")]);
    let at = Timestamp(1_700_000_000_123);
    let mut items = vec![
        Item::Checkpoint { next_id: 77, flushed: Timestamp::MIN },
        Item::Series { id: 5, last_segment: 9, labels: labels.clone() },
        Item::Series { id: 6, last_segment: 0, labels: labels.clone() },
        Item::Metadata {
            family: "up".into(),
            metadata: Metadata {
                kind: MetricType::StateSet,
                help: "is it?".into(),
                unit: String::new(),
            },
        },
        Item::Exemplar { id: 6, exemplar: Exemplar { labels, value: 1.5, at } },
        Item::Sample { id: 5, sample: Sample { started: Some(Timestamp(3)), ..Sample::stale(at) } },
        Item::FlushBegin { before: at },
        Item::FlushDone { before: at },
        Item::Deleted { id: 3, range: TimeRange::ALL },
        Item::StatesAt { position: WalPosition { segment: 3, offset: u64::MAX } },
        Item::State { id: 6, state: vec![0, 1, 2, 255] },
    ];
    for histogram in histograms() {
        let value = Value::Histogram(Arc::new(histogram));
        items.push(Item::Sample { id: 6, sample: Sample { at, started: None, value } });
    }
    let payload = write(&items);
    assert_eq!(read(&payload).unwrap(), items);
    for cut in 0..payload.len() {
        if let Ok(fewer) = read(&payload[..cut]) {
            assert!(items.starts_with(&fewer), "cut at {cut}");
        }
    }
}

#[test]
fn a_scraped_sample_takes_few_bytes() {
    let mut encoder = Encoder::default();
    encoder.reset(0);
    for id in 0..1000 {
        encoder.sample(id, &Sample::float(Timestamp(1_700_000_000_000), id as f64 * 0.25));
    }
    let bytes = encoder.bytes_mut().len();
    assert!(bytes < 5000, "{bytes} bytes for 1000 samples");
}

proptest! {
    #[test]
    fn samples_come_back_bit_for_bit(
        rows in prop::collection::vec((0_u64..50, any::<i64>(), any::<u64>(), any::<Option<i64>>()), 0..40),
        small in prop::collection::vec((0_u64..50, 0_i64..10_000_000), 0..40),
    ) {
        let row = |id, at, value, started: Option<i64>| Item::Sample {
            id,
            sample: Sample { started: started.map(Timestamp), ..Sample::float(Timestamp(at), value) },
        };
        let mut items: Vec<Item> =
            rows.into_iter().map(|(id, at, bits, s)| row(id, at, f64::from_bits(bits), s)).collect();
        for (id, number) in small {
            items.push(row(id, 1000, number as f64, None));
            items.push(row(id + 1, 1000, -(number as f64) / 1e3, None));
            items.push(row(id, 1000, number as f64 / 1e6, None));
            items.push(row(id, 1000, (number as f32 * 0.1).into(), None));
        }
        let bits = |items: &[Item]| -> Vec<_> {
            items
                .iter()
                .map(|item| match item {
                    Item::Sample { id, sample: Sample { at, started, value: Value::Float(v) } } => {
                        (*id, *at, *started, v.to_bits())
                    }
                    Item::Sample { id, sample } => (*id, sample.at, sample.started, STALE_NAN_BITS),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        prop_assert_eq!(bits(&read(&write(&items)).unwrap()), bits(&items));
    }

    #[test]
    fn any_bytes_are_read_without_panic(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&payload);
    }
}

#[test]
fn series_told_by_symbols_are_the_same_as_told_by_labels() {
    let (old, new) = (["job", "up", "zone", "a"], ["zone", "a", "job", "up"]);
    let mut encoder = Encoder::default();
    // The second record knows nothing of the first.
    for _ in 0..2 {
        encoder.reset(0);
        let labels = Labels::from_pairs([("job", "a"), ("zone", "up")]);
        encoder.series(1, 0, &labels);
        encoder.symbols_of(7);
        encoder.series_of(2, 5, [(0, 3), (2, 1)].into_iter(), |symbol| old[symbol as usize]);
        // A value that was a name, and names where values were.
        encoder.series_of(3, 6, [(2, 0)].into_iter(), |symbol| old[symbol as usize]);
        encoder.series_of(4, 6, [(0, 3), (2, 1)].into_iter(), |symbol| old[symbol as usize]);
        let told = encoder.bytes_mut().len();
        encoder.series_of(5, 6, [(0, 3), (2, 1)].into_iter(), |_| panic!("it is known"));
        assert_eq!(encoder.bytes_mut().len() - told, 8);
        // An index that was rebuilt.
        encoder.symbols_of(8);
        encoder.series_of(6, 7, [(2, 3), (0, 1)].into_iter(), |symbol| new[symbol as usize]);
        encoder.series(7, 0, &labels);
        let series = |id, last_segment, labels: &Labels| Item::Series {
            id,
            last_segment,
            labels: labels.clone(),
        };
        let zone = Labels::from_pairs([("zone", "job")]);
        assert_eq!(
            read(encoder.bytes_mut()).unwrap(),
            [
                series(1, 0, &labels),
                series(2, 5, &labels),
                series(3, 6, &zone),
                series(4, 6, &labels),
                series(5, 6, &labels),
                series(6, 7, &Labels::from_pairs([("job", "up"), ("zone", "a")])),
                series(7, 0, &labels),
            ]
        );
    }
}
