//! Chunks of a Prometheus server: no bytes harm, and columns stay columns.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_model::Columns;
use stint_wire::tsdb::chunk::{Encoding, decode};

fuzz_target!(|bytes: &[u8]| {
    let Some((encoding, data)) = bytes.split_first() else { return };
    let mut columns = Columns::default();
    let _ = decode(Encoding(*encoding % 5), data, &mut columns);
    assert_eq!(columns.times.len(), columns.values.len());
    assert!(columns.histograms.iter().all(|(row, _)| *row < columns.len()));
});
