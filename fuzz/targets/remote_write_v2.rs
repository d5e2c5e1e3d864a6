//! Remote write 2.0: symbols and references from strangers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_wire::remote_write::v2;

fuzz_target!(|body: &[u8]| {
    let Ok(request) = v2::decode(body) else { return };
    assert!(request.symbols() <= body.len());
    let mut labels = Vec::new();
    for series in request.series().map_while(Result::ok) {
        if series.labels_into(&mut labels).is_ok() {
            assert!(labels.len() <= body.len());
        }
        let _ = series.metadata();
        series.samples().chain(series.histograms()).map_while(Result::ok).for_each(drop);
        series.exemplars().map_while(Result::ok).for_each(drop);
    }
});
