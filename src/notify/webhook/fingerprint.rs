//! The number that names an alert, the same that Alertmanagers give it.

use stint_model::Labels;

/// FNV-1a over names and values, each ended by a byte that no text has.
pub(super) fn fingerprint(labels: &Labels) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for (name, value) in labels {
        for byte in name.bytes().chain([255]).chain(value.bytes()).chain([255]) {
            add(byte);
        }
    }
    hash
}
