//! The same families, written in all three formats, say the same.

use std::fmt::Write as _;

use super::*;
use crate::exposition::{ClassicHistograms, Finished, HistogramEntry};

/// A family without what only one of the formats can say.
#[derive(Clone, Debug)]
struct Shown {
    name: String,
    kind: Kind,
    metrics: Vec<ShownMetric>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Untyped,
    Summary,
    Histogram,
}

#[derive(Clone, Debug)]
struct ShownMetric {
    labels: Vec<(String, String)>,
    value: f64,
    /// Observations per bucket or quantile, the last one above all bounds.
    counts: Vec<u32>,
    seconds: Option<u32>,
}

fn metric() -> impl Strategy<Value = ShownMetric> {
    let value = prop_oneof![
        any::<f64>(),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::NAN),
        (0..1000_u32).prop_map(f64::from),
    ];
    let text = "[a-z\"\\\\\n ü{},=#]{1,6}";
    let labels = prop::collection::btree_map("[a-d]|ü x", text, 0..3);
    let counts = prop::collection::vec(0..9_u32, 1..6);
    (labels, value, counts, prop::option::of(1..1_000_000_u32)).prop_map(
        |(labels, value, counts, seconds)| ShownMetric {
            labels: labels.into_iter().collect(),
            value,
            counts,
            seconds,
        },
    )
}

fn families() -> impl Strategy<Value = Vec<Shown>> {
    let kind = prop::sample::select(vec![
        Kind::Counter,
        Kind::Gauge,
        Kind::Untyped,
        Kind::Summary,
        Kind::Histogram,
    ]);
    let family = (kind, prop::collection::vec(metric(), 1..4), any::<bool>());
    prop::collection::vec(family, 1..5).prop_map(|families| {
        let named = families.into_iter().enumerate().map(|(at, (kind, mut metrics, plain))| {
            for (number, metric) in metrics.iter_mut().enumerate() {
                // Each metric of a family has its own labels.
                metric.labels.push(("n".into(), number.to_string()));
            }
            let name = if plain { format!("m{at}") } else { format!("m.{at} ü") };
            let name = if kind == Kind::Counter { name + "_total" } else { name };
            Shown { name, kind, metrics }
        });
        named.collect()
    })
}

/// Bounds, or quantiles, of so many counts; without the last one.
fn bounds(counts: &[u32]) -> Vec<f64> {
    (0..counts.len() - 1).map(|at| [0.005, 0.5, 1.0, 2.5, 1e6][at]).collect()
}

fn text(families: &[Shown], open: bool) -> String {
    let mut out = String::new();
    let quoted = |text: &str| {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("\"{escaped}\"")
    };
    for family in families {
        let word = match (family.kind, open) {
            (Kind::Counter, _) => "counter",
            (Kind::Gauge, _) => "gauge",
            (Kind::Untyped, true) => "unknown",
            (Kind::Untyped, false) => "untyped",
            (Kind::Summary, _) => "summary",
            (Kind::Histogram, _) => "histogram",
        };
        let base = if open { family.name.trim_end_matches("_total") } else { &family.name };
        writeln!(out, "# TYPE {} {word}", quoted(base)).unwrap();
        for metric in &family.metrics {
            let mut line = |suffix: &str, bound: Option<(&str, String)>, value: String| {
                write!(out, "{{{}", quoted(&format!("{}{suffix}", family.name))).unwrap();
                for (name, value) in &metric.labels {
                    write!(out, ",{}={}", quoted(name), quoted(value)).unwrap();
                }
                if let Some((name, bound)) = bound {
                    write!(out, ",{name}=\"{bound}\"").unwrap();
                }
                write!(out, "}} {value}").unwrap();
                match metric.seconds {
                    Some(seconds) if open => write!(out, " {seconds}").unwrap(),
                    Some(seconds) => write!(out, " {seconds}000").unwrap(),
                    None => {}
                }
                out.push('\n');
            };
            let number = |value: f64| match value {
                f64::INFINITY => "+Inf".to_owned(),
                f64::NEG_INFINITY => "-Inf".to_owned(),
                value => format!("{value:?}"),
            };
            let all: u32 = metric.counts.iter().sum();
            match family.kind {
                Kind::Counter | Kind::Gauge | Kind::Untyped => line("", None, number(metric.value)),
                Kind::Summary => {
                    line("_count", None, all.to_string());
                    line("_sum", None, number(metric.value));
                    for (bound, value) in bounds(&metric.counts).into_iter().zip(&metric.counts) {
                        line("", Some(("quantile", bound.to_string())), value.to_string());
                    }
                }
                Kind::Histogram => {
                    let mut below = 0;
                    for (bound, own) in bounds(&metric.counts).into_iter().zip(&metric.counts) {
                        below += own;
                        line("_bucket", Some(("le", bound.to_string())), below.to_string());
                    }
                    line("_bucket", Some(("le", "+Inf".into())), all.to_string());
                    line("_sum", None, number(metric.value));
                    line("_count", None, all.to_string());
                }
            }
        }
    }
    if open {
        out.push_str("# EOF\n");
    }
    out
}

fn protobuf(families: &[Shown]) -> Vec<u8> {
    let mut out = Vec::new();
    for family in families {
        let metric = |shown: &ShownMetric| {
            let pair = |(name, value): &(String, String)| LabelPair {
                name: Some(name.clone()),
                value: Some(value.clone()),
            };
            let simple = Some(Simple { value: Some(shown.value), ..Simple::default() });
            let all = Some(shown.counts.iter().map(|count| u64::from(*count)).sum());
            let bounds = bounds(&shown.counts);
            let mut metric = Metric {
                label: shown.labels.iter().map(pair).collect(),
                timestamp_ms: shown.seconds.map(|seconds| i64::from(seconds) * 1000),
                ..Metric::default()
            };
            match family.kind {
                Kind::Counter => metric.counter = simple,
                Kind::Gauge => metric.gauge = simple,
                Kind::Untyped => metric.untyped = simple,
                Kind::Summary => {
                    let quantile = bounds.iter().zip(&shown.counts).map(|(bound, value)| {
                        Quantile { quantile: Some(*bound), value: Some(f64::from(*value)) }
                    });
                    metric.summary = Some(Summary {
                        count: all,
                        sum: Some(shown.value),
                        quantile: quantile.collect(),
                        ..Summary::default()
                    });
                }
                Kind::Histogram => {
                    let mut below = 0;
                    let bucket = bounds.iter().zip(&shown.counts).map(|(bound, own)| {
                        below += u64::from(*own);
                        Bucket { count: Some(below), bound: Some(*bound), ..Bucket::default() }
                    });
                    metric.histogram = Some(WireHistogram {
                        bucket: bucket.collect(),
                        count: all,
                        sum: Some(shown.value),
                        ..WireHistogram::default()
                    });
                }
            }
            metric
        };
        let message = MetricFamily {
            name: Some(family.name.clone()),
            kind: Some(match family.kind {
                Kind::Counter => 0,
                Kind::Gauge => 1,
                Kind::Summary => 2,
                Kind::Untyped => 3,
                Kind::Histogram => 4,
            }),
            metric: family.metrics.iter().map(metric).collect(),
            ..MetricFamily::default()
        };
        out.extend(message.encode_length_delimited_to_vec());
    }
    out
}

/// Everything that would be stored, in one order.
fn stored(format: Format, body: &[u8], convert: bool) -> Vec<String> {
    let mut rows = Vec::new();
    let mut classic = ClassicHistograms::default();
    classic.begin();
    let mut parser = Parser::new(format, body);
    let mut push = |labels: &mut Vec<crate::exposition::Label<'_>>, value: String| {
        labels.sort();
        rows.push(format!("{labels:?} {value}"));
    };
    let histogram =
        |entry: &HistogramEntry<'_>| format!("{:?} {:?}", entry.histogram, entry.timestamp);
    loop {
        let mut finished = None;
        let entry = parser.next().unwrap_or_else(|error| panic!("{error}"));
        let is_last = entry.is_none();
        match entry {
            Some(Entry::Series(entry)) => {
                let is_part = convert && {
                    let taken = classic.series(&entry);
                    finished = taken.finished;
                    taken.is_part
                };
                if !is_part {
                    let mut labels = Vec::new();
                    entry.labels(&mut labels);
                    push(&mut labels, format!("{:x} {:?}", entry.value.to_bits(), entry.timestamp));
                }
            }
            Some(Entry::Type { name, kind }) if convert => finished = classic.family(&name, kind),
            None if convert => finished = classic.end(),
            _ => {}
        }
        match finished {
            Some(Finished::Whole(converted)) => {
                let mut text = String::new();
                let entry = converted.into_entry(&mut text);
                let mut labels = Vec::new();
                entry.labels(&mut labels);
                push(&mut labels, histogram(&entry));
            }
            Some(Finished::Broken) => panic!("a histogram is broken"),
            None => {}
        }
        if is_last {
            rows.sort();
            return rows;
        }
    }
}

proptest! {
    #[test]
    fn all_formats_say_the_same(families in families(), convert in any::<bool>()) {
        let from_text = stored(Format::PrometheusText, text(&families, false).as_bytes(), convert);
        let open = stored(Format::OpenMetrics, text(&families, true).as_bytes(), convert);
        let binary = stored(Format::Protobuf, &protobuf(&families), convert);
        prop_assert_eq!(&from_text, &open);
        prop_assert_eq!(&from_text, &binary);
        prop_assert!(!from_text.is_empty());
    }
}
