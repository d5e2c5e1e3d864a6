//! Chunks of the head, whose checksum holds, with times of their own, with those of another chunk, and
//! rows of a block taken against others: refused ones leave the columns as they were.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_model::Columns;
use stint_storage::codec::chunk::beside;
use stint_storage::codec::values::relative;
use stint_storage::codec::varint::Reader;
use stint_storage::codec::{chunk, crc};

fuzz_target!(|body: &[u8]| {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&crc::checksum(body).to_le_bytes());
    let mut columns = Columns::default();
    match chunk::decode(&bytes, &mut columns) {
        Ok(()) => assert_eq!(columns.times.len(), columns.values.len()),
        Err(_) => assert!(columns.is_empty() && columns.values.is_empty()),
    }
    let base = std::mem::take(&mut columns.values);
    columns.clear();
    for cut in [body.len() / 2, body.len()] {
        let (other, own) = body.split_at(cut);
        let head = beside::head_len(other).map_or(&[][..], |length| &other[..length]);
        let checksum = crc::continued(crc::checksum(own), head);
        let own = [own, &checksum.to_le_bytes()].concat();
        match beside::decode_beside(&own, other, &mut columns) {
            Ok(()) => {
                let mut again = Columns::default();
                let alone = beside::alone(&own, other).expect("it was decoded");
                chunk::decode(&alone, &mut again).expect("it was decoded");
                assert_eq!(again.times, columns.times);
            }
            Err(_) => assert!(columns.is_empty() && columns.values.is_empty()),
        }
        columns.clear();
        let mut out = Vec::new();
        if relative::take(&mut Reader::new(&body[..cut]), &base, 0..base.len(), &mut out).is_ok() {
            assert_eq!(out.len(), base.len());
        }
    }
});
