//! Recorded scrapes of real servers, read by us and by an independent parser.

#[path = "corpus/reader.rs"]
mod reader;

use std::collections::HashMap;

use stint_wire::exposition::{Entry, Format, Parser};

#[test]
fn recorded_scrapes_read_as_the_independent_parser_reads_them() {
    let Some(path) = reader::path() else { return };
    let bodies = reader::bodies(&path, 1000).unwrap();
    assert_eq!(bodies.len(), 4);
    for body in bodies {
        assert!(body.series > 100, "{}", body.target);
        let oracle =
            prometheus_parse::Scrape::parse(body.text.lines().map(|line| Ok(line.to_owned())));
        // It splits labels at every comma, equals sign and brace, even inside of values, and takes
        // a blank after a comma for a part of the name.
        let mut expected: HashMap<String, Vec<prometheus_parse::Sample>> = HashMap::new();
        for sample in oracle.unwrap().samples {
            expected.entry(sample.metric.clone()).or_default().push(sample);
        }
        let mut parser = Parser::new(Format::PrometheusText, body.text.as_bytes());
        let (mut series, mut compared) = (0, 0);
        while let Some(entry) = parser.next().unwrap() {
            let Entry::Series(entry) = entry else { panic!("unexpected {entry:?}") };
            series += 1;
            let mut labels = HashMap::new();
            entry.each_label(|name, value| {
                labels.insert(name.to_owned(), value.to_owned());
            });
            let metric = labels.remove("__name__").unwrap();
            if labels.values().any(|value| value.contains([',', '=', '}', '"', '\\'])) {
                continue;
            }
            let found = expected[&metric].iter().any(|sample| {
                sample.labels.len() == labels.len()
                    && sample
                        .labels
                        .iter()
                        .all(|(name, value)| labels.get(name.trim()) == Some(value))
                    && matches!(sample.value, prometheus_parse::Value::Untyped(value)
                        if value == entry.value || (value.is_nan() && entry.value.is_nan()))
            });
            assert!(found, "{}: {} {}", body.target, entry.raw, entry.value);
            compared += 1;
        }
        assert_eq!(series, body.series, "{}", body.target);
        assert!(compared * 10 > series * 9, "{}: {compared} of {series}", body.target);
    }
}
