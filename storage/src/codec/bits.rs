//! Fixed-width bit packing, and blocks of up to 128 numbers in the smallest of three forms.
//!
//! Bits are packed least first. A block starts with one byte:
//! - `0..=64`: all numbers in that many bits;
//! - `0x80 | w`: a bitmap of the numbers that are not zero, then those in `w` bits;
//! - `0xc0 | w`: all numbers in `w` bits, then the excess of those that need more.

use super::Corruption;
use super::varint::Reader;

/// The most numbers of one block.
pub const BLOCK: usize = 128;

/// How many bits `value` needs.
#[inline]
pub const fn width(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// The bytes that `count` numbers of `width` bits take.
#[inline]
const fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends `values`, each below 2^`width`, in `width` bits each, filled up to a whole byte.
fn pack(values: &[u64], width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mut held = 0_u128;
    let mut bits = 0;
    for value in values {
        held |= u128::from(*value) << bits;
        bits += width;
        if bits >= 64 {
            out.extend_from_slice(&(held as u64).to_le_bytes());
            held >>= 64;
            bits -= 64;
        }
    }
    let tail = bits.div_ceil(8) as usize;
    out.extend(held.to_le_bytes().iter().take(tail));
}

/// Eight bytes from `at` on, zeros past the end.
#[inline]
fn load(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(word) = rest.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    let mut word = [0; 8];
    for (slot, byte) in word.iter_mut().zip(rest) {
        *slot = *byte;
    }
    u64::from_le_bytes(word)
}

/// Fills `out` with numbers of `width` bits.
#[inline]
fn unpack(bytes: &[u8], width: u32, out: &mut [u64]) {
    match width {
        0 => out.fill(0),
        1 => unpack_octets::<1>(bytes, out),
        2 => unpack_octets::<2>(bytes, out),
        3 => unpack_octets::<3>(bytes, out),
        4 => unpack_octets::<4>(bytes, out),
        5 => unpack_octets::<5>(bytes, out),
        6 => unpack_octets::<6>(bytes, out),
        7 => unpack_octets::<7>(bytes, out),
        8 => unpack_octets::<8>(bytes, out),
        9..=56 => unpack_narrow(bytes, width, out),
        _ => unpack_wide(bytes, width, out),
    }
}

/// Eight numbers of `WIDTH` bits fill `WIDTH` bytes, of which there are at most eight: one word,
/// taken apart by shifts that are known when this is compiled.
#[inline]
fn unpack_octets<const WIDTH: usize>(bytes: &[u8], out: &mut [u64]) {
    let mask = (1_u64 << WIDTH) - 1;
    let mut octets = out.chunks_exact_mut(8);
    let mut at = 0;
    for octet in &mut octets {
        let word = load(bytes, at);
        for (place, slot) in octet.iter_mut().enumerate() {
            *slot = (word >> (place * WIDTH)) & mask;
        }
        at += WIDTH;
    }
    let word = load(bytes, at);
    for (place, slot) in octets.into_remainder().iter_mut().enumerate() {
        *slot = (word >> (place * WIDTH)) & mask;
    }
}

#[inline]
fn unpack_narrow(bytes: &[u8], width: u32, out: &mut [u64]) {
    let mask = (1_u64 << width) - 1;
    let step = width as usize;
    let whole = bytes.len().saturating_sub(7) * 8 / step;
    let (body, tail) = out.split_at_mut(whole.min(out.len()));
    let mut bit = 0;
    for slot in body {
        let word = bytes.get(bit >> 3..).and_then(<[u8]>::first_chunk::<8>);
        *slot = (word.map_or(0, |word| u64::from_le_bytes(*word)) >> (bit & 7)) & mask;
        bit += step;
    }
    for slot in tail {
        *slot = (load(bytes, bit >> 3) >> (bit & 7)) & mask;
        bit += step;
    }
}

fn unpack_wide(bytes: &[u8], width: u32, out: &mut [u64]) {
    let mask = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
    let mut bit = 0_usize;
    for slot in out {
        let (at, shift) = (bit >> 3, bit & 7);
        let low = load(bytes, at) >> shift;
        let high = if shift == 0 {
            0
        } else {
            u64::from(bytes.get(at + 8).copied().unwrap_or(0)) << (64 - shift)
        };
        *slot = (low | high) & mask;
        bit += width as usize;
    }
}

/// Appends up to [`BLOCK`] numbers.
pub fn put_block(values: &[u64], out: &mut Vec<u8>) {
    debug_assert!(values.len() <= BLOCK);
    let mut by_width = [0_usize; 65];
    for value in values {
        by_width[width(*value) as usize] += 1;
    }
    let widest = by_width.iter().rposition(|count| *count > 0).unwrap_or(0) as u32;
    let plain_bits = values.len() * widest as usize;
    let (patched_width, patched_bits) = cheapest_patched(&by_width, widest, values.len());
    let nonzero = values.len() - by_width[0];
    let bitmap_bits = values.len() + nonzero * widest as usize + 8;
    if widest < 64 && bitmap_bits < plain_bits.min(patched_bits) {
        put_bitmap(values, widest, out);
    } else if patched_bits < plain_bits {
        put_patched(values, patched_width, widest, out);
    } else {
        out.push(widest as u8);
        pack(values, widest, out);
    }
}

/// The narrower width at which storing the excess of wider numbers beside costs least, and the
/// bits it takes in all.
fn cheapest_patched(by_width: &[usize; 65], widest: u32, count: usize) -> (u32, usize) {
    let mut best = (0, usize::MAX);
    let mut wider = 0;
    for narrow in (0..widest).rev() {
        wider += by_width[narrow as usize + 1];
        let excess = wider * (8 + (widest - narrow) as usize);
        let bits = count * narrow as usize + excess + 16;
        if bits < best.1 {
            best = (narrow, bits);
        }
    }
    best
}

fn put_bitmap(values: &[u64], widest: u32, out: &mut Vec<u8>) {
    out.push(0x80 | widest as u8);
    let mut bitmap = [0_u8; BLOCK / 8];
    let mut kept = Vec::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        if *value != 0 {
            bitmap[at >> 3] |= 1 << (at & 7);
            kept.push(*value);
        }
    }
    out.extend(bitmap.iter().take(values.len().div_ceil(8)));
    pack(&kept, widest, out);
}

fn put_patched(values: &[u64], narrow: u32, widest: u32, out: &mut Vec<u8>) {
    let mask = (1_u64 << narrow) - 1;
    let low: Vec<u64> = values.iter().map(|value| value & mask).collect();
    let high = values.iter().enumerate().filter(|(_, value)| **value >> narrow != 0);
    let (places, excess): (Vec<u8>, Vec<u64>) =
        high.map(|(at, value)| (at as u8, value >> narrow)).unzip();
    out.push(0xc0 | narrow as u8);
    out.push(places.len() as u8);
    out.push((widest - narrow) as u8);
    pack(&low, narrow, out);
    out.extend_from_slice(&places);
    pack(&excess, widest - narrow, out);
}

/// Fills `out`, at most [`BLOCK`] long, with the numbers of one block.
#[inline]
pub fn take_block(reader: &mut Reader<'_>, out: &mut [u64]) -> Result<(), Corruption> {
    let form = reader.byte()?;
    match form {
        0..=64 => {
            let width = u32::from(form);
            unpack(reader.take(packed_len(out.len(), width))?, width, out);
            Ok(())
        }
        0x81..=0xbf => take_bitmap(reader, u32::from(form & 0x3f), out),
        0xc0.. => take_patched(reader, u32::from(form & 0x3f), out),
        _ => Err(reader.corrupt("an unknown form of block")),
    }
}

fn take_bitmap(reader: &mut Reader<'_>, width: u32, out: &mut [u64]) -> Result<(), Corruption> {
    let bitmap = reader.take(out.len().div_ceil(8))?;
    let nonzero: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
    let mut kept = [0; BLOCK];
    let Some(kept) = kept.get_mut(..nonzero) else {
        return Err(reader.corrupt("a block's bitmap has too many bits"));
    };
    unpack(reader.take(packed_len(nonzero, width))?, width, kept);
    out.fill(0);
    let mut kept = kept.iter();
    for (slots, byte) in out.chunks_mut(8).zip(bitmap) {
        let mut byte = *byte;
        while byte != 0 {
            let at = byte.trailing_zeros() as usize;
            if let (Some(slot), Some(value)) = (slots.get_mut(at), kept.next()) {
                *slot = *value;
            }
            byte &= byte - 1;
        }
    }
    Ok(())
}

fn take_patched(reader: &mut Reader<'_>, narrow: u32, out: &mut [u64]) -> Result<(), Corruption> {
    let count = reader.byte()? as usize;
    let wider = u32::from(reader.byte()?);
    let mut excess = [0; BLOCK];
    let Some(excess) = excess.get_mut(..count) else {
        return Err(reader.corrupt("a block has too many wide numbers"));
    };
    if narrow + wider > 64 {
        return Err(reader.corrupt("a block's numbers are wider than 64 bits"));
    }
    unpack(reader.take(packed_len(out.len(), narrow))?, narrow, out);
    let places = reader.take(count)?;
    unpack(reader.take(packed_len(count, wider))?, wider, excess);
    for (place, excess) in places.iter().zip(excess) {
        match out.get_mut(*place as usize) {
            Some(slot) => *slot |= *excess << narrow,
            None => return Err(reader.corrupt("a wide number beyond its block")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        let number = (0_u32..=64, any::<u64>())
            .prop_map(|(width, value)| if width == 0 { 0 } else { value >> (64 - width) });
        let rare = prop_oneof![9 => 0_u64..4, 1 => number.clone()];
        prop_oneof![
            proptest::collection::vec(number, 0..=BLOCK),
            proptest::collection::vec(rare, 0..=BLOCK),
            proptest::collection::vec(prop_oneof![20 => Just(0), 1 => any::<u64>()], 0..=BLOCK),
        ]
    }

    proptest! {
        #[test]
        fn blocks_come_back(values in numbers()) {
            let mut bytes = Vec::new();
            put_block(&values, &mut bytes);
            let mut reader = Reader::new(&bytes);
            let mut back = vec![7; values.len()];
            take_block(&mut reader, &mut back).unwrap();
            prop_assert_eq!(back, values);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            count in 0..=BLOCK,
        ) {
            let mut out = vec![0; count];
            if let Err(corruption) = take_block(&mut Reader::new(&bytes), &mut out) {
                prop_assert!(corruption.offset <= bytes.len() as u64);
            }
        }
    }
}
