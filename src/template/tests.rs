//! Whole templates, with the texts that Prometheus makes of them.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value as Json;
use stint_model::clock::SimClock;
use stint_model::{Labels, Sample, Timestamp};
use stint_promql::script::{MemoryStore, conformance_options};
use stint_promql::{Cancel, Engine, InstantQuery, InstantSample, QueryValue, SampleValue};

use super::{QueryFunc, Template, TemplateData};

/// Answers from a store in memory.
struct Store {
    store: MemoryStore,
    engine: Engine,
}

/// When everything in the store was measured.
const NOW: Timestamp = Timestamp(1_700_000_000_000);

impl Store {
    fn new(series: &Json) -> Self {
        let mut store = MemoryStore::new();
        for series in series.as_array().unwrap() {
            let mut labels = labels(&series["labels"]).to_builder();
            labels.set("__name__", series["metric"].as_str().unwrap());
            let value = series["value"].as_f64().unwrap();
            store.append(&labels.build(), Sample::float(NOW, value));
        }
        Self { store, engine: Engine::new(conformance_options()) }
    }
}

impl QueryFunc for Store {
    fn query(&self, expr: &str) -> Result<Vec<InstantSample>, String> {
        let query = InstantQuery { expr, at: NOW, lookback: None };
        let cancel = Cancel::new(Arc::new(SimClock::at(NOW)));
        let answer = self.engine.instant(&self.store, &query, &cancel);
        match answer.map_err(|error| error.to_string())?.value {
            QueryValue::Vector(samples) => Ok(samples),
            QueryValue::Scalar { at, value } => {
                let (labels, value) = (Labels::default(), SampleValue::Float(value));
                Ok(vec![InstantSample { labels, at, value }])
            }
            _ => Err("rule result is not a vector or scalar".to_owned()),
        }
    }
}

fn labels(json: &Json) -> Labels {
    let pairs = json.as_object().unwrap().iter();
    Labels::from_pairs(pairs.map(|(name, value)| (name, value.as_str().unwrap())))
}

/// What a case is expanded with.
struct Setting {
    labels: Labels,
    external: Labels,
    url: String,
    value: SampleValue,
}

impl Setting {
    fn data(&self) -> TemplateData<'_> {
        TemplateData {
            labels: &self.labels,
            value: &self.value,
            external_labels: &self.external,
            external_url: &self.url,
            at: NOW,
        }
    }

    /// The annotation that an alert would get.
    fn annotation(&self, template: &Template, query: &dyn QueryFunc) -> String {
        let expanded = template.expand(&self.data(), query);
        expanded.unwrap_or_else(|error| format!("<error expanding template: {error}>"))
    }
}

/// Texts recorded from Prometheus for templates found in the wild.
fn collection() -> Option<Json> {
    let shared = std::env::var_os("STINT_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = shared.join("rules/templates.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no recorded templates at {} (set STINT_SHARED)", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

/// Functions that newer versions of Prometheus have.
const NEWER: [&str; 4] = ["T0199", "T0212", "T0215", "T0216"];

#[test]
fn templates_found_in_the_wild_make_the_texts_of_prometheus() {
    let Some(collection) = collection() else { return };
    let store = Store::new(&collection["series"]);
    let mut wrong = Vec::new();
    for case in collection["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let text = case["template"].as_str().unwrap();
        let template = match (Template::parse(&format!("__alert_{name}"), text), &case["rejected"])
        {
            (Ok(template), Json::Null) => template,
            (Err(error), Json::String(rejected)) => {
                let message = rejected.split_once(": ").unwrap().1;
                if error != message {
                    wrong.push(format!("{name}: {text}\n  {error}\n  {rejected}"));
                }
                continue;
            }
            (Ok(_), _) if NEWER.contains(&name) => continue,
            (parsed, rejected) => {
                wrong.push(format!("{name}: {text}\n  {parsed:?}\n  {rejected}"));
                continue;
            }
        };
        for (probe, value) in collection["values"].as_object().unwrap() {
            let mut labels = Labels::default().to_builder();
            labels.set("probe", probe);
            if matches!(probe.as_str(), "a" | "b" | "c") {
                // The collection's list leaves out the name of the alert, which the recorded query carried.
                let alertname = text.contains(".alertname").then_some("alertname");
                let listed = case["labels"].as_array().unwrap().iter();
                for label in listed.map(|label| label.as_str().unwrap()).chain(alertname) {
                    let value = &collection["label_values"][label];
                    labels.set(label, value.as_str().unwrap_or_default());
                }
            }
            let setting = Setting {
                labels: labels.build(),
                external: self::labels(&collection["external_labels"]),
                url: collection["external_url"].as_str().unwrap().trim_end_matches('/').to_owned(),
                value: SampleValue::Float(value.as_str().unwrap().parse().unwrap()),
            };
            let annotation = setting.annotation(&template, &store);
            let expected = case["rendered"][probe].as_str().unwrap();
            if annotation != expected {
                wrong.push(format!("{name} {probe}: {text}\n  {annotation}\n  {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// Texts recorded from Prometheus 3.5.3 for the alert of [`setting`], called `Case`.
#[test]
fn templates_of_every_kind_make_the_texts_of_prometheus() {
    let cases: Json = serde_json::from_str(include_str!("recorded.json")).unwrap();
    let store = Store::new(&Json::Array(Vec::new()));
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let text = case["template"].as_str().unwrap();
        let (outcome, expected) = match Template::parse("__alert_Case", text) {
            Ok(template) => (setting().annotation(&template, &store), &case["rendered"]),
            Err(error) => (error, &case["rejected"]),
        };
        if Some(&*outcome) != expected.as_str() {
            wrong.push(format!("{text}\n  {outcome}\n  {case}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

proptest! {
    #[test]
    fn no_text_makes_expanding_panic(
        parts in proptest::collection::vec(prop_oneof![
            Just("{{"), Just("}}"), Just("{{- "), Just(" -}}"), Just("|"), Just("("), Just(")"), Just(" "),
            Just("$labels"), Just(".job"), Just("$x"), Just(":="), Just("="), Just(","), Just("range"),
            Just("end"), Just("if"), Just("with"), Just("else"), Just("define \"a\""), Just("template \"a\""),
            Just("break"), Just("5"), Just("-1.5"), Just("'x'"), Just("\"%5.2f\""), Just("nil"), Just("true"),
            Just("printf"), Just("index"), Just("slice"), Just("len"), Just("humanizeDuration"),
            Just("toTime"), Just("reReplaceAll"), Just("query"), Just("first"), Just("value"), Just("args"),
            Just("eq"), Just("and"), Just("/*"), Just("*/"), Just("é\n"), Just("block \"b\""), Just("call"),
        ], 0..24),
        text in ".{0,40}",
    ) {
        let setting = setting();
        for text in [parts.concat(), parts.join(" "), text] {
            if let Ok(template) = Template::parse("p", &text) {
                let _ = setting.annotation(&template, &Nothing);
            }
        }
    }

    #[test]
    fn text_without_actions_stays_as_it_is(text in "[^{]{0,60}") {
        let template = Template::parse("p", &text).unwrap();
        prop_assert_eq!(setting().annotation(&template, &Nothing), text);
    }
}

/// Finds one sample, whatever is asked.
struct Nothing;

impl QueryFunc for Nothing {
    fn query(&self, _expr: &str) -> Result<Vec<InstantSample>, String> {
        let (labels, value) = (Labels::default(), SampleValue::Float(1.0));
        Ok(vec![InstantSample { labels, at: NOW, value }])
    }
}

fn setting() -> Setting {
    Setting {
        labels: Labels::from_pairs([
            ("instance", "host1.example:9100"),
            ("job", "node"),
            ("name", "a\"b <c>"),
        ]),
        external: Labels::from_pairs([("cluster", "test"), ("replica", "a")]),
        url: "http://prometheus.example:9090/prom".to_owned(),
        value: SampleValue::Float(1_234_567.891),
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let template = Template::parse("t", text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(setting().annotation(&template, &Nothing), expected, "{text}");
}

#[test]
fn functions_of_newer_versions_are_there() {
    check("{{ now }} {{ toTime now }}", "1.7e+09 2023-11-14 22:13:20 +0000 UTC");
    check("{{ toDuration 90.5 }} {{ (toDuration 90.5).Seconds }}", "1m30.5s 90.5");
    check("{{ (toTime 0).Add (toDuration 60) }}", "1970-01-01 00:01:00 +0000 UTC");
    check("{{ toDuration 90 | humanizeDuration }}", "1m 30s");
    check("{{ urlQueryEscape \"a b&c\" }}", "a+b%26c");
}

#[test]
fn a_histogram_shows_its_text_and_its_parts() {
    let histogram = stint_model::histogram::FloatHistogram {
        count: 20.0,
        sum: 5.0,
        zero_threshold: 0.001,
        zero_count: 2.0,
        ..Default::default()
    };
    let setting = Setting { value: SampleValue::Histogram(Arc::new(histogram)), ..setting() };
    let text = "{{ $value }} {{ $value.Count }} {{ printf \"%s %v\" $value .Value.Sum }}";
    let template = Template::parse("t", text).unwrap();
    let shown = "{count:20, sum:5, [-0.001,0.001]:2}";
    let expected = format!("{shown} 20 {shown} 5");
    assert_eq!(setting.annotation(&template, &Nothing), expected);
}

#[test]
fn expansion_ends_in_bounded_time_and_space() {
    let limits = [
        ("{{ range 1000000000 }}{{ end }}", "more than 200000 steps"),
        (
            "{{ define \"r\" }}{{ template \"r\" }}{{ template \"r\" }}{{ end }}{{ template \"r\" }}",
            "exceeded maximum template depth (50)",
        ),
        ("{{ range 100000 }}{{ printf \"%0100d\" 1 }}{{ end }}", "longer than 1048576 bytes"),
        (
            "{{ $x := \"abcdefgh\" }}{{ range 99 }}{{ $x = print $x $x }}{{ end }}",
            "longer than 1048576 bytes",
        ),
        ("{{ printf \"%*d%*d%*d\" 999999 1 999999 1 999999 1 }}", "longer than 1048576 bytes"),
        ("{{ range 2000 }}{{ query \"up\" }}{{ end }}", "too many queries"),
        ("{{ match \"(a{1000}){1000}\" \"a\" }}", "error"),
    ];
    for (text, told) in limits {
        let template = Template::parse("t", text).unwrap();
        let error = template.expand(&setting().data(), &Nothing).unwrap_err();
        assert!(error.contains(told), "{text}: {error}");
    }
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(200), ")".repeat(200));
    assert!(Template::parse("t", &nested).unwrap_err().contains("max expression depth exceeded"));
    let nested = "{{ if 1 }}".repeat(200);
    assert!(Template::parse("t", &nested).unwrap_err().contains("max expression depth exceeded"));
}
