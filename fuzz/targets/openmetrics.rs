//! OpenMetrics text, with start times.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_model::time::Timestamp;
use stint_wire::exposition::{Entry, Format, Options, Parser};

fuzz_target!(|body: &[u8]| {
    let options = Options { created_as_start: true, ..Options::default() };
    let mut parser = Parser::with_options(Format::OpenMetrics, body, options);
    while let Ok(Some(entry)) = parser.next() {
        if let Entry::Series(series) = entry {
            let mut names = 0;
            series.each_label(|name, _| names += usize::from(name == "__name__"));
            assert!(names > 0, "{}", series.raw);
            if let Some(exemplar) = series.exemplar {
                exemplar.decode(Timestamp(0));
            }
        }
    }
});
