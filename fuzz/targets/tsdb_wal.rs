//! The log of a Prometheus server: segments, and what their records say.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_wire::tsdb::wal::{Records, decode};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes, |_| {});
    let mut records = Records::new(bytes);
    while let Some(record) = records.next() {
        if let Ok(record) = record {
            let _ = decode(&record, |_| {});
        }
    }
});
