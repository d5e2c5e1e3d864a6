use super::super::fetch::Room;
use super::super::target::Built;
use super::super::testing::{Store, text};
use super::read::SERIES_BYTES_MAX;
use super::*;
use crate::config::tests_support::job;
use crate::discovery::{ADDRESS, TargetGroup};
use stint_model::clock::SimClock;
use stint_model::{Labels, MetricType, Value};

mod native;

struct Bench {
    store: Arc<Store>,
    clock: Arc<SimClock>,
    metrics: crate::metrics::Metrics,
    recorder: Recorder,
    now: i64,
}

fn target(job: &ScrapeConfig) -> Arc<Target> {
    let labels = Labels::from_pairs([("zone", "z")]);
    let group = TargetGroup { source: String::new(), targets: Vec::new(), labels };
    match Target::build(job, &group, &Labels::from_pairs([(ADDRESS, "a:1")])) {
        Built::Active(target) => Arc::new(*target),
        other => panic!("{other:?}"),
    }
}

fn task(job: &Arc<ScrapeConfig>) -> Task {
    Task {
        job: Arc::clone(job),
        target: target(job),
        out_of_order_window: Span::ZERO,
        failure_log: None,
    }
}

fn bench(keys: &str) -> Bench {
    // The job's and the target's labels are kept out of the way where they do not matter.
    let job = Arc::new(job(keys));
    let store = Arc::new(Store::default());
    let metrics = crate::metrics::Metrics::new();
    let clock = Arc::new(SimClock::at(Timestamp(0)));
    let appender = Arc::clone(&store) as Arc<dyn Appender>;
    let recorder = Recorder::new(
        task(&job),
        appender,
        Arc::clone(&clock) as Arc<dyn Clock>,
        ScrapeMetrics::new(&metrics, &(Arc::clone(&clock) as Arc<dyn Clock>)),
        Arc::default(),
    );
    Bench { store, clock, metrics, recorder, now: 0 }
}

impl Bench {
    fn outcome(&mut self, outcome: Result<Fetched, FetchError>) -> Option<String> {
        self.now += 1000;
        let began = self.clock.monotonic();
        self.clock.advance(Span(250));
        let scrape = Scrape { at: Timestamp(self.now), began, outcome };
        self.recorder.record(&scrape).error
    }

    fn scrape(&mut self, body: &str) -> Option<String> {
        self.outcome(Ok(text(body)))
    }

    /// Scrapes, and returns what was stored of the target's own series, its labels left out.
    fn samples(&mut self, body: &str) -> Vec<String> {
        assert_eq!(self.scrape(body), None);
        self.stored()
    }

    fn stored(&self) -> Vec<String> {
        let strip = |row: String| {
            let row = row.replace(", instance=\"a:1\", job=\"j\"", "").replace(", zone=\"z\"", "");
            row.replace("__name__=", "")
        };
        self.store.samples().into_iter().map(strip).collect()
    }
}

#[test]
fn a_scrape_is_one_batch_with_its_report() {
    let mut bench = bench("extra_scrape_metrics: true\nsample_limit: 9");
    assert_eq!(bench.scrape("# TYPE x counter\n# HELP x help\nx{a=\"b\"} 1\ny 2\n"), None);
    let target = "instance=\"a:1\", job=\"j\", zone=\"z\"}";
    let batches = bench.store.take_batches();
    assert_eq!(batches.len(), 1);
    let (family, metadata) = &batches[0].metadata[0];
    assert_eq!((&**family, metadata.kind, &*metadata.help), ("x", MetricType::Counter, "help"));
    assert_eq!(batches[0].metadata.len(), 9, "all families of the report are described");
    assert_eq!(
        bench.store.take(),
        [
            format!("{{__name__=\"scrape_body_size_bytes\", {target} 46 @1000"),
            format!("{{__name__=\"scrape_duration_seconds\", {target} 0.25 @1000"),
            format!("{{__name__=\"scrape_sample_limit\", {target} 9 @1000"),
            format!("{{__name__=\"scrape_samples_post_metric_relabeling\", {target} 2 @1000"),
            format!("{{__name__=\"scrape_samples_scraped\", {target} 2 @1000"),
            format!("{{__name__=\"scrape_series_added\", {target} 2 @1000"),
            format!("{{__name__=\"scrape_timeout_seconds\", {target} 10 @1000"),
            format!("{{__name__=\"up\", {target} 1 @1000"),
            format!("{{__name__=\"x\", a=\"b\", {target} 1 @1000"),
            format!("{{__name__=\"y\", {target} 2 @1000"),
        ]
    );
}

#[test]
fn known_series_are_sent_by_handle() {
    let mut bench = bench("");
    bench.scrape("x 1\ny 2\n");
    bench.store.take_batches();
    bench.scrape("x 3\ny 4\n");
    let batches = bench.store.take_batches();
    let by_handle = |row: &stint_model::Row| matches!(row.series, stint_model::SeriesKey::Known(_));
    assert!(batches[0].rows.iter().all(by_handle), "{batches:?}");
    assert_eq!(batches[0].rows.len(), 7);
    assert!(batches[0].metadata.is_empty());
}

#[test]
fn what_vanishes_ends_once() {
    let mut bench = bench("");
    assert_eq!(bench.samples("x 1\ny 2\n"), [r#"{"x"} 1"#, r#"{"y"} 2"#]);
    assert_eq!(bench.samples("x 1\n"), [r#"{"x"} 1"#, r#"{"y"} stale"#]);
    assert_eq!(bench.samples("x 1\n"), [r#"{"x"} 1"#]);
    assert_eq!(bench.samples("x 1\ny 5\n"), [r#"{"x"} 1"#, r#"{"y"} 5"#]);
}

#[test]
fn a_failed_scrape_ends_everything() {
    let mut bench = bench("");
    bench.samples("x 1\ny 2\n");
    let error = bench.outcome(Err(FetchError::Status("404 Not Found".into())));
    assert_eq!(error.as_deref(), Some("server returned HTTP status 404 Not Found"));
    let rows = bench.store.take();
    assert!(rows.iter().any(|row| row.contains("\"up\"") && row.contains(" 0 @2000")), "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row.contains(" stale ")).count(), 2);
    bench.outcome(Err(FetchError::BodyTooLarge));
    assert_eq!(bench.stored(), Vec::<String>::new());
    assert_eq!(bench.samples("x 3\n"), [r#"{"x"} 3"#]);
}

#[test]
fn a_faulty_body_is_taken_as_none() {
    let mut bench = bench("");
    bench.samples("x 1\n");
    let error = bench.scrape("x 2\nnew 1\n{oops\n").expect("the body is faulty");
    assert!(error.contains("line 3"), "{error}");
    assert_eq!(bench.stored(), [r#"{"x"} stale"#]);
    assert_eq!(bench.samples("x 2\nnew 1\n"), [r#"{"new"} 1"#, r#"{"x"} 2"#]);
}

#[test]
fn a_body_of_unknown_type_needs_a_fallback() {
    let html = || {
        Ok(Fetched {
            content_type: "text/html".into(),
            body: b"x 1\n".to_vec(),
            room: Room::default(),
        })
    };
    let error = bench("").outcome(html()).expect("the type is unknown");
    assert!(error.contains("no fallback_scrape_protocol"), "{error}");
    let mut bench = bench("fallback_scrape_protocol: PrometheusText0.0.4");
    assert_eq!(bench.outcome(html()), None);
    assert_eq!(bench.stored(), [r#"{"x"} 1"#]);
}

#[test]
fn exposed_labels_give_way_or_win() {
    let body = "x{job=\"own\",exported_job=\"old\",zone=\"\"} 1\n";
    let mut bench = bench("");
    bench.scrape(body);
    assert_eq!(
        bench.store.samples(),
        [
            r#"{__name__="x", exported_exported_job="own", exported_job="old", instance="a:1", job="j", zone="z"} 1"#
        ]
    );
    let mut bench = super::tests::bench("honor_labels: true");
    bench.scrape(body);
    assert_eq!(
        bench.store.samples(),
        [r#"{__name__="x", exported_job="old", instance="a:1", job="own"} 1"#]
    );
}

#[test]
fn exposed_times_count_only_when_honoured() {
    let mut bench = bench("");
    bench.scrape("x 1 500\n");
    assert!(bench.store.take().iter().any(|row| row.contains("\"x\"") && row.ends_with("@500")));
    // A series with its own time is not ended, unless that is asked for.
    assert_eq!(bench.samples(""), Vec::<String>::new());

    let mut bench = super::tests::bench("honor_timestamps: false");
    bench.scrape("x 1 500\n");
    assert!(bench.store.take().iter().any(|row| row.contains("\"x\"") && row.ends_with("@1000")));
    assert_eq!(bench.samples(""), [r#"{"x"} stale"#]);

    let mut bench = super::tests::bench("track_timestamps_staleness: true");
    bench.samples("x 1 500\n");
    assert_eq!(bench.samples(""), [r#"{"x"} stale"#]);
}

#[test]
fn metric_relabelling_drops_and_renames() {
    let mut bench = bench(
        "metric_relabel_configs:
- {source_labels: [__name__], regex: go_.*, action: drop}
- {source_labels: [__name__], regex: (.*)_old, target_label: __name__, replacement: $1}",
    );
    for value in [1, 2] {
        let body = format!("go_x {value}\nx_old {value}\n");
        assert_eq!(bench.samples(&body), [format!("{{\"x\"}} {value}")]);
    }
    bench.scrape("go_x 1\nx_old 1\n");
    let rows = bench.store.take();
    let value = |name: &str| {
        let row = rows.iter().find(|row| row.contains(&format!("\"{name}\"")));
        row.and_then(|row| row.rsplit(' ').nth(1)).map(str::to_owned)
    };
    assert_eq!(value("scrape_samples_scraped").as_deref(), Some("2"));
    assert_eq!(value("scrape_samples_post_metric_relabeling").as_deref(), Some("1"));
    assert_eq!(value("scrape_series_added").as_deref(), Some("0"));
}

#[test]
fn the_same_series_under_another_text_does_not_end() {
    let mut bench = bench("");
    assert_eq!(bench.samples("x{a=\"1\",b=\"2\"} 1\n"), [r#"{"x", a="1", b="2"} 1"#]);
    assert_eq!(bench.samples("x{b=\"2\",a=\"1\"} 2\n"), [r#"{"x", a="1", b="2"} 2"#]);
    assert_eq!(bench.samples("x{b=\"2\", a=\"1\"} 3\nx{b=\"2\",a=\"1\"} 3\n").len(), 1);
    assert_eq!(bench.samples(""), [r#"{"x", a="1", b="2"} stale"#]);
}

#[test]
fn a_series_that_comes_twice_counts_once() {
    let mut bench = bench("");
    for _ in 0..2 {
        assert_eq!(bench.samples("x 1\nx 2\n"), [r#"{"x"} 1"#]);
    }
    bench.scrape("y 1 100\ny 2 200\n");
    let rows = bench.store.take();
    assert_eq!(rows.iter().filter(|row| row.contains("\"y\"")).count(), 2, "{rows:?}");
}

#[test]
fn limits_fail_the_whole_scrape() {
    let fail = |keys: &str, body: &str, text: &str| {
        let mut bench = bench(keys);
        assert_eq!(bench.scrape(body).as_deref(), Some(text));
        assert_eq!(bench.stored(), Vec::<String>::new());
    };
    fail("sample_limit: 2", "a 1\nb 1\nc 1\n", "sample limit exceeded");
    fail(
        "label_limit: 4",
        "a{b=\"c\"} 1\n",
        "label_limit exceeded (metric: a, number of labels: 5, limit: 4)",
    );
    fail(
        "label_name_length_limit: 8",
        "a{b23456789=\"c\"} 1\n",
        "label_name_length_limit exceeded (metric: a, label name: b23456789, length: 9, limit: 8)",
    );
    fail(
        "label_value_length_limit: 3",
        "a{b=\"cdef\"} 1\n",
        "label_value_length_limit exceeded (metric: a, label name: b, value: \"cdef\", length: 4, \
         limit: 3)",
    );
    fail(
        "metric_relabel_configs: [{regex: __name__, action: labeldrop}]",
        "a 1\n",
        "missing metric name (__name__ label)",
    );
    let mut bench = bench("sample_limit: 2");
    bench.samples("a 1\nb 1\n");
    bench.scrape("a 1\nb 1\nc 1\n");
    assert_eq!(bench.stored(), [r#"{"a"} stale"#, r#"{"b"} stale"#]);
}

#[test]
fn a_forgetful_store_is_told_again() {
    let mut bench =
        bench("metric_relabel_configs: [{source_labels: [__name__], regex: d, action: drop}]");
    bench.samples("x 1\ny 1\nd 1\n");
    bench.store.forget();
    assert_eq!(
        bench.samples("x 2\ny 2\nd 2\nnew 2\n"),
        [r#"{"new"} 2"#, r#"{"x"} 2"#, r#"{"y"} 2"#]
    );
    bench.store.take_batches();
    assert_eq!(bench.samples("x 3\ny 3\nd 3\n").len(), 3);
    let batches = bench.store.take_batches();
    assert_eq!(batches.len(), 1, "all handles are known again");
    assert_eq!(batches[0].rows.len(), 8);
    // The report's handles are forgotten even when nothing else is there.
    bench.samples("");
    bench.store.forget();
    bench.scrape("");
    assert_eq!(bench.store.take().len(), 5);
}

#[test]
fn nothing_is_believed_stored_when_the_store_fails() {
    let mut bench = bench("");
    bench.samples("x 1\n");
    bench.store.set_broken(true);
    let error = bench.scrape("x 2\ny 2\n");
    assert_eq!(error.as_deref(), Some("cannot store the scrape: broken"));
    bench.store.set_broken(false);
    assert_eq!(bench.samples("y 3\n"), [r#"{"x"} stale"#, r#"{"y"} 3"#]);
}

#[test]
fn bounds_are_normalised_by_type() {
    let mut bench = bench("");
    let histogram = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n";
    assert_eq!(bench.samples(histogram), [r#"{"h_bucket", le="1.0"} 1"#]);
    // The same text without the type is another series; the old one ends.
    assert_eq!(
        bench.samples("h_bucket{le=\"1\"} 2\n"),
        [r#"{"h_bucket", le="1"} 2"#, r#"{"h_bucket", le="1.0"} stale"#]
    );
}

#[test]
fn exemplars_without_a_time_have_that_of_their_sample() {
    let time_of = |keys: &str| {
        let mut bench = bench(keys);
        let body = "# TYPE x counter\nx_total 1 0.25 # {t=\"a\"} 0.5\n# EOF\n";
        let content_type = "application/openmetrics-text; version=1.0.0".to_owned();
        let fetched =
            Fetched { content_type, body: body.as_bytes().to_vec(), room: Room::default() };
        assert_eq!(bench.outcome(Ok(fetched)), None);
        bench.store.take_batches()[0].exemplars[0].exemplars[0].at
    };
    assert_eq!(time_of(""), Timestamp(250));
    assert_eq!(time_of("honor_timestamps: false"), Timestamp(1000));
}

#[test]
fn exemplars_go_with_their_row() {
    let mut bench = bench("");
    let long = "v".repeat(128);
    let body = format!(
        "# TYPE x counter\nx_total 1 # {{trace_id=\"t\"}} 0.5 12.5\nx_total{{a=\"b\"}} 1 # {{a=\"{long}\"}} 1\n# EOF\n"
    );
    let content_type = "application/openmetrics-text; version=1.0.0".to_owned();
    let fetched = Fetched { content_type, body: body.into_bytes(), room: Room::default() };
    assert_eq!(bench.outcome(Ok(fetched)), None);
    let batch = bench.store.take_batches().remove(0);
    assert_eq!(batch.exemplars.len(), 1);
    assert_eq!(
        (batch.exemplars[0].row, batch.exemplars[0].exemplars[0].at),
        (0, Timestamp(12_500))
    );
}

#[test]
fn a_new_configuration_ends_what_it_does_not_show_again() {
    let mut bench = bench("");
    bench.samples("x 1\ny 1\n");
    let rules = "metric_relabel_configs: [{source_labels: [__name__], regex: y, target_label: __name__, replacement: z}]";
    let new = Arc::new(job(rules));
    bench.recorder.adopt(task(&new));
    assert_eq!(bench.samples("x 2\ny 2\n"), [r#"{"x"} 2"#, r#"{"y"} stale"#, r#"{"z"} 2"#]);
    // A change that touches no label keeps all handles.
    let new = Arc::new(job(&format!("scrape_interval: 5s\n{rules}")));
    bench.store.take_batches();
    bench.recorder.adopt(task(&new));
    assert_eq!(bench.samples("x 3\ny 3\n").len(), 2);
    assert_eq!(bench.store.take_batches().len(), 1);
}

#[test]
fn a_body_that_fails_again_adds_no_series_again() {
    let mut bench = bench("");
    let mut added = |body: &str, fails: bool| {
        assert_eq!(bench.scrape(body).is_some(), fails);
        let rows = bench.store.take();
        let row = rows.into_iter().find(|row| row.contains("scrape_series_added")).unwrap();
        row.rsplit(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(added("x 1\ny 1\n{oops\n", true), "2");
    assert_eq!(added("x 1\ny 1\n{oops\n", true), "0");
    assert_eq!(added("x 1\ny 1\n", false), "2", "now they are stored");
    assert_eq!(added("x 1\ny 1\nz 1\n{oops\n", true), "1");
}

#[test]
fn another_limit_of_samples_keeps_all_handles() {
    let mut bench = bench("");
    bench.samples("x 1\ny 1\n");
    bench.store.take_batches();
    bench.recorder.adopt(task(&Arc::new(job("sample_limit: 2\nbody_size_limit: 1MB"))));
    bench.samples("x 2\ny 2\n");
    let batches = bench.store.take_batches();
    let by_handle = |row: &stint_model::Row| matches!(row.series, stint_model::SeriesKey::Known(_));
    assert!(batches[0].rows.iter().all(by_handle), "{batches:?}");
    // What is no longer taken is found out by looking at labels again.
    bench.recorder.adopt(task(&Arc::new(job("label_value_length_limit: 2"))));
    assert!(bench.scrape("x 3\ny{a=\"long\"} 3\n").is_some());
}

#[test]
fn the_end_of_a_target_ends_its_report_too() {
    let mut bench = bench("");
    bench.samples("x 1\n");
    bench.recorder.end(Timestamp(5000));
    let rows = bench.store.take();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| row.ends_with(" stale @5000")), "{rows:?}");
    bench.recorder.end(Timestamp(6000));
    assert!(bench.store.take().is_empty());
}

#[test]
fn a_bad_body_is_not_told_to_a_forgetful_store() {
    let mut bench = bench("");
    bench.samples("x 1\n");
    bench.store.forget();
    assert!(bench.scrape("x 2\n{oops\n").is_some());
    assert_eq!(bench.stored(), Vec::<String>::new());
    assert_eq!(bench.samples("x 3\n"), [r#"{"x"} 3"#]);
}

proptest::proptest! {
    /// Whatever the order, what is there is stored, and what has vanished ends once.
    #[test]
    fn order_does_not_matter(
        scrapes in proptest::collection::vec(
            (proptest::collection::vec(0..6_u8, 0..9), 0..8_u8),
            1..12,
        ),
    ) {
        let mut bench = bench("metric_relabel_configs: [{source_labels: [i], regex: '5', action: drop}]");
        let mut live = std::collections::BTreeSet::new();
        for (series, fate) in scrapes {
            let lines: Vec<_> = series.iter().map(|i| format!("x{{i=\"{i}\"}} {i}\n")).collect();
            let mut body = lines.concat();
            let mut present: std::collections::BTreeSet<u8> =
                series.into_iter().filter(|i| *i != 5).collect();
            if fate == 0 {
                body.push_str("{oops\n");
                present.clear();
            } else if fate == 1 {
                // A store that forgets takes no marker of what has vanished.
                bench.store.forget();
                live.clear();
            }
            let mut expected: Vec<String> =
                present.iter().map(|i| format!("{{\"x\", i=\"{i}\"}} {i}")).collect();
            expected.extend(live.difference(&present).map(|i| format!("{{\"x\", i=\"{i}\"}} stale")));
            expected.sort();
            proptest::prop_assert_eq!(bench.scrape(&body).is_some(), fate == 0);
            proptest::prop_assert_eq!(bench.stored(), expected);
            live = present;
        }
    }
}

#[test]
fn an_empty_body_is_a_good_one_of_any_type() {
    let mut bench = bench("");
    bench.scrape("x 1\n");
    bench.store.take();
    let empty =
        Fetched { body: Vec::new(), content_type: "nonsense".into(), room: Room::default() };
    assert_eq!(bench.outcome(Ok(empty)), None);
    let stored = bench.store.take();
    assert!(stored[0].contains("\"scrape_duration_seconds\""), "{stored:?}");
    assert!(
        stored.iter().any(|row| row.contains("\"x\"") && row.contains(" stale ")),
        "{stored:?}"
    );
    assert!(stored.iter().any(|row| row.contains("\"up\"") && row.contains(" 1 @")), "{stored:?}");
    bench.scrape("x 2\n");
    let stored = bench.store.take();
    let added = |row: &&String| row.contains("\"scrape_series_added\"");
    assert!(stored.iter().find(added).unwrap().contains(" 0 @"), "it is not new: {stored:?}");
}

#[test]
fn what_is_no_sample_of_its_own_counts_for_no_limit() {
    let mut bench = bench("sample_limit: 2");
    assert_eq!(bench.samples("x 1\nx 2\nx 3\ny 4\n"), ["{\"x\"} 1", "{\"y\"} 4"]);
    assert_eq!(bench.scrape("x 1\ny 2\nz 3\n"), Some("sample limit exceeded".into()));
}

#[test]
fn a_sample_that_is_not_taken_does_not_track_its_series() {
    let mut bench = bench("");
    bench.samples("x 1 500\nx 2\n");
    assert_eq!(bench.samples("y 1\n"), ["{\"y\"} 1"], "no marker for x");
}

#[test]
fn what_goes_wrong_is_counted() {
    let mut bench = bench("sample_limit: 2\nlabel_limit: 5");
    bench.scrape("x 1\ny 2\nz 3\n");
    bench.scrape("x{a=\"1\",b=\"2\"} 1\n");
    bench.outcome(Err(FetchError::BodyTooLarge));
    bench.scrape("x 1 3000\n");
    bench.scrape("x 1 2000\n");
    let text = bench.metrics.render();
    for line in [
        "prometheus_target_scrapes_exceeded_sample_limit_total 1\n",
        "prometheus_target_scrape_pool_exceeded_label_limits_total 1\n",
        "prometheus_target_scrapes_exceeded_body_size_limit_total 1\n",
        "prometheus_target_scrapes_sample_out_of_order_total 1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn markers_are_never_late() {
    let mut bench = bench("");
    bench.recorder.batch.out_of_order_window = Span(60_000);
    assert_eq!(bench.samples("a 1\nb 1\n").len(), 2);
    bench.store.take_batches();
    assert_eq!(bench.samples("a 2\n"), ["{\"a\"} 2", "{\"b\"} stale"]);
    let is_stale = |row: &stint_model::Row| matches!(row.sample.value, Value::Stale);
    for batch in bench.store.take_batches() {
        let windowed = batch.out_of_order_window > Span::ZERO;
        assert!(!(windowed && batch.rows.iter().any(is_stale)), "{batch:?}");
    }
}

#[test]
fn a_summary_that_becomes_a_histogram_gets_its_bounds_normalised() {
    let mut bench = bench("");
    let body = |kind: &str| format!("# TYPE x {kind}\nx_bucket{{le=\"1\"}} 1\n");
    bench.samples(&body("summary"));
    let stored = bench.samples(&body("histogram")).join(" ");
    assert!(stored.contains("le=\"1.0\""), "{stored}");
}

#[test]
fn what_stands_for_more_text_than_is_sane_fails_the_scrape() {
    let mut bench = bench("");
    let labels: Vec<String> = (0..5000).map(|n| format!("a{n}=\"\"")).collect();
    let error = bench.scrape(&format!("x{{{}}} 1\n", labels.join(","))).unwrap();
    assert!(error.contains("5001 labels"), "{error}");
    let long = "v".repeat(SERIES_BYTES_MAX);
    let error = bench.scrape(&format!("x{{a=\"{long}\"}} 1\n")).unwrap();
    assert!(error.contains("too long"), "{error}");
}

#[test]
fn metadata_that_could_not_be_stored_comes_with_the_next_scrape() {
    let mut bench = bench("");
    bench.store.set_broken(true);
    assert!(bench.scrape("# HELP x help\nx 1\n").is_some());
    bench.store.set_broken(false);
    assert_eq!(bench.scrape("# HELP x help\nx 1\n"), None);
    let batches = bench.store.take_batches();
    assert!(batches[0].metadata.iter().any(|(family, _)| family == "x"), "{batches:?}");
}

#[test]
fn dropped_series_of_failing_scrapes_do_not_pile_up() {
    let mut bench = bench(
        "metric_relabel_configs: [{source_labels: [__name__], regex: 'drop.*', action: drop}]",
    );
    assert_eq!(bench.scrape("drop_always 1\n"), None);
    for n in 0..100 {
        assert!(bench.scrape(&format!("drop_{n} 1\n}} broken\n")).is_some());
    }
    assert_eq!(bench.recorder.cache.len(), 1);
}

#[test]
fn a_series_that_comes_with_a_time_of_its_own_ends_as_one_without() {
    let mut bench = bench("");
    assert_eq!(bench.samples("x 1\n"), ["{\"x\"} 1"]);
    assert_eq!(bench.samples("x 2 1500\n"), ["{\"x\"} 2", "{\"x\"} stale"]);
    assert_eq!(bench.samples("x 3 2500\n"), ["{\"x\"} 3"], "it ends once");
}

#[test]
fn an_exemplar_without_a_time_is_taken_once() {
    let mut bench = bench("");
    let mut exemplars = |exemplar: &str| {
        let body = format!("# TYPE x counter\nx_total 1 # {exemplar}\n# EOF\n").into_bytes();
        let content_type = "application/openmetrics-text; version=1.0.0".to_owned();
        assert_eq!(bench.outcome(Ok(Fetched { content_type, body, room: Room::default() })), None);
        let batches = bench.store.take_batches();
        batches
            .iter()
            .flat_map(|batch| &batch.exemplars)
            .map(|of| of.exemplars.len())
            .sum::<usize>()
    };
    let shown = ["{t=\"a\"} 1", "{t=\"a\"} 1", "{t=\"b\"} 1", "{t=\"b\"} 2", "{t=\"b\"} 2"];
    assert_eq!(shown.map(&mut exemplars), [1, 0, 1, 1, 0]);
    let timed = ["{t=\"c\"} 1 1.5", "{t=\"c\"} 1 2.5"];
    assert_eq!(timed.map(exemplars), [1, 1]);
}
