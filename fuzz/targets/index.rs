//! Indexes of blocks whose footer has its checksum: they are searched or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_model::{MatchOp, Matcher, Selector};
use stint_storage::Mapped;
use stint_storage::codec::crc;
use stint_storage::index::{Index, select};

fuzz_target!(|input: (usize, &[u8])| {
    let (footer, body) = input;
    let magic = b"STNTIDX\x02";
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(body);
    let footer = footer % (body.len() + 1);
    let place = bytes.len() - footer;
    let checksum = crc::checksum_at(place as u64, &bytes[place..]);
    bytes.extend_from_slice(&(footer as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(magic);
    let Ok(index) = Index::open(Mapped::new(bytes), "index") else { return };
    let matcher = Matcher::new(MatchOp::Regex, "a", "b.*c").expect("an expression");
    let _ = select::select(&index, &Selector::new(vec![matcher]));
    let _ = select::label_names(&index, &[]);
    let _ = index.labels(0);
    let _ = index.verify();
});
