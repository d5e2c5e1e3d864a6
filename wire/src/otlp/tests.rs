//! Whole requests. `testdata/everything.*` is one request in both encodings, as Google's Protobuf
//! library for Python writes it.

use std::collections::HashMap;
use std::fmt::Write as _;

use proptest::prelude::{Strategy as Strategy_, any, prop, prop_assert_eq, proptest};
use stint_model::Value;

use super::*;
use crate::proto::put_bytes;

const EVERYTHING: &[u8] = include_bytes!("testdata/everything.pb");
const EVERYTHING_IN_JSON: &[u8] = include_bytes!("testdata/everything.json");

/// Writes down all that it is told.
#[derive(Debug, Default, PartialEq)]
struct Notes(Vec<String>);

impl Sink for Notes {
    type Error = std::convert::Infallible;

    fn family(&mut self, name: &str, about: Metadata) -> Result<(), Self::Error> {
        self.0.push(format!("# {name} {} {:?} {:?}", about.kind, about.unit, about.help));
        Ok(())
    }

    fn row(&mut self, row: Row<'_>) -> Result<(), Self::Error> {
        let labels: Vec<_> =
            row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert!(row.labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
        let value = match &row.sample.value {
            Value::Float(value) => value.to_string(),
            Value::Stale => "stale".into(),
            Value::Histogram(histogram) => {
                format!("{} {}", histogram.schema(), histogram.to_float())
            }
        };
        let started = row.sample.started.map(|at| format!(" since {}", at.0)).unwrap_or_default();
        let delta = if row.is_delta { " delta" } else { "" };
        let point = row.point.map(|point| point.to_string()).unwrap_or_default();
        let mut text =
            format!("{point}: {} = {value} @{}{started}{delta}", labels.join(" "), row.sample.at.0);
        for exemplar in row.exemplars {
            let _ = write!(text, " # {} {} @{}", exemplar.labels, exemplar.value, exemplar.at.0);
        }
        self.0.push(text);
        Ok(())
    }

    fn refused(&mut self, points: u64, reason: &str) {
        self.0.push(format!("refused {points}: {reason}"));
    }

    fn warning(&mut self, warning: Warning) {
        self.0.push(format!("warning: {}", warning.as_str()));
    }
}

/// As [`Notes`], but takes series without labels once it has seen what tells them apart.
#[derive(Debug, Default)]
struct Remembering {
    notes: Notes,
    known: HashMap<Vec<u8>, Vec<(String, String)>>,
    recognised: Option<Vec<(String, String)>>,
    count: usize,
}

impl Sink for Remembering {
    type Error = std::convert::Infallible;

    fn family(&mut self, name: &str, about: Metadata) -> Result<(), Self::Error> {
        self.notes.family(name, about)
    }

    fn recognises(&mut self, identity: &[u8]) -> bool {
        self.recognised = self.known.get(identity).cloned();
        self.recognised.is_some()
    }

    fn row(&mut self, row: Row<'_>) -> Result<(), Self::Error> {
        let Some(labels) = self.recognised.take() else {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let labels: Vec<_> = row.labels.iter().map(owned).collect();
            if let Some(identity) = row.identity {
                let before = self.known.insert(identity.to_vec(), labels);
                assert_eq!(before, None, "it was to be recognised");
            }
            return self.notes.row(row);
        };
        assert!(row.labels.is_empty());
        self.count += 1;
        let labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.notes.row(Row { labels: &labels, ..row })
    }

    fn refused(&mut self, points: u64, reason: &str) {
        self.notes.refused(points, reason);
    }

    fn warning(&mut self, warning: Warning) {
        self.notes.warning(warning);
    }
}

fn notes(body: &[u8], options: &Options) -> Vec<String> {
    let mut notes = Notes::default();
    translate(body, options, &mut notes).unwrap();
    notes.0
}

fn of_json(json: &serde_json::Value, options: &Options) -> Vec<String> {
    notes(&json::to_protobuf(json.to_string().as_bytes()).unwrap(), options)
}

#[test]
fn every_kind_of_point_becomes_rows() {
    assert_eq!(
        notes(EVERYTHING, &Options::default()),
        [
            "# process_memory_usage_bytes gauge \"bytes\" \"Memory in use.\"",
            "0: __name__=process_memory_usage_bytes b=AP8= d=0.5 instance=7 job=shop/api \
         list=[\"x\",2] map={\"z\":1.5} n=-3 ok=true state=rss = -5 @1700000000000",
            "# http_requests_total counter \"\" \"\"",
            "1: __name__=http_requests_total code=200 instance=7 job=shop/api = 12.5 @1700000000000 \
         since 1699999940000 # {span_id=\"0001020304050607\", \
         trace_id=\"000102030405060708090a0b0c0d0e0f\", user=\"u\"} 1 @1699999999999",
            "# queue gauge \"\" \"\"",
            "2: __name__=queue instance=7 job=shop/api = 3 @1700000000000 since 1699999940000 delta",
            "# http_duration_seconds histogram \"seconds\" \"\"",
            "3: __name__=http_duration_seconds_sum instance=7 job=shop/api = 7.25 @1700000000000 since 1699999940000",
            "3: __name__=http_duration_seconds_count instance=7 job=shop/api = 6 @1700000000000 since 1699999940000",
            "3: __name__=http_duration_seconds_bucket instance=7 job=shop/api le=0.5 = 1 @1700000000000 since 1699999940000",
            "3: __name__=http_duration_seconds_bucket instance=7 job=shop/api le=10 = 3 @1700000000000 \
         since 1699999940000 # {span_id=\"0001020304050607\", \
         trace_id=\"000102030405060708090a0b0c0d0e0f\"} 0.75 @1700000000000",
            "3: __name__=http_duration_seconds_bucket instance=7 job=shop/api le=+Inf = 6 @1700000000000 since 1699999940000",
            "# size_bytes histogram \"bytes\" \"\"",
            // Scale 9 is folded to 8: indexes -3 | -2, -1 | 0 and 5 become -1, 0, 1 and 3.
            "4: __name__=size_bytes instance=7 job=shop/api = 8 {count:13, sum:99, \
         [-1.0081558981184175,-1.0054299011128027):5, \
         [-1e-128,1e-128]:2, (0.9945994234836328,0.9972960560854698]:1, \
         (0.9972960560854698,1]:2, (1,1.0027112750502025]:3} @1700000000000 since 1699999940000",
            "# latency_milliseconds summary \"milliseconds\" \"\"",
            "5: __name__=latency_milliseconds_sum instance=7 job=shop/api = 8.5 @1700000000000 since 1699999940000",
            "5: __name__=latency_milliseconds_count instance=7 job=shop/api = 4 @1700000000000 since 1699999940000",
            "5: __name__=latency_milliseconds instance=7 job=shop/api quantile=0.5 = 2 @1700000000000 since 1699999940000",
            "5: __name__=latency_milliseconds instance=7 job=shop/api quantile=0.99 = 3.5 @1700000000000 since 1699999940000",
            "# gone gauge \"\" \"\"",
            "6: __name__=gone instance=7 job=shop/api = stale @1700000000000",
            ": __name__=target_info host_cpus=4 host_name=a instance=7 job=shop/api = 1 @1700000000000",
        ]
    );
}

#[test]
fn both_encodings_say_the_same() {
    let options = Options { promote_scope_metadata: true, ..Options::default() };
    let json = json::to_protobuf(EVERYTHING_IN_JSON).unwrap();
    let expected = notes(EVERYTHING, &options);
    assert_eq!(notes(&json, &options), expected);
    assert!(expected[1].contains("otel_scope_k=v otel_scope_name=lib otel_scope_schema_url=s"));
}

#[test]
fn series_are_recognised_when_they_come_again() {
    let mut remembering = Remembering::default();
    let rows = notes(EVERYTHING, &Options::default());
    let is_row = |text: &&String| text.contains(": ") && !text.contains("refused");
    let of_points = rows.iter().filter(|text| !text.starts_with(['#', ':'])).filter(is_row);
    let cumulative = of_points.filter(|text| !text.contains(" delta")).count();
    assert!(cumulative > 10, "{rows:#?}");
    for expected in [0, cumulative] {
        translate(EVERYTHING, &Options::default(), &mut remembering).unwrap();
        let seen = std::mem::take(&mut remembering.notes).0;
        assert_eq!(seen, notes(EVERYTHING, &Options::default()));
        assert_eq!(remembering.count, expected, "{rows:#?}");
    }
}

#[test]
fn histograms_may_become_native_ones() {
    let options = Options { convert_histograms_to_nhcb: true, ..Options::default() };
    let rows = notes(EVERYTHING, &options);
    let row = rows.iter().find(|row| row.contains("=http_duration_seconds ")).unwrap();
    assert!(
        row.contains("= -53 {count:6, sum:7.25, [-Inf,0.5]:1, (0.5,10]:2, (10,+Inf]:3}"),
        "{row}"
    );
}

/// One metric of one resource.
fn metric(metric: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})
}

#[test]
fn what_cannot_be_translated_is_refused_alone() {
    let point = || serde_json::json!({"timeUnixNano": "1000000", "asDouble": 1});
    let options = Options::default();
    let refused = |json| of_json(&metric(&json), &options);
    assert_eq!(
        refused(serde_json::json!({"name": "x", "sum": {"dataPoints": [point(), point()]}})),
        ["refused 2: invalid temporality and type combination for metric \"x\""],
    );
    let nameless = serde_json::json!({"name": "..", "gauge": {"dataPoints": [point()]}});
    assert!(refused(nameless)[0].starts_with("refused 1: metric: the name \"..\""));
    let bad = serde_json::json!({
        "timeUnixNano": 1_000_000, "asDouble": 1,
        "attributes": [{"key": "ö", "value": {"stringValue": "x"}}],
    });
    let some = serde_json::json!({"name": "x", "gauge": {"dataPoints": [bad, point()]}});
    let found = refused(some);
    assert!(found[1].starts_with("refused 1: metric \"x\": the name \"ö\""), "{found:?}");
    assert_eq!(found[2], "1: __name__=x = 1 @1");
    let coarse = serde_json::json!({"name": "x", "exponentialHistogram": {
        "aggregationTemporality": 2, "dataPoints": [{"scale": -5}],
    }});
    assert!(refused(coarse)[1].contains("Scale must be >= -4, was -5"));
    for (counts, problem) in [("[1]", "1 bucket counts, not 3"), ("[1,2,3,4]", "4 bucket counts")] {
        let counts: serde_json::Value = serde_json::from_str(counts).unwrap();
        let short = serde_json::json!({"name": "x", "histogram": {
            "aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE",
            "dataPoints": [{"bucketCounts": counts, "explicitBounds": [1, 2]}],
        }});
        assert!(refused(short)[1].contains(problem));
    }
    assert_eq!(
        refused(serde_json::json!({"name": "x", "gauge": {}})),
        ["warning: empty_data_points"],
    );
}

#[test]
fn text_that_is_not_utf8_costs_only_its_metric() {
    let mut bad = Vec::new();
    put_bytes(&mut bad, 1, b"\xff");
    put_bytes(&mut bad, 5, b"\x0a\x00\x0a\x00");
    let mut good = Vec::new();
    put_bytes(&mut good, 1, b"x");
    put_bytes(&mut good, 5, b"\x0a\x00");
    let mut scope = Vec::new();
    put_bytes(&mut scope, 2, &bad);
    put_bytes(&mut scope, 2, &good);
    let (mut resource, mut request) = (Vec::new(), Vec::new());
    put_bytes(&mut resource, 2, &scope);
    put_bytes(&mut request, 1, &resource);
    assert_eq!(
        notes(&request, &Options::default()),
        ["refused 2: Metric is not valid UTF-8", "# x gauge \"\" \"\"", "0: __name__=x = 0 @0",]
    );
}

#[test]
fn target_info_reaches_over_all_points_within_bounds() {
    let points: Vec<_> = [0_u64, 400, 1_000_000]
        .iter()
        .map(|seconds| serde_json::json!({"timeUnixNano": seconds * 1_000_000_000}))
        .collect();
    let request = |points: &[serde_json::Value]| {
        serde_json::json!({"resourceMetrics": [{
            "resource": {"attributes": [
                {"key": "service.name", "value": {"stringValue": "a"}},
                {"key": "zone", "value": {"stringValue": "b"}},
            ]},
            "scopeMetrics": [{"metrics": [{"name": "x", "gauge": {"dataPoints": points}}]}],
        }]})
    };
    let infos = |points: &[serde_json::Value]| {
        let rows = of_json(&request(points), &Options::default());
        let infos = rows.into_iter().filter(|row| row.contains("target_info"));
        infos.map(|row| row.rsplit('@').next().unwrap().parse().unwrap()).collect::<Vec<i64>>()
    };
    assert_eq!(infos(&points[..2]), [0, 150_000, 300_000, 400_000]);
    let all = infos(&points);
    assert_eq!((all.len(), all.last()), (66, Some(&1_000_000_000)));
    assert!(all.is_sorted_by(|a, b| a < b));
}

/// Requests in which much is alike.
fn requests() -> impl Strategy_<Value = serde_json::Value> {
    use serde_json::{Value as Json, json};
    let attribute = ("[abxy._]{1,2}", "[pq]{0,1}")
        .prop_map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}));
    let attributes = || prop::collection::vec(attribute.clone(), 0..4);
    let point = (attributes(), 0..4_u32, any::<bool>(), prop::option::of(0..9_u64)).prop_map(
        |(attributes, value, has_start, flags)| {
            json!({
                "attributes": attributes, "asInt": value, "timeUnixNano": "5000000",
                "startTimeUnixNano": if has_start { "1000000" } else { "0" },
                "flags": flags.unwrap_or(0),
                "exemplars": if value == 3 { vec![json!({"asDouble": 1})] } else { vec![] },
                "count": value, "sum": value % 2, "scale": value,
                "explicitBounds": (0..value).collect::<Vec<_>>(), "bucketCounts": vec![1; value as usize + 1],
                "positive": {"offset": value, "bucketCounts": [value]},
                "quantileValues": (0..value).map(|of| json!({"quantile": of, "value": of})).collect::<Vec<_>>(),
            })
        },
    );
    let metric = ("[mn]", "[sBy1]{0,2}", 0..8_u8, prop::collection::vec(point, 0..4)).prop_map(
        |(name, unit, kind, points)| {
            let sum = |temporality: u8, is_monotonic: bool| {
                json!({"dataPoints": points, "aggregationTemporality": temporality,
                    "isMonotonic": is_monotonic})
            };
            match kind {
                0 => json!({"name": name, "unit": unit, "gauge": {"dataPoints": points}}),
                1 => json!({"name": name, "unit": unit, "sum": sum(2, true)}),
                2 => json!({"name": name, "unit": unit, "sum": sum(2, false)}),
                3 => json!({"name": name, "unit": unit, "sum": sum(1, true)}),
                4 => json!({"name": name, "unit": unit, "histogram": sum(2, true)}),
                5 => json!({"name": name, "unit": unit, "exponentialHistogram": sum(2, true)}),
                6 => json!({"name": name, "unit": unit, "histogram": sum(1, true)}),
                _ => json!({"name": name, "unit": unit, "summary": {"dataPoints": points}}),
            }
        },
    );
    let metrics = prop::collection::vec(metric, 0..4);
    let scope = ("[st]{0,1}", attributes(), metrics).prop_map(|(name, attributes, metrics)| {
        json!({"scope": {"name": name, "attributes": attributes}, "metrics": metrics})
    });
    let service = prop::option::of("[uv]").prop_map(|name: Option<String>| {
        name.map(|name| json!({"key": "service.name", "value": {"stringValue": name}}))
    });
    let resource = (attributes(), service, prop::collection::vec(scope, 0..3)).prop_map(
        |(mut attributes, service, scopes)| {
            attributes.extend(service);
            json!({"resource": {"attributes": attributes}, "scopeMetrics": scopes})
        },
    );
    prop::collection::vec(resource, 0..4)
        .prop_map(|resources: Vec<Json>| json!({"resourceMetrics": resources}))
}

proptest! {
    /// A series that is recognised is the one that its labels would have told.
    #[test]
    fn recognising_series_changes_nothing(
        bodies in prop::collection::vec(requests(), 1..4), promotes in any::<bool>(),
        converts in any::<bool>(),
    ) {
        let options = Options {
            convert_histograms_to_nhcb: converts,
            promote_scope_metadata: promotes,
            promotion: Promotion::Only(if promotes { vec!["a".into()] } else { Vec::new() }),
            ..Options::default()
        };
        let mut remembering = Remembering::default();
        for body in bodies.iter().chain(&bodies) {
            let body = json::to_protobuf(body.to_string().as_bytes()).unwrap();
            translate(&body, &options, &mut remembering).unwrap();
            let seen = std::mem::take(&mut remembering.notes).0;
            prop_assert_eq!(seen, notes(&body, &options));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        flips in prop::collection::vec((0..EVERYTHING.len(), any::<u8>()), 0..6),
        cut in 0..EVERYTHING.len(),
    ) {
        let mut body = EVERYTHING.to_vec();
        for (at, byte) in flips {
            body[at] = byte;
        }
        for options in [Options::default(), Options {
            convert_histograms_to_nhcb: true,
            promote_scope_metadata: true,
            strategy: Strategy::None,
            ..Options::default()
        }] {
            let mut remembering = Remembering::default();
            let first = translate(&body, &options, &mut remembering).is_ok();
            let plain = std::mem::take(&mut remembering.notes);
            let second = translate(&body, &options, &mut remembering).is_ok();
            prop_assert_eq!((first, plain), (second, remembering.notes));
            let _ = translate(&body[..cut], &options, &mut Notes::default());
        }
    }

    #[test]
    fn no_text_makes_json_panic(at in 0..EVERYTHING_IN_JSON.len(), byte in any::<u8>()) {
        let mut body = EVERYTHING_IN_JSON.to_vec();
        body[at] = byte;
        if let Ok(body) = json::to_protobuf(&body) {
            let _ = translate(&body, &Options::default(), &mut Notes::default());
        }
    }
}
