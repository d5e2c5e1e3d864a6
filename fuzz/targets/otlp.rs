//! OTLP metrics in both encodings: whatever the bytes, rows are in order and nothing panics.

#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use stint_model::Metadata;
use stint_wire::otlp::{self, Options, Promotion, Row, Sink, Warning};

struct Checks;

impl Sink for Checks {
    type Error = Infallible;

    fn family(&mut self, name: &str, _: Metadata) -> Result<(), Infallible> {
        assert!(!name.is_empty());
        Ok(())
    }

    fn row(&mut self, row: Row<'_>) -> Result<(), Infallible> {
        assert!(row.labels.is_sorted_by(|a, b| a.0 < b.0));
        assert!(row.labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
        Ok(())
    }

    fn refused(&mut self, _: u64, reason: &str) {
        assert!(!reason.is_empty());
    }

    fn warning(&mut self, _: Warning) {}
}

fuzz_target!(|body: &[u8]| {
    let all = Options {
        promotion: Promotion::AllBut(Vec::new()),
        promote_scope_metadata: true,
        convert_histograms_to_nhcb: true,
        strategy: otlp::Strategy::None,
        ..Options::default()
    };
    for options in [Options::default(), all] {
        let _ = otlp::translate(body, &options, &mut Checks);
        if let Ok(message) = otlp::json::to_protobuf(body) {
            assert!(otlp::translate(&message, &options, &mut Checks).is_ok());
        }
    }
});
