//! gzip for answers in JSON, several times as fast as a compressor that knows nothing of them.
//!
//! Most of a large answer are samples: times, which stood in the series before at the same place, and
//! values, whose digits repeat nothing. So a repetition is looked for by the next sixteen bytes, which
//! finds the times, then by the next four; and digits are passed over. One pass, with codes that are
//! known beforehand.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use self::codes::{CODES, Code, Codes, DISTANCE_MAX, LENGTH_MAX};

mod codes;

/// Magic, deflate, no flags, no time, fastest, made on an unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// By how many of the next bytes a repetition is looked for: first by many, then by few.
const LONG: usize = 16;
const SHORT: usize = 4;
/// A repetition that is shorter than this is not worth a distance that is longer than the other.
const FAR_LENGTH_MIN: usize = 6;
const NEAR_DISTANCE: usize = 4096;
/// Places in the tables of what was seen.
const PLACES_BITS: u32 = 12;

/// The gzip form of `text`, which should be JSON but may be anything.
pub fn compress(text: &[u8]) -> Vec<u8> {
    if u32::try_from(text.len()).is_err() {
        return compress_any(text);
    }
    let (codes, out) = (&*CODES, Vec::with_capacity(text.len() / 3 + 128));
    let mut writer = Writer { codes, out, bits: 0, count: 0 };
    writer.out.extend_from_slice(&HEAD);
    for code in &codes.opening {
        writer.push(*code);
    }
    repetitions(text, &mut writer);
    let mut out = writer.finish();
    // Where the codes do not fit at all, others do.
    if out.len() > text.len() {
        return compress_any(text);
    }
    out.extend_from_slice(&crc32fast::hash(text).to_le_bytes());
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out
}

/// The gzip form of any text, made by a compressor that looks at what there is.
pub fn compress_any(text: &[u8]) -> Vec<u8> {
    let compress = |level| {
        let mut encoder = GzEncoder::new(Vec::new(), level);
        let written = encoder.write_all(text).and_then(|()| encoder.finish());
        written.expect("a vector takes everything")
    };
    let small = compress(Compression::fast());
    // What cannot be made smaller is wrapped as it is.
    if small.len() > text.len() { compress(Compression::none()) } else { small }
}

/// Writes `text` as what repeats nothing and as repetitions.
fn repetitions(text: &[u8], writer: &mut Writer) {
    // Where something was seen last, plus one.
    let mut long = vec![0_u32; 1 << PLACES_BITS];
    let mut short = vec![0_u32; 1 << PLACES_BITS];
    let mut written = 0;
    let mut at = 0;
    while at + LONG <= text.len() {
        let (first, second) = (eight(text, at), eight(text, at + 8));
        let before_long = replace(&mut long, place_of_sixteen(first, second), at);
        let before_short = replace(&mut short, place_of_four(first as u32), at);
        let repeated = before_long
            .filter(|before| at - before <= DISTANCE_MAX)
            .filter(|before| eight(text, *before) == first && eight(text, *before + 8) == second)
            .map(|before| (at - before, LONG))
            .or_else(|| {
                before_short
                    .filter(|before| at - before <= DISTANCE_MAX)
                    .filter(|before| eight(text, *before) as u32 == first as u32)
                    .map(|before| (at - before, SHORT))
            })
            .map(|(distance, known)| (distance, known + same(text, at + known, distance, known)))
            .filter(|(distance, length)| *length >= FAR_LENGTH_MIN || *distance < NEAR_DISTANCE);
        if let Some((distance, length)) = repeated {
            writer.literals(text.get(written..at).unwrap_or_default());
            writer.repetition(length, distance);
            at += length;
            written = at;
            continue;
        }
        at += digits(text, at).max(1);
    }
    writer.literals(text.get(written..).unwrap_or_default());
    writer.push(writer.codes.end);
}

/// How many bytes from `at` on are the same as `distance` before, `known` of which are known to be,
/// before it.
fn same(text: &[u8], at: usize, distance: usize, known: usize) -> usize {
    let max = (LENGTH_MAX - known).min(text.len() - at);
    let mut same = 0;
    while same + 8 <= max {
        let differ = eight(text, at + same) ^ eight(text, at + same - distance);
        if differ != 0 {
            return same + differ.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    while same < max && text.get(at + same) == text.get(at + same - distance) {
        same += 1;
    }
    same
}

/// How many digits stand at `at`; points count as such, and slashes.
fn digits(text: &[u8], at: usize) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    let mut found = 0;
    loop {
        let bytes = eight(text, at + found);
        // The high bit of each byte tells whether it is more than a nine, or not less than a point.
        let above = (bytes & !HIGH) + (0x7f - b'9' as u64) * EACH;
        let not_below = (bytes | HIGH) - b'.' as u64 * EACH;
        let others = (above | !not_below | bytes) & HIGH;
        if others != 0 {
            return found + others.trailing_zeros() as usize / 8;
        }
        found += 8;
    }
}

/// Eight bytes of the text; zero where it is not that long.
fn eight(text: &[u8], at: usize) -> u64 {
    let bytes = text.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

fn place_of_sixteen(first: u64, second: u64) -> usize {
    let mixed = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ second.rotate_left(29);
    (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> (64 - PLACES_BITS)) as usize
}

fn place_of_four(bytes: u32) -> usize {
    (bytes.wrapping_mul(0x9e37_79b1) >> (32 - PLACES_BITS)) as usize
}

/// What was at the place, which is `at` from now on.
fn replace(places: &mut [u32], place: usize, at: usize) -> Option<usize> {
    let before = std::mem::replace(places.get_mut(place)?, at as u32 + 1);
    (before as usize).checked_sub(1)
}

/// Literals whose codes are joined before they are written: so many fit beside what is left over.
const JOINED: usize = 4;

/// Bits, the first of a byte being the lowest one.
struct Writer {
    codes: &'static Codes,
    out: Vec<u8>,
    /// Not written yet; fewer than 8.
    bits: u64,
    count: u32,
}

impl Writer {
    fn push(&mut self, code: Code) {
        self.write(u64::from(code.bits), code.count);
    }

    /// Appends at most 56 bits.
    fn write(&mut self, bits: u64, count: u32) {
        let all = self.bits | bits << self.count;
        let count = self.count + count;
        // Always as many bytes, of which those stay that are full: how many these are is no branch.
        let full = self.out.len() + count as usize / 8;
        self.out.extend_from_slice(&all.to_le_bytes());
        self.out.truncate(full);
        self.bits = all >> (count & !7);
        self.count = count & 7;
    }

    fn literals(&mut self, text: &[u8]) {
        let literals = &self.codes.literals;
        let code = |byte: u8| literals.get(usize::from(byte)).copied().unwrap_or_default();
        let (joined, rest) = text.as_chunks::<JOINED>();
        for bytes in joined {
            let (mut bits, mut count) = (0, 0);
            for code in bytes.map(code) {
                bits |= u64::from(code.bits) << count;
                count += code.count;
            }
            self.write(bits, count);
        }
        let (mut bits, mut count) = (0, 0);
        for code in rest.iter().map(|byte| code(*byte)) {
            bits |= u64::from(code.bits) << count;
            count += code.count;
        }
        self.write(bits, count);
    }

    fn repetition(&mut self, length: usize, distance: usize) {
        let length = self.codes.lengths.get(length).copied().unwrap_or_default();
        let distance = self.codes.distance(distance);
        let bits = u64::from(length.bits) | u64::from(distance.bits) << length.count;
        self.write(bits, length.count + distance.count);
    }

    fn finish(mut self) -> Vec<u8> {
        let left = self.count.div_ceil(8) as usize;
        self.out.extend_from_slice(self.bits.to_le_bytes().get(..left).unwrap_or_default());
        self.out
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn decompress(compressed: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        GzDecoder::new(compressed).read_to_end(&mut text).unwrap();
        text
    }

    #[track_caller]
    fn check(text: &[u8]) -> usize {
        let compressed = compress(text);
        assert!(decompress(&compressed) == text, "{} bytes", text.len());
        compressed.len()
    }

    /// A range result with the times of `steps` in each of `series`.
    fn range_result(series: u64, steps: u64) -> String {
        let mut state = 1_u64;
        let mut sample = |step: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let value = (state >> 40) as f64 / 977.0;
            format!(r#"[{},"{value}"]"#, 1_700_000_000 + step * 60)
        };
        let mut one = |number: u64| {
            let values: Vec<String> = (0..steps).map(&mut sample).collect();
            let values = values.join(",");
            format!(r#"{{"metric":{{"instance":"host-{number:05}:9100"}},"values":[{values}]}}"#)
        };
        let all: Vec<String> = (0..series).map(&mut one).collect();
        let all = all.join(",");
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{all}]}}}}"#)
    }

    #[test]
    fn results_become_as_small_as_by_others() {
        let text = range_result(40, 120);
        let mut usual = GzEncoder::new(Vec::new(), Compression::fast());
        usual.write_all(text.as_bytes()).unwrap();
        let usual = usual.finish().unwrap().len();
        assert!(check(text.as_bytes()) < usual);
    }

    #[test]
    fn everything_comes_back() {
        check(b"");
        check(b"{}");
        check(&b"0123456789abcdef".repeat(5000));
        check(&vec![b'a'; 100_000]);
        check(range_result(3, 2000).as_bytes());
        // Repetitions that are just too far away, and the farthest ones.
        for distance in [32_766, 32_767, 32_768, 32_769, 32_770] {
            let mut text = b"this is a text that comes again".to_vec();
            text.resize(distance, b'.');
            text.extend_from_slice(b"this is a text that comes again");
            check(&text);
        }
    }

    #[test]
    fn what_repeats_nothing_does_not_grow_much() {
        let mut state = 7_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(50_000)
        .collect();
        assert!(check(&noise) < noise.len() + 200);
    }

    #[test]
    fn digits_are_counted() {
        for (text, count) in [("", 0), ("a1", 0), ("1", 1), ("0.5\"", 3), ("-1", 0), ("9:", 1)] {
            let padded = format!("{text}        ");
            assert_eq!(digits(padded.as_bytes(), 0), count, "{text}");
        }
        assert_eq!(digits(b"1234567890.12345,       ", 0), 16);
        assert_eq!(digits("12345678é       ".as_bytes(), 0), 8);
        assert_eq!(digits(b"123456789", 0), 8, "the end is no more than eight bytes away");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(text: Vec<u8>) {
            check(&text);
        }

        #[test]
        fn repetitive_texts_come_back(
            words in prop::collection::vec(r#"[0-9.]{1,9}|[a-c"\[\],]{1,20}"#, 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..600),
        ) {
            let text: String = order.iter().map(|index| index.get(&words).as_str()).collect();
            check(text.as_bytes());
        }
    }
}
