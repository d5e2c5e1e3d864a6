//! Parsing scrapes: our parser where series are expected, known, or new, beside `prometheus-parse`.
//!
//! The bodies are a generated one of 1 000 series and, where they are at hand, recorded scrapes
//! of real servers.

#![expect(clippy::unwrap_used, reason = "without its input there is nothing to measure")]

#[path = "../tests/corpus/reader.rs"]
mod reader;

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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

criterion_group!(benches, exposition);
criterion_main!(benches);
