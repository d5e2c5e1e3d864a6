//! Floats with start times: as [`super::xor`], but time and value share their first bits, so that what
//! comes on time and stays the same takes one. A stale marker has bits of its own, and what follows
//! differs from the value before it.

use stint_model::{Columns, STALE_NAN_BITS, Timestamp};

use super::counted;
use crate::tsdb::Damage;
use crate::tsdb::bits::{Bits, Xor};

/// The flag of the third byte: the first sample has a start time.
const FIRST_START: u8 = 0x80;

/// Start times, each as its distance from the time of the sample before.
struct Starts {
    /// From which sample on there are distances; 0 for never.
    from: usize,
    distance: i64,
    /// 0 for none.
    now: i64,
}

impl Starts {
    /// Goes on to sample `number`, the one behind that of `before`.
    fn next(&mut self, number: usize, before: i64, bits: &mut Bits<'_>) {
        if self.from == 0 || number < self.from {
            return;
        }
        let change = bits.varbit();
        self.distance =
            if number == self.from { change } else { self.distance.wrapping_add(change) };
        self.now = before.wrapping_sub(self.distance);
    }

    fn put(&self, row: usize, out: &mut Columns) {
        if self.now != 0 {
            // Rows before the first one that has a start time have none.
            out.starts.resize(row, Timestamp::MIN);
            out.starts.push(Timestamp(self.now));
        }
    }
}

pub(super) fn decode(data: &[u8], out: &mut Columns) -> Result<(), Damage> {
    let (count, rest) = counted(data)?;
    if count == 0 {
        return Ok(());
    }
    let (header, rest) =
        rest.split_first().ok_or_else(|| Damage::new(2, "too short for a chunk"))?;
    let mut starts = Starts { from: usize::from(header & !FIRST_START), distance: 0, now: 0 };
    let mut bits = Bits::new(rest);
    // A bit per sample at least, so that a lie about the count reserves little.
    let room = count.min(bits.remaining() + 1);
    out.times.reserve(room);
    out.values.reserve(room);
    let (mut at, mut delta) = (bits.varint()?, 0_i64);
    let first = bits.float();
    // A marker is nothing that others differ from.
    let base = if first.to_bits() == STALE_NAN_BITS { 0.0 } else { first };
    let mut value = Xor::behind(base);
    if header & FIRST_START != 0 {
        starts.now = at.wrapping_sub(bits.varint()?);
    }
    bits.check()?;
    push(out, at, first, &starts);
    for number in 1..count {
        let before = at;
        let next = if number == 1 {
            delta = bits.uvarint()? as i64;
            changed(&mut value, &mut bits)?
        } else {
            match bits.peek().leading_ones().min(5) {
                0 => {
                    bits.skip(1);
                    value.value()
                }
                1 => {
                    bits.skip(2);
                    let is_new = bits.take(1) == 1;
                    differing(&mut value, is_new, &mut bits)?
                }
                5 => {
                    bits.skip(5);
                    f64::from_bits(STALE_NAN_BITS)
                }
                ones => {
                    bits.skip(ones + 1);
                    let width = [13, 20, 64][ones as usize - 2];
                    let change = (bits.take(width) << (64 - width)) as i64 >> (64 - width);
                    delta = delta.wrapping_add(change);
                    changed(&mut value, &mut bits)?
                }
            }
        };
        at = at.wrapping_add(delta);
        starts.next(number, before, &mut bits);
        bits.check().map_err(|damage| damage.behind(3))?;
        push(out, at, next, &starts);
    }
    Ok(())
}

fn push(out: &mut Columns, at: i64, value: f64, starts: &Starts) {
    starts.put(out.times.len(), out);
    out.times.push(Timestamp(at));
    out.values.push(value);
}

/// A value that may be the same as before, or a stale marker.
fn changed(value: &mut Xor, bits: &mut Bits<'_>) -> Result<f64, Damage> {
    let ones = bits.peek().leading_ones().min(3);
    bits.skip((ones + 1).min(3));
    match ones {
        0 => Ok(value.value()),
        1 => differing(value, false, bits),
        2 => differing(value, true, bits),
        _ => Ok(f64::from_bits(STALE_NAN_BITS)),
    }
}

/// A value that differs from the one before, in the window of before or in a new one.
fn differing(value: &mut Xor, is_new: bool, bits: &mut Bits<'_>) -> Result<f64, Damage> {
    if is_new {
        value.window(bits)?;
    }
    Ok(value.differ(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tsdb::bits::put::BitWriter;
    use crate::tsdb::chunk::{self, Encoding};
    use crate::tsdb::cursor::put as bytes;

    /// What a Prometheus server writes. A start time of 0 is none.
    #[derive(Default)]
    struct Writer {
        out: BitWriter,
        window: Option<(u32, u32)>,
        base: u64,
        at: i64,
        delta: i64,
        start: i64,
        distance: i64,
        header: u8,
    }

    const STALE: u64 = STALE_NAN_BITS;
    /// The sample from which on there are distances in any case.
    const START_FROM_MAX: usize = 127;

    impl Writer {
        fn differing(&mut self, bits: u64, marks: [(u64, u32); 2]) {
            let differing = bits ^ self.base;
            let (leading, trailing) =
                (differing.leading_zeros().min(31), differing.trailing_zeros());
            if let Some((left, right)) = self.window
                && leading >= left
                && trailing >= right
            {
                self.out.put(marks[0].0, marks[0].1);
                return self.out.put(differing >> right, 64 - left - right);
            }
            self.window = Some((leading, trailing));
            let width = 64 - leading - trailing;
            self.out.put(marks[1].0, marks[1].1);
            self.out.put(u64::from(leading), 5);
            self.out.put(u64::from(width % 64), 6);
            self.out.put(differing >> trailing, width);
        }

        fn value(&mut self, bits: u64) {
            if bits == STALE {
                self.out.put(0b111, 3);
            } else if bits == self.base {
                self.out.put(0, 1);
            } else {
                self.differing(bits, [(0b10, 2), (0b110, 3)]);
            }
        }

        fn joint(&mut self, change: i64, bits: u64) {
            match change {
                0 if bits == STALE => return self.out.put(0b11111, 5),
                0 if bits == self.base => return self.out.put(0, 1),
                0 => {
                    self.out.put(0b10, 2);
                    return self.differing(bits, [(0, 1), (1, 1)]);
                }
                -4096..=4095 => {
                    self.out.put(0b110, 3);
                    self.out.put(change as u64, 13);
                }
                -524_288..=524_287 => {
                    self.out.put(0b1110, 4);
                    self.out.put(change as u64, 20);
                }
                _ => {
                    self.out.put(0b11110, 5);
                    self.out.put(change as u64, 64);
                }
            }
            self.value(bits);
        }

        fn push(&mut self, number: usize, (at, bits, start): (i64, u64, i64)) {
            let mut integer = Vec::new();
            match number {
                0 => {
                    bytes::varint(&mut integer, at);
                    self.out.put_bytes(&integer);
                    self.out.put(bits, 64);
                    if start != 0 {
                        integer.clear();
                        bytes::varint(&mut integer, at - start);
                        self.out.put_bytes(&integer);
                        self.header |= FIRST_START;
                    }
                }
                1 => {
                    self.delta = at - self.at;
                    bytes::uvarint(&mut integer, self.delta as u64);
                    self.out.put_bytes(&integer);
                    self.value(bits);
                }
                _ => {
                    let change = at - self.at - self.delta;
                    self.delta += change;
                    self.joint(change, bits);
                }
            }
            let from = usize::from(self.header & !FIRST_START);
            let distance = self.at - start;
            if number > 0 && from > 0 {
                self.out.varbit(distance - self.distance);
                self.distance = distance;
            } else if number > 0 && (start != self.start || number == START_FROM_MAX) {
                self.header |= number as u8;
                self.out.varbit(distance);
                self.distance = distance;
            }
            (self.at, self.start) = (at, start);
            if bits != STALE {
                self.base = bits;
            }
        }
    }

    fn encode(samples: &[(i64, u64, i64)]) -> Vec<u8> {
        let mut writer = Writer::default();
        for (number, sample) in samples.iter().enumerate() {
            writer.push(number, *sample);
        }
        let count = (samples.len() as u16).to_be_bytes();
        [&count[..], &[writer.header], &writer.out.bytes].concat()
    }

    fn samples() -> impl Strategy<Value = Vec<(i64, u64, i64)>> {
        let value = prop_oneof![
            any::<u64>(),
            Just(STALE),
            (0_u32..4).prop_map(|n| f64::from(n).to_bits()),
        ];
        let gap = prop_oneof![Just(15_000_i64), 10_000..20_000_i64, 1..1_i64 << 40];
        let start = prop_oneof![4 => Just(None), 1 => (0..1_i64 << 41).prop_map(Some)];
        (1..1_i64 << 40, prop::collection::vec((gap, value, start), 0..200)).prop_map(
            |(mut at, rows)| {
                let mut now = 0;
                rows.into_iter()
                    .map(|(gap, bits, start)| {
                        at += gap;
                        now = start.unwrap_or(now);
                        (at, bits, now)
                    })
                    .collect()
            },
        )
    }

    proptest! {
        #[test]
        fn samples_come_back_to_the_bit_with_their_starts(samples in samples()) {
            let mut out = Columns::default();
            chunk::decode(Encoding::XOR2, &encode(&samples), &mut out).unwrap();
            let back: Vec<(i64, u64)> =
                out.times.iter().zip(&out.values).map(|(at, v)| (at.0, v.to_bits())).collect();
            let want: Vec<(i64, u64)> = samples.iter().map(|(at, v, _)| (*at, *v)).collect();
            prop_assert_eq!(back, want);
            let start = |row: usize| out.starts.get(row).copied().unwrap_or(Timestamp::MIN);
            for (row, (_, _, want)) in samples.iter().enumerate() {
                let want = if *want == 0 { Timestamp::MIN } else { Timestamp(*want) };
                prop_assert_eq!(start(row), want);
            }
        }

        #[test]
        fn a_chunk_that_was_cut_short_is_noticed(samples in samples(), cut in 0.0_f64..1.0) {
            prop_assume!(!samples.is_empty());
            let whole = encode(&samples);
            let cut = (whole.len() as f64 * cut) as usize;
            let decoded = chunk::decode(Encoding::XOR2, &whole[..cut], &mut Columns::default());
            prop_assert!(decoded.is_err());
        }
    }

    #[test]
    fn what_stays_the_same_takes_a_bit() {
        let samples: Vec<_> = (0..66).map(|n| (n * 15_000, 1_f64.to_bits(), 0)).collect();
        // Count, header, time, value and gap, and a bit for each but the first.
        assert_eq!(encode(&samples).len(), 2 + 1 + 1 + 8 + 2 + 65_usize.div_ceil(8));
    }
}
