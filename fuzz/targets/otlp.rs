//! OTLP metrics in both encodings: whatever the bytes, rows are in order and nothing panics, and series that are
//! recognised have the samples that they would have with labels.

#![no_main]

use std::collections::HashSet;
use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use stint_model::Metadata;
use stint_wire::otlp::{self, Options, Promotion, Row, Sink, Warning};

#[derive(Default)]
struct Checks {
    /// Of series that were seen.
    known: HashSet<Vec<u8>>,
    recognised: bool,
    /// Samples as they came.
    seen: Vec<String>,
}

impl Sink for Checks {
    type Error = Infallible;

    fn family(&mut self, name: &str, _: Metadata) -> Result<(), Infallible> {
        assert!(!name.is_empty());
        Ok(())
    }

    fn recognises(&mut self, identity: &[u8]) -> bool {
        self.recognised = self.known.contains(identity);
        self.recognised
    }

    fn row(&mut self, row: Row<'_>) -> Result<(), Infallible> {
        self.seen.push(format!("{:?} {:?} {:?}", row.point, row.sample, row.exemplars));
        if std::mem::take(&mut self.recognised) {
            assert!(row.labels.is_empty());
            return Ok(());
        }
        self.known.extend(row.identity.map(<[u8]>::to_vec));
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
        let mut checks = Checks::default();
        let first = otlp::translate(body, &options, &mut checks).is_ok();
        let seen = std::mem::take(&mut checks.seen);
        let again = otlp::translate(body, &options, &mut checks).is_ok();
        assert_eq!((first, seen), (again, checks.seen));
        if let Ok(message) = otlp::json::to_protobuf(body) {
            assert!(otlp::translate(&message, &options, &mut Checks::default()).is_ok());
        }
    }
});
