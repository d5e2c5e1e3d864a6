//! The one set of Huffman codes that answers are written with.
//!
//! Codes made for each answer would be a few percent shorter, but could only be made once all of it
//! was looked at. These are those of many answers of queries, where most of what is no repetition
//! are the digits of values.

use std::sync::LazyLock;

/// Bits of the code of each byte, of the end, and of the classes of lengths.
const LITERAL_BITS: [u8; 286] = [
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 6, 12, 12, 12, 12, 12, 12, 12, 12, 12, 7, 10, 5, 11, 4,
    4, 4, 4, 4, 4, 4, 4, 4, 4, 8, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 11, 12, 12, 12, 12, 12, 12, 9, 12, 9, 12, 8, 12, 7, 10, 8,
    8, 7, 10, 9, 9, 8, 10, 11, 8, 8, 8, 7, 8, 11, 8, 7, 7, 8, 9, 11, 10, 10, 11, 9, 12, 8, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 6, 6, 7, 7, 8, 9, 8, 5, 8, 6, 6, 7, 7, 7, 8, 9, 10, 9,
    10, 9, 10, 10, 11, 10, 12, 12, 12, 12,
];

/// Bits of the code of each class of distances.
const DISTANCE_BITS: [u8; 30] =
    [10, 10, 10, 9, 10, 9, 8, 8, 4, 6, 3, 6, 4, 5, 5, 5, 5, 6, 4, 5, 5, 6, 5, 5, 2, 6, 5, 5, 6, 6];

/// Bits of the codes with which the numbers above are told to the reader: of each number of bits, and
/// of a repetition of the last one.
const BITS_BITS: [u8; 19] = [0, 0, 6, 6, 5, 4, 4, 4, 3, 4, 3, 4, 3, 0, 0, 0, 2, 0, 0];
/// The order in which those come.
const BITS_ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Stands for three to six times the same number as before.
const REPEAT: usize = 16;

/// The number of the end among the literals, and of the first class of lengths.
const END: usize = 256;
const FIRST_LENGTH: usize = 257;

/// The shortest and the longest repetition.
pub(super) const LENGTH_MIN: usize = 3;
pub(super) const LENGTH_MAX: usize = 258;
/// How far back a repetition may reach.
pub(super) const DISTANCE_MAX: usize = 1 << 15;

/// A code, ready to be appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    /// The first bit is the lowest one.
    pub(super) bits: u32,
    pub(super) count: u32,
}

impl Code {
    /// This code, and then `count` bits more.
    fn then(self, bits: u32, count: u32) -> Self {
        Self { bits: self.bits | bits << self.count, count: self.count + count }
    }
}

/// All codes.
pub(super) struct Codes {
    pub(super) literals: [Code; 256],
    pub(super) end: Code,
    /// By length.
    pub(super) lengths: [Code; LENGTH_MAX + 1],
    distances: [Code; 30],
    /// What tells the reader the codes, at the start of the only block.
    pub(super) opening: Vec<Code>,
}

/// The codes, made once.
pub(super) static CODES: LazyLock<Codes> = LazyLock::new(Codes::new);

impl Codes {
    fn new() -> Self {
        let of_literals = codes(&LITERAL_BITS);
        let mut literals = [Code::default(); 256];
        literals.copy_from_slice(of_literals.get(..256).unwrap_or_default());
        let mut lengths = [Code::default(); LENGTH_MAX + 1];
        for (length, code) in lengths.iter_mut().enumerate().skip(LENGTH_MIN) {
            let (class, bits, count) = length_class(length);
            let class = of_literals.get(FIRST_LENGTH + class).copied().unwrap_or_default();
            *code = class.then(bits, count);
        }
        let mut distances = [Code::default(); 30];
        distances.copy_from_slice(&codes(&DISTANCE_BITS));
        let end = of_literals.get(END).copied().unwrap_or_default();
        Self { literals, end, lengths, distances, opening: opening() }
    }

    /// The code of a distance of at least 1.
    pub(super) fn distance(&self, distance: usize) -> Code {
        let (class, bits, count) = distance_class(distance);
        self.distances.get(class).copied().unwrap_or_default().then(bits, count)
    }
}

/// The class of a length, and what tells it apart in its class.
fn length_class(length: usize) -> (usize, u32, u32) {
    let from = length - LENGTH_MIN;
    if length == LENGTH_MAX {
        return (28, 0, 0);
    }
    if from < 8 {
        return (from, 0, 0);
    }
    let count = from.ilog2() - 2;
    let class = (4 * count as usize) + (from >> count);
    (class, from as u32 & ((1 << count) - 1), count)
}

/// The class of a distance, and what tells it apart in its class.
fn distance_class(distance: usize) -> (usize, u32, u32) {
    let from = distance - 1;
    if from < 4 {
        return (from, 0, 0);
    }
    let count = from.ilog2() - 1;
    let class = (2 * count as usize) + (from >> count);
    (class, from as u32 & ((1 << count) - 1), count)
}

/// The codes of symbols that have so many bits: in order of bits, then of symbols.
fn codes(bits: &[u8]) -> Vec<Code> {
    let mut codes = vec![Code::default(); bits.len()];
    let mut next = 0_u32;
    for count in 1..=15 {
        next <<= 1;
        for (code, _) in codes.iter_mut().zip(bits).filter(|(_, bits)| u32::from(**bits) == count) {
            *code = Code { bits: next.reverse_bits() >> (32 - count), count };
            next += 1;
        }
    }
    codes
}

/// The head of a last block with own codes.
fn opening() -> Vec<Code> {
    let number = |bits: usize, count| Code { bits: bits as u32, count };
    let used =
        BITS_ORDER.iter().rposition(|symbol| BITS_BITS.get(usize::from(*symbol)) != Some(&0));
    let used = used.map_or(0, |last| last + 1);
    let mut opening = vec![
        number(1, 1),
        number(2, 2),
        number(LITERAL_BITS.len() - 257, 5),
        number(DISTANCE_BITS.len() - 1, 5),
        number(used - 4, 4),
    ];
    for symbol in BITS_ORDER.iter().take(used) {
        let bits = BITS_BITS.get(usize::from(*symbol)).copied().unwrap_or_default();
        opening.push(number(usize::from(bits), 3));
    }
    let of_bits = codes(&BITS_BITS);
    let code = |symbol: usize| of_bits.get(symbol).copied().unwrap_or_default();
    let all: Vec<u8> = LITERAL_BITS.iter().chain(&DISTANCE_BITS).copied().collect();
    for same in all.chunk_by(|a, b| a == b) {
        let Some(bits) = same.first().map(|bits| code(usize::from(*bits))) else { continue };
        opening.push(bits);
        let mut left = same.len() - 1;
        while left > 0 {
            let repeated = left.min(6);
            if repeated >= 3 {
                opening.push(code(REPEAT).then(repeated as u32 - 3, 2));
                left -= repeated;
            } else {
                opening.push(bits);
                left -= 1;
            }
        }
    }
    opening
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes that leave no pattern of bits without meaning.
    fn is_complete(bits: &[u8]) -> bool {
        let shares = bits.iter().filter(|bits| **bits > 0).map(|bits| 1_u32 << (15 - bits));
        shares.sum::<u32>() == 1 << 15
    }

    #[test]
    fn every_pattern_of_bits_has_a_meaning() {
        assert!(is_complete(&LITERAL_BITS));
        assert!(is_complete(&DISTANCE_BITS));
        assert!(is_complete(&BITS_BITS));
    }

    #[test]
    fn classes_are_those_of_the_format() {
        assert_eq!(length_class(3), (0, 0, 0));
        assert_eq!(length_class(10), (7, 0, 0));
        assert_eq!(length_class(11), (8, 0, 1));
        assert_eq!(length_class(12), (8, 1, 1));
        assert_eq!(length_class(257), (27, 30, 5));
        assert_eq!(length_class(258), (28, 0, 0));
        assert_eq!(distance_class(4), (3, 0, 0));
        assert_eq!(distance_class(5), (4, 0, 1));
        assert_eq!(distance_class(24577), (29, 0, 13));
        assert_eq!(distance_class(32768), (29, 8191, 13));
    }
}
