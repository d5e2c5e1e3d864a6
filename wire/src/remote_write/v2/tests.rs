use super::*;
use proptest::prelude::*;

fn read(series: &TimeSeries<'_, '_>) -> (Labels, Vec<Sample>, Vec<Exemplar>, Metadata) {
    let mut labels = Vec::new();
    series.labels_into(&mut labels).unwrap();
    let samples = series.samples().chain(series.histograms()).map(Result::unwrap).collect();
    let exemplars = series.exemplars().map(Result::unwrap).collect();
    (Labels::from_sorted(labels).unwrap(), samples, exemplars, series.metadata().unwrap())
}

#[test]
fn numbers_of_the_caller_make_the_same_request() {
    let texts = ["__name__", "up", "job", "node", "down", "other"];
    let sets = [[0, 1, 2, 3], [0, 4, 2, 3], [0, 1, 2, 5]];
    let (mut plain, mut numbered) = (Encoder::new(), Encoder::new());
    // The second request has other symbols for the same numbers.
    for sets in [&sets[..], &sets[1..]] {
        plain.clear();
        numbered.clear();
        for (at, set) in sets.iter().enumerate() {
            let sample = Sample::float(Timestamp(at as i64 + 1), 1.0);
            let pairs = set.chunks(2).map(|pair| (texts[pair[0]], texts[pair[1]]));
            plain.series(pairs, None).sample(&sample);
            let numbers = set.iter().map(|number| *number as u32);
            numbered.numbered_series(numbers, |number| texts[number as usize]).sample(&sample);
        }
        let (mut want, mut got) = (Vec::new(), Vec::new());
        plain.finish_into(&mut want);
        numbered.finish_into(&mut got);
        assert_eq!(got, want);
    }
}

#[test]
fn a_request_comes_back() {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "node")]);
    let metadata =
        Metadata { kind: MetricType::Counter, help: "node".into(), unit: "seconds".into() };
    let exemplar =
        Exemplar { labels: Labels::from_pairs([("job", "trace")]), value: -1.0, at: Timestamp(5) };
    let sample =
        Sample { at: Timestamp(2000), started: Some(Timestamp(1000)), value: Value::Float(2.5) };
    let mut encoder = Encoder::new();
    encoder.series(&labels, Some(&metadata)).sample(&sample).exemplar(&exemplar);
    encoder.series(&labels, None).sample(&Sample::stale(Timestamp(1)));
    let mut body = Vec::new();
    encoder.finish_into(&mut body);
    assert_eq!(body.len(), encoder.size_bytes());
    assert_eq!(encoder.finish(), body);

    let request = decode(&body).unwrap();
    // "", __name__, up, job, node, seconds, trace
    assert_eq!(request.symbols(), 7);
    let all: Vec<_> = request.series().map(|series| read(&series.unwrap())).collect();
    assert_eq!(
        all,
        [
            (labels.clone(), vec![sample], vec![exemplar], metadata),
            (labels, vec![Sample::stale(Timestamp(1))], vec![], Metadata::default()),
        ]
    );
}

#[test]
fn bad_references_spoil_one_series() {
    let check = |references: &[u8], expected: DecodeError| {
        let mut series = Vec::new();
        proto::put_bytes(&mut series, 1, references);
        let mut body = Vec::new();
        // Series before symbols: the order of fields is free.
        proto::put_bytes(&mut body, 5, &series);
        proto::put_bytes(&mut body, 4, b"");
        proto::put_bytes(&mut body, 4, b"\xff");
        let request = decode(&body).unwrap();
        let series = request.series().next().unwrap().unwrap();
        let error = series.labels_into(&mut Vec::new()).unwrap_err();
        assert!(error.is_local());
        assert_eq!(error, expected);
    };
    check(&[0, 2], DecodeError::Symbol { reference: 2, symbols: 2 });
    check(&[0, 0, 0], DecodeError::OddReferences(3));
    check(&[0, 1], DecodeError::Utf8("symbol"));
}

#[test]
fn a_request_of_version_1_has_no_series() {
    let mut encoder = super::super::v1::Encoder::new();
    encoder.series([("__name__", "up")]).float(Timestamp(1), 1.0);
    assert_eq!(decode(encoder.body()).unwrap().series().count(), 0);
}

proptest! {
    #[test]
    fn garbage_is_walked_without_panic(body in proptest::collection::vec(0_u8..64, 0..300)) {
        let Ok(request) = decode(&body) else { return Ok(()) };
        prop_assert!(request.symbols() <= body.len());
        for series in request.series().map_while(Result::ok) {
            let _ = (series.labels_into(&mut Vec::new()), series.metadata());
            let _ = (series.samples().count(), series.histograms().count());
            let _ = series.exemplars().count();
        }
    }
}

#[test]
fn fields_of_every_length_are_completed() {
    let lengths = [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000];
    for length in lengths {
        let (mut got, mut want) = (vec![9], vec![9]);
        let start = open(&mut got, 4);
        got.resize(start + length, 7);
        close(&mut got, start);
        proto::put_bytes(&mut want, 4, &vec![7; length]);
        assert!(got == want, "{length}");
    }
}
