//! Snappy blocks: garbage is refused, and what is compressed comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_wire::snappy::{compress_into, decompress_limited};

fuzz_target!(|data: &[u8]| {
    let (mut block, mut back) = (Vec::new(), Vec::new());
    if decompress_limited(data, 1 << 20, &mut back).is_ok() {
        assert!(back.len() <= 1 << 20);
    }
    compress_into(data, &mut block).expect("short data compresses");
    decompress_limited(&block, data.len(), &mut back).expect("a block of ours decompresses");
    assert_eq!(back, data);
});
