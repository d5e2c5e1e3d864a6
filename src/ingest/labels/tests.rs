use stint_model::clock::SimClock;
use stint_model::{AppendError, Appended, Appender, Sample};

use super::super::{Limits, Pipeline};
use super::*;
use crate::config::tests_support::policy;
use crate::metrics::Metrics;

/// Gives every label set a handle, and says whose samples came.
#[derive(Default)]
struct Store(Mutex<(Vec<Labels>, Vec<String>)>);

impl Appender for Store {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        let (known, rows) = &mut *self.0.lock();
        let mut appended = Appended::default();
        for row in &batch.rows {
            let at = match &row.series {
                SeriesKey::Known(series) => series.0 as usize - 1,
                SeriesKey::Labels(labels) => {
                    known.iter().position(|other| other == labels).unwrap_or_else(|| {
                        known.push(labels.clone());
                        known.len() - 1
                    })
                }
            };
            let end = if row.sample.value == Value::Stale { " stale" } else { "" };
            rows.push(format!("{}{end}", known[at]));
            appended.refs.push(Some(SeriesRef(at as u64 + 1)));
        }
        Ok(appended)
    }
}

struct Bench {
    store: Arc<Store>,
    pipeline: Pipeline,
    metrics: Metrics,
}

fn bench() -> Bench {
    let store = Arc::new(Store::default());
    let metrics = Metrics::new();
    let clock = Arc::new(SimClock::at(Timestamp(5)));
    let pipeline =
        Pipeline::new(Arc::clone(&store) as Arc<dyn Appender>, clock, Limits::default(), &metrics);
    Bench { store, pipeline, metrics }
}

fn required(toml: &str) -> RequiredLabels {
    policy(toml, &[]).unwrap().labels
}

const RULES: &str = "[labels.required.environment]\nvalue = \"dev\"\nallowed = [\"dev\", \"prod\"]\n\
                     [labels.required.service]\npattern = \"[a-z]+\"\n";

impl Bench {
    fn append(&self, keys: &[SeriesKey], value: &Value) -> Appended {
        let mut batch = Batch::default();
        for series in keys {
            let sample = Sample { value: value.clone(), ..Sample::float(Timestamp(1), 0.0) };
            batch.rows.push(Row { series: series.clone(), sample });
        }
        self.pipeline.source("test").append(&batch).unwrap()
    }

    fn stored(&self) -> Vec<String> {
        std::mem::take(&mut self.store.0.lock().1)
    }

    fn counted(&self) -> Vec<(String, f64)> {
        let families = self.metrics.registry().gather();
        let family = families.iter().find(|f| f.name().contains("label_violations"));
        let metrics = family.map(prometheus::proto::MetricFamily::get_metric).unwrap_or_default();
        let text = |metric: &prometheus::proto::Metric| {
            let values: Vec<_> =
                metric.get_label().iter().map(prometheus::proto::LabelPair::value).collect();
            (values.join(" "), metric.get_counter().get_value())
        };
        metrics.iter().map(text).collect()
    }
}

fn named(pairs: &[(&str, &str)]) -> SeriesKey {
    let pairs = pairs.iter().copied().chain([("__name__", "x")]);
    SeriesKey::Labels(Labels::from_pairs(pairs))
}

#[test]
fn missing_labels_are_added_and_wrong_ones_listed() {
    let bench = bench();
    let labels = bench.pipeline.labels();
    labels.begin(&required(RULES));
    let series = [
        named(&[("service", "api"), ("job", "a")]),
        named(&[("environment", "test"), ("job", "a")]),
        named(&[("environment", "test"), ("service", "X"), ("job", "a")]),
    ];
    bench.append(&series, &Value::Float(1.0));
    assert_eq!(
        bench.stored(),
        [
            r#"{__name__="x", environment="dev", job="a", service="api"}"#,
            r#"{__name__="x", environment="test", job="a"}"#,
            r#"{__name__="x", environment="test", job="a", service="X"}"#,
        ]
    );
    let rows = |report: &LabelReport| {
        let row =
            |row: &Violation| format!("{}={} {} {}", row.label, row.found, row.job, row.series);
        report.violations.iter().map(row).collect::<Vec<_>>()
    };
    let expected = ["environment=test a 2", "service= a 1", "service=X a 1"];
    assert_eq!(rows(&labels.report()), expected);
    let counts = [
        ("environment not_allowed".to_owned(), 2.0),
        ("service missing".to_owned(), 1.0),
        ("service not_allowed".to_owned(), 1.0),
    ];
    assert_eq!(bench.counted(), counts);
    // Those that come again, after a restart of their sender for instance, are the same series.
    bench.append(&series, &Value::Float(1.0));
    assert_eq!(
        (rows(&labels.report()), bench.counted()),
        (expected.map(str::to_owned).to_vec(), counts.to_vec())
    );
}

#[test]
fn what_rules_remember_of_alerts_is_left_as_it_is() {
    let bench = bench();
    let labels = bench.pipeline.labels();
    labels.begin(&required(RULES));
    let state = [("__name__", "ALERTS_FOR_STATE"), ("alertname", "a")];
    bench.append(&[SeriesKey::Labels(Labels::from_pairs(state))], &Value::Float(1.0));
    assert_eq!(bench.stored(), [r#"{__name__="ALERTS_FOR_STATE", alertname="a"}"#]);
    assert!(labels.report().violations.is_empty());
}

#[test]
fn a_change_of_the_rules_reaches_series_that_are_known() {
    let bench = bench();
    let labels = bench.pipeline.labels();
    let refs = bench
        .append(&[named(&[("service", "a")]), named(&[("service", "b")])], &Value::Float(1.0))
        .refs;
    let known = |at: usize| SeriesKey::Known(refs[at].unwrap());
    assert!(bench.append(&[known(0), known(1)], &Value::Float(1.0)).rejected.is_empty());
    labels.change(&required("[labels]\nwithhold = false\n"));
    assert!(bench.append(&[known(0)], &Value::Float(1.0)).rejected.is_empty(), "nothing changed");
    labels.change(&required(RULES));
    bench.stored();
    let appended =
        bench.append(&[known(0), named(&[("service", "b")]), known(1)], &Value::Float(1.0));
    let reasons: Vec<_> = appended.rejected.iter().map(|r| (r.row, r.reason)).collect();
    assert_eq!(reasons, [(0, RejectReason::UnknownSeries), (2, RejectReason::UnknownSeries)]);
    let new = appended.refs[1].unwrap();
    assert_eq!(bench.stored(), [r#"{__name__="x", environment="dev", service="b"}"#]);
    // The end of a series from before is told, and what came with labels is known from now on.
    assert!(bench.append(&[known(0)], &Value::Stale).rejected.is_empty());
    assert!(bench.append(&[SeriesKey::Known(new)], &Value::Float(1.0)).rejected.is_empty());
    assert_eq!(bench.stored().len(), 2);
}

#[test]
fn the_report_is_bounded() {
    let bench = bench();
    let labels = bench.pipeline.labels();
    labels.begin(&required("[labels.required.service]\npattern = \"none\"\n"));
    for at in 0..ROWS_MAX + 3 {
        bench.append(&[named(&[("service", &at.to_string())])], &Value::Float(1.0));
    }
    let report = labels.report();
    assert_eq!((report.violations.len(), report.left_out), (ROWS_MAX, 3));
}
