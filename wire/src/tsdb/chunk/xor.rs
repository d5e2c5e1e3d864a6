//! Floats: times as differences of differences, values as differing bits.

use stint_model::{Columns, Timestamp};

use super::counted;
use crate::tsdb::Damage;
use crate::tsdb::bits::{Bits, Xor, signed};

/// Widths of a time behind prefixes of up to four ones.
const WIDTHS: [u32; 5] = [0, 14, 17, 20, 64];

pub(super) fn decode(data: &[u8], out: &mut Columns) -> Result<(), Damage> {
    let (count, rest) = counted(data)?;
    let mut bits = Bits::new(rest);
    if count == 0 {
        return Ok(());
    }
    // Two bits per sample at least, so that a lie about the count reserves little.
    let room = count.min(bits.remaining() / 2 + 1);
    out.times.reserve(room);
    out.values.reserve(room);
    let (mut at, mut delta) = (bits.varint()?, 0_i64);
    let mut value = Xor::behind(bits.float());
    bits.check()?;
    out.times.push(Timestamp(at));
    out.values.push(value.value());
    for number in 1..count {
        if number == 1 {
            delta = bits.uvarint()? as i64;
        } else {
            let ones = bits.peek().leading_ones().min(4);
            bits.skip((ones + 1).min(4));
            let width = WIDTHS.get(ones as usize).copied().unwrap_or_default();
            delta = delta.wrapping_add(signed(bits.take(width), width));
        }
        at = at.wrapping_add(delta);
        let next = value.next(&mut bits)?;
        bits.check().map_err(|damage| damage.behind(2))?;
        out.times.push(Timestamp(at));
        out.values.push(next);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::bits::put::{BitWriter, XorWriter};
    use crate::tsdb::chunk::{self, Encoding};
    use crate::tsdb::cursor::put as bytes;
    use proptest::prelude::*;
    use stint_model::STALE_NAN_BITS;

    /// What a Prometheus server writes.
    pub(super) fn encode(samples: &[(i64, f64)]) -> Vec<u8> {
        let mut out = BitWriter::default();
        out.put(samples.len() as u64, 16);
        let (mut before, mut delta) = (0, 0);
        let mut values = XorWriter::default();
        for (number, (at, value)) in samples.iter().enumerate() {
            let mut integer = Vec::new();
            match number {
                0 => bytes::varint(&mut integer, *at),
                1 => {
                    delta = at - before;
                    bytes::uvarint(&mut integer, delta as u64);
                }
                _ => {
                    let change = at - before - delta;
                    delta += change;
                    let fits = |width: u32| {
                        let half = 1_i64 << (width - 1);
                        (1 - half..=half).contains(&change)
                    };
                    let ones = if change == 0 {
                        0
                    } else {
                        (1..4).find(|n| fits(WIDTHS[*n])).unwrap_or(4)
                    };
                    let prefix = [0b0, 0b10, 0b110, 0b1110, 0b1111][ones];
                    out.put(prefix, (ones as u32 + 1).min(4));
                    out.put(change as u64, WIDTHS[ones]);
                }
            }
            out.put_bytes(&integer);
            before = *at;
            if number == 0 {
                values.before = value.to_bits();
                out.put(value.to_bits(), 64);
            } else {
                values.put(*value, &mut out);
            }
        }
        out.bytes
    }

    fn samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
        let value = prop_oneof![
            any::<u64>(),
            Just(STALE_NAN_BITS),
            (0_u32..100).prop_map(|n| f64::from(n).to_bits()),
        ];
        let gap = prop_oneof![Just(15_000_i64), 1..20_000_i64, 1..1_i64 << 40];
        (-(1_i64 << 50)..1 << 50, prop::collection::vec((gap, value), 0..200)).prop_map(
            |(mut at, rows)| {
                rows.into_iter()
                    .map(|(gap, bits)| {
                        at += gap;
                        (at, f64::from_bits(bits))
                    })
                    .collect()
            },
        )
    }

    proptest! {
        #[test]
        fn samples_come_back_to_the_bit(samples in samples()) {
            let mut out = Columns::default();
            chunk::decode(Encoding::XOR, &encode(&samples), &mut out).unwrap();
            let back: Vec<(i64, u64)> =
                out.times.iter().zip(&out.values).map(|(at, v)| (at.0, v.to_bits())).collect();
            let want: Vec<(i64, u64)> = samples.iter().map(|(at, v)| (*at, v.to_bits())).collect();
            prop_assert_eq!(back, want);
        }

        #[test]
        fn a_chunk_that_was_cut_short_is_noticed(samples in samples(), cut in 0.0_f64..1.0) {
            prop_assume!(!samples.is_empty());
            let whole = encode(&samples);
            let cut = (whole.len() as f64 * cut) as usize;
            let decoded = chunk::decode(Encoding::XOR, &whole[..cut], &mut Columns::default());
            prop_assert!(decoded.is_err());
        }
    }
}
