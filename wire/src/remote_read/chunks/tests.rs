use proptest::prelude::*;

use super::*;

/// Reads what [`Bits`] writes, after the description of the format.
struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn take(&mut self, width: usize) -> u64 {
        let mut value = 0;
        for _ in 0..width {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            value = value << 1 | u64::from(bit);
            self.at += 1;
        }
        value
    }

    fn signed(&mut self, width: usize) -> i64 {
        let value = self.take(width) as i64;
        if width < 64 && value > 1 << (width - 1) { value - (1 << width) } else { value }
    }

    fn uvarint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.take(8);
            value |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn varint(&mut self) -> i64 {
        let value = self.uvarint();
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    /// Ones before the next zero, `most` at most.
    fn ones(&mut self, most: usize) -> usize {
        (0..most).find(|_| self.take(1) == 0).unwrap_or(most)
    }

    fn int(&mut self) -> i64 {
        match self.ones(8) {
            0 => 0,
            class => self.signed([3, 6, 9, 12, 18, 25, 56, 64][class - 1]),
        }
    }

    fn uint(&mut self) -> u64 {
        match self.ones(8) {
            0 => 0,
            class => self.take([3, 6, 9, 12, 18, 25, 56, 64][class - 1]),
        }
    }

    fn xor(&mut self, state: &mut (u64, usize, usize)) -> f64 {
        if self.take(1) == 1 {
            if self.take(1) == 1 {
                let leading = self.take(5) as usize;
                let width = match self.take(6) as usize {
                    0 => 64,
                    width => width,
                };
                (state.1, state.2) = (width, 64 - leading - width);
            }
            state.0 ^= self.take(state.1) << state.2;
        }
        f64::from_bits(state.0)
    }
}

fn floats(chunk: &Chunk) -> Vec<(i64, u64)> {
    assert_eq!(chunk.encoding, Encoding::Xor);
    let mut bits = BitReader { bytes: &chunk.data, at: 0 };
    let count = bits.take(16);
    let (mut at, mut step, mut value) = (0, 0, (0, 0, 0));
    let mut read = Vec::new();
    for number in 0..count {
        match number {
            0 => {
                at = bits.varint();
                value.0 = bits.take(64);
            }
            1 => step = bits.uvarint() as i64,
            _ => {
                let width = [0, 14, 17, 20, 64][bits.ones(4)];
                step += if width == 0 { 0 } else { bits.signed(width) };
            }
        }
        if number > 0 {
            at += step;
            bits.xor(&mut value);
        }
        read.push((at, value.0));
    }
    read
}

fn encoded(columns: &Columns) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    encode(columns, |chunk| chunks.push(chunk));
    chunks
}

proptest! {
    #[test]
    fn floats_come_back_bit_by_bit(
        start in -1_000_000_000_000_i64..2_000_000_000_000,
        samples in prop::collection::vec((1_i64..3_000_000_000, any::<u64>()), 1..300),
        round in any::<bool>(),
    ) {
        let mut columns = Columns::default();
        let mut at = start;
        for (step, value) in &samples {
            columns.times.push(Timestamp(at));
            columns.values.push(if round { (value % 7) as f64 } else { f64::from_bits(*value) });
            at += if round { 15_000 } else { *step };
        }
        let chunks = encoded(&columns);
        prop_assert_eq!(chunks.len(), samples.len().div_ceil(SAMPLES_MAX));
        let read: Vec<_> = chunks.iter().flat_map(floats).collect();
        let given = columns.times.iter().zip(&columns.values);
        prop_assert_eq!(read, given.map(|(at, v)| (at.0, v.to_bits())).collect::<Vec<_>>());
        prop_assert_eq!(chunks[0].first, columns.times[0]);
        prop_assert_eq!(chunks.last().unwrap().last, *columns.times.last().unwrap());
    }

    #[test]
    fn numbers_come_back(ints: Vec<i64>, uints: Vec<u64>, shift in 0_u32..64) {
        let mut bits = Bits::default();
        for (int, uint) in ints.iter().zip(&uints) {
            bits.put_int(int >> shift);
            bits.put_uint(uint >> shift);
        }
        let bytes = bits.finish();
        let mut reader = BitReader { bytes: &bytes, at: 0 };
        for (int, uint) in ints.iter().zip(&uints) {
            prop_assert_eq!((reader.int(), reader.uint()), (int >> shift, uint >> shift));
        }
    }
}

fn histogram(count: u64, deltas: &[i64]) -> IntegerHistogram {
    IntegerHistogram {
        schema: 2,
        zero_threshold: 2_f64.powi(-128),
        zero_count: 1,
        count,
        sum: count as f64 / 3.0,
        positive_spans: vec![BucketSpan { offset: -2, length: deltas.len() as u32 }],
        positive_deltas: deltas.to_vec(),
        ..IntegerHistogram::default()
    }
}

fn rows(histograms: Vec<Histogram>) -> Columns {
    let mut columns = Columns::default();
    for (row, histogram) in histograms.into_iter().enumerate() {
        columns.times.push(Timestamp(row as i64 * 15_000));
        columns.values.push(0.0);
        columns.histograms.push((row, Arc::new(histogram)));
    }
    columns
}

/// Schema, zero threshold's byte, spans of the positive side, and the samples.
fn integers(chunk: &Chunk) -> Vec<(i64, u64, f64, Vec<i64>)> {
    assert_eq!(chunk.encoding, Encoding::Histogram);
    let mut bits = BitReader { bytes: &chunk.data, at: 0 };
    let (count, _flags) = (bits.take(16), bits.take(8));
    assert_eq!((bits.take(8), bits.int()), (243 - 127, 2), "zero threshold, schema");
    assert_eq!(bits.uint(), 1, "spans");
    let (buckets, offset) = (bits.uint() as usize, bits.int());
    assert_eq!((offset, bits.uint()), (-2, 0), "offset, negative spans");
    let mut read = Vec::new();
    let (mut at, mut total, mut zero) = ((0, 0), (0, 0), (0, 0));
    let (mut sum, mut deltas) = ((0, 0, 0), vec![(0, 0); buckets]);
    let add = |state: &mut (i64, i64), second: i64| {
        state.1 += second;
        state.0 += state.1;
    };
    for number in 0..count {
        if number == 0 {
            at.0 = bits.int();
            (total.0, zero.0) = (bits.uint() as i64, bits.uint() as i64);
            sum.0 = bits.take(64);
            for delta in &mut deltas {
                delta.0 = bits.int();
            }
        } else {
            let second = if number == 1 { bits.uint() as i64 } else { bits.int() };
            add(&mut at, second);
            add(&mut total, bits.int());
            add(&mut zero, bits.int());
            bits.xor(&mut sum);
            for delta in &mut deltas {
                add(delta, bits.int());
            }
        }
        let buckets = deltas.iter().map(|delta| delta.0).collect();
        read.push((at.0, total.0 as u64, f64::from_bits(sum.0), buckets));
    }
    read
}

#[test]
fn integer_histograms_come_back() {
    let given: Vec<_> = (1..=5).map(|n| histogram(n * 10, &[n as i64, 3, -(n as i64)])).collect();
    let columns = rows(given.iter().cloned().map(Histogram::Integer).collect());
    let chunks = encoded(&columns);
    let [chunk] = &chunks[..] else { panic!("{chunks:?}") };
    let expected: Vec<_> = given
        .iter()
        .zip(&columns.times)
        .map(|(h, at)| (at.0, h.count, h.sum, h.positive_deltas.clone()))
        .collect();
    assert_eq!(integers(chunk), expected);
}

#[test]
fn a_chunk_ends_where_its_samples_have_nothing_in_common() {
    let integer = |count, deltas: &[i64]| Histogram::Integer(histogram(count, deltas));
    let float = |count, deltas: &[i64]| Histogram::Float(histogram(count, deltas).to_float());
    let flags = |chunks: &[Chunk]| -> Vec<(Encoding, u8)> {
        chunks.iter().map(|chunk| (chunk.encoding, chunk.data[2])).collect()
    };
    let columns = rows(vec![
        integer(5, &[4]),
        integer(6, &[5]),
        // A reset, another layout, another kind, a reset of that kind.
        integer(2, &[1]),
        integer(4, &[1, 1]),
        float(4, &[1, 1]),
        float(5, &[1, 2]),
        float(2, &[1, 0]),
    ]);
    let (int, float) = (Encoding::Histogram, Encoding::FloatHistogram);
    assert_eq!(
        flags(&encoded(&columns)),
        [(int, 0), (int, 0x80), (int, 0), (float, 0), (float, 0x80)]
    );
    let mut mixed = rows(vec![integer(5, &[4]), integer(6, &[5])]);
    mixed.times.insert(1, Timestamp(1));
    mixed.values.insert(1, stint_model::sample::stale_nan());
    mixed.histograms[1].0 = 2;
    let kinds: Vec<_> = encoded(&mixed).iter().map(|chunk| chunk.encoding).collect();
    assert_eq!(kinds, [int, Encoding::Xor, int]);
}

#[test]
fn gauges_are_never_reset() {
    let gauge = |count| {
        let reset_hint = ResetHint::Gauge;
        Histogram::Integer(IntegerHistogram { reset_hint, ..histogram(count, &[1]) })
    };
    let chunks = encoded(&rows(vec![gauge(5), gauge(2)]));
    assert_eq!((chunks.len(), chunks[0].data[2]), (1, 0xc0));
}

#[test]
fn custom_bounds_are_short_where_they_can_be() {
    for (bound, bits) in [(0.005, 1 + 2 + 6 - 3), (0.1 + 0.2, 65), (-1.0, 65), (33_554.431, 65)] {
        let mut written = Bits::default();
        put_custom_bound(&mut written, bound);
        let bytes = written.finish();
        let mut reader = BitReader { bytes: &bytes, at: 0 };
        let read = match reader.uint() {
            0 => f64::from_bits(reader.take(64)),
            thousandths => (thousandths - 1) as f64 / 1000.0,
        };
        assert_eq!((read, reader.at <= bits.max(9)), (bound, true), "{bound}");
    }
}
