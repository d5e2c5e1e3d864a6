//! Chunks: samples of one series.

mod histogram;
mod xor;
mod xor2;

use stint_model::Columns;

use super::Damage;

/// How a chunk is encoded, by the number that stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding(pub u8);

impl Encoding {
    /// Floats.
    pub const XOR: Self = Self(1);
    /// Native histograms with integer counts.
    pub const HISTOGRAM: Self = Self(2);
    /// Native histograms with float counts.
    pub const FLOAT_HISTOGRAM: Self = Self(3);
    /// Floats, with start times where they are known.
    pub const XOR2: Self = Self(4);

    /// Whether chunks of this encoding can be read.
    pub const fn is_known(self) -> bool {
        matches!(self, Self::XOR | Self::HISTOGRAM | Self::FLOAT_HISTOGRAM | Self::XOR2)
    }
}

/// Appends the samples of a chunk to `out`, in the order in which they were written. What is
/// known about counter resets is forgotten: readers see it themselves, and what comes between two
/// chunks may make it untrue. A gauge stays one.
///
/// # Errors
/// The bytes are no such chunk; `out` then holds what could be read before.
pub fn decode(encoding: Encoding, data: &[u8], out: &mut Columns) -> Result<(), Damage> {
    let decoded = match encoding {
        Encoding::XOR => xor::decode(data, out),
        Encoding::HISTOGRAM => histogram::decode_integers(data, out),
        Encoding::FLOAT_HISTOGRAM => histogram::decode_floats(data, out),
        Encoding::XOR2 => xor2::decode(data, out),
        Encoding(_) => Err(Damage::new(0, "a chunk encoding of a later version of Prometheus")),
    };
    if !out.starts.is_empty() {
        out.starts.resize(out.times.len(), stint_model::Timestamp::MIN);
    }
    decoded
}

/// Splits the number of samples off.
fn counted(data: &[u8]) -> Result<(usize, &[u8]), Damage> {
    let (count, rest) =
        data.split_first_chunk::<2>().ok_or_else(|| Damage::new(0, "too short for a chunk"))?;
    Ok((usize::from(u16::from_be_bytes(*count)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(encoding in 0_u8..8, data: Vec<u8>) {
            let mut out = Columns::default();
            // What it comes to is no matter, but the columns have to stay columns.
            let _ = decode(Encoding(encoding), &data, &mut out);
            prop_assert_eq!(out.times.len(), out.values.len());
            prop_assert!(out.histograms.iter().all(|(row, _)| *row < out.times.len()));
        }
    }

    #[test]
    fn later_encodings_are_named_and_not_guessed() {
        let refused = decode(Encoding(5), &[0, 1, 0], &mut Columns::default()).unwrap_err();
        assert_eq!(refused.what, "a chunk encoding of a later version of Prometheus");
        assert!(!Encoding(5).is_known());
    }
}
