//! The Prometheus text format: a series that is accepted has labels that can be decoded, and classic
//! histograms can be put together.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_model::time::Timestamp;
use stint_wire::exposition::{ClassicHistograms, Entry, Format, Options, Parser};

fuzz_target!(|body: &[u8]| {
    let options = Options::default();
    let mut parser = Parser::with_options(Format::PrometheusText, body, options);
    let mut classic = ClassicHistograms::default();
    classic.begin();
    while let Ok(Some(entry)) = parser.next() {
        if let Entry::Type { name, kind } = &entry {
            classic.family(name, *kind);
        }
        if let Entry::Series(series) = entry {
            classic.series(&series);
            let mut names = 0;
            series.each_label(|name, _| names += usize::from(name == "__name__"));
            assert!(names > 0, "{}", series.raw);
            if let Some(exemplar) = series.exemplar {
                exemplar.decode(Timestamp(0));
            }
        }
    }
    classic.end();
});
