//! Histograms: classic ones as native ones, and how many buckets they may have.

use super::*;
use stint_model::Value;
use stint_model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, Histogram, IntegerHistogram};

const CLASSIC: &str = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2\"} 3\n\
                       h_bucket{le=\"+Inf\"} 4\nh_sum 5\nh_count 4\n";

fn histograms(bench: &Bench) -> Vec<Histogram> {
    let batches = bench.store.take_batches();
    let rows = batches.iter().flat_map(|batch| &batch.rows);
    rows.filter_map(|row| match &row.sample.value {
        Value::Histogram(histogram) => Some(Histogram::clone(histogram)),
        _ => None,
    })
    .collect()
}

#[test]
fn classic_histograms_become_native_ones_and_end_as_such() {
    let mut bench = bench("convert_classic_histograms_to_nhcb: true\nextra_scrape_metrics: true");
    assert_eq!(
        bench.samples(&format!("{CLASSIC}other 1\n")),
        [r#"{"h"} histogram"#, r#"{"other"} 1"#]
    );
    let found = histograms(&bench);
    let expected = IntegerHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 4,
        sum: 5.0,
        positive_spans: vec![BucketSpan { offset: 0, length: 3 }],
        positive_deltas: vec![1, 1, -1],
        custom_bounds: vec![1.0, 2.0],
        ..IntegerHistogram::default()
    };
    assert_eq!(found, [Histogram::Integer(expected)]);
    // Known by now, and counted as one sample.
    assert_eq!(bench.scrape(CLASSIC), None);
    let rows = bench.store.take();
    let has = |text: &str| rows.iter().any(|row| row.contains(text));
    assert!(has("{__name__=\"h\", instance=\"a:1\", job=\"j\", zone=\"z\"} histogram"), "{rows:?}");
    assert!(
        has("scrape_samples_scraped\", instance=\"a:1\", job=\"j\", zone=\"z\"} 1 "),
        "{rows:?}"
    );
    assert_eq!(bench.samples("other 1\n"), [r#"{"h"} stale"#, r#"{"other"} 1"#]);
    let broken = CLASSIC.replace("h_count 4", "h_count 9");
    assert_eq!(bench.samples(&broken), [r#"{"other"} stale"#]);
    let shown = bench.metrics.registry().gather();
    let broken = shown.iter().find(|family| family.name().ends_with("not_converted_total"));
    assert_eq!(broken.unwrap().get_metric()[0].get_counter().get_value(), 1.0);
}

#[test]
fn classic_series_are_kept_where_that_is_wanted() {
    let keys = "convert_classic_histograms_to_nhcb: true\nalways_scrape_classic_histograms: true";
    let mut bench = bench(keys);
    let rows = bench.samples(CLASSIC);
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert_eq!(rows[0], r#"{"h"} histogram"#);
    bench.store.forget();
    assert_eq!(bench.samples(CLASSIC), rows, "what the store forgot is told again");
}

#[test]
fn relabelling_sees_the_native_histogram() {
    let rule = "{source_labels: [__name__], regex: h, target_label: kind, replacement: native}";
    let keys =
        format!("convert_classic_histograms_to_nhcb: true\nmetric_relabel_configs: [{rule}]");
    let mut bench = bench(&keys);
    assert_eq!(bench.samples(CLASSIC), [r#"{"h", kind="native"} histogram"#]);
}

#[test]
fn exemplars_with_a_time_go_with_the_native_histogram() {
    let mut bench = bench("convert_classic_histograms_to_nhcb: true");
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1 # {t=\"a\"} 0.5\n\
                h_bucket{le=\"+Inf\"} 2 # {t=\"b\"} 5 3.5\nh_count 2\nh_sum 3\n# EOF\n";
    let content_type = "application/openmetrics-text; version=1.0.0".to_owned();
    let fetched = Fetched { content_type, body: body.as_bytes().to_vec(), room: Room::default() };
    assert_eq!(bench.outcome(Ok(fetched)), None);
    let batches = bench.store.take_batches();
    let exemplars = &batches[0].exemplars;
    assert_eq!((exemplars.len(), exemplars[0].exemplars.len()), (1, 1));
    assert_eq!(exemplars[0].exemplars[0].at, Timestamp(3500));
}

#[test]
fn too_many_custom_buckets_fail_the_scrape() {
    let keys = "convert_classic_histograms_to_nhcb: true\nnative_histogram_bucket_limit: ";
    let mut two = bench(&format!("{keys}2"));
    assert_eq!(two.scrape(CLASSIC).as_deref(), Some("histogram bucket limit exceeded"));
    assert_eq!(two.stored(), Vec::<String>::new());
    assert_eq!(two.scrape("x 1\n"), None);
    let mut three = bench(&format!("{keys}3"));
    assert_eq!(three.samples(CLASSIC).len(), 1);
}

/// A protobuf body of one family `h` with `buckets` positive buckets, one observation each.
fn native(schema: i32, buckets: u8) -> Fetched {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend(bytes);
        out
    }
    let zigzag = |value: i32| ((value << 1) ^ (value >> 31)) as u8;
    let mut histogram = vec![1 << 3, buckets, 5 << 3, zigzag(schema)];
    histogram.extend(field(12, &[1 << 3, zigzag(1), 2 << 3, buckets]));
    let mut deltas = vec![zigzag(0); usize::from(buckets)];
    deltas[0] = zigzag(1);
    histogram.extend(field(13, &deltas));
    let mut family = field(1, b"h");
    family.extend([3 << 3, 4]);
    family.extend(field(4, &field(7, &histogram)));
    let mut body = vec![family.len() as u8];
    body.extend(family);
    let content_type = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                        encoding=delimited";
    Fetched { content_type: content_type.to_owned(), body, room: Room::default() }
}

#[test]
fn exponential_buckets_lose_resolution_until_they_fit() {
    let schema_of = |keys: &str, fetched: Fetched| {
        let mut bench = bench(&format!("scrape_native_histograms: true\n{keys}"));
        let error = bench.outcome(Ok(fetched));
        let found = histograms(&bench);
        found.first().map(Histogram::schema).ok_or(error.unwrap_or_default())
    };
    assert_eq!(schema_of("", native(3, 16)), Ok(3));
    assert_eq!(schema_of("native_histogram_bucket_limit: 16", native(3, 16)), Ok(3));
    assert_eq!(schema_of("native_histogram_bucket_limit: 4", native(3, 16)), Ok(1));
    let error = "histogram bucket limit exceeded".to_owned();
    assert_eq!(schema_of("native_histogram_bucket_limit: 1", native(-3, 60)), Err(error));
    // Each bucket is to be at least twice as wide as the one before.
    assert_eq!(schema_of("native_histogram_min_bucket_factor: 2", native(3, 16)), Ok(0));
    assert_eq!(schema_of("native_histogram_min_bucket_factor: 1.1", native(3, 16)), Ok(2));
}
