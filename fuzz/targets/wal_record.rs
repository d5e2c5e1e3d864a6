//! Records of the log: what is read whole has no more items than bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_storage::check::record_items;

fuzz_target!(|payload: &[u8]| {
    if let Ok(items) = record_items(payload) {
        assert!(items <= payload.len());
    }
});
