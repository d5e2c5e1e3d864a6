//! Fixed-width bit packing, and blocks of up to 128 numbers in the smallest of four forms.
//!
//! Bits are packed least first. A block starts with one byte:
//! - `0..=64`: all numbers in that many bits;
//! - `0x41 + k`: the lowest `k` bits of all numbers, then what is above them of each: as many zeros,
//!   and a one. What varies around a middle has long and short numbers, and this (Golomb and Rice's
//!   code with its halves kept apart, so that both are read a word at a time) is within a tenth of
//!   a bit of the best there is for it;
//! - `0x80 | w`: a bitmap of the numbers that are not zero, then those in `w` bits;
//! - `0xc0 | w`: all numbers in `w` bits, then the excess of those that need more.

use super::Corruption;
use super::varint::Reader;

/// The most numbers of one block.
pub const BLOCK: usize = 128;

/// First byte of a block of which the low bits are apart, less how many.
const SPLIT: u8 = 0x41;

/// A block is split where that saves more than one part in so many.
const SPLIT_SAVES: usize = 48;

/// Numbers of this width or more are not split: sums of them must not overflow.
const SPLIT_WIDTH_MAX: usize = 50;

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
        9 => unpack_fixed::<9>(bytes, out),
        10 => unpack_fixed::<10>(bytes, out),
        11 => unpack_fixed::<11>(bytes, out),
        12 => unpack_fixed::<12>(bytes, out),
        13 => unpack_fixed::<13>(bytes, out),
        14 => unpack_fixed::<14>(bytes, out),
        15 => unpack_fixed::<15>(bytes, out),
        16 => unpack_fixed::<16>(bytes, out),
        17 => unpack_fixed::<17>(bytes, out),
        18 => unpack_fixed::<18>(bytes, out),
        19 => unpack_fixed::<19>(bytes, out),
        20 => unpack_fixed::<20>(bytes, out),
        21 => unpack_fixed::<21>(bytes, out),
        22 => unpack_fixed::<22>(bytes, out),
        23 => unpack_fixed::<23>(bytes, out),
        24 => unpack_fixed::<24>(bytes, out),
        25 => unpack_fixed::<25>(bytes, out),
        26 => unpack_fixed::<26>(bytes, out),
        27 => unpack_fixed::<27>(bytes, out),
        28 => unpack_fixed::<28>(bytes, out),
        29 => unpack_fixed::<29>(bytes, out),
        30 => unpack_fixed::<30>(bytes, out),
        31 => unpack_fixed::<31>(bytes, out),
        32 => unpack_fixed::<32>(bytes, out),
        33..=56 => unpack_narrow(bytes, width, out),
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

/// Eight numbers of `WIDTH` bits, up to 32: each in a word of its own, whose place and shift are
/// known when this is compiled.
fn unpack_fixed<const WIDTH: usize>(bytes: &[u8], out: &mut [u64]) {
    let mask = (1_u64 << WIDTH) - 1;
    let mut at = 0;
    let mut octets = out.chunks_exact_mut(8);
    for octet in &mut octets {
        let Some(part) = bytes.get(at..at + WIDTH + 7) else {
            unpack_narrow(bytes.get(at..).unwrap_or_default(), WIDTH as u32, octet);
            at += WIDTH;
            continue;
        };
        for (place, slot) in octet.iter_mut().enumerate() {
            let bit = place * WIDTH;
            let word = part.get(bit / 8..bit / 8 + 8).and_then(<[u8]>::first_chunk::<8>);
            *slot = (word.map_or(0, |word| u64::from_le_bytes(*word)) >> (bit % 8)) & mask;
        }
        at += WIDTH;
    }
    unpack_narrow(bytes.get(at..).unwrap_or_default(), WIDTH as u32, octets.into_remainder());
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

/// How a block is written.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    Split { low: u32 },
    Bitmap,
    Patched { narrow: u32 },
}

/// The smallest form of a block, and what it takes.
struct Shape {
    form: Form,
    widest: u32,
    /// Bytes, without the one that tells the form.
    length: usize,
}

impl Shape {
    fn of(values: &[u64]) -> Self {
        let mut by_width = [0_usize; 65];
        for value in values {
            by_width[width(*value) as usize] += 1;
        }
        let widest = by_width.iter().rposition(|count| *count > 0).unwrap_or(0) as u32;
        let plain = packed_len(values.len(), widest);
        let mut best = Self { form: Form::Plain, widest, length: plain };
        let mut offer = |form: Form, length: usize, at_least: usize| {
            if length + at_least < best.length {
                best = Self { form, widest, length };
            }
        };
        let (narrow, patched) = cheapest_patched(&by_width, widest, values.len());
        offer(Form::Patched { narrow }, patched, 0);
        if widest < 64 {
            let nonzero = values.len() - by_width[0];
            let bitmap = values.len().div_ceil(8) + packed_len(nonzero, widest);
            offer(Form::Bitmap, bitmap, 0);
        }
        if let Some((low, split)) = cheapest_split(values, &by_width) {
            // It takes longer to read.
            offer(Form::Split { low }, split, split / SPLIT_SAVES);
        }
        best
    }
}

/// How many bytes [`put_block`] takes for `values`.
pub fn block_len(values: &[u64]) -> usize {
    1 + Shape::of(values).length
}

/// Appends up to [`BLOCK`] numbers.
pub fn put_block(values: &[u64], out: &mut Vec<u8>) {
    debug_assert!(values.len() <= BLOCK);
    let Shape { form, widest, .. } = Shape::of(values);
    match form {
        Form::Plain => {
            out.push(widest as u8);
            pack(values, widest, out);
        }
        Form::Split { low } => put_split(values, low, out),
        Form::Bitmap => put_bitmap(values, widest, out),
        Form::Patched { narrow } => put_patched(values, narrow, widest, out),
    }
}

/// How many low bits to keep apart, and the bytes that all takes; `None` where numbers are so wide
/// that their sum is none.
fn cheapest_split(values: &[u64], by_width: &[usize; 65]) -> Option<(u32, usize)> {
    if by_width.get(SPLIT_WIDTH_MAX..)?.iter().any(|count| *count > 0) || values.is_empty() {
        return None;
    }
    let cost = |low: u32| {
        let above: u64 = values.iter().map(|value| value >> low).sum();
        let high = (values.len() as u64).saturating_add(above).div_ceil(8);
        (low, packed_len(values.len(), low).saturating_add(high as usize))
    };
    // For numbers that thin out evenly the best is about seven tenths of the mean.
    let sum: u64 = values.iter().sum();
    let mean = sum * 7 / 10 / values.len() as u64;
    let guess = width(mean).saturating_sub(1);
    let mut best = cost(guess);
    for low in [guess.saturating_sub(1), guess + 1, guess + 2] {
        let other = cost(low);
        if other.1 < best.1 {
            best = other;
        }
    }
    Some(best)
}

/// The narrower width at which storing the excess of wider numbers beside costs least, and the
/// bytes it takes in all.
fn cheapest_patched(by_width: &[usize; 65], widest: u32, count: usize) -> (u32, usize) {
    let mut best = (0, usize::MAX);
    let mut wider = 0;
    for narrow in (0..widest).rev() {
        wider += by_width[narrow as usize + 1];
        let excess = wider + packed_len(wider, widest - narrow);
        let length = 2 + packed_len(count, narrow) + excess;
        if length < best.1 {
            best = (narrow, length);
        }
    }
    best
}

fn put_split(values: &[u64], low: u32, out: &mut Vec<u8>) {
    out.push(SPLIT + low as u8);
    let mask = (1_u64 << low) - 1;
    let lows: Vec<u64> = values.iter().map(|value| value & mask).collect();
    pack(&lows, low, out);
    let (mut held, mut bits) = (0_u64, 0);
    for value in values {
        let mut zeros = value >> low;
        while zeros + bits >= 64 {
            out.extend_from_slice(&held.to_le_bytes());
            zeros -= 64 - bits;
            (held, bits) = (0, 0);
        }
        bits += zeros;
        held |= 1 << bits;
        bits += 1;
        if bits == 64 {
            out.extend_from_slice(&held.to_le_bytes());
            (held, bits) = (0, 0);
        }
    }
    out.extend(held.to_le_bytes().iter().take(bits.div_ceil(8) as usize));
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
        SPLIT..=0x7f => take_split(reader, u32::from(form - SPLIT), out),
        0x81..=0xbf => take_bitmap(reader, u32::from(form & 0x3f), out),
        0xc0.. => take_patched(reader, u32::from(form & 0x3f), out),
        _ => Err(reader.corrupt("an unknown form of block")),
    }
}

fn take_split(reader: &mut Reader<'_>, low: u32, out: &mut [u64]) -> Result<(), Corruption> {
    unpack(reader.take(packed_len(out.len(), low))?, low, out);
    let bytes = reader.rest();
    // In bits: where the word begins, and behind the last one found.
    let (mut start, mut end) = (0_usize, 0_usize);
    let mut slots = out;
    while !slots.is_empty() {
        if start >= bytes.len() * 8 {
            return Err(reader.corrupt("a block's high bits end too early"));
        }
        let mut word = load(bytes, start / 8);
        let found = (word.count_ones() as usize).min(slots.len());
        let (now, later) = slots.split_at_mut(found);
        for slot in now {
            let at = start + word.trailing_zeros() as usize;
            *slot |= (at.wrapping_sub(end) as u64) << low;
            end = at + 1;
            word &= word.wrapping_sub(1);
        }
        slots = later;
        start += 64;
    }
    reader.take(end.div_ceil(8)).map(|_| ())
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
            prop_assert_eq!(bytes.len(), block_len(&values));
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
