//! Chunks of the head, whose checksum holds: refused ones leave the columns as they were.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_model::Columns;
use stint_storage::codec::{chunk, crc};

fuzz_target!(|body: &[u8]| {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&crc::checksum(body).to_le_bytes());
    let mut columns = Columns::default();
    match chunk::decode(&bytes, &mut columns) {
        Ok(()) => assert_eq!(columns.times.len(), columns.values.len()),
        Err(_) => assert!(columns.is_empty() && columns.values.is_empty()),
    }
});
