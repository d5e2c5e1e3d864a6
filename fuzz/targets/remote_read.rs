//! Remote read: no bytes make reading a request panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_wire::remote_read::{QUERIES_MAX, ReadRequest};

fuzz_target!(|body: &[u8]| {
    if let Ok(request) = ReadRequest::decode(body) {
        assert!(request.queries.len() <= QUERIES_MAX);
    }
});
