//! Floats as the bits in which each differs from the one before: the last resort for values that
//! are neither integers, nor decimals, nor close to decimals.
//!
//! Per value: `0` same as before; `10` the differing bits inside the last window; `11` a new
//! window (5 bits leading zeros, 6 bits length less one), then the bits. Bits are written most
//! significant first.

use super::Corruption;
use super::varint::Reader;

#[derive(Default)]
struct BitWriter {
    held: u64,
    bits: u32,
}

impl BitWriter {
    fn put(&mut self, value: u64, width: u32, out: &mut Vec<u8>) {
        for shift in (0..width.div_ceil(32)).rev() {
            let part = if width > 32 && shift == 1 { width - 32 } else { width.min(32) };
            self.put_short((value >> (shift * 32)) & ((1 << part) - 1), part, out);
        }
    }

    /// At most 32 bits.
    fn put_short(&mut self, value: u64, width: u32, out: &mut Vec<u8>) {
        self.held = (self.held << width) | value;
        self.bits += width;
        while self.bits >= 8 {
            self.bits -= 8;
            out.push((self.held >> self.bits) as u8);
        }
        self.held &= (1 << self.bits) - 1;
    }

    fn finish(self, out: &mut Vec<u8>) {
        if self.bits > 0 {
            out.push((self.held << (8 - self.bits)) as u8);
        }
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn take(&mut self, width: u32) -> Option<u64> {
        if width > 32 {
            let high = self.take(width - 32)?;
            return Some((high << 32) | self.take(32)?);
        }
        if self.at + width as usize > self.bytes.len() * 8 {
            return None;
        }
        let rest = self.bytes.get(self.at >> 3..)?;
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_be_bytes(*word),
            None => rest.iter().zip(0_u32..).fold(0, |w, (b, i)| w | u64::from(*b) << (56 - 8 * i)),
        };
        let shifted = word << (self.at & 7);
        self.at += width as usize;
        Some(if width == 0 { 0 } else { shifted >> (64 - width) })
    }
}

/// Appends `values`.
pub(super) fn put(values: &[f64], out: &mut Vec<u8>) {
    let mut writer = BitWriter::default();
    let mut before = 0_u64;
    // Leading zeros and length of the window in use.
    let mut window: Option<(u32, u32)> = None;
    for (at, value) in values.iter().enumerate() {
        let bits = value.to_bits();
        let differing = bits ^ before;
        before = bits;
        if at == 0 {
            writer.put(bits, 64, out);
            continue;
        }
        if differing == 0 {
            writer.put(0, 1, out);
            continue;
        }
        let leading = differing.leading_zeros().min(31);
        let trailing = differing.trailing_zeros();
        let length = 64 - leading - trailing;
        if let Some((open_leading, open_length)) = window
            && open_leading <= leading
            && 64 - open_leading - open_length <= trailing
            && open_length <= length + 11
        {
            writer.put(0b10, 2, out);
            writer.put(differing >> (64 - open_leading - open_length), open_length, out);
        } else {
            writer.put(0b11, 2, out);
            writer.put(u64::from(leading), 5, out);
            writer.put(u64::from(length - 1), 6, out);
            writer.put(differing >> trailing, length, out);
            window = Some((leading, length));
        }
    }
    writer.finish(out);
}

/// Appends `count` values to `out`.
pub(super) fn take(
    reader: &mut Reader<'_>,
    count: usize,
    out: &mut Vec<f64>,
) -> Result<(), Corruption> {
    let mut bits = BitReader { bytes: reader.rest(), at: 0 };
    let taken = take_bits(&mut bits, count, out);
    let used = bits.at.div_ceil(8);
    match taken {
        Some(()) => reader.take(used).map(|_| ()),
        None => Err(reader.corrupt("differing bits end too early or form no window")),
    }
}

fn take_bits(bits: &mut BitReader<'_>, count: usize, out: &mut Vec<f64>) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    let mut value = bits.take(64)?;
    out.push(f64::from_bits(value));
    let (mut trailing, mut length) = (0, 64);
    for _ in 1..count {
        if bits.take(1)? == 1 {
            if bits.take(1)? == 1 {
                let leading = bits.take(5)? as u32;
                length = bits.take(6)? as u32 + 1;
                trailing = 64_u32.checked_sub(leading + length)?;
            }
            value ^= bits.take(length)? << trailing;
        }
        out.push(f64::from_bits(value));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bits_come_back(values in proptest::collection::vec(prop_oneof![any::<u64>(), (0_u64..64).prop_map(|s| 1 << s), Just(0)], 0..200)) {
            let values: Vec<f64> = values.into_iter().map(f64::from_bits).collect();
            let mut bytes = Vec::new();
            put(&values, &mut bytes);
            let mut reader = Reader::new(&bytes);
            let mut back = Vec::new();
            take(&mut reader, values.len(), &mut back).unwrap();
            let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&values));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>, count in 0_usize..300) {
            let mut out = Vec::new();
            if take(&mut Reader::new(&bytes), count, &mut out).is_ok() {
                prop_assert_eq!(out.len(), count);
            }
        }
    }
}
