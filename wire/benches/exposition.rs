//! Parsing scrapes: our parser where series are expected, known, or new, beside `prometheus-parse`;
//! and relabelling.
//!
//! The bodies are a generated one of 1 000 series and, where they are at hand, recorded scrapes
//! of real servers.

#![expect(clippy::unwrap_used, reason = "without its input there is nothing to measure")]

#[path = "../tests/corpus/reader.rs"]
mod reader;

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stint_model::labels::{LabelsBuilder, NameScheme};
use stint_model::relabel::{self, Action, Rule, RuleSpec, Verdict};
use stint_wire::exposition::{Entry, Format, Parser};

fn generated() -> String {
    let mut body = String::new();
    for family in 0..10 {
        writeln!(body, "# HELP http_requests_{family}_total Requests by handler.").unwrap();
        writeln!(body, "# TYPE http_requests_{family}_total counter").unwrap();
        for series in 0..100 {
            let value = f64::from(family * 1000 + series) * 1.25;
            writeln!(
                body,
                "http_requests_{family}_total{{method=\"GET\",handler=\"/api/v1/items/{series}\",\
                 code=\"200\",zone=\"eu-west-1\"}} {value}"
            )
            .unwrap();
        }
    }
    body
}

/// Values only, as for series that a scrape knows by their text.
fn known(body: &str) -> f64 {
    let mut parser = Parser::new(Format::PrometheusText, body.as_bytes());
    let mut sum = 0.0;
    while let Some(entry) = parser.next().unwrap() {
        if let Entry::Series(series) = entry {
            sum += series.value + series.raw.len() as f64;
        }
    }
    sum
}

/// Values only, each series being the one that the scrape before had at this place.
fn expected(body: &str, sequence: &[String]) -> f64 {
    let mut parser = Parser::new(Format::PrometheusText, body.as_bytes());
    let mut sequence = sequence.iter();
    let mut next = sequence.next();
    let mut sum = 0.0;
    while let Some(entry) = parser.next_expecting(next.map_or("", String::as_str)).unwrap() {
        if let Entry::Series(series) = entry {
            assert_eq!(Some(series.raw), next.map(String::as_str));
            sum += series.value;
            next = sequence.next();
        }
    }
    sum
}

fn sequence(body: &str) -> Vec<String> {
    let mut parser = Parser::new(Format::PrometheusText, body.as_bytes());
    let mut sequence = Vec::new();
    while let Some(entry) = parser.next().unwrap() {
        if let Entry::Series(series) = entry {
            sequence.push(series.raw.to_owned());
        }
    }
    sequence
}

/// Values and labels, as in a first scrape.
fn cold(body: &str) -> usize {
    let mut parser = Parser::new(Format::PrometheusText, body.as_bytes());
    let mut bytes = 0;
    while let Some(entry) = parser.next().unwrap() {
        if let Entry::Series(series) = entry {
            series.each_label(|name, value| bytes += name.len() + value.len());
        }
    }
    bytes
}

fn baseline(body: &str) -> usize {
    let lines = body.lines().map(|line| Ok(line.to_owned()));
    prometheus_parse::Scrape::parse(lines).unwrap().samples.len()
}

/// What jobs usually do to their samples: drop some metrics, some labels, and write one anew.
fn rules() -> Vec<Rule> {
    let spec = |action: &str, source: &str, regex: &str, target: &str| RuleSpec {
        action: action.parse::<Action>().unwrap(),
        source_labels: source
            .split(' ')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        regex: regex.to_owned(),
        target_label: target.to_owned(),
        ..RuleSpec::default()
    };
    let specs = [
        spec("drop", "__name__", "go_gc_.*|process_.*|promhttp_.*", ""),
        spec("keep", "code method", "[1-5]..;(GET|POST)", ""),
        spec("replace", "handler", "/api/v1/([a-z]+)/.*", "resource"),
        spec("labeldrop", "", "pod_.*|zone", ""),
    ];
    specs.into_iter().map(|spec| Rule::new(spec, NameScheme::Utf8).unwrap()).collect()
}

fn relabelling(criterion: &mut Criterion) {
    let rules = rules();
    let body = generated();
    let mut series = Vec::new();
    let mut parser = Parser::new(Format::PrometheusText, body.as_bytes());
    while let Some(entry) = parser.next().unwrap() {
        if let Entry::Series(entry) = entry {
            let mut labels = LabelsBuilder::default();
            entry.each_label(|name, value| {
                labels.set(name, value);
            });
            series.push(labels.build());
        }
    }
    let mut group = criterion.benchmark_group("relabelling");
    group.throughput(Throughput::Elements(series.len() as u64));
    group.bench_function("four rules", |bencher| {
        bencher.iter(|| {
            let kept = series.iter().filter(|labels| {
                let mut builder = labels.to_builder();
                let verdict = relabel::apply(&rules, &mut builder);
                verdict == Verdict::Keep && !black_box(builder.build()).is_empty()
            });
            assert_eq!(kept.count(), series.len());
        });
    });
    group.finish();
}

fn exposition(criterion: &mut Criterion) {
    let mut bodies = vec![("generated".to_owned(), generated())];
    if let Some(path) = reader::path() {
        let recorded = reader::bodies(&path, 1000).unwrap();
        bodies.extend(recorded.into_iter().map(|body| (body.target, body.text)));
    }
    for (name, body) in &bodies {
        let mut group = criterion.benchmark_group(format!("exposition/{name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("known series", |bencher| bencher.iter(|| known(black_box(body))));
        let sequence = sequence(body);
        group.bench_function("expected series", |bencher| {
            bencher.iter(|| expected(black_box(body), &sequence));
        });
        group.bench_function("new series", |bencher| bencher.iter(|| cold(black_box(body))));
        group.sample_size(20);
        group.bench_function("prometheus-parse", |bencher| {
            bencher.iter(|| baseline(black_box(body)));
        });
        group.finish();
    }
}

criterion_group!(benches, exposition, relabelling);
criterion_main!(benches);
