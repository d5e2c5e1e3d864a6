use std::sync::Arc;

use stint_model::Labels;
use stint_model::histogram::BucketSpan;

use super::*;

fn check(value: &QueryValue, expected: &str) {
    let mut written = Vec::new();
    push_open_data(&mut written, value);
    let written = String::from_utf8(written).unwrap() + "}";
    assert_eq!(written, expected);
    serde_json::from_str::<serde_json::Value>(&written).unwrap();
}

fn labels() -> Labels {
    Labels::from_pairs([("__name__", "up"), ("job", "a\"b")])
}

fn histogram() -> Arc<FloatHistogram> {
    Arc::new(FloatHistogram {
        schema: 0,
        zero_threshold: 0.5,
        zero_count: 2.0,
        count: 7.0,
        sum: -1.5,
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_buckets: vec![3.0, 0.0],
        negative_spans: vec![BucketSpan { offset: 1, length: 1 }],
        negative_buckets: vec![2.0],
        ..FloatHistogram::default()
    })
}

const HISTOGRAM: &str = concat!(
    r#"{"count":"7","sum":"-1.5","buckets":[[1,"-2","-1","2"],"#,
    r#"[3,"-0.5","0.5","2"],[0,"1","2","3"]]}"#
);

#[test]
fn scalars_and_strings_have_plain_times() {
    let at = Timestamp(1_435_781_451_780);
    check(
        &QueryValue::Scalar { at, value: 1e21 },
        r#"{"resultType":"scalar","result":[1435781451.78,"1000000000000000000000"]}"#,
    );
    check(
        &QueryValue::String { at, value: "a\"b".into() },
        r#"{"resultType":"string","result":[1435781451.78,"a\"b"]}"#,
    );
}

#[test]
fn nothing_is_an_empty_list() {
    check(&QueryValue::Vector(vec![]), r#"{"resultType":"vector","result":[]}"#);
    check(&QueryValue::Matrix(vec![]), r#"{"resultType":"matrix","result":[]}"#);
}

#[test]
fn vectors_have_one_sample_per_series() {
    let at = Timestamp(1500);
    let samples = vec![
        InstantSample { labels: labels(), at, value: SampleValue::Float(f64::NAN) },
        InstantSample { labels: Labels::default(), at, value: SampleValue::Histogram(histogram()) },
    ];
    let expected = format!(
        "{}{}{HISTOGRAM}]}}]}}",
        r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a\"b"},"#,
        r#""value":[1.500,"NaN"]},{"metric":{},"histogram":[1.500,"#
    );
    check(&QueryValue::Vector(samples), &expected);
}

#[test]
fn series_have_only_the_kinds_of_samples_they_have() {
    let series = vec![
        RangeSeries {
            labels: labels(),
            floats: vec![(Timestamp(1000), 1.0), (Timestamp(2000), 1e-7)],
            histograms: vec![],
        },
        RangeSeries {
            labels: Labels::default(),
            floats: vec![],
            histograms: vec![(Timestamp(0), Arc::new(FloatHistogram::default()))],
        },
    ];
    let expected = concat!(
        r#"{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a\"b"},"#,
        r#""values":[[1,"1"],[2,"1e-07"]]},"#,
        r#"{"metric":{},"histograms":[[0,{"count":"0","sum":"0"}]]}]}"#
    );
    check(&QueryValue::Matrix(series), expected);
}

#[test]
fn a_limit_cuts_series() {
    let sample =
        InstantSample { labels: labels(), at: Timestamp(0), value: SampleValue::Float(1.0) };
    let mut value = QueryValue::Vector(vec![sample; 3]);
    assert!(!truncate(&mut value, 0) && !truncate(&mut value, 3));
    assert!(truncate(&mut value, 2));
    assert!(matches!(&value, QueryValue::Vector(samples) if samples.len() == 2));
}

#[test]
fn series_of_other_times_have_their_own() {
    let series = |times: &[i64]| RangeSeries {
        labels: Labels::default(),
        floats: times.iter().map(|at| (Timestamp(*at), 0.5)).collect(),
        histograms: vec![],
    };
    let all = [&[1000, 2000, 3500][..], &[1000, 4000], &[1000, 4000, 5000], &[2000]];
    let expected = all.map(|times| {
        let samples: Vec<String> = times
            .iter()
            .map(|at| match at % 1000 {
                0 => format!("[{},\"0.5\"]", at / 1000),
                rest => format!("[{}.{rest},\"0.5\"]", at / 1000),
            })
            .collect();
        format!(r#"{{"metric":{{}},"values":[{}]}}"#, samples.join(","))
    });
    check(
        &QueryValue::Matrix(all.map(series).to_vec()),
        &format!(r#"{{"resultType":"matrix","result":[{}]}}"#, expected.join(",")),
    );
}
